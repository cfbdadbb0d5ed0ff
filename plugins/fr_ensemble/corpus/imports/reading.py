"""reading.py: a log's bytes as frames, whichever tool wrote it: libvmaf, run_vmaf, ffmpeg-quality-metrics.

Knows formats, not what a metric means. `TOOLS` in docs/corpora.md is the table of what is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.parsers import expat

from fr_ensemble.corpus.vmaf_models import canonical
from registry_tool.errors import InputError, WorldError
from registry_tool.values import Json

LIBVMAF, RUN_VMAF, QUALITY_METRICS = "libvmaf", "run_vmaf", "ffmpeg-quality-metrics"
MAX_LOG_BYTES = 1 << 30  # of a log out of its gzip; an hour at 60 frames per second has 200 MB
MAX_FRAMES = 1 << 53  # what a number of JSON counts to
FRAME_COLUMNS = {"frame": (LIBVMAF, 0), "framenum": (LIBVMAF, 0), "n": (QUALITY_METRICS, 1)}  # -> tool, first number
# What C's printf makes of a number that JSON has no word for; json reads NaN, Infinity and -Infinity by itself.
UNQUOTED_NAN = re.compile(
    r"(?<=[:\[,])(\s*)[-+]?(?:inf(?:inity)?|nan(?:\(\w*\))?|1\.#\w+)(?=\s*[,}\]])", flags=re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one log. model: the definition that the log itself names; "" where it names none."""

    tool: str
    version: str  # of libvmaf; "" where the log does not say
    model: str
    numbers: Sequence[int]
    metrics: Sequence[Mapping[str, Json]]  # of each frame: name -> value, as the file has it
    sha256: str = ""  # of the file


class NotALog(ValueError):
    """What a file has in the place of frames."""


def load(path: Path) -> tuple[bytes, str]:
    """The bytes of a log's file, and their sha256."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror}): check the file and its disk") from error
    return data, hashlib.sha256(data).hexdigest()


def parse(path: Path, data: bytes, sha256: str) -> Frames:
    """The frames of one log, gzipped or not, in UTF-8 or UTF-16.

    Raises InputError, with tool and line, for a file that is no log.
    """
    try:
        frames = _frames(_inflated(data))
        _require_each_once(frames.tool, frames.numbers)
    except (ValueError, RecursionError, expat.ExpatError, csv.Error, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a VMAF log ({error!s:.300}), expected JSON, XML or CSV with frames") from None
    if not frames.numbers:
        raise InputError(
            f"{path}: found no frames ({frames.tool}), expected a log of each frame: run {frames.tool} with one"
        )
    return replace(frames, sha256=sha256)


def _require_each_once(tool: str, numbers: Sequence[int]) -> None:
    """Raises NotALog for a frame that is there twice, or whose number no video has."""
    if len({*numbers}) < len(numbers):
        number = next(number for number, count in Counter(numbers).items() if count > 1)
        raise NotALog(f"{tool}: frame {number} is there twice: are two logs in it?")
    for number in (min(numbers, default=0), max(numbers, default=0)):
        if not 0 <= number < MAX_FRAMES:
            raise NotALog(f"{tool}: a frame has the number {number:.6g}")


def _inflated(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            inflated = file.read(MAX_LOG_BYTES + 1)
    except OSError as error:
        raise NotALog(f"gzip: {error}") from None
    if len(inflated) > MAX_LOG_BYTES:
        raise NotALog(f"gzip: found more than {MAX_LOG_BYTES} bytes in it")
    return inflated


def _frames(data: bytes) -> Frames:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    start = data[:1024].decode(encoding, "ignore").lstrip()[:1]
    readers: dict[str, Callable[[str], Frames]] = {"{": _json, "[": _json, "<": _xml}
    return readers.get(start, _csv)(data.decode(encoding))


# ---- JSON -------------------------------------------------------------------------------------------------------


def _json(text: str) -> Frames:
    try:
        document = json.loads(text)
    except ValueError:
        repaired, count = UNQUOTED_NAN.subn(r"\1NaN", text)
        if not count:
            raise
        document = json.loads(repaired)
    if not isinstance(document, dict):
        raise NotALog(f"its JSON is a {type(document).__name__}")
    if "frames" not in document and isinstance(document.get("vmaf"), list):
        return _numbered(QUALITY_METRICS, document["vmaf"], "n", 1)
    frames = document.get("frames")
    if not isinstance(frames, list):
        keys = ", ".join(map(str, document))
        raise NotALog(f"its keys are {keys[:200] or '(none)'}, without frames: is it a pooled result?")
    if "executorId" in document:
        return _numbered(RUN_VMAF, frames, "frameNum", 0, _of_executor(str(document["executorId"])))
    params = document.get("params")
    model = _of_params(params) if isinstance(params, dict) else ""
    try:
        metrics, numbers = [frame["metrics"] for frame in frames], [frame["frameNum"] for frame in frames]
    except (KeyError, TypeError):
        metrics = [frame.get("metrics") if isinstance(frame, dict) else None for frame in frames]
        numbers = [frame.get("frameNum", place) if isinstance(frame, dict) else 0 for place, frame in enumerate(frames)]
    if not {*map(type, metrics)} <= {dict}:
        place = next(place for place, found in enumerate(metrics) if not isinstance(found, dict))
        raise NotALog(f"{LIBVMAF}: frame {place} has no metrics")
    return Frames(LIBVMAF, str(document.get("version", "")), model, _integers(numbers), metrics)


def _numbered(tool: str, frames: Sequence[Json], key: str, first: int, model: str = "") -> Frames:
    """Frames whose number is one of their values, counted from `first`."""
    for place, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise NotALog(f"{tool}: frame {place} is a {type(frame).__name__}")
    numbers = _integers([frame.get(key, place + first) for place, frame in enumerate(frames)])
    return Frames(tool, "", model, [number - first for number in numbers], frames)


def _integers(values: Sequence[Json]) -> Sequence[int]:
    """Frame numbers as whole numbers, from texts too."""
    if {*map(type, values)} <= {int}:
        return values
    numbers = []
    for place, value in enumerate(values):
        try:
            number = int(value)
            if number != value and isinstance(value, float):
                raise ValueError(value)
            numbers.append(number)
        except (TypeError, ValueError, OverflowError):
            raise NotALog(f"frame {place} has the number {value!r:.40}") from None
    return numbers


def _of_params(params: Mapping[str, Json]) -> str:
    """libvmaf 1 wrote the model's file, and whether its phone curve was on."""
    return canonical(str(params.get("model") or ""), str(params.get("phone_model") or "0") in ("1", "True", "true"))


def _of_executor(name: str) -> str:
    """By run_vmaf's runner: type, version (`VMAF_V0.6.1`, `VMAF_VF0.2.4c-0.6.1`) and, where given, a model's file."""
    phone = "transform" in name.lower() or "phone" in name.lower()
    if file := re.search(r"model_filepath[=_:\s'\"]*([^'\",\s]+?\.(?:json|pkl|model))", name):
        return canonical(file[1], phone)
    match = re.match(r"VMAF(?P<neg>NEG)?_V(?:F[^-]*-)?(?P<version>\d+\.\d+\.\d+)", name, flags=re.IGNORECASE)
    if match is None:
        return ""
    return canonical(f"vmaf_v{match['version']}{'neg' if match['neg'] else ''}", phone)


# ---- XML --------------------------------------------------------------------------------------------------------


def _xml(text: str) -> Frames:
    """No document type, so no entities: a log has none, and a hostile file could make one line into gigabytes."""
    numbers: list[Json] = []
    metrics: list[dict[str, str]] = []
    about: dict[str, dict[str, str]] = {}
    roots = {"VMAF": LIBVMAF, "result": RUN_VMAF}

    def refuse(*_: object) -> None:
        raise NotALog("it declares a document type, which may hide entities")

    def element(name: str, attributes: dict[str, str]) -> None:
        if not about and name not in roots:
            raise NotALog(f"its root is <{name}>, not <VMAF> (libvmaf) or <result> (run_vmaf)")
        if name == "frame":
            numbers.append(attributes.pop("frameNum", len(numbers)))
            metrics.append(attributes)
        elif name != "metric":
            about.setdefault(name, attributes)

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = element
    parser.Parse(text, True)
    if "result" in about:
        return Frames(RUN_VMAF, "", _of_executor(about["result"].get("executorId", "")), _integers(numbers), metrics)
    version, model = about["VMAF"].get("version", ""), _of_params(about.get("params", {}))
    return Frames(LIBVMAF, version, model, _integers(numbers), metrics)


# ---- CSV --------------------------------------------------------------------------------------------------------


def _csv(text: str) -> Frames:
    reader = csv.reader(text.splitlines(), strict=True)
    header = [name.strip() for name in next(reader, [])]
    at = next((place for place, name in enumerate(header) if name.lower() in FRAME_COLUMNS), None)
    if at is None:
        found = ", ".join(header)[:80] or "(none)"
        hint = ": save it with commas" if ";" in found or "\t" in found else ""
        raise NotALog(f"its columns are {found}, without Frame (libvmaf) or n (ffmpeg-quality-metrics){hint}")
    tool, first = FRAME_COLUMNS[header[at].lower()]
    numbers: list[str] = []
    metrics: list[dict[str, str]] = []
    for row in _whole_rows(reader, len(header), tool):
        numbers.append(row[at])
        metrics.append(dict(zip(header, row, strict=True)))
        del metrics[-1][header[at]]
    return Frames(tool, "", "", [number - first for number in _integers(numbers)], metrics)


def _whole_rows(reader: Any, width: int, tool: str) -> Iterable[list[str]]:
    """The rows that are as long as the header; libvmaf ends each line, also the first, with a comma."""
    for row in reader:
        if not row:
            continue
        if len(row) != width:
            why = "cut off, or written with decimal commas?" if len(row) < width else "decimal commas?"
            raise NotALog(f"{tool}: line {reader.line_num} has {len(row)} fields, the header {width}: {why}")
        yield row
