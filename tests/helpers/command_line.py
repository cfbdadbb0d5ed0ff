"""command_line.py: the program in this process, in a folder and an environment of its own. Tests nothing.

It knows `registry_tool.cli` alone, so that no move inside the project touches it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from registry_tool import cli

UNSET = ("REGISTRY_JSON", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "FORCE_COLOR", "PYTHONPATH", "COLUMNS")
SET = {"NO_COLOR": "1", "TZ": "UTC", "COLUMNS": "80"}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the program gave."""

    code: int
    out: str
    err: str


def run(folder: Path, *arguments: object) -> Ran:
    """Run `registry ARGUMENTS` in a folder; an exception that the program does not turn into an exit code passes."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with _surroundings(folder, ["registry", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


@contextmanager
def _surroundings(folder: Path, argv: list[str]) -> Iterator[None]:
    environment, there, before = dict(os.environ), Path.cwd(), sys.argv
    try:
        for name in UNSET:
            os.environ.pop(name, None)
        os.environ.update(SET)
        os.chdir(folder)
        sys.argv = argv
        yield
    finally:
        sys.argv = before
        os.chdir(there)
        os.environ.clear()
        os.environ.update(environment)
