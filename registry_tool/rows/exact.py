"""exact.py: CSV and JSON by the standard library, line by line: it knows the line of every row and cell."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO, cast

from registry_tool.errors import InputError
from registry_tool.rows.batches import (
    Columns,
    Pick,
    Place,
    RowBatch,
    Text,
    UnusableNumberError,
    bad_cell,
    number_of,
    require_unique,
)
from registry_tool.values import Json, Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DELIMITERS = (",", ";", "\t")  # between the fields of a CSV; the first of those that its header has most of
QUOTED_PATTERN = re.compile(r'"[^"]*("|$)')


@dataclass(frozen=True, slots=True)
class Position:
    """Where rows of a text go on: `skip` rows behind a byte at which a line begins, with `lines` lines before it."""

    offset: int
    lines: int
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a CSV. names: of its columns, none for an empty file or line. lines: that it takes."""

    names: list[str]
    lines: int
    delimiter: str


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a text, of a gzipped one those that it was made from."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def line_without_utf8(path: Path) -> int:
    """The first line, from 1, that is not UTF-8; 0 for a file without one."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def bytes_read(file: IO[bytes]) -> int:
    """How far a file of `open_bytes` is read, in bytes of the disk."""
    position: int = getattr(file, "fileobj", file).tell()
    return position


def read_header(path: Path) -> Header:
    """Raises InputError for a line that is none, or names a column twice."""
    with _open(path, Position(0, 0)) as file:
        return _header(path, file.readline(), file)


def csv_batches(
    path: Path, columns: Columns, header: Header, start: Position, batch_rows: int, progress: Progress
) -> Iterator[RowBatch]:
    """The rows from a position on."""
    with _open(path, start) as file:
        rows = islice(_csv_rows(path, file, header, start), start.skip, None)
        for batch in _csv_parts(path, columns, header, rows, batch_rows):
            yield batch
            progress("reading", bytes_read(file.buffer), path.stat().st_size)


def csv_place(path: Path, header: Header, start: Position) -> Place:
    """`file:line` of the rows from a position on, found by reading the file again."""

    def place(index: int) -> str:
        with _open(path, start) as file:
            rows = _csv_rows(path, file, header, start)
            return f"{path}:{next(islice((line for line, _ in rows), start.skip + index, None))}"

    return place


def _open(path: Path, start: Position, newline: str | None = "") -> TextIO:
    binary = open_bytes(path)
    binary.seek(start.offset)
    return io.TextIOWrapper(binary, "utf-8" if start.offset else "utf-8-sig", newline=newline)


def _header(path: Path | str, first: str, others: Iterable[str]) -> Header:
    delimiter = max(DELIMITERS, key=QUOTED_PATTERN.sub("", first).count)
    reader = csv.reader(chain([first] if first else [], others), strict=True, delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise _not_csv(path, reader.line_num, error) from None
    require_unique(path, names)
    return Header(names, reader.line_num, delimiter)


def _csv_parts(
    path: Path | str, columns: Columns, header: Header, rows: Iterator[tuple[int, list[str]]], size: int
) -> Iterator[RowBatch]:
    indexes = {name: header.names.index(name) for name in columns.names}
    while part := list(islice(rows, size)):
        table = {name: [row[i] for _, row in part] for name, i in indexes.items()}
        yield _batch(_lines(path, part), columns, len(part), table, is_number_text)


def _csv_rows(
    path: Path | str, file: Iterable[str], header: Header, start: Position
) -> Iterator[tuple[int, list[str]]]:
    """(line on which it ends, fields) of every row but blank ones."""
    reader, n_columns = csv.reader(file, strict=True, delimiter=header.delimiter), len(header.names)
    try:
        for row in reader:
            if len(row) != n_columns:
                if not row:
                    continue  # a blank line
                line, expected = start.lines + reader.line_num, f"{n_columns} as in the header"
                split = "; a number with a decimal comma is two fields: write a point"
                hint = "correct the line" + split * (header.delimiter == "," and len(row) > n_columns)
                raise InputError(f"{path}:{line}: found {len(row)} fields, expected {expected}: {hint}")
            yield start.lines + reader.line_num, row
    except csv.Error as error:
        raise _not_csv(path, start.lines + reader.line_num, error) from None


def _not_csv(path: Path | str, line: int, error: csv.Error) -> InputError:
    return InputError(f"{path}:{line}: not CSV ({error}): correct the line")


def read_keys(path: Path) -> list[str] | None:
    """The keys of the first object of JSON lines, which are the columns; None where there is no row."""
    with _open(path, Position(0, 0), newline=None) as file:
        row = next(_jsonl_rows(path, file, Position(0, 0)), None)
    return None if row is None else list(row[1])


def jsonl_batches(
    path: Path, columns: Columns, start: Position, batch_rows: int, progress: Progress
) -> Iterator[RowBatch]:
    """The rows from a position on."""
    with _open(path, start, newline=None) as file:
        rows = islice(_jsonl_rows(path, file, start), start.skip, None)
        for batch in _jsonl_parts(path, columns, rows, batch_rows):
            yield batch
            progress("reading", bytes_read(file.buffer), path.stat().st_size)


def jsonl_place(path: Path, start: Position) -> Place:
    """As `csv_place`."""

    def place(index: int) -> str:
        with _open(path, start, newline=None) as file:
            return f"{path}:{next(islice(_jsonl_rows(path, file, start), start.skip + index, None))[0]}"

    return place


def _jsonl_parts(
    path: Path | str, columns: Columns, rows: Iterator[tuple[int, dict[str, Json]]], size: int
) -> Iterator[RowBatch]:
    while part := list(islice(rows, size)):
        table = {name: [row.get(name) for _, row in part] for name in columns.names}
        yield _batch(_lines(path, part), columns, len(part), table, is_number)


def _jsonl_rows(path: Path | str, file: Iterable[str], start: Position) -> Iterator[tuple[int, dict[str, Json]]]:
    for number, line in enumerate(file, start.lines + 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}), expected one object a line: correct it") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: found {type(row).__name__}, expected one JSON object a line")
        yield number, row


class _Twice:
    """In the place of a value whose key an object has twice: readers differ in which of them they take."""

    def __repr__(self) -> str:
        return "the key twice"


TWICE = _Twice()


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    row = dict(pairs)
    if len(row) < len(pairs):
        row |= {name: TWICE for name, times in Counter(name for name, _ in pairs).items() if times > 1}
    return row


def stream_batches(stream: TextIO, name: str, pick: Pick, batch_rows: int) -> Iterator[RowBatch]:
    """The rows of a stream, read no further than they are asked for.

    They are JSON lines where the first line begins with a brace, a list of rows, read whole, where it begins with a
    bracket, else CSV. name: what messages call the stream.
    """
    first = stream.readline()
    if first.lstrip().startswith("["):
        if table := _json_table(first + stream.read(), name):
            yield from json_batches(name, pick(list(table)), table, batch_rows, silent)
        return
    if first.lstrip().startswith("{"):
        objects = _jsonl_rows(name, chain([first], stream), Position(0, 0))
        for line, row in objects:
            yield from _jsonl_parts(name, pick(list(row)), chain([(line, row)], objects), batch_rows)
        return
    header = _header(name, first, stream)
    if header.names:
        rows = _csv_rows(name, stream, header, Position(0, header.lines))
        yield from _csv_parts(name, pick(header.names), header, rows, batch_rows)


def read_json(path: Path) -> Mapping[str, list[Json]] | None:
    """The columns of a JSON document: a list of objects, or columns as pandas writes them; None for JSON lines.

    The whole file is in memory. Raises InputError for any other document.
    """
    with _open(path, Position(0, 0), newline=None) as file:
        return _json_table(file.read(), path)


def _json_table(text: str, path: Path | str) -> Mapping[str, list[Json]] | None:
    """The columns of a document's text; see `read_json`. path: what messages call it."""
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return None
        raise InputError(
            f"{path}:{error.lineno}: not JSON ({error.msg}), expected a list of rows: correct it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}), expected a list of rows: correct it") from None
    columns = _json_columns(document)
    if columns is None or len({len(column) for column in columns.values()}) > 1:
        found = ", ".join(map(str, document)) if isinstance(document, dict) else type(document).__name__
        expected = "a list with an object a row, or columns of one length"
        raise InputError(f"{path}: found {found or 'no columns':.80}, expected {expected}: is it a table?")
    return columns


def _json_columns(document: Json) -> dict[str, list[Json]] | None:
    """Of any of the forms in which pandas writes a frame; None for another document."""
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        names = document.get("columns")
        document = document["data"]
        if isinstance(names, list) and all(isinstance(row, list) and len(row) == len(names) for row in document):
            document = [dict(zip(map(str, names), row, strict=True)) for row in document]
    if isinstance(document, list):
        if not all(isinstance(row, dict) for row in document):
            return None
        return {name: [row.get(name) for row in document] for name in dict.fromkeys(k for row in document for k in row)}
    if not isinstance(document, dict):
        return None
    columns = {}
    for name, column in document.items():
        if not isinstance(column, list | dict):
            return None
        columns[name] = list(column.values()) if isinstance(column, dict) else column
    return columns


def json_batches(
    path: Path | str, columns: Columns, table: Mapping[str, list[Json]], batch_rows: int, progress: Progress
) -> Iterator[RowBatch]:
    """The rows of `read_json`; they are numbered from 1."""
    n_rows = len(next(iter(table.values()), ()))
    for first in range(0, n_rows, batch_rows):
        part = {name: table[name][first : first + batch_rows] for name in columns.names}
        n = min(batch_rows, n_rows - first)

        def place(index: int, first: int = first) -> str:
            return f"{path}, row {first + index + 1}"

        yield _batch(place, columns, n, part, is_number)
        progress("reading", first + n, n_rows)


def _lines(path: Path | str, part: Sequence[tuple[int, object]]) -> Place:
    lines = [line for line, _ in part]
    return lambda index: f"{path}:{lines[index]}"


def _batch(
    place: Place, columns: Columns, n: int, table: Mapping[str, list[Json]], is_number: Callable[[Json], bool]
) -> RowBatch:
    import numpy as np

    def numbers(name: str) -> NDArray[np.float64]:
        for index, value in enumerate(table[name]):
            if not is_number(value):
                found = "nothing" if value in (None, "") else f"{value!r:.80}"
                raise UnusableNumberError(place(index), name, found)
        return columns.checked(np.array(table[name], dtype=np.float64), name, place)

    for name in (*columns.texts, *columns.values):
        if TWICE in table[name]:
            raise bad_cell(place(table[name].index(TWICE)), name, repr(TWICE), "it once")
    texts = {name: Text.of(table[name]) for name in columns.texts}
    values = {name: table[name] for name in columns.values}
    return RowBatch(n, place, {name: numbers(name) for name in columns.numbers}, texts, values)


def is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 1023)  # a larger int is no float64


def is_number_text(value: str) -> bool:
    try:
        number_of(value)
    except ValueError:
        return False
    return True
