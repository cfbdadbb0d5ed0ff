"""test_tile.py: the pieces that are written as LLVM: right, and in the one order that is promised."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled trainer needs the extra `train`")

from fr_ensemble.training import kernel, tile  # noqa: E402  # after the check that numba is there
from fr_ensemble.training.compiling import aligned, has_fma  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

pytestmark = pytest.mark.slow

Float32 = NDArray[np.float32]


def rounded(value: Fraction) -> np.float32:
    """The nearest float32, ties to even: through a float64 that is odd where it is inexact (Boldo & Melquiond 2008)."""
    near = float(value)
    if Fraction(near) != value and np.float64(near).view(np.int64) % 2 == 0:
        near = float(np.nextafter(near, np.inf if Fraction(near) < value else -np.inf))
    return np.float32(near)


def fused_sum(pairs: list[tuple[np.float32, np.float32]]) -> np.float32:
    """Fused multiply-adds one after another, in exact arithmetic."""
    total = np.float32(0.0)
    for x, y in pairs:
        total = rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(total)))
    return total


def filled(rng: np.random.Generator, size: int) -> Float32:
    array = aligned(size)
    array[...] = rng.normal(size=size).astype(np.float32)
    return array


@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 144])
@pytest.mark.parametrize("n", [4, 12, 32])
@pytest.mark.parametrize("k", [1, 7, 64])
def test_a_product_is_a_product(width: int, n: int, k: int) -> None:
    """Any padded shape, and a transposed left side, to float32 rounding; nothing beside it is written."""
    rng = np.random.default_rng(0)
    a, w = filled(rng, n * k + 3), filled(rng, k * width + 5)
    for left, row, step in ((a[3:].reshape(n, k), k, 1), (a[3:].reshape(k, n).T, 1, n)):
        c = np.full(n * width + 2, 7.0, np.float32)
        tile.product(a[3:], (row, step), w[5:], c[1:], (n, k, width))
        expected = left.astype(np.float64) @ w[5:].reshape(k, width)
        assert np.abs(c[1:-1].reshape(n, width) - expected).max() < 1e-5 * k**0.5
        assert (c[0], c[-1]) == (7.0, 7.0)


@pytest.mark.skipif(not has_fma(), reason="the promised order is of processors with a fused multiply-add")
def test_a_product_adds_from_the_first_to_the_last() -> None:
    """Every bit, under the wide tile and the narrow one, is that of fused multiply-adds in exact arithmetic."""
    rng = np.random.default_rng(1)
    n, k, width = 4, 37, 80
    a, w, c = filled(rng, n * k), filled(rng, k * width), aligned(n * width)
    tile.product(a, (k, 1), w, c, (n, k, width))
    for r, j in ((0, 0), (3, 63), (1, 64), (2, 79)):
        assert c[r * width + j] == fused_sum([(a[r * k + i], w[i * width + j]) for i in range(k)])


@pytest.mark.skipif(not has_fma(), reason="the promised order is of processors with a fused multiply-add")
@pytest.mark.parametrize("n", [8, 16, 64])
def test_a_dot_product_adds_eight_sums_in_halves(n: int) -> None:
    """Lane by lane, then 4 + 4, 2 + 2, 1 + 1."""
    rng = np.random.default_rng(2)
    a, b = filled(rng, n), filled(rng, n)
    s = [fused_sum([*zip(a[lane::8], b[lane::8], strict=True)]) for lane in range(8)]
    while len(s) > 1:
        half = len(s) // 2
        s = [x + y for x, y in zip(s[:half], s[half:], strict=True)]

    @numba.njit
    def dot(a, b):
        return tile.dot(tile.at(a, 0), tile.at(b, 0), len(a))

    assert dot(a, b) == s[0]


@pytest.mark.parametrize("n", [8, 16, 48])
def test_a_square_is_turned(n: int) -> None:
    a, c = filled(np.random.default_rng(3), n * n + 1), aligned(n * n)
    tile.transpose(a[1:], c, n)
    assert np.array_equal(c.reshape(n, n), a[1:].reshape(n, n).T)


def test_own_functions_are_near_the_true_ones() -> None:
    """exp within two units in the last place, GELU and its slope within 2e-7 of scipy's, far out too."""
    special = pytest.importorskip("scipy.special")

    @numba.njit
    def exp_of(x):
        return np.array([kernel.exp(v) for v in x])

    x = np.linspace(-87.0, 0.0, 20001, dtype=np.float32)
    assert np.abs(exp_of(x) / np.exp(x.astype(np.float64)) - 1.0).max() < 2**-22
    z = np.concatenate([np.linspace(-8, 8, 4000), [-1e4, -60, 0, 60, 1e4]]).astype(np.float32)[:4000]
    h, slope, bits = np.empty_like(z), np.empty_like(z), np.full(len(z), 9, np.uint16)
    kernel.activate(z, np.zeros(16, np.float32), h, slope, bits, (np.uint16(3), np.float32(1.0)))
    wide = z.astype(np.float64)
    density = np.exp(-0.5 * wide * wide) / np.sqrt(2 * np.pi)
    assert np.abs(h - wide * special.ndtr(wide)).max() < 6e-7
    assert np.abs(slope - (special.ndtr(wide) + wide * density)).max() < 6e-7


def test_a_unit_that_is_out_is_silent() -> None:
    """Value and slope 0 where the bits are below the threshold, times the scale elsewhere."""
    z, bits = np.linspace(-2, 2, 16, dtype=np.float32), np.arange(16).astype(np.uint16)
    h, slope, h2, slope2 = (np.empty(16, np.float32) for _ in range(4))
    none = np.zeros(16, np.float32)
    kernel.activate(z, none, h, slope, bits, (np.uint16(5), np.float32(2.0)))
    kernel.activate(z, none, h2, slope2, bits, (np.uint16(0), np.float32(1.0)))
    assert not h[:5].any()
    assert not slope[:5].any()
    assert np.array_equal(h[5:], 2 * h2[5:])
    assert np.array_equal(slope[5:], 2 * slope2[5:])
