"""protowire.py: walks protobuf bytes against a schema, within limits. Copies no payload, knows no ONNX.

A parser for a format accepts what it does not know: unknown fields, a field twice, a field in another encoding. Here
all that is kept as `oddities`, because bytes that one reader sees and another skips are where things hide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 64  # messages within messages; a subgraph takes three, and readers in C++ give up at 100
MAX_FIELDS = 100_000  # a network of 1,000 nodes has some 30,000
MAX_TEXT = 2**24  # bytes; Python may take four times as much
CHUNK = 2**18  # bytes unpacked together
MAX_ODDITIES = 20  # named; the rest is not


class WireError(ValueError):
    """Bytes that are no protobuf message, or more than the limits allow."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema. `exclusive`: its oneof's name, or its own. `is_text`: its bytes are for people to read."""

    name: str
    wire: int
    repeated: bool
    exclusive: str
    is_text: bool = False
    message: Schema | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """A message type: its fields by number. Filled after it is made, because types contain each other."""

    name: str
    fields: dict[int, Field] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Message:
    """A parsed message. values: for each field present, in order, an int (varint), a view of the payload, or a message.

    A repeated number may be packed: then its value is one view of all of them.
    """

    schema: Schema
    parent: Message | None = None
    place: str = ""
    index: int = 0
    values: dict[str, list[int | memoryview | Message]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where it stands, for a person: `graph.node[3].attribute[0]`."""
        steps, message = [], self
        while message.parent is not None:
            steps.append(f"{message.place}[{message.index}]")
            message = message.parent
        return ".".join(reversed(steps)).replace("graph[0]", "graph") or self.schema.name

    def messages(self, name: str) -> list[Message]:
        """The messages in a field, in order."""
        return [value for value in self.values.get(name, ()) if isinstance(value, Message)]

    def views(self, name: str) -> list[memoryview]:
        """The payloads of a text, bytes, fixed or packed field, in order."""
        return [value for value in self.values.get(name, ()) if isinstance(value, memoryview)]

    def joined(self, *names: str) -> bytes | memoryview:
        """The payloads of some fields in a row; a lone one, the usual case, is not copied."""
        views = [view for name in names for view in self.views(name)]
        return views[0] if len(views) == 1 else b"".join(views)

    def text(self, name: str) -> str:
        """The last value, as protobuf has it; '' if absent. WireError for what is not UTF-8."""
        texts = self.texts(name)
        return texts[-1] if texts else ""

    def texts(self, name: str) -> list[str]:
        """All values of a repeated text field. WireError for what is not UTF-8."""
        try:
            return [str(view, "utf-8") for view in self.views(name)]
        except UnicodeDecodeError:
            raise WireError(f"{self.path}: {name} is not UTF-8") from None

    def integers(self, name: str, at_most: int) -> list[int]:
        """All values of a repeated integer, packed or not, as signed 64-bit numbers; WireError beyond at_most."""
        found: list[int] = []
        for value in self.values.get(name, ()):
            if isinstance(value, int):
                found.append(_signed(value))
            elif isinstance(value, memoryview):
                data, at = bytes(value[: 10 * at_most + 1]), 0
                while at < len(data) and len(found) <= at_most:
                    number, at = _varint(data, at, len(data))
                    found.append(_signed(number))
            if len(found) > at_most:
                raise WireError(f"{self.path}: more than {at_most} values in {name}")
        return found

    def integer(self, name: str) -> int:
        """The last value of an integer field; 0 if absent."""
        numbers = [value for value in self.values.get(name, ()) if isinstance(value, int)]
        return _signed(numbers[-1]) if numbers else 0


@dataclass(slots=True)
class Tree:
    """All messages of one file, outermost first, and what no strict writer would have written."""

    messages: list[Message] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    n_fields: int = 0
    text_bytes: int = 0

    def of(self, name: str) -> Iterator[Message]:
        """The messages of one type, wherever they stand."""
        return (message for message in self.messages if message.schema.name == name)


def parse(data: bytes, schema: Schema) -> Tree:
    """The message in `data`; time and memory are bounded by MAX_FIELDS whatever the bytes are. Raises WireError."""
    tree = Tree()
    _parse(data, 0, len(data), Message(schema), 1, tree)
    return tree


def unpacked(packed: memoryview) -> Iterator[NDArray[np.uint64]]:
    """The integers of a packed field, some at a time; an unfinished last one is left out."""
    import numpy as np

    data, at = np.frombuffer(packed, np.uint8), 0
    while len(ends := np.flatnonzero(data[at : at + CHUNK] < 128)):
        piece = data[at : at + int(ends[-1]) + 1].astype(np.uint64)
        begins = np.append(0, ends[:-1] + 1)
        numbers = np.zeros(len(ends), np.uint64)
        for place in range(10):
            inside = begins + place <= ends
            numbers[inside] |= (piece[begins[inside] + place] & np.uint64(127)) << np.uint64(7 * place)
        yield numbers
        at += len(piece)


def _parse(data: bytes, at: int, end: int, message: Message, depth: int, tree: Tree) -> None:
    if depth > MAX_DEPTH:
        raise WireError(f"messages nest deeper than {MAX_DEPTH} levels")
    tree.messages.append(message)
    view, size = memoryview(data), 0
    seen: set[str] = set()
    while at < end:
        tree.n_fields += 1
        if tree.n_fields > MAX_FIELDS:
            raise WireError(f"it has more than {MAX_FIELDS} protobuf fields")
        start = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == VARINT:
            value, at = _varint(data, at, end)
        elif wire in (BYTES, FIXED32, FIXED64):
            size, at = _varint(data, at, end) if wire == BYTES else (4 if wire == FIXED32 else 8, at)
            if size > end - at:
                raise WireError(f"the field at byte {start} takes {size} bytes, {end - at} are left: it is cut short")
            value, at = view[at : at + size], at + size
        if number == 0 or number >= 1 << 29 or wire not in (VARINT, BYTES, FIXED32, FIXED64):
            raise WireError(f"no protobuf field begins at byte {start}")
        known = message.schema.fields.get(number)
        packed = known is not None and wire == BYTES and known.repeated and known.message is None
        if known is None or not (wire == known.wire or packed):
            what = f"unknown field {number}" if known is None else f"field {known.name} in another encoding"
            _odd(tree, message, f"{what}, {at - start} bytes")
            continue
        if packed and known.wire != BYTES:
            _check_packed(view[at - size : at], known, start)
        if not known.repeated and known.exclusive in seen:
            _odd(tree, message, f"field {known.name} given twice")
        seen.add(known.exclusive)
        values = message.values.setdefault(known.name, [])
        if known.message is None:
            values.append(value)
            tree.text_bytes += size if known.is_text else 0
            if tree.text_bytes > MAX_TEXT:
                raise WireError(f"it has more than {MAX_TEXT} bytes of names and other text")
        else:
            inner = Message(known.message, message, known.name, len(values))
            values.append(inner)
            _parse(data, at - size, at, inner, depth + 1, tree)


def _check_packed(payload: memoryview, known: Field, start: int) -> None:
    if known.wire == VARINT:
        whole = not payload or payload[-1] < 0x80
    else:
        whole = len(payload) % (4 if known.wire == FIXED32 else 8) == 0
    if not whole:
        raise WireError(f"a number in {known.name} at byte {start} is cut short")
    if known.wire == VARINT and re.search(rb"[\x80-\xff]{10}", payload):
        raise WireError(f"{known.name} at byte {start} has a number of more than 64 bits")


def _odd(tree: Tree, message: Message, text: str) -> None:
    if len(tree.oddities) < MAX_ODDITIES:
        tree.oddities.append(f"{message.path}: {text}")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned number at `at`, and where the next thing begins. At most ten bytes, 64 bits."""
    result = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise WireError(f"it ends within the number at byte {at}: it is cut short")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >= 1 << 64:
                break
            return result, at
    raise WireError(f"byte {at} is within a number of more than 64 bits")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
