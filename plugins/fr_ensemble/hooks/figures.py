"""figures.py: what the pinned out-of-fold predictions show, as tables and charts for a report. Draws nothing.

All intervals are of one level: see `_shown_level`. Shades show how far a figure is below the policy's bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from fr_ensemble.arrays import Float64, Int64, RowChoice
from fr_ensemble.artifacts.choice import choice_of
from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.artifacts.paths import CALIBRATION_INPUTS_PATH, INPUTS_PATH
from fr_ensemble.evidence.baselines import COMPARED_LEVEL, standings, standings_table
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.entry import EntryEvidence, baselines_of, evidence_of, left_out_of
from fr_ensemble.evidence.inputs import Inputs, read_inputs
from fr_ensemble.evidence.intervals import (
    CRPS_LEVELS,
    Intervals,
    calibrate,
    held_out_reach,
    held_out_shares,
    own_encoders,
    sources_in,
)
from fr_ensemble.evidence.left_out import EVERY_ENCODER, encoder_standings, standing_line, standings_rows
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.p1401 import Mapped
from fr_ensemble.evidence.statistics import gaussian_crps, group_means, rmse, standard_error
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Series, Table
from registry_tool.values import Json, Rule, counted, percent

RELIABILITY_LEVELS = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.95,
    0.99,
)  # nominal coverages of the reliability curve
REPORT_LEVELS = (COMPARED_LEVEL, 0.5)  # the first that the sources suffice for, where no rule names another
COMPARED_METHODS = {"gaussian": "gaussian: sigma taken at its word", "split": "split: rows taken for independent"}
MAX_POINTS, DRAW_SEED = 6000, 0  # rows of a scatter; beyond that, drawn at random
MAX_SOURCES = 200  # of a table: the worst
DRAWN_SOURCES = 20  # of the chart of coverage: the worst
COLOURED_SOURCES = 5  # sources with a colour of their own
MIN_SOURCES = 3  # sources from which intervals can be held against a source they have not seen
LEAST_SHADE, FULL_SHADE_FACTOR = 0.25, 10.0  # just below a bound; full where it is missed by so many times 1 - bound
PLCC_METRICS = ("worst_fold_plcc", "mean_plcc")  # whose bound a source's PLCC is held against: the first that is ruled
COVERAGE_METRIC = re.compile(r"(?:calibration_)?coverage_(\d{1,2}(?:\.\d+)?)(_worst|_upper|)")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure of a source is held against. origin: the metric whose rule asks for it, or what else it is."""

    value: float
    origin: str

    def shade(self, value: float) -> float:
        """0 where the bound is met; below it from LEAST_SHADE to 1, by the logarithm of the distance from 1."""
        if value >= self.value:
            return 0.0
        room, lost = 1.0 - self.value, 1.0 - value
        if not math.isfinite(value) or room <= 0.0:
            return 1.0
        full = min(FULL_SHADE_FACTOR, 1.0 / room)
        part = math.log(lost / room) / math.log(full) if full > 1.0 else 1.0
        return min(LEAST_SHADE + (1.0 - LEAST_SHADE) * part, 1.0)

    def legend(self) -> list[tuple[str, float]]:
        full = max(1.0 - FULL_SHADE_FACTOR * (1.0 - self.value), 0.0)
        return [
            (f"{self.value:g} and more: {self.origin}", 0.0),
            ("just below", LEAST_SHADE),
            (f"{full:g} and less", 1.0),
        ]


def _plcc_bound(rules: Sequence[Rule]) -> Bound | None:
    """The policy's bound for the correlation of a source; None where it has none."""
    asked = {rule.metric: rule.bound for rule in rules if rule.op in (">", ">=")}
    return next((Bound(asked[name], f"the bound of {name}") for name in PLCC_METRICS if name in asked), None)


def _coverage_bound(rules: Sequence[Rule], level: float) -> Bound:
    """The policy's bound for the coverage of the worst source at a level; else the level itself."""
    for rule in rules:
        found = COVERAGE_METRIC.fullmatch(rule.metric)
        if found and found[2] == "_worst" and rule.op in (">", ">=") and _is_level(found[1], level):
            return Bound(rule.bound, f"the bound of {rule.metric}")
    return Bound(level, "the share they claim")


def _is_level(name: str, level: float) -> bool:
    return math.isclose(float(name) / 100.0, level)


def _shown_level(oof: Oof, method: str, rules: Sequence[Rule]) -> float | None:
    """The level of all that is shown: of the first rule on coverage, else the first of REPORT_LEVELS.

    One that the sources do not suffice for is passed over. None where they suffice for none.
    """
    if len(oof.sources) < MIN_SOURCES or len(oof.seeds) < 2:
        return None
    ruled = [float(found[1]) / 100.0 for rule in rules if (found := COVERAGE_METRIC.fullmatch(rule.metric))]
    enough = (level for level in (*ruled, *REPORT_LEVELS) if np.isfinite(held_out_reach(oof, method, level)).all())
    return next(enough, None)


def figures(view: EntryView, rules: Sequence[Rule] = ()) -> Sequence[Figure] | None:
    """None for a version-1 manifest, which pins no predictions. Raises InputError for evidence that cannot be read.

    rules: of the policy, whose bounds the shades are of.
    """
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        return None
    try:
        found = evidence_of(view)
        method = Intervals.from_dict(manifest["intervals"]).calibration().method
        calibrated = calibrated_on(manifest, view.read) if "calibration" in manifest else None
        inputs = _inputs(view, manifest)
    except (ValueError, KeyError, TypeError) as error:  # EvidenceProblem is a ValueError
        raise InputError(f"{view.entry.id}: its evidence cannot be read ({error}): run `registry validate`") from error
    target = manifest["target"]
    oof = found.oof
    shown = calibrated or oof
    level = _shown_level(shown, method, rules)
    left_out = [*_encoders_left_out(view, oof, method, level or COMPARED_LEVEL)]
    encoders = (
        [_by_encoder(inputs, shown, method, level, bool(left_out))] if inputs is not None and level is not None else []
    )
    return [
        _held_out(found, _plcc_bound(rules)),
        *_chosen_recipes(manifest),
        *_beside_baselines(view, oof, method, level or COMPARED_LEVEL),
        *encoders,
        *left_out,
        *_intervals(Covered(shown, method, level, rules), target["name"], calibrated=calibrated is not None),
        *_against_true(oof, target),
        *_mapped(oof, method, target),
    ]


# ---- sources x seeds ----------------------------------------------------------------------------------------------


def _held_out(found: EntryEvidence, bound: Bound | None) -> Figure:
    """The LOSO heat map, the worst source first, with each source's other figures."""
    table = found.scores
    mean = table.plcc.mean(axis=0)
    order = np.argsort(np.nan_to_num(mean, nan=-2.0), kind="stable")[:MAX_SOURCES]
    header = ["held out", "rows", *(f"seed {seed}" for seed in table.seeds), "mean PLCC", "mean SROCC", "mean RMSE"]
    rows, shades = [header], {}
    for number, k in enumerate(order.tolist(), start=1):
        for column, value in enumerate([*table.plcc[:, k], mean[k]], start=2):
            shades[number, column] = bound.shade(value) if bound else 0.0
        shown = [*table.plcc[:, k], mean[k], table.srocc[:, k].mean()]
        rows.append([table.folds[k], str(table.n[k]), *(f"{v:.4f}" for v in shown), f"{table.rmse[:, k].mean():.3f}"])
    first = order[0]
    shaded = (
        f"What is below {bound.value:g}, {bound.origin}, is shaded; the stronger, the further below."
        if bound
        else "No rule of the policy asks for a source's PLCC, so that nothing is shaded."
    )
    return Figure(
        "Leave one source out: PLCC by seed and source",
        f"Each source as predicted by models that never saw it. The worst is on top: {table.folds[first]}, with a "
        f"mean PLCC of {mean[first]:.4f}.{_worst_shown(len(order), len(table.folds))} {shaded}",
        table=Table(rows, shades, bound.legend() if bound else ()),
    )


def _worst_shown(shown: int, of: int) -> str:
    return f" The {shown} worst of {of} are shown." if shown < of else ""


def _chosen_recipes(manifest: Mapping[str, Json]) -> Iterator[Figure]:
    """By fold, what was chosen and by what errors; nothing where the recipe was named by a person."""
    try:
        choice = choice_of(manifest)
    except ValueError as error:
        raise InputError(f"{manifest['id']}: {error}: run `registry validate`") from error
    if choice is None:
        return
    folds = [*list(choice.folds.items())[:MAX_SOURCES], ("none: the members", choice.final)]
    cells = [[name, one.chosen, *(f"{error:.4g}" for error in one.errors.values())] for name, one in folds]
    yield Figure(
        "The recipe of each fold",
        "Chosen on the sources that the fold trains on, without the one held out: groups of them are predicted by "
        f"models of the others, and the recipe with the least RMSE ({manifest['target']['name']}, a mean over sources) "
        f"is taken, if it is clearly below that of {next(iter(choice.candidates))}.",
        table=Table([["held out", "chosen", *choice.candidates], *cells]),
    )


def _beside_baselines(view: EntryView, oof: Oof, method: str, level: float) -> Iterator[Figure]:
    """The ensemble and standard models on the same folds; nothing where the evidence has none of its rows."""
    manifest: Mapping[str, Json] = view.manifest or {}
    baselines = baselines_of(view, manifest)
    if baselines is None or not baselines.are_of(oof):
        return
    low, high = manifest["target"]["range"]
    yield Figure(
        "Beside standard models",
        "Each source predicted by models that never saw it: means over sources. Intervals are by one method, each "
        f"source's calibrated on the others; the score is their width and what they miss by, lower is better. Scores "
        f"and errors are in units of {manifest['target']['name']}.",
        table=Table(standings_table(standings(oof, baselines, method, (low, high), level), level)),
    )


def _inputs(view: EntryView, manifest: Mapping[str, Json]) -> Inputs | None:
    """Those of the rows that the intervals are made of; None where the evidence has none."""
    path, claims = (
        (CALIBRATION_INPUTS_PATH, manifest["calibration"]) if "calibration" in manifest else (INPUTS_PATH, manifest)
    )
    return read_inputs(view.read(path)) if claims.get("evidence_inputs", {}).get("n_rows") else None


def _by_encoder(inputs: Inputs, oof: Oof, method: str, level: float, has_left_out: bool) -> Figure:
    """Errors and coverage of each encoder's rows, the worst covered first. has_left_out: the page shows that, too."""
    rows = inputs.row
    error, source = (oof.mu - oof.target)[rows], oof.source[rows]
    inside = np.abs(error) <= held_out_reach(oof, method, level)[rows]
    found = []
    for code, name in enumerate(inputs.encoders):
        own = inputs.encoder == code
        share = float(inside[own].mean())
        counts = [str(int(own.sum())), str(len(np.unique(source[own])))]
        errors = [f"{error[own].mean():+.3f}", f"{math.sqrt(np.mean(np.square(error[own]))):.3f}"]
        found.append((share, [name, *counts, *errors, f"{share * 100:.1f} %"]))
    header = ["encoder", "rows", "sources", "bias", "RMSE", f"in {percent(level)} %"]
    drawn = "" if inputs.is_complete else f" A sample of {len(rows)} of {inputs.n_rows} rows is counted."
    if own_names := own_encoders(sources_in(oof)):
        drawn += f" Rows of {', '.join(own_names)} have intervals of their encoder's rows alone."
    return Figure(
        "Encoders",
        "Each encoder's rows as predicted by models that never saw their source, and the share of them inside the "
        f"interval calibrated on the other sources; the worst covered is on top.{drawn} No figure here is of an "
        + "encoder that training lacks: "
        + (
            "those are in the next table."
            if has_left_out
            else "`registry train fr_ensemble --leave-out-encoders` measures that."
        ),
        table=Table([header, *(row for _, row in sorted(found, key=itemgetter(0)))]),
    )


def _encoders_left_out(view: EntryView, oof: Oof, method: str, level: float) -> Iterator[Figure]:
    """Each encoder as one that training lacks; nothing where none was left out."""
    manifest: Mapping[str, Json] = view.manifest or {}
    left_out = left_out_of(view, manifest)
    if left_out is None or not left_out.are_of(oof):
        return
    found, unit = encoder_standings(oof, left_out, method, level), manifest["target"]["name"]
    yield Figure(
        "Encoders left out",
        "Each encoder's rows by models that saw neither it nor the row's source, beside models that learned it from "
        "other sources; means over sources, the largest error on top. Intervals are those of the models that know the "
        "encoder, each source's calibrated on the others. Together: "
        f"{standing_line(found[EVERY_ENCODER], unit, level)}. An encoder far from all of these may be worse.",
        table=Table(standings_rows(found, level)),
    )


# ---- intervals ----------------------------------------------------------------------------------------------------


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


def _intervals(covered: Covered, target: str, *, calibrated: bool) -> Iterator[Figure]:
    oof, level = covered.oof, covered.level
    if level is None:
        found = f"{len(oof.sources)} sources and {len(oof.seeds)} seeds"
        yield Figure(
            "Intervals",
            f"Found {found}: to test an interval on a source it has not seen takes {MIN_SOURCES} sources and 2 seeds, "
            "and more of them for a method that promises more.",
        )
        return
    yield _coverage(covered, level, calibrated=calibrated)
    yield from _width(oof, covered.method, level, target)
    yield from _reliability(covered)


def _coverage(covered: Covered, level: float, *, calibrated: bool) -> Figure:
    """Each source's share of rows inside, the worst covered first."""
    oof, k, name = covered.oof, len(covered.oof.sources), f"in {percent(level)} %"
    bound = _coverage_bound(covered.rules, level)
    (share,) = covered.shares(covered.method, [level])
    error = oof.mu - oof.target
    bias, square = group_means(error, oof.source, k), group_means(error**2, oof.source, k)
    reach = group_means(held_out_reach(oof, covered.method, level), oof.source, k)
    n = np.bincount(oof.source, minlength=k).tolist()
    order = np.argsort(share, kind="stable")[:MAX_SOURCES].tolist()
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
    dots = [Series(name, *_xy(share, places, mask), tone=tone) for name, mask, tone in sides if mask.any()]
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


def _width(oof: Oof, method: str, level: float, target: str) -> Iterator[Figure]:
    """Each row's error against the half-width of its interval; above the line the interval misses."""
    reach = held_out_reach(oof, method, level)
    if not reach.max() > 0.0:
        return
    error = np.abs(oof.target - oof.mu)
    missed = error > reach
    across = Axis(f"half-width of the {percent(level)} % interval", *_decades(reach), log=True)
    up = Axis(f"|{target} - mu|", *_decades(error), log=True)
    rows = drawn_rows(len(error))
    dots = [
        Series(f"{name}: {mask.mean() * 100:.1f} %", *_xy(reach, error, rows[mask[rows]]), tone=tone)
        for name, mask, tone in (("outside", missed, "own"), ("inside", ~missed, "muted"))
    ]
    line = Series(f"{percent(level)} % of the errors are below", *binned(reach, error, level), "line")
    yield Figure(
        "Interval width against error",
        f"Each row's error |{target} - mu| against the half-width of its {percent(level)} % interval, calibrated "
        f"without its source; on the dotted line they are equal. Where intervals know what they do not know, the line "
        f"of the errors climbs with them.{left_out(len(error), rows)}",
        Chart(across, up, [line, _diagonal("error = half-width", across, up), *dots]),
    )


def binned(reach: Float64, error: Float64, level: float) -> tuple[list[float], list[float]]:
    """In eight bins of equally many rows: the mean half-width, and the error's quantile at the level."""
    parts = [part for part in np.array_split(np.argsort(reach, kind="stable"), 8) if len(part)]
    return (
        [float(reach[part].mean()) for part in parts],
        [float(np.quantile(error[part], level)) for part in parts],
    )


def _decades(values: Float64) -> tuple[float, float]:
    """Bounds of a logarithmic axis: all but the smallest values, which are drawn at the edge."""
    top = float(values.max()) or 1.0
    return max(float(np.quantile(values, 0.01)), top * 1e-5) / 1.3, top * 1.3


def _diagonal(name: str, x: Axis, y: Axis) -> Series:
    """Where both axes show the same value; nothing where they never do."""
    ends = (max(x.low, y.low), min(x.high, y.high))
    return Series(name, ends, ends, "guide") if ends[0] < ends[1] else Series(name, (), (), "guide")


# ---- predicted against true ---------------------------------------------------------------------------------------


def _against_true(oof: Oof, target: Mapping[str, Json]) -> Iterator[Figure]:
    """mu and its error against the target; the sources with the largest errors have colours, the others are grey."""
    name, (low, high) = target["name"], target["range"]
    error = oof.mu - oof.target
    rows = drawn_rows(len(error))
    square = group_means(error**2, oof.source, len(oof.sources))
    worst = np.argsort(-square, kind="stable")[:COLOURED_SOURCES].tolist()
    reach = 1.08 * float(np.abs(error).max()) or 1.0
    words = (
        f"Every row by the mean of the models that did not see its source. The {len(worst)} sources with the largest "
        f"RMSE of that mean have colours.{left_out(len(error), rows)}"
    )
    across = Axis(f"{name}, true", min(low, oof.target.min()), max(high, oof.target.max()))
    up = Axis(f"{name}, predicted", min(low, oof.mu.min()), max(high, oof.mu.max()))
    dots = list(_by_source(oof, oof.mu, rows, worst, square))
    yield Figure("Predicted against true", words, Chart(across, up, [_diagonal("predicted = true", across, up), *dots]))
    up = Axis(f"predicted less true, {name}", -reach, reach)
    nothing = Series("no error", (across.low, across.high), (0, 0), "guide")
    yield Figure(
        "Error against true",
        "The same rows and colours, with what the picture beside it is too small to show: above the dotted line the "
        "prediction is too high.",
        Chart(across, up, [nothing, *_by_source(oof, error, rows, worst, square)]),
    )


def _mapped(oof: Oof, method: str, target: Mapping[str, Json]) -> Iterator[Figure]:
    """P.1401's first order, and the CRPS of sigma and of the calibrated distribution; each as held out."""
    mapped = Mapped.of(oof.target, oof.mu)
    if mapped is None or len(oof.seeds) < 2 or len(oof.sources) < MIN_SOURCES:
        return
    name, (low, high) = target["name"], target["range"]
    calibration = calibrate(oof, "row", method, CRPS_LEVELS, target_range=(low, high))
    rows = [
        ["RMSE", f"{rmse(oof.mu, oof.target):.4g}", f"{name}"],
        ["RMSE after the line", f"{mapped.rmse:.4g}", f"{mapped.offset:.4g} {mapped.slope:+.4g} mu (ITU-T P.1401)"],
        [
            "CRPS of N(mu, sigma)",
            f"{gaussian_crps(oof.target, oof.mu, oof.sigma).mean():.4g}",
            "members taken at their word",
        ],
        [
            "CRPS of the intervals",
            f"{calibration.crps(oof.target, oof.mu, oof.sigma).mean():.4g}",
            "the calibrated distribution",
        ],
    ]
    yield Figure(
        "Errors in figures",
        f"Every row as held out, in units of {name}; lower is better. The line is fitted on these rows: where it "
        "changes little, mu has neither an offset nor another scale. The intervals are those of all sources together.",
        table=Table([["figure", "value", ""], *rows]),
    )


def _by_source(oof: Oof, y: Float64, rows: Int64, worst: list[int], square: Float64) -> Iterator[Series]:
    """The worst first, on top; the others in grey below."""
    for k in worst:
        label = f"{oof.sources[k]}, RMSE {math.sqrt(square[k]):.2g}"
        yield Series(label, *_xy(oof.target, y, rows[oof.source[rows] == k]))
    if others := len(oof.sources) - len(worst):
        words = counted(others, "other source")
        yield Series(words, *_xy(oof.target, y, rows[~np.isin(oof.source[rows], worst)]), tone="muted")


def _xy(x: Float64, y: Float64, rows: RowChoice) -> tuple[list[float], list[float]]:
    return x[rows].tolist(), y[rows].tolist()


def drawn_rows(n: int) -> Int64:
    """The rows to draw, ascending. RandomState, since its stream is frozen (NEP 19)."""
    if n <= MAX_POINTS:
        return np.arange(n)
    return np.sort(np.random.RandomState(DRAW_SEED).permutation(n)[:MAX_POINTS]).astype(np.int64)


def left_out(n: int, rows: Int64) -> str:
    return f" {len(rows)} of {n} rows are drawn, chosen at random." if len(rows) < n else ""
