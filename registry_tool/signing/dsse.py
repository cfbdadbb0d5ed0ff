"""dsse.py: a DSSE envelope: bytes of one type, and the signatures over them. Knows no key and no statement.

Source: Dead Simple Signing Envelope v1.0 (secure-systems-lab/dsse), protocol.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from registry_tool.errors import RejectedError
from registry_tool.values import Json

IN_TOTO = "application/vnd.in-toto+json"  # the payload type of in-toto statements


class SignatureError(RejectedError):
    """A signature that does not hold, or a bundle that cannot be one; the message says why."""


class UntrustedError(SignatureError):
    """A signature by another signer than those that the caller trusts."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """payload: the signed bytes. signatures: raw signature bytes, at least one. keyid: names the key, unsigned."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]
    keyid: str = ""

    @property
    def signed(self) -> bytes:
        """What a signature covers: the pre-authentication encoding of type and payload."""
        return pae(self.payload_type, self.payload)

    def to_dict(self) -> dict[str, Json]:
        signatures = [{"sig": _encode(signature), "keyid": self.keyid} for signature in self.signatures]
        return {"payload": _encode(self.payload), "payloadType": self.payload_type, "signatures": signatures}

    @classmethod
    def from_dict(cls, document: Json) -> Envelope:
        """Raises SignatureError, naming the field, for anything that is no envelope."""
        fields = mapping(document, "dsseEnvelope")
        signatures = fields.get("signatures")
        if not isinstance(signatures, list) or not signatures:
            raise SignatureError("dsseEnvelope.signatures: found none, expected at least one signature")
        if len(signatures) > 1:
            raise SignatureError(f"dsseEnvelope.signatures: found {len(signatures)}, expected one signature")
        return cls(
            text(fields.get("payloadType"), "dsseEnvelope.payloadType"),
            decoded(fields.get("payload"), "dsseEnvelope.payload"),
            (decoded(mapping(signatures[0], "signatures").get("sig"), "dsseEnvelope.signatures.sig"),),
            keyid if isinstance(keyid := signatures[0].get("keyid"), str) else "",
        )


def pae(payload_type: str, payload: bytes) -> bytes:
    """`DSSEv1 LEN(type) type LEN(payload) payload`: lengths in bytes, in decimal."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def mapping(value: Json, field: str) -> Mapping[str, Json]:
    """The value of a field that must be an object. Raises SignatureError."""
    if not isinstance(value, dict):
        raise SignatureError(f"{field}: found {_kind(value)}, expected an object")
    return value


def text(value: Json, field: str) -> str:
    """The value of a field that must be text, not empty. Raises SignatureError."""
    if not isinstance(value, str) or not value:
        raise SignatureError(f"{field}: found {_kind(value)}, expected text")
    return value


def decoded(value: Json, field: str) -> bytes:
    """The bytes of a field that must be Base64, not empty. Raises SignatureError."""
    try:
        return base64.b64decode(text(value, field).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise SignatureError(f"{field}: it is not valid Base64") from None


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _kind(value: Json) -> str:
    return "nothing" if value in (None, "") else f"a {type(value).__name__}"
