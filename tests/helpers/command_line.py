"""command_line.py: the program, in this process or in one of its own. Tests nothing.

It knows `registry_tool.cli` and where plugins are loaded, so that no other move inside the project touches it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import pytest

from registry_tool import cli
from registry_tool.plugins.manager import Plugins

UNSET = ("REGISTRY_JSON", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "FORCE_COLOR", "PYTHONPATH", "COLUMNS")
SET = {"NO_COLOR": "1", "TZ": "UTC", "COLUMNS": "80"}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the program gave."""

    code: int
    out: str
    err: str


class Program(Protocol):
    """The fixture `registry`."""

    def __call__(self, *arguments: object, plugins: Plugins | None = None) -> Ran: ...


def run(folder: Path | None, *arguments: object, plugins: Plugins | None = None) -> Ran:
    """`registry ARGUMENTS` in this process: everything but a SystemExit fails the test, so no traceback goes unseen.

    In a folder it has an environment of its own too; with None it has the test's.
    """
    out, err, argv = io.StringIO(), io.StringIO(), ["registry", *map(str, arguments)]
    loaded = patch("registry_tool.plugins.manager.load", lambda: plugins) if plugins is not None else nullcontext()
    with (
        _surroundings(folder) if folder else nullcontext(),
        patch.object(sys, "argv", argv),
        loaded,
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    return Ran(int(end.value.code or 0), out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> Ran:
    """`registry ARGUMENTS` in this process for what several tests share; AssertionError where it fails."""
    ran = run(Path(), *arguments)
    assert ran.code == 0, ran.err
    return ran


def program(*arguments: object, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program as its users do; CalledProcessError where it does not exit with 0."""
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    options = {"check": True, "capture_output": True, "text": True, "timeout": timeout} | options
    return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]  # checked by the tests


def program_without(modules: tuple[str, ...], *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, which finds and imports none of these modules."""
    blocked = f"""
import sys
sys.modules |= dict.fromkeys({modules!r})
from registry_tool.cli import main
main()
"""
    command = [sys.executable, "-c", blocked, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    environment, there = dict(os.environ), Path.cwd()
    try:
        for name in UNSET:
            os.environ.pop(name, None)
        os.environ.update(SET)
        os.chdir(folder)
        yield
    finally:
        os.chdir(there)
        os.environ.clear()
        os.environ.update(environment)
