"""migrate.py: a registry of version 0 or 1 made anew in version 2, in a folder of its own. Never writes to the old one.

Every file is read once, held against its pin, and written; what was not pinned gets the sha256 of the bytes written.
What was found is what `validate` finds in the old registry and in the new one: nothing is judged twice by other rules.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry_tool.checks.registry import check
from registry_tool.documents import store
from registry_tool.documents.entries import pins_of, sha256_of
from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule, Severity, errors_of
from registry_tool.hookspec import Level, Progress
from registry_tool.legacy.joining import Joined, UnpinnedManifest, join
from registry_tool.legacy.manifests import json_files
from registry_tool.legacy.transfer import Transfer, TransferError, json_object
from registry_tool.onnx_summary import OnnxError
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.staging import NewFolder
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import JSON_MAX_BYTES, dump
from registry_tool.values import EMPTY, Entry, Registry
from registry_tool.workflows.initialise import prepare
from registry_tool.workflows.loading import usable

RESOLUTIONS = {  # code of a finding on the old registry -> what the migration does about it
    "onnx-external-weak": "its sha256 is pinned now",
    "onnx-external-unpinned": "its sha256 is pinned now",
    "loose-verdict": "kept beside the manifest as it was; it promotes nothing",
    "loose-smoke-mismatch": "the entry is smoke: no evidence came along",
    "loose-confidence": "gaussian_z was computed from nominal_coverage",
    "loose-sidecar-disagrees": "what the members' sidecars say was taken",
    "loose-codec-width": "the vocabulary of the members' sidecars was taken",
    "loose-member-disagrees": "the registry's was taken; what the manifest measured, it measured on other members",
}
RESOLVED_BY_JOINING = (
    "loose-smoke-mismatch",
    "loose-confidence",
    "loose-sidecar-disagrees",
    "loose-codec-width",
    "loose-member-disagrees",
)

NOT_JOINED = FindingRule(
    "migration-not-joined",
    "manifest not joined with its members' entries",
    why="The members stay entries of their own; what the manifest says of them is left behind.",
    message="not joined with its members: {reason}",
    hint="correct that, or train the ensemble again",
    example="a member whose file is missing",
    severity=Severity.WARNING,
)
INCOMPLETE = FindingRule(
    "migration-incomplete",
    "joined ensemble that cannot be used",
    why="It has no fused graph, so that nothing predicts with it; its members are pinned all the same.",
    message="joined, but it cannot be used: {reason}",
    hint="correct that and migrate into a new folder, or train the ensemble again",
    example="members of different opsets; sidecars without codec_block_layout",
    since="0.2.0",
    severity=Severity.WARNING,
)


@dataclass(frozen=True, slots=True)
class MigrationFinding:
    """A finding on the old registry or on the new one. resolution: what was done about it, "" where it remains."""

    finding: Finding
    resolution: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did. written: False where the folder held this result already, or where `broken` stopped it.

    broken: entry -> why it cannot be taken over. skipped: whether they were left out. left_behind: files that nothing
    in the old registry names. pinned: how many files of each sort have a sha256 now.
    """

    old: Path
    new: Path
    imported_from: str
    registry: Registry
    written: bool
    findings: tuple[MigrationFinding, ...]
    joined: tuple[Joined, ...]
    pinned: Mapping[str, int]
    left_behind: tuple[str, ...]
    broken: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    skipped: bool = False

    @property
    def done(self) -> bool:
        return self.skipped or not self.broken


def migrate(
    path: Path, new: Path, plugins: Plugins, *, skip_broken: bool = False, progress: Progress | None = None
) -> Migration:
    """Make NEW/registry.json and every file it names; the new folder appears whole, or not at all.

    Raises InputError for a registry of version 2, and for a folder that is not empty and not this very result.
    """
    plugins.need_all()
    loaded = usable(path)
    if loaded.registry.schema_version == store.REGISTRY_VERSION:
        raise InputError(f"{path}: it is of version {store.REGISTRY_VERSION} already: there is nothing to migrate")
    if new.resolve().is_relative_to(path.resolve().parent):
        raise InputError(f"{new}: it lies in the old registry's folder, which is not written to: name another folder")
    before = check(loaded, plugins, Level.FULL, progress)
    broken: dict[str, str] = {}
    refused: dict[str, str] = {}  # unpinned manifests that are not joined, and why
    incomplete: dict[str, str] = {}  # those that are joined as they are, without what their kind would add, and why
    with NewFolder(new) as made, Folder(loaded.folder) as folder, Prober() as prober:
        while True:  # again where something is left out: at most once a manifest or entry, commonly never
            made.clear()
            skip = set(broken) if skip_broken else set()
            transfer = Transfer(Inspection(loaded, plugins, folder, prober), prober, made.path)
            work = _Work(transfer, skip, dict(refused), dict(incomplete))
            registry = work.build()
            write_atomic(made.path / "registry.json", dump(registry.to_dict()))
            prepare(made.path)
            after = check(store.load(made.path / "registry.json"), plugins, Level.FULL, progress)
            errors = {f.entry or "": str(f) for f in reversed(errors_of(after))}
            found = {j.source: errors[j.entry.id] for j in work.joined if j.entry.id in errors}
            if unfit := {j.source: found[j.source] for j in work.joined if j.completed and j.source in found}:
                incomplete |= unfit
                continue
            if found or work.refused.keys() - refused.keys():
                refused |= found | work.refused
                continue
            wrong = work.broken | errors
            fresh = wrong.keys() - broken.keys()
            broken |= {name: why for name, why in wrong.items() if name in fresh}
            if not (fresh and skip_broken) or "" in wrong:
                break
        done = not broken or (skip_broken and "" not in broken)
        written = made.publish() if done else False
        behind = [i.path for i in folder.inventory() if i.kind != "folder" and i.path not in transfer.taken]
    return Migration(
        old=path,
        new=new,
        imported_from=transfer.digest,
        registry=registry,
        written=written,
        findings=tuple(work.findings(before, after)),
        joined=tuple(work.joined),
        pinned=transfer.pinned,
        left_behind=tuple(p for p in behind if p != loaded.name),
        broken=broken,
        skipped=skip_broken and done,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """One attempt: the files it took over, and what they became. skip: ids of entries that are left out.

    refused: unpinned manifests that are not joined -> why. incomplete: those that are joined as they are -> why.
    broken: id of an entry -> why it cannot be taken over.
    """

    transfer: Transfer
    skip: set[str]
    refused: dict[str, str]
    incomplete: dict[str, str]
    joined: list[Joined] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def inspection(self) -> Inspection:
        return self.transfer.inspection

    def build(self) -> Registry:
        for manifest in list(self._unpinned()):
            try:
                one = join(manifest, self.transfer, complete=manifest.path not in self.incomplete)
            except (TransferError, FileProblem, OnnxError) as problem:
                self.refused[manifest.path] = str(problem)
                continue
            self.joined.append(one)
            if one.incomplete:
                self.incomplete[one.source] = one.incomplete
        entries = [one.entry for one in self.joined]
        members = {row for one in self.joined for row in one.members}
        for row in self.inspection.registry.entries:
            if row.id in members or row.id in self.skip:
                continue
            try:
                if any(entry.id == row.id for entry in entries):
                    raise TransferError(f"{row.id}: duplicate id: give one of the entries another")
                entries.append(self._with_manifest(row) if row.manifest else self._single(row))
            except (TransferError, FileProblem, OnnxError) as problem:
                self.broken.setdefault(row.id, str(problem))
        known = self.inspection.plugins.kinds
        defaults = {kind: known[kind].default_policy for kind in {entry.kind for entry in entries} & known.keys()}
        policies = {**defaults, **self.inspection.registry.policies}
        return Registry(store.REGISTRY_VERSION, tuple(sorted(entries, key=lambda e: e.id)), policies)

    # ---- entries --------------------------------------------------------------------------------------------------

    def _single(self, row: Entry) -> Entry:
        """A single model as it was, with everything beside it pinned."""
        model = self.transfer.take_model(row.onnx or "", row.sha256, row.document, row.kind, lambda path: path)
        document = {**row.document, "smoke": row.smoke}
        if row.is_production:
            document["promotion"] = {"imported_from": self.transfer.digest}
        if model.external_data:
            document["external_data"] = list(model.external_data)
        if model.sidecar is not None:
            document["sidecar_sha256"] = model.sidecar["sha256"]
        if not document.get("license"):  # version 1 takes an empty one
            document.pop("license", None)
        return Entry.from_dict(document)

    def _with_manifest(self, row: Entry) -> Entry:
        """An entry that pins a manifest already: its files and its verdict move to where version 2 expects them."""
        path, folder = row.manifest or "", f"{row.id}/{row.sha256[:12]}"
        data = self.transfer.take(path, row.sha256, f"{folder}/manifest.json")
        max_bytes = self.transfer.max_file_bytes(row.kind)
        for key, pin, _ in pins_of(json_object(path, data)):
            source = posixpath.join(posixpath.dirname(path), pin[key])
            self.transfer.take(source, pin.get("sha256"), f"{folder}/{pin[key]}", max_bytes)
        promotion = row.promotion or EMPTY
        if "verdict" in promotion:
            self.transfer.take(promotion["verdict"], promotion["sha256"], promotion["verdict"])
        return row.with_fields(smoke=row.smoke, manifest=f"{folder}/manifest.json")

    def _unpinned(self) -> Iterator[UnpinnedManifest]:
        """Manifests beside the models, of a kind that has a schema; those that were refused before are left alone."""
        inspection = self.inspection
        for path in json_files(inspection.folder, inspection.loaded):
            try:
                data = inspection.folder.read(path, JSON_MAX_BYTES)
                value = json_object(path, data)
            except (TransferError, FileProblem):
                continue  # a finding on the old registry
            kind = inspection.plugins.kinds.get(str(value.get("kind")))
            if path not in self.refused and kind is not None and kind.schema is not None and value.get("members"):
                yield UnpinnedManifest(path, sha256_of(data), value)

    # ---- findings -------------------------------------------------------------------------------------------------

    def findings(self, before: Iterable[Finding], after: Iterable[Finding]) -> Iterator[MigrationFinding]:
        """What was wrong with the old registry, with what became of it; then what is wrong with the new one alone."""
        after = list(after)
        remaining = {(finding.code, finding.entry) for finding in after}
        for finding in before:
            remains = (finding.code, finding.entry) in remaining
            yield MigrationFinding(finding, "" if remains else self._resolution(finding))
        known = {(finding.code, finding.entry) for finding in before}
        for path, why in sorted(self.refused.items()):
            yield MigrationFinding(NOT_JOINED.at(path, reason=why))
        for path, why in sorted(self.incomplete.items()):
            if path not in self.refused:
                yield MigrationFinding(INCOMPLETE.at(path, reason=why))
        yield from (MigrationFinding(finding) for finding in after if (finding.code, finding.entry) not in known)

    def _resolution(self, finding: Finding) -> str:
        code, file = finding.code, finding.file or ""
        joined = {one.source: one for one in self.joined}
        if finding.entry is not None and finding.entry in self.broken:
            return ""
        if code == "file-unregistered":
            return "left behind"
        if code == "loose-verdict" and file not in self.transfer.taken:
            return ""
        if code in RESOLVED_BY_JOINING and file not in joined:
            return ""
        if code == "loose-sidecar-disagrees" and (finding.pointer or "")[1:] not in joined[file].corrected:
            return ""
        return RESOLUTIONS.get(code, "")
