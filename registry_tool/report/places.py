"""places.py: where a finding is, as a repository's tools name it: from the repository's root. Opens nothing."""

from __future__ import annotations

import os
from pathlib import Path

from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.findings import path_of


def from_root(registry: Path, file: str | None) -> str:
    """A finding's file (None, or the folder itself: the registry) as a POSIX path from the repository's root.

    The root is the nearest parent with a `.git`; without one the working folder, if the registry is below it.
    """
    path = Path(os.path.abspath(registry))
    current = Path(os.path.abspath("."))
    root = next((folder for folder in path.parents if os.path.lexists(folder / ".git")), None)
    if root is None:
        root = current if current in path.parents else path.parent
    return Path(path_of(file, path.as_posix())).relative_to(root).as_posix()


def of_entry(loaded: Loaded | Unreadable, entry_id: str | None) -> tuple[int, int] | None:
    """(line, column) of an entry in the registry's document; None where it has none."""
    if isinstance(loaded, Unreadable):
        return None
    found = (place for place, entry in zip(loaded.places, loaded.registry.entries, strict=True) if entry.id == entry_id)
    place = next(found, None)
    return None if place is None else loaded.document.position(f"/models/{place}")
