"""table.py: a corpus as the trainers cut it: one table, every fold's scale, every model's random streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Int32, Int64, Mask, Scaler, TrainingData
from registry_tool.errors import InputError

FINAL_FOLD = 2**32 - 1  # the `fold` of a final member, which holds nothing out
RECORD_FLOATS = 8  # a row begins on a multiple, so that six features and their target are one half of a cache line


class Role(IntEnum):
    """What a model's random stream is for."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2
    NOISE = 3
    SPLIT = 4
    ENCODER = 5


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """One model: the source held out (FINAL_FOLD: none), and a seed."""

    fold: int
    seed: int

    def entropy(self, role: Role) -> np.random.SeedSequence:
        """Where the random stream of this model for one role begins; no two models and no two roles share one."""
        return np.random.SeedSequence(self.seed, spawn_key=(self.fold, role))

    def generator(self, role: Role) -> np.random.Generator:
        """The stream as numpy's generator, for what is drawn once."""
        return np.random.Generator(np.random.SFC64(self.entropy(role)))


@dataclass(frozen=True, slots=True)
class FoldScale:
    """The scaler and the target's mean and standard deviation, from one fold's training rows alone."""

    scaler: Scaler
    target_mean: float
    target_std: float

    @property
    def columns(self) -> Float32:
        """Means, then deviations, of the numeric columns and the target: float32 (2, F + K + 1)."""
        mean = np.append(self.scaler.mean, self.target_mean)
        std = np.append(self.scaler.std, self.target_std)
        return np.stack([mean, std]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """The corpus as batches are cut from it, once for all models; its arrays cannot be written to.

    n rows; F features and K conditioning columns, the numeric ones; V one-hot slots; D = F + V + K inputs.
    """

    rows: Float32  # (n, C): numeric columns in raw units, slot, target, zeros up to a multiple of RECORD_FLOATS
    source: Int32  # (n,)
    n_features: int  # F
    n_slots: int  # V
    n_numeric: int  # F + K
    scales: dict[int, FoldScale]  # by fold, FINAL_FOLD included

    @property
    def inputs(self) -> int:
        """D, the columns that the first layer sees."""
        return self.n_numeric + self.n_slots

    def stops(self, key: ModelKey, share: float) -> Mask:
        """Marks the rows that tell a model when to stop and that it does not fit, bool (n,); none of its held-out fold.

        share: of the fold's training sources, whole ones, at least one, drawn by the model itself; 0: none.
        """
        sources = np.unique(self.source[self.source != key.fold]) if share else np.empty(0, np.int32)
        count = max(1, round(share * len(sources))) if share else 0
        if share and count >= len(sources):
            raise InputError(
                f"early_stopping: found {len(sources)} sources to train a fold on, expected 2 or more: leave it out"
            )
        chosen = key.generator(Role.SPLIT).permutation(sources)[:count]
        return np.isin(self.source, chosen)

    def fitted(self, key: ModelKey, share: float) -> Mask:
        """Marks the rows that a model fits, bool (n,): neither held out nor among those that tell it when to stop."""
        fitted: Mask = (self.source != key.fold) & ~self.stops(key, share)
        return fitted

    def judged(self, key: ModelKey) -> Int32:
        """The rows that a model is to score: those it holds out, or all for a final member, which holds out none."""
        chosen = np.flatnonzero(self.source == key.fold) if key.fold != FINAL_FOLD else np.arange(len(self.source))
        return chosen.astype(np.int32)


def prepare(data: TrainingData, *, raw_conditions: bool = False) -> TrainingTable:
    """The table of a corpus and every fold's scale. Raises InputError for a corpus that cannot be trained on.

    raw_conditions: conditions have mean 0 and deviation 1, whatever the rows say.
    """
    n = len(data.target)
    held = np.bincount(data.source, minlength=data.n_sources)
    if data.n_sources < 2 or len(held) != data.n_sources or not held.all():
        raise InputError(f"source: found rows of {np.count_nonzero(held)} sources, expected 2 or more, each with rows")
    columns = [*data.features.T, *data.conditioning.T, data.target]
    if not all(np.isfinite(column).all() for column in columns):
        raise InputError("features, conditioning, target: found NaN or infinity, expected finite numbers")
    n_numeric = len(columns) - 1
    rows = np.zeros((n, -(-(n_numeric + 2) // RECORD_FLOATS) * RECORD_FLOATS), np.float32)
    for place, column in enumerate(columns[:-1]):
        rows[:, place] = column
    rows[:, n_numeric], rows[:, n_numeric + 1] = data.codec, data.target
    source = data.source.astype(np.int32)
    rows.flags.writeable = source.flags.writeable = False
    scales = fit_scales(columns, source, held)
    if raw_conditions:
        for scale in scales.values():
            scale.scaler.mean[data.features.shape[1] :], scale.scaler.std[data.features.shape[1] :] = 0.0, 1.0
    return TrainingTable(rows, source, data.features.shape[1], data.n_slots, n_numeric, scales)


def fit_scales(columns: Sequence[Float64], source: Int32, counts: Int64) -> dict[int, FoldScale]:
    """Every fold's scale from figures of its training sources: each row is read once, however many folds there are.

    columns: float64 (n,) each, the target last. A column that is constant in a fold's training rows has deviation 1.
    """
    starts = np.cumsum(counts) - counts
    by_source = np.argsort(source, kind="stable")
    folds = [*range(len(counts)), FINAL_FOLD]
    fits = np.array(folds)[:, None] != np.arange(len(counts))  # (S + 1, S), which sources a fold trains on
    n = fits * counts
    means, deviations = [], []
    for column in columns:
        ordered = column[by_source]
        lowest = np.where(fits, np.minimum.reduceat(ordered, starts), np.inf).min(axis=1)
        highest = np.where(fits, np.maximum.reduceat(ordered, starts), -np.inf).max(axis=1)
        shift = ordered.mean()  # far from zero, sums of what is left keep their digits
        ordered -= shift
        parts = np.split(ordered, starts[1:])
        mean = np.array([part.mean() for part in parts])
        squares = np.array([np.sum(np.square(part - m)) for part, m in zip(parts, mean, strict=True)])
        centre = np.sum(n * mean, axis=1) / n.sum(axis=1)
        total = np.sum(fits * squares + n * np.square(mean - centre[:, None]), axis=1)
        deviation = np.sqrt(total / n.sum(axis=1))
        means.append(np.where(lowest == highest, lowest, shift + centre))
        deviations.append(np.where((lowest == highest) | (deviation == 0.0), 1.0, deviation))
    return {
        fold: FoldScale(
            Scaler(np.array([m[i] for m in means[:-1]]), np.array([d[i] for d in deviations[:-1]])),
            float(means[-1][i]),
            float(deviations[-1][i]),
        )
        for i, fold in enumerate(folds)
    }
