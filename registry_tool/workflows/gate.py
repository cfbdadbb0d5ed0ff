"""gate.py: the story of `registry gate`: evidence measured and judged, nothing written. No click, no printing."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, Unpack

from registry_tool.checks.entry import check_content
from registry_tool.checks.policy import judge, summary_policy
from registry_tool.checks.promotion import find_incumbent, is_random, measure, refuse_itself
from registry_tool.checks.signatures import policy_signers
from registry_tool.documents import store
from registry_tool.documents.entries import BrokenEntry, VerifiedEntry
from registry_tool.documents.schema import show
from registry_tool.errors import InputError, RejectedError
from registry_tool.findings import Finding, FindingFields, InFile, errors_of
from registry_tool.hookspec import EntryView, GateRequest
from registry_tool.legacy.ensembles import corpora, lists, read_ensembles
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, Entry, Evidence, Json, Policy, Registry, Verdict, first_names
from registry_tool.workflows.loading import inspected, usable, verified

EVIDENCE_MAX_BYTES = 64 * 2**20  # of all files together
EVIDENCE_MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its evidence. why: what made `gate --base` look at the entry; findings: what it refused."""

    verdict: Verdict
    evidence: Evidence | None = None
    why: str = ""
    findings: tuple[Finding, ...] = ()


def gate(path: Path, plugins: Plugins, entry_id: str, incumbent: str | None = None) -> Judgement:
    """Judge an entry by its registry's policy and its own pinned evidence; writes nothing.

    incumbent: another one than the policy's to compare with; the verdict then says so in its policy.
    """
    with inspected(usable(path), plugins) as inspection:
        view = _entry(inspection, entry_id)
        refuse_itself(entry_id, incumbent or inspection.policy(view.entry.kind).incumbent)
        judgement = judge_entry(view, inspection, incumbent)
        if not judgement.verdict.promotes:
            return judgement
        reasons = tuple(f"{found.code}: {found}" for found in errors_of(check_content(view, inspection)))
        decision = "HOLD" if reasons else judgement.verdict.decision
        return replace(judgement, verdict=replace(judgement.verdict, decision=decision, reasons=reasons))


def judge_entry(
    view: VerifiedEntry,
    inspection: Inspection,
    incumbent: str | None = None,
    base: Registry | None = None,
    policy: Policy | None = None,
) -> Judgement:
    """By the evidence that the entry pins and a policy, by default its registry's.

    base: the registry that the incumbent is taken from, so that one that is trained again is not compared with itself.
    """
    policy, plugins = policy or inspection.policy(view.entry.kind), inspection.plugins
    if incumbent is not None:
        policy = replace(policy, extra=MappingProxyType({**policy.extra, "against": incumbent}))
    found = find_incumbent(plugins.comparable(view.entry.kind), inspection, policy.incumbent, base)
    try:
        evidence = measure(view, plugins, GateRequest(rules=policy.rules), found)
    except InputError as error:
        raise _without_evidence(inspection, view.entry.id) or error from error
    if is_random(view):
        evidence = replace(evidence, problems=("the model was trained on random rows", *evidence.problems))
    signatures = policy_signers(view, policy)
    if signatures.problems:
        evidence = replace(evidence, problems=(*evidence.problems, *signatures.problems))
    return Judgement(judge(policy, evidence, view.entry, plugins.versions, signatures.signers), evidence)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Evidence that lies in a folder. corpus: a corpus file that it must fit. seeds: of which there must be evidence.

    column_names: of the corpus, as of `GateRequest`.
    Without seeds, and without an entry to judge, there must be as many as the policy's `n_seeds` asks for.
    """

    folder: Path
    corpus: Path | None = None
    seeds: tuple[int, ...] | None = None
    column_names: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def request(self) -> GateRequest:
        evidence = read_evidence(self.folder)
        return GateRequest(evidence, self.corpus, seeds=self.seeds, column_names=self.column_names)


def gate_foreign(path: Path, plugins: Plugins, entry_id: str, foreign: Foreign) -> Judgement:
    """Judge foreign evidence for an entry or an ensemble of version 1, by its registry's policy; it flips nothing.

    Evidence without predictions is judged by the kind's rules for summaries in the default policy's place.
    """
    request = foreign.request()
    with inspected(usable(path), plugins) as inspection:
        view = _entry_or_ensemble(inspection, entry_id)
        try:
            judgement = judge_foreign(view, inspection.registry, plugins, request)
        except InputError as error:
            raise (view.entry.onnx and _without_evidence(inspection, entry_id)) or error from error
        if foreign.corpus is None:
            return judgement
        reasons = _other_corpora(foreign.corpus, corpora(view, inspection))
        decision = "HOLD" if reasons else judgement.verdict.decision
        reasons = (*judgement.verdict.reasons, *reasons)
        return replace(judgement, verdict=replace(judgement.verdict, decision=decision, reasons=reasons))


def _other_corpora(path: Path, named: Mapping[str, Mapping[str, Json]]) -> tuple[str, ...]:
    """A line for the members whose sidecars name another corpus file than this one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    others = {name: corpus["sha256"] for name, corpus in named.items() if corpus.get("sha256") not in (None, digest)}
    if not others:
        return ()
    found = f"corpus.sha256 {show(next(iter(others.values())))}"
    return (f"the sidecars of {first_names(others)} name another corpus: found {found}, the file's is {digest}",)


def gate_foreign_kind(path: Path | None, plugins: Plugins, kind: str | None, foreign: Foreign) -> Judgement:
    """Judge foreign evidence for no entry, by the registry's policy for `kind`, or by the kind's default.

    Raises InputError where a seed is missing.
    """
    request = foreign.request()
    registry = usable(path).registry if path is not None else None
    plugins.need(registry.requires if registry is not None else ())
    view = NoEntry(Entry("evidence", kind or _only_gated_kind(plugins), True, "0" * 64))
    judgement = judge_foreign(view, registry, plugins, request)
    asked = [rule.bound for rule in judgement.verdict.policy.rules if (rule.metric, rule.op) == ("n_seeds", ">=")]
    found = judgement.verdict.metrics.get("n_seeds")
    if foreign.seeds is None and found is not None and asked and found < max(asked):
        raise InputError(
            f"{foreign.folder}: found the evidence of {found:g} seeds, expected {max(asked):g} (n_seeds): "
            "add the missing files, or name the seeds with --seeds"
        )
    return replace(judgement, verdict=replace(judgement.verdict, manifest_sha256=None))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NoEntry:
    """What a hook is given where evidence is judged for no entry: nothing is pinned. A `hookspec.EntryView`."""

    entry: Entry
    manifest: None = None
    paths: tuple[str, ...] = ()

    def read(self, path: str) -> NoReturn:
        raise KeyError(f"{path}: there is no entry that could pin it")

    def onnx(self, path: str) -> NoReturn:
        raise KeyError(f"{path}: there is no entry that could pin it")

    def run(self, path: str, inputs: Mapping[str, object]) -> NoReturn:
        raise KeyError(f"{path}: there is no entry that could pin it")

    def finding(self, code: str, message: str, pointer: str = "", **fields: Unpack[FindingFields]) -> Finding:
        return InFile(None, self.entry.id).finding(code, message, pointer, **fields)


def judge_foreign(view: EntryView, registry: Registry | None, plugins: Plugins, request: GateRequest) -> Judgement:
    """Foreign evidence, by the registry's policy."""
    evidence, kind = measure(view, plugins, request), plugins.kinds[view.entry.kind]
    policy = (registry.policies if registry is not None else EMPTY).get(kind.name, kind.default_policy)
    if evidence.summary_only:
        policy = summary_policy(kind, policy)
    return Judgement(judge(policy, evidence, view.entry, plugins.versions), evidence)


def _entry(inspection: Inspection, entry_id: str) -> VerifiedEntry:
    """The entry of this id, to be judged by what it pins."""
    if inspection.registry.entry(entry_id) is None and (error := _without_evidence(inspection, entry_id)):
        raise error
    return verified(inspection, entry_id)


def _without_evidence(inspection: Inspection, entry_id: str) -> InputError | None:
    """Says what judges a single model, or an ensemble's unpinned manifest, of version 1; None for anything else."""
    entry = inspection.registry.entry(entry_id)
    if inspection.registry.schema_version >= store.REGISTRY_VERSION or (entry is not None and entry.onnx is None):
        return None
    pins = f"{entry_id}: a registry of version 1 pins no evidence"
    for ensemble in read_ensembles(inspection):
        if lists(ensemble, entry) if entry is not None else ensemble.entry.id == entry_id:
            judge_it = f"`registry gate {ensemble.entry.id} --evidence DIR` judges its ensemble"
            return InputError(f"{pins}, expected a folder with loso_seed*.json files: {judge_it}")
    make_one = f"make one of version 2 with `registry migrate {inspection.loaded.path} -o NEW`"
    return InputError(f"{pins}: {make_one}") if entry is not None else None


def _entry_or_ensemble(inspection: Inspection, entry_id: str) -> VerifiedEntry:
    """The entry of this id; in version 1 also an ensemble whose manifest no entry names."""
    if inspection.registry.entry(entry_id) is None:
        for ensemble in read_ensembles(inspection):
            if ensemble.entry.id == entry_id:
                if isinstance(ensemble, BrokenEntry):
                    path = inspection.loaded.path
                    raise RejectedError(f"{entry_id}: {ensemble.findings[0]}: run `registry validate {path}`")
                return ensemble
    return verified(inspection, entry_id)


def _only_gated_kind(plugins: Plugins) -> str:
    kinds = plugins.kinds.items()
    gated = sorted(name for name, kind in kinds if kind.schema is not None and kind.default_policy.rules)
    if len(gated) != 1:
        raise InputError(f"--kind: found none, expected one of {', '.join(gated) or '(no kind has a gate)'}: name it")
    return gated[0]


def read_evidence(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected one with evidence files: check the path")
    names = sorted(p.name for p in path.iterdir() if not stat.S_ISDIR(p.lstat().st_mode))
    if not names or len(names) > EVIDENCE_MAX_FILES:
        raise InputError(f"{path}: found {len(names)} files, expected 1 to {EVIDENCE_MAX_FILES} evidence files")
    files: dict[str, bytes] = {}
    room = EVIDENCE_MAX_BYTES
    try:
        with Folder(path) as folder:
            for name in names:
                files[name] = folder.read(name, room)
                room -= len(files[name])
    except FileProblem as problem:
        if problem.code == "file-too-large":
            raise InputError(
                f"{path}: found more than {EVIDENCE_MAX_BYTES} bytes, at {name}, expected at most that in all files "
                "together: keep only the evidence there"
            ) from problem
        raise InputError(f"{path}: {problem}") from problem
    return files


def write_verdict(path: Path, verdict: Verdict) -> None:
    write_atomic(path, dump(verdict.to_dict()))
