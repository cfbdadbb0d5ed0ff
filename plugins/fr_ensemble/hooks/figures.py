"""figures.py: what the pinned out-of-fold predictions show, as tables and charts for a report. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.artifacts.paths import CALIBRATION_INPUTS_PATH, INPUTS_PATH
from fr_ensemble.evidence.baselines import standings, standings_table
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.entry import EntryEvidence, baselines_of, evidence_of
from fr_ensemble.evidence.inputs import Inputs, read_inputs
from fr_ensemble.evidence.intervals import Intervals, calibrate, held_out_reach
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import group_means, standard_error
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Series, Table
from registry_tool.values import percent

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
WIDTH_LEVELS = (0.95, 0.9, 0.8, 0.5)  # of the interval whose width is shown: the first that the sources suffice for
COMPARED_METHODS = {"gaussian": "gaussian: sigma taken at its word", "split": "split: rows taken for independent"}
MAX_POINTS, DRAW_SEED = 6000, 0  # rows of a scatter; beyond that, drawn at random
MAX_SOURCES = 200  # of the table: the worst
COLOURED_SOURCES = 5  # sources with a colour of their own
MIN_SOURCES = 3  # sources from which intervals can be held against a source they have not seen
WORST_LOSS, BEST_LOSS = 1e-1, 1e-4  # 1 - PLCC where the shade is full, and where it is none


def figures(view: EntryView) -> Sequence[Figure] | None:
    """None for a version-1 manifest, which pins no predictions. Raises InputError for evidence that cannot be read."""
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        return None
    try:
        found = evidence_of(view)
        method = Intervals.from_dict(manifest["intervals"]).calibration().method
        calibrated = calibrated_on(manifest, view.read) if "calibration" in manifest else None
        encoders = _by_encoder(_inputs(view, manifest), calibrated or found.oof, method)
    except (ValueError, KeyError, TypeError) as error:  # EvidenceProblem is a ValueError
        raise InputError(f"{view.entry.id}: its evidence cannot be read ({error}): run `registry validate`") from error
    target = manifest["target"]
    oof = found.oof
    beside = _beside_baselines(view, oof, method)
    own = [_calibrated(calibrated, method)] if calibrated is not None else []
    return [
        *_held_out(found, method),
        *beside,
        *own,
        *encoders,
        *_intervals(calibrated or oof, method, target["name"]),
        *_against_true(oof, target),
    ]


# ---- sources x seeds ----------------------------------------------------------------------------------------------


def _held_out(found: EntryEvidence, method: str) -> Iterator[Figure]:
    """The LOSO heat map, the worst source first, with each source's other figures."""
    oof, table = found.oof, found.scores
    mean = table.plcc.mean(axis=0)
    order = np.argsort(np.nan_to_num(mean, nan=-2.0), kind="stable")[:MAX_SOURCES]
    covered = _covered(oof, method)
    header = ["held out", "rows", *(f"seed {seed}" for seed in table.seeds), "mean PLCC", "mean SROCC", "mean RMSE"]
    rows, shades = [[*header, *(f"in {percent(level)} %" for level in covered)]], {}
    for number, k in enumerate(order.tolist(), start=1):
        for column, value in enumerate([*table.plcc[:, k], mean[k]], start=2):
            shades[number, column] = shade(1.0 - value)
        shown = [*table.plcc[:, k], mean[k], table.srocc[:, k].mean(), table.rmse[:, k].mean()]
        shares = [f"{share[k] * 100:.1f} %" for share in covered.values()]
        rows.append([table.folds[k], str(table.n[k]), *(f"{v:.4f}" for v in shown[:-1]), f"{shown[-1]:.3f}", *shares])
        for column, (level, share) in enumerate(covered.items(), start=len(header)):
            shades[number, column] = float(np.clip((level - share[k]) / level, 0.0, 1.0))
    first = order[0]
    left_out = f" The {len(order)} worst of {len(table.folds)} are shown." if len(order) < len(table.folds) else ""
    right = (
        " On the right, the share of its rows inside their interval, calibrated on the other sources; shaded where it "
        "is below the nominal share."
    )
    yield Figure(
        "Leave one source out: PLCC by seed and source",
        f"Each source as predicted by models that never saw it. The worst is on top: {table.folds[first]}, with a "
        f"mean PLCC of {mean[first]:.4f}.{left_out} The stronger the colour, the "
        f"further from 1, on a logarithmic scale.{right if covered else ''}",
        table=Table(rows, shades, [(f"PLCC {1 - loss:g}", shade(loss)) for loss in (1e-4, 1e-3, 1e-2, 1e-1)]),
    )


def _beside_baselines(view: EntryView, oof: Oof, method: str) -> Iterator[Figure]:
    """The ensemble and standard models on the same folds; nothing where the evidence has none."""
    manifest: Mapping[str, Any] = view.manifest or {}
    baselines = baselines_of(view, manifest)
    if baselines is None:
        return
    low, high = manifest["target"]["range"]
    yield Figure(
        "Beside standard models",
        "Each source predicted by models that never saw it: means over sources. Intervals are by one method, each "
        f"source's calibrated on the others; the score is their width and what they miss by, lower is better. Scores "
        f"and errors are in units of {manifest['target']['name']}.",
        table=Table(standings_table(standings(oof, baselines, method, (low, high)))),
    )


def shade(loss: float) -> float:
    """1 - PLCC on a logarithmic scale; what is not a number is as bad as can be."""
    if not math.isfinite(loss):
        return 1.0
    part = math.log(max(loss, 1e-12) / BEST_LOSS) / math.log(WORST_LOSS / BEST_LOSS)
    return min(max(part, 0.0), 1.0)


def _covered(oof: Oof, method: str) -> dict[float, Float64]:
    """By level, each source's share of rows inside, (K,); empty where there are too few sources or members."""
    if len(oof.sources) < MIN_SOURCES or len(oof.seeds) < 2:
        return {}
    again = calibrate(oof, "row", method, (0.8, 0.95))
    return {q.level: np.array([q.coverage[name] for name in oof.sources]) for q in again.levels}


def _calibrated(oof: Oof, method: str) -> Figure:
    """The sources of a calibrated entry, the worst covered first."""
    covered, k = _covered(oof, method), len(oof.sources)
    error = oof.mu - oof.target
    bias, square = group_means(error, oof.source, k), group_means(error**2, oof.source, k)
    header = ["source", "rows", "bias", "RMSE", *(f"in {percent(level)} %" for level in covered)]
    rows = np.bincount(oof.source, minlength=k).tolist()
    order = np.argsort([sum(share[g] for share in covered.values()) for g in range(k)], kind="stable")[:MAX_SOURCES]
    table = [
        [
            oof.sources[g],
            str(rows[g]),
            f"{bias[g]:+.3f}",
            f"{math.sqrt(square[g]):.3f}",
            *(f"{share[g] * 100:.1f} %" for share in covered.values()),
        ]
        for g in order.tolist()
    ]
    return Figure(
        "Calibrated on other sources",
        "The intervals are made of these sources, which no member was trained on. Each is shown with the offset, where "
        "there is one, and the intervals of the others; the worst covered is on top.",
        table=Table([header, *table]),
    )


def _inputs(view: EntryView, manifest: Mapping[str, Any]) -> Inputs | None:
    """Those of the rows that the intervals are made of; None where the evidence has none."""
    path, claims = (
        (CALIBRATION_INPUTS_PATH, manifest["calibration"]) if "calibration" in manifest else (INPUTS_PATH, manifest)
    )
    return read_inputs(view.read(path)) if claims.get("evidence_inputs", {}).get("n_rows") else None


def _by_encoder(inputs: Inputs | None, oof: Oof, method: str) -> list[Figure]:
    """Errors and coverage of each encoder's rows, the worst covered first."""
    if inputs is None or len(oof.sources) < MIN_SOURCES or len(oof.seeds) < 2:
        return []
    rows, levels = inputs.row, (0.8, 0.95)
    error, source = (oof.mu - oof.target)[rows], oof.source[rows]
    inside = [np.abs(error) <= held_out_reach(oof, method, level)[rows] for level in levels]
    header = ["encoder", "rows", "sources", "bias", "RMSE", *(f"in {percent(level)} %" for level in levels)]
    found = []
    for code, name in enumerate(inputs.encoders):
        own = inputs.encoder == code
        shares = [float(part[own].mean()) for part in inside]
        counts = [str(int(own.sum())), str(len(np.unique(source[own])))]
        errors = [f"{error[own].mean():+.3f}", f"{math.sqrt(np.mean(np.square(error[own]))):.3f}"]
        found.append((sum(shares), [name, *counts, *errors, *(f"{share * 100:.1f} %" for share in shares)]))
    drawn = "" if inputs.is_complete else f" A sample of {len(rows)} of {inputs.n_rows} rows is counted."
    return [
        Figure(
            "Encoders",
            "Each encoder's rows as predicted by models that never saw their source, and the share of them inside the "
            f"interval calibrated on the other sources; the worst covered is on top.{drawn} No figure here is of an "
            "encoder that training lacks: `registry train fr_ensemble --group encoder` measures that.",
            table=Table([header, *(row for _, row in sorted(found, key=itemgetter(0)))]),
        )
    ]


# ---- intervals ----------------------------------------------------------------------------------------------------


def _intervals(oof: Oof, method: str, target: str) -> Iterator[Figure]:
    if len(oof.sources) < MIN_SOURCES or len(oof.seeds) < 2:
        found = f"{len(oof.sources)} sources and {len(oof.seeds)} seeds"
        yield Figure(
            "Intervals",
            f"Found {found}: to test an interval on a source it has not seen takes {MIN_SOURCES} sources and 2 seeds.",
        )
        return
    yield _reliability(oof, method)
    yield from _width(oof, method, target)


def _reliability(oof: Oof, method: str) -> Figure:
    """Coverage against the nominal one, for the stored method and the two that people reach for first."""
    names = {
        method: f"{method}: as stored",
        **{name: text for name, text in COMPARED_METHODS.items() if name != method},
    }
    shares = {
        name: np.array([[*q.coverage.values()] for q in calibrate(oof, "row", name, RELIABILITY_LEVELS).levels])
        for name in names
    }
    rows = [["nominal"], *([f"{percent(level)} %"] for level in RELIABILITY_LEVELS)]
    for name, inside in shares.items():  # (levels, K)
        rows[0] += [name, "± SE"]
        for row, of_sources in zip(rows[1:], inside, strict=True):
            row += [f"{of_sources.mean() * 100:.1f} %", f"{standard_error(of_sources) * 100:.1f} %"]
    return Figure(
        "Reliability",
        f"The share of rows inside the interval against the share it claims: means over {len(oof.sources)} sources, "
        "each predicted and calibrated without itself; bars are one standard error over sources. Below the dotted line "
        "an interval promises too much.",
        reliability({names[name]: inside for name, inside in shares.items()}),
        Table(rows),
    )


def reliability(inside: Mapping[str, Float64]) -> Chart:
    """Coverage at RELIABILITY_LEVELS. inside: by name, each source's share of rows inside, (levels, K)."""
    series = [Series("as claimed", (0, 1), (0, 1), "guide")]
    for name, shares in inside.items():
        errors = [standard_error(of_sources) for of_sources in shares]
        bars = errors if all(map(math.isfinite, errors)) else ()
        series.append(Series(name, RELIABILITY_LEVELS, shares.mean(axis=1).tolist(), "line", bars))
    return Chart(Axis("nominal coverage", 0, 1), Axis("coverage, mean over sources", 0, 1), series)


def _width(oof: Oof, method: str, target: str) -> Iterator[Figure]:
    """Each row's error against the half-width of its interval; above the line the interval misses."""
    level, reach = next(
        ((level, reach) for level in WIDTH_LEVELS if np.isfinite(reach := held_out_reach(oof, method, level)).all()),
        (0.0, np.zeros(0)),
    )
    if not len(reach) or not reach.max() > 0.0:
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


def _against_true(oof: Oof, target: Mapping[str, Any]) -> Iterator[Figure]:
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


def _by_source(oof: Oof, y: Float64, rows: Int64, worst: list[int], square: Float64) -> Iterator[Series]:
    """The worst first, on top; the others in grey below."""
    for k in worst:
        label = f"{oof.sources[k]}, RMSE {math.sqrt(square[k]):.2g}"
        yield Series(label, *_xy(oof.target, y, rows[oof.source[rows] == k]))
    if others := len(oof.sources) - len(worst):
        words = f"{others} other source{'s' * (others != 1)}"
        yield Series(words, *_xy(oof.target, y, rows[~np.isin(oof.source[rows], worst)]), tone="muted")


def _xy(x: Float64, y: Float64, rows: Any) -> tuple[list[float], list[float]]:
    return x[rows].tolist(), y[rows].tolist()


def drawn_rows(n: int) -> Int64:
    """The rows to draw, ascending. RandomState, since its stream is frozen (NEP 19)."""
    if n <= MAX_POINTS:
        return np.arange(n)
    return np.sort(np.random.RandomState(DRAW_SEED).permutation(n)[:MAX_POINTS]).astype(np.int64)


def left_out(n: int, rows: Int64) -> str:
    return f" {len(rows)} of {n} rows are drawn, chosen at random." if len(rows) < n else ""
