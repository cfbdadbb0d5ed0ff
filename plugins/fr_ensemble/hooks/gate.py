"""gate.py: what an ensemble's evidence shows, measured from its bytes. Judges nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np

from fr_ensemble.artifacts.choice import choice_of
from fr_ensemble.artifacts.manifest import is_current, is_runnable, spec_of
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.sources import SourceRows, read_sources
from fr_ensemble.evidence.baselines import BASELINE_PREFIX, compare_with_baselines
from fr_ensemble.evidence.comparisons import ErrorComparison, compare_with_entry, compare_with_vmaf
from fr_ensemble.evidence.entry import checked_evidence, recorded_inputs
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.loso import Expected, FoldScores, read_foreign
from fr_ensemble.evidence.metrics import METRICS, METRICS_VERSION, MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.power import power
from fr_ensemble.evidence.quantiles import NOMINAL_LEVELS
from fr_ensemble.evidence.shipped import run_other
from fr_ensemble.evidence.statistics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED
from fr_ensemble.evidence.summaries import lacking, read_summaries
from fr_ensemble.hooks.oof import as_predictions
from fr_ensemble.hooks.targets import check_same_target
from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, GateRequest, Table
from registry_tool.toolkit import first_names
from registry_tool.values import Evidence, Json


def gate(view: EntryView, request: GateRequest) -> Evidence:
    """The entry's own evidence, recomputed from its predictions; or foreign evidence, as far as it can be checked."""
    if request.evidence is not None:
        return _foreign(view, request.evidence, request)
    found = checked_evidence(view)
    problems, intervals = (*found.problems, *found.unfit), None
    try:
        intervals = Intervals.from_dict((view.manifest or {})["intervals"])
    except (ValueError, KeyError, InputError) as error:
        problems += (f"the manifest's intervals cannot be read: {error}",)
    compared, lacking = _comparisons(view, found.oof, request)
    compared |= compare_with_baselines(found.oof, found.baselines)
    calibration = intervals.calibration() if intervals is not None else None
    inputs = MetricInputs(found.scores, found.oof, calibration, compared, found.shipped, found.calibration)
    metrics = compute_metrics(inputs)
    seen = power(inputs, request.rules, metrics)
    details = found.scores.details()
    details["against"] = {name: comparison.to_dict() for name, comparison in compared.items()}
    if "incumbent" in compared:
        details["against"]["incumbent"]["entry"] = request.incumbent_id
    details |= {"power": seen.to_dict()} if seen is not None else {}
    details |= {"bootstrap": {"seed": BOOTSTRAP_SEED, "draws": BOOTSTRAP_DRAWS, "unit": "source"}}
    return Evidence(
        metrics,
        (*problems, *lacking),
        sha256=evidence_sha256(view),
        details=details,
        table=_table(found.scores),
        together=together(metrics),
        metrics_version=METRICS_VERSION,
        since={name: METRICS[name].since for name in metrics},
        warnings=(*found.warnings, *(intervals.unguaranteed(NOMINAL_LEVELS) if intervals is not None else ())),
        notes=(
            *_chosen(view),
            *_beside_best(inputs, _unit(view)),
            *(seen.lines(len(found.oof.sources), _unit(view)) if seen else ()),
        ),
    )


def _beside_best(inputs: MetricInputs, unit: str) -> Iterator[str]:
    """A line on the best baseline; none without baselines."""
    if not inputs.baselines:
        return
    best = max(inputs.baselines, key=lambda comparison: comparison.difference)
    name = next(name for name, one in inputs.comparisons.items() if one is best).removeprefix(BASELINE_PREFIX)
    low, high = best.t_bounds
    over = f" (95 % over sources {low:+.3g}..{high:+.3g})" if math.isfinite(low) else ""
    errors = f"RMSE {best.entry_rmse.mean():.3g} {unit} against {best.baseline_rmse.mean():.3g}"
    yield f"best baseline, {name.replace('_', ' ')}: {errors}: {best.difference:+.3g}{over}"


def _chosen(view: EntryView) -> Iterator[str]:
    """A line on the recipe, where training chose it in every fold."""
    with suppress(ValueError):  # a finding of validate
        if (choice := choice_of(view.manifest or {})) is not None:
            yield choice.line()


def _unit(view: EntryView) -> str:
    return str((view.manifest or {})["target"]["name"])


def evidence_sha256(view: EntryView) -> str:
    """One digest of all evidence files: sha256 of the JSON list of [path, sha256], sorted by path."""
    pins = sorted((pin["path"], pin["sha256"]) for pin in (view.manifest or {}).get("evidence", ()))
    return hashlib.sha256(json.dumps(pins, separators=(",", ":")).encode()).hexdigest()


def _comparisons(view: EntryView, oof: Oof, request: GateRequest) -> tuple[dict[str, ErrorComparison], tuple[str, ...]]:
    """With plain VMAF and with an incumbent's own evidence; what keeps the latter from being compared is a problem."""
    plain, incumbent = compare_with_vmaf(oof), request.incumbent
    compared = {} if plain is None else {"vmaf": plain}
    if request.incumbent_oof is not None:
        try:
            other = np.array(request.incumbent_oof.in_order_of(as_predictions(view.entry.id, oof)))
        except InputError as error:
            return compared, (f"incumbent {error}",)
        compared["incumbent"] = ErrorComparison.on(oof, other)
    if incumbent is None:
        return compared, ()
    try:
        check_same_target(view.entry.id, view.manifest or {}, incumbent.entry.id, incumbent.manifest or {})
    except InputError as error:
        return compared, (f"incumbent {error}",)
    if not is_current(incumbent.manifest or {}):
        return _with_migrated(view, oof, incumbent, compared)
    try:
        of_incumbent = checked_evidence(incumbent)
        problems = of_incumbent.problems
        compared["incumbent"] = compare_with_entry(oof, of_incumbent.oof)
    except (EvidenceProblem, InputError) as error:
        problems = (f"{error}: train both on one corpus",)
    return compared, tuple(f"incumbent {incumbent.entry.id}: {problem}" for problem in problems)


def _with_migrated(
    view: EntryView, oof: Oof, incumbent: EntryView, compared: dict[str, ErrorComparison]
) -> tuple[dict[str, ErrorComparison], tuple[str, ...]]:
    """With a migrated ensemble, which pins no predictions: its fused graph is run on the entry's own rows.

    It may have been trained on them, which flatters it: an entry that is better all the same is better.
    """
    manifest, place = incumbent.manifest or {}, f"incumbent {incumbent.entry.id}"
    if not is_runnable(manifest):
        return compared, (f"{place}: it has no fused graph to run, expected one: migrate its registry again",)
    try:
        inputs = recorded_inputs(view)
        mu = run_other(incumbent, inputs, spec_of(view.manifest or {}, target=True), spec_of(manifest, target=True))
    except (EvidenceProblem, InputError) as error:
        return compared, (f"{place}: {error}",)
    compared["incumbent"] = ErrorComparison.on(oof, mu)
    return compared, ()


def together(names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Metrics that came with one release and need the same evidence: a verdict without a version has all or none."""
    groups: dict[tuple[int, str], set[str]] = {}
    for name in names:
        metric = METRICS[name]
        groups.setdefault((metric.since, metric.needs), set()).add(name)
    return tuple(map(frozenset, groups.values()))


def _foreign(view: EntryView, files: Mapping[str, bytes], request: GateRequest) -> Evidence:
    """Public `loso_seed{N}.json` files without predictions: judged by their summaries and marked so.

    Raises InputError where a seed that there must be is missing: what is left says nothing of it.
    """
    manifest = view.manifest if view.manifest is not None and is_current(view.manifest) else None
    members = view.manifest["members"] if view.manifest is not None else []
    seeds = request.seeds or tuple(member["seed"] for member in members) or None
    wanted = {f"loso_seed{seed}.json" for seed in seeds or ()}
    if missing := sorted(wanted - {PurePosixPath(name).name for name in files}):
        raise InputError(f"evidence: found no {first_names(missing)}, expected a file for each of {len(wanted)} seeds")
    expected = Expected(
        seeds=seeds,
        recipe_sha256=manifest["recipe_sha256"] if manifest else None,
        corpus_sha256=manifest["corpus"]["sha256"] if manifest else None,
        corpus=_source_rows(request, manifest),
        onnx_sha256={member["seed"]: member["sha256"] for member in members},
    )
    scores, problems = read_foreign(files, expected)
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    metrics = compute_metrics(MetricInputs(scores)) if scores else {}
    details, table = (scores.details(), _table(scores)) if scores else ({}, None)
    return Evidence(
        metrics,
        problems,
        summary_only=True,
        sha256=digest.hexdigest(),
        details=details,
        table=table,
        metrics_version=METRICS_VERSION,
        warnings=lacking(read_summaries(files)[0], _digests_wanted(view, manifest)),
    )


def _source_rows(request: GateRequest, manifest: Mapping[str, Json] | None) -> SourceRows | None:
    """Of the file at hand. Which columns the rows' digest is of is known for an entry of version 2 alone."""
    if request.corpus is None:
        return None
    if manifest is None:
        return read_sources(request.corpus, request.column_names)
    return SourceRows.of(read_corpus(request.corpus, spec_of(manifest, target=True, names=request.column_names)))


def _digests_wanted(view: EntryView, manifest: Mapping[str, Json] | None) -> dict[str, str]:
    """What a summary should carry: field -> what cannot be told without it."""
    wanted = {"corpus_sha256": "which corpus was measured, and whether it changed since,"}
    if manifest is not None:
        wanted["recipe_sha256"] = "whether the entry's recipe was measured"
    elif view.manifest is not None:
        wanted["onnx_sha256"] = "whether these members were measured"
    return wanted


def _table(scores: FoldScores) -> Table:
    """The folds for people: sources by seeds, PLCC."""
    means = scores.plcc.mean(axis=0)
    rows = [
        [fold, str(scores.n[k]), *(f"{plcc:.4f}" for plcc in (*scores.plcc[:, k], means[k]))]
        for k, fold in enumerate(scores.folds)
    ]
    return Table([["held out", "rows", *(f"plcc seed {seed}" for seed in scores.seeds), "mean"], *rows])
