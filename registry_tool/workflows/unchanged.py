"""unchanged.py: which entries of a registry are as they were at a git revision. Reads no artifact, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from registry_tool.documents.store import REGISTRY_VERSION, Loaded, Unreadable
from registry_tool.git.repository import Option
from registry_tool.git.revisions import load_base
from registry_tool.toolkit import differences
from registry_tool.values import Entry

CHANGED_SINCE = Option("--changed-since", "check every entry: leave out --changed-since")


@dataclass(frozen=True, slots=True)
class Since:
    """A revision, and what is as it was there.

    name: as it was typed. commit: where HEAD left that revision. unchanged: the numbers of entries whose row, policy
    and incumbent are the same; pins in the row hold every byte of them.
    """

    name: str
    commit: str
    unchanged: frozenset[int]

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:12]})"


def since(loaded: Loaded | Unreadable, name: str) -> Since:
    """What did not change since HEAD left a revision.

    No entry counts where anything of the registry beside its entries differs, its policies above all; where it, or the
    registry at the revision, cannot be read whole; and in a registry of version 0 or 1, whose rows pin too little.
    Raises InputError for a revision that is none or ambiguous, and for a registry outside of git.
    """
    base = load_base(name, loaded.path, option=CHANGED_SINCE)
    before, commit = base.registry, str(base.commit)
    if not isinstance(loaded, Loaded) or not isinstance(before, Loaded) or before.findings:
        return Since(name, commit, frozenset())
    if loaded.registry.schema_version != REGISTRY_VERSION or any(
        differences(_beside_entries(loaded), _beside_entries(before))
    ):
        return Since(name, commit, frozenset())
    old = _by_id(before.registry.entries)
    own = _by_id(loaded.registry.entries)
    same = {
        entry_id
        for entry_id, entry in own.items()
        if entry_id in old and not any(differences(entry.document, old[entry_id].document))
    }
    policies = loaded.registry.policies
    moved = {kind for kind, policy in policies.items() if policy.incumbent is not None and policy.incumbent not in same}
    numbers = (
        number for number, entry in enumerate(loaded.registry.entries) if entry.id in same and entry.kind not in moved
    )
    return Since(name, commit, frozenset(numbers))


def _beside_entries(loaded: Loaded) -> dict[str, object]:
    return {name: value for name, value in loaded.document.value.items() if name != "models"}


def _by_id(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The entries whose id no other one has."""
    entries = list(entries)
    counts = Counter(entry.id for entry in entries)
    return {entry.id: entry for entry in entries if counts[entry.id] == 1}
