"""batches.py: rows as values: batches of columns, what to read of them, and the errors for it. Opens no file."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from registry_tool.errors import InputError
from registry_tool.values import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Place = Callable[[int], str]  # index in a batch -> `file:line` or `file, row N`
BATCH_ROWS = 65_536  # read, or written, at once
MAX_COLUMNS_SHOWN = 50  # names of a message
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")


@runtime_checkable
class Column(Protocol):
    """A whole column, written without a Python object a value: a numpy array of one axis, or a `toolkit.Text`."""

    def __len__(self) -> int: ...

    def tolist(self) -> list[Json]: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A dictionary-encoded text column: row i says names[codes[i]], a missing text is "", a name may be unused."""

    codes: NDArray[np.int64]  # (n,)
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[object]) -> Text:
        import numpy as np

        names: dict[str, int] = {}
        words = ("" if v is None else str(v).strip() for v in values)
        codes = np.fromiter((names.setdefault(word, len(names)) for word in words), np.int64, len(values))
        return cls(codes, tuple(names))

    def __len__(self) -> int:
        return len(self.codes)

    def tolist(self) -> list[str]:
        """The text of every row."""
        return list(map(self.names.__getitem__, self.codes.tolist()))


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read: numbers must be finite, texts become `Text`, values stay as the file has them.

    largest: the most that a number may be in size, where what computes with it has a limit.
    """

    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    largest: float = math.inf

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys((*self.numbers, *self.texts, *self.values)))

    def called(self, names: Mapping[str, str]) -> Columns:
        """The same with these names in the place of those that they are for."""
        numbers, texts, values = (
            tuple(names.get(name, name) for name in part) for part in (self.numbers, self.texts, self.values)
        )
        return Columns(numbers, texts, values, self.largest)

    def usable(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of these numbers may be read, (n,)."""
        import numpy as np

        good: NDArray[np.bool_] = np.isfinite(values) & (np.abs(values) <= self.largest)
        return good

    def checked(self, values: NDArray[np.float64], column: str, place: Place) -> NDArray[np.float64]:
        """The numbers of a column; raises InputError for the first that may not be read."""
        good = self.usable(values)
        if not good.all():
            index = int(good.argmin())
            finite = math.isfinite(values[index])
            expected = f"at most {self.largest:g} in size" if finite else "a finite number"
            raise UnusableNumberError(place(index), column, str(values[index]), expected)
        return values


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some consecutive rows. place: where a row of this batch is in its file; it may read the file again."""

    n: int
    place: Place
    numbers: Mapping[str, NDArray[np.float64]]  # (n,) each, finite
    texts: Mapping[str, Text]
    values: Mapping[str, list[Json]] = field(default_factory=dict)


# the file's column names -> what to read; raises InputError if one is missing
Pick = Callable[[Sequence[str]], Columns]


MEMORY_PLACE = "rows"  # what messages call the rows that a program holds
COLUMN_OPTIONS = {"src": "--source-column", "encoder": "--encoder-column"}  # what names them in every command


def missing_column(path: Path | str, column: str, found: Sequence[str], hint: str = "") -> InputError:
    """The error for a column that is not there: names the columns found and the nearest match, unless a hint does."""
    from difflib import get_close_matches

    lower = {name.lower(): name for name in found}
    near = get_close_matches(column.lower(), lower, n=1)
    has_option = column in COLUMN_OPTIONS and path != MEMORY_PLACE
    option = f" or name it with {COLUMN_OPTIONS[column]}" if has_option else ""
    hint = hint or (f"is it {lower[near[0]]!r}? rename it{option}" if near else f"add it{option}")
    more = f" and {len(found) - MAX_COLUMNS_SHOWN} more" if len(found) > MAX_COLUMNS_SHOWN else ""
    listed = ", ".join(found[:MAX_COLUMNS_SHOWN]) + more or "no columns"
    return InputError(f"{path}: no column {column!r}: found {listed}, expected {column}: {hint}")


def decimal_comma(text: str) -> str:
    """What to write in the place of a number with a decimal comma; "" for another text."""
    found = DECIMAL_COMMA.fullmatch(text)
    return f"it has a decimal comma: write {text.strip().replace(',', '.')}" if found else ""


def number_of(value: Any) -> float:
    """As float reads it, but for underscores in a text, which no other reader takes for part of a number.

    Raises TypeError, ValueError or OverflowError.
    """
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"an underscore in {value!r}")
    return float(value)


class UnusableNumberError(InputError):
    """A cell that is no number that may be read; the message names the first one, and `read_rows` counts the rows."""

    def __init__(self, place: str, column: str, found: str, expected: str = "a number") -> None:
        hint = decimal_comma(found.strip("'\"")) or "correct or drop the row"
        super().__init__(str(bad_cell(place, column, found, expected, hint)))


def bad_cell(place: str, column: str, found: str, expected: str, hint: str = "correct or drop the row") -> InputError:
    """The error for one value."""
    return InputError(f"{place}, column {column}: found {found}, expected {expected}: {hint}")


def require_unique(path: Path | str, names: Sequence[str]) -> None:
    """Raises InputError for a name that two columns have."""
    if twice := next((name for name, times in Counter(names).items() if times > 1), None):
        raise InputError(f"{path}: found the column {twice!r} twice, expected each column once: rename one")
