"""promote.py: the stories of flip, repromote and demote. No click, no printing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.policy import unread
from registry_tool.checks.promotion import is_random, refuse_itself
from registry_tool.checks.signatures import signatures_lacking
from registry_tool.documents import store
from registry_tool.documents.entries import VerifiedEntry, sha256_of
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.errors import InputError, RejectedError
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import dump
from registry_tool.values import Entry, checked_text
from registry_tool.workflows.gate import Judgement, judge_entry
from registry_tool.workflows.loading import changing, find_entry, inspected, refuse_unsound, save_sound, verified


@dataclass(frozen=True, slots=True)
class Flip:
    """What `flip` or `repromote` did: the verdict, None under a manual policy; the path of its file in the registry.

    warnings: beside those of the verdict.
    """

    entry: Entry
    judgement: Judgement | None = None
    verdict_path: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.judgement is None or self.judgement.verdict.promotes


def flip(path: Path, plugins: Plugins, entry_id: str, reason: str | None = None) -> Flip:
    """smoke -> production, on evidence judged now; nothing is written unless the verdict is PROMOTE.

    Raises RejectedError for an entry that is production already, does not validate, or holds random rows.
    """
    plugins.need_all()
    with changing(path) as loaded:
        entry = _promotable(loaded, entry_id)
        if entry.is_production:
            raise RejectedError(
                f"{entry_id}: it is production already, expected a smoke entry: `registry gate {entry_id}` judges it, "
                f"`registry repromote {entry_id}` keeps a new verdict"
            )
        return _promote(loaded, plugins, entry_id, reason)


def repromote(path: Path, plugins: Plugins, entry_id: str, reason: str | None = None) -> Flip:
    """production -> production, judged now by the policy as it is now; else the promotion that is there stays.

    What is kept with the old verdict, attestations and results of training again, goes with it.
    Raises RejectedError as `flip`, and for an entry that is smoke.
    """
    plugins.need_all()
    with changing(path) as loaded:
        entry = _promotable(loaded, entry_id)
        if entry.smoke:
            raise RejectedError(f"{entry_id}: it is smoke, expected a production entry: run `registry flip {entry_id}`")
        as_smoke = loaded.registry.with_entry(entry.with_fields(smoke=True, promotion=None))
        read = store.read(path, dump(as_smoke.to_dict()))
        if isinstance(read, Unreadable):
            raise InputError(f"{read.findings[0]}: run `registry validate {path}`")
        done = _promote(read, plugins, entry_id, reason)
        return done if done.done else replace(done, entry=entry)


def _promote(loaded: Loaded, plugins: Plugins, entry_id: str, reason: str | None) -> Flip:
    """A smoke entry made production. loaded: the registry, with the entry as a smoke one."""
    path, registry = loaded.path, loaded.registry
    entry = find_entry(loaded, entry_id)
    with inspected(loaded, plugins) as inspection:
        view = verified(inspection, entry_id)
        refuse_unsound(view, inspection, "it is not promoted")
        if is_random(view):
            raise RejectedError(f"{entry_id}: it was trained on random rows (--smoke), which promote nothing: train it")
        if inspection.policy(entry.kind).gate == "manual":
            return _promote_by_hand(view, inspection, reason)
        if reason:
            raise InputError(f"--reason: the policy of kind {entry.kind!r} promotes on evidence: leave --reason out")
        refuse_itself(entry_id, inspection.policy(entry.kind).incumbent)
        judgement = judge_entry(view, inspection)
        if not judgement.verdict.promotes:
            return Flip(entry, judgement)
        if judgement.verdict.summary_only or judgement.verdict.evidence_sha256 is None:
            raise RejectedError(
                f"{entry_id}: its evidence is a summary without predictions, which promotes nothing: train it"
            )
        data = dump({**judgement.verdict.to_dict(), **store.schema_beside(path, registry, "verdict")})
        digest = sha256_of(data)
        verdict_path = f"{entry_id}/verdicts/PROMOTE-{digest[:12]}.json"
        made = None if (path.parent / verdict_path).exists() else verdict_path
        write_atomic(path.parent / verdict_path, data, root=path.parent)
        promoted = entry.with_fields(smoke=False, promotion={"verdict": verdict_path, "sha256": digest}, demotion=None)
        save_sound(inspection, registry.with_entry(promoted), promoted, made, RejectedError)
        return Flip(promoted, judgement, verdict_path)


def _promote_by_hand(view: VerifiedEntry, inspection: Inspection, reason: str | None) -> Flip:
    """On a person's decision, with a reason; the policy may ask for signatures all the same."""
    entry, policy = view.entry, inspection.policy(view.entry.kind)
    if not reason:
        raise InputError(f"{entry.id}: the policy of kind {entry.kind!r} is manual, expected --reason TEXT")
    checked_text("--reason", reason, 512)
    if lacking := signatures_lacking(view, policy):
        raise RejectedError(f"{entry.id}: {'; '.join(lacking)}: sign it with `registry sign {entry.id} --key PEM`")
    flipped = entry.with_fields(smoke=False, promotion={"manual": True, "reason": reason}, demotion=None)
    save_sound(inspection, inspection.registry.with_entry(flipped), flipped, None, RejectedError)
    return Flip(flipped, warnings=unread(policy, entry.kind))


def demote(path: Path, entry_id: str, reason: str) -> Entry:
    """production -> smoke, with a reason that stays in the entry."""
    checked_text("--reason", reason, 512)
    with changing(path) as loaded:
        entry = _promotable(loaded, entry_id)
        if entry.smoke:
            raise RejectedError(
                f"{entry_id}: it is smoke already, expected a production entry: `registry list` shows which are"
            )
        demotion = {"reason": reason, "manifest_sha256": entry.sha256}
        demoted = entry.with_fields(smoke=True, promotion=None, demotion=demotion)
        store.save(path, loaded.registry.with_entry(demoted))
        return demoted


def _promotable(loaded: Loaded, entry_id: str) -> Entry:
    """The entry of this id. Raises InputError as `find_entry`, and for a registry without promotions."""
    entry, path = find_entry(loaded, entry_id), loaded.path
    if loaded.registry.schema_version != store.REGISTRY_VERSION:
        raise InputError(
            f"{path}: schema_version {loaded.registry.schema_version} has no promotions, expected 2: "
            f"edit `smoke` by hand, or make one of version 2 with `registry migrate {path} -o NEW`"
        )
    return entry
