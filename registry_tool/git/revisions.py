"""revisions.py: which revision a name means, and the registry as it was there or in an older file. Never writes.

Repository, path and revision are decided first, from names alone; then the registry of that revision is read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from registry_tool.documents.store import REGISTRY_NAMES, Loaded, Unreadable, load, read
from registry_tool.errors import InputError
from registry_tool.git.repository import (
    BASE_OPTION,
    FETCH_HINT,
    FULL_HASH,
    REGULAR_MODE,
    Option,
    RepositoryPath,
    blobs,
    find_in_tree,
    git,
    is_shallow,
    list_tree,
    locate,
)
from registry_tool.values import visible

REMOTE_BRANCH = re.compile(r"refs/remotes/(?P<remote>[^/]+)/(?P<branch>.+)\Z")
SHORT_HASH = re.compile(r"[0-9a-f]{4,63}\Z")
# What follows a name: its ancestors, ~2 or ^1, and ^{commit}.
REVISION_PATTERN = re.compile(r"(?P<name>[^~^:?*\[\\\s]+?)(?P<steps>(?:~\d*|\^\d*|\^\{commit\})*)\Z")


@dataclass(frozen=True, slots=True)
class Base:
    """What a change is compared with.

    name: as it was typed. commit: where HEAD left that revision; None where an older file was named.
    path: of the registry there, from the top of the repository, or of the file; None where there was no registry yet.
    place: of the registry that is compared with it; None where an older file was named.
    """

    name: str
    registry: Loaded | Unreadable | None
    commit: str | None = None
    path: str | None = None
    place: RepositoryPath | None = None

    @property
    def moved_to(self) -> str | None:
        """The path of the registry now, where it was another one at the base."""
        return self.place.path if self.place is not None and self.path not in (None, self.place.path) else None

    def __str__(self) -> str:
        commit = f" ({self.commit[:12]})" if self.commit else ""
        return f"{self.name}{commit}"


def load_base(name: str, registry: Path, searched_from: Path | None = None, option: Option = BASE_OPTION) -> Base:
    """The registry where HEAD left a revision; it may have been moved since.

    name: a branch, a tag, `refs/...`, HEAD or a commit's hash, with ~N or ^N after it; never a file. `main` is
    origin's where there is no other, as in CI. What landed there since is no change of this side: the merge base
    counts, as in `git diff NAME...`. searched_from: the folder from which the registry was looked for; the same search
    at the base must find what became this one. None where the registry was named.
    Raises InputError for a name that means nothing or two things, WorldError where git does not run.
    """
    place = locate(registry, option)
    revision = _fork_point(place, name, _commit(place, name))
    path = _path_at(place, name, revision, searched_from)
    item = find_in_tree(place, revision, path) if path is not None else None
    if item is None:
        return Base(name, None, revision, None, place)
    with blobs(place.top) as blob:
        data = blob(item.oid)
    if data is None:
        raise InputError(f"{option} {name}: {revision[:12]}:{visible(item.path)} cannot be read: check the clone")
    return Base(name, read(registry, data), revision, item.path, place)


def files_beside(base: Base) -> frozenset[str]:
    """The files that the base had in its registry's folder, by their paths from there; no registry there, no files."""
    if base.place is None or base.commit is None or base.path is None:
        return frozenset()
    folder = f"{base.path.rpartition('/')[0]}/".lstrip("/")
    paths = (item.path for item in list_tree(base.place, base.commit))
    return frozenset(path.removeprefix(folder) for path in paths if path.startswith(folder))


def is_head(base: Base) -> bool:
    """Whether HEAD itself is the base: no commit was made since."""
    return base.place is not None and base.commit == _exact(base.place.top, "HEAD")


def load_base_file(file: Path) -> Base:
    """The registry in an older file, which was named as one."""
    return Base(str(file), load(file), path=str(file))


# ---- the revision -----------------------------------------------------------------------------------------------


def _commit(place: RepositoryPath, name: str) -> str:
    """The commit that a name means. Raises InputError where it means none, or more than one."""
    top, option = place.top, place.option
    parsed = REVISION_PATTERN.match(name)
    if parsed is None or name.startswith("-"):
        raise InputError(
            f"{option} {visible(name)!r}: expected a branch, a tag or a commit, perhaps with ~1 or ^1 after it"
            f"{_file_hint(option, name)}"
        )
    named = parsed["name"]
    found = {ref: oid for ref in _candidates(top, named) if (oid := _exact(top, ref))}
    if not found and (oid := _exact(top, ref := f"refs/remotes/origin/{named}")):
        found = {ref: oid}
    commits = {ref: commit for ref, oid in found.items() if (commit := _peeled(top, oid, parsed["steps"]))}
    if len(set(commits.values())) > 1:
        listed = ", ".join(f"{ref} is {commit[:12]}" for ref, commit in commits.items())
        ref, commit = next(iter(commits.items()))
        full = commit if ref == "HEAD" else ref  # no name of HEAD is longer
        raise InputError(f"{option} {name}: the name is ambiguous: {listed}: name one in full, {option} {full}")
    if not commits:
        raise InputError(f"{option} {visible(name)}: {_why_not(top, name)}{_file_hint(option, name)}")
    return next(iter(commits.values()))


def _candidates(top: Path, name: str) -> Sequence[str]:
    """All that a name can mean: refs in full, HEAD, hashes in full. Nothing else can take the place of one of these."""
    if FULL_HASH.match(name) or name.startswith("refs/"):
        return (name,)
    # `--disambiguate` knows hashes alone: a ref of this name is a candidate of its own.
    hashes = git(top, "rev-parse", f"--disambiguate={name}").stdout.decode().split() if SHORT_HASH.match(name) else ()
    spaces = (f"refs/{space}{name}" for space in ("", "heads/", "remotes/", "tags/"))
    return (*(("HEAD",) if name == "HEAD" else ()), *spaces, *hashes)


def _exact(top: Path, name: str) -> str | None:
    """The object that a full hash, a ref in full or HEAD names; None where there is no such ref."""
    if FULL_HASH.match(name):
        return name
    found = git(top, "show-ref", "--verify", "--hash", "--", name)
    return found.stdout.decode().strip() if found.returncode == 0 else None


def _peeled(top: Path, oid: str, steps: str) -> str | None:
    found = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{oid}{steps}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def _fork_point(place: RepositoryPath, name: str, commit: str) -> str:
    """The merge base of HEAD and the commit; the commit itself where HEAD is its merge in a clone of depth 1."""
    top, option = place.top, place.option
    head = _exact(top, "HEAD")
    if head is None:
        return commit
    found = git(top, "merge-base", commit, head)
    if found.returncode == 0:
        return found.stdout.decode().split()[0]
    document = git(top, "cat-file", "commit", head).stdout.decode(errors="replace").partition("\n\n")[0]
    if f"parent {commit}" in document.splitlines():  # what actions/checkout makes: the parents are named, if not there
        return commit
    if is_shallow(top):
        raise InputError(f"{option} {name}: this shallow clone does not reach back to where HEAD left it: {FETCH_HINT}")
    raise InputError(f"{option} {name}: it has no ancestor in common with HEAD: name a branch this one came from")


def _why_not(top: Path, name: str) -> str:
    if is_shallow(top):
        return f"git knows no such commit in this shallow clone, expected a revision: {FETCH_HINT}"
    if remote := REMOTE_BRANCH.match(name):
        branch = f"git fetch {visible(remote['remote'])} {visible(remote['branch'])}"
        return f"git knows no such branch, expected one that was fetched: {branch}"
    return "git knows no such commit, expected a branch, a tag or a commit: check the name"


def _file_hint(option: Option, name: str) -> str:
    is_file = option.file_option is not None and os.path.lexists(name)
    return f"; an older registry is named with {option.file_option}" if is_file else ""


def _file_command(option: Option) -> str:
    return ", made by git show REV:PATH > FILE" if option.file_option is not None else ""


# ---- the path ---------------------------------------------------------------------------------------------------


def _path_at(place: RepositoryPath, name: str, revision: str, searched_from: Path | None) -> str | None:
    """Where the registry lay at a revision: at its path, or where it was moved from; None where there was none."""
    if searched_from is not None:
        before = _search(place, revision, searched_from)
        if before is not None and before != place.path:
            if find_in_tree(place, revision, place.path) is not None or _is_file(place.top, before):
                raise InputError(
                    f"{place.option} {name}: at the base the registry was {visible(before)}, "
                    f"now {visible(place.path)} is found in its place, expected one of the two: name it with --registry"
                )
            return before
    if find_in_tree(place, revision, place.path) is not None:
        return place.path
    return _moved(place, name, revision)


def _search(place: RepositoryPath, revision: str, folder: Path) -> str | None:
    """What a search for the registry finds at a revision: in a folder, or in one of its parents."""
    start = PurePosixPath(os.path.relpath(os.path.realpath(folder), os.path.realpath(place.top)))
    for parent in (start, *start.parents):
        found = [
            path for path in (str(parent / name) for name in REGISTRY_NAMES) if find_in_tree(place, revision, path)
        ]
        if len(found) > 1:
            raise InputError(
                f"{revision[:12]}: found {' and '.join(map(visible, found))}, expected one registry: "
                "name one with --registry"
            )
        if found:
            return found[0]
    return None


def _moved(place: RepositoryPath, name: str, revision: str) -> str | None:
    """The one registry of the revision that is gone from the working tree; None where none is."""
    files = [item for item in list_tree(place, revision) if item.path.endswith(".json")]
    missing = [item for item in files if item.mode.startswith(REGULAR_MODE) and not _is_file(place.top, item.path)]
    found = []
    with blobs(place.top) as blob:
        for item in missing:
            data = blob(item.oid)
            if data is not None and b'"models"' in data and not read(place.top / item.path, data).findings:
                found.append(item.path)
    if len(found) > 1:
        raise InputError(
            f"{place.option} {name}: found {', '.join(sorted(map(visible, found)))} gone, expected one registry that "
            f"became {visible(place.path)}: {place.option.instead}{_file_command(place.option)}"
        )
    return found[0] if found else None


def _is_file(top: Path, path: str) -> bool:
    """Whether a regular file lies at a path of the working tree, reached through folders alone."""
    parts = PurePosixPath(path).parts
    folders = (top.joinpath(*parts[:count]) for count in range(1, len(parts)))
    try:
        if any(not stat.S_ISDIR(folder.lstat().st_mode) for folder in folders):
            return False
        return stat.S_ISREG((top / path).lstat().st_mode)
    except OSError:
        return False
