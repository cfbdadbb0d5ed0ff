"""attest.py: the stories of attesting an entry's verdict and of verifying attestations. No click, no printing."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry_tool.checks.attestations import (
    REPRODUCED_OUTCOMES,
    Attestation,
    policy_digest,
    read_attestations,
    read_reproductions,
)
from registry_tool.checks.entry import check_entry
from registry_tool.checks.signatures import verify_all
from registry_tool.documents import store
from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.errors import RejectedError
from registry_tool.findings import Finding, errors_of
from registry_tool.plugins.manager import Plugins
from registry_tool.signing.bundle import Trust
from registry_tool.signing.svr import PROMOTED, REPRODUCED, VERIFIER_ID, VerificationResult
from registry_tool.storage.staging import remove_from
from registry_tool.storage.writing import write_atomic
from registry_tool.values import EMPTY, Entry
from registry_tool.workflows.loading import (
    changing,
    inspected,
    refuse_without_verdict,
    usable,
    verified,
    verified_entry,
)
from registry_tool.workflows.sign import Signer, make_attestation
from registry_tool.workflows.sign_entry import Vouched, is_by, refuse_inside, refuse_older, trusted_by


@dataclass(frozen=True, slots=True)
class Attested:
    """What `attest` did. path: of the new file, relative to the registry."""

    entry: Entry
    result: VerificationResult
    path: str
    signer: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attestations(Vouched):
    """What `verify-attestation` found, of the attestations of an entry's verdict."""

    attestations: tuple[Attestation, ...]


def attest(
    path: Path, plugins: Plugins, entry_id: str, signer: Signer, time: datetime, verifier: str = VERIFIER_ID
) -> Attested:
    """Sign what the verdict of a production entry says, after everything was checked again.

    Raises RejectedError for an entry that was not promoted by a verdict, or that does not validate now.
    """
    plugins.need_all()
    refuse_inside(path, signer.key)
    with changing(path) as loaded:
        refuse_older(path, loaded.registry.schema_version)
        with inspected(loaded, plugins) as inspection:
            view = verified(inspection, entry_id)
            refuse_without_verdict(view.entry)
            errors = errors_of(check_entry(view, inspection))
            if errors and any(f.code != "attestation-invalid" for f in errors):
                raise RejectedError(f"{entry_id}: it does not validate, so there is nothing to attest: {errors[0]}")
            result = _result(view, time, verifier)
            known = read_attestations(view)[0]
        data, made = make_attestation(result.to_bytes(), signer)
        digest = sha256_of(data)
        target = f"{entry_id}/verdicts/ATTESTATION-{digest[:12]}.json"
        entry, promotion = view.entry, dict(view.entry.promotion or EMPTY)
        kept = {one.pinned.path for one in known if not is_by(one.pinned, made.key)}
        pins = [pin for pin in promotion.get("attestations", ()) if pin["path"] in kept]
        removed = [pin["path"] for pin in promotion.get("attestations", ()) if pin["path"] not in kept]
        write_atomic(path.parent / target, data, root=path.parent)
        promotion["attestations"] = [*pins, {"path": target, "sha256": digest}]
        store.save(path, loaded.registry.with_entry(entry.with_fields(promotion=promotion)))
        for old in removed:
            if posixpath.basename(old).startswith("ATTESTATION-"):
                remove_from(path.parent, f"{entry_id}/verdicts", old)
    return Attested(entry, result, target, made.name, made.warnings)


def _result(view: VerifiedEntry, time: datetime, verifier: str) -> VerificationResult:
    entry, promotion = view.entry, view.entry.promotion or EMPTY
    document = view.pinned_document(promotion["verdict"], promotion["sha256"], "promotion", "sha256")
    if isinstance(document, Finding):
        raise RejectedError(f"{entry.id}: {document}")
    reproduced = set(read_reproductions(view)[0].values()) & set(REPRODUCED_OUTCOMES)
    properties = (PROMOTED, REPRODUCED) if reproduced else (PROMOTED,)
    policy = policy_digest(document.value)
    return VerificationResult(
        entry.path, entry.sha256, policy, promotion["sha256"], time.astimezone(UTC), properties, verifier
    )


def verify_attestations(path: Path, plugins: Plugins, entry_id: str, trust: Trust | None, at: datetime) -> Attestations:
    """Who attests the verdict of an entry whose digests hold. trust: None takes the signers of the entry's policy.

    Raises InputError where nothing is trusted, RejectedError where a digest of the entry does not hold.
    """
    loaded = usable(path)
    with verified_entry(loaded, plugins, entry_id) as view:
        trust = trust or trusted_by(view, loaded.registry, at)
        found, findings = read_attestations(view)
    signatures = verify_all([one.pinned for one in found], trust)
    return Attestations(view.entry, signatures, tuple(findings), tuple(found))
