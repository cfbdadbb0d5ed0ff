"""evidence.py: the story of `registry evidence`: a single model run on a person's rows, and what it gave pinned."""

from __future__ import annotations

import posixpath
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry_tool.documents import store
from registry_tool.documents.entries import sha256_of
from registry_tool.errors import InputError, RejectedError
from registry_tool.plugins.manager import Plugins
from registry_tool.plugins.single_evidence import DataRequest, SingleEvidence, make_evidence, read_evidence
from registry_tool.storage.staging import remove_from
from registry_tool.storage.writing import write_atomic
from registry_tool.values import EMPTY, Entry, Registry
from registry_tool.workflows.loading import changing, inspected, save_sound, verified

EVIDENCE_FOLDER = "evidence"  # of single models, in the folder of the entry's id


@dataclass(frozen=True, slots=True)
class Written:
    """The entry with its evidence, and the file, below the registry's folder."""

    entry: Entry
    path: str
    evidence: SingleEvidence


def evidence(path: Path, plugins: Plugins, entry_id: str, request: DataRequest) -> Written:
    """Run a smoke entry's model on rows, in the sandbox, and pin rows, targets and predictions beside it.

    Raises InputError for rows that do not fit the model, and for a kind that does not gate single models;
    RejectedError for a production entry, and for evidence that would not validate.
    """
    plugins.need_all()
    with changing(path) as loaded, inspected(loaded, plugins) as inspection:
        view = verified(inspection, entry_id)
        entry = view.entry
        if loaded.registry.schema_version != store.REGISTRY_VERSION:
            version = loaded.registry.schema_version
            raise InputError(
                f"{path}: schema_version {version} pins no evidence, expected {store.REGISTRY_VERSION}: "
                f"make one of version {store.REGISTRY_VERSION} with `registry migrate {path} -o NEW`"
            )
        if entry.onnx is None:
            raise InputError(f"{entry_id}: found a manifest, expected one ONNX file: its plugin makes its evidence")
        if "registry_gate" not in plugins.owner(entry.kind).hooks:
            raise InputError(f"{entry_id}: the kind {entry.kind!r} has no gate, expected fr, nr or filter")
        if entry.is_production:
            raise RejectedError(
                f"{entry_id}: it is production, and what it was judged on does not change: take a new --id"
            )
        data = make_evidence(view, request)
        digest = sha256_of(data)
        target = f"{entry_id}/{EVIDENCE_FOLDER}/{digest[:12]}.npz"
        made = None if (path.parent / target).exists() else target
        write_atomic(path.parent / target, data, root=path.parent)
        pinned = entry.with_fields(evidence={"path": target, "sha256": digest})
        save_sound(inspection, loaded.registry.with_entry(pinned), pinned, made, RejectedError)
        remove_evidence(path.parent, loaded.registry.with_entry(pinned), entry)
    return Written(pinned, target, read_evidence(data))


def remove_evidence(root: Path, registry: Registry, entry: Entry) -> None:
    """Remove the evidence of an entry that was replaced, if `evidence` wrote it and no entry of `registry` pins it."""
    path = _evidence_path(entry)
    if path not in map(_evidence_path, registry.entries):
        with suppress(OSError):
            remove_from(root, posixpath.join(entry.id, EVIDENCE_FOLDER), path)


def _evidence_path(entry: Entry) -> str:
    path: str = entry.document.get("evidence", EMPTY).get("path", "")
    return posixpath.normpath(path)
