"""compare_with_base.py: the gate of a whole change: what it does to production is judged, or refused. No printing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.entry import check_entry, open_entry
from registry_tool.documents import store
from registry_tool.documents.entries import OpenEntry, sha256_of
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError, RejectedError
from registry_tool.git.revisions import load_base
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.strictjson import pointer
from registry_tool.values import EMPTY, Entry, Finding, Policy, Registry, Severity, Verdict
from registry_tool.workflows.gate import Judgement, judge_entry
from registry_tool.workflows.opening import usable

POLICY = "its policy changed"
PINS = ("digest-mismatch", "size-mismatch")  # what a file says that changed under an unchanged document; or file-...


def gate_base(path: Path, plugins: Plugins, base: str) -> list[Judgement]:
    """Judge what a change does to production since `base`; [] where it does nothing there.

    That is every entry that turned production, changed there (its document, its files, its policy) or was renamed;
    refused are an entry that was deleted from production and a demotion without a reason.
    Raises RejectedError for a lowered schema_version.
    """
    plugins.need_all()
    loaded = usable(path)
    assert loaded.registry is not None
    old = load_base(base, path)
    if old is not None and old.registry is None:
        raise InputError(f"--base {base}: the registry there cannot be read: {old.findings[0]}")
    before = old.registry if old is not None and old.registry is not None else store.empty()
    if old is not None and loaded.registry.schema_version < before.schema_version:
        raise RejectedError(
            f"{path}: schema_version was lowered: found {loaded.registry.schema_version}, "
            f"expected {before.schema_version}: restore it"
        )
    with Folder(loaded.folder) as folder, Prober() as prober:
        change = _Change(loaded, loaded.registry, old, before, plugins, folder, prober)
        return [*filter(None, map(change.judge, range(len(loaded.registry.entries)))), *change.deleted()]


@dataclass(frozen=True, slots=True)
class _Change:
    """A registry as it is and as it was. base: None where there was none; `before` then is an empty one."""

    loaded: Loaded
    now: Registry
    base: Loaded | None
    before: Registry
    plugins: Plugins
    folder: Folder
    prober: Prober

    def judge(self, index: int) -> Judgement | None:
        """The entry at this place; None where the change does nothing to it that needs a judgement."""
        entry = self.now.entries[index]
        old = self._was(entry)
        if entry.smoke:
            return self._demoted(entry, index, old)
        if old is None or old.smoke:
            why = "turned production"
        elif old.id != entry.id:
            why = f"renamed from {old.id}"
        elif old.document != entry.document:
            why = "changed while in production"
        elif self.now.policies.get(entry.kind) != self.before.policies.get(entry.kind):
            why = POLICY
        else:
            view = self._open(index)
            found = check_entry(view, self.now, self.plugins, Level.QUICK)
            broken = [f for f in found if f.code in PINS or f.code.startswith("file-")]
            return self._hold(entry, "its files changed", broken) if broken else None
        return replace(self._judged(self._open(index), old, why), why=why)

    def deleted(self) -> list[Judgement]:
        """What was production and is gone: neither renamed, nor joined into an ensemble with a reason."""
        ids = {entry.id for entry in self.now.entries} | {old.id for e in self.now.entries if (old := self._was(e))}
        gone = [old for old in self.before.entries if old.is_production and old.id not in ids]
        joined = self._joined() if gone else EMPTY
        return [
            self._hold(old, "deleted while in production", [Finding(
                "base-entry-deleted", f"{old.id} was production and is gone", entry=old.id, file=self.loaded.name,
                pointer="/models", hint="demote it first, with a reason; remove it in a later change",
            )])
            for old in gone if joined.get(old.id) != old.sha256
        ]  # fmt: skip

    def _open(self, index: int) -> OpenEntry:
        entry = self.now.entries[index]
        return open_entry(self.folder, self.loaded, self.plugins, entry, index, keep=True, prober=self.prober)

    def _was(self, entry: Entry) -> Entry | None:
        """The same entry before, under another id where its bytes are the same and neither id stood on both sides."""
        same = self.before.entry(entry.id)
        if same is not None:
            return same
        others = (old for old in self.before.entries if self.now.entry(old.id) is None)
        return next((old for old in others if (old.kind, old.sha256) == (entry.kind, entry.sha256)), None)

    def _joined(self) -> Mapping[str, str]:
        """id -> sha256 of the version-1 entries that ensembles took in, which say why they are smoke."""
        members: dict[str, str] = {}
        for index, entry in enumerate(self.now.entries):
            if (
                entry.manifest is not None
                and "demotion" in entry.document
                and self.before.schema_version < store.VERSION
            ):
                view = self._open(index)
                for member in (view.manifest or EMPTY).get("members", ()) if view.sound else ():
                    if isinstance(member, dict):
                        members[str(member.get("id"))] = str(member.get("sha256"))
        return members

    def _demoted(self, entry: Entry, index: int, old: Entry | None) -> Judgement | None:
        if old is None or old.smoke or (self.now.schema_version < store.VERSION and entry.manifest is None):
            return None  # version 1 has no place for a reason
        demotion = entry.document.get("demotion", EMPTY)
        if demotion.get("manifest_sha256") == old.sha256:
            return None
        found = "no demotion" if not demotion else f"a demotion of {demotion.get('manifest_sha256')}"
        return self._hold(entry, "demoted", [Finding(
            "base-demotion-unexplained", f"{entry.id} was production and is smoke, and nothing says why",
            entry=entry.id, file=self.loaded.name, pointer=pointer("models", index, "smoke"), found=found,
            expected=f"one of {old.sha256}", hint="restore the entry, then `registry flip ID --demote --reason ...`",
        )])  # fmt: skip

    def _hold(self, entry: Entry, why: str, findings: list[Finding]) -> Judgement:
        policy = self.now.policies.get(entry.kind, Policy())
        reasons = tuple(f"{finding.code}: {finding}" for finding in findings)
        return Judgement(Verdict(entry.id, "HOLD", policy, EMPTY, reasons, entry.sha256), None, why, tuple(findings))

    def _judged(self, view: OpenEntry, old: Entry | None, why: str) -> Judgement:
        entry = view.entry
        errors = [f for f in check_entry(view, self.now, self.plugins, Level.FULL) if f.severity is Severity.ERROR]
        policy = self.now.policies.get(entry.kind, Policy())
        kind = self.plugins.kinds.get(entry.kind)
        stood = self.before.policies.get(entry.kind, kind.default_policy if kind else Policy())
        if self.now.schema_version == store.VERSION and policy.is_looser_than(stood):
            alone = "land the policy first, alone" if why != POLICY else "demote what was judged by it, or restore it"
            errors.append(view.registry_finding(
                "base-policy-loosened", f"the policy of kind {entry.kind!r} was loosened in the same change", "kind",
                hint=alone,
            ))  # fmt: skip
        promotion = entry.promotion or EMPTY
        if "imported_from" in promotion and not self._was_imported(entry, old):
            errors.append(view.registry_finding(
                "base-import-unknown", f"the registry at the base did not have {entry.id} as production", "promotion",
                found="imported_from", expected="a verdict", hint="set smoke to true and flip it",
            ))  # fmt: skip
        if errors:
            return self._hold(entry, why, errors)
        if "verdict" not in promotion:
            return Judgement(Verdict(entry.id, "PROMOTE", policy, EMPTY, (), entry.sha256))
        return judge_entry(view, self.now, self.plugins)

    def _was_imported(self, entry: Entry, old: Entry | None) -> bool:
        """True where the base is the old registry that the entry came from, or had this very promotion already."""
        if self.base is None or self.base.document is None or old is None or old.smoke or old.sha256 != entry.sha256:
            return False
        came_from = (entry.promotion or EMPTY).get("imported_from")
        migrated = self.before.schema_version < store.VERSION and sha256_of(self.base.document.data) == came_from
        return migrated or old.promotion == entry.promotion
