"""evaluate.py: an ensemble measured on labelled rows. Opens no file of the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from fr_ensemble.arrays import Float64, Mask, RowChoice
from fr_ensemble.artifacts.manifest import codec_block, is_current, offset_of, scaler_of, spec_of
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.record import column_names
from fr_ensemble.corpus.rows import SMOKE_ROWS, Corpus, random_corpus, read_corpus
from fr_ensemble.corpus.seen import numbers_of
from fr_ensemble.evidence import statistics
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.comparisons import VMAF_COLUMN, Curve, ErrorComparison, vmaf_column
from fr_ensemble.evidence.intervals import Intervals, RowCalibrations, encoders_of_clips
from fr_ensemble.evidence.oof import cut
from fr_ensemble.evidence.p1401 import Mapped
from fr_ensemble.evidence.quantiles import CRPS_LEVELS, Calibration
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.charts import Predicted, charts
from fr_ensemble.hooks.drawing import RELIABILITY_LEVELS
from fr_ensemble.hooks.flags import Flagger, PredictedRows
from fr_ensemble.hooks.loaded import intervals_of, known_sources, load_ensemble, predictions_of
from fr_ensemble.hooks.refuted import refuted_encoders, refuted_levels
from fr_ensemble.hooks.targets import check_same_target, check_target
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, EvaluateRequest, Evaluation, Figure
from registry_tool.toolkit import Text
from registry_tool.values import Json, percent

MEASURES = ("plcc", "srocc", "rmse", "crps")
OF_LEVEL = {"coverage": "cover", "width": "width", "interval_score": "score"}  # figure -> its column in the table


def evaluate(view: EntryView, request: EvaluateRequest) -> Evaluation:
    """PLCC, SROCC, RMSE, CRPS; coverage, width and interval score a level; broken down by columns."""
    manifest, ensemble = load_ensemble(view)
    spec = spec_of(manifest, target=True, names=request.column_names)
    target_warnings, flagger = list[str](), Flagger(view)
    if request.smoke:
        corpus, name = random_corpus(SMOKE_ROWS, spec, int(np.random.default_rng().integers(2**31))), "random rows"
    elif request.corpus is not None:
        target_warnings = check_target(view.entry.id, manifest, request.corpus)
        names = column_names(request.corpus)
        own_interval = [name for name in (f"{spec.target}_ci",) if name in names]
        keep = dict.fromkeys([*request.by, *flagger.seen.columns(names), *own_interval])
        corpus = read_corpus(request.corpus, spec, [*keep], min_sources=1, progress=request.progress)
        name = request.corpus.name
    else:
        raise InputError("--corpus: found none, expected rows to evaluate on: name a file")
    block = codec_block(corpus.codec, corpus.conditioning, spec.n_slots)
    mu, sigma = ensemble.predict(corpus.features, block)
    encoders = ["encoder"] if len(np.unique(corpus.groups["encoder"].codes)) > 1 and not request.smoke else []
    groups = {column: _groups(corpus, column, request.smoke) for column in dict.fromkeys([*request.by, *encoders])}
    stored, encoder = intervals_of(view, request.levels), corpus.groups["encoder"]
    own = stored.of_rows(encoder)
    measured = _measure(corpus.target, mu, sigma, own, request.levels)
    methods = _methods(view, stored, request.levels)
    document = {
        "entry": view.entry.id,
        "corpus": name,
        "n_rows": corpus.n_rows,
        "target": {"name": spec.target, **(corpus.definition.to_dict() if corpus.definition else {})},
        **measured(np.arange(corpus.n_rows)),
        "over_sources": _over_sources(corpus, measured, request.levels),
        "clips": _clips(view, corpus, block, stored, request.levels),
        "by": {
            column: {label: measured(rows) | {"n_rows": int(rows.sum())} for label, rows in labelled.items()}
            for column, labelled in groups.items()
        },
        "baselines": {
            name: [_interval(corpus.target, *other.interval(mu, sigma, level), level) for level in request.levels]
            for name, other in methods.items()
        },
    }
    distribution = intervals_of(view, CRPS_LEVELS).of_rows(encoder)
    document["crps_calibrated"] = float(distribution.crps(corpus.target, mu, sigma).mean())
    if mapped := Mapped.of(corpus.target, mu, _half_width(corpus)):
        document["p1401"] = mapped.to_dict()
    if compared := _compared(view, request, corpus, mu):
        document["against"] = compared
    warnings = list[str]()
    if request.corpus is not None and not request.smoke:
        rows = PredictedRows(encoder, corpus.unknown_encoders, corpus.groups, corpus.numeric, sigma)
        found = flagger.of(rows, flagger.other_libvmaf(request.corpus))
        warnings += [f"{words}: {n} rows" for words, n in sorted(found.warnings.items())]
        document["flags"] = {
            name: measured(mask) | {"n_rows": int(mask.sum())}
            for name, mask in (*found.masks.items(), ("none", ~np.any([*found.masks.values()], axis=0)))
            if mask.any()
        }
    warnings += [*corpus.failed_encodes(), *target_warnings]
    if not request.smoke:  # random rows refute nothing
        bounds = {level: own.interval(mu, sigma, level) for level in request.levels}
        origin = manifest.get("calibrated_from", {"id": view.entry.id})["id"]
        warnings += refuted_levels(document["over_sources"], refuted_encoders(corpus, bounds), origin)
    for text, known in known_sources(manifest, () if request.smoke else corpus.sources).items():
        share = f"{len(known)} of {len(corpus.sources)} sources ({known[0]}{', ...' * (len(known) > 1)})"
        warnings.append(f"{share}: {text}")
    for unit in ("row", "clip") if document["clips"] else ("row",):
        warnings += stored.of_rows(encoder, unit).messages(request.levels)
    table = _table(document, stored.calibration().method, request.levels)
    drawn = _figures(view, request.levels, corpus, mu, sigma) if request.figures else ()
    return Evaluation(document, table, warnings, drawn)


def _half_width(corpus: Corpus) -> Float64 | None:
    """Of the 95 % confidence interval of each target, such as `mos_ci` says it; NaN where it says nothing."""
    text = corpus.groups.get(f"{corpus.spec.target}_ci")
    return None if text is None else numbers_of(text)


def _figures(view: EntryView, levels: Sequence[float], corpus: Corpus, mu: Float64, sigma: Float64) -> Sequence[Figure]:
    """Charts of the stored intervals and of those of other methods."""
    grid = sorted({*levels, *RELIABILITY_LEVELS})
    intervals = intervals_of(view, grid)
    stored, own = intervals.calibration(), intervals.of_rows(corpus.groups["encoder"])
    methods: Mapping[str, Calibration | RowCalibrations] = _methods(view, intervals, grid)
    calibrations = {f"stored: {stored.method}": own, **methods}
    return charts(Predicted(corpus, mu, sigma, calibrations), levels)


def _compared(view: EntryView, request: EvaluateRequest, corpus: Corpus, mu: Float64) -> dict[str, Json]:
    """Errors beside plain VMAF's, by a curve fitted on the evidence's rows, and beside another entry's."""
    found: dict[str, Json] = {}
    if request.corpus is None:
        if request.incumbent is not None:
            raise InputError(
                "--incumbent: found random rows, expected rows that both entries can read: name a --corpus"
            )
        return found

    def compare(other: Float64) -> dict[str, Json]:
        return ErrorComparison.of(corpus.sources, corpus.source, corpus.target, mu, other).to_dict()

    seen = predictions_of(view) if is_current(view.manifest or {}) else None
    column = vmaf_column(request.corpus, corpus.spec.target) if seen is not None and seen.vmaf is not None else None
    if seen is not None and seen.vmaf is not None and column is not None:
        found[VMAF_COLUMN] = compare(Curve.fit(seen.vmaf, seen.target)(column))
    if request.incumbent is not None:
        manifest, ensemble = load_ensemble(request.incumbent)
        spec = spec_of(manifest, target=True, names=request.column_names)
        try:
            check_same_target(view.entry.id, view.manifest or {}, request.incumbent.entry.id, manifest)
        except InputError as error:
            raise InputError(f"--incumbent: {error}") from None
        rows = read_corpus(request.corpus, spec, min_sources=1)
        block = codec_block(rows.codec, rows.conditioning, spec.n_slots)
        found["incumbent"] = {"entry": request.incumbent.entry.id, **compare(ensemble.predict(rows.features, block)[0])}
    return found


def _methods(view: EntryView, intervals: Intervals, levels: Sequence[float]) -> dict[str, Calibration]:
    """The methods beside the stored one: members taken for a Gaussian, and what a random row split would claim.

    Where encoders are calibrated apart, the pooled intervals, too. None for a migrated ensemble, which pins no
    predictions to calibrate on.
    """
    stored = intervals.calibration()
    if not is_current(view.manifest or {}):
        return {}
    with usable_evidence(view.entry.id, view.manifest or {}):
        oof = calibrated_on(view.manifest or {}, view.read)
    named = (("gaussian", "gaussian"), ("row-split", "split"))
    found = {name: calibrate(oof, "row", method, levels, target_range=stored.range) for name, method in named}
    return found if intervals.by_encoder is None else {**found, "pooled": stored}


def _over_sources(
    corpus: Corpus, measured_of: Callable[[RowChoice], dict[str, Json]], levels: Sequence[float]
) -> dict[str, Json]:
    """Means over sources, each weighing alike, with standard errors; a source is one draw, however many rows it has.

    measured_of: the figures of some rows.
    """
    rows = [corpus.source == g for g in range(len(corpus.sources))]
    each = [measured_of(r) for r in rows]
    of_levels = []
    for place, level in enumerate(levels):
        at = [measured["levels"][place] for measured in each]
        worst = min(range(len(at)), key=lambda g: at[g]["coverage"])
        named = {"worst_source": corpus.sources[worst], "worst_coverage": at[worst]["coverage"]}
        of_levels.append({"level": level, **_means(at, OF_LEVEL), **named})
    return {"n_sources": len(rows), **_means(each, MEASURES), "levels": of_levels}


def _means(each: Sequence[Mapping[str, Json]], names: Iterable[str]) -> dict[str, float | None]:
    """NAME and NAME_se: mean and standard error over sources; None where a source lacks the figure."""
    found: dict[str, float | None] = {}
    for name in names:
        values = np.array([measured[name] for measured in each], np.float64)
        found |= {name: _finite(float(values.mean())), f"{name}_se": _finite(statistics.standard_error(values))}
    return found


def _clips(
    view: EntryView, corpus: Corpus, block: Float64, stored: Intervals, levels: Sequence[float]
) -> dict[str, Json] | None:
    """The figures of clip means, by the clips' own calibration; None where either side knows no clips."""
    if corpus.clip is None or corpus.clips is None or all(c.unit != "clip" for c in stored.calibrations):
        return None
    manifest, n = view.manifest or {}, len(corpus.clips)
    inputs = standardise(corpus.features, block, scaler_of(manifest), corpus.spec.n_slots)
    scores = member_scores([view.read(member["onnx"]) for member in manifest["members"]], *inputs) + offset_of(manifest)
    means = np.stack([statistics.group_means(member, corpus.clip, n) for member in scores])
    y, mu, sigma = statistics.group_means(corpus.target, corpus.clip, n), means.mean(axis=0), means.std(axis=0, ddof=1)
    own = stored.of_rows(encoders_of_clips(corpus.groups["encoder"], corpus.clip, n), "clip")
    return {"n_clips": n, **_measured(y, cut(mu, corpus.spec.bounds), sigma, own, levels)}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _groups(corpus: Corpus, column: str, random: bool) -> dict[str, Mask]:
    if column == "src":
        return {label: corpus.source == index for index, label in enumerate(corpus.sources)}
    if column not in corpus.groups:
        raise InputError(f"--by: found the column {column!r}, expected src, encoder or a column of the corpus")
    text: Text = corpus.groups[column]
    return {label: text.codes == code for code, label in enumerate(text.names)}


def _measure(
    y: Float64, mu: Float64, sigma: Float64, stored: RowCalibrations, levels: Sequence[float]
) -> Callable[[RowChoice], dict[str, Json]]:
    """What measures some of n rows, by a mask or their numbers."""
    return lambda rows: _measured(y[rows], mu[rows], sigma[rows], stored.of(rows), levels)


def _measured(
    y: Float64, mu: Float64, sigma: Float64, stored: RowCalibrations, levels: Sequence[float]
) -> dict[str, Json]:
    return {
        "plcc": _finite(statistics.plcc(mu, y)),
        "srocc": _finite(statistics.srocc(mu, y)),
        "rmse": statistics.rmse(mu, y),
        "crps": float(statistics.gaussian_crps(y, mu, sigma).mean()),
        "levels": [_interval(y, *stored.interval(mu, sigma, level), level) for level in levels],
    }


def _interval(y: Float64, lower: Float64, upper: Float64, level: float) -> dict[str, float]:
    return {
        "level": level,
        "coverage": statistics.coverage(y, lower, upper),
        "width": statistics.mean_width(lower, upper),
        "interval_score": float(statistics.interval_scores(y, lower, upper, level).mean()),
    }


def _table(document: Mapping[str, Json], method: str, levels: Sequence[float]) -> list[list[str]]:
    header = ["rows", "n", *MEASURES]
    header += [f"{text} {percent(level)} %" for level in levels for text in OF_LEVEL.values()]
    rows = [header, _row(f"all, {method} (stored)", document, document["n_rows"])]
    for name, levels_ in document["baselines"].items():
        rows.append(_row(f"all, {name}", {**document, "levels": levels_}, document["n_rows"]))
    if document["clips"]:
        rows.append(_row("clip means", document["clips"], document["clips"]["n_clips"]))
    over = document["over_sources"]
    rows.append(_row("sources, mean", over, over["n_sources"]))
    rows.append(_row("sources, standard error", over, over["n_sources"], "_se"))
    worst = [[f"{item['worst_coverage']:.3f} {item['worst_source']}", "", ""] for item in over["levels"]]
    rows.append(["sources, worst", str(over["n_sources"]), *[""] * len(MEASURES), *chain.from_iterable(worst)])
    for name, compared in document.get("against", {}).items():
        by = "difference" if compared["difference_t_low"] is None else "difference_t"
        for label, key in (("", "difference"), (", 95 % low", f"{by}_low"), (", 95 % high", f"{by}_high")):
            difference = f"rmse less {compared.get('entry', name)}'s, over sources{label}"
            cells = [_cell(compared[key], 4) if figure == "rmse" else "" for figure in MEASURES]
            row = [difference, str(over["n_sources"]), *cells]
            rows.append(row + [""] * (len(header) - len(row)))
    rows += _one_figure(header, document)
    flagged = document.get("flags", {})
    rows += [_row(f"flagged {name}", measured, measured["n_rows"]) for name, measured in flagged.items()]
    for column, groups in document["by"].items():
        rows += [_row(f"{column}={label}", measured, measured["n_rows"]) for label, measured in groups.items()]
    return rows


def _one_figure(header: Sequence[str], document: Mapping[str, Json]) -> Iterator[list[str]]:
    """Rows with a figure in one column: the calibrated distribution, and P.1401's."""
    n, mapped = document["n_rows"], document.get("p1401")
    shown = [("calibrated distribution", n, "crps", document["crps_calibrated"])]
    if mapped is not None:
        line = f"P.1401: {mapped['offset']:.4f} {mapped['slope']:+.4f} mu"
        shown.append((line, n, "rmse", mapped["rmse"]))
        if known := mapped.get("confidence"):
            ratio = f"P.1401: RMSE*, outlier ratio {known['outlier_ratio']:.3f}"
            shown.append((ratio, known["n_rows"], "rmse", known["rmse_star"]))
    for label, count, column, value in shown:
        yield [label, str(count), *(_cell(value, 4) if name == column else "" for name in header[2:])]


def _row(label: str, measured: Mapping[str, Json], n: int, end: str = "") -> list[str]:
    intervals = [_cell(item[name + end], 3) for item in measured["levels"] for name in OF_LEVEL]
    return [label, str(n), *(_cell(measured[name + end], 4) for name in MEASURES), *intervals]


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
