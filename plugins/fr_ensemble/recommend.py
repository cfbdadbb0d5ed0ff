"""recommend.py: the cheapest encode whose clip mean is at least a target, at a confidence. Trains nothing.

A clip's mean over its rows is predicted by each member; mu and sigma are those of the members' means, and the bound is
the lower one of the calibration for clips (see conformal.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.manifest import codec_block, is_current, offset_of, scaler_of, spec_of
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.rows import QUALITY_COLUMNS, ColumnSpec, Rows, read_batches
from fr_ensemble.corpus.seen import SeenCorpus, unlike
from fr_ensemble.evidence.intervals import Calibration, Intervals
from fr_ensemble.evidence.methods import LOWER_SIDE
from fr_ensemble.hooks.loaded import intervals_of
from fr_ensemble.hooks.targets import check_features
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Progress, Series, silent
from registry_tool.toolkit import missing_column, text_table
from registry_tool.values import EMPTY, percent

COSTS = ("bitrate_kbps", "bitrate", "quality", "crf", "cq", "qp")  # looked for in this order
SCALES = ("quality", "crf", "cq", "qp")  # an encoder's own scale: a higher number is a cheaper encode
MAX_CHARTS = 12


@dataclass(slots=True)
class Clip:
    """One encode, as its rows come in; `finish` makes the figures of the sums. Mutable: rows stream."""

    src: str
    encoder: str
    clip: str
    setting: Mapping[str, Any]
    n_rows: int = 0
    outside: int = 0  # rows with an input outside what training saw
    cost: float = 0.0
    mu: float = 0.0
    sigma: float = 0.0
    lower: float = 0.0
    members: Any = field(default=0.0, repr=False)  # (M,), sums of the members' scores

    def finish(self, calibration: Calibration, confidence: float) -> None:
        means = self.members / self.n_rows
        self.cost /= self.n_rows
        self.mu, self.sigma = float(np.clip(means.mean(), *calibration.range)), float(means.std(ddof=1))
        bound, _ = calibration.interval(np.array([self.mu]), np.array([self.sigma]), confidence)
        self.lower = float(bound[0])

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("members", "src", "encoder")}


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


def recommend(
    view: EntryView, question: Question, progress: Progress = silent
) -> tuple[dict[str, Any], Mapping[str, int]]:
    """The document of `recommend --format json`, and warnings with the number of rows each is about.

    Raises InputError for an entry without a calibration for clips, and for rows that do not name their encodes.
    """
    manifest = view.manifest
    if view.entry.kind != "fr_ensemble" or manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: expected an ensemble (fr_ensemble, schema_version 2): train one")
    spec = spec_of(manifest, target=False, names=question.column_names)
    low, high = spec.bounds
    if not (low <= question.target <= high and 0.0 < question.confidence < 1.0):
        found = f"--target {question.target:g} --confidence {question.confidence:g}"
        raise InputError(f"{found}: expected a target in {low:g}..{high:g} and a confidence between 0 and 1")
    check_features(view.entry.id, manifest, question.corpus)
    stored = intervals_of(view, [question.confidence])
    calibration = stored.calibration("clip", LOWER_SIDE)
    cost = _cost(question, spec)
    clips, warnings = _read(view, question.corpus, spec, stored, cost, progress)
    for clip in clips:
        clip.finish(calibration, question.confidence)
    if outside := sum(clip.outside for clip in clips):
        warnings["an input is outside what training saw"] = outside
    quantile = calibration.quantile(question.confidence)
    return {
        "entry": view.entry.id,
        "corpus": question.corpus.name,
        "target": {"name": manifest["target"]["name"], "at_least": question.target},
        "confidence": question.confidence,
        "bound": {
            "q": quantile.q if np.isfinite(quantile.q) else None,
            "floor": calibration.floor,
            "rule": quantile.rule,
            "guarantee": quantile.guarantee,
        },
        "cost": {"column": cost, "cheaper": "higher" if cost in SCALES else "lower"},
        "groups": _groups(clips, question, cost),
    }, warnings


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
    view: EntryView, corpus: Path, spec: ColumnSpec, stored: Intervals, cost: str, progress: Progress
) -> tuple[list[Clip], Counter[str]]:
    """Every encode with the sums over its rows. A clip is told apart by its source and its name."""
    manifest = view.manifest or {}
    models = [view.read(member["onnx"]) for member in manifest["members"]]
    scaler, seen = scaler_of(manifest), SeenCorpus.from_manifest(manifest)
    offset = offset_of(manifest)
    clips: dict[tuple[str, str], Clip] = {}
    warnings: Counter[str] = Counter()
    for rows in read_batches(corpus, spec, keep=None, progress=progress):
        block = codec_block(rows.codec, rows.conditioning, spec.n_slots)
        scores = member_scores(models, *standardise(rows.features, block, scaler, spec.n_slots)) + offset  # (M, n)
        outside = stored.outside(np.concatenate([rows.features, rows.conditioning], axis=1))
        costs = _numbers(rows, cost, corpus)
        warnings.update({f"encoder {name!r} is unknown": count for name, count in rows.unknown_encoders.items()})
        found = unlike(seen, rows.encoder, spec.vocabulary_version, [*rows.unknown_encoders], rows.values)
        warnings.update(found.warnings)
        assert rows.source is not None
        assert rows.clip is not None
        pair = rows.source.codes * len(rows.clip.names) + rows.clip.codes
        _, first, place = np.unique(pair, return_index=True, return_inverse=True)
        mixed = np.flatnonzero(rows.encoder.codes != rows.encoder.codes[first][place]).tolist()
        per_clip = [np.bincount(place, weights) for weights in (None, outside, costs, *scores)]  # (clips,) each
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
            clip.outside += int(per_clip[1][index])
            clip.cost += float(per_clip[2][index])
            clip.members = clip.members + np.array([sums[index] for sums in per_clip[3:]])
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


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _groups(clips: Sequence[Clip], question: Question, cost: str) -> list[dict[str, Any]]:
    """One a source (and encoder), its encodes from the cheapest on, and the first whose bound holds."""
    groups: dict[tuple[str, str | None], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.src, clip.encoder if question.by_encoder else None), []).append(clip)
    sign, found = (-1.0 if cost in SCALES else 1.0), []
    for (src, encoder), members in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        encoders = {clip.encoder for clip in members}
        if cost in SCALES and len(encoders) > 1:
            raise InputError(
                f"{question.corpus}: {cost} of {' and '.join(sorted(encoders))} are different scales, expected one "
                "for all: name a column such as the bitrate with --cost, or ask by encoder"
            )
        members.sort(key=lambda clip: (sign * clip.cost, -clip.lower, clip.clip))
        chosen = next((clip for clip in members if clip.lower >= question.target), None)
        encodes = [{"encoder": clip.encoder, **clip.to_dict()} for clip in members]
        found.append(
            {"src": src, "encoder": encoder, "recommended": chosen.clip if chosen else None, "encodes": encodes}
        )
    return found


def lines(document: Mapping[str, Any]) -> list[str]:
    """The document for people: a line a source (and encoder)."""
    cost, target, confidence = document["cost"]["column"], document["target"], document["confidence"]
    rows = []
    for group in document["groups"]:
        best = max(group["encodes"], key=lambda encode: encode["lower"])
        shown = next((e for e in group["encodes"] if e["clip"] == group["recommended"]), best)
        setting = " ".join(f"{name}={_plain(value)}" for name, value in shown["setting"].items()) or "-"
        cells = [setting, f"{shown['cost']:g}", f"{shown['mu']:.2f}", f"{shown['lower']:.2f}"]
        answer = group["recommended"] or f"none of {len(group['encodes'])}; the best:"
        rows.append([group["src"], shown["encoder"], answer, *cells])
    header = ["source", "encoder", "cheapest encode", "setting", cost, "mu", "lower bound"]
    bound = document["bound"]
    text = [
        f"mean {target['name']} of a clip at least {target['at_least']:g}, at {percent(confidence)} % "
        f"({bound['rule']}; guarantee: {bound['guarantee']})",
        *text_table([header, *rows]),
    ]
    if bound["q"] is None:
        text.append(f"no bound at {percent(confidence)} %: too few sources to calibrate on; ask for less")
    return text


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figures(document: Mapping[str, Any]) -> list[Figure]:
    """A chart a source: for each encoder mu against the cost, down to its lower bound, and what is recommended."""
    sources = list(dict.fromkeys(group["src"] for group in document["groups"]))[:MAX_CHARTS]
    return [_figure(document, src, [group for group in document["groups"] if group["src"] == src]) for src in sources]


def title(document: Mapping[str, Any]) -> str:
    """Of its picture."""
    more = len({group["src"] for group in document["groups"]}) - MAX_CHARTS
    shading = f"mu down to the {percent(document['confidence'])} % lower bound"
    left_out = f"; {more} more sources are not shown" if more > 0 else ""
    return f"{document['entry']} on {document['corpus']}: {shading}{left_out}"


def _figure(document: Mapping[str, Any], src: str, groups: Sequence[Mapping[str, Any]]) -> Figure:
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
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for encode in encodes:
        curves.setdefault(encode["encoder"], []).append(encode)
    for encoder, of_it in curves.items():
        mu, lower = _each(of_it, "mu"), _each(of_it, "lower")
        series.append(Series(encoder, _each(of_it, "cost"), mu, "line", ends=lower))
    heights = [at_least, *_each(encodes, "mu"), *_each(encodes, "lower")]
    room = 0.05 * (max(heights) - min(heights)) or 1.0
    up = Axis(f"mean {target['name']}", min(heights) - room, max(heights) + room)
    caption = f"{document['entry']}: mean {target['name']} of each encode, shaded down to its lower bound."
    return Figure(src, caption, Chart(across, up, series))


def _each(encodes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [encode[name] for encode in encodes]


def _costs(column: str, costs: Sequence[float], *, log: bool) -> Axis:
    low, high = min(costs), max(costs)
    if log:
        return Axis(column, low / 1.1, high * 1.1, log=True)
    room = 0.04 * (high - low) or 1.0
    return Axis(column, low - room, high + room)
