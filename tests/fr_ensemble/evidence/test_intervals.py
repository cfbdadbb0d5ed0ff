"""test_intervals.py: calibration on sources: quantiles worked by hand, oracles, coverage in simulation, round trips."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from fr_ensemble.corpus.rows import random_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.calibrating import FLOOR_FACTORS, calibrate, residual_quantile
from fr_ensemble.evidence.intervals import EncoderIntervals, Intervals, calibrate_all, encoders_of_clips
from fr_ensemble.evidence.methods import INTERVAL_METHODS, LOWER_SIDE
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import Calibration
from fr_ensemble.evidence.statistics import student_t_quantile

from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.toolkit import Text

pytestmark = pytest.mark.slow

ROUNDED = 1e-5  # out-of-fold predictions are float32


def make_oof(y, mu, sigma, source, clip=None):
    """Predictions of two members whose mean is mu and whose sample deviation is sigma."""
    y, mu, sigma = (np.broadcast_to(np.asarray(v, float), (len(source),)) for v in (y, mu, sigma))
    half = sigma / math.sqrt(2.0)
    names = tuple(f"s{i:02d}" for i in range(max(source) + 1))
    clips = None if clip is None else tuple(f"c{i}" for i in range(max(clip) + 1))
    index = None if clip is None else np.array(clip)
    return Oof((0, 1), names, np.array(source), clips, index, y, np.stack([mu - half, mu + half]), "r", "c", None)


def one_row_a_source(k):
    """Sources 0..k-1 whose only absolute residuals are 1, 2, ..., k."""
    return make_oof(np.arange(1.0, k + 1), 0.0, 1.0, list(range(k)))


@pytest.mark.parametrize(
    ("k", "level", "q"),
    [
        (8, 0.5, 5),
        (8, 0.8, 8),
        (8, 0.9, math.inf),
        (8, 0.95, math.inf),
        (9, 0.5, 5),
        (9, 0.8, 8),
        (9, 0.9, 9),
        (9, 0.95, math.inf),
        (10, 0.5, 6),
        (10, 0.8, 9),
        (10, 0.9, 10),
        (10, 0.95, math.inf),
        (19, 0.5, 10),
        (19, 0.8, 16),
        (19, 0.9, 18),
        (19, 0.95, 19),
        (19, 0.99, math.inf),
        (20, 0.5, 11),
        (20, 0.8, 17),
        (20, 0.9, 19),
        (20, 0.95, 20),
        (20, 0.99, math.inf),
    ],
)
def test_conformal_quantile_by_hand(k, level, q):
    """With one row a source the hierarchical quantile is the ceil((K + 1) level)-th smallest score, or infinite."""
    assert calibrate(one_row_a_source(k), method="abs", levels=[level]).quantile(level).q_conformal == q


@pytest.mark.parametrize(
    ("k", "level", "parametric"),
    [
        (8, 0.8, False),
        (8, 0.9, True),
        (9, 0.8, False),
        (9, 0.9, True),
        (10, 0.9, True),
        (19, 0.9, False),
        (19, 0.95, True),
        (20, 0.95, True),
        (29, 0.95, False),
        (28, 0.95, True),
    ],
)
def test_parametric_where_sources_are_too_few(k, level, parametric):
    """Below (K + 1) alpha = 1.5 q is Student's t over sources, or the last level reached if that is more."""
    found = calibrate(one_row_a_source(k), method="abs", levels=[level]).quantile(level)
    if not parametric:
        assert (found.rule, found.q) == ("hierarchical-conformal", found.q_conformal)
        return
    mean_square = (k + 1) * (2 * k + 1) / 6  # of 1..k
    t = student_t_quantile((1 + level) / 2, k - 1) * math.sqrt((1 + 1 / k) * mean_square)
    assert found.rule == "parametric-t"
    assert found.q == pytest.approx(max(t, math.ceil(k + 1 - 1.5)), rel=1e-9)
    assert "none" in found.guarantee


def test_t_rule_at_nine_sources_by_hand():
    """K = 9, residuals 1..9, 95 %: 2.306004 sqrt(10/9 x 285/9) = 13.678548."""
    assert calibrate(one_row_a_source(9), method="abs", levels=[0.95]).quantile(0.95).q == pytest.approx(
        13.678548, abs=1e-6
    )


def test_parametric_quantile_is_at_least_the_last_conformal_one():
    """One source far away moves the reached quantile above t: q still grows with the level."""
    rows = [0] * 1 + [1] * 99
    y = np.array([1000.0] + [0.001] * 99)
    levels = [0.4, 0.5, 0.6, 0.9]
    q = [calibrate(make_oof(y, 0.0, 1.0, rows), method="abs", levels=levels).quantile(level).q for level in levels]
    assert q == sorted(q)


@pytest.mark.parametrize("side", ["two-sided", LOWER_SIDE])
@pytest.mark.parametrize("k", [3, 9, 20])
def test_uneven_sources_agree_with_exact_arithmetic(k, side):
    """Sources of 1 to 30 rows, masses as fractions, scipy's t: floor, q and conformal q are those of the definition."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    rng = np.random.default_rng(k)
    n = rng.integers(1, 31, k)
    source = np.repeat(np.arange(k), n)
    oof = make_oof(rng.normal(size=len(source)) * 3, 0.3, rng.uniform(0.1, 2.0, len(source)), source.tolist())
    found = calibrate(oof, method="loso-hcp-t", side=side)
    residual, weight = np.abs(oof.target - oof.mu), 1 / (k * n[source])

    def loss(floor):
        scale = np.hypot(oof.sigma, floor)
        return np.sum(weight * np.log(scale)) + 0.5 * np.log(np.sum(weight * (residual / scale) ** 2))

    floor = min((np.median(oof.sigma) * factor for factor in np.geomspace(0.02, 30, 61)), key=loss)
    assert found.floor == pytest.approx(floor)
    z = (residual if side == "two-sided" else oof.mu - oof.target) / np.hypot(oof.sigma, floor)

    def conformal(level):
        reached = Fraction(0)
        for place in np.argsort(z):
            reached += Fraction(1, (k + 1) * int(n[source[place]]))
            if reached >= level:
                return z[place]
        return math.inf

    for level in (Fraction(1, 2), Fraction(4, 5), Fraction(9, 10), Fraction(19, 20), Fraction(99, 100)):
        q = conformal(level)
        assert found.quantile(float(level)).q_conformal == pytest.approx(q)
        if (k + 1) * (1 - level) < Fraction(3, 2):
            t = stats.t.ppf(float((1 + level) / 2 if side == "two-sided" else level), k - 1)
            square = np.mean([np.mean(z[source == g] ** 2) for g in range(k)])
            q = max(conformal(1 - Fraction(3, 2) / (k + 1)), t * math.sqrt((1 + 1 / k) * square))
        assert found.quantile(float(level)).q == pytest.approx(q)


def test_sources_weigh_alike_whatever_their_rows():
    """K = 2 with two rows and one: masses 1/6, 1/6 and 1/3, so the scores 1, 3 | 2 reach 1/2 at 2."""
    oof = make_oof([1.0, 3.0, 2.0], 0.0, 1.0, [0, 0, 1])
    assert calibrate(oof, method="abs", levels=[0.5]).quantile(0.5).q == 2.0
    assert calibrate(oof, method="abs", levels=[0.16]).quantile(0.16).q == 1.0
    assert calibrate(oof, method="pooled-cdf", levels=[0.74]).quantile(0.74).q > 0


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(8, 0.5, 5), (8, 0.8, 8), (8, 0.9, None), (9, 0.8, 8), (9, 0.9, 9), (9, 0.95, None)]
)
def test_split_rank_by_hand(n, level, rank):
    """The row split takes rank ceil((n + 1)(1 - alpha)) and is infinite, never clipped, when that exceeds n."""
    oof = make_oof(np.arange(1.0, n + 1), 0.0, 2.0, [i % 2 for i in range(n)])
    found = calibrate(oof, method="split", levels=[level]).quantile(level)
    assert found.q == pytest.approx(math.inf if rank is None else rank / 2.0, rel=ROUNDED)
    assert INTERVAL_METHODS["split"].warning
    assert not INTERVAL_METHODS["loso-hcp-t"].warning


def test_split_agrees_with_crepes():
    """crepes' normalised half widths are the same (off whole ranks, where crepes rounds 0.1 x 20 down)."""
    crepes = pytest.importorskip("crepes", reason="crepes is an optional oracle")
    rng = np.random.default_rng(1)
    for n in (8, 9, 30, 100):
        y, sigma = rng.normal(size=n), rng.uniform(0.5, 2.0, n)
        oof = make_oof(y, 0.0, sigma, [i % 3 for i in range(n)])
        oracle = crepes.ConformalRegressor().fit(y, sigmas=sigma)
        for level in (0.513, 0.777, 0.871):
            expected = oracle.predict_int(np.zeros(1), sigmas=np.ones(1), confidence=level)[0, 1]
            assert calibrate(oof, method="split", levels=[level]).quantile(level).q == pytest.approx(
                expected, rel=ROUNDED
            )


def test_split_agrees_with_mapie():
    """MAPIE's split-conformal half width on absolute residuals is the same."""
    regression = pytest.importorskip("mapie.regression", reason="MAPIE is an optional oracle")
    dummy = pytest.importorskip("sklearn.dummy")
    rng = np.random.default_rng(2)
    for n in (20, 59, 100):
        y = rng.normal(size=n)
        x = np.zeros((n, 1))
        levels = [0.513, 0.777, 0.871]
        model = dummy.DummyRegressor(strategy="constant", constant=0.0).fit(x, y)
        oracle = regression.SplitConformalRegressor(model, confidence_level=levels, prefit=True).conformalize(x, y)
        _, bounds = oracle.predict_interval(x[:1])
        ours = calibrate(make_oof(y, 0.0, 1.0, [i % 3 for i in range(n)]), method="split", levels=levels)
        assert [q.q for q in ours.levels] == pytest.approx(bounds[0, 1].tolist(), rel=ROUNDED)


def told(oof, encoder, encoders):
    """The same, which tells the encoder of each row."""
    return replace(oof, encoders=encoders, encoder=np.array(encoder))


def test_encoders_apart_are_mondrian_conformal_of_crepes():
    """Where no source has a second row of an encoder, an encoder's half widths are those of crepes' categories."""
    crepes = pytest.importorskip("crepes", reason="crepes is an optional oracle")
    rng, levels, names = np.random.default_rng(8), [0.513, 0.777, 0.871], ("libx264", "libx265", "vp9")
    k = 23
    encoder, source = np.repeat([0, 1, 2], k), np.tile(np.arange(k), 3)
    y, sigma = rng.normal(size=3 * k) * np.array([1.0, 4.0, 9.0])[encoder], rng.uniform(0.5, 2.0, 3 * k)
    oof = told(make_oof(y, 0.0, sigma, source.tolist()), encoder, names)
    found = EncoderIntervals.of(oof, [calibrate(oof, levels=levels)], levels).calibrations
    assert tuple(found) == names
    floors = np.array([found[name][0].floor for name in names])
    oracle = crepes.ConformalRegressor().fit(y, sigmas=np.hypot(sigma, floors[encoder]), bins=encoder)
    for level in levels:
        expected = oracle.predict_int(np.zeros(3), sigmas=np.ones(3), bins=np.arange(3), confidence=level)[:, 1]
        assert [found[name][0].quantile(level).q for name in names] == pytest.approx(expected, rel=ROUNDED)


def test_encoders_apart_cover_each_encoder():
    """Over many draws of sources, a new source's rows of each encoder are inside as often as claimed, and hardly more.

    Pooled, those of the encoder with the larger errors are inside less often.
    """
    rng, level, k, rows = np.random.default_rng(3), 0.8, 9, 4
    inside = {"apart": np.zeros(2), "pooled": np.zeros(2)}
    draws = 400
    for _ in range(draws):
        scale = np.repeat([1.0, 5.0], rows)
        error = (rng.normal(size=(k + 1, 1)) + 0.5 * rng.normal(size=(k + 1, 2 * rows))) * scale
        known, new = error[:k].ravel(), error[k]
        oof = make_oof(known, 0.0, 1.0, np.repeat(np.arange(k), 2 * rows).tolist())
        oof = told(oof, np.tile(np.repeat([0, 1], rows), k), ("a", "b"))
        pooled = calibrate(oof, method="abs", levels=[level])
        own = EncoderIntervals.of(oof, [pooled], [level]).calibrations
        for code, name in enumerate("ab"):
            of_new = np.abs(new[code * rows : (code + 1) * rows])
            inside["apart"][code] += np.mean(of_new <= own[name][0].quantile(level).q) / draws
            inside["pooled"][code] += np.mean(of_new <= pooled.quantile(level).q) / draws
    assert ((inside["apart"] > level - 0.03) & (inside["apart"] < level + 1 / (k + 1) + 0.03)).all()
    assert inside["pooled"][1] < level - 0.03
    assert inside["pooled"][0] > 0.95


def test_which_encoders_are_apart():
    """Those in four sources or more, but rows of an unknown encoder; the others are counted."""
    encoder = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2, 2]
    source = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    oof = told(make_oof(np.arange(12.0), 0.0, 1.0, source), encoder, ("libx264", "libx265", "unknown"))
    found = EncoderIntervals.of(oof, [calibrate(oof, levels=[0.5], target_range=(0.0, 20.0))], [0.5])
    assert [*found.calibrations] == ["libx264"]
    assert found.pooled == {"libx265": 3, "unknown": 5}
    assert found.calibrations["libx264"][0].n_per_source == {"s00": 1, "s01": 1, "s02": 1, "s03": 1}
    assert EncoderIntervals.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_clip_by_several_encoders_has_the_pooled_interval():
    """Its encoder is not one; the others' clips have their encoders' names."""
    encoder = Text(np.array([0, 0, 1, 1, 0]), ("libx264", "libx265"))
    assert encoders_of_clips(encoder, np.array([0, 0, 1, 2, 2]), 3).tolist() == ["libx264", "libx265", ""]


@pytest.mark.parametrize("method", ["loso-hcp-random-effects", "loso-hcp-t", "source-split"])
def test_one_row_a_source_is_split_conformal_of_crepes_and_mapie(method):
    """Where no source has a second row a source is a row: half widths are crepes', and with one scale MAPIE's."""
    crepes = pytest.importorskip("crepes", reason="crepes is an optional oracle")
    regression = pytest.importorskip("mapie.regression", reason="MAPIE is an optional oracle")
    dummy = pytest.importorskip("sklearn.dummy")
    rng, levels = np.random.default_rng(5), [0.513, 0.777, 0.871]
    for k in (20, 41):
        y, sigma = rng.normal(size=k), rng.uniform(0.5, 2.0, k)
        found = calibrate(make_oof(y, 0.0, sigma, list(range(k))), method=method, levels=levels)
        oracle = crepes.ConformalRegressor().fit(y, sigmas=np.hypot(sigma, found.floor))
        expected = [oracle.predict_int(np.zeros(1), sigmas=np.ones(1), confidence=level)[0, 1] for level in levels]
        assert [q.q for q in found.levels] == pytest.approx(expected, rel=ROUNDED)
        same = calibrate(make_oof(y, 0.0, 1.0, list(range(k))), method=method, levels=levels)
        model = dummy.DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((k, 1)), y)
        split = regression.SplitConformalRegressor(model, confidence_level=levels, prefit=True)
        _, bounds = split.conformalize(np.zeros((k, 1)), y).predict_interval(np.zeros((1, 1)))
        half = [q.q * math.hypot(1.0, same.floor) for q in same.levels]
        assert half == pytest.approx(bounds[0, 1].tolist(), rel=ROUNDED)


def test_source_split_and_pooled_cdf_by_hand():
    """One draw a source has rank ceil((K + 1) level); the pooled CDF keeps no mass for the new source."""
    oof = one_row_a_source(9)
    scale = math.sqrt(1.0 + calibrate(oof, method="source-split").floor ** 2)
    for method, level, rank in (
        ("source-split", 0.8, 8),
        ("source-split", 0.95, None),
        ("pooled-cdf", 0.8, 8),
        ("pooled-cdf", 0.99, 9),
    ):
        found = calibrate(oof, method=method, levels=[level]).quantile(level).q
        assert found == pytest.approx(math.inf if rank is None else rank / scale, rel=ROUNDED)


def test_gaussian_is_the_normal_quantile():
    """The Gaussian interval is mu -+ 1.96 sigma at 95 %, and one-sided mu - 1.645 sigma; it guarantees nothing."""
    oof = one_row_a_source(9)
    two, lower = calibrate(oof, method="gaussian"), calibrate(oof, method="gaussian", side=LOWER_SIDE)
    assert two.quantile(0.95).q == pytest.approx(1.959964, abs=1e-6)
    assert lower.quantile(0.95).q == pytest.approx(1.644854, abs=1e-6)
    assert two.quantile(0.95).guarantee == "none"
    mu, sigma = np.array([50.0]), np.array([2.0])
    assert two.interval(mu, sigma, 0.95)[1][0] == pytest.approx(50 + 2 * 1.959964, abs=1e-5)


def test_zero_quantile_is_a_number():
    """Residuals of zero give q = 0 and intervals of no width, not the whole range."""
    found = calibrate(make_oof(3.0, 3.0, 0.0, [0, 1, 2, 2]), target_range=(0.0, 5.0))
    assert [quantile.q for quantile in found.levels] == [0.0] * 5
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    lower, upper = again.interval(np.array([3.0]), np.array([0.5]), 0.95)
    assert (lower[0], upper[0]) == (3.0, 3.0)


def test_infinite_quantile_is_the_whole_range():
    """An infinite q is stored as null and gives the target's whole range."""
    found = calibrate(one_row_a_source(8), method="source-split", levels=[0.95], target_range=(0.0, 100.0))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["levels"]["0.95"]["q"] is None
    lower, upper = Calibration.from_dict(document).interval(np.array([40.0, math.nan]), np.array([1.0, 1.0]), 0.95)
    assert (lower[0], upper[0]) == (0.0, 100.0)
    assert math.isnan(lower[1])


def test_members_that_agree_without_floor_do_not_divide_by_zero():
    """A zero sigma with a residual is an infinite score, not a warning or NaN."""
    oof = make_oof(np.arange(1.0, 10.0), 0.0, 0.0, list(range(9)))
    assert calibrate(oof, method="split", levels=[0.5]).quantile(0.5).q == math.inf
    assert math.isfinite(calibrate(oof, levels=[0.5]).quantile(0.5).q)
    assert residual_quantile(oof) == math.inf


def test_intervals_stay_inside_the_range_and_nest():
    """Bounds are clipped to the target's range; a higher level contains a lower one."""
    rng = np.random.default_rng(3)
    oof = make_oof(rng.normal(90, 10, 200).clip(0, 100), 90.0, 2.0, [i % 10 for i in range(200)])
    found = calibrate(oof, target_range=(0.0, 100.0))
    mu, sigma = rng.uniform(0, 100, 50), rng.uniform(0, 5, 50)
    before = found.interval(mu, sigma, 0.5)
    for level in (0.8, 0.9, 0.95, 0.99):
        lower, upper = found.interval(mu, sigma, level)
        assert (lower >= 0).all()
        assert (upper <= 100).all()
        assert (lower <= before[0]).all()
        assert (upper >= before[1]).all()
        before = lower, upper


def test_lower_side_bounds_from_below():
    """The one-sided bound counts only targets below it and leaves the top of the range open."""
    y = np.concatenate([np.arange(1.0, 20.0), -np.arange(1.0, 20.0)])
    oof = make_oof(y, 0.0, 1.0, [i % 19 for i in range(38)])
    found = calibrate(oof, method="abs", levels=[0.9], side=LOWER_SIDE, target_range=(-50.0, 50.0))
    lower, upper = found.interval(np.zeros(1), np.ones(1), 0.9)
    assert upper[0] == 50.0
    assert -lower[0] == found.quantile(0.9).q == 17.0  # masses 1/40: 19 above, then rank 36 of 38 is the score 17
    assert found.quantile(0.9).q < calibrate(oof, method="abs", levels=[0.9]).quantile(0.9).q


def test_floor_is_the_likeliest_of_the_grid():
    """Where sigma says nothing of the residuals the floor is large; where sigma is right, it is small."""
    rng = np.random.default_rng(4)
    source = [i % 10 for i in range(2000)]
    sigma = rng.uniform(0.1, 10.0, 2000)
    right = calibrate(make_oof(rng.normal(size=2000) * sigma, 0.0, sigma, source)).floor
    wrong = calibrate(make_oof(rng.normal(size=2000) * 5, 0.0, sigma, source)).floor
    assert right <= 2 * FLOOR_FACTORS[0] * np.median(sigma)
    assert wrong >= 5 * np.median(sigma)


def test_clip_calibration_uses_clip_means():
    """A clip's score is its mean residual over the deviation of the members' clip means."""
    y = [1.0, 3.0, -4.0, 4.0, 6.0, 6.0]
    oof = make_oof(y, 0.0, [1.0, 3.0, 1.0, 1.0, 2.0, 4.0], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    found = calibrate(oof, unit="clip", method="abs", levels=[0.2, 0.4, 0.5])
    assert [q.q for q in found.levels] == pytest.approx([0.0, 2.0, 2.0], abs=ROUNDED)  # |means| 2, 0, 6
    assert (found.n, found.unit) == (3, "clip")
    gaussian = calibrate(oof, unit="clip", method="split", levels=[0.7])
    assert gaussian.quantile(0.7).q == pytest.approx(6.0 / 3.0, rel=ROUNDED)  # clip 2: mean 6, sigma (2 + 4) / 2


def test_coverage_of_a_source_is_by_the_others():
    """A source that is nothing like the others is not covered by a calibration that leaves it out."""
    source = [i % 10 for i in range(400)]
    y = np.where(np.array(source) == 7, 100.0, np.random.default_rng(5).normal(size=400))
    coverage = calibrate(make_oof(y, 0.0, 1.0, source), levels=[0.8]).quantile(0.8).coverage
    assert coverage["s07"] == 0.0
    assert min(value for name, value in coverage.items() if name != "s07") > 0.9
    assert calibrate(make_oof([1.0, 2.0], 0.0, 1.0, [0, 1]), levels=[0.8]).quantile(0.8).coverage == {}


def random_effects(k, rows, seed, bias=0.0):
    """Sources whose members have a bias each and are wrong about rows besides."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(k), rows)
    y = rng.uniform(20.0, 80.0, len(source))
    error = bias + rng.normal(size=k)[source] * 2.0 + rng.normal(size=len(source))
    return make_oof(y, y + error, rng.uniform(0.5, 2.0, len(source)), source.tolist())


@pytest.mark.parametrize("side", ["two-sided", "lower"])
@pytest.mark.parametrize(("k", "bias"), [(2, 0.0), (3, 1.0), (5, -4.0), (9, 0.0), (9, 3.0), (20, 0.5)])
def test_the_tail_is_that_of_a_random_effects_model(side, k, bias):
    """Computed afresh: the last conformal quantile, and what scipy's t with K - 2 degrees adds from there on."""
    stats, optimize = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.optimize")
    oof, levels = random_effects(k, 12, k, bias), [0.3, 0.5, 0.8, 0.9, 0.95, 0.97, 0.99, 0.999]
    found = calibrate(oof, method="loso-hcp-random-effects", levels=levels, side=side)
    signed = (oof.mu - oof.target) / np.hypot(oof.sigma, found.floor)
    z = np.abs(signed) if side == "two-sided" else signed
    means = np.array([signed[oof.source == g].mean() for g in range(k)])
    within = np.mean([signed[oof.source == g].var() for g in range(k)])
    model = stats.t(max(k - 2, 1), means.mean(), np.sqrt((1 + 1 / k) * means.var(ddof=1) + within))

    def tail(level):
        if side == "lower":
            return model.ppf(level)
        return optimize.brentq(lambda q: model.cdf(q) - model.cdf(-q) - level, 0.0, 1e5, xtol=1e-12)

    last = k / (k + 1)
    for level, quantile in zip(levels, found.levels, strict=True):
        if level <= last + 1e-9:
            mass = 1.0 / ((k + 1) * 12)
            expected = np.sort(z)[int(np.ceil(level / mass - 1e-6)) - 1]
            assert (quantile.rule, quantile.q_conformal) == ("hierarchical-conformal", pytest.approx(expected))
        else:
            expected = tail(level) + max(0.0, z.max() - tail(last))
            assert (quantile.rule, quantile.q_conformal) == ("random-effects-t", math.inf)
        assert quantile.q == pytest.approx(max(expected, 0.0), rel=1e-6)


@pytest.mark.parametrize("side", ["two-sided", "lower"])
@pytest.mark.parametrize(("k", "seed"), [(k, seed) for k in (2, 3, 5, 9, 30) for seed in range(5)])
def test_wider_levels_are_wider(side, k, seed):
    """q never shrinks with the level, grows past the sources' reach, and is never below a finite conformal one."""
    levels = [0.5, 0.8, 0.85, 0.9, 0.91, 0.93, 0.935, 0.95, 0.965, 0.98, 0.99, 0.995]
    for bias in (-6.0, 0.0, 6.0):
        oof = random_effects(k, 7, seed, bias)
        found = calibrate(oof, method="loso-hcp-random-effects", levels=levels, side=side).levels
        assert all(after.q >= before.q for before, after in pairwise(found))
        tail = [quantile.q for quantile in found if quantile.rule == "random-effects-t" and quantile.q > 0.0]
        assert all(after > before for before, after in pairwise(tail))
        assert all(quantile.q >= quantile.q_conformal for quantile in found if math.isfinite(quantile.q_conformal))


def test_a_lower_bound_does_not_jump_over_sources_that_are_all_under_predicted():
    """Nine sources whose targets are 5 above mu: the bound is mu at every level, and below it by the older method."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(9), 20)
    oof = make_oof(50.0 + rng.normal(scale=0.5, size=180), 45.0, 1.0, source.tolist())
    levels = [0.5, 0.8, 0.95, 0.99]
    now = calibrate(oof, method="loso-hcp-random-effects", levels=levels, side=LOWER_SIDE)
    before = calibrate(oof, method="loso-hcp-t", levels=levels, side=LOWER_SIDE)
    assert [quantile.q for quantile in now.levels] == [0.0] * 4
    assert before.quantile(0.8).q < 0.0 < before.quantile(0.95).q


def test_levels_without_a_guarantee_are_named():
    """Those past the sources' reach, in one line; none where all are within it, or the interval is the whole range."""
    few, many = (calibrate(random_effects(k, 5, 1), levels=[0.5, 0.8, 0.95, 0.99]) for k in (5, 120))
    assert few.unguaranteed([0.5, 0.8]) == many.unguaranteed([0.5, 0.95, 0.99]) == []
    assert few.unguaranteed([0.5, 0.95, 0.99]) == [
        "intervals of a row at 95 %, 99 % have no guarantee from 5 sources "
        "(random-effects-t: assumes that sources differ normally)"
    ]
    infinite = calibrate(random_effects(5, 5, 1), method="source-split", levels=[0.99])
    assert (infinite.unguaranteed([0.99]), len(infinite.unbounded([0.99]))) == ([], 1)


@pytest.mark.parametrize("method", ["loso-hcp-random-effects", "loso-hcp-t", "abs", "source-split"])
def test_exchangeable_sources_are_covered(method):
    """Rows of a new source from the same population are inside at least as often as nominal, over 400 draws."""
    levels, k, rows, draws = [0.5, 0.8, 0.95], 9, 20, 400
    inside = {level: np.empty(draws) for level in levels}
    rng = np.random.default_rng(6)
    for draw in range(draws):
        sigma = rng.uniform(0.5, 2.0, (k + 1, rows))
        y = rng.normal(size=(k + 1, 1)) * 2 + rng.normal(size=(k + 1, rows)) * sigma
        calibrated = make_oof(y[:k].ravel(), 0.0, sigma[:k].ravel(), [i // rows for i in range(k * rows)])
        found = calibrate(calibrated, method=method, levels=levels)
        for level in levels:
            lower, upper = found.interval(np.zeros(rows), sigma[k], level)
            inside[level][draw] = np.mean((lower <= y[k]) & (y[k] <= upper))
    for level in levels:
        error = inside[level].std() / math.sqrt(draws)
        assert inside[level].mean() >= level - 2 * error
        if method != "source-split":  # infinite at 95 % with nine sources
            assert inside[level].mean() <= level + 0.12


def test_row_split_covers_new_sources_less():
    """Where one source has most rows, calibrating on rows covers new sources too rarely; on sources it does not."""
    rng = np.random.default_rng(7)
    source = [0] * 200 + [g for g in range(1, 5) for _ in range(5)]
    inside = {"split": [], "abs": []}
    for _ in range(400):
        effect = rng.normal(size=6) * 2
        y, new = effect[source] + rng.normal(size=220) * 0.5, effect[5] + rng.normal(size=30) * 0.5
        oof = make_oof(y, 0.0, 1.0, source)
        for method, results in inside.items():
            lower, upper = calibrate(oof, method=method, levels=[0.75]).interval(np.zeros(30), np.ones(30), 0.75)
            results.append(np.mean((lower <= new) & (new <= upper)))
    assert np.mean(inside["split"]) < 0.65
    assert np.mean(inside["abs"]) > 0.75


@pytest.mark.parametrize("method", INTERVAL_METHODS)
def test_intervals_round_trip_and_recalibrate(method):
    """The manifest's `intervals` say everything: read back they are equal, and so are they computed afresh."""
    corpus = random_corpus(120, ColumnSpec(conditioning=(Condition("kbps", "log2"),)), 8)
    rng = np.random.default_rng(9)
    oof = Oof.of(corpus, range(3), corpus.target + rng.normal(size=(3, 120)), "recipe")
    intervals = calibrate_all(oof, corpus, method)
    again = Intervals.from_dict(json.loads(json.dumps(intervals.to_dict(), allow_nan=False)))
    assert again == intervals
    assert again.recalibrated(oof) == intervals
    assert [(c.unit, c.side) for c in again.calibrations] == [
        ("row", "two-sided"),
        ("row", "lower"),
        ("clip", "two-sided"),
        ("clip", "lower"),
    ]
    assert list(again.input_ranges) == [*corpus.spec.features, "log2:kbps"]


def test_any_level_comes_from_the_predictions():
    """A level outside the table is computed by the same rule; a known one reads no predictions."""
    corpus = random_corpus(120, ColumnSpec(), 10)
    oof = Oof.of(corpus, range(3), corpus.target + np.random.default_rng(11).normal(size=(3, 120)), "recipe")
    intervals = calibrate_all(oof, corpus)

    def never():
        raise AssertionError("read")

    assert intervals.with_levels([0.5, 0.95], never) is intervals
    wider = intervals.with_levels([0.5, 0.7], lambda: oof)
    assert wider.calibration("clip", LOWER_SIDE).quantile(0.7) == calibrate(
        oof, "clip", levels=[0.7], side=LOWER_SIDE
    ).quantile(0.7)
    assert wider.calibration().quantile(0.5) == intervals.calibration().quantile(0.5)
    with pytest.raises(InputError, match=r"found 0\.7, expected one of 0\.5, 0\.8"):
        intervals.calibration().interval(np.zeros(1), np.ones(1), 0.7)


def test_rows_outside_the_training_ranges_are_flagged():
    """A numeric input outside what training saw is out of distribution; its bounds are inside."""
    corpus = random_corpus(100, ColumnSpec(), 12)
    oof = Oof.of(corpus, range(2), corpus.target + np.random.default_rng(13).normal(size=(2, 100)), "recipe")
    intervals = calibrate_all(oof, corpus)
    rows = corpus.features[:3].copy()
    rows[1, 2] = 99.0
    assert intervals.outside(rows).tolist() == [False, True, False]
    assert not intervals.outside(corpus.features).any()


def test_residual_quantile_has_no_floor():
    """The public q is calibrated on |y - mu| / sigma: residuals 1..19 over sigma 2 reach 80 % at 16 / 2."""
    assert residual_quantile(make_oof(np.arange(1.0, 20.0), 0.0, 2.0, list(range(19))), 0.8) == pytest.approx(
        8.0, rel=ROUNDED
    )


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"unit": "film"},
        {"side": "upper"},
        {"ddof": 0},
        {"range": [5, 5]},
        {"floor": -1},
        {"floor": math.nan},
    ],
)
def test_calibration_that_means_nothing_is_refused(change):
    """A stored calibration with an unknown method or impossible numbers is not used."""
    document = calibrate(one_row_a_source(9), target_range=(0.0, 10.0)).to_dict()
    Calibration.from_dict(document)
    with pytest.raises(ValueError, match="intervals"):
        Calibration.from_dict(document | change)


def test_calibration_asks_for_what_it_needs():
    """One source, clips that are not known, an unknown method and a level of 1 are said, not guessed."""
    oof = one_row_a_source(9)
    with pytest.raises(EvidenceProblem, match="1 sources"):
        calibrate(make_oof([1.0, 2.0], 0.0, 1.0, [0, 0]))
    with pytest.raises(InputError, match="clip"):
        calibrate(oof, unit="clip")
    with pytest.raises(InputError, match="loso-hcp-t"):
        calibrate(oof, method="magic")
    with pytest.raises(InputError, match="between 0 and 1"):
        calibrate(oof, levels=[1.0])
    with pytest.raises(InputError, match="clips"):
        Intervals((calibrate(oof),), {}).calibration("clip")


def test_gate_and_calibration_need_numpy_alone():
    """Corpora, metrics, evidence and calibration load where neither pyarrow, scipy nor torch is installed."""
    heavy = ["pyarrow", "scipy", "torch", "onnx", "onnxruntime", "pandas"]
    rooms = "import fr_ensemble.corpus.rows; from fr_ensemble.evidence import intervals, loso, metrics, summaries"
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); {rooms}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
