"""Tests of p1401.py: by hand, and against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
from fr_ensemble.evidence.p1401 import Mapped
from fr_ensemble.evidence.statistics import (
    coverage,
    gaussian_crps,
    interval_crps,
    interval_scores,
    mean_width,
    normal_quantile,
    rmse,
)


def test_worked_by_hand() -> None:
    """Errors of 1, -2 and 1 off the line 1 + 2 mu: RMSE over one row left; intervals of 0.5 and 3 leave 0.5 and 0."""
    mu = np.array([0.0, 1.0, 2.0])
    found = Mapped.of(1.0 + 2.0 * mu + np.array([1.0, -2.0, 1.0]), mu, np.array([0.5, 3.0, 0.5]))
    assert found is not None
    assert (found.offset, found.slope) == pytest.approx((1.0, 2.0))
    assert found.rmse == pytest.approx(np.sqrt(6.0))
    assert found.rmse_star == pytest.approx(np.sqrt(0.5))
    assert (found.n_known, found.outlier_ratio) == (3, pytest.approx(2 / 3))


def test_the_line_is_that_of_least_squares() -> None:
    """numpy's polyfit gives the same; rows without an interval count for the line alone."""
    rng = np.random.default_rng(0)
    mu = rng.uniform(1, 5, 50)
    y, half = 0.3 + 0.9 * mu + rng.normal(0, 0.3, 50), np.where(np.arange(50) < 10, np.nan, 0.2)
    found = Mapped.of(y, mu, half)
    assert found is not None
    slope, offset = np.polyfit(mu, y, 1)
    assert (found.offset, found.slope) == pytest.approx((offset, slope))
    error = np.abs(y - offset - slope * mu)
    assert found.rmse == pytest.approx(np.sqrt(np.sum(error**2) / 48))
    beyond = np.maximum(error[10:] - 0.2, 0)
    assert (found.n_known, found.rmse_star) == (40, pytest.approx(np.sqrt(np.sum(beyond**2) / 38)))
    assert found.to_dict()["confidence"]["outlier_ratio"] == pytest.approx(np.mean(error[10:] > 0.2))


def test_the_crps_of_many_intervals_is_that_of_the_distribution() -> None:
    """Central intervals of a normal distribution give its CRPS; a point of no width, the absolute error."""
    rng = np.random.default_rng(1)
    y, mu, sigma = rng.normal(0, 2, 200), rng.normal(0, 1, 200), rng.uniform(0.5, 2, 200)
    levels = [(part + 0.5) / 400 for part in range(400)]
    half = [normal_quantile((1.0 + level) / 2.0) * sigma for level in levels]
    scores = [interval_scores(y, mu - h, mu + h, level) for h, level in zip(half, levels, strict=True)]
    assert interval_crps(scores, levels) == pytest.approx(gaussian_crps(y, mu, sigma), abs=5e-3)
    points = [interval_scores(y, mu, mu, level) for level in levels]
    assert interval_crps(points, levels) == pytest.approx(np.abs(y - mu))


def test_without_intervals_the_line_alone() -> None:
    """No interval, none of RMSE*; a constant mu or two rows, no line."""
    y = np.array([1.0, 2.0, 4.0])
    found = Mapped.of(y, y)
    assert found is not None
    assert {*found.to_dict()} == {"offset", "slope", "rmse"}
    assert Mapped.of(y, np.ones(3)) is None
    assert Mapped.of(y[:2], y[:2]) is None


@pytest.mark.slow
def test_interval_scores_and_crps_are_pinball_losses() -> None:
    """By scikit-learn: a level's score is 2 / alpha times the losses of its two ends, and the CRPS twice their mean."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra `train`")
    rng = np.random.default_rng(7)
    y, mu, sigma = rng.normal(50.0, 9.0, 40), rng.normal(50.0, 9.0, 40), rng.uniform(1.0, 5.0, 40)
    levels = [(part + 0.5) / 20 for part in range(20)]
    scores, losses = [], []
    for level in levels:
        half = sigma * normal_quantile((1.0 + level) / 2.0)
        ends = (((1.0 - level) / 2.0, mu - half), ((1.0 + level) / 2.0, mu + half))
        both = [metrics.mean_pinball_loss(y, end, alpha=probability) for probability, end in ends]
        scores.append(interval_scores(y, mu - half, mu + half, level))
        assert scores[-1].mean() == pytest.approx(2.0 / (1.0 - level) * sum(both))
        losses += both
    assert interval_crps(scores, levels).mean() == pytest.approx(2.0 * np.mean(losses))


@pytest.mark.slow
def test_errors_coverage_and_widths_are_those_of_other_libraries() -> None:
    """RMSE is scikit-learn's; the share inside, the mean width and Winkler's score are MAPIE's."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra `train`")
    mapie = pytest.importorskip("mapie.metrics.regression", reason="MAPIE is an optional oracle")
    rng = np.random.default_rng(8)
    y, mu, half = rng.normal(50.0, 9.0, 60), rng.normal(50.0, 9.0, 60), rng.uniform(1.0, 20.0, 60)
    assert rmse(mu, y) == pytest.approx(metrics.root_mean_squared_error(y, mu))
    bounds = np.stack([mu - half, mu + half], axis=1)[:, :, None]
    assert coverage(y, mu - half, mu + half) == pytest.approx(float(mapie.regression_coverage_score(y, bounds)[0]))
    assert mean_width(mu - half, mu + half) == pytest.approx(float(mapie.regression_mean_width_score(bounds)[0]))
    winkler = mapie.regression_mwi_score(y, bounds, 0.8)
    assert interval_scores(y, mu - half, mu + half, 0.8).mean() == pytest.approx(winkler)
