"""policy_names.py: names in a registry's policies that mean nothing here: of kinds, of metrics. Judges no evidence."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress

from registry_tool.documents.schema import show
from registry_tool.errors import InputError, PluginError
from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.hookspec import Level
from registry_tool.plugins.inspection import Inspection
from registry_tool.strictjson import pointer

MAX_COMPARED_RULES = 100  # of a policy: a millisecond each, and a registry has room for a million of them

POLICY_KIND_UNKNOWN = FindingRule(
    "policy-kind-unknown",
    "policy of an unknown kind",
    why="Its rules judge nothing, while the kind that was meant may have none.",
    message="policy of kind {kind!r}: no installed plugin provides that kind",
    hint="install the plugin that provides it, correct the kind, or remove the policy",
    example='"policies": {"fr_ensembel": {"rules": []}}',
    severity=Severity.WARNING,
    since="0.2.0",
)
POLICY_METRIC_UNKNOWN = FindingRule(
    "policy-metric-unknown",
    "rule on an unknown metric",
    why="No evidence has such a metric, so that the rule holds every entry of the kind.",
    message="rule on the metric {metric!r:.80}, which no evidence of kind {kind!r} has",
    hint="correct the name: `registry metrics {kind}` lists those that rules may name",
    example='"metric": "rmse_vs_baseline_rigde"',
    severity=Severity.WARNING,
    since="0.2.0",
)


def check_policy_kinds(inspection: Inspection) -> Iterator[Finding]:
    """Policies that judge nothing here, where no plugin is missing for a reason that is said already."""
    loaded, plugins = inspection.loaded, inspection.plugins
    if plugins.broken or plugins.disabled:
        return
    used = {entry.kind for entry in inspection.registry.entries}
    for kind in inspection.registry.policies:
        if kind not in plugins.kinds and kind not in used:
            known = ", ".join(sorted(plugins.kinds))
            yield POLICY_KIND_UNKNOWN.at(loaded.name, pointer("policies", kind), expected=known, kind=kind)


def check_policy_metrics(inspection: Inspection) -> Iterator[Finding]:
    """Rules that nothing meets: their metrics are none of those that the kind's plugin describes. None at QUICK."""
    plugins, policies = inspection.plugins, inspection.registry.policies
    for kind, policy in policies.items() if inspection.level is Level.FULL else ():
        known: list[str] = []
        with suppress(InputError, PluginError):  # what is wrong with a kind or its plugin is said elsewhere
            known = [described.name for described in plugins.metrics(kind)] if policy.rules else []
        names = frozenset(known)
        unknown = [item for item in enumerate(policy.rules if known else ()) if item[1].metric not in names]
        for order, (number, rule) in enumerate(unknown):
            near = difflib.get_close_matches(rule.metric, known, 3) if order < MAX_COMPARED_RULES else []
            place, expected = pointer("policies", kind, "rules", number, "metric"), " or ".join(near) or None
            yield POLICY_METRIC_UNKNOWN.at(
                inspection.loaded.name, place, found=show(rule.metric), expected=expected, metric=rule.metric, kind=kind
            )
