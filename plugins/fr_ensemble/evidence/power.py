"""power.py: what a policy's rules can see at this number of sources, from the pinned predictions. Judges nothing.

Sources are drawn anew from those of the evidence (bootstrap), as many as it has; each draw is held or not by the rules.
Draws from few sources differ too little from each other: their deviations are widened as Student's t is to the normal.
Noise that is added to the predictions makes a worse model: the rise in RMSE that four draws of five are held for is the
smallest that the rules see. Both follow from sums over rows of each source: no row is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.evidence.baselines import BASELINE_PREFIX
from fr_ensemble.evidence.comparisons import ErrorComparison
from fr_ensemble.evidence.metrics import ONE_SIDED_Z, MetricInputs
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import MIN_T_SOURCES, group_means, normal_quantile, student_t_quantile
from registry_tool.values import Json, Rule, percent, percentage

N_DRAWS, POWER_SEED = 1000, 0
# Of many sources fewer are drawn: draws times sources at most, and draws at least.
MAX_DRAWN, MIN_DRAWS = 250_000, 200
DETECTION_SHARE = 0.8  # of draws held: what counts as seen
MAX_NOISE, N_HALVINGS = 2.0, 20  # of the targets' deviation, and halvings of it


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """B draws of K sources, and in how many standard deviations the rows' own noise moves each, (B, K) both."""

    sources: Int64
    luck: Float64

    @classmethod
    def of(cls, k: int) -> Draws:
        """Random ones, by frozen streams (NEP 19): the same evidence has the same power everywhere."""
        size = (max(MIN_DRAWS, min(N_DRAWS, MAX_DRAWN // k)), k)
        sources = np.random.RandomState(POWER_SEED).randint(k, size=size, dtype=np.int64)
        return cls(sources, np.random.RandomState(POWER_SEED + 1).standard_normal(size))

    @classmethod
    def every_source(cls, k: int) -> Draws:
        """Every source once, without luck."""
        return cls(np.arange(k)[None], np.zeros((1, k)))


Values = Callable[[float, Draws], Float64]  # noise (target units), draws -> a metric of each, (B,)


@dataclass(frozen=True, slots=True)
class Power:
    """held: the share of draws that the rules hold, of a model exactly as good as the evidence.

    rise: the smallest rise in RMSE (target units, mean over sources) that is held in DETECTION_SHARE of the draws; None
    where no noise does it. rmse: of the evidence's mu, mean over sources. fixed: metrics of rules that draws do not
    move.
    """

    held: float
    rise: float | None
    rmse: float
    fixed: tuple[str, ...]
    draws: int

    def to_dict(self) -> dict[str, Json]:
        return {
            "draws": self.draws,
            "seed": POWER_SEED,
            "held": self.held,
            "seen": DETECTION_SHARE,
            "rise": self.rise,
            "rmse": self.rmse,
            "fixed": list(self.fixed),
        }

    def lines(self, n_sources: int, unit: str) -> list[str]:
        """For people."""
        lines = [f"a model exactly this good is held {percentage(self.held)} of the time at {n_sources} other sources"]
        if self.rise is None:
            lines.append("the rules hold no model for more noise in its predictions")
        elif self.held >= DETECTION_SHARE:
            lines.append("that is more than four times in five already")
        else:
            share = f"{self.rise:.3g} {unit} of {self.rmse:.3g}, {percentage(self.rise / self.rmse)}"
            lines.append(f"the smallest rise in RMSE that is held four times in five: {share}")
        return lines


def power(inputs: MetricInputs, rules: Sequence[Rule], metrics: Mapping[str, float]) -> Power | None:
    """What the rules see of this evidence; None where there are no rules, no predictions, or a metric is absent."""
    oof, k = inputs.oof, len(inputs.scores.folds)
    if oof is None or not rules or k < 2 or any(rule.metric not in metrics for rule in rules):
        return None
    moving = _moving(inputs, oof)
    fixed = tuple(rule.metric for rule in rules if rule.metric not in moving)
    draws, every_source = Draws.of(k), Draws.every_source(k)

    wider = math.sqrt(k / (k - 1)) * student_t_quantile(DETECTION_SHARE, k - 1) / normal_quantile(DETECTION_SHARE)

    def held(noise: float) -> float:
        passes = np.ones(len(draws.sources), bool)
        for rule in rules:
            values = np.array([metrics[rule.metric]])
            if rule.metric in moving:
                own = moving[rule.metric](noise, every_source)
                values = own + wider * (moving[rule.metric](noise, draws) - own)
            passes &= np.array([rule.holds(float(value)) for value in values])
        return 1.0 - float(passes.mean())

    rmse = _mu_rmse(oof)
    noise = _smallest(held, MAX_NOISE * float(np.std(oof.target)))
    rise = None if noise is None else float(np.mean(np.hypot(rmse, noise) - rmse))
    return Power(held(0.0), rise, float(rmse.mean()), fixed, len(draws.sources))


def _smallest(held: Callable[[float], float], largest: float) -> float | None:
    """The least noise up to `largest` with DETECTION_SHARE of the draws held; None where that much is not enough."""
    low, high = 0.0, largest
    if held(high) < DETECTION_SHARE:
        return None
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if held(middle) >= DETECTION_SHARE else (middle, high)
    return high


def _moving(inputs: MetricInputs, oof: Oof) -> dict[str, Values]:
    """The metrics that other sources, or noise, would move."""
    found: dict[str, Values] = {}
    moments = _Moments.of(oof)
    # The last two are kept, of the draws and of every source once: several metrics ask for the same.
    scores = (inputs.scores.plcc, inputs.scores.srocc)
    plcc, srocc = (lru_cache(2)(partial(_worsened, moments, of_fold)) for of_fold in scores)
    found["mean_plcc"] = lambda noise, draws: plcc(noise, draws).mean(axis=(0, 2))
    found["worst_fold_plcc"] = lambda noise, draws: plcc(noise, draws).mean(axis=0).min(axis=1)
    found["mean_srocc"] = lambda noise, draws: srocc(noise, draws).mean(axis=(0, 2))
    found["min_seed_plcc"] = lambda noise, draws: plcc(noise, draws).mean(axis=2).min(axis=0)
    found["plcc_spread"] = lambda noise, draws: np.ptp(plcc(noise, draws).mean(axis=2), axis=0)
    found["mean_rmse"] = lambda noise, draws: (
        np.hypot(inputs.scores.rmse, noise).mean(axis=0)[draws.sources].mean(axis=1)
    )
    found["pooled_plcc"] = partial(_pooled, moments)
    for level, shares in inputs.coverage.items():
        name = f"coverage_{percent(level)}"
        found[name] = partial(_share, shares, lambda drawn: drawn.mean(axis=1))
        found[f"{name}_worst"] = partial(_share, shares, lambda drawn: drawn.min(axis=1))
        found[f"{name}_upper"] = partial(_share, shares, _upper)
    for name, comparison in inputs.comparisons.items():
        found[f"rmse_vs_{name}"] = partial(_difference, comparison, 0.0)
        if len(comparison.sources) >= MIN_T_SOURCES:
            t = student_t_quantile(0.975, len(comparison.sources) - 1)
            found[f"rmse_vs_{name}_t_high"] = partial(_difference, comparison, t)
            found[f"rmse_vs_{name}_t_low"] = partial(_difference, comparison, -t)
    if others := inputs.baselines:
        found[f"rmse_vs_{BASELINE_PREFIX}best"] = partial(_largest_difference, others, 0.0)
        if (k := len(others[0].sources)) >= MIN_T_SOURCES:
            high, low = (student_t_quantile(p, k - 1) for p in (0.975, 0.025 / len(others)))
            found[f"rmse_vs_{BASELINE_PREFIX}best_t_high"] = partial(_largest_difference, others, high)
            found[f"rmse_vs_{BASELINE_PREFIX}best_t_low"] = partial(_largest_difference, others, low)
    return found


def _worsened(moments: _Moments, correlation: Float64, noise: float, draws: Draws) -> Float64:
    """Correlations (S, K) of the drawn sources, (S, B, K), when Gaussian noise is added, the same to every member.

    In expectation they shrink by the predictions' share of deviation. Around that they vary with the rows' own noise:
    the delta method, for a given correlation r and deviation s of n predictions.
    """
    if noise == 0.0:
        return correlation[:, draws.sources]
    total = np.hypot(moments.deviation, noise)  # (S, K)
    kept, lost = moments.deviation / total, noise / total
    r2 = np.square(correlation)
    variance = (r2 * lost**6 + (1.0 - r2) * lost**2 + r2 * kept**2 * lost**4 / 2.0) / moments.n
    luck = draws.luck * np.sqrt(variance.mean(axis=0))[draws.sources]
    worse: Float64 = np.clip((correlation * kept)[:, draws.sources] + luck, -1.0, 1.0)
    return worse


def _share(shares: Float64, statistic: Callable[[Float64], Float64], noise: float, draws: Draws) -> Float64:
    """A statistic of the drawn sources' shares (B, K); noise moves none."""
    return statistic(shares[draws.sources])


def _upper(shares: Float64) -> Float64:
    k = shares.shape[1]
    upper: Float64 = shares.mean(axis=1) + ONE_SIDED_Z * shares.std(axis=1, ddof=1) / math.sqrt(k)
    return upper


def _difference(comparison: ErrorComparison, t: float, noise: float, draws: Draws) -> Float64:
    """Mean difference over the drawn sources, and t standard errors more."""
    each = (np.hypot(comparison.entry_rmse, noise) - comparison.baseline_rmse)[draws.sources]
    found: Float64 = each.mean(axis=1) + t * each.std(axis=1, ddof=1) / math.sqrt(draws.sources.shape[1])
    return found


def _largest_difference(comparisons: Sequence[ErrorComparison], t: float, noise: float, draws: Draws) -> Float64:
    found: Float64 = np.max([_difference(comparison, t, noise, draws) for comparison in comparisons], axis=0)
    return found


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over the rows of each source, of centred values: n, y, yy (K,); with predictions in them (S, K)."""

    n: Float64
    y: Float64
    yy: Float64
    x: Float64
    xx: Float64
    xy: Float64

    @classmethod
    def of(cls, oof: Oof) -> _Moments:
        centre, k = float(oof.target.mean()), len(oof.sources)
        y, x = oof.target - centre, oof.predictions - centre

        def total(values: Float64) -> Float64:
            return np.bincount(oof.source, weights=values, minlength=k).astype(np.float64)

        def each(values: Float64) -> Float64:
            return np.stack([total(row) for row in values])

        return cls(total(np.ones(len(y))), total(y), total(y * y), each(x), each(x * x), each(x * y))

    @property
    def deviation(self) -> Float64:
        """Of the predictions within each source, (S, K)."""
        return np.sqrt(np.maximum(self.xx / self.n - np.square(self.x / self.n), 1e-300))


def _pooled(moments: _Moments, noise: float, draws: Draws) -> Float64:
    """The lowest seed's correlation over all rows of the drawn sources, (B,)."""
    n, y, yy = (values[draws.sources].sum(axis=1) for values in (moments.n, moments.y, moments.yy))
    x, xx, xy = (
        values[:, draws.sources].sum(axis=2) for values in (moments.x, moments.xx + moments.n * noise**2, moments.xy)
    )
    covariance = xy / n - x * y / n**2
    product = (xx / n - np.square(x / n)) * (yy / n - np.square(y / n))
    found: Float64 = (covariance / np.sqrt(np.maximum(product, 1e-300))).min(axis=0)
    return found


def _mu_rmse(oof: Oof) -> Float64:
    """Of the mean over members, a source each, (K,)."""
    return np.sqrt(group_means(np.square(oof.mu - oof.target), oof.source, len(oof.sources)))
