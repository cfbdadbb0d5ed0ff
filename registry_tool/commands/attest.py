"""attest.py: what a registry hands to others about an entry: attest, verify-attestation, bom."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

import click

from registry_tool.commands.shared import (
    deliver,
    emit,
    entry_argument,
    find,
    format_option,
    page_option,
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
from registry_tool.errors import ExitCode, InputError
from registry_tool.toolkit import warn

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,500}\Z")


@click.command()
@entry_argument()
@click.option("--verifier", metavar="URI", help="Who verifies, as the attestation names it.  [default: this gate]")
@signer_options
@registry_option
@click.pass_context
def attest(
    ctx: click.Context, /, entry_id: str, verifier: str | None, registry: str | None, **signer: Unpack[SignerOptions]
) -> None:
    """Attest the verdict of a production entry: an in-toto statement, signed.

    A Simple Verification Result on the manifest's digest: that the pinned verdict promotes it by the policy
    (REGISTRY_PROMOTED), and that training again confirmed it (REGISTRY_REPRODUCED), where `registry reproduce --store`
    kept such a result. The entry is validated in full first. The attestation is a DSSE envelope; with --cert it is a
    Sigstore bundle, which holds the certificates. It lies beside the verdict, and the registry pins it.

    \b
    Examples:
      registry attest my_model --key ci.key
      registry attest my_model --key ci.key --verifier https://example.org/gate/v1
    """
    need_cryptography()
    from registry_tool.signing.svr import VERIFIER_ID
    from registry_tool.workflows.attest import attest

    if verifier is not None and not URI.match(verifier):
        raise InputError(f"--verifier: found {verifier[:40]!r}, expected a URI, such as https://example.org/gate/v1")
    now, path = datetime.now(UTC), find(registry)
    made = attest(path, plugins_of(ctx), entry_id, signer_of(**signer), now, verifier or VERIFIER_ID)
    warn(*made.warnings)
    show(f"{entry_id}: {', '.join(made.result.properties)} attested by {made.signer}, in {made.path}")


@click.command("verify-attestation")
@entry_argument()
@trust_options
@registry_option
@format_option()
@click.pass_context
def verify_attestation(
    ctx: click.Context, /, entry_id: str, registry: str | None, form: str, **trust: Unpack[TrustOptions]
) -> None:
    """Verify who attests the verdict of an entry, and what.

    Only what you name is trusted: a public key, or the root of a certificate chain; where you name none, the signers of
    the entry's policy. Exit 1 where no trusted signer attests it, or where an attestation is of another manifest,
    policy or verdict.

    \b
    Examples:
      registry verify-attestation my_model --public-key ci.pub
      registry verify-attestation my_model --trust root.pem --format json | jq '.attestations[].properties'
    """
    need_cryptography()
    from registry_tool.report import signatures
    from registry_tool.workflows.attest import verify_attestations

    given, at = given_trust(**trust), trusted_of(**trust).at
    found = verify_attestations(find(registry), plugins_of(ctx), entry_id, given, at)
    emit(form, lambda: signatures.attestations_document(found), lambda: signatures.attestation_lines(found))
    ctx.exit(ExitCode.OK if found.holds else ExitCode.REJECTED)


@click.command()
@entry_argument()
@click.option(
    "--format",
    "form",
    type=click.Choice(["cyclonedx"]),
    default="cyclonedx",
    show_default=True,
    help="cyclonedx: CycloneDX 1.6, JSON, with a model card.",
)
@page_option
@registry_option
@click.pass_context
def bom(ctx: click.Context, entry_id: str, form: str, output: Path | None, registry: str | None) -> None:
    """Write a bill of materials of an entry: CycloneDX ML-BOM.

    Its files with digests, its model card with metrics and their confidence intervals, its corpus, recipe, environment
    and licence: what the registry pins, and nothing else. The same entry gives the same bytes. It claims compliance
    with nothing.

    \b
    Example:
      registry bom my_model -o my_model.cdx.json
    """
    from registry_tool.report.bom import cyclonedx
    from registry_tool.workflows import overview

    deliver(cyclonedx(overview.gather(find(registry), plugins_of(ctx), entry_id)), output)
