"""tensors.py: a TensorProto, its values, and what is wrong with them. Runs in the child alone; judges nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from registry_tool.onnx_summary import ExternalTensor, OnnxError
from registry_tool.sandbox.message import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_RANK = 64  # axes of a tensor, as in numpy
MAX_AXIS = 2**40
CHUNK_VALUES = 2**18  # values looked at together


@dataclass(frozen=True, slots=True)
class OddValues:
    """Whether some numbers hold NaN, an infinity, and +infinity."""

    nan: bool = False
    infinite: bool = False
    positive: bool = False


@dataclass(frozen=True, slots=True)
class FloatBits:
    """A float type by its bits. (value & mask) == pattern: NaN or infinite. infinity: +inf; None where it has none."""

    width: int
    mask: int
    pattern: int
    infinity: int | None

    def odd_values(self, bits: NDArray[Any]) -> OddValues:
        found = OddValues()
        for start in range(0, len(bits), CHUNK_VALUES):
            piece = bits[start : start + CHUNK_VALUES]
            odd = piece[(piece & self.mask) == self.pattern]
            if len(odd):
                positive = odd == self.infinity if self.infinity is not None else np.zeros(len(odd), bool)
                negative = odd == (self.infinity or 0) | 1 << (8 * self.width - 1) if self.infinity else positive
                found = OddValues(
                    found.nan or bool((~(positive | negative)).any()),
                    found.infinite or bool((positive | negative).any()),
                    found.positive or bool(positive.any()),
                )
        return found


FLOAT_BITS = {  # IEEE 754; OCP 8-bit formats, 2023
    "float16": FloatBits(2, 0x7C00, 0x7C00, 0x7C00),
    "bfloat16": FloatBits(2, 0x7F80, 0x7F80, 0x7F80),
    "float32": FloatBits(4, 0x7F800000, 0x7F800000, 0x7F800000),
    "float64": FloatBits(8, 0x7FF0000000000000, 0x7FF0000000000000, 0x7FF0000000000000),
    "float8e4m3fn": FloatBits(1, 0x7F, 0x7F, None),
    "float8e4m3fnuz": FloatBits(1, 0xFF, 0x80, None),
    "float8e5m2": FloatBits(1, 0x7C, 0x7C, 0x7C),
    "float8e5m2fnuz": FloatBits(1, 0xFF, 0x80, None),
    "float8e8m0": FloatBits(1, 0xFF, 0xFF, None),
}
COMPLEX_PARTS = {"complex64": "float32", "complex128": "float64"}
TYPED_FIELDS = {  # a field of TensorProto -> the types that it stores; all others are stored in int32_data
    "float_data": ("float32", "complex64"),
    "double_data": ("float64", "complex128"),
    "int64_data": ("int64",),
    "uint64_data": ("uint32", "uint64"),
    "string_data": ("string",),
}
STORED_IN = {kind: field for field, kinds in TYPED_FIELDS.items() for kind in kinds}
DATA_FIELDS = (*TYPED_FIELDS, "int32_data")
LITTLE_ENDIAN_TYPES = {
    "float_data": "<f4",
    "double_data": "<f8",
    "int64_data": "<i8",
    "uint64_data": "<u8",
    "int32_data": "<i4",
}
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


@cache
def _type_names() -> dict[int, str]:
    """TensorProto.DataType in numpy's words: 1 -> 'float32'."""
    words = {"float": "float32", "double": "float64"}
    return {number: words.get(name.lower(), name.lower()) for name, number in TensorProto.DataType.items()}


def elem_type(number: int) -> str:
    return _type_names().get(number, f"unknown({number})")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A TensorProto and what is asked of it again and again. bits: of an element, 0 where the type is unknown.

    stored: the fields that hold values. outside: the bytes of the other file with its values, where they were given.
    """

    part: Part
    name: str  # its own, or its place
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
        return np.fromiter(values, LITTLE_ENDIAN_TYPES[field], len(values))

    def odd_values(self) -> OddValues:
        """NaN and infinities among its values."""
        bits = FLOAT_BITS.get(COMPLEX_PARTS.get(self.elem_type, self.elem_type))
        if bits is None:
            return OddValues()
        payload = self.payload()
        if payload is not None:
            kind = f"<u{bits.width}"
            return bits.odd_values(np.frombuffer(payload, kind, len(payload) // bits.width))
        for field in self.stored:
            if field in ("float_data", "double_data"):
                return bits.odd_values(self.numbers(field).view(f"<u{bits.width}"))
            if field == "int32_data":  # small floats may be stored as integers that hold their bits
                return bits.odd_values(self.numbers(field).astype(f"<u{bits.width}"))
        return OddValues()


def tensor_of(part: Part, external: Mapping[str, bytes]) -> Tensor:
    message, kind = part.message, elem_type(part.message.data_type)
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
    tensor = Tensor(part, name, kind, int(digits[1]) if digits else 0, dims, is_external, stored)
    return _with_values(tensor, external) if is_external and external else tensor


def _with_values(tensor: Tensor, external: Mapping[str, bytes]) -> Tensor:
    place = external_of(tensor)
    if place.location not in external:
        return tensor
    end = None if place.length is None else place.offset + place.length
    view = memoryview(external[place.location])[place.offset : end]
    return dataclasses.replace(tensor, outside=view)


def external_of(tensor: Tensor) -> ExternalTensor:
    entries = tensor.part.message.external_data
    found = {entry.key: entry.value for entry in entries}
    subject = f"tensor {tensor.name[:80]!r}: external data"
    if len(found) < len(entries) or set(found) - EXTERNAL_KEYS:
        raise OnnxError(f"{subject} has an unknown or repeated key, expected {', '.join(sorted(EXTERNAL_KEYS))}")
    if not found.get("location"):
        raise OnnxError(f"{subject} has no location: export the model with its weights inside")
    for key in ("offset", "length"):
        if not re.fullmatch("[0-9]{1,15}", found.get(key, "0")):
            raise OnnxError(f"{subject} has the {key} {found[key][:40]!r}, expected a number of bytes")
    length = int(found["length"]) if "length" in found else None
    offset, checksum = int(found.get("offset", "0")), found.get("checksum")
    return ExternalTensor(tensor.name, tensor.elem_type, tensor.size, found["location"], offset, length, checksum)


def misfit_of(tensor: Tensor) -> str | None:
    """Why the stored values are not those of the tensor's type and shape; None if they are, or lie in another file."""
    stored, field = tensor.stored, STORED_IN.get(tensor.elem_type, "int32_data")
    if tensor.is_external:
        return f"{tensor.name}: it has values in this file and in another one" if stored else None
    if stored not in ((), (field,), ("raw_data",)):
        return f"{tensor.name}: found {tensor.elem_type} values in {', '.join(stored)}, expected {field} or raw_data"
    found, wanted = sum(len(getattr(tensor.part.message, name)) for name in stored), tensor.size
    if stored != ("raw_data",) and not 0 < tensor.bits < 8:  # smaller ones are packed into bytes in typed fields too
        wanted = prod(tensor.dims) * (2 if tensor.elem_type in COMPLEX_PARTS else 1)
    return f"{tensor.name}: found {found} values or bytes, its shape asks for {wanted}" if found != wanted else None


def digest_of_values(tensors: Iterable[Tensor]) -> str:
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
