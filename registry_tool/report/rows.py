"""rows.py: predicted rows as CSV, JSON lines or parquet, batch by batch. Holds no more than a batch."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import click

from registry_tool.errors import InputError
from registry_tool.hookspec import Batch
from registry_tool.values import Json

FORMATS = ("csv", "jsonl", "parquet")


def write(batches: Iterable[Batch], form: str, output: str) -> Counter[str]:
    """Write one of FORMATS to a file (whole or not at all) or to standard output (`-`); returns the warnings, counted.

    Raises InputError for parquet without a file or without pyarrow.
    """
    binary = form == "parquet"
    if binary and output == "-":
        raise InputError("--format parquet: found no file to write, expected one: say -o FILE")
    if binary and find_spec("pyarrow") is None:
        raise InputError("--format parquet: writing it needs pyarrow: pip install 'registry-tool[train]'")
    warnings: Counter[str] = Counter()
    iterator = _counted(batches, warnings)
    first = next(iterator, None)  # bad input speaks before the output is touched
    with _opened(output, binary) as stream:
        if first is not None:
            writer = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[form]
            writer(stream, first, iterator)
    return warnings


@contextmanager
def _opened(output: str, binary: bool) -> Iterator[IO[Any]]:
    """The stream to write; a file takes its name when it is whole, and is gone where writing failed."""
    mode, encoding = ("wb", None) if binary else ("w", "utf-8")
    if output == "-" or (os.path.exists(output) and not os.path.isfile(output)):  # a pipe or device stays what it is
        with click.open_file(output, mode, encoding=encoding) as stream:
            yield stream
        return
    path = Path(os.path.realpath(output))  # a link stays a link
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with part.open(mode, encoding=encoding) as stream:
            yield stream
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _counted(batches: Iterable[Batch], warnings: Counter[str]) -> Iterator[Batch]:
    for batch in batches:
        warnings.update(batch.warnings)
        yield batch


def _rows(batch: Batch) -> Iterator[tuple[Json, ...]]:
    return zip(*batch.columns.values(), strict=True)


def _csv(stream: IO[Any], first: Batch, rest: Iterable[Batch]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(first.columns)
    for batch in itertools.chain([first], rest):
        writer.writerows(_rows(batch))


def _jsonl(stream: IO[Any], first: Batch, rest: Iterable[Batch]) -> None:
    names = list(first.columns)
    for batch in itertools.chain([first], rest):
        for row in _rows(batch):
            stream.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")


def _parquet(stream: IO[Any], first: Batch, rest: Iterable[Batch]) -> None:
    """One row group a batch; the first batch's types are the file's."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(dict(first.columns))
    with parquet.ParquetWriter(stream, table.schema) as writer:
        writer.write_table(table)
        for batch in rest:
            writer.write_table(pa.table(dict(batch.columns), schema=table.schema))
