"""evidence.py: a file of out-of-fold predictions as columns, and ways to spoil it. Asks no plugin."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]
SHUFFLE_SEED = 21  # of the order in which rows are shuffled


@dataclass(frozen=True, slots=True)
class EvidenceTable:
    """The pinned file that holds the out-of-fold predictions, and the names of three of its columns.

    path: as the manifest names it; its ending says how it is read: `.csv`, `.jsonl` or `.npz`. A subclass
    reads and writes another format. target, prediction: a value for each row. source: the group that a fold holds out,
    a name or a number for each row.
    """

    path: str
    target: str = "target"
    prediction: str = "prediction"
    source: str = "source"

    def read(self, data: bytes) -> Arrays:
        """The columns of the file, by name. Of a `.npz` all arrays, those without rows too."""
        import numpy as np

        match self.path.rpartition(".")[2]:
            case "csv":
                names, *rows = csv.reader(io.StringIO(data.decode()))
                return dict(zip(names, np.array(rows, dtype=object).reshape(-1, len(names)).T, strict=True))
            case "jsonl":
                parsed = [json.loads(line) for line in data.decode().splitlines()]
                return {name: np.array([row[name] for row in parsed], dtype=object) for name in parsed[0]}
            case "npz":
                with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                    return dict(archive)
        raise ValueError(f"{self.path}: no format, expected csv, jsonl or npz: override `read` and `write`")

    def write(self, columns: Arrays) -> bytes:
        """The file of some columns: the opposite of `read`."""
        import numpy as np

        rows = zip(*(column.tolist() for column in columns.values()), strict=False)
        match self.path.rpartition(".")[2]:
            case "csv":
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows([tuple(columns), *rows])
                return text.getvalue().encode()
            case "jsonl":
                lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
                return "".join(f"{line}\n" for line in lines).encode()
        sink = io.BytesIO()
        np.savez(sink, **columns)  # type: ignore[arg-type]  # numpy's stub takes an array for its `allow_pickle`
        return sink.getvalue()

    def spoilt(self, columns: Arrays) -> Iterator[tuple[str, Arrays]]:
        """(what was done, the columns after it), of each way to spoil what the predictions show."""
        changes: dict[str, Callable[[Arrays], Arrays]] = {
            "the predictions permuted": lambda c: {**c, self.prediction: self._shuffled(c, self.prediction)},
            "the targets shuffled": lambda c: {**c, self.target: self._shuffled(c, self.target)},
            "the predictions made constant": lambda c: {**c, self.prediction: self._constant(c)},
            "a fold dropped": self._without_a_fold,
            "two groups merged": self._merged,
        }
        for done, change in changes.items():
            yield done, change(columns)

    def _shuffled(self, columns: Arrays, name: str) -> NDArray[Any]:
        """The values of other rows; of predictions by several models, those of one row stay together."""
        import numpy as np

        values = columns[name]
        axis = _row_axis(values, len(columns[self.source]))
        return np.take(values, np.random.default_rng(SHUFFLE_SEED).permutation(values.shape[axis]), axis)

    def _constant(self, columns: Arrays) -> NDArray[Any]:
        import numpy as np

        values = columns[self.prediction]
        axis = _row_axis(values, len(columns[self.source]))
        return np.take(values, np.zeros(values.shape[axis], int), axis)

    def _without_a_fold(self, columns: Arrays) -> Arrays:
        import numpy as np

        sources = columns[self.source]
        kept = np.flatnonzero(sources != sources[-1])
        n = len(sources)
        return {
            name: np.take(values, kept, _row_axis(values, n)) if n in values.shape else values
            for name, values in columns.items()
        }

    def _merged(self, columns: Arrays) -> Arrays:
        import numpy as np

        sources = columns[self.source]
        return {**columns, self.source: np.where(sources == sources[-1], sources[0], sources)}


def _row_axis(values: NDArray[Any], rows: int) -> int:
    """The axis of an array that has an item for each row: the last such one."""
    return max(axis for axis, length in enumerate(values.shape) if length == rows)
