"""children.py: processes kept from one prober for the next, and what they answered. Asks nothing."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

from registry_tool.values import Json

Child = subprocess.Popen[bytes]
Need = tuple[object, ...]  # what two probers must have in common for one child to serve both
ProbeQuestion = tuple[str, ...]  # the task, and digests of all that the child is given
ChildAnswer = dict[str, Json]

MAX_IDLE = 2  # of one need: a migration has a prober of its own while it asks the checks
MAX_ANSWERS = 5000  # a few kilobytes each


@dataclass(frozen=True, slots=True)
class ChildPool:
    """What serves the probers to come: children that wait, and what they answered."""

    idle: dict[Need, list[Child]] = field(default_factory=dict)
    answers: dict[tuple[Need, ProbeQuestion], ChildAnswer] = field(default_factory=dict)


pool: ChildPool | None = None  # None outside of `kept_children`


@contextmanager
def kept_children() -> Iterator[None]:
    """Within it, the child of a prober that ends serves the next one with the same command and limits.

    For runs of many probers, such as tests: a child that has answered all that it was asked knows nothing any more of
    the models it saw. What it found is kept by the model's digest, so that the same bytes are looked at once. The
    children end with the context, or with the outermost one.
    """
    global pool
    if pool is not None:
        yield
        return
    pool = ChildPool()
    try:
        yield
    finally:
        idle, pool = pool.idle, None
        for child in chain.from_iterable(idle.values()):
            end(child)


def keep(command: tuple[str, ...], child: Child) -> bool:
    """Take a child that waits for its next model; False where none is kept, and it has to be ended."""
    idle = pool.idle.setdefault(_need(command), []) if pool is not None else None
    if idle is None or len(idle) >= MAX_IDLE or child.poll() is not None:
        return False
    idle.append(child)
    return True


def kept(command: tuple[str, ...]) -> Child | None:
    """A child that was kept and lives, now the caller's."""
    idle = pool.idle.get(_need(command), []) if pool is not None else []
    while idle:
        child = idle.pop()
        if child.poll() is None:
            return child
        end(child)
    return None


def are_kept() -> bool:
    """Whether this is within `kept_children`."""
    return pool is not None


def answer(command: tuple[str, ...], question: ProbeQuestion) -> ChildAnswer | None:
    """What a child of this command said before."""
    return None if pool is None else pool.answers.get((_need(command), question))


def remember(command: tuple[str, ...], question: ProbeQuestion, found: ChildAnswer) -> None:
    """Keep an answer that follows from the question alone."""
    if pool is not None and len(pool.answers) < MAX_ANSWERS:
        pool.answers[_need(command), question] = found


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
