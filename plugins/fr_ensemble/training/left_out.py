"""left_out.py: leave-one-encoder-out: trains models that have no row of an encoder. Judges nothing.

Encoder by encoder, every fold again on the rows of the other encoders alone: a row is predicted by models that saw
neither its source nor its encoder. All by one recipe, that of the members that ship.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fr_ensemble.arrays import Float32, Int32, Mask, TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.execution import DEFAULT_EXECUTION, Execution
from fr_ensemble.training.model import NetworkLayout, Result, scores_of
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, TrainingTable, prepare
from fr_ensemble.training.trainer import after, start_training
from registry_tool.errors import InputError
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import Text

LEAVE_OUT_OPTION = "--leave-out-encoders"


def check_encoders(data: TrainingData, encoder: Text, recipe: Recipe) -> None:
    """Raises InputError where an encoder cannot be left out, before anything is trained."""
    if len(encoder.names) < 2:
        raise InputError(
            f"{LEAVE_OUT_OPTION}: found one encoder, {encoder.names[0]}, expected two or more: leave the option out"
        )
    needed = 3 if recipe.early_stopping else 2
    for code, name in enumerate(encoder.names):
        n = len(np.unique(data.source[encoder.codes != code]))
        if n < needed:
            raise InputError(
                f"{LEAVE_OUT_OPTION}: found {n} sources with rows of other encoders than {name}, expected {needed} or "
                "more: leave the option out"
            )


def predict_left_out(
    data: TrainingData,
    encoder: Text,
    recipe: Recipe,
    execution: Execution = DEFAULT_EXECUTION,
    progress: Progress = silent,
) -> Float32:
    """Each row by the models that saw neither its source nor its encoder, (S, n), target units.

    encoder: of each row. Raises what `check_encoders` and `train` raise.
    """
    check_encoders(data, encoder, recipe)
    all_rows = prepare(data, raw_conditions=recipe.raw_conditions)
    folds = [_folds(data, encoder.codes == code) for code in range(len(encoder.names))]
    total, done = recipe.epochs * len(recipe.seeds) * sum(map(len, folds)), 0
    predictions = np.full((len(recipe.seeds), len(data.target)), np.nan, np.float32)
    with start_training(execution, progress) as train_keys:
        for code, rows_of in enumerate(folds):
            table = _without(data, encoder.codes == code, recipe)
            keys = [ModelKey(fold, seed) for fold in rows_of for seed in recipe.seeds]
            report = after(progress, "leaving out encoders (model-epochs)", done, total)
            for result in train_keys(table, recipe, keys, f"encoders/{code}", report):
                rows = rows_of[result.key.fold]
                predictions[recipe.seeds.index(result.key.seed), rows] = _scores(table, all_rows, result, rows)
            done += recipe.epochs * len(keys)
    return predictions


def _folds(data: TrainingData, own: Mask) -> dict[int, Int32]:
    """An encoder's own rows by the fold of the others' table that predicts them.

    FINAL_FOLD, which holds nothing out, predicts those of sources without rows of another encoder.
    """
    fold_of = {int(number): fold for fold, number in enumerate(np.unique(data.source[~own]))}
    folds = np.array([fold_of.get(number, FINAL_FOLD) for number in data.source.tolist()])
    return {int(fold): np.flatnonzero(own & (folds == fold)).astype(np.int32) for fold in np.unique(folds[own])}


def _without(data: TrainingData, own: Mask, recipe: Recipe) -> TrainingTable:
    """The rows of the other encoders; folds are their sources, ascending."""
    rest = np.flatnonzero(~own)
    sources, source = np.unique(data.source[rest], return_inverse=True)
    fitted = data.of_rows(rest, source.reshape(-1), len(sources))
    return prepare(fitted, raw_conditions=recipe.raw_conditions)


def _scores(table: TrainingTable, all_rows: TrainingTable, result: Result, rows: Int32) -> Float32:
    """Scores of rows of the whole table by a model that was trained on another, on that one's scale."""
    layout = NetworkLayout(table.inputs, result.weights.w1.shape[1])
    return scores_of(replace(table, rows=all_rows.rows), result.key, layout, layout.pack(result.weights), rows)
