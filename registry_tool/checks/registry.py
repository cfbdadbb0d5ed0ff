"""registry.py: everything that can be wrong with a registry, as sorted findings. Writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING

from registry_tool.checks.declared import check_declared, check_unknown_fields
from registry_tool.checks.entry import check_entry
from registry_tool.checks.inventory import UNREGISTERED, check_inventory, list_files, one_name
from registry_tool.checks.named import NamedFile, check_named, named_files
from registry_tool.checks.policy_names import check_policy_kinds, check_policy_metrics
from registry_tool.checks.signatures import check_private_keys, check_signers
from registry_tool.checks.workers import answers, count_processes, slices_of
from registry_tool.documents.entries import ONNX_MAX_BYTES, ReadEntry, VerifiedEntry
from registry_tool.documents.store import ID_DUPLICATE, Loaded, Unreadable, located
from registry_tool.findings import Finding, FindingRule, InFile, Severity
from registry_tool.hookspec import Level, Progress
from registry_tool.legacy.manifests import check_unpinned_manifests
from registry_tool.onnx_summary import OnnxError
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse

# How many quick looks a full one takes: at a single model, at an entry with evidence.
FULL_COST, FULL_EVIDENCE_COST = 16, 128

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust

ID_ALIKE = FindingRule(
    "id-alike",
    "ids that differ by - and _ alone",
    why="Readers and package indexes take one for the other.",
    message="the ids {other!r} and {id!r} differ by '-' and '_' alone",
    hint="rename one of them",
    example="fr-v1 and fr_v1",
    severity=Severity.WARNING,
)
PLUGIN_NOT_LOADED = FindingRule(
    "plugin-not-loaded",
    "plugin that does not load",
    why="What it would have found is unknown, so nothing that needs it runs; the exit code is 3.",
    message="{error}",
    hint="update or uninstall the plugin, then validate again; `registry plugins` lists it",
    example="sys.exit(0) in its module",
)
PLUGIN_REQUIRED = FindingRule(
    "plugin-required",
    "required plugin missing or of another version",
    why="What it would have found is unknown, so nothing is judged; the exit code is 3.",
    message="the registry requires plugin {plugin}",
    hint="install it, then validate again; `registry plugins` lists what is installed",
    example='"requires": [{"plugin": "house-rules", "version": ">=1.2"}], with 1.1 installed',
    since="0.2.0",
)
PLUGIN_LEFT_OUT = FindingRule(
    "plugin-left-out",
    "plugin left out by a person",
    why="What it would have found is unknown. It is for finding out which plugin is at fault; nothing is promoted so.",
    message="plugin {plugin} was left out",
    hint="run it without --without-plugin and REGISTRY_PLUGINS_DISABLED",
    example="registry --without-plugin house-rules validate",
    severity=Severity.WARNING,
    since="0.2.0",
)
PLUGIN_CODES = frozenset(
    {PLUGIN_NOT_LOADED.code, PLUGIN_REQUIRED.code}
)  # an environment to repair, whatever else is found


def check(
    loaded: Loaded | Unreadable,
    plugins: Plugins,
    level: Level = Level.FULL,
    progress: Progress | None = None,
    trust: Trust | None = None,
    unchanged: Collection[int] = (),
) -> list[Finding]:
    """Every finding on a loaded registry, sorted by file and line; those of reading it included.

    trust: whose signatures every production entry needs; None asks for what the policies do. unchanged: the numbers of
    entries that are checked at Level.QUICK whatever the level.

    An entry that is malformed, or whose digests do not hold, is not looked into any further; a second one of an id is
    not opened at all. Where an entry is malformed, its files are unknown: no file is called unregistered then.
    """
    findings = [*loaded.findings, *check_plugins(plugins, loaded.name)]
    if isinstance(loaded, Unreadable):
        return sort(findings)
    findings += check_requirements(plugins, loaded)
    with Folder(loaded.folder) as folder, Prober() as prober:
        inspection = Inspection(loaded, plugins, folder, prober if level is Level.FULL else None)
        findings += _check_all(inspection, _Task(trust, frozenset(unchanged)), progress)
    return sort(located(findings, {loaded.name: loaded.document}))


@dataclass(frozen=True, slots=True)
class _Task:
    """trust, unchanged: see `check`. repeated: the numbers of entries that are not opened."""

    trust: Trust | None
    unchanged: frozenset[int]
    repeated: frozenset[int] = frozenset()

    def weight(self, inspection: Inspection) -> int:
        """How much work the entries are, in quick looks at one; an ensemble's evidence is measured again."""
        weights = (
            1
            if inspection.level is Level.QUICK or number in self.unchanged
            else FULL_COST
            if entry.onnx
            else FULL_EVIDENCE_COST
            for number, entry in enumerate(inspection.registry.entries)
        )
        return sum(weights)


def _check_all(inspection: Inspection, task: _Task, progress: Progress | None) -> list[Finding]:
    """The findings on a registry that could be read: its entries, what lies beside them, its folder."""
    loaded, registry, count = inspection.loaded, inspection.registry, len(inspection.registry.entries)
    repeated = dict(_check_ids(loaded))
    task = replace(task, repeated=frozenset(repeated))
    findings = [*repeated.values(), *_check_alike(loaded), *check_policy_kinds(inspection)]
    seen = _Seen({loaded.name})
    processes = count_processes(task.weight(inspection))
    slices = slices_of(count, processes)
    if progress:
        progress("entries", 0, count)
    with answers(lambda: _checker(inspection, task, alone=processes == 1), slices, processes) as found_by_slice:
        # Other processes may look at the entries meanwhile.
        declared = [*check_declared(inspection.folder, loaded, task.trust), *check_unknown_fields(loaded)]
        declared += check_signers(inspection.folder, loaded)
        items = list_files(inspection.folder)
        for numbers, (found, more) in zip(slices, found_by_slice, strict=True):
            findings += found
            seen.add(more)
            if progress:
                progress("entries", numbers.stop, count)
    if registry.schema_version < 2 and not loaded.findings:
        unpinned, paths, manifests = check_unpinned_manifests(inspection)
        findings += unpinned
        seen.paths |= paths
        seen.named += [named for manifest in manifests for named in named_files(manifest)]
    findings += declared
    if isinstance(items, Finding):
        findings.append(items)
    elif not loaded.findings:
        bundles = {str(entry.document.get("sigstore_bundle")) for entry in registry.entries}
        files = {item.path for item in items if item.kind != "folder"}
        findings += _with_lines(check_named(seen.named, seen.paths | bundles, files), inspection)
        left = [item for item in items if not any(item.path.startswith(folder) for folder in seen.unread)]
        for finding in check_inventory(left, seen.paths, registry):
            if not _is_read(finding, seen.unparsed, inspection):
                findings.append(finding)
    findings += check_policy_metrics(inspection)  # after the forks: it may load libraries that start threads
    if not isinstance(items, Finding):
        findings += check_private_keys(inspection.folder, items)
    return findings


@dataclass(slots=True)
class _Seen:
    """What entries account for. paths: their files. named: what their documents name. unread: the folders of manifests
    whose pins cannot be read: what belongs there is not known. unparsed: ONNX files whose graph was not looked at."""

    paths: set[str] = field(default_factory=set)
    named: list[NamedFile] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    unparsed: set[str] = field(default_factory=set)

    def add(self, more: _Seen) -> None:
        self.paths |= more.paths
        self.named += more.named
        self.unread |= more.unread
        self.unparsed |= more.unparsed


def _with_lines(findings: Iterable[Finding], inspection: Inspection) -> tuple[Finding, ...]:
    """The findings with the lines of the manifests and sidecars that they are on, which were closed meanwhile."""
    found, documents = list(findings), dict[str, Document]()
    for file in {finding.file for finding in found} - {None, inspection.loaded.name}:
        with suppress(FileProblem, JsonProblem):
            documents[str(file)] = parse(inspection.folder.read(str(file), JSON_MAX_BYTES))
    return located(found, documents)


def _is_read(finding: Finding, models: Iterable[str], inspection: Inspection) -> bool:
    """Whether one of these models names an unregistered file as one with its weights: by the bytes of that field."""
    path = finding.file or ""
    if finding.code != UNREGISTERED.code or path.endswith(".onnx"):
        return False
    for onnx in models:
        folder = f"{dirname(onnx)}/" if "/" in onnx else ""
        name = path.removeprefix(folder).encode()
        if path.startswith(folder) and len(name) < 128:
            with suppress(FileProblem):
                if b"location\x12" + bytes([len(name)]) + name in inspection.folder.read(onnx, ONNX_MAX_BYTES):
                    return True
    return False


@contextmanager
def _checker(
    inspection: Inspection, task: _Task, *, alone: bool
) -> Iterator[Callable[[range], tuple[list[Finding], _Seen]]]:
    """What a process does with a slice of the entries; beside others it has a prober of its own."""
    with Prober() if inspection.prober is None or not alone else nullcontext(inspection.prober) as prober:
        if inspection.prober is not None:
            inspection = replace(inspection, prober=prober)
            if len(task.unchanged) < len(inspection.registry.entries):
                prober.start()
        yield lambda numbers: _check_some(inspection, numbers, task)


def _check_some(inspection: Inspection, numbers: Iterable[int], task: _Task) -> tuple[list[Finding], _Seen]:
    """The findings on some entries, and what these account for."""
    findings: list[Finding] = []
    seen = _Seen()
    for index in numbers:
        if index in task.repeated:
            seen.paths.add(inspection.registry.entries[index].path)
            continue
        narrowed = inspection.quick() if index in task.unchanged else inspection
        entry = narrowed.verify(index)
        if found := check_entry(entry, narrowed, task.trust):
            findings += located(found, entry.documents)
        seen.paths.update(a.path if "/" not in a.path else normpath(a.path) for a in entry.artifacts.values())
        seen.paths.update(entry.documents)
        seen.paths.update(_usual_external(entry) if narrowed.level is Level.QUICK else external_files(entry))
        if narrowed.level is Level.QUICK or not isinstance(entry, VerifiedEntry):
            seen.unparsed.update(a.path for a in entry.artifacts.values() if a.path.endswith(".onnx"))
        if isinstance(entry, VerifiedEntry):
            seen.named += named_files(entry)
        elif entry.entry.manifest is not None and len(entry.artifacts) == 1 and "/" in entry.entry.manifest:
            seen.unread.add(f"{dirname(entry.entry.manifest)}/")
    return findings, seen


def external_files(entry: ReadEntry) -> Iterator[str]:
    """The files that a verified entry's graphs read, pinned or not: what is wrong with them has findings of its own."""
    if not isinstance(entry, VerifiedEntry):
        return
    for name, artifact in entry.artifacts.items():
        if artifact.path.endswith(".onnx"):
            with suppress(OnnxError, FileProblem):
                locations = {tensor.location for tensor in entry.onnx(name).external}
                yield from (normpath(join(dirname(artifact.path), location)) for location in locations)


def _usual_external(entry: ReadEntry) -> Iterator[str]:
    """Where a graph's weights usually are, for a level that reads no graph."""
    for artifact in entry.artifacts.values():
        if artifact.path.endswith(".onnx"):
            yield from (f"{artifact.path}.data", f"{artifact.path}_data")


def check_plugins(plugins: Plugins, file: str) -> Iterator[Finding]:
    """A finding on each installed plugin that does not load: what it would have found is unknown."""
    for plugin in plugins.broken:
        yield PLUGIN_NOT_LOADED.at(file, error=plugin.why)
    for name in plugins.disabled:
        yield PLUGIN_LEFT_OUT.at(file, plugin=name)


def check_requirements(plugins: Plugins, loaded: Loaded) -> Iterator[Finding]:
    """A finding on each plugin that the registry requires and that is not there as required."""
    for index, required in enumerate(loaded.registry.requires):
        if (found := plugins.unmet(required)) is not None:
            expected = required.version or "any version"
            yield PLUGIN_REQUIRED.at(
                loaded.name, f"/requires/{index}", found=found, expected=expected, plugin=required.plugin
            )


def _check_ids(loaded: Loaded) -> Iterator[tuple[int, Finding]]:
    """A finding on each entry, by its number, whose id another one before it has."""
    seen: dict[str, str] = {}
    for index, entry in enumerate(loaded.registry.entries):
        key = one_name(entry.id)
        if key in seen:
            place = f"/models/{loaded.places[index]}/id"
            yield index, ID_DUPLICATE.at(InFile(loaded.name, entry.id), place, id=entry.id)
        seen[key] = entry.id


def _check_alike(loaded: Loaded) -> Iterator[Finding]:
    """Ids that a reader, a shell or a package index takes for one another."""
    seen: dict[str, str] = {}
    for place, entry in zip(loaded.places, loaded.registry.entries, strict=True):
        other = seen.setdefault(re.sub("[-_]+", "-", one_name(entry.id)), entry.id)
        if one_name(other) != one_name(entry.id):
            yield ID_ALIKE.at(InFile(loaded.name, entry.id), f"/models/{place}/id", id=entry.id, other=other)


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """By file, line and code; equal findings once."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (f.file or "", f.line or 0, f.pointer or "", f.code, f.message))
