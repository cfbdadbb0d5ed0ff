"""train.py: the story of `registry train`: train, pin, publish, register. No click, no printing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry_tool.documents import store
from registry_tool.documents.entries import sha256_of
from registry_tool.documents.pinning import with_digests
from registry_tool.errors import InputError, PluginError
from registry_tool.hookspec import Trained, TrainRequest
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import dump
from registry_tool.values import Entry, Registry
from registry_tool.workflows.initialise import locked_new
from registry_tool.workflows.loading import publish, registry_for_new_entry


@dataclass(frozen=True, slots=True)
class Registered:
    """What `train` wrote. replaced: see `Published`."""

    entry: Entry
    folder: str
    created_registry: bool
    trained: Trained
    replaced: Entry | None


def train(path: Path, plugins: Plugins, request: TrainRequest) -> Registered:
    """Train an entry and register it as smoke; the registry is the old one until the last step.

    Raises InputError before training for an id or registry that cannot take the entry, RejectedError for a
    production id.
    """
    plugins.need_all()
    new = NewEntry(request.kind, request.entry_id, request.smoke)
    plugins.need(registry_for_new_entry(path, new.kind, new.entry_id).registry.requires)
    trained = plugins.train(request)
    if trained is None:
        raise InputError(
            f"kind {request.kind!r}: it cannot be trained here, expected a kind whose plugin trains: `registry plugins`"
        )
    return register(path, plugins, new, trained)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry that is to be registered. random: of random rows."""

    kind: str
    entry_id: str
    random: bool = False


def register(path: Path, plugins: Plugins, new: NewEntry, trained: Trained) -> Registered:
    """Publish what a plugin made and name it in the registry as smoke. Raises what `train` raises."""
    entry, files = _artifacts(
        path, plugins, new, trained, registry_for_new_entry(path, new.kind, new.entry_id).registry
    )
    with locked_new(path):
        created = not path.exists()
        loaded = registry_for_new_entry(path, new.kind, new.entry_id)
        plugins.need(loaded.registry.requires)
        done = publish(loaded, plugins, entry, files)
    return Registered(done.entry, done.folder, created, trained, done.replaced)


def _artifacts(
    path: Path, plugins: Plugins, new: NewEntry, trained: Trained, registry: Registry
) -> tuple[Entry, dict[str, bytes]]:
    """The entry of what was trained, and the files of its artifact folder. Raises PluginError for what is none."""
    owner = plugins.owner(new.kind).name
    try:
        data = dump({**with_digests(trained), **store.schema_beside(path, registry, new.kind)})
    except (FileProblem, TypeError, ValueError) as error:
        raise PluginError(f"plugin {owner}: what it trained cannot be registered: {error}: report it") from error
    if new.random and trained.manifest.get("random_rows") is not True:
        raise PluginError(f"plugin {owner}: found no `random_rows: true` in the manifest of random rows: report it")
    digest = sha256_of(data)
    document = {
        **trained.entry,
        "id": new.entry_id,
        "kind": new.kind,
        "manifest": f"{new.entry_id}/{digest[:12]}/manifest.json",
        "sha256": digest,
        "smoke": True,
    }
    return Entry.from_dict(document), {**trained.files, "manifest.json": data}
