"""intervals.py: intervals calibrated on sources, from out-of-fold predictions. Knows no model and no file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Mask, RowChoice
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.vocabulary import UNKNOWN, encoder_lines, encoder_name, spellings_of
from fr_ensemble.evidence.methods import (
    DEFAULT_METHOD,
    INTERVAL_METHODS,
    LOWER_SIDE,
    RANK_TOLERANCE,
    TWO_SIDED,
    ConformityScores,
    LosoHcpT,
)
from fr_ensemble.evidence.oof import Oof, cut, remembered
from fr_ensemble.evidence.statistics import group_means, interval_crps, interval_scores
from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.toolkit import Text
from registry_tool.values import Json, percent, plain_spelling

NOMINAL_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
CALIBRATED_UNITS = (
    ("row", TWO_SIDED),
    ("row", LOWER_SIDE),
    ("clip", TWO_SIDED),
    ("clip", LOWER_SIDE),
)  # what is calibrated, on which side
CRPS_LEVELS = tuple((part + 0.5) / 40 for part in range(40))  # middles of equal parts of 0..1
FLOOR_FACTORS = np.geomspace(0.02, 30.0, 61)  # times the median sigma
MIN_COVERAGE_SOURCES = 3  # below them no source can be left out of a calibration
MIN_ENCODER_SOURCES = 4  # of an encoder with intervals of its own: as many as the default method takes for 80 %


@dataclass(frozen=True, slots=True)
class Quantile:
    """How many scales an interval of nominal coverage `level` reaches; infinite: the target's whole range.

    q_conformal: what the conformal rule alone gives; differs from q where the rule is parametric.
    coverage: by source, the share of its units inside where q comes from the other sources (the floor from all);
    empty below 3 sources.
    """

    level: float
    q: float
    q_conformal: float
    rule: str
    guarantee: str
    coverage: Mapping[str, float]

    def to_dict(self) -> dict[str, Json]:
        return asdict(self) | {"q": _finite(self.q), "q_conformal": _finite(self.q_conformal)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Quantile:
        fields = {name: document[name] for name in cls.__slots__}
        return cls(**fields | {name: _number(document[name]) for name in ("level", "q", "q_conformal")})


@dataclass(frozen=True, slots=True)
class Calibration:
    """One calibrated interval: for rows or clip means, two-sided or below; all that inference needs.

    n units of K sources. floor: target units, added to sigma in squares. sha256: of the numbers it was made from.
    """

    method: str
    unit: str  # row or clip
    side: str  # two-sided or lower
    range: tuple[float, float]  # of the target
    floor: float
    levels: tuple[Quantile, ...]
    n: int
    n_per_source: Mapping[str, int]
    sha256: str

    def quantile(self, level: float) -> Quantile:
        """Raises InputError for a level that was not calibrated."""
        for quantile in self.levels:
            if math.isclose(quantile.level, level, abs_tol=RANK_TOLERANCE):
                return quantile
        known = ", ".join(f"{quantile.level:g}" for quantile in self.levels)
        raise InputError(f"level: found {level:g}, expected one of {known}")

    def interval(self, mu: Float64, sigma: Float64, level: float) -> tuple[Float64, Float64]:
        """Lower and upper bounds (n,): low <= lower <= mu <= upper <= high, mu being cut to the target's range.

        mu, sigma (ddof 1 over members) of single rows, or of clips: of the members' clip means. NaN stays NaN. A q
        below 0, of sources whose targets are above mu, is a lower bound of mu itself: no guarantee is lost by it.
        """
        low, high = self.range
        q, mu = max(self.quantile(level).q, 0.0), np.clip(mu, low, high)
        if math.isinf(q):
            return np.where(np.isnan(mu), mu, low), np.where(np.isnan(mu), mu, high)
        half = q * INTERVAL_METHODS[self.method].scale(sigma, self.floor)
        upper = np.where(np.isnan(mu), mu, high) if self.side == LOWER_SIDE else np.clip(mu + half, low, high)
        return np.clip(mu - half, low, high), upper

    def crps(self, y: Float64, mu: Float64, sigma: Float64) -> Float64:
        """CRPS (n,) of the distribution that the intervals at CRPS_LEVELS describe. Raises InputError without them."""
        bounds = ((level, *self.interval(mu, sigma, level)) for level in CRPS_LEVELS)
        return interval_crps([interval_scores(y, lower, upper, level) for level, lower, upper in bounds], CRPS_LEVELS)

    def messages(self, levels: Sequence[float]) -> list[str]:
        """What a person must know of these levels."""
        return [*self.unbounded(levels), *self.unguaranteed(levels)]

    def unbounded(self, levels: Sequence[float]) -> list[str]:
        """Words on each of these levels whose q is infinite."""
        return [
            f"the {percent(level)} % interval of a {self.unit} is the target's whole range: "
            f"no q is finite ({self.quantile(level).rule})"
            for level in levels
            if math.isinf(self.quantile(level).q)
        ]

    def unguaranteed(self, levels: Sequence[float]) -> list[str]:
        """One line on those of the levels whose finite q no theorem stands behind; [] where there are none."""
        known = [self.quantile(level) for level in levels]
        bare = [quantile for quantile in known if quantile.guarantee.startswith("none") and math.isfinite(quantile.q)]
        if not bare:
            return []
        shown = ", ".join(f"{percent(quantile.level)} %" for quantile in bare)
        return [
            f"intervals of a {self.unit} at {shown} have no guarantee from {len(self.n_per_source)} sources "
            f"({bare[0].rule}{bare[0].guarantee.removeprefix('none')})"
        ]

    def to_dict(self) -> dict[str, Json]:
        """As in the manifest, with what the method implies written out."""
        miss = "mu - y" if self.side == LOWER_SIDE else "abs(y - mu)"
        score = INTERVAL_METHODS[self.method].formula(miss)
        implied = {"score": score, "ddof": 1, "group": "src", "n_sources": len(self.n_per_source)}
        levels = {f"{quantile.level:g}": quantile.to_dict() for quantile in self.levels}
        return asdict(self) | implied | {"range": list(self.range), "levels": levels}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Calibration:
        """Raises ValueError, KeyError or TypeError for a document that `to_dict` did not write."""
        levels = tuple(map(Quantile.from_dict, document["levels"].values()))
        low, high, floor = map(_number, (*document["range"], document["floor"]))
        method, unit, side = document["method"], document["unit"], document["side"]
        if method not in INTERVAL_METHODS:
            raise ValueError(f"intervals: unknown method {method!r}, expected one of {', '.join(INTERVAL_METHODS)}")
        if (unit, side) not in CALIBRATED_UNITS or document["ddof"] != 1:
            found = f"{unit} {side} with ddof {document['ddof']}"
            raise ValueError(
                f"intervals: found {found}, expected row or clip, {TWO_SIDED} or {LOWER_SIDE}, with ddof 1"
            )
        if not (low < high and 0.0 <= floor < math.inf and all(0.0 < quantile.level < 1.0 for quantile in levels)):
            raise ValueError(
                f"intervals: found range {low:g}..{high:g}, floor {floor:g}, expected an interval's numbers"
            )
        return cls(
            method, unit, side, (low, high), floor, levels, document["n"], document["n_per_source"], document["sha256"]
        )


@dataclass(frozen=True, slots=True, eq=False)
class RowCalibrations:
    """The calibration of each of n rows (or clips): that of its encoder, or the pooled one.

    parts: encoder -> calibration; "" is the pooled one, and the first. place: (n,), which part each row has.
    """

    parts: Mapping[str, Calibration]
    place: Int64

    def interval(self, mu: Float64, sigma: Float64, level: float) -> tuple[Float64, Float64]:
        """Lower and upper bounds (n,) of these rows; see Calibration.interval."""
        lower, upper = np.empty(len(mu)), np.empty(len(mu))
        for rows, calibration in ((self.place == part, one) for part, one in enumerate(self.parts.values())):
            lower[rows], upper[rows] = calibration.interval(mu[rows], sigma[rows], level)
        return lower, upper

    def crps(self, y: Float64, mu: Float64, sigma: Float64) -> Float64:
        """CRPS (n,); see Calibration.crps."""
        found = np.empty(len(mu))
        for rows, calibration in ((self.place == part, one) for part, one in enumerate(self.parts.values())):
            found[rows] = calibration.crps(y[rows], mu[rows], sigma[rows])
        return found

    def of(self, rows: RowChoice) -> RowCalibrations:
        """Those of some of the rows, by a mask or their numbers."""
        return replace(self, place=self.place[rows])

    def messages(self, levels: Sequence[float]) -> dict[str, int]:
        """What a person must know of these levels -> the number of rows that it is about."""
        counts = np.bincount(self.place, minlength=len(self.parts)).tolist()
        named = zip(self.parts.items(), counts, strict=True)
        lines = ((name, line, count) for (name, one), count in named if count for line in one.messages(levels))
        return _by_encoders(lines)


def _by_encoders(lines: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Words -> rows: what is said of all rows, whose encoder is "", and of encoders apart; equal words together."""
    by_line: dict[str, dict[str, int]] = {}
    for name, line, count in lines:
        by_line.setdefault(line, {})[name] = count
    found = {line: counts.pop("") for line, counts in by_line.items() if "" in counts}
    for line, counts in by_line.items():
        found |= encoder_lines(counts, f": {line}", f": {line}")
    return found


@dataclass(frozen=True, slots=True)
class EncoderIntervals:
    """Calibrations of each encoder apart, from its rows alone: group-conditional (Mondrian) conformal prediction.

    Vovk, Gammerman & Shafer 2005, chapter 4. calibrations: by `encoder_name`, of each encoder that is in
    MIN_ENCODER_SOURCES sources or more. pooled: of the corpus' other encoders, in how many sources they are.
    spellings: by encoder, the names that are taken for its own, for readers that know none; see `spellings_of`.
    """

    calibrations: Mapping[str, tuple[Calibration, ...]]
    pooled: Mapping[str, int]
    spellings: Mapping[str, tuple[str, ...]]
    min_sources: int = MIN_ENCODER_SOURCES

    @classmethod
    def of(cls, oof: Oof, kinds: Sequence[Calibration], levels: Sequence[float]) -> EncoderIntervals:
        """As the pooled calibrations are made, of predictions that tell encoders. Raises what `calibrate` raises."""
        sources = sources_in(oof)
        made = {
            name: tuple(calibrate(part, c.unit, c.method, levels, c.side, c.range) for c in kinds)
            for name in own_encoders(sources)
            for part in (_encoder_part(oof, name),)
        }
        pooled = {name: count for name, count in sources.items() if name not in made}
        return cls(made, pooled, {name: spellings_of(name) for name in made})

    def with_spellings_of(self, stored: EncoderIntervals) -> EncoderIntervals:
        """With the stored spellings, which may be fewer: those of a later release may be more. Wrong ones are not."""
        known = {
            name: names
            for name, names in stored.spellings.items()
            if name in self.spellings and plain_spelling(name) in names and {*names} <= {*self.spellings[name]}
        }
        return replace(self, spellings={**self.spellings, **known})

    def to_dict(self) -> dict[str, Json]:
        return {
            "min_sources": self.min_sources,
            "encoders": [
                {
                    "name": name,
                    "spellings": list(self.spellings[name]),
                    "calibrations": [calibration.to_dict() for calibration in own],
                }
                for name, own in self.calibrations.items()
            ],
            "pooled": [{"name": name, "n_sources": count} for name, count in self.pooled.items()],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> EncoderIntervals:
        """Raises what `Calibration.from_dict` raises."""
        own = {item["name"]: tuple(map(Calibration.from_dict, item["calibrations"])) for item in document["encoders"]}
        spellings = {item["name"]: tuple(item["spellings"]) for item in document["encoders"]}
        pooled = {item["name"]: item["n_sources"] for item in document["pooled"]}
        return cls(own, pooled, spellings, document["min_sources"])


def encoder_sources(encoder: Text, source: Int64) -> dict[str, int]:
    """In how many sources each encoder is, by name. encoder, source: of n rows."""
    return {name: len(np.unique(source[encoder.codes == code])) for code, name in enumerate(encoder.names)}


def sources_in(oof: Oof) -> dict[str, int]:
    """The same of predictions; {} where they do not tell encoders."""
    if oof.encoder is None or oof.encoders is None:
        return {}
    return encoder_sources(Text(oof.encoder, oof.encoders), oof.source)


@remembered
def _encoder_part(oof: Oof, name: str) -> Oof:
    """The rows of one encoder; read-only where all are, so that what is measured of them is remembered, too."""
    part = oof.of_encoder(name)
    part.target.setflags(write=oof.target.flags.writeable)
    return part


def own_encoders(sources: Mapping[str, int]) -> list[str]:
    """The encoders with intervals of their own. sources: of each encoder, in how many it is."""
    return [name for name, count in sources.items() if count >= MIN_ENCODER_SOURCES and name != UNKNOWN]


@dataclass(frozen=True, slots=True)
class Intervals:
    """All calibrations of an ensemble, and the ranges of its numeric inputs in training; the manifest's `intervals`.

    calibrations: pooled over encoders. by_encoder: where encoders are calibrated apart, too; a row's is its encoder's.
    """

    calibrations: tuple[Calibration, ...]
    input_ranges: Mapping[str, tuple[float, float]]  # features, then transformed conditions, in input order
    by_encoder: EncoderIntervals | None = None

    def calibration(self, unit: str = "row", side: str = TWO_SIDED) -> Calibration:
        """The pooled one. Raises InputError where clips are not known, so that there is no calibration for them."""
        return _of_kind(self.calibrations, unit, side)

    def of_encoder(self, name: str, unit: str = "row", side: str = TWO_SIDED) -> Calibration:
        """That of rows of an encoder, in any spelling: its own, or the pooled one. Raises what `calibration` raises."""
        own = self.by_encoder.calibrations.get(encoder_name(name)) if self.by_encoder is not None else None
        return _of_kind(own if own is not None else self.calibrations, unit, side)

    def of_rows(self, encoder: Text, unit: str = "row", side: str = TWO_SIDED) -> RowCalibrations:
        """Those of n rows, or clips, by their encoders in any spelling. Raises what `calibration` raises."""
        parts = {"": self.calibration(unit, side)}
        known = self.by_encoder.calibrations if self.by_encoder is not None else {}
        parts |= {name: _of_kind(own, unit, side) for name, own in known.items()}
        numbers = {name: part for part, name in enumerate(parts)}
        places = np.array([numbers.get(encoder_name(name), 0) for name in encoder.names], np.int64)
        return RowCalibrations(parts, places[encoder.codes])

    def unguaranteed(self, levels: Sequence[float]) -> list[str]:
        """Words on two-sided intervals of rows that no theorem stands behind: pooled, then of each encoder apart."""
        apart = self.by_encoder.calibrations if self.by_encoder is not None else {}
        parts = {"": self.calibration(), **{name: _of_kind(own, "row", TWO_SIDED) for name, own in apart.items()}}
        return [*_by_encoders((name, line, 0) for name, one in parts.items() for line in one.unguaranteed(levels))]

    def with_levels(self, levels: Sequence[float], read: Callable[[], Oof]) -> Intervals:
        """A copy that knows these levels too, calibrated by the same rule; reads the predictions only if it must."""
        known = [quantile.level for quantile in self.calibration().levels]
        new = [level for level in levels if not any(math.isclose(level, k, abs_tol=RANK_TOLERANCE) for k in known)]
        return self.recalibrated(read(), [*known, *new]) if new else self

    def recalibrated(self, oof: Oof, levels: Sequence[float] | None = None) -> Intervals:
        """The same calibrations computed afresh from predictions: equal to self where these are self's predictions."""
        again = (
            calibrate(oof, c.unit, c.method, levels or [q.level for q in c.levels], c.side, c.range)
            for c in self.calibrations
        )
        pooled = tuple(again)
        apart = None if oof.encoder is None else EncoderIntervals.of(oof, pooled, [q.level for q in pooled[0].levels])
        if apart is not None and self.by_encoder is not None:
            apart = apart.with_spellings_of(self.by_encoder)
        return replace(self, calibrations=pooled, by_encoder=apart)

    def outside(self, numeric: Float64) -> Mask:
        """True for rows (n,) with a numeric input (n, F + K) outside what training saw: out of distribution."""
        if not self.input_ranges:  # of a public ensemble, whose manifest does not say them
            return np.zeros(len(numeric), bool)
        low, high = np.array([*self.input_ranges.values()]).T
        outside: Mask = ((numeric < low) | (numeric > high)).any(axis=1)
        return outside

    def to_dict(self) -> dict[str, Json]:
        return {
            "method": self.calibrations[0].method,
            "calibrations": [calibration.to_dict() for calibration in self.calibrations],
            "input_ranges": [{"name": name, "range": list(bounds)} for name, bounds in self.input_ranges.items()],
            **({} if self.by_encoder is None else {"by_encoder": self.by_encoder.to_dict()}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Intervals:
        """Raises ValueError for a document that `to_dict` did not write."""
        try:
            ranges = {r["name"]: (float(r["range"][0]), float(r["range"][1])) for r in document["input_ranges"]}
            calibrations = tuple(map(Calibration.from_dict, document["calibrations"]))
            apart = EncoderIntervals.from_dict(document["by_encoder"]) if "by_encoder" in document else None
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"intervals: {type(error).__name__}: {error}, expected what training writes") from error
        if not calibrations:
            raise ValueError("intervals: found no calibrations, expected one or more")
        return cls(calibrations, ranges, apart)


def encoders_of_clips(encoder: Text, clip: Int64, n_clips: int) -> Text:
    """The encoder of each clip, (C,); "" where a clip has rows of several. encoder, clip: of each row, (n,)."""
    low, high = np.full(n_clips, len(encoder.names)), np.full(n_clips, -1)
    np.minimum.at(low, clip, encoder.codes)
    np.maximum.at(high, clip, encoder.codes)
    return Text(np.where(low == high, high, len(encoder.names)), (*encoder.names, ""))


def _of_kind(calibrations: Sequence[Calibration], unit: str, side: str) -> Calibration:
    for calibration in calibrations:
        if (calibration.unit, calibration.side) == (unit, side):
            return calibration
    raise InputError(f"intervals: found no {side} calibration for a {unit}: train on a corpus that names its clips")


def calibrate_all(oof: Oof, corpus: Corpus, method: str = DEFAULT_METHOD) -> Intervals:
    """For rows and, where clips are known, clip means: two-sided, and below."""
    names = [*corpus.spec.features, *map(str, corpus.spec.conditioning)]
    columns = [*corpus.features.T, *corpus.conditioning.T]
    ranges = [(float(column.min()), float(column.max())) for column in columns]
    return calibrate_all_of(oof, dict(zip(names, ranges, strict=True)), corpus.spec.bounds, method)


def calibrate_all_of(
    oof: Oof, input_ranges: Mapping[str, tuple[float, float]], target_range: tuple[float, float], method: str
) -> Intervals:
    """The same, where the ranges of the inputs in training are known; of encoders apart where predictions tell them."""
    kinds = [kind for kind in CALIBRATED_UNITS if kind[0] == "row" or oof.clips is not None]
    made = tuple(calibrate(oof, unit, method, NOMINAL_LEVELS, side, target_range) for unit, side in kinds)
    apart = None if oof.encoder is None else EncoderIntervals.of(oof, made, NOMINAL_LEVELS)
    return Intervals(made, input_ranges, apart)


@remembered
def calibrate(
    oof: Oof,
    unit: str = "row",
    method: str = DEFAULT_METHOD,
    levels: Sequence[float] = NOMINAL_LEVELS,
    side: str = TWO_SIDED,
    target_range: tuple[float, float] = (-math.inf, math.inf),
) -> Calibration:
    """Quantiles of the out-of-fold scores of rows or clip means, so that a new source's are inside at each level.

    Raises InputError for an unknown method, a level outside (0, 1), or clips that are not known; EvidenceProblem for
    fewer than two sources or two members.
    """
    if method not in INTERVAL_METHODS or (unit, side) not in CALIBRATED_UNITS:
        raise InputError(f"interval: found {method} for {unit} {side}, expected one of {', '.join(INTERVAL_METHODS)}")
    if bad := [level for level in levels if not 0.0 < level < 1.0]:
        raise InputError(f"level: found {bad[0]:g}, expected a number between 0 and 1")
    rule, ranked, k = INTERVAL_METHODS[method], _rank(oof, unit, method, side), len(oof.sources)
    z, source, scores = ranked.z, ranked.source, ranked.scores
    n = dict(zip(oof.sources, np.bincount(source, minlength=k).tolist(), strict=True))
    ordered = sorted(set(levels))
    inside: dict[float, dict[str, float]] = {level: {} for level in ordered}
    for g, name in enumerate(oof.sources) if k >= MIN_COVERAGE_SOURCES else ():
        others, own = rule.without(scores, g), z[source == g]  # one source at a time: each copies the others' rows
        for level in ordered:
            inside[level][name] = float(np.mean(own <= rule.quantile(others, level, side).q))
    table = []
    for level in ordered:
        bound = rule.quantile(scores, level, side)
        conformal = rule.conformal(scores, level)
        table.append(Quantile(level, bound.q, conformal, bound.rule, bound.guarantee, inside[level]))
    return Calibration(method, unit, side, target_range, ranked.floor, tuple(table), len(z), n, ranked.sha256)


class _Ranked(NamedTuple):
    """What calibrations of one unit, method and side at any level have in common: the ranked scores of n units."""

    floor: float  # target units
    z: Float64  # (n,), how many scales each target misses mu by
    source: Int64  # (n,)
    scores: ConformityScores
    sha256: str  # of the method, unit, side, sources and numbers


@remembered
def _rank(oof: Oof, unit: str, method: str, side: str) -> _Ranked:
    rule = INTERVAL_METHODS[method]
    y, mu, sigma, source = _units(oof, unit)
    floor = _floor(np.abs(y - mu), sigma, source, len(oof.sources)) if rule.floored else 0.0
    scale = rule.scale(sigma, floor)
    z, signed = _misses(y, mu, scale, side), _misses(y, mu, scale, LOWER_SIDE)
    digest = hashlib.sha256(json.dumps([method, unit, side, list(oof.sources)]).encode())
    for column in (y, mu, sigma, source):
        digest.update(np.ascontiguousarray(column, "<f8").data)
    return _Ranked(floor, z, source, rule.scores(z, source, signed), digest.hexdigest())


def held_out_reach(oof: Oof, method: str, level: float, sigma: Float64 | None = None) -> Float64:
    """Half-widths of the rows' two-sided intervals (n,), target units, before they are cut to the target's range.

    As for an unseen source: q comes from the other sources (the floor from all). Infinite where those are too
    few for the level. Where predictions tell encoders, a row of one with enough sources has that of its rows alone.
    sigma: of other predictions of the same rows. Raises what `calibrate` raises.
    """
    sigma = oof.sigma if sigma is None else sigma
    reach = _held_out_reach(oof, method, level, sigma)
    for name in own_encoders(sources_in(oof)):
        rows = oof.rows_by(name)
        reach[rows] = _held_out_reach(_encoder_part(oof, name), method, level, sigma[rows])
    return reach


def held_out_shares(
    oof: Oof, method: str, levels: Sequence[float], target_range: tuple[float, float] = (-math.inf, math.inf)
) -> Float64:
    """Share of each source's rows inside two-sided intervals as for an unseen source, (levels, K), levels ascending.

    See `held_out_reach`; of three sources or more.
    """
    if oof.encoder is None:
        pooled = calibrate(oof, "row", method, levels, target_range=target_range)
        return np.array([[*quantile.coverage.values()] for quantile in pooled.levels])
    error, k = np.abs(oof.target - oof.mu), len(oof.sources)
    return np.array([group_means(error <= held_out_reach(oof, method, level), oof.source, k) for level in levels])


def _held_out_reach(oof: Oof, method: str, level: float, sigma: Float64) -> Float64:
    rule, ranked = INTERVAL_METHODS[method], _rank(oof, "row", method, TWO_SIDED)
    scale = rule.scale(sigma, ranked.floor)
    others = (rule.without(ranked.scores, g) for g in range(len(oof.sources)))
    q = np.array([rule.quantile(scores, level, TWO_SIDED).q for scores in others])
    with np.errstate(invalid="ignore"):  # an infinite q of a scale of 0
        reach = q[ranked.source] * scale
    return np.where(np.isinf(q)[ranked.source], math.inf, reach)


@remembered
def residual_quantile(oof: Oof, level: float = 0.95) -> float:
    """q for readers who compute mu -+ q sigma: loso-hcp-t's rule on |y - mu| / sigma, no floor; may be infinite."""
    y, mu, sigma, source = _units(oof, "row")
    rule = INTERVAL_METHODS[LosoHcpT.name]
    return rule.quantile(rule.scores(_misses(y, mu, sigma, TWO_SIDED), source), level, TWO_SIDED).q


def _units(oof: Oof, unit: str) -> tuple[Float64, Float64, Float64, Int64]:
    """Target, mu, sigma and source of what is calibrated: rows, or clips by their members' means."""
    if len(oof.sources) < 2 or len(oof.seeds) < 2:
        found = f"{len(oof.sources)} sources and {len(oof.seeds)} members"
        raise EvidenceProblem(f"out-of-fold predictions: found {found}, expected at least 2 of each to calibrate")
    if unit == "row":
        return oof.target, oof.mu, oof.sigma, oof.source
    if oof.clip is None or oof.clips is None:
        raise InputError("interval for clips: found no clips in the corpus, expected a `clip` column: add one")
    n = len(oof.clips)
    members = np.stack([group_means(member, oof.clip, n) for member in oof.predictions])
    source = np.zeros(n, np.int64)
    source[oof.clip] = oof.source
    mu = cut(members.mean(axis=0), oof.mu_range)
    return group_means(oof.target, oof.clip, n), mu, members.std(axis=0, ddof=1), source


def _misses(y: Float64, mu: Float64, scale: Float64, side: str) -> Float64:
    """How many scales the target misses mu by: either way, or below."""
    miss = mu - y if side == LOWER_SIDE else np.abs(y - mu)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((scale == 0.0) & (miss <= 0.0), 0.0, miss / scale)


def _floor(residual: Float64, sigma: Float64, source: Int64, n_sources: int) -> float:
    """The floor that makes the residuals most likely under N(0, c (sigma^2 + floor^2)), every source weighing alike."""
    weight = 1.0 / (n_sources * np.bincount(source, minlength=n_sources)[source])
    unit = float(np.median(sigma)) or math.sqrt(float(np.sum(weight * np.square(residual))))
    if unit == 0.0:
        return 0.0

    def loss(floor: float) -> float:
        scale = np.sqrt(np.square(sigma) + floor * floor)
        square = float(np.sum(weight * np.square(residual / scale)))
        return float(np.sum(weight * np.log(scale))) + 0.5 * math.log(square) if square else -math.inf

    return float(min(unit * FLOOR_FACTORS, key=loss))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    """A stored quantile: null is infinite, 0 is a number."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"intervals: found q {value!r}, expected a number or null")
    return float(value)
