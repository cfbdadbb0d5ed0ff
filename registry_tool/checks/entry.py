"""entry.py: opens one entry and finds what is wrong with it: core checks first, then plugins. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import dirname

from registry_tool.checks.onnx import Model, check_models, run_model
from registry_tool.checks.promotion import check_promotion
from registry_tool.documents.entries import ONNX_MAX_BYTES, OpenEntry
from registry_tool.documents.schema import show
from registry_tool.documents.store import Loaded
from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.hookspec import Level
from registry_tool.legacy.manifests import check_joined
from registry_tool.plugins.manager import KIND_UNKNOWN, Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Registry

SINGLE_PINS = ("int8_sha256", "quant_mode", "external_data", "sidecar_sha256")  # what only an entry with `onnx` has

KIND_FORM = FindingRule(
    "kind-form",
    "an ONNX file where the kind has a manifest, or the other way round",
    why="The plugin of the kind checks the other one, so this would not be checked.",
    message="an entry of kind {kind!r} needs `{field}`",
    hint="correct the kind, or register the model in the form of its kind",
    example='"kind": "fr" with a manifest',
)
FOLDER_WRONG = FindingRule(
    "folder-wrong",
    "artifacts outside the folder of their id and digest",
    why="Artifacts are immutable: a folder with another name was edited by hand.",
    message="the artifacts are not in the folder of the entry's id and digest",
    hint="train again, or restore the folder",
    example="ens_v1/latest/manifest.json",
)
SIDECAR_UNPINNED = FindingRule(
    "sidecar-unpinned",
    "unpinned sidecar",
    why="A runtime scales its inputs by the sidecar; without a digest an edit goes unseen.",
    message="unpinned sidecar {sidecar}",
    expected="the sidecar's sha256",
    hint="add `sidecar_sha256` to the entry, or remove the sidecar",
    example="m.json beside m.onnx",
)
PIN_UNREAD = FindingRule(
    "pin-unread",
    "unused pin",
    why="It is never verified: a reader who relies on it is misled.",
    message="`{field}` of an entry with a manifest is never verified",
    expected="pins in the manifest",
    hint="remove it; the manifest pins every file",
    example='"int8_sha256" beside "manifest"',
)
DISAGREES = FindingRule(
    "entry-disagrees",
    "registry and manifest (or sidecar) disagree on id, kind or smoke",
    why="A runtime that reads the other one loads something else.",
    message="{field} differs from that in the registry",
    hint="correct the one that is wrong",
    example="smoke: true in the manifest, false in the registry",
)


def open_entry(
    folder: Folder, loaded: Loaded, plugins: Plugins, entry: Entry, index: int, *, keep: bool, prober: Prober | None
) -> OpenEntry:
    """The entry with its bytes verified; `index` is its number in the registry, `prober` reads its models."""
    policy = loaded.registry.policies.get(entry.kind)
    cap = policy.extra.get("max_file_bytes", ONNX_MAX_BYTES) if policy else ONNX_MAX_BYTES
    place = loaded.places[index]
    return OpenEntry(folder, entry, place, loaded.name, cap, prober).open(plugins.kinds.get(entry.kind), keep=keep)


def check_entry(opened: OpenEntry, registry: Registry, plugins: Plugins, level: Level) -> list[Finding]:
    """The findings on one opened entry; core checks first, then every plugin's.

    At Level.FULL its prober checks every model, and runs a single one that passed all else; a manifest's graphs are its
    owner's to prove.
    """
    entry = opened.entry
    findings = list(opened.findings)
    if entry.kind not in plugins.kinds:
        known = ", ".join(sorted(plugins.kinds))
        findings.append(KIND_UNKNOWN.at(opened.row, "/kind", found=entry.kind, expected=known, kind=entry.kind))
    elif (plugins.kinds[entry.kind].schema is None) is not (entry.manifest is None):
        form, needed = ("manifest", "onnx") if entry.manifest else ("onnx", "manifest")
        findings.append(
            KIND_FORM.at(opened.row, f"/{form}", found=form, expected=needed, kind=entry.kind, field=needed)
        )
    findings += _check_against_registry(opened, registry)
    if any(f.severity is Severity.ERROR for f in findings):
        return findings
    models: list[Model] = []
    if level is Level.FULL:
        found, models = check_models(opened, plugins.kinds[entry.kind], registry)
        findings += found
        findings += check_joined(opened) if entry.manifest else []
    findings += check_promotion(opened, registry, plugins, level)  # before any plugin could touch its view
    findings += plugins.findings(opened, level)
    if entry.onnx and not any(f.severity is Severity.ERROR for f in findings):
        for model in models:
            findings += run_model(opened, model)
    return findings


def _check_against_registry(opened: OpenEntry, registry: Registry) -> Iterator[Finding]:
    """What an entry and its manifest say twice must be the same; and where artefacts must stand."""
    entry, manifest = opened.entry, opened.manifest
    if entry.manifest is not None and registry.schema_version >= 2:
        expected = f"{entry.id}/{entry.sha256[:12]}"
        if dirname(entry.manifest) != expected:
            yield FOLDER_WRONG.at(opened.row, "/manifest", found=entry.manifest, expected=f"{expected}/manifest.json")
    if registry.schema_version >= 2 and opened.sidecar is not None and "sidecar_sha256" not in entry.document:
        yield SIDECAR_UNPINNED.at(opened.row, "/sha256", found="no sidecar_sha256", sidecar=opened.sidecar)
    for field in SINGLE_PINS if entry.manifest is not None else ():
        if field in entry.document:
            yield PIN_UNREAD.at(opened.row, f"/{field}", found=field, field=field)
    if manifest is None:
        return
    for field in ("id", "kind"):
        if field in manifest and manifest[field] != getattr(entry, field):
            found, expected = manifest[field], getattr(entry, field)
            yield DISAGREES.at(opened, f"/{field}", found=found, expected=expected, field=field)
    if "smoke" in manifest and manifest["smoke"] is not entry.smoke:
        found, expected = show(manifest["smoke"]), show(entry.smoke)
        hint = "remove it here: the registry decides"
        yield DISAGREES.at(opened, "/smoke", found=found, expected=expected, hint=hint, field="smoke")
