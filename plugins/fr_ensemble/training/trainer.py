"""trainer.py: trains every (seed, fold) model and every final member. Reads no corpus and judges nothing.

A model's bytes depend on the data, the recipe and its own (seed, fold) alone: not on the other models, their order,
the number of workers, or the machine, under the conditions in docs/explanation/kernel.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from fr_ensemble.arrays import TrainedModels, TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import compiling
from fr_ensemble.training.checkpoints import Checkpoint, run_digest
from fr_ensemble.training.engines import Work, start_engine
from fr_ensemble.training.execution import COMPILED, DEFAULT_EXECUTION, REFERENCE, TRAINERS, Execution
from fr_ensemble.training.model import Result, warm_up
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, TrainingTable, prepare
from registry_tool.errors import InputError
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import note


def train(
    data: TrainingData,
    recipe: Recipe,
    execution: Execution = DEFAULT_EXECUTION,
    progress: Progress = silent,
) -> TrainedModels:
    """Train every seed's final member and its LOSO models. progress is called in the caller's thread.

    Raises InputError for data or a checkpoint that cannot be used, and for a trainer or engine that is not there.
    """
    check_execution(execution)
    table = prepare(data, raw_conditions=recipe.raw_conditions)
    keys = model_keys(table, recipe)
    total = len(keys) * recipe.epochs
    with start_training(execution, progress) as train_keys:
        results = train_keys(table, recipe, keys, "", after(progress, "training (model-epochs)", 0, total))
    return collected(table, recipe, results)


def after(progress: Progress, step: str, done: int, total: int) -> Callable[[int], None]:
    """Tells the progress of one part of a step, `done` model-epochs of which are of the parts before."""
    return lambda more: progress(step, done + more, total)


class TrainKeys(Protocol):
    """Trains some models. name: of a folder below the checkpoint's, "" for the folder itself.

    report: is told the model-epochs done.
    """

    def __call__(
        self,
        table: TrainingTable,
        recipe: Recipe,
        keys: Sequence[ModelKey],
        name: str,
        report: Callable[[int], None],
    ) -> list[Result]: ...


@contextmanager
def start_training(execution: Execution, progress: Progress = silent) -> Iterator[TrainKeys]:
    """What trains models as `execution` says; it was checked by `check_execution`. Raises InputError for no engine."""
    if execution.trainer == REFERENCE:
        from fr_ensemble.training import devices, reference

        devices.check_device(execution.device)
        yield lambda table, recipe, keys, name, report: reference.train_models(
            table, recipe, keys, execution.device, report
        )
        return
    with start_engine(execution.engine, execution.jobs) as engine:

        def train_keys(
            table: TrainingTable,
            recipe: Recipe,
            keys: Sequence[ModelKey],
            name: str,
            report: Callable[[int], None],
        ) -> list[Result]:
            compile_once(table, recipe, keys[0], progress)
            work = Work(table, recipe, keys, checkpoint_of(execution, name, table, recipe))
            try:
                return engine(work, report)
            except KeyboardInterrupt:
                if execution.checkpoint is not None:
                    note(f"{execution.checkpoint}: kept what was trained so far: --resume goes on from there")
                raise

        yield train_keys


def model_keys(table: TrainingTable, recipe: Recipe) -> list[ModelKey]:
    """All models of a run, those with the most rows first."""
    held_out = dict(enumerate(np.bincount(table.source).tolist())) | {FINAL_FOLD: 0}
    folds = sorted(held_out, key=lambda fold: (held_out[fold], fold))
    return [ModelKey(fold, seed) for fold in folds for seed in recipe.seeds]


def compile_once(table: TrainingTable, recipe: Recipe, key: ModelKey, progress: Progress) -> None:
    compiled = compiling.is_compiled()
    if not compiled:
        progress("compiling the trainer once", 0, 1)
    warm_up(table, recipe, key)
    if not compiled:
        progress("compiling the trainer once", 1, 1)


def checkpoint_of(execution: Execution, name: str, table: TrainingTable, recipe: Recipe) -> Checkpoint | None:
    if execution.checkpoint is None:
        return None
    run = run_digest(table, recipe)
    checkpoint = Checkpoint(execution.checkpoint.absolute() / name, execution.checkpoint_seconds, run)
    checkpoint.begin(execution.resume)
    return checkpoint


def collected(table: TrainingTable, recipe: Recipe, results: Sequence[Result]) -> TrainedModels:
    members = {result.key.seed: result.weights for result in results if result.key.fold == FINAL_FOLD}
    oof = np.full((len(recipe.seeds), len(table.source)), np.nan, np.float32)
    fitted = np.full_like(oof, np.nan)
    for key, _, scores in results:
        row = recipe.seeds.index(key.seed)
        if key.fold == FINAL_FOLD:
            fitted[row] = scores
        else:
            oof[row, table.source == key.fold] = scores
    return TrainedModels(tuple(members[s] for s in recipe.seeds), table.scales[FINAL_FOLD].scaler, oof, fitted)


def check_execution(execution: Execution) -> None:
    """Raises InputError for a trainer that is not there or does not do what is asked, WorldError for no compiler."""
    compiling.check_compiler()
    if execution.trainer not in TRAINERS:
        raise InputError(f"--trainer: found {execution.trainer!r}, expected one of {', '.join(TRAINERS)}")
    if execution.trainer == COMPILED:
        if execution.device != "cpu":
            expected = f"cpu: other devices need --trainer {REFERENCE}"
            raise InputError(f"--device: found {execution.device!r}, expected {expected}")
        return
    if find_spec("torch") is None:
        raise InputError("--trainer: torch is not installed, expected it: pip install torch")
    if execution.engine != "local":
        raise InputError(
            f"--engine: found {execution.engine!r}, expected local: the reference trainer runs in this process"
        )
    if execution.checkpoint is not None:
        raise InputError("--checkpoint: the reference trainer keeps none: leave it out, or the trainer")


def arithmetic(execution: Execution) -> dict[str, str]:
    """What decides in which order, and with how many roundings, this run adds."""
    if execution.trainer == REFERENCE:
        from fr_ensemble.training.devices import torch_arithmetic

        return {"trainer": execution.trainer, **torch_arithmetic(execution.device)}
    versions = {name: metadata.version(name) for name in ("numba", "llvmlite")}
    return {
        "trainer": execution.trainer,
        **versions,
        "multiply-add": "fused" if compiling.has_fma() else "two roundings",
    }
