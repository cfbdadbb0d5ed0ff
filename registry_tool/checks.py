"""checks.py: everything that can be wrong with a registry, as sorted findings. Writes nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from posixpath import dirname, normpath

from registry_tool.entries import ONNX_MAX_BYTES, OpenEntry
from registry_tool.files import FileProblem, Folder, InventoryItem
from registry_tool.hookspec import Level, Progress
from registry_tool.loose import check_declared, check_joined, check_loose_manifests
from registry_tool.plugins import LoadedPlugin, Plugins
from registry_tool.probe import HINT, MESSAGES, Prober
from registry_tool.promotion import check_promotion
from registry_tool.schema import show
from registry_tool.store import Loaded, located
from registry_tool.values import Entry, Finding, Registry, Severity
from registry_tool.workers import Slices, useful

MODEL_SUFFIXES = (".onnx", ".data", ".onnx_data", ".ort")
SINGLE_PINS = ("int8_sha256", "quant_mode", "external_data", "sidecar_sha256")  # what only an entry with `onnx` has
ARTIFACT_FOLDER = re.compile(r"[^/]+/[0-9a-f]{12}\Z")
MAX_INVENTORY = 200_000


def check(
    loaded: Loaded, plugins: Plugins, level: Level = Level.FULL, progress: Progress | None = None
) -> list[Finding]:
    """Every finding on a loaded registry, sorted by file and line; those of reading it included.

    An entry that is malformed, or whose digests do not hold, is not looked into any further; one whose id stood before
    is not opened at all.
    """
    findings, registry = list(loaded.findings), loaded.registry
    if registry is None:
        return sort(findings)
    documents = {loaded.name: loaded.document} if loaded.document else {}
    known: set[str] = {loaded.name}
    count = len(registry.entries)
    repeated = dict(_check_ids(registry, loaded.name))
    findings += repeated.values()
    with Folder(loaded.folder) as folder, Prober() as prober:
        if level is Level.FULL and registry.entries:
            prober.start()

        def look(numbers: range) -> tuple[list[Finding], list[str]]:
            """The findings on some entries, and the files that these account for."""
            found: list[Finding] = []
            paths: list[str] = []
            for index in numbers:
                if index in repeated:
                    paths.append(registry.entries[index].path)
                    continue
                opened = open_entry(folder, loaded, plugins, registry.entries[index], index, keep=level is Level.FULL)
                if some := check_entry(opened, registry, plugins, level, prober):
                    found += located(some, opened.documents)
                paths += [a.path if "/" not in a.path else normpath(a.path) for a in opened.artifacts.values()]
                paths += opened.documents
            return found, paths

        if progress:
            progress("entries", 0, count)
        with Slices(look, count, useful(count) if level is Level.QUICK else 1) as slices:
            # Here is time, where other processes look at the entries.
            declared = check_declared(folder, loaded)
            items = _inventory(folder)
            for done, (found, paths) in enumerate(slices, 1):
                findings += found
                known.update(paths)
                if progress:
                    progress("entries", done * count // len(slices), count)
        if registry.schema_version < 2:
            loose, seen = check_loose_manifests(folder, loaded, plugins, level)
            findings += loose
            known |= seen
        findings += declared
        findings += [items] if isinstance(items, Finding) else _check_inventory(items, known, registry)
    return sort(located(findings, documents))


def open_entry(folder: Folder, loaded: Loaded, plugins: Plugins, entry: Entry, index: int, *, keep: bool) -> OpenEntry:
    """The entry with its bytes verified; `index` is its place in the document."""
    policy = loaded.registry.policies.get(entry.kind) if loaded.registry else None
    cap = policy.extra.get("max_file_bytes", ONNX_MAX_BYTES) if policy else ONNX_MAX_BYTES
    return OpenEntry(folder, entry, index, loaded.name, cap).open(plugins.kinds.get(entry.kind), keep=keep)


def check_entry(
    opened: OpenEntry, registry: Registry, plugins: Plugins, level: Level, prober: Prober | None = None
) -> list[Finding]:
    """The findings on one opened entry; core checks first, then every plugin's.

    prober: one that lives on. At Level.FULL it checks every model, and runs a single one that passed all else; a
    manifest's graphs are its owner's to prove.
    """
    if prober is None:
        with Prober() as prober:
            return check_entry(opened, registry, plugins, level, prober)
    entry = opened.entry
    findings = list(opened.findings)
    if entry.kind not in plugins.kinds:
        findings.append(opened.registry_finding(
            "kind-unknown", f"nobody owns the kind {entry.kind!r}", "kind", found=entry.kind,
            expected=", ".join(sorted(plugins.kinds)), hint="install the plugin that owns it, or correct the kind",
        ))  # fmt: skip
    elif (plugins.kinds[entry.kind].schema is None) is not (entry.manifest is None):
        here, there = ("manifest", "onnx") if entry.manifest else ("onnx", "manifest")
        findings.append(opened.registry_finding(
            "kind-form", f"an entry of kind {entry.kind!r} names no `{here}`: nobody would look at it", here,
            found=here, expected=there, hint="correct the kind, or register the model as its kind asks",
        ))  # fmt: skip
    findings += _check_against_registry(opened, registry)
    if any(f.severity is Severity.ERROR for f in findings):
        return findings
    whole: dict[str, bytes] = {}
    if level is Level.FULL:
        from registry_tool.onnxchecks import check_models

        findings += check_models(opened, plugins.kinds[entry.kind], prober, registry.schema_version, whole)
        findings += check_joined(opened) if entry.manifest else []
    findings += check_promotion(opened, registry, plugins, level)  # before any plugin could touch its view
    for plugin, answers in plugins.ask_each("registry_verify", view=opened, level=level):
        findings += _answers(opened, plugin, answers)
    if entry.onnx and not any(f.severity is Severity.ERROR for f in findings):
        for path, data in whole.items():
            code, seen = prober.run(data)
            if code:
                findings.append(Finding(code, MESSAGES[code], entry=entry.id, file=path, found=seen, hint=HINT))
    return findings


def _answers(opened: OpenEntry, plugin: LoadedPlugin, answers: Iterable[object] | Exception) -> Iterator[Finding]:
    if isinstance(answers, Exception):
        text = " ".join(f"{type(answers).__name__}: {answers}".split())
        yield opened.registry_finding(
            "plugin-failed", f"plugin {plugin.name} failed on this entry: {text}", "id",
            hint=f"report it to the author of {plugin.name} {plugin.version}",
        )  # fmt: skip
        return
    for answer in answers:
        if isinstance(answer, Finding):
            yield answer
        else:
            yield opened.registry_finding(
                "plugin-failed", f"plugin {plugin.name} gave a {type(answer).__name__}, expected a Finding", "id",
                hint=f"report it to the author of {plugin.name} {plugin.version}",
            )  # fmt: skip


def _check_against_registry(opened: OpenEntry, registry: Registry) -> Iterator[Finding]:
    """What an entry and its manifest say twice must be the same; and where artefacts must stand."""
    entry, manifest = opened.entry, opened.manifest
    if entry.manifest is not None and registry.schema_version >= 2:
        expected = f"{entry.id}/{entry.sha256[:12]}"
        if dirname(entry.manifest) != expected:
            yield opened.registry_finding(
                "folder-wrong", "an entry's artefacts stand in the folder of its id and digest", "manifest",
                found=entry.manifest, expected=f"{expected}/manifest.json", hint="train again, or restore the folder",
            )  # fmt: skip
    if registry.schema_version >= 2 and opened.sidecar is not None and "sidecar_sha256" not in entry.document:
        yield opened.registry_finding(
            "sidecar-unpinned", f"nothing pins {opened.sidecar}", "sha256", found="no sidecar_sha256",
            expected="the sidecar's sha256", hint="add `sidecar_sha256` to the entry, or remove the sidecar",
        )  # fmt: skip
    for field in SINGLE_PINS if entry.manifest is not None else ():
        if field in entry.document:
            yield opened.registry_finding(
                "pin-unread", f"nothing reads `{field}` of an entry with a manifest", field, found=field,
                expected="pins in the manifest", hint="remove it",
            )  # fmt: skip
    if manifest is None:
        return
    for field in ("id", "kind"):
        if field in manifest and manifest[field] != getattr(entry, field):
            yield opened.finding(
                "entry-disagrees", f"the registry and this document name another {field}", f"/{field}",
                found=str(manifest[field]), expected=getattr(entry, field), hint="correct the one that is wrong",
            )  # fmt: skip
    if "smoke" in manifest and manifest["smoke"] is not entry.smoke:
        yield opened.finding(
            "entry-disagrees", "this document and the registry disagree on smoke", "/smoke",
            found=show(manifest["smoke"]), expected=show(entry.smoke), hint="remove it: the registry alone says so",
        )  # fmt: skip


def _check_ids(registry: Registry, name: str) -> Iterator[tuple[int, Finding]]:
    """A finding on each entry, by its place, whose id stood before."""
    seen: dict[str, str] = {}
    for index, entry in enumerate(registry.entries):
        key = _one_name(entry.id)
        if key in seen:
            yield index, Finding(
                "id-duplicate", f"the id {entry.id!r} stands twice", entry=entry.id, file=name,
                pointer=f"/models/{index}/id", hint="give one of the entries another id",
            )  # fmt: skip
        seen[key] = entry.id


def _inventory(folder: Folder) -> list[InventoryItem] | Finding:
    try:
        return folder.inventory(MAX_INVENTORY)
    except FileProblem as problem:
        return Finding(problem.code, problem.message, file=".", hint=problem.hint)


def _check_inventory(items: Sequence[InventoryItem], known: set[str], registry: Registry) -> Iterator[Finding]:
    """What lies in the registry's folder and should not: models that nothing pins, names that collide, old runs."""
    named = {dirname(e.manifest) for e in registry.entries if e.manifest}
    unused = set(unused_runs(items, registry)) if registry.schema_version >= 2 else set()
    seen: dict[str, str] = {}
    for path, kind in items:
        key = _one_name(path)
        if key in seen:
            yield Finding(
                "name-collision", f"{path!r} and {seen[key]!r} are one name on other file systems", file=path,
                hint="rename one",
            )  # fmt: skip
        seen[key] = path
        if path in known and path not in unused:
            continue
        run = "/".join(path.split("/", 2)[:2])
        owner = run if ARTIFACT_FOLDER.match(run) else None
        if path in unused:
            yield Finding(
                "folder-unused", "no entry names this run", Severity.NOTE, file=path, hint="`registry prune` removes it"
            )
        elif (
            owner not in unused
            and kind != "folder"
            and (owner in named or kind == "symlink" or path.lower().endswith(MODEL_SUFFIXES))
        ):
            yield Finding(
                "file-unregistered", "nothing in the registry pins this file", Severity.WARNING, file=path,
                hint="register it, or remove it",
            )  # fmt: skip


def _one_name(text: str) -> str:
    """What a file system that ignores case or Unicode forms takes for the same name."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def unused_runs(items: Iterable[InventoryItem], registry: Registry) -> list[str]:
    """Artefact folders (ID/DIGEST with a manifest.json in it) in which no entry pins anything."""
    paths = {item.path for item in items}
    used = {dirname(entry.path) for entry in registry.entries}
    used |= {dirname(pin["path"]) for entry in registry.entries for pin in entry.document.get("external_data", ())}
    runs = [path for path in sorted(paths) if ARTIFACT_FOLDER.match(path) and f"{path}/manifest.json" in paths]
    return [run for run in runs if not any(folder == run or folder.startswith(f"{run}/") for folder in used)]


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """By file, line and code; equal findings once."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (f.file or "", f.line or 0, f.pointer or "", f.code, f.message))
