"""manifests.py: what lies unpinned beside a registry, held against its entries. Knows no kind by name."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from registry_tool.documents.entries import ONNX_MAX_BYTES, OpenEntry, pins_of, sha256_of, stem
from registry_tool.documents.schema import show
from registry_tool.documents.store import Loaded, empty, file_finding, json_finding, located
from registry_tool.hookspec import Level
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import FileProblem, Folder, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import EMPTY, Entry, Finding, Json, Registry, Severity

SLOT = "encoder_onehot["  # how a sidecar's codec_block_layout names the columns of the vocabulary
SHARED = (  # what a manifest says once for all its members: its field, and the sidecars' field
    ("feature_order", "feature_order"),
    ("feature_mean", "feature_mean"),
    ("feature_std", "feature_std"),
    ("codec_vocab", "encoder_vocab"),
    ("codec_vocab_version", "encoder_vocab_version"),
)
Wrong = Callable[..., Finding]


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
    if registry is None:
        return [], set()
    findings: list[Finding] = []
    paths: set[str] = set()
    sidecars = {f"{stem(entry.onnx)}.json": entry for entry in registry.entries if entry.onnx}
    listed: dict[str, set[str]] = {}  # the ids of manifests -> their members' ids and files
    claims: dict[str, Document] = {}  # sidecars that name an ensemble
    for path in json_files(folder, loaded):
        try:
            data = folder.read(path, JSON_MAX_BYTES)
            document = parse(data)
        except FileProblem as problem:
            findings += [file_finding(problem, path)] if path not in sidecars else []  # its own entry reports it
            paths.add(path)
            continue
        except JsonProblem as problem:
            findings += [json_finding(problem, path)] if path not in sidecars else []
            continue
        value = document.value if isinstance(document.value, dict) else {}
        members, kind = value.get("members"), plugins.kinds.get(str(value.get("kind")))
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
                message = f"a second manifest of the ensemble {entry.id!r}"
                found.append(Finding("id-duplicate", message, file=path, pointer="/id", hint="remove one of them"))
        elif isinstance(members, list) and any(isinstance(m, dict) and "onnx" in m for m in members):
            found = [Finding(
                "kind-unknown", "this looks like a manifest, but nobody owns its kind", file=path, pointer="/kind",
                found=show(value.get("kind")), expected=", ".join(sorted(plugins.kinds)),
                hint="install the plugin that owns it, or correct the kind",
            )]  # fmt: skip
        elif str(value.get("verdict")).strip().upper() in ("PROMOTE", "HOLD"):
            found = _check_verdict(path, value)
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
            finding = Finding(
                "loose-member-unlisted", f"no manifest of {name!r} lists {row.id} as its member", entry=row.id,
                file=path, pointer="/ensemble_id", found=show(name), expected="a manifest beside it that lists it",
                hint="restore the manifest, or correct the sidecar",
            )  # fmt: skip
            findings += located([finding], {path: document})
    return findings, paths


def check_declared(folder: Folder, loaded: Loaded) -> list[Finding]:
    """Findings on what an entry only declares: its licence and its signature bundle, whose bytes nothing pins."""
    findings = []
    for index, entry in enumerate(loaded.registry.entries if loaded.registry else ()):
        at, bundle = pointer("models", index), entry.document.get("sigstore_bundle")
        if "license" not in entry.document and loaded.registry and loaded.registry.schema_version >= 1:
            findings.append(Finding(
                "license-missing", "the entry names no license", Severity.WARNING, entry.id, loaded.name, at,
                hint="add its SPDX identifier",
            ))  # fmt: skip
        try:
            _ = folder.read(bundle, JSON_MAX_BYTES) if bundle is not None else None
        except FileProblem as problem:
            finding = file_finding(problem, loaded.name, entry=entry.id, pointer=f"{at}/sigstore_bundle")
            if problem.code == "file-missing":
                finding = replace(
                    finding, code="bundle-missing", severity=Severity.WARNING, hint="sign the model at its release"
                )
            findings.append(finding)
    return findings


def json_files(folder: Folder, loaded: Loaded) -> Iterator[str]:
    """JSON files that stand beside the models of a registry, its own documents left out."""
    registry = loaded.registry or empty()
    known = {loaded.name, *(entry.manifest for entry in registry.entries)}
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
    what = (
        "nothing pins the verdict, nor holds its digests" if digest else "the verdict names no digest of what it judged"
    )
    return [Finding(
        "loose-verdict", f"summary only: {what}", Severity.WARNING, file=path,
        pointer="/corpus/sha256" if "sha256" in corpus else "/verdict", found=show(digest) if digest else "no digest",
        expected="a verdict that an entry pins", hint="`registry flip` writes a verdict that can be checked",
    )]  # fmt: skip


def _check_manifest(
    folder: Folder, opened: OpenEntry, registry: Registry, plugins: Plugins, level: Level
) -> list[Finding]:
    findings, manifest = list(opened.findings), opened.manifest
    if manifest is None or any(finding.code.startswith("schema-") for finding in findings):
        return findings
    findings += plugins.findings(opened, level) if opened.sound else []

    def wrong(code: str, message: str, at: str, found: Json, expected: Json) -> Finding:
        texts = (show(value).strip('"') for value in (found, expected))
        return opened.finding(
            code, message, at, **dict(zip(("found", "expected"), texts, strict=True)),
            hint="correct what is wrong, or train the ensemble into a registry of version 2",
        )  # fmt: skip

    members: list[Member] = []
    weights: dict[str, str] = {}  # of the members so far: the digest of their numbers -> id
    by_file = {row.onnx: row for row in registry.entries if row.onnx}
    for _, pin, at in (found for found in pins_of(manifest) if found[0] == "onnx"):
        name, onnx = str(pin.get("id", pin["onnx"])), opened.artifacts[pin["onnx"]].path
        row = registry.entry(name) or by_file.get(onnx)
        if row is None:
            findings.append(wrong("loose-member-unregistered", f"no entry for {name}", at, name, "an entry's id"))
        for key, mine, theirs in (("onnx", onnx, row and row.onnx), ("sha256", pin["sha256"], row and row.sha256)):
            if row is not None and mine != theirs:
                message = f"not the {key} of the registry entry {row.id}"
                findings.append(wrong("loose-member-disagrees", message, f"{at}/{key}", mine, theirs))
        graph = _graph(opened, pin["onnx"]) if level is Level.FULL else None
        if graph is not None:
            opset, values = graph.opsets.get(""), _values(folder, onnx, graph)
            if manifest.get("opset", opset) != opset:
                findings.append(
                    wrong("onnx-opset-disagrees", f"not the opset of {name}", "/opset", manifest["opset"], opset)
                )
            if values in weights:
                message = f"{name} and {weights[values]} have the same weights"
                findings.append(wrong("ensemble-member-twice", message, f"{at}/onnx", onnx, "members that differ"))
            weights[values] = name
        sidecar = _sidecar(partial(folder.read, f"{stem(onnx)}.json", JSON_MAX_BYTES))
        member = Member(name, row, sidecar, _codec_width(graph))
        for key, mine, place in (("seed", pin.get("seed"), f"{at}/seed"), ("ensemble_id", manifest.get("id"), "/id")):
            if not _same(member.sidecar.get(key, mine), mine):
                message = f"the sidecar of {name} says another {key}"
                findings.append(wrong("loose-member-disagrees", message, place, mine, member.sidecar[key]))
        members.append(member)
    return [*findings, *_check_shared(members, manifest, wrong)]


def _check_shared(members: Sequence[Member], manifest: Mapping[str, Json], wrong: Wrong) -> Iterator[Finding]:
    """What the manifest says once for all its members: one finding a field, naming who says otherwise."""
    smoke = manifest.get("smoke")
    if names := [m.id for m in members if smoke is not None and m.row is not None and m.row.smoke is not smoke]:
        message = f"the registry says otherwise of {_names(names)}"
        yield wrong("loose-smoke-mismatch", message, "/smoke", smoke, not smoke)
    for key, theirs in SHARED:
        mine = manifest.get(key)
        if differing := [m for m in members if not _same(m.sidecar.get(theirs, mine), mine)]:
            message = f"not the {theirs} in the sidecars of {_names([m.id for m in differing])}"
            yield wrong("loose-sidecar-disagrees", message, pointer(key), mine, differing[0].sidecar[theirs])
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
        message = f"the codec input of {_names([name for _, name in others])} is not as wide as the vocabulary"
        extra = max(others)[0]
        found = f"{slots} encoders" + (f" and {extra} more columns" if extra else "")
        yield wrong("loose-codec-width", message, "/codec_vocab", found, f"{width} columns")


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

    def wrong(code: str, message: str, at: str, found: Json, expected: Json) -> Finding:
        texts = (show(value).strip('"') for value in (found, expected))
        return opened.finding(
            code, message, at, severity=Severity.WARNING, **dict(zip(("found", "expected"), texts, strict=True)),
            hint="train the ensemble again: nothing here shows which is right",
        )  # fmt: skip

    return list(_check_shared(members, manifest, wrong))


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


def _codec_width(graph: OnnxSummary | None) -> int | None:
    shapes = [port.shape for port in graph.inputs if port.name != "features"] if graph else []
    last = shapes[0][-1] if len(shapes) == 1 and shapes[0] else None
    return last if isinstance(last, int) else None


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 2 else f"{ids[0]} and {len(ids) - 1} others"
