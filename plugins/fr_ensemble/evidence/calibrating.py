"""calibrating.py: quantiles from out-of-fold predictions, each source's from the others. Knows no model and no file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fr_ensemble.arrays import Float64, Int64, rows_by_name
from fr_ensemble.corpus.vocabulary import UNKNOWN
from fr_ensemble.evidence.methods import (
    DEFAULT_METHOD,
    INTERVAL_METHODS,
    LOWER_SIDE,
    TWO_SIDED,
    ConformityScores,
    LosoHcpT,
)
from fr_ensemble.evidence.oof import Oof, cut, remembered
from fr_ensemble.evidence.quantiles import CALIBRATED_UNITS, NOMINAL_LEVELS, Calibration, Quantile
from fr_ensemble.evidence.statistics import group_means
from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.toolkit import Text

FLOOR_FACTORS = np.geomspace(0.02, 30.0, 61)  # times the median sigma
MIN_COVERAGE_SOURCES = 3  # below them no source can be left out of a calibration
MIN_ENCODER_SOURCES = 4  # of an encoder with intervals of its own: as many as the default method takes for 80 %


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
    n = rows_by_name(source, oof.sources)
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
        reach[rows] = _held_out_reach(encoder_part(oof, name), method, level, sigma[rows])
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


def encoder_sources(encoder: Text, source: Int64) -> dict[str, int]:
    """In how many sources each encoder is, by name. encoder, source: of n rows."""
    return {name: len(np.unique(source[encoder.codes == code])) for code, name in enumerate(encoder.names)}


def sources_in(oof: Oof) -> dict[str, int]:
    """The same of predictions; {} where they do not tell encoders."""
    if oof.encoder is None or oof.encoders is None:
        return {}
    return encoder_sources(Text(oof.encoder, oof.encoders), oof.source)


@remembered
def encoder_part(oof: Oof, name: str) -> Oof:
    """The rows of one encoder; read-only where all are, so that what is measured of them is remembered, too."""
    part = oof.of_encoder(name)
    part.target.setflags(write=oof.target.flags.writeable)
    return part


def own_encoders(sources: Mapping[str, int]) -> list[str]:
    """The encoders with intervals of their own. sources: of each encoder, in how many it is."""
    return [name for name, count in sources.items() if count >= MIN_ENCODER_SOURCES and name != UNKNOWN]
