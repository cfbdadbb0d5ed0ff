"""svr.py: a Simple Verification Result: what a verifier found true of a subject. Opens no file.

Source: in-toto attestation framework, Statement v1 and its predicate svr v0.1, whose list of what was verified is named
`properties`. `policy` and `verdict` extend its `verifier`, as the specification lets verifiers with policies do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from registry_tool.signing.dsse import SignatureError, mapping, text
from registry_tool.signing.statement import STATEMENT_TYPE, read_statement, read_subject
from registry_tool.values import SHA256_PATTERN, Json

SVR_PREDICATE = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER_ID = "urn:registry-tool:gate:1"  # its number changes with what it verifies
PROMOTED = "REGISTRY_PROMOTED"  # the pinned verdict promotes the subject by the policy; its evidence was recomputed
REPRODUCED = "REGISTRY_REPRODUCED"  # training again gave the same bytes, or predictions within tolerance; it is stored
PROPERTY_PATTERN = re.compile(r"[A-Z][A-Z0-9_]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """subject: the manifest's path. sha256, policy, verdict: hex digests of manifest, policy and verdict.

    time: when it was verified (UTC). properties: what was found true; PROMOTED or REPRODUCED, or another verifier's.
    """

    subject: str
    sha256: str
    policy: str
    verdict: str
    time: datetime
    properties: tuple[str, ...]
    verifier: str = VERIFIER_ID

    def to_bytes(self) -> bytes:
        verifier = {
            "id": self.verifier,
            "policy": {"digest": {"sha256": self.policy}},
            "verdict": {"digest": {"sha256": self.verdict}},
        }
        document = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": self.subject, "digest": {"sha256": self.sha256}}],
            "predicateType": SVR_PREDICATE,
            "predicate": {
                "verifier": verifier,
                "timeCreated": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "properties": list(self.properties),
            },
        }
        return json.dumps(document, indent=2).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> VerificationResult:
        """Raises SignatureError, naming the field, for anything else than such a statement."""
        document = read_statement(payload, SVR_PREDICATE)
        name, digest = read_subject(document)
        predicate = mapping(document.get("predicate"), "predicate")
        verifier = mapping(predicate.get("verifier"), "predicate.verifier")
        properties = predicate.get("properties")
        if not isinstance(properties, list) or not all(
            isinstance(p, str) and PROPERTY_PATTERN.match(p) for p in properties
        ):
            raise SignatureError("predicate.properties: expected a list of names in upper case")
        return cls(
            name,
            _sha256(digest, "subject.digest.sha256"),
            _digest(verifier, "policy"),
            _digest(verifier, "verdict"),
            _time(text(predicate.get("timeCreated"), "predicate.timeCreated")),
            tuple(properties),
            text(verifier.get("id"), "predicate.verifier.id"),
        )


def _digest(verifier: Mapping[str, Json], field: str) -> str:
    place = f"predicate.verifier.{field}"
    digest = mapping(mapping(verifier.get(field), place).get("digest"), f"{place}.digest")
    return _sha256(text(digest.get("sha256"), f"{place}.digest.sha256"), f"{place}.digest.sha256")


def _sha256(value: str, field: str) -> str:
    if not SHA256_PATTERN.match(value):
        raise SignatureError(f"{field}: expected 64 lower-case hex digits")
    return value


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise SignatureError(f"predicate.timeCreated: found {value[:40]!r}, expected an RFC 3339 time")
    return time
