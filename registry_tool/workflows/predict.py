"""predict.py: the story of `registry predict` and of `Registry.load`: verify, load, predict. No click, no printing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, EntryView, Predictor, PredictRequest
from registry_tool.plugins.manager import Plugins
from registry_tool.rows.reading import read_rows
from registry_tool.tables import BATCH_ROWS
from registry_tool.workflows.loading import inspected, usable, verified


def predict(path: Path, plugins: Plugins, entry_id: str, corpus: Path, levels: Sequence[float]) -> Iterator[Batch]:
    """Predict the rows of a file, batch by batch, with the number of each row."""
    with inspected(usable(path), plugins) as inspection:
        view = verified(inspection, entry_id)
        predictor = plugins.load(view)
        if predictor is not None:
            yield from predict_file(predictor, corpus, levels)
            return
        batches = plugins.predict(view, PredictRequest(corpus, levels))
        if batches is None:
            raise cannot_predict(view)
        yield from batches


def predict_file(predictor: Predictor, corpus: Path, levels: Sequence[float]) -> Iterator[Batch]:
    """The rows of a file, batch by batch; the first column is the number of the row, from 0."""
    import numpy as np

    predictor.check_file(corpus)
    first = 0
    for rows in read_rows(corpus, lambda found: predictor.columns(found, str(corpus)), BATCH_ROWS):
        batch = predictor.predict(rows, levels)
        yield Batch({"row": np.arange(first, first + rows.n), **batch.columns}, batch.warnings)
        first += rows.n


def cannot_predict(view: EntryView) -> InputError:
    return InputError(
        f"{view.entry.id}: the kind {view.entry.kind!r} cannot predict: `registry plugins` tells which can"
    )
