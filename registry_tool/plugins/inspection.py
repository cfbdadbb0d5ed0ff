"""inspection.py: a registry while its entries are checked: its folder, the plugins, the child that reads models."""

from __future__ import annotations

from dataclasses import dataclass, replace

from registry_tool.documents.entries import ONNX_MAX_BYTES, BrokenEntry, Reader, VerifiedEntry, verify_entry
from registry_tool.documents.store import Loaded
from registry_tool.findings import InFile
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Policy, Registry


@dataclass(frozen=True, slots=True)
class Inspection:
    """What every check of a registry's entries needs. prober: None at Level.QUICK, which starts no child."""

    loaded: Loaded
    plugins: Plugins
    folder: Folder
    prober: Prober | None = None

    @property
    def registry(self) -> Registry:
        return self.loaded.registry

    @property
    def level(self) -> Level:
        return Level.QUICK if self.prober is None else Level.FULL

    @property
    def reader(self) -> Reader:
        """Holds the bytes of an entry at Level.FULL alone, where its models are looked at."""
        return Reader(self.folder, self.plugins.kinds, self.prober, keep=self.prober is not None)

    def quick(self) -> Inspection:
        """The same at Level.QUICK."""
        return replace(self, prober=None)

    def policy(self, kind: str) -> Policy:
        """The registry's policy for a kind; without one, a policy that has no rules."""
        return self.registry.policies.get(kind, Policy())

    def verify(self, index: int) -> VerifiedEntry | BrokenEntry:
        """The entry with this number in the registry."""
        entry = self.registry.entries[index]
        return self._verify(entry, InFile(self.loaded.name, entry.id, f"/models/{self.loaded.places[index]}"))

    def verify_older(self, entry: Entry) -> VerifiedEntry | BrokenEntry:
        """An entry of the registry at a base, whose files are still in the folder: their digests are in their paths."""
        return self._verify(entry, InFile(self.loaded.name, entry.id, ""))

    def _verify(self, entry: Entry, row: InFile) -> VerifiedEntry | BrokenEntry:
        max_bytes: int = self.policy(entry.kind).extra.get("max_file_bytes", ONNX_MAX_BYTES)
        return verify_entry(self.reader, entry, row, max_bytes)
