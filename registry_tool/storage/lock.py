"""lock.py: who may write to a registry's folder, and what killed writers left there. Reads no content."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry_tool.errors import WorldError
from registry_tool.storage.paths import LOCK_NAME, STAGING_PREFIX
from registry_tool.storage.writing import writing
from registry_tool.values import visible


def clean_staging(root: Path) -> None:
    """Remove what killed runs left: staging folders and temporary files, two folders deep. `locked` does it."""
    with writing(root):
        for place, folders, files, folder in os.fwalk(root):  # follows no link
            for name in folders + files:
                if name.startswith(STAGING_PREFIX) and name in folders:
                    shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
                elif name.startswith(STAGING_PREFIX):
                    os.unlink(name, dir_fd=folder)
            deep = len(Path(place).relative_to(root).parts) >= 2
            folders[:] = [] if deep else [name for name in folders if not name.startswith(".")]


@contextmanager
def locked(root: Path, timeout: float = 30.0) -> Iterator[None]:
    """Hold the registry's lock, a kernel lock: it ends with its process, so a killed holder blocks no other.

    What killed runs left is removed first. A child forked while it is held shares it. WorldError after `timeout` s.
    """
    import filelock  # only writers need it

    path = root / LOCK_NAME
    lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)  # a soft lock would outlive its holder
    with writing(path):
        folder = root.stat()  # filelock would make a missing folder
        try:
            lock.acquire()
            _share(path, folder)
        except filelock.Timeout:
            reason = f"{_holder(path)} has held the lock for {timeout:g} s: wait until it is done, or end it"
            raise WorldError(f"{visible(str(path))}: {reason}") from None
    try:
        clean_staging(root)
        yield
    finally:
        lock.release()


def _share(path: Path, folder: os.stat_result) -> None:
    """Give the lock's file the permissions of its folder, whatever the umask: who may write there may lock it."""
    with suppress(OSError):  # the file is another user's, who shared it
        writers = stat.S_IMODE(folder.st_mode) & 0o222
        os.chmod(path, stat.S_IMODE(path.stat().st_mode) | writers | writers << 1)


def _holder(path: Path) -> str:
    """Who holds the lock, as far as Linux tells: `number: FLOCK ADVISORY WRITE pid major:minor:inode ...`."""
    with suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            if found := re.match(rf".* FLOCK .* (\d+) \S+:{path.stat().st_ino} ", line):
                return f"process {found[1]}"
    return "another process"
