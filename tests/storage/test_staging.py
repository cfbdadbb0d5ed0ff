"""Tests of staging.py: `migrate` makes its folder whole or not at all, and writes over nothing of a person's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Program
from migrating import errors, old, run
from sandbox import tree
from tiny_models import entry, model, write

from registry_tool.errors import InputError
from registry_tool.storage.paths import STAGING_PREFIX
from registry_tool.storage.staging import NewFolder


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return old(tmp_path / "old", entry(tmp_path / "old", model()))


def test_a_registry_of_version_2_is_left_alone(simple: Path, tmp_path: Path, registry: Program) -> None:
    """It says so, and makes nothing."""
    assert registry("migrate", simple, "-o", tmp_path / "new").code == 0
    ran = registry("migrate", tmp_path / "new" / "registry.json", "-o", tmp_path / "newer")
    assert (ran.code, (tmp_path / "newer").exists()) == (2, False)
    assert "version 2 already" in ran.err


@pytest.mark.parametrize("what", ["file", "foreign", "edited", "inside", "link"])
def test_a_folder_that_is_taken_is_refused(simple: Path, tmp_path: Path, what: str) -> None:
    """Nothing of a person's is written over, and nothing is put into the old folder."""
    new = tmp_path / "new"
    if what == "file":
        new.write_text("mine")
    elif what == "foreign":
        write(new, "mine.txt", b"mine")
    elif what == "edited":
        run(simple, new)
        write(new, "m.onnx", b"edited")
    elif what == "inside":
        new = simple.parent / "new"
    else:
        new.symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"expected a|name another"):
        run(simple, new)
    assert tree(tmp_path) == before
    assert not [*tmp_path.glob(f"{STAGING_PREFIX}*")]


def test_an_empty_folder_will_do(simple: Path, tmp_path: Path) -> None:
    """A folder that is there and empty is taken."""
    (tmp_path / "new").mkdir()
    assert run(simple, tmp_path / "new").written
    assert errors(tmp_path / "new") == []


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_by_that_name(simple: Path, tmp_path: Path) -> None:
    """Killed before the last step there is no folder of that name; the next run clears up and makes it."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom registry_tool.storage.staging import NewFolder\n"
        f"with NewFolder(Path({str(tmp_path / 'new')!r})) as made:\n"
        "    (made.path / 'half').write_text('x')\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    with NewFolder(tmp_path / "new"):  # a living run's staging folder is let alone
        assert len([*tmp_path.glob(f"{STAGING_PREFIX}new-*")]) == 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "new").exists()
    assert len([*tmp_path.glob(f"{STAGING_PREFIX}*")]) == 1
    assert run(simple, tmp_path / "new").written
    assert [*tmp_path.glob(f"{STAGING_PREFIX}*")] == []
