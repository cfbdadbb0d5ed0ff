"""rows.py: predicted rows as CSV or JSON lines, batch by batch. Holds no more than a batch."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

import click

from registry_tool.hookspec import Batch
from registry_tool.values import Json


def write(batches: Iterable[Batch], form: str, output: str) -> None:
    """Write `csv` or `jsonl` to a file (whole or not at all) or to standard output (`-`)."""
    iterator = iter(batches)
    first = next(iterator, None)  # bad input speaks before the output is touched
    with click.open_file(output, "w", encoding="utf-8", atomic=output != "-") as stream:
        if first is not None:
            writer = _csv if form == "csv" else _jsonl
            writer(stream, first, iterator)


def _rows(batch: Batch) -> Iterator[tuple[Json, ...]]:
    return zip(*batch.columns.values(), strict=True)


def _csv(stream: IO[Any], first: Batch, rest: Iterable[Batch]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(first.columns)
    writer.writerows(_rows(first))
    for batch in rest:
        writer.writerows(_rows(batch))


def _jsonl(stream: IO[Any], first: Batch, rest: Iterable[Batch]) -> None:
    names = list(first.columns)
    for batch in itertools.chain([first], rest):
        for row in _rows(batch):
            stream.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
