"""options.py: the options of `registry train fr_ensemble`, and the run that they ask for. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS
from registry_tool.errors import InputError
from registry_tool.toolkit import column_name_parameters, column_names
from registry_tool.values import Json, checked_text

if TYPE_CHECKING:
    from fr_ensemble.corpus.spec import ColumnSpec
    from fr_ensemble.evidence.recorded import EvidenceContents
    from fr_ensemble.hooks.train import Job
    from registry_tool.hookspec import Trained, TrainRequest

SHIPPED_LICENSE = "BSD-3-Clause-Plus-Patent"  # of the corpus that ships with the plugin
NO_LICENSE = "no licence is recorded: say --license SPDX; it follows from the corpus"
ENTRY_TEXTS = {"license": 128, "description": 256}  # options that become fields of the entry -> their longest text
RECIPE_OPTIONS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "decoupled_weight_decay",
    "dropout",
    "input_noise",
    "early_stopping",
    "hidden",
)
RECIPES: Mapping[str, Mapping[str, Json]] = {  # what each changes of the public one; measured in docs/how-to/train.md
    "public": {},
    "clean": {"dropout": 0.0, "epochs": 60},
    "noisy": {"epochs": 60, "input_noise": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True},
    "narrow": {"epochs": 60, "input_noise": 0.1, "hidden": 16},
}
AUTO_RECIPE = "auto"
CANDIDATE_RECIPES = ("public", "noisy", "narrow")  # of AUTO_RECIPE; the first is taken where none is clearly better
AUTO_ROWS = 2_000  # a corpus with fewer has its recipe chosen where nothing else is asked for
EXECUTION_OPTIONS = ("device", "engine", "jobs", "checkpoint", "resume")

OPTIONS = (
    click.Option(["--target"], default="vmaf", show_default=True, help="Column to predict."),
    click.Option(
        ["--target-range"], metavar="LOW,HIGH", help="Its bounds; known for vmaf, by its model, and mos (1,5)."
    ),
    click.Option(
        ["--features"],
        metavar="A,B,...",
        help="Feature columns, or the sets canonical-6 and vmaf-v1.  [default: those of the target's model]",
    ),
    *column_name_parameters(),
    click.Option(
        ["--group"], default="", metavar="COLUMN", help="Leave out by session or database: its values count as sources."
    ),
    click.Option(
        ["--condition", "conditions"],
        multiple=True,
        metavar="[log2:]COLUMN",
        help="A numeric column beside the encoder; again for more.",
    ),
    click.Option(
        ["--member-conditions"],
        type=click.Choice(["standardised", "raw"]),
        default="standardised",
        show_default=True,
        help="How members take conditions: raw, as they are, from 0 to 1, as the public layout has them.",
    ),
    click.Option(
        ["--vocabulary"],
        type=click.IntRange(1, 3),
        default=2,
        show_default=True,
        help="Version of the encoder list: 1 has 6 slots, 2 has 12, 3 has the public trainer's 16.",
    ),
    click.Option(["--seeds"], default="0,1,2,3,4", show_default=True, metavar="N,N,...", help="Seeds of the members."),
    click.Option(
        ["--recipe"],
        type=click.Choice([*RECIPES, AUTO_RECIPE]),
        help="Where the options below begin. clean: for a target without noise, as VMAF; noisy, narrow: for opinions, "
        f"narrow where noisy overfits; {AUTO_RECIPE}: chooses in every fold, on its training sources, among "
        f"{', '.join(CANDIDATE_RECIPES)}.  [default: {AUTO_RECIPE} below {AUTO_ROWS:,} rows where none of the options "
        "from --epochs to --hidden is given; else public]",
    ),
    click.Option(["--epochs"], type=click.IntRange(1), help="Passes over the rows.  [default: 200; 1 with --smoke]"),
    click.Option(["--batch-size"], type=click.IntRange(1), help="Batch size, in rows.  [default: 32]"),
    click.Option(["--learning-rate"], type=float, help="Adam's learning rate.  [default: 0.0005]"),
    click.Option(["--weight-decay"], type=float, help="L2 term of Adam.  [default: 1e-05]"),
    click.Option(
        ["--decoupled-weight-decay/--no-decoupled-weight-decay"],
        default=None,
        help="AdamW's decay instead of the L2 term.",
    ),
    click.Option(["--dropout"], type=float, help="Dropout: share of hidden units left out.  [default: 0.1]"),
    click.Option(
        ["--encoder-dropout"],
        type=float,
        metavar="SHARE",
        help="Take so many rows of a step for an unknown encoder's, so that its slot is trained.  [default: 0]",
    ),
    click.Option(["--input-noise"], type=float, help="Gaussian noise on standardised inputs.  [default: 0]"),
    click.Option(
        ["--early-stopping"],
        type=click.IntRange(0),
        metavar="EPOCHS",
        help="Stop a model that long after its best epoch on a fifth of its training sources.  [default: off]",
    ),
    click.Option(["--hidden"], type=click.IntRange(1), help="Width of both hidden layers.  [default: 64]"),
    click.Option(
        ["--interval"],
        type=click.Choice(list(INTERVAL_METHODS)),
        default=DEFAULT_METHOD,
        show_default=True,
        help="How intervals are calibrated; docs/metrics.md explains each method.",
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
    click.Option(
        ["--evidence-inputs"],
        type=click.IntRange(0),
        metavar="ROWS",
        help="Rows whose inputs go into the evidence, so that the gate can run what ships; 0: none.  "
        "[default: all up to 50,000, else 512]",
    ),
    click.Option(
        ["--baselines/--no-baselines"],
        default=True,
        help="Train standard models on the same folds, and show the ensemble beside them.  [default: baselines]",
    ),
    click.Option(
        ["--leave-out-encoders"],
        is_flag=True,
        help="Train every fold again without each encoder, for the report: how it does on one that it has not seen. "
        "Takes as long again for each encoder.",
    ),
    click.Option(["--license"], metavar="SPDX", help="Licence of the model; it follows from the corpus."),
    click.Option(["--description"], metavar="TEXT", help="One line for the registry."),
)


def entry_fields(request: TrainRequest) -> Mapping[str, str]:
    """Further fields of the registry entry. Raises InputError for a text that no registry can hold."""
    fields = {name: request.options.get(name) for name in ENTRY_TEXTS}
    if fields["license"] is None and (request.corpus is None or request.smoke):
        fields["license"] = SHIPPED_LICENSE
    texts = {name: text for name, text in fields.items() if text is not None}
    return {name: checked_text(f"--{name}", text, ENTRY_TEXTS[name]) for name, text in texts.items()}


def described(trained: Trained, fields: Mapping[str, str]) -> Trained:
    """The same with these fields of the entry, and a warning where nothing says what people may do with the model."""
    unlicensed = [] if "license" in fields else [NO_LICENSE]
    return replace(trained, entry=fields, warnings=[*trained.warnings, *unlicensed])


def job_of(request: TrainRequest) -> Job:
    """The run that the options ask for. Raises InputError for options that mean nothing."""
    from fr_ensemble.artifacts.recipe import RAW, Recipe
    from fr_ensemble.corpus.record import DEFINED_TARGETS, read_definition
    from fr_ensemble.corpus.spec import ColumnSpec, Condition
    from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, features_of, high_of
    from fr_ensemble.corpus.vocabulary import UNKNOWN, vocabulary
    from fr_ensemble.hooks.train import SHIPPED_CORPUS, Choosing, Job
    from fr_ensemble.training.execution import COMPILED, REFERENCE, Execution

    options = request.options
    if options["group"] and options["source_column"]:
        raise InputError("--group: its values count as sources, so it takes no --source-column: leave one of them out")
    column_names(options["source_column"], options["encoder_column"])  # refuses one for both
    bounds = bounds_in(options["target_range"])
    definition = read_definition(request.corpus or SHIPPED_CORPUS, options["target"]) if not request.smoke else None
    model = definition.model if definition is not None else DEFAULT_MODEL
    if bounds is None and options["target"] in DEFINED_TARGETS:
        bounds = (0.0, high_of(model))
    spec = ColumnSpec(
        features=features_named(options["features"]) or features_of(model),
        target=options["target"],
        conditioning=tuple(Condition.parse(text) for text in options["conditions"]),
        vocabulary_version=options["vocabulary"],
        target_range=bounds,
        source_column=options["group"] or options["source_column"],
        encoder_column=options["encoder_column"],
        raw_conditions=options["member_conditions"] == RAW,
        by_options=True,
    )
    if spec.raw_conditions and not spec.conditioning:
        raise InputError(
            "--member-conditions raw: found no condition, expected one or more: name it: --condition COLUMN"
        )
    if options["encoder_dropout"] and UNKNOWN not in vocabulary(spec.vocabulary_version):
        raise InputError("--encoder-dropout: --vocabulary 3 has no slot for unknown encoders: name vocabulary 1 or 2")
    chosen = [*RECIPE_OPTIONS, "member_conditions", "encoder_dropout"]
    typed = {name: options[name] for name in chosen if options[name] is not None}
    typed |= {"seeds": _numbers("--seeds", options["seeds"], int)}
    typed |= {"epochs": 1} if request.smoke else {}

    def recipe_of(name: str) -> Recipe:
        try:
            return Recipe(**{**RECIPES[name], **typed})
        except ValueError as error:
            raise InputError(f"--{str(error).replace('_', '-', 1)}: correct the option") from error

    name = options.get("recipe")
    choosing = None
    if name == AUTO_RECIPE or (name is None and not request.smoke and not {*typed} & {*RECIPE_OPTIONS}):
        candidates = {candidate: recipe_of(candidate) for candidate in CANDIDATE_RECIPES}
        choosing = Choosing(candidates, None if name == AUTO_RECIPE else AUTO_ROWS)
    recipe = recipe_of("public" if name in (None, AUTO_RECIPE) else name)
    if options["resume"] and options["checkpoint"] is None:
        raise InputError("--resume: found no --checkpoint, expected the folder of the run that is to go on: name it")
    trainer = options["trainer"] or (COMPILED if options["device"] == "cpu" else REFERENCE)
    execution = Execution(trainer, **{name: options[name] for name in EXECUTION_OPTIONS})
    contents = _contents(request, spec)
    settings = {"interval": options["interval"], "execution": execution, "contents": contents, "choosing": choosing}
    return Job(request.entry_id, request.corpus, spec, recipe, request.smoke, **settings)


def _contents(request: TrainRequest, spec: ColumnSpec) -> EvidenceContents:
    """What the evidence is to hold. Raises InputError where encoders are to be left out that cannot be."""
    from fr_ensemble.evidence.recorded import EvidenceContents

    options, leaves_out = request.options, request.options["leave_out_encoders"]
    if leaves_out and request.smoke:
        raise InputError("--leave-out-encoders: --smoke trains on random rows, whose encoders mean nothing: drop one")
    if leaves_out and spec.by_encoder:
        column = spec.source_column
        raise InputError(f"--leave-out-encoders: --group {column} leaves them out already: drop one of the two")
    return EvidenceContents(options["evidence_inputs"], baselines=options["baselines"], encoders_left_out=leaves_out)


def column_options(*names: str) -> list[click.Parameter]:
    """Those of OPTIONS, for other commands that read the same tables."""
    return [option for option in OPTIONS if option.name in names]


def bounds_in(text: str | None) -> tuple[float, float] | None:
    """The bounds that `--target-range` gives. Raises InputError for other than two numbers, the lower one first."""
    from fr_ensemble.corpus.spec import require_range

    if text is None:
        return None
    numbers = _numbers("--target-range", text, float)
    if len(numbers) != 2:
        raise InputError(f"--target-range: found {text!r}, expected LOW,HIGH such as 0,100")
    require_range(*numbers)
    return numbers[0], numbers[1]


def features_named(text: str | None) -> tuple[str, ...]:
    """Columns, where a set's name stands for its columns."""
    from fr_ensemble.corpus.vmaf_models import FEATURE_SETS

    names = [name.strip() for name in text.split(",")] if text is not None else []
    return tuple(column for name in names for column in FEATURE_SETS.get(name, (name,)))


N = TypeVar("N", int, float)


def _numbers(option: str, text: str, of: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(of(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: found {text!r}, expected numbers separated by commas") from None
