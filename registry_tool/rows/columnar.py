"""columnar.py: parquet, Arrow, CSV and JSON lines by pyarrow: as fast as can be. Names no line of a text."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tool.errors import InputError
from registry_tool.rows.batches import Columns, Pick, Place, RowBatch, UnusableNumberError, bad_cell, require_unique
from registry_tool.rows.blocks import NEWLINE_BYTE, Block, batches, is_text, numbers_of, text_of, values_of
from registry_tool.rows.exact import Header, Position, csv_place, jsonl_place, open_bytes
from registry_tool.values import Progress

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

READ_BUFFER = 1 << 20  # bytes; without it pyarrow holds whole column chunks, however long
INTEGER_LIMIT = 2.0**1023  # of JSON's: exact.py refuses larger ones
LINE_LIMIT = 4096  # bytes of JSON: below the digits that the standard library takes
FIELD_LIMIT = 131_072  # csv.field_size_limit(): the standard library refuses longer fields
QUOTE, RETURN = b'"\r'


# ---- parquet ----------------------------------------------------------------------------------------------------


def read_parquet(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    """The rows of a file, at most `batch_rows` in memory."""
    with _arrow(path, "parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        file = parquet.ParquetFile(path, buffer_size=READ_BUFFER)
        require_unique(path, file.schema_arrow.names)
        columns = pick(file.schema_arrow.names)
        yield from _arrow_batches(
            path, columns, file.iter_batches(batch_rows, columns=columns.names), file.metadata.num_rows, progress
        )
        pa.default_memory_pool().release_unused()  # it would keep 90 MB of a million rows


def read_arrow(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    """The rows of a feather or Arrow file, which is mapped into memory."""
    with _arrow(path, "feather or Arrow"):
        import pyarrow as pa

        with pa.memory_map(str(path)) as source:
            table = _arrow_table(source)
            require_unique(path, table.schema.names)
            columns = pick(table.schema.names)
            yield from _arrow_batches(path, columns, table.to_batches(batch_rows), table.num_rows, progress)


@contextmanager
def _arrow(path: Path, words: str) -> Iterator[None]:
    """What pyarrow says of a file that it cannot read, as the one line that a user gets; and that it is not there."""
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(f"{path}: reading {path.suffix[1:].lower()} needs pyarrow: pip install pyarrow") from None
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: not a readable {words} file ({reason}): write it again") from None


def _arrow_table(source: pa.MemoryMappedFile) -> pa.Table:
    """What is not compressed stays in the file."""
    import pyarrow as pa
    from pyarrow import ipc

    with suppress(pa.ArrowInvalid):
        return ipc.open_file(source).read_all()
    source.seek(0)
    return ipc.open_stream(source).read_all()


def _arrow_batches(
    path: Path, columns: Columns, batches: Iterable[pa.RecordBatch], n_rows: int, progress: Progress
) -> Iterator[RowBatch]:
    first = 1
    for batch in batches:

        def place(index: int, first: int = first) -> str:
            return f"{path}, row {first + index}"

        yield RowBatch(
            batch.num_rows,
            place,
            {n: columns.checked(_numbers(batch.column(n), n, place), n, place) for n in columns.numbers},
            {name: text_of(batch.column(name)) for name in columns.texts},
            {name: batch.column(name).to_pylist() for name in columns.values},
        )
        first += batch.num_rows
        progress("reading", first - 1, n_rows)


def _numbers(array: pa.Array, column: str, place: Place) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa

    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise bad_cell(place(0), column, f"a column of {kind}", "numbers", "convert the column")
    values = values_of(array.cast(pa.float64(), safe=False), np.float64)
    if array.null_count:
        index = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise UnusableNumberError(place(index), column, "nothing")
    return values


# ---- CSV --------------------------------------------------------------------------------------------------------


def csv_batches(
    path: Path, columns: Columns, header: Header, batch_rows: int, progress: Progress
) -> Generator[RowBatch, None, Position | None]:
    """The rows of a CSV; see `blocks.batches`."""
    with open_bytes(path) as file:
        start = b"".join(file.readline() for _ in range(header.lines))
    if start.count(b"\r") != start.count(b"\r\n"):
        return Position(0, 0, 1)  # the whole file may be one line of `readline`
    reader = _CsvReader(path, columns, header)
    return (yield from batches(path, Position(len(start), header.lines), reader, batch_rows, progress))


class _CsvReader:
    """Columns are named by their number in Arrow: names may hold anything."""

    def __init__(self, path: Path, columns: Columns, header: Header) -> None:
        import pyarrow as pa
        from pyarrow import csv

        text = pa.dictionary(pa.int32(), pa.string())
        self.path, self.columns, self.header = path, columns, header
        self._at = {name: str(header.names.index(name)) for name in columns.names}
        types = {self._at[name]: pa.float64() for name in columns.numbers}
        types |= {self._at[name]: text for name in columns.texts}
        types |= {self._at[name]: pa.string() for name in columns.values}  # which the others are made of, too
        self._parse = csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=False)
        self._convert = csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False, check_utf8=False
        )

    def table(self, block: Block) -> pa.Table | None:
        import pyarrow as pa
        from pyarrow import csv

        if not _is_plain(block, self.header.delimiter):
            return None
        names = [str(number) for number in range(len(self.header.names))]
        read = csv.ReadOptions(column_names=names, block_size=len(block.data) + 1, use_threads=False)
        with suppress(pa.ArrowInvalid):
            return csv.read_csv(pa.BufferReader(block.data), read, self._parse, self._convert)
        return None

    def batch(self, table: pa.Table, place: Place) -> RowBatch | None:
        arrays = {name: table.column(index).chunk(0) for name, index in self._at.items()}
        numbers = {}
        for name in self.columns.numbers:
            if (found := numbers_of(arrays[name], self.columns)) is None:
                return None
            numbers[name] = found
        texts = {name: text_of(arrays[name]) for name in self.columns.texts}
        values = {name: arrays[name].to_pylist() for name in self.columns.values}
        return RowBatch(len(table), place, numbers, texts, values)

    def place(self, start: Position) -> Place:
        return csv_place(self.path, self.header, start)


def _is_plain(block: Block, delimiter: str) -> bool:
    """Whether pyarrow and the standard library take the lines and fields of a block alike.

    They do where no field is longer than the standard library takes, and quotes open where a field begins and close
    where it ends, on one line.
    """
    import numpy as np

    data = block.data
    if not is_text(data):
        return False
    if np.diff(block.ends, prepend=-1, append=len(data)).max() > FIELD_LIMIT:
        return False  # a long line need not hold a long field, and costs nothing but time
    return b'"' not in data or _quotes_are_plain(np.frombuffer(data, np.uint8), block.ends, ord(delimiter))


def _quotes_are_plain(data: NDArray[np.uint8], lines: NDArray[np.int64], delimiter: int) -> bool:
    import numpy as np

    quotes = np.flatnonzero(data == QUOTE)
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    if (np.searchsorted(lines, opening) != np.searchsorted(lines, closing)).any():
        return False
    padded = np.concatenate([[NEWLINE_BYTE], data, [NEWLINE_BYTE]]).astype(np.uint8)
    begins, ends = (np.isin(padded[position], (delimiter, NEWLINE_BYTE, RETURN)) for position in (opening, closing + 2))
    doubled = opening[1:] == closing[:-1] + 1  # "" inside a field
    begins[1:] |= doubled
    ends[:-1] |= doubled
    return bool(begins.all() and ends.all())


# ---- JSON lines -------------------------------------------------------------------------------------------------


def jsonl_batches(
    path: Path, columns: Columns, batch_rows: int, progress: Progress
) -> Generator[RowBatch, None, Position | None]:
    """The rows of a file of JSON lines; see `blocks.batches`."""
    if columns.values or {*columns.numbers} & {*columns.texts}:
        return Position(0, 0)  # as the file has them, values are of any type, and a number has many spellings
    return (yield from batches(path, Position(0, 0), _JsonReader(path, columns), batch_rows, progress))


class _JsonReader:
    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow as pa

        self.path, self.columns = path, columns
        self._types = {name: pa.string() for name in columns.texts} | dict.fromkeys(columns.numbers, pa.float64())

    def table(self, block: Block) -> pa.Table | None:
        import pyarrow as pa

        if not _is_flat(block):
            return None
        table = self._parsed(block.data)
        if table is None:
            self._take_whole_numbers_for_texts(block.data)
            table = self._parsed(block.data)
        if table is None or len(table) != block.data.count(b"{"):
            return None
        texts = {name: table.column(name).cast(pa.string()).dictionary_encode() for name in self.columns.texts}
        return pa.table({name: table.column(name) for name in self.columns.numbers} | texts)

    def _parsed(self, data: bytes) -> pa.Table | None:
        import pyarrow as pa
        from pyarrow import json

        schema = pa.schema(list(self._types.items()))
        read = json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        parse = json.ParseOptions(explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="ignore")
        with suppress(pa.ArrowInvalid):
            return json.read_json(pa.BufferReader(data), read, parse)
        return None

    def _take_whole_numbers_for_texts(self, data: bytes) -> None:
        """Text columns whose values are whole numbers in this block are read as such: they have one spelling."""
        import pyarrow as pa
        from pyarrow import json

        read = json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        with suppress(pa.ArrowInvalid):
            found = {field.name: field.type for field in json.read_json(pa.BufferReader(data), read).schema}
            integers = [name for name in self.columns.texts if found.get(name) == pa.int64()]
            self._types |= dict.fromkeys(integers, pa.int64())

    def batch(self, table: pa.Table, place: Place) -> RowBatch | None:
        import numpy as np

        numbers = {}
        for name in self.columns.numbers:
            found = numbers_of(table.column(name).chunk(0), self.columns)
            if found is None or (np.signbit(found) & (found == 0)).any() or (np.abs(found) >= INTEGER_LIMIT).any():
                return None  # as an integer -0 has no sign, and what is too large is refused; a float is neither
            numbers[name] = found
        texts = {name: text_of(table.column(name).chunk(0)) for name in self.columns.texts}
        return RowBatch(len(table), place, numbers, texts)

    def place(self, start: Position) -> Place:
        return jsonl_place(self.path, start)


def _is_flat(block: Block) -> bool:
    """Whether a block is one flat object a line, in words that pyarrow and the standard library read alike.

    pyarrow takes several objects a line, and Inf; the standard library takes no number of more than 4,300 digits, and
    both end at some depth of nesting.
    """
    import numpy as np

    data = block.data
    if not is_text(data) or b"[" in data or b"NaN" in data or b"Inf" in data:
        return False
    found = np.frombuffer(data, np.uint8)
    ends = np.append(block.ends, len(data)) if not data.endswith(b"\n") else block.ends
    starts = np.concatenate([[0], ends[:-1] + 1])
    ends = ends - (found[np.maximum(ends - 1, 0)] == RETURN)
    starts, ends = starts[ends > starts], ends[ends > starts]  # without blank lines
    first, last = (np.flatnonzero(found == brace) for brace in b"{}")
    return (
        bool((ends - starts <= LINE_LIMIT).all()) and np.array_equal(first, starts) and np.array_equal(last, ends - 1)
    )
