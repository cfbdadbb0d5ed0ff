"""ensembles.py: manifests of version 1 that no entry names, verified like an entry's. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from registry_tool.documents.entries import BrokenEntry, ReadEntry, VerifiedEntry, pins_of, verify_entry
from registry_tool.findings import InFile
from registry_tool.legacy.manifests import entry_of, json_files
from registry_tool.legacy.members import read_members
from registry_tool.plugins.inspection import Inspection
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse
from registry_tool.values import Entry, Json


def read_ensembles(inspection: Inspection) -> Iterator[VerifiedEntry | BrokenEntry]:
    """The manifests beside the models of a registry of version 0 or 1, of any kind that has a schema."""
    if inspection.registry.schema_version >= 2:
        return
    for path in json_files(inspection.folder, inspection.loaded):
        try:
            data = inspection.folder.read(path, JSON_MAX_BYTES)
            value = parse(data).value
        except (FileProblem, JsonProblem):
            continue  # `validate` reports it
        kind = inspection.plugins.kinds.get(str(value.get("kind"))) if isinstance(value, dict) else None
        if kind is not None and kind.schema is not None:
            entry = entry_of(path, data, value, kind)
            yield verify_entry(inspection.reader, entry, InFile(path, entry.id))


def lists(ensemble: ReadEntry, member: Entry) -> bool:
    """Whether the ensemble's manifest names the entry as its member, with these very bytes."""
    pins = (pin for key, pin, _ in pins_of(ensemble.manifest or {}) if key == "onnx")
    artifacts = [(pin, ensemble.artifacts[pin["onnx"]]) for pin in pins if pin["onnx"] in ensemble.artifacts]
    return any(made.path == member.onnx and pin["sha256"] == member.sha256 for pin, made in artifacts)


def corpora(ensemble: ReadEntry, inspection: Inspection) -> dict[str, Mapping[str, Json]]:
    """What the sidecars of a version-1 ensemble's members say of their corpus, by member; of version 2 none does."""
    manifest = ensemble.manifest or {}
    if "schema_version" in manifest:
        return {}
    pins = [(pin, place) for key, pin, place in pins_of(manifest) if key == "onnx"]
    found = {member.id: member.sidecar.get("corpus") for member in read_members(ensemble, pins, inspection.quick())}
    return {name: corpus for name, corpus in found.items() if isinstance(corpus, Mapping)}
