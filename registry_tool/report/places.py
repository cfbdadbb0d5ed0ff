"""places.py: where a finding stands, as a repository's tools name it: from the repository's root. Opens nothing."""

from __future__ import annotations

import os
from pathlib import Path

from registry_tool.documents.store import Loaded


def from_root(registry: Path, file: str | None) -> str:
    """A finding's file (None, or the folder itself: the registry) as a POSIX path from the repository's root.

    The root is the nearest parent with a `.git`; without one the working folder, if the registry is below it.
    """
    path = Path(os.path.abspath(registry))
    here = Path(os.path.abspath("."))
    root = next((folder for folder in path.parents if os.path.lexists(folder / ".git")), None)
    if root is None:
        root = here if here in path.parents else path.parent
    target = path if file in (None, ".") else path.parent / str(file)
    return Path(os.path.normpath(target)).relative_to(root).as_posix()


def of_entry(loaded: Loaded, entry_id: str | None) -> tuple[int, int] | None:
    """(line, column) of an entry in the registry's document; None where it has none."""
    if loaded.registry is None or loaded.document is None:
        return None
    indexes = (i for i, entry in enumerate(loaded.registry.entries) if entry.id == entry_id)
    index = next(indexes, None)
    return None if index is None else loaded.document.position(f"/models/{index}")
