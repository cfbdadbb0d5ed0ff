"""logs.py: libvmaf's logs (JSON, XML, CSV) as rows of a corpus. Prints nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.vocabulary import SCORES, encode, vocabulary
from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import BATCH_ROWS, Columns, Parquet, read_rows, write_rows

TEXTS = ("src", "encoder", "clip", "preset")  # columns of a table or pattern that stay text whatever they look like
NUMBERS = ("quality", "crf", "cq", "qp", "bitrate", "bitrate_kbps", "height", "width", "fps")  # digits in a pattern
NORMS = ("preset_norm", "crf_norm")  # columns that an import adds where it can for every log
LOG_SUFFIXES = (".json", ".xml", ".csv")
TAKEN = ("frame_index", *SCORES)

Row = dict[str, Any]
Frame = tuple[int, Mapping[str, Any]]  # frame number, every number of the log


@dataclass(frozen=True, slots=True)
class Log:
    """What one log says. rows: (frame number, SCORES); incomplete: frames left out, as of a subsampled run."""

    rows: Sequence[tuple[float, ...]]
    version: str  # of libvmaf; empty where the log does not say
    incomplete: int
    sha256: str  # of the file


def find_logs(paths: Sequence[Path], without: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named that have a log's extension; sorted within a folder."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in LOG_SUFFIXES and p.is_file()]
            if not inside:
                raise InputError(f"{path}: found no {', '.join(LOG_SUFFIXES)} file, expected libvmaf's logs in it")
            found += inside
        else:
            found.append(path)
    left_out = {path.resolve() for path in without}
    unique = {path.resolve(): path for path in found if path.resolve() not in left_out}
    return list(unique.values())


def read_log(path: Path) -> Log:
    """One log, whichever its format. Raises InputError for a file that is no log or lacks a feature."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path of the log") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror}): check the file and its disk") from error
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    reader = {b"{": _json_frames, b"<": _xml_frames}.get(start, _csv_frames)
    try:
        version, frames = reader(data)
    except (ValueError, RecursionError, expat.ExpatError, csv.Error, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, AttributeError)) else str(error)
        raise InputError(f"{path}: not a libvmaf log ({what:.200}), expected JSON, XML or CSV with frames") from None
    if not frames:
        raise InputError(f"{path}: found no frames, expected a per-frame log: run libvmaf with its log of frames")
    rows = _rows(path, frames)
    return Log(rows, version, len(frames) - len(rows), hashlib.sha256(data).hexdigest())


def _json_frames(data: bytes) -> tuple[str, list[Frame]]:
    document = json.loads(data)
    frames = document["frames"]
    return str(document.get("version", "")), [
        (int(frame.get("frameNum", place)), dict(frame["metrics"])) for place, frame in enumerate(frames)
    ]


def _xml_frames(data: bytes) -> tuple[str, list[Frame]]:
    """No document type, so no entities: a log has none, and a hostile file could make one line into gigabytes."""
    frames: list[Frame] = []
    about: dict[str, str] = {}

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which may hide entities")

    def element(name: str, attributes: dict[str, str]) -> None:
        if not about:
            about.update({"version": "", **attributes})
            if name != "VMAF":
                raise ValueError(f"its root is <{name}>, not <VMAF>")
        if name == "frame":
            frames.append((int(attributes.pop("frameNum", len(frames))), attributes))

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = element
    parser.Parse(data, True)
    return about["version"], frames


def _csv_frames(data: bytes) -> tuple[str, list[Frame]]:
    lines = csv.DictReader(data.decode("utf-8-sig").splitlines(), strict=True)
    names = lines.fieldnames or []
    if "Frame" not in names:
        raise ValueError(f"its columns are {', '.join(names)[:80] or '(none)'}, without Frame")
    return "", [(int(line.pop("Frame")), line) for line in lines]


def _rows(path: Path, frames: Sequence[Frame]) -> list[tuple[float, ...]]:
    """The SCORES of every frame that has all of them; the names of a log may differ from one version to another."""
    named = {name: _name_in(frames, name) for name in SCORES}
    if missing := [name for name, found in named.items() if found is None]:
        known = sorted({name for name in frames[0][1] if name})
        raise InputError(
            f"{path}: lacks {', '.join(missing)}: found {', '.join(known)[:300]}, expected libvmaf's canonical six "
            "features and vmaf: run libvmaf again with them"
        )
    rows = []
    for number, metrics in frames:
        values = [metrics.get(str(found)) for found in named.values()]
        if None in values or "" in values:
            continue  # a subsampled run has motion alone on the frames between
        scores = [_number(path, number, name, value) for name, value in zip(SCORES, values, strict=True)]
        rows.append((number, *scores))
    if not rows:
        raise InputError(f"{path}: found no frame with all of {', '.join(SCORES)}: run libvmaf again")
    return rows


def _name_in(frames: Sequence[Frame], name: str) -> str | None:
    """What the log calls a feature: `adm2`, `integer_adm2`, or either as the library's own long name."""
    spellings = (name, f"integer_{name}", f"VMAF_integer_feature_{name}_score", f"VMAF_feature_{name}_score")
    return next((spelling for spelling in spellings if any(spelling in metrics for _, metrics in frames)), None)


def _number(path: Path, frame: int, name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{path}, frame {frame}, {name}: found {value!r:.80}, expected a finite number: score it again"
        )
    return number


# ---- what a log is of -------------------------------------------------------------------------------------------


def fields_of_pattern(logs: Sequence[Path], pattern: str) -> dict[Path, Row]:
    """The fields in each file's name. `{name}` matches text, or a number for the names in NUMBERS."""
    names = re.findall(r"\{([^{}]*)\}", pattern)
    if (
        not names
        or len(set(names)) != len(names)
        or not all(name.isidentifier() and name not in TAKEN for name in names)
    ):
        raise InputError(
            f"--pattern: found {pattern!r}, expected different fields, as in {{src}}_{{encoder}}_{{crf}}.json"
        )
    form = "".join(
        f"(?P<{part}>{r'[0-9]+(?:[.][0-9]+)?' if part in NUMBERS else '[^/]+'})" if place % 2 else re.escape(part)
        for place, part in enumerate(re.split(r"\{([^{}]*)\}", pattern))
    )
    depth, fields = pattern.count("/") + 1, {}
    for log in logs:
        match = re.fullmatch(form, "/".join(log.parts[-depth:]))
        if match is None:
            raise InputError(f"{log}: its name does not follow --pattern {pattern}: rename it, or use --meta")
        fields[log] = {name: _plain(text) if name in NUMBERS else text for name, text in match.groupdict().items()}
    return fields


def fields_of_table(logs: Sequence[Path], table: Path) -> tuple[dict[Path, Row], int]:
    """The row of each log, found by the column `log` (a file's name, or its path's end); and how many have no log."""
    rows = _rows_by_log(table)
    fields, used = {}, set()
    for log in logs:
        ends = ["/".join(log.parts[-depth:]) for depth in range(1, len(log.parts) + 1)]
        key = next((end for end in reversed(ends) if end in rows), None)
        if key is None:
            raise InputError(f"{table}: no row for {log}, expected {log.name!r} in the column log: add it")
        fields[log] = dict(rows[key])
        used.add(key)
    return fields, len(rows) - len(used)


def _rows_by_log(table: Path) -> dict[str, Row]:
    """The rows of a table by its column `log`, numbers as numbers."""
    rows: dict[str, Row] = {}
    names: list[str] = []

    def pick(found: Sequence[str]) -> Columns:
        if "log" not in found:
            listed = ", ".join(found)
            raise InputError(f"{table}: no column 'log': found {listed}, expected the files' names in it: add it")
        if taken := [name for name in found if name in TAKEN]:
            raise InputError(f"{table}: found the column {taken[0]!r}, which the logs give: drop it")
        names.extend(name for name in found if name != "log")
        return Columns((), ("log",), tuple(names))

    for batch in read_rows(table, pick, BATCH_ROWS):
        for index, code in enumerate(batch.texts["log"].codes):
            name = batch.texts["log"].names[code]
            if name in rows:
                raise InputError(f"{batch.place(index)}, column log: found {name!r} again, expected each log once")
            rows[name] = {column: batch.values[column][index] for column in names}
    for column in names:
        if column not in TEXTS:
            _to_numbers(rows, column)
    return rows


def _to_numbers(rows: Mapping[str, Row], column: str) -> None:
    """A CSV's column of numbers; one text in it leaves all as text."""
    values: dict[str, Any]
    try:
        values = {key: None if row[column] in (None, "") else _plain(row[column]) for key, row in rows.items()}
    except (ValueError, TypeError):
        values = {key: None if row[column] is None else str(row[column]) for key, row in rows.items()}
    for key, row in rows.items():
        row[column] = values[key]


def _plain(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


# ---- to one file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote. failed: a log -> why it was left out. incomplete: frames without every score, by log.

    twins: pairs of logs with the same scores.
    """

    rows: int
    logs: int
    failed: Mapping[str, str]
    incomplete: Mapping[str, int]
    twins: Sequence[tuple[str, str]]


def import_logs(fields: Mapping[Path, Row], output: Path, progress: Progress = silent) -> Imported:
    """Writes one row a frame: src, encoder, the other fields, clip, frame_index, canonical-6, vmaf.

    fields: by log; each needs `src` and `encoder`. A log that cannot be used is left out and named; where none can,
    InputError. Without a field `clip`, a log is one clip, named by its file.
    """
    for log, row in fields.items():
        for name in ("src", "encoder"):
            if not str(row.get(name) or "").strip():
                raise InputError(f"{log}: its {name} is not known: give it in --pattern or --meta")
    norms = {log: _norms(row) for log, row in fields.items()}
    types = _types(fields, norms)
    clips = _clip_names(fields)
    given = {log: norms[log] | row | {"clip": clips[log]} for log, row in fields.items()}
    found = _Found()

    def record() -> Mapping[str, str]:
        libvmaf = sorted({about["libvmaf"] for about in found.record.values()} - {""})
        return {RECORD_KEY: json.dumps({"logs": found.record, "libvmaf": libvmaf}, sort_keys=True)}

    parquet = Parquet(types, record, {"compression": "zstd"})
    rows = write_rows(_tables(given, list(types), found, progress), output, parquet=parquet)
    return Imported(rows, len(found.record), found.failed, found.incomplete, found.twins)


def _types(fields: Mapping[Path, Row], norms: Mapping[Path, Row]) -> dict[str, str]:
    """The columns in their order, and what each holds; a column with one text is text."""
    names = list(dict.fromkeys(name for row in fields.values() for name in row if name not in ("src", "encoder")))
    texts = {*TEXTS, *(n for row in fields.values() for n, value in row.items() if isinstance(value, str))}
    types = {"src": "string", "encoder": "string", **{n: "string" if n in texts else "double" for n in names}}
    known = [n for n in NORMS if n not in types and all(n in of_log for of_log in norms.values())]
    types |= dict.fromkeys(known, "double")
    return types | {"clip": "string", "frame_index": "int64", **dict.fromkeys(SCORES, "double")}


@dataclass(slots=True)
class _Found:
    """What an import comes across while it reads. record: by clip; seen: hash of a log's scores -> the log."""

    failed: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, int] = field(default_factory=dict)
    record: dict[str, dict[str, str]] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[int, str] = field(default_factory=dict)

    def add(self, log: Path, clip: str, read: Log) -> None:
        self.record[clip] = {"sha256": read.sha256, "libvmaf": read.version}
        if read.incomplete:
            self.incomplete[str(log)] = read.incomplete
        first = self.seen.setdefault(hash(tuple(read.rows)), str(log))
        if first != str(log):
            self.twins.append((first, str(log)))


def _tables(
    given: Mapping[Path, Row], names: Sequence[str], found: _Found, progress: Progress
) -> Iterator[Mapping[str, list[Any]]]:
    """The columns of each log's rows, about BATCH_ROWS at once."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for done, (log, row) in enumerate(given.items(), 1):
        try:
            read = read_log(log)
        except InputError as error:
            found.failed[str(log)] = str(error)
            continue
        finally:
            progress("logs", done, len(given))
        found.add(log, row["clip"], read)
        scores = dict(zip(TAKEN, zip(*read.rows, strict=True), strict=True))
        for name, column in columns.items():
            column += scores.get(name) or [row.get(name)] * len(read.rows)
        if len(columns["src"]) >= BATCH_ROWS:
            yield columns
            columns = {name: [] for name in names}
    if not found.record:
        raise InputError(f"{next(iter(found.failed.values()))}: none of {len(given)} logs can be used")
    if columns["src"]:
        yield columns


def _norms(row: Row) -> dict[str, float]:
    """The columns that `corpus build` gives: quality and preset on their encoder's own scales, where they are known."""
    slots, _ = encode([str(row["encoder"])])
    encoder, found = ENCODERS.get(vocabulary()[int(slots[0])]), {}
    if encoder is not None:
        if str(row.get("preset")) in encoder.presets:
            found["preset_norm"] = encoder.preset_norm(str(row["preset"]))
        quality = next((row[n] for n in ("quality", encoder.quality[1:]) if isinstance(row.get(n), float)), None)
        if quality is not None and encoder.scale[0] <= quality <= encoder.scale[1]:
            found["crf_norm"] = encoder.quality_norm(quality)
    return found


def _clip_names(fields: Mapping[Path, Row]) -> dict[Path, str]:
    """What the table says, else of the file's stem, name and path the first that is no other log's."""
    spellings = {log: (log.stem, log.name, log.as_posix()) for log in fields}
    often = [Counter(names) for names in zip(*spellings.values(), strict=True)]
    alone = {
        log: next((name for name, counts in zip(names, often, strict=True) if counts[name] == 1), names[-1])
        for log, names in spellings.items()
    }
    return {log: str(row.get("clip") or alone[log]) for log, row in fields.items()}
