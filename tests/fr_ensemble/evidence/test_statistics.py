"""test_statistics.py: the figures against scipy, worked cases and edge sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fr_ensemble.evidence import statistics

EXACT = 1e-12  # float64 sums in another order


@pytest.mark.parametrize("seed", range(60))
def test_correlations_agree_with_scipy(seed):
    """PLCC and SROCC are scipy's, ties included, and NaN exactly where scipy has a constant."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-2, 3, (2, 3 + seed // 4)).astype(float)  # small ones are often constant, all have ties
    if x.min() == x.max() or y.min() == y.max():
        assert math.isnan(statistics.plcc(x, y))
        assert math.isnan(statistics.srocc(x, y))
    else:
        assert statistics.plcc(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=EXACT)
        assert statistics.srocc(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=EXACT)


@pytest.mark.parametrize("x", [[], [1.0], [0.1, 0.1, 0.1], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_correlation_of_nothing_is_nan(x):
    """Fewer than two rows, a constant, or anything not finite has no correlation."""
    y = np.arange(len(x), dtype=float)
    assert math.isnan(statistics.plcc(np.array(x), y))
    assert math.isnan(statistics.srocc(np.array(x), y))
    assert math.isnan(statistics.plcc(y, np.array(x)))


def test_plcc_of_rounding_noise_is_nan():
    """A constant with float64 rounding on it is still a constant."""
    x = 0.1 + np.array([0.0, 1e-17, 2e-17, 0.0]) + np.array([0.0, 1.4e-17, 0.0, 1.4e-17])
    assert math.isnan(statistics.plcc(x, np.arange(4.0)))


def test_plcc_never_exceeds_one_nor_overflows():
    """A perfect line has PLCC 1, whatever its units."""
    x = np.random.default_rng(0).normal(size=1000)
    assert statistics.plcc(x, 3 * x + 1) == pytest.approx(1.0, abs=EXACT)
    assert abs(statistics.plcc(x, 3 * x + 1)) <= 1.0
    assert statistics.plcc(x * 1e200, -x * 1e-200) == pytest.approx(-1.0, abs=EXACT)


def test_ranks_of_ties_are_averages():
    """Ties share the mean of their ranks."""
    assert statistics.ranks(np.array([10.0, 20.0, 10.0, 5.0, 20.0, 20.0])).tolist() == [2.5, 5.0, 2.5, 1.0, 5.0, 5.0]


def test_rmse_and_interval_figures_by_hand():
    """RMSE, coverage, width and Winkler's score of three rows, worked by hand."""
    y, lower, upper = np.array([1.0, 5.0, 9.0]), np.array([0.0, 0.0, 10.0]), np.array([2.0, 4.0, 11.0])
    assert statistics.rmse(y, np.array([1.0, 5.0, 6.0])) == pytest.approx(math.sqrt(3.0))
    assert statistics.coverage(y, lower, upper) == pytest.approx(1 / 3)
    assert statistics.mean_width(lower, upper) == pytest.approx((2 + 4 + 1) / 3)
    assert statistics.interval_scores(y, lower, upper, 0.8) == pytest.approx([2.0, 4.0 + 10.0, 1.0 + 10.0])
    assert statistics.coverage(np.array([2.0]), np.array([2.0]), np.array([2.0])) == 1.0  # closed
    assert math.isnan(statistics.rmse(np.array([]), np.array([])))


def test_gaussian_crps_is_the_integral():
    """The closed form is the integral of the squared difference of distribution functions."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    x = np.linspace(-40, 40, 400_001)
    for y, mu, sigma in ((0.3, 0.0, 1.0), (-2.0, 1.0, 0.5), (5.0, 4.0, 3.0)):
        step = (x >= y).astype(float)
        integral = np.trapezoid((stats.norm.cdf(x, mu, sigma) - step) ** 2, x)
        found = statistics.gaussian_crps(np.array([y]), np.array([mu]), np.array([sigma]))[0]
        assert found == pytest.approx(integral, abs=2e-4)  # half a grid step


def test_gaussian_crps_without_sigma_is_the_absolute_error():
    """A point forecast's CRPS is its absolute error."""
    assert statistics.gaussian_crps(np.array([3.0, 1.0]), np.array([1.0, 1.0]), np.zeros(2)).tolist() == [2.0, 0.0]


def test_erf_and_quantiles_agree_with_scipy():
    """erf to 1e-15, the normal quantile to 1e-12, Student's t to 1e-8 relative, for 1 to 200 degrees of freedom."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    special = pytest.importorskip("scipy.special", reason="scipy is the oracle")
    x = np.linspace(-6, 6, 1001).reshape(7, 143)
    assert np.abs(statistics.erf(x) - special.erf(x)).max() < 1e-15
    levels = (0.01, 0.3, 0.5, 0.75, 0.9, 0.975, 0.995, 0.9999)
    degrees = [*range(1, 31), 47, 64, 99, 200]
    for p in levels:
        assert statistics.normal_quantile(p) == pytest.approx(stats.norm.ppf(p), abs=EXACT)
        expected = stats.t.ppf(p, degrees)
        found = [statistics.student_t_quantile(p, df) for df in degrees]
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_student_t_in_closed_form():
    """One degree of freedom is Cauchy's; two have t = (2p - 1) sqrt(2 / (4 p (1 - p)))."""
    assert statistics.student_t_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert statistics.student_t_quantile(0.975, 2) == pytest.approx(
        0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)), rel=1e-12
    )


@pytest.mark.parametrize(("p", "df"), [(0.0, 3), (1.0, 3), (0.9, 0), (0.9, 1.5), (math.nan, 3)])
def test_student_t_refuses_what_has_no_quantile(p, df):
    """A probability outside (0, 1) or no whole degrees of freedom is a mistake."""
    with pytest.raises(ValueError, match="t quantile"):
        statistics.student_t_quantile(p, df)


def test_group_means_and_standard_errors():
    """Means by group, NaN for an empty one; a standard error needs two."""
    means = statistics.group_means([True, False, True, True], np.array([0, 0, 2, 2]), 3)
    assert means[[0, 2]].tolist() == [0.5, 1.0]
    assert math.isnan(means[1])
    assert statistics.standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
    assert math.isnan(statistics.standard_error(np.array([1.0])))
