"""named.py: files that a document names and nothing pins. Looks at names alone; whether they are pinned comes later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from posixpath import dirname, join, normpath

from registry_tool.checks.inventory import MODEL_SUFFIXES
from registry_tool.documents.entries import VerifiedEntry
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.strictjson import pointer
from registry_tool.values import EMPTY, Json

FILE_NAME = re.compile(r"[^\s:*?\"<>|\\]{1,252}\.[A-Za-z0-9_]{0,15}[A-Za-z][A-Za-z0-9_]{0,15}\Z")
PINNING_FIELDS = ("onnx", "manifest", "external_data", "promotion", "signatures", "sigstore_bundle")  # of an entry
MAX_NAMED_FILES = 1_000  # of one entry: more say nothing new

NAMED_UNPINNED = FindingRule(
    "file-named-unpinned",
    "file that a document names and nothing pins",
    why="A reader that follows the name gets whatever lies there, now or later: no digest covers it.",
    message="{file} is named here, but nothing pins it",
    expected="a pinned file, or no name",
    hint="remove the field, or put the file where the manifest pins it",
    example='"scaler": "scaler.pkl"',
    severity=Severity.WARNING,
)
SCHEMA = "/$schema"  # it is for editors: nothing of the model depends on what lies there


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A text of a document that may name a file. paths: what it may mean, from the registry's folder."""

    place: InFile
    pointer: str
    text: str
    paths: tuple[str, ...]


def named_files(view: VerifiedEntry) -> Iterator[NamedFile]:
    """The texts of an entry, and of its manifest or sidecar, that look like a file's name."""
    found: list[NamedFile] = []
    manifest = view.manifest or EMPTY
    if view.entry.manifest is None:  # a sidecar repeats fields of its entry, and is compared with it
        manifest = {name: value for name, value in manifest.items() if name not in PINNING_FIELDS}
    document = {name: value for name, value in view.entry.document.items() if name not in PINNING_FIELDS}
    for place, value, folder in (
        (view.row, document, ""),
        (InFile(view.document_file, view.entry.id), manifest, dirname(view.document_file)),
    ):
        for at, text in texts(value, ""):
            if at != SCHEMA and text not in view.artifacts and FILE_NAME.match(text) and len(found) < MAX_NAMED_FILES:
                paths = dict.fromkeys(normpath(path) for path in (join(folder, text), text))
                found.append(NamedFile(place, at, text, tuple(paths)))
    yield from found


def texts(value: Json, at: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a document at any depth, each with its JSON pointer."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts(item, at + pointer(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, at + pointer(index))


def check_named(named: Iterable[NamedFile], pinned: Set[str], files: Set[str]) -> Iterator[Finding]:
    """A finding on each name of a file that is there, or that would hold weights, and that nothing accounts for.

    pinned: the files that entries account for. files: what the registry's folder holds.
    """
    for one in named:
        inside = [path for path in one.paths if not path.startswith(("../", "/"))]
        if pinned.isdisjoint(inside) and (
            not files.isdisjoint(inside) or (inside and one.text.lower().endswith(MODEL_SUFFIXES))
        ):
            yield NAMED_UNPINNED.at(one.place, one.pointer, found=show(one.text), file=show(one.text))
