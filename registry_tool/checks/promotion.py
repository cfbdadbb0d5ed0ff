"""promotion.py: whether an entry has the right to be production. Recomputes; trusts no stored figure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import registry_tool.schemas as schemas
from registry_tool.checks.policy import disagreements, judge, required
from registry_tool.documents.entries import BrokenEntry, VerifiedEntry
from registry_tool.documents.manifest import Manifest
from registry_tool.documents.store import REGISTRY_VERSION, schema_findings
from registry_tool.errors import InputError, RegistryError, RejectedError
from registry_tool.findings import EVIDENCE_UNUSABLE, Finding, FindingRule, InFile
from registry_tool.hookspec import EntryView, GateRequest, Level
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Entry, Evidence, Json, Policy, Registry, Verdict

DEMOTE_HINT = "run `registry flip {id} --demote --reason ...`, then `registry flip {id}`"

ON_SMOKE = FindingRule(
    "promotion-on-smoke",
    "smoke entry with a promotion",
    why="Half of a promotion, or of a demotion, was done by hand.",
    hint="remove the promotion",
    example="smoke: true with a verdict",
)
RANDOM_ROWS = FindingRule(
    "promotion-random-rows",
    "production model trained on random rows",
    why="It measures nothing.",
    expected="a model trained on a corpus",
    hint="run `registry flip {id} --demote --reason ...`, then train on a corpus",
    example="train --smoke, promoted by hand",
)
VERDICT_MISSING = FindingRule(
    "promotion-missing",
    "production entry without a promotion",
    why="smoke was set to false by hand, without evidence.",
    message="smoke is false, but the entry has no promotion",
    expected="a verdict",
    hint="set smoke to true, then run `registry flip {id}`",
    example='"smoke": false',
)
KIND_DISALLOWS = FindingRule(
    "promotion-kind",
    "promotion that the kind does not allow",
    why="It bypasses the gate.",
    message="promotion that the policy of kind {kind!r} does not allow",
    expected="a verdict",
    hint=DEMOTE_HINT,
    example="manual: true for an ensemble",
)
DOES_NOT_PROMOTE = FindingRule(
    "verdict-holds",
    "verdict that does not promote",
    why="HOLD, or summary-only evidence, never makes production.",
    message="the verdict does not promote the entry",
    expected="PROMOTE",
    hint=DEMOTE_HINT,
    example='"verdict": "HOLD"',
)
JUDGES_ANOTHER = FindingRule(
    "verdict-other",
    "verdict on another entry, manifest or evidence",
    why="It says nothing about these bytes.",
    message="the verdict judges another {subject}",
    hint=DEMOTE_HINT,
    example="a verdict copied from ens_v1",
)
METRICS_DISAGREE = FindingRule(
    "verdict-disagrees",
    "verdict does not match the evidence",
    why="The verdict was edited, or the evidence was.",
    message="the verdict does not match the evidence: {difference}",
    hint=DEMOTE_HINT,
    example="mean_plcc 0.97, recomputed 0.93",
)
POLICY_LOOSER = FindingRule(
    "policy-looser",
    "policy loosened after the verdict",
    why="The next entry would pass a lower bar unseen.",
    message="the policy of kind {kind!r} is looser than the one {id} was judged by",
    hint="restore the policy, or run `registry repromote {id}`",
    example=">= 0.95 made >= 0.5",
)
NOT_MET = FindingRule(
    "policy-not-met",
    "evidence of a production entry does not meet the policy",
    why="It ships and should not.",
    message="the evidence does not meet the policy: {reason}",
    hint="run `registry flip {id} --demote --reason ...`, or train again",
    example="mean_plcc 0.93, >= 0.95 required",
)


def measure(
    view: EntryView, plugins: Plugins, request: GateRequest, incumbent: VerifiedEntry | None = None
) -> Evidence:
    """What the owner of the kind recomputes from the evidence. Raises InputError where the kind has no gate.

    incumbent: to compare with; one of another kind by its out-of-fold predictions. One that the owner of the kind says
    nothing of is a problem: silence is no comparison.
    """
    problem = ""
    if incumbent is not None:
        request, problem = _with_incumbent(request, view.entry.kind, incumbent, plugins)
    evidence = plugins.gate(view, request)
    if evidence is None and view.entry.onnx and "registry_gate" in plugins.owner(view.entry.kind).hooks:
        raise InputError(
            f"{view.entry.id}: it pins no evidence, expected rows that it was run on: "
            f"`registry evidence {view.entry.id} --data FILE` makes it, or "
            'set `"gate": "manual"` in its policy and flip with --reason'
        )
    if evidence is None:
        raise InputError(
            f"{view.entry.id}: the kind {view.entry.kind!r} has no gate, expected evidence: "
            'with `"gate": "manual"` in its policy a person promotes it: flip with --reason'
        )
    if incumbent is not None and not problem and not evidence.problems and incumbent_part(evidence.details) is None:
        found = f"incumbent {incumbent.entry.id}: found no comparison"
        problem = f"{found}, expected a kind whose plugin compares entries: leave it out"
    return replace(evidence, problems=(*evidence.problems, problem)) if problem else evidence


def _with_incumbent(
    request: GateRequest, kind: str, incumbent: VerifiedEntry, plugins: Plugins
) -> tuple[GateRequest, str]:
    """The request with the incumbent of an entry of this kind; a problem where that has nothing to compare with."""
    if incumbent.entry.kind == kind:
        return replace(request, incumbent=incumbent), ""
    try:
        predictions = plugins.oof(incumbent)
    except InputError as error:
        return request, f"incumbent {error}"
    if predictions is None:
        return request, f"incumbent {incumbent.entry.id}: found no out-of-fold predictions: name another entry"
    return replace(request, incumbent_oof=predictions), ""


def promoting(entry: Entry, inspection: Inspection) -> str:
    """What promotes a smoke entry: its evidence where its kind has a gate, else a person under a manual policy."""
    by_hand, plugins = f"run `registry flip {entry.id} --reason ...`", inspection.plugins
    if inspection.policy(entry.kind).gate == "manual":
        return by_hand
    if entry.kind in plugins.kinds and (
        "registry_gate" not in plugins.owner(entry.kind).hooks or (entry.onnx and "evidence" not in entry.document)
    ):
        return f'set `"gate": "manual"` in the policy of kind {entry.kind}, then {by_hand}'
    return f"run `registry flip {entry.id}`"


def promoting_again(entry: Entry, inspection: Inspection) -> str:
    """What gives a production entry another promotion."""
    return f"run `registry flip {entry.id} --demote --reason ...`, then {promoting(entry, inspection)}"


def incumbent_part(answer: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """What a plugin's answer says of how the entry compares with an incumbent; None where it says nothing."""
    against = answer.get("against")
    found = against.get("incumbent") if isinstance(against, Mapping) else None
    return found if isinstance(found, Mapping) else None


def refuse_itself(entry_id: str, incumbent: str | None) -> None:
    """Raises InputError for an entry that is to be compared with itself: no difference shows nothing."""
    if entry_id == incumbent:
        raise InputError(
            f"incumbent: found {entry_id} itself, expected another entry: name another one, or give the one that was "
            "trained again a new id"
        )


def find_incumbent(
    kinds: Collection[str], inspection: Inspection, entry_id: str | None, base: Registry | None = None
) -> VerifiedEntry | None:
    """The entry of these kinds to compare with; None for no id. base: as it was there, where it was changed since.

    Raises InputError for an id that none of the kinds has, RejectedError for an entry that does not verify.
    """
    if entry_id is None:
        return None
    alike = {entry.id: index for index, entry in enumerate(inspection.registry.entries) if entry.kind in kinds}
    if entry_id not in alike:
        known, of = ", ".join(alike), " or ".join(sorted(kinds))
        raise InputError(f"incumbent: found no entry {entry_id!r} of kind {of}, expected one of: {known}: name it")
    before, index = base.entry(entry_id) if base is not None else None, alike[entry_id]
    changed = before is not None and before.sha256 != inspection.registry.entries[index].sha256
    found = inspection.verify_older(before) if before is not None and changed else inspection.verify(index)
    if isinstance(found, BrokenEntry):
        raise RejectedError(
            f"incumbent: {entry_id} {'at the base ' * changed}cannot be compared with: {found.findings[0]}: "
            + ("restore its files" if changed else "run `registry validate`")
        )
    return found


def is_random(view: VerifiedEntry) -> bool:
    """Whether it was trained on random rows."""
    return Manifest.of(view.manifest).random_rows


def check_promotion(view: VerifiedEntry, inspection: Inspection) -> list[Finding]:
    """Findings on an entry's claim to be production. At Level.QUICK the evidence is not recomputed."""
    entry, promotion = view.entry, view.entry.promotion
    if entry.smoke:
        return [] if promotion is None else [ON_SMOKE.at(view.row, "/promotion")]
    if inspection.registry.schema_version != REGISTRY_VERSION and entry.manifest is None:
        return []  # version 1 has no promotions; its single models are judged by its own rules
    if is_random(view):
        return [RANDOM_ROWS.at(view.row, "/smoke", found="random_rows: true", id=entry.id)]
    if promotion is None:
        hint = f"set smoke to true, then {promoting(entry, inspection)}"
        return [VERDICT_MISSING.at(view.row, "/smoke", found="no promotion", hint=hint, id=entry.id)]
    repeated = promoting_again(entry, inspection)
    for field, found, is_allowed in (
        ("imported_from", "imported_from", entry.manifest is None),
        ("manual", "manual: true", inspection.policy(entry.kind).gate == "manual"),
    ):
        if field in promotion:
            refusal = KIND_DISALLOWS.at(
                view.row, "/promotion", found=found, hint=repeated, id=entry.id, kind=entry.kind
            )
            return [] if is_allowed else [refusal]
    return _check_verdict(view, promotion, inspection)


def _check_verdict(view: VerifiedEntry, promotion: Mapping[str, str], inspection: Inspection) -> list[Finding]:
    path = promotion["verdict"]
    document = view.pinned_document(path, promotion["sha256"], "promotion", "sha256")
    if isinstance(document, Finding):
        return [document]
    if broken := schema_findings(document, schemas.load("verdict"), path, view.entry.id):
        return broken
    verdict, place = Verdict.from_dict(document.value), InFile(path, view.entry.id)
    findings = [*_check_claims(verdict, view, inspection.policy(view.entry.kind), place)]
    if findings or inspection.level is Level.QUICK:
        return findings
    policy = inspection.policy(view.entry.kind)
    try:
        kinds = inspection.plugins.comparable(view.entry.kind)
        incumbent = find_incumbent(kinds, inspection, policy.incumbent)
        evidence = measure(view, inspection.plugins, GateRequest(), incumbent)
    except RegistryError as error:
        hint = f"restore the files, or {promoting_again(view.entry, inspection)}"
        return [EVIDENCE_UNUSABLE.at(view.row, "/promotion", reason=error, hint=hint)]
    return [*_check_evidence(verdict, evidence, view, policy, place)]


def _check_claims(verdict: Verdict, view: VerifiedEntry, policy: Policy, place: InFile) -> Iterator[Finding]:
    """What shows without the evidence: the verdict promotes this entry, and by no stricter policy than today's."""
    entry = view.entry
    if not verdict.promotes or verdict.summary_only or verdict.reasons:
        found = "summary-only evidence" if verdict.summary_only else verdict.decision
        found = f"PROMOTE with reasons against it: {verdict.reasons[0]}" if found == "PROMOTE" else found
        yield DOES_NOT_PROMOTE.at(place, "/verdict", found=found, id=entry.id)
    for subject, pointer, found, expected in (
        ("entry", "/entry", verdict.entry, entry.id),
        ("manifest", "/manifest_sha256", str(verdict.manifest_sha256), entry.sha256),
    ):
        if found != expected:
            yield JUDGES_ANOTHER.at(place, pointer, found=found, expected=expected, subject=subject, id=entry.id)
    if policy.is_looser_than(verdict.policy):
        found, expected = _rules(policy), _rules(verdict.policy)
        yield POLICY_LOOSER.at(view.row, "/promotion", found=found, expected=expected, kind=entry.kind, id=entry.id)


def _check_evidence(
    verdict: Verdict, evidence: Evidence, view: VerifiedEntry, policy: Policy, place: InFile
) -> Iterator[Finding]:
    """What the recomputed evidence says against the verdict, and against the policy of today."""
    entry = view.entry
    if evidence.summary_only:
        found = "a summary without predictions"
        yield DOES_NOT_PROMOTE.at(view.row, "/promotion", found=found, expected="predictions", id=entry.id)
    if verdict.evidence_sha256 != evidence.sha256:
        found, expected = str(verdict.evidence_sha256), str(evidence.sha256)
        yield JUDGES_ANOTHER.at(
            place, "/evidence_sha256", found=found, expected=expected, subject="evidence", id=entry.id
        )
    for line in disagreements(verdict.metrics, evidence.metrics, required(verdict, policy, evidence)):
        yield METRICS_DISAGREE.at(place, "/metrics", difference=line, id=entry.id)
    if verdict.policy != policy:
        for reason in judge(verdict.policy.unsigned, evidence, entry).reasons:
            yield METRICS_DISAGREE.at(place, "/policy", difference=f"its own policy rejects it ({reason})", id=entry.id)
    for reason in judge(policy.unsigned, evidence, entry).reasons:  # signatures have findings of their own
        yield NOT_MET.at(view.row, "/smoke", reason=reason, id=entry.id)


def _rules(policy: Policy) -> str:
    return "; ".join(str(rule) for rule in policy.rules) or ("manual" if policy.gate == "manual" else "no rules")
