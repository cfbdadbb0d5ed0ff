"""recommend.py: the cheapest encode whose clips are at least a target, at a confidence. Trains nothing.

A clip's mean, percentile or worst window is predicted by each member; mu and sigma are those of the members' figures.
The cheapest encode whose bound reaches the target is recommended. The bound is that of choices (evidence/ladders.py);
where the sources are too few for it, the lower one of the calibration for clips (evidence/intervals.py). Where encodes
are nearer to each other than the calibration's, it is the latter, and all dearer ones have to reach the target, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.manifest import codec_block, is_current, offset_of, scaler_of, spec_of
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.columns import QUALITY_COLUMNS
from fr_ensemble.corpus.rows import Rows, read_batches
from fr_ensemble.corpus.seen import INPUT_FLAG
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vocabulary import encoder_name
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.calibration import calibrated_on, inputs_calibrated_on
from fr_ensemble.evidence.intervals import EncoderIntervals, Intervals
from fr_ensemble.evidence.ladders import (
    CONTROL_GUARANTEE,
    CONTROL_RULE,
    MEAN,
    ClipStatistic,
    Ladders,
    clips_as_rows,
    ladders_of,
)
from fr_ensemble.evidence.methods import INTERVAL_METHODS, LOWER_SIDE
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import Calibration
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.flags import Flagger, PredictedRows
from fr_ensemble.hooks.loaded import intervals_of, known_sources
from fr_ensemble.hooks.targets import check_features
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, Progress, silent
from registry_tool.toolkit import first_names, missing_column
from registry_tool.values import EMPTY, Json

COSTS = ("bitrate_kbps", "bitrate", "quality", "crf", "cq", "qp")  # looked for in this order
SCALES = ("quality", "crf", "cq", "qp")  # an encoder's own scale: a higher number is a cheaper encode
FAILED_WARNING = "failed encodes, without a number for every feature, are left out"
CHOICE, BOUND, SEQUENCE = "choice", "bound", "sequence"  # rules of a group


@dataclass(slots=True)
class Clip:
    """One encode, as its rows come in; `finish` makes the figures of the sums. Mutable: rows stream."""

    src: str
    encoder: str
    clip: str
    setting: Mapping[str, Json]
    n_rows: int = 0
    outside: int = 0  # rows with an input outside what training saw
    flags: dict[str, int] = field(default_factory=dict)  # rows with each of the flags of `predict`
    cost: float = 0.0
    mu: float = 0.0
    sigma: float = 0.0
    lower: float = 0.0
    assured: float = 0.0  # the bound by which it was chosen or not
    # By batch: sums of the members' scores, (M,); all of them, (M, rows), where the statistic is no mean.
    parts: list[Float64] = field(default_factory=list, repr=False)

    def add_flags(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self.flags[name] = self.flags.get(name, 0) + count
        self.outside += counts.get(INPUT_FLAG, 0)

    def finish(self, calibration: Calibration, question: Question) -> None:
        """calibration: of clips of this encoder."""
        if question.statistic.is_mean:
            statistics = np.sum(self.parts, axis=0) / self.n_rows
        else:
            statistics = question.statistic.of(np.concatenate(self.parts, axis=1))
        self.parts.clear()
        self.cost /= self.n_rows
        self.mu, self.sigma = float(np.clip(statistics.mean(), *calibration.range)), float(statistics.std(ddof=1))
        bound, _ = calibration.interval(np.array([self.mu]), np.array([self.sigma]), question.confidence)
        self.lower = float(bound[0])

    def to_dict(self) -> dict[str, Json]:
        return {name: value for name, value in asdict(self).items() if name not in ("parts", "src")}


@dataclass(frozen=True, slots=True)
class Choice:
    """How encodes are chosen. q: by ladders.py, infinite where it cannot say. gap: of neighbours on its ladders.

    calibration: whose scale q is counted in.
    """

    q: float
    gap: float
    n_sources: int
    calibration: Calibration

    def assured(self, clip: Clip) -> float:
        """What the clip's figure is at least, as far as choices go."""
        scale = INTERVAL_METHODS[self.calibration.method].scale(np.array([clip.sigma]), self.calibration.floor)
        return float(np.clip(clip.mu - self.q * scale[0], *self.calibration.range))

    def is_finer(self, ladder: Sequence[Clip]) -> bool:
        """Whether neighbours of the ladder are nearer to each other than those that choices are calibrated on."""
        gaps = np.diff(np.sort([clip.mu for clip in ladder]))
        return bool(len(gaps)) and float(np.median(gaps)) < self.gap

    @classmethod
    def of(cls, clips: Oof, ladder: Int64, calibration: Calibration, question: Question) -> Choice:
        """clips, ladder: (C,) encodes whose truth is known, as `clips_as_rows` and `ladders_of` give them."""
        rule, floor = INTERVAL_METHODS[calibration.method], calibration.floor
        ladders = Ladders.of(clips, ladder, lambda sigma: rule.scale(sigma, floor))
        q = ladders.quantile(question.target, question.confidence, by_source=not question.by_encoder)
        return cls(q, ladders.gap(), len(clips.sources), calibration)

    def to_dict(self) -> dict[str, Json]:
        q, gap = (value if math.isfinite(value) else None for value in (self.q, self.gap))
        return {"q": q, "rule": CONTROL_RULE, "guarantee": CONTROL_GUARANTEE, "n_sources": self.n_sources, "gap": gap}


@dataclass(frozen=True, slots=True)
class Assured:
    """How encodes are assured: lower bounds of clips, and choices; of an encoder that is calibrated apart, its own.

    unit: under which `bounds` has them. choices: by encoder, "" being the pooled one; none where the evidence does not
    tell the encoders of its clips.
    """

    bounds: Intervals
    unit: str
    choices: Mapping[str, Choice]

    def bound(self, encoder: str | None) -> Calibration:
        """Of clips by an encoder; None: the pooled one."""
        if encoder is None:
            return self.bounds.calibration(self.unit, LOWER_SIDE)
        return self.bounds.of_encoder(encoder, self.unit, LOWER_SIDE)

    def choice(self, encoder: str | None) -> Choice | None:
        """Among encodes by an encoder; None: by several."""
        own = None if encoder is None else self.choices.get(encoder_name(encoder))
        return own or self.choices.get("")

    def to_dict(self, confidence: float, encoder: str | None = None) -> dict[str, Json]:
        """`bound` and `choice` of the document."""
        calibration, choice = self.bound(encoder), self.choice(encoder)
        quantile = calibration.quantile(confidence)
        bound: dict[str, Json] = {"q": quantile.q if np.isfinite(quantile.q) else None, "floor": calibration.floor}
        bound |= {"rule": quantile.rule, "guarantee": quantile.guarantee}
        return {"bound": bound, **({"choice": choice.to_dict()} if choice is not None else {})}


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks. by_encoder: an answer for each source and encoder, or for each source over its encoders.

    cost: a column of the rows; None takes the first of COSTS that is there. column_names: as of `read_rows`' names.
    """

    corpus: Path
    target: float
    confidence: float = 0.95
    by_encoder: bool = True
    cost: str | None = None
    column_names: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    statistic: ClipStatistic = MEAN


def recommend(
    view: EntryView, question: Question, progress: Progress = silent
) -> tuple[dict[str, Json], Mapping[str, int]]:
    """The document of `recommend --format json`, and warnings with the number of rows each is about.

    Raises InputError for an entry without a calibration for clips, and for rows that do not name their encodes.
    """
    manifest = view.manifest
    if view.entry.kind != "fr_ensemble" or manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: expected an ensemble (fr_ensemble, schema_version 2): train one")
    spec = replace(spec_of(manifest, target=False, names=question.column_names), without_failed=True)
    low, high = spec.bounds
    if not (low <= question.target <= high and 0.0 < question.confidence < 1.0):
        found = f"--target {question.target:g} --confidence {question.confidence:g}"
        raise InputError(f"{found}: expected a target in {low:g}..{high:g} and a confidence between 0 and 1")
    check_features(view.entry.id, manifest, question.corpus)
    assured = _calibrated(view, intervals_of(view, [question.confidence]), question)
    cost = _cost(question, spec)
    clips, warnings = _read(view, question, spec, cost, progress)
    for text, known in known_sources(manifest, {clip.src for clip in clips}).items():
        warnings[f"{first_names(known)}: {text}"] = sum(clip.n_rows for clip in clips if clip.src in known)
    if short := [clip.n_rows for clip in clips if clip.n_rows < question.statistic.min_rows]:
        warnings[question.statistic.of_few_rows()] = sum(short)
    for clip in clips:
        clip.finish(assured.bound(clip.encoder), question)
    apart = [*(assured.bounds.by_encoder.calibrations if assured.bounds.by_encoder is not None else ())]
    return {
        "entry": view.entry.id,
        "corpus": question.corpus.name,
        "target": {
            "name": manifest["target"]["name"],
            "at_least": question.target,
            "statistic": str(question.statistic),
        },
        "confidence": question.confidence,
        **assured.to_dict(question.confidence),
        **({"by_encoder": [{"encoder": e, **assured.to_dict(question.confidence, e)} for e in apart]} if apart else {}),
        "cost": {"column": cost, "cheaper": "higher" if cost in SCALES else "lower"},
        "groups": _groups(clips, question, cost, assured),
    }, warnings


def _calibrated(view: EntryView, stored: Intervals, question: Question) -> Assured:
    """The lower bounds of clips by the question's statistic, and how choices are made.

    Raises InputError for an entry that knows no clips.
    """
    calibration, bounds, unit = stored.calibration("clip", LOWER_SIDE), stored, "clip"
    manifest = view.manifest or {}
    with usable_evidence(view.entry.id, manifest):
        oof, inputs = calibrated_on(manifest, view.read), inputs_calibrated_on(manifest, view.read)
        clips = clips_as_rows(oof, question.statistic)
        if not question.statistic.is_mean:
            levels = (question.confidence,)
            calibration = calibrate(clips, "row", calibration.method, levels, LOWER_SIDE, calibration.range)
            apart = None if clips.encoder is None else EncoderIntervals.of(clips, [calibration], levels)
            bounds, unit = Intervals((calibration,), {}, apart), "row"
        ladder = ladders_of(oof, inputs) if inputs is not None else None
    if ladder is None:
        return Assured(bounds, unit, {})
    choices = {"": Choice.of(clips, ladder, calibration, question)}
    for name in bounds.by_encoder.calibrations if bounds.by_encoder is not None else ():
        own = bounds.of_encoder(name, unit, LOWER_SIDE)
        choices[name] = Choice.of(clips.of_encoder(name), ladder[clips.rows_by(name)], own, question)
    return Assured(bounds, unit, choices)


def _cost(question: Question, spec: ColumnSpec) -> str:
    """The column that says what an encode costs."""
    first = next(read_batches(question.corpus, spec, 1, None))
    names = list(first.values)
    if question.cost is not None and question.cost not in names:
        raise missing_column(question.corpus, question.cost, names)
    cost = question.cost or next((name for name in COSTS if name in names), None)
    if cost is None or first.clip is None or first.source is None:
        missing = "src" if first.source is None else "clip" if cost else "cost"
        known = ", ".join(COSTS)
        raise InputError(
            f"{question.corpus}: found no {missing} in {', '.join(names)}, expected the columns src, encoder and "
            f"one of {known}: add it, or name the cost's column with --cost"
        )
    return cost


def _read(
    view: EntryView, question: Question, spec: ColumnSpec, cost: str, progress: Progress
) -> tuple[list[Clip], Counter[str]]:
    """Every encode with the sums over its rows, or all scores. A clip is told apart by its source and its name."""
    manifest, corpus = view.manifest or {}, question.corpus
    models = [view.read(member["onnx"]) for member in manifest["members"]]
    scaler, flagger, offset = scaler_of(manifest), Flagger(view), offset_of(manifest)
    other_libvmaf = flagger.other_libvmaf(corpus)
    clips: dict[tuple[str, str], Clip] = {}
    warnings: Counter[str] = Counter()
    for rows in read_batches(corpus, spec, keep=None, progress=progress):
        block = codec_block(rows.codec, rows.conditioning, spec.n_slots)
        scores = member_scores(models, *standardise(rows.features, block, scaler, spec.n_slots)) + offset  # (M, n)
        costs = _numbers(rows, cost, corpus)
        warnings.update({FAILED_WARNING: rows.n_failed} if rows.n_failed else {})
        found = flagger.of(PredictedRows.of(rows, scores.std(axis=0, ddof=1)), other_libvmaf)
        warnings.update(found.warnings)
        assert rows.source is not None
        assert rows.clip is not None
        pair = rows.source.codes * len(rows.clip.names) + rows.clip.codes
        _, first, place = np.unique(pair, return_index=True, return_inverse=True)
        mixed = np.flatnonzero(rows.encoder.codes != rows.encoder.codes[first][place]).tolist()
        per_clip = [np.bincount(place, weights) for weights in (None, costs, *scores)]  # (clips,) each
        flagged = {name: np.bincount(place, mask) for name, mask in found.masks.items()}
        for index, row in enumerate(first.tolist()):
            src, name = rows.source.names[rows.source.codes[row]], rows.clip.names[rows.clip.codes[row]]
            encoder = rows.encoder.names[rows.encoder.codes[row]]
            setting = {c: rows.values[c][row] for c in QUALITY_COLUMNS if c in rows.values and c != cost}
            clip = clips.setdefault((src, name), Clip(src, encoder, name, setting))
            if clip.encoder != encoder or (mixed and place[mixed[0]] == index):
                raise InputError(
                    f"{corpus}: the clip {name!r} of {src!r} has rows of several encoders, expected of one: rename it"
                )
            clip.n_rows += int(per_clip[0][index])
            clip.add_flags({name: int(counts[index]) for name, counts in flagged.items() if counts[index]})
            clip.cost += float(per_clip[1][index])
            sums = np.array([of_clips[index] for of_clips in per_clip[2:]])
            clip.parts.append(sums if question.statistic.is_mean else scores[:, place == index])
    return list(clips.values()), warnings


def _numbers(rows: Rows, column: str, corpus: Path) -> Float64:
    """A column of costs, (n,); raises InputError for a row without one."""
    values = rows.values[column]
    try:
        numbers = np.array(values, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers)).tolist()
    except (ValueError, TypeError):
        bad = [next((i for i, value in enumerate(values) if not _is_number(value)), 0)]
    if bad:
        row = rows.first + bad[0] + 1
        raise InputError(
            f"{corpus}, row {row}, column {column}: found {values[bad[0]]!r:.80}, expected a finite number"
        )
    return numbers


def _is_number(value: Json) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _groups(clips: Sequence[Clip], question: Question, cost: str, assured: Assured) -> list[dict[str, Json]]:
    """One a source (and encoder), its encodes from the cheapest on, and the one that is chosen."""
    groups: dict[tuple[str, str | None], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.src, clip.encoder if question.by_encoder else None), []).append(clip)
    sign, found = (-1.0 if cost in SCALES else 1.0), []
    for (src, encoder), members in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        encoders = sorted({clip.encoder for clip in members})
        if cost in SCALES and len(encoders) > 1:
            raise InputError(
                f"{question.corpus}: {cost} of {' and '.join(encoders)} are different scales, expected one "
                "for all: name a column such as the bitrate with --cost, or ask by encoder"
            )
        ladders = [[clip for clip in members if clip.encoder == name] for name in encoders]
        choice = assured.choice(encoder)
        rule = _rule(choice, ladders)
        for clip in members:
            clip.assured = choice.assured(clip) if choice is not None and rule == CHOICE else clip.lower
        members.sort(key=lambda clip: (sign * clip.cost, -clip.assured, clip.clip))
        holding = [clip for ladder in ladders for clip in _holding(ladder, rule, sign, question.target)]
        chosen = next((clip for clip in members if clip in holding), None)
        found.append(
            {
                "src": src,
                "encoder": encoder,
                "rule": rule,
                "recommended": chosen.clip if chosen else None,
                "encodes": [clip.to_dict() for clip in members],
            }
        )
    return found


def _rule(choice: Choice | None, ladders: Sequence[Sequence[Clip]]) -> str:
    """Of one group, whose encodes are by encoder."""
    if choice is None:
        return BOUND
    if any(map(choice.is_finer, ladders)):
        return SEQUENCE
    return CHOICE if math.isfinite(choice.q) else BOUND


def _holding(ladder: Sequence[Clip], rule: str, sign: float, target: float) -> Iterator[Clip]:
    """One encoder's encodes that reach the target.

    By SEQUENCE from the dearest on, up to the first that does not (fixed-sequence testing): on a fine ladder some
    encode that is not good enough always reaches it by chance.
    """
    dearest = sorted(ladder, key=lambda clip: (-sign * clip.cost, -clip.assured, clip.clip))
    return (takewhile if rule == SEQUENCE else filter)(lambda clip: clip.assured >= target, dearest)
