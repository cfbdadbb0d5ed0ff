"""statistics.py: the statistics of the field, with numpy and the standard library alone. Judges nothing.

Sums are np.sum's, whose order is the same everywhere; `@` asks a BLAS, which adds as the processor likes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from fr_ensemble.arrays import Float64, Int64
from registry_tool.measures import plcc as plcc
from registry_tool.measures import ranks as ranks
from registry_tool.measures import rmse as rmse
from registry_tool.measures import srocc as srocc

MAX_EXACT_RANKS = 60
BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 2000, 0
MIN_T_SOURCES = 6  # fewer cannot show anything at 2.5 % without believing that errors are normal (2^-5 is 3.1 %)


def coverage(y: Float64, lower: Float64, upper: Float64) -> float:
    """Share of targets inside their closed interval; NaN for no rows."""
    return float(np.mean((lower <= y) & (y <= upper))) if len(y) else math.nan


def mean_width(lower: Float64, upper: Float64) -> float:
    """Mean width of the intervals, in target units."""
    return float(np.mean(upper - lower)) if len(lower) else math.nan


def interval_scores(y: Float64, lower: Float64, upper: Float64, level: float) -> Float64:
    """Winkler's score of each row, lower is better: width + 2/alpha times the miss. Gneiting & Raftery 2007, eq. 43."""
    alpha = 1.0 - level
    return (upper - lower) + (2.0 / alpha) * (np.maximum(lower - y, 0.0) + np.maximum(y - upper, 0.0))


def interval_crps(scores: Sequence[Float64], levels: Sequence[float]) -> Float64:
    """CRPS of each row for a distribution that its central intervals describe, in target units.

    scores: Winkler's, (n,) for each level. levels: the middles of equal parts of 0..1. Laio & Tamea 2007, eq. 15: twice
    the integral of the quantile scores over all probabilities, two of which a level has.
    """
    parts = [(1.0 - level) / 2.0 * score for level, score in zip(levels, scores, strict=True)]
    mean: Float64 = np.mean(parts, axis=0)
    return mean


def gaussian_crps(y: Float64, mu: Float64, sigma: Float64) -> Float64:
    """CRPS of N(mu, sigma^2) at each row, in target units; sigma 0 gives |y - mu|. Gneiting et al. 2005, eq. 5."""
    residual = y - mu
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = residual / sigma
        density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        crps = sigma * (z * erf(z / math.sqrt(2.0)) + 2.0 * density - 1.0 / math.sqrt(math.pi))
    return np.where(sigma > 0.0, crps, np.abs(residual))


def erf(x: Float64) -> Float64:
    """The error function of each element, by the C library (about 1 ulp)."""
    flat = np.ravel(x)
    return np.fromiter(map(math.erf, flat.tolist()), np.float64, flat.size).reshape(np.shape(x))


def normal_quantile(p: float) -> float:
    """Quantile of the standard normal, 0 < p < 1 (Wichura's AS 241, in the standard library)."""
    return NormalDist().inv_cdf(p)


def rank_sum_p(known: Float64, new: Float64) -> float:
    """One-sided p of Wilcoxon's rank sum: how often values of one kind would rank the new ones this high or higher.

    Exact, ties too, up to MAX_EXACT_RANKS values; above, by the normal approximation with its correction for ties.
    """
    k, m = len(known), len(new)
    place = ranks(np.concatenate([known, new]))
    found = float(place[k:].sum())
    if k + m > MAX_EXACT_RANKS:
        spread = math.sqrt(k * m / (k + m - 1) * float(np.var(place)))
        expected = m * (k + m + 1) / 2.0
        return 1.0 - NormalDist().cdf((found - 0.5 - expected) / spread) if spread else 1.0
    doubled = np.rint(2.0 * place).astype(int).tolist()  # whole numbers, where ties share a half
    ways = np.zeros((m + 1, sum(doubled) + 1))  # of choosing so many with this sum
    ways[0, 0] = 1.0
    for rank in doubled:
        for chosen in range(m, 0, -1):
            ways[chosen, rank:] += ways[chosen - 1, : ways.shape[1] - rank]
    return float(ways[m, round(2.0 * found) :].sum() / math.comb(k + m, m))


@cache
def student_t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom, 0 < p < 1.

    The distribution function is a finite sum in theta = atan(t / sqrt(df)) (Abramowitz & Stegun 26.7.3, 26.7.4),
    inverted by bisection over theta to the last bit: within 1e-8 of scipy for df 1..200.
    """
    if not (0.0 < p < 1.0 and df >= 1 and df == int(df)):
        raise ValueError(f"t quantile: found p = {p}, df = {df}, expected 0 < p < 1 and a whole df >= 1")
    if p < 0.5:
        return -student_t_quantile(1.0 - p, df)
    low, high = 0.0, math.pi / 2.0
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (middle, high) if _central_t(middle, df) < 2.0 * p - 1.0 else (low, middle)
    return math.sqrt(df) * math.tan(low)


def student_t_cdf(x: float, df: int) -> float:
    """P(T <= x) for Student's t with a whole number of degrees of freedom; see `student_t_quantile`."""
    return 0.5 + math.copysign(0.5 * _central_t(math.atan(abs(x) / math.sqrt(df)), df), x)


def standard_error(values: Float64) -> float:
    """Standard error of the mean of independent values (one a source; rows are not independent); NaN below 2."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def t_interval(values: Float64, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of independent values (one a source); NaN below MIN_T_SOURCES.

    Its ends hold their level at few sources, where those of the percentile bootstrap are too near: measured in
    docs/benchmarks.md.
    """
    k = len(values)
    if k < MIN_T_SOURCES:
        return math.nan, math.nan
    half = student_t_quantile((1.0 + level) / 2.0, k - 1) * standard_error(values)
    mean = float(np.mean(values))
    return mean - half, mean + half


def bootstrap_interval(
    values: Float64, level: float = 0.95, draws: int = BOOTSTRAP_DRAWS, seed: int = BOOTSTRAP_SEED
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values (one a source); NaN below 2.

    RandomState, since its stream is frozen (NEP 19): the same values give the same bounds in every numpy, everywhere.
    """
    if len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.RandomState(seed).randint(len(values), size=(draws, len(values)), dtype=np.int64)
    low, high = np.quantile(values[drawn].mean(axis=1), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def group_rows(group: Int64, n_groups: int) -> list[Int64]:
    """The numbers of each group's rows, ascending. group: of each row, (n,)."""
    ends = np.cumsum(np.bincount(group, minlength=n_groups))[:-1]
    return np.split(np.argsort(group, kind="stable"), ends)


def group_means(values: ArrayLike, group: Int64, n_groups: int) -> Float64:
    """Mean of the values (n,) in each group, float64 (n_groups,); NaN for an empty group."""
    counts = np.bincount(group, minlength=n_groups)
    sums = np.bincount(group, weights=np.asarray(values, np.float64), minlength=n_groups)
    with np.errstate(invalid="ignore"):
        return sums / counts


def _central_t(theta: float, df: int) -> float:
    """P(|T| < sqrt(df) tan(theta)) for Student's t."""
    cosine2 = math.cos(theta) ** 2
    odd = df % 2
    term = total = (math.cos(theta) if odd else 1.0) if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):  # A&S 26.7.3 (odd): factors 2/3, 4/5, ...; 26.7.4 (even): 1/2, 3/4, ...
        term *= cosine2 * (k - 1) / k
        total += term
    value = math.sin(theta) * total
    return 2.0 / math.pi * (theta + value) if odd else value
