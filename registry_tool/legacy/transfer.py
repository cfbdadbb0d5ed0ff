"""transfer.py: files of an old registry taken over into a new folder, each read once and held to its pin."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry_tool.documents.entries import ONNX_MAX_BYTES, sha256_of, stem
from registry_tool.plugins.inspection import Inspection
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.paths import check_path
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse
from registry_tool.values import Json


class TransferError(Exception):
    """Why an entry, or a manifest, cannot be taken over."""


@dataclass(frozen=True, slots=True)
class TakenModel:
    """A model that was taken over, with what lies beside it; every path is the old one.

    graphs: the ONNX file, and its int8 variant where there is one. sidecar, bundle: pins. data: the sidecar's bytes.
    """

    graphs: tuple[str, ...]
    external_data: tuple[Mapping[str, Json], ...]
    sidecar: Mapping[str, str] | None
    bundle: Mapping[str, str] | None
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was taken from the folder under inspection into the folder `stage` so far.

    taken: path in the old folder -> sha256. pinned: how many files of each sort have a sha256 now.
    """

    inspection: Inspection
    prober: Prober
    stage: Path
    taken: dict[str, str] = field(default_factory=dict)
    pinned: Counter[str] = field(default_factory=Counter)
    _placed: dict[str, str] = field(default_factory=dict)  # path in the new folder -> sha256

    @property
    def digest(self) -> str:
        """The sha256 of the old registry."""
        return sha256_of(self.inspection.loaded.document.data)

    def take(self, path: str, digest: str | None, target: str, max_bytes: int = JSON_MAX_BYTES) -> bytes:
        """Read a file once, compare it with its pin, write it. Raises FileProblem, TransferError."""
        data = self.inspection.folder.read(check_path(path), max_bytes)
        found = sha256_of(data)
        if digest is not None and found != digest:
            raise TransferError(f"{path}: its sha256 is {found}, the registry says {digest}: restore the file")
        if self._placed.setdefault(target, found) != found:
            raise TransferError(f"{target}: two different files would have this name: rename one")
        write_atomic(self.stage / target, data, root=self.stage)
        self.taken[path] = found
        return data

    def take_model(
        self, onnx: str, digest: str, row: Mapping[str, Json], kind: str, target: Callable[[str], str]
    ) -> TakenModel:
        """Take a model and what lies beside it. row: its entry's document. target: an old path -> the new one."""
        max_bytes = self.max_file_bytes(kind)
        graphs = {onnx: digest}
        if "int8_sha256" in row:
            graphs[f"{stem(onnx)}.int8.onnx"] = row["int8_sha256"]
        checksums: dict[str, set[str]] = {}  # SHA-1 that the graphs give for a file with weights
        for path, pin in graphs.items():
            data = self.take(path, pin, target(path), max_bytes)
            for tensor in self.prober.read(data, sha256=self.taken[path]).external:
                location = posixpath.join(posixpath.dirname(path), check_path(tensor.location))
                checksums.setdefault(location, set()).update([tensor.checksum.lower()] if tensor.checksum else [])
        known = {pin["path"]: pin["sha256"] for pin in row.get("external_data", ())}
        external: list[dict[str, Json]] = []
        for path in sorted({*checksums, *known}):
            data = self.take(path, known.get(path), target(path), max_bytes)
            _compare_sha1(path, data, checksums.get(path, set()))
            external.append({**self.pin(path), "bytes": len(data)})
        sidecar, sidecar_pin = f"{stem(onnx)}.json", row.get("sidecar_sha256")
        exists = sidecar_pin is not None or self.inspection.folder.exists(sidecar)
        sidecar_data = self.take(sidecar, sidecar_pin, target(sidecar)) if exists else None
        bundle: str | None = row.get("sigstore_bundle")
        if bundle is not None and self.inspection.folder.exists(bundle):
            self.take(bundle, None, target(bundle))
        else:
            bundle = None
        self.pinned.update(models=len(graphs), sidecars=int(exists), external_data=len(external))
        return TakenModel(
            tuple(graphs),
            tuple(external),
            self.pin(sidecar) if exists else None,
            self.pin(bundle) if bundle is not None else None,
            sidecar_data,
        )

    def pin(self, path: str) -> dict[str, str]:
        """The pin of a file that was taken."""
        return {"path": path, "sha256": self.taken[path]}

    def max_file_bytes(self, kind: str) -> int:
        limit: int = self.inspection.policy(kind).extra.get("max_file_bytes", ONNX_MAX_BYTES)
        return limit


def _compare_sha1(path: str, data: bytes, checksums: set[str]) -> None:
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    if wrong := checksums - {sha1}:
        raise TransferError(f"{path}: its SHA-1 is {sha1}, the model says {min(wrong)}: restore the file")


def json_object(path: str, data: bytes) -> dict[str, Json]:
    """The JSON object in these bytes. Raises TransferError where there is none."""
    try:
        value = parse(data).value
    except JsonProblem as problem:
        raise TransferError(f"{path}: {problem}") from problem
    if not isinstance(value, dict):
        raise TransferError(f"{path}: found no JSON object, expected one")
    return value
