"""intervals.py: all calibrated intervals of an ensemble, pooled and by encoder: the manifest's `intervals`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Mask, RowChoice
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.vocabulary import encoder_lines, encoder_name, spellings_of
from fr_ensemble.evidence.calibrating import MIN_ENCODER_SOURCES, calibrate, encoder_part, own_encoders, sources_in
from fr_ensemble.evidence.methods import DEFAULT_METHOD, RANK_TOLERANCE, TWO_SIDED
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import CALIBRATED_UNITS, NOMINAL_LEVELS, Calibration
from registry_tool.errors import InputError
from registry_tool.toolkit import Text
from registry_tool.values import Json, plain_spelling


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
            for part in (encoder_part(oof, name),)
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


def _of_kind(calibrations: Sequence[Calibration], unit: str, side: str) -> Calibration:
    for calibration in calibrations:
        if (calibration.unit, calibration.side) == (unit, side):
            return calibration
    raise InputError(f"intervals: found no {side} calibration for a {unit}: train on a corpus that names its clips")
