"""trainer.py: trains every (seed, fold) model and every final member. Reads no corpus and judges nothing.

A model's bytes depend on the data, the recipe and its own (seed, fold) alone: not on the other models, their order,
the number of workers, or the machine, as docs/explanation/kernel.md says under which conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Trained, TrainingData
from fr_ensemble.artifacts.recipe import COMPILED, REFERENCE, TRAINERS, Recipe
from fr_ensemble.training import compiling
from fr_ensemble.training.table import FINAL, ModelKey, prepare
from registry_tool.errors import InputError


def train(
    data: TrainingData,
    recipe: Recipe,
    *,
    jobs: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    device: str = "cpu",
    engine: str = "local",
    trainer: str = COMPILED,
) -> Trained:
    """Train every seed's final member and its LOSO models.

    jobs: workers (default: the cores that this process, or the Ray cluster, has). progress(what, done, total): called
    in the caller's thread. checkpoint: a folder for the state of a long run, saved every `checkpoint_seconds`; with
    `resume` the run goes on from there, to the same bytes. engine: "local" (threads) or "ray". Nothing of this changes
    the result. trainer: "compiled", or "reference" (torch, on any `device`), which has neither engines nor checkpoints.

    Raises InputError for data or a checkpoint that cannot be used, and for what is not there.
    """
    table = prepare(data)
    held = dict(enumerate(np.bincount(table.source).tolist())) | {FINAL: 0}  # rows that a fold leaves out
    folds = sorted(held, key=lambda fold: (held[fold], fold))  # the longest work first
    keys = [ModelKey(fold, seed) for fold in folds for seed in recipe.seeds]
    told = progress or (lambda what, done, total: None)
    total = len(keys) * recipe.epochs

    def tell(done: int) -> None:
        told("training (model-epochs)", done, total)

    check_trainer(trainer, device, engine, checkpoint)
    if trainer == REFERENCE:
        from fr_ensemble.training import reference

        results = reference.train_models(table, recipe, keys, device, tell)
    else:
        from fr_ensemble.training.checkpoints import Checkpoint, run_digest
        from fr_ensemble.training.engines import Work, open_engine
        from fr_ensemble.training.model import warm_up

        with open_engine(engine, jobs) as run:
            compiled = compiling.is_compiled()
            if not compiled:
                told("compiling the trainer once", 0, 1)
            warm_up(table, recipe, keys[0])
            if not compiled:
                told("compiling the trainer once", 1, 1)
            saved = Checkpoint(checkpoint.absolute(), checkpoint_seconds) if checkpoint else None
            if saved:
                saved.begin(run_digest(table, recipe), resume)
            results = run(Work(table, recipe, keys, saved), tell)
    members = {result.key.seed: result.weights for result in results if result.key.fold == FINAL}
    oof = np.full((len(recipe.seeds), len(data.target)), np.nan, np.float32)
    fitted = np.full_like(oof, np.nan)
    for key, _, scores in results:
        row = recipe.seeds.index(key.seed)
        if key.fold == FINAL:
            fitted[row] = scores
        else:
            oof[row, table.source == key.fold] = scores
    return Trained(tuple(members[s] for s in recipe.seeds), table.scales[FINAL].scaler, oof, fitted)


def check_trainer(trainer: str, device: str, engine: str, checkpoint: Path | None) -> None:
    """Raises InputError for a trainer that is not there or does not do what is asked, WorldError for no compiler."""
    compiling.check_compiler()
    if trainer not in TRAINERS:
        raise InputError(f"trainer: found {trainer!r}, expected one of {', '.join(TRAINERS)}")
    if trainer == COMPILED:
        if device != "cpu":
            raise InputError(f"device: found {device!r}, expected cpu: other devices need --trainer {REFERENCE}")
        return
    if find_spec("torch") is None:
        raise InputError("trainer: torch is not installed, expected it: pip install 'registry-tool[train,torch]'")
    if engine != "local":
        raise InputError(f"engine: found {engine!r}, expected local: the reference trainer runs in this process")
    if checkpoint is not None:
        raise InputError("checkpoint: the reference trainer keeps none: leave it out, or the trainer")


def arithmetic(trainer: str, device: str) -> dict[str, str]:
    """What decides in which order, and with how many roundings, this run adds."""
    if trainer == REFERENCE:
        from fr_ensemble.training import reference

        return {"trainer": trainer, **reference.arithmetic(device)}
    versions = {name: metadata.version(name) for name in ("numba", "llvmlite")}
    return {"trainer": trainer, **versions, "multiply-add": "fused" if compiling.has_fma() else "two roundings"}
