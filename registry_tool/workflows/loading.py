"""loading.py: a registry and one of its entries for a workflow, saved only when it validates. No click."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.entry import check_entry
from registry_tool.checks.promotion import is_random, promoting
from registry_tool.documents import store
from registry_tool.documents.entries import BrokenEntry, VerifiedEntry
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.errors import InputError, PluginError, RegistryError, RejectedError
from registry_tool.findings import Finding, errors_of
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.storage.lock import locked
from registry_tool.storage.staging import remove_whole
from registry_tool.storage.writing import publish_folder
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, ENTRY_ID, Entry, Registry, first_names


def usable(path: Path) -> Loaded:
    """The registry, or InputError with the first thing that is wrong with its document."""
    loaded = store.load(path)
    if isinstance(loaded, Unreadable) or loaded.findings:
        raise InputError(f"{loaded.findings[0]}: run `registry validate {path}`", loaded.findings)
    return loaded


@contextmanager
def changing(path: Path) -> Iterator[Loaded]:
    """The registry, under its lock, for who writes to it. One that is not usable is refused before it is locked."""
    usable(path)
    with locked(path.parent):
        yield usable(path)


def find_entry(loaded: Loaded, entry_id: str) -> Entry:
    """The entry of this id. Raises InputError where there is none, or more than one."""
    refuse_duplicate(loaded.path, loaded.registry, entry_id)
    entry = loaded.registry.entry(entry_id)
    if entry is None:
        known = first_names([e.id for e in loaded.registry.entries], 20)
        raise InputError(f"{loaded.path}: no entry {entry_id!r}, expected one of: {known or '(none)'}: `registry list`")
    return entry


def refuse_duplicate(path: Path, registry: Registry, entry_id: str) -> None:
    if sum(entry.id == entry_id for entry in registry.entries) > 1:
        raise InputError(
            f"{path}: duplicate id {entry_id!r}, expected one entry of each id: run `registry validate {path}`"
        )


def refuse_without_verdict(entry: Entry) -> None:
    """Raises RejectedError for an entry that no verdict made production."""
    if entry.smoke:
        raise RejectedError(f"{entry.id}: it is smoke, expected a production entry: run `registry flip {entry.id}`")
    if "verdict" not in (entry.promotion or EMPTY):
        raise RejectedError(f"{entry.id}: no verdict made it production, expected one: there is nothing to keep it by")


def registry_for_new_entry(path: Path, kind: str, entry_id: str) -> Loaded:
    """The registry that is to take a smoke entry, an empty one where there is none yet.

    Raises InputError for an id or a registry that cannot take it, RejectedError for a production id.
    """
    if not ENTRY_ID.match(entry_id):
        raise InputError(
            f"--id: found {entry_id!r}, expected lower-case letters, digits, - and _, at most 64: choose another"
        )
    if not path.exists():
        return store.new(path)
    loaded = usable(path)
    if loaded.registry.schema_version != store.REGISTRY_VERSION:
        raise InputError(
            f"{path}: schema_version {loaded.registry.schema_version} takes no new entries, expected 2: "
            "name one of version 2 with --registry PATH; it is made where there is none"
        )
    refuse_duplicate(path, loaded.registry, entry_id)
    old = loaded.registry.entry(entry_id)
    if old is not None and old.is_production:
        raise RejectedError(f"{path}: {entry_id} is production, and what ships does not change: take a new --id")
    if old is not None and old.kind != kind:
        raise InputError(f"{path}: {entry_id} is of kind {old.kind!r}, not {kind!r}: take another --id")
    return loaded


@contextmanager
def inspected(loaded: Loaded, plugins: Plugins) -> Iterator[Inspection]:
    """The registry with its folder open, at Level.FULL. Raises PluginError where a required plugin is missing."""
    plugins.need(loaded.registry.requires)
    with Folder(loaded.folder) as folder, Prober() as prober:
        yield Inspection(loaded, plugins, folder, prober)


def verified(inspection: Inspection, entry_id: str) -> VerifiedEntry:
    """The entry of this id. Raises InputError as `find_entry`, RejectedError where a document or a digest is wrong."""
    entry, path = find_entry(inspection.loaded, entry_id), inspection.loaded.path
    found = inspection.verify(inspection.registry.entries.index(entry))
    if isinstance(found, BrokenEntry):
        raise RejectedError(f"{entry_id}: {found.findings[0]}: run `registry validate {path}`", found.findings)
    return found


def entry_for_use(inspection: Inspection, entry_id: str, hint: str, *, allow_smoke: bool) -> VerifiedEntry:
    """The entry of this id, where a runtime may use it: production, and without an error at the inspection's level.

    hint: how a smoke entry is used all the same. Raises InputError as
    `find_entry`, RejectedError, with findings, for an entry that may not be used.
    """
    view = verified(inspection, entry_id)
    if view.entry.smoke and not allow_smoke:
        way = "no model of random rows is promoted" if is_random(view) else promoting(view.entry, inspection)
        raise RejectedError(f"{entry_id}: it is a smoke entry, expected production: {way}; to try it, {hint}")
    if wrong := errors_of(check_entry(view, inspection)):
        raise RejectedError(f"{entry_id}: {wrong[0]}: run `registry validate {inspection.loaded.path}`", wrong)
    return view


def refuse_unsound(view: VerifiedEntry, inspection: Inspection, consequence: str) -> None:
    """Raises RejectedError for an entry that `validate` would reject. consequence: what is not done with it."""
    if errors := errors_of(check_entry(view, inspection)):
        raise RejectedError(f"{view.entry.id}: it does not validate, so {consequence}: {errors[0]}")


@contextmanager
def verified_entry(loaded: Loaded, plugins: Plugins, entry_id: str) -> Iterator[VerifiedEntry]:
    """One verified entry, for those who need nothing else of its registry."""
    find_entry(loaded, entry_id)
    with Folder(loaded.folder) as folder, Prober() as prober:
        yield verified(Inspection(loaded, plugins, folder, prober), entry_id)


@dataclass(frozen=True, slots=True)
class Published:
    """An entry that was registered. replaced: the smoke entry of its id that was there, where it was another one."""

    entry: Entry
    warnings: tuple[Finding, ...]
    replaced: Entry | None

    @property
    def folder(self) -> str:
        """Of its files, below the registry's folder."""
        return posixpath.dirname(self.entry.path)


def publish(
    loaded: Loaded, plugins: Plugins, entry: Entry, files: Mapping[str, bytes], fault: type[RegistryError] = PluginError
) -> Published:
    """Write the files of an entry's folder and register it as smoke; the kind's first entry brings its default policy.

    It takes the place of a smoke entry of its id, whose files stay. Raises what `save_sound` raises.
    """
    path, folder, old = loaded.path, posixpath.dirname(entry.path), loaded.registry.entry(entry.id)
    if old is not None:  # why it left production outlives the next model
        entry = entry.with_fields(demotion=old.document.get("demotion"))
    made = None if (path.parent / folder).exists() else folder
    publish_folder(path.parent, folder, files)
    registry = loaded.registry.with_entry(entry)
    if entry.kind not in registry.policies:
        registry = registry.with_policy(entry.kind, plugins.kinds[entry.kind].default_policy)
    with inspected(loaded, plugins) as inspection:
        found = save_sound(inspection, registry, entry, made, fault)
    return Published(entry, tuple(found), old if old is not None and old.document != entry.document else None)


def save_sound(
    inspection: Inspection,
    registry: Registry,
    entry: Entry,
    made: str | None,
    fault: type[RegistryError] = PluginError,
) -> list[Finding]:
    """Write the registry, unless `validate` would reject the entry; then what was made for it goes too.

    inspection: of the registry that is replaced. made: a file or folder relative to the registry's folder, None where
    it was there before. Gives the warnings. Raises `fault`, with the findings.
    """
    path = inspection.loaded.path
    loaded = store.read(path, dump(registry.to_dict()))
    findings = list(loaded.findings)
    if isinstance(loaded, Loaded) and not findings:
        index = [e.id for e in loaded.registry.entries].index(entry.id)
        after = replace(inspection, loaded=loaded)
        findings = check_entry(after.verify(index), after)
    if errors := errors_of(findings):
        if made is not None:
            remove_whole(path.parent, made)
        raise fault(f"{entry.id}: it would not validate, so nothing was changed: {errors[0]}", errors)
    store.save(path, registry)
    return findings
