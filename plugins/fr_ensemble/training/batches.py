"""batches.py: the rows, dropout and noise of each model's next step as arrays, drawn as the kernel draws them.

For a trainer that takes one step of many models at a time. M models, B rows a batch, D inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float32, Int32, Int64, Mask
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import draws
from fr_ensemble.training.model import ModelState, drop_threshold
from fr_ensemble.training.table import ModelKey, TrainingTable
from fr_ensemble.training.tile import TILE_ROWS


@dataclass(frozen=True, slots=True)
class Minibatch:
    """One step. Places that no row fills, in a short last batch and of a model without further ones, weigh 0."""

    index: Int64  # (M, B), rows of the table
    weight: Float32  # (M, B), in the loss
    keep: Float32  # (M, 2, B, H), what dropout multiplies each hidden unit with
    noise: Float32  # (M, B, D), added to the inputs
    unknown: Mask  # (M, B), rows whose encoder counts as unknown


def shuffled(rows: Int32, model: ModelState) -> Int32:
    """A model's rows in the order of its next epoch."""
    order = rows.copy()
    draws.shuffle(model.streams[0], order, np.empty(draws.SHUFFLE_WORDS, np.uint64))
    return order


def draw(
    table: TrainingTable, recipe: Recipe, models: Sequence[ModelState], orders: Sequence[Int32], first: int
) -> Minibatch:
    """The step of each model that begins at the row `first` of its order."""
    n, size, hidden = len(models), recipe.batch_size, recipe.hidden
    index, weight = np.zeros((n, size), np.int64), np.zeros((n, size), np.float32)
    keep, noise = np.ones((n, 2, size, hidden), np.float32), np.zeros((n, size, table.inputs), np.float32)
    padded, h, numeric = -(-size // TILE_ROWS) * TILE_ROWS, models[0].layout.h, numeric_columns(table)
    threshold, hide = drop_threshold(recipe.dropout), drop_threshold(recipe.encoder_dropout)
    unknown = np.zeros((n, size), bool)
    for j, (model, order) in enumerate(zip(models, orders, strict=True)):
        rows = order[first : first + size]
        if not len(rows):
            continue
        index[j, : len(rows)], weight[j, : len(rows)] = rows, 1.0 / len(rows)
        if hide:
            words = np.empty(draws.words_of_halves(size), np.uint64)
            draws.words(model.streams[3], words)
            unknown[j] = words.view(np.uint16)[:size] < hide
        if recipe.input_noise > 0.0:
            jitter = np.empty(size * len(numeric), np.float32)
            draws.gaussians(model.streams[2], jitter, np.empty(-(-jitter.size // 8) * 8, np.uint64))
            noise[j][:, numeric] = jitter.reshape(size, -1) * np.float32(recipe.input_noise)
        if threshold:
            bits = np.empty(padded * h // 2, np.uint64)
            draws.words(model.streams[1], bits)
            alive = bits.view(np.uint16).reshape(2, padded, h)[:, :size, :hidden] >= threshold
            keep[j] = alive / np.float32(1.0 - threshold / draws.RATE_STEPS)
    return Minibatch(index, weight, keep, noise, unknown)


def numeric_columns(table: TrainingTable) -> Int64:
    """Where the numeric columns are among the inputs: features, then slots, then conditioning."""
    place = np.arange(table.n_numeric)
    return place + table.n_slots * (place >= table.n_features)


def raw_rows(table: TrainingTable) -> Float32:
    """Raw inputs and target of all rows, (n, D + 1)."""
    raw = np.zeros((len(table.rows), table.inputs + 1), np.float32)
    raw[:, numeric_columns(table)], raw[:, -1] = table.rows[:, : table.n_numeric], table.rows[:, table.n_numeric + 1]
    raw[np.arange(len(raw)), table.n_features + table.rows[:, table.n_numeric].astype(np.int64)] = 1.0
    return raw


def scales(table: TrainingTable, keys: Sequence[ModelKey]) -> tuple[Float32, Float32]:
    """Each model's means and deviations of those columns, (M, 1, D + 1); 0 and 1 of slots."""
    columns = np.append(numeric_columns(table), table.inputs)
    shape = (len(keys), 1, table.inputs + 1)
    mean, std = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    for j, key in enumerate(keys):
        mean[j, 0, columns], std[j, 0, columns] = table.scales[key.fold].columns
    return mean, std
