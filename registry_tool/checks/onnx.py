"""onnx.py: judges what an entry's ONNX files say about themselves. Parses no ONNX, opens nothing unpinned.

The order fails closed: the file's facts first, then external data, and only on what survived onnx's own checker. The
facts are read, the checker and the model are run, in the prober's child, which never sees a file name: external tensors
are put in from the bytes whose digest holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from registry_tool.checks.external_data import check_external, name_list
from registry_tool.checks.operators import ALLOWED_OPS
from registry_tool.checks.runtimes import Runtime
from registry_tool.documents.entries import VerifiedEntry
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, InFile, Severity, errors_of
from registry_tool.hookspec import FURTHER_DOMAINS, Kind
from registry_tool.legacy.members import OPSET_DISAGREES
from registry_tool.onnx_summary import INTEGER_TYPES, NonFinite, OnnxError, OnnxSummary
from registry_tool.sandbox.growth import MAX_ELEMENTS, MAX_ROUNDS
from registry_tool.sandbox.probed import ALLOCATION, EXPORT_AGAIN_HINT, LOOP, NEWER, PROBED_RULES
from registry_tool.sandbox.prober import Found, Prober
from registry_tool.values import MAX_NAMES_SHOWN, Policy, Registry, first_names, one_line

OLDEST_OPSET = 7
OLDEST_IR_OF_DEFAULTS = 4  # before it, an input with an initializer is a constant
MAX_INPUT = 2**26  # elements: two 8K RGB frames
PORT_TYPES = ("bool", "float16", "float32", "float64", *INTEGER_TYPES)
# Exporters note a stack trace of a few KiB on every node; a picture, a program or a second model is larger.
MAX_METADATA_BYTES = 2**16
MAX_TEXT_BYTES, MAX_TEXT_BYTES_A_NODE = 2**18, 2**13
INT8_SUFFIX = ".int8.onnx"

PROTOBUF = FindingRule(
    "onnx-protobuf",
    "bytes that are not part of the model's message",
    why="Unknown fields, a field given twice, a number in another form: one reader sees them and another does not, and "
    "data can hide there.",
    expected="the bytes that protobuf writes",
    hint="write it again (`onnx.save(onnx.load(path), path)`), or export it again",
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
    hint=EXPORT_AGAIN_HINT,
    example="24 bytes for float32 [7]",
)
NON_FINITE_WEIGHTS = FindingRule(
    "onnx-not-finite",
    "NaN or infinity in the weights",
    why="Scores become NaN, for all inputs or for some. Infinities that only mask, pad or bound values are fine.",
    expected="none, or infinities that only mask or bound",
    hint=EXPORT_AGAIN_HINT,
    example="a weight of inf that MatMul reads",
)
PAYLOAD = FindingRule(
    "onnx-payload",
    "program, archive or pickle in a text or an unused tensor",
    why="No runtime looks there; a tool that unpickles metadata runs it.",
    expected="none",
    hint="remove it, or export the model again",
    example="a pickle in base64 in metadata_props",
)
UNUSED = FindingRule(
    "onnx-unused",
    "tensors that the graph does not use",
    why="They are dead weight that an exporter left, or something hidden.",
    expected="none",
    hint=EXPORT_AGAIN_HINT,
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
    hint=EXPORT_AGAIN_HINT,
    example="a constant",
)
NO_OUTPUT = FindingRule(
    "onnx-no-output",
    "graph without outputs",
    why="It scores nothing.",
    hint=EXPORT_AGAIN_HINT,
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
    expected="operators of the domain ai.onnx, and of ai.onnx.ml where the kind allows them",
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
OPSET = FindingRule(
    "onnx-opset",
    "missing or unsupported opset",
    why="Operators change meaning between opsets, and the oldest runtime that is in use refuses a newer one.",
    message="missing or unsupported {subject}",
    hint="export the model with such an {subject}",
    example="opset 6",
)
RUNTIME = FindingRule(
    "onnx-runtime",
    "model that the policy's runtime does not load",
    why="It is valid, and fails where it is deployed.",
    message="{runtime} does not load it",
    hint="export the model with the operators that the runtime has, or correct `runtime` in the policy",
    example="Where, under the runtime profile libvmaf",
    since="0.2.0",
)
INITIALIZER_INPUT = FindingRule(
    "onnx-initializer-input",
    "weights that are inputs too",
    why="From IR version 4 on a caller can replace them: the model that was checked is not the one that runs.",
    expected="initializers alone",
    hint="export the model without initializers among its inputs (`keep_initializers_as_inputs=False`)",
    example="w among the inputs",
)
INPUT_SIZE = FindingRule(
    "onnx-input-size",
    "input of a fixed size that cannot be fed",
    why="The model was not run.",
    message="the input {port} cannot be fed, so the model was not run",
    expected=f"1 to {MAX_INPUT} elements",
    hint="export the model for a size that is used, or with open axes",
    example="an input of [1, 2^31]",
)
PORT_TYPE = FindingRule(
    "onnx-port-type",
    "unsupported type of an input or output",
    why="The model cannot be run here, so it was not.",
    message="unsupported type of {port}",
    expected="a tensor of numbers",
    hint=EXPORT_AGAIN_HINT,
    example="an input of strings",
)
FLOAT64 = FindingRule(
    "onnx-float64",
    "inputs or outputs of float64",
    why="Runtimes feed and read float32: they fail, or take twice the memory.",
    expected="float32",
    hint="export the model with float32",
    example="score as double",
    severity=Severity.WARNING,
)
CONTAINER_RULES = (  # what a readable model must not have, by the field of its summary
    (FUNCTION, "functions"),
    (TENSOR, "malformed"),
    (PAYLOAD, "payloads"),
)


@dataclass(frozen=True, slots=True)
class PassedModel:
    """A model that passed. others: the files with further weights, by the location that the model names."""

    file: str
    data: bytes
    others: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a model is held to beyond what holds for all. weak_pins: SHA-1 inside the graph pins external data."""

    kind: Kind
    policy: Policy
    weak_pins: bool


def check_models(
    view: VerifiedEntry, kind: Kind, registry: Registry, prober: Prober
) -> tuple[list[Finding], list[PassedModel]]:
    """Findings on every pinned `.onnx` file of an entry, whose `file` has no lines; and the models that passed.

    Below version 2 of the registry, external data counts as pinned by SHA-1 checksums inside the graph.
    """
    terms = _Terms(kind, registry.policies.get(kind.name, Policy()), weak_pins=registry.schema_version < 2)
    findings: list[Finding] = []
    passed: list[PassedModel] = []
    seen: dict[str, OnnxSummary] = {}
    for name in (path for path in view.paths if path.endswith(".onnx")):
        try:
            seen[name] = view.onnx(name)
        except OnnxError as error:
            place = InFile(view.artifacts[name].path, view.entry.id)
            findings.append(PROBED_RULES[error.code].at(place, reason=one_line(str(error))))
            continue
        found, stored = _check_summary(view, name, terms, seen[name], prober)
        findings += found
        if stored is not None:
            passed.append(PassedModel(view.artifacts[name].path, view.read(name), stored))
    for name in seen:
        plain = f"{name.removesuffix(INT8_SUFFIX)}.onnx"
        if name.endswith(INT8_SUFFIX) and plain in seen:
            place = InFile(view.artifacts[name].path, view.entry.id)
            findings += _check_same_ports(seen[name], seen[plain], plain, place)
    return findings, passed


def run_model(view: VerifiedEntry, model: PassedModel, prober: Prober) -> list[Finding]:
    """What is odd about a model that passed all else, when it is run."""
    return _of_probe(prober.run(model.data, model.others), InFile(model.file, view.entry.id))


def _of_probe(found: Sequence[Found], place: InFile) -> list[Finding]:
    return [PROBED_RULES[one.code].at(place, reason=one.text) for one in found]


def _check_summary(
    view: VerifiedEntry, name: str, terms: _Terms, summary: OnnxSummary, prober: Prober
) -> tuple[list[Finding], dict[str, bytes] | None]:
    """Findings on one model, and the files with further weights; None in their place where it did not pass."""
    data, place = view.read(name), InFile(view.artifacts[name].path, view.entry.id)
    if summary.newer:  # whatever else seems odd may only be new
        return [NEWER.at(place, reason=summary.newer)], None
    stored: dict[str, bytes] = {}
    findings = [
        *_check_container(summary, place),
        *_check_ports(summary, place),
        *_check_operators(summary, terms.kind, place),
        *_check_age(summary, terms.policy, place),
        *_check_opset(summary, view, name, place),
        *check_external(summary, view, view.artifacts[name], terms.weak_pins, stored),
    ]
    if errors_of(findings):
        return findings, None
    if stored:
        try:
            outside = prober.read(data, stored).non_finite
        except OnnxError as error:
            return [*findings, PROBED_RULES[error.code].at(place, reason=one_line(str(error)))], None
        if outside:
            return [*findings, _not_finite(outside, place)], None
    if refused := prober.check(data, stored):
        return [*findings, *_of_probe(refused, place)], None
    return findings, stored


def _not_finite(values: Sequence[NonFinite], place: InFile) -> Finding:
    return NON_FINITE_WEIGHTS.at(place, found=first_names([f"{show(one.name)} ({_kind_of(one)})" for one in values]))


def _kind_of(value: NonFinite) -> str:
    if not value.readers:
        return "NaN"
    readers = ", ".join(show(op).strip('"') for op in value.readers[:MAX_NAMES_SHOWN])
    return "infinity in an output" if value.readers == ("output",) else f"infinity, read by {readers}"


def _check_container(summary: OnnxSummary, place: InFile) -> Iterator[Finding]:
    """What a file could hide or lacks: hidden bytes, functions, weights that are no numbers, no inputs."""
    if summary.oddities:  # in our own words: no need to quote them
        yield PROTOBUF.at(place, found="; ".join(summary.oddities[:MAX_NAMES_SHOWN]))
    if summary.non_finite:
        yield _not_finite(summary.non_finite, place)
    for rule, field in CONTAINER_RULES:
        if names := getattr(summary, field):
            yield rule.at(place, found=name_list(names))
    if summary.training_info:
        yield TRAINING.at(place)
    if summary.unused:
        yield UNUSED.at(place, found=name_list(summary.unused))
    limit = MAX_TEXT_BYTES + MAX_TEXT_BYTES_A_NODE * summary.n_nodes
    if large := [key for key, size in summary.metadata if size > MAX_METADATA_BYTES]:
        yield METADATA.at(
            place, found=f"more in {name_list(large)}", expected=f"at most {MAX_METADATA_BYTES} bytes a field"
        )
    elif summary.text_bytes > limit:
        yield METADATA.at(place, found=f"{summary.text_bytes} bytes", expected=f"at most {limit} bytes")


def _check_ports(summary: OnnxSummary, place: InFile) -> Iterator[Finding]:
    """Inputs that cannot be fed as they say, or that a caller should not feed; types that runtimes differ in."""
    for rule, side in ((NO_INPUT, summary.inputs), (NO_OUTPUT, summary.outputs)):
        if not side:
            yield rule.at(place)
    if summary.defaults and summary.ir_version >= OLDEST_IR_OF_DEFAULTS:
        yield INITIALIZER_INPUT.at(place, found=name_list(summary.defaults))
    for port in summary.inputs:
        elements = prod(size for size in port.shape or () if isinstance(size, int) and size >= 0)
        if not 0 < elements <= MAX_INPUT:
            yield INPUT_SIZE.at(place, found=f"{elements} elements", port=show(port.name))
    ports = (*summary.inputs, *summary.outputs)
    for port in ports:
        if port.elem_type not in PORT_TYPES:
            yield PORT_TYPE.at(place, found=show(port.elem_type), port=show(port.name))
    if doubles := [port.name for port in ports if port.elem_type == "float64"]:
        yield FLOAT64.at(place, found=name_list(doubles))


def _check_same_ports(summary: OnnxSummary, other: OnnxSummary, name: str, place: InFile) -> Iterator[Finding]:
    """A quantised variant replaces its model: the same inputs and outputs; only an open axis' name may differ."""
    for side, ports, other_ports in (
        ("inputs", summary.inputs, other.inputs),
        ("outputs", summary.outputs, other.outputs),
    ):
        found, expected = ([*map(str, listed)] for listed in (ports, other_ports))
        if found != expected:
            yield INT8_PORTS.at(place, found=name_list(found), expected=name_list(expected), side=side, model=name)


def _check_operators(summary: OnnxSummary, kind: Kind, place: InFile) -> Iterator[Finding]:
    allowed = ALLOWED_OPS if kind.allowed_ops is None else ALLOWED_OPS & kind.allowed_ops
    if foreign := sorted(f"{domain}::{op}" for domain, op in summary.ops if domain and domain not in FURTHER_DOMAINS):
        yield DOMAIN.at(place, found=name_list(foreign))
    known = {"": allowed, **{domain: kind.domains.get(domain, frozenset()) for domain in FURTHER_DOMAINS}}
    for domain, operators in known.items():
        if refused := sorted(op for of, op in summary.ops if of == domain and op not in operators):
            names = name_list([f"{domain}::{op}" if domain else op for op in refused])
            expected = None if not domain else f"some of {', '.join(sorted(operators))}" if operators else "none of it"
            yield OPERATOR.at(place, found=names, expected=expected, kind=kind.name, count=len(allowed))
    for sized in summary.sized:
        node = f"{sized.op} {show(sized.node)}"
        if sized.op == "Loop" and sized.size is None:
            yield LOOP.at(place, reason=f"{node} has a trip count that its input decides, expected a constant")
        elif sized.op == "Loop" and sized.size is not None and sized.size > MAX_ROUNDS:
            yield LOOP.at(place, reason=f"{node} runs {sized.size} rounds, at most {MAX_ROUNDS}")
        elif sized.op != "Loop" and sized.size is not None and sized.size > MAX_ELEMENTS:
            yield ALLOCATION.at(place, reason=f"{node} makes {sized.size} elements, at most {MAX_ELEMENTS}")


def _check_age(summary: OnnxSummary, policy: Policy, place: InFile) -> Iterator[Finding]:
    """Older than this program reads, or newer than what the policy names as the oldest runtime's."""
    version = summary.opsets.get("")
    if version is None or version < OLDEST_OPSET:
        found = "none" if version is None else version
        yield OPSET.at(place, found=found, expected=f"{OLDEST_OPSET} or later", subject="opset")
    runtime = Runtime.of(policy)
    numbers = (("opset", version or 0, "max_opset"), ("IR version", summary.ir_version, "max_ir_version"))
    for subject, number, field in numbers:
        limit = getattr(runtime, field)
        if limit is not None and number > limit:
            source = f"`{field}` of the policy" if field in policy.extra else runtime.subject
            yield OPSET.at(place, found=number, expected=f"at most {limit} ({source})", subject=subject)
    for found, expected in runtime.refusals(summary):
        yield RUNTIME.at(place, found=found, expected=expected, runtime=runtime.subject)


def _check_opset(summary: OnnxSummary, view: VerifiedEntry, name: str, place: InFile) -> Iterator[Finding]:
    version = summary.opsets.get("")
    if version is None:
        return
    if unused := sorted(set(summary.opsets) - {""} - {domain for domain, _ in summary.ops}):
        yield DOMAIN_UNUSED.at(place, found=name_list(unused))
    if name.endswith(INT8_SUFFIX) and view.entry.manifest is None:
        return  # the documents' opset is that of the file it was quantised from
    document, entry = view.manifest or {}, view.entry.document
    for source, word, actual, recorded in (
        ("the registry", "opset", version, entry.get("opset")),
        *((view.document_file, "opset", version, document.get(name)) for name in ("opset", "onnx_opset")),
        (view.document_file, "IR version", summary.ir_version, document.get("ir_version")),
    ):
        if recorded is not None and recorded != actual:
            yield OPSET_DISAGREES.at(place, found=actual, expected=show(recorded), word=word, document=source)
