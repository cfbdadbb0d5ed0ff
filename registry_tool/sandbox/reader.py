"""reader.py: the facts of an ONNX model, from protobuf's own parse of its bytes. Runs nothing, judges nothing.

Runs in the child (`child.py`). The parser is the one that runtimes use, so what it reads is what they read; whatever
bytes are no part of that reading are the difference between the file and the message written again (`oddities`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import (  # type: ignore[import-untyped]  # protobuf ships no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]  # as above
from onnx import ModelProto, TensorProto
from onnx import __version__ as onnx_version

from registry_tool.onnx_summary import ExternalTensor, Initializer, OnnxError, OnnxSummary, Port, Sized
from registry_tool.values import EMPTY

if TYPE_CHECKING:
    from numpy.typing import NDArray

LFS_POINTER = b"version https://git-lfs"
MAX_RANK = 64  # axes of a tensor, and values of a shape, as in numpy
MAX_MESSAGES = 100_000  # a network of 1,000 nodes has some 10,000
MAX_TEXT = 2**24  # bytes of names, documents and strings
MAX_ODDITIES = 20  # named; the rest is not
MAX_UNKNOWN = 2**20  # bytes of unknown fields whose places are looked for
MAX_AXIS = 2**40
CHUNK = 2**18  # values looked at together
MESSAGE, STRING, BYTES = 11, 9, 12  # FieldDescriptor.type

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
PARTS = {"complex64": "float32", "complex128": "float64"}
TYPED_FIELDS = {  # a field of TensorProto -> the types that it stores; all others are stored in int32_data
    "float_data": ("float32", "complex64"),
    "double_data": ("float64", "complex128"),
    "int64_data": ("int64",),
    "uint64_data": ("uint32", "uint64"),
    "string_data": ("string",),
}
STORED_IN = {kind: field for field, kinds in TYPED_FIELDS.items() for kind in kinds}
DATA_FIELDS = (*TYPED_FIELDS, "int32_data")
LITTLE = {"float_data": "<f4", "double_data": "<f8", "int64_data": "<i8", "uint64_data": "<u8", "int32_data": "<i4"}
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


def read_model(data: bytes, external: Mapping[str, bytes] = EMPTY) -> OnnxSummary:
    """The facts of an ONNX file. Raises OnnxError for anything that is not one, and for one beyond the limits.

    external: location -> bytes, of the files with further weights; their values are looked at too.
    """
    model, oddities = _parse(data)
    tree = _Tree.of(model)
    if not model.HasField("graph") or model.ir_version < 1:
        lacking = "IR version" if model.HasField("graph") else "graph"
        raise OnnxError(f"no {lacking} in it, expected an ONNX model: export it again")
    opsets = {_domain(item): item.version for item in model.opset_import}
    if len(opsets) < len(model.opset_import):
        raise OnnxError("two opset versions for one domain, expected one: export it again")
    nodes, tensors = tree.messages("NodeProto"), [_tensor(part, external) for part in tree.messages("TensorProto")]
    starts = [t for t in tensors if t.starts]
    read = {name for node in nodes for name in node.message.input}
    read |= {port.name for graph in tree.messages("GraphProto") for port in graph.message.output}
    preset = {tensor.name for tensor in model.graph.initializer}
    properties = tree.messages("StringStringEntryProto")
    return OnnxSummary(
        ir_version=model.ir_version,
        opsets=opsets,
        inputs=tuple(_port(value) for value in model.graph.input if value.name not in preset),
        outputs=tuple(_port(value) for value in model.graph.output),
        external=tuple(_external(t) for t in tensors if t.is_external),
        ops=tuple(sorted({(_domain(node.message), node.message.op_type) for node in nodes})),
        n_nodes=len(nodes),
        functions=tuple(f"{_domain(f.message)}::{f.message.name}" for f in tree.messages("FunctionProto")),
        initializers=tuple(Initializer(t.name, t.elem_type, t.dims, t.size if t.stored else 0) for t in starts),
        unused=tuple(sorted({t.part.message.name for t in starts} - read)),
        non_finite=(*(t.name for t in tensors if t.holds_non_finite()), *_attributes_not_finite(tree)),
        malformed=tuple(problem for t in tensors if (problem := _misfit(t))),
        sized=tuple(_sized(tree, nodes, tensors)),
        metadata=tuple(
            (p.message.key, len((p.message.key + p.message.value).encode()))
            for p in properties
            if p.field == "metadata_props"
        ),
        text_bytes=tree.text_bytes,
        training_info=bool(model.training_info),
        oddities=oddities,
        values_sha256=_digest_of_values(tensors),
    )


def with_external(data: bytes, external: Mapping[str, bytes]) -> bytes:
    """The model with the weights of other files put in; their ranges were checked."""
    model = ModelProto.FromString(data)
    for part in _Tree.of(model).messages("TensorProto"):
        tensor = _tensor(part, external)
        if tensor.is_external:
            part.message.raw_data = bytes(tensor.payload() or b"")
            part.message.ClearField("data_location")
            part.message.ClearField("external_data")
    return bytes(model.SerializeToString())


# ---- the bytes and the message ------------------------------------------------------------------------------------


def _parse(data: bytes) -> tuple[ModelProto, tuple[str, ...]]:
    """The message, without what ONNX does not define, and what that was."""
    if data.startswith(LFS_POINTER):
        raise OnnxError("found a Git-LFS pointer, expected the model itself: run `git lfs pull`")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise OnnxError(f"found {len(data)} bytes that are no usable ONNX model, or one cut short: {reason}") from None
    model.DiscardUnknownFields()
    written = model.SerializeToString(deterministic=True)
    if written == data:
        return model, ()
    packed = packed_message().FromString(data)
    packed.DiscardUnknownFields()
    if packed.SerializeToString(deterministic=True) == data:
        return model, ()
    return model, tuple(_differences(data, written))


@cache
def packed_message() -> Any:
    """ModelProto as writers of proto3 serialise it (ONNX publishes both): every repeated number packed."""
    file = descriptor_pb2.FileDescriptorProto()
    ModelProto.DESCRIPTOR.file.CopyToProto(file)
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        for field in message.field:
            if field.label == field.LABEL_REPEATED and field.type not in (MESSAGE, STRING, BYTES):
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(ModelProto.DESCRIPTOR.full_name))


def _differences(data: bytes, written: bytes) -> Iterator[str]:
    """What the file holds beyond its message: unknown fields with their place, else where the bytes differ."""
    more = len(data) - len(written)
    if more > MAX_UNKNOWN:
        yield f"{more} bytes that the message does not hold"
        return
    unknown = list(islice(_unknown(data), MAX_ODDITIES))
    yield from unknown
    if not unknown:
        common = min(len(data), len(written))
        differing = np.frombuffer(data, np.uint8, common) != np.frombuffer(written, np.uint8, common)
        at = int(differing.argmax()) if differing.any() else common
        yield (
            f"{len(data)} bytes, {len(written)} when the message is written again, and another byte {at}: "
            "a field given twice, or a number in another form"
        )


def _unknown(data: bytes) -> Iterator[str]:
    for part in _Tree.of(ModelProto.FromString(data)).parts:
        known = part.message.DESCRIPTOR.fields_by_number
        for field in UnknownFieldSet(part.message):
            number = field.field_number
            if number in known:
                yield f"{part.path}: field {known[number].name} in another encoding, or of an unknown value"
            else:
                yield f"{part.path}: unknown field {number}, which is not in onnx {onnx_version}"


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A message and where it stands: the index-th of its parent's field."""

    message: Any
    parent: _Part | None = None
    field: str = ""
    index: int = 0

    @property
    def name(self) -> str:
        """DESCRIPTOR.name, such as NodeProto."""
        return str(self.message.DESCRIPTOR.name)

    @property
    def path(self) -> str:
        """Where it stands, for a person: `graph.node[3].attribute[0]`."""
        steps: list[str] = []
        part: _Part = self
        while part.parent is not None:
            repeated = _is_repeated(part.parent.message.DESCRIPTOR.fields_by_name[part.field])
            steps.append(f"{part.field}[{part.index}]" if repeated else part.field)
            part = part.parent
        return ".".join(reversed(steps)) or self.name


@cache
def _fields_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, bool, bool], ...]]:
    """Of a message type: its fields that hold one message, several, and text as (name, repeated, is a string)."""
    fields = ModelProto.DESCRIPTOR.file.pool.FindMessageTypeByName(name).fields
    single = tuple(f.name for f in fields if f.type == MESSAGE and not _is_repeated(f))
    several = tuple(f.name for f in fields if f.type == MESSAGE and _is_repeated(f))
    texts = (f for f in fields if f.type in (STRING, BYTES) and f.name != "raw_data")
    return single, several, tuple((f.name, _is_repeated(f), f.type == STRING) for f in texts)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == 3)  # protobuf < 6 has labels


@dataclass(frozen=True, slots=True)
class _Tree:
    """All messages of one model, outermost first, in the order of the file."""

    parts: Sequence[_Part]
    by_name: Mapping[str, list[_Part]]
    text_bytes: int

    @classmethod
    def of(cls, model: ModelProto) -> _Tree:
        parts: list[_Part] = []
        text_bytes, pending = 0, [_Part(model)]
        while pending:
            part = pending.pop()
            parts.append(part)
            if len(parts) + len(pending) > MAX_MESSAGES:
                raise OnnxError(f"it has more than {MAX_MESSAGES} protobuf messages")
            text_bytes += _text_bytes(part)
            if text_bytes > MAX_TEXT:
                raise OnnxError(f"it has more than {MAX_TEXT} bytes of names and other text")
            pending += reversed(list(_children(part)))
        by_name: dict[str, list[_Part]] = {}
        for part in parts:
            by_name.setdefault(part.name, []).append(part)
        return cls(parts, by_name, text_bytes)

    def messages(self, name: str) -> list[_Part]:
        """The messages of one type, wherever they stand."""
        return self.by_name.get(name, [])


def _children(part: _Part) -> Iterator[_Part]:
    single, several, _ = _fields_of(part.message.DESCRIPTOR.full_name)
    for name in single:
        if part.message.HasField(name):
            yield _Part(getattr(part.message, name), part, name)
    for name in several:
        for index, message in enumerate(getattr(part.message, name)):
            yield _Part(message, part, name, index)


def _text_bytes(part: _Part) -> int:
    """Bytes of the message's own texts. Raises OnnxError for a string that is not UTF-8: protobuf's readers differ."""
    total = 0
    for name, repeated, is_string in _fields_of(part.message.DESCRIPTOR.full_name)[2]:
        value = getattr(part.message, name)
        for text in value if repeated else (value,):
            if is_string and isinstance(text, bytes):
                raise OnnxError(f"{part.path}: {name} is not UTF-8")
            total += len(text) if isinstance(text, bytes) else len(text.encode())
    return total


# ---- tensors ------------------------------------------------------------------------------------------------------


@cache
def _type_names() -> dict[int, str]:
    """TensorProto.DataType in numpy's words: 1 -> 'float32'."""
    words = {"float": "float32", "double": "float64"}
    return {number: words.get(name.lower(), name.lower()) for name, number in TensorProto.DataType.items()}


def _elem_type(number: int) -> str:
    return _type_names().get(number, f"unknown({number})")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A TensorProto and what is asked of it again and again. bits: of an element, 0 where the type is unknown.

    stored: the fields that hold values. outside: the bytes of the other file with its values, where they were given.
    """

    part: _Part
    name: str  # its own, or where it stands
    elem_type: str
    bits: int
    dims: tuple[int, ...]
    is_external: bool
    stored: tuple[str, ...]
    outside: memoryview | None = None

    @property
    def size(self) -> int:
        """Bytes that type and shape ask for."""
        return -(-prod(self.dims) * self.bits // 8)

    @property
    def starts(self) -> bool:
        """Whether a graph starts with it."""
        part, parent = self.part, self.part.parent
        return part.field == "initializer" or bool(parent and parent.field == "sparse_initializer")

    def payload(self) -> bytes | memoryview | None:
        """The values as raw bytes, from this file or the other one; None where they are stored in another form."""
        if self.outside is not None:
            return self.outside
        return bytes(self.part.message.raw_data) if "raw_data" in self.stored else None

    def numbers(self, field: str) -> NDArray[Any]:
        """The values of a typed field, little-endian."""
        values = getattr(self.part.message, field)
        return np.fromiter(values, LITTLE[field], len(values))

    def holds_non_finite(self) -> bool:
        payload = self.payload()
        if payload is not None and holds_non_finite(self.elem_type, payload):
            return True
        fields = (f for f in self.stored if f in ("float_data", "double_data"))
        if any(not np.isfinite(self.numbers(field)).all() for field in fields):
            return True
        if self.elem_type not in NOT_FINITE or "int32_data" not in self.stored:
            return False
        mask, pattern = NOT_FINITE[self.elem_type]  # small floats may be stored as integers that hold their bits
        return bool(((self.numbers("int32_data").astype(np.int64) & mask) == pattern).any())


def holds_non_finite(elem_type: str, payload: bytes | memoryview) -> bool:
    """Whether raw little-endian values of a type hold NaN or infinity. Integers never do."""
    kind = PARTS.get(elem_type, elem_type)
    if kind not in NOT_FINITE or not payload:
        return False
    mask, pattern = NOT_FINITE[kind]
    width = (mask.bit_length() + 7) // 8
    bits = np.frombuffer(payload, dtype=f"<u{width}", count=len(payload) // width)
    return any(bool(((bits[at : at + CHUNK] & mask) == pattern).any()) for at in range(0, len(bits), CHUNK))


def _tensor(part: _Part, external: Mapping[str, bytes]) -> _Tensor:
    message, kind = part.message, _elem_type(part.message.data_type)
    name = message.name or part.path
    if len(message.dims) > MAX_RANK:
        raise OnnxError(f"{part.path}: more than {MAX_RANK} values in dims")
    dims = tuple(message.dims)
    if any(not 0 <= size < MAX_AXIS for size in dims):
        raise OnnxError(f"tensor {name[:80]!r} has the shape {dims}, expected a possible one")
    digits = re.match(r"[a-z]+(\d+)", "bool8" if kind == "bool" else kind)
    stored = tuple(field for field in DATA_FIELDS if len(getattr(message, field)))
    stored += ("raw_data",) if message.HasField("raw_data") else ()
    is_external = message.data_location != 0 or len(message.external_data) > 0
    tensor = _Tensor(part, name, kind, int(digits[1]) if digits else 0, dims, is_external, stored)
    return _with_values(tensor, external) if is_external and external else tensor


def _with_values(tensor: _Tensor, external: Mapping[str, bytes]) -> _Tensor:
    place = _external(tensor)
    if place.location not in external:
        return tensor
    end = None if place.length is None else place.offset + place.length
    view = memoryview(external[place.location])[place.offset : end]
    return dataclasses.replace(tensor, outside=view)


def _external(tensor: _Tensor) -> ExternalTensor:
    entries = tensor.part.message.external_data
    found = {entry.key: entry.value for entry in entries}
    where = f"tensor {tensor.name[:80]!r}: external data"
    if len(found) < len(entries) or set(found) - EXTERNAL_KEYS:
        raise OnnxError(f"{where} has an unknown or repeated key, expected {', '.join(sorted(EXTERNAL_KEYS))}")
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
    found, wanted = sum(len(getattr(tensor.part.message, name)) for name in stored), tensor.size
    if stored != ("raw_data",) and not 0 < tensor.bits < 8:  # smaller ones are packed into bytes in typed fields too
        wanted = prod(tensor.dims) * (2 if tensor.elem_type in PARTS else 1)
    return f"{tensor.name}: found {found} values or bytes, its shape asks for {wanted}" if found != wanted else None


def _digest_of_values(tensors: Iterable[_Tensor]) -> str:
    digests = []
    for tensor in tensors:
        digest, payload = hashlib.sha256(), tensor.payload()
        if payload is not None:
            digest.update(payload)
        for field in tensor.stored if payload is None else ():
            if field == "string_data":
                digest.update(b"\0".join(tensor.part.message.string_data))
            else:
                numbers = tensor.numbers(field)
                narrow = field == "int32_data" and 8 <= tensor.bits < 32  # as raw data would hold them
                digest.update((numbers.astype(f"<i{tensor.bits // 8}") if narrow else numbers).tobytes())
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _attributes_not_finite(tree: _Tree) -> Iterator[str]:
    for part in tree.messages("AttributeProto"):
        floats = part.message.floats
        if not np.isfinite(part.message.f) or not np.isfinite(np.fromiter(floats, np.float32, len(floats))).all():
            yield part.path


# ---- nodes and ports ----------------------------------------------------------------------------------------------


def _domain(message: Any) -> str:
    return "" if message.domain == "ai.onnx" else message.domain


def _port(value: Any) -> Port:
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        tensor = value.type.tensor_type
        shape = tuple(_axis(axis) for axis in tensor.shape.dim) if tensor.HasField("shape") else None
        return Port(value.name, _elem_type(tensor.elem_type), shape)
    return Port(value.name, kind.removesuffix("_type") if kind else "unknown", None)


def _axis(axis: Any) -> int | str | None:
    return axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None


def _sized(tree: _Tree, nodes: list[_Part], tensors: list[_Tensor]) -> Iterator[Sized]:
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
            yield Sized(node.message.name or node.path, op, None if values is None else prod(values))


def _integers(tensor: _Tensor) -> list[int] | None:
    """The values of a small int64 tensor in this file; None for any other."""
    payload, typed = tensor.payload() or b"", tensor.part.message.int64_data
    if tensor.elem_type != "int64" or tensor.is_external or max(len(payload) // 8, len(typed)) > MAX_RANK:
        return None
    return [int(n) for n in (np.frombuffer(payload, "<i8", len(payload) // 8) if payload else typed)]
