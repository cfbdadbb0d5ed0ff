"""memory.py: rows that a program holds, as batches: dicts, structured arrays, data frames, Arrow. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry_tool.errors import InputError
from registry_tool.rows.batches import MEMORY_PLACE as MEMORY_PLACE
from registry_tool.rows.batches import Columns, RowBatch, Text, bad_cell, number_of
from registry_tool.values import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def is_table(rows: object) -> bool:
    """Whether these are rows, and no iterable of several tables."""
    if isinstance(rows, Mapping) or _is_lazy(rows):
        return True
    return any(hasattr(rows, name) for name in ("columns", "column_names", "dtype"))


def _is_lazy(rows: object) -> bool:
    """Whether these are a query of polars: merely asking for its columns runs a part of it."""
    return hasattr(rows, "collect_schema") and not hasattr(rows, "__len__")


def column_names(rows: Any) -> list[str]:
    """The columns of a mapping, a structured array, a pandas or polars frame, an Arrow table or batch.

    Raises InputError for anything else.
    """
    if _is_lazy(rows):
        raise InputError(f"{MEMORY_PLACE}: found a {type(rows).__name__}, expected a data frame: collect() it")
    if isinstance(rows, Mapping):
        return list(map(str, rows))
    if getattr(getattr(rows, "dtype", None), "names", None):
        return list(rows.dtype.names)
    for attribute in ("column_names", "columns"):  # Arrow's `columns` are the data
        if (names := getattr(rows, attribute, None)) is not None:
            return list(map(str, names))
    if hasattr(rows, "schema"):
        return list(rows.schema.names)
    raise InputError(
        f"{MEMORY_PLACE}: found a {type(rows).__name__}, expected a mapping of columns, a structured array, a data "
        "frame or an Arrow table: name the columns"
    )


def to_batch(rows: Any, columns: Columns) -> RowBatch:
    """The columns that are asked for, each of one length. Raises InputError naming the row and the column."""
    found = {name: _array(rows, name) for name in columns.names}
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(
            f"{MEMORY_PLACE}: found columns of different lengths ({listed}), expected one: cut or fill them"
        )

    def place(index: int) -> str:
        return f"{MEMORY_PLACE}, row {index}"

    numbers = {name: columns.checked(_numbers(found[name], name), name, place) for name in columns.numbers}
    texts = {name: Text.of([_text(value, name) for value in _objects(found[name])]) for name in columns.texts}
    values = {name: list(_objects(found[name])) for name in columns.values}
    return RowBatch(next(iter(lengths.values()), 0), place, numbers, texts, values)


def cut(rows: RowBatch, size: int) -> Iterator[RowBatch]:
    """The same rows, at most `size` at once, so that memory beyond them does not grow."""
    for start in range(0, rows.n, size) if rows.n > size else (0,):
        part = slice(start, start + size)

        def place(index: int, start: int = start) -> str:
            return rows.place(start + index)

        yield RowBatch(
            len(range(*part.indices(rows.n))),
            place,
            {name: column[part] for name, column in rows.numbers.items()},
            {name: Text(text.codes[part], text.names) for name, text in rows.texts.items()},
            {name: column[part] for name, column in rows.values.items()},
        )


def _array(rows: Any, name: str) -> NDArray[Any]:
    """One column as numpy has it, on one axis."""
    import numpy as np

    column = rows[name]
    if isinstance(column, str) or not hasattr(column, "__len__"):
        raise InputError(
            f"{MEMORY_PLACE}, column {name}: found {column!r:.40}, expected a value for each row: give a list"
        )
    array = np.asarray(column)
    if np.ma.is_masked(column) or (array.dtype.kind in "US" and isinstance(column, list | tuple)):
        array = np.array(column.tolist() if array is not column and hasattr(column, "tolist") else column, object)
    elif array.dtype == object and hasattr(column, "isna"):  # pandas has several objects for what is missing
        array = array.copy()
        array[np.asarray(column.isna(), bool)] = None
    if array.ndim != 1:
        raise InputError(
            f"{MEMORY_PLACE}, column {name}: found {array.ndim} axes, expected one: give a value for each row"
        )
    return array


def _numbers(column: NDArray[Any], name: str) -> NDArray[np.float64]:
    import numpy as np

    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    result = np.empty(len(column))
    for index, value in enumerate(column.tolist()):
        try:
            result[index] = number_of(value)
        except (TypeError, ValueError, OverflowError):
            found = "nothing" if value is None else f"{value!r:.40}"
            raise bad_cell(f"{MEMORY_PLACE}, row {index}", name, found, "a number") from None
    return result


def _objects(column: NDArray[Any]) -> Sequence[Json]:
    objects: Sequence[Json] = column.tolist()
    return objects


def _text(value: Json, name: str) -> Json:
    """A text as it is written: numpy and Arrow may hold its bytes, pandas has NaN for one that is missing."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InputError(f"{MEMORY_PLACE}, column {name}: found {value!r:.40}, expected UTF-8: decode it") from None
    return None if isinstance(value, float) and value != value else value
