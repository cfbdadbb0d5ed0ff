"""predict.py: the story of `registry predict` and of `Registry.load`: verify, load, predict. No click, no printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, EntryView, Predictor, PredictRequest
from registry_tool.plugins.manager import Plugins
from registry_tool.rows.batches import BATCH_ROWS, RowBatch
from registry_tool.rows.reading import STREAM_NAME, read_rows, read_stream
from registry_tool.values import EMPTY
from registry_tool.workflows.loading import inspected, usable, verified


@dataclass(frozen=True, slots=True)
class IncomingRows:
    """Rows that arrive at standard input. one_by_one: predict each as it comes."""

    stream: IO[bytes]
    one_by_one: bool = False


def predict(
    path: Path,
    plugins: Plugins,
    entry_id: str,
    rows: Path | IncomingRows,
    levels: Sequence[float],
    names: Mapping[str, str] = EMPTY,
) -> Iterator[Batch]:
    """Predict the rows of a file or a stream, batch by batch, with the number of each row. names: as of `read_rows`."""
    with inspected(usable(path), plugins) as inspection:
        view = verified(inspection, entry_id)
        predictor = plugins.load(view)
        if predictor is not None:
            yield from predict_rows(predictor, rows, levels, names)
            return
        if isinstance(rows, IncomingRows):
            raise InputError(f"{entry_id}: the kind {view.entry.kind!r} reads rows from files alone: name a file")
        batches = plugins.predict(view, PredictRequest(rows, levels, names))
        if batches is None:
            raise cannot_predict(view)
        yield from batches


def predict_rows(
    predictor: Predictor, rows: Path | IncomingRows, levels: Sequence[float], names: Mapping[str, str] = EMPTY
) -> Iterator[Batch]:
    """Batch by batch; the first column is the number of the row, from 0."""
    import numpy as np

    if isinstance(rows, Path):
        predictor = predictor.check_file(rows) or predictor
    first = 0
    for part in _parts(predictor, rows, names):
        batch = predictor.predict(part, levels)
        yield Batch({"row": np.arange(first, first + part.n), **batch.columns}, batch.warnings)
        first += part.n


def _parts(predictor: Predictor, rows: Path | IncomingRows, names: Mapping[str, str]) -> Iterator[RowBatch]:
    if isinstance(rows, IncomingRows):
        size = 1 if rows.one_by_one else BATCH_ROWS
        return read_stream(rows.stream, lambda found: predictor.columns(found, STREAM_NAME), size, names)
    return read_rows(rows, lambda found: predictor.columns(found, str(rows)), BATCH_ROWS, names=names)


def cannot_predict(view: EntryView) -> InputError:
    kind, entry_id = view.entry.kind, view.entry.id
    if view.entry.onnx is not None:
        return InputError(
            f"{entry_id}: the kind {kind!r} cannot predict here: `registry paths {entry_id}` prints its verified file "
            "for a program of yours; docs/how-to/integrate.md says what to feed it"
        )
    return InputError(f"{entry_id}: the kind {kind!r} cannot predict: `registry plugins` tells which can")
