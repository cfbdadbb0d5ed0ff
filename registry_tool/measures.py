"""measures.py: correlations and errors of scores, for plugins and the built-in kinds. Judges nothing.

Sums are np.sum's, whose order is the same everywhere; `@` asks a BLAS, which adds as the processor likes it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

CONSTANT_SPREAD = 1e-13  # spread relative to the mean below which float64 shows rounding, not a signal (as scipy warns)


def plcc(x: Float64, y: Float64) -> float:
    """Pearson's correlation of two float64 (n,), in [-1, 1]; NaN for n < 2, a constant, or anything not finite."""
    import numpy as np

    if len(x) < 2:
        return math.nan
    a, b = _centred(x), _centred(y)
    if a is None or b is None:
        return math.nan
    return float(np.clip(np.sum(a * b), -1.0, 1.0))


def srocc(x: Float64, y: Float64) -> float:
    """Spearman's rank correlation, ties at their average rank; NaN where `plcc` is."""
    import numpy as np

    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    return plcc(ranks(x), ranks(y))


def ranks(values: Float64) -> Float64:
    """1-based ranks, float64 (n,); ties share the mean of theirs."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    average: Float64 = np.cumsum(counts) - (counts - 1) / 2.0
    return average[inverse.reshape(-1)]


def rmse(x: Float64, y: Float64) -> float:
    """Root mean squared difference, in the units of x and y; NaN for no rows."""
    import numpy as np

    return math.sqrt(np.mean(np.square(x - y))) if len(x) else math.nan


def _centred(values: Float64) -> Float64 | None:
    """Unit-length deviations from the mean; None for a constant or anything not finite."""
    import numpy as np

    if not np.isfinite(values).all() or values.min() == values.max():
        return None
    scaled = values / np.abs(values).max()  # no overflow, whatever the units
    mean = scaled.mean()
    deviations = scaled - mean
    length = math.sqrt(np.sum(np.square(deviations)))
    return deviations / length if length > CONSTANT_SPREAD * abs(mean) * math.sqrt(len(values)) else None
