"""certificates.py: keys and certificates for tests of signatures, made on the spot. Tests nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
MAKERS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256k": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its public key, in files."""

    key: Any
    private: Path
    public: Path


def key_pair(folder: Path, name: str, algorithm: str = "p256", password: str | None = None) -> KeyPair:
    key = MAKERS[algorithm]()
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return KeyPair(key, private, public)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key, and the file it is in."""

    pair: KeyPair
    certificate: x509.Certificate
    path: Path


@dataclass(frozen=True, slots=True)
class Use:
    """What a certificate is for: to issue others, or to sign. purpose: the extended key usage of a signer's.

    subject: whom it names, where that is not the name of its file.
    """

    authority: bool = False
    signs: bool = True
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING
    subject: str | None = None


SIGNING, AUTHORITY = Use(), Use(authority=True)


def issue(
    folder: Path,
    name: str,
    issuer: Issued | None = None,
    *,
    algorithm: str = "p256",
    use: Use = SIGNING,
    days: tuple[int, int] = (-1, 30),
) -> Issued:
    """A certificate, self-signed without an issuer. days: from when to when it is valid, from today."""
    pair = key_pair(folder, name, algorithm)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, use.subject or name)])
    parent = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent)
        .public_key(pair.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(use.authority, None), critical=True)
        .add_extension(
            usage(digital_signature=use.signs and not use.authority, certificates=use.authority), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(pair.key.public_key()), critical=False)
    )
    above = issuer.pair.key if issuer else pair.key
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key())
    builder = builder.add_extension(identifier, critical=False)
    if not use.authority and use.purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use.purpose]), critical=False)
    hashed = None if isinstance(above, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(above, hashed)
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return Issued(pair, certificate, path)


def usage(*, digital_signature: bool, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
