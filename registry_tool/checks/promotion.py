"""promotion.py: whether an entry has the right to be production. Recomputes; trusts no stored figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import registry_tool.schemas as schemas
from registry_tool.checks.policy import disagreements, judge, required
from registry_tool.documents.entries import OpenEntry
from registry_tool.documents.store import VERSION, schema_findings
from registry_tool.errors import InputError, RegistryError, RejectedError
from registry_tool.findings import EVIDENCE_UNUSABLE
from registry_tool.hookspec import GateRequest, Level
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Evidence, Finding, Json, Policy, Registry, Verdict

FLIP_HINT = "set smoke to true and run `registry flip {id}`"


def measure(opened: OpenEntry, plugins: Plugins, request: GateRequest) -> Evidence:
    """What the owner of the kind recomputes from the evidence. Raises InputError where the kind has no gate.

    An incumbent that its plugin says nothing of is a problem: nobody should take silence for a comparison.
    """
    evidence = plugins.gate(opened, request)
    if evidence is None:
        raise InputError(
            f"{opened.entry.id}: the kind {opened.entry.kind!r} has no gate, expected evidence: "
            'set `"gate": "manual"` in its policy and flip with --reason'
        )
    if request.against is not None and not evidence.problems and not compares(evidence.details):
        what = f"against {request.against.entry.id}: found no comparison"
        problem = f"{what}, expected a kind whose plugin compares entries: leave it out"
        evidence = replace(evidence, problems=(problem,))
    return evidence


def compares(answer: Mapping[str, Json]) -> bool:
    """Whether a plugin's answer says how the entry compares with an incumbent."""
    against = answer.get("against")
    return isinstance(against, Mapping) and "incumbent" in against


def find_beside(opened: OpenEntry, registry: Registry, plugins: Plugins, entry_id: str | None) -> OpenEntry | None:
    """The entry to compare with, verified. Raises InputError for one that is not there, RejectedError for a bad one."""
    if entry_id is None:
        return None
    kind = opened.entry.kind
    alike = {entry.id: (entry, index) for index, entry in enumerate(registry.entries) if entry.kind == kind}
    if entry_id not in alike:
        known = ", ".join(alike)
        raise InputError(f"against: found no entry {entry_id!r} of kind {kind!r}, expected one of: {known}: name it")
    found = opened.beside(*alike[entry_id], plugins.kinds.get(kind))
    if not found.sound:
        raise RejectedError(
            f"against: {entry_id} cannot be compared with: {found.findings[0]}: run `registry validate`"
        )
    return found


def is_random(opened: OpenEntry) -> bool:
    return bool(opened.manifest and opened.manifest.get("random_rows"))


def check_promotion(opened: OpenEntry, registry: Registry, plugins: Plugins, level: Level) -> list[Finding]:
    """Findings on an entry's claim to be production. At Level.QUICK the evidence is not recomputed."""
    entry, promotion = opened.entry, opened.entry.promotion
    hint = FLIP_HINT.format(id=entry.id)
    if entry.smoke:
        if promotion is None:
            return []
        return [opened.registry_finding(
            "promotion-on-smoke", "a smoke entry carries a promotion", "promotion", hint="remove it, or flip the entry"
        )]  # fmt: skip
    if registry.schema_version != VERSION and entry.manifest is None:
        return []  # version 1 has no promotions; its single models are judged by its own rules
    if is_random(opened):
        return [opened.registry_finding(
            "promotion-random-rows", "a model of random rows is production", "smoke", found="random_rows: true",
            expected="a model trained on a corpus", hint="set smoke to true and train on a corpus",
        )]  # fmt: skip
    if promotion is None:
        return [opened.registry_finding(
            "promotion-missing", "smoke is false, but nothing says why", "smoke", found="no promotion",
            expected="a verdict", hint=hint,
        )]  # fmt: skip
    if "imported_from" in promotion:
        if entry.manifest is None:
            return []
        return [opened.registry_finding(
            "promotion-kind", "only a migrated single model may be imported as production", "promotion",
            found="imported_from", expected="a verdict", hint=hint,
        )]  # fmt: skip
    policy = registry.policies.get(entry.kind, Policy())
    if "manual" in promotion:
        if policy.gate == "manual":
            return []
        return [opened.registry_finding(
            "promotion-kind", f"the policy of kind {entry.kind!r} does not let a person decide", "promotion",
            found="manual: true", expected="a verdict", hint=hint,
        )]  # fmt: skip
    return _check_verdict(opened, promotion, registry, plugins, level, hint)


def _check_verdict(
    opened: OpenEntry, promotion: Mapping[str, str], registry: Registry, plugins: Plugins, level: Level, hint: str
) -> list[Finding]:
    entry, path = opened.entry, promotion["verdict"]
    policy = registry.policies.get(entry.kind, Policy())
    before = len(opened.findings)
    document = opened.pinned_document(path, promotion["sha256"], "promotion", "sha256")
    if document is None:
        return [opened.findings.pop() for _ in range(len(opened.findings) - before)]
    if broken := schema_findings(document, schemas.load("verdict"), path, entry.id):
        return broken
    verdict = Verdict.from_dict(document.value)

    def wrong(code: str, message: str, at: str, found: object, expected: object) -> Finding:
        return opened.finding(code, message, at, file=path, found=str(found), expected=str(expected), hint=hint)

    findings = []
    if not verdict.promotes or verdict.summary_only or verdict.reasons:
        what = "a verdict on summary-only evidence" if verdict.summary_only else verdict.decision
        findings.append(wrong("verdict-holds", "the verdict promotes nothing", "/verdict", what, "PROMOTE"))
    for name, at, found, expected in (
        ("entry", "/entry", verdict.entry, entry.id),
        ("manifest", "/manifest_sha256", verdict.manifest_sha256, entry.sha256),
    ):
        if found != expected:
            findings.append(wrong("verdict-other", f"the verdict judges another {name}", at, found, expected))
    if policy.is_looser_than(verdict.policy):
        findings.append(opened.registry_finding(
            "policy-looser", f"the policy of kind {entry.kind!r} is looser than the one {entry.id} was judged by",
            "promotion", found=_rules(policy), expected=_rules(verdict.policy),
            hint="restore the policy, or flip again under it",
        ))  # fmt: skip
    if findings or level is Level.QUICK:
        return findings
    try:
        against = find_beside(opened, registry, plugins, policy.against)
        evidence = measure(opened, plugins, GateRequest(against=against))
    except RegistryError as error:
        return [EVIDENCE_UNUSABLE.at(opened.row, "/promotion", reason=error, hint=hint)]
    if evidence.summary_only:
        what = "the evidence is a summary without predictions"
        findings.append(opened.registry_finding("verdict-holds", what, "promotion", hint=hint))
    if verdict.evidence_sha256 != evidence.sha256:
        findings.append(wrong(
            "verdict-other", "the verdict judges another evidence", "/evidence_sha256",
            verdict.evidence_sha256, evidence.sha256,
        ))  # fmt: skip
    for line in disagreements(verdict.metrics, evidence.metrics, required(verdict, policy, evidence)):
        findings.append(opened.finding(
            "verdict-disagrees", f"the verdict's figures are not those of the evidence: {line}", "/metrics",
            file=path, hint=hint,
        ))  # fmt: skip
    if verdict.policy != policy:
        for reason in judge(verdict.policy, evidence, entry).reasons:
            findings.append(wrong(
                "verdict-disagrees", "the verdict's own policy promotes nothing here", "/policy", reason, "PROMOTE"
            ))  # fmt: skip
    for reason in judge(policy, evidence, entry).reasons:
        findings.append(opened.registry_finding(
            "policy-not-met", f"the evidence does not clear the policy: {reason}", "smoke",
            hint=f"run `registry flip {entry.id} --demote --reason ...` or train again",
        ))  # fmt: skip
    return findings


def _rules(policy: Policy) -> str:
    return "; ".join(str(rule) for rule in policy.rules) or ("manual" if policy.gate == "manual" else "no rules")
