"""sandbox.py: a registry in a folder of its own that a test may break, forge and look at. Asserts nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry_tool.hookspec import Level
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Finding, Severity
from registry_tool.workflows.validate import validate

Change = Callable[[dict[str, Any]], object]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def pins(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a manifest that names a file."""
    if isinstance(value, dict):
        if isinstance(value.get("onnx", value.get("path")), str):
            yield value
        for item in value.values():
            yield from pins(item)
    elif isinstance(value, list):
        for item in value:
            yield from pins(item)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A copy of a registry with one ensemble. path: its registry.json; id: the ensemble's."""

    path: Path
    id: str = "tiny"

    @classmethod
    def copy(cls, source: Path, target: Path, entry_id: str = "tiny") -> Sandbox:
        shutil.copytree(source, target)
        return cls(target / "registry.json", entry_id)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def registry(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path.read_bytes())
        return document

    @property
    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = next(model for model in self.registry["models"] if model["id"] == self.id)
        return entry

    @property
    def run(self) -> Path:
        """The folder of the entry's artefacts."""
        return (self.folder / str(self.entry["manifest"])).parent

    @property
    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / self.entry["manifest"]).read_bytes())
        return document

    @property
    def verdict(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / self.entry["promotion"]["verdict"]).read_bytes())
        return document

    def edit(self, change: Change) -> None:
        """Change the registry's document, as by hand."""
        document = self.registry
        change(document)
        self.path.write_bytes(to_json(document))

    def edit_entry(self, **fields: Any) -> None:
        """Set fields of the entry; None removes one."""

        def change(document: dict[str, Any]) -> None:
            entry = next(model for model in document["models"] if model["id"] == self.id)
            entry |= fields
            for name in [name for name, value in entry.items() if value is None]:
                del entry[name]

        self.edit(change)

    def forge(self, change: Change = lambda manifest: None, files: Mapping[str, bytes] = {}) -> None:
        """Change artefacts and manifest and make every pin up to the registry fit again, as a careful forger does."""
        old, manifest = self.run, self.manifest
        for name, data in files.items():
            (old / name).parent.mkdir(exist_ok=True)
            (old / name).write_bytes(data)
        for pin in pins(manifest):
            pin["sha256"] = sha256((old / str(pin.get("onnx", pin.get("path")))).read_bytes())
        change(manifest)
        data = to_json(manifest)
        folder = f"{self.id}/{sha256(data)[:12]}"
        old.rename(self.folder / folder)
        (self.folder / folder / "manifest.json").write_bytes(data)
        self.edit_entry(manifest=f"{folder}/manifest.json", sha256=sha256(data))
        if "promotion" in self.entry:
            files_of = sorted((pin["path"], pin["sha256"]) for pin in manifest["evidence"])
            digest = sha256(json.dumps(files_of, separators=(",", ":")).encode())
            self.forge_verdict(manifest_sha256=sha256(data), evidence_sha256=digest)

    def forge_verdict(self, **fields: Any) -> None:
        """Change the verdict and pin it again."""
        data = to_json({**self.verdict, **fields})
        where = f"{self.id}/verdicts/PROMOTE-{sha256(data)[:12]}.json"
        (self.folder / where).write_bytes(data)
        self.edit_entry(promotion={"verdict": where, "sha256": sha256(data)})

    def forged(
        self, change: Change = lambda manifest: None, files: Mapping[str, bytes] = {}
    ) -> list[tuple[str, str | None]]:
        """(code, pointer) of the errors after `forge`."""
        self.forge(change, files)
        return [(f.code, f.pointer) for f in self.findings() if f.severity is Severity.ERROR]

    def findings(self, level: Level = Level.FULL, plugins: Plugins | None = None) -> tuple[Finding, ...]:
        return validate(self.path, plugins or load(), level).findings

    def codes(self, level: Level = Level.FULL, plugins: Plugins | None = None) -> list[str]:
        """The codes of the error findings, sorted, each once."""
        return sorted({f.code for f in self.findings(level, plugins) if f.severity is Severity.ERROR})

    def tree(self) -> dict[str, bytes]:
        """Every file's bytes by path, without the lock: two trees are equal where nothing was written."""
        return tree(self.folder)


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".registry.lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
