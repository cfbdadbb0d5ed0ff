"""sign.py: signatures: sign, verify-signature."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tool.commands.shared import emit, format_option, show
from registry_tool.errors import InputError

if TYPE_CHECKING:
    from registry_tool.workflows.sign import Signer, Trusted

PATH = click.Path(path_type=Path)


def _need_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise InputError("signatures need the extra `sign`: pip install 'registry-tool[sign]'")


def signer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--key, --cert, --chain, --password-file."""
    options: list[Callable[..., Any]] = [
        click.option("--key", type=PATH, metavar="PEM", required=True, help="Your private key."),
        click.option("--cert", type=PATH, metavar="PEM", help="The certificate of the key."),
        click.option("--chain", type=PATH, metavar="PEM", multiple=True, help="Certificates above it."),
        click.option("--password-file", type=PATH, metavar="FILE", help="Its first line is the key's password."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--public-key, --trust, --at."""
    root = "A certificate to trust: a root, or one on the way to it."
    day = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
    options: list[Callable[..., Any]] = [
        click.option("--public-key", type=PATH, metavar="PEM", multiple=True, help="A public key to trust."),
        click.option("--trust", "--cert-chain", "trust", type=PATH, metavar="PEM", multiple=True, help=root),
        click.option("--at", type=day, metavar="DATE", help="Judge certificates as of this time (UTC). Default: now."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def signer_of(key: Path, cert: Path | None, chain: tuple[Path, ...], password_file: Path | None) -> Signer:
    from registry_tool.workflows.sign import Signer

    if chain and cert is None:
        raise InputError("--chain: found no --cert, expected the certificate of the key too")

    def password() -> bytes | None:
        if password_file is not None:
            from registry_tool.signing.keys import read_pem

            return read_pem(password_file).split(b"\n")[0].rstrip(b"\r")
        if not sys.stdin.isatty():
            return None
        answer: str = click.prompt(f"Password of {key}", hide_input=True, err=True)
        return answer.encode()

    return Signer(key, cert, chain, password)


def trusted_of(public_key: tuple[Path, ...], trust: tuple[Path, ...], at: datetime | None) -> Trusted:
    from registry_tool.workflows.sign import Trusted

    return Trusted(at.replace(tzinfo=UTC) if at else datetime.now(UTC), public_key, trust)


@click.command()
@click.option("--path", type=PATH, metavar="DIR", required=True, help="The folder or file to sign.")
@click.option("--bundle", type=PATH, metavar="FILE", required=True, help="Where the signature goes.")
@click.option("--ignore-path", type=PATH, metavar="P", multiple=True, help="A file or folder to leave out.")
@signer_options
def sign(
    path: Path,
    bundle: Path,
    ignore_path: tuple[Path, ...],
    key: Path,
    cert: Path | None,
    chain: tuple[Path, ...],
    password_file: Path | None,
) -> None:
    """Sign a folder or a file: an OpenSSF Model Signing (OMS v1.0) bundle.

    The private key is never written, printed or stored. A protected key's password is asked for on a terminal, or read
    from --password-file.

    \b
    Examples:
      openssl ecparam -name prime256v1 -genkey -noout -out ci.key
      registry sign --path dist --key ci.key --bundle dist.sig
    """
    _need_cryptography()
    from registry_tool.workflows.sign import sign_path

    done = sign_path(path, bundle, signer_of(key, cert, chain, password_file), ignore_path)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    count = len(done.statement.digests)
    show(f"{path}: {count} {'file' if count == 1 else 'files'} signed, in {bundle}")


@click.command("verify-signature")
@click.option("--path", type=PATH, metavar="DIR", required=True, help="The signed folder or file.")
@click.option("--bundle", type=PATH, metavar="FILE", required=True, help="Its signature.")
@click.option("--ignore-path", type=PATH, metavar="P", multiple=True, help="A file or folder to leave out.")
@click.option("--ignore-unsigned-files", is_flag=True, help="Files that nothing signed are no error.")
@trust_options
@format_option()
def verify_signature(
    path: Path,
    bundle: Path,
    ignore_path: tuple[Path, ...],
    ignore_unsigned_files: bool,
    public_key: tuple[Path, ...],
    trust: tuple[Path, ...],
    at: datetime | None,
    form: str,
) -> None:
    """Verify who signed a folder or a file, and that not a byte has changed since.

    Only what you name is trusted: a public key, or the root of a certificate chain. What cannot be checked offline is
    listed. Exit 1 where the signature does not hold, with the reason.

    \b
    Examples:
      registry verify-signature --path dist --bundle dist.sig --public-key ci.pub
      registry verify-signature --path dist --bundle dist.sig --trust root.pem
    """
    _need_cryptography()
    from registry_tool.workflows.sign import verify_path

    verified = verify_path(
        path, bundle, trusted_of(public_key, trust, at), ignore_path, extra_allowed=ignore_unsigned_files
    )
    emit(
        form,
        lambda: {"path": str(path), "signer": verified.signer, "unchecked": list(verified.unchecked)},
        lambda: [f"{path}: signed by {verified.signer}", *(f"not checked: {what}" for what in verified.unchecked)],
    )
