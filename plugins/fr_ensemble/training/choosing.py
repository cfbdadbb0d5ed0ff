"""choosing.py: chooses a recipe for a corpus, inside every fold, and trains each fold by its choice. Judges nothing.

A fold's choice sees its training sources alone: they are cut into N_GROUPS groups of whole sources, each predicted by
models that learned from the others, one seed, at most MAX_EPOCHS epochs. The recipe with the least RMSE, a mean over
sources, is the fold's, where it is clearly below that of the first. So the fold's held-out source tells how well a
recipe that is chosen so does, not how well one does that was chosen with the source in view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fr_ensemble.arrays import Int64, TrainedModels, TrainingData
from fr_ensemble.artifacts.choice import FoldChoice, RecipeChoice
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence.statistics import rmse
from fr_ensemble.training.execution import DEFAULT_EXECUTION, Execution
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, prepare
from fr_ensemble.training.trainer import TrainKeys, after, check_execution, collected, model_keys, start_training
from registry_tool.hookspec import Progress, silent

N_GROUPS = 5
MAX_EPOCHS = 50  # a quarter of the public recipe's, so that three candidates cost 0.6 of its five seeds
MIN_CHOICE_SOURCES = 3  # a fold has two sources to choose on


def choose(
    data: TrainingData,
    sources: tuple[str, ...],
    candidates: Mapping[str, Recipe],
    execution: Execution = DEFAULT_EXECUTION,
    progress: Progress = silent,
) -> RecipeChoice:
    """Choose in every fold, and for the members that ship on all sources. sources: names, in their numbers' order.

    candidates: that differ in no seed and in no inputs. Raises what `train` raises.
    """
    check_execution(execution)
    short = {name: replace(one, epochs=min(one.epochs, MAX_EPOCHS)) for name, one in candidates.items()}
    folds = [*range(len(sources)), FINAL_FOLD]
    groups = [min(N_GROUPS, len(sources) - (fold != FINAL_FOLD)) for fold in folds]
    total, done = sum(one.epochs for one in short.values()) * sum(groups), 0
    errors: dict[int, dict[str, float]] = {fold: {} for fold in folds}
    with start_training(execution, progress) as train_keys:
        for fold, n_groups in zip(folds, groups, strict=True):
            rows = np.flatnonzero(data.source != fold)
            inside, owner = grouped(data, rows, n_groups), data.source[rows]
            for name, recipe in short.items():
                errors[fold][name] = _error(
                    inside,
                    owner,
                    recipe,
                    train_keys,
                    f"choosing/{'final' if fold == FINAL_FOLD else f'fold{fold}'}-{name}",
                    after(progress, "choosing a recipe (model-epochs)", done, total),
                )
                done += recipe.epochs * n_groups
    found = {name: FoldChoice(errors[g]) for g, name in enumerate(sources)}
    return RecipeChoice(dict(candidates), found, FoldChoice(errors[FINAL_FOLD]))


def grouped(data: TrainingData, rows: Int64, n_groups: int) -> TrainingData:
    """Some rows, whose sources are cut into groups: neighbours by name, which may be alike, share one."""
    numbers, place = np.unique(data.source[rows], return_inverse=True)
    group = np.repeat(np.arange(n_groups), [len(part) for part in np.array_split(numbers, n_groups)])[place]
    return data.of_rows(rows, group, n_groups)


def _error(
    inside: TrainingData, owner: Int64, recipe: Recipe, train_keys: TrainKeys, name: str, report: Callable[[int], None]
) -> float:
    """RMSE of each source of the rows, held out with its group; the mean over sources. owner: of each row."""
    table = prepare(inside, raw_conditions=recipe.raw_conditions)
    keys = [ModelKey(group, recipe.seeds[0]) for group in range(inside.n_sources)]
    predicted = np.empty(len(owner))
    for result in train_keys(table, recipe, keys, name, report):
        predicted[table.source == result.key.fold] = result.scores
    return float(np.mean([rmse(predicted[owner == g], inside.target[owner == g]) for g in np.unique(owner)]))


def train_chosen(
    data: TrainingData,
    choice: RecipeChoice,
    execution: Execution = DEFAULT_EXECUTION,
    progress: Progress = silent,
) -> TrainedModels:
    """As `train`, each fold by the recipe that was chosen in it, the members that ship by the one of all sources."""
    check_execution(execution)
    table = prepare(data, raw_conditions=choice.recipe.raw_conditions)
    names = [one.chosen for one in choice.folds.values()]
    chosen = dict(enumerate(names)) | {FINAL_FOLD: choice.final.chosen}
    parts = {
        name: [key for key in model_keys(table, recipe) if chosen[key.fold] == name]
        for name, recipe in choice.candidates.items()
    }
    total, done, results = sum(choice.candidates[name].epochs * len(keys) for name, keys in parts.items()), 0, []
    with start_training(execution, progress) as train_keys:
        for name, keys in parts.items():
            if keys:
                results += train_keys(
                    table,
                    choice.candidates[name],
                    keys,
                    name,
                    after(progress, "training (model-epochs)", done, total),
                )
                done += choice.candidates[name].epochs * len(keys)
    return collected(table, choice.recipe, results)
