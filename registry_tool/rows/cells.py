"""cells.py: columns as lines of CSV or JSON, as the standard library writes them, a column at a time by pyarrow."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry_tool.rows.batches import Column, Text
from registry_tool.values import Json

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ColumnTable = Mapping[str, Sequence[Json] | Column]  # consecutive rows: column name -> values, all of one length
PIECE_ROWS = 8192  # put together at once
PIECE_BYTES = 1 << 30  # of the longest cells these may have; Arrow's strings end at twice that
NUMBER_BYTES = 32  # of no number's text are there more
# pyarrow writes the shortest digits that read back as the number, as `repr` does; between these bounds it writes a
# number that is no integer in the same form, too.
SAME_FORM = 1e-4, 1e10


class Form(ABC):
    """A format of lines: what a cell looks like, and what is before, between and behind the cells of a row."""

    truths: tuple[str, str]  # False, True

    @abstractmethod
    def header(self, names: Sequence[str]) -> str:
        """The text before the first row."""

    @abstractmethod
    def around(self, names: Sequence[str]) -> list[str]:
        """What comes before each cell of a row, and behind the last one."""

    @abstractmethod
    def cell(self, value: Json) -> str: ...


class CsvForm(Form):
    """As csv.writer writes rows, with newlines at their ends."""

    truths = ("False", "True")

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._alone = False  # whether rows have but one cell: an empty one is quoted then, for the line is not blank

    def header(self, names: Sequence[str]) -> str:
        self._alone = len(names) == 1
        return self._row(names)

    def around(self, names: Sequence[str]) -> list[str]:
        return ["", *[","] * (len(names) - 1), "\n"]

    def cell(self, value: Json) -> str:
        return self._row([value])[:-1] if self._alone else self._row([value, None])[:-2]

    def _row(self, cells: Sequence[Json]) -> str:
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow(cells)
        return self._text.getvalue()


class JsonForm(Form):
    """One object a line."""

    truths = ("false", "true")

    def header(self, names: Sequence[str]) -> str:
        return ""

    def around(self, names: Sequence[str]) -> list[str]:
        keys = [f"{self.cell(name)}: " for name in names]
        return [*(("{" if not i else ", ") + key for i, key in enumerate(keys)), "}\n" if keys else "{}\n"]

    def cell(self, value: Json) -> str:
        return json.dumps(value, ensure_ascii=False)


FORMS: Mapping[str, type[Form]] = {"csv": CsvForm, "jsonl": JsonForm}


def lines(batches: Iterator[ColumnTable], name: str) -> Iterator[str]:
    """The text of a file, in pieces of some thousand lines."""
    form, first = FORMS[name](), True
    for table in batches:
        if first:
            yield form.header(list(table))
            first = False
        yield from _pieces(table, form)


def values_of(column: Sequence[Json] | Column) -> Sequence[Json]:
    """A column's values, one by one."""
    return column.tolist() if isinstance(column, Column) else column


def _pieces(table: ColumnTable, form: Form) -> Iterator[str]:
    from pyarrow import compute

    columns = [_column(values, form) for values in table.values()]
    around = form.around(list(table))
    longest = sum(map(len, around)) + sum(getattr(column, "longest", NUMBER_BYTES) for column in columns)
    rows = max(1, min(PIECE_ROWS, PIECE_BYTES // max(longest, 1)))
    for start in range(0, len(columns[0]) if columns else 0, rows):
        cells = [_cells(column, slice(start, start + rows), form) for column in columns]
        parts = [part for pair in zip(around, cells, strict=False) for part in pair]
        joined = compute.binary_join_element_wise(*parts, around[-1], "")
        yield str(_bytes(joined), "utf-8")


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column of few different cells: row i has cells[codes[i]]."""

    cells: pa.StringArray
    codes: NDArray[np.int64]
    longest: int  # bytes of a cell

    @classmethod
    def of(cls, codes: NDArray[np.int64], cells: Sequence[str]) -> _Coded:
        import pyarrow as pa

        return cls(pa.array(cells, pa.string()), codes, 4 * max(map(len, cells), default=0))

    def __len__(self) -> int:
        return len(self.codes)


def _column(values: Sequence[Json] | Column, form: Form) -> _Coded | NDArray[Any]:
    """An array of numbers, or the cells of anything else."""
    import numpy as np

    if isinstance(values, Text):
        return _Coded.of(values.codes, [form.cell(name) for name in values.names])
    if not isinstance(values, Column):
        kinds = {*map(type, values)}
        if kinds == {int}:
            with suppress(OverflowError):
                return np.array(values, np.int64)
        if kinds != {float}:
            names: dict[Json, int] = {}
            cells = values if kinds == {str} else [form.cell(value) for value in values]
            codes = np.fromiter((names.setdefault(cell, len(names)) for cell in cells), np.int64, len(cells))
            return _Coded.of(codes, [form.cell(name) for name in names] if kinds == {str} else list(names))
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind == "b":
        return _Coded.of(array.astype(np.int64), form.truths)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _cells(column: _Coded | NDArray[Any], rows: slice, form: Form) -> pa.StringArray:
    import pyarrow as pa

    if isinstance(column, _Coded):
        return column.cells.take(pa.array(column.codes[rows]))
    values = column[rows]
    return _floats(values, form) if values.dtype.kind == "f" else pa.array(values).cast(pa.string())


def _floats(values: NDArray[np.float64], form: Form) -> pa.StringArray:
    import numpy as np
    import pyarrow as pa
    from pyarrow import compute

    low, high = SAME_FORM
    size = np.abs(values)
    with np.errstate(invalid="ignore"):  # a signaling NaN stays one
        other = ~((size >= low) & (size < high) & (values != np.rint(values)))
    cells = pa.array(values).cast(pa.string())
    if not other.any():
        return cells
    bits, index = np.unique(values[other].view(np.int64), return_inverse=True)  # of numbers 0.0 would be -0.0
    texts = pa.array([form.cell(value) for value in bits.view(np.float64).tolist()], pa.string())
    return compute.replace_with_mask(cells, pa.array(other), texts.take(pa.array(index)))


def _bytes(strings: pa.StringArray) -> memoryview:
    """What the strings of an Arrow array are together."""
    import numpy as np

    _, offsets, data = strings.buffers()
    ends = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
