"""audit.py: what `migrate`, `history` and `reproduce` found, for people and as JSON. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator

import click

from registry_tool.checks.signatures import can_verify
from registry_tool.git.history import AsOf, History
from registry_tool.report import text
from registry_tool.signing.dsse import SignatureError
from registry_tool.toolkit import text_table
from registry_tool.values import Json, visible
from registry_tool.workflows.migrate import Migration
from registry_tool.workflows.reproduce import Outcome, Reproduced

MOST_CHANGES = 10  # shown of a manifest
OUTCOME_TEXTS = {
    Outcome.IDENTICAL: ("green", "made again, to the same bytes"),
    Outcome.WITHIN_TOLERANCE: ("yellow", "made again, to other bytes: predictions agree within tolerance"),
    Outcome.UNEXPLAINED: ("red", "NOT reproduced: bytes differ, and nothing recorded explains it"),
    Outcome.BEYOND_TOLERANCE: ("red", "NOT reproduced: predictions differ beyond tolerance"),
}


def migration(item: Migration) -> Iterator[str]:
    """One line a finding, with what was done about it; then what was made."""
    for found in item.findings:
        arrow = click.style(f" -> {found.resolution}", fg="green") if found.resolution else ""
        yield f"{text.finding(found.finding)}{arrow}"
    for name, why in item.broken.items():
        yield f"{name or 'the registry'}: {'left out' if item.skipped else 'cannot be taken over'}: {visible(why)}"
    for one in item.joined:
        yield f"joined: {one.entry.id} (smoke) from {one.source} and {', '.join(one.members) or 'no entries'}"
    if item.left_behind and item.done:
        yield f"left behind, since nothing names them: {visible(', '.join(item.left_behind))}"
    if item.done:
        yield "pinned: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(item.pinned.items()))
    resolved = sum(bool(one.resolution) for one in item.findings)
    counts = f"{len(item.findings)} findings, {resolved} resolved, {len(item.findings) - resolved} remaining"
    if not item.done:
        yield f"{item.new}: not made: {len(item.broken)} cannot be taken over; {counts}"
    else:
        already = "" if item.written else " (it was there already)"
        yield f"{item.new / 'registry.json'}: {len(item.registry.entries)} entries{already}; {counts}"


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
        "holes": [{**one.finding.to_dict(), "mended": one.resolution or None} for one in item.findings],
        "broken": dict(item.broken),
        "left_behind": list(item.left_behind),
    }


def signed_by(path: str, data: bytes | None) -> str:
    """Who made a signature or an attestation that an entry pinned, as it says itself."""
    action = "attested" if "ATTESTATION" in path else "signed"
    return f"{action} by {claimed(data)}" if data is not None else f"{action} by {path}, which the commit does not hold"


def claimed(data: bytes | None) -> str | None:
    """The signer that a bundle names, without any proof; None where nothing says so."""
    if data is None or not can_verify():
        return None
    from registry_tool.signing.bundle import claimed_signer

    try:
        return claimed_signer(data)
    except SignatureError:
        return None


def history(item: History) -> Iterator[str]:
    """One line an event, oldest first: when, what, on which evidence or for which reason, who, in which commit."""
    for event in item.events:
        details = event.details
        facts = [
            f"sha256 {str(details.get('sha256'))[:12]}",
            f"evidence {details['evidence_sha256'][:12]}" if details.get("evidence_sha256") else "",
            "its verdict is not the pinned one" if details.get("verdict_holds") is False else "",
            f"fields {', '.join(details['fields'])}" if event.action == "edited" else "",
            f"reason: {details['reason']}" if "reason" in details else "",
        ]
        facts += [signed_by(path, data) for path, data in event.added.items()]
        merged = f", merged in {event.merge[:12]}" if event.merge else ""
        who = event.who
        people = who.author if who.committer == who.author else f"{who.author}, committed by {who.committer}"
        source = f"{people}, {event.commit[:12]}{merged}, commit signature {who.signed}: {event.subject}"
        yield visible(f"{event.when}  {event.action}: {'; '.join(filter(None, facts))} ({source})")


def history_document(item: History) -> dict[str, Json]:
    """The JSON of `history --format json`; its schema is schemas/history.schema.json."""
    return {
        "entry": item.entry,
        "shallow": item.shallow,
        "events": [
            {
                "what": event.action,
                "landed": event.landed.isoformat(),
                "author": event.who.author,
                "committer": event.who.committer,
                "commit_signature": {
                    "status": event.who.status,
                    "words": event.who.signature,
                    "signer": event.who.signer,
                },
                "signed_by": [
                    {"path": path, "signer": claimed(data), "pinned": data is not None}
                    for path, data in event.added.items()
                ],
                "commit": event.commit,
                "merge": event.merge,
                "subject": event.subject,
                "details": dict(event.details),
            }
            for event in item.events
        ],
    }


def as_of(item: AsOf) -> Iterator[str]:
    moment = item.moment.isoformat(timespec="seconds")
    for row in item.rows:
        yield visible(f"{row['id']}: production on {moment}: sha256 {row.get('sha256')}, commit {item.commit}")
    if not item.rows:
        yield f"nothing of that name was production on {moment}"


def as_of_document(item: AsOf) -> dict[str, Json]:
    """The JSON of `history --as-of DATE --format json`."""
    return {
        "as_of": item.moment.isoformat(),
        "commit": item.commit,
        "shallow": item.shallow,
        "production": [dict(row) for row in item.rows],
    }


def reproduction(item: Reproduced) -> Iterator[str]:
    """The outcome, each file, what the manifest says otherwise, the environments' differences, the predictions."""
    colour, words = OUTCOME_TEXTS[item.outcome]
    beside = f", {len(item.unchecked)} of the files not checked" if item.unchecked else ""
    yield f"{item.entry}: {click.style(words, fg=colour, bold=True)}{beside}"
    for name, same in item.files.items():
        yield f"  {'same   ' if same else 'differs'} {name}"
    for name in item.unchecked:
        yield f"  not checked {name}"
    for change in sorted(item.changes, key=lambda change: change.explained)[:MOST_CHANGES]:
        why = "follows from the weights, or is rounding" if change.explained else "nothing recorded explains it"
        yield f"  {visible(f'{change.pointer}: then {change.old!r:.60}, now {change.new!r:.60} ({why})')}"
    if len(item.changes) > MOST_CHANGES:
        yield f"  and {len(item.changes) - MOST_CHANGES} more values of the manifest: --format json"
    if item.added:
        yield f"  not recorded then, so not compared: {visible(', '.join(item.added))}"
    if item.outcome is Outcome.IDENTICAL:
        return
    for one in item.environment:
        versions = f"then {one.old or 'not recorded'}, now {one.new or 'not recorded'}"
        yield f"  {visible(f'{one.name}: {versions}')}{f': may explain it: {one.decides}' if one.decides else ''}"
    if not any(one.decides for one in item.environment):
        yield "  no difference between then and now explains it: other training made these files"
    header = ["predictions", "largest difference", "RMS", "tolerance", "unit", ""]
    rows = [
        [a.name, f"{a.largest:.3g}", f"{a.rms:.3g}", f"{a.tolerance:.3g}", a.unit, "ok" if a.holds else "FAIL"]
        for a in item.agreements
    ]
    yield from text_table([header, *rows])
