"""Tests of children.py: which process serves which prober, and that none is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from resource import RLIMIT_CPU, getrlimit
from unittest.mock import patch

import pytest
import tiny_models

from registry_tool.sandbox import children
from registry_tool.sandbox.children import kept_children
from registry_tool.sandbox.prober import Prober

pytestmark = pytest.mark.slow
MODEL = tiny_models.model().SerializeToString()
ASLEEP = (sys.executable, "-c", "import sys; sys.stdin.read()")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that probers start, outside of the context that the tests run in."""
    found: list[subprocess.Popen[bytes]] = []

    real = subprocess.Popen

    def popen(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        found.append(real(*arguments, **options))  # type: ignore[call-overload]  # passed on
        return found[-1]

    with patch.object(children, "pool", None), patch("registry_tool.sandbox.prober.subprocess.Popen", popen):
        yield found


def look() -> None:
    with Prober() as prober:
        assert prober.run(MODEL) == ()


def test_a_child_ends_with_its_prober(started: list[subprocess.Popen[bytes]]) -> None:
    """Outside of the context each prober has a child of its own."""
    look()
    look()
    assert [child.poll() is not None for child in started] == [True, True]


def test_one_child_serves_many_probers(started: list[subprocess.Popen[bytes]]) -> None:
    """Within the context the second prober takes the first one's child; it ends with the outermost context."""
    with kept_children():
        look()
        with kept_children():
            look()
        look()
        assert [child.poll() for child in started] == [None]
    assert started[0].poll() is not None


def test_the_same_bytes_are_looked_at_once(started: list[subprocess.Popen[bytes]]) -> None:
    """Within the context a prober knows what another one's child said of a model; outside of it a child is asked."""

    def read_and_check() -> int | None:
        with Prober() as prober:
            assert prober.read(MODEL).inputs
            assert prober.check(MODEL) == ()
            return prober.pid

    with kept_children():
        assert [read_and_check(), read_and_check()] == [started[0].pid, None]
    assert read_and_check() == started[1].pid


def test_a_child_in_the_middle_of_a_model_is_not_kept(started: list[subprocess.Popen[bytes]]) -> None:
    """Where the run stops between a question and its answer, the next prober starts another child."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with kept_children():
        look()
        with pytest.raises(KeyboardInterrupt), Prober() as prober, patch("os.write", interrupt):
            prober.run(MODEL)
        look()
        assert [child.poll() is None for child in started] == [False, True]


def test_other_limits_need_another_child(started: list[subprocess.Popen[bytes]]) -> None:
    """What a child inherited, or was started with, is part of what it is."""
    with kept_children():
        look()
        with Prober(cpu=3) as prober:
            assert prober.run(MODEL) == ()
        soft, hard = getrlimit(RLIMIT_CPU)
        with patch("registry_tool.sandbox.children.resource.getrlimit", lambda limit: (soft, hard - 1)):
            look()
    assert len(started) == 3


def test_a_fork_takes_no_child_of_its_parent() -> None:
    """Two processes on one pipe would read each other's answers."""
    with patch.object(children, "pool", None), kept_children():
        child = subprocess.Popen(ASLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert children.keep(ASLEEP, child)
        with patch("os.getpid", lambda: os.getppid()):
            assert children.kept(ASLEEP) is None
        assert children.kept(ASLEEP) is child
        assert children.keep(ASLEEP, child)
    assert child.poll() is not None


def test_more_than_two_idle_children_of_a_kind_are_not_kept() -> None:
    """Two serve a migration and its checks; a third one is for its prober to end."""
    with patch.object(children, "pool", None), kept_children():
        waiting = [subprocess.Popen(ASLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
        assert [children.keep(ASLEEP, child) for child in waiting] == [True, True, False]
        children.end(waiting[2])
    assert all(child.poll() is not None for child in waiting)


def test_a_child_that_ended_meanwhile_is_not_given_out() -> None:
    """It is reaped, and the prober starts another one."""
    with patch.object(children, "pool", None), kept_children():
        child = subprocess.Popen(ASLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert children.keep(ASLEEP, child)
        child.kill()
        child.wait()
        assert children.kept(ASLEEP) is None
