"""Tests of gate.py: what is measured over sources, and rules that bind on it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from command_line import Program
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs
from fr_ensemble.evidence.metrics import compute_metrics as metrics_of
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import bootstrap_interval
from sandbox import Sandbox

K, ROWS = 12, 40
FROZEN = (2.3333333333333335, 5.666666666666667)  # of 0, 1, ... 8


def make_oof(k: int = K, wild: int | None = None, spread: float = 1.0) -> Oof:
    """k sources whose residuals are alike, but for one whose are ten times as wide; members that differ by spread."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(k), ROWS)
    y = rng.uniform(0, 100, k * ROWS)
    members = y + rng.normal(0, np.where(source == wild, 20.0, 2.0), len(y)) + rng.normal(0, spread, (3, len(y)))
    names = tuple(f"s{i:02d}" for i in range(k))
    return Oof((0, 1, 2), names, source, None, None, y, members, "r", "c", None)


def compute_metrics(oof: Oof) -> dict[str, float]:
    return metrics_of(MetricInputs(FoldScores.of(oof), oof, calibrate(oof, target_range=(0.0, 100.0))))


def test_a_source_unlike_the_others_is_the_worst() -> None:
    """Its coverage comes from the others' calibration; the mean and its upper bound are over sources."""
    alike, wild = compute_metrics(make_oof()), compute_metrics(make_oof(wild=3))
    assert alike["coverage_80"] >= 0.75 > 0.4 > wild["coverage_80_worst"]
    coverage = calibrate(make_oof(wild=3)).quantile(0.8).coverage.values()
    values = np.array([*coverage])
    assert wild["coverage_80"] == pytest.approx(values.mean())
    assert wild["coverage_80_upper"] == pytest.approx(values.mean() + 1.64 * values.std(ddof=1) / K**0.5)
    assert wild["coverage_80_worst"] == values.min()


def test_an_upper_coverage_above_one_is_not_clipped() -> None:
    """It is mean plus 1.64 standard errors as it stands, in every verdict."""
    metrics = compute_metrics(make_oof(wild=3))
    values = np.array([*calibrate(make_oof(wild=3)).quantile(0.99).coverage.values()])
    expected = values.mean() + 1.64 * values.std(ddof=1) / K**0.5
    assert metrics["coverage_99_upper"] == pytest.approx(expected)
    assert expected > 1.0 >= metrics["coverage_99"]


def test_coverage_needs_three_sources() -> None:
    """With two, no source can be left out of a calibration: the metrics are absent, so a rule on them fails."""
    assert not [name for name in compute_metrics(make_oof(2)) if name.startswith("coverage")]


def test_a_collapsed_ensemble_has_a_ratio_near_zero() -> None:
    """sigma_ratio is the median sigma by the target's deviation."""
    oof = make_oof(spread=1e-3)
    assert compute_metrics(oof)["sigma_ratio"] == pytest.approx(np.median(oof.sigma) / np.std(oof.target))
    assert compute_metrics(oof)["sigma_ratio"] < 1e-4 < compute_metrics(make_oof())["sigma_ratio"]
    assert "sigma_ratio" not in compute_metrics(replace(oof, target=np.full(len(oof.target), 50.0)))


def test_the_bootstrap_is_deterministic_and_over_sources() -> None:
    """The same bounds every time, around the mean; close to the normal interval; nothing below two values."""
    values = np.random.default_rng(1).normal(0.97, 0.01, 40)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    half = 1.96 * values.std() / 40**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert bootstrap_interval(np.array([0.25, 0.75])) == (0.25, 0.75)
    assert bootstrap_interval(np.arange(9.0)) == pytest.approx(FROZEN, rel=1e-12), (
        "another stream: stored verdicts would disagree"
    )
    assert np.isnan(bootstrap_interval(np.array([0.5]))).all()


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"metric": "mean_plcc_low", "op": ">=", "bound": 0.5}, 0),
        ({"metric": "mean_plcc_low", "op": ">=", "bound": 0.99999}, 1),
        ({"metric": "coverage_80_upper", "op": ">=", "bound": 0.5}, 0),
        ({"metric": "coverage_80_upper", "op": ">=", "bound": 1.5}, 1),
        ({"metric": "sigma_ratio", "op": ">=", "bound": 0.5}, 1),
        ({"metric": "coverage_81_upper", "op": ">=", "bound": 0.0}, 1),
    ],
)
def test_a_rule_on_them_binds(smoke: Sandbox, registry: Program, rule: dict[str, Any], code: int) -> None:
    """A policy may name any of them; without a rule they are only reported."""
    smoke.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].append(rule))
    ran = registry("gate", "tiny", "--registry", smoke.path, "--format", "json")
    document = json.loads(ran.out)
    assert ran.code == code, document["reasons"]
    assert document["details"]["bootstrap"] == {"seed": 0, "draws": 2000, "unit": "source"}
    low, mean, high = (document["metrics"][name] for name in ("mean_plcc_low", "mean_plcc", "mean_plcc_high"))
    assert low <= mean <= high


def test_a_verdict_of_a_release_that_measured_less_stays_valid(production: Sandbox) -> None:
    """Stored figures are compared; what a later release measures besides is no disagreement, its absence is one."""
    metrics = production.verdict["metrics"]
    fewer = {name: v for name, v in metrics.items() if not name.startswith(("coverage", "mean_plcc_", "sigma"))}
    assert len(fewer) < len(metrics)
    production.forge_verdict(metrics=fewer)
    assert production.codes() == ["verdict-disagrees"]  # its metrics_version had them
    production.forge_verdict(metrics=fewer, metrics_version=1)
    assert production.codes() == []
    production.forge_verdict(metrics=fewer | {"coverage_80": metrics["coverage_80"] + 1e-6})
    assert production.codes() == ["verdict-disagrees"]
    production.forge_verdict(metrics={name: v for name, v in fewer.items() if name != "mean_plcc"})
    assert production.codes() == ["verdict-disagrees"]
