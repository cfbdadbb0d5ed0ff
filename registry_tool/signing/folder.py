"""folder.py: the files of a folder as the digests that a signature covers, and what differs from a signed list.

No symbolic link is followed or signed: one in the folder is refused. Sizes are not limited; bytes are not kept.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.statement import DIGEST_ALGORITHMS, IGNORED_ALWAYS, FilesStatement
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem


def digests_of(path: Path, ignored: Sequence[str], algorithm: str = "sha256") -> dict[str, str]:
    """Digest by name of every file below the folder, sorted by name; of a file, its own under its name.

    ignored: files and folders to leave out, relative to the folder. Raises InputError for a symbolic link, socket or
    device in the folder.
    """
    skipped = {posixpath.normpath(name) for name in ignored}
    base = path if path.is_dir() else path.parent
    try:
        with Folder(base) as folder:
            items = folder.inventory(skipped=skipped) if path.is_dir() else [(path.name, "file")]
            found = {}
            for name, kind in items:
                if kind not in ("file", "folder"):
                    special = "special file" if kind == "other" else kind
                    raise InputError(f"{base / name}: found a {special}, expected files and folders only: remove it")
                if kind == "file":
                    found[name] = folder.digest(name, DIGEST_ALGORITHMS[algorithm])
            return found
    except FileProblem as problem:
        raise FileProblem(problem.rule, str(base / problem.path), problem.found, problem.expected) from problem


def relative_to(path: Path, ignored: Iterable[Path]) -> list[str]:
    """The paths to leave out as names inside the folder; those outside of it are dropped."""
    base = path.resolve()
    inside = [given.resolve() for given in ignored]
    return [given.relative_to(base).as_posix() for given in inside if given != base and given.is_relative_to(base)]


def statement_of(path: Path, ignored: Iterable[Path] = ()) -> FilesStatement:
    """What a signature over this folder (or file) covers. Raises InputError, also for a folder without files."""
    _check_that_it_exists(path)
    names = [*IGNORED_ALWAYS, *relative_to(path, ignored)]
    digests = digests_of(path, names)
    if not digests:
        raise InputError(f"{path}: found no file to sign, expected at least one")
    return FilesStatement(path.resolve().name, digests, "sha256", tuple(names))


def compare(
    statement: FilesStatement, path: Path, ignored: Iterable[Path] = (), *, extra_allowed: bool = False
) -> tuple[str, ...]:
    """Whether the folder holds exactly the signed files; returns the signed files that `ignored` left out.

    What is signed is compared, also where the statement, or the list of what is never signed, would leave it out.
    extra_allowed: files that nothing signed are left alone. Raises SignatureError, naming the first that differs, or a
    link; InputError for no such path.
    """
    _check_that_it_exists(path)
    given = relative_to(path, ignored)
    signed = {name: digest for name, digest in statement.digests.items() if not _is_ignored(name, set(given))}
    covered = {above for name in signed for above in _and_above(name)}
    unsigned = {posixpath.normpath(name) for name in (*IGNORED_ALWAYS, *statement.ignored)} - covered
    try:
        found = digests_of(path, [*unsigned, *given], statement.algorithm)
    except InputError as problem:
        raise SignatureError(str(problem)) from problem
    if not signed:
        raise SignatureError("every signed file is ignored: nothing was verified")
    if missing := sorted(signed.keys() - found.keys()):
        raise SignatureError(f"{missing[0]}: file not found, but it is signed{_more(missing)}")
    if changed := sorted(name for name in signed if signed[name] != found[name]):
        raise SignatureError(f"{changed[0]}: digest mismatch: the file is not the signed one{_more(changed)}")
    if not extra_allowed and (extra := sorted(found.keys() - signed.keys())):
        raise SignatureError(
            f"{extra[0]}: the file is not signed{_more(extra)}: remove it, or pass --ignore-unsigned-files"
        )
    return tuple(sorted(statement.digests.keys() - signed.keys()))


def _check_that_it_exists(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: file not found, expected a folder or a file: check the path")


def _is_ignored(name: str, skipped: set[str]) -> bool:
    return any(above in skipped for above in _and_above(name))


def _and_above(name: str) -> Iterator[str]:
    """The name, and those of the folders above it."""
    parts = name.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
