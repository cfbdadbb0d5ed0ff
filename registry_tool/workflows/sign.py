"""sign.py: the stories of signing and of verifying signatures. No click, no printing.

Nothing here changes what an entry's verdict covers: a signature is over the entry's artifact folder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.signing.bundle import Trust, Verified, sign_envelope, sign_statement, verify_bundle
from registry_tool.signing.certificates import load_certificates, name_of
from registry_tool.signing.container import BUNDLE_MAX_BYTES
from registry_tool.signing.folder import compare, statement_of
from registry_tool.signing.keys import fingerprint, load_private_key, load_public_key, name_of_key
from registry_tool.signing.statement import FilesStatement
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.writing import write_atomic


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: a private key in PEM form, and its certificate with the chain above it where there is one."""

    key: Path
    certificate: Path | None = None
    chain: Sequence[Path] = ()
    password: Callable[[], bytes | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Trusted:
    """Files of public keys and of root certificates, and the time (UTC) that certificates are judged at."""

    at: datetime
    public_keys: Sequence[Path] = ()
    roots: Sequence[Path] = ()

    def load(self) -> Trust:
        """Raises InputError where nothing is trusted, or a file is no key or certificate."""
        if not self.public_keys and not self.roots:
            raise InputError("found nothing to trust, expected --public-key KEY.pem or --trust ROOT.pem")
        return Trust(self.at, [load_public_key(path) for path in self.public_keys], load_certificates(self.roots))


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed, and into which file the bundle went."""

    statement: FilesStatement
    bundle: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """Who signed: name, for people, and fingerprint of the key; what the user should know about the key's file."""

    name: str
    key: str
    warnings: tuple[str, ...]


def sign_path(path: Path, bundle: Path, signer: Signer, ignored: Sequence[Path] = ()) -> Signed:
    """Sign a folder or a file; the bundle is written whole or not at all, and never part of what is signed."""
    statement = statement_of(path, [bundle, *ignored])
    data, made = make_bundle(statement.to_bytes(), signer)
    write_atomic(bundle, data)
    return Signed(statement, bundle, made.warnings)


def make_attestation(statement: bytes, signer: Signer) -> tuple[bytes, Made]:
    """(an envelope over the statement, or a bundle where the signer has a certificate to hand over; who signed)."""
    if signer.certificate is not None:
        return make_bundle(statement, signer)
    loaded = load_private_key(signer.key, signer.password)
    public = loaded.key.public_key()
    return sign_envelope(statement, loaded.key), Made(name_of_key(public), fingerprint(public), loaded.warnings)


def make_bundle(statement: bytes, signer: Signer) -> tuple[bytes, Made]:
    """(the bytes of a bundle over the statement, who signed)."""
    loaded = load_private_key(signer.key, signer.password)
    chain = load_certificates([signer.certificate, *signer.chain] if signer.certificate else [])
    public = loaded.key.public_key()
    name = name_of(chain[0]) if chain else name_of_key(public)
    return sign_statement(statement, loaded.key, chain), Made(name, fingerprint(public), loaded.warnings)


def verify_path(
    path: Path, bundle: Path, trusted: Trusted, ignored: Sequence[Path] = (), *, extra_allowed: bool = False
) -> Verified:
    """Raises SignatureError with the reason where the folder is not what a trusted signer signed."""
    verified = verify_bundle(read_file(bundle), trusted.load())
    statement = FilesStatement.from_bytes(verified.payload)
    left_out = compare(statement, path, [bundle, *ignored], extra_allowed=extra_allowed)
    words = (f"{name}: it is signed, and --ignore-path leaves it out" for name in left_out)
    return replace(verified, unchecked=(*verified.unchecked, *words))


def read_file(bundle: Path) -> bytes:
    """The bytes of a bundle. Raises InputError where there is no such file."""
    try:
        with Folder(bundle.parent) as folder:
            return folder.read(bundle.name, BUNDLE_MAX_BYTES)
    except FileProblem as problem:
        raise FileProblem(problem.rule, str(bundle), problem.found, problem.expected) from problem
