"""train.py: one training run from corpus to finished files: train, export, check, measure, describe. Writes no file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fr_ensemble.arrays import Float32, Float64, Weights
from fr_ensemble.arrays import Trained as TrainedModels
from fr_ensemble.artifacts.graphs import fused_model, member_model
from fr_ensemble.artifacts.manifest import build, codec_block
from fr_ensemble.artifacts.recipe import COMPILED, Recipe
from fr_ensemble.artifacts.runtime import Ensemble, member_scores, standardise
from fr_ensemble.corpus.rows import SMOKE_ROWS, ColumnSpec, Corpus, random_corpus, read_corpus
from fr_ensemble.corpus.vocabulary import stand_in
from fr_ensemble.evidence import loso, statistics
from fr_ensemble.evidence.comparisons import vmaf_column
from fr_ensemble.evidence.intervals import calibrate_all, residual_quantile
from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS
from fr_ensemble.evidence.metrics import METRICS_VERSION, STORED_PREFIX, MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof, check_size, deviation_of, mean_of
from fr_ensemble.evidence.problems import target_problems
from fr_ensemble.evidence.summaries import read_summaries
from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Progress, Trained

SHIPPED = Path(__file__).parents[1] / "data" / "corpus.parquet"
SHIPPED_NAME = "shipped"
SMOKE_SEED = 0
PROBE_ROWS = 4
PARITY_ROWS = 4096  # from all over the corpus: every weight is seen by each
# Torch, the trainer and onnxruntime add the same float32 numbers in another order; measured differences stay below 4e-5
# target units of a range of 100, so twice or more is a broken export, not rounding.
EXPORT_TOLERANCE = 1e-4
Predict = Callable[[Weights, Float32], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is asked for. corpus: None is the shipped one; random: rows of no meaning, one epoch."""

    entry_id: str
    corpus: Path | None
    spec: ColumnSpec
    recipe: Recipe
    random: bool
    interval: str = DEFAULT_METHOD
    trainer: str = COMPILED
    jobs: int | None = None
    device: str = "cpu"
    engine: str = "local"
    checkpoint: Path | None = None
    resume: bool = False
    corpus_name: str | None = None  # in the documents; None is the file's own

    @property
    def name(self) -> str:
        own = "random rows" if self.random else SHIPPED_NAME if self.corpus is None else self.corpus.name
        return self.corpus_name or own


def run(job: Job, progress: Progress) -> Trained:
    """Train and describe an ensemble. Raises InputError for a corpus that cannot be used."""
    return make(job, read(job, progress), progress)


def make(job: Job, corpus: Corpus, progress: Progress) -> Trained:
    """The same with the corpus at hand."""
    from fr_ensemble.training.trainer import arithmetic, train

    name, (vmaf, lacking) = job.name, _vmaf(job)
    try:
        check_size(corpus.n_rows, len(corpus.sources), len(job.recipe.seeds))  # before hours of training
        trained = train(
            corpus.training_data(),
            job.recipe,
            trainer=job.trainer,
            jobs=job.jobs,
            device=job.device,
            engine=job.engine,
            checkpoint=job.checkpoint,
            resume=job.resume,
            progress=progress,
        )
        oof = Oof.of(corpus, job.recipe.seeds, trained.oof, job.recipe.sha256, vmaf)
        trained = replace(trained, oof=trained.oof[:, :0].copy())  # a million rows are 20 MB, kept in `oof` now
    except ValueError as error:  # a corpus that cannot be trained on, or a run that diverged
        raise InputError(str(error)) from error
    proof = loso.to_files(oof, name)
    expected = loso.Expected(target_range=job.spec.bounds)
    folds, problems = loso.recompute(oof, read_summaries(proof)[0], expected)
    if problems or folds is None:  # members that collapsed: nothing could judge them
        raise InputError(f"{problems[0]}: train longer, or with less weight decay, noise or dropout")
    figures = compute_metrics(MetricInputs(folds))
    n_features, n_slots = len(job.spec.features), job.spec.n_slots
    members = [member_model(weights, n_features) for weights in trained.members]
    fused = fused_model(trained.members, trained.scaler, n_features, n_slots)
    parity = check_export(trained, members, fused, corpus)

    # The trainer's own scores, not onnxruntime's, whose last bits follow the processor.
    mu, sigma = mean_of(trained.fitted), deviation_of(trained.fitted)
    probe_at = np.linspace(0, corpus.n_rows - 1, PROBE_ROWS).astype(int)
    block = codec_block(corpus.codec[probe_at], corpus.conditioning[probe_at], n_slots)
    document = build(
        job.entry_id,
        corpus,
        name,
        job.recipe,
        trained.scaler,
        probe={
            "features": corpus.features[probe_at].tolist(),
            "codec_block": block.tolist(),
            "mu": mu[probe_at].tolist(),
            "sigma": sigma[probe_at].tolist(),
        },
        intervals=calibrate_all(oof, corpus, job.interval).to_dict(),
        conformal_q_residual=residual_quantile(oof, 0.95),
        figures={
            "in_sample_plcc": _finite(statistics.plcc(mu, corpus.target)),
            "in_sample_rmse": statistics.rmse(mu, corpus.target),
            "mean_sigma_train": float(sigma.mean()),
            **{f"{STORED_PREFIX}{key}": value for key, value in sorted(figures.items())},
        },
        random_rows=job.random,
        metrics_version=METRICS_VERSION,
        arithmetic=arithmetic(job.trainer, job.device),
    )
    files = {pin["onnx"]: data for pin, data in zip(document["members"], members, strict=True)}
    files[document["fused"]["onnx"]] = fused
    return Trained(
        files | proof,
        document,
        summary=[*_summary(corpus, name, figures), ("export", parity)],
        warnings=[*_warnings(corpus), *lacking, *_of_method(job.interval)],
    )


def read(job: Job, progress: Progress) -> Corpus:
    """The rows that a run learns from. Raises InputError for a source whose rows no gate could judge."""
    if job.random:
        return random_corpus(SMOKE_ROWS, job.spec, SMOKE_SEED)
    path = job.corpus or SHIPPED
    corpus = read_corpus(path, job.spec, progress=progress)
    for number, name in enumerate(corpus.sources):
        target = corpus.target[corpus.source == number]
        if math.isnan(statistics.plcc(target, target)):
            raise InputError(
                f"{path}, column {job.spec.target}: found one value in all {len(target)} rows of source {name!r}, "
                "expected a target that varies within each source, as a correlation needs: leave the source out"
            )
    if problems := target_problems(corpus.target, corpus.source, corpus.sources, job.spec.bounds):
        raise InputError(f"{path}, column {job.spec.target}: {problems[0]}: leave the source out, or correct its rows")
    return corpus


def _vmaf(job: Job) -> tuple[Float64 | None, list[str]]:
    """Plain VMAF, which the gate compares an ensemble of another target with; a column with holes is not used."""
    if job.random or job.corpus is None:
        return None, []
    try:
        return vmaf_column(job.corpus, job.spec.target), []
    except InputError as error:
        return None, [f"no comparison with plain VMAF: {error}"]


def check_export(trained: TrainedModels, members: Sequence[bytes], fused: bytes, corpus: Corpus) -> str:
    """That the ONNX files give what the network gives, on rows from all over the corpus; the answer in one line.

    Raises WorldError where they do not: a broken engine, not bad data.
    """
    spec = corpus.spec
    chosen = np.unique(np.linspace(0, corpus.n_rows - 1, PARITY_ROWS).astype(int))
    block = codec_block(corpus.codec[chosen], corpus.conditioning[chosen], spec.n_slots)
    inputs = standardise(corpus.features[chosen], block, trained.scaler, spec.n_slots)
    scores = member_scores(members, *inputs)
    mu, sigma = Ensemble(fused).predict(corpus.features[chosen], block)
    by, predict = network()
    expected = np.stack([predict(weights, np.concatenate(inputs, axis=1)) for weights in trained.members])
    worst = 0.0
    for what, one, other in (
        (f"members in {by}", scores, expected),
        ("members in the trainer", scores, trained.fitted[:, chosen]),
        ("fused mu", mu, scores.mean(axis=0)),
        ("fused sigma", sigma, scores.std(axis=0, ddof=1)),
    ):
        worst = max(worst, _difference(one, other, what, spec.bounds))
    lacking = " (torch is not installed)" if by == "numpy" else ""
    return f"{by}{lacking} and onnxruntime differ by at most {worst:.1e} {spec.target} on {len(chosen)} rows"


def network() -> tuple[str, Predict]:
    """What the exported files are compared with: the reference in torch, or the same in numpy, and its name."""
    if find_spec("torch") is not None:
        from fr_ensemble.training import reference

        return "torch", reference.predict
    return "numpy", predict_in_numpy


def predict_in_numpy(weights: Weights, x: Float32) -> Float64:
    """Scores of one member in float64. x: float32 (n, D), standardised."""
    from scipy.special import ndtr

    hidden = x.astype(np.float64) @ weights.w1 + weights.b1
    hidden = hidden * ndtr(hidden) @ weights.w2 + weights.b2
    scores: Float64 = (hidden * ndtr(hidden) @ weights.w3 + weights.b3)[:, 0]
    return scores


def _difference(one: NDArray[Any], other: NDArray[Any], what: str, bounds: tuple[float, float]) -> float:
    tolerance = EXPORT_TOLERANCE * max(1.0, (bounds[1] - bounds[0]) / 100.0)
    worst = float(np.abs(one - other).max())
    if not worst <= tolerance:
        raise WorldError(
            f"export of {what}: onnxruntime differs by {worst:g}, expected at most {tolerance:g}: report it"
        )
    return worst


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _of_method(name: str) -> list[str]:
    warning = INTERVAL_METHODS[name].warning
    return [f"--interval {name}: {warning}"] if warning else []


def _summary(corpus: Corpus, name: str, figures: Mapping[str, float]) -> list[tuple[str, str]]:
    shown = [f"{key} {figures[key]:.4f}" for key in ("mean_plcc", "plcc_spread", "worst_fold_plcc") if key in figures]
    return [
        ("corpus", f"{name}: {corpus.n_rows} rows, {len(corpus.sources)} sources"),
        ("leave-one-source-out", ", ".join(shown)),
    ]


def _warnings(corpus: Corpus) -> list[str]:
    version = corpus.spec.vocabulary_version
    return [
        f"encoder {name!r} has no slot in vocabulary {version}: {count} rows count as {stand_in(version)}"
        for name, count in sorted(corpus.unknown_encoders.items())
    ]
