"""drawing.py: what the charts of a report and of an evaluation share: which rows, which axes. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fr_ensemble.arrays import Float64, Int64, RowChoice
from fr_ensemble.evidence.statistics import standard_error
from registry_tool.hookspec import Axis, Chart, Series

# Nominal coverages of the reliability curve.
RELIABILITY_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAX_TABLE_SOURCES = 200  # sources of a table: the worst
MAX_POINTS, DRAW_SEED = 6000, 0  # rows of a scatter; beyond that, drawn at random


def reliability(inside: Mapping[str, Float64]) -> Chart:
    """Coverage at RELIABILITY_LEVELS. inside: by name, each source's share of rows inside, (levels, K)."""
    series = []
    for name, shares in inside.items():
        errors = [standard_error(of_sources) for of_sources in shares]
        bars = errors if all(map(math.isfinite, errors)) else ()
        series.append(Series(name, RELIABILITY_LEVELS, shares.mean(axis=1).tolist(), "line", bars))
    return _against_nominal("coverage, mean over sources", series)


def worst_reliability(inside: Mapping[str, Float64]) -> Chart:
    """The same of the worst source at each level."""
    lines = [Series(name, RELIABILITY_LEVELS, shares.min(axis=1).tolist(), "line") for name, shares in inside.items()]
    return _against_nominal("coverage, worst source", lines)


def _against_nominal(label: str, series: Sequence[Series]) -> Chart:
    guide = Series("as claimed", (0, 1), (0, 1), "guide")
    return Chart(Axis("nominal coverage", 0, 1), Axis(label, 0, 1), [guide, *series])


def binned(reach: Float64, error: Float64, level: float) -> tuple[list[float], list[float]]:
    """In eight bins of equally many rows: the mean half-width, and the error's quantile at the level."""
    parts = [part for part in np.array_split(np.argsort(reach, kind="stable"), 8) if len(part)]
    return (
        [float(reach[part].mean()) for part in parts],
        [float(np.quantile(error[part], level)) for part in parts],
    )


def decades(values: Float64) -> tuple[float, float]:
    """Bounds of a logarithmic axis: all but the smallest values, which are drawn at the edge."""
    top = float(values.max()) or 1.0
    return max(float(np.quantile(values, 0.01)), top * 1e-5) / 1.3, top * 1.3


def diagonal(name: str, x: Axis, y: Axis) -> Series:
    """Where both axes show the same value; nothing where they never do."""
    ends = (max(x.low, y.low), min(x.high, y.high))
    return Series(name, ends, ends, "guide") if ends[0] < ends[1] else Series(name, (), (), "guide")


def xy(x: Float64, y: Float64, rows: RowChoice) -> tuple[list[float], list[float]]:
    return x[rows].tolist(), y[rows].tolist()


def drawn_rows(n: int) -> Int64:
    """The rows to draw, ascending. RandomState, since its stream is frozen (NEP 19)."""
    if n <= MAX_POINTS:
        return np.arange(n)
    return np.sort(np.random.RandomState(DRAW_SEED).permutation(n)[:MAX_POINTS]).astype(np.int64)


def left_out(n: int, rows: Int64) -> str:
    return f" {len(rows)} of {n} rows are drawn, chosen at random." if len(rows) < n else ""
