"""gitbase.py: the registry as it stood at a git revision, or in an older file. Reads, never writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from registry_tool.errors import InputError, WorldError
from registry_tool.store import Loaded, load, read


def load_base(base: str, registry: Path) -> Loaded | None:
    """The registry at `base`: a git revision, else an older registry file; None where the revision has no registry yet.

    The revision goes first: a file of that name, which a change could add, does not stand in for it. Raises InputError
    for a revision git does not know, WorldError where git does not run.
    """
    folder = registry.resolve().parent
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if commit.returncode != 0:
        if Path(base).is_file():
            return load(Path(base))
        raise InputError(f"--base {base}: {_why_not(folder)}")
    revision = commit.stdout.decode().strip()
    top = _git(folder, "rev-parse", "--show-toplevel").stdout.decode().strip()
    path = registry.resolve().relative_to(Path(top).resolve()).as_posix()
    if not _git(folder, "ls-tree", "--full-tree", revision, "--", path).stdout:
        return None
    blob = _git(folder, "cat-file", "blob", f"{revision}:{path}")
    return read(registry, blob.stdout) if blob.returncode == 0 else None


def deleted(folder: Path, first: str | None = None, last: str | None = None) -> list[str]:
    """The files below a folder whose deletion is staged, or was made between two revisions; [] outside a repository."""
    what = ["--end-of-options", f"{first}...{last}"] if first and last else ["--cached"]
    said = _git(folder, "diff", "--name-only", "--no-renames", "--diff-filter=D", "--relative", "-z", *what)
    return said.stdout.decode(errors="replace").split("\0")[:-1] if said.returncode == 0 else []


def _why_not(folder: Path) -> str:
    inside = _git(folder, "rev-parse", "--is-shallow-repository")
    if inside.returncode != 0:
        said = " ".join(inside.stderr.decode(errors="replace").split())[:200]
        return f"found no such file, and git says {said!r}, expected a revision of the registry's repository or a file"
    if inside.stdout.strip() == b"true":
        return (
            "git knows no such commit in this shallow clone, expected a revision: fetch full history (fetch-depth: 0)"
        )
    return (
        "git knows no such commit, and there is no such file, expected a revision or an older registry: check the name"
    )


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error
