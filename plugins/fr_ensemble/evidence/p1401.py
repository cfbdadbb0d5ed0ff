"""p1401.py: what ITU-T P.1401 (01/2020) says of predictions beside opinions: first-order mapping, RMSE*, outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64
from registry_tool.values import Json

FITTED_PARAMETERS = 2  # numbers that the mapping takes from the rows: an offset and a slope
MIN_ROWS = 3


@dataclass(frozen=True, slots=True)
class Mapped:
    """Predictions after offset + slope mu, the line of least squares on the rows themselves: target units.

    rmse: of what is left, over n - 2 (P.1401, 7.5.2). rmse_star, outlier_ratio: of the n_known rows whose target has a
    95 % confidence interval: what errors exceed it by (Perror), over n - 2; the share of errors that exceed it.
    """

    offset: float
    slope: float
    rmse: float
    n_known: int = 0
    rmse_star: float | None = None
    outlier_ratio: float | None = None

    @classmethod
    def of(cls, y: Float64, mu: Float64, half_width: Float64 | None = None) -> Mapped | None:
        """half_width: of each target's interval, NaN where it has none. None where no line can be fitted."""
        if len(y) < MIN_ROWS or np.ptp(mu) == 0.0:
            return None
        centre = mu.mean()
        slope = float(np.sum((mu - centre) * (y - y.mean())) / np.sum(np.square(mu - centre)))
        offset = float(y.mean() - slope * centre)
        error = np.abs(y - (offset + slope * mu))
        mapped = cls(offset, slope, _rmse(error))
        known = np.zeros(len(y), bool) if half_width is None else half_width >= 0.0  # False for NaN
        if half_width is None or known.sum() < MIN_ROWS:
            return mapped
        beyond = np.maximum(error[known] - half_width[known], 0.0)
        share = float(np.mean(beyond > 0.0))
        return cls(offset, slope, mapped.rmse, int(known.sum()), _rmse(beyond), share)

    def to_dict(self) -> dict[str, Json]:
        known = {"n_rows": self.n_known, "rmse_star": self.rmse_star, "outlier_ratio": self.outlier_ratio}
        line = {"offset": self.offset, "slope": self.slope, "rmse": self.rmse}
        return {**line, "confidence": known} if self.n_known else line


def _rmse(error: Float64) -> float:
    return math.sqrt(float(np.sum(np.square(error))) / (len(error) - FITTED_PARAMETERS))
