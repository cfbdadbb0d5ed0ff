"""keys.py: private and public keys in PEM files, and signatures by them. Never prints or stores a private key.

Algorithms: ECDSA on P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512, and Ed25519, as OMS v1.0 allows.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from registry_tool.errors import InputError
from registry_tool.signing.dsse import SignatureError
from registry_tool.storage.named import read_named

KEY_MAX_BYTES = 64 * 1024
CURVE_HASHES: dict[str, HashAlgorithm] = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
NAMED_HASHES: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
SUPPORTED_KEYS = "an elliptic-curve key on P-256, P-384 or P-521, or an Ed25519 key"
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A private key, and what the user should know about its file."""

    key: PrivateKey
    warnings: tuple[str, ...] = ()


def read_pem(path: Path, expected: str = "a PEM file") -> bytes:
    """The bytes of a small file; see `read_named`."""
    return read_named(path, KEY_MAX_BYTES, expected)


def load_private_key(path: Path, password: Callable[[], bytes | None]) -> LoadedKey:
    """password: asked only where the key is encrypted. Raises InputError for anything that is no usable private key."""
    data = read_pem(path)
    if b"PRIVATE KEY" not in data:
        found = "a public key" if b"PUBLIC KEY" in data else "no private key"
        raise InputError(f"{path}: found {found}, expected a private key in PEM form: name the private key")
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            secret = password()
            if not secret:
                raise InputError(
                    f"{path}: the private key is protected by a password: give --password-file FILE"
                ) from None
            key = load_pem_private_key(data, secret)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path}: the private key cannot be read: wrong password, or a damaged file") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise InputError(f"{path}: found a key of another algorithm, expected {SUPPORTED_KEYS}")
    check_public_key(key.public_key(), str(path))
    warnings = []
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings.append(f"{path}: other users can read this private key: run `chmod 600 {path}`")
    return LoadedKey(key, tuple(warnings))


def load_public_key(path: Path) -> PublicKey:
    """Raises InputError for a file that is no public key of a supported algorithm."""
    return public_key(read_pem(path), str(path))


def public_key(data: bytes, name: str) -> PublicKey:
    """The public key in these PEM bytes; `name` is how messages call them. Raises InputError."""
    if b"PRIVATE KEY" in data:
        raise InputError(f"{name}: found a private key, expected a public key: keep the private key to yourself")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{name}: it is not a public key in PEM form: check the path") from None
    return check_public_key(key, name)


def check_public_key(key: object, name: str) -> PublicKey:
    """The same key, if its algorithm is supported. Raises InputError."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVE_HASHES:
        return key
    raise InputError(f"{name}: found a key of another algorithm, expected {SUPPORTED_KEYS}")


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo in PEM form, in hex: the `hint` of an OMS bundle."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def name_of_key(key: PublicKey) -> str:
    """How a key is called in what people read."""
    return f"key {fingerprint(key)[:12]}"


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The signature over the data, with the hash that belongs to the key's curve."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(CURVE_HASHES[key.curve.name]))


def verify(key: PublicKey, signature: bytes, data: bytes, hash_name: str | None = None) -> None:
    """Raises SignatureError where the signature is not this key's over this data.

    hash_name: of a signer that says with which hash an elliptic curve signed; None is the one of its curve.
    """
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(
                signature, data, ec.ECDSA(NAMED_HASHES[hash_name] if hash_name else CURVE_HASHES[key.curve.name])
            )
    except InvalidSignature:
        raise SignatureError("the signature does not hold: the content was changed, or another key signed it") from None
