"""models.py: make models, and what they are judged by: train, calibrate, add, evidence."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from registry_tool.commands.shared import (
    NEW_REGISTRY_HELP,
    PATH,
    corpus_option,
    entry_argument,
    find,
    plugins_of,
    quiet_option,
    registry_option,
    show,
)
from registry_tool.errors import InputError
from registry_tool.toolkit import column_name_options, note, warn
from registry_tool.values import Json, checked_text

if TYPE_CHECKING:
    from registry_tool.values import Entry
    from registry_tool.workflows.train import Registered

# Options that become fields of an entry -> their longest text.
FIELD_LENGTHS = {"license": 128, "description": 256, "quant_calibration_set": 256}


class CalibrateOptions(TypedDict):
    """The options of `calibrate` that go to the plugin as they are."""

    offset: bool
    group: str
    by_encoder: bool
    source_column: str
    encoder_column: str
    method: str | None


class TrainGroup(click.Group):
    """`registry train KIND`: one command a kind that can be trained, with the kind's own options."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        plugins = plugins_of(ctx)
        return sorted(name for name in plugins.kinds if "registry_train" in plugins.owner(name).hooks)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        plugins = plugins_of(ctx)
        if name not in self.list_commands(ctx):
            plugins.need_all()
            raise InputError(f"kind {name!r}: expected one that can be trained: {', '.join(self.list_commands(ctx))}")
        kind = plugins.kinds[name]
        return click.Command(
            name,
            callback=_train,
            short_help=kind.summary,
            params=[*TRAIN_OPTIONS, *kind.options, quiet_option()],
            help=f"""Train an entry of kind {name} ({kind.summary}) and register it with smoke: true.

            \b
            Examples:
              registry train {name} --id my_model --corpus corpus.parquet
              registry train {name} --id probe --smoke
            """,
        )


TRAIN_OPTIONS = [
    click.Option(
        ["--id", "entry_id"], required=True, metavar="NAME", help="Id of the entry; a smoke one of that id is replaced."
    ),
    click.Option(
        ["--corpus"],
        type=PATH,
        metavar="FILE",
        help="Rows to train on: parquet, feather, CSV or JSON. Default: the corpus that ships with the plugin.",
    ),
    click.Option(["--smoke"], is_flag=True, help="A quick run on random rows; it can never be flipped."),
    click.Option(["--registry"], metavar="PATH", help=NEW_REGISTRY_HELP),
]


@click.group(cls=TrainGroup, subcommand_metavar="KIND [OPTIONS]...")
def train() -> None:
    """Train an entry and register it with smoke: true.

    \b
    Examples:
      registry train fr_ensemble --id vmaf_ensemble
      registry train fr_ensemble --id mos --corpus clips.parquet --target mos
      registry train fr_ensemble --help
    """


@click.pass_context
def _train(
    ctx: click.Context, /, entry_id: str, corpus: Path | None, smoke: bool, registry: str | None, **options: object
) -> None:
    from registry_tool import toolkit
    from registry_tool.documents import store
    from registry_tool.hookspec import TrainRequest
    from registry_tool.workflows import train as train_workflow

    if smoke and corpus is not None:
        raise click.UsageError("--smoke trains on random rows, so it takes no --corpus: leave one of them out")
    kind = ctx.info_name or ""
    path = store.find_or_new(registry, os.environ, Path.cwd())
    with toolkit.progress_bar() as progress:
        request = TrainRequest(kind, entry_id, corpus, smoke, options, progress)
        done = train_workflow.train(path, plugins_of(ctx), request)
    _say_registered(done, entry_id, path)
    note(_next(f"gate {entry_id}", registry) if not smoke else "random rows: this entry can never be flipped")


def _next(command: str, registry: str | None) -> str:
    """What to run next, on the registry that was named."""
    return f"next: registry {command}" + (f" --registry {shlex.quote(registry)}" if registry else "")


def _fields(**texts: str | None) -> dict[str, Json]:
    """The options, of FIELD_LENGTHS, that become fields of an entry: those that were given, checked."""
    return {
        name: checked_text(f"--{name.replace('_', '-')}", text, FIELD_LENGTHS[name])
        for name, text in texts.items()
        if text is not None
    }


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _say_registered(done: Registered, entry_id: str, path: Path) -> None:
    from registry_tool import toolkit

    warn(*done.trained.warnings)
    if done.created_registry:
        note(f"made {path}")
    for name, value in (
        *done.trained.summary,
        ("registered", f"{entry_id} (smoke) in {path}"),
        ("artefacts", done.folder),
    ):
        show(f"{name}: {value}")
    _say_replaced(done.replaced)
    show(toolkit.text_table(done.trained.table))


def _say_replaced(old: Entry | None) -> None:
    if old is not None:
        show(f"replaced: {old.id} (smoke) of sha256 {old.sha256}")


@click.command()
@entry_argument()
@corpus_option("Labelled rows of sources that it was not trained on.", required=True)
@click.option(
    "--id", "new_id", required=True, metavar="NAME", help="Id of the new entry; a smoke one of that id is replaced."
)
@click.option("--offset", is_flag=True, help="Add one constant to predictions too: what your scores exceed them by.")
@click.option(
    "--group", default="", metavar="COLUMN", help="Calibrate by session or database: its values count as sources."
)
@click.option(
    "--by-encoder", is_flag=True, help="Calibrate the rows of each encoder apart, where it is in enough of the sources."
)
@column_name_options()
@click.option("--interval", "method", metavar="METHOD", help="How intervals are calibrated, as for `train`.")
@click.option("--license", metavar="SPDX", help="Licence of the new entry.  [default: that of ID]")
@click.option("--description", metavar="TEXT", help="One line for the registry.")
@registry_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    /,
    entry_id: str,
    corpus: Path,
    new_id: str,
    license: str | None,
    description: str | None,
    registry: str | None,
    **options: Unpack[CalibrateOptions],
) -> None:
    """Calibrate an entry's intervals on your own sources; the result is a new entry with smoke: true.

    The models stay byte for byte what they are. What is new are the intervals, from rows that the models never saw,
    measured as you measure: they then cover new sources of that kind as often as they say. Which levels so many sources
    can promise is said first. Sources that the models were trained on are refused.

    \b
    Examples:
      registry calibrate my_model --corpus mine.csv --id my_model_here
      registry calibrate my_model --corpus mine.csv --id my_model_here --offset
      registry calibrate my_model --corpus mine.csv --id my_model_here --by-encoder
      registry calibrate mos_model --corpus tests.parquet --id mos_lab --group session
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import CalibrateRequest
    from registry_tool.workflows import calibrate as calibrate_workflow

    fields = _fields(license=license, description=description)
    with toolkit.progress_bar() as progress:
        request = CalibrateRequest(new_id, corpus, **options, progress=progress, tell=progress.note)
        done = calibrate_workflow.calibrate(find(registry), plugins_of(ctx), entry_id, request, fields)
    _say_registered(done, new_id, find(registry))
    note(_next(f"gate {new_id}", registry))


@click.command()
@click.argument("file", type=PATH)
@click.option("--kind", required=True, metavar="KIND", help="A kind of single models: fr, nr, filter, or a plugin's.")
@click.option("--id", "entry_id", required=True, metavar="NAME", help="Id of the entry.")
@click.option(
    "--sidecar",
    type=PATH,
    metavar="FILE",
    help="Its inputs, outputs and normalisation.  [default: the .json of its name beside it, if any]",
)
@click.option("--int8", type=PATH, metavar="FILE", help="Its quantised variant, an ONNX file too.")
@click.option(
    "--quant-mode",
    type=click.Choice(["dynamic", "static", "qat"]),
    default="dynamic",
    show_default=True,
    help="How the variant was quantised.",
)
@click.option("--quant-calibration-set", metavar="TEXT", help="The rows that a static variant was calibrated on.")
@click.option(
    "--quant-budget", type=click.FloatRange(0.0, 1.0), metavar="PLCC", help="The most that the variant may lose."
)
@click.option("--license", metavar="SPDX", help="Licence of the model.")
@click.option("--description", metavar="TEXT", help="What it is, in a sentence.")
@click.option("--update", is_flag=True, help="Give a smoke entry that is there other bytes; its other fields stay.")
@click.option("--registry", metavar="PATH", help=NEW_REGISTRY_HELP)
@click.pass_context
def add(
    ctx: click.Context,
    file: Path,
    kind: str,
    entry_id: str,
    sidecar: Path | None,
    int8: Path | None,
    quant_mode: str,
    quant_calibration_set: str | None,
    quant_budget: float | None,
    license: str | None,
    description: str | None,
    update: bool,
    registry: str | None,
) -> None:
    """Register an ONNX file, made elsewhere, with smoke: true.

    The file, its sidecar and its weights in other files are copied to a folder named by their digest, and pinned.
    The model is read and run as `registry validate` does; what would not validate is not registered.

    \b
    Examples:
      registry add export/blur.onnx --kind nr --id blur --license MIT
      registry add export/blur.onnx --kind nr --id blur --int8 export/blur.int8.onnx --quant-budget 0.01
      registry add export/blur.onnx --kind nr --id blur --update
    """
    from registry_tool.documents import store
    from registry_tool.workflows import add as add_workflow

    about_variant = ("quant_mode", "quant_calibration_set", "quant_budget")
    if int8 is None and (given := [name for name in about_variant if _is_given(ctx, name)]):
        option = f"--{given[0].replace('_', '-')}"
        raise click.UsageError(
            f"{option} is about a quantised variant: name its file with --int8, or leave {option} out"
        )
    fields = _fields(license=license, description=description, quant_calibration_set=quant_calibration_set)
    if int8 is not None:
        fields |= {"quant_mode": quant_mode}
        fields |= {"quant_accuracy_budget_plcc": quant_budget} if quant_budget is not None else {}
    path = store.find_or_new(registry, os.environ, Path.cwd())
    model = add_workflow.NewModel(entry_id, kind, file, sidecar, int8, fields, update)
    added = add_workflow.add(path, plugins_of(ctx), model)
    warn(*map(str, added.warnings))
    show(f"registered: {entry_id} (smoke) in {path}")
    show(f"artefacts: {added.folder}")
    _say_replaced(added.replaced)
    if "registry_gate" in plugins_of(ctx).owner(kind).hooks:
        note(_next(f"evidence {entry_id} --data FILE", registry))


@click.command()
@entry_argument()
@click.option(
    "--data",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Rows that it has not seen: a table with the sidecar's columns, or an .npz with the model's inputs.",
)
@click.option("--target", default="vmaf", show_default=True, metavar="NAME", help="Column, or array, of the targets.")
@click.option(
    "--group",
    default="src",
    show_default=True,
    metavar="NAME",
    help="Column, or array, of what rows belong together by.",
)
@click.option("--peak", type=float, default=1.0, show_default=True, help="The largest value of a picture, for PSNR.")
@registry_option
@click.pass_context
def evidence(
    ctx: click.Context, /, entry_id: str, data: Path, target: str, group: str, peak: float, registry: str | None
) -> None:
    """Make the evidence of a single model: run it on rows, and pin them with their targets and what it gave.

    The model runs in a child process with limits, behind the sidecar's scaler. `gate` and `flip` run it again on the
    same rows and judge PLCC, SROCC and RMSE over groups, or PSNR and SSIM where the targets are pictures.

    \b
    Examples:
      registry evidence my_model --data rows.csv --target mos --group src
      registry evidence my_filter --data frames.npz --target clean --group clip --peak 255
    """
    from registry_tool.plugins.single_evidence import DataRequest
    from registry_tool.workflows import evidence as evidence_workflow

    request = DataRequest(data, target, group, peak)
    done = evidence_workflow.evidence(find(registry), plugins_of(ctx), entry_id, request)
    show(f"evidence: {done.path}: {len(done.evidence.target)} rows, {len(done.evidence.groups)} groups")
    note(f"{_next(f'gate {entry_id}', registry)}; `registry metrics {done.entry.kind}` lists what rules may name")
