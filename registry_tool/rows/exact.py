"""exact.py: CSV and JSON lines by the standard library, line by line: it knows the line of every row and cell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from registry_tool.errors import InputError
from registry_tool.hookspec import Progress
from registry_tool.tables import Columns, Pick, Place, RowBatch, Text, bad_cell, require_unique


@dataclass(frozen=True, slots=True)
class Position:
    """Where rows of a text go on: `skip` rows behind a byte at which a line begins, with `lines` lines before it."""

    offset: int
    lines: int
    skip: int = 0


def read_header(path: Path) -> tuple[list[str], int]:
    """A CSV's column names, none for an empty file or line, and how many lines they take."""
    with _open(path, Position(0, 0)) as file:
        return _header(path, file)


def csv_batches(
    path: Path, columns: Columns, header: list[str], start: Position, batch_rows: int, progress: Progress
) -> Iterator[RowBatch]:
    """The rows from a position on."""
    with _open(path, start) as file:
        rows = islice(_csv_rows(path, file, len(header), start), start.skip, None)
        for batch in _csv_parts(path, columns, header, rows, batch_rows):
            yield batch
            progress("reading", _bytes_read(file), path.stat().st_size)


def csv_place(path: Path, n_columns: int, start: Position) -> Place:
    """`file:line` of the rows from a position on, found by reading the file again."""

    def place(index: int) -> str:
        with _open(path, start) as file:
            rows = _csv_rows(path, file, n_columns, start)
            return f"{path}:{next(islice((line for line, _ in rows), start.skip + index, None))}"

    return place


def _open(path: Path, start: Position, newline: str | None = "") -> TextIO:
    binary = path.open("rb")
    binary.seek(start.offset)
    return io.TextIOWrapper(binary, "utf-8" if start.offset else "utf-8-sig", newline=newline)


def _bytes_read(file: TextIO) -> int:
    """Its own `tell` is slow, or not there while it is iterated over."""
    return file.buffer.tell()


def _header(path: Path | str, lines: Iterable[str]) -> tuple[list[str], int]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise _not_csv(path, reader.line_num, error) from None
    require_unique(path, header)
    return header, reader.line_num


def _csv_parts(
    path: Path | str, columns: Columns, header: list[str], rows: Iterator[tuple[int, list[str]]], size: int
) -> Iterator[RowBatch]:
    indexes = {name: header.index(name) for name in columns.names}
    while part := list(islice(rows, size)):
        table = {name: [row[i] for _, row in part] for name, i in indexes.items()}
        yield _batch(path, columns, [line for line, _ in part], table, _is_number_text)


def _csv_rows(
    path: Path | str, file: Iterable[str], n_columns: int, start: Position
) -> Iterator[tuple[int, list[str]]]:
    """(line on which it ends, fields) of every row but blank ones."""
    reader = csv.reader(file, strict=True)
    try:
        for row in reader:
            if len(row) != n_columns:
                if not row:
                    continue  # a blank line
                line, expected = start.lines + reader.line_num, f"{n_columns} as in the header"
                raise InputError(f"{path}:{line}: found {len(row)} fields, expected {expected}: correct the line")
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
            progress("reading", _bytes_read(file), path.stat().st_size)


def jsonl_place(path: Path, start: Position) -> Place:
    """As `csv_place`."""

    def place(index: int) -> str:
        with _open(path, start, newline=None) as file:
            return f"{path}:{next(islice(_jsonl_rows(path, file, start), start.skip + index, None))[0]}"

    return place


def _jsonl_parts(
    path: Path | str, columns: Columns, rows: Iterator[tuple[int, dict[str, Any]]], size: int
) -> Iterator[RowBatch]:
    while part := list(islice(rows, size)):
        table = {name: [row.get(name) for _, row in part] for name in columns.names}
        yield _batch(path, columns, [line for line, _ in part], table, _is_number)


def _jsonl_rows(path: Path | str, file: Iterable[str], start: Position) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start.lines + 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}), expected one object a line: correct it") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: found {type(row).__name__}, expected one JSON object a line")
        yield number, row


def stream_batches(stream: TextIO, name: str, pick: Pick, batch_rows: int) -> Iterator[RowBatch]:
    """The rows of a stream, read no further than they are asked for.

    They are JSON lines where the first line begins with a brace, else CSV. name: what messages call the stream.
    """
    first, start = stream.readline(), Position(0, 0)
    lines = chain([first], stream) if first else iter(())
    if first.lstrip().startswith("{"):
        objects = _jsonl_rows(name, lines, start)
        for line, row in objects:
            yield from _jsonl_parts(name, pick(list(row)), chain([(line, row)], objects), batch_rows)
        return
    header, taken = _header(name, lines)
    if header:
        rows = _csv_rows(name, lines, len(header), Position(0, taken))
        yield from _csv_parts(name, pick(header), header, rows, batch_rows)


def _batch(
    path: Path | str, columns: Columns, lines: list[int], table: dict[str, list[Any]], is_number: Callable[[Any], bool]
) -> RowBatch:
    import numpy as np

    def place(index: int) -> str:
        return f"{path}:{lines[index]}"

    def numbers(name: str) -> Any:
        for index, value in enumerate(table[name]):
            if not is_number(value):
                found = "nothing" if value in (None, "") else f"{value!r:.80}"
                raise bad_cell(place(index), name, found, "a number")
        return columns.checked(np.array(table[name], dtype=np.float64), name, place)

    texts = {name: Text.of(table[name]) for name in columns.texts}
    values = {name: table[name] for name in columns.values}
    return RowBatch(len(lines), place, {name: numbers(name) for name in columns.numbers}, texts, values)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 1023)  # a larger int is no float64


def _is_number_text(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
