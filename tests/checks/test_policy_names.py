"""test_policy_names.py: metrics that rules name and no evidence has: which are found, and which names are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry_tool.checks.policy_names import MAX_COMPARED_RULES
from registry_tool.findings import Finding
from registry_tool.plugins.manager import load
from registry_tool.workflows.validate import validate


def found(folder: Path, kind: str, metrics: list[str]) -> list[Finding]:
    """What `validate` finds in a registry without entries whose policy has a rule on each of these."""
    rules = [{"metric": metric, "op": ">=", "bound": 0} for metric in metrics]
    path = folder / "registry.json"
    path.write_text(json.dumps({"schema_version": 2, "models": [], "policies": {kind: {"rules": rules}}}))
    return list(validate(path, load()).findings)


@pytest.mark.parametrize("kind", ["fr", "nr", "filter", "fr_ensemble"])
def test_metrics_that_are_described_are_known(tmp_path: Path, kind: str) -> None:
    """Of every kind that has a gate; a letter more is found, and the right name is shown."""
    metrics = [described.name for described in load().metrics(kind)]
    assert found(tmp_path, kind, metrics) == []
    misspelt = found(tmp_path, kind, [f"{name}x" for name in metrics])
    assert [finding.code for finding in misspelt] == ["policy-metric-unknown"] * len(metrics)
    for finding in misspelt:
        name = str(finding.found).strip('"').removesuffix("x")
        assert name in str(finding.expected).split(" or ")


def test_many_unknown_metrics_are_found_and_few_compared(tmp_path: Path) -> None:
    """A registry of somebody else may have a million of them: each is found, and looking for its like is what costs."""
    findings = found(tmp_path, "fr_ensemble", [f"mean_plc{number}" for number in range(MAX_COMPARED_RULES + 50)])
    assert len(findings) == MAX_COMPARED_RULES + 50
    assert [finding.expected is not None for finding in findings].count(True) == MAX_COMPARED_RULES
