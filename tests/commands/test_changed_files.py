"""Tests of `validate --changed`: of the files that a commit touches, their registries are checked, and no others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Program, Ran, program
from places import EXAMPLES
from sandbox import Sandbox


@pytest.fixture
def repository(smoke: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with two registries, `model` and `broken`, and the working folder in it."""
    top = smoke.folder.parent
    shutil.copytree(EXAMPLES / "invalid" / "digest-mismatch", top / "broken")
    monkeypatch.chdir(top)
    monkeypatch.delenv("PRE_COMMIT_FROM_REF", raising=False)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "models")
    return top


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments], check=True)


def test_changed_files_name_their_registries(repository: Path, smoke: Sandbox, registry: Program) -> None:
    """Files of one registry check that one, once; files outside any check none; other folders do not count."""
    pinned = [path.relative_to(repository) for path in smoke.artifacts.iterdir()]
    ran = registry("validate", "--changed", "--level", "quick", *pinned, "README.md")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert registry("validate", "--changed", "broken/m.onnx").code == 1
    assert registry("validate", "--changed", "README.md", "docs/registry.json") == registry("validate", "--changed")
    assert registry("validate", "--changed").code == 0


def test_a_deletion_counts_as_a_change(
    repository: Path, smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pre-commit names no deleted file: git is asked, for the index or for the range that pre-commit speaks of."""
    oof = smoke.artifacts.relative_to(repository) / "evidence" / "oof.npz"
    git("rm", "-q", str(oof))
    ran = registry("validate", "--changed", "--level", "quick")
    assert (ran.code, "file-missing" in ran.out) == (1, True)
    git("commit", "-q", "-m", "without evidence")
    assert registry("validate", "--changed", "--level", "quick").code == 0
    monkeypatch.setenv("PRE_COMMIT_FROM_REF", "HEAD~1")
    monkeypatch.setenv("PRE_COMMIT_TO_REF", "HEAD")
    assert registry("validate", "--changed", "--level", "quick").code == 1


def test_changed_files_outside_a_repository(smoke: Sandbox) -> None:
    """Without git there are no deletions to ask for; the files named still count."""
    ran = program("validate", "--changed", "--level", "quick", "model/tiny", cwd=smoke.folder.parent)
    assert "1 entry: valid" in ran.stdout


def test_without_files_the_working_tree_says_what_changed(
    repository: Path, smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that git sees changed, new, staged or gone are the changed ones; nothing changed checks nothing."""
    monkeypatch.delenv("PRE_COMMIT_TO_REF", raising=False)
    assert registry("validate", "--changed") == Ran(0, "", "")
    (repository / "broken" / "notes.txt").write_text("new\n")
    ran = registry("validate", "--changed")
    assert (ran.code, "broken/registry.json" in ran.out, "model/registry.json" in ran.out) == (1, True, False)
    git("add", "broken/notes.txt")
    assert registry("validate", "--changed").code == 1
    git("commit", "-q", "-m", "notes")
    assert registry("validate", "--changed").code == 0
    (repository / "broken" / "m.onnx").unlink()
    assert "file-missing" in registry("validate", "--changed").out
