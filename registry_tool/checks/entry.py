"""entry.py: opens one entry and finds what is wrong with it: core checks first, then plugins. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import dirname

from registry_tool.checks.onnx import Model, check_models, run_model
from registry_tool.checks.promotion import check_promotion
from registry_tool.documents.entries import ONNX_MAX_BYTES, OpenEntry
from registry_tool.documents.schema import show
from registry_tool.documents.store import Loaded
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level
from registry_tool.legacy.manifests import check_joined
from registry_tool.plugins.manager import KIND_UNKNOWN, Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Registry

SINGLE_PINS = ("int8_sha256", "quant_mode", "external_data", "sidecar_sha256")  # what only an entry with `onnx` has


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
        here, there = ("manifest", "onnx") if entry.manifest else ("onnx", "manifest")
        findings.append(opened.registry_finding(
            "kind-form", f"an entry of kind {entry.kind!r} names no `{here}`: nobody would look at it", here,
            found=here, expected=there, hint="correct the kind, or register the model as its kind asks",
        ))  # fmt: skip
    findings += _check_against_registry(opened, registry)
    if any(f.severity is Severity.ERROR for f in findings):
        return findings
    models: list[Model] = []
    if level is Level.FULL:
        found, models = check_models(opened, plugins.kinds[entry.kind], registry.schema_version)
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
            yield opened.registry_finding(
                "folder-wrong", "an entry's artefacts stand in the folder of its id and digest", "manifest",
                found=entry.manifest, expected=f"{expected}/manifest.json", hint="train again, or restore the folder",
            )  # fmt: skip
    if registry.schema_version >= 2 and opened.sidecar is not None and "sidecar_sha256" not in entry.document:
        yield opened.registry_finding(
            "sidecar-unpinned", f"nothing pins {opened.sidecar}", "sha256", found="no sidecar_sha256",
            expected="the sidecar's sha256", hint="add `sidecar_sha256` to the entry, or remove the sidecar",
        )  # fmt: skip
    for field in SINGLE_PINS if entry.manifest is not None else ():
        if field in entry.document:
            yield opened.registry_finding(
                "pin-unread", f"nothing reads `{field}` of an entry with a manifest", field, found=field,
                expected="pins in the manifest", hint="remove it",
            )  # fmt: skip
    if manifest is None:
        return
    for field in ("id", "kind"):
        if field in manifest and manifest[field] != getattr(entry, field):
            yield opened.finding(
                "entry-disagrees", f"the registry and this document name another {field}", f"/{field}",
                found=str(manifest[field]), expected=getattr(entry, field), hint="correct the one that is wrong",
            )  # fmt: skip
    if "smoke" in manifest and manifest["smoke"] is not entry.smoke:
        yield opened.finding(
            "entry-disagrees", "this document and the registry disagree on smoke", "/smoke",
            found=show(manifest["smoke"]), expected=show(entry.smoke), hint="remove it: the registry alone says so",
        )  # fmt: skip
