"""signatures.py: what verifying signatures and attestations showed, for people and as JSON. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tool.report import text
from registry_tool.values import Json, visible

if TYPE_CHECKING:
    from registry_tool.checks.signatures import PinnedBundle, Signatures
    from registry_tool.signing.bundle import Verified
    from registry_tool.workflows.attest import Attestations
    from registry_tool.workflows.sign_entry import EntrySignatures, Vouched


def path_lines(path: Path, verified: Verified) -> Iterator[str]:
    """Who signed a folder or a file, and what could not be checked."""
    yield visible(f"{path}: signed by {verified.signer}")
    yield from (f"not checked: {item}" for item in verified.unchecked)


def path_document(path: Path, verified: Verified) -> dict[str, Json]:
    """The JSON of `verify-signature --path --format json`; its schema is schemas/signature.schema.json."""
    return {"path": str(path), "signer": verified.signer, "unchecked": list(verified.unchecked)}


def entry_lines(found: EntrySignatures) -> Iterator[str]:
    """A line for each bundle of an entry, and what is wrong with those that cover nothing."""
    rows = ((row["bundle"], "", row) for row in _signature_rows(found))
    return _lines(found, rows, "it is not signed", "sign")


def entry_document(found: EntrySignatures) -> dict[str, Json]:
    """The JSON of `verify-signature ID --format json`; its schema is schemas/signatures.schema.json."""
    return _document(found, "signatures", _signature_rows(found))


def attestation_lines(found: Attestations) -> Iterator[str]:
    """A line for each attestation of an entry's verdict, and what is wrong with the others."""

    def claim(row: Mapping[str, Json]) -> str:
        return f"{', '.join(row['properties']) or 'nothing'} at {row['time']} by {row['verifier']}, "

    rows = ((row["path"], claim(row), row) for row in _attestation_rows(found))
    return _lines(found, rows, "nothing attests its verdict", "attest")


def attestations_document(found: Attestations) -> dict[str, Json]:
    """The JSON of `verify-attestation ID --format json`; its schema is schemas/attestations.schema.json."""
    return _document(found, "attestations", _attestation_rows(found))


def _lines(
    found: Vouched, rows: Iterable[tuple[str, str, Mapping[str, Json]]], none: str, command: str
) -> Iterator[str]:
    """rows: file, what it claims, how it was verified. none: what an entry without any is; command: what makes one."""
    name, n_rows = found.entry.id, 0
    for path, claim, row in rows:
        n_rows += 1
        problem = row["problem"]
        words = f"signed by {row['signer']}" if problem is None else f"NOT verified: {problem}"
        yield visible(f"{name}: {claim}{words} ({path})")
        yield from (f"not checked: {item}" for item in row["unchecked"])
    yield from (text.finding(finding) for finding in found.findings)
    if not n_rows and not found.findings:
        yield f"{name}: {none}: `registry {command} {name} --key PEM` does that"


def _document(found: Vouched, name: str, rows: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    return {
        "entry": found.entry.id,
        "holds": found.holds,
        name: list(rows),
        "findings": [finding.to_dict() for finding in found.findings],
    }


def _signature_rows(found: EntrySignatures) -> Iterator[dict[str, Json]]:
    for bundle in found.bundles:
        yield {"bundle": bundle.path, **_verification(bundle, found.signatures)}


def _attestation_rows(found: Attestations) -> Iterator[dict[str, Json]]:
    for one in found.attestations:
        result = one.result
        yield {
            "path": one.pinned.path,
            "verifier": result.verifier,
            "time": result.time.isoformat(),
            "subject": result.subject,
            "sha256": result.sha256,
            "policy_sha256": result.policy,
            "verdict_sha256": result.verdict,
            "properties": list(result.properties),
            **_verification(one.pinned, found.signatures),
        }


def _verification(pinned: PinnedBundle, signatures: Signatures) -> dict[str, Json]:
    verified = signatures.verified.get(pinned.number)
    refused = signatures.refused.get(pinned.number, signatures.unverified.get(pinned.number))
    return {
        "signer": verified.signer if verified else None,
        "unchecked": list(verified.unchecked) if verified else [],
        "problem": None if refused is None else str(refused),
    }
