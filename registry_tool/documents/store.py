"""store.py: registry.json <-> Registry, all versions. Judges only whether the document can be read at all."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import registry_tool.schemas as schemas
from registry_tool.documents.schema import show, violations
from registry_tool.errors import InputError, WorldError
from registry_tool.findings import Finding, FindingRule
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import REGISTRY_MAX_BYTES, Document, JsonProblem, dump, parse, uncollected
from registry_tool.values import Json, Registry, visible

REGISTRY_NAMES = ("model/registry.json", "registry.json")
MAX_NEARBY = 5  # registries that a message lists
REGISTRY_VERSION = 2
VERSION_UNKNOWN = FindingRule(
    "registry-version",
    "unknown schema_version",
    why="Rules of another version would be applied to it.",
    expected="0, 1 or 2",
    hint="use a registry-tool that knows it, or correct the number",
    example='"schema_version": 3',
)
ID_DUPLICATE = FindingRule(
    "id-duplicate",
    "duplicate id",
    why="Which one loads depends on the reader. Ids that differ in case or Unicode form only count as one.",
    message="duplicate id {id!r}",
    hint="give one of them another id",
    example="fr_v1 twice",
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A registry whose document cannot be used; `findings` says why."""

    path: Path
    document: Document | None
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registry as read, without the entries that its schema refuses: of those there are `findings`.

    places: where each of the registry's entries is among the `models` of the document.
    """

    path: Path
    document: Document
    registry: Registry
    places: tuple[int, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        return self.path.name


def find(argument: str | os.PathLike[str] | None, environment: Mapping[str, str], start: Path) -> Path:
    """The registry to work on: the argument, REGISTRY_JSON, or one here or in a parent folder.

    A name that does not end in .json is a folder: the registry.json in it is meant.
    Raises InputError where there is none, or where two lie side by side.
    """
    if argument == "":
        raise InputError("registry: found an empty path, expected a registry.json: name one, or leave the option out")
    named = os.fspath(argument) if argument is not None else environment.get("REGISTRY_JSON")
    if named:
        path = Path(named)
        return path if path.suffix == ".json" and not path.is_dir() else path / "registry.json"
    found = _search(start)
    if found is None:
        below = [visible(path.relative_to(start).as_posix()) for path in _below(start)]
        more = ", ..." if len(below) > MAX_NEARBY else ""
        nearby = f" (further down: {', '.join(below[:MAX_NEARBY])}{more})" if below else ""
        raise InputError(
            f"{start}: found no registry{nearby}, expected {' or '.join(REGISTRY_NAMES)} here or in a parent folder: "
            "name one with --registry PATH (validate takes it as its argument) or REGISTRY_JSON, or make one: "
            "`registry init`"
        )
    return found


def find_or_new(argument: str | os.PathLike[str] | None, environment: Mapping[str, str], start: Path) -> Path:
    """The same for a command that makes a registry where there is none: `model/registry.json` in `start`."""
    named = argument is not None or environment.get("REGISTRY_JSON")
    return find(argument, environment, start) if named else _search(start) or start / REGISTRY_NAMES[0]


def _search(start: Path) -> Path | None:
    """The registry of the nearest folder that has one. Raises InputError where two lie side by side."""
    for folder in (start, *start.parents):
        found = [
            folder / name for name in REGISTRY_NAMES if os.path.lexists(folder / name) and not (folder / name).is_dir()
        ]
        if len(found) > 1:
            raise InputError(
                f"{folder}: found {' and '.join(REGISTRY_NAMES)}, expected one registry: name one with --registry PATH "
                "(validate takes it as its argument) or REGISTRY_JSON"
            )
        if found:
            return found[0]
    return None


def _below(start: Path) -> list[Path]:
    """Registries of the folders in this one and in its model/, one more than MAX_NEARBY at most, for a message."""
    names = [folder / name for folder in _folders(start) for name in REGISTRY_NAMES]
    names += [folder / "registry.json" for folder in _folders(start / "model")]
    return list(itertools.islice((path for path in names if path.is_file()), MAX_NEARBY + 1))


def _folders(start: Path) -> list[Path]:
    try:
        return sorted(folder for folder in start.iterdir() if not folder.name.startswith(".") and folder.is_dir())
    except OSError:
        return []


def load(path: Path) -> Loaded | Unreadable:
    """Read a registry. Raises InputError where there is no such file, WorldError where it may not be read."""
    if not path.parent.is_dir() or not os.path.lexists(path):
        raise InputError(
            f"{path}: no such file, expected a registry: check the path, or make one with "
            f"`registry train KIND --id NAME --registry {shlex.quote(str(path))}`"
        )
    try:
        with Folder(path.parent) as folder:
            data = folder.read(path.name, REGISTRY_MAX_BYTES)
    except FileProblem as problem:
        if problem.code == "file-unreadable":
            raise WorldError(f"{path}: {problem}") from problem
        return Unreadable(path, None, (problem.at(path.name),))
    return read(path, data)


def read(path: Path, data: bytes) -> Loaded | Unreadable:
    """A registry from the bytes that are (or, at a git revision, were) at `path`."""
    with uncollected():
        return _read(path, data)


def _read(path: Path, data: bytes) -> Loaded | Unreadable:
    try:
        document = parse(data, max_bytes=REGISTRY_MAX_BYTES)
    except JsonProblem as problem:
        return Unreadable(path, None, (problem.at(path.name),))
    value = document.value
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version not in (0, 1, REGISTRY_VERSION):
        finding = VERSION_UNKNOWN.at(path.name, "/schema_version", found=show(version))
        return Unreadable(path, document, located([finding], {path.name: document}))
    models = value.get("models")
    if not (broken := schema_findings(document, schema_of(version), path.name)):
        return Loaded(path, document, Registry.from_dict(value), tuple(range(len(models))))
    if isinstance(models, list):
        outside = schema_findings(replace(document, value=value | {"models": []}), schema_of(version), path.name)
        inside = [_entry_findings(document, number, schema_of(version), path.name) for number in range(len(models))]
        broken = [*outside, *(finding for found in inside for finding in found)]
        if not outside:
            places = tuple(number for number, found in enumerate(inside) if not found)
            registry = Registry.from_dict(value | {"models": [models[number] for number in places]})
            return Loaded(path, document, registry, places, located(broken, {path.name: document}))
    return Unreadable(path, document, located(broken, {path.name: document}))


def _entry_findings(document: Document, number: int, schema: Mapping[str, Json], file: str) -> list[Finding]:
    """The violations of one of the `models`, by itself: however many the others have, they hide none of it."""
    model = document.value["models"][number]
    entry = model["id"] if isinstance(model, dict) and isinstance(model.get("id"), str) else None
    around = {"schema_version": document.value["schema_version"], "models": [model]}
    if around["schema_version"] == REGISTRY_VERSION:
        around["policies"] = {}
    alone = replace(document, value=around)
    return [
        replace(finding, pointer=f"/models/{number}{(finding.pointer or '').removeprefix('/models/0')}")
        for finding in schema_findings(alone, schema, file, entry)
    ]


def schema_of(version: int) -> dict[str, Json]:
    document: dict[str, Json] = schemas.load("registry" if version == REGISTRY_VERSION else "registry-v1")
    return document


def schema_findings(
    document: Document, schema: Mapping[str, Json], file: str, entry: str | None = None
) -> list[Finding]:
    """The violations of a document as findings on `file`."""
    return [replace(finding, file=file, entry=entry) for finding in violations(document.value, schema)]


def located(findings: list[Finding], documents: Mapping[str, Document]) -> tuple[Finding, ...]:
    """The findings with line and column filled in where their file is one of these documents."""
    return tuple(
        f.at(*documents[f.file].position(f.pointer))
        if f.line is None and f.pointer is not None and f.file is not None and f.file in documents
        else f
        for f in findings
    )


def empty() -> Registry:
    return Registry(REGISTRY_VERSION, ())


def new(path: Path) -> Loaded:
    """A registry that has no file yet."""
    return Loaded(path, parse(dump(empty().to_dict())), empty(), ())


def schema_beside(path: Path, registry: Registry, kind: str) -> dict[str, Json]:
    """`$schema` of a new document two folders below the registry, in the folder that the registry's own one names."""
    schema = PurePosixPath(str(registry.extra.get("$schema", ""))).parent / f"{kind}.schema.json"
    return {"$schema": f"../../{schema}"} if not schema.is_absolute() and (path.parent / schema).is_file() else {}


def save(path: Path, registry: Registry) -> None:
    """Replace the registry in one step; entries sorted by id, keys sorted. Raises WorldError, changing nothing."""
    write_atomic(path, dump(registry.to_dict()))
