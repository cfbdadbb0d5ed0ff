"""manifests.py: what lies unpinned beside a registry, held against its entries. Knows no kind by name."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from registry_tool.documents.entries import (
    ONNX_MAX_BYTES,
    BrokenEntry,
    ReadEntry,
    VerifiedEntry,
    pins_of,
    sha256_of,
    stem,
    verify_entry,
)
from registry_tool.documents.schema import show
from registry_tool.documents.store import ID_DUPLICATE, Loaded, located
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.hookspec import Kind, Level
from registry_tool.legacy.verdicts import contradictions
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import KIND_UNKNOWN
from registry_tool.storage.files import FileProblem, Folder, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import EMPTY, Entry, Json

ENCODER_COLUMN_PREFIX = "encoder_onehot["  # how a sidecar's codec_block_layout names the columns of the vocabulary
SHARED_FIELDS = (  # what a manifest says once for all its members: its field, and the sidecars' field
    ("feature_order", "feature_order"),
    ("feature_mean", "feature_mean"),
    ("feature_std", "feature_std"),
    ("codec_vocab", "encoder_vocab"),
    ("codec_vocab_version", "encoder_vocab_version"),
)
MIGRATE_HINT = "pin it with `registry migrate OLD -o NEW`"
DISAGREES_HINT = "correct the one that is wrong, or train the ensemble into a registry of version 2"

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
MEMBER_DISAGREES = FindingRule(
    "loose-member-disagrees",
    "manifest and member disagree",
    why="One of them describes another file.",
    message="the {field} differs from that in {document}",
    hint=DISAGREES_HINT,
    example="another sha256, seed or ensemble_id",
)
MEMBER_TWICE = FindingRule(
    "loose-member-twice",
    "members with the same weights",
    why="An ensemble of copies has no spread: sigma means nothing.",
    message="members {member} and {other} have the same weights",
    expected="members that differ",
    hint="train the ensemble again with distinct seeds",
    example="seed 1 a copy of seed 0 under another name",
)
MANIFEST_DISAGREES = FindingRule(
    "loose-sidecar-disagrees",
    "manifest and sidecars disagree",
    why="Members would be fed what they were not trained on.",
    message="differs from {field} in the sidecars of {members}",
    hint=DISAGREES_HINT,
    example="feature_mean of an older run",
)
CODEC_WIDTH = FindingRule(
    "loose-codec-width",
    "vocabulary that does not fit the codec input",
    why="The documented query fails in the runtime.",
    message="the vocabulary does not fit the codec input of {members}",
    hint=DISAGREES_HINT,
    example="6 encoders, 14 columns",
)
SMOKE_MISMATCH = FindingRule(
    "loose-smoke-mismatch",
    "manifest and entries disagree on smoke",
    why="A reader of the manifest and a reader of the registry decide differently what ships.",
    message="differs from smoke in the entries of {members}",
    hint="correct the manifest: the registry decides",
    example="smoke: true in the manifest, false in the entries",
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
OPSET_DISAGREES = FindingRule(
    "onnx-opset-disagrees",
    "opset or IR version mismatch",
    why="A runtime that relies on the document refuses the model, or is surprised.",
    message="the {word} differs from that in {document}",
    hint="correct the number, or restore the file",
    example="16 in the registry, 17 in the model",
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member that a manifest names, with its registry entry, its sidecar, and what its ONNX file says.

    graph: None where the file cannot be read, or no file is.
    """

    id: str
    row: Entry | None
    sidecar: Mapping[str, Json]
    graph: OnnxSummary | None

    @property
    def codec_width(self) -> int | None:
        """Columns of the one ONNX input beside `features`; None where there is none or it is not known."""
        shapes = [port.shape for port in self.graph.inputs if port.name != "features"] if self.graph else []
        last = shapes[0][-1] if len(shapes) == 1 and shapes[0] else None
        return last if isinstance(last, int) else None


def check_unpinned_manifests(inspection: Inspection) -> tuple[list[Finding], set[str]]:
    """(findings, the files they account for) on manifests and verdicts that lie beside the models of a registry.

    A manifest is a JSON object of a kind that has a schema, or with `members` that name ONNX files. It is verified like
    an entry's manifest (schema, pins, plugins) and then compared with the registry's entries.
    """
    documents = _UnpinnedDocuments(inspection)
    for path in json_files(inspection.folder, inspection.loaded):
        documents.read(path)
    judged = contradictions(inspection.registry, documents.verdicts, documents.sidecars, documents.members)
    return [*documents.findings, *documents.unlisted(), *judged], documents.paths


class _UnpinnedDocuments:
    """The JSON documents beside the models that were read so far, and what was found in them."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        entries = inspection.registry.entries
        self._rows = {f"{stem(entry.onnx)}.json": entry for entry in entries if entry.onnx}  # by sidecar
        self.findings: list[Finding] = []
        self.paths: set[str] = set()
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
    members: list[Member] = []
    weights: dict[str, str] = {}  # of the members so far: the digest of their numbers -> id
    for _, pin, place in (found for found in pins_of(manifest) if found[0] == "onnx"):
        if pin["onnx"] not in read.artifacts:
            continue  # without a sha256: it has its finding
        member = _member(read, pin, inspection)
        findings += _check_member(member, read, pin, place)
        if member.graph is not None:
            values, onnx = _values(inspection.folder, read.artifacts[pin["onnx"]].path, member.graph), place + "/onnx"
            if values in weights:
                found = read.artifacts[pin["onnx"]].path
                findings.append(MEMBER_TWICE.at(read, onnx, found=found, member=member.id, other=weights[values]))
            weights[values] = member.id
        members.append(member)
    return [*findings, *_check_shared(read, members, manifest)]


def _member(read: ReadEntry, pin: Mapping[str, Json], inspection: Inspection) -> Member:
    name, onnx = str(pin.get("id", pin["onnx"])), read.artifacts[pin["onnx"]].path
    by_file = {row.onnx: row for row in inspection.registry.entries if row.onnx}
    sidecar = _sidecar(partial(inspection.folder.read, f"{stem(onnx)}.json", JSON_MAX_BYTES))
    graph = _graph(read, pin["onnx"]) if inspection.level is Level.FULL else None
    return Member(name, inspection.registry.entry(name) or by_file.get(onnx), sidecar, graph)


def _check_member(member: Member, read: ReadEntry, pin: Mapping[str, Json], place: str) -> Iterator[Finding]:
    """What a manifest says of one member, compared with the member's entry, ONNX file and sidecar."""
    manifest, onnx, row = read.manifest or EMPTY, read.artifacts[pin["onnx"]].path, member.row
    if row is None:
        yield MEMBER_UNREGISTERED.at(read, place, found=member.id, member=member.id)
    for key, mine, theirs in (("onnx", onnx, row and row.onnx), ("sha256", pin["sha256"], row and row.sha256)):
        if row is not None and mine != theirs:
            field, document = f"{place}/{key}", f"the entry {row.id}"
            yield MEMBER_DISAGREES.at(read, field, found=mine, expected=theirs, field=key, document=document)
    if member.graph is not None:
        opset = member.graph.opsets.get("")
        recorded = manifest.get("opset", opset)
        if recorded != opset:
            yield OPSET_DISAGREES.at(
                read, "/opset", found=show(recorded), expected=opset, word="opset", document=member.id
            )
    for key, mine, field in (("seed", pin.get("seed"), f"{place}/seed"), ("ensemble_id", manifest.get("id"), "/id")):
        theirs, document = member.sidecar.get(key, mine), f"the sidecar of {member.id}"
        if not _same(theirs, mine):
            found, expected = _text(mine), _text(theirs)
            yield MEMBER_DISAGREES.at(read, field, found=found, expected=expected, field=key, document=document)


def _check_shared(
    read: VerifiedEntry | BrokenEntry, members: Sequence[Member], manifest: Mapping[str, Json]
) -> Iterator[Finding]:
    """What the manifest says once for all its members: one finding a field, naming who says otherwise."""
    smoke = manifest.get("smoke")
    if names := [m.id for m in members if smoke is not None and m.row is not None and m.row.smoke is not smoke]:
        yield SMOKE_MISMATCH.at(read, "/smoke", found=show(smoke), expected=show(not smoke), members=_names(names))
    for key, theirs in SHARED_FIELDS:
        mine = manifest.get(key)
        if differing := [m for m in members if not _same(m.sidecar.get(theirs, mine), mine)]:
            found, expected, ids = _text(mine), _text(differing[0].sidecar[theirs]), _names([m.id for m in differing])
            yield MANIFEST_DISAGREES.at(read, pointer(key), found=found, expected=expected, field=theirs, members=names)
    vocabulary, block = manifest.get("codec_vocab"), manifest.get("codec_block")
    slots = len(vocabulary) if isinstance(vocabulary, list) else 0
    needs: dict[int, list[tuple[int, str]]] = {}  # width -> those that have it
    for member in members:
        layout = member.sidecar.get("codec_block_layout")
        columns = [str(column) for column in layout] if isinstance(layout, list) else []
        extra = (
            len(block) - slots
            if isinstance(block, list)
            else sum(not c.startswith(ENCODER_COLUMN_PREFIX) for c in columns)
        )
        width = member.codec_width or len(columns)
        if slots and width and slots + extra != width:
            needs.setdefault(width, []).append((extra, member.id))
    for width, others in needs.items():
        extra, ids = max(others)[0], _names([name for _, name in others])
        found = f"{slots} encoders" + (f" and {extra} more columns" if extra else "")
        yield CODEC_WIDTH.at(read, "/codec_vocab", found=found, expected=f"{width} columns", members=ids)


def check_joined(view: VerifiedEntry) -> list[Finding]:
    """The same disagreements, as warnings, in a version-1 manifest that an entry pins together with its sidecars."""
    manifest = view.manifest or EMPTY
    if "schema_version" in manifest or not isinstance(manifest.get("members"), list):
        return []
    members = []
    for pin in (member for member in manifest["members"] if isinstance(member, dict) and "onnx" in member):
        sidecar = pin.get("sidecar")
        path = sidecar.get("path") if isinstance(sidecar, dict) else None
        document = _sidecar(partial(view.read, str(path))) if path in view.artifacts else EMPTY
        graph = _graph(view, pin["onnx"])
        members.append(Member(str(pin.get("id")), None, document, graph))

    hint = "train the ensemble again: nothing here shows which is right"
    return [
        replace(finding, severity=Severity.WARNING, hint=hint) for finding in _check_shared(view, members, manifest)
    ]


def _sidecar(read: Callable[[], bytes]) -> Mapping[str, Json]:
    try:
        value = parse(read()).value
    except (FileProblem, JsonProblem):
        return EMPTY  # the member's own entry reports it
    return value if isinstance(value, dict) else EMPTY


def _graph(read: ReadEntry, name: str) -> OnnxSummary | None:
    try:
        return read.files.onnx(name)
    except (FileProblem, OnnxError):
        return None  # the member's own entry reports it


def _values(folder: Folder, onnx: str, graph: OnnxSummary) -> str:
    """One digest of all numbers that a member holds, whatever they are called, in its file and in others."""
    parts = [graph.values_sha256]
    for location in {tensor.location for tensor in graph.external}:
        with suppress(FileProblem):  # the member's own entry reports it
            path = posixpath.join(posixpath.dirname(onnx), check_path(location))
            parts.append(sha256_of(folder.read(path, ONNX_MAX_BYTES)))
    return sha256_of("".join(sorted(parts)).encode())


def _same(one: Json, other: Json) -> bool:
    """true is no 1 here."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _text(value: Json) -> str:
    return show(value).strip('"')


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 2 else f"{ids[0]} and {len(ids) - 1} others"
