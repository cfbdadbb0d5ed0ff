"""sandbox.py: the bench of the ensembles that the tests train once and copy. Asserts nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry_tool.plugins.manager import load
from registry_tool.testing.bench import Bench, to_json, tree
from registry_tool.values import Json

__all__ = ["Sandbox", "sha256", "to_json", "tree"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Sandbox(Bench):
    """A bench with the installed plugins, about one ensemble, whose forger knows its evidence."""

    def __init__(self, path: Path, id: str = "tiny") -> None:
        super().__init__(path, load(), "fr_ensemble", id)

    def evidence_sha256(self, manifest: Mapping[str, Json]) -> str:
        """As `fr_ensemble` does, by an independent computation."""
        pins: Any = manifest["evidence"]
        files = sorted((pin["path"], pin["sha256"]) for pin in pins)
        return sha256(json.dumps(files, separators=(",", ":")).encode())

    def drop_inputs(self) -> None:
        """Make evidence without inputs of it, as an author who may not publish rows does."""

        def change(manifest: dict[str, Any]) -> None:
            manifest["evidence_inputs"] = {"n_rows": 0}
            manifest["evidence"] = [pin for pin in manifest["evidence"] if "inputs" not in pin["path"]]

        (self.artifacts / "evidence" / "inputs.npz").unlink()
        self.forge(change)

    def forged(
        self, change: Callable[[dict[str, Any]], object] | None = None, files: Mapping[str, bytes] = {}
    ) -> list[tuple[str, str | None]]:
        """(code, pointer) of the errors after `forge`."""
        self.forge(change, files)
        return [(finding.code, finding.pointer) for finding in self.errors()]
