"""corpus_import.py: `corpus import`: parses and prints. Reads no log."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fr_ensemble.commands.shared import MAX_LISTED
from fr_ensemble.corpus.vmaf_models import VMAF_MODELS, model_of
from registry_tool.errors import InputError, RejectedError
from registry_tool.toolkit import (
    column_name_options,
    column_names,
    counted,
    first_names,
    progress_bar,
    refuse_overwriting,
    visible,
    warn,
)

if TYPE_CHECKING:
    from fr_ensemble.corpus.imports.logs import Imported


@click.command("import")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...", type=click.Path(path_type=Path))
@click.option(
    "--meta",
    type=click.Path(path_type=Path),
    metavar="TABLE",
    help="A table with a column `log` (the file's name) and src, encoder, crf, bitrate_kbps, ...",
)
@click.option(
    "--pattern", metavar="TEXT", help="What a log's name says, such as {src}_{bitrate}kbps_{height}p_{encoder}.json."
)
@click.option("--set", "constants", multiple=True, metavar="NAME=VALUE", help="A field of every log; again for more.")
@column_name_options("The table's column")
@click.option("--score", default="", metavar="NAME", help="The score to take, where a log has several.")
@click.option(
    "--vmaf-model",
    "model",
    default="",
    metavar="NAME",
    help="The model of the score, such as vmaf_4k_v0.6.1, where a log does not name it.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write: .parquet, .csv or .jsonl.",
)
def import_(
    logs: Sequence[Path],
    meta: Path | None,
    pattern: str | None,
    constants: Sequence[str],
    source_column: str,
    encoder_column: str,
    score: str,
    model: str,
    output: Path,
) -> None:
    """Make a corpus of logs of libvmaf, ffmpeg, run_vmaf, easyVmaf or ffmpeg-quality-metrics: files or folders.

    One row a frame. A log that cannot be used is named and left out; the others are written, and the exit code is 1.
    Source, encoder and quality come from the files' names (--pattern), from a table (--meta), from --set, or from
    several of them: the table wins over the name, and the name over --set.

    All logs are by one model of VMAF. It is read from the logs where they name it or their features show it; where a
    log does neither, --vmaf-model says it. Two models are refused.

    \b
    Examples:
      registry fr-ensemble corpus import logs/ -o corpus.parquet
          --pattern "{src}_{bitrate}kbps_{height}p_{fps}fps_{encoder}_vmaf.json" --vmaf-model vmaf_v0.6.1
      registry fr-ensemble corpus import a.xml b.csv.gz --meta table.csv --vmaf-model vmaf_v0.6.1 -o corpus.csv
      registry fr-ensemble corpus import easyvmaf/ --pattern "{src}_{crf}_vmaf.json" --set encoder=libx265
          --score vmaf_hd -o corpus.parquet
    """
    from fr_ensemble.corpus.imports.fields import (
        Fields,
        fields_in,
        fields_of_pattern,
        fields_of_table,
        find_logs,
        missing,
    )
    from fr_ensemble.corpus.imports.fields import constants as fields_of_constants
    from fr_ensemble.corpus.imports.identity import LogChoice
    from fr_ensemble.corpus.imports.logs import import_logs

    same = fields_of_constants(constants)
    in_pattern = fields_in(pattern) if pattern is not None else []
    names = column_names(source_column, encoder_column)
    if names and meta is None:
        raise InputError("--source-column and --encoder-column: found no --meta, expected a table with such columns")
    lacking = [name for name in ("src", "encoder") if name not in (*in_pattern, *same)]
    if meta is None and lacking:
        raise InputError(_not_known(lacking, in_pattern))
    refuse_overwriting(output, meta)
    found = find_logs(logs, [path for path in (meta, output) if path is not None])
    if not found:
        raise InputError("found no logs besides the table and the output: name them")
    fields = Fields({log: dict(same) for log in found}, {log: missing(log) for log in found if not log.exists()})
    if pattern is not None:
        fields = fields.merged(fields_of_pattern(found, pattern))
    if meta is not None:
        of_table, unused = fields_of_table(found, meta, names, lacking)
        fields = fields.merged(of_table)
        if unused:
            warn(f"{meta}: rows that name no log that was given: {unused}")
    with progress_bar() as progress:
        done = import_logs(fields, output, LogChoice(score, model), progress)
    _tell_import(done, output)


def _not_known(lacking: Sequence[str], fields: Sequence[str]) -> str:
    """What nothing says of the logs, and what a pattern has in its place."""
    names = " and ".join({"src": "source", "encoder": "encoder"}[name] for name in lacking)
    found = f"found {', '.join(map('{{{}}}'.format, fields))} in --pattern, " if fields else ""
    wanted, fixed = " and ".join(f"{{{name}}}" for name in lacking), " ".join(f"--set {name}=NAME" for name in lacking)
    return (
        f"{names} of the logs: {found}expected {wanted} in --pattern, or {fixed}, or a table of the logs: --meta TABLE"
    )


def _warn_of_import(done: Imported) -> None:
    """What looks odd in the logs that were taken."""
    for log, frames in done.incomplete.items():
        warn(f"{log}: left out {counted(frames, 'frame')} without every feature")
    for log, frames in done.not_finite.items():
        warn(f"{log}: left out {counted(frames, 'frame')} with NaN or infinity")
    for first, second in done.twins:
        warn(f"{second}: the same scores as {first}: is it one encode twice?")
    for log, mean in done.doubtful.items():
        warn(f"{log}: a mean vmaf of {mean:.1f}: are its frames those of its reference, in step and of one size?")
    for log, frames in done.ended.items():
        warn(f"{log}: its last {frames} frames meet a still picture and score far less: is its reference shorter?")
    for column, why in done.without.items():
        warn(f"no column {column}: {why}")
    if model_of(done.definition) is None:
        near = get_close_matches(done.definition, VMAF_MODELS, 1)
        warn(f"{done.definition} is no model that libvmaf has built in{f': is it {near[0]}?' if near else ''}")


def _tell_import(done: Imported, output: Path) -> None:
    """What came of an import. Raises RejectedError where logs were left out."""
    _warn_of_import(done)
    for why in done.failed.values():
        click.echo(f"left out: {visible(why)}", err=True)
    click.echo(f"{output}: {counted(done.rows, 'row')} of {counted(done.logs, 'log')}")
    click.echo(f"target: vmaf by {done.definition}")
    for name, counts in (("sources", done.sources), ("encoders", done.encoders)):
        listed = [f"{label} ({counted(count, 'log')})" for label, count in sorted(counts.items())]
        click.echo(f"{name}: {visible(first_names(listed, MAX_LISTED))}")
    if done.failed:
        logs = done.logs + len(done.failed)
        raise RejectedError(f"{len(done.failed)} of {logs} logs could not be used; {output} has the others")
