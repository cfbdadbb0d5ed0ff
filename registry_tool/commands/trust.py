"""trust.py: the options that say who signs and who is trusted, for every command that has them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click
from click.decorators import FC

from registry_tool.commands.shared import PATH
from registry_tool.errors import InputError

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust
    from registry_tool.workflows.sign import Signer, Trusted


class SignerOptions(TypedDict):
    """The values of `signer_options`."""

    key: Path
    cert: Path | None
    chain: tuple[Path, ...]
    password_file: Path | None


class TrustOptions(TypedDict):
    """The values of `trust_options`."""

    public_key: tuple[Path, ...]
    trust: tuple[Path, ...]
    at: datetime | None


def need_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise InputError("signatures need cryptography: pip install cryptography")


def signer_options(command: FC) -> FC:
    """--key, --cert, --chain, --password-file."""
    options: list[Callable[[FC], FC]] = [
        click.option("--key", type=PATH, metavar="PEM", required=True, help="Your private key."),
        click.option("--cert", type=PATH, metavar="PEM", help="The certificate of the key."),
        click.option("--chain", type=PATH, metavar="PEM", multiple=True, help="Certificates above it."),
        click.option("--password-file", type=PATH, metavar="FILE", help="Its first line is the key's password."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def trust_options(command: FC) -> FC:
    """--public-key, --trust, --at."""
    root = "A certificate to trust: a root, or one on the way to it."
    day = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
    options: list[Callable[[FC], FC]] = [
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

            line = read_pem(password_file, "a file with the key's password").split(b"\n")[0].rstrip(b"\r")
            if not line:
                raise InputError(f"{password_file}: its first line is empty, expected the key's password")
            return line
        if not sys.stdin.isatty():
            return None
        answer: str = click.prompt(f"Password of {key}", hide_input=True, err=True)
        return answer.encode()

    return Signer(key, cert, chain, password)


def given_trust(public_key: tuple[Path, ...], trust: tuple[Path, ...], at: datetime | None) -> Trust | None:
    """Whom the options name; None where they name none."""
    if not public_key and not trust:
        return None
    need_cryptography()
    return trusted_of(public_key, trust, at).load()


def trusted_of(public_key: tuple[Path, ...], trust: tuple[Path, ...], at: datetime | None) -> Trusted:
    from registry_tool.workflows.sign import Trusted

    return Trusted(at.replace(tzinfo=UTC) if at else datetime.now(UTC), public_key, trust)
