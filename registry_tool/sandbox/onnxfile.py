"""onnxfile.py: what an ONNX file says about itself, from its bytes. Runs nothing, opens no other file, judges nothing.

The wire format is walked message by message (`protowire.py`), so a node, a tensor or a text counts wherever it stands:
in the graph, in bodies of If, Loop and Scan, in model-local functions, in training information.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from math import prod
from typing import Any

from registry_tool.sandbox import protowire
from registry_tool.sandbox.protowire import Message, Schema, Tree, WireError

MAX_BYTES = 50 * 2**20
MAX_RANK, CHUNK = 64, 2**18  # axes of a tensor, and values of a shape, as in numpy; values looked at together
LFS_POINTER = b"version https://git-lfs"

# Plain tensor operators: what small networks for video quality and video filters are made of, by use. Each computes
# from its inputs alone. Left out on purpose: random numbers, strings, sequences, optionals, image decoding, custom
# domains, and what only detectors or language models need.
ALLOWED_OPS: frozenset[str] = frozenset(
    word
    for line in """
    elementwise   Abs Add Ceil Clip Cos Div Erf Exp Floor Log Max Mean Min Mod Mul Neg Pow Reciprocal Round Sign Sin
                  Sqrt Sub Sum Tan
    compare       And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor
    activation    Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax
                  Softplus Softsign Tanh ThresholdedRelu
    network       BatchNormalization Conv ConvTranspose Dropout Einsum Gemm GRU GroupNormalization
                  InstanceNormalization LayerNormalization LpNormalization LRN LSTM MatMul
                  MeanVarianceNormalization RNN
    pooling       AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool
    image         DepthToSpace GridSample Pad Resize SpaceToDepth Upsample
    quantised     ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
                  QuantizeLinear
    reduction     ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
                  ReduceProd ReduceSum ReduceSumSquare TopK
    shape         Cast CastLike Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity
                  OneHot Range Reshape ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu
                  Unsqueeze
    control       If Loop Scan
    """.strip().splitlines()
    for word in line.split()
    if word[0].isupper()
)

# Operators whose output is as large, or that run as often, as an input's value says: the input's place.
SIZED_BY = {"ConstantOfShape": 0, "Expand": 1, "Loop": 0, "OneHot": 1, "Tile": 1}

# NaN or infinity, by type: (value & mask) == pattern on the little-endian bits (IEEE 754; OCP 8-bit formats, 2023).
NOT_FINITE = {
    "float16": (0x7C00, 0x7C00),
    "bfloat16": (0x7F80, 0x7F80),
    "float32": (0x7F800000, 0x7F800000),
    "float64": (0x7FF0000000000000, 0x7FF0000000000000),
    "float8e4m3fn": (0x7F, 0x7F),
    "float8e4m3fnuz": (0xFF, 0x80),
    "float8e5m2": (0x7C, 0x7C),
    "float8e5m2fnuz": (0xFF, 0x80),
    "float8e8m0": (0xFF, 0xFF),
}
TYPED_FIELDS = {
    "float_data": ("float32", "complex64"),
    "double_data": ("float64", "complex128"),
    "int64_data": ("int64",),
    "uint64_data": ("uint32", "uint64"),
    "string_data": ("string",),
}
STORED_IN = {kind: field for field, kinds in TYPED_FIELDS.items() for kind in kinds}  # all others: int32_data
FLOAT_FIELDS = ("float_data", "double_data", "raw_data")
DATA_FIELDS = (*TYPED_FIELDS, "int32_data", "raw_data")


class OnnxError(ValueError):
    """A file that cannot be read as an ONNX model; one line that says why."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. elem_type: 'float32', 'int64', ... or 'sequence', 'map', 'optional', 'unknown'.

    shape: a size, a name, or None for each axis; None where the file gives no shape.
    """

    name: str
    elem_type: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose values lie in another file, from `offset` on; length None: up to that file's end.

    size: the bytes that its type and shape ask for.
    """

    tensor: str
    elem_type: str
    size: int
    location: str
    offset: int
    length: int | None
    checksum: str | None


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor that a graph starts with. n_bytes: of its values in this file; 0 for strings."""

    name: str
    elem_type: str
    dims: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Sized:
    """A node whose output size, or number of rounds, is an input's value. size: its product; None if it is computed."""

    node: str
    op: str
    size: int | None


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """Facts about one file; names are the file's own words and not to be trusted as text."""

    ir_version: int
    opsets: Mapping[str, int]  # domain -> version; the standard domain is ''
    inputs: tuple[Port, ...]  # those a caller feeds: an input with an initializer is a default, not listed
    outputs: tuple[Port, ...]
    external: tuple[ExternalTensor, ...]
    ops: frozenset[tuple[str, str]]  # (domain, op) of every node anywhere
    n_nodes: int
    functions: tuple[str, ...]  # model-local ones, domain::name
    initializers: tuple[Initializer, ...]
    unused: tuple[str, ...]  # initializers that no node reads and no graph returns
    non_finite: tuple[str, ...]  # tensors and attributes that hold NaN or infinity
    malformed: tuple[str, ...]  # tensors whose bytes do not fit their type and shape
    sized: tuple[Sized, ...]
    metadata: tuple[tuple[str, int], ...]  # (key, bytes) of all metadata_props
    text_bytes: int  # of all names, documents, metadata and strings together
    training_info: bool
    oddities: tuple[str, ...]  # unknown, repeated or re-encoded protobuf fields; trailing bytes show here


def inspect_model(data: bytes, max_bytes: int = MAX_BYTES) -> OnnxSummary:
    """The facts of an ONNX file. Raises OnnxError for anything that is not one, and for one beyond the limits.

    Linear in the size of `data`, whatever the bytes are: at most some two seconds and 200 MB beside 50 MiB of them.
    """
    if data.startswith(LFS_POINTER):
        raise OnnxError("found a Git-LFS pointer, expected the model itself: run `git lfs pull`")
    if len(data) > max_bytes:
        raise OnnxError(f"found {len(data)} bytes, expected at most {max_bytes}")
    try:
        return _summary(protowire.parse(data, _schema()))
    except WireError as error:
        raise OnnxError(f"found {len(data)} bytes that are no usable ONNX model: {error}") from None


def holds_non_finite(elem_type: str, payload: bytes | memoryview) -> bool:
    """Whether raw little-endian values of a type hold NaN or infinity; for external data too. Integers never do."""
    import numpy as np

    kind = {"complex64": "float32", "complex128": "float64"}.get(elem_type, elem_type)
    if kind not in NOT_FINITE or not payload:
        return False
    mask, pattern = NOT_FINITE[kind]
    width = (mask.bit_length() + 7) // 8
    bits = np.frombuffer(payload, dtype=f"<u{width}", count=len(payload) // width)
    return any(bool(((bits[at : at + CHUNK] & mask) == pattern).any()) for at in range(0, len(bits), CHUNK))


def stored_values(data: bytes) -> list[bytes]:
    """The values in every tensor of a model that `inspect_model` could read."""
    return [bytes(message.joined(*DATA_FIELDS)) for message in protowire.parse(data, _schema()).of("TensorProto")]


def _summary(tree: Tree) -> OnnxSummary:
    model = tree.messages[0]
    graphs = model.messages("graph")
    if not graphs or model.integer("ir_version") < 1:
        raise OnnxError(f"no {'IR version' if graphs else 'graph'} in it, expected an ONNX model: export it again")
    opsets = {_domain(m): m.integer("version") for m in model.messages("opset_import")}
    if len(opsets) < len(model.messages("opset_import")):
        raise OnnxError("two opset versions for one domain, expected one: export it again")
    nodes, tensors = list(tree.of("NodeProto")), [_tensor(message) for message in tree.of("TensorProto")]
    starts = [
        t
        for t in tensors
        if t.message.place == "initializer" or (t.message.parent and t.message.parent.place == "sparse_initializer")
    ]
    names = {t.message.text("name") for t in starts}
    read = set(chain.from_iterable(node.texts("input") for node in nodes))
    read |= {port.text("name") for graph in tree.of("GraphProto") for port in graph.messages("output")}
    preset = {t.text("name") for graph in graphs for t in graph.messages("initializer")}
    floats = (m for m in tree.of("AttributeProto") if holds_non_finite("float32", m.joined("f", "floats")))
    properties = (m for m in tree.of("StringStringEntryProto") if m.place == "metadata_props")
    return OnnxSummary(
        ir_version=model.integer("ir_version"),
        opsets=opsets,
        inputs=tuple(_port(m) for g in graphs for m in g.messages("input") if m.text("name") not in preset),
        outputs=tuple(_port(m) for g in graphs for m in g.messages("output")),
        external=tuple(_external(t) for t in tensors if t.is_external),
        ops=frozenset((_domain(node), node.text("op_type")) for node in nodes),
        n_nodes=len(nodes),
        functions=tuple(f"{_domain(m)}::{m.text('name')}" for m in tree.of("FunctionProto")),
        initializers=tuple(Initializer(t.name, t.elem_type, t.dims, t.size if t.stored else 0) for t in starts),
        unused=tuple(sorted(names - read)),
        non_finite=(*(t.name for t in tensors if _not_finite(t)), *(m.path for m in floats)),
        malformed=tuple(problem for t in tensors if (problem := _misfit(t))),
        sized=tuple(_sized(tree, nodes, tensors)),
        metadata=tuple((m.text("key"), len(m.joined("key", "value"))) for m in properties),
        text_bytes=tree.text_bytes,
        training_info=bool(model.messages("training_info")),
        oddities=tuple(tree.oddities),
    )


@cache
def _schema() -> Schema:
    """ModelProto and all it contains, from the installed onnx package's own descriptors."""
    from onnx import ModelProto

    made: dict[str, Schema] = {}
    # FieldDescriptor.type -> wire type: double, float, string, message, bytes; all others are integers.
    wires = {1: protowire.FIXED64, 2: protowire.FIXED32, 9: protowire.BYTES, 11: protowire.BYTES, 12: protowire.BYTES}

    def schema(descriptor: Any) -> Schema:
        if descriptor.full_name not in made:
            made[descriptor.full_name] = result = Schema(descriptor.name)
            for f in descriptor.fields:
                result.fields[f.number] = protowire.Field(
                    name=f.name,
                    wire=wires.get(f.type, protowire.VARINT),
                    repeated=f.is_repeated if hasattr(f, "is_repeated") else f.label == 3,  # protobuf < 6 has labels
                    exclusive=f.containing_oneof.name if f.containing_oneof else f.name,
                    is_text=f.type in (9, 12) and f.name != "raw_data",
                    message=schema(f.message_type) if f.message_type else None,
                )
        return made[descriptor.full_name]

    return schema(ModelProto.DESCRIPTOR)


@cache
def _type_names() -> dict[int, str]:
    """TensorProto.DataType in numpy's words: 1 -> 'float32'."""
    from onnx import TensorProto

    words = {"float": "float32", "double": "float64"}
    return {number: words.get(name.lower(), name.lower()) for name, number in TensorProto.DataType.items()}


def _elem_type(message: Message, field: str = "data_type") -> str:
    number = message.integer(field)
    return _type_names().get(number, f"unknown({number})")


def _domain(message: Message) -> str:
    name = message.text("domain")
    return "" if name == "ai.onnx" else name


def _name(message: Message) -> str:
    """What a person would look for: a tensor's own name, or where the message stands."""
    return (message.text("name") if message.schema.name == "TensorProto" else "") or message.path


def _port(value: Message) -> Port:
    name, kinds = value.text("name"), value.messages("type")
    for tensor in kinds[-1].messages("tensor_type")[-1:] if kinds else ():
        shapes = tensor.messages("shape")
        shape = tuple(_axis(axis) for axis in shapes[-1].messages("dim")) if shapes else None
        return Port(name, _elem_type(tensor, "elem_type"), shape)
    others = [field.removesuffix("_type") for field in kinds[-1].values if field.endswith("_type")] if kinds else []
    return Port(name, others[-1] if others else "unknown", None)


def _axis(axis: Message) -> int | str | None:
    return axis.integer("dim_value") if "dim_value" in axis.values else axis.text("dim_param") or None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A TensorProto and what is asked of it again and again. elem_type as in Port; bits of an element, 0 if unknown."""

    message: Message
    name: str  # its own, or where it stands
    elem_type: str
    bits: int
    dims: tuple[int, ...]
    is_external: bool
    stored: tuple[str, ...]  # the fields that hold values

    @property
    def size(self) -> int:
        """Bytes that type and shape ask for."""
        return -(-prod(self.dims) * self.bits // 8)


def _tensor(message: Message) -> _Tensor:
    kind, name = _elem_type(message), _name(message)
    dims = tuple(message.integers("dims", at_most=MAX_RANK)) if "dims" in message.values else ()
    if any(not 0 <= size < 2**40 for size in dims):
        raise OnnxError(f"tensor {name[:80]!r} has the shape {dims}, expected a possible one")
    digits = re.match(r"[a-z]+(\d+)", "bool8" if kind == "bool" else kind)
    is_external = message.integer("data_location") != 0 or "external_data" in message.values
    stored = tuple(field for field in DATA_FIELDS if field in message.values)
    return _Tensor(message, name, kind, int(digits[1]) if digits else 0, dims, is_external, stored)


def _external(tensor: _Tensor) -> ExternalTensor:
    entries = tensor.message.messages("external_data")
    found = {entry.text("key"): entry.text("value") for entry in entries}
    where = f"tensor {tensor.name[:80]!r}: external data"
    if len(found) < len(entries) or set(found) - {"location", "offset", "length", "checksum"}:
        raise OnnxError(f"{where} has an unknown or repeated key, expected location, offset, length, checksum")
    if not found.get("location"):
        raise OnnxError(f"{where} has no location: export the model with its weights inside")
    for key in ("offset", "length"):
        if not re.fullmatch("[0-9]{1,15}", found.get(key, "0")):
            raise OnnxError(f"{where} has the {key} {found[key][:40]!r}, expected a number of bytes")
    length = int(found["length"]) if "length" in found else None
    offset, checksum = int(found.get("offset", "0")), found.get("checksum")
    return ExternalTensor(tensor.name, tensor.elem_type, tensor.size, found["location"], offset, length, checksum)


def _misfit(tensor: _Tensor) -> str | None:
    """Why the stored values are not those of the tensor's type and shape; None if they are, or lie in another file."""
    stored, field = tensor.stored, STORED_IN.get(tensor.elem_type, "int32_data")
    if tensor.is_external:
        return f"{tensor.name}: it has values in this file and in another one" if stored else None
    if stored not in ((), (field,), ("raw_data",)):
        return f"{tensor.name}: found {tensor.elem_type} values in {', '.join(stored)}, expected {field} or raw_data"
    found, wanted = sum(_held(name, value) for name in stored for value in tensor.message.values[name]), tensor.size
    if stored != ("raw_data",) and not 0 < tensor.bits < 8:  # smaller ones are packed into bytes in typed fields too
        wanted = prod(tensor.dims) * (2 if tensor.elem_type.startswith("complex") else 1)
    return f"{tensor.name}: found {found} values or bytes, its shape asks for {wanted}" if found != wanted else None


def _held(field: str, value: int | memoryview | Message) -> int:
    """Values in one entry of a typed field, packed or not; bytes in one of raw data."""
    import numpy as np

    width = {"raw_data": 1, "float_data": 4, "double_data": 8}.get(field)
    if not isinstance(value, memoryview) or field == "string_data":
        return 1
    return len(value) // width if width else int(np.count_nonzero(np.frombuffer(value, np.uint8) < 128))


def _not_finite(tensor: _Tensor) -> bool:
    kind, message = tensor.elem_type, tensor.message
    if any(holds_non_finite(kind, message.joined(field)) for field in tensor.stored if field in FLOAT_FIELDS):
        return True
    if kind not in NOT_FINITE or "int32_data" not in tensor.stored:
        return False
    mask, pattern = NOT_FINITE[kind]  # small floats may be stored as integers that hold their bits
    if any(isinstance(value, int) and value & mask == pattern for value in message.values["int32_data"]):
        return True
    pieces = (piece for view in message.views("int32_data") for piece in protowire.unpacked(view))
    return any(bool(((piece & mask) == pattern).any()) for piece in pieces)


def _sized(tree: Tree, nodes: list[Message], tensors: list[_Tensor]) -> Iterator[Sized]:
    """A size is known where one constant, and nothing else in the file, has the name that the node reads."""
    constants = {t.name: t for t in tensors if t.message.place == "initializer"}
    defined = Counter(t.name for t in tensors if t.message.place == "initializer")
    defined.update(v.text("name") for graph in tree.of("GraphProto") for v in graph.messages("input"))
    defined.update(name for function in tree.of("FunctionProto") for name in function.texts("input"))
    for node in nodes:
        defined.update(node.texts("output"))
    for t in tensors:
        owner = t.message.parent and t.message.parent.parent
        if owner and t.message.place == "t" and owner.text("op_type") == "Constant":
            constants |= dict.fromkeys(owner.texts("output"), t)
    for node in nodes:
        op = node.text("op_type")
        if op in SIZED_BY:
            name = next(iter(node.texts("input")[SIZED_BY[op] :]), "")
            values = _integers(constants[name]) if name in constants and defined[name] == 1 else None
            yield Sized(node.text("name") or node.path, op, None if values is None else prod(values))


def _integers(tensor: _Tensor) -> list[int] | None:
    """The values of a small int64 tensor in this file; None for any other."""
    raw = tensor.message.joined("raw_data")
    if tensor.elem_type != "int64" or tensor.is_external or len(raw) > 8 * MAX_RANK:
        return None
    values = [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]
    return values or tensor.message.integers("int64_data", MAX_RANK)
