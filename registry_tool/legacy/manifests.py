"""manifests.py: what lies unpinned beside a registry, held against its entries. Knows no kind by name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace

from registry_tool.documents.entries import (
    BrokenEntry,
    VerifiedEntry,
    pins_of,
    sha256_of,
    stem,
    verify_entry,
)
from registry_tool.documents.schema import show
from registry_tool.documents.store import ID_DUPLICATE, Loaded, located
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.hookspec import Kind
from registry_tool.legacy.members import check_members, read_members
from registry_tool.legacy.verdicts import contradictions
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import KIND_UNKNOWN
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse
from registry_tool.values import Entry, Json

MIGRATE_HINT = "pin it with `registry migrate OLD -o NEW`"

MEMBER_UNREGISTERED = FindingRule(
    "loose-member-unregistered",
    "member without an entry",
    why="It ships unchecked.",
    message="member {member} has no entry",
    expected="an entry's id",
    hint="register the member, or remove it from the manifest",
    example="seed5 without a row",
)
MEMBER_UNLISTED = FindingRule(
    "loose-member-unlisted",
    "member that no manifest lists",
    why="The manifest is gone, or a member was taken out of it: the ensemble that was judged is another one.",
    message="no manifest of {ensemble!r} lists {member}",
    expected="a manifest beside it that lists it",
    hint="restore the manifest, or correct the sidecar",
    example="e_seed4 with ensemble_id e, which lists four members",
)
VERDICT_UNPINNED = FindingRule(
    "loose-verdict",
    "unpinned verdict",
    why="It fits any model: it is summary only, and promotes nothing.",
    message="unpinned verdict: {reason}",
    expected="a verdict that an entry pins",
    hint="run `registry migrate OLD -o NEW`; train the ensemble again there: a summary promotes nothing",
    example='"sha256": null',
    severity=Severity.WARNING,
)


def check_unpinned_manifests(inspection: Inspection) -> tuple[list[Finding], set[str], list[VerifiedEntry]]:
    """(findings, the files they account for) on manifests and verdicts that lie beside the models of a registry.

    And the manifests that could be read, as entries. A manifest is a JSON object of a kind that has a schema, or with
    `members` that name ONNX files. It is verified like an entry's manifest (schema, pins, plugins) and then compared
    with the registry's entries.
    """
    documents = _UnpinnedDocuments(inspection)
    for path in json_files(inspection.folder, inspection.loaded):
        documents.read(path)
    judged = contradictions(inspection.registry, documents.verdicts, documents.sidecars, documents.members)
    return [*documents.findings, *documents.unlisted(), *judged], documents.paths, documents.manifests


class _UnpinnedDocuments:
    """The JSON documents beside the models that were read so far, and what was found in them."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        entries = inspection.registry.entries
        self._rows = {f"{stem(entry.onnx)}.json": entry for entry in entries if entry.onnx}  # by sidecar
        self.findings: list[Finding] = []
        self.paths: set[str] = set()
        self.manifests: list[VerifiedEntry] = []
        self.members: dict[str, set[str]] = {}  # the ids of manifests -> their members' ids and files
        self.sidecars: dict[str, Document] = {}  # which may hold a gate's figures
        self.verdicts: dict[str, Document] = {}

    def read(self, path: str) -> None:
        """A sidecar's own entry reports what is wrong with it as a file."""
        try:
            data = self._inspection.folder.read(path, JSON_MAX_BYTES)
            document = parse(data)
        except FileProblem as problem:
            self.findings += [problem.at(path)] if path not in self._rows else []
            self.paths.add(path)
            return
        except JsonProblem as problem:
            self.findings += [problem.at(path)] if path not in self._rows else []
            return
        value = document.value if isinstance(document.value, dict) else {}
        if path in self._rows and isinstance(document.value, dict):
            self.sidecars[path] = document
        found = self._check(path, data, document)
        if found is None:
            return
        for pin in (pin for key, pin, _ in pins_of(value) if key == "onnx"):
            names = {str(pin.get("id")), posixpath.join(posixpath.dirname(path), str(pin["onnx"]))}
            self.members.setdefault(str(value.get("id")), set()).update(names)
        self.findings += located(found, {path: document})
        self.paths.add(path)

    def _check(self, path: str, data: bytes, document: Document) -> list[Finding] | None:
        """The findings on a manifest or a verdict; None for a document that is neither."""
        value = document.value if isinstance(document.value, dict) else {}
        members, kinds = value.get("members"), self._inspection.plugins.kinds
        kind = kinds.get(str(value.get("kind")))
        if kind is not None and kind.schema is not None:
            return self._check_manifest(path, data, value, kind)
        if isinstance(members, list) and any(isinstance(m, dict) and "onnx" in m for m in members):
            name = value.get("kind")
            return [KIND_UNKNOWN.at(path, "/kind", found=show(name), expected=", ".join(sorted(kinds)), kind=name)]
        if str(value.get("verdict")).strip().upper() in ("PROMOTE", "HOLD"):
            self.verdicts[path] = document
            return _check_verdict(path, value)
        return None

    def _check_manifest(self, path: str, data: bytes, value: Mapping[str, Json], kind: Kind) -> list[Finding]:
        entry = entry_of(path, data, value, kind)
        read = verify_entry(replace(self._inspection.reader, keep=True), entry, InFile(path, entry.id))
        found = _check_manifest(read, self._inspection)
        if isinstance(read, VerifiedEntry):
            self.manifests.append(read)
        if entry.id in self.members:
            found.append(ID_DUPLICATE.at(path, "/id", id=entry.id, hint="remove one of the two manifests"))
        return found

    def unlisted(self) -> Iterator[Finding]:
        """Sidecars that name an ensemble whose manifest does not list their model."""
        for path, document in self.sidecars.items():
            if "ensemble_id" not in document.value:
                continue
            row, name = self._rows[path], str(document.value["ensemble_id"])
            if self._inspection.registry.entry(name) is None and not {row.id, row.onnx} & self.members.get(name, set()):
                place = InFile(path, row.id)
                finding = MEMBER_UNLISTED.at(place, "/ensemble_id", found=show(name), ensemble=name, member=row.id)
                yield from located([finding], {path: document})


def entry_of(path: str, data: bytes, manifest: Mapping[str, Json], kind: Kind) -> Entry:
    """What a manifest that no entry pins would be as an entry."""
    return Entry(str(manifest.get("id")), kind.name, bool(manifest.get("smoke", True)), sha256_of(data), manifest=path)


def json_files(folder: Folder, loaded: Loaded) -> Iterator[str]:
    """JSON files that lie beside the models of a registry, its own documents left out."""
    registry = loaded.registry
    declared = (entry.document.get(field) for entry in registry.entries for field in ("manifest", "sigstore_bundle"))
    known = {loaded.name, *declared}
    folders = {"", *(posixpath.dirname(entry.onnx) for entry in registry.entries if entry.onnx)}
    try:
        items = folder.inventory()
    except FileProblem:
        return  # the inventory's own check reports it
    for item in items:
        is_json = item.kind != "folder" and item.path.endswith(".json")
        if is_json and item.path not in known and posixpath.dirname(item.path) in folders:
            yield item.path


def _check_verdict(path: str, verdict: Mapping[str, Json]) -> list[Finding]:
    corpus = verdict.get("corpus")
    corpus = corpus if isinstance(corpus, dict) else {}
    digest = corpus.get("sha256") or verdict.get("evidence_sha256")
    reason = "no entry pins it or what it judged" if digest else "it names no digest of what it judged"
    place = "/corpus/sha256" if "sha256" in corpus else "/verdict"
    return [VERDICT_UNPINNED.at(path, place, found=show(digest) if digest else "no digest", reason=reason)]


def _check_manifest(read: VerifiedEntry | BrokenEntry, inspection: Inspection) -> list[Finding]:
    findings, manifest = list(read.findings), read.manifest
    if manifest is None or any(finding.code.startswith("schema-") for finding in findings):
        return findings
    if isinstance(read, VerifiedEntry):
        findings += inspection.plugins.findings(read, inspection.level)
    pins = [(pin, place) for key, pin, place in pins_of(manifest) if key == "onnx"]
    members = read_members(read, pins, inspection)
    for member in members:
        if member.row is None:
            findings.append(MEMBER_UNREGISTERED.at(read, member.place, found=member.id, member=member.id))
    own = {f"{member.place}/sha256" for member in members if member.row is not None and member.row.onnx == member.onnx}
    findings = [f for f in findings if f.pointer not in own or f.severity is not Severity.ERROR]  # its entry has these
    return [*findings, *check_members(read, members, inspection.folder)]
