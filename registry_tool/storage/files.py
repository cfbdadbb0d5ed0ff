"""files.py: bytes out of a registry's folder: links are not followed, digests are of what was read. Writes nothing.

Reading never follows a symbolic link below the folder, never blocks on a fifo, and reads a file once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from registry_tool.storage import disk
from registry_tool.storage.paths import (
    ANNEX_POINTER_FOUND,
    DVC_MISSING,
    FILE_CHANGED,
    FILE_MISSING,
    FILE_TOO_LARGE,
    FILE_UNREADABLE,
    LFS_POINTER_FOUND,
    NOT_REGULAR,
    SYMLINK,
    TOO_MANY,
    FileProblem,
    check_path,
    is_reserved,
)

MAX_INVENTORY_FILES, MAX_FOLDERS_DEEP = 200_000, 32  # of an inventory
LARGE_FILE_BYTES = 1 << 18  # from this size on, a file is worth remembering
MAX_BYTES_HELD = 64 << 20  # of such files, all together
SETTLED_NS = 2 * 10**9  # ns; of the coarsest file system's clock: a younger file may change and keep its times
LFS_PREFIX, LFS_MAX_BYTES = b"version https://git-lfs.github.com/spec/", 1024  # a pointer is smaller, says its page
ANNEX_STORE = ".git/annex/objects/"  # where its links lead
ANNEX_POINTER = re.compile(rb"/annex/objects/[^\n/]+\n")  # what git-annex keeps in place of an unlocked file

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_UNOPENED = {errno.ELOOP: stat.S_IFLNK, errno.ENXIO: stat.S_IFSOCK}  # what does not open says what it is
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


class InventoryItem(NamedTuple):
    """path: POSIX, relative; a byte that is not UTF-8 appears as \\xNN. kind: file, folder, symlink or other."""

    path: str
    kind: str


class Contents:
    """What a file held when it was read. sha256: computed when somebody asks for it, once."""

    __slots__ = ("_sha256", "data", "size")

    def __init__(self, data: bytes, size: int, sha256: str = "") -> None:
        self.data, self.size, self._sha256 = data, size, sha256

    @property
    def sha256(self) -> str:
        self._sha256 = self._sha256 or hashlib.sha256(self.data).hexdigest()
        return self._sha256


# A file in one state: its path, and what fstat said when it was opened: device, inode, size, mtime and ctime in ns.
FileState = tuple[str, int, int, int, int, int]


class Folder(AbstractContextManager["Folder"]):
    """A folder held open by its descriptor; every path is opened from there, part by part, following no link.

    Not detected: hard links and bind mounts (a file is what it holds), and a change while reading that keeps size and
    modification time; the digest is of the bytes handed out in any case, never of a second reading.

    A large file that many entries name is read and hashed once, while its FileState stays and is older than SETTLED:
    its digest is remembered, and the last such files are held, so that who wants bytes gets those that were hashed.
    """

    def __init__(self, path: Path) -> None:
        """The path itself may be a link: the caller chose it."""
        with _reading(str(path)):
            self._folder = os.open(path, _FOLDER)
        self._digests: dict[FileState, str] = {}
        self._held: dict[FileState, Contents] = {}  # the one used last is the last

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def read(self, path: str, max_bytes: int) -> bytes:
        """All of a regular file; one that is larger is refused by its size, before anything is read."""
        return self.contents(path, max_bytes).data

    def contents(self, path: str, max_bytes: int, *, hashed: bool = False) -> Contents:
        """The same as `read`. hashed: size and sha256 are all that is wanted; `data` is empty where they are known."""
        *parents, name = check_path(path).split("/")
        try:
            if not parents:
                return self._read(path, name, self._folder, max_bytes, hashed)
            with descended(self._folder, parents) as folder:
                return self._read(path, name, folder, max_bytes, hashed)
        except FileNotFoundError:
            if not path.endswith(".dvc") and self.exists(f"{path}.dvc"):
                raise FileProblem(DVC_MISSING, path) from None
            raise FileProblem(FILE_MISSING, path) from None
        except OSError as error:
            if self._is_annexed(path):
                raise FileProblem(ANNEX_POINTER_FOUND, path, "a link to its object") from error
            _refuse(path, error)

    def _is_annexed(self, path: str) -> bool:
        """Whether it is a link into git-annex's store, as a locked file of it is."""
        *parents, name = path.split("/")
        try:
            with descended(self._folder, parents) as folder:
                return ANNEX_STORE in os.readlink(name, dir_fd=folder)
        except OSError:
            return False

    def _read(self, path: str, name: str, folder: int, max_bytes: int, hashed: bool) -> Contents:
        """A regular file below a folder, with no call too many: a registry is thousands of small files."""
        file = disk.open(name, _READ, dir_fd=folder)  # does not wait, whatever it is
        try:
            before = os.fstat(file)
            check_kind(path, before.st_mode)
            if before.st_size > max_bytes:
                raise FileProblem(FILE_TOO_LARGE, path, f"{before.st_size} bytes", f"at most {max_bytes}")
            if before.st_size < LARGE_FILE_BYTES:
                return Contents(_read_all(path, file, before), before.st_size)
            state = (path, before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
            if (known := self._known(state, hashed)) is not None:
                return known
            settled = time.time_ns() - before.st_ctime_ns > SETTLED_NS
            contents = Contents(_read_all(path, file, before), before.st_size)
        finally:
            os.close(file)
        if settled:
            self._remember(state, contents, hashed)
        return contents

    def _known(self, state: FileState, hashed: bool) -> Contents | None:
        """What is known of a large file in this state."""
        if hashed and state in self._digests:
            return Contents(b"", state[3], self._digests[state])
        if held := self._held.pop(state, None):
            self._held[state] = held
        return held

    def _remember(self, state: FileState, contents: Contents, hashed: bool) -> None:
        if hashed:
            self._digests[state] = contents.sha256
            return
        self._held[state] = contents
        while sum(held.size for held in self._held.values()) > MAX_BYTES_HELD:
            del self._held[next(iter(self._held))]

    def digest(self, path: str, algorithm: Callable[[], Any]) -> str:
        """The digest of a regular file of any size, in hex, without holding its bytes. algorithm: as of hashlib.

        The folder may be any: no name is reserved.
        """
        *parents, name = check_path(path, reserved=True).split("/")
        try:
            with descended(self._folder, parents) as folder, descriptor(name, _READ, folder) as file:
                before = os.fstat(file)
                check_kind(path, before.st_mode)
                with os.fdopen(os.dup(file), "rb") as stream:
                    digest: str = hashlib.file_digest(stream, algorithm).hexdigest()
                after = os.fstat(file)
                if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                    raise FileProblem(FILE_CHANGED, path)
                return digest
        except OSError as error:
            _refuse(path, error)

    def exists(self, path: str) -> bool:
        """Whether anything, of whatever kind, has this name. A link among its parents is a FileProblem."""
        *parents, name = check_path(path).split("/")
        try:
            with descended(self._folder, parents) as folder:
                return bool(os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            return False
        except OSError as error:
            _refuse(path, error)

    def inventory(
        self, max_entries: int = MAX_INVENTORY_FILES, below: str = "", skipped: Container[str] | None = None
    ) -> list[InventoryItem]:
        """What lies in the folder (or one in it), at any depth, sorted by path; without `.git`, the lock, staging.

        skipped: paths of files and folders to leave out in the place of those names, which hide nothing then.
        """
        items: list[InventoryItem] = []
        pending = [tuple(check_path(below).split("/")) if below else ()]
        while pending:
            base = pending.pop()
            place, prefix = "/".join(base) or ".", "".join(f"{name}/" for name in base)
            with _reading(place), descended(self._folder, base) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if skipped is None and entry.name[0] == "." and is_reserved(entry.name):
                        continue
                    if skipped is not None and prefix + entry.name in skipped:
                        continue
                    if len(items) >= max_entries or len(base) > MAX_FOLDERS_DEEP:
                        limit = f"at most {max_entries} files, {MAX_FOLDERS_DEEP} folders deep"
                        raise FileProblem(TOO_MANY, place, "more", limit)
                    kind = "file"
                    if entry.is_dir(follow_symlinks=False):
                        kind = "folder"
                        pending.append((*base, entry.name))
                    elif not entry.is_file(follow_symlinks=False):
                        kind = "symlink" if entry.is_symlink() else "other"
                    path = prefix + entry.name
                    if not path.isascii():
                        path = os.fsencode(path).decode("utf-8", "backslashreplace")
                    items.append(InventoryItem(path, kind))
        return sorted(items)


def _read_all(path: str, file: int, before: os.stat_result) -> bytes:
    """The bytes of an open file, which was so before. Raises FileProblem for a pointer, or a file that changes."""
    size = before.st_size
    data = os.read(file, size + 1)  # one more than there should be, to see whether there is
    while len(data) < size and (more := os.read(file, size + 1 - len(data))):
        data += more
    if size <= LFS_MAX_BYTES:
        if data.startswith(LFS_PREFIX):
            raise FileProblem(LFS_POINTER_FOUND, path, "a pointer")
        if ANNEX_POINTER.match(data):
            raise FileProblem(ANNEX_POINTER_FOUND, path, "a pointer")
    after = os.fstat(file)
    if (len(data), after.st_size, after.st_mtime_ns) != (size, size, before.st_mtime_ns):
        raise FileProblem(FILE_CHANGED, path)
    return data


def check_kind(path: str, mode: int, expected: str = "file") -> None:
    if (kind := _KINDS.get(stat.S_IFMT(mode), "fifo, socket or device")) != expected:
        rule = SYMLINK if kind == "symlink" else NOT_REGULAR
        raise FileProblem(rule, path, f"a {kind}", f"a {expected}")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _refuse(path, error)


def _refuse(path: str, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise FileProblem(FILE_MISSING, path) from None
    if error.errno in _UNOPENED:
        check_kind(path, _UNOPENED[error.errno])
    raise FileProblem(FILE_UNREADABLE, path, error.strerror) from error


@contextmanager
def descriptor(path: str | Path, flags: int = _FOLDER, folder: int | None = None) -> Iterator[int]:
    descriptor = disk.open(path, flags, 0o644, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def descended(folder: int, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder at `parts` below `folder`. A link or a file on the way is a FileProblem."""
    current = os.dup(folder)
    try:
        for number, part in enumerate(parts, 1):
            if create:
                with suppress(FileExistsError):
                    disk.mkdir(part, dir_fd=current)
                fsync_folder(current)
            try:
                deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=current)
            except NotADirectoryError:  # also for a symbolic link
                status = os.stat(part, dir_fd=current, follow_symlinks=False)
                check_kind("/".join(parts[:number]), status.st_mode, "folder")
                raise
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def fsync_folder(folder: int) -> None:
    try:
        disk.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no fsync of folders
            raise
