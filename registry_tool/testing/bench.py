"""bench.py: a registry in a folder of its own that tests of a plugin fill, use and break. Asserts nothing."""

from __future__ import annotations

import copy
import json
import posixpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click

from registry_tool.checks.entry import check_entry, open_entry
from registry_tool.documents import store
from registry_tool.documents.entries import OpenEntry, pins_of, sha256_of, stem
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import GROUP, Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Finding, Json, Severity, Verdict
from registry_tool.workflows import gate as gate_workflow
from registry_tool.workflows import opening as opening_workflow
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.opening import find_entry, usable
from registry_tool.workflows.train import Registered
from registry_tool.workflows.validate import validate

NAME = "tested"  # of the plugin under test


def plugin_of(plugin: object) -> object:
    """The plugin itself; a text is what its entry point says: `package.module` or `package.module:object`."""
    return EntryPoint(NAME, plugin, GROUP).load() if isinstance(plugin, str) else plugin


def options_of(plugins: Plugins, kind: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the kind's own options, as the command line gives them for these words."""
    command = click.Command(kind, params=list(plugins.kinds[kind].options))
    return command.make_context(kind, list(arguments)).params


class Bench:
    """A registry at `path`, empty at first, one kind, and the plugin that owns it on a manager of its own."""

    def __init__(self, path: Path, plugin: object, kind: str) -> None:
        self.path, self.plugin, self.kind = path, plugin, kind
        self.plugins = Plugins()
        self.plugins.add(plugin_of(plugin), NAME)

    def copy(self, folder: Path) -> Bench:
        """The same in another folder, to be broken."""
        shutil.copytree(self.path.parent, folder, ignore=shutil.ignore_patterns(".registry.lock"))
        return Bench(folder / self.path.name, self.plugin, self.kind)

    # ---- filled and used ----------------------------------------------------------------------------------------

    def train(
        self, entry_id: str, corpus: Path | None = None, arguments: Sequence[str] = (), *, smoke: bool = False
    ) -> Registered:
        """`registry train KIND --id ENTRY_ID --corpus CORPUS ARGUMENTS...`"""
        options = options_of(self.plugins, self.kind, arguments)
        return train_workflow.train(
            self.path, self.plugins, self.kind, entry_id, corpus=corpus, smoke=smoke, options=options,
            progress=lambda what, done, total: None,
        )  # fmt: skip

    def findings(self, level: Level = Level.FULL) -> Sequence[Finding]:
        """What `registry validate` finds."""
        return validate(self.path, self.plugins, level).findings

    def errors(self, level: Level = Level.FULL) -> list[Finding]:
        return [finding for finding in self.findings(level) if finding.severity is Severity.ERROR]

    def gate(self, entry_id: str) -> Verdict:
        return gate_workflow.gate(self.path, self.plugins, entry_id).verdict

    def flip(self, entry_id: str) -> bool:
        """Whether the entry is production now."""
        return promote_workflow.flip(self.path, self.plugins, entry_id).done

    # ---- looked at ----------------------------------------------------------------------------------------------

    @property
    def registry(self) -> dict[str, Any]:
        """registry.json."""
        document: dict[str, Any] = json.loads(self.path.read_bytes())
        return document

    @property
    def entry(self) -> Entry:
        """The first entry of the kind."""
        return next(Entry.from_dict(row) for row in self.registry["models"] if row["kind"] == self.kind)

    def manifest(self, entry_id: str) -> dict[str, Any]:
        """An entry's manifest, or the sidecar of a single model; {} where it has none."""
        with self.view(entry_id) as view:
            return copy.deepcopy(dict(view.manifest or {}))

    @contextmanager
    def view(self, entry_id: str) -> Iterator[OpenEntry]:
        """What a hook is given. Raises RejectedError where a document or a digest does not hold."""
        loaded = usable(self.path)
        with opening_workflow.opened(loaded, self.plugins, find_entry(loaded, entry_id)) as view:
            yield view

    def pinned(self, entry_id: str) -> list[str]:
        """The files that the entry's documents pin, those documents left out."""
        with self.view(entry_id) as view:
            own = {posixpath.basename(view.entry.manifest or ""), view.sidecar}
            return [name for name in view.paths if name not in own]

    def check(self, prober: Prober, level: Level = Level.FULL, plugins: Plugins | None = None) -> list[Finding]:
        """The findings on the document and the entries, with a prober that serves many registries."""
        loaded, plugins = store.load(self.path), plugins or self.plugins
        found = list(loaded.findings)
        with Folder(loaded.folder) as folder:
            for index, entry in enumerate(loaded.registry.entries if loaded.registry else ()):
                opened = open_entry(folder, loaded, plugins, entry, index, keep=level is Level.FULL)
                found += check_entry(opened, loaded.registry, plugins, level, prober)  # type: ignore[arg-type]  # it has entries
        return found

    # ---- broken -------------------------------------------------------------------------------------------------

    def edit(self, entry_id: str, **fields: Json) -> None:
        """Set fields of an entry, as by hand."""
        document = self.registry
        next(row for row in document["models"] if row["id"] == entry_id).update(fields)
        self.path.write_bytes(_json(document))

    def forge(
        self, entry_id: str, document: Mapping[str, Json] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Put another manifest (or sidecar) and other files in place, and make every pin up to the registry fit."""
        entry, files = self._entry(entry_id), files or {}
        document = copy.deepcopy(dict(document if document is not None else self.manifest(entry_id)))
        base = (self.path.parent / (entry.manifest or "")).parent if entry.manifest else self.path.parent
        for name, data in files.items():
            (base / name).write_bytes(data)
        if entry.manifest:
            for key, pin, _ in pins_of(document):
                if pin[key] in files:
                    pin["sha256"] = sha256_of(files[pin[key]])  # type: ignore[index]  # a copy, and a dict
            data = _json(document)
            folder = f"{entry_id}/{sha256_of(data)[:12]}"
            base.rename(self.path.parent / folder)
            (self.path.parent / folder / "manifest.json").write_bytes(data)
            self.edit(entry_id, manifest=f"{folder}/manifest.json", sha256=sha256_of(data))
            return
        onnx, fields = entry.onnx or "", dict(entry.document)
        if document or "sidecar_sha256" in fields:
            (base / f"{stem(onnx)}.json").write_bytes(_json(document))
            fields["sidecar_sha256"] = sha256_of(_json(document))
        for name, field in ((onnx, "sha256"), (f"{stem(onnx)}.int8.onnx", "int8_sha256")):
            if name in files:
                fields[field] = sha256_of(files[name])
        pins = ({**pin, **_pin(files.get(pin["path"]))} for pin in fields.get("external_data", ()))
        self.edit(entry_id, **fields | ({"external_data": list(pins)} if "external_data" in fields else {}))

    def _entry(self, entry_id: str) -> Entry:
        return next(Entry.from_dict(row) for row in self.registry["models"] if row["id"] == entry_id)


def _pin(data: bytes | None) -> dict[str, Json]:
    return {} if data is None else {"sha256": sha256_of(data), "bytes": len(data)}


def _json(document: Json) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
