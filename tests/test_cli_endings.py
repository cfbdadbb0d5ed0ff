"""Tests of the ways in which a run can end: a reader that leaves, Ctrl-C, outputs that cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Made, Program, Thumbs, program, with_plugin
from sandbox import Sandbox

from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, hookimpl
from registry_tool.plugins.manager import load

# ---- the ways in which a run can end ----------------------------------------------------------------------------


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_leaves_is_no_error(production: Sandbox) -> None:
    """`registry ... | head -1`: no traceback, no word, and not an exit code that means a rejection."""
    run = start("rule")
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == ""
    assert run.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_is_a_broken_world(production: Sandbox) -> None:
    """Output that cannot be written is not success: exit code 3 and one line."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "registry_tool", "validate", str(production.path)]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)


def is_training(process: subprocess.Popen[str]) -> bool:
    """Whether the process has loaded torch and started its workers."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return "libtorch_cpu" in maps and len(os.listdir(f"/proc/{process.pid}/task")) > 2


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_ctrl_c_leaves_no_trace(smoke: Sandbox, made: Made) -> None:
    """SIGINT to a real training run: exit 130, one line, the folder as it was, and the next command is not blocked."""
    before = smoke.tree()
    endless = ("--corpus", made.corpus, "--epochs", 10**6, "--registry", smoke.path)
    run = start("train", "fr_ensemble", "--id", "endless", *endless)
    deadline = time.monotonic() + 60
    while not is_training(run):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # into the epochs; nothing depends on how far
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert err.strip() == "registry: interrupted, nothing was changed"
    assert smoke.tree() == before
    assert not list(smoke.folder.rglob(".staging-*"))
    assert program("prune", "--registry", smoke.path).returncode == 0


def test_an_output_file_is_whole_or_not_at_all(thumb: Sandbox, registry: Program, tmp_path: Path) -> None:
    """A prediction that fails half way leaves the old file and nothing beside it."""

    class Failing(Thumbs):
        @hookimpl
        def registry_predict(self, view: Any, request: Any) -> Any:
            yield Batch({"row": [0]})
            raise InputError("rows.csv:7: found nan, expected a number: correct it")

    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "out.csv").write_text("old")
    arguments = ("predict", "t", "--corpus", "rows.csv", "--registry", thumb.path, "-o", folder / "out.csv")
    ran = registry(*arguments, plugins=with_plugin(Failing()))
    assert (ran.code, "rows.csv:7" in ran.err) == (2, True)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("out.csv", "old")]


@pytest.mark.parametrize("command", ["predict", "gate", "card"])
def test_an_output_file_that_cannot_be_made_is_named(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path, command: str
) -> None:
    """A folder that is not there: one line that names the path, not success."""
    target = tmp_path / "no" / "such" / "out"
    more = ("--corpus", made.heldout) if command == "predict" else ()
    ran = registry(command, "tiny", *more, "-o", target, "--registry", smoke.path)
    assert ran.code in (2, 3)
    assert ran.err.count("\n") == 1
    assert "no/such" in ran.err


def test_two_commands_share_nothing(production: Sandbox, registry: Program) -> None:
    """Plugins of one run are not those of the next."""
    plugins = with_plugin(Thumbs())
    assert "thumb" in registry("plugins", plugins=plugins).out
    assert "thumb" not in registry("plugins", plugins=load()).out


@pytest.mark.parametrize("beside", ["", "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"])
def test_the_short_way_out_loses_nothing(beside: str) -> None:
    """The end of the process waits for threads, runs what was registered for it, and keeps output and exit code."""
    script = (
        "import atexit, sys, threading, time\nfrom registry_tool import cli\n"
        f"atexit.register(print, 'end')\n{beside}\nsys.argv = ['registry', 'rule', 'nonsense']\ncli.start()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, "nonsense" in ran.stderr) == (2, True)
    assert ran.stdout.split() == (["thread", "end"] if beside else ["end"])
