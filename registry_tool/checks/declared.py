"""declared.py: what an entry only declares: its licence, and the signature bundle that no digest pins."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from registry_tool.documents.schema import show
from registry_tool.documents.store import VERSION, Loaded, schema_of
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.storage.files import FileProblem, Folder
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse, pointer
from registry_tool.values import Json

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
    why="Its form and digest are checked, its signature and signer are not.",
    message="the signature in {path} was not verified",
    hint="verify it with `cosign verify-blob`",
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
UNKNOWN_FIELD = FindingRule(
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
    if loaded.registry.schema_version != VERSION:
        return []
    schema, value = schema_of(VERSION), loaded.document.value
    parts: list[tuple[str, str | None, Mapping[str, Json], Mapping[str, Json]]] = [
        ("", None, value, schema["properties"])
    ]
    for kind, policy in value["policies"].items():
        parts.append((pointer("policies", kind), None, policy, schema["$defs"]["policy"]["properties"]))
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        parts.append((pointer("models", place), entry.id, entry.document, schema["$defs"]["entry"]["properties"]))
    return [
        UNKNOWN_FIELD.at(InFile(loaded.name, entry_id), base + pointer(name), name=name)
        for base, entry_id, document, known in parts
        for name in document
        if name not in known
    ]


HTTP_PATTERN = re.compile(r"https?://[^\s/?#]+[^\s]*\Z", re.IGNORECASE)


def _bundle_problem(data: bytes, sha256: str) -> str | None:
    """What keeps bytes from being a Sigstore bundle over a file with this digest; None where nothing is seen."""
    try:
        value = parse(data).value
    except JsonProblem as problem:
        return f"it is not JSON ({problem.code})"
    if isinstance(value, dict) and isinstance(value.get("base64Signature"), str) and isinstance(value.get("cert"), str):
        return None  # cosign's older form, which names the digest in its log entry alone
    media = value.get("mediaType") if isinstance(value, dict) else None
    if not isinstance(media, str) or not media.startswith("application/vnd.dev.sigstore.bundle"):
        return "it is not a Sigstore bundle: it has no mediaType of one"
    material = value.get("verificationMaterial")
    message, envelope = value.get("messageSignature"), value.get("dsseEnvelope")
    if not isinstance(material, dict) or not (isinstance(message, dict) or isinstance(envelope, dict)):
        return "it is not a Sigstore bundle: it has no signature or no material to verify it with"
    try:
        if isinstance(message, dict):
            digests = {base64.b64decode(message["messageDigest"]["digest"], validate=True).hex()}
            base64.b64decode(message["signature"], validate=True)
        else:
            assert isinstance(envelope, dict)
            statement = parse(base64.b64decode(envelope["payload"], validate=True)).value
            digests = {subject["digest"]["sha256"] for subject in statement["subject"]}
    except (KeyError, TypeError, ValueError):
        return "it is not a Sigstore bundle: it names no digest"
    found = ", ".join(sorted(digests))[:140]
    return None if sha256 in digests else f"it signs another file: found {found}, expected {sha256}"


def check_declared(folder: Folder, loaded: Loaded) -> list[Finding]:
    """Findings on what an entry only declares: its licence and its signature bundle, whose bytes nothing pins."""
    findings = []
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        row, bundle = pointer("models", place), entry.document.get("sigstore_bundle")
        if "license" not in entry.document and loaded.registry.schema_version >= 1:
            findings.append(LICENSE_MISSING.at(InFile(loaded.name, entry.id), row))
        url = entry.document.get("license_url")
        if isinstance(url, str) and not HTTP_PATTERN.match(url):
            findings.append(LICENSE_URL.at(InFile(loaded.name, entry.id), f"{row}/license_url", found=show(url)))
        if bundle is None:
            continue
        field = f"{row}/sigstore_bundle"
        try:
            problem_found = _bundle_problem(folder.read(bundle, JSON_MAX_BYTES), entry.sha256)
            found = BUNDLE_UNVERIFIED if problem_found is None else BUNDLE_INVALID
            names = {"path": bundle} if problem_found is None else {"path": bundle, "problem": problem_found}
            findings.append(found.at(InFile(loaded.name, entry.id), field, **names))
        except FileProblem as problem:
            if problem.code == "file-missing":
                findings.append(BUNDLE_MISSING.at(InFile(loaded.name, entry.id), field, path=bundle))
            else:
                findings.append(problem.at(loaded.name, entry.id, field))
    return findings
