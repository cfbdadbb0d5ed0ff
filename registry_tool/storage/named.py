"""named.py: the bytes of one file that a person named, or why they cannot be had. Knows no registry's folder."""

from __future__ import annotations

from pathlib import Path

from registry_tool.errors import InputError, WorldError


def read_named(path: Path, max_bytes: int, expected: str, hint: str = "check the path") -> bytes:
    """All of it. Raises InputError for no such file and a larger one, WorldError where it cannot be read.

    expected: what the file should be, for people. hint: what helps where it is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected {expected}: name the file in it") from None
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: file not found, expected {expected}: check the path") from None
    except OSError as error:
        reason = error.strerror or error
        raise WorldError(f"{path}: it cannot be read: {reason}: check its owner, its mode and the disk") from error
    if len(data) > max_bytes:
        raise InputError(f"{path}: found more than {max_bytes} bytes, expected {expected} of at most that: {hint}")
    return data
