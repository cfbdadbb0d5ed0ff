"""staging.py: a folder that comes, or goes, under its name whole or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
import secrets
import shutil
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

from registry_tool.errors import InputError, WorldError
from registry_tool.storage.files import Folder, descriptor, fsync_folder
from registry_tool.storage.paths import LOCK_NAME, STAGING_PREFIX, FileProblem


class NewFolder(AbstractContextManager["NewFolder"]):
    """A staging folder beside `target`, with a name that says so; `publish` renames it, leaving without goes back.

    What a killed run left there goes with the next run for the same target: a live one holds a kernel lock on its own.
    """

    def __init__(self, target: Path) -> None:
        """Raises InputError for a target that is no folder, WorldError where the staging folder cannot be made."""
        self.target = target.absolute()
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
            raise InputError(f"{target}: found a file or a link, expected a folder to make: name another")
        prefix = f"{STAGING_PREFIX}{self.target.name}-"
        self.path = self.target.parent / (prefix + secrets.token_hex(8))
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            for old in self.target.parent.glob(f"{STAGING_PREFIX}*"):
                if old.name.startswith(prefix) and old.is_dir() and not old.is_symlink():
                    _remove_dead(old)
            self.path.mkdir()
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _broken(target, error) from error

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)  # gone already where it was published
        os.close(self._lock)

    def clear(self) -> None:
        """Empty the staging folder, to begin again."""
        for item in self.path.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()

    def publish(self) -> bool:
        """Take the target's place; False where it holds these very files already. Raises InputError for others."""
        try:
            with suppress(FileNotFoundError):
                if any(name != LOCK_NAME for name in os.listdir(self.target)):
                    if _tree(self.target) == _tree(self.path):
                        return False
                    raise InputError(f"{self.target}: found other files, expected a new or empty folder: name one")
                (self.target / LOCK_NAME).unlink(missing_ok=True)
            os.rename(self.path, self.target)
            with descriptor(self.target.parent) as above:
                fsync_folder(above)
        except OSError as error:
            raise _broken(self.target, error) from error
        return True


def remove_whole(root: Path, target: str) -> None:
    """Remove a file or folder below `root`: first it takes a name that the next writer clears away. Under `locked`."""
    aside = root / (STAGING_PREFIX + secrets.token_hex(8))
    try:
        os.rename(root / target, aside)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    except OSError as error:
        reason = f"it cannot be removed: {error.strerror}: check who owns the folder; the next run removes the rest"
        raise WorldError(f"{root / target}: {reason}") from error


def remove_from(root: Path, folder: str, path: str) -> None:
    """Remove a file right in a folder below `root`, if it is there.

    A path that leads elsewhere, by its parts or a link, is left alone: a registry of somebody else may name any file.
    """
    if posixpath.dirname(path) == folder and (root / folder).resolve() == root.resolve() / folder:
        (root / path).unlink(missing_ok=True)


def _broken(target: Path, error: OSError) -> WorldError:
    return WorldError(f"{target}: it cannot be made: {error.strerror}: check the folder above it")


def _remove_dead(folder: Path) -> None:
    """What no living process holds."""
    with suppress(OSError), descriptor(folder) as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


def _tree(path: Path) -> dict[str, bytes] | None:
    """Every file's digest; None for a folder that holds anything but files."""
    try:
        with Folder(path) as folder:
            items = [item for item in folder.inventory() if item.kind != "folder"]
            return {item.path: hashlib.sha256(folder.read(item.path, sys.maxsize)).digest() for item in items}
    except FileProblem:
        return None
