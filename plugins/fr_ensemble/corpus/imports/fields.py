"""fields.py: what a log is of: source, encoder, quality, ... from its name, a table or the caller. Reads no log."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from fr_ensemble.corpus.encoders import QUALITY_NUMBERS
from fr_ensemble.corpus.vmaf_models import FEATURE_SETS
from fr_ensemble.corpus.vocabulary import ffmpeg_name
from registry_tool.errors import InputError
from registry_tool.toolkit import BATCH_ROWS, Columns, decimal_comma, missing_column, read_rows
from registry_tool.values import Json

TEXTS = ("src", "encoder", "clip", "preset")  # columns of a table or pattern that stay text whatever they look like
POSITIVE_COLUMNS = ("bitrate", "bitrate_kbps", "height", "width", "fps")
DIGIT_COLUMNS = (*QUALITY_NUMBERS, *POSITIVE_COLUMNS)  # digits in a pattern, and numbers from 0 everywhere
LOG_SUFFIXES = (".json", ".xml", ".csv")
LOG_COLUMNS = frozenset({"frame_index", "vmaf", "vmaf_model"}.union(*FEATURE_SETS.values()))  # which the logs give
MAX_SPLITS = 1000  # ways to read a name that are looked at

Row = dict[str, Json]


@dataclass(slots=True)
class Fields:
    """Of each log what is known about it. unknown: a log -> why nothing is."""

    rows: dict[Path, Row]
    unknown: dict[Path, str] = field(default_factory=dict)

    def merged(self, other: Fields) -> Fields:
        """Both: where both say something the other wins; a log that one of them does not know is unknown."""
        both = {log: row | other.rows[log] for log, row in self.rows.items() if log in other.rows}
        return Fields(both, other.unknown | self.unknown)


def find_logs(paths: Sequence[Path], without: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named that have a log's extension; sorted within a folder."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if log_name(p).lower().endswith(LOG_SUFFIXES) and p.is_file()]
            if not inside:
                raise InputError(f"{path}: found no {', '.join(LOG_SUFFIXES)} file, expected libvmaf's logs in it")
            found += inside
        else:
            found.append(path)
    left_out = {path.resolve() for path in without}
    unique = {path.resolve(): path for path in found if path.resolve() not in left_out}
    return list(unique.values())


def missing(log: Path) -> str:
    """Why a log that is not there cannot be used."""
    return f"{log}: file not found: check the path"


def log_name(log: Path) -> str:
    """A log's name, without the ending of a compressed one."""
    return log.stem if log.suffix.lower() == ".gz" else log.name


def trouble(name: str, value: Json) -> str:
    """What is wrong with the value of a field, found and expected; "" for nothing."""
    if name in DIGIT_COLUMNS:
        if not isinstance(value, float):
            comma = decimal_comma(value)
            return f"found {name} {value!r:.80}, expected a number{f': {comma}' if comma else ''}"
        if value < 0 or (value == 0 and name in POSITIVE_COLUMNS):
            return f"found {name} {value:g}, expected a number {'above 0' if name in POSITIVE_COLUMNS else 'from 0'}"
    elif isinstance(value, str) and not value.isprintable():
        return f"found {name} {value!r:.80}, expected visible characters"
    return ""


# ---- constants --------------------------------------------------------------------------------------------------


def constants(texts: Sequence[str]) -> Row:
    """The fields of NAME=VALUE texts, the same for every log."""
    fields: Row = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value or not name.isidentifier() or name in LOG_COLUMNS or name in fields:
            raise InputError(f"--set: found {text!r}, expected NAME=VALUE, each name once, as in encoder=libx264")
        fields[name] = value if name in TEXTS else _number_or_text(value)
        if why := trouble(name, fields[name]):
            raise InputError(f"--set {name}: {why}")
    return fields


# ---- names ------------------------------------------------------------------------------------------------------


def fields_of_pattern(logs: Sequence[Path], pattern: str) -> Fields:
    """The fields in each file's name: numbers for DIGIT_COLUMNS, text for others, for `{encoder}` a known one.

    A name that can be read in two ways is not known: which of them is meant only its author knows.
    """
    fields_in(pattern)
    parts = _parts(pattern)
    depth, found = pattern.count("/") + 1, Fields({})
    for log in logs:
        tails = [f"{'/'.join(log.parts[-depth:]).removesuffix(log.name)}{name}" for name in _names(log, pattern)]
        ways = next(filter(None, (_ways(parts, tail) for tail in tails)), [])
        if len(ways) == 1:
            found.rows[log] = {name: _plain(text) if name in DIGIT_COLUMNS else text for name, text in ways[0].items()}
        elif ways:
            read = " or as ".join(", ".join(f"{name} {text!r}" for name, text in way.items()) for way in ways[:2])
            found.unknown[log] = f"{log}: its name can be read as {read}: rename it, or use --meta or --set"
        else:
            found.unknown[log] = f"{log}: its name does not follow --pattern {pattern}: rename it, or use --meta"
    return found


def fields_in(pattern: str) -> list[str]:
    """The names between braces. Raises InputError where there are none, or one that is not for a name."""
    names = _parts(pattern)[1::2]
    for trouble_of, name in (
        ("no field in braces", "" if names else pattern),
        ("a field twice", next((name for name, count in Counter(names).items() if count > 1), "")),
        ("a field that the logs give", next((name for name in names if name in LOG_COLUMNS), "")),
        ("a field that is no name", next((f"{{{name}}}" for name in names if not name.isidentifier()), "")),
    ):
        if name:
            expected = "expected different fields, as in {src}_{encoder}_{crf}.json"
            raise InputError(f"--pattern: found {pattern!r}, {trouble_of}: {name}, {expected}")
    return names


def _parts(pattern: str) -> list[str]:
    return re.split(r"\{([^{}]*)\}", pattern)


def _names(log: Path, pattern: str) -> list[str]:
    """What a pattern may mean of a log's name: all of it, or without its ending, where the pattern has none."""
    names = [log.name, log_name(log)]
    has_ending = pattern.lower().endswith((*LOG_SUFFIXES, ".gz"))
    return names if has_ending else [re.sub(r"\.(json|xml|csv)$", "", names[1], flags=re.IGNORECASE), *names]


def _ways(parts: Sequence[str], text: str) -> list[dict[str, str]]:
    """Every way to read a name, those with the longest known encoder alone where there are some."""
    ways = list(islice(_splits(parts, text, 0), MAX_SPLITS))
    known = [way for way in ways if _is_encoder(way.get("encoder", ""))]
    longest = max((len(way["encoder"]) for way in known), default=0)
    return [way for way in known if len(way["encoder"]) == longest] or ways


def _is_encoder(text: str) -> bool:
    return text[:1].isalnum() and text[-1].isalnum() and ffmpeg_name(text) is not None


def _splits(parts: Sequence[str], text: str, at: int) -> Iterator[dict[str, str]]:
    """Every way to read text[at:] as parts: a literal, then a field's name and a literal, and so on."""
    literal, *rest = parts
    if not text.startswith(literal, at):
        return
    at += len(literal)
    if not rest:
        if at == len(text):
            yield {}
        return
    name, *others = rest
    for end in _ends(name, text, at):
        for more in _splits(others, text, end):
            yield {name: text[at:end], **more}


def _ends(name: str, text: str, at: int) -> Iterator[int]:
    """Where a field that begins at `at` may end; a number takes all of its digits."""
    if name not in DIGIT_COLUMNS:
        slash = text.find("/", at)
        yield from range(at + 1, (len(text) if slash < 0 else slash) + 1)
    elif not text[at - 1 : at].isdigit() and (match := re.compile(r"\d+(?P<part>\.\d+)?").match(text, at)):
        yield match.end()
        if match["part"]:
            yield match.start("part")


# ---- tables -----------------------------------------------------------------------------------------------------


def fields_of_table(
    logs: Sequence[Path], table: Path, names: Mapping[str, str], needed: Sequence[str] = ()
) -> tuple[Fields, int]:
    """The row of each log, found by the column `log`; and how many have no log.

    There stands a file's name, its path's end, or its path: absolute, or from the table's folder.
    names: as of `read_rows`. needed: columns that it must have, since nothing else says them.
    """
    rows = _rows_by_log(table, names, needed)
    keys = {os.path.abspath(table.parent / name): name for name in rows}
    keys |= {os.path.normpath(name): name for name in rows}
    found, used = Fields({}), set()
    for log in logs:
        ends = ["/".join(log.parts[-depth:]) for depth in range(len(log.parts), 0, -1)]
        key = next((keys[name] for name in (os.path.abspath(log), *ends) if name in keys), None)
        if key is None:
            found.unknown[log] = f"{log}: no row in {table}, expected {log.name!r} in its column log: add it"
        else:
            found.rows[log] = dict(rows[key])
            used.add(key)
    return found, len(rows) - len(used)


def _rows_by_log(table: Path, names: Mapping[str, str], needed: Sequence[str]) -> dict[str, Row]:
    """The rows of a table by its column `log`, numbers as numbers, an empty cell left out."""
    rows: dict[str, Row] = {}
    columns: list[str] = []

    def pick(found: Sequence[str]) -> Columns:
        columns.extend(_table_columns(table, found))
        if lacking := [name for name in needed if name not in found]:
            raise missing_column(table, lacking[0], found)
        return Columns((), ("log",), tuple(columns))

    for batch in read_rows(table, pick, BATCH_ROWS, names=names):
        for index, code in enumerate(batch.texts["log"].codes):
            name = batch.texts["log"].names[code]
            if name in rows:
                raise InputError(f"{batch.place(index)}, column log: found {name!r} again, expected each log once")
            rows[name] = {column: batch.values[column][index] for column in columns}
    for column in columns:
        _convert(rows, column)
    return {name: {column: value for column, value in row.items() if value is not None} for name, row in rows.items()}


def _table_columns(table: Path, found: Sequence[str]) -> list[str]:
    """The columns of fields."""
    if "log" not in found:
        listed = ", ".join(found)
        raise InputError(f"{table}: no column 'log': found {listed}, expected the files' names in it: add it")
    if taken := [name for name in found if name in LOG_COLUMNS]:
        raise InputError(f"{table}: found the column {taken[0]!r}, which the logs give: drop it")
    return [name for name in found if name != "log"]


def _convert(rows: Mapping[str, Row], column: str) -> None:
    """A column as numbers; one text in it leaves all as text, but for one of DIGIT_COLUMNS, where it is the row's."""
    kind = _text if column in TEXTS else _number_or_text
    values = {key: None if row[column] in (None, "") else kind(row[column]) for key, row in rows.items()}
    if column not in DIGIT_COLUMNS and any(isinstance(value, str) for value in values.values()):
        values = {key: None if value is None else _text(rows[key][column]) for key, value in values.items()}
    for key, row in rows.items():
        row[column] = values[key]


def _text(value: Json) -> str:
    """A cell as text, a whole number as parquet and JSON may have it without its `.0`."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _number_or_text(value: Json) -> float | str:
    try:
        return _plain(value)
    except (ValueError, TypeError, OverflowError):
        return _text(value)


def _plain(value: Json) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number
