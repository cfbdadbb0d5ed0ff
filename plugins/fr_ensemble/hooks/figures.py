"""figures.py: what the pinned out-of-fold predictions show, as tables and charts for a report. Draws nothing.

All intervals are of one level: see `_shown_level`. Shades show how far a figure is below the policy's bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.choice import choice_of
from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.evidence.baselines import COMPARED_LEVEL, standings, standings_table
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES, calibrate, held_out_reach, own_encoders, sources_in
from fr_ensemble.evidence.calibration import calibrated_on, inputs_calibrated_on
from fr_ensemble.evidence.entry import EntryEvidence, baselines_of, evidence_of, left_out_of
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.left_out import EVERY_ENCODER, encoder_standings, standing_line, standings_rows
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.p1401 import Mapped
from fr_ensemble.evidence.quantiles import CRPS_LEVELS
from fr_ensemble.evidence.statistics import gaussian_crps, group_means, rmse
from fr_ensemble.hooks.drawing import MAX_TABLE_SOURCES, diagonal, drawn_rows, left_out, xy
from fr_ensemble.hooks.interval_figures import Covered, intervals
from fr_ensemble.hooks.shades import COVERAGE_METRIC, Bound, plcc_bound
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Series, Table
from registry_tool.values import Json, Rule, counted, percent

REPORT_LEVELS = (COMPARED_LEVEL, 0.5)  # the first that the sources suffice for, where no rule names another
COLOURED_SOURCES = 5  # sources with a colour of their own


def _shown_level(oof: Oof, method: str, rules: Sequence[Rule]) -> float | None:
    """The level of all that is shown: of the first rule on coverage, else the first of REPORT_LEVELS.

    One that the sources do not suffice for is passed over. None where they suffice for none.
    """
    if len(oof.sources) < MIN_COVERAGE_SOURCES or len(oof.seeds) < 2:
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
        inputs = inputs_calibrated_on(manifest, view.read)
    except (ValueError, KeyError, TypeError) as error:  # EvidenceProblem is a ValueError
        raise InputError(f"{view.entry.id}: its evidence cannot be read ({error}): run `registry validate`") from error
    target = manifest["target"]
    oof = found.oof
    shown = calibrated or oof
    level = _shown_level(shown, method, rules)
    left_out = [*_encoders_left_out(view, oof, method, level or COMPARED_LEVEL, target["name"])]
    encoders = (
        [_by_encoder(inputs, shown, method, level, bool(left_out))] if inputs is not None and level is not None else []
    )
    return [
        _held_out(found, plcc_bound(rules)),
        *_chosen_recipes(manifest),
        *_beside_baselines(view, oof, method, level or COMPARED_LEVEL, target),
        *encoders,
        *left_out,
        *intervals(Covered(shown, method, level, rules), target["name"], calibrated=calibrated is not None),
        *_against_true(oof, target),
        *_mapped(oof, method, target),
    ]


# ---- sources x seeds ----------------------------------------------------------------------------------------------


def _held_out(found: EntryEvidence, bound: Bound | None) -> Figure:
    """The LOSO heat map, the worst source first, with each source's other figures."""
    table = found.scores
    mean = table.plcc.mean(axis=0)
    order = np.argsort(np.nan_to_num(mean, nan=-2.0), kind="stable")[:MAX_TABLE_SOURCES]
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
    folds = [*list(choice.folds.items())[:MAX_TABLE_SOURCES], ("none: the members", choice.final)]
    cells = [[name, one.chosen, *(f"{error:.4g}" for error in one.errors.values())] for name, one in folds]
    yield Figure(
        "The recipe of each fold",
        "Chosen on the sources that the fold trains on, without the one held out: groups of them are predicted by "
        f"models of the others, and the recipe with the least RMSE ({manifest['target']['name']}, a mean over sources) "
        f"is taken, if it is clearly below that of {next(iter(choice.candidates))}.",
        table=Table([["held out", "chosen", *choice.candidates], *cells]),
    )


def _beside_baselines(
    view: EntryView, oof: Oof, method: str, level: float, target: Mapping[str, Json]
) -> Iterator[Figure]:
    """The ensemble and standard models on the same folds; nothing where the evidence has none of its rows."""
    baselines = baselines_of(view)
    if baselines is None or not baselines.are_of(oof):
        return
    name, (low, high) = target["name"], target["range"]
    yield Figure(
        "Beside standard models",
        "Each source predicted by models that never saw it: means over sources. Intervals are by one method, each "
        f"source's calibrated on the others; the score is their width and what they miss by, lower is better. Scores "
        f"and errors are in units of {name}.",
        table=Table(standings_table(standings(oof, baselines, method, (low, high), level), level)),
    )


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


def _encoders_left_out(view: EntryView, oof: Oof, method: str, level: float, unit: str) -> Iterator[Figure]:
    """Each encoder as one that training lacks; nothing where none was left out."""
    left_out = left_out_of(view)
    if left_out is None or not left_out.are_of(oof):
        return
    found = encoder_standings(oof, left_out, method, level)
    yield Figure(
        "Encoders left out",
        "Each encoder's rows by models that saw neither it nor the row's source, beside models that learned it from "
        "other sources; means over sources, the largest error on top. Intervals are those of the models that know the "
        "encoder, each source's calibrated on the others. Together: "
        f"{standing_line(found[EVERY_ENCODER], unit, level)}. An encoder far from all of these may be worse.",
        table=Table(standings_rows(found, level)),
    )


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
    yield Figure("Predicted against true", words, Chart(across, up, [diagonal("predicted = true", across, up), *dots]))
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
    if mapped is None or len(oof.seeds) < 2 or len(oof.sources) < MIN_COVERAGE_SOURCES:
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
        yield Series(label, *xy(oof.target, y, rows[oof.source[rows] == k]))
    if others := len(oof.sources) - len(worst):
        words = counted(others, "other source")
        yield Series(words, *xy(oof.target, y, rows[~np.isin(oof.source[rows], worst)]), tone="muted")
