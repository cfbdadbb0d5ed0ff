"""info.py: what a corpus holds and what is odd about it: counts, ranges, duplicates, leakage. Trains nothing.

The file streams through; a row leaves 24 bytes (hashes of its numbers and, twice, of its features), its source (4) and
its target (4) behind; 16 more and 8 a column where frames are named, to find columns that describe the reference.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Int32, Mask, UInt64, rows_by_name
from fr_ensemble.corpus import vocabulary
from fr_ensemble.corpus.columns import ColumnRequest, Layout, column_of, layout_of
from fr_ensemble.corpus.fingerprints import FRAME, ReferenceColumns, SourcePairs, splitmix64
from fr_ensemble.corpus.record import DEFINED_TARGETS, Definition, read_definition, read_record
from fr_ensemble.corpus.rows import without_name
from fr_ensemble.corpus.spec import KNOWN_RANGES
from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, SAME_SCORE, features_among, features_of, high_of
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import BATCH_ROWS, Columns, RowBatch, Text, read_rows
from registry_tool.values import EMPTY, Json

SAME_DECIMALS = 4  # to which numbers must agree for two rows to be one: logs are printed with five or six
SAME_FEATURES = 5  # decimals to which features must agree for their score to be one
HARDWARE_ENGINES = ("nvenc", "qsv", "amf", "vaapi", "videotoolbox")  # words of encoders' names that are none alone
MAX_BARS = 64  # of the target's histogram


class _Numbers:
    """Count, least, greatest and mean of a stream of numbers."""

    def __init__(self) -> None:
        self.n, self.low, self.high, self.total = 0, np.inf, -np.inf, 0.0

    def update(self, values: Float64) -> None:
        if len(values):
            self.n, self.total = self.n + len(values), self.total + float(values.sum())
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def to_dict(self) -> dict[str, float]:
        return {"min": self.low, "mean": self.total / self.n, "max": self.high}


class Histogram:
    """Counts in bars of one width, a power of two that doubles while the numbers span more than MAX_BARS of them.

    A bar of 2 w is two bars of w, so that the result is the same whatever batches the numbers come in.
    """

    def __init__(self) -> None:
        self.width, self.bars = 2.0**-40, Counter[int]()

    def update(self, values: Float64) -> None:
        ends = [float(values.min()), float(values.max()), *(self.width * bar for bar in self.bars)]
        while not self._fits(np.floor(min(ends) / self.width), np.floor(max(ends) / self.width)):
            merged = Counter[int]()
            for bar, count in self.bars.items():
                merged[bar // 2] += count
            self.width, self.bars = 2 * self.width, merged
        bars, counts = np.unique(np.floor(values / self.width), return_counts=True)
        self.bars.update(dict(zip(bars.astype(int).tolist(), counts.tolist(), strict=True)))

    @staticmethod
    def _fits(first: float, last: float) -> bool:
        return abs(first) < 2**53 and abs(last) < 2**53 and last - first < MAX_BARS

    def to_dict(self) -> dict[str, Json]:
        first, last = min(self.bars), max(self.bars)
        counts = [self.bars[bar] for bar in range(first, last + 1)]
        return {"from": first * self.width, "width": self.width, "counts": counts}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which columns of a file mean what. features: those of the target's model where none are given.

    target, conditions: described where they are there. names: as of `read_rows`. vocabulary: of the encoders' slots.
    bounds: of the target; those of its model, or of its name, where none are given.
    """

    target: str = "vmaf"
    features: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    vocabulary: int = vocabulary.DEFAULT_VERSION
    bounds: tuple[float, float] | None = None


def describe(path: Path, asked: Asked = Asked(), progress: Progress = silent) -> dict[str, Json]:
    """The document of `corpus info --format json`. Raises InputError for a file that cannot be used.

    Rows of a source are duplicates where encoder, features and target agree to SAME_DECIMALS. Two sources may be one
    video, which would be in two folds, by columns of the reference alone; where these cannot say, by rows with one
    encoder and equal features, exactly. Equal targets alone are neither.
    """
    names: list[str] = []
    numeric: list[str] = []
    features: list[str] = [*asked.features]
    target, definition = asked.target, read_definition(path, asked.target)

    layout: Layout | None = None

    def pick(found: Sequence[str]) -> Columns:
        nonlocal layout
        names.extend(found)
        if not features:
            features.extend(features_of(definition.model) if definition is not None else features_among(found))
        wanted = dict.fromkeys((*features, *asked.conditions, target))
        numeric.extend(name for name in wanted if column_of(name, found) is not None)
        taken = {column_of(name, found) for name in numeric}
        layout = layout_of(path, found, ColumnRequest(numeric, texts=[name for name in found if name not in taken]))
        return layout.columns

    seen, n_failed, unusable = _Seen(target), 0, _Unusable(target, asked.bounds or _range_of(target, definition))
    for found in read_rows(path, pick, BATCH_ROWS, progress, asked.names):
        assert layout is not None  # read_rows picks before it reads
        batch = layout.batch(found)
        n_failed += found.n - batch.n
        if batch.n:
            seen.update(batch, numeric, features)
            unusable.update(batch)
    conflicting = seen.scored.conflicts()  # before the other hashes are sorted: the two would add up
    pairs = seen.pairs()
    different = {pair.sources for pair in pairs.pairs if pair.by_reference and not pair.is_one} if pairs else set()
    shared = [pair for pair in seen.shared() if tuple(pair["sources"]) not in different]
    _, unknown = vocabulary.encode(seen.encoders, asked.vocabulary)
    columns, numbers = layout.numbers if layout is not None else {}, seen.numbers
    constant = [columns[name] for name, values in numbers.items() if values.low == values.high]
    constant += [name for name in seen.first_texts if name not in seen.varied]
    described = None
    if target in numbers:
        defined = definition.to_dict() if definition is not None else {}
        described = {"name": target, **defined, **numbers[target].to_dict(), "histogram": seen.histogram.to_dict()}
    return {
        "corpus": path.name,
        "n_rows": seen.n,
        "columns": names,
        "missing_features": [name for name in features if name not in numeric],
        "target": described,
        "features": {name: numbers[name].to_dict() for name in numeric if name != target},
        "sources": {label: seen.by_source[label].to_dict(target in numbers) for label in sorted(seen.by_source)},
        "encoders": {
            name: {
                "n_rows": count,
                "known": name not in unknown,
                "target": seen.by_encoder[name].to_dict() if name in seen.by_encoder else None,
            }
            for name, count in sorted(seen.encoders.items())
        },
        "constant_columns": [name for name in names if name in constant],
        "duplicate_rows": seen.duplicates(),
        "failed_rows": n_failed,
        "unusable_rows": list(unusable.found.values()),
        "conflicting_rows": conflicting,
        "shared_rows": shared,
        "source_overlap": _overlap(pairs) if pairs is not None else None,
        "similar_names": _similar(list(seen.sources)),
        "record": read_record(path),
    }


def _range_of(target: str, definition: Definition | None) -> tuple[float, float] | None:
    """The range in which `train` expects a target by default; None where it asks for it."""
    if target in DEFINED_TARGETS:
        return 0.0, high_of(definition.model if definition is not None else DEFAULT_MODEL)
    return KNOWN_RANGES.get(target)


class _Unusable:
    """The rows that `train` would refuse: without a name, or with a target outside its range; and the first."""

    def __init__(self, target: str, bounds: tuple[float, float] | None) -> None:
        self.target, self.bounds = target, bounds
        self.found: dict[str, dict[str, Json]] = {}

    def update(self, batch: RowBatch) -> None:
        for name in ("src", "encoder", "clip"):
            if name in batch.texts:
                text = batch.texts[name]
                rows = without_name(text, is_needed=name != "encoder")
                self._add(batch, name, rows, text.tolist, "a name in visible characters")
        if self.bounds is not None and self.target in batch.numbers:
            low, high = self.bounds
            numbers = batch.numbers[self.target]
            rows = (numbers < low) | (numbers > high)
            self._add(batch, self.target, rows, numbers.tolist, f"{low:g}..{high:g}")

    def _add(self, batch: RowBatch, name: str, rows: Mask, values: Callable[[], list[Json]], expected: str) -> None:
        if not rows.any():
            return
        first = int(np.argmax(rows))
        about = {
            "column": name,
            "expected": expected,
            "found": values()[first],
            "first": batch.place(first),
            "n_rows": 0,
        }
        self.found.setdefault(name, about)["n_rows"] += int(rows.sum())


@dataclass(slots=True)
class _SourceRows:
    """A source's rows as they stream by."""

    n_rows: int = 0
    encoders: set[str] = field(default_factory=set)
    clips: set[str] = field(default_factory=set)
    target: _Numbers = field(default_factory=_Numbers)

    def to_dict(self, targeted: bool) -> dict[str, Json]:
        return {
            "n_rows": self.n_rows,
            "n_clips": len(self.clips) or None,
            "encoders": sorted(self.encoders),
            "target": self.target.to_dict() if targeted else None,
        }


class _Seen:
    """What rows leave behind as they stream by."""

    def __init__(self, target: str) -> None:
        self.target, self.n = target, 0
        self.numbers: dict[str, _Numbers] = {}
        self.encoders = Counter[str]()
        self.first_texts: dict[str, str] = {}  # of each column that is no number
        self.varied: set[str] = set()  # those of them with another text too
        self.by_source: dict[str, _SourceRows] = {}
        self.by_encoder: dict[str, _Numbers] = {}
        self.histogram, self.scored = Histogram(), _Scored()
        self.sources: dict[str, int] = {}
        self.hashes: list[UInt64] = []  # of encoder and all numbers
        self.inputs: list[UInt64] = []  # of encoder and features, exact
        self.owners: list[Int32] = []
        self.reference: ReferenceColumns | None = None

    def update(self, batch: RowBatch, numeric: Sequence[str], features: Sequence[str]) -> None:
        self.n += batch.n
        for name in numeric:
            self.numbers.setdefault(name, _Numbers()).update(batch.numbers[name])
        for name, text in batch.texts.items():
            self._text(name, text)
        self._sources(batch)
        if self.target in numeric:
            self._target(batch, numeric, features)
        inputs = [name for name in numeric if name != self.target]
        if inputs:
            source, encoder = batch.texts["src"], batch.texts["encoder"]
            self._reference(batch, inputs)
            self.hashes.append(_hashes([batch.numbers[name] for name in numeric], SAME_DECIMALS, encoder))
            self.inputs.append(_hashes([batch.numbers[name] for name in inputs], None, encoder))
            owners = [self.sources.get(name, -1) for name in source.names]
            self.owners.append(np.array(owners, np.int32)[source.codes])

    def _text(self, name: str, text: Text) -> None:
        used = rows_by_name(text.codes, text.names)
        if name == "encoder":
            self.encoders.update(used)
        self.first_texts.setdefault(name, next(iter(used)))
        self.varied |= {name} if used.keys() != {self.first_texts[name]} else set()

    def _sources(self, batch: RowBatch) -> None:
        source, encoder, clip = batch.texts["src"], batch.texts["encoder"], batch.texts.get("clip")
        for code in np.unique(source.codes):
            rows, label = source.codes == code, source.names[code]
            self.sources.setdefault(label, len(self.sources))
            about = self.by_source.setdefault(label, _SourceRows())
            about.n_rows += int(rows.sum())
            about.encoders |= _names(encoder, rows)
            about.clips |= _names(clip, rows) if clip is not None else set()
            if self.target in batch.numbers:
                about.target.update(batch.numbers[self.target][rows])

    def _target(self, batch: RowBatch, numeric: Sequence[str], features: Sequence[str]) -> None:
        values, encoder = batch.numbers[self.target], batch.texts["encoder"]
        if self.target in DEFINED_TARGETS and {*features} <= {*numeric}:
            self.scored.update([batch.numbers[name] for name in features], values)
        self.histogram.update(values)
        for code in np.unique(encoder.codes):
            numbers = self.by_encoder.setdefault(encoder.names[code], _Numbers())
            numbers.update(values[encoder.codes == code])

    def _reference(self, batch: RowBatch, inputs: Sequence[str]) -> None:
        if FRAME in batch.texts:
            self.reference = self.reference or ReferenceColumns(inputs)
            self.reference.update(batch.texts["src"], batch.texts[FRAME], batch.numbers)

    def duplicates(self) -> int:
        """The rows that repeat another of their source; asked once, it forgets them."""
        if not self.hashes:
            return 0
        hashes, self.hashes = np.concatenate(self.hashes), []
        return int((~_ranked(hashes, np.concatenate(self.owners))[2]).sum())

    def shared(self) -> list[dict[str, Json]]:
        """See `_shared`."""
        if not self.inputs:
            return []
        return _shared(np.concatenate(self.inputs), np.concatenate(self.owners), list(self.sources))

    def pairs(self) -> SourcePairs | None:
        """The pairs of sources by columns that describe the reference alone; None without such columns."""
        found = self.reference.fingerprints() if self.reference is not None else None
        return found.compared() if found is not None else None


def _names(text: Text, rows: Mask) -> set[str]:
    return {text.names[code] for code in np.unique(text.codes[rows])}


class _Scored:
    """Features and score of a stream of rows, to find scores that two models gave."""

    def __init__(self) -> None:
        self._features: list[UInt64] = []
        self._scores: list[Float32] = []  # six digits, which are enough to tell two models apart

    def update(self, features: Sequence[Float64], scores: Float64) -> None:
        self._features.append(_hashes(features, SAME_FEATURES))
        self._scores.append(scores.astype(np.float32))

    def conflicts(self) -> int:
        """The rows whose features another row has with a score that is not the same; asked once, it forgets them."""
        if not self._features:
            return 0
        hashes, scores = np.concatenate(self._features), np.concatenate(self._scores)
        self._features, self._scores = [], []
        order = np.argsort(hashes)
        hashes, scores = hashes[order], scores[order]
        starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        differ = np.maximum.reduceat(scores, starts) - np.minimum.reduceat(scores, starts) > SAME_SCORE
        return int(np.diff(np.r_[starts, len(hashes)])[differ].sum())


def _overlap(pairs: SourcePairs) -> dict[str, Json]:
    """How far sources have values of the reference's columns in common; of pairs, those that ask for a look."""
    judged = [pair for pair in pairs.pairs if pair.by_reference]
    odd = sorted((p for p in judged if p.overlap or p.is_alike), key=lambda p: (-(p.overlap or 0.0), p.sources))
    return {
        "columns": list(pairs.columns),
        "n_judged": len(judged),
        "n_not_judged": len(pairs.pairs) - len(judged),
        "pairs": [
            {
                "sources": list(pair.sources),
                "overlap": pair.overlap,
                "distance": pair.distance,
                "judged": "one source" if pair.is_one else "alike" if pair.is_alike else "different",
            }
            for pair in odd
        ],
    }


def _hashes(columns: Sequence[Float64], decimals: int | None, encoder: Text | None = None) -> UInt64:
    """64 bits a row, of the numbers, rounded or exact, and the encoder's name (splitmix64, column after column)."""
    state = np.zeros(len(columns[0]), np.uint64)
    if encoder is not None:
        seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in encoder.names]
        state = np.array(seeds, np.uint64)[encoder.codes]
    for column in columns:
        numbers = column.astype(np.float64) if decimals is None else np.round(column, decimals)
        state = state + np.uint64(0x9E3779B97F4A7C15) ^ (numbers + 0.0).view(np.uint64)
        state = splitmix64(state)
    return state


def _ranked(hashes: UInt64, owners: Int32) -> tuple[UInt64, Int32, Mask]:
    """Ordered by hash, then owner; and whether each is the first of its hash and owner."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes, owners, new


def _shared(hashes: UInt64, owners: Int32, names: Sequence[str]) -> list[dict[str, Json]]:
    """The pairs of sources with rows in common, the largest share first.

    share: of the rows of the smaller source, each different row counted once.
    """
    hashes, owners, new = _ranked(hashes, owners)
    hashes, owners = hashes[new], owners[new]
    sizes = np.bincount(owners, minlength=len(names))
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
    lengths = np.diff(np.r_[starts, len(hashes)])
    pairs: Counter[tuple[int, int]] = Counter()
    for start, length in zip(starts[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True):
        group = owners[start : start + length].tolist()
        pairs.update((a, b) for place, a in enumerate(group) for b in group[place + 1 :])
    found = [
        {"sources": sorted((names[a], names[b])), "rows": rows, "share": rows / int(min(sizes[a], sizes[b]))}
        for (a, b), rows in pairs.items()
    ]
    return sorted(found, key=lambda pair: (-pair["share"], pair["sources"]))


def _similar(names: Sequence[str]) -> list[list[str]]:
    """Source names that differ in case, separators or an encoder's name alone: one video, split by a file's name."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(_without_encoder(name), []).append(name)
    return [group for group in alike.values() if len(group) > 1]


def _without_encoder(name: str) -> str:
    """A name without case, separators and the words of encoders' names; all of it where nothing else is in it."""
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    left, at = [], 0
    while at < len(words):
        lengths = (n for n in (3, 2, 1) if vocabulary.ffmpeg_name("".join(words[at : at + n])) is not None)
        n = next(lengths, int(words[at] in HARDWARE_ENGINES))
        left += words[at : at + 1] if n == 0 else []
        at += max(n, 1)
    return "".join(left or words)
