"""writing.py: bytes into a registry's folder: the old content or the new one, whatever happens in between.

A file is written beside its place, fsynced and renamed, and its folder fsynced. A folder appears whole.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from registry_tool.errors import RejectedError, WorldError
from registry_tool.storage import disk
from registry_tool.storage.files import Folder, check_kind, descended, descriptor, fsync_folder
from registry_tool.storage.paths import STAGING_PREFIX, FileProblem, check_path
from registry_tool.values import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REASONS = {  # errno -> what happened: what to do
    errno.ENOSPC: "the disk is full: free some space and run it again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "permission denied: check who owns the folder, and its mode"),
    errno.EIO: "the disk reported an input/output error: check the disk and run it again",
    errno.ELOOP: "a symbolic link is in the way: remove it",
    errno.ENOENT: "the folder does not exist: make it first",
}


@contextmanager
def atomic_file(path: Path, *, root: Path | None = None) -> Iterator[IO[bytes]]:
    """A stream that replaces or makes one file: written beside it, fsynced, renamed, the folder fsynced.

    Mode and owner are kept. With `root`, the registry's folder, no link below it is followed and missing folders are
    made; it wants `locked`. Raises WorldError in one line. The file then is the old one; only where the last step,
    fsync of the folder, failed is it the new one. A link in its place is not written through.
    """
    *parents, name = [path.name] if root is None else check_path(path.relative_to(root).as_posix()).split("/")
    temporary = STAGING_PREFIX + os.urandom(8).hex()
    with writing(path), descriptor(root or path.parent) as top, descended(top, parents, create=True) as folder:
        old = None
        with suppress(FileNotFoundError):
            old = os.stat(name, dir_fd=folder, follow_symlinks=False)
            check_kind(name, old.st_mode)
        try:
            with _new_file(temporary, folder, old) as stream:
                yield cast(IO[bytes], stream)
            disk.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        fsync_folder(folder)


def write_atomic(path: Path, data: bytes, *, root: Path | None = None) -> None:
    """Replace or make one file with these bytes: see `atomic_file`."""
    with atomic_file(path, root=root) as file:
        file.write(data)


def publish_folder(root: Path, target: str, files: Mapping[str, bytes]) -> None:
    """Make the folder `root/target` with these files, all of it or nothing of it. Only under `locked`.

    A target that holds these very files is left alone; RejectedError where it holds anything else.
    """
    *parents, name = check_path(target).split("/")
    staging = STAGING_PREFIX + os.urandom(8).hex()
    with writing(root / target), descriptor(root) as top, Folder(root) as folder:
        if folder.exists(target):
            if not _holds(folder, target, files):
                raise RejectedError(f"{root / target}: it exists and holds other files: restore it or move it away")
            with descended(top, parents) as parent:
                fsync_folder(parent)  # the process that published it may have been killed before this
            return
        try:
            disk.mkdir(staging, dir_fd=top)
            with descended(top, [staging]) as made:
                for path, data in files.items():
                    *folders, leaf = check_path(path).split("/")
                    with descended(made, folders, create=True) as place:
                        with _new_file(leaf, place) as stream:
                            stream.write(data)
                        fsync_folder(place)
            with descended(top, parents, create=True) as parent:
                disk.rename(staging, name, src_dir_fd=top, dst_dir_fd=parent)
                fsync_folder(parent)
                fsync_folder(top)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True, dir_fd=top)
            raise


def _holds(folder: Folder, target: str, files: Mapping[str, bytes]) -> bool:
    expected = {f"{target}/{name}": data for name, data in files.items()}
    try:
        found = {item.path for item in folder.inventory(below=target) if item.kind != "folder"}
        return found == set(expected) and all(folder.read(path, len(data)) == data for path, data in expected.items())
    except FileProblem:
        return False


class _Stream(io.RawIOBase):
    """A descriptor to write to; every write takes all of its bytes."""

    def __init__(self, file: int) -> None:
        self.file = file  # -1 once it is closed: what still holds this object can write to no other file

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[disk.write(self.file, rest) :]
        return size


@contextmanager
def _new_file(name: str, folder: int, like: os.stat_result | None = None) -> Iterator[_Stream]:
    """A new file with mode and owner of another one; fsynced at the end."""
    with descriptor(name, _NEW, folder) as file:
        if like is not None:
            with suppress(PermissionError):  # only root may give files away
                os.fchown(file, like.st_uid, like.st_gid)
            os.fchmod(file, stat.S_IMODE(like.st_mode) & 0o777)
        stream = _Stream(file)
        try:
            yield stream
        finally:
            stream.file = -1
        disk.fsync(file)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}: check the folder and run it again")
        raise WorldError(f"{visible(str(path))}: it cannot be written: {reason}") from error
