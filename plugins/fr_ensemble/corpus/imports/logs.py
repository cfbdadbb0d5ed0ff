"""logs.py: logs become the rows of one corpus, all by one model. Prints nothing."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.corpus.columns import NORM_SOURCES
from fr_ensemble.corpus.encoders import ENCODERS, QUALITY_NUMBERS, crf_norm_of, preset_norm_of
from fr_ensemble.corpus.imports.fields import TEXTS, Fields, Row, log_name, trouble
from fr_ensemble.corpus.imports.identity import Identity, LogChoice, identify
from fr_ensemble.corpus.imports.reading import Frames, load, parse
from fr_ensemble.corpus.record import MODEL_COLUMN, RECORD_KEY
from fr_ensemble.corpus.vmaf_models import SAME_SCORE, model_of
from fr_ensemble.corpus.vocabulary import ffmpeg_name
from registry_tool.errors import InputError
from registry_tool.hookspec import Column, Progress, silent
from registry_tool.strictjson import uncollected
from registry_tool.toolkit import BATCH_ROWS, Parquet, Text, format_of, write_rows
from registry_tool.values import Json

TARGET = "vmaf"  # the column of the score, whichever it was in the logs
MISALIGNED_MEAN = 12.0  # points: frames that do not belong together score about 10 on average, and often 0
# A reference that ends before its encode is repeated, still, to the encode's end: from there its motion is 0 and scores
# fall. A scene that stands still scores no worse than the others.
MIN_STILL_FRAMES = 3
MIN_FALL = 10.0  # points
PROBED_FRAMES = 8  # of a log, its first: where all of its features are another log's, its score must be too


@dataclass(frozen=True, slots=True)
class Log:
    """The frames of one log that have every feature and the score, n of them; F features.

    incomplete: frames that lack one, as of a subsampled run. not_finite: frames with a NaN or an infinity.
    """

    identity: Identity
    numbers: Int64  # (n,)
    features: Float64  # (n, F)
    score: Float64  # (n,)
    incomplete: int
    not_finite: int
    version: str  # of libvmaf; "" where the log does not say
    sha256: str  # of the file

    @property
    def ended_frames(self) -> int:
        """How many frames at the end meet one still picture, and score far below those before; 0 for none."""
        motion = next(k for k, name in enumerate(self.identity.columns) if name.startswith("motion"))
        moving = np.flatnonzero(self.features[:, motion] != 0)
        first = int(moving[-1]) + 1 if len(moving) else len(self.score)
        if len(self.score) - first < MIN_STILL_FRAMES:
            return 0
        falls = self.score[:first].mean() - self.score[first:].mean() > MIN_FALL
        return len(self.score) - first if falls else 0


def log_of(path: Path, frames: Frames, wanted: LogChoice) -> Log:
    """What is wanted of the frames of one log."""
    try:
        identity = identify(frames, wanted)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    names = [*identity.columns.values(), identity.score]
    table = _table(path, frames, names)
    missing = table == -np.inf  # see _table
    is_complete = ~missing.any(axis=1)
    finite = np.isfinite(table).all(axis=1)
    if not finite.any():
        raise InputError(f"{path}: found no frame with all of {', '.join(names)} as numbers: score it again")
    numbers = np.array(frames.numbers, np.int64)[finite]
    _require_range(f"{path} ({frames.tool})", identity, numbers, table[finite, -1])
    return Log(
        identity,
        numbers,
        table[finite, :-1],
        table[finite, -1],
        int((~is_complete).sum()),
        int((is_complete & ~finite).sum()),
        frames.version,
        frames.sha256,
    )


def _require_range(place: str, identity: Identity, numbers: Int64, score: Float64) -> None:
    """Raises InputError for a score that a model does not give; of one that libvmaf does not ship any may be its."""
    model = model_of(identity.definition)
    if model is None:
        return
    outside = np.flatnonzero((score < 0) | (score > model.high))
    if len(outside):
        raise InputError(
            f"{place}, frame {numbers[outside[0]]}, {identity.score}: found {score[outside[0]]:g}, expected "
            f"0..{model.high:g} by {identity.definition}: score it again with that model, clipped to its range"
        )


def _table(path: Path, frames: Frames, names: Sequence[str]) -> Float64:
    """The values of names, (n, len(names)): NaN for what is no finite number, -inf for what is not there."""
    try:
        flat = list(chain.from_iterable(map(itemgetter(*names), frames.metrics)))
    except KeyError:
        flat = [frame.get(name) for frame in frames.metrics for name in names]
    if {*map(type, flat)} <= {float}:
        table = np.array(array("d", flat)).reshape(-1, len(names))  # a third of what numpy takes for a list
        table[~np.isfinite(table)] = np.nan
        return table
    k = len(names)
    numbers = [_number(path, frames, place // k, names[place % k], value) for place, value in enumerate(flat)]
    return np.array(numbers, np.float64).reshape(-1, k)


def _number(path: Path, frames: Frames, place: int, name: str, value: Json) -> float:
    if value is None or value == "":
        return -np.inf
    try:
        number = float("x" if isinstance(value, bool) else value)
    except (ValueError, TypeError):
        place_text = f"{path} ({frames.tool}), frame {frames.numbers[place]}, {name}"
        raise InputError(f"{place_text}: found {value!r:.80}, expected a number: score it again") from None
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


# ---- to one file ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Imported:
    """What an import wrote. Where a field maps logs, the log's path is its key.

    failed: why a log was left out. incomplete, not_finite: frames left out. twins: pairs of logs with the same scores.
    definition: the model of the score.
    without: a column of NORMS_OF_LOG that one log lacks -> that log, and why.
    """

    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, int] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)
    doubtful: dict[str, float] = field(default_factory=dict)  # mean score of frames that may not belong together
    ended: dict[str, int] = field(default_factory=dict)  # frames behind the end of a reference that is too short
    sources: Counter[str] = field(default_factory=Counter)  # logs of each
    encoders: Counter[str] = field(default_factory=Counter)
    without: dict[str, str] = field(default_factory=dict)
    definition: str = ""

    @property
    def logs(self) -> int:
        return self.sources.total()


def import_logs(fields: Fields, output: Path, wanted: LogChoice, progress: Progress = silent) -> Imported:
    """Writes one row a frame: src, encoder, the other fields, clip, frame_index, the model's features, vmaf.

    A log that cannot be used is left out and named; where none can, InputError. So is a second model: one corpus has
    one definition of its target. Without a field `clip`, a log is one clip, named by its file.
    """
    done = Imported(failed={str(log): why for log, why in fields.unknown.items()})
    rows = {}
    for log, row in fields.rows.items():
        lacking = [name for name in ("src", "encoder") if not str(row.get(name) or "").strip()]
        odd = next(filter(None, (trouble(name, value) for name, value in row.items())), "")
        if lacking:
            done.failed[str(log)] = f"{log}: its {lacking[0]} is not known: give it in --pattern, --meta or --set"
        elif odd:
            done.failed[str(log)] = f"{log}: {odd}: correct its row, or its name"
        else:
            rows[log] = row
    if not rows:
        raise _unusable(list(done.failed.values()))
    norms = _all_norms(rows, done)
    clips = _clip_names(rows)
    given = {log: row | {n: v for n, v in norms[log].items() if n not in row} for log, row in rows.items()}
    given = {log: row | {"clip": clips[log]} for log, row in given.items()}
    reading = _Reading(wanted, done)
    logs = reading.logs(list(given), progress)
    first = next(logs, None)
    if first is None:
        raise _unusable(list(done.failed.values())[::-1])
    features = list(first[1].identity.columns)
    types = _types(given, features)
    form = format_of(output)
    if form != "parquet":
        types[MODEL_COLUMN] = "string"  # where a file has no metadata, a column says it
    texts = [name for name, kind in types.items() if kind == "string"]
    parquet = Parquet(types, reading.metadata, {"compression": "zstd", "use_dictionary": texts})
    done.rows = write_rows(reading.tables(given, types, chain([first], logs)), output, parquet=parquet)
    return done


def _unusable(reasons: Sequence[str]) -> InputError:
    """The error for logs of which none is left. reasons: of each, the one to tell first."""
    return InputError(reasons[0] + (f": none of {len(reasons)} logs can be used" if len(reasons) > 1 else ""))


def _types(given: Mapping[Path, Row], features: Sequence[str]) -> dict[str, str]:
    """The columns in their order, and what each holds; a column with one text is text."""
    names = [name for row in given.values() for name in row if name not in ("src", "encoder", "clip")]
    texts = {*TEXTS, *(n for row in given.values() for n, value in row.items() if isinstance(value, str))}
    fields = {n: "string" if n in texts else "double" for n in dict.fromkeys(("src", "encoder", *names))}
    given_types = fields | {"clip": "string", "frame_index": "int64"}
    return given_types | dict.fromkeys((*features, TARGET), "double")


@dataclass(slots=True)
class _Reading:
    """Reads the logs one after another and holds them against each other.

    record: by clip. seen: the digest of a log's numbers -> the log. probes: features of a frame -> its score and log.
    """

    wanted: LogChoice
    done: Imported
    record: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: dict[bytes, str] = field(default_factory=dict)
    probes: dict[bytes, tuple[float, str]] = field(default_factory=dict)
    first: str = ""

    def logs(self, paths: Sequence[Path], progress: Progress) -> Iterator[tuple[Path, Log]]:
        """Each log that can be used. While one is parsed, a thread reads the next and computes its digest."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[tuple[bytes, str]] | None = None
            for number, path in enumerate(paths, 1):
                loaded = ahead or pool.submit(load, path)
                ahead = pool.submit(load, paths[number]) if number < len(paths) else None
                try:
                    with uncollected():
                        log = log_of(path, parse(path, *loaded.result()), self.wanted)
                except InputError as error:
                    self.done.failed[str(path)] = str(error)
                    continue
                finally:
                    progress("logs", number, len(paths))
                self._require_one_model(str(path), log)
                yield path, log

    def _require_one_model(self, path: str, log: Log) -> None:
        """Raises InputError for a log by another model than the first one's, or that does not say by which it is."""
        done, identity = self.done, log.identity
        if not identity.definition:
            models = " or ".join(identity.candidates)
            raise InputError(
                f"{path}: its {identity.score} may be by {models}, and the log does not say which, expected one model "
                "in a corpus: name that of all logs: --vmaf-model NAME"
            )
        if not self.first:
            self.first, done.definition = path, identity.definition
        elif identity.definition != done.definition:
            raise InputError(
                f"{path}: its {identity.score} is by {identity.definition}, that of {self.first} by {done.definition}, "
                "expected one model in a corpus: import them apart"
            )
        for features, score in zip(np.round(log.features[:PROBED_FRAMES], 5), log.score, strict=False):
            known, known_in = self.probes.setdefault(features.tobytes(), (float(score), path))
            if abs(known - score) > SAME_SCORE:
                raise InputError(
                    f"{path}: found {identity.score} {score:g} for a frame with the features of one that has {known:g} "
                    f"in {known_in}, expected one model in a corpus: import them apart, each with its --vmaf-model NAME"
                )

    def metadata(self) -> Mapping[str, str]:
        versions = sorted({about["libvmaf"] for about in self.record.values()} - {""})
        record = {"logs": self.record, "libvmaf": versions, "model": self.done.definition}
        return {RECORD_KEY: json.dumps(record, sort_keys=True)}

    def tables(
        self, given: Mapping[Path, Row], types: Mapping[str, str], logs: Iterator[tuple[Path, Log]]
    ) -> Iterator[Mapping[str, Sequence[Json] | Column]]:
        """The columns of each log's rows, about BATCH_ROWS at once."""
        parts: list[tuple[Row, Log]] = []
        n_rows = 0
        for path, log in logs:
            self._note(path, given[path], log)
            parts.append((given[path] | {MODEL_COLUMN: self.done.definition}, log))
            n_rows += len(log.numbers)
            if n_rows >= BATCH_ROWS:
                yield _columns(parts, types)
                parts, n_rows = [], 0
        if parts:
            yield _columns(parts, types)

    def _note(self, path: Path, row: Row, log: Log) -> None:
        done = self.done
        self.record[row["clip"]] = {"sha256": log.sha256, "libvmaf": log.version}
        done.sources[str(row["src"])] += 1
        done.encoders[str(row["encoder"])] += 1
        if log.incomplete:
            done.incomplete[str(path)] = log.incomplete
        if log.not_finite:
            done.not_finite[str(path)] = log.not_finite
        if (mean := float(log.score.mean())) < MISALIGNED_MEAN:
            done.doubtful[str(path)] = mean
        if ended := log.ended_frames:
            done.ended[str(path)] = ended
        scores = hashlib.sha256(log.features.tobytes() + log.score.tobytes()).digest()
        twin = self.seen.setdefault(scores, str(path))
        if twin != str(path):
            done.twins.append((twin, str(path)))


def _columns(parts: Sequence[tuple[Row, Log]], types: Mapping[str, str]) -> dict[str, Sequence[Json] | Column]:
    """The rows of logs one below the other; of a field, its value in every row of its log."""
    logs = [log for _, log in parts]
    features = np.concatenate([log.features for log in logs])
    own: dict[str, Column] = dict(zip(logs[0].identity.columns, features.T, strict=True))
    own["frame_index"] = np.concatenate([log.numbers for log in logs])
    own[TARGET] = np.concatenate([log.score for log in logs])
    counts = np.array([len(log.numbers) for log in logs])

    def same(name: str, kind: str) -> Sequence[Json] | Column:
        values = [row.get(name) for row, _ in parts]
        if None in values:
            return list(np.repeat(np.array(values, object), counts))
        if kind == "string":
            return Text(np.repeat(np.arange(len(values)), counts), tuple(map(str, values)))
        return np.repeat(np.array(values, np.float64), counts)

    return {name: own[name] if name in own else same(name, kind) for name, kind in types.items()}


def _all_norms(rows: Mapping[Path, Row], done: Imported) -> dict[Path, dict[str, float]]:
    """NORMS_OF_LOG by log, where every log has it; else `without` says which lacks it, where any has its columns."""
    found: dict[Path, dict[str, float]] = {log: {} for log in rows}
    for norm, (norm_of, columns) in NORMS_OF_LOG.items():
        values = {log: norm_of(row) for log, row in rows.items()}
        lacking = next((log for log, value in values.items() if isinstance(value, str)), None)
        if lacking is None:
            for log, value in values.items():
                found[log][norm] = float(value)
        elif any(row.get(column) is not None for row in rows.values() for column in columns):
            done.without[norm] = f"{lacking}: {values[lacking]}"
    return found


def _preset_norm(row: Row) -> float | str:
    return preset_norm_of(str(row["encoder"]), str(row.get("preset") or ""))


def _crf_norm(row: Row) -> float | str:
    """Of the encoder's own number, if the row has it under that name; people call any of them crf."""
    encoder = ENCODERS.get(ffmpeg_name(str(row["encoder"])) or "")
    names = ("quality", *((encoder.quality[1:],) if encoder else ()), *QUALITY_NUMBERS)
    numbers = (str(row[name]) for name in names if isinstance(row.get(name), float))
    return crf_norm_of(str(row["encoder"]), next(numbers, ""))


# Columns that an import adds where it can for every log: what gives them, and of which columns.
NORMS_OF_LOG = {
    "preset_norm": (_preset_norm, NORM_SOURCES["preset_norm"]),
    "crf_norm": (_crf_norm, NORM_SOURCES["crf_norm"]),
}


def _clip_names(rows: Mapping[Path, Row]) -> dict[Path, str]:
    """What the table says, else of the file's stem, name and path the first that is no other log's."""
    spellings = {log: (Path(log_name(log)).stem, log.name, log.as_posix()) for log in rows}
    often = [Counter(names) for names in zip(*spellings.values(), strict=True)]
    unique = {
        log: next((name for name, counts in zip(names, often, strict=True) if counts[name] == 1), names[-1])
        for log, names in spellings.items()
    }
    return {log: str(row.get("clip") or unique[log]) for log, row in rows.items()}
