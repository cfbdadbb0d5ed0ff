"""encodes.py: plans a corpus of real encodes and builds it as parquet. Trains nothing and prints nothing.

A plan is sources x encoders x qualities. Its cells run in parallel, are kept in a cache by what decides their
content, and are written as one row a frame: a killed build goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from fr_ensemble.corpus.build.cells import ENGINE, Cell, Reference, Source, Workshop, frames_filter
from fr_ensemble.corpus.build.ffmpeg import MODEL, FFmpeg, FFmpegError, Runner, find_ffmpeg
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.vocabulary import CANONICAL_6, SCORES
from registry_tool.errors import InputError, WorldError
from registry_tool.toolkit import BATCH_ROWS, Parquet, write_rows

__all__ = ["ENCODERS", "Built", "Plan", "Source", "Step", "build", "find_ffmpeg"]

LOCK_SECONDS = 2.0  # a killed build's last child may hold the lock until it has become ffmpeg
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build. `qualities` maps an encoder's name to its quality numbers; `presets` to a preset of its list."""

    sources: tuple[Source, ...]
    qualities: Mapping[str, tuple[int, ...]]
    presets: Mapping[str, str] = field(default_factory=dict)
    every: int = 1  # keep frames 0, every, 2 * every, ...; all are encoded and scored
    jobs: int = 1
    normalised: bool = True  # columns preset_norm and crf_norm; the shipped corpora are older than they

    def __post_init__(self) -> None:
        names = [s.name for s in self.sources]
        if not names or len(set(names)) != len(names):
            raise InputError(f"sources: found {sorted(names)}, expected at least one, each name once: rename the files")
        for name, numbers in self.qualities.items():
            if name not in ENCODERS:
                raise InputError(f"encoder: found {name!r}, expected one of {', '.join(ENCODERS)}")
            low, high = ENCODERS[name].scale
            if not numbers or len(set(numbers)) != len(numbers) or not all(low <= q <= high for q in numbers):
                raise InputError(f"quality of {name}: found {list(numbers)}, expected different numbers {low}..{high}")
            if (preset := self.presets.get(name)) is not None and preset not in ENCODERS[name].presets:
                raise InputError(f"preset of {name}: found {preset!r}, expected one of {list(ENCODERS[name].presets)}")
        if not self.qualities or self.every < 1 or self.jobs < 1:
            found = f"{len(self.qualities)} encoders, every {self.every}, {self.jobs} jobs"
            raise InputError(f"plan: found {found}, expected an encoder, every >= 1 and jobs >= 1")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a build, told as it ends: a source opened, an encoder skipped, a cell made, cached or failed."""

    what: str  # source | encoder | cell
    name: str
    state: str  # done | cached | failed | skipped
    done: int  # cells that ended so far
    total: int  # cells of the plan
    message: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build. `failed` and `skipped` map a clip, source or encoder to one line that says why."""

    rows: int
    encoded: int
    cached: int
    failed: Mapping[str, str]
    skipped: Mapping[str, str]


Listener = Callable[[Step], None]


def _silent(_: Step) -> None:
    """The listener of a build that is not watched."""


def build(plan: Plan, ffmpeg: FFmpeg, output: Path, cache: Path, listen: Listener = _silent) -> Built:
    """Makes every cell of `plan` that `cache` lacks, and writes `output` (parquet) from all cells that succeeded.

    A source, encoder or cell that fails is told to `listen` and named in the result; the rest goes on. Killed at any
    point, the next build with the same cache goes on from there. Raises InputError when nothing can be made,
    WorldError when the cache is in use or everything failed.
    """
    from filelock import FileLock, Timeout

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock", timeout=LOCK_SECONDS):
            shop = Workshop(ffmpeg, cache)
            try:
                return _build(plan, shop, output, listen)
            finally:
                shutil.rmtree(shop.work, ignore_errors=True)
    except Timeout:
        raise WorldError(f"{cache}: another build uses this cache: wait for it, or give another folder") from None
    except OSError as error:
        raise WorldError(f"{error.filename or output}: {error.strerror}: free space or choose another folder") from None


def _build(plan: Plan, shop: Workshop, output: Path, listen: Listener) -> Built:
    skipped = {name: why for name in plan.qualities if (why := shop.usable(ENCODERS[name]))}
    for name, why in skipped.items():
        listen(Step("encoder", name, "skipped", 0, 0, why))
    cells = [
        Cell(source.name, ENCODERS[name], quality, plan.presets.get(name, ENCODERS[name].preset))
        for source in plan.sources
        for name, numbers in plan.qualities.items()
        if name not in skipped
        for quality in numbers
    ]
    if not cells:
        raise InputError(f"encoders: found none that works here ({skipped}): choose others")
    keys = {source.name: shop.source_key(source) for source in plan.sources}
    for name, key in keys.items():
        if twins := [other for other, its in keys.items() if its == key and other != name]:
            raise InputError(f"sources: {name} and {twins[0]} are the same video: leave one out, or folds would leak")
    files = {cell: shop.cell_file(keys[cell.source], cell) for cell in cells}
    missing = [cell for cell in cells if not files[cell].exists()]
    needed = {cell.source for cell in missing}
    failed: dict[str, str] = {}
    references: dict[str, Reference] = {}
    done = len(cells) - len(missing)

    def opened(source: Source, reference: Reference | None, error: FFmpegError | None) -> None:
        nonlocal done
        if reference is not None:
            references[source.name] = reference
        else:
            failed[source.name] = str(error)
            done += sum(cell.source == source.name for cell in missing)
        listen(Step("source", source.name, "failed" if error else "done", done, len(cells), str(error or "")))

    def ended(cell: Cell, _: None, error: FFmpegError | None) -> None:
        nonlocal done
        done += 1
        if error:
            failed[cell.clip] = str(error)
        listen(Step("cell", cell.clip, "failed" if error else "done", done, len(cells), str(error or "")))

    _parallel(plan.sources, lambda s: shop.open(s, keys[s.name], s.name in needed), opened, plan.jobs, shop.run)
    if not references:
        name, why = next(iter(failed.items()))
        raise InputError(f"{name}: {why}: expected at least one source that can be used")
    open_cells = [cell for cell in missing if cell.source in references]
    _parallel(open_cells, lambda c: shop.make(references[c.source], c), ended, plan.jobs, shop.run)
    made = [cell for cell in cells if cell.source in references and cell.clip not in failed]
    if not made:
        name, why = next(iter(failed.items()))
        raise WorldError(f"{name}: {why}: every cell failed; try the encoder with ffmpeg itself")
    record = _record(plan, shop.run.ffmpeg, references, made, [*failed, *skipped])
    output.parent.mkdir(parents=True, exist_ok=True)
    tables = _batches(plan, references, made, files)
    rows = write_rows(tables, output, parquet=_parquet(record, plan.normalised))
    new = set(open_cells)
    return Built(rows, sum(c in new for c in made), sum(c not in new for c in made), failed, skipped)


def _parallel(
    items: Sequence[T],
    work: Callable[[T], R],
    ended: Callable[[T, R | None, FFmpegError | None], None],
    jobs: int,
    run: Runner,
) -> None:
    """Calls work(item) on `jobs` threads (ffmpeg is the process that works) and `ended` on this one, as they end."""
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting: dict[Future[R], T] = {pool.submit(work, item): item for item in items}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                item = waiting.pop(future)
                try:
                    result, error = future.result(), None
                except FFmpegError as found:
                    result, error = None, found
                ended(item, result, error)
    except BaseException:
        run.stop()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _batches(
    plan: Plan, references: Mapping[str, Reference], cells: Sequence[Cell], files: Mapping[Cell, Path]
) -> Iterator[dict[str, list[Any]]]:
    """Columns of at most BATCH_ROWS rows, cell after cell."""
    columns: dict[str, list[Any]] = {}
    for cell in cells:
        reference = references[cell.source]
        same = {
            "src": cell.source,
            "encoder": cell.encoder.name,
            "quality": cell.quality,
            "clip": cell.clip,
            "fps": float(reference.rate),
            "height": reference.height,
            "preset": cell.preset,
        }
        if plan.normalised:
            encoder = cell.encoder
            same |= {
                "preset_norm": encoder.preset_norm(cell.preset),
                "crf_norm": encoder.quality_norm(cell.quality),
            }
        index = -1
        with open(files[cell]) as lines:
            kbps = int(lines.readline()) * 8 * float(reference.rate) / reference.frames / 1000
            for index, line in enumerate(lines):
                if index % plan.every:
                    continue
                scores = zip(SCORES, map(float, line.split(",")), strict=True)
                for name, value in (*same.items(), ("frame_index", index), ("bitrate_kbps", kbps), *scores):
                    columns.setdefault(name, []).append(value)
                if len(columns["src"]) == BATCH_ROWS:
                    yield columns
                    columns = {}
        if index + 1 != reference.frames:
            raise WorldError(
                f"{files[cell]}: found {index + 1} frames, expected {reference.frames}: delete the file and build again"
            )
    if columns:
        yield columns


def _parquet(record: Mapping[str, Any], normalised: bool) -> Parquet:
    types = {
        "src": "string",
        "encoder": "string",
        "quality": "int32",
        "clip": "string",
        "frame_index": "int32",
        "fps": "double",
        "height": "int32",
        "preset": "string",
        "bitrate_kbps": "double",
        **(dict.fromkeys(("preset_norm", "crf_norm"), "double") if normalised else {}),
    }
    options = {"compression": "zstd", "compression_level": 19, "use_dictionary": list(types)}
    return Parquet(
        types | dict.fromkeys(SCORES, "float"),
        lambda: {RECORD_KEY: json.dumps(record, sort_keys=True)},
        {**options, "use_byte_stream_split": list(SCORES)},
    )


def _record(
    plan: Plan, ffmpeg: FFmpeg, references: Mapping[str, Reference], cells: Sequence[Cell], without: Sequence[str]
) -> dict[str, Any]:
    """Everything that decides the rows, as JSON without any path; kept in the parquet's schema metadata."""
    sources = {source.name: source for source in plan.sources}
    encoders = {cell.encoder.name: cell for cell in cells}
    return {
        "engine": ENGINE,
        "ffmpeg": ffmpeg.version,
        "libvmaf": ffmpeg.libvmaf,
        "model": MODEL,
        "features": list(CANONICAL_6),
        "frame_filter": frames_filter(Fraction(24), "PIXELS").replace("1/24", "1/RATE"),
        "every": plan.every,
        "encoders": {
            name: asdict(cell.encoder)
            | {"preset": cell.preset, "qualities": list(plan.qualities[name])}
            | {"options": [*cell.encoder.options(0, cell.preset)[:-1], "QUALITY"]}
            for name, cell in encoders.items()
        },
        "sources": {
            r.name: {"rate": str(r.rate), "width": r.width, "height": r.height, "frames": r.frames}
            | {"self_check_vmaf": r.self_check, "sha256": r.sha256}
            | ({"graph": graph} if (graph := sources[r.name].graph) is not None else {})
            for r in references.values()
        },
        "without": sorted(without),
    }
