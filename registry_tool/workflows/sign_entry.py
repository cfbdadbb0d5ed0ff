"""sign_entry.py: the stories of signing an entry of a registry and of verifying its signatures. No click, no printing.

A signature is over the files that the entry pins, never over its verdict: a flip breaks none.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from registry_tool.checks.inventory import list_files
from registry_tool.checks.signatures import (
    PinnedBundle,
    Signatures,
    digests_of,
    policy_trust,
    read_signatures,
    verify_all,
)
from registry_tool.documents import store
from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.errors import InputError, RejectedError
from registry_tool.findings import Finding
from registry_tool.plugins.manager import Plugins
from registry_tool.signing.bundle import Trust, claimed_key
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.statement import FilesStatement
from registry_tool.storage.files import Folder
from registry_tool.storage.staging import remove_from
from registry_tool.storage.writing import write_atomic
from registry_tool.values import Entry, Json, Policy, Registry
from registry_tool.workflows.loading import changing, find_entry, usable, verified_entry
from registry_tool.workflows.sign import Signer, make_bundle


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """What `sign` did. bundle: the new file, relative to the registry; replaced: those that it took the place of."""

    entry: Entry
    statement: FilesStatement
    bundle: str
    signer: str
    replaced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vouched:
    """What verifying an entry's signatures, or the attestations of its verdict, showed; findings: on the others."""

    entry: Entry
    signatures: Signatures
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether a trusted signer vouches for it, and nothing that claims to is broken."""
        return bool(self.signatures.verified) and not self.signatures.refused and not self.findings


@dataclass(frozen=True, slots=True)
class EntrySignatures(Vouched):
    """What `verify-signature` found, of the entry's bundles."""

    bundles: tuple[PinnedBundle, ...]


def sign_entry(path: Path, plugins: Plugins, entry_id: str, signer: Signer) -> SignedEntry:
    """Sign the files that an entry pins; the bundle lies beside its folders, and the registry pins it.

    A signature by the same key, or one that does not cover the entry, is replaced. Raises RejectedError for an entry
    whose digests do not hold, InputError for a key inside the registry's folder or an unpinned file beside the signed.
    """
    refuse_inside(path, signer.key)
    with changing(path) as loaded:
        refuse_older(path, loaded.registry.schema_version)
        entry = find_entry(loaded, entry_id)
        with verified_entry(loaded, plugins, entry_id) as view:
            statement = _statement(view, loaded.folder)
            bundles, _ = read_signatures(view)
        data, made = make_bundle(statement.to_bytes(), signer)
        digest = sha256_of(data)
        target = f"{entry_id}/signatures/{digest[:12]}.sig"
        kept = [bundle.path for bundle in bundles if not is_by(bundle, made.key)]
        old: list[dict[str, Json]] = list(entry.document.get("signatures", ()))
        pins = [pin for pin in old if pin["bundle"] in kept]
        replaced = [pin["bundle"] for pin in old if pin["bundle"] not in kept]
        write_atomic(path.parent / target, data, root=path.parent)
        signed = entry.with_fields(signatures=[*pins, {"bundle": target, "sha256": digest}])
        store.save(path, loaded.registry.with_entry(signed))
        for name in replaced:
            remove_from(path.parent, f"{entry_id}/signatures", name)  # what lies elsewhere was not put there by `sign`
    return SignedEntry(signed, statement, target, made.name, tuple(replaced), made.warnings)


def refuse_inside(path: Path, key: Path) -> None:
    """What lies in a registry's folder is published with it: a private key shall not."""
    if key.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(
            f"{key}: found the private key inside the registry's folder, which is published: "
            "move it out, and make a new one if it was committed"
        )


def refuse_older(path: Path, version: int) -> None:
    if version != store.REGISTRY_VERSION:
        raise InputError(
            f"{path}: schema_version {version} has no place for it, expected 2: "
            f"`registry migrate {path} -o NEW` makes a registry of version 2; a file alone is signed with --path"
        )


def _statement(view: VerifiedEntry, registry: Path) -> FilesStatement:
    refuse_unpinned(view, registry)
    entry = view.entry
    return FilesStatement(posixpath.basename(_folder(entry)) or entry.id, dict(digests_of(view)))


def refuse_unpinned(view: VerifiedEntry, registry: Path) -> None:
    """Raises RejectedError for a file in the entry's folder that the entry does not pin: no signature covers it."""
    if folder := _folder(view.entry):
        pinned = {name for name, _ in digests_of(view)}
        if unpinned := sorted(set(_files(registry, folder)) - pinned):
            raise RejectedError(f"{folder}/{unpinned[0]}: no entry pins the file, so it is not signed: remove it")


def _folder(entry: Entry) -> str:
    """What a signature over the entry covers, relative to the registry; empty for an entry without a manifest."""
    return posixpath.dirname(entry.manifest) if entry.manifest else ""


def _files(registry: Path, folder: str) -> Iterator[str]:
    with Folder(registry / folder) as opened_folder:
        items = list_files(opened_folder)
        if isinstance(items, Finding):
            raise RejectedError(f"{folder}: {items}")
        yield from (item.path for item in items if item.kind != "folder")


def is_by(bundle: PinnedBundle, key: str) -> bool:
    """Whether a bundle, or an envelope without one, names this key as its signer's."""
    try:
        return claimed_key(bundle.data) == key
    except SignatureError:
        return True  # it cannot be verified


def verify_signatures(
    path: Path, plugins: Plugins, entry_id: str, trust: Trust | None, at: datetime
) -> EntrySignatures:
    """Who signed an entry whose digests hold. trust: None takes the signers that the entry's policy names.

    Raises InputError where nothing is trusted, RejectedError where a digest of the entry does not hold, or a file
    beside the signed ones is pinned by nothing.
    """
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    with verified_entry(loaded, plugins, entry_id) as view:
        trust = trust or trusted_by(view, loaded.registry, at)
        refuse_unpinned(view, loaded.folder)
        bundles, findings = read_signatures(view)
    return EntrySignatures(entry, verify_all(bundles, trust), tuple(findings), tuple(bundles))


def trusted_by(view: VerifiedEntry, registry: Registry, at: datetime) -> Trust:
    """The signers that the entry's policy names. Raises InputError where there are none that can be used."""
    policy = registry.policies.get(view.entry.kind, Policy())
    trust, problems = policy_trust(view.files.read_unpinned, policy, at)
    if not trust.keys and not trust.roots:
        why = problems[0] if problems else f"the policy of kind {view.entry.kind!r} names no signers"
        raise InputError(f"{why}: name whom to trust: --public-key KEY.pem or --trust ROOT.pem")
    return trust
