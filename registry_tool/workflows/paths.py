"""paths.py: the story of `registry paths`: which files of an entry another program may read. No click, no printing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry_tool.documents.store import Loaded
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.files import Folder
from registry_tool.values import Entry, Json
from registry_tool.workflows.loading import entry_for_use


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A file whose digest was compared. name: what the entry's documents call it. path: absolute."""

    name: str
    path: Path
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class VerifiedFiles:
    """What an entry consists of, its manifest or its model first."""

    entry: Entry
    files: tuple[VerifiedFile, ...]

    def to_dict(self) -> dict[str, Json]:
        files: list[Json] = [
            {"name": file.name, "path": str(file.path), "sha256": file.sha256, "bytes": file.size}
            for file in self.files
        ]
        return {"entry": self.entry.id, "kind": self.entry.kind, "smoke": self.entry.smoke, "files": files}


def paths(loaded: Loaded, plugins: Plugins, entry_id: str, *, allow_smoke: bool) -> VerifiedFiles:
    """The pinned files of an entry that a runtime may use, as they are now.

    Raises InputError for an id that is not there, RejectedError for an entry that may not be used.
    """
    root = loaded.path.parent.resolve()
    with Folder(loaded.folder) as folder:
        view = entry_for_use(
            Inspection(loaded, plugins, folder), entry_id, "say --allow-smoke", allow_smoke=allow_smoke
        )
        files = (
            VerifiedFile(name, root / artifact.path, artifact.sha256, len(view.read(name)))
            for name, artifact in view.artifacts.items()
        )
        return VerifiedFiles(view.entry, tuple(files))
