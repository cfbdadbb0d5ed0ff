"""columns.py: which column of a file is which: by its name, by vmaf-tune's, or derived from others. Opens no file.

vmaf-tune writes a row an encode: `adm2_mean` for a feature, `vmaf_score` for the score, `crf` (Phase A: `cq`) for the
quality number, whatever the encoder; an encode that failed has NaN or nothing for its scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.corpus.encoders import QUALITY_NUMBERS, crf_norm_of, preset_norm_of
from fr_ensemble.corpus.record import MODEL_COLUMN
from registry_tool.toolkit import Columns, RowBatch, Text, bad_cell, missing_column, number_of

# What tells two encodes of one source by one encoder apart, where no `clip` column does: all of these that are there.
QUALITY_COLUMNS = ("quality", "cq", "crf", "qp", "bitrate_kbps", "bitrate", "height", "preset")
MAX_TABLE_NUMBER = 1e12  # in size: models compute in float32, up to 3e38, and sigma squares what layers multiply
NORMS = {"preset_norm": preset_norm_of, "crf_norm": crf_norm_of}  # follow from an encoder and its preset, or its number
NORM_SOURCES = {"preset_norm": ("preset",), "crf_norm": QUALITY_NUMBERS}
NO_FEATURES = (MODEL_COLUMN, "vmaf_binary_version")  # names like a score's, which no hint proposes


@dataclass(frozen=True, slots=True)
class ColumnRequest:
    """What is asked of a file. values: further columns as they are, None for all. scored: rows with a target.

    Scored rows must name their sources, and those of failed encodes are left out; of others each is wanted.
    texts: further columns of text. without_failed: whether failed encodes are left out of other rows too.
    """

    numbers: Sequence[str]
    values: Sequence[str] | None = ()
    scored: bool = True
    texts: Sequence[str] = ()
    without_failed: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file's columns are read. numbers, texts: the name that is asked for -> the file's column. asked: in order.

    derived: those of NORMS that the file lacks -> the column they follow from. partial: a table of vmaf-tune, which
    has holes; leaves_out: rows with one are failed encodes, and left out.
    """

    asked: tuple[str, ...]
    numbers: Mapping[str, str]
    texts: Mapping[str, str]
    derived: Mapping[str, str]
    values: tuple[str, ...]
    partial: bool
    leaves_out: bool

    @property
    def columns(self) -> Columns:
        """What to read of the file."""
        numbers = tuple(self.numbers.values())
        texts = tuple(dict.fromkeys((*self.texts.values(), *self.derived.values())))
        if self.partial:
            return Columns((), texts, (*self.values, *numbers), MAX_TABLE_NUMBER)
        return Columns(numbers, texts, self.values, MAX_TABLE_NUMBER)

    def called(self, names: Mapping[str, str]) -> dict[str, str]:
        """What rows call a text -> the column of the file. names: as of `read_rows`."""
        return {name: names.get(column, column) for name, column in self.texts.items()}

    def batch(self, found: RowBatch) -> RowBatch:
        """The rows under the names that are asked for, those of failed encodes left out."""
        if self.partial:
            numbers = {name: _numbers(found, column) for name, column in self.numbers.items()}
            is_complete = np.all([np.isfinite(column) for column in numbers.values()], axis=0)
            found = _taken(found, np.flatnonzero(is_complete) if self.leaves_out else np.arange(found.n), numbers)
            for name, column in self.numbers.items():
                self.columns.checked(found.numbers[name], column, found.place)
        else:
            found = replace(found, numbers={name: found.numbers[column] for name, column in self.numbers.items()})
        texts = {name: found.texts[column] for name, column in self.texts.items()}
        derived = {name: _norm(name, found, texts["encoder"], column) for name, column in self.derived.items()}
        values = {name: found.values[name] for name in self.values}
        numbers = {**found.numbers, **derived}
        return replace(found, numbers={name: numbers[name] for name in self.asked}, texts=texts, values=values)


def layout_of(path: Path | str, found: Sequence[str], wanted: ColumnRequest) -> Layout:
    """The layout of a file with these columns. Raises InputError for a column that is not there."""
    encoder = "codec" if "codec" in found and "encoder" not in found else "encoder"
    needed = ["src"] if wanted.scored else []
    values = tuple(found if wanted.values is None else wanted.values)
    for name in (*needed, encoder, *values):
        if name not in found:
            raise missing_column(path, name, found)
    numbers, derived = {}, {}
    for name in wanted.numbers:
        column = column_of(name, found)
        if column is not None:
            numbers[name] = column
        elif (of := _derived_from(name, found)) is not None:
            derived[name] = of
        else:
            others = [column for column in found if column not in NO_FEATURES]
            raise missing_column(path, name, others, _follows_from(name))
    texts = {"encoder": encoder} | ({"src": "src"} if "src" in found else {})
    clip = ("clip",) if "clip" in found else tuple(name for name in QUALITY_COLUMNS if name in found and "src" in texts)
    spelled_otherwise = any(name != column for name, column in numbers.items())
    texts |= {name: name for name in (*clip, *wanted.texts) if name not in texts}
    return Layout(
        tuple(wanted.numbers),
        numbers,
        texts,
        derived,
        values,
        spelled_otherwise,
        wanted.scored or wanted.without_failed,
    )


def column_of(name: str, found: Sequence[str]) -> str | None:
    """The file's column for a number: its own name before vmaf-tune's."""
    spellings = (name, "vmaf_score") if name == "vmaf" else (name, f"{name}_mean")
    return next((spelling for spelling in spellings if spelling in found), None)


def _derived_from(name: str, found: Sequence[str]) -> str | None:
    """The column that one of NORMS follows from, where the file has it."""
    return next((column for column in NORM_SOURCES.get(name, ()) if column in found), None)


def _follows_from(name: str) -> str:
    """What to add in the place of one of NORMS; "" for another column."""
    return f"add it, or {' or '.join(NORM_SOURCES[name])}, which it follows from" if name in NORM_SOURCES else ""


def _numbers(batch: RowBatch, column: str) -> Float64:
    """A column that may have holes, NaN for each."""
    numbers = []
    for index, value in enumerate(batch.values[column]):
        try:
            numbers.append(math.nan if value in (None, "") else number_of("x" if isinstance(value, bool) else value))
        except (TypeError, ValueError, OverflowError):
            raise bad_cell(batch.place(index), column, f"{value!r:.80}", "a number, or nothing") from None
    return np.array(numbers, np.float64)


def _taken(batch: RowBatch, rows: Int64, numbers: Mapping[str, Float64]) -> RowBatch:
    """Some rows of a batch, with these numbers."""
    kept, place = rows.tolist(), batch.place
    return RowBatch(
        len(kept),
        lambda index: place(kept[index]),
        {name: column[rows] for name, column in numbers.items()},
        {name: Text(text.codes[rows], text.names) for name, text in batch.texts.items()},
        {name: [column[row] for row in kept] for name, column in batch.values.items()},
    )


def _norm(name: str, batch: RowBatch, encoder: Text, column: str) -> Float64:
    """A column of NORMS; raises InputError for the first row that gives none."""
    pairs, given = zip(encoder.tolist(), batch.texts[column].tolist(), strict=True), []
    known: dict[tuple[str, str], float | str] = {}
    for index, pair in enumerate(pairs):
        norm = known.setdefault(pair, NORMS[name](*pair)) if pair not in known else known[pair]
        if isinstance(norm, str):
            raise bad_cell(
                batch.place(index), name, "none", "one that follows", f"{norm}: give the column {name} itself"
            )
        given.append(norm)
    return np.array(given, np.float64)
