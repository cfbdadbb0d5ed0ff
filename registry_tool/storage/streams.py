"""streams.py: standard output and error that outlive their reader. Decides nothing, prints nothing."""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress
from typing import Any, TextIO

STDIN, STDOUT, STDERR = 0, 1, 2


class _Pipe(io.FileIO):
    """A pipe that takes what is written to it after its reader has left, and drops it."""

    reader_left = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.reader_left = True
            drop(self.fileno())
            return memoryview(data).nbytes


def fill_closed() -> None:
    """Open standard streams that were closed before we started (`>&-`) on nothing, so that no file takes their place.

    What a library prints would go into it.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(STDOUT, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", closefd=False)


def outlive_readers() -> None:
    """Let the program run to its end where a reader of its output leaves (`| head -1`, `| grep -q`).

    What it found then decides the exit code, not the moment at which the reader had seen enough.
    """
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)


def keep_output_apart() -> None:
    """Give `sys.stdout` a descriptor of its own: what a child process or a library in C prints goes to standard error.

    For a process that runs plugins, whose prints must not get between the lines of a JSON document.
    """
    stream = sys.stdout
    with suppress(AttributeError, OSError, ValueError):  # closed before we started, or no file: a test's
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == STDOUT:
            stream.flush()
            own = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)
            sys.stdout = os.fdopen(own, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def reader_left() -> bool:
    """Whether standard output has no reader any more: a command that prints without end may stop."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Pipe) and raw.reader_left


def drop(descriptor: int) -> None:
    """What is written to a descriptor from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
    finally:
        os.close(nowhere)


def _outliving(stream: TextIO) -> TextIO:
    with suppress(AttributeError, OSError, ValueError):  # closed before we started, or no file: a test's
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
        if (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            writer = io.BufferedWriter(_Pipe(descriptor, "wb", closefd=False))
            return io.TextIOWrapper(
                writer,
                stream.encoding,
                stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
    return stream
