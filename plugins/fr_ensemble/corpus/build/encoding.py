"""encoding.py: checks one source, makes one encode (encode, decode, score), and keeps both in a cache. Plans nothing.

Memory does not grow with the clip: frames live inside ffmpeg, rows are read and written one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import IO

from fr_ensemble.corpus.build.ffmpeg import PROBE_SIZE, FFmpeg, FFmpegError, Runner, last_words, takes_size
from fr_ensemble.corpus.digest import file_sha256
from fr_ensemble.corpus.encoders import Encoder
from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, VMAF_MODELS, VmafModel, columns_of, spellings
from registry_tool.errors import InputError
from registry_tool.toolkit import atomic_file, clean_staging, counted, write_atomic
from registry_tool.values import Json

ENGINE_VERSION = 1  # raised whenever the same settings give other rows; part of every cache key
_COUNT_FRAMES = ("-pix_fmt", "yuv420p", "-c:v", "wrapped_avframe", "-f", "framecrc")  # a line a frame
TEN_BITS = "yuv420p10le"
SELF_CHECK = 95.0  # VMAF points; a near-lossless encode scores 96 to 100, misaligned frames of a moving source far less


@dataclass(frozen=True, slots=True)
class Source:
    """A video file, or a test pattern: an ffmpeg filter graph that is rendered for `frames` frames."""

    name: str
    path: Path | None = None
    graph: str | None = None
    frames: int = 48  # of a pattern; a file is read to its end
    raw: tuple[str, ...] = ()  # ffmpeg's input options of a file that is nothing but samples

    def __post_init__(self) -> None:
        if (self.path is None) == (self.graph is None):
            raise ValueError(f"source {self.name}: found {self.path} and {self.graph}, expected a path or a graph")


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """A source that passed the self-check."""

    name: str
    key: str  # sha256 of what decides its frames
    file: Path
    rate: Fraction  # frames per second
    width: int
    height: int
    frames: int
    sha256: str  # of the file, or of the rendered pattern (y4m)
    self_check: float  # mean VMAF of a near-lossless encode
    raw: tuple[str, ...] = ()  # see Source
    doubts: tuple[str, ...] = ()  # what may make its scores mean less than they seem to


@dataclass(frozen=True, slots=True)
class Encode:
    """One encode to make: `options` are the encoder's, in the order of the command line."""

    source: str
    encoder: Encoder
    quality: float
    preset: str

    @property
    def clip(self) -> str:
        return f"{self.source}.{self.encoder.name}.{self.quality:g}"


def frames_filter(rate: Fraction, pixels: str) -> str:
    """Even sides, one pixel format, and frame k at time k / rate, whatever the container's clock says."""
    even = "crop=trunc(iw/2)*2:trunc(ih/2)*2"
    return f"{even},format=yuv420p,format={pixels},settb={rate.denominator}/{rate.numerator},setpts=N"


def input_arguments(file: Path, raw: Sequence[str]) -> tuple[str, ...]:
    """ffmpeg's arguments for a source."""
    return (*raw, "-i", f"file:{file}")


def score_rows(log: IO[str], model: VmafModel) -> Iterator[tuple[float, ...]]:
    """The model's features and score of every frame in a libvmaf CSV log, whichever spellings its version has."""
    names = log.readline().strip().split(",")
    columns = {**columns_of(model, spellings(names)), "vmaf": "vmaf" if "vmaf" in names else None}
    if missing := [feature for feature, name in columns.items() if name is None]:
        raise FFmpegError(f"libvmaf's log lacks {', '.join(missing)}: it has {names}")
    places = [names.index(str(name)) for name in columns.values()]
    for number, line in enumerate(log):
        cells = line.split(",")
        try:
            yield tuple(float(cells[i]) for i in places)
        except (ValueError, IndexError):
            raise FFmpegError(f"libvmaf's log ends within frame {number}: is the disk full?") from None


def picture_doubts(words: str) -> list[str]:
    """What ffmpeg's description of a stream has that VMAF was not made for. words: of `ffmpeg -v info -i`."""
    match = re.search(r"Stream #0:\d+\S*: Video: (.*)", words)
    stream = match[1] if match else ""
    doubts = []
    if order := re.search(r"(top|bottom)[a-z ]* first|interlaced", stream):
        doubts.append(f"interlaced ({order[0]}): VMAF compares whole frames: deinterlace it first")
    if colours := re.search(r"smpte2084|arib-std-b67|bt2020", stream):
        doubts.append(f"{colours[0]}: the models are for standard dynamic range and bt709: convert it first")
    return doubts


def _rate_doubts(times: Sequence[int], base: Fraction) -> list[str]:
    """Frames whose distances differ by more than a container's rounding. times: of frames, in units of base."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    if max(steps) - min(steps) <= max(1, 0.1 * min(steps)):
        return []
    low, high = (float(1 / (step * base)) if step > 0 else math.inf for step in (max(steps), min(steps)))
    return [f"its frame rate varies from {low:.3g} to {high:.3g} a second: motion features are those of frames"]


def _packet_bytes(packets: IO[str]) -> int:
    """The sum of packet sizes in ffmpeg's framecrc format: stream, dts, pts, duration, size, checksum."""
    return sum(int(line.split(",")[4]) for line in packets if not line.startswith("#"))


def _read_frames(file: Path) -> tuple[Mapping[str, str], list[int]]:
    """Header and presentation times of a framecrc file."""
    header: dict[str, str] = {}
    times = []
    with open(file) as lines:
        for line in lines:
            if line.startswith("#"):
                name, _, value = line.partition(":")
                header[name] = value.strip()
            else:
                times.append(int(line.split(",")[2]))
    return header, times


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([ENGINE_VERSION, *parts], sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: expected a video file") from None


class EncodeCache:
    """A cache folder and an ffmpeg: checks sources, makes encodes, and makes nothing twice.

    `sources/KEY.json` and `cells/KEY.csv`, an encode's scores, are named by what decides their content and appear whole
    or not at all; `work/` holds what is under way and is emptied before and after.
    """

    def __init__(self, ffmpeg: FFmpeg, cache: Path, model: str = DEFAULT_MODEL) -> None:
        self.run = Runner(ffmpeg)
        self.model = VMAF_MODELS[model]
        self.engine = (ffmpeg.version, ffmpeg.libvmaf, model)
        self.cache = cache
        self.work = cache / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.work, cache / "sources", cache / "cells"):
            folder.mkdir(parents=True, exist_ok=True)
        clean_staging(cache)

    def source_key(self, source: Source) -> str:
        if source.path is not None:
            return _digest("file", _file_digest(source.path), *source.raw)
        return _digest("graph", source.graph, source.frames, *self.engine)

    def scores_file(self, key: str, encode: Encode) -> Path:
        options = encode.encoder.options(encode.quality, encode.preset)
        return self.cache / "cells" / f"{_digest(key, options, encode.encoder.pixels, *self.engine)}.csv"

    def check_source(self, source: Source, key: str, needed: bool) -> CheckedSource:
        """The source's facts; its frames too when `needed`. FFmpegError when it cannot be read or fails the check."""
        facts = self.cache / "sources" / f"{_digest(key, SELF_CHECK, 'doubts', *self.engine)}.json"
        known = json.loads(facts.read_text()) if facts.exists() else None
        file = source.path.absolute() if source.path is not None else self.work / f"{key}.y4m"
        with tempfile.TemporaryDirectory(dir=self.work) as name:
            folder = Path(name)
            if source.raw:
                self._require_whole_frames(file, source.raw, folder)
            if source.graph is not None and (needed or known is None):
                self._render(source, file, known and known["sha256"], folder)
            if known is None:
                known = self._facts(file, source.raw, folder)
                write_atomic(facts, json.dumps(known).encode())
        rate, doubts = Fraction(known.pop("rate")), tuple(known.pop("doubts"))
        return CheckedSource(source.name, key, file, rate, **known, raw=source.raw, doubts=doubts)

    def _render(self, source: Source, file: Path, sha256: str | None, folder: Path) -> None:
        """Writes a pattern's frames; FFmpegError unless they are those of `sha256` or, without one, of a second try."""
        for target in (file,) if sha256 else (folder / "first.y4m", file):
            shape = ("-frames:v", str(source.frames), "-pix_fmt", "yuv420p", str(target))
            self.run.run("-f", "lavfi", "-i", str(source.graph), *shape, folder=folder)
        if _file_digest(file) != (sha256 or _file_digest(folder / "first.y4m")):
            raise FFmpegError("the pattern gives other frames each time: give its generators seeds and colours")

    def _facts(self, file: Path, raw: Sequence[str], folder: Path) -> dict[str, Json]:
        """Rate, size, number of frames and what is doubtful, by decoding once; then the self-check."""
        reference = input_arguments(file, raw)
        frames = (*reference, "-map", "0:v:0", "-fps_mode", "passthrough")
        words = self.run.run(*frames, *_COUNT_FRAMES, "f.txt", folder=folder)
        header, times = _read_frames(folder / "f.txt")
        if len(times) < 2 or times[-1] <= times[0]:
            raise FFmpegError(f"found {counted(len(times), 'video frame')}, expected at least 2")
        base = Fraction(header["#tb 0"])
        rate = Fraction(len(times) - 1, times[-1] - times[0]) / base  # the mean, where it varies
        width, height = (int(side) // 2 * 2 for side in header["#dimensions 0"].split("x"))
        described = self.run.run("-v", "info", *reference, "-map", "0:v:0", "-t", "0", "-f", "null", "-", folder=folder)
        doubts = [f"ffmpeg says of it: {last_words(words)}"] if words else []
        doubts += [*picture_doubts(described), *_rate_doubts(times, base)]
        try:
            mean = self._self_check(reference, rate, len(times), folder)
        except FFmpegError:
            if takes_size(self.run.ffmpeg, self.model.name, f"{width}x{height}"):
                raise
            raise FFmpegError(
                f"too small: found {width}x{height}, which {self.model.name} does not score, expected larger pictures, "
                f"as {PROBE_SIZE}: scale it up first, or score with another --vmaf-model"
            ) from None
        if not mean > SELF_CHECK:
            raise FFmpegError(
                f"self-check: a near-lossless encode scores a mean VMAF of {mean:.2f}, expected more than "
                f"{SELF_CHECK:g}: frames of this source do not pair with their encodes"
            )
        picture_facts = {"rate": str(rate), "width": width, "height": height, "frames": len(times), "doubts": doubts}
        return {**picture_facts, "sha256": _file_digest(file), "self_check": round(mean, 3)}

    def _require_whole_frames(self, file: Path, raw: Sequence[str], folder: Path) -> None:
        """FFmpegError unless a file of nothing but samples is some frames of its size and pixels, whole ones."""
        one = (*input_arguments(Path("/dev/zero"), raw), "-frames:v", "1", "-c", "copy", "-f", "framecrc", "one.txt")
        try:
            self.run.run(*one, folder=folder)
        except FFmpegError as error:
            raise FFmpegError(f"{error}: give its --size, --pix-fmt and --rate") from None
        with open(folder / "one.txt") as packets:
            frame = _packet_bytes(packets)
        if (found := file.stat().st_size) % frame:
            shape = " ".join(raw[raw.index(option) + 1] for option in ("-video_size", "-pixel_format"))
            raise FFmpegError(
                f"found {found} bytes, expected a multiple of {frame}, which a frame of {shape} has: give its --size "
                "and --pix-fmt"
            )

    def _self_check(self, reference: Sequence[str], rate: Fraction, frames: int, folder: Path) -> float:
        """Mean VMAF of a near-lossless encode, made and scored the way every other encode is."""
        x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "4", "-threads", "1")
        codec = x264 if "libx264" in self.run.ffmpeg.encoders else ("-c:v", "ffv1")
        self._encode(reference, rate, codec, folder)
        self._score(reference, rate, "yuv420p", frames, folder)
        with open(folder / "scores.csv") as log:
            return sum(row[-1] for row in score_rows(log, self.model)) / frames

    def _encode(
        self,
        reference: Sequence[str],
        rate: Fraction,
        options: Sequence[str],
        folder: Path,
        encoder: Encoder | None = None,
    ) -> None:
        """Writes encode.mkv into `folder`. reference: see `input_arguments`."""
        pixels, upload, device = (encoder.pixels, encoder.upload, encoder.device) if encoder else ("yuv420p", "", ())
        graph = ("-vf", frames_filter(rate, pixels) + upload, "-fps_mode", "passthrough", "-abort_on", "empty_output")
        self.run.run(*device, *reference, "-map", "0:v:0", *graph, *options, "encode.mkv", folder=folder)

    def _score(self, reference: Sequence[str], rate: Fraction, pixels: str, frames: int, folder: Path) -> None:
        """Scores encode.mkv in `folder`: scores.csv a frame a line, packets.txt with the size of every packet.

        libvmaf pairs frames by timestamp, and containers change the time base (Matroska: milliseconds), so both inputs
        get the same one, and frame k of the one meets frame k of the other. Where one input ends early its last frame
        is repeated without a word, so the frames of the encode are counted apart. A model that was trained on ten bits
        sees ten, whatever the encode has: the banding that it looks for is coarser in eight.
        """
        same = frames_filter(rate, TEN_BITS if self.model.bits == 10 else pixels)
        vmaf = f"libvmaf=model=version={self.model.name}:n_threads=1:log_fmt=csv:log_path=scores.csv"
        graph = f"[0:v:0]{same},split[encode][count];[1:v:0]{same}[source];[encode][source]{vmaf}[out]"
        words = self.run.run(
            *("-i", "encode.mkv", *reference, "-filter_complex", graph, "-fps_mode", "passthrough"),
            *("-map", "[out]", "-f", "null", "-"),
            *("-map", "[count]", *_COUNT_FRAMES, "decoded.txt"),
            *("-map", "0:v:0", "-c", "copy", "-f", "framecrc", "packets.txt"),
            folder=folder,
        )
        if not (folder / "scores.csv").exists():  # libvmaf failed, and ffmpeg ended well for its other outputs
            raise FFmpegError(f"libvmaf wrote no scores: {last_words(words)}")
        with open(folder / "decoded.txt") as decoded:
            found = sum(not line.startswith("#") for line in decoded)
        if found != frames:
            raise FFmpegError(f"the encode decodes to {found} frames, the source has {frames}")

    def make(self, source: CheckedSource, encode: Encode) -> None:
        """Encodes, scores, and puts the scores into the cache."""
        with tempfile.TemporaryDirectory(dir=self.work) as name:
            folder = Path(name)
            options = encode.encoder.options(encode.quality, encode.preset)
            reference = input_arguments(source.file, source.raw)
            self._encode(reference, source.rate, options, folder, encode.encoder)
            self._score(reference, source.rate, encode.encoder.pixels, source.frames, folder)
            with open(folder / "packets.txt") as packets:
                size = _packet_bytes(packets)
            with open(folder / "scores.csv") as log, atomic_file(self.scores_file(source.key, encode)) as made:
                made.write(f"{size}\n".encode())
                scored = 0
                for row in score_rows(log, self.model):
                    scored += made.write((",".join(f"{x:.9g}" for x in row) + "\n").encode()) > 0
                if scored != source.frames:
                    raise FFmpegError(f"libvmaf scored {scored} frames, the source has {source.frames}")

    def why_unusable(self, encoder: Encoder) -> str:
        """An empty string, or one line that says why this ffmpeg or machine cannot use the encoder."""
        if encoder.name not in self.run.ffmpeg.encoders:
            return "this ffmpeg was built without it"
        if not encoder.hardware:
            return ""
        test = ("-f", "lavfi", "-i", "testsrc2=s=320x192:r=24", "-frames:v", "4")
        probe = (*encoder.device, *test, "-vf", f"format={encoder.pixels}{encoder.upload}")
        try:
            with tempfile.TemporaryDirectory(dir=self.work) as name:
                options = encoder.options(sum(encoder.scale) // 2, encoder.preset)
                self.run.run(*probe, *options, "probe.mkv", folder=Path(name))
        except FFmpegError as error:
            return str(error)
        return ""
