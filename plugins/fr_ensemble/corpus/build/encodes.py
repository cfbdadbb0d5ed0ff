"""encodes.py: plans a corpus of real encodes and builds it as parquet. Trains nothing and prints nothing.

A plan is sources x encoders x qualities. Its encodes run in parallel, are kept in a cache by what decides their
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
from typing import TypeVar

from fr_ensemble.corpus.build.encoding import ENGINE_VERSION, CheckedSource, Encode, EncodeCache, Source, frames_filter
from fr_ensemble.corpus.build.ffmpeg import FFmpeg, FFmpegError, Runner, find_ffmpeg
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, VMAF_MODELS, canonical
from registry_tool.errors import InputError, WorldError
from registry_tool.toolkit import BATCH_ROWS, Parquet, write_rows
from registry_tool.values import Json

__all__ = ["ENCODERS", "Built", "Plan", "Source", "Step", "build", "find_ffmpeg"]

LATER_FIELDS = ("fractional", "beyond")  # of an encoder, in a record only where they say something
LOCK_SECONDS = 2.0  # a killed build's last child may hold the lock until it has become ffmpeg
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build. `qualities` maps an encoder's name to its quality numbers; `presets` to a preset of its list."""

    sources: tuple[Source, ...]
    qualities: Mapping[str, tuple[float, ...]]
    presets: Mapping[str, str] = field(default_factory=dict)
    every: int = 1  # keep frames 0, every, 2 * every, ...; all are encoded and scored
    jobs: int = 1
    normalised: bool = True  # columns preset_norm and crf_norm; the shipped corpora are older than they
    model: str = DEFAULT_MODEL  # of VMAF, that scores every encode

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", canonical(self.model))
        if self.model not in VMAF_MODELS:
            raise InputError(f"model: found {self.model!r}, expected one of {', '.join(VMAF_MODELS)}")
        names = [s.name for s in self.sources]
        if not names or len(set(names)) != len(names):
            found = ", ".join(sorted(names)) or "none"
            raise InputError(f"sources: found {found}, expected at least one, each name once: rename the files")
        for name, numbers in self.qualities.items():
            if name not in ENCODERS:
                raise InputError(f"encoder: found {name!r}, expected one of {', '.join(ENCODERS)}")
            low, high = ENCODERS[name].scale
            if not numbers or len(set(numbers)) != len(numbers) or not all(low <= q <= high for q in numbers):
                expected = f"numbers from {low} to {high}, each once"
                raise InputError(f"quality of {name}: found {_listed(numbers)}, expected {expected}")
            if not ENCODERS[name].fractional and any(q != int(q) for q in numbers):
                raise InputError(f"quality of {name}: found {_listed(numbers)}, expected whole numbers")
            if (preset := self.presets.get(name)) is not None and not ENCODERS[name].knows(preset):
                presets = [*ENCODERS[name].presets, *ENCODERS[name].beyond]
                raise InputError(f"preset of {name}: found {preset!r}, expected one of {', '.join(presets)}")
        if not self.qualities or self.every < 1 or self.jobs < 1:
            found = f"{len(self.qualities)} encoders, every {self.every}, {self.jobs} jobs"
            raise InputError(f"plan: found {found}, expected an encoder, every >= 1 and jobs >= 1")


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers) or "none"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a build, as it ends: a source checked, an encoder skipped, an encode made, cached or failed."""

    kind: str  # source | encoder | encode
    name: str
    state: str  # done | cached | failed | skipped | doubtful
    done: int  # encodes that ended so far
    total: int  # encodes of the plan
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


def build(plan: Plan, ffmpeg: FFmpeg, output: Path, folder: Path, listen: Listener = _silent) -> Built:
    """Makes every encode of `plan` that the cache folder lacks, and writes `output` (parquet) from all that succeeded.

    A source, encoder or encode that fails is told to `listen` and named in the result; the rest goes on. Killed at any
    point, the next build with the same cache goes on from there. Raises InputError when nothing can be made,
    WorldError when the cache is in use or everything failed.
    """
    from filelock import FileLock, Timeout

    folder = folder.absolute()  # ffmpeg runs in a folder of its own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            cache = EncodeCache(ffmpeg, folder, plan.model)
            try:
                return _build(plan, cache, output, listen)
            finally:
                shutil.rmtree(cache.work, ignore_errors=True)
    except Timeout:
        raise WorldError(f"{folder}: another build uses this cache: wait for it, or give another folder") from None
    except OSError as error:
        raise WorldError(f"{error.filename or output}: {error.strerror}: free space or choose another folder") from None


def _build(plan: Plan, cache: EncodeCache, output: Path, listen: Listener) -> Built:
    skipped = _unusable(plan, cache, listen)
    run = _Run(plan, cache, listen, _encodes(plan, skipped))
    run.check_sources()
    run.make_encodes()
    made = [encode for encode in run.encodes if encode.source in run.checked and encode.clip not in run.failed]
    if not made:
        name, reason = next(iter(run.failed.items()))
        raise WorldError(f"{name}: {reason}: every encode failed; try the encoder with ffmpeg itself")
    record = _record(plan, cache.run.ffmpeg, run.checked, made, [*run.failed, *skipped])
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = write_rows(_batches(plan, run.checked, made, run.files), output, parquet=_parquet(record, plan))
    new = sum(encode in run.missing for encode in made)
    return Built(rows, new, len(made) - new, run.failed, skipped)


def _unusable(plan: Plan, cache: EncodeCache, listen: Listener) -> dict[str, str]:
    """The encoders that this ffmpeg or machine cannot use, and why."""
    skipped = {name: reason for name in plan.qualities if (reason := cache.why_unusable(ENCODERS[name]))}
    for name, reason in skipped.items():
        listen(Step("encoder", name, "skipped", 0, 0, reason))
    return skipped


def _encodes(plan: Plan, skipped: Mapping[str, str]) -> list[Encode]:
    encodes = [
        Encode(source.name, ENCODERS[name], quality, plan.presets.get(name, ENCODERS[name].preset))
        for source in plan.sources
        for name, numbers in plan.qualities.items()
        if name not in skipped
        for quality in numbers
    ]
    if not encodes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise InputError(f"encoders: found none that works here ({reasons}): choose others")
    return encodes


class _Run:
    """A build under way: what is made, what is missing, what failed."""

    def __init__(self, plan: Plan, cache: EncodeCache, listen: Listener, encodes: Sequence[Encode]) -> None:
        self.plan, self.cache, self.listen, self.encodes = plan, cache, listen, encodes
        self.keys = {source.name: cache.source_key(source) for source in plan.sources}
        for name, key in self.keys.items():
            if twins := [other for other, its in self.keys.items() if its == key and other != name]:
                raise InputError(
                    f"sources: {name} and {twins[0]} are the same video: leave one out, or folds would leak"
                )
        self.files = {encode: cache.scores_file(self.keys[encode.source], encode) for encode in encodes}
        self.missing = {encode: None for encode in encodes if not self.files[encode].exists()}  # in order
        self.checked: dict[str, CheckedSource] = {}
        self.failed: dict[str, str] = {}
        self.done = len(encodes) - len(self.missing)

    def check_sources(self) -> None:
        """Raises InputError where none can be used."""
        needed = {encode.source for encode in self.missing}

        def work(source: Source) -> CheckedSource:
            return self.cache.check_source(source, self.keys[source.name], source.name in needed)

        _parallel(self.plan.sources, work, self._source_ended, self.plan.jobs, self.cache.run)
        if not self.checked:
            name, reason = next(iter(self.failed.items()))
            raise InputError(f"{name}: {reason}: expected at least one source that can be used")

    def make_encodes(self) -> None:
        encodes = [encode for encode in self.missing if encode.source in self.checked]

        def work(encode: Encode) -> None:
            self.cache.make(self.checked[encode.source], encode)

        _parallel(encodes, work, self._encode_ended, self.plan.jobs, self.cache.run)

    def _source_ended(self, source: Source, checked: CheckedSource | None, error: FFmpegError | None) -> None:
        if checked is not None:
            self.checked[source.name] = checked
            for doubt in checked.doubts:
                self.listen(Step("source", source.name, "doubtful", self.done, len(self.encodes), doubt))
        else:
            self.done += sum(encode.source == source.name for encode in self.missing)
        self._report("source", source.name, error)

    def _encode_ended(self, encode: Encode, _: None, error: FFmpegError | None) -> None:
        self.done += 1
        self._report("encode", encode.clip, error)

    def _report(self, kind: str, name: str, error: FFmpegError | None) -> None:
        if error is not None:
            self.failed[name] = str(error)
        state, message = ("failed", str(error)) if error is not None else ("done", "")
        self.listen(Step(kind, name, state, self.done, len(self.encodes), message))


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
    plan: Plan, checked: Mapping[str, CheckedSource], encodes: Sequence[Encode], files: Mapping[Encode, Path]
) -> Iterator[dict[str, list[str | float]]]:
    """Columns of at most BATCH_ROWS rows, encode after encode."""
    columns: dict[str, list[str | float]] = {}
    names = _score_names(plan)
    for encode in encodes:
        source = checked[encode.source]
        same: dict[str, str | float] = {
            "src": encode.source,
            "encoder": encode.encoder.name,
            "quality": encode.quality,
            "clip": encode.clip,
            "fps": float(source.rate),
            "height": source.height,
            "preset": encode.preset,
        }
        if plan.normalised:
            encoder = encode.encoder
            same |= {
                "preset_norm": encoder.preset_norm(encode.preset),
                "crf_norm": encoder.quality_norm(encode.quality),
            }
        index = -1
        with open(files[encode]) as lines:
            kbps = int(lines.readline()) * 8 * float(source.rate) / source.frames / 1000
            for index, line in enumerate(lines):
                if index % plan.every:
                    continue
                scores = zip(names, map(float, line.split(",")), strict=True)
                for name, value in (*same.items(), ("frame_index", index), ("bitrate_kbps", kbps), *scores):
                    columns.setdefault(name, []).append(value)
                if len(columns["src"]) == BATCH_ROWS:
                    yield columns
                    columns = {}
        if index + 1 != source.frames:
            raise WorldError(
                f"{files[encode]}: found {index + 1} frames, expected {source.frames}: delete the file and build again"
            )
    if columns:
        yield columns


def _score_names(plan: Plan) -> tuple[str, ...]:
    """The columns that the model gives: its features, and its score."""
    return (*VMAF_MODELS[plan.model].features, "vmaf")


def _parquet(record: Mapping[str, Json], plan: Plan) -> Parquet:
    integers = all(quality == int(quality) for numbers in plan.qualities.values() for quality in numbers)
    types = {
        "src": "string",
        "encoder": "string",
        "quality": "int32" if integers else "double",
        "clip": "string",
        "frame_index": "int32",
        "fps": "double",
        "height": "int32",
        "preset": "string",
        "bitrate_kbps": "double",
        **(dict.fromkeys(("preset_norm", "crf_norm"), "double") if plan.normalised else {}),
    }
    options = {"compression": "zstd", "compression_level": 19, "use_dictionary": list(types)}
    return Parquet(
        types | dict.fromkeys(_score_names(plan), "float"),
        lambda: {RECORD_KEY: json.dumps(record, sort_keys=True)},
        {**options, "use_byte_stream_split": list(_score_names(plan))},
    )


def _record(
    plan: Plan, ffmpeg: FFmpeg, checked: Mapping[str, CheckedSource], encodes: Sequence[Encode], without: Sequence[str]
) -> dict[str, Json]:
    """Everything that decides the rows, as JSON without any path; kept in the parquet's schema metadata."""
    sources = {source.name: source for source in plan.sources}
    encoders = {encode.encoder.name: encode for encode in encodes}
    model = VMAF_MODELS[plan.model]
    return {
        "engine": ENGINE_VERSION,
        "ffmpeg": ffmpeg.version,
        "libvmaf": ffmpeg.libvmaf,
        "model": plan.model,
        **({"bits": model.bits} if model.bits != 8 else {}),
        "features": list(model.features),
        "frame_filter": frames_filter(Fraction(24), "PIXELS").replace("1/24", "1/RATE"),
        "every": plan.every,
        "encoders": {
            name: {k: v for k, v in asdict(encode.encoder).items() if k not in LATER_FIELDS or v}
            | {"preset": encode.preset, "qualities": list(plan.qualities[name])}
            | {"options": [*encode.encoder.options(0, encode.preset)[:-1], "QUALITY"]}
            for name, encode in encoders.items()
        },
        "sources": {
            r.name: {"rate": str(r.rate), "width": r.width, "height": r.height, "frames": r.frames}
            | {"self_check_vmaf": r.self_check, "sha256": r.sha256}
            | ({"doubts": list(r.doubts)} if r.doubts else {})
            | ({"input": list(r.raw)} if r.raw else {})
            | ({"graph": graph} if (graph := sources[r.name].graph) is not None else {})
            for r in checked.values()
        },
        "without": sorted(without),
    }
