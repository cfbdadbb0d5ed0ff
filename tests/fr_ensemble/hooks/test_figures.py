"""test_figures.py: the figures of a report against the predictions they come from. How they are drawn is another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from fr_ensemble.artifacts.paths import INPUTS_PATH
from fr_ensemble.evidence.calibrating import calibrate, held_out_reach
from fr_ensemble.evidence.inputs import Inputs, write_inputs
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.methods import INTERVAL_METHODS
from fr_ensemble.evidence.oof import Oof, write_oof
from fr_ensemble.hooks import drawing
from fr_ensemble.hooks import figures as room
from fr_ensemble.hooks.figures import figures
from fr_ensemble.hooks.shades import LEAST_SHADE, Bound
from numpy.typing import NDArray

from registry_tool.errors import InputError
from registry_tool.hookspec import Chart, EntryView, Figure, Table
from registry_tool.values import Rule


def make_oof(sources: int = 6, rows: int = 40, seeds: int = 3, spread: float = 1.0) -> Oof:
    """Targets over 0..100; the errors of a source grow with its number, and members disagree as they err."""
    rng = np.random.default_rng(sources)
    source = np.repeat(np.arange(sources), rows)
    target = rng.uniform(5, 95, len(source))
    error = spread * (source + 1) * rng.normal(size=len(source))
    predictions = target + error + 0.3 * np.abs(error) * rng.normal(size=(seeds, len(source)))
    names = tuple(f"s{i}" for i in range(sources))
    return Oof(tuple(range(seeds)), names, source, None, None, target, predictions, "r", "c", None)


@dataclass(eq=False)
class View:
    """As much of an entry as the figures need: a manifest, and predictions."""

    data: bytes
    manifest: dict[str, Any] | None = None
    inputs: bytes = b""

    @property
    def entry(self) -> Any:
        return type("Entry", (), {"id": "e"})()

    def read(self, path: str) -> bytes:
        return self.inputs if path == INPUTS_PATH else self.data


def view(oof: Oof | bytes, method: str = "loso-hcp-t") -> EntryView:
    stored = {
        "method": method,
        "unit": "row",
        "side": "two-sided",
        "ddof": 1,
        "range": [0, 100],
        "floor": 0,
        "levels": {},
        "n": 1,
        "n_per_source": {},
        "sha256": "0" * 64,
    }
    manifest = {
        "schema_version": 2,
        "kind": "fr_ensemble",
        "target": {"name": "vmaf", "range": [0, 100]},
        "intervals": {"method": method, "calibrations": [stored], "input_ranges": []},
    }
    return View(write_oof(oof) if isinstance(oof, Oof) else oof, manifest)  # type: ignore[return-value]  # a part of it


def shown(oof: Oof, method: str = "loso-hcp-t", rules: Sequence[Rule] = ()) -> dict[str, Figure]:
    return {figure.title: figure for figure in figures(view(oof, method), rules) or ()}


def table(figure: Figure) -> Table:
    assert figure.table is not None
    return figure.table


def chart(figure: Figure) -> Chart:
    assert figure.chart is not None
    return figure.chart


def test_heat_map_is_the_evidence() -> None:
    """A row a source, the worst on top and named; a column a seed, with its PLCC; means and errors beside."""
    oof = make_oof()
    figure = shown(oof)["Leave one source out: PLCC by seed and source"]
    header, *rows = table(figure).rows
    truth = FoldScores.of(oof)
    assert header[:5] == ["held out", "rows", "seed 0", "seed 1", "seed 2"]
    assert [row[0] for row in rows] == [f"s{k}" for k in np.argsort(truth.plcc.mean(axis=0))]
    assert f"on top: {rows[0][0]}" in figure.caption
    for row in rows:
        k = truth.folds.index(row[0])
        means = (truth.plcc[:, k].mean(), truth.srocc[:, k].mean())
        assert row[1:7] == ["40", *(f"{value:.4f}" for value in (*truth.plcc[:, k], *means))]
        assert row[7:] == [f"{truth.rmse[:, k].mean():.3f}"]


def test_shades_are_of_the_bound() -> None:
    """None where the bound is met, then from a little to all, at ten times its distance from 1 or without a number."""
    bound = Bound(0.95, "the bound of mean_plcc")
    assert [bound.shade(value) for value in (1.0, 0.95, 0.4, -1.0, float("nan"))] == [0, 0, 1, 1, 1]
    assert bound.shade(0.95 - 1e-9) == pytest.approx(LEAST_SHADE)
    assert bound.shade(1.0 - 0.05 * 10**0.5) == pytest.approx((1 + LEAST_SHADE) / 2)
    assert [Bound(1.0, "x").shade(0.999), Bound(0.8, "x").shade(0.0)] == [1.0, 1.0]
    assert Bound(-0.5, "x").shade(-0.6) == 1.0


def test_the_policy_shades() -> None:
    """Cells below the bound of a rule on PLCC are shaded, no others; the legend names the rule. None without one."""
    oof = make_oof()
    truth = FoldScores.of(oof).plcc
    bound = float(np.median(truth))
    title = "Leave one source out: PLCC by seed and source"
    ruled = table(shown(oof, rules=[Rule("n_seeds", ">=", 5), Rule("mean_plcc", ">=", bound)])[title])
    assert ruled.legend[0] == (f"{bound:g} and more: the bound of mean_plcc", 0.0)
    for number, row in enumerate(ruled.rows[1:], start=1):
        seen = truth[:, int(row[0][1:])]
        assert [ruled.shades[number, column] > 0.0 for column in (2, 3, 4)] == [value < bound for value in seen]
    plain = shown(oof)[title]
    assert set(table(plain).shades.values()) == {0.0}
    assert (table(plain).legend, "nothing is shaded" in plain.caption) == ((), True)


def test_a_source_without_a_correlation_is_the_worst() -> None:
    """A constant target has no PLCC: `nan`, in the strongest colour, on top."""
    oof = make_oof()
    oof = replace(oof, target=np.where(oof.source == 0, 50.0, oof.target))
    found = table(shown(oof, rules=[Rule("mean_plcc", ">=", 0.5)])["Leave one source out: PLCC by seed and source"])
    assert found.rows[1][0] == "s0"
    assert found.rows[1][2:6] == ["nan"] * 4
    assert [found.shades[1, column] for column in range(2, 6)] == [1.0] * 4


def test_the_worst_covered_is_on_top() -> None:
    """A row a source by its share of rows inside, which the calibration of the others gives; the caption counts."""
    oof = make_oof()
    figure = shown(oof)["Coverage by source"]
    header, *rows = table(figure).rows
    truth = calibrate(oof, method="loso-hcp-t", levels=[0.8]).quantile(0.8).coverage
    assert header == ["source", "rows", "bias", "RMSE", "half-width", "in 80 %"]
    assert [row[0] for row in rows] == sorted(truth, key=lambda name: truth[name])
    assert [row[5] for row in rows] == [f"{truth[row[0]] * 100:.1f} %" for row in rows]
    for number, row in enumerate(rows, start=1):
        assert (table(figure).shades[number, 5] > 0.0) is (truth[row[0]] < 0.8)
        k = int(row[0][1:])
        error = (oof.mu - oof.target)[oof.source == k]
        assert row[1:4] == ["40", f"{error.mean():+.3f}", f"{np.sqrt(np.mean(error**2)):.3f}"]
    below = sum(share < 0.8 for share in truth.values())
    assert f"{below} of 6 sources are below 0.8, the share they claim" in figure.caption


def test_the_chart_of_coverage_is_the_table() -> None:
    """Every source is one point at its share: in the colour of alarm where the policy's bound is missed."""
    oof = make_oof(sources=9)
    truth = calibrate(oof, method="loso-hcp-t", levels=[0.8]).quantile(0.8).coverage
    bound = float(np.median([*truth.values()]))
    drawn = chart(shown(oof, rules=[Rule("coverage_80_worst", ">=", bound)])["Coverage by source"])
    guide, *dots = drawn.series
    assert (guide.name, guide.x) == ("the bound of coverage_80_worst", (bound, bound))
    found = {drawn.y.names[int(y)]: (x, one.tone) for one in dots for x, y in zip(one.x, one.y, strict=True)}
    assert found == {name: (share, "alarm" if share < bound else "first") for name, share in truth.items()}


@pytest.mark.parametrize(("rule", "level"), [("coverage_50", "50"), ("coverage_90_upper", "90"), ("n_seeds", "80")])
def test_one_level_throughout(rule: str, level: str) -> None:
    """All that speaks of one interval speaks of the level that the policy rules, else of 80 %."""
    found = shown(make_oof(sources=22), rules=[Rule(rule, ">=", 0.1)])
    assert table(found["Coverage by source"]).rows[0][-1] == f"in {level} %"
    assert chart(found["Interval width against error"]).x.label == f"half-width of the {level} % interval"


def test_the_worst_source_beside_the_mean() -> None:
    """At every level the lowest of the sources' shares, of each method, on the axes of the mean; and in the table."""
    oof = make_oof()
    mean, worst = (shown(oof)[f"Reliability: the {name} source"] for name in ("mean", "worst"))
    assert [series.name for series in chart(mean).series] == [series.name for series in chart(worst).series]
    assert (chart(mean).x, chart(mean).y.low, chart(mean).y.high) == (chart(worst).x, 0, 1)
    for series in chart(worst).series[1:]:
        method = series.name.split(":")[0]
        levels = calibrate(oof, method=method, levels=drawing.RELIABILITY_LEVELS).levels
        assert series.y == pytest.approx([min(q.coverage.values()) for q in levels])
        column = table(worst).rows[0].index(method)
        assert [row[column] for row in table(worst).rows[1:]] == [f"{y * 100:.1f} %" for y in series.y]


@pytest.mark.parametrize("method", ["loso-hcp-t", "gaussian"])
def test_reliability_is_the_calibration_of_the_others(method: str) -> None:
    """Each method's curve is the mean over sources of the shares inside, calibrated on the others, with its error."""
    oof = make_oof()
    figure = shown(oof, method)["Reliability: the mean source"]
    stored, *others = [series for series in chart(figure).series if series.mark == "line"]
    assert stored.name == f"{method}: as stored"
    assert {series.name.split(":")[0] for series in others} == {"gaussian", "split"} - {method}
    inside = np.array(
        [[*q.coverage.values()] for q in calibrate(oof, method=method, levels=drawing.RELIABILITY_LEVELS).levels]
    )
    assert stored.y == pytest.approx(inside.mean(axis=1))
    assert stored.bars == pytest.approx(inside.std(axis=1, ddof=1) / np.sqrt(6))
    assert [row[1] for row in table(figure).rows[1:]] == [f"{share * 100:.1f} %" for share in inside.mean(axis=1)]


@pytest.mark.parametrize("method", INTERVAL_METHODS)
def test_reach_covers_what_calibration_says(method: str) -> None:
    """The share of a source's errors within reach is the coverage that the calibration reports for it."""
    oof = make_oof(sources=9)
    error = np.abs(oof.target - oof.mu)
    for level in (0.5, 0.8):
        reach = held_out_reach(oof, method, level)
        found = {
            name: float(np.mean(error[oof.source == k] <= reach[oof.source == k])) for k, name in enumerate(oof.sources)
        }
        assert found == pytest.approx(dict(calibrate(oof, method=method, levels=[level]).quantile(level).coverage))


def test_reach_knows_nothing_of_its_own_source() -> None:
    """Without sigma in play, a source's reach is the quantile of the others; its own errors do not move it."""
    oof = make_oof()
    keep = oof.source != 5
    others = replace(
        oof,
        sources=oof.sources[:5],
        source=oof.source[keep],
        target=oof.target[keep],
        predictions=oof.predictions[:, keep],
    )
    q = calibrate(others, method="abs", levels=[0.8]).quantile(0.8).q
    assert held_out_reach(oof, "abs", 0.8)[~keep] == pytest.approx(np.full(40, q))
    worse = replace(oof, target=np.where(keep, oof.target, oof.target + 30))
    assert held_out_reach(worse, "abs", 0.8)[~keep] == pytest.approx(np.full(40, q))


def test_encoders_have_their_rows_and_the_worst_covered_is_on_top() -> None:
    """Bias, RMSE and coverage of the rows whose inputs are there, by intervals of the other sources."""
    oof = make_oof()
    n, rows = len(oof.target), np.arange(0, len(oof.target), 2)
    encoder = np.arange(n) % 4 // 2
    off = np.where(encoder == 1, 30.0, 0.0)
    oof = replace(oof, predictions=oof.predictions + off)
    named = ("libx264", "libx265")
    inputs = Inputs(n, rows, np.zeros((len(rows), 1)), np.zeros((len(rows), 0)), named, encoder[rows], encoder[rows])
    shown = view(oof)
    assert "Encoders" not in [figure.title for figure in figures(shown) or ()]
    shown.manifest["evidence_inputs"] = {"n_rows": len(rows)}  # type: ignore[index]
    shown.inputs = write_inputs(inputs)  # type: ignore[attr-defined]
    figure = next(figure for figure in figures(shown) or () if figure.title == "Encoders")
    assert f"A sample of {len(rows)} of {n} rows" in figure.caption
    assert figure.table is not None
    header, *found = figure.table.rows
    assert [row[0] for row in found] == ["libx265", "libx264"]
    reach, error = held_out_reach(oof, "loso-hcp-t", 0.8), oof.mu - oof.target
    for row in found:
        own = rows[encoder[rows] == named.index(row[0])]
        expected = [str(len(own)), "6", f"{error[own].mean():+.3f}", f"{np.sqrt(np.mean(error[own] ** 2)):.3f}"]
        assert row[1:5] == expected
        assert row[header.index("in 80 %")] == f"{np.mean(np.abs(error[own]) <= reach[own]) * 100:.1f} %"


def test_width_against_error() -> None:
    """Every row is inside or outside, as its interval says, and the line is the errors' quantile, bin by bin."""
    oof = make_oof(sources=22)
    line, guide, outside, inside = chart(shown(oof)["Interval width against error"]).series
    reach, error = held_out_reach(oof, "loso-hcp-t", 0.8), np.abs(oof.target - oof.mu)
    assert sorted(outside.y) == pytest.approx(np.sort(error[error > reach]))
    assert len(inside.x) + len(outside.x) == len(error)
    assert inside.name == f"inside: {np.mean(error <= reach) * 100:.1f} %"
    first: NDArray[np.int64] = np.argsort(reach, kind="stable")[: len(error) // 8]
    assert (line.x[0], line.y[0]) == pytest.approx((reach[first].mean(), np.quantile(error[first], 0.8)))
    assert guide.x == guide.y


def test_width_takes_a_level_the_sources_suffice_for() -> None:
    """Where others are too few for a rule's level, or for 80 %, all speaks of a lower one, not of infinite widths."""
    rules = [Rule("coverage_95", ">=", 0.9)]
    for sources, level in ((6, 80), (4, 50)):
        words = shown(make_oof(sources=sources), "source-split", rules)["Interval width against error"].caption
        assert f"{level} % interval" in words


def test_predicted_against_true_names_the_worst() -> None:
    """The five sources with the largest errors have a series each, the worst first; all rows are there once."""
    oof = make_oof(sources=9)
    true, error = (chart(shown(oof)[name]).series for name in ("Predicted against true", "Error against true"))
    truth = {f"s{k}": float(np.sqrt(np.mean((oof.mu - oof.target)[oof.source == k] ** 2))) for k in range(9)}
    worst = sorted(truth, key=truth.__getitem__, reverse=True)[:5]
    assert [series.name for series in true[1:]] == [*(f"{k}, RMSE {truth[k]:.2g}" for k in worst), "4 other sources"]
    assert true[-1].tone == "muted"
    assert sorted(y for series in true[1:] for y in series.y) == pytest.approx(np.sort(oof.mu))
    assert sorted(y for series in error[1:] for y in series.y) == pytest.approx(np.sort(oof.mu - oof.target))


def test_many_rows_are_thinned_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a sample is drawn, the same each time, and the caption says how many of how many."""
    monkeypatch.setattr(drawing, "MAX_POINTS", 100)
    oof = make_oof()
    for title in ("Predicted against true", "Interval width against error"):
        figure = shown(oof)[title]
        assert "100 of 240 rows are drawn" in figure.caption
        assert sum(len(series.x) for series in chart(figure).series if series.mark == "points") == 100
        assert figure == shown(oof)[title]


def test_many_sources_show_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of very many sources holds the worst, and says so."""
    monkeypatch.setattr(room, "MAX_TABLE_SOURCES", 4)
    figure = shown(make_oof())["Leave one source out: PLCC by seed and source"]
    assert len(table(figure).rows) == 5
    assert "The 4 worst of 6 are shown." in figure.caption


@pytest.mark.parametrize(("sources", "seeds"), [(2, 3), (6, 1)])
def test_too_few_for_intervals(sources: int, seeds: int) -> None:
    """Two sources, or one seed, say nothing of intervals; that stands in their place, and the rest is shown."""
    found = shown(make_oof(sources=sources, seeds=seeds))
    assert list(found)[1:] == ["Intervals", "Predicted against true", "Error against true"]
    assert f"Found {sources} sources and {seeds} seeds" in found["Intervals"].caption


def test_perfect_predictions_are_shown() -> None:
    """Errors and widths of exactly zero break no axis."""
    oof = make_oof(spread=0.0)
    found = shown(
        replace(oof, predictions=np.stack([oof.target.astype(np.float32)] * 3), target=oof.target.astype(np.float32))
    )
    assert "Predicted against true" in found
    assert "Interval width against error" not in found


def test_no_predictions_no_figures() -> None:
    """A version-1 manifest has nothing to show; evidence that cannot be read is an error that says so."""
    assert figures(View(b"", {"ensemble_size": 5})) is None  # type: ignore[arg-type]  # a part of a view
    assert figures(View(b"", None)) is None  # type: ignore[arg-type]  # a part of a view
    with pytest.raises(InputError, match="evidence cannot be read"):
        figures(view(b"no archive"))
