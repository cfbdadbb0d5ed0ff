"""bundle.py: an OMS v1.0 bundle: a statement signed by a key or by a certificate chain, read and verified offline.

The form is a Sigstore bundle v0.3 with a DSSE envelope. Nothing is trusted that the caller did not hand in as trusted.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from registry_tool.errors import InputError
from registry_tool.signing.certificates import key_of, name_of, parse_certificates, verify_chain
from registry_tool.signing.container import MEDIA_TYPE, Container, read_container, read_container_or_envelope
from registry_tool.signing.dsse import IN_TOTO, Envelope, SignatureError, UntrustedError, decoded, mapping
from registry_tool.signing.keys import PrivateKey, PublicKey, fingerprint, name_of_key, sign, verify
from registry_tool.values import Json

MAX_TIME = 253_402_300_799  # s since 1970; the year 9999 ends
KEYLESS_UNCHECKED = (
    "the entry in the transparency log, which needs the log's key",
    "the time of signing, which the log vouches for",
    "that this identity is the one you expect",
)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the caller trusts: keys, or roots of certificates; and the time (UTC) that certificates are judged at."""

    at: datetime
    keys: Sequence[PublicKey] = ()
    roots: Sequence[x509.Certificate] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds. signer: who made it, for people. key: the fingerprint of the key that made it.

    unchecked: what could not be checked offline.
    """

    payload: bytes
    signer: str
    key: str
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """Who signed: exactly one of `hint` (a key's fingerprint, may be empty) and `chain`.

    keyless: the chain is one short-lived certificate of a Sigstore authority.
    """

    hint: str | None = None
    chain: tuple[x509.Certificate, ...] = ()
    keyless: bool = False
    logged_at: int | None = None  # s since 1970, as the log entry says; nothing here proves it


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as read."""

    envelope: Envelope
    material: Material


def sign_envelope(payload: bytes, key: PrivateKey) -> bytes:
    """An envelope without a bundle, whose keyid is the fingerprint of the key."""
    signature = sign(key, Envelope(IN_TOTO, payload, ()).signed)
    envelope = Envelope(IN_TOTO, payload, (signature,), fingerprint(key.public_key()))
    return (json.dumps(envelope.to_dict(), indent=2) + "\n").encode()


def sign_statement(payload: bytes, key: PrivateKey, chain: Sequence[x509.Certificate] = ()) -> bytes:
    """A bundle of this statement. chain: the signer's certificate first; without one the bundle names the key.

    Raises InputError where the first certificate belongs to another key.
    """
    material: dict[str, Json] = {"publicKey": {"hint": fingerprint(key.public_key())}}
    if chain:
        if chain[0].public_key() != key.public_key():
            raise InputError("--cert: found the certificate of another key, expected one for the private key")
        certificates = [{"rawBytes": _base64(certificate.public_bytes(Encoding.DER))} for certificate in chain]
        material = {"x509CertificateChain": {"certificates": certificates}}
    unsigned = Envelope(IN_TOTO, payload, ())
    envelope = Envelope(IN_TOTO, payload, (sign(key, unsigned.signed),))
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": envelope.to_dict(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def read_bundle(data: bytes) -> Bundle:
    """Raises SignatureError, naming the field, for anything that is no bundle; verifies nothing."""
    container = read_container(data)
    return Bundle(container.envelope, read_material(container.material))


def read_material(value: Json) -> Material:
    """Who signed, as the verification material of any Sigstore bundle says it. Raises SignatureError."""
    material = mapping(value, "verificationMaterial")
    named = [name for name in ("publicKey", "x509CertificateChain", "certificate") if name in material]
    if len(named) != 1:
        raise SignatureError(
            f"verificationMaterial: found {' and '.join(named) or 'no signer'}, "
            "expected one of publicKey, x509CertificateChain, certificate"
        )
    signer = mapping(material[named[0]], named[0])
    if named == ["publicKey"]:
        return Material(hint=_hint(signer))
    if named == ["certificate"]:
        chain = parse_certificates([decoded(signer.get("rawBytes"), "certificate.rawBytes")])
        return Material(chain=tuple(chain), keyless=True, logged_at=logged_at(material))
    certificates = signer.get("certificates")
    if not isinstance(certificates, list):
        raise SignatureError("x509CertificateChain.certificates: expected a list")
    ders = [decoded(mapping(c, "certificates").get("rawBytes"), "certificates.rawBytes") for c in certificates]
    return Material(chain=tuple(parse_certificates(ders)))


def _hint(signer: Mapping[str, Json]) -> str:
    """A key's fingerprint; empty in bundles of before the reference implementation's 1.1.0, which hold the key."""
    hint = signer.get("hint") or ""
    if not isinstance(hint, str):
        raise SignatureError("publicKey.hint: expected text")
    if not hint and "rawBytes" not in signer:
        raise SignatureError("publicKey: found neither hint nor rawBytes")
    return hint


def verify_bundle(data: bytes, trust: Trust) -> Verified:
    """The signed statement of a bundle whose signer is trusted. Raises SignatureError with the reason."""
    bundle = read_bundle(data)
    return _verified(bundle.envelope, bundle.material, trust)


def verify_container(data: bytes, trust: Trust) -> Verified:
    """The same of an envelope without a bundle, too: its keyid names the key, where it has one."""
    container = read_container_or_envelope(data)
    return _verified(container.envelope, _material_of(container), trust)


def _verified(envelope: Envelope, material: Material, trust: Trust) -> Verified:
    signed, signature = envelope.signed, envelope.signatures[0]
    signer, key = verify_signer(material, trust, lambda key: verify(key, signature, signed))
    return Verified(envelope.payload, signer, fingerprint(key), KEYLESS_UNCHECKED if material.keyless else ())


def verify_signer(material: Material, trust: Trust, holds: Callable[[PublicKey], None]) -> tuple[str, PublicKey]:
    """(the name, the key) of the trusted signer whose signature holds.

    holds: raises SignatureError for a key that did not sign. Raises UntrustedError where the signer is not one of the
    trusted, else SignatureError with the reason.
    """
    if not material.chain:
        key = _verify_key(material.hint or "", trust.keys, holds)
        return name_of_key(key), key
    if not trust.roots:
        raise UntrustedError("the bundle is signed with a certificate: name the root to trust with --trust ROOT.pem")
    at = trust.at
    if material.keyless and material.logged_at is not None:
        at = datetime.fromtimestamp(material.logged_at, trust.at.tzinfo)
    verify_chain(material.chain, trust.roots, at)
    holds(key := key_of(material.chain[0]))
    return name_of(material.chain[0]), key


def claimed_key(data: bytes) -> str:
    """The fingerprint of the key that a bundle or an envelope names, without any proof; empty where it names none."""
    material = _material_of(read_container_or_envelope(data))
    return fingerprint(key_of(material.chain[0])) if material.chain else material.hint or ""


def claimed_signer(data: bytes) -> str:
    """Who signed, as the bundle or the envelope says without any proof."""
    material = _material_of(read_container_or_envelope(data))
    if material.chain:
        return name_of(material.chain[0])
    return f"key {material.hint[:12]}" if material.hint else "a key that it does not name"


def _material_of(container: Container) -> Material:
    if container.material is None:
        return Material(hint=container.envelope.keyid)
    return read_material(container.material)


def _verify_key(hint: str, keys: Sequence[PublicKey], holds: Callable[[PublicKey], None]) -> PublicKey:
    if not keys:
        raise UntrustedError("the bundle is signed with a key: name the key to trust with --public-key KEY.pem")
    named = [key for key in keys if hint in ("", fingerprint(key))]
    if not named:
        raise UntrustedError(f"the bundle names the key {hint[:12]}..., which is not a trusted one")
    refusals: list[SignatureError] = []
    for key in named:
        try:
            holds(key)
            return key
        except SignatureError as error:
            refusals.append(error)
    raise refusals[-1]


def logged_at(material: Mapping[str, Json]) -> int:
    """The time that a bundle's log entry names, in seconds since 1970. Raises SignatureError where it names none."""
    entries = material.get("tlogEntries")
    if not isinstance(entries, list) or not entries:
        raise SignatureError("tlogEntries: found none, expected one for a certificate without a chain")
    logged = mapping(entries[0], "tlogEntries").get("integratedTime")
    if not isinstance(logged, str) or not logged.isdecimal() or not logged.isascii() or int(logged[:13]) > MAX_TIME:
        raise SignatureError("tlogEntries.integratedTime: expected seconds since 1970, as text")
    return int(logged)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
