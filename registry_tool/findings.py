"""findings.py: what can be wrong with the data, declared once and given where it is checked. Checks nothing itself.

A check declares its finding beside itself and gives it with `at`:

    NO_AUTHOR = FindingRule(
        "thumb-no-author",
        "missing author",
        why="A reviewer cannot ask anyone about the model.",
        message="{name} has no author",
        hint="add `author` to the manifest",
        example='"author": ""',
    )
    ...
    yield NO_AUTHOR.at(view, "/author", name=view.entry.id)

`registry rule`, SARIF and docs/findings.md explain what `Kind.findings` leads to.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from string import Formatter
from types import MappingProxyType
from typing import Protocol, TypedDict, Unpack

CODE_PATTERN = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+\Z")
FAMILIES: Mapping[str, str] = MappingProxyType(
    {  # heading -> first words of the core's codes
        "Documents": "json schema registry",
        "Files": "file folder name",
        "Entries and pins": "id kind entry license digest size pin bundle sidecar",
        "Promotion": "promotion verdict policy evidence",
        "Signatures": "signature signer attestation reproduction",
        "ONNX models": "onnx",
        "Version 0 and 1": "loose migration",
        "Changes": "base",
        "Plugins": "plugin",
    }
)
SHARED_PREFIXES = frozenset({"sidecar-", "evidence-"})  # a plugin that comes with the core has codes with these too


class Severity(StrEnum):
    """How much a finding weighs; only `error` fails a run (`--strict`: warnings too)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with the data, with a stable code and the place a person can go to.

    file: POSIX path relative to the registry's folder. pointer: RFC 6901 pointer into that file, "" the whole document.
    line, column: 1-based; None where the file has no lines (ONNX) or the place is unknown.
    rule: the declaration it was made from; it explains the code.
    """

    code: str
    message: str
    severity: Severity = Severity.ERROR
    entry: str | None = None
    file: str | None = None
    pointer: str | None = None
    line: int | None = None
    column: int | None = None
    found: str | None = None
    expected: str | None = None
    hint: str | None = None
    rule: FindingRule | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        # A plugin may spell the severity as text; one that means nothing is a ValueError, never a silent pass.
        object.__setattr__(self, "severity", Severity(self.severity))

    def at(self, line: int | None, column: int | None) -> Finding:
        return replace(self, line=line, column=column)

    def to_dict(self) -> dict[str, str | int | None]:
        return {
            "code": self.code,
            "severity": str(self.severity),
            "entry": self.entry,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "pointer": self.pointer,
            "message": self.message,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
        }

    @property
    def words(self) -> str:
        """What was found, what was expected, what to do: the line without its place."""
        text = self.message
        if self.found is not None and self.expected is not None:
            text += f": found {self.found}, expected {self.expected}"
        return f"{text}: {self.hint}" if self.hint else text

    def __str__(self) -> str:
        """One line: where, what was found, what was expected, what to do; the file once, if the message begins so."""
        place, words = self.file or "registry", self.words.removeprefix(f"{self.file}: ")
        if self.line is not None:
            place += f":{self.line}"
        if self.pointer:
            place += f" #{self.pointer}"
        return f"{place}: {words}"


class FindingFields(TypedDict, total=False):
    """Fields of a Finding, by name, for who makes one at a place."""

    severity: Severity
    entry: str | None
    file: str | None
    line: int | None
    column: int | None
    found: str | None
    expected: str | None
    hint: str | None
    rule: FindingRule | None


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those of them that fail a run."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def path_of(file: str | None, registry: str) -> str:
    """A finding's file as a POSIX path, given that of its registry.json; None and the folder itself mean the latter."""
    folder = posixpath.dirname(registry)
    return registry if file in (None, ".") else posixpath.normpath(posixpath.join(folder, str(file)))


class FindingPlace(Protocol):
    """What makes a finding on itself: a `hookspec.EntryView`, `InFile`, and the core's places in registry.json."""

    def finding(self, code: str, message: str, pointer: str = "", **fields: Unpack[FindingFields]) -> Finding:
        """A Finding there; pointer goes into the place's document."""


@dataclass(frozen=True, slots=True)
class InFile:
    """A file of the registry's folder, as a place. entry: the one it is about. base: what every pointer starts with."""

    file: str | None
    entry: str | None = None
    base: str | None = None

    def finding(self, code: str, message: str, pointer: str | None = None, **fields: Unpack[FindingFields]) -> Finding:
        if self.base is not None:
            pointer = self.base + (pointer or "")
        placed: FindingFields = {"entry": self.entry, "file": self.file, **fields}
        return Finding(code, message, pointer=pointer, **placed)


@dataclass(frozen=True, slots=True)
class FindingRule:
    """A finding code and what a person must know about it.

    code: lower-case words joined by `-`; it stays the same for ever. Its prefix says whose it is.
    title: what was found, in the usual words, as a phrase. why: what could go wrong. example: what it looks like.
    message, expected, hint: texts of the finding, in which `{name}` is a value that `at` is given; a message
    that is left out is the title. hint: what to do, with a command that works where the finding is given.
    since: the version of the core, or of the plugin, that gave it first.
    """

    code: str
    title: str
    why: str
    hint: str
    message: str = ""
    expected: str | None = None
    example: str = ""
    severity: Severity = Severity.ERROR
    since: str = "0.1.0"

    def __post_init__(self) -> None:
        if not CODE_PATTERN.match(self.code):
            raise ValueError(f"code {self.code!r}: expected lower-case words joined by -, such as thumb-no-author")
        if not self.message:
            object.__setattr__(self, "message", self.title)

    @property
    def family(self) -> str:
        """The first word of the code."""
        return self.code.partition("-")[0]

    def at(
        self,
        place: FindingPlace | str | None,
        pointer: str | None = None,
        *,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
        **names: object,
    ) -> Finding:
        """The finding at a place. place: a view, a file's path, or None where the caller names the file later.

        pointer: RFC 6901; left out, it is the whole document of a view, and no place in a file. found, expected: texts
        or numbers. hint: where the usual one does not help. names: the values of the declaration's `{name}`s.
        """
        target = InFile(place) if place is None or isinstance(place, str) else place
        fields: FindingFields = {
            "severity": self.severity,
            "found": None if found is None else str(found),
            "expected": _filled(self.expected, names) if expected is None else str(expected),
            "hint": _filled(self.hint if hint is None else hint, names),
            "rule": self,
        }
        message = _filled(self.message, names) or ""
        if pointer is None:
            return target.finding(self.code, message, **fields)
        return target.finding(self.code, message, pointer, **fields)

    @property
    def names(self) -> frozenset[str]:
        """The names that `at` must be given."""
        texts = (self.message, self.expected or "", self.hint)
        return frozenset(name for text in texts for _, name, _, _ in Formatter().parse(text) if name)


def _filled(text: str | None, names: dict[str, object]) -> str | None:
    return text.format_map(names) if text and names else text


EVIDENCE_UNUSABLE = FindingRule(  # of the core, for plugins too
    "evidence-unusable",
    "evidence cannot be read or recomputed",
    why="A promotion that cannot be checked again is none.",
    message="the evidence cannot be recomputed: {reason}",
    hint="restore the files, or train again",
    example="oof.npz cut off",
)
