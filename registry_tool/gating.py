"""gating.py: the stories of promotion: gate, flip, demote, and the gate of a whole change. No click, no printing."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from registry_tool import store
from registry_tool.checks import check_entry, open_entry
from registry_tool.entries import OpenEntry, sha256_of
from registry_tool.errors import InputError, PluginError, RejectedError
from registry_tool.files import FileProblem, Folder, locked, write_atomic
from registry_tool.flows import find_entry, opened, save_sound, usable
from registry_tool.gitbase import load_base
from registry_tool.hookspec import GateRequest, Level
from registry_tool.plugins import Plugins
from registry_tool.policy import judge
from registry_tool.probe import Prober
from registry_tool.promotion import find_beside, is_random, measure
from registry_tool.store import Loaded
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, Entry, Evidence, Policy, Registry, Severity, Verdict, checked_text

EVIDENCE_MAX_BYTES = 64 * 2**20
EVIDENCE_MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the evidence it rests on; why: what made `gate --base` look at the entry."""

    verdict: Verdict
    evidence: Evidence | None = None
    why: str = ""


def gate(path: Path, plugins: Plugins, entry_id: str, against: str | None = None) -> Judgement:
    """Judge an entry by its registry's policy and its own pinned evidence; writes nothing.

    against: another incumbent than the policy's to compare with; the verdict then says so in its policy.
    """
    loaded = usable(path)
    assert loaded.registry is not None
    entry = find_entry(loaded, entry_id)
    with opened(loaded, plugins, entry) as view:
        return _judge(view, loaded.registry, plugins, against)


def _judge(view: OpenEntry, registry: Registry, plugins: Plugins, against: str | None = None) -> Judgement:
    policy = registry.policies.get(view.entry.kind, Policy())
    if against is not None:
        policy = replace(policy, extra=MappingProxyType({**policy.extra, "against": against}))
    incumbent = find_beside(view, registry, plugins, policy.against)
    evidence = measure(view, plugins, GateRequest(against=incumbent))
    if is_random(view):
        evidence = replace(evidence, problems=("the model was trained on random rows", *evidence.problems))
    return Judgement(judge(policy, evidence, view.entry, plugins.versions), evidence)


def gate_foreign(
    path: Path | None, plugins: Plugins, entry_id: str | None, kind: str | None, evidence: Path, corpus: Path | None
) -> Judgement:
    """Judge evidence that stands in a folder, for an entry or for none; such a verdict flips nothing.

    Without an entry the policy is the registry's for `kind`, or the kind's default.
    """
    files = _read_folder(evidence)
    loaded = usable(path) if path is not None else None
    request = GateRequest(files, corpus)
    if entry_id is not None:
        if loaded is None:
            raise InputError(f"{entry_id}: found no registry, expected one with this entry: name it with --registry")
        entry = find_entry(loaded, entry_id)
        with opened(loaded, plugins, entry) as view:
            found = measure(view, plugins, request)
    else:
        entry = Entry("evidence", kind or _only_gated_kind(plugins), True, "0" * 64)
        with Folder(evidence) as folder:
            found = measure(OpenEntry(folder, entry, 0, "", EVIDENCE_MAX_BYTES), plugins, request)
        entry = replace(entry, sha256="")
    policies: Mapping[str, Policy] = loaded.registry.policies if loaded and loaded.registry else EMPTY
    policy = policies.get(entry.kind, plugins.kinds[entry.kind].default_policy)
    verdict = judge(policy, found, entry, plugins.versions)
    return Judgement(replace(verdict, manifest_sha256=entry.sha256 or None), found)


def _only_gated_kind(plugins: Plugins) -> str:
    gated = sorted(name for name, kind in plugins.kinds.items() if kind.default_policy.rules)
    if len(gated) != 1:
        raise InputError(f"--kind: found none, expected one of {', '.join(gated) or '(no kind has a gate)'}: name it")
    return gated[0]


def _read_folder(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected one with evidence files: check the path")
    names = sorted(p.name for p in path.iterdir() if stat.S_ISREG(p.lstat().st_mode))
    if not names or len(names) > EVIDENCE_MAX_FILES:
        raise InputError(f"{path}: found {len(names)} files, expected 1 to {EVIDENCE_MAX_FILES} evidence files")
    try:
        with Folder(path) as folder:
            return {name: folder.read(name, EVIDENCE_MAX_BYTES) for name in names}
    except FileProblem as problem:
        raise InputError(f"{path}: {problem}") from problem


def write_verdict(path: Path, verdict: Verdict) -> None:
    write_atomic(path, dump(verdict.to_dict()))


# ---- flip -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flip:
    """What `flip` did: the verdict (None under a manual policy) and the path of its file, relative to the registry."""

    entry: Entry
    judgement: Judgement | None = None
    verdict_path: str | None = None

    @property
    def done(self) -> bool:
        return self.judgement is None or self.judgement.verdict.promotes


def flip(path: Path, plugins: Plugins, entry_id: str, reason: str | None = None) -> Flip:
    """smoke -> production, on evidence judged now; nothing is written unless the verdict is PROMOTE.

    Raises RejectedError for an entry that is production already, does not validate, or holds random rows.
    """
    usable(path)
    with locked(path.parent):
        loaded, registry, entry = _writable(path, entry_id)
        if entry.is_production:
            raise RejectedError(f"{entry_id}: it is production already, expected a smoke entry: nothing to flip")
        with Prober() as prober, opened(loaded, plugins, entry) as view:
            findings = check_entry(view, registry, plugins, Level.FULL, prober)
            if errors := [f for f in findings if f.severity is Severity.ERROR]:
                raise RejectedError(f"{entry_id}: it does not validate, so it is not flipped: {errors[0]}")
            if is_random(view):
                raise RejectedError(
                    f"{entry_id}: it was trained on random rows (--smoke), which promote nothing: train it"
                )
            policy = registry.policies.get(entry.kind, Policy())
            if policy.gate == "manual":
                if not reason:
                    raise InputError(f"{entry_id}: the policy of kind {entry.kind!r} is manual, expected --reason TEXT")
                checked_text("--reason", reason, 512)
                flipped = entry.with_fields(smoke=False, promotion={"manual": True, "reason": reason}, demotion=None)
                try:
                    save_sound(path, registry.with_entry(flipped), flipped, plugins, None, prober)
                except PluginError as error:
                    raise RejectedError(str(error)) from error
                return Flip(flipped)
            if reason:
                raise InputError(f"--reason: the policy of kind {entry.kind!r} goes by evidence: leave --reason out")
            judgement = _judge(view, registry, plugins)
            if not judgement.verdict.promotes:
                return Flip(entry, judgement)
            if judgement.verdict.summary_only or judgement.verdict.evidence_sha256 is None:
                raise RejectedError(
                    f"{entry_id}: its evidence is a summary without predictions, which flips nothing: train it"
                )
            data = dump(judgement.verdict.to_dict())
            digest = sha256_of(data)
            where = f"{entry_id}/verdicts/PROMOTE-{digest[:12]}.json"
            made = None if (path.parent / where).exists() else where
            write_atomic(path.parent / where, data, root=path.parent)
            flipped = entry.with_fields(smoke=False, promotion={"verdict": where, "sha256": digest}, demotion=None)
            save_sound(path, registry.with_entry(flipped), flipped, plugins, made, prober)
            return Flip(flipped, judgement, where)


def demote(path: Path, entry_id: str, reason: str) -> Entry:
    """production -> smoke, with a reason that stays in the entry."""
    checked_text("--reason", reason, 512)
    usable(path)
    with locked(path.parent):
        _, registry, entry = _writable(path, entry_id)
        if entry.smoke:
            raise RejectedError(f"{entry_id}: it is smoke already, expected a production entry: nothing to demote")
        demotion = {"reason": reason, "manifest_sha256": entry.sha256}
        demoted = entry.with_fields(smoke=True, promotion=None, demotion=demotion)
        store.save(path, registry.with_entry(demoted))
        return demoted


def _writable(path: Path, entry_id: str) -> tuple[Loaded, Registry, Entry]:
    loaded = usable(path)
    assert loaded.registry is not None
    entry = find_entry(loaded, entry_id)
    if loaded.registry.schema_version != store.VERSION:
        raise InputError(
            f"{path}: schema_version {loaded.registry.schema_version} has no promotions, expected 2: "
            "its entries are edited by hand, or move to a registry of version 2"
        )
    return loaded, loaded.registry, entry


# ---- gate --base ------------------------------------------------------------------------------------------------


def gate_base(path: Path, plugins: Plugins, base: str) -> list[Judgement]:
    """Judge every entry that turned production, or changed while in production, since `base`; [] where none did.

    Raises RejectedError for a lowered schema_version.
    """
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
    judgements = []
    for index, entry in enumerate(loaded.registry.entries):
        for why in _why(entry, loaded.registry, before):
            with Folder(loaded.folder) as folder:
                view = open_entry(folder, loaded, plugins, entry, index, keep=True)
                judgement = _judge_now(view, loaded.registry, old, plugins)
            judgements.append(replace(judgement, why=why))
    return judgements


def _why(entry: Entry, now: Registry, before: Registry) -> Iterator[str]:
    old = before.entry(entry.id)
    if entry.smoke:
        return
    if old is None or old.smoke:
        yield "turned production"
    elif old.document != entry.document:
        yield "changed while in production"
    elif now.policies.get(entry.kind) != before.policies.get(entry.kind):
        yield "its policy changed"


def _judge_now(view: OpenEntry, registry: Registry, base: Loaded | None, plugins: Plugins) -> Judgement:
    entry = view.entry
    before = base.registry if base is not None and base.registry is not None else store.empty()
    errors = [f for f in check_entry(view, registry, plugins, Level.FULL) if f.severity is Severity.ERROR]
    reasons = tuple(f"{f.code}: {f}" for f in errors)
    policy = registry.policies.get(entry.kind, Policy())
    kind = plugins.kinds.get(entry.kind)
    stood = before.policies.get(entry.kind, kind.default_policy if kind else Policy())
    if registry.schema_version == store.VERSION and policy.is_looser_than(stood):
        reasons += (f"the policy of kind {entry.kind!r} was loosened in the same change: land the policy first, alone",)
    promotion = entry.promotion or EMPTY
    if "imported_from" in promotion and not _was_imported(entry, base):
        reasons += (f"imported_from: the registry at the base did not have {entry.id} as production: flip it",)
    if reasons:
        return Judgement(Verdict(entry.id, "HOLD", policy, EMPTY, reasons, entry.sha256))
    if "verdict" not in promotion:
        return Judgement(Verdict(entry.id, "PROMOTE", policy, EMPTY, (), entry.sha256))
    return _judge(view, registry, plugins)


def _was_imported(entry: Entry, base: Loaded | None) -> bool:
    """True where the base is the version-1 registry that the entry came from, or had this very promotion already."""
    old = base.registry.entry(entry.id) if base is not None and base.registry is not None else None
    if base is None or base.registry is None or base.document is None or old is None or old.smoke:
        return False
    came_from = (entry.promotion or EMPTY).get("imported_from")
    migrated = base.registry.schema_version < store.VERSION and sha256_of(base.document.data) == came_from
    return (migrated or old.promotion == entry.promotion) and old.sha256 == entry.sha256
