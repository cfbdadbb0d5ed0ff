"""message.py: the protobuf message in the bytes of an ONNX file, and what the bytes hold beyond it. Judges nothing.

Runs in the child alone. The parser is the one that runtimes use, so what it reads is what they read. Whatever bytes are
no part of that are the difference between the file and the message written again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from google.protobuf import (  # type: ignore[import-untyped]  # protobuf ships no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]  # as above
from onnx import ModelProto
from onnx import __version__ as onnx_version

from registry_tool.onnx_summary import OnnxError

LFS_POINTER = b"version https://git-lfs"
MAX_MESSAGES = 100_000  # a network of 1,000 nodes has some 10,000
MAX_TEXT = 2**24  # bytes of names, documents and strings
MAX_ODDITIES = 20  # named; the rest is not
MAX_UNKNOWN = 2**20  # bytes of unknown fields whose places are looked for
MESSAGE, STRING, BYTES = 11, 9, 12  # FieldDescriptor.type


def parse_model(data: bytes) -> tuple[ModelProto, tuple[str, ...]]:
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
        position = int(differing.argmax()) if differing.any() else common
        yield (
            f"{len(data)} bytes, {len(written)} when the message is written again, and another byte {position}: "
            "a field given twice, or a number in another form"
        )


def _unknown(data: bytes) -> Iterator[str]:
    for part in Tree.of(ModelProto.FromString(data)).parts:
        known = part.message.DESCRIPTOR.fields_by_number
        for field in UnknownFieldSet(part.message):
            number = field.field_number
            if number in known:
                yield f"{part.path}: field {known[number].name} in another encoding, or of an unknown value"
            else:
                yield f"{part.path}: unknown field {number}, which is not in onnx {onnx_version}"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A message and its place: the index-th of its parent's field."""

    message: Any
    parent: Part | None = None
    field: str = ""
    index: int = 0

    @property
    def name(self) -> str:
        """DESCRIPTOR.name, such as NodeProto."""
        return str(self.message.DESCRIPTOR.name)

    @property
    def path(self) -> str:
        """Its place, for a person: `graph.node[3].attribute[0]`."""
        steps: list[str] = []
        part: Part = self
        while part.parent is not None:
            repeated = _is_repeated(part.parent.message.DESCRIPTOR.fields_by_name[part.field])
            steps.append(f"{part.field}[{part.index}]" if repeated else part.field)
            part = part.parent
        return ".".join(reversed(steps)) or self.name


@cache
def fields_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, bool, bool], ...]]:
    """Of a message type: its fields that hold one message, several, and text as (name, repeated, is a string)."""
    fields = ModelProto.DESCRIPTOR.file.pool.FindMessageTypeByName(name).fields
    single = tuple(f.name for f in fields if f.type == MESSAGE and not _is_repeated(f))
    several = tuple(f.name for f in fields if f.type == MESSAGE and _is_repeated(f))
    texts = (f for f in fields if f.type in (STRING, BYTES) and f.name != "raw_data")
    return single, several, tuple((f.name, _is_repeated(f), f.type == STRING) for f in texts)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == 3)  # protobuf < 6 has labels


@dataclass(frozen=True, slots=True)
class Tree:
    """All messages of one model, outermost first, in the order of the file."""

    parts: Sequence[Part]
    by_name: Mapping[str, list[Part]]
    text_bytes: int

    @classmethod
    def of(cls, model: ModelProto) -> Tree:
        parts: list[Part] = []
        text_bytes, pending = 0, [Part(model)]
        while pending:
            part = pending.pop()
            parts.append(part)
            if len(parts) + len(pending) > MAX_MESSAGES:
                raise OnnxError(f"it has more than {MAX_MESSAGES} protobuf messages")
            text_bytes += _text_bytes(part)
            if text_bytes > MAX_TEXT:
                raise OnnxError(f"it has more than {MAX_TEXT} bytes of names and other text")
            pending += reversed(list(_children(part)))
        by_name: dict[str, list[Part]] = {}
        for part in parts:
            by_name.setdefault(part.name, []).append(part)
        return cls(parts, by_name, text_bytes)

    def messages(self, name: str) -> list[Part]:
        """The messages of one type, wherever they are."""
        return self.by_name.get(name, [])


def _children(part: Part) -> Iterator[Part]:
    single, several, _ = fields_of(part.message.DESCRIPTOR.full_name)
    for name in single:
        if part.message.HasField(name):
            yield Part(getattr(part.message, name), part, name)
    for name in several:
        for index, message in enumerate(getattr(part.message, name)):
            yield Part(message, part, name, index)


def _text_bytes(part: Part) -> int:
    """Bytes of the message's own texts. Raises OnnxError for a string that is not UTF-8: protobuf's readers differ."""
    total = 0
    for name, repeated, is_string in fields_of(part.message.DESCRIPTOR.full_name)[2]:
        value = getattr(part.message, name)
        for text in value if repeated else (value,):
            if is_string and isinstance(text, bytes):
                raise OnnxError(f"{part.path}: {name} is not UTF-8")
            total += len(text) if isinstance(text, bytes) else len(text.encode())
    return total
