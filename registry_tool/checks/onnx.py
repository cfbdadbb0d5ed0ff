"""onnx.py: judges what an entry's ONNX files say about themselves. Parses no ONNX, opens nothing unpinned.

The order fails closed: the file's facts first, then external data, and only on what survived onnx's own checker. The
facts are read, the checker and the model are run, in the prober's child, which never sees a file name: external tensors
are put in from the bytes whose digest holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry_tool.checks.external_data import check_external, one_line, shown
from registry_tool.checks.operators import ALLOWED_OPS
from registry_tool.documents.entries import OpenEntry
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.hookspec import Kind
from registry_tool.legacy.manifests import OPSET_DISAGREES
from registry_tool.onnx_summary import OnnxError, OnnxSummary, Port
from registry_tool.sandbox.prober import AGAIN, PROBED, Prober

OPSETS = range(7, 22)  # what a registry's `opset` may say
MAX_ELEMENTS = 2**26  # of a tensor that a constant makes: 256 MiB of float32, two 8K RGB frames
MAX_ROUNDS = 2**16  # of a Loop
# Exporters note a stack trace of a few KiB on every node; a picture, a program or a second model is larger.
MAX_METADATA_BYTES = 2**16
MAX_TEXT_BYTES, MAX_TEXT_BYTES_A_NODE = 2**18, 2**13
INT8 = ".int8.onnx"

PROTOBUF = FindingRule(
    "onnx-protobuf",
    "protobuf fields that ONNX does not define, or a field given twice",
    why="One reader sees it and another does not: data can hide there.",
    expected="none",
    hint=AGAIN,
    example="bytes after the model's end",
)
FUNCTION = FindingRule(
    "onnx-function",
    "model-local functions",
    why="They give known operator names another meaning.",
    expected="none",
    hint="export the model without functions",
    example="a function named Relu",
)
TRAINING = FindingRule(
    "onnx-training",
    "training information in the model",
    why="It is a second graph that no check looks at.",
    hint="export the model for inference",
    example="training_info",
)
TENSOR = FindingRule(
    "onnx-tensor",
    "tensor data that does not match its type and shape",
    why="Readers cut or pad it differently.",
    expected="none",
    hint=AGAIN,
    example="24 bytes for float32 [7]",
)
NOT_FINITE = FindingRule(
    "onnx-not-finite",
    "NaN or infinity in the weights",
    why="Scores become NaN, for all inputs or for some.",
    expected="none",
    hint=AGAIN,
    example="a weight of inf",
)
UNUSED = FindingRule(
    "onnx-unused",
    "tensors that the graph does not use",
    why="They are dead weight, or something hidden.",
    expected="none",
    hint=AGAIN,
    example="an initializer named blob",
    severity=Severity.WARNING,
)
METADATA = FindingRule(
    "onnx-metadata",
    "too much metadata",
    why="Metadata can carry files past a review.",
    hint="remove metadata and documentation strings from the model",
    example="100 kB in metadata_props",
)
NO_INPUT = FindingRule(
    "onnx-no-input",
    "graph without inputs",
    why="It scores nothing.",
    hint=AGAIN,
    example="a constant",
)
NO_OUTPUT = FindingRule(
    "onnx-no-output",
    "graph without outputs",
    why="It scores nothing.",
    hint=AGAIN,
    example="outputs removed",
)
INT8_PORTS = FindingRule(
    "onnx-int8-ports",
    "int8 variant with other inputs or outputs than its model",
    why="A runtime that switches between the two fails, or feeds columns in the wrong place.",
    message="its {side} differ from those of {model}",
    hint="quantise the model that the entry pins",
    example="features float32 [?, 5] beside features float32 [?, 6]",
)
DOMAIN = FindingRule(
    "onnx-domain",
    "operators of a custom domain",
    why="They run code that is not part of ONNX. Graphs inside If and Loop are searched too.",
    expected="operators of the domain ai.onnx",
    hint="export the model with standard operators",
    example="com.example::Relu in an If",
)
DOMAIN_UNUSED = FindingRule(
    "onnx-domain-unused",
    "import of a domain that no node uses",
    why="Runtimes without that domain refuse the model.",
    expected="ai.onnx alone",
    hint="remove the import from the model",
    example="com.microsoft",
    severity=Severity.WARNING,
)
OPERATOR = FindingRule(
    "onnx-operator",
    "operators that the kind does not allow",
    why="Small quality models need plain tensor operators; random numbers and the like make scores that change.",
    message="operators that kind {kind!r} does not allow",
    expected="some of {count} plain tensor operators",
    hint="replace them, or export the model otherwise",
    example="RandomNormal in a Loop",
)
LOOP = FindingRule(
    "onnx-loop",
    "Loop without a constant, small trip count",
    why="An input could make it run for ever.",
    message="{node} runs too often",
    expected="a constant trip count of at most {limit}",
    hint="export the model with a fixed, small number of iterations",
    example="a trip count computed from the input",
)
ALLOCATION = FindingRule(
    "onnx-allocation",
    "constant that allocates a huge tensor",
    why="Loading a file of a few bytes takes all memory.",
    message="{node} allocates a huge tensor",
    expected="at most {limit} elements",
    hint=AGAIN,
    example="ConstantOfShape of 2^40",
)
OPSET = FindingRule(
    "onnx-opset",
    "missing or unsupported opset",
    why="Operators change meaning between opsets.",
    expected=f"{OPSETS[0]} to {OPSETS[-1]}",
    hint="export the model with an opset of this range",
    example="opset 6",
)
CONTAINER = (  # what a readable model must not have, by the field of its summary
    (PROTOBUF, "oddities"),
    (FUNCTION, "functions"),
    (TENSOR, "malformed"),
    (NOT_FINITE, "non_finite"),
)


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
        try:
            seen[name] = opened.onnx(name)
        except OnnxError as error:
            place = InFile(opened.artifacts[name].path, opened.entry.id)
            findings.append(PROBED[error.code].at(place, reason=one_line(error)))
            continue
        found, stored = _check_summary(opened, name, kind, schema_version < 2, seen[name])
        findings += found
        if stored is not None:
            passed.append(Model(opened.artifacts[name].path, opened.read(name), stored))
    for name in seen:
        plain = f"{name.removesuffix(INT8)}.onnx"
        if name.endswith(INT8) and plain in seen:
            place = InFile(opened.artifacts[name].path, opened.entry.id)
            findings += _check_same_ports(seen[name], seen[plain], plain, place)
    return findings, passed


def run_model(opened: OpenEntry, model: Model) -> list[Finding]:
    """The finding on a model that onnxruntime does not load, or does not run once."""
    code, reason = _prober(opened).run(model.data, model.others)
    return [PROBED[code].at(InFile(model.file, opened.entry.id), reason=reason)] if code else []


def _prober(opened: OpenEntry) -> Prober:
    if opened.prober is None:
        raise ValueError(f"{opened.entry.id}: opened without a prober, expected one for its models")
    return opened.prober


def _check_summary(
    opened: OpenEntry, name: str, kind: Kind, weak_pins: bool, summary: OnnxSummary
) -> tuple[list[Finding], dict[str, bytes] | None]:
    """Findings on one model, and the files with further weights; None in their place where it did not pass."""
    data, place = opened.read(name), InFile(opened.artifacts[name].path, opened.entry.id)
    stored: dict[str, bytes] = {}
    findings = [
        *_check_container(summary, place),
        *_check_operators(summary, kind, place),
        *_check_opset(summary, opened, name, place),
        *check_external(summary, opened, opened.artifacts[name], weak_pins, stored),
    ]
    if any(f.severity is Severity.ERROR for f in findings):
        return findings, None
    if stored:
        try:
            outside = _prober(opened).read(data, stored).non_finite
        except OnnxError as error:
            return [*findings, PROBED[error.code].at(place, reason=one_line(error))], None
        if outside:
            return [*findings, NOT_FINITE.at(place, found=shown(outside))], None
    code, reason = _prober(opened).check(data, stored)
    if code:
        return [*findings, PROBED[code].at(place, reason=reason)], None
    return findings, stored


def _check_container(summary: OnnxSummary, place: InFile) -> Iterator[Finding]:
    """What a file could hide or lacks: hidden bytes, functions, weights that are no numbers, no inputs."""
    for rule, field in CONTAINER:
        if names := getattr(summary, field):
            yield rule.at(place, found=shown(names))
    if summary.training_info:
        yield TRAINING.at(place)
    if summary.unused:
        yield UNUSED.at(place, found=shown(summary.unused))
    limit = MAX_TEXT_BYTES + MAX_TEXT_BYTES_A_NODE * summary.n_nodes
    if large := [key for key, size in summary.metadata if size > MAX_METADATA_BYTES]:
        yield METADATA.at(
            place, found=f"more in {shown(large)}", expected=f"at most {MAX_METADATA_BYTES} bytes a field"
        )
    elif summary.text_bytes > limit:
        yield METADATA.at(place, found=f"{summary.text_bytes} bytes", expected=f"at most {limit} bytes")
    for rule, ports in ((NO_INPUT, summary.inputs), (NO_OUTPUT, summary.outputs)):
        if not ports:
            yield rule.at(place)


def _check_same_ports(summary: OnnxSummary, other: OnnxSummary, name: str, place: InFile) -> Iterator[Finding]:
    """A quantised variant stands in for its model: the same inputs and outputs; only an open axis' name may differ."""
    for side, mine, theirs in (("inputs", summary.inputs, other.inputs), ("outputs", summary.outputs, other.outputs)):
        found, expected = ([_port_text(port) for port in ports] for ports in (mine, theirs))
        if found != expected:
            yield INT8_PORTS.at(place, found=shown(found), expected=shown(expected), side=side, model=name)


def _port_text(port: Port) -> str:
    """`features float32 [?, 6]`."""
    axes = None if port.shape is None else [str(size) if isinstance(size, int) else "?" for size in port.shape]
    return f"{port.name} {port.elem_type} " + ("of any shape" if axes is None else f"[{', '.join(axes)}]")


def _check_operators(summary: OnnxSummary, kind: Kind, place: InFile) -> Iterator[Finding]:
    allowed = ALLOWED_OPS if kind.allowed_ops is None else ALLOWED_OPS & kind.allowed_ops
    if foreign := sorted(f"{domain}::{op}" for domain, op in summary.ops if domain):
        yield DOMAIN.at(place, found=shown(foreign))
    if refused := sorted(op for domain, op in summary.ops if not domain and op not in allowed):
        yield OPERATOR.at(place, found=shown(refused), kind=kind.name, count=len(allowed))
    for sized in summary.sized:
        node = f"{sized.op} {show(sized.node)}"
        if sized.op == "Loop" and sized.size is None:
            yield LOOP.at(place, found="a trip count that its input decides", node=node, limit=MAX_ROUNDS)
        elif sized.op == "Loop" and sized.size is not None and sized.size > MAX_ROUNDS:
            yield LOOP.at(place, found=sized.size, node=node, limit=MAX_ROUNDS)
        elif sized.op != "Loop" and sized.size is not None and sized.size > MAX_ELEMENTS:
            yield ALLOCATION.at(place, found=f"{sized.size} elements", node=node, limit=MAX_ELEMENTS)


def _check_opset(summary: OnnxSummary, opened: OpenEntry, name: str, place: InFile) -> Iterator[Finding]:
    version = summary.opsets.get("")
    if version is None or version not in OPSETS:
        yield OPSET.at(place, found="none" if version is None else version)
        return
    if unused := sorted(set(summary.opsets) - {""} - {domain for domain, _ in summary.ops}):
        yield DOMAIN_UNUSED.at(place, found=shown(unused))
    if name.endswith(INT8) and opened.entry.manifest is None:
        return  # the documents' opset is that of the file it was quantised from
    document, entry = opened.manifest or {}, opened.entry.document
    for source, word, is_, says in (
        ("the registry", "opset", version, entry.get("opset")),
        *((opened.document_file, "opset", version, document.get(name)) for name in ("opset", "onnx_opset")),
        (opened.document_file, "IR version", summary.ir_version, document.get("ir_version")),
    ):
        if says is not None and says != is_:
            yield OPSET_DISAGREES.at(place, found=is_, expected=show(says), word=word, document=source)
