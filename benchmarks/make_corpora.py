"""make_corpora.py: makes the corpora that ship with the plugin.

    python benchmarks/make_corpora.py CACHE [JOBS]
    python benchmarks/make_corpora.py CACHE --folder DIR --sources 1 --encoders 1    the same, smaller and elsewhere

It encodes the test patterns with five software encoders at six qualities, scores them, and writes into `data/`:
corpus.parquet (sources in pairs), outlier.parquet (one source like no other) and a README.md that says how.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from fr_ensemble.corpus.build.encodes import Plan, Source, Step, build, find_ffmpeg
from fr_ensemble.corpus.build.patterns import FRAME_COUNT, OUTLIER, PATTERNS
from fr_ensemble.corpus.record import read_record

from registry_tool.values import Json

DATA = Path(__file__).parents[1] / "plugins" / "fr_ensemble" / "data"
EVERY = 6  # frames 0, 6, ..., 42 of 48
QUALITIES = MappingProxyType(
    {
        "libx264": (10, 20, 27, 33, 39, 46),
        "libx265": (10, 20, 27, 33, 39, 46),
        "libsvtav1": (15, 30, 41, 50, 57, 63),
        "libvpx-vp9": (10, 25, 37, 47, 55, 63),
        "libvvenc": (15, 25, 32, 38, 44, 51),
    }
)


def make(file: Path, patterns: Mapping[str, str], options: argparse.Namespace) -> None:
    """Builds the file and ends the program when an encode failed: the shipped corpus has no holes."""

    def tell(step: Step) -> None:
        if step.message or step.done % 30 == 0:
            print(f"{step.done}/{step.total} {step.name} {step.state} {step.message}", file=sys.stderr)

    chosen = islice(patterns.items(), options.sources)
    sources = tuple(Source(pattern, graph=graph, frames=FRAME_COUNT) for pattern, graph in chosen)
    kept = islice(QUALITIES.items(), options.encoders)
    qualities = {encoder: numbers[: options.qualities] for encoder, numbers in kept}
    plan = Plan(sources, qualities, every=EVERY, jobs=options.jobs, normalised=False)
    built = build(plan, find_ffmpeg(), file, options.cache, tell)
    if built.failed or built.skipped:
        sys.exit(f"{file}: not complete: {dict(built.failed)} {dict(built.skipped)}")


def recorded(file: Path) -> dict[str, Json]:
    """What `encodes.build` recorded in the parquet's metadata, and the number of rows."""
    import pyarrow.parquet as pq

    return {**(read_record(file) or {}), "rows": pq.read_metadata(file).num_rows}


_README = """# The shipped corpora

Real encodes by real encoders, scored frame by frame by real libvmaf. Made by `python benchmarks/make_corpora.py` from
ffmpeg's own generators, so that nothing here has another licence. This file is written by the same command; the same
facts are in each parquet's schema metadata as JSON, under `fr_ensemble.corpus`.

- `corpus.parquet`: {rows} rows, {n_sources} sources. Every character of source comes at least in pairs, so that a
  model that never saw one of them has seen its like.
- `outlier.parquet`: {outlier_rows} rows of one source far outside the others; added to the corpus it makes an
  ensemble that a gate should hold.

ffmpeg {ffmpeg}, libvmaf {libvmaf}, model {model}.
Every frame is encoded and scored; the rows are every {every}th frame, from frame 0.

## Columns

`src`, `encoder`, `quality` (the number given to the encoder), `clip` (one encode: src, encoder and quality),
`frame_index`, `fps`, `height` (pixels), `preset`, `bitrate_kbps` (packets of the encode, without its container),
`adm2`, `vif_scale0`, `vif_scale1`, `vif_scale2`, `vif_scale3`, `motion2` (libvmaf's features), `vmaf` (0..100).

## How an encode is made

Encode with the options below, decode, and score against the source. Both pass the same filter, so that frame k meets
frame k whatever the container's clock says (PIXELS is the encoder's pixel format, RATE the source's frame rate):
`{frame_filter}`.
A source is refused when its near-lossless encode scores 95 or less.

{encoder_table}

## Sources of corpus.parquet

{source_table}

## Source of outlier.parquet

{outlier_table}
"""


def describe(corpus: Mapping[str, Json], outlier: Mapping[str, Json]) -> str:
    """The text of data/README.md, from the two files' own records."""
    encoders = [
        (name, e["preset"], ", ".join(map(str, e["qualities"])), f"`{' '.join(e['options'])}`", e["pixels"])
        for name, e in sorted(corpus["encoders"].items())
    ]
    return _README.format(
        **corpus,
        n_sources=len(corpus["sources"]),
        outlier_rows=outlier["rows"],
        encoder_table=_table(("encoder", "preset", "qualities", "options", "pixels"), encoders),
        source_table=_source_table(corpus),
        outlier_table=_source_table(outlier),
    )


def _source_table(record: Mapping[str, Json]) -> str:
    rows = [
        (name, f"{s['width']}x{s['height']}", s["rate"], s["frames"], f"{s['self_check_vmaf']:.2f}", f"`{s['graph']}`")
        for name, s in record["sources"].items()
    ]
    return _table(("source", "size", "rate", "frames", "self-check VMAF", "graph"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Makes both files and the README; a second run with the same cache makes no encode again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path, help="finished encodes' scores")
    parser.add_argument("jobs", type=int, nargs="?", default=1)
    parser.add_argument(
        "--folder", type=Path, default=DATA, help="of both files and the README (default: the plugin's)"
    )
    parser.add_argument("--sources", type=int, help="of each file, the first ones (default all)")
    parser.add_argument("--encoders", type=int, help="the first ones (default all)")
    parser.add_argument("--qualities", type=int, help="of each encoder, the first ones (default all)")
    options = parser.parse_args()
    files = [options.folder / f"{name}.parquet" for name in ("corpus", "outlier")]
    for file, patterns in zip(files, (PATTERNS, OUTLIER), strict=True):
        make(file, patterns, options)
    (options.folder / "README.md").write_text(describe(*map(recorded, files)))


if __name__ == "__main__":
    main()
