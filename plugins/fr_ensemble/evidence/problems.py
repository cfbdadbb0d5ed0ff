"""problems.py: what no honest run gives, seen from targets and predictions alone; one line each. Opens no file.

Every bound is far from what honest ensembles show: docs/explanation/gate.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import group_rows, rmse
from registry_tool.values import percentage

MIN_VARIATION = 0.02  # of the target's range: a source whose targets span less is no fold. Lowest of honest ones: 0.37
MAX_OVERSHOOT = 0.1  # of the target's range, by which a prediction may be outside of it
OVERSHOOT_SHARE = 0.1  # of a member's predictions, which may be farther outside. Most of honest members: 0.032
MIN_MEMBER_DIFFERENCE = 0.01  # RMS, of the RMSE of mu. Lowest of honest ones: 0.13
MIN_DISTINCT = 5  # values of a source: fewer can be equal in two sources by chance
COLLAPSED_SIGMA = 1e-6  # of the target's standard deviation: float32 rounding, not disagreement of members

Bounds = tuple[float, float]


def target_problems(target: Float64, source: Int64, sources: Sequence[str], bounds: Bounds) -> list[str]:
    """Targets (n,) that are outside of their range, that hardly vary within a source, or that two sources share."""
    low, high = bounds
    problems = range_problems(target, source, sources, bounds)
    for name, values in zip(sources, _by_source(target, source, len(sources)), strict=True):
        span = float(np.ptp(values))
        if span < MIN_VARIATION * (high - low):
            expected = f"at least {percentage(MIN_VARIATION)} of the range {low:g}..{high:g}"
            problems.append(f"source {name}: found targets that span {span:.3g}, expected {expected}: it is no fold")
    return problems + copied_targets(target, source, sources)


def range_problems(target: Float64, source: Int64, sources: Sequence[str], bounds: Bounds) -> list[str]:
    """Targets (n,) that are outside of their range, in a line."""
    low, high = bounds
    outside = (target < low) | (target > high)
    if not outside.any():
        return []
    first = int(np.argmax(outside))
    found = f"found {int(outside.sum())} targets outside, the first {target[first]:g} of {sources[source[first]]}"
    return [f"target range {low:g}..{high:g}: {found}, expected none"]


def copied_targets(target: Float64, source: Int64, sources: Sequence[str]) -> list[str]:
    """Sources that have the same targets (n,), in any order."""
    return [
        f"sources {sources[one]} and {sources[two]}: found the same {int((source == one).sum())} targets in both, "
        "expected different sources"
        for one, two in _equal(target[None], source, len(sources))
    ]


def prediction_problems(oof: Oof, bounds: Bounds | None) -> list[str]:
    """Predictions that two sources share or that leave the target's range, and members that agree. None: no range."""
    problems = _agreement_problems(oof) + _repetition_problems(oof)
    for one, two in _equal(oof.predictions, oof.source, len(oof.sources)):
        found = "found the same predictions in both, expected different sources"
        problems.append(f"sources {oof.sources[one]} and {oof.sources[two]}: {found}")
    if bounds is None:
        return problems
    low, high = bounds
    reach = MAX_OVERSHOOT * (high - low)
    for seed, predictions in zip(oof.seeds, oof.predictions, strict=True):
        share = float(np.mean((predictions < low - reach) | (predictions > high + reach)))
        if share > OVERSHOOT_SHARE:
            found = f"found {percentage(share)} of the predictions farther than {reach:g} outside of {low:g}..{high:g}"
            problems.append(f"seed {seed}: {found}, expected at most {percentage(OVERSHOOT_SHARE)}")
    return problems


def _agreement_problems(oof: Oof) -> list[str]:
    """Members that agree: a copied seed, a copied fold, copies that were changed a little, a sigma of nothing."""
    problems = []
    n = np.bincount(oof.source, minlength=len(oof.sources))
    error, spread = rmse(oof.mu, oof.target), float(np.std(oof.target))
    for i, j in combinations(range(len(oof.seeds)), 2):
        near = np.abs(oof.predictions[i] - oof.predictions[j]) <= COLLAPSED_SIGMA * spread
        equal = np.bincount(oof.source, weights=near, minlength=len(n)) == n
        pair, difference = f"seeds {oof.seeds[i]} and {oof.seeds[j]}", rmse(oof.predictions[i], oof.predictions[j])
        if equal.all():
            problems.append(
                f"{pair}: found the same predictions, expected two models: one was copied, or training collapsed"
            )
        elif (equal & (n > 1)).any():
            fold = oof.sources[int(np.argmax(equal & (n > 1)))]
            problems.append(f"{pair}, fold {fold}: found the same predictions, expected two models: one was copied")
        elif difference < MIN_MEMBER_DIFFERENCE * error:
            found = f"found predictions that differ by {difference:.3g} (RMS)"
            expected = f"at least {percentage(MIN_MEMBER_DIFFERENCE)} of the RMSE, {error:.3g}"
            problems.append(f"{pair}: {found}, expected {expected}: one is a copy of the other, or training collapsed")
    if len(oof.seeds) > 1 and np.median(oof.sigma) < COLLAPSED_SIGMA * spread:
        problems.append(f"members: found a median sigma of {np.median(oof.sigma):.3g}, expected members that disagree")
    return problems


def _repetition_problems(oof: Oof) -> list[str]:
    """Sources of a few rows that are there again and again: their correlations are those of these few."""
    problems = []
    rows = np.concatenate([oof.target[None], oof.predictions])
    for name, part in zip(oof.sources, _by_source(rows, oof.source, len(oof.sources)), strict=True):
        if len(np.unique(part[0])) >= MIN_DISTINCT:
            continue
        n, distinct = part.shape[1], np.unique(part, axis=1).shape[1]
        if distinct < min(n, MIN_DISTINCT):
            found = f"found {n} rows of which {distinct} are different"
            problems.append(f"source {name}: {found}, expected at least {MIN_DISTINCT}: it is no fold")
    return problems


def _by_source(values: Float64, source: Int64, k: int) -> list[Float64]:
    """The values (..., n) of each source, in the order of the rows."""
    return [values[..., rows] for rows in group_rows(source, k)]


def _equal(values: Float64, source: Int64, k: int) -> list[tuple[int, int]]:
    """Pairs of sources with equal values (S, n), in any order of rows: the first of a group and one more.

    A source of few different values is equal to none: it can be so by chance.
    """
    first: dict[bytes, int] = {}
    pairs = []
    for number, part in enumerate(_by_source(values, source, k)):
        if len(np.unique(part[0])) < MIN_DISTINCT:
            continue
        key = (np.sort(part, axis=-1) + 0.0).tobytes()
        if key in first:
            pairs.append((first[key], number))
        first.setdefault(key, number)
    return pairs
