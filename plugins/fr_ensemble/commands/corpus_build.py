"""corpus_build.py: `corpus build`: parses and prints. Encodes nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL
from registry_tool.errors import InputError, RejectedError
from registry_tool.toolkit import counted, progress_bar

RAW = (".yuv", ".raw")  # endings of files that are nothing but samples
RATE = r"0*[1-9]\d*(\.\d+)?|0*\.\d*[1-9]\d*|[1-9]\d*/[1-9]\d*"  # 25, 29.97 or 30000/1001


@click.command("build")
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
