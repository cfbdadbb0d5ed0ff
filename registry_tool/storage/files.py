"""files.py: bytes in and out of a registry's folder: containment, digests, atomic writes. Parses nothing.

Reading never follows a symbolic link below the folder, never blocks on a fifo, and reads a file once. Writing leaves
the old content or the new one, whatever happens in between.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from registry_tool.errors import InputError, RejectedError, WorldError
from registry_tool.findings import Finding, FindingRule, InFile
from registry_tool.storage import disk
from registry_tool.values import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

LOCK_NAME = ".registry.lock"
STAGING_PREFIX = ".staging-"  # prefix of every temporary file and folder
MAX_INVENTORY_FILES, MAX_FOLDERS_DEEP = 200_000, 32  # of an inventory
LARGE_FILE_BYTES = 1 << 18  # from this size on, a file is worth remembering
MAX_BYTES_HELD = 64 << 20  # of such files, all together
MAX_PATH_CHARACTERS = 200  # of a path in a message
SETTLED_NS = 2 * 10**9  # ns; of the coarsest file system's clock: a younger file may change and keep its times
LFS_PREFIX, LFS_MAX_BYTES = b"version https://git-lfs.github.com/spec/", 1024  # a pointer is smaller, says its page
ANNEX_STORE = ".git/annex/objects/"  # where its links lead
ANNEX_POINTER = re.compile(rb"/annex/objects/[^\n/]+\n")  # what git-annex keeps in place of an unlocked file

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNOPENED = {errno.ELOOP: stat.S_IFLNK, errno.ENXIO: stat.S_IFSOCK}  # what does not open says what it is
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
_REASONS = {  # errno -> what happened: what to do
    errno.ENOSPC: "the disk is full: free some space and run it again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "permission denied: check who owns the folder, and its mode"),
    errno.EIO: "the disk reported an input/output error: check the disk and run it again",
    errno.ELOOP: "a symbolic link is in the way: remove it",
    errno.ENOENT: "the folder does not exist: make it first",
}

PATH_ESCAPES = FindingRule(
    "file-escapes",
    "path outside the registry's folder, or with a second spelling",
    why="It could name any file of the machine.",
    message="{file}: unusable path",
    expected="a path inside the registry's folder, like id/model.onnx",
    hint="write a plain relative path with /",
    example="../../etc/passwd",
)
FILE_MISSING = FindingRule(
    "file-missing",
    "file not found",
    why="A runtime that loads the entry fails.",
    message="{file}: file not found",
    hint="restore the file or correct the path",
    example="model.onnx deleted",
)
SYMLINK = FindingRule(
    "file-is-symlink",
    "symbolic link",
    why="It can point elsewhere tomorrow, on this machine or on another.",
    message="{file}: symbolic links are not followed",
    hint="replace the link by what it names",
    example="model.onnx -> /tmp/m",
)
NOT_REGULAR = FindingRule(
    "file-not-regular",
    "folder, fifo, socket or device in place of a file",
    why="Reading it could block for ever.",
    message="{file}: wrong type of file",
    hint="replace it",
    example="mkfifo model.onnx",
)
FILE_TOO_LARGE = FindingRule(
    "file-too-large",
    "file too large",
    why="Reading it could exhaust memory.",
    message="{file}: the file is too large",
    hint="check that it is the right file; for a model, raise `max_file_bytes` in the policy of its kind",
    example="an ONNX file of 2 GiB",
)
TOO_MANY = FindingRule(
    "file-too-many",
    "too many files in the registry's folder",
    why="Files could hide among the others.",
    message="{file}: the folder holds too many files to check",
    hint="keep the registry in a folder of its own",
    example="a registry beside node_modules",
)
LFS_POINTER_FOUND = FindingRule(
    "file-lfs-pointer",
    "Git-LFS pointer in place of a file",
    why="The file itself was never fetched.",
    message="{file}: Git-LFS pointer in place of the file",
    expected="the file itself",
    hint="run `git lfs pull`",
    example="version https://git-lfs...",
)
ANNEX_POINTER_FOUND = FindingRule(
    "file-annex-pointer",
    "git-annex pointer in place of a file",
    why="The file itself was never fetched.",
    message="{file}: git-annex pointer in place of the file",
    expected="the file itself",
    hint="run `git annex get`, and `git annex unlock` where it is a link",
    example="/annex/objects/SHA256E-s5--...",
)
DVC_MISSING = FindingRule(
    "file-dvc-missing",
    "DVC pointer beside a missing file",
    why="The file itself was never fetched.",
    message="{file}: file not found, only its DVC pointer",
    hint="run `dvc pull`",
    example="b.onnx.dvc without b.onnx",
)
FILE_UNREADABLE = FindingRule(
    "file-unreadable",
    "file cannot be read",
    why="What cannot be read cannot be checked.",
    message="{file}: the file cannot be read",
    expected="a readable file",
    hint="check its owner, its mode and the disk",
    example="permission denied",
)
FILE_CHANGED = FindingRule(
    "file-changed-while-reading",
    "file changed while it was read",
    why="What was checked is not what is there.",
    message="{file}: the file changed while it was read",
    hint="run it again when nothing writes there",
    example="two trainings in one folder",
)


class FileProblem(InputError):
    """Why a file is not read or a path not taken; the message names the path. A Finding where one can be made of it."""

    def __init__(self, rule: FindingRule, path: str, found: str | None = None, expected: str | None = None) -> None:
        super().__init__(rule.code)
        self.rule, self.path, self.found, self.expected = rule, path, found, expected

    @property
    def code(self) -> str:
        return self.rule.code

    def at(self, file: str, entry: str | None = None, pointer: str | None = None) -> Finding:
        """The finding on that file, at the pointer of what names the path."""
        place = InFile(file, entry)
        return self.rule.at(
            place,
            pointer,
            found=self.found,
            expected=self.expected,
            file=visible(self.path, MAX_PATH_CHARACTERS) or "''",
        )

    def __str__(self) -> str:
        return self.at("").words


class InventoryItem(NamedTuple):
    """path: POSIX, relative; a byte that is not UTF-8 appears as \\xNN. kind: file, folder, symlink or other."""

    path: str
    kind: str


_NAME = r"[\w-](?:[\w.-]{0,250}[\w-])?"  # ASCII, no dot at either end: nothing reserved, no `..`
ORDINARY_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*", re.ASCII).fullmatch


@lru_cache(maxsize=4096)
def check_path(text: str, reserved: bool = False) -> str:
    """The same text, if it is the one spelling of a path below a folder; else FileProblem `file-escapes`.

    Its NFKC form must pass too and have as many slashes, so that full-width dots and slashes are no way around. Names
    that the inventory skips (`.git`, the lock, staging) are refused: nothing may hide there. reserved: they are not
    refused, in a folder that is no registry's.
    """
    if ORDINARY_PATH(text) and len(text) <= 1024:
        return text
    plain = unicodedata.normalize("NFKC", text)
    look_alike = "a look-alike of a slash" if plain.count("/") > text.count("/") else None
    if fault := fault_of(text, reserved) or fault_of(plain, reserved) or look_alike:
        raise FileProblem(PATH_ESCAPES, text, fault)
    return text


def fault_of(text: str, reserved: bool = False) -> str | None:
    if not text or len(text) > 1024:
        return f"{len(text)} characters"
    if any(c != " " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs") for c in text):
        return "a control or invisible character"
    if unicodedata.normalize("NFC", text) != text:
        return "a spelling that is not in Unicode form NFC"
    if text[0] == "/" or "\\" in text or re.match("[A-Za-z]:", text):
        return "an absolute path, a drive letter or a backslash"
    for name in text.split("/"):
        if name in ("", ".", ".."):
            return f"the part {name!r}"
        kept = not reserved and _is_reserved(name.casefold())
        if name.strip(" ") != name or name[-1] == "." or len(name.encode()) > 255 or kept:
            return f"the name {name[:40]!r}, which is reserved or not portable"
    return None


def _is_reserved(name: str) -> bool:
    return name in (".git", LOCK_NAME) or name.startswith(STAGING_PREFIX)


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
            with _descended(self._folder, parents) as folder:
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
            with _descended(self._folder, parents) as folder:
                return ANNEX_STORE in os.readlink(name, dir_fd=folder)
        except OSError:
            return False

    def _read(self, path: str, name: str, folder: int, max_bytes: int, hashed: bool) -> Contents:
        """A regular file below a folder, with no call too many: a registry is thousands of small files."""
        file = disk.open(name, _READ, dir_fd=folder)  # does not wait, whatever it is
        try:
            before = os.fstat(file)
            _check_kind(path, before.st_mode)
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
            with _descended(self._folder, parents) as folder, _descriptor(name, _READ, folder) as file:
                before = os.fstat(file)
                _check_kind(path, before.st_mode)
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
            with _descended(self._folder, parents) as folder:
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
            with _reading(place), _descended(self._folder, base) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if skipped is None and entry.name[0] == "." and _is_reserved(entry.name):
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


def _check_kind(path: str, mode: int, expected: str = "file") -> None:
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
        _check_kind(path, _UNOPENED[error.errno])
    raise FileProblem(FILE_UNREADABLE, path, error.strerror) from error


@contextmanager
def _descriptor(path: str | Path, flags: int = _FOLDER, folder: int | None = None) -> Iterator[int]:
    descriptor = disk.open(path, flags, 0o644, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _descended(folder: int, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder at `parts` below `folder`. A link or a file on the way is a FileProblem."""
    current = os.dup(folder)
    try:
        for number, part in enumerate(parts, 1):
            if create:
                with suppress(FileExistsError):
                    disk.mkdir(part, dir_fd=current)
                _fsync_folder(current)
            try:
                deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=current)
            except NotADirectoryError:  # also for a symbolic link
                status = os.stat(part, dir_fd=current, follow_symlinks=False)
                _check_kind("/".join(parts[:number]), status.st_mode, "folder")
                raise
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


@contextmanager
def atomic_file(path: Path, *, root: Path | None = None) -> Iterator[IO[bytes]]:
    """A stream that replaces or makes one file: written beside it, fsynced, renamed, the folder fsynced.

    Mode and owner are kept. With `root`, the registry's folder, no link below it is followed and missing folders are
    made; it wants `locked`. Raises WorldError in one line. The file then is the old one; only where the last step,
    fsync of the folder, failed is it the new one. A link in its place is not written through.
    """
    *parents, name = [path.name] if root is None else check_path(path.relative_to(root).as_posix()).split("/")
    temporary = STAGING_PREFIX + os.urandom(8).hex()
    with writing(path), _descriptor(root or path.parent) as top, _descended(top, parents, create=True) as folder:
        old = None
        with suppress(FileNotFoundError):
            old = os.stat(name, dir_fd=folder, follow_symlinks=False)
            _check_kind(name, old.st_mode)
        try:
            with _new_file(temporary, folder, old) as stream:
                yield cast(IO[bytes], stream)
            disk.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        _fsync_folder(folder)


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
    with writing(root / target), _descriptor(root) as top, Folder(root) as folder:
        if folder.exists(target):
            if not _holds(folder, target, files):
                raise RejectedError(f"{root / target}: it exists and holds other files: restore it or move it away")
            with _descended(top, parents) as parent:
                _fsync_folder(parent)  # the process that published it may have been killed before this
            return
        try:
            disk.mkdir(staging, dir_fd=top)
            with _descended(top, [staging]) as made:
                for path, data in files.items():
                    *folders, leaf = check_path(path).split("/")
                    with _descended(made, folders, create=True) as place:
                        with _new_file(leaf, place) as stream:
                            stream.write(data)
                        _fsync_folder(place)
            with _descended(top, parents, create=True) as parent:
                disk.rename(staging, name, src_dir_fd=top, dst_dir_fd=parent)
                _fsync_folder(parent)
                _fsync_folder(top)
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
    with _descriptor(name, _NEW, folder) as file:
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


def _fsync_folder(folder: int) -> None:
    try:
        disk.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no fsync of folders
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}: check the folder and run it again")
        raise WorldError(f"{visible(str(path))}: it cannot be written: {reason}") from error
