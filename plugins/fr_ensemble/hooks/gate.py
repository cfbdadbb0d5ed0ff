"""gate.py: what an ensemble's evidence shows, measured from its bytes. Judges nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fr_ensemble.artifacts.manifest import OOF_PATH, is_current, spec_of, summary_path
from fr_ensemble.corpus.rows import ColumnSpec, read_corpus
from fr_ensemble.evidence import measure
from fr_ensemble.evidence.comparisons import Comparison, against_entry, against_vmaf
from fr_ensemble.evidence.intervals import LEVELS, Calibration, Intervals, calibrate
from fr_ensemble.evidence.metrics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, bootstrap_interval, standard_error
from fr_ensemble.evidence.oof import EvidenceProblem, Oof
from fr_ensemble.evidence.pinned import Predictions, predictions
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, GateRequest, Table
from registry_tool.values import Evidence

ONE_SIDED_Z = 1.64  # standard errors that a true coverage exceeds its estimate by in one case of 20


def gate(view: EntryView, request: GateRequest) -> Evidence:
    """Pinned evidence, recomputed from its predictions; or foreign evidence, as far as anything holds it."""
    if request.evidence is not None:
        return _foreign(view, request.evidence, request)
    metrics, problems, details = measure_pinned(view)
    together = [frozenset(metrics)]
    try:
        calibration = Intervals.from_dict((view.manifest or {})["intervals"]).of()
        wider = over_sources(predictions(view), calibration)
        together.append(frozenset(wider))
        metrics |= wider
    except (ValueError, KeyError, InputError) as error:
        problems += (f"the manifest's intervals cannot be read: {error}",)
    compared, lacking = _comparisons(predictions(view).oof, request.against)
    for name, comparison in compared.items():
        together.append(frozenset(comparison.metrics(name)))
        metrics |= comparison.metrics(name)
    problems += lacking
    details["against"] = {name: comparison.to_dict() for name, comparison in compared.items()}
    if "incumbent" in compared and request.against is not None:
        details["against"]["incumbent"]["entry"] = request.against.entry.id
    details |= {"bootstrap": {"seed": BOOTSTRAP_SEED, "draws": BOOTSTRAP_DRAWS, "unit": "source"}}
    return Evidence(metrics, problems, False, evidence_sha256(view), details, tuple(together), _table(details))


def _comparisons(oof: Oof, incumbent: EntryView | None) -> tuple[dict[str, Comparison], tuple[str, ...]]:
    """With plain VMAF and with an incumbent's own evidence; what keeps the latter from being compared is a problem."""
    plain = against_vmaf(oof)
    compared = {} if plain is None else {"vmaf": plain}
    if incumbent is None:
        return compared, ()
    try:
        _, problems, _ = measure_pinned(incumbent)
        compared["incumbent"] = against_entry(oof, predictions(incumbent).oof)
    except (EvidenceProblem, InputError) as error:
        problems = (f"{error}: train both on one corpus",)
    return compared, tuple(f"against {incumbent.entry.id}: {problem}" for problem in problems)


def over_sources(measured: Predictions, calibration: Calibration) -> dict[str, float]:
    """What a policy may ask beyond the seeds' PLCC: how far it can be trusted on the next source.

    mean_plcc_low, mean_plcc_high: 95 % bootstrap interval over sources of the folds' mean PLCC. sigma_ratio: median
    sigma by the target's deviation; near 0 the ensemble has collapsed. For each level, in percent: coverage_80, the
    mean over sources of the share of rows inside where the other sources calibrate; coverage_80_upper, that plus 1.64
    standard errors over sources (below nominal: the claim is refuted at 5 %); coverage_80_worst, the worst source. An
    upper above 1 stays as it is: no nominal level is above 1, so clipped it would decide nothing else, and a verdict
    that stores it would no longer agree.
    What cannot be computed (coverage below 3 sources) is absent, so that a rule on it fails.
    """
    oof, figures = measured.oof, measured.figures
    low, high = bootstrap_interval(figures.plcc.mean(axis=0))
    metrics = {"mean_plcc_low": low, "mean_plcc_high": high}
    spread = float(np.std(oof.target))
    if spread > 0.0 and len(oof.seeds) > 1:
        metrics["sigma_ratio"] = float(np.median(oof.sigma)) / spread
    if len(oof.sources) > 2 and len(oof.seeds) > 1:
        again = calibrate(oof, "row", calibration.method, LEVELS, target_range=calibration.range)
        for quantile in again.levels:
            inside = np.array([*quantile.coverage.values()])
            name = f"coverage_{quantile.level * 100:g}"
            metrics[name] = float(inside.mean())
            metrics[f"{name}_upper"] = float(inside.mean()) + ONE_SIDED_Z * standard_error(inside)
            metrics[f"{name}_worst"] = float(inside.min())
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def evidence_sha256(view: EntryView) -> str:
    """One digest of all evidence files: sha256 of the JSON list of [path, sha256], sorted by path."""
    pins = sorted((pin["path"], pin["sha256"]) for pin in (view.manifest or {}).get("evidence", ()))
    return hashlib.sha256(json.dumps(pins, separators=(",", ":")).encode()).hexdigest()


def measure_pinned(view: EntryView) -> measure.Measured:
    """Every figure, recomputed. Raises InputError for an entry without evidence or with files that cannot be read."""
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: its manifest pins no evidence, expected {OOF_PATH}: train it again")
    seeds = [member["seed"] for member in manifest["members"]]
    try:
        found = predictions(view)
        files = {summary_path(seed): view.read(summary_path(seed)) for seed in seeds}
    except (EvidenceProblem, KeyError) as error:
        raise InputError(f"{view.entry.id}: {error}: train it again") from error
    oof, figures = found.oof, found.figures
    summaries, misnamed = measure.read_summaries(files)
    corpus = manifest["corpus"]
    metrics, problems, details = measure.measure(
        oof, summaries, figures=figures, seeds=seeds, rows_sha256=corpus["rows_sha256"],
        corpus_sha256=corpus["sha256"], recipe_sha256=manifest["recipe_sha256"],
    )  # fmt: skip
    for what, is_, says in (
        ("number of rows", len(oof.target), corpus["n_rows"]),
        ("set of sources", list(oof.sources), corpus["sources"]),
        ("corpus file", bool(oof.corpus_sha256), bool(corpus["sha256"])),  # two digests that differ are found above
        ("corpus", {summary.get("corpus") for summary in summaries.values()}, {corpus["name"]}),
    ):
        if is_ != says:
            problems += (f"evidence of another {what}: found {is_}, the manifest says {says}",)
    return measure.Measured(metrics, (*misnamed, *problems), details)


def _foreign(view: EntryView, files: Mapping[str, bytes], request: GateRequest) -> Evidence:
    """Public `loso_seed{N}.json` files without predictions: judged by their summaries and marked so.

    Raises InputError where a seed that there must be is missing: what is left says nothing of it.
    """
    corpus = request.corpus
    manifest = view.manifest if view.manifest is not None and is_current(view.manifest) else None
    spec = spec_of(manifest, target=True) if manifest else ColumnSpec()
    held = read_corpus(corpus, spec) if corpus is not None else None
    members = view.manifest["members"] if view.manifest is not None else []
    seeds = request.seeds or tuple(member["seed"] for member in members) or None
    if missing := sorted(
        {f"loso_seed{seed}.json" for seed in seeds or ()} - {PurePosixPath(name).name for name in files}
    ):
        raise InputError(f"evidence: found no {', '.join(missing)}, expected a file for each of the seeds {seeds}")
    metrics, problems, details = measure.measure_summaries(
        files,
        seeds=seeds,
        corpus=held,
        corpus_sha256=manifest["corpus"]["sha256"] if manifest else None,
        recipe_sha256=manifest["recipe_sha256"] if manifest else None,
        onnx_sha256={member["seed"]: member["sha256"] for member in members} or None,
    )
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    return Evidence(metrics, problems, True, digest.hexdigest(), details, table=_table(details))


def _table(details: Mapping[str, Any]) -> Table | None:
    """The folds for people: sources by seeds, PLCC."""
    folds = details.get("folds", ())
    if not folds:
        return None
    seeds = list(folds[0]["plcc"])
    rows = [
        [fold["held_out"], str(fold["n"]), *(_figure(fold["plcc"][seed]) for seed in seeds), _figure(fold["mean_plcc"])]
        for fold in folds
    ]
    header = ["held out", "rows", *(f"plcc seed {seed}" for seed in seeds), "mean"]
    return Table([header, *rows])


def _figure(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"
