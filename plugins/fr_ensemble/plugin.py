"""plugin.py: the hooks of kind fr_ensemble, a few lines each. Heavy imports stay inside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import registry_tool.schemas as schemas

from fr_ensemble.artifacts.paths import KIND
from fr_ensemble.options import OPTIONS, described, entry_fields, job_of
from registry_tool.errors import InputError
from registry_tool.findings import Finding
from registry_tool.hookspec import (
    CalibrateRequest,
    EntryView,
    EvaluateRequest,
    Evaluation,
    Figure,
    GateRequest,
    Kind,
    Level,
    OofPredictions,
    Predictor,
    ReproduceRequest,
    Reproduction,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.values import Evidence, Policy, Rule

ORIGINAL_GATE = (Rule("mean_plcc", ">=", 0.95), Rule("plcc_spread", "<=", 0.005), Rule("min_seed_plcc", ">=", 0.95))
ENOUGH_EVIDENCE = (Rule("n_seeds", ">=", 5), Rule("n_folds", ">=", 8), Rule("min_fold_rows", ">=", 8))
DEFAULT_POLICY = Policy((*ORIGINAL_GATE, *ENOUGH_EVIDENCE, Rule("pooled_plcc", ">=", 0.90)))
# The original gate's rules, and as many seeds as it had: summaries alone show no more.
SUMMARY_POLICY = Policy((*ORIGINAL_GATE, Rule("n_seeds", ">=", 5)))
RECORDED_FIELDS = {
    "/environment": "what it was trained with: `registry reproduce` says which items made a difference",
    "/target/libvmaf": "what computed the scores; no score says so",
    "/corpus/source_column": "what the corpus' file called them; the evidence has their names",
    "/corpus/encoder_column": "what the corpus' file called them; the evidence has their names",
    "/corpus/ranges": "what the video of the corpus was; the evidence has no columns but the inputs",
    "/corpus/record": "how the corpus was made; the digest of its rows is compared",
    "/probe/codec_block": "inputs of the probe rows; what the graphs give for them is compared",
    **dict.fromkeys(
        (
            "/calibration/group",
            *(f"/calibration/corpus/{n}" for n in ("name", "source_column", "encoder_column", "encoders")),
            *(f"/calibration/corpus/{n}" for n in ("ranges", "record")),
        ),
        "how the file was called and made; its rows, their sources and targets are compared",
    ),
    "/metrics_version": "which metrics a verdict may not lack; a later version asks for more of them",
}
TRAINING_LIBRARIES = ("numba", "scipy")  # of the extra `train`; without pyarrow a corpus may be CSV or JSONL


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    summary = "deep ensemble of full-reference quality regressors"
    findings = dict.fromkeys(("ensemble-", "intervals-", "evidence-"), "fr_ensemble.checks")
    return [
        Kind(
            KIND,
            summary,
            schemas.load(KIND),
            OPTIONS,
            DEFAULT_POLICY,
            findings=findings,
            summary_policy=SUMMARY_POLICY,
            recorded=RECORDED_FIELDS,
            metrics="fr_ensemble.evidence.metrics:DESCRIPTIONS",
        )
    ]


@hookimpl
def registry_train(request: TrainRequest) -> Trained:
    shipped = request.corpus is None and not request.smoke  # which is a parquet
    _need(*TRAINING_LIBRARIES, *(("pyarrow",) if shipped else ()))
    from fr_ensemble.hooks.train import run

    job, fields = job_of(request), entry_fields(request)
    return described(run(job, request.progress), fields)


@hookimpl
def registry_calibrate(view: EntryView, request: CalibrateRequest) -> Trained:
    from fr_ensemble.hooks.calibrate import calibrate

    return calibrate(view, request)


@hookimpl
def registry_migrate(view: EntryView) -> Trained | None:
    from fr_ensemble.hooks.migrate import complete

    return complete(view)


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    if view.entry.kind != KIND:
        return []
    from fr_ensemble.hooks.verify import verify

    return list(verify(view, level))


@hookimpl
def registry_gate(view: EntryView, request: GateRequest) -> Evidence:
    from fr_ensemble.hooks.gate import gate

    return gate(view, request)


@hookimpl
def registry_oof(view: EntryView) -> OofPredictions:
    from fr_ensemble.hooks.oof import oof_predictions

    return oof_predictions(view)


@hookimpl
def registry_evaluate(view: EntryView, request: EvaluateRequest) -> Evaluation:
    from fr_ensemble.hooks.evaluate import evaluate

    return evaluate(view, request)


@hookimpl
def registry_reproduce(view: EntryView, request: ReproduceRequest) -> Reproduction:
    if "calibrated_from" in (view.manifest or {}):  # nothing is trained
        from fr_ensemble.hooks.calibrate import reproduce_calibration

        return reproduce_calibration(view, request)
    _need(*TRAINING_LIBRARIES)
    from fr_ensemble.hooks.reproduce import reproduce

    return reproduce(view, request)


@hookimpl
def registry_load(view: EntryView) -> Predictor:
    from fr_ensemble.hooks.predict import EnsemblePredictor

    return EnsemblePredictor(view)


@hookimpl
def registry_figures(view: EntryView, rules: Sequence[Rule]) -> Sequence[Figure] | None:
    from fr_ensemble.hooks.figures import figures

    return figures(view, rules)


@hookimpl
def registry_commands() -> Iterable[click.Command]:
    from fr_ensemble.commands import group

    return [group]


def _need(*modules: str) -> None:
    """Refuse before the work; the names of these modules are those of their distributions."""
    from importlib.util import find_spec

    if missing := [module for module in modules if find_spec(module) is None]:
        names = " and ".join(missing)
        raise InputError(f"training needs {names}, found none installed: pip install {' '.join(missing)}")
