"""add.py: the story of `registry add`: read a model and its files, pin them, register it as smoke. Prints nothing.

The model is held to what `registry validate` finds, which reads and runs it in a child process; nothing is registered
that would not validate.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from registry_tool.checks.external_data import locations
from registry_tool.documents.entries import ONNX_MAX_BYTES, sha256_of, stem
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError, RejectedError
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.named import read_named
from registry_tool.storage.paths import check_path
from registry_tool.values import EMPTY, Entry, Json, Policy, one_line
from registry_tool.workflows.evidence import remove_evidence
from registry_tool.workflows.initialise import locked_new, prepare
from registry_tool.workflows.loading import Published, publish, registry_for_new_entry

FILE_NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx", re.ASCII)  # as `registry.json` may hold it
REWRITTEN_FIELDS = (  # of an entry that gets another model
    *("onnx", "sha256", "opset", "external_data", "sidecar_sha256", "int8_sha256", "signatures", "evidence"),
    *("quant_mode", "quant_calibration_set", "quant_accuracy_budget_plcc"),
)


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to register. sidecar: None for the `.json` of the model's name beside it, where there is one.

    int8: its quantised variant. fields: further fields of the entry. update: the id is there, smoke, and gets other
    bytes; its other fields stay.
    """

    entry_id: str
    kind: str
    file: Path
    sidecar: Path | None = None
    int8: Path | None = None
    fields: Mapping[str, Json] = field(default_factory=dict)
    update: bool = False


def add(path: Path, plugins: Plugins, model: NewModel) -> Published:
    """Register a model as smoke, with a copy of its files in a folder of their digest.

    Raises InputError for what cannot be read or an id that cannot be taken, RejectedError, with findings, for a model
    that would not validate.
    """
    plugins.need_all()
    _check_kind(plugins, model.kind)
    before = _target(path, model)
    files, pins = _files(model, before.registry.policies.get(model.kind, Policy()))
    folder = posixpath.join(model.entry_id, _digest(files)[:12])
    with locked_new(path):
        loaded = _target(path, model)
        plugins.need(loaded.registry.requires)
        old = loaded.registry.entry(model.entry_id)
        was = old.document if old is not None else EMPTY
        kept = {key: value for key, value in was.items() if key not in REWRITTEN_FIELDS}
        entry = Entry.from_dict(
            {**kept, "id": model.entry_id, "kind": model.kind, "smoke": True, **_below(folder, pins), **model.fields}
        )
        try:
            done = publish(loaded, plugins, entry, files, RejectedError)
        except RejectedError:
            with suppress(OSError):  # other models of the id are there
                (path.parent / model.entry_id).rmdir()
            raise
        prepare(path.parent)
        if old is not None:
            remove_evidence(path.parent, loaded.registry.with_entry(done.entry), old)
    return done


def _check_kind(plugins: Plugins, name: str) -> None:
    kind = plugins.kinds.get(name)
    single = sorted(kind for kind, known in plugins.kinds.items() if known.schema is None)
    if kind is None or kind.schema is not None:
        fault = f"unknown kind {name!r}" if kind is None else f"kind {name!r} is no single model: it is trained"
        raise InputError(f"{fault}, expected one of {', '.join(single)}: name it with --kind")


def _target(path: Path, model: NewModel) -> Loaded:
    loaded = registry_for_new_entry(path, model.kind, model.entry_id)
    old = loaded.registry.entry(model.entry_id)
    if old is not None and not model.update:
        raise InputError(f"{path}: {model.entry_id} is there, expected a new id: say --update to give it other bytes")
    if old is None and model.update:
        raise InputError(f"{path}: no entry {model.entry_id!r} to update: leave --update out")
    return loaded


def _files(model: NewModel, policy: Policy) -> tuple[dict[str, bytes], dict[str, Json]]:
    """The files of the model's folder by name, and the fields that pin them, in paths relative to it."""
    limit: int = policy.extra.get("max_file_bytes", ONNX_MAX_BYTES)
    data, name = _read(model.file, limit), check_path(model.file.name)
    if not FILE_NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"{model.file}: expected a name of letters of ASCII, digits, -, _ and . that ends in .onnx: rename it"
        )
    files, summary = {name: data}, _summary(model.file, data)
    pins: dict[str, Json] = {"onnx": name, "sha256": sha256_of(data), "opset": summary.opsets.get("")}
    for location in locations(summary):
        files[check_path(location)] = _read(model.file.parent / location, limit)
    if further := [other for other in files if other != name]:
        pins["external_data"] = [
            {"path": other, "sha256": sha256_of(files[other]), "bytes": len(files[other])} for other in further
        ]
    own = model.file.with_suffix(".json")
    if (sidecar := model.sidecar or (own if own.exists() else None)) is not None:
        files[own.name] = _read(sidecar, limit)
        pins["sidecar_sha256"] = sha256_of(files[own.name])
    if model.int8 is not None:
        variant = f"{stem(name)}.int8.onnx"
        files[variant] = _read(model.int8, limit)
        pins["int8_sha256"] = sha256_of(files[variant])
    return files, {key: value for key, value in pins.items() if value is not None}


def _digest(files: Mapping[str, bytes]) -> str:
    """Of the model alone, or of it and what lies beside it: the same model with another sidecar has another folder."""
    digests = [sha256_of(data) for _, data in sorted(files.items())]
    return digests[0] if len(digests) == 1 else sha256_of("".join(digests).encode())


def _summary(file: Path, data: bytes) -> OnnxSummary:
    with Prober() as prober:
        try:
            return prober.read(data)
        except OnnxError as error:
            raise InputError(f"{file}: not a model that can be read: {one_line(str(error))}") from error


def _read(file: Path, limit: int) -> bytes:
    return read_named(file, limit, "a file", "raise `max_file_bytes` in the policy")


def _below(folder: str, pins: Mapping[str, Json]) -> dict[str, Json]:
    """The same pins in paths relative to the registry's folder."""
    external = [{**pin, "path": posixpath.join(folder, pin["path"])} for pin in pins.get("external_data", ())]
    placed = {**pins, "onnx": posixpath.join(folder, pins["onnx"])}
    return placed | ({"external_data": external} if external else {})
