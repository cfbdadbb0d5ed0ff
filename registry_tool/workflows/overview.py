"""overview.py: everything the registry knows about one entry, gathered for a page. Renders nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.attestations import read_attestations
from registry_tool.checks.entry import check_entry
from registry_tool.checks.registry import check_plugins, sort
from registry_tool.checks.signatures import read_signatures, verify_for_policy
from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.documents.store import located
from registry_tool.errors import InputError, RejectedError, WorldError
from registry_tool.findings import Finding
from registry_tool.git.history import History, history
from registry_tool.hookspec import Figure
from registry_tool.plugins.manager import Plugins
from registry_tool.values import EMPTY, Artifact, Entry, Json, Policy
from registry_tool.workflows.gate import Judgement, judge_entry
from registry_tool.workflows.loading import inspected, usable, verified


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A signature over an entry, or an attestation of its verdict. words: what it says. signer: None: not verified.

    reason: why it was not verified by the signers of the entry's policy.
    """

    path: str
    sha256: str
    words: str
    data: bytes
    signer: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """One entry: what it pins (with sizes), how its evidence is judged now, what validate finds, what its kind shows.

    judgement: None where nothing can be judged, and `unjudged` says why. verdict: the pinned verdict file.
    history: None where git was not asked, or knows nothing.
    """

    entry: Entry
    policy: Policy
    manifest: Mapping[str, Json]
    artifacts: tuple[Artifact, ...]
    findings: tuple[Finding, ...]
    plugins: Mapping[str, str]
    judgement: Judgement | None = None
    unjudged: str = ""
    verdict: Artifact | None = None
    figures: tuple[Figure, ...] = ()
    signed: tuple[SignedFile, ...] = ()
    history: History | None = None


def gather(path: Path, plugins: Plugins, entry_id: str) -> Overview:
    """The overview of an entry whose documents and digests hold. Raises RejectedError for one that is not."""
    loaded = usable(path)
    with inspected(loaded, plugins) as inspection:
        view = verified(inspection, entry_id)
        findings = [*check_plugins(plugins, loaded.name), *check_entry(view, inspection)]
        documents = view.documents | {loaded.name: loaded.document}
        found = Overview(
            view.entry,
            inspection.policy(view.entry.kind),
            view.manifest or EMPTY,
            tuple(replace(pin, size=len(view.read(name))) for name, pin in view.artifacts.items()),
            tuple(sort(located(findings, documents))),
            plugins.versions,
            verdict=_verdict(view),
            figures=_figures(view, plugins, inspection.policy(view.entry.kind)),
            signed=tuple(_signed(view, inspection.policy(view.entry.kind))),
        )
        try:
            return replace(found, judgement=judge_entry(view, inspection))
        except (InputError, RejectedError) as error:  # rejected: the incumbent it is compared with
            return replace(found, unjudged=str(error))


def _signed(view: VerifiedEntry, policy: Policy) -> Iterator[SignedFile]:
    """The sound signatures and attestations of an entry, verified with the signers of its policy."""
    bundles, _ = read_signatures(view)
    attestations, _ = read_attestations(view)
    words = {
        one.pinned.path: f"{', '.join(one.result.properties)} at {one.result.time:%Y-%m-%d %H:%M} UTC"
        for one in attestations
    }
    for pinned in (bundles, [one.pinned for one in attestations]):
        found = verify_for_policy(view, pinned, policy)
        for one in pinned:
            verified = found.verified.get(one.number)
            reason = str(found.refused.get(one.number, found.unverified.get(one.number, "")))
            subject = words.get(one.path, "the entry's files")
            yield SignedFile(
                one.path, sha256_of(one.data), subject, one.data, verified.signer if verified else None, reason
            )


def with_history(overview: Overview, path: Path) -> Overview:
    """And what git tells of the entry: nothing outside of a repository, or before its first commit."""
    try:
        return replace(overview, history=history(path, overview.entry.id))
    except (InputError, WorldError):
        return overview


def _verdict(view: VerifiedEntry) -> Artifact | None:
    """The pinned verdict file, where there is one and its digest holds; check_entry says what is wrong with it."""
    promotion = view.entry.promotion
    if not isinstance(promotion, Mapping) or "verdict" not in promotion:
        return None
    path, digest = promotion["verdict"], promotion["sha256"]
    document = view.pinned_document(path, digest, "promotion", "sha256")
    return None if isinstance(document, Finding) else Artifact(path, digest, len(document.data))


def _figures(view: VerifiedEntry, plugins: Plugins, policy: Policy) -> tuple[Figure, ...]:
    kind = view.entry.kind
    if kind not in plugins.kinds:
        return ()
    try:
        return plugins.figures(view, policy.rules)
    except InputError as error:
        return (Figure("Evidence", f"It cannot be shown: {error}"),)
