"""signatures.py: the signatures that an entry pins: whether they cover its files, and whose they are. Writes nothing.

Coverage is checked always. A signature is verified where the policy names signers or the caller names whom to trust,
with `cryptography`, which is loaded only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from registry_tool.checks.policy import signatures_missing
from registry_tool.documents.entries import DIGEST_MISMATCH, VerifiedEntry, sha256_of
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.signing.container import read_container
from registry_tool.signing.dsse import SignatureError, UntrustedError
from registry_tool.signing.statement import DIGEST_ALGORITHMS, FilesStatement
from registry_tool.storage.files import Folder, InventoryItem
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import pointer
from registry_tool.values import Policy, PolicySigner

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from registry_tool.signing.bundle import Trust, Verified
    from registry_tool.signing.keys import PublicKey

NEEDS_LIBRARY = "it needs cryptography: pip install cryptography"
PEM_MAX_BYTES = 64 * 1024
KEY_SUFFIXES = (".pem", ".key", ".p8", ".pk8")
RESTORE_HINT = "restore the file, or review the new one and pin it"
PRIVATE_KEY_MARK = b"PRIVATE KEY"  # in every PEM form of one

SIGNATURE_INVALID = FindingRule(
    "signature-invalid",
    "signature that does not hold",
    why="It does not cover these files, or nothing shows who made it: a reader who looks for a signature is misled.",
    message="{path}: the signature does not hold: {problem}",
    hint="sign again with `registry sign {id} --key PEM`, which replaces it",
    example="a bundle over the files of another training",
    since="0.2.0",
)
UNVERIFIED = FindingRule(
    "signature-unverified",
    "signature that was not verified",
    why="It covers the entry's files; who made it was not checked.",
    message="{path}: the signature was not verified: {reason}",
    hint="name whom to trust: `registry validate --public-key KEY.pem`, or `--trust ROOT.pem`",
    example="a bundle, and no key to verify it with",
    severity=Severity.NOTE,
    since="0.2.0",
)
SIGNATURE_MISSING = FindingRule(
    "signature-missing",
    "production entry without a signature of a trusted signer",
    why="You named whom to trust, and none of them signed it.",
    message="no signature of a trusted signer on production entry {id}",
    hint="sign it with `registry sign {id} --key PEM`, or trust its signer too",
    example="validate --trust root.pem with an unsigned entry",
    since="0.2.0",
)
UNSIGNED = FindingRule(
    "promotion-unsigned",
    "production entry without the signatures that its policy asks for",
    why="A policy with signers promotes only what they signed.",
    message="the policy of kind {kind!r} asks for signatures: {reason}",
    hint="sign it with `registry sign {id} --key PEM`, or run `registry flip {id} --demote --reason ...`",
    example='"signers": [] in the policy',
    since="0.2.0",
)
SIGNER_INVALID = FindingRule(
    "signer-invalid",
    "signer of a policy that cannot be one",
    why="No signature is verified with it.",
    message="{problem}",
    hint="name the signer's public key, or the root of its certificates, with the sha256 of the file",
    example="a private key in the place of a public one",
    since="0.2.0",
)


PRIVATE_KEY = FindingRule(
    "file-private-key",
    "private key in the registry's folder",
    why="The folder is published: anyone who reads it can sign as you.",
    hint="remove it, and make a new key: this one is known",
    example="ci.key beside registry.json",
    since="0.2.0",
)


@dataclass(frozen=True, slots=True)
class PinnedBundle:
    """A bundle that an entry pins and that covers its files; number: its place in the entry's list."""

    number: int
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Signatures:
    """What verifying an entry's bundles showed.

    verified: by the bundle's place. unverified: why the others were not, by their place. refused: those that do not
    hold. problems: whom could not be trusted, and why.
    """

    verified: Mapping[int, Verified] = field(default_factory=dict)
    unverified: Mapping[int, str] = field(default_factory=dict)
    refused: Mapping[int, SignatureError] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def signers(self) -> tuple[str, ...]:
        """The names of the different signers that were verified.

        One is counted once, whether its name or its key comes back. A keyless signature counts for nothing: its time
        and the identity that it names cannot be checked offline.
        """
        keys: dict[str, str] = {}
        for one in self.verified.values():
            if not one.unchecked and one.key not in keys.values():
                keys.setdefault(one.signer, one.key)
        return tuple(keys)


# ---- one entry --------------------------------------------------------------------------------------------------


def check_signatures(view: VerifiedEntry, policy: Policy, trust: Trust | None = None) -> Iterator[Finding]:
    """Findings on the signatures of an entry, and on those that it lacks to be production.

    trust: whom the caller trusts; every production entry then needs a signature of one of them.
    """
    entry, row = view.entry, view.row
    bundles, findings = read_signatures(view)
    yield from findings
    verified = Verification.of(view, bundles, policy, trust)
    yield from verified.findings(view, "/signatures", SIGNATURE_INVALID, UNVERIFIED)
    by_policy, by_caller = verified.by_policy, verified.by_caller
    if entry.smoke:
        return
    if trust is not None and not by_caller.signers:
        yield SIGNATURE_MISSING.at(row, "/smoke", found="none", expected="at least one", id=entry.id)
    if lacking := signatures_missing(policy, by_policy.signers):
        yield UNSIGNED.at(
            row, "/smoke", reason="; ".join([*lacking, *by_policy.problems]), kind=entry.kind, id=entry.id
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """Bundles, or attestations, as the signers of a policy verify them, and whom the caller trusts, if he names any."""

    bundles: Sequence[PinnedBundle]
    by_policy: Signatures
    by_caller: Signatures

    @classmethod
    def of(
        cls, view: VerifiedEntry, bundles: Sequence[PinnedBundle], policy: Policy, trust: Trust | None
    ) -> Verification:
        by_policy = verify_for_policy(view, bundles, policy, trust.at if trust else None)
        return cls(bundles, by_policy, verify_all(bundles, trust) if trust is not None else by_policy)

    def findings(
        self, view: VerifiedEntry, field: str, invalid: FindingRule, unverified: FindingRule
    ) -> Iterator[Finding]:
        """On those that do not hold, and on those that neither verifies in full. field: the entry's list of them."""
        for bundle in self.bundles:
            number, place = bundle.number, f"{field}/{bundle.number}"
            if error := self.by_policy.refused.get(number) or self.by_caller.refused.get(number):
                yield invalid.at(view.row, place, path=bundle.path, problem=error, id=view.entry.id)
            elif reason := self._doubt(number):
                yield unverified.at(view.row, place, path=bundle.path, reason=reason)

    def _doubt(self, number: int) -> str | None:
        """Why a bundle was verified by neither; None where it was by one, in full."""
        found = self.by_caller.verified.get(number) or self.by_policy.verified.get(number)
        if found is None:
            return self.by_caller.unverified[number]
        return f"this cannot be checked offline: {'; '.join(found.unchecked)}" if found.unchecked else None


def read_signatures(view: VerifiedEntry) -> tuple[list[PinnedBundle], list[Finding]]:
    """(the bundles that an entry pins and that cover its files, what is wrong with the others)."""
    bundles: list[PinnedBundle] = []
    findings: list[Finding] = []
    for number, pin in enumerate(view.entry.document.get("signatures", ())):
        data = view.pinned_file(pin["bundle"], pin["sha256"], "signatures", number, "sha256")
        if isinstance(data, Finding):
            findings.append(data)
            continue
        try:
            cover(FilesStatement.from_bytes(read_container(data).envelope.payload), view)
            bundles.append(PinnedBundle(number, pin["bundle"], data))
        except SignatureError as error:
            field, name = f"/signatures/{number}", pin["bundle"]
            findings.append(SIGNATURE_INVALID.at(view.row, field, path=name, problem=error, id=view.entry.id))
    return bundles, findings


def verify_all(bundles: Sequence[PinnedBundle], trust: Trust) -> Signatures:
    """Each bundle, or envelope without one, verified by whom the caller trusts."""
    from registry_tool.signing.bundle import verify_container

    verified: dict[int, Verified] = {}
    unverified: dict[int, str] = {}
    refused: dict[int, SignatureError] = {}
    for bundle in bundles:
        try:
            verified[bundle.number] = verify_container(bundle.data, trust)
        except UntrustedError as error:
            unverified[bundle.number] = str(error)
        except SignatureError as error:
            refused[bundle.number] = error
    return Signatures(verified, unverified, refused)


def verify_for_policy(
    view: VerifiedEntry, bundles: Sequence[PinnedBundle], policy: Policy, at: datetime | None = None
) -> Signatures:
    """Each bundle, verified by the signers that the policy names. at: as in Trust; None is now."""
    unverified = {bundle.number: "no key or root to trust is named" for bundle in bundles}
    if not policy.signers or not bundles:
        return Signatures(unverified=unverified)
    if not can_verify():
        return Signatures(unverified=dict.fromkeys(unverified, NEEDS_LIBRARY), problems=(NEEDS_LIBRARY,))
    trust, problems = policy_trust(view.files.read_unpinned, policy, at)
    return replace(verify_all(bundles, trust), problems=problems)


def policy_signers(view: VerifiedEntry, policy: Policy) -> Signatures:
    """Who signed an entry, of those that the policy names. A bundle that does not cover the entry is a problem."""
    if not policy.signatures_needed:
        return Signatures()
    bundles, findings = read_signatures(view)
    found = verify_for_policy(view, bundles, policy)
    wrong = [f"{one.path}: {error}" for one in bundles if (error := found.refused.get(one.number))]
    return replace(found, problems=(*found.problems, *map(str, findings), *wrong))


def signatures_lacking(view: VerifiedEntry, policy: Policy) -> list[str]:
    """What an entry lacks of the signatures that its policy asks for; [] where it has them or none are asked for."""
    found = policy_signers(view, policy)
    return [*signatures_missing(policy, found.signers), *found.problems]


def cover(statement: FilesStatement, view: VerifiedEntry) -> None:
    """Whether a statement lists exactly the files that the entry pins. Raises SignatureError, naming one."""
    pinned = dict(digests_of(view, statement.algorithm))
    if missing := sorted(pinned.keys() - statement.digests.keys()):
        raise SignatureError(f"{missing[0]}: the entry pins the file, but it is not signed")
    if extra := sorted(statement.digests.keys() - pinned.keys()):
        raise SignatureError(f"{extra[0]}: the file is signed, but the entry does not pin it")
    if changed := sorted(name for name, digest in pinned.items() if statement.digests[name] != digest):
        raise SignatureError(f"{changed[0]}: digest mismatch: the file is not the signed one")


def digests_of(view: VerifiedEntry, algorithm: str = "sha256") -> Iterator[tuple[str, str]]:
    """(name, digest) of every file that an entry pins, by name: what a signature over the entry covers.

    Names are relative to the manifest's folder; those of an entry without a manifest to the registry's.
    """
    for name, artifact in sorted(view.artifacts.items()):
        if algorithm == "sha256":
            yield name, artifact.sha256
        else:
            digest = DIGEST_ALGORITHMS[algorithm]()
            digest.update(view.read(name))
            yield name, digest.hexdigest()


# ---- the signers of a policy ------------------------------------------------------------------------------------


def can_verify() -> bool:
    return find_spec("cryptography") is not None


def policy_trust(
    read: Callable[[str], bytes], policy: Policy, at: datetime | None = None
) -> tuple[Trust, tuple[str, ...]]:
    """(the trust that a policy's signers make, why some of them cannot be used). read: a file of the registry."""
    from registry_tool.signing.bundle import Trust

    keys, roots, problems = [], [], []
    for signer in policy.signers:
        try:
            more_keys, more_roots = load_signer(read(signer.path), signer)
            keys += more_keys
            roots += more_roots
        except InputError as error:
            problems.append(str(error))
    return Trust(at or datetime.now(UTC), keys, roots), tuple(problems)


def check_signers(folder: Folder, loaded: Loaded) -> Iterator[Finding]:
    """Findings on the files of the signers that policies name: missing, changed, or no key or certificate."""
    for kind, policy in loaded.registry.policies.items():
        for number, signer in enumerate(policy.signers):
            field, place = pointer("policies", kind, "signers", number), InFile(loaded.name)
            try:
                data = folder.read(signer.path, PEM_MAX_BYTES)
                if (found := sha256_of(data)) != signer.sha256:
                    yield DIGEST_MISMATCH.at(
                        place,
                        f"{field}/sha256",
                        found=found,
                        expected=signer.sha256,
                        file=signer.path,
                        hint=RESTORE_HINT,
                    )
                elif can_verify():
                    load_signer(data, signer)
                else:
                    refuse_private(data, signer.path)
            except FileProblem as problem:
                yield problem.at(loaded.name, None, f"{field}/{signer.field}")
            except InputError as error:
                yield SIGNER_INVALID.at(place, f"{field}/{signer.field}", problem=error)


def check_private_keys(folder: Folder, items: Iterable[InventoryItem]) -> Iterator[Finding]:
    """An error for each file of the registry's folder that is named as a key is, and holds a private one."""
    for path, kind in items:
        if kind == "file" and path.lower().endswith(KEY_SUFFIXES):
            with suppress(FileProblem):
                if PRIVATE_KEY_MARK in folder.read(path, PEM_MAX_BYTES):
                    yield PRIVATE_KEY.at(path)


def load_signer(data: bytes, signer: PolicySigner) -> tuple[list[PublicKey], list[Certificate]]:
    """(keys, roots) in the file of a signer. Raises InputError for one that is not pinned so, or no such PEM file."""
    from registry_tool.signing.certificates import certificates_in
    from registry_tool.signing.keys import public_key

    if sha256_of(data) != signer.sha256:
        raise InputError(f"{signer.path}: digest mismatch: its sha256 is not the one in the policy")
    refuse_private(data, signer.path)
    if signer.is_root:
        return [], certificates_in(data, signer.path)
    return [public_key(data, signer.path)], []


def refuse_private(data: bytes, path: str) -> None:
    if PRIVATE_KEY_MARK in data:
        raise InputError(f"{path}: found a private key, expected what verifies: remove it, and make a new key")
