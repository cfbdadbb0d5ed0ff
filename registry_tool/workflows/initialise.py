"""initialise.py: an empty registry, and what git is told of its folder. No click, no printing."""

from __future__ import annotations

import os
from pathlib import Path

from registry_tool.documents import store
from registry_tool.errors import InputError
from registry_tool.storage.files import LOCK_NAME, STAGING_PREFIX, write_atomic
from registry_tool.storage.lock import locked

GITIGNORE_LINES = f"{LOCK_NAME}\n{STAGING_PREFIX}*\n"  # `git add` leaves the lock and staging out
GITATTRIBUTES_LINES = "# Digests pin these bytes: git is to convert no line ending.\n* -text\n"


def init(path: Path) -> None:
    """Make an empty registry. Raises InputError where one is already there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        if os.path.lexists(path):
            raise InputError(f"{path}: found a registry, expected none: it is left as it is")
        prepare(path.parent)
        store.save(path, store.empty())


def prepare(folder: Path) -> None:
    """Tell git what to ignore in a new registry's folder and to convert nothing; files that are there stay."""
    for name, text in ((".gitignore", GITIGNORE_LINES), (".gitattributes", GITATTRIBUTES_LINES)):
        if not os.path.lexists(folder / name):
            write_atomic(folder / name, text.encode())
