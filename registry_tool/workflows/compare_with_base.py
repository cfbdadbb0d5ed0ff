"""compare_with_base.py: the gate of a whole change: what it does to production is judged, or refused. No printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.entry import check_entry
from registry_tool.checks.promotion import promoting_again
from registry_tool.checks.registry import check
from registry_tool.checks.runtimes import is_looser
from registry_tool.documents import store
from registry_tool.documents.entries import BrokenEntry, VerifiedEntry, sha256_of
from registry_tool.errors import InputError, RejectedError
from registry_tool.findings import Finding, FindingRule, InFile, Severity, errors_of
from registry_tool.git.revisions import Base, files_beside, load_base, load_base_file
from registry_tool.hookspec import GateRequest, Level
from registry_tool.legacy.ensembles import lists, read_ensembles
from registry_tool.legacy.manifests import check_unpinned_manifests
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.strictjson import pointer
from registry_tool.values import EMPTY, Entry, Policy, Registry, Verdict
from registry_tool.workflows.base_changes import Change, entry_changes, policy_changes, requirement_changes
from registry_tool.workflows.base_files import DESCRIPTIVE_FIELDS, BaseFiles
from registry_tool.workflows.gate import Judgement, judge_entry, judge_foreign, read_evidence
from registry_tool.workflows.loading import inspected, usable

POLICY_CHANGED = "its policy changed"
FILES_CHANGED, SIDECAR_CHANGED = "its files changed", "its sidecar changed"
# How the findings begin that a file gives which changed under an unchanged document.
PIN_CODES = ("digest-mismatch", "size-mismatch", "file-", "onnx-external-")
ADDED_BY_MIGRATION = frozenset({"promotion", "sidecar_sha256", "external_data"})  # fields of an entry

FLIP_HINT = "run `registry flip {id} --demote --reason ...`, then `registry flip {id}`"
VERSION_2_HINT = "promote it in a registry of version 2: `registry migrate OLD -o NEW`"
DELETED_VERSION_1_HINT = "restore it and set smoke to true; remove it in a later change"
SUMMARIES_HINT = "gate its ensemble: add --evidence DIR, a folder with its loso_seed*.json files"
DELETED = FindingRule(
    "base-entry-deleted",
    "production entry deleted",
    why="A runtime that loads it fails, and the registry does not say why it went.",
    message="production entry {id} was deleted",
    hint="restore it and run `registry flip {id} --demote --reason ...`; remove it in a later change",
    example="fr_v1 gone from models",
)
UNEXPLAINED = FindingRule(
    "base-demotion-unexplained",
    "demotion without a reason",
    why="A reason tells the next reader what was wrong.",
    message="production entry {id} was turned to smoke without a reason",
    hint="restore the entry, then run `registry flip {id} --demote --reason ...`",
    example="smoke: true set by hand",
)
LOOSENED = FindingRule(
    "base-policy-loosened",
    "policy loosened together with what it judges",
    why="A bar that is lowered and cleared in one change shows nothing. An entry that was production before, and meets "
    "the older policy still, is not held.",
    message="the policy of kind {kind!r} was loosened in the same change",
    hint="run `registry flip {id} --demote --reason ...` and flip it in a later change, or restore the policy",
    example=">= 0.95 made >= 0.5, with a promotion",
)
REQUIREMENT_LOOSENED = FindingRule(
    "base-requirement-loosened",
    "required plugin loosened together with what it judges",
    why="A plugin that a change leaves out judges nothing in it.",
    message="the registry's requires was loosened in the same change: {words}",
    hint="restore `requires`, and loosen it in a change of its own",
    example="house-rules removed from requires, with a promotion",
    since="0.2.0",
)
IMPORT_UNKNOWN = FindingRule(
    "base-import-unknown",
    "import that the registry at the base does not confirm",
    why="Anyone can type a digest: only what was production in the old registry may be imported as such.",
    message="the import promotes nothing here: {reason}",
    expected="a verdict",
    hint=FLIP_HINT,
    example="imported_from on an entry that was smoke",
)
UNJUDGED = FindingRule(
    "base-promotion-unjudged",
    "promotion that no rule judged",
    why="Nothing shows that the model may ship.",
    message="no rule judged this promotion",
    expected="a verdict, or a manual policy and a reason",
    hint=FLIP_HINT,
    example="smoke: false set by hand in version 1",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A registry held against a base: the verdicts on its promotions, and whatever else the change does."""

    base: Base
    path: str
    judgements: tuple[Judgement, ...]
    changes: tuple[Change, ...]
    added: tuple[Finding, ...] = ()  # files that no entry pins, and that the base did not have

    @property
    def passes(self) -> bool:
        return not self.added and all(judgement.verdict.promotes for judgement in self.judgements)


def gate_base(
    path: Path,
    plugins: Plugins,
    base: str | Path | Base,
    searched_from: Path | None = None,
    evidence: Path | None = None,
) -> Comparison:
    """Judge what a change does to production since `base`, and list what else it does.

    Judged is every entry that turned production, changed there (its document, its files, its policy) or was renamed;
    refused are an entry that was deleted from production and a demotion without a reason.
    base: a revision's name, the Path of an older registry, or what was loaded of either. searched_from: the folder
    from which the registry was looked for, None where it was named. evidence: a folder with the summaries of an
    ensemble of version 1.
    Raises RejectedError for a lowered schema_version.
    """
    if plugins.broken:
        plugins.need_all()
    before = base if isinstance(base, Base) else _load(base, path, searched_from)
    old = before.registry
    if old is not None and (isinstance(old, store.Unreadable) or old.findings):
        option = "--base-file" if before.place is None else "--base"
        raise InputError(f"{option} {before.name}: the registry there cannot be read: {old.findings[0]}")
    loaded = usable(path)
    was = old.registry if isinstance(old, store.Loaded) else store.empty()
    if old is not None and loaded.registry.schema_version < was.schema_version:
        raise RejectedError(
            f"{path}: schema_version was lowered: found {loaded.registry.schema_version}, "
            f"expected {was.schema_version}: restore it"
        )
    plugins.need_all((*was.requires, *loaded.registry.requires), was.optional_plugins)
    files = read_evidence(evidence) if evidence is not None else None
    if files is not None and loaded.registry.schema_version == store.REGISTRY_VERSION:
        raise InputError(
            "--evidence: in version 2 an entry pins its own, expected it for version 1 alone: leave it out"
        )
    with inspected(loaded, plugins) as inspection:
        comparer = _Comparer(inspection, before, was, files, BaseFiles(before, inspection))
        entries = range(len(loaded.registry.entries))
        judgements = [*filter(None, map(comparer.judge, entries)), *comparer.deleted()]
        kinds = {entry.kind for j in judgements for entry in [loaded.registry.entry(j.verdict.entry)] if entry}
        changes = [
            *comparer.changes(),
            *requirement_changes(was, loaded.registry),
            *policy_changes(was, loaded.registry, plugins.kinds, kinds),
        ]
    added = tuple(_unregistered(loaded, plugins, before))
    return Comparison(before, str(path), tuple(judgements), tuple(changes), added)


def _load(base: str | Path, path: Path, searched_from: Path | None) -> Base:
    return load_base_file(base) if isinstance(base, Path) else load_base(base, path, searched_from)


def _unregistered(loaded: store.Loaded, plugins: Plugins, base: Base) -> Iterator[Finding]:
    """An error for each file that no entry pins and that the base's folder did not have."""
    if base.commit is None:
        return  # an older file says nothing of its folder
    found = [f for f in check(loaded, plugins, Level.QUICK) if f.code == "file-unregistered" and f.file is not None]
    before = files_beside(base) if found else frozenset()
    for finding in found:
        if finding.file not in before:
            yield replace(finding, severity=Severity.ERROR)


@dataclass(frozen=True, slots=True)
class _Comparer:
    """A registry as it is and as it was; `before` is an empty one where there was none."""

    inspection: Inspection
    base: Base
    before: Registry
    evidence: Mapping[str, bytes] | None
    files: BaseFiles

    @property
    def after(self) -> Registry:
        return self.inspection.registry

    def _place(self, entry: Entry) -> InFile:
        """The registry's own file, for findings on an entry, or on one that it had."""
        return InFile(self.inspection.loaded.name, entry.id)

    def judge(self, index: int) -> Judgement | None:
        """The entry at this place; None where the change does nothing to it that needs a judgement."""
        entry = self.after.entries[index]
        old = self._was(entry)
        if entry.smoke:
            return self._demoted(entry, index, old)
        if old is None or old.smoke:
            why = "turned production"
        elif self._is_kept(entry, old):
            return self._check_kept(index, old)
        elif old.id != entry.id:
            why = f"renamed from {old.id}"
        elif old.document != entry.document:
            why = "changed while in production"
        elif self.after.policies.get(entry.kind) != self.before.policies.get(entry.kind):
            why = POLICY_CHANGED
        else:
            return self._check_kept(index, old)
        return replace(self._judged(self.inspection.verify(index), old, why), why=why)

    def deleted(self) -> list[Judgement]:
        """What was production and is gone: neither renamed, nor joined into an ensemble with a reason."""
        removed = [old for old in self._removed() if old.is_production]
        joined = self._joined() if removed else EMPTY
        hint = DELETED_VERSION_1_HINT if self._is_older_version else None
        return [
            self._hold(
                old, "deleted while in production", [DELETED.at(self._place(old), "/models", hint=hint, id=old.id)]
            )
            for old in removed
            if joined.get(old.id) != old.sha256
        ]

    def changes(self) -> Iterator[Change]:
        """What the change does to the registry and its entries beside promotions."""
        if moved_to := self.base.moved_to:
            yield Change("moved", str(self.base.path), f"moved to {moved_to}")
        if self.base.registry is not None and self.after.schema_version != self.before.schema_version:
            words = f"schema_version {self.before.schema_version} became {self.after.schema_version}"
            yield Change("schema_version", self.inspection.loaded.name, words)
        for entry in self.after.entries:
            old = self._was(entry)
            if old is not None:
                yield from entry_changes(old, entry)
            if old is not None and old.document != entry.document and self._is_kept(entry, old):
                yield Change("kept", entry.id, "production before, with the same bytes: not judged again")
        joined = self._joined() if self._removed() else EMPTY
        for old in self._removed():
            if joined.get(old.id) == old.sha256:
                yield Change("joined", old.id, "it is a member of an ensemble now")
            else:
                yield from entry_changes(old, None)

    def _removed(self) -> list[Entry]:
        ids = {entry.id for entry in self.after.entries} | {old.id for e in self.after.entries if (old := self._was(e))}
        return [old for old in self.before.entries if old.id not in ids]

    def _is_kept(self, entry: Entry, old: Entry) -> bool:
        """Whether a single model was production at the base with the same bytes, by no verdict: it needs none now.

        That is an entry of version 1, or one imported from there: nothing promoted it in this change.
        """
        if entry.smoke or old.smoke or entry.sha256 != old.sha256 or entry.manifest is not None:
            return False
        migrated = not self._is_older_version and self.before.schema_version < store.REGISTRY_VERSION
        came_from = (entry.promotion or EMPTY).get("imported_from")
        if migrated:
            document = self.base.registry.document if self.base.registry is not None else None
            if document is None or sha256_of(document.data) != came_from:
                return False
        elif not self._is_older_version and came_from is None:
            return False
        fields = (
            {*old.document, *entry.document}
            - DESCRIPTIVE_FIELDS
            - {"smoke"}
            - (ADDED_BY_MIGRATION if migrated else frozenset())
        )
        return all(old.document.get(field) == entry.document.get(field) for field in fields)

    def _check_kept(self, index: int, old: Entry) -> Judgement | None:
        """An entry that needs no judgement is held where its files are not those that were promoted.

        What was broken at the base already, by no file that changed since, is for `validate` to find.
        """
        entry = self.after.entries[index]
        if self.files.has_other_sidecar(entry, old):
            return replace(self._judged(self.inspection.verify(index), old, SIDECAR_CHANGED), why=SIDECAR_CHANGED)
        if entry.document != old.document:
            broken = errors_of(check_entry(self.inspection.verify(index), self.inspection))
            return self._hold(entry, FILES_CHANGED, broken) if broken else None
        inspection = self.inspection if self.files.may_hold_pinned_weights(entry) else self.inspection.quick()
        view = inspection.verify(index)
        broken = [f for f in errors_of(check_entry(view, inspection)) if f.code.startswith(PIN_CODES)]
        return self._hold(entry, FILES_CHANGED, broken) if broken and self.files.differ(view) else None

    def _was(self, entry: Entry) -> Entry | None:
        """The same entry before, under another id where its bytes are the same and neither id is on both sides."""
        old = self.before.entry(entry.id)
        if old is not None:
            return old
        others = (old for old in self.before.entries if self.after.entry(old.id) is None)
        return next((old for old in others if (old.kind, old.sha256) == (entry.kind, entry.sha256)), None)

    def _joined(self) -> Mapping[str, str]:
        """id -> sha256 of the version-1 entries that ensembles took in, which say why they are smoke."""
        members: dict[str, str] = {}
        for index, entry in enumerate(self.after.entries):
            if (
                entry.manifest is not None
                and "demotion" in entry.document
                and self.before.schema_version < store.REGISTRY_VERSION
            ):
                view = self.inspection.verify(index)
                if isinstance(view, BrokenEntry):
                    continue
                for member in (view.manifest or EMPTY).get("members", ()):
                    if isinstance(member, dict):
                        members[str(member.get("id"))] = str(member.get("sha256"))
        return members

    def _demoted(self, entry: Entry, index: int, old: Entry | None) -> Judgement | None:
        if old is None or old.smoke or (self._is_older_version and entry.manifest is None):
            return None  # version 1 has no place for a reason
        demotion = entry.document.get("demotion", EMPTY)
        if demotion.get("manifest_sha256") == old.sha256:
            return None
        found = "no demotion" if not demotion else f"a demotion of {demotion.get('manifest_sha256')}"
        place, expected = self._place(entry), f"one of {old.sha256}"
        finding = UNEXPLAINED.at(place, pointer("models", index, "smoke"), found=found, expected=expected, id=entry.id)
        return self._hold(entry, "demoted", [finding])

    def _hold(self, entry: Entry, why: str, findings: list[Finding]) -> Judgement:
        policy = self.inspection.policy(entry.kind)
        reasons = tuple(f"{finding.code}: {finding}" for finding in findings)
        return Judgement(Verdict(entry.id, "HOLD", policy, EMPTY, reasons, entry.sha256), None, why, tuple(findings))

    def _judged(self, view: VerifiedEntry | BrokenEntry, old: Entry | None, why: str) -> Judgement:
        entry = view.entry
        errors = errors_of(check_entry(view, self.inspection))
        policy = self.inspection.policy(entry.kind)
        if self._is_loosened(entry, old) and not self._meets_older_policy(view, old):
            errors.append(self._loosened(entry, entry.kind))
        errors += [
            REQUIREMENT_LOOSENED.at(self._place(entry), "/requires", words=str(change))
            for change in requirement_changes(self.before, self.after)
            if change.severity is Severity.WARNING
        ]
        promotion = entry.promotion or EMPTY
        if "imported_from" in promotion:
            was = old is not None and old.is_production and old.sha256 == entry.sha256
            reason = (
                "it was changed since" if was else f"the registry at the base did not have {entry.id} as production"
            )
            hint = promoting_again(entry, self.inspection)
            errors.append(
                IMPORT_UNKNOWN.at(view.row, "/promotion", found="imported_from", hint=hint, reason=reason, id=entry.id)
            )
        if errors or isinstance(view, BrokenEntry):
            return self._hold(entry, why, errors)
        if "verdict" in promotion:
            return judge_entry(view, self.inspection, base=self.before)
        if policy.gate == "manual" and promotion.get("manual") is True and promotion.get("reason"):
            return Judgement(Verdict(entry.id, "PROMOTE", policy, EMPTY, (), entry.sha256))
        if self._is_older_version and (judgement := self._judged_as_member(entry)) is not None:
            return judgement
        hint = promoting_again(entry, self.inspection)
        if self._is_older_version:
            hint = SUMMARIES_HINT if self._ensembles_of(entry) else f"set smoke to true, or {VERSION_2_HINT}"
        return self._hold(entry, why, [UNJUDGED.at(view.row, "/smoke", found="smoke: false", hint=hint, id=entry.id)])

    def _meets_older_policy(self, view: VerifiedEntry | BrokenEntry, old: Entry | None) -> bool:
        """Whether the entry was production at the base, with these bytes, and meets the policy of the base still.

        Then the looser policy lets nothing through that the older one held.
        """
        policy = self.before.policies.get(view.entry.kind)
        if isinstance(view, BrokenEntry) or policy is None or old is None or old.smoke or self._is_older_version:
            return False
        if old.sha256 != view.entry.sha256 or policy.gate == "manual":
            return False
        return judge_entry(view, self.inspection, base=self.before, policy=policy).verdict.promotes

    def _judged_as_member(self, entry: Entry) -> Judgement | None:
        """A single model of version 1 by the summaries of the ensemble that lists it; None where there are none."""
        if self.evidence is None:
            return None
        for ensemble in self._ensembles_of(entry):
            found, _, _ = check_unpinned_manifests(self.inspection)
            errors = [f for f in errors_of(found) if f.entry in (entry.id, ensemble.entry.id)]
            if errors or isinstance(ensemble, BrokenEntry):
                return self._hold(entry, "", errors)
            if self._is_loosened(ensemble.entry, None):
                return self._hold(entry, "", [self._loosened(entry, ensemble.entry.kind)])
            registry = self._with_rules_of(entry.kind, ensemble.entry.kind)
            judgement = judge_foreign(ensemble, registry, self.inspection.plugins, GateRequest(self.evidence))
            return replace(judgement, verdict=replace(judgement.verdict, entry=entry.id))
        return None

    def _loosened(self, entry: Entry, kind: str) -> Finding:
        hint = "set smoke to true and make it false in a later change, or restore the policy"
        field = pointer("models", self.after.entries.index(entry), "kind")
        return LOOSENED.at(
            self._place(entry), field, hint=hint if self._is_older_version else None, kind=kind, id=entry.id
        )

    def _with_rules_of(self, member: str, ensemble: str) -> Registry:
        """The registry with the rules for the members' kind among those for their ensemble's: both are asked."""
        own, kind = self.after.policies.get(member), self.inspection.plugins.kinds[ensemble]
        policy = self.after.policies.get(ensemble, kind.default_policy)
        if own is None or not policy.rules:
            return self.after
        return self.after.with_policy(ensemble, replace(policy, rules=(*policy.rules, *own.rules)))

    def _ensembles_of(self, entry: Entry) -> list[VerifiedEntry | BrokenEntry]:
        """The ensembles of version 1 that list a single model."""
        return [ensemble for ensemble in read_ensembles(self.inspection) if lists(ensemble, entry)]

    def _is_loosened(self, entry: Entry, old: Entry | None) -> bool:
        """Whether the policy lets through what the base's did not; a new entry loosens none that was not there.

        Version 1 need not name a policy: without one, the kind's default is what it has.
        """
        old_policy, kind = self.before.policies.get(entry.kind), self.inspection.plugins.kinds.get(entry.kind)
        default = kind.default_policy if kind is not None else Policy()
        if old_policy is None and old is not None:
            old_policy = default
        policy = self.after.policies.get(entry.kind, default if self._is_older_version else Policy())
        return old_policy is not None and is_looser(policy, old_policy)

    @property
    def _is_older_version(self) -> bool:
        return self.after.schema_version < store.REGISTRY_VERSION
