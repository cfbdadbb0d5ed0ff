"""plot.py: an evaluation as one picture, PNG bytes: reliability, interval ladder, error and width. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.intervals import Calibration
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.png import png

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # nominal coverages of the reliability curve
MAX_POINTS, DRAW_SEED = 4000, 0  # rows of the scatter; beyond that, drawn at random
MAX_SOURCES = 40  # of the ladder: the ones covered worst
BLUE, ORANGE, GREY, RED = "#1f5f99", "#d9822b", "#7a7a7a", "#b3261e"
COLOURS = (BLUE, GREY, ORANGE)  # stored, gaussian, row-split
MARKS = ("o", "s", "^")


def draw(
    title: str, corpus: Corpus, mu: Float64, sigma: Float64, methods: Mapping[str, Calibration], levels: Sequence[float]
) -> bytes:
    """PNG of n rows. methods: by name, the stored one first, each calibrated at GRID and `levels`."""
    from matplotlib.figure import Figure

    stored = next(iter(methods.values()))
    shown = min(len(corpus.sources), MAX_SOURCES)
    figure = Figure(figsize=(15.0, max(5.2, 1.7 + 0.3 * shown)), dpi=120, layout="constrained")
    curve, ladder, scatter = figure.subplots(1, 3, width_ratios=(1.0, 1.3, 1.0))
    sources = f"{len(corpus.sources)} source{'s' * (len(corpus.sources) != 1)}"
    figure.suptitle(f"{title}: {corpus.n_rows} rows, {sources}", fontsize=13)
    _reliability(curve, corpus, mu, sigma, methods)
    _ladder(ladder, corpus, mu, sigma, stored, levels)
    _errors(scatter, corpus, mu, sigma, stored, levels)
    return png(figure, curve, ladder, scatter)


def _reliability(axes: Any, corpus: Corpus, mu: Float64, sigma: Float64, methods: Mapping[str, Calibration]) -> None:
    """Coverage against the nominal one: means over sources, with bars of one standard error."""
    k = len(corpus.sources)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.9, linestyle=":", label="as claimed")
    for (name, calibration), colour, mark in zip(methods.items(), COLOURS, MARKS, strict=False):
        inside = np.array([_inside(corpus, *calibration.interval(mu, sigma, level)) for level in GRID])  # (levels, K)
        error = inside.std(axis=1, ddof=1) / np.sqrt(k) if k > 1 else None
        axes.errorbar(
            GRID, inside.mean(axis=1), error, label=name, color=colour, marker=mark, markersize=4.5, linewidth=1.6,
            elinewidth=0.9, capsize=2,
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="nominal coverage", ylabel="coverage, mean over sources ± SE")
    axes.set_title("Reliability", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _ladder(
    axes: Any, corpus: Corpus, mu: Float64, sigma: Float64, stored: Calibration, levels: Sequence[float]
) -> None:
    """A source a rung, the worst covered on top: its mean interval at each level, and where its errors really are."""
    k, levels = len(corpus.sources), sorted(levels)
    bounds = {level: stored.interval(mu, sigma, level) for level in levels}
    inside = {level: _inside(corpus, *bounds[level]) for level in levels}
    order = np.argsort(-inside[levels[-1]] - 1e-6 * inside[levels[0]], kind="stable")[-MAX_SOURCES:]
    middle = np.clip(mu, *corpus.spec.bounds)  # as the bounds are
    residual = corpus.target - middle
    shades = np.linspace(0.85, 0.25, len(levels))[::-1] if len(levels) > 1 else np.array([0.5])
    for level, shade in zip(reversed(levels), shades, strict=True):
        low = group_means(bounds[level][0] - middle, corpus.source, k)[order]
        high = group_means(bounds[level][1] - middle, corpus.source, k)[order]
        axes.barh(
            range(len(order)), high - low, left=low, height=0.78, color=BLUE, alpha=float(shade), linewidth=0,
            label=f"mean {level * 100:g} % interval",
        )  # fmt: skip
    errors = [np.quantile(residual[corpus.source == g], (0.05, 0.25, 0.5, 0.75, 0.95)) for g in order]
    for place, (p5, p25, p50, p75, p95) in enumerate(errors):
        axes.plot([p5, p95], [place, place], color="black", linewidth=1.1)
        axes.plot([p25, p75], [place, place], color="black", linewidth=3.4, solid_capstyle="butt")
        axes.plot([p50], [place], marker="o", color="white", markeredgecolor="black", markersize=4.5)
    words = [
        f"{corpus.sources[g][:26]}\n" + "  ".join(f"{inside[level][g] * 100:.0f}" for level in levels) + " %"
        for g in order
    ]
    axes.set_yticks(range(len(order)), words, fontsize=8)
    axes.axvline(0.0, color="black", linewidth=0.7)
    axes.plot([], [], color="black", linewidth=3.4, label="errors: median, 25-75 %, 5-95 %")
    axes.margins(x=0.04)
    axes.set_xlabel(f"{corpus.spec.target} less mu")
    axes.set_title(
        "Interval ladder (covered at " + ", ".join(f"{level * 100:g}" for level in levels) + " %)", fontsize=11
    )
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.55 / axes.figure.get_figheight()),
        ncols=2,
    )


def _errors(
    axes: Any, corpus: Corpus, mu: Float64, sigma: Float64, stored: Calibration, levels: Sequence[float]
) -> None:
    """Each row's error against what its interval allows on that side, at the middle level: above the line it misses."""
    level = sorted(levels)[len(levels) // 2]
    lower, upper = stored.interval(mu, sigma, level)
    middle = np.clip(mu, *corpus.spec.bounds)  # bounds are clipped, so what they allow is too
    error, over = np.abs(corpus.target - middle), corpus.target > middle
    half = np.where(over, upper - middle, middle - lower)
    missed = (corpus.target < lower) | (corpus.target > upper)
    rows = np.arange(corpus.n_rows)
    if len(rows) > MAX_POINTS:
        rows = np.random.default_rng(DRAW_SEED).choice(rows, MAX_POINTS, replace=False)
    for mask, colour, name in ((~missed, BLUE, "inside"), (missed, RED, "outside")):
        at = rows[mask[rows]]
        axes.scatter(
            half[at], error[at], s=9, alpha=0.35, color=colour, linewidths=0, label=f"{name}: {mask.mean():.0%}"
        )
    cuts = np.unique(np.quantile(half, np.linspace(0, 1, 9)))
    if len(cuts) > 2:
        bins = np.clip(np.searchsorted(cuts, half, side="right") - 1, 0, len(cuts) - 2)
        used = [b for b in range(len(cuts) - 1) if (bins == b).any()]
        axes.plot(
            [half[bins == b].mean() for b in used], [np.quantile(error[bins == b], level) for b in used],
            color="black", marker="D", markersize=4, linewidth=1.4, label=f"{level * 100:g} % of the errors are below",
        )  # fmt: skip
    low, high = float(half.min()), float(half.max())
    pad = 0.05 * (high - low) or 0.05 * (high or 1.0)
    axes.plot([low - pad, high + pad], [low - pad, high + pad], color="black", linewidth=0.9, linestyle=":")
    axes.set(xlim=(low - pad, high + pad), ylim=(0, 1.3 * float(error.max()) or 1.0))
    axes.set_xlabel(f"reach of the {level * 100:g} % interval")
    axes.set_ylabel(f"|{corpus.spec.target} - mu|")
    axes.set_title("Error against width", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _inside(corpus: Corpus, lower: Float64, upper: Float64) -> Float64:
    """Share of each source's rows inside their interval, (K,)."""
    return group_means((lower <= corpus.target) & (corpus.target <= upper), corpus.source, len(corpus.sources))
