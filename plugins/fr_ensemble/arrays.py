"""arrays.py: what goes into training and what comes out, as plain numpy arrays. No torch, no onnx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Numbers = Float64 | Float32
Mask = NDArray[np.bool_]
RowChoice = Mask | Int64  # some of n rows: a mask (n,), or their numbers


def rows_by_name(index: Int64, names: Sequence[str]) -> dict[str, int]:
    """How many rows each name has; one without any is left out. index: of each row, (n,)."""
    counts = np.bincount(index, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The rows of a corpus as the trainer needs them; nothing is standardised yet.

    n rows, F feature columns, K conditioning columns, V vocabulary slots, S sources.
    """

    features: Float64  # (n, F), raw units
    codec: Int64  # (n,), slot of the vocabulary, 0..V-1
    n_slots: int  # V
    conditioning: Float64  # (n, K), transformed (log2) but not standardised; K may be 0
    target: Float64  # (n,), raw units (VMAF points, MOS)
    source: Int64  # (n,), 0..S-1, every source has at least one row
    n_sources: int  # S >= 2

    @property
    def numeric(self) -> Float64:
        """The columns that a scaler standardises: features, then conditioning; shape (n, F + K)."""
        return np.concatenate([self.features, self.conditioning], axis=1)

    def of_rows(self, rows: Int64, source: Int64, n_sources: int) -> TrainingData:
        """Some rows, by their numbers, under other numbers of sources."""
        kept = {name: getattr(self, name)[rows] for name in ("features", "codec", "conditioning", "target")}
        return replace(self, **kept, source=source, n_sources=n_sources)


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and standard deviation (ddof 0; 1.0 for a constant column) of the numeric columns: float64 (F + K,).

    A column that members take as it is has mean 0 and deviation 1.
    """

    mean: Float64
    std: Float64


@dataclass(frozen=True, slots=True)
class Weights:
    """One FRRegressor: score = gelu(gelu(x W1 + b1) W2 + b2) W3 + b3, exact (erf) GELU.

    x is [standardised features (F), one-hot slots (V), conditioning (K), standardised or raw], D = F + V + K.
    The target's mean and standard deviation are already folded into W3 and b3: score is in raw target units.
    """

    w1: Float32  # (D, H)
    b1: Float32  # (H,)
    w2: Float32  # (H, H)
    b2: Float32  # (H,)
    w3: Float32  # (H, 1)
    b3: Float32  # (1,)


@dataclass(frozen=True, slots=True)
class TrainedModels:
    """What one run gives: final members on the full corpus, and out-of-fold predictions from LOSO.

    members: one a seed, in the recipe's order, all for the one `scaler` (fitted on all rows).
    oof: float32 (seeds, n), raw target units; row i by the model of that seed that never saw row i's source.
    fitted: float32 (seeds, n), raw target units; every row by the members, which saw it.
    """

    members: tuple[Weights, ...]
    scaler: Scaler
    oof: Float32
    fitted: Float32
