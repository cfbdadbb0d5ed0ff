"""bench.py: a registry in a folder of its own that tests fill, use, break and look at. Asserts nothing."""

from __future__ import annotations

import copy
import json
import posixpath
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Self

import click

from registry_tool.documents.entries import VerifiedEntry, pins_of, sha256_of, stem
from registry_tool.findings import Finding, errors_of
from registry_tool.hookspec import Level, TrainRequest
from registry_tool.plugins.manager import ENTRY_POINT_GROUP, Plugins
from registry_tool.values import Json, Verdict
from registry_tool.workflows import gate as gate_workflow
from registry_tool.workflows import loading as loading_workflow
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.loading import usable
from registry_tool.workflows.train import Registered
from registry_tool.workflows.validate import validate

PLUGIN_NAME = "tested"  # of the plugin under test
Edit = Callable[[dict[str, Json]], object]  # edits a document in place


def plugin_of(plugin: object) -> object:
    """The plugin itself; a text is what its entry point says: `package.module` or `package.module:object`."""
    return EntryPoint(PLUGIN_NAME, plugin, ENTRY_POINT_GROUP).load() if isinstance(plugin, str) else plugin


def options_of(plugins: Plugins, kind: str, arguments: Sequence[str]) -> dict[str, Json]:
    """The values of the kind's own options, as the command line gives them for these words."""
    command = click.Command(kind, params=list(plugins.kinds[kind].options))
    return command.make_context(kind, list(arguments)).params


class Bench:
    """A registry at `path`, empty at first, with the plugins that serve it, and the entry that a test is about.

    plugin: a plugin, or the text of its entry point, alone on a manager of its own; or a manager with several.
    id: the entry; the first one of the kind where none is named.
    """

    def __init__(self, path: Path, plugin: object, kind: str = "", id: str = "") -> None:
        self.path, self.plugin, self.kind, self._id = path, plugin, kind, id
        self.plugins = plugin if isinstance(plugin, Plugins) else Plugins()
        if self.plugins is not plugin:
            self.plugins.add(plugin_of(plugin), PLUGIN_NAME)

    def copy(self, folder: Path) -> Self:
        """The same in another folder, to be broken."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".registry.lock"))
        bench = copy.copy(self)
        bench.path = folder / self.path.name
        return bench

    # ---- filled and used ----------------------------------------------------------------------------------------

    def train(
        self, entry_id: str, corpus: Path | None = None, arguments: Sequence[str] = (), *, smoke: bool = False
    ) -> Registered:
        """`registry train KIND --id ENTRY_ID --corpus CORPUS ARGUMENTS...`"""
        options = options_of(self.plugins, self.kind, arguments)
        request = TrainRequest(self.kind, entry_id, corpus, smoke, options)
        return train_workflow.train(self.path, self.plugins, request)

    def findings(self, level: Level = Level.FULL, plugins: Plugins | None = None) -> tuple[Finding, ...]:
        """What `registry validate` finds, with the bench's plugins or others."""
        return validate(self.path, plugins or self.plugins, level).findings

    def errors(self, level: Level = Level.FULL, plugins: Plugins | None = None) -> list[Finding]:
        return errors_of(self.findings(level, plugins))

    def codes(self, level: Level = Level.FULL, plugins: Plugins | None = None) -> list[str]:
        """The codes of the errors, sorted, each once."""
        return sorted({finding.code for finding in self.errors(level, plugins)})

    def gate(self) -> Verdict:
        return gate_workflow.gate(self.path, self.plugins, self.id).verdict

    def flip(self) -> bool:
        """Whether the entry is production now."""
        return promote_workflow.flip(self.path, self.plugins, self.id).done

    # ---- looked at ----------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def registry(self) -> dict[str, Json]:
        """registry.json."""
        return _read(self.path)

    @property
    def id(self) -> str:
        return self._id or next(row["id"] for row in self.registry["models"] if row["kind"] == self.kind)

    @property
    def entry(self) -> dict[str, Json]:
        """The entry's object in registry.json."""
        entry_id = self.id
        return _row(self.registry, entry_id)

    @property
    def artifacts(self) -> Path:
        """The folder of the entry's files: its manifest's, or its ONNX file's."""
        entry = self.entry
        return (self.folder / str(entry.get("manifest") or entry["onnx"])).parent

    @property
    def manifest(self) -> dict[str, Json]:
        """The entry's manifest, or the sidecar of a single model; {} where it has none."""
        path = self._document(self.entry)
        return _read(path) if path.is_file() else {}

    @property
    def verdict(self) -> dict[str, Json]:
        """The verdict that the entry's promotion pins."""
        return _read(self.folder / self.entry["promotion"]["verdict"])

    def tree(self) -> dict[str, bytes]:
        """Every file's bytes by path, without the lock: two trees are equal where nothing was written."""
        return tree(self.folder)

    @contextmanager
    def view(self) -> Iterator[VerifiedEntry]:
        """What a hook is given. Raises RejectedError where a document or a digest does not hold."""
        loaded = usable(self.path)
        with loading_workflow.verified_entry(loaded, self.plugins, self.id) as view:
            yield view

    def pinned(self) -> list[str]:
        """The files that the entry's documents pin, those documents left out."""
        with self.view() as view:
            documents = {posixpath.basename(view.entry.manifest or ""), view.sidecar}
            return [name for name in view.paths if name not in documents]

    # ---- broken -------------------------------------------------------------------------------------------------

    def edit(self, change: Edit) -> None:
        """Change registry.json, as by hand."""
        document = self.registry
        change(document)
        self.path.write_bytes(to_json(document))

    def edit_entry(self, **fields: Json) -> None:
        """Set fields of the entry, as by hand; None removes one."""
        entry_id = self.id

        def change(document: dict[str, Json]) -> None:
            row = _row(document, entry_id)
            row.update(fields)
            for name in [name for name, value in row.items() if value is None]:
                del row[name]

        self.edit(change)

    def forge(self, document: Edit | Mapping[str, Json] | None = None, files: Mapping[str, bytes] = {}) -> None:
        """Put other artifacts and another manifest (or sidecar) in place, and make every pin up to the registry fit.

        document: the other manifest, or a function that changes the one there is. files: bytes by path in `artifacts`.
        """
        entry, folder = self.entry, self.artifacts
        for name, data in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        manifest = copy.deepcopy(dict(document)) if isinstance(document, Mapping) else self.manifest
        if "manifest" not in entry:
            self._forge_single(entry, manifest, document, files)
            return
        for key, pin, _ in pins_of(manifest):
            if pin[key] in files:
                pin["sha256"] = sha256_of(files[pin[key]])  # type: ignore[index]  # a copy, and a dict
        if callable(document):
            document(manifest)
        data = to_json(manifest)
        place = f"{self.id}/{sha256_of(data)[:12]}"
        folder.rename(self.folder / place)
        (self.folder / place / "manifest.json").write_bytes(data)
        self.edit_entry(manifest=f"{place}/manifest.json", sha256=sha256_of(data))
        if "verdict" in entry.get("promotion", {}):
            self.forge_verdict(manifest_sha256=sha256_of(data), evidence_sha256=self.evidence_sha256(manifest))

    def evidence_sha256(self, manifest: Mapping[str, Json]) -> str | None:
        """What the plugin's Evidence calls the evidence of this manifest; a kind that forges verdicts says how."""
        evidence_sha256: str | None = self.verdict["evidence_sha256"]
        return evidence_sha256

    def forge_verdict(self, **fields: Json) -> None:
        """Change the verdict of the promotion, and pin it again."""
        data = to_json({**self.verdict, **fields})
        place = f"{self.id}/verdicts/PROMOTE-{sha256_of(data)[:12]}.json"
        (self.folder / place).write_bytes(data)
        self.edit_entry(promotion={"verdict": place, "sha256": sha256_of(data)})

    def _forge_single(
        self, entry: dict[str, Json], sidecar: dict[str, Json], document: object, files: Mapping[str, bytes]
    ) -> None:
        if callable(document):
            document(sidecar)
        if sidecar or "sidecar_sha256" in entry:
            self._document(entry).write_bytes(to_json(sidecar))
            entry["sidecar_sha256"] = sha256_of(to_json(sidecar))
        for name, field in ((entry["onnx"], "sha256"), (f"{stem(entry['onnx'])}.int8.onnx", "int8_sha256")):
            if name in files:
                entry[field] = sha256_of(files[name])
        for pin in entry.get("external_data", ()):
            if (data := files.get(pin["path"])) is not None:
                pin |= {"sha256": sha256_of(data), "bytes": len(data)}
        self.edit_entry(**entry)

    def _document(self, entry: Mapping[str, Json]) -> Path:
        """The entry's manifest, or where the sidecar of a single model is."""
        return self.folder / (entry.get("manifest") or f"{stem(entry['onnx'])}.json")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by path; the lock is the core's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".registry.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def to_json(document: Json) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _read(path: Path) -> dict[str, Json]:
    document: dict[str, Json] = json.loads(path.read_bytes())
    return document


def _row(document: Mapping[str, Json], entry_id: str) -> dict[str, Json]:
    row: dict[str, Json] = next(row for row in document["models"] if row["id"] == entry_id)
    return row
