"""test_draws.py: a model's random numbers: numpy's generator side by side, unbiased orders, normal noise."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled trainer needs the extra `train`")

from fr_ensemble.training import draws  # after the check that numba is there
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, Role

pytestmark = pytest.mark.slow


def stream(seed: int = 0) -> draws.UInt64:
    return draws.stream(np.random.SeedSequence(seed))


def test_each_lane_is_numpys_generator() -> None:
    """Word 8 i + lane is word i of an SFC64 seeded with the lane's three words; two calls go on."""
    state, out = stream(7), np.empty(8 * 40, np.uint64)
    draws.words(state, out[: 8 * 13])
    draws.words(state, out[8 * 13 :])
    seeds = np.random.SeedSequence(7).generate_state(24, np.uint64).reshape(8, 3)
    for lane, seed in enumerate(seeds):
        generator = np.random.SFC64()
        generator.state = generator.state | {"state": {"state": np.array([*seed, 1], np.uint64)}}
        generator.random_raw(12)  # as numpy does after seeding
        assert np.array_equal(out[lane::8], generator.random_raw(40))


def test_no_two_models_and_no_two_roles_share_a_stream() -> None:
    """Hundred thousands of words of models and roles of every kind: none appears twice."""
    keys = [ModelKey(fold, seed) for fold in (0, 1, 5, FINAL_FOLD) for seed in (0, 1, 2**32 - 1)]
    words = np.empty((len(keys) * len(Role), 4096), np.uint64)
    for row, (key, role) in zip(words, ((key, role) for key in keys for role in Role), strict=True):
        draws.words(draws.stream(key.entropy(role)), row)
    assert len(np.unique(words)) == words.size


def test_every_order_is_as_likely() -> None:
    """All 24 orders of four rows, 4,800 times: a chi-squared below its 0.1 % quantile, 49.7 for 23 degrees."""
    state, room = stream(), np.empty(draws.SHUFFLE_WORDS, np.uint64)
    counts = dict.fromkeys(permutations(range(4)), 0)
    for _ in range(4800):
        order = np.arange(4, dtype=np.int32)
        draws.shuffle(state, order, room)
        counts[tuple(order.tolist())] += 1
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7


@pytest.mark.parametrize("n", [0, 1, 2, 1024, 1025, 5000])
def test_an_order_holds_every_row_once(n: int) -> None:
    order = np.arange(n, dtype=np.int32)
    draws.shuffle(stream(), order, np.empty(draws.SHUFFLE_WORDS, np.uint64))
    assert np.array_equal(np.sort(order), np.arange(n))
    if n > 1000:
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 5 / math.sqrt(n)


def test_the_logarithm_and_the_quantile_are_the_true_ones() -> None:
    """log to 4e-16 of its size or of 1, the quantile to 1e-6, out to 2^-53 of a tail."""
    special = pytest.importorskip("scipy.special")
    x = np.concatenate([np.geomspace(2.0**-60, 2.0**60, 2001), 1 + np.linspace(-1e-3, 1e-3, 101)])
    assert all(abs(draws.log(v) - math.log(v)) <= 4e-16 * max(1.0, abs(math.log(v))) for v in x.tolist())
    p = np.concatenate([np.geomspace(2.0**-53, 0.5, 400), 1 - np.geomspace(2.0**-53, 0.5, 400)])
    assert max(abs(draws.normal_quantile(v) - special.ndtri(v)) for v in p.tolist()) < 1e-6


def test_noise_is_normal() -> None:
    """100,000 numbers: a Kolmogorov-Smirnov distance below its 0.1 % quantile; the same stream, the same numbers."""
    stats = pytest.importorskip("scipy.stats")
    out, again, room = np.empty(100_000, np.float32), np.empty(100_000, np.float32), np.empty(100_000, np.uint64)
    draws.gaussians(stream(3), out, room)
    draws.gaussians(stream(3), again, room)
    assert np.array_equal(out, again)
    assert stats.kstest(out, "norm").pvalue > 0.001
    assert stats.kurtosis(out) == pytest.approx(0.0, abs=0.05)
