"""plugin.py: the hooks of kind fr_ensemble and its options. Heavy imports stay inside the hooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import registry_tool.schemas as schemas

from registry_tool.errors import InputError
from registry_tool.hookspec import (
    Batch,
    EntryView,
    EvaluateRequest,
    Evaluation,
    Figure,
    GateRequest,
    Kind,
    Level,
    PredictRequest,
    ReproduceRequest,
    Reproduction,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.values import Evidence, Finding, Policy, Rule, checked_text

KIND = "fr_ensemble"
SHIPPED_LICENSE = "BSD-3-Clause-Plus-Patent"  # of the corpus that ships with the plugin
DEFAULT_POLICY = Policy(
    (Rule("mean_plcc", ">=", 0.95), Rule("plcc_spread", "<=", 0.005), Rule("min_seed_plcc", ">=", 0.95))
)
# The original gate's rules, and as many seeds as it had: summaries alone show no more.
SUMMARY_POLICY = Policy(
    (
        *(Rule("mean_plcc", ">=", 0.95), Rule("plcc_spread", "<=", 0.005), Rule("min_seed_plcc", ">=", 0.95)),
        Rule("n_seeds", ">=", 5),
    )
)

OPTIONS = [
    click.Option(["--target"], default="vmaf", show_default=True, help="Column to predict."),
    click.Option(["--target-range"], metavar="LOW,HIGH", help="Its bounds; known for vmaf (0,100) and mos (1,5)."),
    click.Option(["--features"], metavar="A,B,...", help="Feature columns.  [default: libvmaf's canonical six]"),
    click.Option(
        ["--condition", "conditions"],
        multiple=True,
        metavar="[log2:]COLUMN",
        help="A numeric column beside the encoder; again for more.",
    ),
    click.Option(
        ["--vocabulary"],
        type=click.IntRange(1, 2),
        default=2,
        show_default=True,
        help="Version of the encoder list: 12 or 6 slots.",
    ),
    click.Option(["--seeds"], default="0,1,2,3,4", show_default=True, metavar="N,N,...", help="One member a seed."),
    click.Option(
        ["--epochs"], type=click.IntRange(1), default=200, help="Passes over the rows.  [default: 200; 1 with --smoke]"
    ),
    click.Option(["--batch-size"], type=click.IntRange(1), default=32, show_default=True, help="Rows a step."),
    click.Option(["--learning-rate"], type=float, default=5e-4, show_default=True, help="Adam's step size."),
    click.Option(["--weight-decay"], type=float, default=1e-5, show_default=True, help="L2 term of Adam."),
    click.Option(["--decoupled-weight-decay"], is_flag=True, help="AdamW's decay instead of the L2 term."),
    click.Option(["--dropout"], type=float, default=0.1, show_default=True, help="Share of hidden units left out."),
    click.Option(
        ["--input-noise"], type=float, default=0.0, show_default=True, help="Gaussian noise on standardised inputs."
    ),
    click.Option(
        ["--early-stopping"],
        type=click.IntRange(0),
        default=0,
        metavar="EPOCHS",
        help="Stop a model that long after its best epoch on a fifth of its training sources.  [default: off]",
    ),
    click.Option(
        ["--hidden"], type=click.IntRange(1), default=64, show_default=True, help="Width of both hidden layers."
    ),
    click.Option(
        ["--interval"],
        default="loso-hcp-t",
        show_default=True,
        metavar="METHOD",
        help="loso-hcp-t, gaussian, split, source-split, pooled-cdf or abs: how intervals are calibrated.",
    ),
    click.Option(["--jobs"], type=click.IntRange(1), help="Processor cores to use.  [default: all]"),
    click.Option(
        ["--trainer"],
        metavar="NAME",
        help="compiled, or reference: the same models in plain torch.  [default: compiled; reference with --device]",
    ),
    click.Option(["--device"], default="cpu", show_default=True, help="Of the reference trainer: cpu, cuda, ..."),
    click.Option(
        ["--engine"], default="local", show_default=True, help="local: threads; ray: a Ray cluster's workers."
    ),
    click.Option(
        ["--checkpoint"], type=click.Path(path_type=Path), metavar="DIR", help="Keep a long run's state there."
    ),
    click.Option(["--resume"], is_flag=True, help="Go on from --checkpoint, to the same bytes."),
    click.Option(["--license"], metavar="SPDX", help="Licence of the model; follows from the corpus it learned from."),
    click.Option(["--description"], metavar="TEXT", help="One line for the registry."),
]


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    summary = "deep ensemble of full-reference quality regressors"
    findings = dict.fromkeys(("ensemble-", "intervals-", "evidence-"), "fr_ensemble.hooks.verify")
    options = tuple(OPTIONS)
    return [
        Kind(
            KIND, summary, schemas.load(KIND), options, DEFAULT_POLICY, findings=findings, summary_policy=SUMMARY_POLICY
        )
    ]


@hookimpl
def registry_train(request: TrainRequest) -> Trained:
    from dataclasses import replace

    _need("numba")
    from fr_ensemble.hooks.train import run

    job = _job(request)
    for name, most in (("license", 128), ("description", 256)):
        if request.options.get(name) is not None:
            checked_text(f"--{name}", request.options[name], most)
    trained = run(job, request.progress)
    named = {"license": request.options.get("license"), "description": request.options.get("description")}
    warnings = list(trained.warnings)
    if named["license"] is None and (job.corpus is None or job.random):
        named["license"] = SHIPPED_LICENSE
    if named["license"] is None:
        warnings.append("no licence is recorded: say --license SPDX; it follows from the corpus")
    return replace(trained, entry={k: v for k, v in named.items() if v is not None}, warnings=warnings)


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
def registry_evaluate(view: EntryView, request: EvaluateRequest) -> Evaluation:
    from fr_ensemble.hooks.evaluate import evaluate

    return evaluate(view, request)


@hookimpl
def registry_reproduce(view: EntryView, request: ReproduceRequest) -> Reproduction:
    _need("numba")
    from fr_ensemble.hooks.reproduce import reproduce

    return reproduce(view, request)


@hookimpl
def registry_predict(view: EntryView, request: PredictRequest) -> Iterable[Batch]:
    from fr_ensemble.hooks.predict import predict

    return predict(view, request)


@hookimpl
def registry_figures(view: EntryView) -> Sequence[Figure] | None:
    from fr_ensemble.hooks.figures import figures

    return figures(view)


@hookimpl
def registry_commands() -> Iterable[click.Command]:
    from fr_ensemble.commands import group

    return [group]


def _need(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise InputError(f"{module} is not installed, expected it for training: pip install 'registry-tool[train]'")


def _job(request: TrainRequest) -> Any:
    """The run that the options ask for. Raises InputError for options that mean nothing."""
    from fr_ensemble.artifacts.recipe import COMPILED, REFERENCE, Recipe
    from fr_ensemble.corpus.rows import ColumnSpec, Condition
    from fr_ensemble.corpus.vocabulary import CANONICAL_6
    from fr_ensemble.evidence.intervals import METHODS
    from fr_ensemble.hooks.train import Job

    options = request.options
    given = options["target_range"]
    bounds = _numbers("--target-range", given, float) if given is not None else None
    if bounds is not None and len(bounds) != 2:
        raise InputError(f"--target-range: found {given!r}, expected LOW,HIGH such as 0,100")
    features = options["features"]
    spec = ColumnSpec(
        features=tuple(name.strip() for name in features.split(",")) if features is not None else CANONICAL_6,
        target=options["target"],
        conditioning=tuple(Condition.parse(text) for text in options["conditions"]),
        vocabulary_version=options["vocabulary"],
        target_range=(bounds[0], bounds[1]) if bounds else None,
    )
    names = (
        "batch_size",
        "learning_rate",
        "weight_decay",
        "decoupled_weight_decay",
        "dropout",
        "input_noise",
        "early_stopping",
        "hidden",
    )
    try:
        recipe = Recipe(
            seeds=_numbers("--seeds", options["seeds"], int),
            epochs=1 if request.smoke else options["epochs"],
            **{name: options[name] for name in names},
        )
    except ValueError as error:
        raise InputError(f"--{str(error).replace('_', '-', 1)}: correct the option") from error
    if options["interval"] not in METHODS:
        raise InputError(f"--interval: found {options['interval']!r}, expected one of {', '.join(METHODS)}")
    if options["resume"] and options["checkpoint"] is None:
        raise InputError("--resume: found no --checkpoint, expected the folder of the run that is to go on: name it")
    passed = ("interval", "jobs", "device", "engine", "checkpoint", "resume")
    choices = {name: options[name] for name in passed}
    choices["trainer"] = options["trainer"] or (COMPILED if options["device"] == "cpu" else REFERENCE)
    return Job(request.entry_id, request.corpus, spec, recipe, request.smoke, **choices)


def _numbers(option: str, text: str, of: type) -> tuple[Any, ...]:
    try:
        return tuple(of(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: found {text!r}, expected numbers separated by commas") from None
