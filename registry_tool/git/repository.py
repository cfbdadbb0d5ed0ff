"""repository.py: git itself: where a registry lies in its repository, and what its objects hold. Never writes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from registry_tool.errors import InputError, WorldError
from registry_tool.strictjson import REGISTRY_MAX_BYTES
from registry_tool.values import visible

FETCH_HINT = "fetch full history (fetch-depth: 0 on GitHub, GIT_DEPTH: 0 on GitLab, git fetch --unshallow by hand)"
# A folder that looks like a bare repository is content, not a repository: git is not to read its configuration.
SAFE_OPTIONS = ("-c", "safe.bareRepository=explicit")
# What would make git read another repository than the one that was decided on, or other objects than those it names.
REDIRECTING_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_REPLACE_REF_BASE",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
)
FULL_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")  # an object's id in full
# Modes of a git tree; how those of regular files begin.
LINK_MODE, SUBMODULE_MODE, REGULAR_MODE = "120000", "160000", "100"


@dataclass(frozen=True, slots=True)
class Option:
    """What named a revision, for messages. instead: what a person may do where git cannot tell."""

    name: str
    instead: str
    file_option: str | None = None

    def __str__(self) -> str:
        return self.name


BASE_OPTION = Option("--base", "compare with an older registry: --base-file FILE", "--base-file")


@dataclass(frozen=True, slots=True)
class RepositoryPath:
    """Where a registry lies: the top of its working tree, and its POSIX path from there; who asks."""

    top: Path
    path: str
    option: Option = BASE_OPTION


@dataclass(frozen=True, slots=True)
class Item:
    """A name in a git tree: its mode, its object's id, and its POSIX path from the top of the tree."""

    mode: str
    oid: str
    path: str


def locate(registry: Path, option: Option = BASE_OPTION) -> RepositoryPath:
    """The repository that holds a registry, decided by the names on the way to it, not by what they lead to.

    It is the nearest folder above the registry that has a `.git`. Raises InputError where there is none, where a link
    lies between the two, where the repository is a submodule of another one, or where git refuses it.
    """
    absolute = Path(os.path.abspath(registry))
    tops = [folder for folder in absolute.parents if os.path.lexists(folder / ".git")]
    if not tops:
        raise InputError(
            f"{registry}: it lies in no git repository, expected one: run it in a clone, or {option.instead}"
        )
    top = tops[0]
    if os.path.realpath(registry.parent) != os.path.realpath(absolute.parent):
        raise InputError(f"{registry}: found .. behind a symbolic link, expected a path without one: name {absolute}")
    _refuse_links(registry, absolute.parent, tops[1] if len(tops) > 1 else top)
    answer = git(top, "rev-parse", "--show-toplevel")
    if answer.returncode != 0:
        raise InputError(f"{visible(str(top))}: git says {words(answer.stderr)!r}, expected a repository it can read")
    if os.path.realpath(_line(answer.stdout)) != os.path.realpath(top):
        raise InputError(
            f"{visible(str(top))}: git takes it for a part of {visible(_line(answer.stdout))}: repair its .git"
        )
    if outer := _line(git(top, "rev-parse", "--show-superproject-working-tree").stdout):
        raise InputError(
            f"{registry}: {visible(str(top))} is a submodule of {visible(outer)}, expected a registry in a repository "
            f"of its own: a change can make a folder a submodule; run it in a clone of its own, or {option.instead}"
        )
    return RepositoryPath(top, absolute.relative_to(top).as_posix(), option)


def _refuse_links(registry: Path, folder: Path, top: Path) -> None:
    """No folder from below the top to the registry's own may be a symbolic link."""
    for part in [*reversed(folder.parents), folder]:
        if part.is_relative_to(top) and part != top and part.is_symlink():
            raise InputError(
                f"{registry}: {visible(str(part))} is a symbolic link, expected a folder: a link can lead to another "
                "registry than the one at the base; name the folder itself"
            )


# ---- what a revision holds --------------------------------------------------------------------------------------


def find_in_tree(place: RepositoryPath, revision: str, path: str) -> Item | None:
    """The file at a path of a revision; None where there is none.

    Raises InputError for a link or a submodule in its place or on the way: what they lead to is not the base's.
    """
    parts, item = PurePosixPath(path).parts, None
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        item = next((item for item in list_tree(place, revision, name) if item.path == name), None)
        if item is None:
            return None
        if item.mode in (LINK_MODE, SUBMODULE_MODE):
            kind = "a symbolic link" if item.mode == LINK_MODE else "a submodule"
            raise InputError(
                f"{revision[:12]}:{visible(name)}: found {kind}, expected a folder or a file itself: "
                f"{place.option.instead}"
            )
    if item is None or not item.mode.startswith(REGULAR_MODE):
        return None
    return item


def list_tree(place: RepositoryPath, revision: str, name: str | None = None) -> list[Item]:
    """What a revision holds: at one name, else all files of it at any depth."""
    options = ("-r",) if name is None else ()
    names = ("--", name) if name is not None else ()
    answer = git(place.top, "--literal-pathspecs", "ls-tree", "-z", "--full-tree", *options, revision, *names)
    lines = os.fsdecode(answer.stdout).split("\0")[:-1] if answer.returncode == 0 else []
    split = (line.partition("\t") for line in lines)
    return [Item(head.split(" ")[0], head.split(" ")[2], path) for head, _, path in split]


def read_at(place: RepositoryPath, revision: str, path: str) -> bytes | None:
    """The bytes of a file of a revision; None where there is none. Raises InputError as `find_in_tree` does."""
    item = find_in_tree(place, revision, path)
    if item is None:
        return None
    with blobs(place.top) as blob:
        return blob(item.oid)


def changed_files(place: RepositoryPath, revision: str, also: str) -> frozenset[str]:
    """The files of a registry's folder that a revision has otherwise, has alone, or lacks; ignored ones too.

    also: the name of a file that counts in every folder above the registry's as well.
    """
    folder = os.path.dirname(place.path) or "."
    above = [str(parent / also) for parent in PurePosixPath(folder).parents]
    options = ("--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", "-z")
    changed = git(place.top, "--literal-pathspecs", "diff", *options, revision, "--", folder, *above)
    new = git(place.top, "--literal-pathspecs", "ls-files", "--others", "-z", "--", folder)
    for answer in (changed, new):
        if answer.returncode != 0:
            raise InputError(f"{place.option} {revision[:12]}: git says {words(answer.stderr)!r}: check the clone")
    return _listed(changed, new) | {path for path in _unwatched(place, folder) if os.path.lexists(place.top / path)}


def _unwatched(place: RepositoryPath, folder: str) -> list[str]:
    """The files that the index tells git to take for unchanged (assume-unchanged, skip-worktree)."""
    answer = git(place.top, "--literal-pathspecs", "ls-files", "-v", "-z", "--", folder)
    marked = (os.fsdecode(line) for line in answer.stdout.split(b"\0"))
    return [line[2:] for line in marked if line[:1] == "S" or line[:1].islower()]


def changed_lines(place: RepositoryPath, revision: str, path: str) -> Lines:
    """Which lines of a file of the working tree are not those of a revision."""
    is_there, was_there = os.path.lexists(place.top / path), bool(list_tree(place, revision, path))
    if is_there != was_there:
        return Lines(all=True)
    options = (
        "-U0",
        "--text",
        "--no-ext-diff",
        "--no-textconv",
        "--no-renames",
        "--no-color",
        "--ignore-submodules=none",
    )
    answer = git(place.top, "--literal-pathspecs", "diff", *options, revision, "--", path)
    if answer.returncode != 0:
        return Lines(all=True)
    hunks = re.findall(rb"^@@ -[\d,]+ \+(\d+)(?:,(\d+))? @@", answer.stdout, flags=re.MULTILINE)
    return Lines(tuple(range(int(first), int(first) + int(count or 1)) for first, count in hunks))


@dataclass(frozen=True, slots=True)
class Lines:
    """Changed lines of a file, counted from 1. all: the file is new, gone or cannot be compared."""

    ranges: tuple[range, ...] = ()
    all: bool = False

    def touch(self, line: int | None) -> bool:
        """Whether the line is one of them; of no line: whether any is."""
        return self.all or (bool(self.ranges) if line is None else any(line in part for part in self.ranges))


class Blob:
    """An object's bytes by any name git knows, from one `git cat-file --batch` process; None where there is none.

    Raises WorldError where there is one that this clone lacks: a partial clone whose remote does not give it, say.
    """

    def __init__(self, ask: IO[bytes], answer: IO[bytes]) -> None:
        self._ask, self._answer = ask, answer

    def __call__(self, name: str) -> bytes | None:
        if "\n" in name:
            return None
        try:
            self._ask.write(name.encode(errors="surrogateescape") + b"\n")
            self._ask.flush()
            header = self._answer.readline().split()
        except BrokenPipeError:
            header = []
        if not header or (header[-1] == b"missing" and FULL_HASH.match(name)):
            raise WorldError(
                f"git: this clone lacks the object {visible(name)}, and its remote does not give it: "
                "fetch again, or make a clone without --filter"
            )
        if len(header) != 3 or header[1] not in (b"blob", b"tree", b"commit", b"tag"):
            return None  # missing, ambiguous
        data = self._answer.read(int(header[2]) + 1)[:-1]
        return data if header[1] == b"blob" and len(data) <= REGISTRY_MAX_BYTES else None


@contextmanager
def blobs(folder: Path) -> Iterator[Blob]:
    command = _command(folder, "cat-file", "--batch")
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error
    with process:
        if process.stdin is None or process.stdout is None:
            raise WorldError("git: found no pipes to it, expected two: run it again")
        try:
            yield Blob(process.stdin, process.stdout)
        finally:
            with contextlib.suppress(BrokenPipeError):  # it ended early, which was said
                process.stdin.close()


def path_in_repository(registry: Path) -> str:
    """The file's path from the top of the repository that git finds, links resolved; for `history`."""
    folder = registry.resolve().parent
    top = Path(_line(git(folder, "rev-parse", "--show-toplevel").stdout)).resolve()
    return registry.resolve().relative_to(top).as_posix()


def is_shallow(folder: Path) -> bool:
    return git(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


# ---- the program ------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str, redirected: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder. redirected: its hooks' environment (GIT_INDEX_FILE and the like) counts."""
    environment = None if redirected else _environment()
    try:
        return subprocess.run(_command(folder, *arguments), capture_output=True, check=False, env=environment)
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error


def changed(folder: Path) -> list[str]:
    """The files below a folder that are not as HEAD has them: staged, changed, new or gone; [] outside a repository."""
    listed = git(folder, "ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard", redirected=True)
    staged = git(folder, "diff", "--cached", "--name-only", "--no-renames", "--relative", "-z", redirected=True)
    return sorted(_listed(listed, staged))


def deleted(folder: Path, first: str | None = None, last: str | None = None) -> list[str]:
    """The files below a folder whose deletion is staged, or was made between two revisions; [] outside a repository."""
    arguments = ["--end-of-options", f"{first}...{last}"] if first and last else ["--cached"]
    options = ("--name-only", "--no-renames", "--diff-filter=D", "--relative", "-z")
    answer = git(folder, "diff", *options, *arguments, redirected=True)
    return sorted(_listed(answer))


def _listed(*answers: subprocess.CompletedProcess[bytes]) -> frozenset[str]:
    """The names that answers with -z list; of those that failed none."""
    outputs = (os.fsdecode(answer.stdout) for answer in answers if answer.returncode == 0)
    return frozenset(name for output in outputs for name in output.split("\0")[:-1])


def _command(folder: Path, *arguments: str) -> list[str]:
    return ["git", *SAFE_OPTIONS, "-C", str(folder), *arguments]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in REDIRECTING_VARIABLES}
    return kept | {"GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


def _line(stdout: bytes) -> str:
    return os.fsdecode(stdout).removesuffix("\n")


def words(stderr: bytes) -> str:
    return " ".join(stderr.decode(errors="replace").split())[:200]
