"""writing.py: rows as CSV, JSON lines or parquet, batch by batch, to a file or a stream. Holds no more than a batch."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from registry_tool.errors import InputError
from registry_tool.rows import cells
from registry_tool.rows.batches import Column, Text
from registry_tool.rows.cells import ColumnTable
from registry_tool.storage.writing import atomic_file, writing
from registry_tool.values import EMPTY, Json

if TYPE_CHECKING:
    import pyarrow as pa

STDOUT_NAMES = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


@dataclass(frozen=True, slots=True)
class Parquet:
    """How a parquet is written. types: names of Arrow types by column; without any, those of the first batch.

    metadata: what the file says of itself, asked for after the last batch. options: of pyarrow's ParquetWriter.
    """

    types: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    metadata: Callable[[], Mapping[str, str]] = dict
    options: Mapping[str, object] = field(default_factory=lambda: EMPTY)


@contextmanager
def output_file(output: Path) -> Iterator[IO[bytes]]:
    """What a person named to be written: the file is whole or the old one.

    `-` is standard output. A link stays a link; a pipe or a device is written to as it is. Raises WorldError in one
    line, and InputError for a folder, and for a registry: no output takes its place.
    """
    if output.is_dir():
        raise InputError(f"{output}: found a folder, expected a file to write: name a file in it")
    if output.suffix == ".json" and output.is_file() and _is_registry(output):
        raise InputError(f"{output}: found a registry, expected another file to write: name a new one")
    if str(output) in STDOUT_NAMES and hasattr(sys.stdout, "buffer"):  # descriptor 1 may have become standard error's
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():
        with writing(output), output.open("wb") as stream:
            yield stream
        return
    with atomic_file(Path(os.path.realpath(output))) as file:
        yield file


@contextmanager
def text_output(output: Path | str) -> Iterator[IO[str]]:
    """The same for text in UTF-8; `-` is standard output."""
    if str(output) == "-":
        yield sys.stdout
        return
    with output_file(Path(output)) as stream:
        text = io.TextIOWrapper(stream, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # flushes


def format_of(output: Path | str) -> str | None:
    """The format that a file's extension names; None where it names none.

    Raises InputError for the extension of a format that is read and not written.
    """
    ending = Path(output).suffix.lower().removeprefix(".")
    if ending in READ_ONLY_ENDINGS:
        expected = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"{output}: found .{ending}, which is read and not written, expected {expected}: name another")
    return ending if ending in FORMATS else None


def _is_registry(path: Path) -> bool:
    """Whether a file is what only those commands write that register: an object with a list of models.

    One that cannot be parsed is, by its name: it may be the registry that somebody is about to repair.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return path.name == "registry.json"
    return isinstance(document, dict) and isinstance(document.get("models"), list)


def refuse_shared(*outputs: Path | str | None) -> None:
    """Raises InputError where two outputs are one file: one of them would be lost."""
    named = [str(path) for path in outputs if path is not None]
    for number, path in enumerate(named):
        if any(os.path.realpath(path) == os.path.realpath(other) for other in named[:number]):
            raise InputError(f"{path}: found it named for two outputs, expected a file for each: name another one")


def refuse_overwriting(output: Path | str, *inputs: Path | str | None) -> None:
    """Raises InputError where a file to write is one of those that are read: what it holds would be lost.

    A terminal or a pipe that is both holds nothing.
    """
    for path in inputs:
        if path is not None and os.path.isfile(path) and os.path.isfile(output) and os.path.samefile(path, output):
            raise InputError(f"{output}: found the input itself, expected another file to write: name a new one")


def write_rows(
    batches: Iterable[ColumnTable], output: Path | str, form: str | None = None, parquet: Parquet | None = None
) -> int:
    """Write one of FORMATS (by default as `output` ends) to a file, or to standard output (`-`): the number of rows.

    The first batch is there before the output is touched, so that bad input changes nothing. Raises InputError for an
    unknown format, and for parquet to standard output or without pyarrow.
    """
    form = form or format_of(output)
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"{output}: found the extension {Path(output).suffix!r}, expected one of {known}")
    if form == "parquet" and str(output) == "-":
        raise InputError("--format parquet: found no file to write, expected one: say -o FILE")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise InputError("--format parquet: writing it needs pyarrow: pip install pyarrow")
    iterator, rows = iter(batches), 0

    def counted(first: ColumnTable) -> Iterator[ColumnTable]:
        nonlocal rows
        for batch in itertools.chain([first], iterator):
            rows += len(next(iter(batch.values()), ()))
            yield batch

    first = next(iterator, None)
    if form == "parquet":
        with output_file(Path(output)) as stream:
            if first is not None:
                _parquet(stream, counted(first), parquet or Parquet())
    else:
        with text_output(output) as text:
            if first is not None:
                _lines(text, counted(first), form)
    return rows


def _lines(text: IO[str], batches: Iterator[ColumnTable], form: str) -> None:
    if find_spec("pyarrow") is not None:
        text.writelines(cells.lines(batches, form))
    else:
        TEXT_FORMATS[form](text, ({name: cells.values_of(column) for name, column in b.items()} for b in batches))


def _csv(text: IO[str], batches: Iterator[Mapping[str, Sequence[Json]]]) -> None:
    writer = csv.writer(text, lineterminator="\n")
    for number, batch in enumerate(batches):
        if not number:
            writer.writerow(batch)
        writer.writerows(zip(*batch.values(), strict=True))


def _jsonl(text: IO[str], batches: Iterator[Mapping[str, Sequence[Json]]]) -> None:
    for batch in batches:
        for row in zip(*batch.values(), strict=True):
            text.write(json.dumps(dict(zip(batch, row, strict=True)), ensure_ascii=False) + "\n")


def _parquet(stream: IO[bytes], batches: Iterator[ColumnTable], settings: Parquet) -> None:
    """One row group a batch."""
    import pyarrow as pa
    from pyarrow import parquet

    first, options = next(batches), dict(settings.options)
    if settings.types:
        schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in settings.types.items()])
    else:
        schema = pa.table(_arrow(first)).schema
        # A dictionary of floats that are all different is slow to make and larger than they are.
        options.setdefault("use_dictionary", [f.name for f in schema if not pa.types.is_floating(f.type)])
    # Without its own schema, readers take the metadata of the file, which is known at the end, for the schema's.
    with parquet.ParquetWriter(stream, schema, store_schema=False, **options) as file:
        for batch in itertools.chain([first], batches):
            file.write_table(pa.table(_arrow(batch), schema=schema))
        if metadata := dict(settings.metadata()):
            file.add_key_value_metadata(metadata)


def _arrow(batch: ColumnTable) -> dict[str, pa.Array | Sequence[Json] | Column]:
    import pyarrow as pa

    return {
        name: pa.array(column.names, pa.string()).take(pa.array(column.codes)) if isinstance(column, Text) else column
        for name, column in batch.items()
    }


TEXT_FORMATS = {"csv": _csv, "jsonl": _jsonl}
FORMATS = (*TEXT_FORMATS, "parquet")
READ_ONLY_ENDINGS = ("gz", "feather", "arrow", "json", "tsv")  # of tables that are read and not written
