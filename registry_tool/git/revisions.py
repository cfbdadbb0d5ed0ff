"""revisions.py: the registry as it stood at a git revision, or in an older file. Reads, never writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from registry_tool.documents.store import Loaded, load, read
from registry_tool.errors import InputError, WorldError
from registry_tool.strictjson import REGISTRY_MAX_BYTES

FETCH = "fetch full history (fetch-depth: 0)"


def load_base(base: str, registry: Path) -> Loaded | None:
    """The registry where HEAD left `base`, or in an older registry file; None where there was no registry yet.

    The revision goes first: a file of that name, which a change could add, does not stand in for it. `main` means
    origin's where there is no other, as in CI. What landed on `base` since is no change of this side: the merge base
    counts, as in `git diff base...`. A registry that was moved since is found at its old place.
    Raises InputError for a revision git does not know, WorldError where git does not run.
    """
    folder = registry.resolve().parent
    commit = _commit(folder, base) or _commit(folder, f"refs/remotes/origin/{base}")
    if commit is None:
        if Path(base).is_file():
            return load(Path(base))
        raise InputError(f"--base {base}: {_why_not(folder)}")
    revision = _fork_point(folder, base, commit)
    path = path_in_repository(registry)
    with blobs(folder) as blob:
        data = blob(f"{revision}:{path}")
        return read(registry, data) if data is not None else _moved(folder, base, revision, registry, blob)


def _commit(folder: Path, name: str) -> str | None:
    found = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def _fork_point(folder: Path, base: str, commit: str) -> str:
    """The merge base of HEAD and the commit; the commit itself where HEAD is its merge in a clone of depth 1."""
    if _commit(folder, "HEAD") is None:
        return commit
    found = git(folder, "merge-base", commit, "HEAD")
    if found.returncode == 0:
        return found.stdout.decode().strip()
    head = git(folder, "cat-file", "commit", "HEAD").stdout.decode(errors="replace").partition("\n\n")[0]
    if f"parent {commit}" in head.splitlines():  # what actions/checkout makes: the parents are named, if not there
        return commit
    if is_shallow(folder):
        raise InputError(f"--base {base}: this shallow clone does not reach back to where HEAD left it: {FETCH}")
    raise InputError(f"--base {base}: it has no ancestor in common with HEAD: name a branch this one came from")


def _moved(folder: Path, base: str, revision: str, registry: Path, blob: Blob) -> Loaded | None:
    """The one registry of the revision that is gone from the working tree; None where none is."""
    top = _top(folder)
    tree = git(folder, "ls-tree", "-r", "-z", "--full-tree", "--name-only", revision).stdout.decode(errors="replace")
    gone = [name for name in tree.split("\0") if name.endswith(".json") and not (top / name).exists()]
    found: dict[str, Loaded] = {}
    for name in gone:
        data = blob(f"{revision}:{name}")
        loaded = read(registry, data) if data is not None and b'"models"' in data else None
        if loaded is not None and loaded.registry is not None:
            found[name] = loaded
    if len(found) > 1:
        raise InputError(
            f"--base {base}: found {', '.join(sorted(found))} gone, expected one registry that became {registry.name}: "
            "compare with a file: git show REV:PATH > old.json"
        )
    return next(iter(found.values()), None)


def deleted(folder: Path, first: str | None = None, last: str | None = None) -> list[str]:
    """The files below a folder whose deletion is staged, or was made between two revisions; [] outside a repository."""
    what = ["--end-of-options", f"{first}...{last}"] if first and last else ["--cached"]
    said = git(folder, "diff", "--name-only", "--no-renames", "--diff-filter=D", "--relative", "-z", *what)
    return said.stdout.decode(errors="replace").split("\0")[:-1] if said.returncode == 0 else []


def _why_not(folder: Path) -> str:
    inside = git(folder, "rev-parse", "--is-shallow-repository")
    if inside.returncode != 0:
        said = " ".join(inside.stderr.decode(errors="replace").split())[:200]
        return f"found no such file, and git says {said!r}, expected a revision of the registry's repository or a file"
    if inside.stdout.strip() == b"true":
        return f"git knows no such commit in this shallow clone, expected a revision: {FETCH}"
    return (
        "git knows no such commit, and there is no such file, expected a revision or an older registry: check the name"
    )


# ---- git itself -------------------------------------------------------------------------------------------------


def is_shallow(folder: Path) -> bool:
    return git(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


def _top(folder: Path) -> Path:
    return Path(git(folder, "rev-parse", "--show-toplevel").stdout.decode().rstrip("\n")).resolve()


def path_in_repository(registry: Path) -> str:
    """The file's path from the top of its repository."""
    return registry.resolve().relative_to(_top(registry.resolve().parent)).as_posix()


class Blob:
    """An object's bytes by any name git knows, from one `git cat-file --batch` process; None where there is none."""

    def __init__(self, ask: IO[bytes], answer: IO[bytes]) -> None:
        self._ask, self._answer = ask, answer

    def __call__(self, name: str) -> bytes | None:
        if "\n" in name:
            return None
        self._ask.write(name.encode(errors="surrogateescape") + b"\n")
        self._ask.flush()
        header = self._answer.readline().split()
        if len(header) != 3 or header[1] not in (b"blob", b"tree", b"commit", b"tag"):
            return None  # missing, ambiguous
        data = self._answer.read(int(header[2]) + 1)[:-1]
        return data if header[1] == b"blob" and len(data) <= REGISTRY_MAX_BYTES else None


@contextmanager
def blobs(folder: Path) -> Iterator[Blob]:
    command = ["git", "-C", str(folder), "cat-file", "--batch"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Blob(process.stdin, process.stdout)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error
