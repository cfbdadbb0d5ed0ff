"""manifests.py: what lies unpinned beside a registry, held against its entries. Knows no kind by name."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from registry_tool.documents.entries import ONNX_MAX_BYTES, OpenEntry, pins_of, sha256_of, stem
from registry_tool.documents.schema import show
from registry_tool.documents.store import ID_DUPLICATE, Loaded, located
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.hookspec import Level
from registry_tool.legacy.verdicts import contradictions
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.manager import KIND_UNKNOWN, Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import FileProblem, Folder, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import EMPTY, Entry, Json, Registry

SLOT = "encoder_onehot["  # how a sidecar's codec_block_layout names the columns of the vocabulary
SHARED = (  # what a manifest says once for all its members: its field, and the sidecars' field
    ("feature_order", "feature_order"),
    ("feature_mean", "feature_mean"),
    ("feature_std", "feature_std"),
    ("codec_vocab", "encoder_vocab"),
    ("codec_vocab_version", "encoder_vocab_version"),
)
MIGRATE = "pin it with `registry migrate OLD -o NEW`"
DISAGREES = "correct the one that is wrong, or train the ensemble into a registry of version 2"

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
    hint=DISAGREES,
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
SIDECAR_DISAGREES = FindingRule(
    "loose-sidecar-disagrees",
    "manifest and sidecars disagree",
    why="Members would be fed what they were not trained on.",
    message="differs from {field} in the sidecars of {members}",
    hint=DISAGREES,
    example="feature_mean of an older run",
)
CODEC_WIDTH = FindingRule(
    "loose-codec-width",
    "vocabulary that does not fit the codec input",
    why="The documented query fails in the runtime.",
    message="the vocabulary does not fit the codec input of {members}",
    hint=DISAGREES,
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
    hint="run `registry migrate OLD -o NEW`; in the new registry `registry flip ID` writes a pinned verdict",
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
    """A member that a manifest names, with its registry entry and its sidecar.

    codec_width: columns of the one ONNX input beside `features`; None where there is none or nobody looked.
    """

    id: str
    row: Entry | None
    sidecar: Mapping[str, Json]
    codec_width: int | None


def check_loose_manifests(
    folder: Folder, loaded: Loaded, plugins: Plugins, level: Level, prober: Prober
) -> tuple[list[Finding], set[str]]:
    """(findings, the files they account for) on manifests and verdicts that stand beside the models of a registry.

    A manifest is a JSON object of a kind that has a schema, or with `members` that name ONNX files. It is opened like
    an entry's manifest (schema, pins, plugins) and then held against the registry's entries.
    """
    registry = loaded.registry
    findings: list[Finding] = []
    paths: set[str] = set()
    sidecars = {f"{stem(entry.onnx)}.json": entry for entry in registry.entries if entry.onnx}
    listed: dict[str, set[str]] = {}  # the ids of manifests -> their members' ids and files
    claims: dict[str, Document] = {}  # sidecars that name an ensemble
    judged: dict[str, Document] = {}  # all sidecars, which may hold a gate's figures
    verdicts: dict[str, Document] = {}
    for path in json_files(folder, loaded):
        try:
            data = folder.read(path, JSON_MAX_BYTES)
            document = parse(data)
        except FileProblem as problem:
            findings += [problem.at(path)] if path not in sidecars else []  # its own entry reports it
            paths.add(path)
            continue
        except JsonProblem as problem:
            findings += [problem.at(path)] if path not in sidecars else []
            continue
        value = document.value if isinstance(document.value, dict) else {}
        members, kind = value.get("members"), plugins.kinds.get(str(value.get("kind")))
        if path in sidecars and isinstance(document.value, dict):
            judged[path] = document
        if path in sidecars and "ensemble_id" in value:
            claims[path] = document
        found: list[Finding] = []
        if kind is not None and kind.schema is not None:
            smoke = bool(value.get("smoke", True))
            entry = Entry(str(value.get("id")), kind.name, smoke, sha256_of(data), manifest=path)
            child = prober if level is Level.FULL else None
            opened = OpenEntry(folder, entry, None, path, ONNX_MAX_BYTES, child)
            found = _check_manifest(folder, opened.open(kind, keep=True), registry, plugins, level)
            if entry.id in listed:
                found.append(ID_DUPLICATE.at(path, "/id", id=entry.id, hint="remove one of the two manifests"))
        elif isinstance(members, list) and any(isinstance(m, dict) and "onnx" in m for m in members):
            known = ", ".join(sorted(plugins.kinds))
            name = value.get("kind")
            found = [KIND_UNKNOWN.at(path, "/kind", found=show(name), expected=known, kind=name)]
        elif str(value.get("verdict")).strip().upper() in ("PROMOTE", "HOLD"):
            found = _check_verdict(path, value)
            verdicts[path] = document
        else:
            continue
        for pin in (pin for key, pin, _ in pins_of(value) if key == "onnx"):
            names = {str(pin.get("id")), posixpath.join(posixpath.dirname(path), str(pin["onnx"]))}
            listed.setdefault(str(value.get("id")), set()).update(names)
        findings += located(found, {path: document})
        paths.add(path)
    for path, document in claims.items():
        row, name = sidecars[path], str(document.value["ensemble_id"])
        if registry.entry(name) is None and not {row.id, row.onnx} & listed.get(name, set()):
            place = InFile(path, row.id)
            finding = MEMBER_UNLISTED.at(place, "/ensemble_id", found=show(name), ensemble=name, member=row.id)
            findings += located([finding], {path: document})
    findings += contradictions(registry, verdicts, judged, listed)
    return findings, paths


def json_files(folder: Folder, loaded: Loaded) -> Iterator[str]:
    """JSON files that stand beside the models of a registry, its own documents left out."""
    registry = loaded.registry
    declared = (entry.document.get(field) for entry in registry.entries for field in ("manifest", "sigstore_bundle"))
    known = {loaded.name, *declared}
    beside = {"", *(posixpath.dirname(entry.onnx) for entry in registry.entries if entry.onnx)}
    try:
        items = folder.inventory()
    except FileProblem:
        return  # the inventory's own check reports it
    for item in items:
        is_json = item.kind != "folder" and item.path.endswith(".json")
        if is_json and item.path not in known and posixpath.dirname(item.path) in beside:
            yield item.path


def _check_verdict(path: str, verdict: Mapping[str, Json]) -> list[Finding]:
    corpus = verdict.get("corpus")
    corpus = corpus if isinstance(corpus, dict) else {}
    digest = corpus.get("sha256") or verdict.get("evidence_sha256")
    reason = "no entry pins it or what it judged" if digest else "it names no digest of what it judged"
    place = "/corpus/sha256" if "sha256" in corpus else "/verdict"
    return [VERDICT_UNPINNED.at(path, place, found=show(digest) if digest else "no digest", reason=reason)]


def _check_manifest(
    folder: Folder, opened: OpenEntry, registry: Registry, plugins: Plugins, level: Level
) -> list[Finding]:
    findings, manifest = list(opened.findings), opened.manifest
    if manifest is None or any(finding.code.startswith("schema-") for finding in findings):
        return findings
    findings += plugins.findings(opened, level) if opened.sound else []

    members: list[Member] = []
    weights: dict[str, str] = {}  # of the members so far: the digest of their numbers -> id
    by_file = {row.onnx: row for row in registry.entries if row.onnx}
    for _, pin, at in (found for found in pins_of(manifest) if found[0] == "onnx"):
        name, onnx = str(pin.get("id", pin["onnx"])), opened.artifacts[pin["onnx"]].path
        row = registry.entry(name) or by_file.get(onnx)
        if row is None:
            findings.append(MEMBER_UNREGISTERED.at(opened, at, found=name, member=name))
        for key, mine, theirs in (("onnx", onnx, row and row.onnx), ("sha256", pin["sha256"], row and row.sha256)):
            if row is not None and mine != theirs:
                place, document = f"{at}/{key}", f"the entry {row.id}"
                findings.append(
                    MEMBER_DISAGREES.at(opened, place, found=mine, expected=theirs, field=key, document=document)
                )
        graph = _graph(opened, pin["onnx"]) if level is Level.FULL else None
        if graph is not None:
            opset, values = graph.opsets.get(""), _values(folder, onnx, graph)
            said = manifest.get("opset", opset)
            if said != opset:
                findings.append(
                    OPSET_DISAGREES.at(opened, "/opset", found=show(said), expected=opset, word="opset", document=name)
                )
            if values in weights:
                findings.append(MEMBER_TWICE.at(opened, f"{at}/onnx", found=onnx, member=name, other=weights[values]))
            weights[values] = name
        sidecar = _sidecar(partial(folder.read, f"{stem(onnx)}.json", JSON_MAX_BYTES))
        member = Member(name, row, sidecar, _codec_width(graph))
        for key, mine, place in (("seed", pin.get("seed"), f"{at}/seed"), ("ensemble_id", manifest.get("id"), "/id")):
            theirs, document = member.sidecar.get(key, mine), f"the sidecar of {name}"
            if not _same(theirs, mine):
                found, expected = _text(mine), _text(theirs)
                findings.append(
                    MEMBER_DISAGREES.at(opened, place, found=found, expected=expected, field=key, document=document)
                )
        members.append(member)
    return [*findings, *_check_shared(opened, members, manifest)]


def _check_shared(opened: OpenEntry, members: Sequence[Member], manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """What the manifest says once for all its members: one finding a field, naming who says otherwise."""
    smoke = manifest.get("smoke")
    if names := [m.id for m in members if smoke is not None and m.row is not None and m.row.smoke is not smoke]:
        yield SMOKE_MISMATCH.at(opened, "/smoke", found=show(smoke), expected=show(not smoke), members=_names(names))
    for key, theirs in SHARED:
        mine = manifest.get(key)
        if differing := [m for m in members if not _same(m.sidecar.get(theirs, mine), mine)]:
            found, expected, ids = _text(mine), _text(differing[0].sidecar[theirs]), _names([m.id for m in differing])
            yield SIDECAR_DISAGREES.at(
                opened, pointer(key), found=found, expected=expected, field=theirs, members=names
            )
    vocabulary, block = manifest.get("codec_vocab"), manifest.get("codec_block")
    slots = len(vocabulary) if isinstance(vocabulary, list) else 0
    needs: dict[int, list[tuple[int, str]]] = {}  # width -> those that have it
    for member in members:
        layout = member.sidecar.get("codec_block_layout")
        columns = [str(column) for column in layout] if isinstance(layout, list) else []
        extra = len(block) - slots if isinstance(block, list) else sum(not c.startswith(SLOT) for c in columns)
        width = member.codec_width or len(columns)
        if slots and width and slots + extra != width:
            needs.setdefault(width, []).append((extra, member.id))
    for width, others in needs.items():
        extra, ids = max(others)[0], _names([name for _, name in others])
        found = f"{slots} encoders" + (f" and {extra} more columns" if extra else "")
        yield CODEC_WIDTH.at(opened, "/codec_vocab", found=found, expected=f"{width} columns", members=ids)


def check_joined(opened: OpenEntry) -> list[Finding]:
    """The same disagreements, as warnings, in a version-1 manifest that an entry pins together with its sidecars."""
    manifest = opened.manifest or EMPTY
    if "schema_version" in manifest or not isinstance(manifest.get("members"), list):
        return []
    members = []
    for pin in (member for member in manifest["members"] if isinstance(member, dict) and "onnx" in member):
        sidecar = pin.get("sidecar")
        path = sidecar.get("path") if isinstance(sidecar, dict) else None
        document = _sidecar(partial(opened.read, path)) if path in opened.artifacts else EMPTY
        graph = _graph(opened, pin["onnx"])
        members.append(Member(str(pin.get("id")), None, document, _codec_width(graph)))

    hint = "train the ensemble again: nothing here shows which is right"
    return [
        replace(finding, severity=Severity.WARNING, hint=hint) for finding in _check_shared(opened, members, manifest)
    ]


def _sidecar(read: Callable[[], bytes]) -> Mapping[str, Json]:
    try:
        value = parse(read()).value
    except (FileProblem, JsonProblem):
        return EMPTY  # the member's own entry reports it
    return value if isinstance(value, dict) else EMPTY


def _graph(opened: OpenEntry, name: str) -> OnnxSummary | None:
    try:
        return opened.onnx(name)
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


def _codec_width(graph: OnnxSummary | None) -> int | None:
    shapes = [port.shape for port in graph.inputs if port.name != "features"] if graph else []
    last = shapes[0][-1] if len(shapes) == 1 and shapes[0] else None
    return last if isinstance(last, int) else None


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 2 else f"{ids[0]} and {len(ids) - 1} others"
