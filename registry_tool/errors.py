"""errors.py: the errors this program raises on purpose, and its exit codes. Prints nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import IntEnum

from registry_tool.findings import Finding


class ExitCode(IntEnum):
    """What the process says to its caller; used by `cli.py` alone."""

    OK = 0  # done, nothing to object to
    REJECTED = 1  # judged and rejected: an error finding, HOLD, a refused flip
    UNUSABLE = 2  # cannot be judged: usage or input
    BROKEN = 3  # environment error: disk, permission, a plugin that does not load


class RegistryError(Exception):
    """The base of all errors that end in one line for the user; the message says where, what and what to do.

    findings: what is wrong with the data, each a `findings.Finding`, where that is why.
    """

    exit_code = ExitCode.BROKEN

    def __init__(self, message: str = "", findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class InputError(RegistryError):
    """What the user typed or pointed at cannot be used: no such file or id, a corpus without the named column."""

    exit_code = ExitCode.UNUSABLE


class RejectedError(RegistryError):
    """Judged and refused: a second flip, random rows, a production id trained again."""

    exit_code = ExitCode.REJECTED


class WorldError(RegistryError):
    """Environment error: a full or read-only disk, a lock that is never released, an engine that died."""

    exit_code = ExitCode.BROKEN


def need_linux() -> None:
    """Raises WorldError elsewhere: files are opened, locked and limited by what Linux has."""
    if sys.platform != "linux":
        raise WorldError(f"found the platform {sys.platform}, expected linux: run it in a container, or in WSL")


def environment_error(error: OSError) -> WorldError:
    """What the system refused, as the one line that a user gets."""
    return WorldError(f"{error.filename or 'output'}: {error.strerror}: free or unlock it and run again")


class PluginError(WorldError):
    """A plugin that does not load, breaks a hook's contract, or owns what another one owns already."""
