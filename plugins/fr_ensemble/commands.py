"""commands.py: `registry fr-ensemble ...`: parses and prints. Other rooms do the work, and load when asked for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, VMAF_MODELS, model_of
from fr_ensemble.options import bounds_in, column_options, features_named
from registry_tool.errors import InputError, RejectedError
from registry_tool.hookspec import Host
from registry_tool.toolkit import (
    column_name_options,
    column_names,
    counted,
    first_names,
    plot_option,
    progress_bar,
    refuse_overwriting,
    visible,
    warn,
)

if TYPE_CHECKING:
    from fr_ensemble.corpus.imports.logs import Imported

RAW = (".yuv", ".raw")  # endings of files that are nothing but samples
RATE = r"0*[1-9]\d*(\.\d+)?|0*\.\d*[1-9]\d*|[1-9]\d*/[1-9]\d*"  # 25, 29.97 or 30000/1001
# Options of `train` that say what the columns of a table are.
INFO_COLUMNS = ("target", "target_range", "features", "source_column", "encoder_column", "conditions", "vocabulary")
MAX_LISTED = 50  # sources or encoders on a line


@click.group("fr-ensemble")
def group() -> None:
    """Corpora of encodes, and what an ensemble is for.

    \b
    Examples:
      registry fr-ensemble corpus import logs/ --pattern "{src}_{encoder}_{crf}.json" -o corpus.parquet
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92
      registry fr-ensemble exchangeable my_model --corpus rows.parquet
    """


@group.group()
def corpus() -> None:
    """Make and look at corpora: rows to train on.

    \b
    Examples:
      registry fr-ensemble corpus build --test-patterns --encoders libx264 --crf 20,32 -o corpus.parquet
      registry fr-ensemble corpus import logs/ --pattern "{src}_{encoder}_{crf}.json" -o corpus.parquet
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble corpus split corpus.parquet --train train.parquet --aside aside.parquet
    """


_format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)


@corpus.command("import")
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


@corpus.command("build")
@click.argument("references", nargs=-1, metavar="[REF]...", type=click.Path(path_type=Path))
@click.option("--encoders", required=True, metavar="A,B,...", help="Encoders, by ffmpeg's names.")
@click.option(
    "--crf",
    "qualities",
    multiple=True,
    required=True,
    metavar="[ENCODER=]N,N,...",
    help="Quality numbers on the encoder's own scale (crf, qp or cq); again with ENCODER= for another list.",
)
@click.option(
    "--vmaf-model",
    "model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME",
    help="The model that scores, and whose features the rows have; docs/corpora.md lists them.",
)
@click.option("--size", metavar="WxH", help="Of raw sources (.yuv): their size in pixels.")
@click.option("--pix-fmt", default="yuv420p", show_default=True, metavar="NAME", help="Of raw sources: ffmpeg's name.")
@click.option("--rate", metavar="FPS", help="Of raw sources: frames per second, such as 25 or 30000/1001.")
@click.option("--preset", "presets", multiple=True, metavar="ENCODER=P", help="Another preset than the usual one.")
@click.option("--test-patterns", is_flag=True, help="The generated sources of the shipped corpus too.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Keep each Nth frame's row.")
@click.option("--jobs", type=click.IntRange(1), help="Encodes to run in parallel.  [default: all cores]")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Finished encodes' scores; a build goes on from there.  [default: OUTPUT.cache]",
)
@click.option(
    "--ffmpeg",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An ffmpeg with libvmaf.  [default: that of imageio-ffmpeg, else the one on PATH]",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A .parquet file.")
def build_(
    references: Sequence[Path],
    encoders: str,
    qualities: Sequence[str],
    model: str,
    size: str | None,
    pix_fmt: str,
    rate: str | None,
    presets: Sequence[str],
    test_patterns: bool,
    every: int,
    jobs: int | None,
    cache: Path | None,
    ffmpeg: Path | None,
    output: Path,
) -> None:
    """Make a corpus of your own videos: encode each one, decode, score with libvmaf, one row a frame.

    Each source is encoded by each encoder at each quality. A source is named by its file, without the extension.
    Finished encodes are kept in the cache: a build that was stopped goes on, and a second one encodes nothing. An
    encoder that this machine lacks is skipped. An encode that fails is named, the others are written, and the exit
    code is 1. A source that is interlaced, of high dynamic range, damaged or of a varying frame rate is doubtful: it
    is used, and named.

    \b
    Examples:
      registry fr-ensemble corpus build videos/*.y4m -o corpus.parquet
          --encoders libx264,libsvtav1 --crf 20,26,32,38
      registry fr-ensemble corpus build a.mp4 b.mkv --every 6 --jobs 4 -o corpus.parquet
          --encoders libx264,libvpx-vp9 --crf 18,28,38 --crf libvpx-vp9=25,37,50 --preset libx264=fast
      registry fr-ensemble corpus build a.yuv --size 1920x1080 --rate 25 --vmaf-model vmaf_v1.0.16_3d0h
          --encoders libx265 --crf 22.5,28,34 -o corpus.parquet
      registry fr-ensemble corpus build --test-patterns --encoders libx264 --crf 30 -o patterns.parquet
    """
    from fr_ensemble.corpus.build.encodes import Plan, Source, Step, build, find_ffmpeg
    from fr_ensemble.corpus.build.patterns import FRAME_COUNT, PATTERNS

    names = list(dict.fromkeys(name.strip() for name in encoders.split(",") if name.strip()))
    if output.suffix.lower() != ".parquet":
        raise InputError(
            f"{output}: found the extension {output.suffix!r}, expected .parquet, which keeps the settings"
        )
    raw = _raw_input(references, size, pix_fmt, rate)
    sources = [Source(path.stem, path=path, raw=raw if path.suffix.lower() in RAW else ()) for path in references]
    if test_patterns:
        sources += [Source(name, graph=graph, frames=FRAME_COUNT) for name, graph in PATTERNS.items()]
    if not sources:
        raise InputError("found no sources, expected videos, or --test-patterns: name them")
    plan = Plan(
        tuple(sources),
        _by_encoder("--crf", qualities, names),
        _presets(presets, names),
        every,
        jobs or os.cpu_count() or 1,
        model=model,
    )
    with progress_bar() as progress:

        def listen(step: Step) -> None:
            if step.message:
                progress.note(f"{step.state}: {step.kind} {step.name}: {step.message}")
            progress("encodes", step.done, step.total)

        cache = cache or output.with_name(f"{output.name}.cache")
        done = build(plan, find_ffmpeg(ffmpeg, plan.model), output, cache, listen)
    encodes = f"{counted(done.encoded, 'encode')} made, {done.cached} taken from {cache}"
    click.echo(f"{output}: {counted(done.rows, 'row')}; {encodes}")
    if done.failed:
        raise RejectedError(f"{len(done.failed)} failed ({', '.join(done.failed)}); {output} has the others")


def _raw_input(references: Sequence[Path], size: str | None, pix_fmt: str, rate: str | None) -> tuple[str, ...]:
    """ffmpeg's input options for files of nothing but samples, which say nothing of themselves."""
    raw = [path for path in references if path.suffix.lower() in RAW]
    if not raw:
        if size is not None or rate is not None:
            raise InputError("--size and --rate: found no raw source, expected a .yuv file: drop the options")
        return ()
    size, rate = size or "none", rate or "none"
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", size) or not re.fullmatch(RATE, rate):
        raise InputError(
            f"{raw[0]}: found --size {size} and --rate {rate}, expected both of a raw source: --size WxH --rate FPS"
        )
    return ("-f", "rawvideo", "-video_size", size, "-pixel_format", pix_fmt, "-framerate", rate)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return int(number) if number.is_integer() else number


def _by_encoder(option: str, texts: Sequence[str], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Numbers for each encoder: its own list, else the one without a name."""
    lists: dict[str, tuple[float, ...]] = {}
    for text in texts:
        encoder, _, numbers = text.rpartition("=")
        try:
            found = tuple(_number(number) for number in numbers.split(","))
        except ValueError:
            raise InputError(f"{option}: found {text!r}, expected [ENCODER=]N,N,... such as 20,26,32") from None
        if encoder in lists or (encoder and encoder not in names):
            raise InputError(f"{option}: found {text!r}, expected one list for each of {', '.join(names)}")
        lists[encoder] = found
    if lacking := [name for name in names if name not in lists and "" not in lists]:
        raise InputError(f"{option}: found no numbers for {lacking[0]}, expected some: {option} {lacking[0]}=20,30,40")
    return {name: lists.get(name, lists.get("", ())) for name in names}


def _presets(texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        encoder, separator, preset = text.partition("=")
        if not separator or encoder not in names or encoder in pairs:
            raise InputError(f"--preset: found {text!r}, expected ENCODER=P, once for one of {', '.join(names)}")
        pairs[encoder] = preset
    return pairs


@corpus.command("split")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--train", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Rows to train on.")
@click.option("--aside", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Rows set aside.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Of the sources, to set aside.",
)
@click.option(
    "--sources",
    multiple=True,
    metavar="A,B,...",
    help="The sources to set aside, in the place of a share of them; again for one with a comma in its name.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice.")
@click.option("--source-column", default="src", show_default=True, metavar="NAME", help="Column of sources.")
def split_(
    file: Path, train: Path, aside: Path, share: float, sources: Sequence[str], seed: int, source_column: str
) -> None:
    """Set sources of a corpus aside, for the last word on what was trained: whole sources, never rows.

    Both files have the format, the columns and the metadata of the corpus. The choice is the same for the same sources
    and seed.

    \b
    Examples:
      registry fr-ensemble corpus split corpus.parquet --train train.parquet --aside aside.parquet
      registry fr-ensemble corpus split clips.csv --sources park,river --train train.csv --aside aside.csv
    """
    from fr_ensemble.corpus.split import choose, sources_of, split

    found = sources_of(file, source_column)
    chosen = choose(found, share, seed)
    if sources:
        texts = [[text] if text in found else text.split(",") for text in sources]
        chosen = frozenset(name.strip() for names in texts for name in names)
        if unknown := sorted(chosen - {*found}):
            raise InputError(f"--sources: found {unknown[0]!r}, expected some of {first_names(found, MAX_LISTED)}")
        if chosen == {*found}:
            raise InputError("--sources: found every source, expected some: nothing would be left to train on")
    if train.resolve() == aside.resolve() or file.resolve() in (train.resolve(), aside.resolve()):
        raise InputError("--train and --aside: found one file twice, expected two, and neither of them the corpus")
    counts = split(file, source_column, chosen, {False: train, True: aside})
    for output, part, names in ((train, False, {*found} - chosen), (aside, True, chosen)):
        listed = f": {visible(first_names(sorted(names), MAX_LISTED))}" if part else ""
        click.echo(f"{output}: {counted(counts[part], 'row')} of {counted(len(names), 'source')}{listed}")


@corpus.command("info", params=column_options(*INFO_COLUMNS))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@plot_option("Draw it too.")
@_format_option
@click.pass_context
def info_(ctx: click.Context, /, file: Path, plot: Path | None, form: str, **columns: Any) -> None:
    """Say what a corpus holds: rows, sources, encoders, ranges; duplicates, constant columns, hints of leakage.

    Leakage is one video under two source names: it would be trained on and held out at once.

    \b
    Examples:
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble corpus info clips.csv --target mos --format json
      registry fr-ensemble corpus info corpus.parquet --plot corpus.png
    """
    from fr_ensemble.corpus.info import Asked, describe
    from fr_ensemble.corpus.info_views import figures, lines
    from fr_ensemble.corpus.rows import Condition

    asked = Asked(
        columns["target"],
        features_named(columns["features"]),
        tuple(Condition.parse(text).column for text in columns["conditions"]),
        column_names(columns["source_column"], columns["encoder_column"]),
        columns["vocabulary"],
        bounds_in(columns["target_range"]),
    )
    with progress_bar() as progress:
        document = describe(file, asked, progress)
    host: Host = ctx.obj
    host.emit(form, lambda: document, lambda: lines(document))
    if plot is not None:
        rows, sources = document["n_rows"], len(document["sources"])
        title = f"{document['corpus']}: {counted(rows, 'row')}, {counted(sources, 'source')}"
        host.draw(plot, title, figures(document))


def _rows_option(of: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--corpus`, for a command that needs no targets; of: what its rows are of."""
    help_text = f"Rows of {of}; a target is not needed."
    path = click.Path(path_type=Path)
    return click.option("--corpus", "rows", required=True, type=path, metavar="ROWS", help=help_text)


@group.command("exchangeable")
@click.argument("entry_id", metavar="ID")
@_rows_option("new sources")
@column_name_options()
@click.option("--registry", metavar="PATH", help="The registry.json (or its folder).")
@_format_option
@click.pass_context
def exchangeable_(
    ctx: click.Context,
    entry_id: str,
    rows: Path,
    source_column: str,
    encoder_column: str,
    registry: str | None,
    form: str,
) -> None:
    """Ask whether new sources are of the kind that an entry's evidence has, without their scores.

    Each new source has a rank among the evidence's, by how far its rows are from those of training and by how much the
    members differ. A low p refutes that they are exchangeable, which is what intervals need; a high one shows nothing.

    \b
    Examples:
      registry fr-ensemble exchangeable my_model --corpus rows.parquet
      registry fr-ensemble exchangeable my_model --corpus rows.csv --format json
    """
    from fr_ensemble.queries.exchangeable import exchangeable, lines

    host: Host = ctx.obj
    with host.open(entry_id, registry) as view, progress_bar() as progress:
        document = exchangeable(view, rows, column_names(source_column, encoder_column), progress)
    host.emit(form, lambda: document, lambda: lines(document))


@group.command("recommend")
@click.argument("entry_id", metavar="ID")
@_rows_option("encodes")
@click.option("--target", required=True, type=float, metavar="X", help="The mean that a clip must reach.")
@click.option(
    "--percentile", type=float, metavar="P", help="Not the mean: this percentile of the clip's rows must reach it."
)
@click.option(
    "--worst-window", type=int, metavar="ROWS", help="Not the mean: every mean of so many rows in a row must reach it."
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Confidence level, between 0 and 1.")
@click.option(
    "--by",
    type=click.Choice(["encoder", "source"]),
    default="encoder",
    show_default=True,
    help="An answer for each source and encoder, or for each source over all its encoders.",
)
@click.option(
    "--cost",
    metavar="COLUMN",
    help="What an encode costs.  [default: bitrate_kbps or bitrate; else the highest quality, crf, cq or qp]",
)
@column_name_options()
@plot_option("Draw quality against cost too.")
@click.option("--registry", metavar="PATH", help="The registry.json (or its folder).")
@_format_option
@click.pass_context
def recommend_(
    ctx: click.Context,
    entry_id: str,
    rows: Path,
    target: float,
    percentile: float | None,
    worst_window: int | None,
    confidence: float,
    by: str,
    cost: str | None,
    source_column: str,
    encoder_column: str,
    plot: Path | None,
    registry: str | None,
    form: str,
) -> None:
    """Find the cheapest encode whose quality holds: whose bound on the clip's mean is at least a target.

    The bound is calibrated on what would have been chosen on sources that the models had not seen, so that choices
    fail as seldom as asked, and spend no more than that takes. Where the sources are too few, or the encodes finer
    than those, it is the one-sided bound of clips. Where no encode reaches the target, the nearest is shown.

    \b
    Examples:
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92
      registry fr-ensemble recommend my_model --corpus rows.csv --target 85 --confidence 0.8 --by source --format json
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 80 --percentile 5
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92 --plot curves.png
    """
    from fr_ensemble.evidence.ladders import ClipStatistic
    from fr_ensemble.queries.recommend import Question, recommend
    from fr_ensemble.queries.recommend_views import figures, lines, title

    host: Host = ctx.obj
    with host.open(entry_id, registry) as view, progress_bar() as progress:
        names = column_names(source_column, encoder_column)
        statistic = ClipStatistic(percentile, worst_window)
        question = Question(rows, target, confidence, by == "encoder", cost, names, statistic)
        document, warnings = recommend(view, question, progress)
    for warning, count in sorted(warnings.items()):
        warn(f"{warning}: {counted(count, 'row')}")
    host.emit(form, lambda: document, lambda: lines(document))
    if plot is not None:
        host.draw(plot, title(document), figures(document))
