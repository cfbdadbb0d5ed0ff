"""known_findings.py: findings of the day a team adopted the tool, in a list, so that they fail no job. No printing.

The list is read from the base of a pull request, which can only shrink it. Never known is what a change touches, what
is about promotion, and what a registry holds that cannot be read.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool import schemas
from registry_tool.checks.identity import stable_pointer
from registry_tool.documents import schema, store
from registry_tool.errors import InputError
from registry_tool.findings import FAMILIES, Finding, path_of
from registry_tool.git import repository
from registry_tool.git.repository import Option, RepositoryPath
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.toolkit import output_file
from registry_tool.values import Json
from registry_tool.workflows.validate import Validation

FORMAT_VERSION = 1
LIST_OPTION = Option("--known-findings", "commit the list itself")
IDENTITY_FIELDS = ("code", "entry", "file", "pointer", "found")
UNLISTED_FAMILIES = ("Promotion", "Changes", "Plugins")
NEVER_LISTED = frozenset(" ".join(FAMILIES[name] for name in UNLISTED_FAMILIES).split())  # first words of codes

FindingKey = tuple[str | None, ...]  # the values of IDENTITY_FIELDS


@dataclass(frozen=True, slots=True)
class KnownFindings:
    """The list. source: the file, and the revision it was read from. listed: how often each finding is in it.

    landed: whether it is there; a list that the base does not have yet lists nothing.
    """

    source: str
    listed: Mapping[FindingKey, int]
    landed: bool = True


@dataclass(frozen=True, slots=True)
class Triage:
    """The findings of a validation, compared with a list.

    counted: those that fail a job. known: those that do not. missing: how many listed ones are not found any more.
    source: the list's file, and the revision it was read from. landed: whether the list is there.
    """

    counted: tuple[Finding, ...]
    known: tuple[Finding, ...]
    missing: int
    source: str
    landed: bool = True


def listable(item: Finding) -> bool:
    """Whether a finding may be listed: none about promotion may."""
    return item.code.partition("-")[0] not in NEVER_LISTED


def document(result: Validation) -> dict[str, Json]:
    """The list of what a validation found, in a stable order; its schema is schemas/known_findings.schema.json.

    Raises InputError for a registry that cannot be read: nothing was checked there.
    """
    if not isinstance(result.loaded, store.Loaded):
        raise InputError(f"{result.loaded.findings[0]}: findings of a registry that cannot be read cannot be listed")
    found = sorted((_identity(item, result) for item in result.findings if listable(item)), key=repr)
    return {
        "known_findings_version": FORMAT_VERSION,
        "findings": [dict(zip(IDENTITY_FIELDS, each, strict=True)) for each in found],
    }


def write(path: Path, result: Validation) -> int:
    """Write the list of what a validation found; how many there are."""
    made = document(result)
    with output_file(path) as file:
        file.write((json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode())
    return len(made["findings"])


def read(file: Path, registry: Path, place: RepositoryPath | None, revision: str | None) -> KnownFindings:
    """The list as a revision has it; as it is on disk where there is no revision to compare with.

    registry: of which it is a list.

    A list that the revision does not have yet is empty there: it counts once it has landed.
    Raises InputError for a file that is no such list, or that lies outside the repository.
    """
    output, path = shlex.quote(str(file)), shlex.quote(str(registry))
    hint = f"make it with `registry known-findings write -o {output} --registry {path}`"
    if place is None or revision is None:
        if not file.is_file():
            raise InputError(f"--known-findings {file}: file not found: {hint}")
        return KnownFindings(str(file), _parsed(str(file), file.read_bytes(), hint))
    absolute = Path(os.path.abspath(file))
    if not absolute.is_relative_to(place.top):
        raise InputError(
            f"--known-findings {file}: found it outside the repository {place.top}, expected a file of the base "
            "revision: keep it beside the registry"
        )
    source = f"{file} at {revision[:12]}"
    of_list = replace(place, option=LIST_OPTION)
    data = repository.read_at(of_list, revision, absolute.relative_to(place.top).as_posix())
    return KnownFindings(source, _parsed(source, data, hint) if data is not None else {}, data is not None)


def triage(result: Validation, known: KnownFindings, place: RepositoryPath | None, revision: str | None) -> Triage:
    """Which findings count: those that are not listed, may not be, or are on lines that changed since the revision."""
    if not isinstance(result.loaded, store.Loaded):
        return Triage(result.findings, (), 0, known.source, known.landed)
    left = Counter(known.listed)
    lines: dict[str, repository.Lines] = {}
    counted: list[Finding] = []
    listed: list[Finding] = []
    for item in result.findings:
        key = _identity(item, result)
        is_known = left[key] > 0 and listable(item)
        if left[key] > 0:
            left[key] -= 1
        if is_known and place is not None and revision is not None:
            path = path_of(item.file, place.path)
            if path not in lines:
                lines[path] = repository.changed_lines(place, revision, path)
            is_known = not lines[path].touch(item.line)
        (listed if is_known else counted).append(item)
    return Triage(tuple(counted), tuple(listed), left.total(), known.source, known.landed)


def _identity(item: Finding, result: Validation) -> FindingKey:
    file = result.loaded.name if item.file in (None, ".") else item.file
    return (item.code, item.entry, file, stable_pointer(item, result.loaded), item.found)


def _parsed(source: str, data: bytes, hint: str) -> Counter[FindingKey]:
    try:
        value = parse(data).value
    except JsonProblem as problem:
        raise InputError(f"--known-findings {source}: {problem}: {hint}") from problem
    if found := schema.violations(value, schemas.load("known_findings")):
        raise InputError(f"--known-findings {replace(found[0], file=source)}: {hint}")
    return Counter(tuple(each[name] for name in IDENTITY_FIELDS) for each in value["findings"])
