"""Tests of policy.py: what is PROMOTE, what is never a pass, and when a stored figure disagrees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool.checks.policy import disagreements, judge, required
from registry_tool.toolkit import ROUNDING
from registry_tool.values import Entry, Evidence, Policy, Rule, Verdict

ENTRY = Entry("tiny", "fr_ensemble", True, "a" * 64)
POLICY = Policy((Rule("mean_plcc", ">=", 0.95), Rule("spread", "<=", 0.005)))
GOOD = {"mean_plcc": 0.97, "spread": 0.001}


def test_every_rule_met_is_promote() -> None:
    """Evidence that meets every rule and has no problem is promoted, and the verdict names what it judged."""
    verdict = judge(POLICY, Evidence(GOOD, sha256="b" * 64), ENTRY, {"p": "1"})
    assert (verdict.decision, verdict.promotes, verdict.reasons) == ("PROMOTE", True, ())
    assert (verdict.entry, verdict.manifest_sha256, verdict.evidence_sha256) == ("tiny", "a" * 64, "b" * 64)
    assert (dict(verdict.metrics), verdict.policy, dict(verdict.plugins)) == (GOOD, POLICY, {"p": "1"})


def test_a_metric_at_its_bound_passes() -> None:
    """>= and <= hold at the bound itself."""
    assert judge(POLICY, Evidence({"mean_plcc": 0.95, "spread": 0.005}), ENTRY).promotes


@pytest.mark.parametrize(
    ("policy", "evidence", "reason"),
    [
        (Policy(), Evidence(GOOD), "no rules"),
        (Policy(POLICY.rules, "manual"), Evidence(GOOD), "manual"),
        (Policy((), "manual"), Evidence(GOOD), "manual"),
        (Policy(POLICY.rules, "whatever"), Evidence(GOOD), "whatever"),
        (POLICY, Evidence({}), "no metric 'mean_plcc'"),
        (POLICY, Evidence({"spread": 0.001}), "no metric 'mean_plcc'"),
        (POLICY, Evidence({**GOOD, "mean_plcc": math.nan}), "not finite"),
        (POLICY, Evidence({**GOOD, "mean_plcc": math.inf}), "not finite"),
        (POLICY, Evidence({**GOOD, "spread": -math.inf}), "not finite"),
        (POLICY, Evidence({**GOOD, "mean_plcc": 0.9499}), "found 0.9499"),
        (POLICY, Evidence({**GOOD, "spread": 0.0051}), "found 0.0051"),
        (POLICY, Evidence(GOOD, problems=("seed 0: found 5 times, expected once",)), "seed 0"),
    ],
)
def test_never_a_pass(policy: Policy, evidence: Evidence, reason: str) -> None:
    """An empty or manual policy, an absent or infinite metric, a rule not met, a problem: HOLD, with the reason."""
    verdict = judge(policy, evidence, ENTRY)
    assert (verdict.decision, verdict.promotes) == ("HOLD", False)
    assert any(reason in line for line in verdict.reasons)


def test_a_field_that_asks_for_nothing_is_told() -> None:
    """A policy's unknown field, `incumbent` for `against`, is a warning of the verdict; it holds nothing."""
    misspelt = replace(POLICY, extra={"against": "old", "incumbent": "old", "max_loops": 1, "x\n": 1})
    verdict = judge(misspelt, Evidence(GOOD, warnings=("its own",)), ENTRY)
    own, *unknown = verdict.warnings
    assert (verdict.promotes, own, len(unknown)) == (True, "its own", 2)
    assert "'fr_ensemble' has an unknown field \"incumbent\"" in unknown[0]
    assert not any("\n" in line for line in unknown)


def test_every_reason_is_told_at_once() -> None:
    """A person need not run the gate twice to learn of the second fault."""
    verdict = judge(POLICY, Evidence({"mean_plcc": 0.5, "spread": 0.5}, ("one", "two")), ENTRY)
    assert len(verdict.reasons) == 4


def test_a_verdict_stores_only_finite_metrics() -> None:
    """NaN has no place in a JSON document."""
    verdict = judge(POLICY, Evidence({**GOOD, "other": math.nan}), ENTRY)
    assert (verdict.promotes, dict(verdict.metrics)) == (True, GOOD)


def test_summary_only_is_carried_into_the_verdict() -> None:
    """Whoever reads the verdict sees that no prediction stood behind it."""
    assert judge(POLICY, Evidence(GOOD, summary_only=True), ENTRY).summary_only


METRICS = st.dictionaries(st.sampled_from(["mean_plcc", "spread"]), st.floats())


@given(METRICS, st.lists(st.text(), max_size=2))
def test_promote_means_every_rule_holds_and_nothing_is_wrong(metrics: dict[str, float], problems: list[str]) -> None:
    """For any metrics, NaN included, and any problems: PROMOTE exactly where all is well."""
    verdict = judge(POLICY, Evidence(metrics, tuple(problems)), ENTRY)
    well = not problems and metrics.get("mean_plcc", math.nan) >= 0.95 and metrics.get("spread", math.nan) <= 0.005
    assert verdict.promotes is (well and all(math.isfinite(metrics[rule.metric]) for rule in POLICY.rules))


@pytest.mark.parametrize(
    ("stored", "now", "lines"),
    [
        ({"m": 0.5}, {"m": 0.5}, 0),
        ({"m": 0.5}, {"m": 0.5 + ROUNDING.relative / 2}, 0),
        ({"m": 0.5}, {"m": 0.5 + ROUNDING.relative * 2}, 1),
        ({"m": 1e6}, {"m": 1e6 * (1 + ROUNDING.relative / 2)}, 0),
        ({"m": 0.5}, {}, 1),
        ({}, {"m": 0.5}, 1),  # a verdict holds what its rules name
        ({}, {"m": math.nan}, 0),  # a metric that is not finite is not stored
        ({"m": 0.5}, {"m": 0.5, "of_a_later_release": 0.7}, 0),
        ({"m": 0.5, "made_up": 0.7}, {"m": 0.5}, 1),
        ({"m": 0.5}, {"m": math.nan}, 1),
        ({"m": 0.5, "n": 1.0}, {"m": 0.6, "n": 2.0}, 2),
    ],
)
def test_disagreements_are_named(stored: dict[str, Any], now: dict[str, Any], lines: int) -> None:
    """A stored figure must be the recomputed one up to rounding; each that is not has a line of its own."""
    assert len(disagreements(stored, now, ["m"])) == lines


# ---- the metrics of a release --------------------------------------------------------------------------------------

NAMES = [f"m{number}" for number in range(6)]
SINCE = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4), min_size=1)


@given(SINCE, st.integers(1, 4), st.integers(0, 4))
def test_a_verdict_of_any_release_stays_valid(since: dict[str, int], then: int, later: int) -> None:
    """Metrics that a later release brings are missing from no older verdict; those of its own may not be left out."""
    policy, every = Policy(), dict.fromkeys(since, 0.5)
    old = {name: number for name, number in since.items() if number <= then}
    verdict = judge(policy, Evidence(dict.fromkeys(old, 0.5), metrics_version=then, since=old), ENTRY)
    now = Evidence(every, metrics_version=max(4, then + later), since=since)
    assert disagreements(verdict.metrics, now.metrics, required(verdict, policy, now)) == []
    for name in old:
        forged = replace(verdict, metrics={key: value for key, value in verdict.metrics.items() if key != name})
        assert len(disagreements(forged.metrics, now.metrics, required(forged, policy, now))) == 1


@given(SINCE)
def test_a_verdict_without_a_version_is_of_the_first(since: dict[str, int]) -> None:
    """Verdicts that were written before versions were have what version 1 measured."""
    verdict = judge(Policy(), Evidence({}), ENTRY)
    now = Evidence(dict.fromkeys(since, 0.5), metrics_version=4, since=since)
    assert required(verdict, Policy(), now) == {name for name, number in since.items() if number == 1}


def test_plugins_that_name_sets_of_metrics_are_still_read() -> None:
    """`together`, for a verdict without a version: of a set, all or none."""
    now = Evidence({"a": 1.0, "b": 1.0, "c": 1.0}, together=(frozenset("ab"), frozenset("c")))
    verdict = judge(Policy(), Evidence({"a": 1.0}), ENTRY)
    assert required(verdict, Policy(), now) == {"a", "b"}
    assert required(replace(verdict, metrics_version=1), Policy(), now) == set()


def test_another_incumbent_demands_nothing_but_the_rules() -> None:
    """What is measured depends on the incumbent that is compared with, which the policy may name another day."""
    now = Evidence({"m0": 0.5, "vs": 1.0}, metrics_version=1, since={"m0": 1, "vs": 1})
    verdict = judge(Policy((Rule("m0", ">", 0.0),)), now, ENTRY)
    assert required(verdict, Policy(extra={"against": "other"}), now) == {"m0"}
    assert required(verdict, Policy(), now) == {"m0", "vs"}


def test_the_version_of_a_verdict_survives() -> None:
    """It is written where the evidence has one, and read again."""
    verdict = judge(POLICY, Evidence(GOOD, metrics_version=3), ENTRY)
    assert Verdict.from_dict(verdict.to_dict()).metrics_version == 3
    assert "metrics_version" not in judge(POLICY, Evidence(GOOD), ENTRY).to_dict()


@pytest.mark.parametrize("since", [{"m": 0}, {"m": 3}, {"m": -1}])
@pytest.mark.parametrize("version", [None, 2])
def test_a_metric_comes_with_a_version_there_is(since: dict[str, int], version: int | None) -> None:
    """Evidence whose metrics came before the first version, or after its own, is refused when it is made."""
    with pytest.raises(ValueError, match="metric m: found"):
        Evidence({"m": 1.0}, metrics_version=version, since=since)
