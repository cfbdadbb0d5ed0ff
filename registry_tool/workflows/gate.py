"""gate.py: the story of `registry gate`: evidence measured and judged, nothing written. No click, no printing."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from registry_tool.checks.policy import judge, summary_policy
from registry_tool.checks.promotion import find_incumbent, is_random, measure
from registry_tool.documents.entries import OpenEntry
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError, RejectedError
from registry_tool.findings import Finding
from registry_tool.hookspec import GateRequest
from registry_tool.legacy.ensembles import open_ensembles
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import FileProblem, Folder, write_atomic
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, Entry, Evidence, Policy, Registry, Verdict
from registry_tool.workflows.opening import find_entry, opened, usable

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
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    with opened(loaded, plugins, entry) as view:
        return judge_entry(view, loaded.registry, plugins, incumbent)


def judge_entry(view: OpenEntry, registry: Registry, plugins: Plugins, incumbent: str | None = None) -> Judgement:
    """By the registry's policy and the evidence that the entry pins."""
    policy = registry.policies.get(view.entry.kind, Policy())
    if incumbent is not None:
        policy = replace(policy, extra=MappingProxyType({**policy.extra, "against": incumbent}))
    found = find_incumbent(view, registry, plugins, policy.incumbent)
    evidence = measure(view, plugins, GateRequest(incumbent=found))
    if is_random(view):
        evidence = replace(evidence, problems=("the model was trained on random rows", *evidence.problems))
    return Judgement(judge(policy, evidence, view.entry, plugins.versions), evidence)


def gate_foreign(
    path: Path | None,
    plugins: Plugins,
    entry_id: str | None,
    kind: str | None,
    evidence: Path,
    corpus: Path | None = None,
    seeds: tuple[int, ...] | None = None,
) -> Judgement:
    """Judge evidence that lies in a folder, for an entry, an ensemble of version 1, or for none; it flips nothing.

    Without an entry the policy is the registry's for `kind`, or the kind's default; without predictions the kind's
    rules for summaries take the default's place. seeds: of which there must be evidence; without them and without an
    entry, as many as the policy's `n_seeds` asks for. Raises InputError where one is missing.
    """
    files = read_evidence(evidence)
    loaded = usable(path) if path is not None else None
    request = GateRequest(files, corpus, seeds=seeds)
    if entry_id is not None:
        if loaded is None:
            raise InputError(f"{entry_id}: found no registry, expected one with this entry: name it with --registry")
        with _entry_or_ensemble(loaded, plugins, entry_id) as view:
            return judge_foreign(view, loaded.registry, plugins, request)
    entry = Entry("evidence", kind or _only_gated_kind(plugins), True, "0" * 64)
    with Folder(evidence) as folder, Prober() as prober:
        view = OpenEntry(folder, entry, 0, "", EVIDENCE_MAX_BYTES, prober)
        judgement = judge_foreign(view, loaded.registry if loaded is not None else None, plugins, request)
    asked = [rule.bound for rule in judgement.verdict.policy.rules if (rule.metric, rule.op) == ("n_seeds", ">=")]
    found = judgement.verdict.metrics.get("n_seeds")
    if seeds is None and found is not None and asked and found < max(asked):
        raise InputError(
            f"{evidence}: found the evidence of {found:g} seeds, expected {max(asked):g} (n_seeds): "
            "add the missing files, or name the seeds with --seeds"
        )
    return replace(judgement, verdict=replace(judgement.verdict, manifest_sha256=None))


def judge_foreign(view: OpenEntry, registry: Registry | None, plugins: Plugins, request: GateRequest) -> Judgement:
    """Foreign evidence on an opened entry, by the registry's policy."""
    evidence, kind = measure(view, plugins, request), plugins.kinds[view.entry.kind]
    policy = (registry.policies if registry is not None else EMPTY).get(kind.name, kind.default_policy)
    if evidence.summary_only:
        policy = summary_policy(kind, policy)
    return Judgement(judge(policy, evidence, view.entry, plugins.versions), evidence)


@contextmanager
def _entry_or_ensemble(loaded: Loaded, plugins: Plugins, entry_id: str) -> Iterator[OpenEntry]:
    """The entry of this id; in version 1 also an ensemble whose manifest no entry names."""
    if loaded.registry.entry(entry_id) is None:
        with Folder(loaded.folder) as folder, Prober() as prober:
            for view in open_ensembles(folder, loaded, plugins, prober):
                if view.entry.id == entry_id:
                    if not view.sound:
                        raise RejectedError(f"{entry_id}: {view.findings[0]}: run `registry validate {loaded.path}`")
                    yield view
                    return
    with opened(loaded, plugins, find_entry(loaded, entry_id)) as view:
        yield view


def _only_gated_kind(plugins: Plugins) -> str:
    gated = sorted(name for name, kind in plugins.kinds.items() if kind.default_policy.rules)
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
