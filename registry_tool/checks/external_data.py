"""external_data.py: weights that an ONNX model keeps in other files. Opens nothing but pinned files of the entry."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Collection, Iterator, Sequence

from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.legacy.manifests import MIGRATE_HINT
from registry_tool.onnx_summary import ExternalTensor, OnnxSummary
from registry_tool.sandbox.probed import EXPORT_AGAIN_HINT
from registry_tool.storage.paths import FileProblem, check_path
from registry_tool.values import Artifact, first_names, one_line

EXTERNAL_ESCAPES = FindingRule(
    "onnx-external-escapes",
    "external data outside the model's folder",
    why="The model could read any file of the machine. The file was not opened.",
    message="external data at an unusable path: {reason}",
    expected="a path inside the model's folder",
    hint="export the model with its weights inside",
    example="../w.data",
)
EXTERNAL_UNPINNED = FindingRule(
    "onnx-external-unpinned",
    "unpinned external data",
    why="The weights can be replaced or zeroed while every digest matches.",
    message="unpinned external data {file}",
    expected="a sha256",
    hint="add its path, sha256 and bytes to `external_data` of the entry: the finding prints the object",
    example="model.onnx.data",
)
EXTERNAL_UNREADABLE = FindingRule(
    "onnx-external-unreadable",
    "external data cannot be read",
    why="The model does not load.",
    message="external data cannot be read: {reason}",
    expected="a file beside the model",
    hint="restore the file",
    example="model.onnx.data deleted, or a link",
)
EXTERNAL_CHECKSUM = FindingRule(
    "onnx-external-checksum",
    "SHA-1 mismatch of external data",
    why="The weights were replaced.",
    message="{file} does not have the SHA-1 that the graph names",
    hint="restore the file, or export the model again",
    example="another SHA-1",
)
EXTERNAL_WEAK = FindingRule(
    "onnx-external-weak",
    "external data pinned by SHA-1 alone",
    why="Two files with one SHA-1 can be made on purpose.",
    message="{file} is pinned by SHA-1 alone, which can be forged",
    expected="its sha256 in `external_data` of the entry",
    hint=MIGRATE_HINT,
    example="checksum in version 1",
    severity=Severity.WARNING,
)
EXTERNAL_RANGE = FindingRule(
    "onnx-external-range",
    "tensor ranges that overlap or leave the external data",
    why="Readers fail, or read other bytes; one region named often is many copies in memory.",
    message="{tensors} overlap or leave the external data",
    hint=EXPORT_AGAIN_HINT,
    example="offset 999999 in a file of 24 bytes",
)


def locations(summary: OnnxSummary) -> list[str]:
    """The files with further weights, as the model names them."""
    return sorted({tensor.location for tensor in summary.external})


def check_external(
    summary: OnnxSummary, view: VerifiedEntry, model: Artifact, weak_pins: bool, stored: dict[str, bytes]
) -> Iterator[Finding]:
    """Weights in other files. Fills `stored`, location -> bytes, with those whose digest was compared."""
    place = InFile(model.path, view.entry.id)
    names = {artifact.path: name for name, artifact in view.artifacts.items()}
    for location in locations(summary):
        tensors = [tensor for tensor in summary.external if tensor.location == location]
        try:
            path = posixpath.join(posixpath.dirname(model.path), check_path(location))
        except FileProblem as problem:
            yield EXTERNAL_ESCAPES.at(place, found=show(location), reason=one_line(str(problem)))
            continue
        if path in names:
            stored[location] = view.read(names[path])
        else:
            yield _read_unpinned(view, path, tensors, weak_pins, stored, place)
        if location not in stored:
            continue
        total, room = sum(tensor.size for tensor in tensors), len(stored[location])
        if total > room:  # one region named a thousand times is a thousand copies in memory
            subject = f"the tensors in {show(location)}"
            yield EXTERNAL_RANGE.at(place, found=f"{total} bytes", expected=f"at most {room}", tensors=subject)
            continue
        for tensor in tensors:
            values = memoryview(stored[location])[tensor.offset :]
            length = len(values) if tensor.length is None else tensor.length
            if length != tensor.size or length > len(values):
                found = f"{length} bytes at {tensor.offset} of {room}"
                subject = f"the values of {show(tensor.tensor)} in {show(location)}"
                yield EXTERNAL_RANGE.at(place, found=found, expected=f"{tensor.size} bytes", tensors=subject)


def _read_unpinned(
    view: VerifiedEntry,
    path: str,
    tensors: Sequence[ExternalTensor],
    weak_pins: bool,
    stored: dict[str, bytes],
    place: InFile,
) -> Finding:
    """A file that no sha256 pins: a finding in any case, with the object to paste where nothing pins it at all.

    Version 1: it counts as pinned where every tensor in it carries its SHA-1, which can be forged.
    """
    location = tensors[0].location
    try:
        data = view.files.read_unpinned(path)
    except FileProblem as problem:
        return EXTERNAL_UNREADABLE.at(place, found=show(location), reason=one_line(str(problem)))
    if weak_pins and all(tensor.checksum for tensor in tensors):
        checksums = sorted({(tensor.checksum or "").lower() for tensor in tensors})
        digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if checksums != [digest]:
            return EXTERNAL_CHECKSUM.at(place, found=digest, expected=name_list(checksums), file=show(location))
        stored[location] = data
        return EXTERNAL_WEAK.at(place, found="sha1", file=show(location))
    base = posixpath.dirname(view.entry.manifest or "")
    pin = {"path": posixpath.relpath(path, base or "."), "sha256": sha256_of(data), "bytes": len(data)}
    document = "the manifest" if view.entry.manifest else "`external_data` of the entry"
    text = json.dumps(pin).replace("{", "{{").replace("}", "}}")  # a hint is a format
    hint = MIGRATE_HINT if weak_pins else f"if these are the right weights, add {text} to {document}"
    found = f"none (the file's is {pin['sha256']})"  # of other weights it is another finding: a list of known ones
    return EXTERNAL_UNPINNED.at(place, found=found, hint=hint, file=show(location))


def name_list(names: Collection[str]) -> str:
    """The first names, quoted, and how many more there are."""
    return first_names([show(name) for name in names])
