"""charts.py: an evaluation as charts: reliability, a ladder of sources, error against width. Measures no figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.intervals import RowCalibrations
from fr_ensemble.evidence.quantiles import Calibration
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.hooks.drawing import RELIABILITY_LEVELS, binned, drawn_rows, left_out, reliability
from registry_tool.hookspec import Axis, Chart, Figure, Series
from registry_tool.values import counted, percent, percentage

LADDER_SOURCES = 40  # the ones covered worst
STRENGTHS = (0.8, 0.25)  # of the narrowest and of the widest interval of the ladder
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of a source's errors


@dataclass(frozen=True, slots=True)
class Predicted:
    """n rows of a corpus, predicted; methods: by name, the stored one first, all at RELIABILITY_LEVELS too."""

    corpus: Corpus
    mu: Float64  # (n,), inside the target's range
    sigma: Float64  # (n,)
    methods: Mapping[str, Calibration | RowCalibrations]

    @property
    def stored(self) -> Calibration | RowCalibrations:
        return next(iter(self.methods.values()))

    def inside(self, calibration: Calibration | RowCalibrations, level: float) -> Float64:
        """Share of each source's rows inside their interval, (K,)."""
        lower, upper = calibration.interval(self.mu, self.sigma, level)
        target = self.corpus.target
        return group_means((lower <= target) & (target <= upper), self.corpus.source, len(self.corpus.sources))


def charts(predicted: Predicted, levels: Sequence[float]) -> Sequence[Figure]:
    return [_reliability(predicted), _ladder(predicted, sorted(levels)), _errors(predicted, sorted(levels))]


def _reliability(predicted: Predicted) -> Figure:
    """Coverage against the nominal one: means over sources, with bars of one standard error."""
    inside = {
        name: np.array([predicted.inside(calibration, level) for level in RELIABILITY_LEVELS])
        for name, calibration in predicted.methods.items()
    }
    k = len(predicted.corpus.sources)
    title = f"Reliability: {counted(predicted.corpus.n_rows, 'row')}, {counted(k, 'source')}"
    return Figure(
        title,
        "The share of rows inside the interval against the share it claims: means over sources; bars are one standard "
        "error over sources.",
        reliability(inside),
    )


def _ladder(predicted: Predicted, levels: Sequence[float]) -> Figure:
    """A source a rung, the worst covered on top: its mean interval at each level, and where its errors really are."""
    corpus, middle = predicted.corpus, predicted.mu
    k, residual = len(corpus.sources), corpus.target - middle
    inside = {level: predicted.inside(predicted.stored, level) for level in levels}
    order = np.argsort(inside[levels[-1]] + 1e-6 * inside[levels[0]], kind="stable")[:LADDER_SOURCES]
    shares = ["  ".join(f"{inside[level][g] * 100:.0f}" for level in levels) for g in order]
    names = [f"{corpus.sources[g]}  {share} %" for g, share in zip(order, shares, strict=True)]
    rungs = list(range(len(order)))
    errors = np.array([np.quantile(residual[corpus.source == g], QUANTILES) for g in order])  # (rungs, quantiles)
    p5, p25, p50, p75, p95 = errors.T.tolist()
    series = [
        Series("their median", p50, rungs, tone="alarm"),
        Series("25 to 75 % of the errors", p25, rungs, "spans", ends=p75, thick=0.26, tone="ink"),
        Series("5 to 95 % of the errors", p5, rungs, "spans", ends=p95, thick=0.08, tone="ink"),
    ]
    strengths = np.linspace(*STRENGTHS, len(levels)).tolist()
    bounds = []
    for level, strength in zip(levels, strengths, strict=True):
        lower, upper = predicted.stored.interval(predicted.mu, predicted.sigma, level)
        low, high = (group_means(end - middle, corpus.source, k)[order].tolist() for end in (lower, upper))
        bounds += [*low, *high]
        name = f"mean {percent(level)} % interval"
        series.append(Series(name, low, rungs, "spans", ends=high, thick=0.78, tone="first", strength=strength))
    return Figure(
        "Interval ladder (covered at " + ", ".join(map(percent, levels)) + " %)",
        "Each source's mean interval around mu, and where its errors are; the worst covered is on top.",
        Chart(_around(f"{corpus.spec.target} less mu", [*bounds, *p5, *p95]), Axis.of_names("", names), series),
    )


def _around(label: str, values: Sequence[float]) -> Axis:
    """From the least value to the greatest, with room beside them, and 0 inside."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    room = 0.04 * (high - low) or 1.0
    return Axis(label, low - room, high + room)


def _errors(predicted: Predicted, levels: Sequence[float]) -> Figure:
    """Each row's error against what its interval allows on that side, at the middle level: above the line it misses."""
    corpus, level = predicted.corpus, levels[len(levels) // 2]
    lower, upper = predicted.stored.interval(predicted.mu, predicted.sigma, level)
    error, over = np.abs(corpus.target - predicted.mu), corpus.target > predicted.mu
    reach = np.where(over, upper - predicted.mu, predicted.mu - lower)
    missed = (corpus.target < lower) | (corpus.target > upper)
    rows = drawn_rows(corpus.n_rows)
    dots = [
        Series(f"{name}: {percentage(mask.mean())}", reach[at].tolist(), error[at].tolist(), tone=tone)
        for name, mask, tone in (("outside", missed, "alarm"), ("inside", ~missed, "first"))
        for at in (rows[mask[rows]],)
    ]
    line = Series(f"{percent(level)} % of the errors are below", *binned(reach, error, level), "line", tone="ink")
    low, high = float(reach.min()), float(reach.max())
    pad = 0.05 * (high - low) or 0.05 * (high or 1.0)
    across = Axis(f"reach of the {percent(level)} % interval", low - pad, high + pad)
    top = 1.1 * float(error.max()) or 1.0
    ends = (max(low - pad, 0.0), max(min(high + pad, top), 0.0))
    guide = Series("error = reach", ends, ends, "guide")
    return Figure(
        "Error against width",
        f"Each row's error against what its interval allows on that side; above the dotted line it misses."
        f"{left_out(corpus.n_rows, rows)}",
        Chart(across, Axis(f"|{corpus.spec.target} - mu|", 0.0, top), [line, guide, *dots]),
    )
