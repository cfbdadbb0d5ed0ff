"""blocks.py: text files in blocks of whole lines, and batches of rows from them. Knows neither CSV nor JSON.

A block is read column by column only where pyarrow means by it what the standard library does, and every number in it
is one. Else exact.py reads on from the rows that were not given yet: it knows what the odd spelling means, or which
line is wrong.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

from registry_tool.rows.batches import Columns, Place, RowBatch, Text
from registry_tool.rows.exact import Position, bytes_read, open_bytes
from registry_tool.values import Progress

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Number = TypeVar("Number", bound="np.generic")
BLOCK_BYTES = 1 << 20  # of a file parsed at once
NEWLINE_BYTE = 10


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, and where they begin."""

    data: bytes
    ends: NDArray[np.int64]  # of its lines: where the newlines are
    offset: int
    lines: int


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Rows of a block that were not given yet: those of `table`, behind `skip` others."""

    block: Block
    table: pa.Table
    skip: int = 0

    @property
    def position(self) -> Position:
        return Position(self.block.offset, self.block.lines, self.skip)


class BlockReader(Protocol):
    """What makes of blocks of one format."""

    def table(self, block: Block) -> pa.Table | None:
        """The rows as an Arrow table; None where pyarrow may mean something else by them than the standard library."""

    def batch(self, table: pa.Table, place: Place) -> RowBatch | None:
        """Rows of such tables as a batch; None where a number among them may not be read."""

    def place(self, start: Position) -> Place:
        """Where the rows from a position on are."""


def batches(
    path: Path, start: Position, reader: BlockReader, batch_rows: int, progress: Progress
) -> Generator[RowBatch, None, Position | None]:
    """Batches as exact.py gives them, and at the end the position from which that one must go on."""
    import pyarrow as pa

    with open_bytes(path) as file:
        file.seek(start.offset)
        parts: list[BlockPart] = []
        waiting = 0
        blocks = blocks_of(file, start.offset, start.lines)
        while True:
            block = next(blocks, None)
            table = None if block is None else reader.table(block)
            if block is not None and table is None:
                return parts[0].position if parts else Position(block.offset, block.lines)
            if block is not None and table is not None:
                parts.append(BlockPart(block, table))
                waiting += len(table)
            while waiting >= batch_rows or (block is None and waiting):
                taken, parts = _take(parts, batch_rows)
                table = pa.concat_tables([part.table for part in taken]).unify_dictionaries().combine_chunks()
                batch = reader.batch(table, reader.place(taken[0].position))
                if batch is None:
                    return taken[0].position
                waiting -= batch.n
                yield batch
                progress("reading", bytes_read(file), path.stat().st_size)
            if block is None:
                return None


def blocks_of(file: IO[bytes], offset: int, lines: int) -> Iterator[Block]:
    """The rest of a file, cut at ends of lines: about BLOCK bytes at once, or one long line."""
    import numpy as np

    rest: list[bytes] = []
    while data := file.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            block = b"".join((*rest, data[:end]))
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE_BYTE)
            yield Block(block, ends, offset, lines)
            offset, lines, rest = offset + len(block), lines + len(ends), []
        rest.append(data[end:])
    if last := b"".join(rest):
        yield Block(last, np.empty(0, np.int64), offset, lines)


def _take(parts: list[BlockPart], rows: int) -> tuple[list[BlockPart], list[BlockPart]]:
    """The first rows of some parts, and the others."""
    taken: list[BlockPart] = []
    left = list(parts)
    while left and rows:
        part = left.pop(0)
        n = min(rows, len(part.table))
        taken.append(BlockPart(part.block, part.table.slice(0, n), part.skip))
        if n < len(part.table):
            left.insert(0, BlockPart(part.block, part.table.slice(n), part.skip + n))
        rows -= n
    return taken, left


def is_text(data: bytes) -> bool:
    """Whether a block is UTF-8, without a byte order mark, which pyarrow drops, and with returns only at line ends."""
    if data.startswith(codecs.BOM_UTF8):
        return False
    if not data.isascii():
        try:
            codecs.utf_8_decode(data, "strict", True)
        except UnicodeDecodeError:
            return False
    return b"\r" not in data or data.count(b"\r") == data.count(b"\r\n")


def values_of(array: pa.Array, kind: type[Number]) -> NDArray[Number]:
    """An Arrow array of numbers of this type, not copied; a null is any number. Arrow's `to_numpy` imports pandas."""
    import numpy as np

    width = np.dtype(kind).itemsize
    return np.frombuffer(array.buffers()[1] or b"", kind, len(array), array.offset * width)


def numbers_of(array: pa.Array, columns: Columns) -> NDArray[np.float64] | None:
    """A column as numbers that may be read; None where one may not."""
    import numpy as np
    import pyarrow as pa

    if array.null_count:
        return None
    with suppress(pa.ArrowInvalid):
        values = values_of(array.cast(pa.float64()), np.float64)
        if columns.usable(values).all():
            return values
    return None


def text_of(array: pa.Array) -> Text:
    """An Arrow column of any type as texts; a null is the empty one."""
    import numpy as np
    import pyarrow as pa

    coded = array if hasattr(array, "indices") else array.dictionary_encode()
    words = Text.of([*coded.dictionary.to_pylist(), None])  # the last one is for nulls
    indices = coded.indices.cast(pa.int64())
    if indices.null_count:
        indices = indices.fill_null(len(coded.dictionary))
    return Text(words.codes[values_of(indices, np.int64)], words.names)
