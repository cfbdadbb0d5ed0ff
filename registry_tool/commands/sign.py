"""sign.py: signatures: sign, verify-signature."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from registry_tool.commands.shared import (
    PATH,
    emit,
    entry_argument,
    find,
    format_option,
    plugins_of,
    registry_option,
    show,
)
from registry_tool.commands.trust import (
    SignerOptions,
    TrustOptions,
    given_trust,
    need_cryptography,
    signer_of,
    signer_options,
    trust_options,
    trusted_of,
)
from registry_tool.errors import ExitCode
from registry_tool.toolkit import counted, warn

SUBJECT_HINT = "name what to {}: the ID of an entry, or --path DIR with --bundle FILE"


@click.command()
@entry_argument(required=False)
@click.option("--path", type=PATH, metavar="DIR", help="Sign a folder or a file instead of an entry.")
@click.option("--bundle", type=PATH, metavar="FILE", help="Where the signature of --path goes.")
@click.option("--ignore-path", type=PATH, metavar="P", multiple=True, help="A file or folder of --path to leave out.")
@signer_options
@registry_option
@click.pass_context
def sign(
    ctx: click.Context,
    /,
    entry_id: str | None,
    path: Path | None,
    bundle: Path | None,
    ignore_path: tuple[Path, ...],
    registry: str | None,
    **signer: Unpack[SignerOptions],
) -> None:
    """Sign an entry, or any folder or file: an OpenSSF Model Signing (OMS v1.0) bundle.

    An entry's signature is over the files that it pins, never over its verdict; it lies in ID/signatures, and the
    registry pins it. Signing again with the same key replaces it.

    The private key is never written, printed or stored. A protected key's password is asked for on a terminal, or read
    from --password-file.

    \b
    Examples:
      openssl ecparam -name prime256v1 -genkey -noout -out ci.key
      registry sign my_model --key ci.key
      registry sign my_model --key ci.key --cert ci.pem --chain authority.pem
      registry sign --path dist --key ci.key --bundle dist.sig
    """
    need_cryptography()
    from registry_tool.workflows.sign import sign_path
    from registry_tool.workflows.sign_entry import sign_entry

    if path is not None and bundle is not None and entry_id is None:
        done = sign_path(path, bundle, signer_of(**signer), ignore_path)
        warn(*done.warnings)
        count = len(done.statement.digests)
        show(f"{path}: {counted(count, 'file')} signed, in {bundle}")
        return
    if entry_id is None or path is not None or bundle is not None or ignore_path:
        raise click.UsageError(SUBJECT_HINT.format("sign"))
    made = sign_entry(find(registry), plugins_of(ctx), entry_id, signer_of(**signer))
    warn(*made.warnings)
    show(f"{entry_id}: {len(made.statement.digests)} files signed by {made.signer}, in {made.bundle}")
    for old in made.replaced:
        show(f"{entry_id}: it replaces {old}")


@click.command("verify-signature")
@entry_argument(required=False)
@click.option("--path", type=PATH, metavar="DIR", help="The signed folder or file, instead of an entry.")
@click.option("--bundle", type=PATH, metavar="FILE", help="The signature of --path.")
@click.option("--ignore-path", type=PATH, metavar="P", multiple=True, help="A file or folder of --path to leave out.")
@click.option("--ignore-unsigned-files", is_flag=True, help="Files of --path that nothing signed are no error.")
@trust_options
@registry_option
@format_option()
@click.pass_context
def verify_signature(
    ctx: click.Context,
    /,
    entry_id: str | None,
    path: Path | None,
    bundle: Path | None,
    ignore_path: tuple[Path, ...],
    ignore_unsigned_files: bool,
    registry: str | None,
    form: str,
    **trust: Unpack[TrustOptions],
) -> None:
    """Verify who signed an entry, a folder or a file, and that not a byte has changed since.

    Only what you name is trusted: a public key, or the root of a certificate chain. For an entry, the signers of its
    policy are trusted where you name none. What cannot be checked offline is listed. Exit 1 where the signature does
    not hold, with the reason.

    \b
    Examples:
      registry verify-signature my_model --public-key ci.pub
      registry verify-signature my_model --trust root.pem
      registry verify-signature --path dist --bundle dist.sig --public-key ci.pub
      registry verify-signature --path dist --bundle dist.sig --trust root.pem --at 2026-05-06
    """
    need_cryptography()
    from registry_tool.report import signatures
    from registry_tool.workflows.sign import verify_path
    from registry_tool.workflows.sign_entry import verify_signatures

    if path is not None and bundle is not None and entry_id is None:
        verified = verify_path(path, bundle, trusted_of(**trust), ignore_path, extra_allowed=ignore_unsigned_files)
        emit(form, lambda: signatures.path_document(path, verified), lambda: signatures.path_lines(path, verified))
        return
    if entry_id is None or path is not None or bundle is not None or ignore_path or ignore_unsigned_files:
        raise click.UsageError(SUBJECT_HINT.format("verify"))
    given, at = given_trust(**trust), trusted_of(**trust).at
    found = verify_signatures(find(registry), plugins_of(ctx), entry_id, given, at)
    emit(form, lambda: signatures.entry_document(found), lambda: signatures.entry_lines(found))
    ctx.exit(ExitCode.OK if found.holds else ExitCode.REJECTED)
