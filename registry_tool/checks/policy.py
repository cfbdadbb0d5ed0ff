"""policy.py: decides whether evidence meets a policy. Reads no files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from registry_tool.documents.schema import show
from registry_tool.documents.store import REGISTRY_VERSION, schema_of
from registry_tool.hookspec import Kind
from registry_tool.toolkit import ROUNDING
from registry_tool.values import EMPTY, Entry, Evidence, Policy, Verdict


def judge(
    policy: Policy,
    evidence: Evidence,
    entry: Entry,
    plugins: Mapping[str, str] = EMPTY,
    signed_by: Collection[str] = (),
) -> Verdict:
    """PROMOTE when every rule holds and nothing is wrong with the evidence; else HOLD with every reason.

    signed_by: the different signers, of those that the policy names, whose signature over the entry was verified.
    Never a pass: an empty policy, a metric that is absent or not finite, evidence with problems, a manual policy.
    """
    reasons = list(evidence.problems)
    if policy.gate != "evidence":
        reasons.append(f"the policy's gate is {policy.gate!r}: evidence decides nothing, a person does, with a reason")
    elif not policy.rules:
        reasons.append("the policy has no rules: nothing was asked, so nothing was shown")
    reasons += signatures_missing(policy, signed_by)
    for rule in policy.rules:
        value = evidence.metrics.get(rule.metric)
        if value is None:
            reasons.append(f"{rule}: the evidence has no metric {rule.metric!r}")
        elif not math.isfinite(value):
            reasons.append(f"{rule}: found {value}, a number that is not finite passes nothing")
        elif not rule.holds(value):
            reasons.append(f"{rule}: found {value:.6g}")
    return Verdict(
        entry=entry.id,
        decision="HOLD" if reasons else "PROMOTE",
        policy=policy,
        metrics=MappingProxyType({k: v for k, v in evidence.metrics.items() if math.isfinite(v)}),
        reasons=tuple(reasons),
        manifest_sha256=entry.sha256,
        evidence_sha256=evidence.sha256,
        summary_only=evidence.summary_only,
        plugins=plugins,
        metrics_version=evidence.metrics_version,
        warnings=(*evidence.warnings, *unread(policy, entry.kind)),
    )


def unread(policy: Policy, kind: str) -> tuple[str, ...]:
    """A warning on each field of a kind's policy that this version does not know: it may be a misspelt one."""
    known = schema_of(REGISTRY_VERSION)["$defs"]["policy"]["properties"]
    return tuple(
        f"the policy of kind {kind!r} has an unknown field {show(name)}, which asks for nothing: "
        "correct the name, or leave it: it is kept as it is"
        for name in policy.extra
        if name not in known
    )


def signatures_missing(policy: Policy, signed_by: Collection[str]) -> list[str]:
    """Why these signers are not enough, in one line; [] where they are, or where the policy asks for none."""
    if policy.signatures_needed and not policy.signers:
        return ["the policy asks for signatures and names no signers: nothing is promoted"]
    if len(signed_by) >= policy.signatures_needed:
        return []
    names = f" ({', '.join(signed_by)})" if signed_by else ""
    return [f"signatures by the policy's signers >= {policy.signatures_needed}: found {len(signed_by)}{names}"]


def required(verdict: Verdict, policy: Policy, evidence: Evidence) -> set[str]:
    """The metrics that a verdict has to store, by the evidence that was recomputed under the registry's policy now.

    Those of its own rules; those that its metrics_version had, unless it compared with another incumbent than the
    policy does now, which decides what can be measured. A verdict without a version is of version 1, unless the
    evidence says of which metrics such a verdict has all or none.
    """
    names = {rule.metric for rule in verdict.policy.rules}
    if verdict.metrics_version is None and evidence.together:
        names.update(*(group for group in evidence.together if group & verdict.metrics.keys()))
    elif verdict.policy.incumbent == policy.incumbent:
        version = verdict.metrics_version or 1
        names |= {name for name, since in evidence.since.items() if since <= version}
    return names


def summary_policy(kind: Kind, policy: Policy) -> Policy:
    """What evidence without predictions is judged by: the kind's own rules for it, and all that `policy` asks beyond
    the kind's default, which such evidence cannot show in full. A policy without rules passes nothing here either."""
    if kind.summary_policy is None or not policy.rules:
        return policy
    asked = (rule for rule in policy.rules if rule not in kind.default_policy.rules)
    return replace(policy, rules=tuple(dict.fromkeys((*kind.summary_policy.rules, *asked))))


def disagreements(stored: Mapping[str, float], recomputed: Mapping[str, float], named: Iterable[str] = ()) -> list[str]:
    """The metrics in which a stored verdict and a recomputation differ, one line each.

    Every stored metric must be recomputed, and every metric in `named` be stored. A recomputed one beside them is no
    disagreement: it is of a later release, which measures more than the verdict saw.
    """
    lines = []
    for name in sorted({*stored, *named}):
        old, new = stored.get(name), recomputed.get(name)
        if old is None and (new is None or not math.isfinite(new)):  # a metric that is not finite is not stored
            continue
        if old is None or new is None:
            lines.append(f"{name}: found {old}, recomputed {new}")
        elif not ROUNDING.holds(old, float(new)):
            lines.append(f"{name}: found {old!r}, recomputed {new!r}")
    return lines
