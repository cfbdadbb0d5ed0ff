"""certificates.py: X.509 certificates of signers, from PEM or DER, and their chain to a trust root. Asks no network.

Paths are built and checked by `cryptography.x509.verification`; on top, the signer's certificate must be for signing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from registry_tool.errors import InputError
from registry_tool.signing.dsse import SignatureError, UntrustedError
from registry_tool.signing.keys import PublicKey, check_public_key, read_pem

# What cryptography raises for parts of a certificate that are none, or that it does not know.
MALFORMED_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
MAX_CHAIN = 16  # certificates in a bundle


def load_certificates(paths: Sequence[Path]) -> list[x509.Certificate]:
    """Every certificate in these PEM files, in order. Raises InputError, naming the file."""
    return [certificate for path in paths for certificate in certificates_in(read_pem(path), str(path))]


def certificates_in(data: bytes, name: str) -> list[x509.Certificate]:
    """Every certificate in these PEM bytes; `name` is how messages call them. Raises InputError where there is none."""
    try:
        return [_readable(certificate) for certificate in x509.load_pem_x509_certificates(data)]
    except MALFORMED_ERRORS:
        raise InputError(f"{name}: found no certificate in PEM form, expected one: check the path") from None


def parse_certificates(ders: Sequence[bytes]) -> list[x509.Certificate]:
    """Certificates from a bundle. Raises SignatureError."""
    if not 0 < len(ders) <= MAX_CHAIN:
        raise SignatureError(f"certificates: found {len(ders)}, expected 1 to {MAX_CHAIN}")
    try:
        return [_readable(x509.load_der_x509_certificate(der)) for der in ders]
    except MALFORMED_ERRORS:
        raise SignatureError("certificates: one of them is malformed, expected certificates in DER form") from None


def _readable(certificate: x509.Certificate) -> x509.Certificate:
    """The same certificate, after its parts were parsed, which is done on first use. Raises one of MALFORMED_ERRORS."""
    _ = certificate.subject.rfc4514_string(), certificate.issuer, certificate.extensions
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.version
    return certificate


def key_of(certificate: x509.Certificate) -> PublicKey:
    """Its public key. Raises SignatureError for an algorithm that is not supported."""
    try:
        return check_public_key(certificate.public_key(), "its key")
    except (InputError, *MALFORMED_ERRORS) as error:
        raise SignatureError(f"the signer's certificate: {error}") from None


def name_of(certificate: x509.Certificate) -> str:
    """Its subject, or its subject alternative names where that is empty (as in keyless certificates)."""
    if certificate.subject.rdns:
        return certificate.subject.rfc4514_string()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "(no name)"
    return ", ".join(str(name.value) for name in names)


def verify_chain(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime) -> None:
    """Whether the first certificate is for signing and leads to one of the roots at this time (UTC).

    Raises SignatureError with the reason: expired, not yet valid, another root, not for signing.
    """
    signer = chain[0]
    for certificate in chain:
        if at < certificate.not_valid_before_utc:
            start = certificate.not_valid_before_utc.isoformat()
            raise SignatureError(
                f"the certificate of {name_of(certificate)} is valid from {start}, which is after {at.isoformat()}: "
                "check this machine's clock"
            )
        if at > certificate.not_valid_after_utc:
            raise SignatureError(
                f"the certificate of {name_of(certificate)} expired on {certificate.not_valid_after_utc.isoformat()}: "
                "sign again with a valid certificate"
            )
    if lack := _lack(signer):
        raise SignatureError(f"the certificate of {name_of(signer)} is not for signing: {lack}")
    policy = PolicyBuilder().store(Store(list(roots))).time(at)
    policy = policy.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
    )
    try:
        policy.build_client_verifier().verify(signer, list(chain[1:]))
    except (VerificationError, *MALFORMED_ERRORS) as error:
        raise UntrustedError(
            f"the certificate of {name_of(signer)} does not lead to a trusted root: {' '.join(str(error).split())}"
        ) from None


def _lack(certificate: x509.Certificate) -> str | None:
    """What a certificate lacks to sign code; None where nothing. As OMS v1.0's conformance suite has it."""
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return "its key usage has no digitalSignature"
    except x509.ExtensionNotFound:
        pass  # a key without a stated usage may be used for anything
    try:
        if ExtendedKeyUsageOID.CODE_SIGNING in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            return None
    except x509.ExtensionNotFound:
        pass
    return "its extended key usage has no codeSigning"
