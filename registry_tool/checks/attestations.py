"""attestations.py: what lies beside a verdict: results of training again, attestations. Trains and writes nothing.

Their content is held against the entry always; who signed an attestation is checked where somebody is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import registry_tool.schemas as schemas
from registry_tool.checks.signatures import PinnedBundle, Verification
from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.documents.store import schema_findings
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.signing.container import read_container_or_envelope
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.svr import REPRODUCED, VerificationResult
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, Json, Policy

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust

REPRODUCED_OUTCOMES = ("identical", "within-tolerance")  # outcomes of `registry reproduce` that are a reproduction

ATTESTATION_INVALID = FindingRule(
    "attestation-invalid",
    "attestation that is not of this verdict",
    why="A reader of the attestation takes it for one of another entry, policy or verdict.",
    message="{path}: the attestation does not hold: {problem}",
    hint="run `registry attest {id} --key PEM` again, which replaces it",
    example="an attestation that was copied from another entry",
    since="0.2.0",
)
ATTESTATION_UNVERIFIED = FindingRule(
    "attestation-unverified",
    "attestation that was not verified",
    why="It is of this verdict; who signed it was not checked.",
    message="{path}: the attestation was not verified: {reason}",
    hint="name whom to trust: `registry validate --public-key KEY.pem`, or `--trust ROOT.pem`",
    example="an attestation, and no key to verify it with",
    severity=Severity.NOTE,
    since="0.2.0",
)
REPRODUCTION_INVALID = FindingRule(
    "reproduction-invalid",
    "result of training again that is not of this entry",
    why="It shows nothing of these bytes.",
    message="the result is of another {what}",
    hint="run `registry reproduce {id} --store` again",
    example="a result that was copied from another entry",
    since="0.2.0",
)
REPRODUCTION_FAILED = FindingRule(
    "reproduction-failed",
    "production entry that was not reproduced",
    why="Training again gave another model, and nothing that is recorded explains it.",
    message="training again gave another model: {outcome}",
    hint="compare `registry reproduce {id} --keep DIR` with the entry, or demote it",
    example='"outcome": "beyond-tolerance"',
    severity=Severity.WARNING,
    since="0.2.0",
)


@dataclass(frozen=True, slots=True)
class Attestation:
    """An attestation that an entry pins and that is of its verdict."""

    pinned: PinnedBundle
    result: VerificationResult


def check_beside(view: VerifiedEntry, policy: Policy, trust: Trust | None = None) -> Iterator[Finding]:
    """Findings on the results and attestations that the promotion pins beside its verdict.

    trust: whom the caller trusts; the policy's signers verify attestations, too.
    """
    if view.entry.promotion is None or "verdict" not in view.entry.promotion:
        return
    results, findings = read_reproductions(view)
    yield from findings
    for path, outcome in results.items():
        if outcome not in REPRODUCED_OUTCOMES:
            yield REPRODUCTION_FAILED.at(InFile(path, view.entry.id), "/outcome", outcome=outcome, id=view.entry.id)
    attestations, findings = read_attestations(view)
    yield from findings
    verified = Verification.of(view, [one.pinned for one in attestations], policy, trust)
    yield from verified.findings(view, "/promotion/attestations", ATTESTATION_INVALID, ATTESTATION_UNVERIFIED)


def read_reproductions(view: VerifiedEntry) -> tuple[dict[str, str], list[Finding]]:
    """(path -> outcome of the stored results of training this entry again, what is wrong with the others)."""
    outcomes: dict[str, str] = {}
    findings: list[Finding] = []
    entry = view.entry
    for number, pin in enumerate((entry.promotion or EMPTY).get("reproductions", ())):
        path, place = pin["path"], InFile(pin["path"], entry.id)
        document = view.pinned_document(path, pin["sha256"], "promotion", "reproductions", number, "sha256")
        if isinstance(document, Finding):
            findings.append(document)
            continue
        if broken := schema_findings(document, schemas.load("reproduction"), path, entry.id):
            findings += broken
            continue
        value = document.value
        for subject, field, found, expected in (
            ("entry", "/entry", value["entry"], entry.id),
            ("manifest", "/manifest_sha256", value.get("manifest_sha256"), entry.sha256),
        ):
            if found != expected:
                findings.append(
                    REPRODUCTION_INVALID.at(place, field, found=found, expected=expected, what=subject, id=entry.id)
                )
        if (value["entry"], value.get("manifest_sha256")) == (entry.id, entry.sha256):
            outcomes[path] = value["outcome"]
    return outcomes, findings


def read_attestations(view: VerifiedEntry) -> tuple[list[Attestation], list[Finding]]:
    """(the attestations of this entry's verdict that it pins, what is wrong with the others); verifies no signature."""
    found: list[Attestation] = []
    findings: list[Finding] = []
    for number, pin in enumerate((view.entry.promotion or EMPTY).get("attestations", ())):
        data = view.pinned_file(pin["path"], pin["sha256"], "promotion", "attestations", number, "sha256")
        if isinstance(data, Finding):
            findings.append(data)
            continue
        try:
            result = VerificationResult.from_bytes(read_container_or_envelope(data).envelope.payload)
            _refuse_other(result, view)
            found.append(Attestation(PinnedBundle(number, pin["path"], data), result))
        except SignatureError as error:
            place, path = f"/promotion/attestations/{number}", pin["path"]
            findings.append(ATTESTATION_INVALID.at(view.row, place, path=path, problem=error, id=view.entry.id))
    return found, findings


def policy_digest(verdict: Mapping[str, Json]) -> str:
    """The sha256 of the policy that a verdict gives in full, as documents are written: sorted keys, two spaces."""
    return sha256_of(dump(verdict["policy"]))


def _refuse_other(result: VerificationResult, view: VerifiedEntry) -> None:
    """Raises SignatureError where a result is not of this entry's manifest, verdict, policy and stored results."""
    entry, promotion = view.entry, view.entry.promotion or EMPTY
    if result.sha256 != entry.sha256:
        raise SignatureError(f"subject: found {result.sha256}, expected {entry.sha256}")
    if result.verdict != promotion.get("sha256"):
        raise SignatureError(f"verifier.verdict: found {result.verdict}, expected {promotion.get('sha256')}")
    document = view.pinned_document(promotion["verdict"], promotion["sha256"], "promotion", "sha256")
    if isinstance(document, Finding):
        raise SignatureError(f"its verdict cannot be read: {document}")
    if (policy := policy_digest(document.value)) != result.policy:
        raise SignatureError(f"verifier.policy: found {result.policy}, expected {policy}")
    if REPRODUCED in result.properties and not set(read_reproductions(view)[0].values()) & set(REPRODUCED_OUTCOMES):
        raise SignatureError(f"properties: {REPRODUCED}, and no stored result of training again says so")
