"""reader.py: what an ONNX model says, from protobuf's own parse of its bytes. Runs nothing, judges nothing.

Runs in the child alone (`child.py`). A node, a tensor or a text counts wherever it is: in the graph, in bodies of If,
Loop and Scan, in model-local functions, in training information.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from onnx import (
    IR_VERSION,
    FunctionProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorShapeProto,
    ValueInfoProto,
    defs,
)
from onnx import __version__ as onnx_version

from registry_tool.onnx_summary import Initializer, NonFinite, OnnxError, OnnxSummary, Port, Sized
from registry_tool.sandbox.infinities import BOUNDING_ATTRIBUTES, BOUNDING_OPERATORS, Readers
from registry_tool.sandbox.message import Part, Tree, fields_of, parse_model
from registry_tool.sandbox.payloads import payload_in_bytes, payload_in_text
from registry_tool.sandbox.scaling import scalings_of
from registry_tool.sandbox.tensors import (
    FLOAT_BITS,
    MAX_RANK,
    OddValues,
    Tensor,
    digest_of_values,
    elem_type,
    external_of,
    misfit_of,
    tensor_of,
)
from registry_tool.values import EMPTY

MIN_PAYLOAD_CHARACTERS, MAX_HEAD_BYTES = 8, 2**16  # of a text that is looked at for payloads; of a tensor
# Operators whose output is as large, or that run as often, as an input's value says: the input's place.
SIZED_BY = {"ConstantOfShape": 0, "Expand": 1, "Loop": 0, "OneHot": 1, "Tile": 1}


def read_model(data: bytes, external: Mapping[str, bytes] = EMPTY) -> OnnxSummary:
    """The facts of an ONNX file. Raises OnnxError for anything that is not one, and for one beyond the limits.

    external: location -> bytes, of the files with further weights; their values are looked at too.
    """
    model, oddities = parse_model(data)
    tree = Tree.of(model)
    if not model.HasField("graph") or model.ir_version < 1:
        lacking = "IR version" if model.HasField("graph") else "graph"
        raise OnnxError(f"no {lacking} in it, expected an ONNX model: export it again")
    opsets = {_domain(item): item.version for item in model.opset_import}
    if len(opsets) < len({(_domain(item), item.version) for item in model.opset_import}):
        raise OnnxError("two opset versions for one domain, expected one: export it again")
    nodes, tensors = tree.messages("NodeProto"), [tensor_of(part, external) for part in tree.messages("TensorProto")]
    starts = [t for t in tensors if t.starts]
    read = {name for node in nodes for name in node.message.input}
    read |= {port.name for graph in tree.messages("GraphProto") for port in graph.message.output}
    preset = {tensor.name for tensor in model.graph.initializer}
    readers = Readers((node.message for node in nodes), (graph.message for graph in tree.messages("GraphProto")))
    properties = tree.messages("StringStringEntryProto")
    unused = {t.part.message.name for t in starts} - read
    return OnnxSummary(
        ir_version=model.ir_version,
        opsets=opsets,
        inputs=tuple(_port(value) for value in model.graph.input if value.name not in preset),
        outputs=tuple(_port(value) for value in model.graph.output),
        defaults=tuple(value.name for value in model.graph.input if value.name in preset),
        newer=_newer(model.ir_version, opsets.get("", 0)),
        external=tuple(external_of(t) for t in tensors if t.is_external),
        ops=tuple(sorted({(_domain(node.message), node.message.op_type) for node in nodes})),
        n_nodes=len(nodes),
        functions=tuple(f"{_domain(f.message)}::{f.message.name}" for f in tree.messages("FunctionProto")),
        initializers=tuple(Initializer(t.name, t.elem_type, t.dims, t.size if t.stored else 0) for t in starts),
        unused=tuple(sorted(unused)),
        non_finite=tuple(_non_finite(tree, tensors, readers)),
        payloads=tuple(_payloads(tree, _idle(tree, tensors))),
        malformed=tuple(problem for t in tensors if (problem := misfit_of(t))),
        sized=tuple(_sized(tree, nodes, tensors)),
        scalings=tuple(scalings_of(model.graph, tensors)),
        metadata=tuple(
            (p.message.key, len((p.message.key + p.message.value).encode()))
            for p in properties
            if p.field == "metadata_props"
        ),
        text_bytes=tree.text_bytes,
        training_info=bool(model.training_info),
        oddities=oddities,
        values_sha256=digest_of_values(tensors),
    )


def with_external(data: bytes, external: Mapping[str, bytes]) -> bytes:
    """The model with the weights of other files put in; their ranges were checked."""
    model = ModelProto.FromString(data)
    for part in Tree.of(model).messages("TensorProto"):
        tensor = tensor_of(part, external)
        if tensor.is_external:
            part.message.raw_data = bytes(tensor.payload() or b"")
            part.message.ClearField("data_location")
            part.message.ClearField("external_data")
    return bytes(model.SerializeToString())


def _live(tree: Tree) -> tuple[set[Part], set[str]]:
    """The nodes, and the names, that reach an output of the model: runtimes leave out the others."""
    makers: dict[str, list[Part]] = {}
    for node in tree.messages("NodeProto"):
        for name in node.message.output:
            makers.setdefault(name, []).append(node)
    bodies: dict[Part | None, list[str]] = {}  # what the graphs of a node return; of none: the model, functions
    for graph in tree.messages("GraphProto"):
        bodies.setdefault(_node_of(graph), []).extend(port.name for port in graph.message.output)
    for function in tree.messages("FunctionProto"):
        bodies.setdefault(None, []).extend(function.message.output)
    live: set[Part] = set()
    pending = bodies.get(None, [])
    read = set(pending)
    while pending:
        for node in makers.get(pending.pop(), ()):
            if node not in live:
                live.add(node)
                names = {*node.message.input, *bodies.get(node, ())} - read
                read |= names
                pending += names
    return live, read


def _node_of(part: Part) -> Part | None:
    """The node that a message is inside of."""
    owner = part.parent
    while owner is not None and owner.name != "NodeProto":
        owner = owner.parent
    return owner


def _idle(tree: Tree, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that reach no output: none of such nodes reads, returns or holds them."""
    live, read = _live(tree)
    for tensor in tensors:
        node = None if tensor.starts else _node_of(tensor.part)
        if tensor.part.message.name not in read if tensor.starts else node is not None and node not in live:
            yield tensor


def _non_finite(tree: Tree, tensors: Iterable[Tensor], readers: Readers) -> Iterator[NonFinite]:
    for tensor in tensors:
        odd = tensor.odd_values()
        if odd.nan:
            yield NonFinite(tensor.name)
        elif odd.infinite and (found := _harm(tensor.part, readers, odd)):
            yield NonFinite(tensor.name, found)
    for part in tree.messages("AttributeProto"):
        floats = [part.message.f, *part.message.floats]
        if all(map(math.isfinite, floats)):
            continue
        odd = FLOAT_BITS["float32"].odd_values(np.asarray(floats, "<f4").view("<u4"))
        if odd.nan:
            yield NonFinite(part.path)
        elif odd.infinite and (found := _harm(part, readers, odd)):
            yield NonFinite(part.path, found)


def _harm(part: Part, readers: Readers, values: OddValues) -> tuple[str, ...]:
    """The operators that compute with an infinity in this tensor or attribute."""
    owner: Part | None = part
    attribute = ""
    while owner is not None and owner.name != "NodeProto":
        attribute = owner.message.name if owner.name == "AttributeProto" else attribute
        owner = owner.parent if owner.name in ("AttributeProto", "TensorProto", "SparseTensorProto") else None
    if owner is None:
        return readers.harmful([part.message.name], positive=values.positive)
    op = owner.message.op_type
    if op in ("Constant", "ConstantOfShape"):
        return readers.harmful(owner.message.output, positive=values.positive)
    return () if op in BOUNDING_OPERATORS or (op, attribute) in BOUNDING_ATTRIBUTES else (op,)


def _payloads(tree: Tree, unused: Iterable[Tensor]) -> Iterator[str]:
    """Texts and tensors with a program, an archive or a pickle in them, and which of these."""
    for part in tree.parts:
        for name, repeated, _ in fields_of(part.message.DESCRIPTOR.full_name)[2]:
            value = getattr(part.message, name)
            for text in value if repeated else (value,):
                if len(text) >= MIN_PAYLOAD_CHARACTERS and (found := payload_in_text(text)):
                    yield f"{part.path}.{name}: {found}"
    for tensor in unused:
        if (payload := tensor.payload()) and (found := payload_in_bytes(bytes(payload[:MAX_HEAD_BYTES]))):
            yield f"{tensor.part.path}: {found}"


def _newer(ir_version: int, opset: int) -> str:
    known = defs.onnx_opset_version()
    newer = [f"IR version {ir_version}"] if ir_version > IR_VERSION else []
    newer += [f"opset {opset}"] if opset > known else []
    return (
        f"{' and '.join(newer)}; onnx {onnx_version} knows IR version {IR_VERSION} and opset {known}" if newer else ""
    )


def _domain(message: NodeProto | FunctionProto | OperatorSetIdProto) -> str:
    return "" if message.domain == "ai.onnx" else message.domain


def _port(value: ValueInfoProto) -> Port:
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        tensor = value.type.tensor_type
        shape = tuple(_axis(axis) for axis in tensor.shape.dim) if tensor.HasField("shape") else None
        return Port(value.name, elem_type(tensor.elem_type), shape)
    return Port(value.name, kind.removesuffix("_type") if kind else "unknown", None)


def _axis(axis: TensorShapeProto.Dimension) -> int | str | None:
    return axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None


def _sized(tree: Tree, nodes: list[Part], tensors: list[Tensor]) -> Iterator[Sized]:
    """A size is known where one constant, and nothing else in the file, has the name that the node reads."""
    constants = {t.name: t for t in tensors if t.part.field == "initializer"}
    defined = Counter(t.name for t in tensors if t.part.field == "initializer")
    defined.update(value.name for graph in tree.messages("GraphProto") for value in graph.message.input)
    defined.update(name for function in tree.messages("FunctionProto") for name in function.message.input)
    for node in nodes:
        defined.update(node.message.output)
    for t in tensors:
        owner = t.part.parent and t.part.parent.parent
        if owner and t.part.field == "t" and owner.message.op_type == "Constant":
            constants |= dict.fromkeys(owner.message.output, t)
    for node in nodes:
        op, inputs = node.message.op_type, node.message.input
        if op in SIZED_BY:
            name = inputs[SIZED_BY[op]] if len(inputs) > SIZED_BY[op] else ""
            values = _integers(constants[name]) if name in constants and defined[name] == 1 else None
            yield Sized(node.message.name or node.path, op, None if values is None else math.prod(values))


def _integers(tensor: Tensor) -> list[int] | None:
    """The values of a small int64 tensor in this file; None for any other."""
    payload, typed = tensor.payload() or b"", tensor.part.message.int64_data
    if tensor.elem_type != "int64" or tensor.is_external or max(len(payload) // 8, len(typed)) > MAX_RANK:
        return None
    return [int(n) for n in (np.frombuffer(payload, "<i8", len(payload) // 8) if payload else typed)]
