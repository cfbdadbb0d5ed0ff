"""methods.py: interval methods, one class each, all in INTERVAL_METHODS: from out-of-fold scores to a quantile.

A score says how many scales a target misses mu by. Quantiles: Lee, Barber & Willett 2023 (hierarchical conformal
prediction); Dunn, Wasserman & Ramdas 2022 (pooled CDFs, one draw a source); Lei et al. 2018 (split). Where the sources
are too few: Student's t; `loso-hcp-random-effects` as Higgins, Thompson & Spiegelhalter 2009. Knows no predictions and
no document. Help texts read the names, so numpy is loaded where numbers are computed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fr_ensemble.arrays import Float64, Int64

TWO_SIDED, LOWER_SIDE = "two-sided", "lower"
MIN_SOURCE_MISSES = 1.5  # (K + 1) alpha below which the conformal quantile is infinite or one source's worst row
RANK_TOLERANCE = 1e-9  # sums of masses against a level: 0.9 of 10 sources is 9 sources, whatever float64 makes of it
MAX_QUANTILES_KEPT = 1024  # of random effects: every level asks for the last finite one's too
DRAW_SEED = 0  # of the one row of each source that `source-split` draws
NOT_EXCHANGEABLE = "rows of one source are not exchangeable with a new source's: expect less coverage than nominal"


@dataclass(frozen=True, slots=True)
class ScoreQuantile:
    """A quantile of scores, the rule behind it and what that rule guarantees; an infinite q is the whole range."""

    q: float
    rule: str
    guarantee: str


@dataclass(frozen=True, slots=True)
class ConformityScores:
    """Sorted scores of K sources and their masses; what is missing to 1 is the new source's, at infinity."""

    z: Float64  # (n,), ascending
    source: Int64  # (n,)
    reach: Float64  # (n,), mass of this score and all below
    mean_squares: Float64  # (K,), of each source's scores, in the order of their numbers
    signed: Float64  # (n,), how many scales mu is above the target: z with its sign, where z is two-sided
    means: Float64  # (K,), of each source's signed scores

    @property
    def n_sources(self) -> int:
        return len(self.mean_squares)

    def conformal(self, level: float) -> float:
        """The smallest score at or below which the masses reach the level; infinite where they do not."""
        import numpy as np

        place = int(np.searchsorted(self.reach, level - RANK_TOLERANCE))
        return float(self.z[place]) if place < len(self.z) else math.inf


class IntervalMethod(ABC):
    """One way to calibrate intervals on sources. A method whose numbers change takes a new name."""

    name: ClassVar[str]  # in --interval and in manifests
    meaning: ClassVar[str]  # one line for people
    rule: ClassVar[str]  # of a quantile, in manifests
    guarantee: ClassVar[str]
    floored: ClassVar[bool] = False  # whether the scale is sqrt(sigma^2 + floor^2), else sigma
    warning: ClassVar[str | None] = None  # what a person must know before trusting it

    def warnings(self) -> list[str]:
        """The warning in a list, of the option that names the method; [] without one."""
        return [f"--interval {self.name}: {self.warning}"] if self.warning is not None else []

    def scale(self, sigma: Float64, floor: float) -> Float64:
        """What a score is measured in, target units; a method without a floor gets 0."""
        import numpy as np

        return np.sqrt(np.square(sigma) + floor * floor)

    def formula(self, miss: str) -> str:
        """A score in words, given those for what the target misses mu by."""
        return f"({miss}) / sqrt(sigma^2 + floor^2)"

    def scores(self, z: Float64, source: Int64, signed: Float64 | None = None) -> ConformityScores:
        """The scores that this method ranks, of n rows, with their masses. signed: None where z has its sign."""
        import numpy as np

        order = np.argsort(z, kind="stable")
        return self._ranked(z[order], source[order], (z if signed is None else signed)[order])

    def without(self, scores: ConformityScores, source: int) -> ConformityScores:
        """The same scores but for one source's."""
        keep = scores.source != source
        return self._ranked(scores.z[keep], scores.source[keep], scores.signed[keep])

    def _ranked(self, z: Float64, source: Int64, signed: Float64) -> ConformityScores:
        import numpy as np

        from fr_ensemble.evidence.statistics import group_means

        counts = np.bincount(source)
        present = counts > 0
        mean_squares, means = (group_means(v, source, len(counts))[present] for v in (np.square(z), signed))
        return ConformityScores(z, source, np.cumsum(self.masses(counts)[source]), mean_squares, signed, means)

    def masses(self, counts: Int64) -> Float64:
        """Of a row of each source, given their numbers of rows: rows share a source's mass, and a new one has one."""
        import numpy as np

        return 1.0 / ((np.count_nonzero(counts) + 1) * np.maximum(counts, 1))

    def conformal(self, scores: ConformityScores, level: float) -> float:
        """What the conformal rule alone gives."""
        return scores.conformal(level)

    @abstractmethod
    def quantile(self, scores: ConformityScores, level: float, side: str) -> ScoreQuantile:
        """How many scales an interval of this nominal coverage reaches."""


class _Conformal(IntervalMethod):
    """The quantile is the conformal one, however few the sources."""

    def quantile(self, scores: ConformityScores, level: float, side: str) -> ScoreQuantile:
        return ScoreQuantile(scores.conformal(level), self.rule, self.guarantee)


class LosoHcpT(IntervalMethod):
    name = "loso-hcp-t"
    meaning = "hierarchical conformal quantiles of errors over sqrt(sigma^2 + floor^2); Student's t over few sources"
    rule = "hierarchical-conformal"
    guarantee = "1 - alpha if no calibration source was trained on; after a full refit approximate"
    floored = True

    def quantile(self, scores: ConformityScores, level: float, side: str) -> ScoreQuantile:
        import numpy as np

        from fr_ensemble.evidence.statistics import student_t_quantile

        k, alpha = scores.n_sources, 1.0 - level
        if (k + 1) * alpha >= MIN_SOURCE_MISSES - RANK_TOLERANCE:
            return ScoreQuantile(scores.conformal(level), self.rule, self.guarantee)
        # At least the last level that the sources reach, so that q grows with the level.
        reached = scores.conformal(1.0 - MIN_SOURCE_MISSES / (k + 1))
        t = student_t_quantile(level if side == LOWER_SIDE else 1.0 - alpha / 2.0, k - 1)
        q = max(reached, t * math.sqrt((1.0 + 1.0 / k) * float(np.mean(scores.mean_squares))))
        return ScoreQuantile(q, "parametric-t", "none: assumes that sources differ normally")


class LosoHcpRandomEffects(IntervalMethod):
    """The conformal quantile wherever it is finite; beyond it a tail that begins there and grows with the level.

    The tail: a row of a new source misses by M + S T. M is the mean of the sources' means of signed scores; T is
    Student's with K - 2 degrees of freedom; S^2 is (1 + 1/K) times the variance of those means (ddof 1), plus the mean
    of the variances within sources. The first term is Higgins, Thompson & Spiegelhalter's prediction interval of a new
    source's mean; the second is there since a row is predicted and not a mean.
    """

    name = "loso-hcp-random-effects"
    meaning = (
        "hierarchical conformal quantiles of errors over sqrt(sigma^2 + floor^2); beyond them a random-effects tail"
    )
    rule = "hierarchical-conformal"
    guarantee = LosoHcpT.guarantee
    floored = True

    def quantile(self, scores: ConformityScores, level: float, side: str) -> ScoreQuantile:
        conformal = scores.conformal(level)
        if math.isfinite(conformal):
            q, rule, guarantee = conformal, self.rule, self.guarantee
        else:
            tail, last = _RandomEffects.of(scores), 1.0 - 1.0 / (scores.n_sources + 1)
            # From the last finite quantile on, so that q grows with the level and is never below it.
            shift = max(0.0, scores.conformal(last) - tail.quantile(last, side))
            q, rule = tail.quantile(level, side) + shift, "random-effects-t"
            guarantee = "none: assumes that sources differ normally"
        return ScoreQuantile(max(q, 0.0), rule, guarantee)  # a lower bound is never above mu


@dataclass(frozen=True, slots=True)
class _RandomEffects:
    """A row of a new source misses by mean + scale T, T being Student's with df degrees of freedom."""

    mean: float
    scale: float
    df: int

    @classmethod
    def of(cls, scores: ConformityScores) -> _RandomEffects:
        import numpy as np

        k, means = scores.n_sources, scores.means
        within = max(float(np.mean(scores.mean_squares - np.square(means))), 0.0)
        between = float(np.var(means, ddof=1)) if k > 1 else 0.0
        return cls(float(means.mean()), math.sqrt((1.0 + 1.0 / k) * between + within), max(k - 2, 1))

    @lru_cache(maxsize=MAX_QUANTILES_KEPT)  # noqa: B019  # keeps three numbers
    def quantile(self, level: float, side: str) -> float:
        """What a miss is below with this probability: itself on the lower side, else its absolute value."""
        from fr_ensemble.evidence.statistics import student_t_cdf, student_t_quantile

        if not math.isfinite(self.mean + self.scale):
            return math.inf
        if side == LOWER_SIDE:
            return self.mean + self.scale * student_t_quantile(level, self.df)
        if self.scale == 0.0:
            return abs(self.mean)
        low, high = 0.0, abs(self.mean) + self.scale * student_t_quantile((1.0 + level) / 2.0, self.df)
        while low < (middle := (low + high) / 2.0) < high:
            ends = ((end - self.mean) / self.scale for end in (middle, -middle))
            above, below = (student_t_cdf(end, self.df) for end in ends)
            low, high = (middle, high) if above - below < level else (low, middle)
        return high


class Gaussian(IntervalMethod):
    name = "gaussian"
    meaning = "mu -+ z sigma, as if members were draws of a normal distribution: nothing is calibrated"
    rule = "gaussian"
    guarantee = "none"

    def conformal(self, scores: ConformityScores, level: float) -> float:
        return math.inf

    def quantile(self, scores: ConformityScores, level: float, side: str) -> ScoreQuantile:
        from fr_ensemble.evidence.statistics import normal_quantile

        q = normal_quantile(level if side == LOWER_SIDE else (1.0 + level) / 2.0)
        return ScoreQuantile(q, self.rule, self.guarantee)


class Split(_Conformal):
    name = "split"
    meaning = "split-conformal quantiles of errors over sigma, rows taken for independent"
    rule = "split-conformal"
    guarantee = "1 - alpha for exchangeable rows; none for a new source"
    warning = NOT_EXCHANGEABLE

    def masses(self, counts: Int64) -> Float64:
        import numpy as np

        return np.full(len(counts), 1.0 / (counts.sum() + 1))  # rank ceil((n + 1) level)


class SourceSplit(_Conformal):
    name = "source-split"
    meaning = "split-conformal quantiles of one row of each source, drawn once"
    rule = "source-split-conformal"
    guarantee = "as hierarchical-conformal, for one row of a new source"
    floored = True

    def scores(self, z: Float64, source: Int64, signed: Float64 | None = None) -> ConformityScores:
        import numpy as np

        order = np.random.default_rng(DRAW_SEED).permutation(len(z))
        first = order[np.unique(source[order], return_index=True)[1]]
        return super().scores(z[first], source[first], None if signed is None else signed[first])


class PooledCdf(_Conformal):
    name = "pooled-cdf"
    meaning = "quantiles of the sources' pooled distribution functions; exact as sources become many"
    rule = "pooled-cdf"
    guarantee = "1 - alpha in the limit of many sources"
    floored = True

    def masses(self, counts: Int64) -> Float64:
        import numpy as np

        return 1.0 / (np.count_nonzero(counts) * np.maximum(counts, 1))  # none for the new source


class Abs(LosoHcpT):
    name = "abs"
    meaning = "as loso-hcp-t, of absolute errors: every row has the same width"
    floored = False

    def scale(self, sigma: Float64, floor: float) -> Float64:
        import numpy as np

        return np.ones_like(sigma)

    def formula(self, miss: str) -> str:
        return miss


INTERVAL_METHODS: Mapping[str, IntervalMethod] = MappingProxyType(
    {
        method.name: method
        for method in (LosoHcpRandomEffects(), LosoHcpT(), Gaussian(), Split(), SourceSplit(), PooledCdf(), Abs())
    }
)
DEFAULT_METHOD = LosoHcpRandomEffects.name
