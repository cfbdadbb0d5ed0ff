"""statement.py: the in-toto statement of an OMS v1.0 signature: which files, with which digests. Opens no file.

Source: OpenSSF Model Signing v1.0; in-toto Statement v1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry_tool.signing.dsse import SignatureError, mapping, text
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.values import Json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SIGNATURE_PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT_MAX_BYTES = 64 * 2**20
# Of file digests.
DIGEST_ALGORITHMS: Mapping[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
}
IGNORED_ALWAYS = (".git", ".gitattributes", ".github", ".gitignore")  # the reference implementation's list


@dataclass(frozen=True, slots=True)
class FilesStatement:
    """name: of the signed folder. digests: by file name, relative and POSIX, in the order of the statement."""

    name: str
    digests: Mapping[str, str]
    algorithm: str = "sha256"
    ignored: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the files' raw digests, one after the other."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.digests.values()))).hexdigest()

    def to_bytes(self) -> bytes:
        resources = [
            {"name": name, "algorithm": self.algorithm, "digest": digest} for name, digest in self.digests.items()
        ]
        serialization = {
            "method": "files",
            "hash_type": self.algorithm,
            "allow_symlinks": False,
            "ignore_paths": sorted(self.ignored),
        }
        document = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": self.name, "digest": {"sha256": self.digest}}],
            "predicateType": SIGNATURE_PREDICATE,
            "predicate": {"serialization": serialization, "resources": resources},
        }
        return json.dumps(document, indent=2).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> FilesStatement:
        """Raises SignatureError, naming the field, for anything else than such a statement."""
        document = read_statement(payload, SIGNATURE_PREDICATE)
        predicate = mapping(document.get("predicate"), "predicate")
        serialization = mapping(predicate.get("serialization"), "predicate.serialization")
        if (method := serialization.get("method")) != "files":
            raise SignatureError(f"predicate.serialization.method: found {method!r}, expected 'files'")
        ignored = serialization.get("ignore_paths", [])
        if not isinstance(ignored, list) or not all(isinstance(path, str) for path in ignored):
            raise SignatureError("predicate.serialization.ignore_paths: expected a list of paths")
        algorithm = text(serialization.get("hash_type"), "predicate.serialization.hash_type")
        if algorithm not in DIGEST_ALGORITHMS:
            known = ", ".join(DIGEST_ALGORITHMS)
            raise SignatureError(f"predicate.serialization.hash_type: found {algorithm!r}, expected one of {known}")
        resources = predicate.get("resources")
        if not isinstance(resources, list) or not resources:
            raise SignatureError("predicate.resources: found none, expected at least one file")
        name, stated = read_subject(document)
        statement = cls(name, _digests(resources, algorithm), algorithm, tuple(ignored))
        if statement.digest != stated:
            raise SignatureError("subject.digest: it is not the digest of the resources")
        return statement


def read_statement(payload: bytes, predicate: str) -> Mapping[str, Json]:
    """An in-toto statement with this predicate type. Raises SignatureError."""
    try:
        document = mapping(parse(payload, max_bytes=STATEMENT_MAX_BYTES).value, "statement")
    except JsonProblem as problem:
        raise SignatureError(f"statement: it cannot be read: {problem}") from None
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", predicate)):
        if document.get(field) != expected:
            raise SignatureError(f"{field}: found {document.get(field)!r}, expected {expected!r}")
    return document


def read_subject(document: Mapping[str, Json]) -> tuple[str, str]:
    """(name, sha256) of the one subject of a statement. Raises SignatureError."""
    subjects = document.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise SignatureError("subject: expected exactly one")
    subject = mapping(subjects[0], "subject")
    name = subject.get("name")
    if not isinstance(name, str):
        raise SignatureError("subject.name: expected text")
    return name, text(mapping(subject.get("digest"), "subject.digest").get("sha256"), "subject.digest.sha256")


def _digests(resources: Sequence[Json], algorithm: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    length = 2 * DIGEST_ALGORITHMS[algorithm]().digest_size  # hex digits
    for index, value in enumerate(resources):
        field = f"predicate.resources[{index}]"
        resource = mapping(value, field)
        name = text(resource.get("name"), f"{field}.name")
        digest = text(resource.get("digest"), f"{field}.digest")
        if fault := fault_of_name(name):
            raise SignatureError(f"{field}.name: {name!r} {fault}, expected a path inside the folder")
        if resource.get("algorithm") != algorithm:
            raise SignatureError(f"{field}.algorithm: found {resource.get('algorithm')!r}, expected {algorithm!r}")
        if not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
            raise SignatureError(f"{field}.digest: expected {length} lower-case hex digits")
        if name in digests:
            raise SignatureError(f"{field}.name: {name!r} is listed twice")
        digests[name] = digest
    return digests


def fault_of_name(name: str) -> str | None:
    """Why this is not the name of a file inside a folder, None where it is."""
    if name.startswith("/") or "\\" in name or "\0" in name:
        return "is absolute or not a POSIX path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty, '.' or '..' part"
    return None
