"""declared.py: what an entry only declares: its licence, and the signature bundle that no digest pins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry_tool.documents.schema import show
from registry_tool.documents.store import REGISTRY_VERSION, Loaded, schema_of
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.signing.blob import read_blob_bundle, verify_blob
from registry_tool.signing.dsse import SignatureError, UntrustedError
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import JSON_MAX_BYTES, pointer
from registry_tool.values import Entry, Json

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust

MODEL_MAX_BYTES = 2**31  # of a signed file; a policy says how large an entry's may be

LICENSE_MISSING = FindingRule(
    "license-missing",
    "missing license",
    why="Whether the model may be shipped is unclear.",
    hint="add `license`, its SPDX identifier, to the entry",
    example='"license": "BSD-3-Clause-Plus-Patent"',
    severity=Severity.WARNING,
)
LICENSE_URL = FindingRule(
    "license-url",
    "license URL that is not http(s)",
    why="A page that shows it would run or open something else.",
    message="the license URL is not an http or https URL",
    expected="https://...",
    hint="write the URL of the license's text",
    example='"license_url": "javascript:..."',
    severity=Severity.WARNING,
)
BUNDLE_INVALID = FindingRule(
    "bundle-invalid",
    "signature bundle that is not one",
    why="A reader who looks for a signature finds none, or that of another file.",
    message="{path}: {problem}",
    hint="sign the model again, or remove `sigstore_bundle`",
    example="an empty file; a bundle over another model",
)
BUNDLE_UNVERIFIED = FindingRule(
    "bundle-unverified",
    "signature bundle that was not verified",
    why="Its form and digest are checked; its signature and signer are not, or not in full.",
    message="the signature in {path} was not verified: {reason}",
    hint="name whom to trust: `registry validate --public-key KEY.pem`, or `--trust ROOT.pem`",
    example="model.onnx.sigstore.json",
    severity=Severity.NOTE,
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
FIELD_UNKNOWN = FindingRule(
    "registry-unknown-field",
    "unknown field",
    why="Nothing reads it here: it is of another version or a tool of yours, or a misspelt field that has no effect.",
    message="unknown field {name!r:.80}",
    hint="correct the name, or leave it: it is kept as it is",
    example='"licence": "MIT"',
    severity=Severity.WARNING,
)


def check_unknown_fields(loaded: Loaded) -> list[Finding]:
    """A warning on each field of the registry, an entry or a policy that this version does not know; all are kept.

    In version 0 and 1 the schema itself refuses them.
    """
    if loaded.registry.schema_version != REGISTRY_VERSION:
        return []
    schema, value = schema_of(REGISTRY_VERSION), loaded.document.value
    parts: list[tuple[str, str | None, Mapping[str, Json], Mapping[str, Json]]] = [
        ("", None, value, schema["properties"])
    ]
    for kind, policy in value["policies"].items():
        parts.append((pointer("policies", kind), None, policy, schema["$defs"]["policy"]["properties"]))
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        parts.append((pointer("models", place), entry.id, entry.document, schema["$defs"]["entry"]["properties"]))
    return [
        FIELD_UNKNOWN.at(InFile(loaded.name, entry_id), base + pointer(name), name=name)
        for base, entry_id, document, known in parts
        for name in document
        if name not in known
    ]


HTTP_PATTERN = re.compile(r"https?://[^\s/?#]+[^\s]*\Z", re.IGNORECASE)


def check_declared(folder: Folder, loaded: Loaded, trust: Trust | None = None) -> list[Finding]:
    """Findings on what an entry only declares: its licence and its signature bundle, whose bytes nothing pins.

    trust: whose signature verifies a bundle; None compares its digest alone.
    """
    findings = []
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        model, row = pointer("models", place), InFile(loaded.name, entry.id)
        if "license" not in entry.document and loaded.registry.schema_version >= 1:
            findings.append(LICENSE_MISSING.at(row, model))
        url = entry.document.get("license_url")
        if isinstance(url, str) and not HTTP_PATTERN.match(url):
            findings.append(LICENSE_URL.at(row, f"{model}/license_url", found=show(url)))
        if "sigstore_bundle" in entry.document:
            found = _check_bundle(folder, entry, row, f"{model}/sigstore_bundle", trust)
            findings += [found] if found is not None else []
    return findings


def _check_bundle(folder: Folder, entry: Entry, row: InFile, field: str, trust: Trust | None) -> Finding | None:
    path = entry.document["sigstore_bundle"]
    try:
        reason = _verify_bundle(folder, entry, folder.read(path, JSON_MAX_BYTES), trust)
    except SignatureError as problem:
        return BUNDLE_INVALID.at(row, field, path=path, problem=problem)
    except FileProblem as problem:
        if problem.code == "file-missing" and problem.path == path:
            return BUNDLE_MISSING.at(row, field, path=path)
        return problem.at(row.file or "", entry.id, field)
    return BUNDLE_UNVERIFIED.at(row, field, path=path, reason=reason) if reason else None


def _verify_bundle(folder: Folder, entry: Entry, data: bytes, trust: Trust | None) -> str | None:
    """Why the signature over an entry's file was not verified in full; None where it was. Raises SignatureError."""
    bundle = read_blob_bundle(data)
    bundle.refuse_other(entry.sha256, lambda: folder.read(entry.path, MODEL_MAX_BYTES))
    if trust is None:
        named = "its digest was compared" if bundle.digests else "it names no digest to compare"
        return f"no key or root to trust was named; {named}"
    try:
        verified = verify_blob(bundle, folder.read(entry.path, MODEL_MAX_BYTES), trust)
    except UntrustedError as error:
        return str(error)
    return f"this cannot be checked offline: {'; '.join(verified.unchecked)}" if verified.unchecked else None
