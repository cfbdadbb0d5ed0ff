"""train.py: one training run from corpus to finished files: train, export, check, measure, describe. Writes no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, TrainedModels
from fr_ensemble.artifacts.choice import RecipeChoice
from fr_ensemble.artifacts.graphs import GRAPH_VERSION, fused_model, member_model
from fr_ensemble.artifacts.manifest import PROBE_STAGES, ManifestParts, codec_block, fused_format_of
from fr_ensemble.artifacts.paths import BASELINES_PATH, LEFT_OUT_PATH
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.record import column_names
from fr_ensemble.corpus.rows import SMOKE_ROWS, Corpus, random_corpus, read_corpus
from fr_ensemble.corpus.seen import DESCRIBING_COLUMNS
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vocabulary import encoder_lines, stand_in
from fr_ensemble.evidence import loso, statistics
from fr_ensemble.evidence.baselines import COMPARED_LEVEL, Baselines, standings, standings_table, write_baselines
from fr_ensemble.evidence.calibrating import residual_quantile
from fr_ensemble.evidence.comparisons import vmaf_column
from fr_ensemble.evidence.intervals import calibrate_all
from fr_ensemble.evidence.left_out import (
    EVERY_ENCODER,
    EncodersLeftOut,
    encoder_standings,
    encoders_apart,
    standing_line,
    write_left_out,
)
from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS
from fr_ensemble.evidence.metrics import METRICS_VERSION, STORED_PREFIX, MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof, check_size, cut, deviation_of, mean_of
from fr_ensemble.evidence.problems import target_problems
from fr_ensemble.evidence.recorded import ALL_EVIDENCE, EvidenceContents, record
from fr_ensemble.evidence.shipped import ShippedScores, ratio_problems
from fr_ensemble.evidence.summaries import read_summaries
from fr_ensemble.training.execution import DEFAULT_EXECUTION, Execution
from fr_ensemble.training.parity import ParitySample, check_export
from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Progress, Trained
from registry_tool.toolkit import Text
from registry_tool.values import Json

SHIPPED_CORPUS = Path(__file__).parents[1] / "data" / "corpus.parquet"
SHIPPED_NAME = "shipped"
SMOKE_SEED = 0
PROBE_ROWS = 4
BASELINES_LIBRARY = "scikit-learn"
BY_ENCODER = (
    "--group encoder: figures and intervals are for a new encoder of sources that training has, not for new ones"
)
Range = tuple[float, float] | None  # of mu


@dataclass(frozen=True, slots=True)
class Choosing:
    """Recipes that a run is to choose among, for a corpus of fewer rows than `below`; None: for any."""

    candidates: Mapping[str, Recipe]
    below: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is asked for. corpus: None is the shipped one; random: rows of no meaning, one epoch.

    choosing: None, or where it does not apply: the recipe is `recipe`.
    """

    entry_id: str
    corpus: Path | None
    spec: ColumnSpec
    recipe: Recipe
    random: bool
    interval: str = DEFAULT_METHOD
    execution: Execution = DEFAULT_EXECUTION
    corpus_name: str | None = None  # in the documents; None is the file's own
    contents: EvidenceContents = ALL_EVIDENCE
    graph_version: int = GRAPH_VERSION
    choosing: Choosing | None = None

    @property
    def name(self) -> str:
        own = "random rows" if self.random else SHIPPED_NAME if self.corpus is None else self.corpus.name
        return self.corpus_name or own

    @property
    def mu_range(self) -> tuple[float, float] | None:
        """What mu is cut to, in the fused graph and in evidence."""
        return self.spec.bounds if self.graph_version > 1 else None


def run(job: Job, progress: Progress) -> Trained:
    """Train and describe an ensemble. Raises InputError for a corpus that cannot be used."""
    return make(job, read(job, progress), progress)


def make(job: Job, corpus: Corpus, progress: Progress) -> Trained:
    """The same with the corpus at hand.

    The export is checked last, on a sample, when the rows are gone.
    """
    from fr_ensemble.training.choosing import train_chosen
    from fr_ensemble.training.trainer import arithmetic, train

    (vmaf, no_vmaf), spec = _vmaf(job), job.spec
    path = None if job.random else job.corpus or SHIPPED_CORPUS
    try:
        check_size(
            corpus.n_rows, len(corpus.sources), len(job.recipe.seeds), len(corpus.clips or ())
        )  # before hours of training
        choice, not_chosen = _choice(job, corpus, progress)
        job = replace(job, recipe=choice.recipe) if choice is not None else job
        apart = _encoders_apart(job, corpus)
        recorded = record(corpus, path, job.recipe, job.contents, progress)
        baselines, no_baselines = _baselines(job, corpus, progress)
        if choice is not None:
            trained = train_chosen(corpus.training_data(), choice, job.execution, progress)
        else:
            trained = train(corpus.training_data(), job.recipe, job.execution, progress)
        oof = Oof.of(corpus, job.recipe.seeds, trained.oof, job.recipe.sha256, vmaf, job.mu_range)
        left_out = _left_out(job, corpus, apart, progress)
        trained = replace(trained, oof=trained.oof[:, :0].copy())  # a million rows are 20 MB, kept in `oof` now
    except ValueError as error:  # a corpus that cannot be trained on, or a run that diverged
        raise InputError(str(error)) from error
    evidence = loso.to_files(oof, job.name)
    expected = loso.Expected(target_range=spec.bounds)
    scores, problems = loso.recompute(oof, read_summaries(evidence)[0], expected)
    if problems or scores is None:  # members that collapsed: nothing could judge them
        raise InputError(f"{problems[0]}: train on more sources, longer, or with less weight decay, noise or dropout")
    metrics = compute_metrics(MetricInputs(scores))
    document = ManifestParts(
        job.entry_id,
        corpus,
        job.name,
        job.recipe,
        trained.scaler,
        probe=_probe(corpus, trained, job.mu_range),
        intervals=calibrate_all(oof, corpus, job.interval).to_dict(),
        conformal_q_residual=residual_quantile(oof, 0.95),
        eval=_in_sample(corpus, trained, job.mu_range)
        | {f"{STORED_PREFIX}{key}": metrics[key] for key in sorted(metrics)},
        metrics_version=METRICS_VERSION,
        arithmetic=arithmetic(job.execution),
        random_rows=job.random,
        graph_version=job.graph_version,
    ).to_dict()
    document |= recorded.fields
    document |= {"recipe_choice": choice.to_dict()} if choice is not None else {}
    extra = dict(recorded.files)
    table: Sequence[Sequence[str]] = ()
    if left_out is not None:
        extra[LEFT_OUT_PATH] = write_left_out(left_out)
        document["encoders_left_out"] = list(left_out.encoders)
    if baselines is not None:
        extra[BASELINES_PATH] = write_baselines(baselines)
        document["baselines"] = baselines.fields(corpus.target)
        document["environment"].append({"name": BASELINES_LIBRARY, "version": metadata.version(BASELINES_LIBRARY)})
        table = standings_table(standings(oof, baselines, job.interval, spec.bounds))
    document["evidence"] += [{"path": path} for path in extra]
    odd = [*recorded.warnings, *_worse_on_seen_rows(corpus, trained, oof)]
    summary = _summary(corpus, job.name, metrics)
    if left_out is not None:
        mean = encoder_standings(oof, left_out, job.interval, COMPARED_LEVEL)[EVERY_ENCODER]
        summary.append(("encoders left out", standing_line(mean, spec.target or "", COMPARED_LEVEL)))
    summary += [("recipe", choice.line().removeprefix("recipe "))] if choice is not None else []
    of_method = INTERVAL_METHODS[job.interval].warnings()
    warnings = [*_warnings(corpus), *not_chosen, *no_vmaf, *no_baselines, *odd, *of_method]
    members = [member_model(weights, len(spec.features)) for weights in trained.members]
    fused = fused_model(trained.members, trained.scaler, len(spec.features), spec.n_slots, fused_format_of(document))
    sample = ParitySample.of(corpus, trained)
    del corpus, oof, trained, vmaf
    summary.append(("export", check_export(sample, members, fused, job.mu_range)))
    files = {pin["onnx"]: data for pin, data in zip(document["members"], members, strict=True)}
    return Trained(
        {**files, document["fused"]["onnx"]: fused, **evidence, **extra},
        document,
        summary=summary,
        warnings=warnings,
        table=table,
    )


def _probe(corpus: Corpus, trained: TrainedModels, mu_range: Range) -> dict[str, Json]:
    """Some rows and what the trainer gives for them: not onnxruntime, whose last bits follow the processor."""
    rows = np.linspace(0, corpus.n_rows - 1, PROBE_ROWS).astype(int)
    block = codec_block(corpus.codec[rows], corpus.conditioning[rows], corpus.spec.n_slots)
    encoder, fitted = corpus.groups["encoder"], trained.fitted[:, rows]
    conditions = {"conditioning": corpus.raw_conditioning[rows].tolist()} if corpus.spec.conditioning else {}
    inputs = {
        "features": corpus.features[rows].tolist(),
        "encoder": [encoder.names[code] for code in encoder.codes[rows]],
        **conditions,
        "codec_block": block.tolist(),
    }
    stages = {name: PROBE_STAGES[name] for name in inputs}
    mu, sigma = cut(mean_of(fitted), mu_range), deviation_of(fitted)
    return {**inputs, "stages": stages, "mu": mu.tolist(), "sigma": sigma.tolist()}


def _in_sample(corpus: Corpus, trained: TrainedModels, mu_range: Range) -> dict[str, float | None]:
    mu, sigma = cut(mean_of(trained.fitted), mu_range), deviation_of(trained.fitted)
    plcc = statistics.plcc(mu, corpus.target)
    return {
        "in_sample_plcc": plcc if math.isfinite(plcc) else None,
        "in_sample_rmse": statistics.rmse(mu, corpus.target),
        "mean_sigma_train": float(sigma.mean()),
    }


def _worse_on_seen_rows(corpus: Corpus, trained: TrainedModels, oof: Oof) -> list[str]:
    """What the gate will hold the entry for, said when it is trained."""
    mu, sigma = cut(mean_of(trained.fitted), oof.mu_range), deviation_of(trained.fitted)
    return ratio_problems(ShippedScores(np.arange(corpus.n_rows), mu, sigma, True), oof)


def read(job: Job, progress: Progress) -> Corpus:
    """The rows that a run learns from. Raises InputError for a source whose rows no gate could judge."""
    if job.random:
        return random_corpus(SMOKE_ROWS, job.spec, SMOKE_SEED)
    path = job.corpus or SHIPPED_CORPUS
    spec, names = job.spec, column_names(path)
    keep = [name for name in DESCRIBING_COLUMNS if name in names and name != spec.source_column]
    corpus = read_corpus(path, spec, keep, progress=progress)
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


def _choice(job: Job, corpus: Corpus, progress: Progress) -> tuple[RecipeChoice | None, list[str]]:
    """The recipe of each fold where the job says that it is chosen, or why it cannot be."""
    from fr_ensemble.training.choosing import MIN_CHOICE_SOURCES, choose

    if job.random or job.choosing is None or (job.choosing.below or math.inf) <= corpus.n_rows:
        return None, []
    if len(corpus.sources) < MIN_CHOICE_SOURCES:
        found = f"found {len(corpus.sources)} sources, and to choose one takes {MIN_CHOICE_SOURCES}"
        return None, [f"the recipe is the public one: {found}"]
    candidates = job.choosing.candidates
    return choose(corpus.training_data(), corpus.sources, candidates, job.execution, progress), []


def _baselines(job: Job, corpus: Corpus, progress: Progress) -> tuple[Baselines | None, list[str]]:
    """Standard models on the same folds; none where they were left out, or scikit-learn is missing.

    Raises WorldError where it is there and broken.
    """
    if job.random or not job.contents.baselines:
        return None, []
    if find_spec("sklearn") is None:
        return None, [f"no baselines: {BASELINES_LIBRARY} is not installed: pip install {BASELINES_LIBRARY}"]
    from fr_ensemble.training.baselines import fit_baselines, loading_error

    if error := loading_error():
        raise WorldError(f"{BASELINES_LIBRARY} does not load ({error}): reinstall it, or train with --no-baselines")
    return fit_baselines(corpus.training_data(), corpus.rows_sha256, job.execution.jobs, progress), []


def _encoders_apart(job: Job, corpus: Corpus) -> Text | None:
    """The encoder of each row, where they are to be left out. Raises InputError where they cannot be."""
    from fr_ensemble.training.left_out import check_encoders

    if not job.contents.encoders_left_out:
        return None
    encoder = encoders_apart(corpus.groups["encoder"], corpus.spec.vocabulary_version)
    check_encoders(corpus.training_data(), encoder, job.recipe)
    return encoder


def _left_out(job: Job, corpus: Corpus, encoder: Text | None, progress: Progress) -> EncodersLeftOut | None:
    """Each row by models that saw neither its source nor its encoder, where that is asked for."""
    from fr_ensemble.training.left_out import predict_left_out

    if encoder is None:
        return None
    found = predict_left_out(corpus.training_data(), encoder, job.recipe, job.execution, progress)
    return EncodersLeftOut(encoder.names, encoder.codes, found.astype(np.float64), corpus.rows_sha256)


def _summary(corpus: Corpus, name: str, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    shown = [f"{key} {metrics[key]:.4f}" for key in ("mean_plcc", "plcc_spread", "worst_fold_plcc") if key in metrics]
    return [
        ("corpus", f"{name}: {corpus.n_rows} rows, {len(corpus.sources)} sources"),
        ("leave-one-source-out", ", ".join(shown)),
    ]


def _warnings(corpus: Corpus) -> list[str]:
    version = corpus.spec.vocabulary_version
    counts = {repr(name): count for name, count in sorted(corpus.unknown_encoders.items())}
    lines = encoder_lines(counts, f" has no slot in vocabulary {version}", f" have no slot in vocabulary {version}")
    return [
        *corpus.failed_encodes(),
        *([BY_ENCODER] if corpus.spec.by_encoder else []),
        *(f"{words}: {count} rows count as {stand_in(version)}" for words, count in lines.items()),
    ]
