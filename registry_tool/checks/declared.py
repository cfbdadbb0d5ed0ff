"""declared.py: what an entry only declares: its licence, and the signature bundle that no digest pins."""

from __future__ import annotations

from registry_tool.documents.store import Loaded, file_finding
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.storage.files import FileProblem, Folder
from registry_tool.strictjson import JSON_MAX_BYTES, pointer

LICENSE_MISSING = FindingRule(
    "license-missing",
    "missing license",
    why="Whether the model may be shipped is unclear.",
    hint="add `license`, its SPDX identifier, to the entry",
    example='"license": "BSD-3-Clause-Plus-Patent"',
    severity=Severity.WARNING,
)
BUNDLE_MISSING = FindingRule(
    "bundle-missing",
    "missing signature bundle",
    why="The model cannot be verified by its signature; before a release that is expected.",
    message="missing signature bundle {path}",
    hint="sign the model when it is released, or remove `sigstore_bundle`",
    example="model.onnx.sigstore.json",
    severity=Severity.WARNING,
)


def check_declared(folder: Folder, loaded: Loaded) -> list[Finding]:
    """Findings on what an entry only declares: its licence and its signature bundle, whose bytes nothing pins."""
    findings = []
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        at, bundle = pointer("models", place), entry.document.get("sigstore_bundle")
        if "license" not in entry.document and loaded.registry.schema_version >= 1:
            findings.append(LICENSE_MISSING.at(InFile(loaded.name, entry.id), at))
        try:
            _ = folder.read(bundle, JSON_MAX_BYTES) if bundle is not None else None
        except FileProblem as problem:
            field = f"{at}/sigstore_bundle"
            if problem.code == "file-missing":
                findings.append(BUNDLE_MISSING.at(InFile(loaded.name, entry.id), field, path=bundle))
            else:
                findings.append(file_finding(problem, loaded.name, entry.id, field))
    return findings
