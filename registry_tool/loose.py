"""loose.py: what lies unpinned beside a registry, held against its entries. Knows no kind by name."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from registry_tool.entries import ONNX_MAX_BYTES, pins_of, sha256_of, stem
from registry_tool.files import FileProblem, Folder, check_path
from registry_tool.hookspec import Level
from registry_tool.plugins import Plugins
from registry_tool.schema import show
from registry_tool.store import Loaded, file_finding, json_finding, located, schema_findings
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import EMPTY, Entry, Finding, Json, Registry, Severity

MAX_INVENTORY = 200_000
Wrong = Callable[..., Finding]


@dataclass(frozen=True, slots=True)
class Member:
    """A member that a manifest names, with its registry entry and its sidecar.

    codec_width: columns of the one ONNX input beside `features`; None where there is none or nobody looked.
    """

    id: str
    row: Entry | None
    sidecar: Mapping[str, Json] = field(default_factory=lambda: EMPTY)
    codec_width: int | None = None


def check_loose_manifests(
    folder: Folder, loaded: Loaded, plugins: Plugins, level: Level
) -> tuple[list[Finding], set[str]]:
    """(findings, the files they account for) on manifests and verdicts that stand beside the models of a registry.

    A manifest is a JSON object of a kind that has a schema, or with `members` that name ONNX files.
    """
    registry = loaded.registry
    if registry is None:
        return [], set()
    findings = check_declared(folder, loaded)
    documents: dict[str, Document] = {}
    sidecars = {f"{stem(entry.onnx)}.json" for entry in registry.entries if entry.onnx}
    for path in _json_files(folder, registry, {loaded.name, *(e.manifest for e in registry.entries)}):
        try:
            document = parse(folder.read(path, JSON_MAX_BYTES))
        except (FileProblem, JsonProblem) as problem:
            if path not in sidecars:  # a sidecar's own entry reports it
                findings.append(
                    file_finding(problem, path) if isinstance(problem, FileProblem) else json_finding(problem, path)
                )
            continue
        value = document.value
        if not isinstance(value, dict):
            continue
        kind = plugins.kinds.get(str(value.get("kind")))
        if kind is not None and kind.schema is not None:
            documents[path] = document
            broken = schema_findings(document, kind.schema, path)
            findings += broken or _check_manifest(folder, registry, path, value, level)
        elif any("onnx" in member for member in _objects(value.get("members"))):
            documents[path] = document
            findings.append(Finding(
                "kind-unknown", "this looks like a manifest, but nobody owns its kind", file=path, pointer="/kind",
                found=show(value.get("kind")), expected=", ".join(sorted(plugins.kinds)),
                hint="install the plugin that owns it, or correct the kind",
            ))  # fmt: skip
        elif value.get("verdict") in ("PROMOTE", "HOLD"):
            documents[path] = document
            findings += _check_verdict(path, value)
    return list(located(findings, documents)), set(documents)


def check_declared(folder: Folder, loaded: Loaded) -> list[Finding]:
    """Findings on what an entry only declares: its licence and its signature bundle, whose bytes nothing pins."""
    findings = []
    for index, entry in enumerate(loaded.registry.entries if loaded.registry else ()):
        at, bundle = pointer("models", index), entry.document.get("sigstore_bundle")
        here = partial(Finding, entry=entry.id, file=loaded.name)
        if "license" not in entry.document and loaded.registry and loaded.registry.schema_version >= 1:
            findings.append(here(
                "license-missing", "the entry names no license", Severity.WARNING, pointer=at,
                hint="add its SPDX identifier",
            ))  # fmt: skip
        if bundle is None:
            continue
        try:
            folder.read(bundle, JSON_MAX_BYTES)
        except FileProblem as problem:
            missing = problem.code == "file-missing"
            findings.append(replace(
                file_finding(problem, loaded.name, entry=entry.id, pointer=f"{at}/sigstore_bundle"),
                code="bundle-missing" if missing else problem.code,
                severity=Severity.WARNING if missing else Severity.ERROR,
                hint="sign the model at its release" if missing else problem.hint,
            ))  # fmt: skip
    return findings


def _objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _json_files(folder: Folder, registry: Registry, known: set[str | None]) -> Iterator[str]:
    beside = {"", *(posixpath.dirname(entry.onnx) for entry in registry.entries if entry.onnx)}
    try:
        items = folder.inventory(MAX_INVENTORY)
    except FileProblem:
        return  # the inventory's own check reports it
    for item in items:
        is_json = item.kind != "folder" and item.path.endswith(".json")
        if is_json and item.path not in known and posixpath.dirname(item.path) in beside:
            yield item.path


def _check_verdict(path: str, verdict: Mapping[str, Json]) -> Iterator[Finding]:
    corpus = verdict.get("corpus")
    corpus = corpus if isinstance(corpus, dict) else {}
    if not corpus.get("sha256") and not verdict.get("evidence_sha256"):
        yield Finding(
            "loose-verdict", "summary only: the verdict names no digest of what it judged", Severity.WARNING, file=path,
            pointer="/corpus/sha256" if "sha256" in corpus else "/verdict", found="no digest",
            expected="digests of data and weights", hint="`registry flip` writes a verdict that can be checked",
        )  # fmt: skip


def _check_manifest(
    folder: Folder, registry: Registry, path: str, manifest: Mapping[str, Json], level: Level
) -> Iterator[Finding]:
    """Expects a manifest that its kind's schema accepted."""
    base, ensemble = posixpath.dirname(path), manifest.get("id")

    def wrong(code: str, message: str, at: str, found: Json, expected: Json) -> Finding:
        return Finding(
            code, message, entry=ensemble, file=path, pointer=at, found=show(found).strip('"'),
            expected=show(expected).strip('"'), hint="correct what is wrong, or train the ensemble again",
        )  # fmt: skip

    by_file = {row.onnx: row for row in registry.entries if row.onnx}
    members = []
    for _, pin, at in (found for found in pins_of(manifest) if found[0] == "onnx"):
        onnx, name, digest = posixpath.join(base, pin["onnx"]), str(pin.get("id", pin["onnx"])), pin.get("sha256")
        row = registry.entry(name) or by_file.get(onnx)
        real, width = None, None
        try:
            data = folder.read(posixpath.join(base, check_path(pin["onnx"])), ONNX_MAX_BYTES)
        except FileProblem as problem:
            yield file_finding(problem, path, entry=ensemble, pointer=f"{at}/onnx")
        else:
            real, width = sha256_of(data), _codec_width(data) if level is Level.FULL else None
        member = Member(name, row, _sidecar(folder, onnx), width)
        if row is None:
            yield wrong("loose-member-unregistered", "no entry for this member", f"{at}/onnx", name, "an entry's id")
        elif row.onnx != onnx:
            yield wrong("loose-member-disagrees", f"{row.id} is another file", f"{at}/onnx", onnx, row.onnx)
        digests = {"file": real, "registry entry": row.sha256 if row else None}
        if others := {what: other for what, other in digests.items() if other not in (None, digest)}:
            message = f"the pin of {name} is not the sha256 of the {' and the '.join(others)}"
            yield wrong("loose-digest-mismatch", message, f"{at}/sha256", digest, next(iter(others.values())))
        for key, mine, place in (("seed", pin.get("seed"), f"{at}/seed"), ("ensemble_id", ensemble, "/id")):
            if member.sidecar.get(key, mine) != mine:
                message = f"the sidecar of {name} says another {key}"
                yield wrong("loose-member-disagrees", message, place, mine, member.sidecar[key])
        members.append(member)
    listed = _objects(manifest.get("members"))
    for key in ("id", "onnx", "seed", "sha256"):
        seen = Counter(show(claim.get(key)) for claim in listed)
        for index, claim in enumerate(listed):
            if seen[show(claim.get(key))] > 1:
                at = pointer("members", index, key)
                yield wrong("loose-member-duplicate", f"members share one {key}", at, claim.get(key), "one each")
    if manifest.get("ensemble_size") != len(listed):
        yield wrong("loose-ensemble-size", "wrong number", "/ensemble_size", manifest.get("ensemble_size"), len(listed))
    yield from _check_shared(members, manifest, wrong)


def _check_shared(members: Sequence[Member], manifest: Mapping[str, Json], wrong: Wrong) -> Iterator[Finding]:
    """What the manifest says once for all its members: one finding a field, naming who says otherwise."""
    smoke = manifest.get("smoke")
    if others := [m.id for m in members if smoke is not None and m.row is not None and m.row.smoke is not smoke]:
        message = f"the registry says otherwise of {_names(others)}"
        yield wrong("loose-smoke-mismatch", message, "/smoke", smoke, not smoke)
    order = manifest.get("feature_order", [])
    if len(set(order)) != len(order):
        yield wrong("loose-features", "a feature stands twice", "/feature_order", order, "each once")
    for key, least in (("feature_mean", -math.inf), ("feature_std", 0)):
        values = manifest.get(key, [])
        if len(values) != len(order) or not all(math.isfinite(v) and v > least for v in values):
            what = "positive numbers" if key == "feature_std" else "numbers"
            yield wrong("loose-features", f"unusable {key}", pointer(key), values, f"{len(order)} {what}")
    for key, theirs, code in (
        ("feature_order", "feature_order", "loose-features"),
        ("feature_mean", "feature_mean", "loose-features"),
        ("feature_std", "feature_std", "loose-features"),
        ("codec_vocab", "encoder_vocab", "loose-vocabulary"),
        ("codec_vocab_version", "encoder_vocab_version", "loose-vocabulary"),
    ):
        mine = manifest.get(key)
        if differing := [m for m in members if m.sidecar.get(theirs, mine) != mine]:
            message = f"not the {theirs} of {_names([m.id for m in differing])}"
            yield wrong(code, message, pointer(key), mine, differing[0].sidecar[theirs])
    slots = len(manifest.get("codec_vocab", []))
    needs: dict[tuple[int, int], list[str]] = {}
    for member in members:
        layout = member.sidecar.get("codec_block_layout")
        names = [str(column) for column in layout] if isinstance(layout, list) else []
        extra = sum(not name.startswith("encoder_onehot[") for name in names)
        extra = len(manifest["codec_block"]) - slots if "codec_block" in manifest else extra
        width = member.codec_width or len(names)
        if width and slots + extra != width:
            needs.setdefault((width, extra), []).append(member.id)
    for (width, extra), ids in needs.items():
        message = f"the codec input of {_names(ids)} is not as wide as the vocabulary"
        found = f"{slots} encoders" + (f" and {extra} more columns" if extra else "")
        yield wrong("loose-codec-width", message, "/codec_vocab", found, f"{width} columns")


def _sidecar(folder: Folder, onnx: str) -> Mapping[str, Json]:
    path = f"{stem(onnx)}.json"
    try:
        value = parse(folder.read(path, JSON_MAX_BYTES)).value if folder.exists(path) else None
    except (FileProblem, JsonProblem):
        value = None  # the member's own entry reports it
    return value if isinstance(value, dict) else EMPTY


def _codec_width(data: bytes) -> int | None:
    from registry_tool.onnxfile import OnnxError, inspect_model

    try:
        inputs = [value for value in inspect_model(data).inputs if value.name != "features"]
    except OnnxError:
        return None  # the member's own entry reports it
    width = inputs[0].shape[-1] if len(inputs) == 1 and inputs[0].shape else None
    return width if isinstance(width, int) else None


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 2 else f"{ids[0]} and {len(ids) - 1} others"
