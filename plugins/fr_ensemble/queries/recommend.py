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
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.manifest import codec_block, is_current, offset_of, scaler_of, spec_of
from fr_ensemble.artifacts.paths import CALIBRATION_INPUTS_PATH, INPUTS_PATH
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.rows import QUALITY_COLUMNS, ColumnSpec, Rows, read_batches
from fr_ensemble.corpus.seen import INPUT_FLAG
from fr_ensemble.corpus.vocabulary import encoder_name
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.inputs import Inputs, read_inputs
from fr_ensemble.evidence.intervals import Calibration, EncoderIntervals, Intervals, calibrate
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
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.flags import Flagger, PredictedRows
from fr_ensemble.hooks.loaded import intervals_of, known_sources
from fr_ensemble.hooks.targets import check_features
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Progress, Series, silent
from registry_tool.toolkit import first_names, missing_column, text_table
from registry_tool.values import EMPTY, Json, counted, percent

COSTS = ("bitrate_kbps", "bitrate", "quality", "crf", "cq", "qp")  # looked for in this order
SCALES = ("quality", "crf", "cq", "qp")  # an encoder's own scale: a higher number is a cheaper encode
FAILED_WARNING = "failed encodes, without a number for every feature, are left out"
MAX_CHARTS = 12
FLAGGED_ROWS = 0.5  # share of a clip's rows from which a flag is shown of it
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
    members: Any = field(default=0.0, repr=False)  # (M,), sums of the members' scores; else all of them, (M, rows)

    def add_flags(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self.flags[name] = self.flags.get(name, 0) + count
        self.outside += counts.get(INPUT_FLAG, 0)

    def finish(self, calibration: Calibration, question: Question) -> None:
        """calibration: of clips of this encoder."""
        statistics = question.statistic.of(self.members) if np.ndim(self.members) == 2 else self.members / self.n_rows
        self.members = 0.0
        self.cost /= self.n_rows
        self.mu, self.sigma = float(np.clip(statistics.mean(), *calibration.range)), float(statistics.std(ddof=1))
        bound, _ = calibration.interval(np.array([self.mu]), np.array([self.sigma]), question.confidence)
        self.lower = float(bound[0])

    def to_dict(self) -> dict[str, Json]:
        return {name: value for name, value in asdict(self).items() if name not in ("members", "src", "encoder")}


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
    with usable_evidence(view.entry.id, view.manifest or {}):
        oof, inputs = calibrated_on(view.manifest or {}, view.read), _inputs(view)
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


def _inputs(view: EntryView) -> Inputs | None:
    """Of the rows that the intervals are made of; None where the evidence has none."""
    calibrated = "calibration" in (view.manifest or {})
    with suppress(KeyError):
        return read_inputs(view.read(CALIBRATION_INPUTS_PATH if calibrated else INPUTS_PATH))
    return None


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
            if question.statistic.is_mean:
                clip.members = clip.members + np.array([sums[index] for sums in per_clip[2:]])
            else:
                own = scores[:, place == index]
                clip.members = own if clip.n_rows == own.shape[1] else np.concatenate([clip.members, own], axis=1)
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
        encodes = [{"encoder": clip.encoder, **clip.to_dict()} for clip in members]
        found.append(
            {
                "src": src,
                "encoder": encoder,
                "rule": rule,
                "recommended": chosen.clip if chosen else None,
                "encodes": encodes,
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


def lines(document: Mapping[str, Json]) -> list[str]:
    """The document for people: a line a source (and encoder)."""
    cost, target, confidence = document["cost"]["column"], document["target"], document["confidence"]
    rows = []
    for group in document["groups"]:
        best = max(group["encodes"], key=lambda encode: encode["assured"])
        shown = next((e for e in group["encodes"] if e["clip"] == group["recommended"]), best)
        setting = " ".join(f"{name}={_plain(value)}" for name, value in shown["setting"].items()) or "-"
        flags = " ".join(name for name, count in shown["flags"].items() if count >= FLAGGED_ROWS * shown["n_rows"])
        cells = [setting, f"{shown['cost']:g}", f"{shown['mu']:.2f}", f"{shown['assured']:.2f}", flags or "-"]
        answer = group["recommended"] or f"none of {len(group['encodes'])}; the best:"
        rows.append([group["src"], shown["encoder"], answer, *cells])
    header = ["source", "encoder", "cheapest encode", "setting", cost, "mu", "lower bound", "flags"]
    asked = (
        f"{target['statistic']} {target['name']} of a clip at least {target['at_least']:g}, at {percent(confidence)} %"
    )
    return [asked, *_rules(document), *text_table([header, *rows])]


def _rules(document: Mapping[str, Json]) -> Iterator[str]:
    """By what encodes are chosen, and what that promises; of encoders that are calibrated apart, each by its own."""
    apart, level = {one["encoder"]: one for one in document.get("by_encoder", ())}, percent(document["confidence"])
    groups: dict[str, list[str]] = {}
    for group in document["groups"]:
        name = encoder_name(group["encoder"] or "")
        groups.setdefault(name if group["encoder"] is not None and name in apart else "", []).append(group["rule"])
    for name, rules in sorted(groups.items()):
        yield from (f"{name}: {line}" if name else line for line in _reasons(apart.get(name, document), rules, level))
    if apart and any(group["encoder"] is None for group in document["groups"]):
        yield f"the lower bound of an encode by {' or '.join(apart)} is that of its encoder's rows"


def _reasons(known: Mapping[str, Json], rules: Sequence[str], level: str) -> Iterator[str]:
    """Of answers by these rules. known: has `bound` and, where choices can be made, `choice`."""
    bound, choice, counts = known["bound"], known.get("choice"), Counter(rules)
    by_bound = f"lower bound of clips ({bound['rule']}; guarantee: {bound['guarantee']})"
    if counts[CHOICE] and choice is not None:
        promise = f"{choice['rule']} over {choice['n_sources']} sources; guarantee: {choice['guarantee']}"
        yield f"{counted(counts[CHOICE], 'answer')} by controlled choice ({promise})"
    if counts[BOUND]:
        why = "the evidence does not tell the encoders of its clips"
        if choice is not None:
            why = f"{choice['n_sources']} sources are too few to control choices at {level} %"
        yield f"{counted(counts[BOUND], 'answer')} by the {by_bound}: {why}"
    if counts[SEQUENCE]:
        why = "their encodes are nearer to each other than those that choices are calibrated on"
        yield f"{counted(counts[SEQUENCE], 'answer')} by the {by_bound}, which all dearer ones reach, too: {why}"
    if bound["q"] is None and counts[CHOICE] < len(rules):
        yield f"no bound at {level} %: too few sources to calibrate on; ask for less"


def _plain(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figures(document: Mapping[str, Json]) -> list[Figure]:
    """A chart a source: for each encoder mu against the cost, down to its lower bound, and what is recommended."""
    sources = list(dict.fromkeys(group["src"] for group in document["groups"]))[:MAX_CHARTS]
    return [_figure(document, src, [group for group in document["groups"] if group["src"] == src]) for src in sources]


def title(document: Mapping[str, Json]) -> str:
    """Of its picture."""
    more = len({group["src"] for group in document["groups"]}) - MAX_CHARTS
    shading = f"mu down to the {percent(document['confidence'])} % lower bound"
    left_out = f"; {more} more sources are not shown" if more > 0 else ""
    return f"{document['entry']} on {document['corpus']}: {shading}{left_out}"


def _figure(document: Mapping[str, Json], src: str, groups: Sequence[Mapping[str, Json]]) -> Figure:
    target, cost = document["target"], document["cost"]
    chosen = {group["recommended"] for group in groups}
    encodes = [encode for group in groups for encode in group["encodes"]]
    costs = [encode["cost"] for encode in encodes]
    across = _costs(cost["column"], costs, log=cost["cheaper"] == "lower" and min(costs) > 0)
    best = [encode for encode in encodes if encode["clip"] in chosen]
    at_least = target["at_least"]
    series = [
        Series("recommended", _each(best, "cost"), _each(best, "lower"), "stars", tone="ink"),
        Series(f"at least {at_least:g}", (across.low, across.high), (at_least, at_least), "guide"),
    ]
    curves: dict[str, list[Mapping[str, Json]]] = {}
    for encode in encodes:
        curves.setdefault(encode["encoder"], []).append(encode)
    for encoder, of_it in curves.items():
        mu, lower = _each(of_it, "mu"), _each(of_it, "lower")
        series.append(Series(encoder, _each(of_it, "cost"), mu, "line", ends=lower))
    heights = [at_least, *_each(encodes, "mu"), *_each(encodes, "lower")]
    room = 0.05 * (max(heights) - min(heights)) or 1.0
    up = Axis(f"{target['statistic']} {target['name']}", min(heights) - room, max(heights) + room)
    caption = (
        f"{document['entry']}: {target['statistic']} {target['name']} of each encode, shaded down to its lower bound."
    )
    return Figure(src, caption, Chart(across, up, series))


def _each(encodes: Sequence[Mapping[str, Json]], name: str) -> list[float]:
    return [encode[name] for encode in encodes]


def _costs(column: str, costs: Sequence[float], *, log: bool) -> Axis:
    low, high = min(costs), max(costs)
    if log:
        return Axis(column, low / 1.1, high * 1.1, log=True)
    room = 0.04 * (high - low) or 1.0
    return Axis(column, low - room, high + room)
