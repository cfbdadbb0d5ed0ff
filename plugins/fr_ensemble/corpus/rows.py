"""rows.py: rows of a corpus as checked arrays, streamed or whole. Knows no file format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Mask, TrainingData
from fr_ensemble.corpus import vocabulary
from fr_ensemble.corpus.columns import QUALITY_COLUMNS, ColumnRequest, Layout, layout_of
from fr_ensemble.corpus.digest import RowsDigest, codes_of, file_sha256
from fr_ensemble.corpus.growing import Growing
from fr_ensemble.corpus.record import Definition, read_definition, read_record
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from registry_tool.errors import InputError
from registry_tool.hookspec import Progress, silent
from registry_tool.toolkit import BATCH_ROWS, Columns, Place, RowBatch, Text, bad_cell, read_rows
from registry_tool.values import EMPTY, Json

SMOKE_ROWS = 100  # random rows that show that a command runs
MAX_ENCODER_NAME = 1024  # characters, as in the schema of manifests


@dataclass(frozen=True, slots=True)
class Rows:
    """Some consecutive rows of a corpus, checked: every number is finite and inside its range.

    n rows, F features, K conditions. raw: the digested columns as the file has them, in digest order.
    """

    first: int  # 0-based number of the first row
    features: Float64  # (n, F)
    codec: Int64  # (n,), slot of the vocabulary
    conditioning: Float64  # (n, K), transformed
    target: Float64 | None  # (n,)
    source: Text | None  # None only where no target is asked for and the file names no sources
    encoder: Text
    clip: Text | None
    values: Mapping[str, list[Json]]  # further columns asked for, as the file has them
    unknown_encoders: Counter[str]
    raw: Mapping[str, Float64 | Text] = field(repr=False)
    n_failed: int = 0  # rows of failed encodes, which are left out of these

    def __len__(self) -> int:
        return len(self.codec)

    @property
    def numeric(self) -> Float64:
        """Features, then conditions, (n, F + K)."""
        return np.concatenate([self.features, self.conditioning], axis=1)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A whole corpus in memory: n rows, F features, K conditions, S sources, C clips.

    groups: `encoder` and the other columns asked for, by name. sha256: of the file; None for random rows.
    raw_conditioning, clip_names: the conditions, and each clip's name, as the file has them (see Inputs in evidence/).
    rows_sha256: see RowsDigest. record: how it was made, where the file says so. definition: by which model its
    target is, where the file says so. n_failed: rows of failed encodes, which are not among the n.
    unknown_encoders: how many rows each name without a slot has.
    """

    spec: ColumnSpec
    features: Float64  # (n, F)
    codec: Int64  # (n,)
    conditioning: Float64  # (n, K)
    raw_conditioning: Float64  # (n, K), not transformed
    target: Float64  # (n,)
    source: Int64  # (n,), index into sources
    sources: tuple[str, ...]  # sorted
    clip: Int64 | None  # (n,), index into clips; a clip belongs to one source
    clips: tuple[str, ...] | None
    clip_names: tuple[str, ...] | None  # (C,); None where the file has no column of clips
    groups: Mapping[str, Text]
    unknown_encoders: Mapping[str, int]
    sha256: str | None
    rows_sha256: str
    record: Mapping[str, Json] | None
    definition: Definition | None = None
    n_failed: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.target)

    @property
    def numeric(self) -> Float64:
        """Features, then conditions, (n, F + K)."""
        return np.concatenate([self.features, self.conditioning], axis=1)

    def failed_encodes(self) -> list[str]:
        """A warning for the rows that were left out, or none."""
        if not self.n_failed:
            return []
        return [f"{self.n_failed} rows of failed encodes, without a number for every score, are left out"]

    def training_data(self) -> TrainingData:
        data = (self.features, self.codec, self.spec.n_slots, self.conditioning, self.target)
        return TrainingData(*data, self.source, len(self.sources))


def read_batches(
    path: Path,
    spec: ColumnSpec,
    batch_rows: int = BATCH_ROWS,
    keep: Sequence[str] | None = (),
    *,
    progress: Progress = silent,
) -> Iterator[Rows]:
    """Checked rows in file order, at most `batch_rows` in memory; keep: further columns, None for every column.

    Raises InputError (where, found, expected, what to do) for a file that cannot be used or has no rows.
    """
    first, n_rows = 0, 0
    layout: Layout | None = None

    def pick(found: Sequence[str]) -> Columns:
        nonlocal layout
        layout = layout_of(path, found, _wanted(spec, keep))
        return layout.columns

    for found in read_rows(path, pick, batch_rows, progress, spec.names):
        assert layout is not None  # read_rows picks before it reads
        batch = layout.batch(found)
        if batch.n:
            yield _rows(batch, spec, first, layout.called(spec.names), found.n - batch.n)
        first, n_rows = first + found.n, n_rows + batch.n
    if not n_rows:
        raise InputError(f"{path}: found {first} rows and no number in one of their columns, expected rows with scores")


def read_corpus(
    path: Path, spec: ColumnSpec, keep: Sequence[str] = (), min_sources: int = 2, *, progress: Progress = silent
) -> Corpus:
    """The whole corpus. keep: columns to group by. min_sources: 1 is enough to evaluate, LOSO needs 2.

    Raises InputError for a file that cannot be used, and for fewer sources than `min_sources`.
    """
    if spec.target is None:
        raise ValueError("read_corpus needs a target; rows to predict come from read_batches")
    kept = [name for name in keep if name not in ("src", "encoder")]
    batches = read_batches(path, spec, keep=kept, progress=progress)
    corpus = _gather(batches, spec)
    source_column = spec.source_column or "src"
    for column, names in ((source_column, corpus.sources), ("clip", corpus.clips or ())):
        if control := next((name for name in names if not name.isprintable()), None):
            raise InputError(
                f"{path}, column {column}: found {control[:40]!r}, expected names without control characters"
            )
    if long := next((name for name in corpus.groups["encoder"].names if len(name) > MAX_ENCODER_NAME), None):
        column, found = spec.encoder_column or "encoder", f"a name of {len(long)} characters"
        raise InputError(f"{path}, column {column}: found {found}, expected at most {MAX_ENCODER_NAME}: shorten it")
    if len(corpus.sources) < min_sources:
        message = f"{path}, column {source_column}: found {len(corpus.sources)} source ({', '.join(corpus.sources)})"
        raise InputError(
            f"{message}, expected at least {min_sources}: each source is judged by the rows of others: add some"
        )
    definition = read_definition(path, spec.target)
    return replace(corpus, sha256=file_sha256(path), record=read_record(path), definition=definition)


def random_corpus(rows: int, spec: ColumnSpec, seed: int, n_sources: int = 4) -> Corpus:
    """Random rows whose target follows their features a little: a probe of the code path, evidence of nothing."""
    rng = np.random.default_rng(seed)
    if spec.target is None:
        raise ValueError("random rows need a target")
    low, high = spec.bounds
    names = vocabulary.vocabulary(spec.vocabulary_version)
    numbers: dict[str, Float64] = {name: rng.random(rows) for name in spec.features}
    signal = np.mean([numbers[name] for name in spec.features], axis=0)
    minimum, maximum = (0.0, 1.0) if spec.raw_conditions else (1.0, 64.0)
    numbers |= {condition.column: rng.uniform(minimum, maximum, rows) for condition in spec.conditioning}
    numbers[spec.target] = low + (high - low) * np.clip(0.8 * signal + 0.2 * rng.random(rows), 0.0, 1.0)
    texts = {
        "src": Text.of([f"random{i % n_sources}" for i in range(rows)]),
        "encoder": Text(rng.integers(0, len(names), rows), names),
        "clip": Text.of([f"random{i % n_sources}-{i // n_sources % 3}" for i in range(rows)]),
    }
    return _gather([_rows(RowBatch(rows, lambda index: f"random row {index + 1}", numbers, texts), spec, 0)], spec)


def _wanted(spec: ColumnSpec, keep: Sequence[str] | None) -> ColumnRequest:
    numbers = [*spec.inputs, *([spec.target] if spec.target else [])]
    return ColumnRequest(numbers, keep, spec.target is not None, without_failed=spec.without_failed)


def columns_of(spec: ColumnSpec, found: Sequence[str], place: str, keep: Sequence[str] = ()) -> Columns:
    """The columns to read of those found; raises InputError, naming the place, for one that is missing."""
    return layout_of(place, found, _wanted(spec, keep)).columns


def check_rows(batch: RowBatch, spec: ColumnSpec, keep: Sequence[str] = ()) -> Rows:
    """Rows of the columns that `columns_of` named. Raises InputError for one that cannot be used."""
    found = [*batch.numbers, *batch.texts, *batch.values]
    layout = layout_of("rows", found, _wanted(spec, [name for name in keep if name in batch.values]))
    return _rows(layout.batch(batch), spec, 0, layout.called(spec.names))


def _rows(batch: RowBatch, spec: ColumnSpec, first: int, called: Mapping[str, str] = EMPTY, n_failed: int = 0) -> Rows:
    """Rows as the columns mean them. first: the number of the first one. Raises InputError for one that cannot be.

    called: what rows call a text -> the file's column, for messages.
    """
    numbers, texts = batch.numbers, batch.texts
    source = texts.get("src")
    for name, text in texts.items():
        require_names(text, name, batch.place, called.get(name, name))
    encoder = texts["encoder"]
    slots, unknown = vocabulary.encode(encoder.names, spec.vocabulary_version)
    counts = np.bincount(encoder.codes, minlength=len(encoder.names))
    conditions = [_transform(numbers[c.column], c, spec.raw_conditions, batch.place) for c in spec.conditioning]
    target = None if spec.target is None else _in_range(numbers[spec.target], spec, batch.place)
    counted = encoder if spec.by_encoder else source
    named = {"src": counted, "encoder": encoder, "clip": texts.get("clip")}
    return Rows(
        first=first,
        features=np.stack([numbers[name] for name in spec.features], axis=1),
        codec=slots[encoder.codes],
        conditioning=np.stack(conditions, axis=1) if conditions else np.empty((batch.n, 0)),
        target=target,
        source=counted,
        encoder=encoder,
        clip=texts.get("clip") or _encodes(source, encoder, [texts[name] for name in QUALITY_COLUMNS if name in texts]),
        values=batch.values,
        unknown_encoders=Counter(
            {name: count for name in unknown if (count := int(counts[encoder.names.index(name)]))}
        ),
        raw={name: text for name, text in named.items() if text is not None} | dict(numbers),
        n_failed=n_failed,
    )


def require_names(text: Text, name: str, place: Place, column: str = "") -> None:
    """Names are printable, and a source or a clip has one: they go into documents that people read.

    column: the file's for it, where it is another name.
    """
    rows = without_name(text, is_needed=name in ("src", "clip"))
    if rows.any():
        index = int(np.argmax(rows))
        value = text.names[text.codes[index]]
        found = f"{value!r:.80}" if value else "nothing"
        raise bad_cell(place(index), column or name, found, "a name in visible characters")


def without_name(text: Text, is_needed: bool) -> Mask:
    """Which rows have a name that cannot be printed, (n,); or none, where one is needed."""
    bad = [code for code, name in enumerate(text.names) if not name.isprintable() or (is_needed and not name)]
    return np.isin(text.codes, bad)


def _transform(values: Float64, condition: Condition, raw: bool, place: Place) -> Float64:
    inside = (values >= 0) & (values <= 1)
    if raw and not inside.all():
        index = int(np.argmin(inside))
        raise bad_cell(
            place(index),
            condition.column,
            f"{values[index]:g}",
            "0..1, since members take it raw",
            "correct the row, or train on standardised conditions",
        )
    if condition.transform == "log2" and not (values > 0).all():
        index = int(np.argmin(values > 0))
        found = f"{values[index]:g}"
        raise bad_cell(place(index), condition.column, found, "a positive number (log2)", "drop the row or the log2")
    return condition.apply(values)


def _in_range(values: Float64, spec: ColumnSpec, place: Place) -> Float64:
    low, high = spec.bounds
    inside = (values >= low) & (values <= high)
    if not inside.all():
        index = int(np.argmin(inside))
        expected = f"{low:g}..{high:g}"
        hint = f"correct or drop the row{', or give --target-range' if spec.by_options else ''}"
        raise bad_cell(place(index), str(spec.target), f"{values[index]:g}", expected, hint)
    return values


def _encodes(source: Text | None, encoder: Text, qualities: Sequence[Text]) -> Text | None:
    """One clip an encode, where the rows tell encodes apart: source, encoder and every quality column."""
    if source is None or not qualities:
        return None
    parts = (source, encoder, *qualities)
    rows, codes = np.unique(np.stack([part.codes for part in parts], axis=1), axis=0, return_inverse=True)
    names = tuple("|".join(part.names[code] for part, code in zip(parts, row, strict=True)) for row in rows)
    return Text(codes.reshape(-1), names)


def _gather(batches: Iterable[Rows], spec: ColumnSpec) -> Corpus:
    digest, unknown, named = RowsDigest(), Counter[str](), False
    arrays: dict[str, Growing] = {}
    names: dict[str, dict[str, int]] = {}
    n_failed = 0
    for rows in batches:
        digest.update(rows.raw)
        unknown.update(rows.unknown_encoders)
        n_failed += rows.n_failed
        numbers = {
            "features": rows.features,
            "codec": rows.codec,
            "conditioning": rows.conditioning,
            "raw_conditioning": _columns_of(rows, [condition.column for condition in spec.conditioning]),
            "target": rows.target,
        }
        named = "clip" in rows.raw
        texts = {"\0src": rows.source, "\0clip": rows.clip, "encoder": rows.encoder}  # \0: no column is called so
        texts |= {name: Text.of(values) for name, values in rows.values.items()}
        for name, column in numbers.items():
            arrays.setdefault(name, Growing()).add(column)
        for name, text in texts.items():
            if text is not None:
                arrays.setdefault(name, Growing()).add(codes_of(text, names.setdefault(name, {})).astype(np.int32))
    gathered = {name: arrays.pop(name).trimmed() for name in list(arrays)}
    groups = {name: Text(gathered.pop(name).astype(np.int64), tuple(known)) for name, known in names.items()}
    source, clip = groups.pop("\0src"), groups.pop("\0clip", None)
    sources, source_index = _sorted(source)
    clip_index, clips, clip_names = (None, None, None) if clip is None else clips_of(source_index, sources, clip)
    return Corpus(
        spec=spec,
        source=source_index,
        sources=sources,
        clip=clip_index,
        clips=clips,
        clip_names=clip_names if named else None,
        groups=MappingProxyType(groups),
        unknown_encoders=MappingProxyType(dict(unknown)),
        sha256=None,
        record=None,
        rows_sha256=digest.hexdigest(),
        n_failed=n_failed,
        **gathered,
    )


def _columns_of(rows: Rows, names: Sequence[str]) -> Float64:
    """Columns of numbers as the file has them, (n, K)."""
    columns = [np.asarray(rows.raw[name], np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))


def _sorted(text: Text) -> tuple[tuple[str, ...], Int64]:
    names = tuple(sorted(text.names))
    order = {name: index for index, name in enumerate(names)}
    return names, np.array([order[name] for name in text.names], np.int64)[text.codes]


def clips_of(source: Int64, sources: tuple[str, ...], clip: Text) -> tuple[Int64, tuple[str, ...], tuple[str, ...]]:
    """Each row's clip, the clips' labels, and their names: one clip a (source, name).

    Two sources' clips of one name are two clips, told apart in the labels by the source's name.
    """

    def pairs_of(part: slice) -> Int64:
        pair: Int64 = source[part] * len(clip.names) + clip.codes[part]
        return pair

    parts = [slice(start, start + BATCH_ROWS) for start in range(0, len(source), BATCH_ROWS)]  # sorting all takes twice
    pairs = np.unique(np.concatenate([np.unique(pairs_of(part)) for part in parts]))
    index = np.concatenate([np.searchsorted(pairs, pairs_of(part)) for part in parts])
    names = [clip.names[pair % len(clip.names)] for pair in pairs]
    often = Counter(names)
    labels = (
        name if often[name] == 1 else f"{sources[pair // len(clip.names)]}/{name}"
        for name, pair in zip(names, pairs, strict=True)
    )
    return index.astype(np.int64, copy=False), tuple(labels), tuple(names)
