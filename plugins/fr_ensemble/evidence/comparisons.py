"""comparisons.py: what an ensemble is compared with, source by source: plain VMAF, or another entry. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.oof import EvidenceProblem, Oof
from fr_ensemble.evidence.statistics import bootstrap_interval, plcc, rmse
from registry_tool.toolkit import Columns, read_rows

COLUMN = "vmaf"  # of a corpus with another target: the score that an ensemble has to beat
# The curve's middle and log width, in deviations of x around its mean; far outside it is a straight line or a step.
BOUNDS = np.array([[-5.0, 5.0], [-4.0, 4.0]])
STARTS = [(middle, width) for middle in (-1.5, -0.5, 0.5, 1.5) for width in (-1.5, -0.5, 0.5)]
MAX_STEPS, SMALLEST_STEP = 100, 1e-13
ROUNDING = 1e-12  # relative; near the minimum a better step may look worse by so much


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

        Golub & Pereyra 1973 (variable projection), with Kaufman's Jacobian. The best of STARTS is refined until steps
        are rounding, so that the same points give the same curve to about 1e-12 in any build of numpy.
        """
        mean, deviation = float(x.mean()), float(x.std()) or 1.0
        z = (x - mean) / deviation
        at = np.array(min(STARTS, key=lambda start: _solve(z, y, np.array(start))[0]))
        cost, linear, jacobian, residual = _solve(z, y, at)
        for _ in range(MAX_STEPS):
            step = _step(at, jacobian, residual)
            while True:
                candidate = np.clip(at + step, *BOUNDS.T)
                found = _solve(z, y, candidate)
                if found[0] <= cost * (1.0 + ROUNDING) or np.abs(step).max() < SMALLEST_STEP:
                    break
                step /= 2.0
            moved = float(np.abs(candidate - at).max())
            at, (cost, linear, jacobian, residual) = candidate, found
            if moved < SMALLEST_STEP:
                break
        return cls(
            float(linear[0]), float(linear[1]), mean + deviation * float(at[0]), deviation * float(np.exp(at[1]))
        )


def _sigmoid(t: Float64) -> Float64:
    return 0.5 * (1.0 + np.tanh(0.5 * t))  # no overflow


def _step(at: Float64, jacobian: Float64, residual: Float64) -> Float64:
    """Gauss and Newton's step; a coordinate that stands at its bound and would leave is held there."""
    free = np.ones(2)
    for _ in range(3):
        step: Float64 = np.asarray(np.linalg.lstsq(jacobian * free, residual, rcond=None)[0], np.float64) * free
        leaves = ((at <= BOUNDS[:, 0]) & (step < 0.0)) | ((at >= BOUNDS[:, 1]) & (step > 0.0))
        if not leaves.any():
            break
        free[leaves] = 0.0
    return step


def _solve(z: Float64, y: Float64, at: Float64) -> tuple[float, Float64, Float64, Float64]:
    """The cost of (middle, log width), the best low and span, the residual's Jacobian (n, 2) in both, the residual."""
    t = (z - at[0]) / np.exp(at[1])
    s = _sigmoid(t)
    basis: Float64 = np.stack([np.ones_like(s), s], axis=1)
    linear = np.asarray(np.linalg.lstsq(basis, y, rcond=None)[0], np.float64)
    slope: Float64 = linear[1] * s * (1.0 - s)
    moves: Float64 = np.stack([-slope / np.exp(at[1]), -slope * t], axis=1)
    jacobian: Float64 = moves - basis @ np.linalg.lstsq(basis, moves, rcond=None)[0]
    residual = y - basis @ linear
    return float(residual @ residual), linear, jacobian, residual


@dataclass(frozen=True, slots=True)
class Comparison:
    """Errors of an ensemble's mean and of a baseline on the same rows, source by source; RMSE in target units."""

    sources: tuple[str, ...]
    ours: Float64  # (K,)
    theirs: Float64  # (K,)
    their_plcc: Float64  # (K,), NaN for a constant

    @classmethod
    def of(cls, sources: tuple[str, ...], source: Any, y: Float64, mu: Float64, other: Float64) -> Comparison:
        rows = [source == g for g in range(len(sources))]
        ours, theirs, correlation = (
            np.array([figure(values[r], y[r]) for r in rows])
            for figure, values in ((rmse, mu), (rmse, other), (plcc, other))
        )
        return cls(sources, ours, theirs, correlation)

    @property
    def difference(self) -> float:
        """Our RMSE less theirs, mean over sources: below zero the ensemble is better."""
        return float((self.ours - self.theirs).mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """The difference's 95 % paired bootstrap interval: draws are of sources, each with both its errors."""
        return bootstrap_interval(self.ours - self.theirs)

    def to_dict(self) -> dict[str, Any]:
        """As in `evaluate --format json`; null for what one source cannot show."""
        correlation = float(self.their_plcc.mean())
        low, high = self.bounds
        each = zip(self.sources, self.ours.tolist(), self.theirs.tolist(), strict=True)
        return {
            "rmse": float(self.ours.mean()),
            "baseline_rmse": float(self.theirs.mean()),
            "baseline_plcc": correlation if np.isfinite(correlation) else None,
            "difference": self.difference,
            "difference_low": low if np.isfinite(low) else None,
            "difference_high": high if np.isfinite(high) else None,
            "by_source": {name: {"rmse": ours, "baseline_rmse": theirs} for name, ours, theirs in each},
        }


def against_vmaf(oof: Oof) -> Comparison | None:
    """With plain VMAF: each source by the curve fitted on the others; None where the evidence has no such column."""
    if oof.vmaf is None or len(oof.sources) < 2:
        return None
    predicted = np.empty(len(oof.target))
    for g in range(len(oof.sources)):
        held = oof.source == g
        predicted[held] = Curve.fit(oof.vmaf[~held], oof.target[~held])(oof.vmaf[held])
    return Comparison.of(oof.sources, oof.source, oof.target, oof.mu, predicted)


def against_entry(oof: Oof, other: Oof) -> Comparison:
    """With another entry's out-of-fold means. Raises EvidenceProblem unless both are of one corpus and one target."""
    if oof.corpus_sha256 is None or oof.corpus_sha256 != other.corpus_sha256:
        raise EvidenceProblem(f"found evidence of the corpus {other.corpus_sha256}, expected {oof.corpus_sha256}")
    for what, one, two in (("target", oof.target, other.target), ("source", oof.source, other.source)):
        if not np.array_equal(one, two) or oof.sources != other.sources:
            raise EvidenceProblem(f"found another {what} in the rows of one corpus, expected the same")
    return Comparison.of(oof.sources, oof.source, oof.target, oof.mu, other.mu)


def vmaf_column(path: Path, target: str | None) -> Float64 | None:
    """The corpus's plain VMAF, (n,), for an ensemble with another target; None where it has no such column.

    Raises InputError for a cell that is no finite number.
    """
    if target == COLUMN:
        return None
    parts = [
        batch.numbers[COLUMN]
        for batch in read_rows(path, lambda found: Columns((COLUMN,) if COLUMN in found else ()))
        if COLUMN in batch.numbers
    ]
    return np.concatenate(parts) if parts else None
