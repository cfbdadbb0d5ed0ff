"""gitbase.py: the registry as it stood at a git revision, or in an older file. Reads, never writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from registry_tool.errors import InputError, WorldError
from registry_tool.store import Loaded, load, read


def load_base(base: str, registry: Path) -> Loaded | None:
    """The registry at `base`: an older registry file, else a git revision; None where the revision has no registry yet.

    Raises InputError for a revision git does not know, WorldError where git does not run.
    """
    if Path(base).is_file():
        return load(Path(base))
    folder = registry.resolve().parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise InputError(f"--base {base}: {folder} is in no git repository, expected one: give an older registry file")
    if _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}") is None:
        shallow = (_git(folder, "rev-parse", "--is-shallow-repository") or b"").strip() == b"true"
        remedy = "this clone is shallow: fetch it with full history (fetch-depth: 0)" if shallow else "check the name"
        raise InputError(f"--base {base}: git knows no such commit, expected a revision or a file: {remedy}")
    path = registry.resolve().relative_to(Path(top.decode().strip()).resolve()).as_posix()
    if not _git(folder, "ls-tree", "--full-tree", base, "--", path):
        return None
    data = _git(folder, "cat-file", "blob", f"{base}:{path}")
    return read(registry, data) if data is not None else None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git printed; None where it said no."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError as error:
        raise WorldError(f"git: does not run ({error.strerror}): install git") from error
    return done.stdout if done.returncode == 0 else None
