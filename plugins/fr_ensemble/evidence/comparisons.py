"""comparisons.py: what an ensemble is compared with, source by source: plain VMAF, or another entry. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.evidence.oof import Oof, remembered
from fr_ensemble.evidence.statistics import bootstrap_interval, plcc, rmse, t_interval
from registry_tool.archive import EvidenceProblem
from registry_tool.toolkit import Columns, read_rows
from registry_tool.values import Json

VMAF_COLUMN = "vmaf"  # of a corpus with another target: the score that an ensemble has to beat
# The curve's middle and log width, in deviations of x around its mean; far outside it is a straight line or a step.
CURVE_BOUNDS = np.array([[-5.0, 5.0], [-4.0, 4.0]])
CURVE_STARTS = [(middle, width) for middle in (-1.5, -0.5, 0.5, 1.5) for width in (-1.5, -0.5, 0.5)]
START_ROWS = 20_000  # at least half as many choose among the starts
MAX_COMPARED = 15_000_000  # rows times sources: a curve is fitted to all rows but a source's, which takes seconds
MAX_STEPS, SMALLEST_STEP = 100, 1e-13
FLAT_SPREAD = 1e-14  # of a column, relative to the longer one: what is left is rounding
COST_ROUNDING = 1e-12  # relative; near the minimum a better step may look worse by so much


@dataclass(frozen=True, slots=True)
class Curve:
    """The four-parameter logistic curve low + span / (1 + exp(-(x - middle) / width))."""

    low: float
    span: float
    middle: float
    width: float

    def __call__(self, x: Float64) -> Float64:
        fitted: Float64 = self.low + self.span * _sigmoid((x - self.middle) / self.width)
        return fitted

    @classmethod
    def fit(cls, x: Float64, y: Float64) -> Curve:
        """Least squares over n points: Gauss-Newton on middle and width, low and span solved for in each step.

        Golub & Pereyra 1973 (variable projection), with Kaufman's Jacobian. The best of CURVE_STARTS is refined until
        steps are rounding, so that the same points give the same curve to about 1e-12 in any build of numpy.
        """
        mean, deviation = float(x.mean()), float(x.std()) or 1.0
        z = (x - mean) / deviation
        some = slice(None, None, len(z) // START_ROWS + 1)  # all, unless they are many
        point = np.array(min(CURVE_STARTS, key=lambda start: _solve(z[some], y[some], np.array(start))[0]))
        cost, linear, jacobian, residual = _solve(z, y, point)
        for _ in range(MAX_STEPS):
            step = _step(point, jacobian, residual)
            while True:
                candidate = np.clip(point + step, *CURVE_BOUNDS.T)
                found = _solve(z, y, candidate)
                if found[0] <= cost * (1.0 + COST_ROUNDING) or np.abs(step).max() < SMALLEST_STEP:
                    break
                step /= 2.0
            moved = float(np.abs(candidate - point).max())
            point, (cost, linear, jacobian, residual) = candidate, found
            if moved < SMALLEST_STEP:
                break
        return cls(
            float(linear[0]), float(linear[1]), mean + deviation * float(point[0]), deviation * float(np.exp(point[1]))
        )


def _sigmoid(t: Float64) -> Float64:
    return 0.5 * (1.0 + np.tanh(0.5 * t))  # no overflow


def _step(point: Float64, jacobian: Float64, residual: Float64) -> Float64:
    """Gauss and Newton's step; a coordinate at its bound that would leave it is kept."""
    free = np.ones(2)
    for _ in range(3):
        step = _least_squares(jacobian * free[:, None], residual) * free
        leaves = ((point <= CURVE_BOUNDS[:, 0]) & (step < 0.0)) | ((point >= CURVE_BOUNDS[:, 1]) & (step > 0.0))
        if not leaves.any():
            break
        free[leaves] = 0.0
    return step


def _solve(z: Float64, y: Float64, point: Float64) -> tuple[float, Float64, Float64, Float64]:
    """The cost of (middle, log width), the best low and span, the residual's Jacobian (2, n) in both, the residual."""
    width = np.exp(point[1])
    t = (z - point[0]) / width
    s = _sigmoid(t)
    mean_s, mean_y = float(s.mean()), float(y.mean())
    basis = s - mean_s
    square = float(np.sum(np.square(basis)))
    flat = square <= len(s) * FLAT_SPREAD**2  # s is constant but for rounding

    def fitted(values: Float64) -> tuple[float, Float64]:
        """The slope over s of values with a mean of 0, and what a line in s leaves of them."""
        slope = 0.0 if flat else float(np.sum(basis * values)) / square
        return slope, values - slope * basis

    span, residual = fitted(y - mean_y)
    slope: Float64 = span * s * (1.0 - s)
    moves = (-slope / width, -slope * t)
    jacobian: Float64 = np.stack([fitted(move - move.mean())[1] for move in moves])
    linear = np.array([mean_y - span * mean_s, span])
    return float(np.sum(np.square(residual))), linear, jacobian, residual


def _least_squares(columns: Float64, y: Float64) -> Float64:
    """The factors of two columns (2, n) that bring them nearest to y; 0 for a column that adds nothing.

    By Gram and Schmidt: for two columns an order of magnitude faster than LAPACK, and as exact.
    """
    squares = np.sum(np.square(columns), axis=1)
    large = int(np.argmax(squares))
    if squares[large] == 0.0:
        return np.zeros(2)
    first, second = columns[large], columns[1 - large]
    shared = float(np.sum(first * second)) / squares[large]
    rest = second - shared * first
    square = float(np.sum(np.square(rest)))
    factors = np.zeros(2)
    if square > squares[large] * FLAT_SPREAD**2:
        factors[1 - large] = float(np.sum(rest * y)) / square
    factors[large] = float(np.sum(first * y)) / squares[large] - shared * factors[1 - large]
    return factors


@dataclass(frozen=True, slots=True)
class ErrorComparison:
    """Errors of an entry's mean and of a baseline's on the same rows, source by source; RMSE in target units."""

    sources: tuple[str, ...]
    entry_rmse: Float64  # (K,)
    baseline_rmse: Float64  # (K,)
    baseline_plcc: Float64  # (K,), NaN for a constant

    @classmethod
    def of(cls, sources: tuple[str, ...], source: Int64, y: Float64, mu: Float64, baseline: Float64) -> ErrorComparison:
        rows = [source == g for g in range(len(sources))]
        scores = ((rmse, mu), (rmse, baseline), (plcc, baseline))
        return cls(sources, *(np.array([score(values[r], y[r]) for r in rows]) for score, values in scores))

    @classmethod
    def on(cls, oof: Oof, baseline: Float64) -> ErrorComparison:
        """Of an entry's out-of-fold mean; baseline: what another gives for the same rows, (n,)."""
        return cls.of(oof.sources, oof.source, oof.target, oof.mu, baseline)

    @property
    def difference(self) -> float:
        """The entry's RMSE less the baseline's, mean over sources: below zero the entry is better."""
        return float((self.entry_rmse - self.baseline_rmse).mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """The difference's 95 % paired bootstrap interval: draws are of sources, each with both its errors."""
        return bootstrap_interval(self.entry_rmse - self.baseline_rmse)

    @property
    def t_bounds(self) -> tuple[float, float]:
        """The same by Student's t, which holds its level at few sources; NaN below six."""
        return self.t_bounds_at(0.95)

    def t_bounds_at(self, level: float) -> tuple[float, float]:
        """The same at another level."""
        return t_interval(self.entry_rmse - self.baseline_rmse, level)

    def to_dict(self) -> dict[str, Json]:
        """As in `evaluate --format json`; null for what one source cannot show."""
        correlation = float(self.baseline_plcc.mean())
        ends = zip(("low", "high", "t_low", "t_high"), (*self.bounds, *self.t_bounds), strict=True)
        by_source = zip(self.sources, self.entry_rmse.tolist(), self.baseline_rmse.tolist(), strict=True)
        return {
            "rmse": float(self.entry_rmse.mean()),
            "baseline_rmse": float(self.baseline_rmse.mean()),
            "baseline_plcc": correlation if np.isfinite(correlation) else None,
            "difference": self.difference,
            **{f"difference_{name}": end if np.isfinite(end) else None for name, end in ends},
            "by_source": {name: {"rmse": entry, "baseline_rmse": baseline} for name, entry, baseline in by_source},
        }


@remembered
def compare_with_vmaf(oof: Oof) -> ErrorComparison | None:
    """With plain VMAF: each source by the curve fitted on the others.

    None where the evidence has no such column, or more than MAX_COMPARED rows times sources.
    """
    if oof.vmaf is None or len(oof.sources) < 2 or len(oof.target) * len(oof.sources) > MAX_COMPARED:
        return None
    predicted = np.empty(len(oof.target))
    for g in range(len(oof.sources)):
        held = oof.source == g
        predicted[held] = Curve.fit(oof.vmaf[~held], oof.target[~held])(oof.vmaf[held])
    return ErrorComparison.on(oof, predicted)


def compare_with_entry(oof: Oof, other: Oof) -> ErrorComparison:
    """With another entry's out-of-fold means. Raises EvidenceProblem unless both are of one corpus and one target."""
    if oof.corpus_sha256 is None or oof.corpus_sha256 != other.corpus_sha256:
        raise EvidenceProblem(f"found evidence of the corpus {other.corpus_sha256}, expected {oof.corpus_sha256}")
    for name, values, expected in (("target", other.target, oof.target), ("source", other.source, oof.source)):
        if not np.array_equal(values, expected) or oof.sources != other.sources:
            raise EvidenceProblem(f"found another {name} in the rows of one corpus, expected the same")
    return ErrorComparison.on(oof, other.mu)


def vmaf_column(path: Path, target: str | None) -> Float64 | None:
    """The corpus's plain VMAF, (n,), for an ensemble with another target; None where it has no such column.

    Raises InputError for a cell that is no finite number.
    """
    if target == VMAF_COLUMN:
        return None
    parts = [
        batch.numbers[VMAF_COLUMN]
        for batch in read_rows(path, lambda found: Columns((VMAF_COLUMN,) if VMAF_COLUMN in found else ()))
        if VMAF_COLUMN in batch.numbers
    ]
    return np.concatenate(parts) if parts else None
