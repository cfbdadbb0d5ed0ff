"""initialise.py: an empty registry, and what git is told of its folder. No click, no printing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry_tool.documents import store
from registry_tool.errors import InputError
from registry_tool.storage.lock import locked
from registry_tool.storage.paths import LOCK_NAME, STAGING_PREFIX
from registry_tool.storage.writing import write_atomic, writing

GITIGNORE_LINES = f"{LOCK_NAME}\n{STAGING_PREFIX}*\n"  # `git add` leaves the lock and staging out
GITATTRIBUTES_LINES = "# Digests pin these bytes: git is to convert no line ending.\n* -text\n"


def init(path: Path) -> None:
    """Make an empty registry. Raises InputError where one is already there, or would lie side by side with it."""
    _refuse_beside(path)
    with locked_new(path):
        if os.path.lexists(path):
            raise InputError(f"{path}: found a registry, expected none: it is left as it is")
        store.save(path, store.empty())


def _refuse_beside(path: Path) -> None:
    """Two of REGISTRY_NAMES in one folder are refused by every command that looks for one."""
    absolute = Path(os.path.abspath(path))
    for top in absolute.parents[:2]:
        names = [top / name for name in store.REGISTRY_NAMES]
        other = next((name for name in names if name != absolute and os.path.lexists(name)), None)
        if absolute in names and other is not None:
            raise InputError(f"{other}: found a registry, expected none beside {path}: name another folder")


@contextmanager
def locked_new(path: Path) -> Iterator[None]:
    """`locked`, of the folder of a registry that may be new: the folder is made and prepared before the registry is.

    Where the work raises and leaves no registry, what was made for it goes, the folder too where it is empty then.
    """
    root = path.parent
    new = [folder for folder in (root, *root.parents) if not folder.exists()]
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    prepared: list[Path] = []
    try:
        with locked(root):
            prepared += prepare(root) if not path.exists() else ()
            yield
    except BaseException:
        with suppress(OSError):  # something is there, which stays
            for file in prepared if not path.exists() else ():
                file.unlink()
            for folder in (one for one in root.iterdir() if new and one.is_dir()):
                folder.rmdir()
            if new and [one.name for one in root.iterdir()] == [LOCK_NAME]:
                (root / LOCK_NAME).unlink()
            for folder in new:
                folder.rmdir()
        raise


def prepare(folder: Path) -> list[Path]:
    """Tell git what to ignore in a registry's folder and to convert nothing: the files written; others stay."""
    texts = {folder / ".gitignore": GITIGNORE_LINES, folder / ".gitattributes": GITATTRIBUTES_LINES}
    missing = [file for file in texts if not os.path.lexists(file)]
    for file in missing:
        write_atomic(file, texts[file].encode())
    return missing
