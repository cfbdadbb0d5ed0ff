"""columnar.py: parquet, and CSV in blocks, by pyarrow: as fast as the file can be read. Names no line of a CSV.

A block of a CSV is read here only where pyarrow means by it what the standard library does, and every number in it is
one. Else exact.py reads on from the rows that were not given yet: it knows what the odd spelling means, or which line
is wrong.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from registry_tool.errors import InputError
from registry_tool.hookspec import Progress
from registry_tool.rows.exact import Position, csv_place
from registry_tool.tables import Columns, Pick, Place, RowBatch, Text, bad_cell, require_unique

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ_BUFFER = 1 << 20  # bytes; without it pyarrow holds whole column chunks, however long
BLOCK_BYTES = 1 << 20  # bytes of a CSV parsed at once
FIELD_LIMIT = 131_072  # csv.field_size_limit(): the standard library refuses longer fields
COMMA, QUOTE, NEWLINE, RETURN = b',"\n\r'


# ---- parquet ----------------------------------------------------------------------------------------------------


def read_parquet(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    """The rows of a file, at most `batch_rows` in memory."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = parquet.ParquetFile(path, buffer_size=READ_BUFFER)
        require_unique(path, file.schema_arrow.names)
        columns = pick(file.schema_arrow.names)
        first = 1
        for batch in file.iter_batches(batch_rows, columns=columns.names):

            def place(index: int, first: int = first) -> str:
                return f"{path}, row {first + index}"

            yield RowBatch(
                batch.num_rows,
                place,
                {n: columns.checked(_numbers(batch.column(n), n, place), n, place) for n in columns.numbers},
                {name: _text(batch.column(name)) for name in columns.texts},
                {name: batch.column(name).to_pylist() for name in columns.values},
            )
            first += batch.num_rows
            progress("reading", first - 1, file.metadata.num_rows)
        pa.default_memory_pool().release_unused()  # it would keep 90 MB of a million rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: not a readable parquet file ({reason}): write it again") from None


def _numbers(array: Any, column: str, place: Place) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa

    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise bad_cell(place(0), column, f"a column of {kind}", "numbers", "convert the column")
    values: NDArray[np.float64] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if array.null_count:
        index = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise bad_cell(place(index), column, "nothing", "a number")
    return values


def _text(array: Any) -> Text:
    coded = array if hasattr(array, "indices") else array.dictionary_encode()
    words = Text.of([*coded.dictionary.to_pylist(), None])  # the last one is for nulls
    return Text(words.codes[coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)], words.names)


# ---- CSV --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole lines of a file, and where they begin."""

    data: bytes
    ends: NDArray[np.int64]  # of its lines: where the newlines are
    offset: int
    lines: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a block that were not given yet: those of `table`, behind `skip` others."""

    block: _Block
    table: Any
    skip: int = 0

    @property
    def position(self) -> Position:
        return Position(self.block.offset, self.block.lines, self.skip)


def csv_batches(
    path: Path, columns: Columns, header: list[str], header_lines: int, batch_rows: int, progress: Progress
) -> Generator[RowBatch, None, Position | None]:
    """Batches as `exact.csv_batches` gives them, and at the end the position from which that one must go on."""
    reader = _Reader(columns, header)
    with path.open("rb") as file:
        start = b"".join(file.readline() for _ in range(header_lines))
        if start.count(b"\r") != start.count(b"\r\n"):
            return Position(0, 0, 1)  # the whole file may be one line of `readline`
        parts: list[_Part] = []
        waiting = 0
        blocks = _blocks(file, len(start), header_lines)
        while True:
            block = next(blocks, None)
            table = None if block is None else reader.table(block)
            if block is not None and table is None:
                return parts[0].position if parts else Position(block.offset, block.lines)
            if block is not None and table is not None:
                parts.append(_Part(block, table))
                waiting += len(table)
            while waiting >= batch_rows or (block is None and waiting):
                taken, parts = _take(parts, batch_rows)
                batch = reader.batch(path, taken)
                if batch is None:
                    return taken[0].position
                waiting -= batch.n
                yield batch
                progress("reading", file.tell(), path.stat().st_size)
            if block is None:
                return None


def _blocks(file: IO[bytes], offset: int, lines: int) -> Iterator[_Block]:
    """The rest of a file, cut at ends of lines: about BLOCK bytes at once, or one long line."""
    import numpy as np

    rest: list[bytes] = []
    while data := file.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            block = b"".join((*rest, data[:end]))
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE)
            yield _Block(block, ends, offset, lines)
            offset, lines, rest = offset + len(block), lines + len(ends), []
        rest.append(data[end:])
    if last := b"".join(rest):
        yield _Block(last, np.empty(0, np.int64), offset, lines)


def _take(parts: list[_Part], rows: int) -> tuple[list[_Part], list[_Part]]:
    """The first rows of some parts, and the others."""
    taken: list[_Part] = []
    left = list(parts)
    while left and rows:
        part = left.pop(0)
        n = min(rows, len(part.table))
        taken.append(_Part(part.block, part.table.slice(0, n), part.skip))
        if n < len(part.table):
            left.insert(0, _Part(part.block, part.table.slice(n), part.skip + n))
        rows -= n
    return taken, left


class _Reader:
    """Blocks of a CSV -> Arrow tables -> batches. Columns are named by their number: names may hold anything."""

    def __init__(self, columns: Columns, header: list[str]) -> None:
        import pyarrow as pa
        from pyarrow import csv

        text = pa.dictionary(pa.int32(), pa.string())
        self.columns, self.n_columns = columns, len(header)
        self._at = {name: str(header.index(name)) for name in columns.names}
        types = {self._at[name]: pa.float64() for name in columns.numbers}
        types |= {self._at[name]: text for name in columns.texts}
        types |= {self._at[name]: pa.string() for name in columns.values}  # which the others are made of, too
        self._parse = csv.ParseOptions(newlines_in_values=False)
        self._convert = csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False, check_utf8=False
        )

    def table(self, block: _Block) -> Any:
        """The rows of a block, or None where pyarrow may mean something else by it than the standard library."""
        import pyarrow as pa
        from pyarrow import csv

        if not _is_plain(block):
            return None
        names = [str(number) for number in range(self.n_columns)]
        read = csv.ReadOptions(column_names=names, block_size=len(block.data) + 1, use_threads=False)
        with suppress(pa.ArrowInvalid):
            return csv.read_csv(pa.BufferReader(block.data), read, self._parse, self._convert)
        return None

    def batch(self, path: Path, parts: list[_Part]) -> RowBatch | None:
        """Consecutive rows as one batch; None where a number among them may not be read."""
        import pyarrow as pa

        table = pa.concat_tables([part.table for part in parts]).unify_dictionaries().combine_chunks()
        arrays = {name: table.column(index).chunk(0) for name, index in self._at.items()}
        numbers = {}
        for name in self.columns.numbers:
            with suppress(pa.ArrowInvalid):
                numbers[name] = arrays[name].cast(pa.float64()).to_numpy()
            if name not in numbers or not self.columns.usable(numbers[name]).all():
                return None
        texts = {name: _text(arrays[name]) for name in self.columns.texts}
        values = {name: arrays[name].to_pylist() for name in self.columns.values}
        return RowBatch(len(table), csv_place(path, self.n_columns, parts[0].position), numbers, texts, values)


def _is_plain(block: _Block) -> bool:
    """Whether pyarrow and the standard library take the lines and fields of a block alike.

    They do where text is UTF-8 without a byte order mark, which pyarrow drops, a return is only before a newline,
    no field is longer than the standard library takes, and quotes open where a field begins and close where it ends, on
    one line.
    """
    import numpy as np

    data = block.data
    if data.startswith(codecs.BOM_UTF8):
        return False
    if not data.isascii():
        try:
            codecs.utf_8_decode(data, "strict", True)
        except UnicodeDecodeError:
            return False
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    if np.diff(block.ends, prepend=-1, append=len(data)).max() > FIELD_LIMIT:
        return False  # a long line need not hold a long field, and costs nothing but time
    return b'"' not in data or _quotes_are_plain(np.frombuffer(data, np.uint8), block.ends)


def _quotes_are_plain(data: NDArray[np.uint8], lines: NDArray[np.int64]) -> bool:
    import numpy as np

    quotes = np.flatnonzero(data == QUOTE)
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    if (np.searchsorted(lines, opening) != np.searchsorted(lines, closing)).any():
        return False
    padded = np.concatenate([[NEWLINE], data, [NEWLINE]]).astype(np.uint8)
    begins, ends = (np.isin(padded[position], (COMMA, NEWLINE, RETURN)) for position in (opening, closing + 2))
    doubled = opening[1:] == closing[:-1] + 1  # "" inside a field
    begins[1:] |= doubled
    ends[:-1] |= doubled
    return bool(begins.all() and ends.all())
