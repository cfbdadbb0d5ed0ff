"""opening.py: opens a registry and one of its entries for a workflow, and saves it only when it validates. No click."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_tool.checks.entry import check_entry, open_entry
from registry_tool.documents import store
from registry_tool.documents.entries import OpenEntry
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.errors import InputError, PluginError, RejectedError
from registry_tool.findings import Severity
from registry_tool.hookspec import (
    Level,
)
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import (
    Folder,
)
from registry_tool.storage.staging import remove_whole
from registry_tool.strictjson import dump
from registry_tool.values import Entry, Registry


def usable(path: Path) -> Loaded:
    """The registry, or InputError with the first thing that is wrong with its document."""
    loaded = store.load(path)
    if isinstance(loaded, Unreadable) or loaded.findings:
        raise InputError(f"{loaded.findings[0]}: run `registry validate {path}`")
    return loaded


def find_entry(loaded: Loaded, entry_id: str) -> Entry:
    """The entry of this id. Raises InputError where there is none, or more than one."""
    refuse_duplicate(loaded.path, loaded.registry, entry_id)
    entry = loaded.registry.entry(entry_id)
    if entry is None:
        known = ", ".join(e.id for e in loaded.registry.entries)
        raise InputError(f"{loaded.path}: no entry {entry_id!r}, expected one of: {known or '(none)'}: `registry list`")
    return entry


def refuse_duplicate(path: Path, registry: Registry, entry_id: str) -> None:
    if sum(entry.id == entry_id for entry in registry.entries) > 1:
        raise InputError(
            f"{path}: duplicate id {entry_id!r}, expected one entry of each id: run `registry validate {path}`"
        )


@contextmanager
def opened(loaded: Loaded, plugins: Plugins, entry: Entry) -> Iterator[OpenEntry]:
    """The entry with verified bytes. Raises RejectedError where a document or a digest does not hold."""
    index = next(i for i, e in enumerate(loaded.registry.entries) if e.id == entry.id)
    with Folder(loaded.folder) as folder, Prober() as prober:
        view = open_entry(folder, loaded, plugins, entry, index, keep=True, prober=prober)
        if not view.sound:
            raise RejectedError(f"{entry.id}: {view.findings[0]}: run `registry validate {loaded.path}`")
        yield view


def save_sound(
    path: Path, registry: Registry, entry: Entry, plugins: Plugins, made: str | None, prober: Prober | None = None
) -> None:
    """Write the registry, unless `validate` would reject the entry; then what was made for it goes too.

    made: a file or folder relative to the registry's folder, None where it stood there before. prober: one that lives
    on. Raises PluginError.
    """
    if prober is None:
        with Prober() as own:
            save_sound(path, registry, entry, plugins, made, own)
        return
    loaded = store.read(path, dump(registry.to_dict()))
    findings = list(loaded.findings)
    if isinstance(loaded, Loaded) and not findings:
        index = [e.id for e in loaded.registry.entries].index(entry.id)
        with Folder(path.parent) as folder:
            view = open_entry(folder, loaded, plugins, entry, index, keep=True, prober=prober)
            findings = check_entry(view, loaded.registry, plugins, Level.FULL)
    errors = [f for f in findings if f.severity is Severity.ERROR]
    if errors:
        if made is not None:
            remove_whole(path.parent, made)
        raise PluginError(f"{entry.id}: it would not validate, so nothing was registered: {errors[0]}")
    store.save(path, registry)
