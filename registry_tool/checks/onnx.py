"""onnx.py: judges what an entry's ONNX files say about themselves. Parses no ONNX, opens nothing unpinned.

The order fails closed: the file's facts first, then external data, and only on what survived onnx's own checker. The
facts are read, the checker and the model are run, in the prober's child, which never sees a file name: external tensors
are put in from the bytes whose digest holds.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from registry_tool.checks.operators import ALLOWED_OPS
from registry_tool.documents.entries import OpenEntry
from registry_tool.documents.schema import show
from registry_tool.hookspec import Kind
from registry_tool.onnx_summary import ExternalTensor, OnnxError, OnnxSummary, Port
from registry_tool.sandbox.prober import AGAIN, HINT, MESSAGES, Prober
from registry_tool.storage.files import FileProblem, check_path
from registry_tool.values import Artifact, Finding, Severity

Make = Callable[..., Finding]  # a Finding on one file: code, message and further fields
WARNING = Severity.WARNING
OPSETS = range(7, 22)  # what a registry's `opset` may say
MAX_ELEMENTS = 2**26  # of a tensor that a constant makes: 256 MiB of float32, two 8K RGB frames
MAX_ROUNDS = 2**16  # of a Loop
# Exporters note a stack trace of a few KiB on every node; a picture, a program or a second model is larger.
MAX_METADATA_BYTES = 2**16
MAX_TEXT_BYTES, MAX_TEXT_BYTES_A_NODE = 2**18, 2**13
INT8 = ".int8.onnx"
SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class Model:
    """A model that passed. others: the files with further weights, by the location that the model names."""

    file: str
    data: bytes
    others: Mapping[str, bytes]


def check_models(opened: OpenEntry, kind: Kind, schema_version: int = 2) -> tuple[list[Finding], list[Model]]:
    """Findings on every pinned `.onnx` file of a sound entry, whose `file` has no lines; and the models that passed.

    schema_version: the registry's; below 2, external data counts as pinned by SHA-1 checksums inside the graph.
    """
    findings: list[Finding] = []
    passed: list[Model] = []
    seen: dict[str, OnnxSummary] = {}
    for name in (path for path in opened.paths if path.endswith(".onnx")):
        finding = partial(Finding, entry=opened.entry.id, file=opened.artifacts[name].path)
        try:
            seen[name] = opened.onnx(name)
        except OnnxError as error:
            hint = "restore the file, or export it again" if error.code == "onnx-unreadable" else HINT
            findings.append(finding(error.code, _text(error), hint=hint))
            continue
        found, stored = _check_summary(opened, name, kind, schema_version < 2, seen[name])
        findings += found
        if stored is not None:
            passed.append(Model(opened.artifacts[name].path, opened.read(name), stored))
    for name in seen:
        plain = f"{name.removesuffix(INT8)}.onnx"
        if name.endswith(INT8) and plain in seen:
            finding = partial(Finding, entry=opened.entry.id, file=opened.artifacts[name].path)
            findings += _check_same_ports(seen[name], seen[plain], plain, finding)
    return findings, passed


def run_model(opened: OpenEntry, model: Model) -> list[Finding]:
    """The finding on a model that onnxruntime does not load, or does not run once."""
    code, seen = _prober(opened).run(model.data, model.others)
    finding = partial(Finding, entry=opened.entry.id, file=model.file)
    return [finding(code, MESSAGES[code], found=seen, hint=HINT)] if code else []


def _prober(opened: OpenEntry) -> Prober:
    if opened.prober is None:
        raise ValueError(f"{opened.entry.id}: opened without a prober, expected one for its models")
    return opened.prober


def _check_summary(
    opened: OpenEntry, name: str, kind: Kind, weak_pins: bool, summary: OnnxSummary
) -> tuple[list[Finding], dict[str, bytes] | None]:
    """Findings on one model, and the files with further weights; None in their place where it did not pass."""
    data, finding = opened.read(name), partial(Finding, entry=opened.entry.id, file=opened.artifacts[name].path)
    stored: dict[str, bytes] = {}
    findings = [
        *_check_container(summary, finding),
        *_check_operators(summary, kind, finding),
        *_check_opset(summary, opened, name, finding),
        *_check_external(summary, opened, opened.artifacts[name], weak_pins, stored, finding),
    ]
    if any(f.severity is Severity.ERROR for f in findings):
        return findings, None
    if stored:
        try:
            outside = _prober(opened).read(data, stored).non_finite
        except OnnxError as error:
            return [*findings, finding(error.code, _text(error), hint=HINT)], None
        if outside:
            return [*findings, _not_finite(outside, finding)], None
    code, what = _prober(opened).check(data, stored)
    if code:
        return [*findings, finding(code, f"{MESSAGES[code]}: {what}", hint=AGAIN)], None
    return findings, stored


def _not_finite(names: Collection[str], finding: Make) -> Finding:
    return finding("onnx-not-finite", "NaN or infinity among the weights", found=_names(names), expected="none",
                   hint=AGAIN)  # fmt: skip


def _check_container(summary: OnnxSummary, finding: Make) -> Iterator[Finding]:
    """What a file could hide or lacks: hidden bytes, functions, weights that are no numbers, no inputs."""
    again = "export the model again"
    for code, what, names in (
        ("onnx-protobuf", "protobuf content that ONNX does not define", summary.oddities),
        ("onnx-function", "model-local functions", summary.functions),
        ("onnx-tensor", "tensors whose bytes do not fit their type and shape", summary.malformed),
    ):
        if names:
            yield finding(code, what, found=_names(names), expected="none", hint=again)
    if summary.non_finite:
        yield _not_finite(summary.non_finite, finding)
    if summary.training_info:
        yield finding("onnx-training", "training information beside the graph", hint="export the model for inference")
    if summary.unused:
        yield finding(
            "onnx-unused", "tensors that nothing in the graph reads", severity=WARNING, found=_names(summary.unused),
            expected="none", hint=again,
        )  # fmt: skip
    limit = MAX_TEXT_BYTES + MAX_TEXT_BYTES_A_NODE * summary.n_nodes
    large = [key for key, size in summary.metadata if size > MAX_METADATA_BYTES]
    if large or summary.text_bytes > limit:
        found = f"more than {MAX_METADATA_BYTES} bytes in {_names(large)}" if large else f"{summary.text_bytes} bytes"
        yield finding("onnx-metadata", "more text than a model needs", found=found, expected=f"at most {limit} bytes",
                      hint="strip the metadata and documentation strings")  # fmt: skip
    for code, ports in (("onnx-no-input", summary.inputs), ("onnx-no-output", summary.outputs)):
        if not ports:
            yield finding(code, "the graph has no such port", found="none", expected="one or more", hint=again)


def _check_same_ports(summary: OnnxSummary, other: OnnxSummary, name: str, finding: Make) -> Iterator[Finding]:
    """A quantised variant stands in for its model: the same inputs and outputs; only an open axis' name may differ."""
    for word, mine, theirs in (("inputs", summary.inputs, other.inputs), ("outputs", summary.outputs, other.outputs)):
        found, expected = ([_shown(port) for port in ports] for ports in (mine, theirs))
        if found != expected:
            yield finding("onnx-int8-ports", f"its {word} are not those of {name}", found=_names(found),
                          expected=_names(expected), hint="quantise that very model again")  # fmt: skip


def _shown(port: Port) -> str:
    """`features float32 [?, 6]`."""
    axes = None if port.shape is None else [str(size) if isinstance(size, int) else "?" for size in port.shape]
    return f"{port.name} {port.elem_type} " + ("of any shape" if axes is None else f"[{', '.join(axes)}]")


def _check_operators(summary: OnnxSummary, kind: Kind, finding: Make) -> Iterator[Finding]:
    allowed = ALLOWED_OPS if kind.allowed_ops is None else ALLOWED_OPS & kind.allowed_ops
    foreign = sorted(f"{domain}::{op}" for domain, op in summary.ops if domain)
    if foreign:
        yield finding("onnx-domain", "operators of another domain, which run code outside ONNX", found=_names(foreign),
                      expected="operators of the domain ai.onnx", hint="export it with standard operators")  # fmt: skip
    if refused := sorted(op for domain, op in summary.ops if not domain and op not in allowed):
        yield finding(
            "onnx-operator", f"operators outside the list for kind {kind.name!r}", found=_names(refused),
            expected=f"some of {len(allowed)} plain tensor operators", hint="replace them, or export it otherwise",
        )  # fmt: skip
    for sized in summary.sized:
        loop, at = sized.op == "Loop", f"{sized.op} {show(sized.node)}"
        limit = MAX_ROUNDS if loop else MAX_ELEMENTS
        if loop and sized.size is None:
            yield finding("onnx-loop", f"{at} runs as often as its input says", found="no constant trip count",
                          expected=f"a constant of at most {limit}", hint="fix the number of rounds")  # fmt: skip
        elif sized.size is not None and sized.size > limit:
            code, unit = ("onnx-loop", "rounds") if loop else ("onnx-allocation", "elements")
            yield finding(code, f"{at} asks for too much", found=f"{sized.size} {unit}", expected=f"at most {limit}",
                          hint="no model of this kind needs it: export it again")  # fmt: skip


def _check_opset(summary: OnnxSummary, opened: OpenEntry, name: str, finding: Make) -> Iterator[Finding]:
    version = summary.opsets.get("")
    if version is None or version not in OPSETS:
        yield finding("onnx-opset", "opset out of range", found=str(version), expected=f"{OPSETS[0]} to {OPSETS[-1]}",
                      hint="export the model with an opset of this range")  # fmt: skip
        return
    if unused := sorted(set(summary.opsets) - {""} - {domain for domain, _ in summary.ops}):
        yield finding("onnx-domain-unused", "imports a domain that no node uses", severity=WARNING,
                      found=_names(unused), expected="ai.onnx alone", hint="remove the import")  # fmt: skip
    if name.endswith(INT8) and opened.entry.manifest is None:
        return  # the documents' opset is that of the file it was quantised from
    document, entry = opened.manifest or {}, opened.entry.document
    for source, word, is_, says in (
        ("the registry", "opset", version, entry.get("opset")),
        *((opened.document_file, "opset", version, document.get(name)) for name in ("opset", "onnx_opset")),
        (opened.document_file, "IR version", summary.ir_version, document.get("ir_version")),
    ):
        if says is not None and says != is_:
            yield finding("onnx-opset-disagrees", f"not the {word} that {source} says", found=str(is_),
                          expected=show(says), hint="correct the number, or restore the file")  # fmt: skip


def _check_external(
    summary: OnnxSummary, opened: OpenEntry, model: Artifact, weak_pins: bool, stored: dict[str, bytes], finding: Make
) -> Iterator[Finding]:
    """Weights in other files. Fills `stored`, location -> bytes, with those whose digest was compared."""
    names = {artifact.path: name for name, artifact in opened.artifacts.items()}
    for location in sorted({tensor.location for tensor in summary.external}):
        tensors = [tensor for tensor in summary.external if tensor.location == location]
        try:
            path = posixpath.join(posixpath.dirname(model.path), check_path(location))
        except FileProblem as problem:
            yield finding(
                "onnx-external-escapes", f"weights at an unusable path: {_text(problem)}", found=show(location),
                expected="a path inside the model's folder", hint="export the model with its weights inside",
            )  # fmt: skip
            continue
        if path in names:
            stored[location] = opened.read(names[path])
        elif weak_pins and all(tensor.checksum for tensor in tensors):
            yield _read_weakly_pinned(opened, path, tensors, stored, finding)
        else:
            yield finding(
                "onnx-external-unpinned", "nothing pins the file that holds this model's weights", found=show(location),
                expected="its sha256 in `external_data` of the entry", hint="`registry migrate` pins it",
            )  # fmt: skip
        if location not in stored:
            continue
        total, room = sum(tensor.size for tensor in tensors), len(stored[location])
        if total > room:  # one region named a thousand times is a thousand copies in memory
            yield finding(
                "onnx-external-range", f"the tensors in {show(location)} overlap or leave it", found=f"{total} bytes",
                expected=f"at most {room}", hint="export the model again",
            )  # fmt: skip
            continue
        for tensor in tensors:
            view = memoryview(stored[location])[tensor.offset :]
            length = len(view) if tensor.length is None else tensor.length
            if length != tensor.size or length > len(view):
                yield finding(
                    "onnx-external-range", f"the values of {show(tensor.tensor)} do not lie in {show(location)}",
                    found=f"{length} bytes at {tensor.offset} of {room}", expected=f"{tensor.size} bytes",
                    hint="export the model again",
                )  # fmt: skip


def _read_weakly_pinned(
    opened: OpenEntry, path: str, tensors: Sequence[ExternalTensor], stored: dict[str, bytes], finding: Make
) -> Finding:
    """Version 1: every tensor in the file carries the file's SHA-1. A finding in any case: SHA-1 can be forged."""
    location, said = tensors[0].location, sorted({(tensor.checksum or "").lower() for tensor in tensors})
    try:
        data = opened.read_unpinned(path)
    except FileProblem as problem:
        return finding(
            "onnx-external-unreadable", f"the file with this model's weights cannot be read: {_text(problem)}",
            found=show(location), expected="a file beside the model", hint="restore the file",
        )  # fmt: skip
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    if said != [digest]:
        return finding(
            "onnx-external-checksum", f"{show(location)} is not the file that the graph's checksums name",
            found=digest, expected=_names(said), hint="restore the file, or export the model again",
        )  # fmt: skip
    stored[location] = data
    return finding(
        "onnx-external-weak", f"only SHA-1, which can be forged, pins {show(location)}", severity=WARNING,
        found="sha1", expected="its sha256 in `external_data` of the entry", hint="`registry migrate` pins it",
    )  # fmt: skip


def _names(names: Collection[str]) -> str:
    shown = ", ".join(show(name) for name in list(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _text(error: Exception) -> str:
    """One line, in plain ASCII: the words of a hostile file reach a terminal and a CI log."""
    text = " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()[:300]
    return "".join(character if character.isprintable() else "?" for character in text)
