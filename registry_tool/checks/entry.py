"""entry.py: everything that can be wrong with one entry: core checks first, then plugins. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import dirname
from typing import TYPE_CHECKING

from registry_tool.checks.attestations import check_beside
from registry_tool.checks.onnx import PassedModel, check_models, run_model
from registry_tool.checks.promotion import check_promotion
from registry_tool.checks.signatures import check_signatures
from registry_tool.documents.entries import BrokenEntry, ReadEntry, VerifiedEntry
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, errors_of
from registry_tool.legacy.members import check_pinned_members
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import KIND_UNKNOWN
from registry_tool.values import Registry

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust

SINGLE_PINS = (
    "int8_sha256",
    "quant_mode",
    "external_data",
    "sidecar_sha256",
    "evidence",
)  # what only an entry with `onnx` has

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


def check_entry(read: VerifiedEntry | BrokenEntry, inspection: Inspection, trust: Trust | None = None) -> list[Finding]:
    """The findings on one entry; core checks first, then every plugin's. trust: whose signatures production needs.

    At Level.FULL every model is checked, and a single one that passed all else is run; a manifest's graphs are its
    owner's to prove. A broken entry is not looked into any further.
    """
    findings = [*read.findings, *_check_kind(read, inspection), *_check_against_registry(read, inspection.registry)]
    if isinstance(read, BrokenEntry) or errors_of(findings):
        return findings
    findings += check_signatures(read, inspection.policy(read.entry.kind), trust)
    findings += check_promotion(read, inspection)  # before any plugin could touch its view
    findings += check_beside(read, inspection.policy(read.entry.kind), trust)
    return [*findings, *check_content(read, inspection, sound=not errors_of(findings))]


def check_content(view: VerifiedEntry, inspection: Inspection, *, sound: bool = True) -> list[Finding]:
    """The findings on what an entry pins: its models, its members, and what its plugin says.

    sound: nothing else is wrong with the entry, so that a single model may be run.
    """
    findings: list[Finding] = []
    prober, models = inspection.prober, list[PassedModel]()
    if prober is not None:
        findings, models = check_models(view, inspection.plugins.kinds[view.entry.kind], inspection.registry, prober)
    findings += check_pinned_members(view, inspection) if view.entry.manifest else []
    findings += inspection.plugins.findings(view, inspection.level)
    if prober is not None and view.entry.onnx and sound and not errors_of(findings):
        for model in models:
            findings += run_model(view, model, prober)
    return findings


def _check_kind(read: ReadEntry, inspection: Inspection) -> Iterator[Finding]:
    entry, kinds = read.entry, inspection.plugins.kinds
    if entry.kind not in kinds:
        known = ", ".join(sorted(kinds))
        yield KIND_UNKNOWN.at(read.row, "/kind", found=entry.kind, expected=known, kind=entry.kind)
    elif (kinds[entry.kind].schema is None) is not (entry.manifest is None):
        form, needed = ("manifest", "onnx") if entry.manifest else ("onnx", "manifest")
        yield KIND_FORM.at(read.row, f"/{form}", found=form, expected=needed, kind=entry.kind, field=needed)


def _rename_hint(read: ReadEntry) -> str | None:
    """What helps where a row got another id than its manifest has, which pins its own; None where they agree."""
    own = read.manifest.get("id") if read.manifest is not None and read.entry.manifest is not None else None
    if not isinstance(own, str) or own == read.entry.id:
        return None
    return f"ids do not change: write {own} back, or train a new entry under the other id"


def _check_against_registry(read: ReadEntry, registry: Registry) -> Iterator[Finding]:
    """What an entry and its manifest say twice must be the same; and where artifacts must be."""
    entry, manifest = read.entry, read.manifest
    if entry.manifest is not None and registry.schema_version >= 2:
        expected = f"{entry.id}/{entry.sha256[:12]}"
        if dirname(entry.manifest) != expected:
            expected, hint = f"{expected}/manifest.json", _rename_hint(read)
            yield FOLDER_WRONG.at(read.row, "/manifest", found=entry.manifest, expected=expected, hint=hint)
    if registry.schema_version >= 2 and read.sidecar is not None and "sidecar_sha256" not in entry.document:
        yield SIDECAR_UNPINNED.at(read.row, "/sha256", found="no sidecar_sha256", sidecar=read.sidecar)
    for field in SINGLE_PINS if entry.manifest is not None else ():
        if field in entry.document:
            yield PIN_UNREAD.at(read.row, f"/{field}", found=field, field=field)
    if manifest is None:
        return
    for field in ("id", "kind"):
        if field in manifest and manifest[field] != getattr(entry, field):
            found, expected = manifest[field], getattr(entry, field)
            hint = _rename_hint(read) if field == "id" else None
            yield DISAGREES.at(read, f"/{field}", found=found, expected=expected, field=field, hint=hint)
    if "smoke" in manifest and manifest["smoke"] is not entry.smoke:
        found, expected = show(manifest["smoke"]), show(entry.smoke)
        hint = "remove it here: the registry decides"
        yield DISAGREES.at(read, "/smoke", found=found, expected=expected, hint=hint, field="smoke")
