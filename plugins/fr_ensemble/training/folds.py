"""folds.py: a corpus as the trainer cuts it: one table, every fold's scale, every model's random streams. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fr_ensemble.arrays import Float32, Float64, Int64, Scaler, TrainingData
from registry_tool.errors import InputError

FINAL = 2**32 - 1  # the `fold` of a final member, which holds nothing out
PAD = 32  # floats: two AVX-512 registers, the step of torch's vector loops


def padded(n: int) -> int:
    """The next multiple of PAD."""
    return -(-n // PAD) * PAD


class Role(IntEnum):
    """What a model's random stream is for."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2
    NOISE = 3
    SPLIT = 4


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """One model: the source held out (FINAL: none), and a seed."""

    fold: int
    seed: int

    def stream(self, role: Role) -> np.random.Generator:
        """The random stream of this model for one role; no two models and no two roles share one."""
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(self.seed, spawn_key=(self.fold, role))))


@dataclass(frozen=True, slots=True)
class FoldScale:
    """The scaler and the target's mean and standard deviation, from one fold's training rows alone."""

    scaler: Scaler
    target_mean: float
    target_std: float


@dataclass(frozen=True, slots=True)
class Table:
    """The corpus as batches are cut from it, once for all models.

    n rows, D = F + V + K inputs. Columns: F features, V one-hot slots, K conditioning, a constant 1, the target, zeros
    up to C, a multiple of PAD; raw units, in the float32 in which the exported graph takes its inputs too. Row n is all
    zeros: it stands for "no row" in a short batch.
    """

    rows: Float32  # (n + 1, C)
    source: Int64  # (n,)
    inputs: int  # D
    numeric: Int64  # (F + K,), where the numeric columns are
    scales: dict[int, FoldScale]  # by fold, FINAL included

    def split(self, key: ModelKey, share: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows that a model fits and rows that tell it when to stop, ascending; none of either is of its held-out fold.

        share: of the fold's training sources, whole ones, at least one, drawn by the model itself; 0: none.
        """
        fits = self.source != key.fold
        if share == 0.0:
            return np.flatnonzero(fits).astype(np.int32), np.empty(0, np.int32)
        sources = np.unique(self.source[fits])
        count = max(1, round(share * len(sources)))
        if count >= len(sources):
            raise InputError(
                f"early_stopping: found {len(sources)} sources to train a fold on, expected 2 or more: leave it out"
            )
        chosen = key.stream(Role.SPLIT).permutation(sources)[:count]
        stops = np.isin(self.source, chosen)
        return np.flatnonzero(fits & ~stops).astype(np.int32), np.flatnonzero(stops).astype(np.int32)

    def scale(self, fold: int) -> tuple[Float32, Float32]:
        """(mean, std), float32 (C,) each: (row - mean) / std is standardised for this fold, target included."""
        fit = self.scales[fold]
        at = np.append(self.numeric, self.inputs + 1)
        mean, std = np.zeros(self.rows.shape[1], np.float32), np.ones(self.rows.shape[1], np.float32)
        mean[at] = np.append(fit.scaler.mean, fit.target_mean)
        std[at] = np.append(fit.scaler.std, fit.target_std)
        return mean, std


def fit_scale(values: Float64, chosen: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Mean and standard deviation (ddof 0, 1.0 for a constant column) over the chosen rows; values: float64 (n, N)."""
    mean, std = np.empty(values.shape[1]), np.empty(values.shape[1])
    for column in range(values.shape[1]):  # one column at a time: a corpus is never copied whole
        part = values[chosen, column]
        mean[column] = part.mean()
        std[column] = 1.0 if part.min() == part.max() else part.std()
    return mean, np.where(std > 0.0, std, 1.0)


def prepare(data: TrainingData) -> Table:
    """The table of a corpus and every fold's scale. Raises InputError for a corpus that cannot be trained on."""
    n, numeric = len(data.target), data.numeric
    held = np.bincount(data.source, minlength=data.n_sources)
    if data.n_sources < 2 or len(held) != data.n_sources or not held.all():
        raise InputError(f"source: found rows of {np.count_nonzero(held)} sources, expected 2 or more, each with rows")
    if not (np.isfinite(numeric).all() and np.isfinite(data.target).all()):
        raise InputError("features, conditioning, target: found NaN or infinity, expected finite numbers")
    scales = {}
    for fold in [*range(data.n_sources), FINAL]:
        chosen = data.source != fold
        mean, std = fit_scale(numeric, chosen)
        (target_mean,), (target_std,) = fit_scale(data.target[:, None], chosen)
        scales[fold] = FoldScale(Scaler(mean, std), float(target_mean), float(target_std))
    n_features, inputs = data.features.shape[1], numeric.shape[1] + data.n_slots
    where = np.r_[:n_features, n_features + data.n_slots : inputs].astype(np.int64)
    rows = np.zeros((n + 1, padded(inputs + 2)), np.float32)
    rows[:n, where] = numeric
    rows[np.arange(n), n_features + data.codec] = 1.0
    rows[:n, inputs] = 1.0
    rows[:n, inputs + 1] = data.target
    return Table(rows, data.source, inputs, where, scales)
