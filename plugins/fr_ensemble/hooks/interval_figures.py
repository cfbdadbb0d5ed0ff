"""interval_figures.py: how an entry's intervals do on sources that they are not made of, as tables and charts.

All are of one level, and of predictions that are given. Reads no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES, held_out_reach, held_out_shares
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import group_means, standard_error
from fr_ensemble.hooks.drawing import (
    MAX_TABLE_SOURCES,
    RELIABILITY_LEVELS,
    binned,
    decades,
    diagonal,
    drawn_rows,
    left_out,
    reliability,
    worst_reliability,
    xy,
)
from fr_ensemble.hooks.shades import Bound, coverage_bound
from registry_tool.hookspec import Axis, Chart, Figure, Series, Table
from registry_tool.values import Rule, percent

COMPARED_METHODS = {"gaussian": "gaussian: sigma taken at its word", "split": "split: rows taken for independent"}
DRAWN_SOURCES = 20  # of the chart of coverage: the worst


@dataclass(frozen=True, slots=True, eq=False)
class Covered:
    """The predictions that intervals are made of, their method, and the level that is shown: None, too few sources."""

    oof: Oof
    method: str
    level: float | None
    rules: Sequence[Rule]

    def shares(self, method: str, levels: Sequence[float]) -> Float64:
        """Share of each source's rows inside intervals that are calibrated on the others, (levels, K).

        Encoders are calibrated apart by the entry's own method alone.
        """
        return held_out_shares(self.oof if method == self.method else self.oof.pooled, method, levels)


def intervals(covered: Covered, target: str, *, calibrated: bool) -> Iterator[Figure]:
    oof, level = covered.oof, covered.level
    if level is None:
        found = f"{len(oof.sources)} sources and {len(oof.seeds)} seeds"
        yield Figure(
            "Intervals",
            f"Found {found}: to test an interval on a source it has not seen takes {MIN_COVERAGE_SOURCES} sources and "
            "2 seeds, and more of them for a method that promises more.",
        )
        return
    yield _coverage(covered, level, calibrated=calibrated)
    yield from _width(oof, covered.method, level, target)
    yield from _reliability(covered)


def _coverage(covered: Covered, level: float, *, calibrated: bool) -> Figure:
    """Each source's share of rows inside, the worst covered first."""
    oof, k, name = covered.oof, len(covered.oof.sources), f"in {percent(level)} %"
    bound = coverage_bound(covered.rules, level)
    (share,) = covered.shares(covered.method, [level])
    error = oof.mu - oof.target
    bias, square = group_means(error, oof.source, k), group_means(error**2, oof.source, k)
    reach = group_means(held_out_reach(oof, covered.method, level), oof.source, k)
    n = np.bincount(oof.source, minlength=k).tolist()
    order = np.argsort(share, kind="stable")[:MAX_TABLE_SOURCES].tolist()
    rows = [["source", "rows", "bias", "RMSE", "half-width", name]]
    for g in order:
        cells = f"{bias[g]:+.3f}", f"{math.sqrt(square[g]):.3f}", f"{reach[g]:.3f}", f"{share[g] * 100:.1f} %"
        rows.append([oof.sources[g], str(n[g]), *cells])
    first, below = order[0], int((share < bound.value).sum())
    whose = (
        "The intervals are made of these sources, which no member was trained on; each is shown with the offset, where "
        "there is one, and the intervals of the others."
        if calibrated
        else "Each source's rows with intervals that are calibrated on the other sources."
    )
    drawn = order[:DRAWN_SOURCES]
    drawing = f" The {len(drawn)} worst of {k} are drawn." if len(drawn) < k else ""
    listed = f" The {len(order)} worst of {k} are in the table." if len(order) < k else ""
    return Figure(
        "Calibrated on other sources" if calibrated else "Coverage by source",
        f"{whose} The worst covered is on top: {oof.sources[first]}, {share[first] * 100:.1f} % of whose rows are in "
        f"their {percent(level)} % interval. {below} of {k} sources are below {bound.value:g}, {bound.origin}."
        f"{drawing}{listed}",
        _coverage_chart([oof.sources[g] for g in drawn], share[drawn], bound, f"share of rows {name}"),
        Table(rows, {(number, 5): bound.shade(share[g]) for number, g in enumerate(order, start=1)}, bound.legend()),
    )


def _coverage_chart(names: Sequence[str], share: Float64, bound: Bound, label: str) -> Chart:
    """A line of its own for each source."""
    missed = share < bound.value
    places = np.arange(len(names), dtype=np.float64)
    sides = (("below", missed, "alarm"), (f"{bound.value:g} and more", ~missed, "first"))
    dots = [Series(name, *xy(share, places, mask), tone=tone) for name, mask, tone in sides if mask.any()]
    guide = Series(bound.origin, (bound.value, bound.value), (-0.5, len(names) - 0.5), "guide")
    return Chart(Axis(label, 0, 1), Axis.of_names("", names), [guide, *dots])


def _reliability(covered: Covered) -> Iterator[Figure]:
    """Coverage against the nominal one, for the stored method and the two that people reach for first."""
    method, k = covered.method, len(covered.oof.sources)
    names = {
        method: f"{method}: as stored",
        **{name: text for name, text in COMPARED_METHODS.items() if name != method},
    }
    shares = {name: covered.shares(name, RELIABILITY_LEVELS) for name in names}
    rows = [["nominal"], *([f"{percent(level)} %"] for level in RELIABILITY_LEVELS)]
    worst = [["nominal", *names], *([f"{percent(level)} %"] for level in RELIABILITY_LEVELS)]
    for name, inside in shares.items():  # (levels, K)
        rows[0] += [name, "± SE"]
        for row, row_of_worst, of_sources in zip(rows[1:], worst[1:], inside, strict=True):
            row += [f"{of_sources.mean() * 100:.1f} %", f"{standard_error(of_sources) * 100:.1f} %"]
            row_of_worst.append(f"{of_sources.min() * 100:.1f} %")
    shown = {names[name]: inside for name, inside in shares.items()}
    yield Figure(
        "Reliability: the mean source",
        f"The share of rows inside the interval against the share it claims: means over {k} sources, each predicted "
        "and calibrated without itself; bars are one standard error over sources. Below the dotted line an interval "
        "promises too much.",
        reliability(shown),
        Table(rows),
    )
    yield Figure(
        "Reliability: the worst source",
        "The same, of the source that each method covers worst at each level. Rows of one source err together, so "
        "that a mean hides what a user of one source meets: of two methods with a good mean, take the one that is "
        "higher here. No method covers every source that may come: of many, the worst is below the line.",
        worst_reliability(shown),
        Table(worst),
    )


def _width(oof: Oof, method: str, level: float, target: str) -> Iterator[Figure]:
    """Each row's error against the half-width of its interval; above the line the interval misses."""
    reach = held_out_reach(oof, method, level)
    if not reach.max() > 0.0:
        return
    error = np.abs(oof.target - oof.mu)
    missed = error > reach
    across = Axis(f"half-width of the {percent(level)} % interval", *decades(reach), log=True)
    up = Axis(f"|{target} - mu|", *decades(error), log=True)
    rows = drawn_rows(len(error))
    dots = [
        Series(f"{name}: {mask.mean() * 100:.1f} %", *xy(reach, error, rows[mask[rows]]), tone=tone)
        for name, mask, tone in (("outside", missed, "own"), ("inside", ~missed, "muted"))
    ]
    line = Series(f"{percent(level)} % of the errors are below", *binned(reach, error, level), "line")
    yield Figure(
        "Interval width against error",
        f"Each row's error |{target} - mu| against the half-width of its {percent(level)} % interval, calibrated "
        f"without its source; on the dotted line they are equal. Where intervals know what they do not know, the line "
        f"of the errors climbs with them.{left_out(len(error), rows)}",
        Chart(across, up, [line, diagonal("error = half-width", across, up), *dots]),
    )
