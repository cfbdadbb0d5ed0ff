"""verdicts.py: stored verdicts of version 1, and production entries that they contradict. Reads no files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from registry_tool.documents.store import located
from registry_tool.findings import Finding, FindingRule, InFile
from registry_tool.strictjson import Document
from registry_tool.values import Entry, Json, Registry

CONTRADICTS = FindingRule(
    "verdict-contradicts",
    "production entry with a verdict of HOLD",
    why="A model that was judged and held ships. Only version 1 can hold both.",
    message="{id} is production, but did not pass its gate",
    expected="PROMOTE, or smoke: true",
    hint="set smoke to true, or remove a verdict that was replaced",
    example="e_seed_flip_HOLD.json beside smoke: false",
)


def contradictions(
    registry: Registry,
    verdicts: Mapping[str, Document],
    sidecars: Mapping[str, Document],
    listed: Mapping[str, set[str]],
) -> Iterator[Finding]:
    """Production entries beside a HOLD verdict, or with a sidecar whose gate failed.

    verdicts, sidecars: documents by file; a sidecar's is of the entry whose model lies beside it. listed: an
    ensemble's id -> ids and files of its members. A verdict is on the entry that it names, else on the one (or the
    ensemble) whose id its file's name begins with.
    """
    rows = {f"{entry.onnx.removesuffix('.onnx')}.json": entry for entry in registry.entries if entry.onnx}
    ensembles = {path: str(document.value.get("ensemble_id")) for path, document in sidecars.items()}
    for path, document in sidecars.items():
        gate, entry = document.value.get("gate"), rows[path]
        if entry.is_production and isinstance(gate, dict) and _failed(gate):
            yield from located([_finding(entry, path, "/gate", gate)], {path: document})
    for path, document in verdicts.items():
        if not (_failed(document.value) or _failed(document.value.get("gate"))):
            continue
        names = {*listed, *ensembles.values(), *(entry.id for entry in registry.entries)}
        stem = str(document.value.get("entry") or posixpath.basename(path))
        subject = max((name for name in names if stem.startswith(name)), key=len, default=None)
        for place, entry in rows.items():
            members = listed.get(str(subject), set())
            if entry.is_production and (
                subject in (entry.id, ensembles.get(place)) or {entry.id, str(entry.onnx)} & members
            ):
                yield from located([_finding(entry, path, "/verdict", document.value)], {path: document})


def _failed(gate: Json) -> bool:
    return isinstance(gate, dict) and (
        gate.get("passed") is False or str(gate.get("verdict")).strip().upper() == "HOLD"
    )


def _finding(entry: Entry, file: str, pointer: str, gate: Mapping[str, Json]) -> Finding:
    found = "verdict HOLD" if str(gate.get("verdict")).strip().upper() == "HOLD" else "gate.passed false"
    return CONTRADICTS.at(InFile(file, entry.id), pointer, found=found, id=entry.id)
