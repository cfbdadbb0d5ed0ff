"""container.py: the outer JSON of a Sigstore bundle and of a bare envelope: which part is which. Verifies nothing.

Source: Sigstore protobuf-specs, Bundle v0.3; OpenSSF Model Signing v1.0, section 4. Needs no cryptography.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry_tool.signing.dsse import IN_TOTO, Envelope, SignatureError, mapping
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.values import Json

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Container:
    """An in-toto envelope and who signed it. material: of a bundle; None where the envelope comes without one."""

    envelope: Envelope
    material: Mapping[str, Json] | None


def read_container(data: bytes) -> Container:
    """A bundle. Raises SignatureError, naming the field, for anything else."""
    return _bundle(_object(data))


def read_container_or_envelope(data: bytes) -> Container:
    """A bundle, or an envelope without a bundle. Raises SignatureError, naming the field, for anything else."""
    document = _object(data)
    if "payloadType" not in document:
        return _bundle(document)
    if unknown := sorted(set(document) - {"payload", "payloadType", "signatures"}):
        raise SignatureError(f"envelope: found the unknown field {unknown[0]!r}")
    return Container(_envelope(document), None)


def _object(data: bytes) -> Mapping[str, Json]:
    try:
        return mapping(parse(data, max_bytes=BUNDLE_MAX_BYTES).value, "bundle")
    except JsonProblem as problem:
        raise SignatureError(f"bundle: it cannot be read: {problem}") from None


def _bundle(document: Mapping[str, Json]) -> Container:
    if (media := document.get("mediaType")) != MEDIA_TYPE:
        raise SignatureError(f"mediaType: found {media!r}, expected {MEDIA_TYPE!r}")
    if unknown := sorted(set(document) - {"mediaType", "verificationMaterial", "dsseEnvelope"}):
        raise SignatureError(f"bundle: found the unknown field {unknown[0]!r}")
    material = mapping(document.get("verificationMaterial"), "verificationMaterial")
    return Container(_envelope(document.get("dsseEnvelope")), material)


def _envelope(value: Json) -> Envelope:
    envelope = Envelope.from_dict(value)
    if envelope.payload_type != IN_TOTO:
        raise SignatureError(f"dsseEnvelope.payloadType: found {envelope.payload_type!r}, expected {IN_TOTO!r}")
    return envelope
