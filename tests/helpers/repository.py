"""repository.py: real git repositories for tests. Asserts nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

OWN_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"} | {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "test"), ("EMAIL", "test@example.org"))
}


@pytest.fixture
def own_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without this machine's settings and with a name of its own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in OWN_GIT.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, message: str = "change") -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def start(folder: Path) -> str:
    git(folder, "init", "--quiet", "--initial-branch", "main")
    return commit(folder, "start")
