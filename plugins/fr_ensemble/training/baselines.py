"""baselines.py: trains the standard models that an ensemble is shown beside, on its folds. Compares nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Int64, TrainingData
from fr_ensemble.evidence.baselines import Baselines
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import one_line

MAX_FIT_ROWS = 20_000  # of a fold, evenly taken from it: more would take longer than the ensemble
MAX_PROCESS_ROWS = 1_000  # of a corpus: a Gaussian process takes the rows' number cubed
MAX_KERNEL_ROWS = 300  # of a fold, that a Gaussian process fits its kernel to
N_TREES = 50
RIDGE_PENALTY = 1.0  # on standardised columns
RANDOM_STATE = 0

# Given standardised rows, their targets and new rows: the new rows' mean and standard deviation, target units.
Fit = Callable[[Float64, Float64, Float64], tuple[Float64, Float64]]


def loading_error() -> str:
    """What importing scikit-learn raises, in a line, where it is installed and broken; "" where it loads."""
    try:
        from sklearn import ensemble, linear_model  # noqa: F401  # what every corpus takes
    except Exception as error:  # whatever a build for another numpy or another system raises
        return one_line(f"{type(error).__name__}: {error}")
    return ""


def fit_baselines(
    data: TrainingData, rows_sha256: str, jobs: int | None = None, progress: Progress = silent
) -> Baselines:
    """Each row of a corpus predicted by models that learned from the other sources. jobs: None is all cores."""
    fits = fits_of(len(data.target), jobs)
    return Baselines(tuple(fits), *fit_each(data, fits, progress), rows_sha256)


def fit_each(data: TrainingData, fits: Mapping[str, Fit], progress: Progress = silent) -> tuple[Float32, Float32]:
    """Mean and spread of each row by each model, (B, n), from the other sources' rows."""
    from threadpoolctl import threadpool_limits

    mean, spread = (np.empty((len(fits), len(data.target)), np.float32) for _ in range(2))
    total = len(fits) * data.n_sources
    for fold in range(data.n_sources):
        held = data.source == fold
        rows = np.flatnonzero(~held)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_FIT_ROWS)).astype(np.int64)]
        known, new = _inputs(data, rows), _inputs(data, np.flatnonzero(held))
        centre, scale = known.mean(axis=0), known.std(axis=0)
        scale[scale == 0.0] = 1.0
        known, new = (known - centre) / scale, (new - centre) / scale
        for place, fit in enumerate(fits.values()):
            with warnings.catch_warnings(), threadpool_limits(1):  # threads cost more than they save on few rows
                warnings.simplefilter("ignore")  # an optimiser that stops at a bound
                mean[place, held], spread[place, held] = fit(known, data.target[rows], new)
            progress("baselines (models)", fold * len(fits) + place + 1, total)
    return mean, spread


def _inputs(data: TrainingData, rows: Int64) -> Float64:
    """Of some rows: features, conditions, and a column for each slot, (rows, F + K + V)."""
    return np.concatenate(
        [data.features[rows], data.conditioning[rows], np.eye(data.n_slots)[data.codec[rows]]], axis=1
    )


def fits_of(n_rows: int, jobs: int | None) -> dict[str, Fit]:
    """By name, as in BASELINES; those that take too long for so many rows are left out."""

    def trees(x: Float64, y: Float64, new: Float64) -> tuple[Float64, Float64]:
        return _extra_trees(x, y, new, jobs)

    fits: dict[str, Fit] = {"ridge": _ridge, "gradient_boosting": _gradient_boosting, "extra_trees": trees}
    if n_rows <= MAX_PROCESS_ROWS:
        fits["gaussian_process"] = _gaussian_process
    return fits


def _ridge(x: Float64, y: Float64, new: Float64) -> tuple[Float64, Float64]:
    from sklearn.linear_model import Ridge

    return Ridge(RIDGE_PENALTY).fit(x, y).predict(new), np.zeros(len(new))


def _gradient_boosting(x: Float64, y: Float64, new: Float64) -> tuple[Float64, Float64]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(early_stopping=False, random_state=RANDOM_STATE).fit(x, y)
    return model.predict(new), np.zeros(len(new))


def _extra_trees(x: Float64, y: Float64, new: Float64, jobs: int | None) -> tuple[Float64, Float64]:
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(N_TREES, random_state=RANDOM_STATE, n_jobs=jobs or -1).fit(x, y)
    rows: Any = new.astype(np.float32)  # what each tree takes
    mean, squares = np.zeros(len(new)), np.zeros(len(new))
    for number, tree in enumerate(forest.estimators_, start=1):  # Welford 1962: all trees at once take much memory
        apart = tree.predict(rows) - mean
        mean += apart / number
        squares += apart * apart * (number - 1) / number
    return mean, np.sqrt(squares / (N_TREES - 1))


def _gaussian_process(x: Float64, y: Float64, new: Float64) -> tuple[Float64, Float64]:
    """One length scale for all columns, and white noise; the kernel is fitted to some of the rows."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    chosen = np.linspace(0, len(x) - 1, min(len(x), MAX_KERNEL_ROWS)).astype(np.int64)
    kernel = ConstantKernel() * RBF(math.sqrt(x.shape[1]), (1e-1, 1e3)) + WhiteKernel(0.1, (1e-4, 1e1))
    fitted = GaussianProcessRegressor(kernel, normalize_y=True, random_state=RANDOM_STATE).fit(x[chosen], y[chosen])
    process = GaussianProcessRegressor(fitted.kernel_, optimizer=None, normalize_y=True).fit(x, y)
    mean, deviation = process.predict(new, return_std=True)
    return mean, deviation
