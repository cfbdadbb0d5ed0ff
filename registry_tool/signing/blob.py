"""blob.py: a Sigstore bundle over one file, as `cosign sign-blob` makes it. Its digest, and its signature on demand.

Read are bundles of version 0.1 to 0.3, with a message signature or an envelope, and cosign's own older form, a flat
object. What is signed is the file itself, or its digest in an in-toto statement.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry_tool.signing.dsse import Envelope, SignatureError, decoded, mapping, text
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.values import Json

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Material, Trust, Verified
    from registry_tool.signing.keys import PublicKey

MEDIA_TYPES = "application/vnd.dev.sigstore.bundle"  # how those of all versions begin
# As bundles call them -> as hashlib does.
DIGEST_NAMES = {
    "SHA2_256": "sha256",
    "SHA2_384": "sha384",
    "SHA2_512": "sha512",
}


@dataclass(frozen=True, slots=True)
class BlobBundle:
    """A bundle over a file. digests: (hash's name, hex digest) of what is signed; cosign's older form may name none.

    signed: what the signature is over; None where that is the file itself. hash_name: with which the signer hashed it.
    """

    digests: tuple[tuple[str, str], ...]
    signature: bytes
    material: Mapping[str, Json]
    signed: bytes | None = None
    hash_name: str | None = None

    def refuse_other(self, sha256: str, read: Callable[[], bytes]) -> None:
        """Raises SignatureError where none of its digests is the file's. read: the file, where sha256 is not enough."""
        if not self.digests:
            return
        for name, digest in self.digests:
            if digest == (sha256 if name == "sha256" else hashlib.new(name, read()).hexdigest()):
                return
        found = ", ".join(digest for _, digest in self.digests)[:140]
        raise SignatureError(f"it signs another file: found {found}, expected {sha256}")


def read_blob_bundle(data: bytes) -> BlobBundle:
    """Raises SignatureError, naming the field, for anything that is no bundle over a file; verifies nothing."""
    document = _object(data, "bundle")
    if "base64Signature" in document:
        return _flat(document)
    media = document.get("mediaType")
    if not isinstance(media, str) or not media.startswith(MEDIA_TYPES):
        raise SignatureError("it is not a Sigstore bundle: it has no mediaType of one")
    material = mapping(document.get("verificationMaterial"), "verificationMaterial")
    if "messageSignature" in document:
        message = mapping(document["messageSignature"], "messageSignature")
        digest = mapping(message.get("messageDigest"), "messageDigest")
        name = DIGEST_NAMES.get(str(digest.get("algorithm")))
        if name is None:
            known = ", ".join(DIGEST_NAMES)
            raise SignatureError(f"messageDigest.algorithm: found {digest.get('algorithm')!r}, expected one of {known}")
        found = decoded(digest.get("digest"), "messageDigest.digest").hex()
        signature = decoded(message.get("signature"), "messageSignature.signature")
        return BlobBundle(((name, found),), signature, material, hash_name=name)
    envelope = Envelope.from_dict(document.get("dsseEnvelope"))
    return BlobBundle(_subjects(envelope.payload), envelope.signatures[0], material, envelope.signed)


def _object(data: bytes, field: str) -> Mapping[str, Json]:
    """The JSON object in the bytes of a field. Raises SignatureError."""
    try:
        return mapping(parse(data).value, field)
    except JsonProblem as problem:
        raise SignatureError(f"{field}: it is not JSON ({problem.code})") from None


def _subjects(payload: bytes) -> tuple[tuple[str, str], ...]:
    """The digests of a statement's subjects."""
    subjects = _object(payload, "statement").get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise SignatureError("subject: found none, expected at least one")
    digests = [mapping(mapping(subject, "subject").get("digest"), "subject.digest") for subject in subjects]
    return tuple(("sha256", text(digest.get("sha256"), "subject.digest.sha256")) for digest in digests)


def _flat(document: Mapping[str, Json]) -> BlobBundle:
    """cosign's older form: its certificate or key is PEM in Base64, its digest is in the log entry alone."""
    material: dict[str, Json] = {"pem": document.get("cert") or ""}
    digests: tuple[tuple[str, str], ...] = ()
    if (log := document.get("rekorBundle")) is not None:
        entry = mapping(mapping(log, "rekorBundle").get("Payload"), "rekorBundle.Payload")
        place = "rekorBundle.Payload.body"
        body = _object(decoded(entry.get("body"), place), place)
        data = mapping(mapping(body.get("spec"), "spec").get("data"), "spec.data")
        found = mapping(data.get("hash"), "spec.data.hash")
        digests = ((_known(found.get("algorithm")), text(found.get("value"), "spec.data.hash.value")),)
        material["tlogEntries"] = [{"integratedTime": str(entry.get("integratedTime"))}]
    return BlobBundle(digests, decoded(document["base64Signature"], "base64Signature"), material, hash_name="sha256")


def _known(name: Json) -> str:
    if name not in DIGEST_NAMES.values():
        raise SignatureError(
            f"spec.data.hash.algorithm: found {name!r}, expected one of {', '.join(DIGEST_NAMES.values())}"
        )
    return str(name)


def verify_blob(bundle: BlobBundle, data: bytes, trust: Trust) -> Verified:
    """The signature over a file whose digest was compared. Raises SignatureError with the reason."""
    from registry_tool.signing.bundle import KEYLESS_UNCHECKED, Verified, verify_signer
    from registry_tool.signing.keys import fingerprint, verify

    material = _material(bundle.material, trust)
    signed = data if bundle.signed is None else bundle.signed
    signer, key = verify_signer(material, trust, lambda key: verify(key, bundle.signature, signed, bundle.hash_name))
    return Verified(signed, signer, fingerprint(key), KEYLESS_UNCHECKED if material.keyless else ())


def _material(value: Mapping[str, Json], trust: Trust) -> Material:
    """Who signed. A chain with a log entry is keyless: only the log vouches for its time."""
    from registry_tool.signing.bundle import Material, logged_at, read_material
    from registry_tool.signing.certificates import certificates_in

    if "pem" in value:
        pem = decoded(value["pem"], "cert") if value["pem"] else b""
        chain = tuple(certificates_in(pem, "cert")) if b"CERTIFICATE" in pem else ()
        material = Material(chain=chain) if chain else Material(hint="")
    else:
        material = read_material(value)
    if material.chain:
        logged = bool(value.get("tlogEntries"))
        return replace(material, keyless=logged, logged_at=logged_at(value) if logged else None)
    return replace(
        material, hint=next((hint for key in trust.keys for hint in _own(key, material.hint)), material.hint)
    )


def _own(key: PublicKey, hint: str | None) -> list[str]:
    """The key's fingerprint, where the hint is cosign's for it: SHA-256 of the key in DER form, in Base64."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from registry_tool.signing.keys import fingerprint

    der = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return [fingerprint(key)] if hint in (base64.b64encode(der).decode(), der.hex()) else []
