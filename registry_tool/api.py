"""api.py: what `import registry_tool` offers programs: a registry, its verdicts, its models. Writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from registry_tool.documents import store
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, Level, Predictor
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.plugins.manager import load as load_plugins
from registry_tool.rows import memory
from registry_tool.rows.batches import BATCH_ROWS, Column
from registry_tool.rows.cells import values_of
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Json, percent
from registry_tool.values import Verdict as Verdict
from registry_tool.workflows import gate as gate_workflow
from registry_tool.workflows import validate as validate_workflow
from registry_tool.workflows.loading import entry_for_use, usable
from registry_tool.workflows.predict import cannot_predict
from registry_tool.workflows.validate import Validation as Validation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_LEVELS = (0.95,)


def open(path: str | os.PathLike[str] | None = None) -> Registry:
    """Read a registry and check its document.

    path: a registry.json or its folder; None looks as the command line does: REGISTRY_JSON, else model/registry.json or
    registry.json, here or in a parent folder. Raises InputError, with `findings` where the document is wrong.
    """
    return Registry(usable(store.find(path, os.environ, Path.cwd())), load_plugins())


class Registry:
    """A registry as its document was when it was opened; made by `registry_tool.open`. It never writes."""

    def __init__(self, loaded: Loaded, plugins: Plugins) -> None:
        self._loaded = loaded
        self._plugins = plugins

    def __repr__(self) -> str:
        return f"Registry({str(self.path)!r}, {len(self.entries)} entries)"

    @property
    def path(self) -> Path:
        """Of the registry.json."""
        return self._loaded.path

    @property
    def entries(self) -> Sequence[Entry]:
        """In the document's order. An entry has `id`, `kind`, `smoke` and the whole `document`."""
        return self._loaded.registry.entries

    def validate(self, level: str = "full") -> Validation:
        """Everything that `registry validate` checks, on the files as they are now.

        level: "quick" for documents and digests, "full" for models and evidence too. The Validation has `findings`,
        each with a code, a severity and a place. Raises InputError for another level.
        """
        if level not in tuple(Level):
            raise InputError(f"level: found {level!r}, expected {' or '.join(Level)}")
        return validate_workflow.validate(self.path, self._plugins, Level(level))

    def gate(self, entry_id: str, incumbent: str | None = None) -> Verdict:
        """The verdict of `registry gate` on an entry's evidence, by the registry's policy.

        incumbent: the id of an entry to compare with. The Verdict has `decision`, `promotes`, `metrics` and `reasons`.
        Raises InputError for an id that is not there, RejectedError where a digest does not hold.
        """
        return gate_workflow.gate(self.path, self._plugins, entry_id, incumbent).verdict

    def load(self, entry_id: str, *, allow_smoke: bool = False) -> Model:
        """An entry, ready to predict, from bytes whose digests were checked on the way.

        No path reaches the runtime, so a file that is replaced meanwhile changes nothing. A quick validation of the
        entry comes first: its documents, digests, promotion, and the signatures that the policy asks for.
        allow_smoke: take an entry that was not promoted, too. Raises InputError for an id that is not there or a kind
        that cannot predict, RejectedError, with `findings`, for an entry that may not be used.
        """
        self._plugins.need(self._loaded.registry.requires)
        with Folder(self._loaded.folder) as folder:
            inspection = Inspection(self._loaded, self._plugins, folder)
            view = entry_for_use(inspection, entry_id, "load it with allow_smoke=True", allow_smoke=allow_smoke)
            predictor = self._plugins.load(view)
            if predictor is None:
                raise cannot_predict(view)
        return Model(view.entry, predictor)


class Model:
    """A loaded entry; made by `Registry.load`. Threads may share one."""

    def __init__(self, entry: Entry, predictor: Predictor) -> None:
        self.entry = entry
        self._predictor = predictor

    def __repr__(self) -> str:
        return f"Model({self.entry.id!r}, {self.entry.kind})"

    @overload
    def predict(self, rows: Mapping[str, Any], levels: Sequence[float] = DEFAULT_LEVELS) -> Prediction: ...

    @overload
    def predict(self, rows: Iterator[Any], levels: Sequence[float] = DEFAULT_LEVELS) -> Iterator[Prediction]: ...

    @overload
    def predict(self, rows: Any, levels: Sequence[float] = DEFAULT_LEVELS) -> Any: ...

    def predict(self, rows: Any, levels: Sequence[float] = DEFAULT_LEVELS) -> Prediction | Iterator[Prediction]:
        """The numbers of `registry predict` for rows that a program has.

        rows: columns by name, n values each: a mapping, a numpy structured array, a pandas or polars data frame, an
        Arrow table or record batch. Or an iterable of these, for which the answer is an iterator of predictions, each
        made when it is taken. Raw units, as in a corpus: the entry scales and transforms them itself.
        levels: nominal coverages of the intervals, in (0, 1).
        Raises InputError, naming the row and the column, for what cannot be used.
        """
        try:
            wanted = tuple(float(level) for level in (() if isinstance(levels, str) else levels))
        except (TypeError, ValueError):
            wanted = ()
        if not wanted or not all(0 < level < 1 for level in wanted):
            raise InputError(f"levels: found {levels!r:.60}, expected numbers between 0 and 1, such as [0.8, 0.95]")
        if memory.is_table(rows) or not isinstance(rows, Iterable):
            return self._predict(rows, wanted)
        return (self._predict(table, wanted) for table in rows)

    def _predict(self, table: Any, levels: tuple[float, ...]) -> Prediction:
        batch = memory.to_batch(table, self._predictor.columns(memory.column_names(table), memory.MEMORY_PLACE))
        parts = [self._predictor.predict(part, levels) for part in memory.cut(batch, BATCH_ROWS)]
        return _joined(parts, levels)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predictions of n rows.

    columns: what `registry predict` writes behind `row`, by name: numpy arrays of n numbers, lists of n texts.
    levels: the nominal coverages of its intervals. warnings: what a person must know -> how many rows it is about.
    """

    columns: Mapping[str, Any]
    levels: tuple[float, ...]
    warnings: Mapping[str, int]

    def __repr__(self) -> str:
        n_rows = len(next(iter(self.columns.values()), ()))
        return f"Prediction({n_rows} rows: {', '.join(self.columns)})"

    @property
    def mu(self) -> NDArray[np.float64]:
        """The predicted score, (n,), in the target's unit."""
        return self._numbers("mu")

    @property
    def sigma(self) -> NDArray[np.float64]:
        """The ensemble's own spread, (n,), in the target's unit; `lower` and `upper` are the calibrated interval."""
        return self._numbers("sigma")

    @property
    def lower(self) -> NDArray[np.float64]:
        """The lower bound, (n,), at the first of `levels`."""
        return self.interval(self.levels[0])[0]

    @property
    def upper(self) -> NDArray[np.float64]:
        """The upper bound, (n,), at the first of `levels`."""
        return self.interval(self.levels[0])[1]

    @property
    def flags(self) -> Mapping[str, NDArray[np.bool_]]:
        """What is doubtful about rows, by the name of the doubt: (n,) each, True for a row that it concerns.

        Columns of true and false, and the names that a column `flags` has, separated by spaces.
        """
        import numpy as np

        marks = [{*text.split()} for text in self.columns.get("flags", ())]
        named = {name: np.array([name in row for row in marks]) for name in sorted(set().union(*marks))}
        marked = {name: column for name, column in self.columns.items() if getattr(column, "dtype", None) in (bool,)}
        return {**marked, **named}

    def interval(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and the upper bounds, (n,) each, at one of `levels`.

        Raises InputError for another level, and where the kind gives no intervals.
        """
        if not any(name.startswith("lower_") for name in self.columns):
            raise InputError(f"{self._found}, expected intervals: this kind gives none")
        try:
            suffix = percent(float(level))
        except (TypeError, ValueError):
            suffix = ""
        if f"lower_{suffix}" not in self.columns:
            raise InputError(f"level {level}: expected one of {list(self.levels)}: ask `predict` for it with levels=")
        return self._numbers(f"lower_{suffix}"), self._numbers(f"upper_{suffix}")

    def _numbers(self, name: str) -> NDArray[np.float64]:
        if name not in self.columns:
            raise InputError(f"{self._found}, expected {name!r}: name one of its own, as in `columns[NAME]`")
        numbers: NDArray[np.float64] = self.columns[name]
        return numbers

    @property
    def _found(self) -> str:
        return f"prediction: found the columns {', '.join(self.columns)}"


def _joined(parts: Sequence[Batch], levels: tuple[float, ...]) -> Prediction:
    import numpy as np

    def joined_column(name: str) -> Column | Sequence[Json]:
        columns = [part.columns[name] for part in parts]
        arrays = [column for column in columns if isinstance(column, np.ndarray)]
        if len(arrays) == len(columns):
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return [value for column in columns for value in values_of(column)]

    warnings = Counter[str]()
    for part in parts:
        warnings.update(part.warnings)
    return Prediction({name: joined_column(name) for name in parts[0].columns}, levels, warnings)
