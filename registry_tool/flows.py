"""flows.py: the stories: validate, train, evaluate, predict, prune. No click, no printing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from registry_tool import store
from registry_tool.checks import check, check_entry, open_entry, unused_runs
from registry_tool.entries import OpenEntry, pins_of, sha256_of
from registry_tool.errors import InputError, PluginError, RegistryError, RejectedError
from registry_tool.files import (
    LOCK_NAME,
    STAGING,
    FileProblem,
    Folder,
    check_path,
    publish_folder,
    write_atomic,
)
from registry_tool.hookspec import (
    Batch,
    EvaluateRequest,
    Evaluation,
    Level,
    PredictRequest,
    Progress,
    Trained,
    TrainRequest,
)
from registry_tool.lock import locked
from registry_tool.newfolder import remove_whole
from registry_tool.plugins import Plugins
from registry_tool.probe import Prober
from registry_tool.promotion import compares, find_beside
from registry_tool.store import Loaded
from registry_tool.strictjson import dump
from registry_tool.values import Entry, Finding, Json, Registry, Severity

ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found, and on how much it looked."""

    loaded: Loaded
    level: Level
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        return sum(f.severity is severity for f in self.findings)


def validate(path: Path, plugins: Plugins, level: Level = Level.FULL, progress: Progress | None = None) -> Validation:
    """Read the registry, check everything at this level, change nothing."""
    loaded = store.load(path)
    return Validation(loaded, level, tuple(check(loaded, plugins, level, progress)))


def touched(files: Iterable[str], here: Path, environment: Mapping[str, str]) -> list[Path]:
    """The registries that hold a changed file, each once: the nearest registry.json in or above the file's folder.

    files: relative to `here`, which is as far up as it looks. What git says was deleted counts too: pre-commit names
    no deleted file, and its environment says of which range of revisions it speaks.
    """
    from registry_tool.gitbase import deleted  # loads subprocess, which validate alone does without

    revisions = environment.get("PRE_COMMIT_FROM_REF"), environment.get("PRE_COMMIT_TO_REF")
    found = set()
    for file in (*files, *deleted(here, *revisions)):
        path = (here / file).absolute()
        folders = [folder for folder in path.parents if folder.is_relative_to(here)]
        found |= set([f / "registry.json" for f in folders if (f / "registry.json").is_file()][:1])
    return sorted(path.relative_to(here) for path in found)


def usable(path: Path) -> Loaded:
    """The registry, or InputError with the first thing that is wrong with its document."""
    loaded = store.load(path)
    if loaded.registry is None:
        raise InputError(f"{loaded.findings[0]}: run `registry validate {path}`")
    return loaded


def find_entry(loaded: Loaded, entry_id: str) -> Entry:
    """The entry of this id. Raises InputError where there is none, or more than one."""
    if loaded.registry is not None:
        _refuse_twice(loaded.path, loaded.registry, entry_id)
    entry = loaded.registry.entry(entry_id) if loaded.registry else None
    if entry is None:
        known = ", ".join(e.id for e in loaded.registry.entries) if loaded.registry else ""
        raise InputError(f"{loaded.path}: no entry {entry_id!r}, expected one of: {known or '(none)'}: `registry list`")
    return entry


def _refuse_twice(path: Path, registry: Registry, entry_id: str) -> None:
    if sum(entry.id == entry_id for entry in registry.entries) > 1:
        raise InputError(f"{path}: {entry_id!r} stands twice, expected one entry an id: run `registry validate {path}`")


@contextmanager
def opened(loaded: Loaded, plugins: Plugins, entry: Entry) -> Iterator[OpenEntry]:
    """The entry with verified bytes. Raises RejectedError where a document or a digest does not hold."""
    assert loaded.registry is not None
    index = next(i for i, e in enumerate(loaded.registry.entries) if e.id == entry.id)
    with Folder(loaded.folder) as folder:
        view = open_entry(folder, loaded, plugins, entry, index, keep=True)
        if not view.sound:
            raise RejectedError(f"{entry.id}: {view.findings[0]}: run `registry validate {loaded.path}`")
        yield view


# ---- train ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Registered:
    """What `train` wrote."""

    entry: Entry
    folder: str
    created_registry: bool
    trained: Trained


def train(
    path: Path,
    plugins: Plugins,
    kind: str,
    entry_id: str,
    *,
    corpus: Path | None,
    smoke: bool,
    options: Mapping[str, Any],
    progress: Progress,
) -> Registered:
    """Train an entry and register it as smoke; the registry is the old one until the last step.

    Raises InputError before training for an id or registry that cannot take the entry, RejectedError for a
    production id.
    """
    before = _check_target(path, entry_id, kind)
    request = TrainRequest(kind, entry_id, corpus, smoke, options, progress)
    trained = plugins.ask_owner("registry_train", kind, Trained, request=request)
    if trained is None:
        raise InputError(
            f"kind {kind!r}: it cannot be trained here, expected a kind whose plugin trains: `registry plugins`"
        )
    owner = plugins.owner(kind).name
    try:
        data = dump({**pinned(trained), **store.schema_beside(path, before, kind)})
    except (FileProblem, TypeError, ValueError) as error:
        raise PluginError(f"plugin {owner}: what it trained cannot be registered: {error}: report it") from error
    if smoke and trained.manifest.get("random_rows") is not True:
        raise PluginError(f"plugin {owner}: found no `random_rows: true` in the manifest of random rows: report it")
    digest = sha256_of(data)
    folder = f"{entry_id}/{digest[:12]}"
    entry = Entry.from_dict({
        **trained.entry, "id": entry_id, "kind": kind, "manifest": f"{folder}/manifest.json", "sha256": digest,
        "smoke": True,
    })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        created = not path.exists()
        registry = _check_target(path, entry_id, kind)
        if (old := registry.entry(entry_id)) is not None:  # why it left production outlives the next model
            entry = entry.with_fields(demotion=old.document.get("demotion"))
        if created and not (path.parent / ".gitignore").exists():  # `git add` shall leave the lock and staging out
            write_atomic(path.parent / ".gitignore", f"{LOCK_NAME}\n{STAGING}*\n".encode())
        made = None if (path.parent / folder).exists() else folder
        publish_folder(path.parent, folder, {**trained.files, "manifest.json": data})
        registry = registry.with_entry(entry)
        if kind not in registry.policies:
            registry = registry.with_policy(kind, plugins.kinds[kind].default_policy)
        save_sound(path, registry, entry, plugins, made)
    return Registered(entry, folder, created, trained)


def _check_target(path: Path, entry_id: str, kind: str) -> Registry:
    """The registry that is to take the entry, an empty one where there is none yet."""
    if not ID.match(entry_id):
        raise InputError(
            f"--id: found {entry_id!r}, expected lower-case letters, digits, - and _, at most 64: choose another"
        )
    if not path.exists():
        return store.empty()
    loaded = usable(path)
    assert loaded.registry is not None
    if loaded.registry.schema_version != store.VERSION:
        raise InputError(
            f"{path}: schema_version {loaded.registry.schema_version} takes no trained entries, expected 2: "
            "train into a registry of version 2"
        )
    _refuse_twice(path, loaded.registry, entry_id)
    old = loaded.registry.entry(entry_id)
    if old is not None and old.is_production:
        raise RejectedError(f"{path}: {entry_id} is production, and what ships does not change: take a new --id")
    if old is not None and old.kind != kind:
        raise InputError(f"{path}: {entry_id} is of kind {old.kind!r}, not {kind!r}: take another --id")
    return loaded.registry


def pinned(trained: Trained) -> Json:
    """The manifest with the digest of every file it names. Raises ValueError where files and pins do not match."""
    files = {check_path(name): data for name, data in trained.files.items()}
    named: set[str] = set()

    def fill(value: Json) -> Json:
        if isinstance(value, Mapping):
            document = {key: fill(item) for key, item in value.items()}
            for key, _, at in pins_of(value):
                if at == "":
                    name = document[key]
                    if name not in files:
                        raise ValueError(f"the manifest names {name}, but no such file was made")
                    named.add(name)
                    document["sha256"] = sha256_of(files[name])
            return document
        return [fill(item) for item in value] if isinstance(value, list | tuple) else value

    if "smoke" in trained.manifest:
        raise ValueError("the manifest says `smoke`, which the registry alone says")
    manifest = fill(trained.manifest)
    if unpinned := sorted(set(files) - named):
        raise ValueError(f"{unpinned[0]} was made, but the manifest does not name it")
    return manifest


def save_sound(
    path: Path, registry: Registry, entry: Entry, plugins: Plugins, made: str | None, prober: Prober | None = None
) -> None:
    """Write the registry, unless `validate` would reject the entry; then what was made for it goes too.

    made: a file or folder relative to the registry's folder, None where it stood there before. Raises PluginError.
    """
    loaded = store.read(path, dump(registry.to_dict()))
    findings = list(loaded.findings)
    if loaded.registry is not None:
        index = [e.id for e in loaded.registry.entries].index(entry.id)
        with Folder(path.parent) as folder:
            view = open_entry(folder, loaded, plugins, entry, index, keep=True)
            findings = check_entry(view, loaded.registry, plugins, Level.FULL, prober)
    errors = [f for f in findings if f.severity is Severity.ERROR]
    if errors:
        if made is not None:
            remove_whole(path.parent, made)
        raise PluginError(f"{entry.id}: it would not validate, so nothing was registered: {errors[0]}")
    store.save(path, registry)


def name_schema(path: Path, folder: Path) -> str:
    """Point the registry's `$schema` at a folder of schemas; returns what it says now, relative to the registry.

    Raises InputError for a registry of version 0 or 1, which is edited by hand.
    """
    where = Path(os.path.relpath(folder, path.parent), "registry.schema.json").as_posix()
    with locked(path.parent):
        loaded = usable(path)
        assert loaded.registry is not None
        if (version := loaded.registry.schema_version) != store.VERSION:
            raise InputError(f"{path}: schema_version {version}, expected 2: write its $schema by hand: {where}")
        store.save(path, replace(loaded.registry, extra={**loaded.registry.extra, "$schema": where}))
    return where


# ---- use --------------------------------------------------------------------------------------------------------


def evaluate(
    path: Path, plugins: Plugins, entry_id: str, request: EvaluateRequest, against: str | None = None
) -> Evaluation:
    """Measure an entry on new data, beside another one where `against` names it."""
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    assert loaded.registry is not None
    with opened(loaded, plugins, entry) as view:
        request = replace(request, against=find_beside(view, loaded.registry, plugins, against))
        answer = plugins.ask_owner("registry_evaluate", entry.kind, Evaluation, view=view, request=request)
    if answer is None:
        raise InputError(f"{entry_id}: the kind {entry.kind!r} cannot be evaluated: `registry plugins` tells which can")
    if against is not None and not compares(answer.document):
        what = f"found no comparison with {against}, expected a kind whose plugin compares entries"
        raise InputError(f"--against: {what}: leave it out")
    return answer


def predict(path: Path, plugins: Plugins, entry_id: str, request: PredictRequest) -> Iterator[Batch]:
    """Predict rows, batch by batch."""
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    with opened(loaded, plugins, entry) as view:
        expects: type[Iterable[Any]] = Iterable  # type: ignore[type-abstract]  # isinstance takes an ABC
        batches = plugins.ask_owner("registry_predict", entry.kind, expects, view=view, request=request)
        if batches is None:
            raise InputError(f"{entry_id}: the kind {entry.kind!r} cannot predict: `registry plugins` tells which can")
        try:
            for batch in batches:
                if not isinstance(batch, Batch):
                    raise TypeError(f"it gave a {type(batch).__name__}, expected Batch")
                yield batch
        except RegistryError:
            raise
        except Exception as error:
            name = plugins.owner(entry.kind).name
            raise PluginError(f"plugin {name}: registry_predict failed: {type(error).__name__}: {error}") from error


# ---- prune ------------------------------------------------------------------------------------------------------


def prune(path: Path, *, dry_run: bool) -> Sequence[str]:
    """Remove artefact folders that no entry names; returns their paths. An entry's verdicts stay."""
    usable(path)
    with locked(path.parent):
        loaded = usable(path)
        assert loaded.registry is not None
        with Folder(path.parent) as folder:
            unused = unused_runs(folder.inventory(), loaded.registry)
        for item in unused if not dry_run else ():
            remove_whole(path.parent, item)
    return unused
