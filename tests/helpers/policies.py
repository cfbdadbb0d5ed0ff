"""policies.py: the policies of the tests' registries, and changes of them. Judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], None]  # of a registry's document, in place
MANUAL: dict[str, Any] = {"gate": "manual", "rules": []}


def rules(*each: str) -> dict[str, Any]:
    """A policy of rules such as "mean_plcc >= 0.95"."""
    parts = (rule.split() for rule in each)
    return {"rules": [{"metric": metric, "op": op, "bound": float(bound)} for metric, op, bound in parts]}


# What every ensemble of the tests is gated by, whatever the plugin's default policy asks for.
GATE = rules("mean_plcc >= 0.95", "plcc_spread <= 0.005", "min_seed_plcc >= 0.95")


def set_policy(kind: str, policy: dict[str, Any] | None) -> Change:
    """The kind's policy is this one; None removes it."""

    def change(document: dict[str, Any]) -> None:
        others = {name: other for name, other in document.get("policies", {}).items() if name != kind}
        document["policies"] = others if policy is None else {**others, kind: policy}

    return change


def set_bound(metric: str, bound: float, kind: str = "fr_ensemble") -> Change:
    """The kind's rules on this metric have another bound."""

    def change(document: dict[str, Any]) -> None:
        for rule in document["policies"][kind]["rules"]:
            if rule["metric"] == metric:
                rule["bound"] = bound

    return change
