"""Tests of metrics.py: what METRICS says of each metric, and that one more of them keeps every older registry valid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import registry_tool.schemas as schemas
from fr_ensemble.checks import evidence as evidence_checks
from fr_ensemble.evidence import metrics
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import (
    METRICS,
    METRICS_VERSION,
    NEEDS_BASELINES,
    NEEDS_CALIBRATION,
    NEEDS_ENCODERS,
    NEEDS_FOLDS,
    NEEDS_INPUTS,
    NEEDS_PREDICTIONS,
    STORED_PREFIX,
    Metric,
)
from fr_ensemble.hooks import gate as gate_hook
from predictions import CORPUS, make_oof
from sandbox import Sandbox

NEXT = METRICS_VERSION + 1
NEEDS = (NEEDS_FOLDS, NEEDS_PREDICTIONS, NEEDS_INPUTS, NEEDS_BASELINES, NEEDS_CALIBRATION, NEEDS_ENCODERS)


def test_each_metric_says_what_it_is() -> None:
    """A meaning, which way is better, the evidence it needs, and a name that a policy's schema accepts."""
    pattern = schemas.load("registry")["$defs"]["policy"]["properties"]["rules"]["items"]["properties"]["metric"]
    assert len(METRICS) >= 33
    for name, metric in METRICS.items():
        assert name == metric.name
        assert re.match(pattern["pattern"], name)
        assert metric.meaning
        assert metric.direction in ("higher", "lower")
        assert metric.needs in (*NEEDS, *metrics.COMPARISON_NAMES)
        assert 1 <= metric.since <= METRICS_VERSION
        if metric.in_manifest:
            assert metric.needs == NEEDS_FOLDS


def test_refuted_levels_are_counted() -> None:
    """A level counts where coverage plus 1.64 standard errors over sources is below it; without coverage, no number."""
    shares = {0.5: np.array([0.1, 0.2, 0.3]), 0.8: np.array([0.6, 1.0, 0.7]), 0.95: np.array([0.9, 0.91, 0.92])}
    for name, field in (("refuted_levels", "coverage"), ("calibration_refuted_levels", "calibration_coverage")):
        compute: Any = METRICS[name].compute
        assert compute(SimpleNamespace(**{field: shares})) == 2.0
        assert np.isnan(compute(SimpleNamespace(**{field: {}})))


def test_what_the_first_release_measured_is_still_measured() -> None:
    """No metric of versions 1 and 2 was dropped or renamed: stored verdicts name them."""
    folds = [
        "mean_plcc",
        "plcc_spread",
        "min_seed_plcc",
        "worst_fold_plcc",
        "mean_srocc",
        "mean_rmse",
        "n_seeds",
        "n_folds",
        "n_rows",
    ]
    rest = ["mean_plcc_low", "mean_plcc_high", "sigma_ratio"]
    rest += [f"coverage_{level}{end}" for level in (50, 80, 90, 95, 99) for end in ("", "_upper", "_worst")]
    rest += [f"rmse_vs_{other}{end}" for other in ("vmaf", "incumbent") for end in ("", "_low", "_high")]
    assert [name for name, metric in METRICS.items() if metric.since == 1] == folds
    assert [name for name, metric in METRICS.items() if metric.since == 2] == rest
    assert [name for name, metric in METRICS.items() if metric.in_manifest and metric.since == 1] == folds


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Metric]:
    """A later release, which measures one more figure of each sort of evidence."""
    new = [
        Metric(
            f"new_{needs}",
            "",
            "higher",
            "another figure",
            needs,
            NEXT,
            lambda m: 0.25,
            in_manifest=needs == NEEDS_FOLDS,
        )
        for needs in (*NEEDS, *metrics.COMPARISON_NAMES)
    ]
    more = MappingProxyType({**METRICS, **{metric.name: metric for metric in new}})
    monkeypatch.setattr(metrics, "METRICS", more)
    monkeypatch.setattr(metrics, "METRICS_VERSION", NEXT)
    for module in (gate_hook, evidence_checks):
        monkeypatch.setattr(module, "METRICS", more)
        monkeypatch.setattr(module, "METRICS_VERSION", NEXT)
    return more


def test_one_more_metric_keeps_an_older_registry_valid(production: Sandbox, later: Mapping[str, Metric]) -> None:
    """Manifest and verdict of the release before lack it: no finding."""
    assert "new_folds" in later
    assert production.codes() == []


@pytest.mark.parametrize(
    ("stored", "codes"),
    [(0.25, []), (0.5, ["evidence-disagrees"]), (None, ["evidence-disagrees"]), ("absent", ["evidence-disagrees"])],
)
def test_a_manifest_of_the_later_release_has_it(
    smoke: Sandbox, later: Mapping[str, Metric], stored: Any, codes: list[str]
) -> None:
    """At its metrics_version the figure may be neither missing nor another."""

    def store(manifest: dict[str, Any]) -> None:
        manifest["metrics_version"] = NEXT
        if stored != "absent":
            manifest["eval"][f"{STORED_PREFIX}new_folds"] = stored

    assert "new_folds" in later
    assert [code for code, _ in smoke.forged(store)] == codes


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.in_manifest])
@pytest.mark.parametrize(
    ("change", "version"),
    [*itertools.product(("other", "absent"), (1, NEXT, "absent")), ("null", NEXT), ("true", NEXT)],
)
def test_a_stored_figure_is_compared_by_its_name(smoke: Sandbox, name: str, change: str, version: Any) -> None:
    """Each figure of the manifest's metrics_version is there, and each that is there is the recomputed one."""

    def forge(manifest: dict[str, Any]) -> None:
        manifest.pop("metrics_version", None)
        if version != "absent":
            manifest["metrics_version"] = version
        stored, key = manifest["eval"], f"{STORED_PREFIX}{name}"
        if change == "absent":
            del stored[key]
        else:
            stored[key] = {"other": stored[key] + 1e-6, "null": None, "true": True}[change]

    smoke.forge(forge)
    later = METRICS[name].since > (1 if version == "absent" else version)
    allowed = change == "absent" and later
    assert smoke.codes() == (["schema-type"] if change == "true" else [] if allowed else ["evidence-disagrees"])


def test_a_figure_that_no_release_measured_is_refused(smoke: Sandbox) -> None:
    """An invented metric is no figure of the evidence; one of a later release is a warning, since it is not checked."""
    key = f"{STORED_PREFIX}quality"
    assert smoke.forged(lambda manifest: manifest["eval"].update({key: 1.0})) == [
        ("evidence-disagrees", f"/eval/{key}")
    ]
    smoke.forge(lambda manifest: manifest.update(metrics_version=NEXT))
    found = [(finding.code, str(finding.severity)) for finding in smoke.findings()]
    assert found == [("evidence-newer", "warning")]


def test_metrics_that_came_together_are_stored_together() -> None:
    """A set a release and sort of evidence, so that a verdict that stores one of a set stores all."""
    names = ["mean_plcc", "n_rows", "coverage_80", "rmse_vs_vmaf"]
    assert gate_hook.together(names) == (
        frozenset({"mean_plcc", "n_rows"}),
        frozenset({"coverage_80"}),
        frozenset({"rmse_vs_vmaf"}),
    )


def test_an_offset_of_each_source_lowers_the_pooled_correlation_alone() -> None:
    """Within a source a correlation sees no offset; over all rows it does. The smallest fold is counted."""
    offsets = np.array([-40.0, 40.0, -10.0, 25.0])[CORPUS.source]
    honest, moved = (
        metrics.compute_metrics(metrics.MetricInputs(FoldScores.of(oof), oof))
        for oof in (make_oof(), make_oof(target=CORPUS.target + offsets))
    )
    assert moved["mean_plcc"] == pytest.approx(honest["mean_plcc"], abs=1e-9)
    assert honest["pooled_plcc"] > 0.95 > 0.9 > moved["pooled_plcc"]
    assert honest["min_fold_rows"] == 40
    one = make_oof(predictions=np.stack([CORPUS.target, CORPUS.target[::-1], CORPUS.target + 1.0]))
    expected = np.corrcoef(CORPUS.target[::-1], CORPUS.target)[0, 1]
    assert metrics.compute_metrics(metrics.MetricInputs(FoldScores.of(one), one))["pooled_plcc"] == pytest.approx(
        expected
    )


def test_replaced_metrics_are_other_values() -> None:
    """METRICS cannot be written to by accident."""
    with pytest.raises(TypeError):
        METRICS["mean_plcc"] = replace(METRICS["mean_plcc"], since=9)  # type: ignore[index]  # that is what is tested
