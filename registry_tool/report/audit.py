"""audit.py: what `migrate`, `history` and `reproduce` found, for people and as JSON. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator

import click

from registry_tool.migrate import Migration
from registry_tool.report import text
from registry_tool.values import Json


def migration(item: Migration) -> Iterator[str]:
    """One line a hole, with what was done about it; then what was made."""
    for hole in item.holes:
        then = click.style(f" -> {hole.mended}", fg="green") if hole.mended else ""
        yield f"{text.finding(hole.finding)}{then}"
    for name, why in item.broken.items():
        yield f"{name or 'the registry'}: {'left out' if item.skipped else 'cannot be taken over'}: {text.visible(why)}"
    for one in item.joined:
        yield f"joined: {one.entry.id} (smoke) from {one.source} and {', '.join(one.members) or 'no entries'}"
    if item.left_behind:
        yield f"left behind, since nothing names them: {text.visible(', '.join(item.left_behind))}"
    yield "pinned: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(item.pinned.items()))
    still = sum(not hole.mended for hole in item.holes)
    holes = f"{len(item.holes)} holes, {len(item.holes) - still} mended, {still} still there"
    if not item.done:
        yield f"{item.new}: not made: {len(item.broken)} cannot be taken over; {holes}"
    else:
        already = "" if item.written else " (it was there already)"
        yield f"{item.new / 'registry.json'}: {len(item.registry.entries)} entries{already}; {holes}"


def migration_document(item: Migration) -> dict[str, Json]:
    """The JSON of `migrate --format json`; its schema is schemas/migration.schema.json."""
    return {
        "old": str(item.old),
        "new": str(item.new),
        "imported_from": item.imported_from,
        "made": item.done,
        "written": item.written,
        "entries": len(item.registry.entries),
        "pinned": dict(item.pinned),
        "joined": [
            {"id": one.entry.id, "manifest": one.entry.manifest, "source": one.source, "members": list(one.members)}
            for one in item.joined
        ],
        "holes": [{**hole.finding.to_dict(), "mended": hole.mended or None} for hole in item.holes],
        "broken": dict(item.broken),
        "left_behind": list(item.left_behind),
    }
