"""ensembles.py: manifests of version 1 that no entry names, opened like an entry's. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator

from registry_tool.documents.entries import ONNX_MAX_BYTES, OpenEntry, pins_of, sha256_of
from registry_tool.documents.store import Loaded
from registry_tool.legacy.manifests import json_files
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import FileProblem, Folder
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse
from registry_tool.values import Entry


def open_ensembles(folder: Folder, loaded: Loaded, plugins: Plugins, prober: Prober | None) -> Iterator[OpenEntry]:
    """The manifests beside the models of a registry of version 0 or 1, of any kind that has a schema."""
    if loaded.registry.schema_version >= 2:
        return
    for path in json_files(folder, loaded):
        try:
            data = folder.read(path, JSON_MAX_BYTES)
            value = parse(data).value
        except (FileProblem, JsonProblem):
            continue  # `validate` reports it
        kind = plugins.kinds.get(str(value.get("kind"))) if isinstance(value, dict) else None
        if kind is not None and kind.schema is not None:
            entry = Entry(
                str(value.get("id")), kind.name, bool(value.get("smoke", True)), sha256_of(data), manifest=path
            )
            yield OpenEntry(folder, entry, None, path, ONNX_MAX_BYTES, prober).open(kind, keep=True)


def lists(ensemble: OpenEntry, member: Entry) -> bool:
    """Whether the ensemble's manifest names the entry as its member, with these very bytes."""
    pins = (pin for key, pin, _ in pins_of(ensemble.manifest or {}) if key == "onnx")
    return any(ensemble.artifacts[pin["onnx"]].path == member.onnx and pin["sha256"] == member.sha256 for pin in pins)
