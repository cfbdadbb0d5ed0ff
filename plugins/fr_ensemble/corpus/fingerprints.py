"""fingerprints.py: whether two sources are one, by columns that describe the reference alone. Judges nothing.

Frames of one reference have one `motion2` whatever encodes them: sources that have most of such values in common are
one source. libvmaf's motion is such a column by its definition, others are found. Where no column is of that sort,
sources are compared by whole rows of inputs, never by their targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64, UInt64
from fr_ensemble.corpus.columns import MAX_TABLE_NUMBER
from fr_ensemble.corpus.digest import codes_of
from fr_ensemble.corpus.vocabulary import CANONICAL_6, is_reference_feature
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import Columns, Text, read_rows
from registry_tool.values import EMPTY, percentage

FRAME = "frame_index"
LOG_DECIMALS = 6  # to which logs print
COARSE_DECIMALS = 3  # values that were rounded so far can be equal by chance
MAX_SET_VALUES = 256  # stored of a source and column
MAX_REFERENCE_COLUMNS = 8  # each is looked at in every pair of sources, of which there may be half a million
MIN_VALUES = 5  # on both sides; below them nothing is said of two sources
MAX_OVERLAP = 0.5  # above it two sources are one
MIN_SHIFT_VALUES, MAX_SHIFT_DISTANCE = 40, 0.12  # on both sides; Kolmogorov-Smirnov, two parts of one video are below
MAX_SHIFT_SOURCES = 200  # of which all pairs are looked at for a shift, in about a second
# Pairs of sources with a value in common that are compared, and how often such pairs are met; different sources share
# next to none, and what is more is no evidence of different sources.
MAX_SHARING_PAIRS, MAX_SHARED_VALUES = 100_000, 2_000_000
TOO_MANY_SHARE = f"sources: found equal values in more than {MAX_SHARING_PAIRS} pairs, expected different sources"
MIN_SHARE = 0.5  # of groups of rows that must hold one value
ROW_BITS = 53  # of a row's hash: what float64 holds exactly


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sources. overlap: the share of the smaller one's values that the other one has too; None: cannot be judged.

    distance: of Kolmogorov and Smirnov between their distinct values; None where one has too few. by_reference: whether
    a column that describes the reference alone could judge them.
    """

    sources: tuple[str, str]
    overlap: float | None
    distance: float | None
    by_reference: bool

    @property
    def is_one(self) -> bool:
        return self.overlap is not None and self.overlap > MAX_OVERLAP

    @property
    def is_alike(self) -> bool:
        """Perhaps the same video at other times: a reason to look, no more."""
        return not self.is_one and self.distance is not None and self.distance <= MAX_SHIFT_DISTANCE


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Some distinct values of each source.

    columns: those that describe the reference alone. values: [column][source], each ascending, without zeros. rows:
    [source], hashes of whole rows of inputs, by which sources with too few of such values are compared; () if unknown.
    motion: by name as `values`, inputs that describe the reference by definition, where nothing says which rows are of
    one frame; no file holds them.
    """

    columns: tuple[str, ...]
    sources: tuple[str, ...]
    values: tuple[tuple[Float64, ...], ...]
    rows: tuple[Float64, ...] = ()
    motion: Mapping[str, tuple[Float64, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Sequence[str], sources: Sequence[str], source: Int64, values: Float64) -> Fingerprints:
        """From all rows: values (n, C) of the columns, of which each source keeps at most MAX_SET_VALUES.

        Kept are those whose hashes are least (Broder 1997), so that two sources with equal values keep equal ones.
        """
        rounded = np.round(values, LOG_DECIMALS) + 0.0
        kept = (_sketches(column, source, len(sources)) for column in rounded.T)
        return cls(tuple(columns), tuple(sources), tuple(kept))

    def with_rows(self, source: Int64, inputs: Float64) -> Fingerprints:
        """The same, with whole rows of inputs (n, C) too, compared exactly."""
        return replace(self, rows=_sketches(row_hashes(inputs), source, len(self.sources)))

    def with_motion(self, names: Sequence[str], source: Int64, inputs: Float64) -> Fingerprints:
        """The same, with the inputs (n, C) that describe the reference by definition and are none of its columns."""
        defined = [
            place for place, name in enumerate(names) if is_reference_feature(name) and _is_fine(inputs[:, place])
        ]
        more = [place for place in defined if names[place] not in self.columns]
        added = Fingerprints.of([names[place] for place in more], self.sources, source, inputs[:, more])
        return replace(self, motion=dict(zip(added.columns, added.values, strict=True)))

    def shared_with(self, others: Fingerprints) -> list[Pair] | None:
        """Pairs of a source of these and one of others that are one source, by columns that both have and by rows.

        None where so many have values in common that they are not compared.
        """
        both = [name for name in self.columns if name in others.columns]
        values = [(self.values[self.columns.index(c)], others.values[others.columns.index(c)]) for c in both]
        n, overlaps = len(self.sources), dict[tuple[int, int], float]()
        for own, other in [*values, (self.rows, others.rows)]:
            if not own or not other:
                continue
            sharing = _sharing([*own, *other])
            if sharing is None and n * len(other) > MAX_SHARING_PAIRS:
                return None
            for one, two in product(range(n), range(n, n + len(other))) if sharing is None else sharing:
                share = overlap(own[one], other[two - n]) if one < n <= two else None
                if share is not None:
                    overlaps[one, two - n] = max(share, overlaps.get((one, two - n), 0.0))
        pairs = [Pair((self.sources[g], others.sources[h]), share, None, True) for (g, h), share in overlaps.items()]
        return sorted((pair for pair in pairs if pair.is_one), key=lambda pair: pair.sources)

    def compared(self) -> SourcePairs:
        """Each pair of sources, by the column in which they have most in common, and by rows."""
        sets = (*self.values, *self.motion.values(), self.rows)
        sharing = [_sharing(of_column) for of_column in sets]
        if any(sharers is None for sharers in sharing):
            return SourcePairs(self.columns, (), tuple(self.motion), too_many=True)
        pairs = []
        for one, two in combinations(range(len(self.sources)), 2):
            shares = []
            for of_column, sharers in zip(sets, sharing, strict=True):
                pair = (of_column[one], of_column[two]) if of_column else (NO_VALUES, NO_VALUES)
                shares.append(overlap(*pair) if (one, two) in (sharers or ()) else _nothing_in_common(*pair))
            by_column, judged = shares[: len(self.columns)], [share for share in shares if share is not None]
            names = (self.sources[one], self.sources[two])
            near = self._distance(one, two) if len(self.sources) <= MAX_SHIFT_SOURCES else None
            pairs.append(Pair(names, max(judged, default=None), near, any(share is not None for share in by_column)))
        return SourcePairs(self.columns, tuple(pairs), tuple(self.motion))

    def _distance(self, one: int, two: int) -> float | None:
        both = [(of_column[one], of_column[two]) for of_column in self.values]
        return min((distance(a, b) for a, b in both if min(len(a), len(b)) >= MIN_SHIFT_VALUES), default=None)


@dataclass(frozen=True, slots=True)
class SourcePairs:
    """All pairs of a corpus's sources, compared. columns: those that describe the reference alone. motion: inputs that
    do by definition, where no frames show it.

    too_many: so many sources have values in common that they were not compared; there are no pairs then.
    """

    columns: tuple[str, ...]
    pairs: tuple[Pair, ...]
    motion: tuple[str, ...] = ()
    too_many: bool = False

    def problems(self) -> list[str]:
        """Sources that are one source."""
        if self.too_many:
            return [TOO_MANY_SHARE]
        columns = ", ".join((*self.columns, *self.motion))
        by = " or ".join([f"values of {columns}"] * bool(columns) + ["rows of inputs"])
        return [
            f"sources {' and '.join(pair.sources)}: found {percentage(pair.overlap or 0)} of the {by} in common, "
            f"expected at most {percentage(MAX_OVERLAP)}: they are one source"
            for pair in self.pairs
            if pair.is_one
        ]

    def shifts(self) -> list[str]:
        """Sources that may be parts of one video: a reason to look, no more."""
        return [
            f"sources {' and '.join(pair.sources)}: their {', '.join(self.columns)} is distributed alike "
            f"(Kolmogorov-Smirnov distance {pair.distance:.2f}): are they parts of one video?"
            for pair in self.pairs
            if pair.is_alike
        ]

    def not_judged(self) -> list[str]:
        """Which sources nothing but equal rows, and equal motion, could show to be one; a line at most."""
        by_rows = sum(not pair.by_reference for pair in self.pairs)
        few = f"fewer than {MIN_VALUES} values of {', '.join(self.columns)}"
        which = f"{by_rows} of {len(self.pairs)} pairs have {few if self.columns else 'no column of the reference'}"
        by = f"equal values of {', '.join(self.motion)} and " if self.motion else ""
        return [f"different sources: {which}: by {by}equal rows of inputs alone"] if by_rows else []


NO_VALUES: Float64 = np.empty(0)


def _sharing(of_column: Sequence[Float64]) -> set[tuple[int, int]] | None:
    """The pairs of sources with a value in common; None where they are too many to compare."""
    if not of_column:
        return set()
    values, owner = np.concatenate(of_column), np.repeat(np.arange(len(of_column)), [len(v) for v in of_column])
    order = np.lexsort((owner, values))
    values, owner = values[order], owner[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, np.int64)
    owners = np.diff(np.r_[starts, len(values)])
    if np.sum(owners * (owners - 1) // 2) > MAX_SHARED_VALUES:
        return None
    several = zip(starts[owners > 1], owners[owners > 1], strict=True)
    pairs = {pair for a, n in several for pair in combinations(owner[a : a + n].tolist(), 2)}
    return pairs if len(pairs) <= MAX_SHARING_PAIRS else None


def _nothing_in_common(a: Float64, b: Float64) -> float | None:
    return 0.0 if min(len(a), len(b)) >= MIN_VALUES else None


def _sketches(values: Float64, source: Int64, k: int) -> tuple[Float64, ...]:
    return tuple(sketch(values[source == g]) for g in range(k))


def overlap(a: Float64, b: Float64) -> float | None:
    """The share of the smaller set of values that the larger one has too; None below MIN_VALUES on a side.

    Of a set that was cut to MAX_SET_VALUES only the hashes below its greatest are known: both sets are compared there.
    """
    bounds = [_order(values).max() for values in (a, b) if len(values) == MAX_SET_VALUES]
    if bounds:
        a, b = (values[_order(values) <= min(bounds)] for values in (a, b))
    if min(len(a), len(b)) < MIN_VALUES:
        return None
    return len(np.intersect1d(a, b, assume_unique=True)) / min(len(a), len(b))


def distance(a: Float64, b: Float64) -> float:
    """The two-sample Kolmogorov-Smirnov distance of two ascending arrays."""
    at = np.concatenate([a, b])
    above: Float64 = np.abs(
        np.searchsorted(a, at, side="right") / len(a) - np.searchsorted(b, at, side="right") / len(b)
    )
    return float(above.max())


def sketch(values: Float64) -> Float64:
    """At most MAX_SET_VALUES of the distinct values, zero left out, ascending: those with the least hashes."""
    distinct = np.unique(values)
    distinct = distinct[distinct != 0.0]
    if len(distinct) > MAX_SET_VALUES:
        distinct = np.sort(distinct[np.argsort(_order(distinct), kind="stable")[:MAX_SET_VALUES]])
    return distinct


def row_hashes(inputs: Float64) -> Float64:
    """A hash of each row (n, C), exact in float64: equal rows have equal ones."""
    state = np.zeros(len(inputs), np.uint64)
    for column in inputs.T:
        state = splitmix64(state + np.uint64(0x9E3779B97F4A7C15) ^ (column + 0.0).view(np.uint64))
    return (state >> np.uint64(64 - ROW_BITS)).astype(np.float64)


def splitmix64(state: UInt64) -> UInt64:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): mixes 64 bits, one to one."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _order(values: Float64) -> UInt64:
    return splitmix64((values + 0.0).view(np.uint64))


# ---- which columns describe the reference ---------------------------------------------------------------------------


class ReferenceColumns:
    """Finds, batch by batch, the columns that hold one value a frame of a source, whatever encoded it.

    libvmaf's motion does by its definition, unless it was rounded to few decimals. Another column counts if it holds
    one value in most groups of rows with one (src, frame_index), and if it does not follow from frame_index alone, as a
    time or a constant does. Without frame_index there is no such column.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._sources: dict[str, int] = {}
        self._frames: dict[str, int] = {}
        self._parts: list[tuple[Int64, Int64, Float64]] = []

    @staticmethod
    def pick(found: Sequence[str], inputs: Sequence[str] = ()) -> list[str]:
        """The numeric columns that may be of that sort: libvmaf's and an ensemble's own inputs; none without frames."""
        wanted = dict.fromkeys((*CANONICAL_6, *inputs))
        return [name for name in wanted if name in found and name != FRAME] if FRAME in found else []

    def update(self, source: Text, frame: Text, numbers: Mapping[str, Float64]) -> None:
        """Some more rows."""
        if not self._names:
            return
        columns = np.stack([numbers[name] for name in self._names], axis=1).astype(np.float64)
        values: Float64 = np.round(columns, LOG_DECIMALS)
        codes = [codes_of(text, known) for text, known in ((source, self._sources), (frame, self._frames))]
        if not self._parts:  # most columns differ between encodes at once: they are not kept
            shares = _shares(codes[0] * (len(self._frames) + 1) + codes[1], values)
            named = enumerate(self._names)
            kept = [k for k, name in named if is_reference_feature(name) or not shares[k] < MIN_SHARE / 2]
            self._names, values = [self._names[k] for k in kept], values[:, kept]
        self._parts.append((codes[0], codes[1], values))

    def fingerprints(self) -> Fingerprints | None:
        """By the first MAX_REFERENCE_COLUMNS; None where none is defined and none found tells sources apart."""
        if not self._names or not self._parts:
            return None
        source, frame = (np.concatenate([part[k] for part in self._parts]) for k in (0, 1))
        values = np.concatenate([part[2] for part in self._parts])
        within = _shares(source * (len(self._frames) + 1) + frame, values)
        across = _shares(frame, values)
        found = [k for k in range(len(self._names)) if within[k] > MIN_SHARE and not across[k] > MIN_SHARE]
        defined = [k for k, name in enumerate(self._names) if is_reference_feature(name) and _is_fine(values[:, k])]
        kept = sorted({*found, *defined})[:MAX_REFERENCE_COLUMNS]
        order = np.argsort(list(self._sources))
        rank = np.argsort(order)
        of_kept = Fingerprints.of([self._names[k] for k in kept], sorted(self._sources), rank[source], values[:, kept])
        tells = bool(defined) or any(len(part) >= MIN_VALUES for row in of_kept.values for part in row)
        return of_kept if tells else None


def reference_fingerprints(
    path: Path, inputs: Sequence[str], progress: Progress = silent, names: Mapping[str, str] = EMPTY
) -> Fingerprints | None:
    """Of a corpus by its columns that describe the reference alone; None where it has none. names: as of `read_rows`.

    Raises InputError for a file that cannot be used.
    """
    taken: list[str] = []

    def columns(found: Sequence[str]) -> Columns:
        taken.extend(ReferenceColumns.pick(found, inputs))
        return Columns(tuple(taken), ("src", FRAME) if taken else ("src",), largest=MAX_TABLE_NUMBER)

    reference: ReferenceColumns | None = None
    for batch in read_rows(path, columns, progress=progress, names=names):
        if not taken:
            return None
        reference = reference or ReferenceColumns(taken)
        reference.update(batch.texts["src"], batch.texts[FRAME], batch.numbers)
    return reference.fingerprints() if reference else None


def _is_fine(values: Float64) -> bool:
    """Whether most of the values (n,), zeros left out, have so many decimals that videos share them by no chance."""
    moving = np.round(values[values != 0.0], LOG_DECIMALS)
    return len(moving) > 0 and bool(np.mean(moving != np.round(moving, COARSE_DECIMALS)) > MIN_SHARE)


def _shares(group: Int64, values: Float64) -> Float64:
    """Of each column (n, C) the share of groups of at least two rows that hold one value; NaN without such groups."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
    several = np.diff(np.r_[starts, len(group)]) > 1
    if not several.any():
        return np.full(values.shape[1], np.nan)
    lowest, highest = (ufunc.reduceat(values[order], starts, axis=0) for ufunc in (np.minimum, np.maximum))
    share: Float64 = (lowest == highest)[several].mean(axis=0)
    return share
