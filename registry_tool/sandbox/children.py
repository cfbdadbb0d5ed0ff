"""children.py: processes kept from one prober for the next, so that their libraries load once. Asks nothing."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

Child = subprocess.Popen[bytes]
Need = tuple[object, ...]  # what two probers must have in common for one child to serve both

MAX_IDLE = 2  # of one need: a migration has a prober of its own while it asks the checks

pool: dict[Need, list[Child]] | None = None  # None outside of `kept_children`


@contextmanager
def kept_children() -> Iterator[None]:
    """Within it, the child of a prober that ends serves the next one with the same command and limits.

    For runs of many probers, such as tests: a child that has answered all that it was asked knows nothing any more of
    the models it saw. The children end with the context, or with the outermost one.
    """
    global pool
    if pool is not None:
        yield
        return
    pool = {}
    try:
        yield
    finally:
        idle, pool = pool, None
        for child in chain.from_iterable(idle.values()):
            end(child)


def keep(command: tuple[str, ...], child: Child) -> bool:
    """Take a child that waits for its next model; False where none is kept, and it has to be ended."""
    idle = pool.setdefault(_need(command), []) if pool is not None else None
    if idle is None or len(idle) >= MAX_IDLE or child.poll() is not None:
        return False
    idle.append(child)
    return True


def kept(command: tuple[str, ...]) -> Child | None:
    """A child that was kept and lives, now the caller's."""
    idle = pool.get(_need(command), []) if pool is not None else []
    while idle:
        child = idle.pop()
        if child.poll() is None:
            return child
        end(child)
    return None


def end(child: Child, grace: float = 0.0) -> int:
    """The child's exit status; it is killed where it does not end by itself within `grace` seconds."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    child.kill()
    status = child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
    return status


def _need(command: tuple[str, ...]) -> Need:
    """A fork of this process may not talk into its children, and limits are inherited when a child starts."""
    limits = (resource.getrlimit(limit) for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU))
    return (os.getpid(), *command, *limits)
