"""test_engines.py: Ray gives the bytes that threads give here, also after a worker was killed; workers and pinning."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from corpora import digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import engines
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train

from registry_tool.errors import InputError, WorldError

pytestmark = pytest.mark.slow

DATA = make_corpus([14, 9, 12])
RECIPE = Recipe(seeds=(0, 1), epochs=60_000, hidden=16, batch_size=8)


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the engine is refused, naming what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install ray"):
        train(DATA, RECIPE, Execution(engine="ray"))


def test_a_cluster_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray raises where a machine is too busy, or a cluster is not there, is an environment error; a cluster that
    is started reports no use."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    words = r"^--engine: Ray does not start \(The current node timed out during startup\.\): look at `ray status`$"
    with pytest.raises(WorldError, match=words):
        train(DATA, RECIPE, Execution(engine="ray"))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(("workers", "cores", "pinned"), [(2, {3, 5}, [{3}, {5}]), (1, {3, 5}, []), (3, {3, 5}, [])])
def test_workers_are_pinned_where_they_fill_the_machine(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: set[int], pinned: list[set[int]]
) -> None:
    """A core each, of those that the process may use; a machine that refuses is trained on all the same."""
    asked: list[set[int]] = []

    def set_affinity(thread: int, wanted: set[int]) -> None:
        asked.append(wanted)
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    monkeypatch.setattr(os, "sched_setaffinity", set_affinity)
    for _ in range(workers):
        for pin in engines.pinning(workers)[:1]:
            pin()
    assert len(asked) == (workers if pinned else 0)
    assert all(wanted in pinned for wanted in asked)


def test_the_process_keeps_its_cores() -> None:
    """Pinned threads are of the pool: the caller's own affinity is as it was."""
    before = os.sched_getaffinity(0)
    train(DATA, Recipe(seeds=(0, 1), epochs=2, hidden=4), Execution(jobs=len(before)))
    assert os.sched_getaffinity(0) == before


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A local Ray cluster with room for two tasks; workers inherit the path, since a runtime_env starts each anew."""
    ray = pytest.importorskip("ray", reason="the engine needs the extra `ray`")
    path = os.pathsep.join(p for p in sys.path if p and Path(p).name != "tests")  # tests/fr_ensemble is another package
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        yield ray
        ray.shutdown()


def test_killed_worker_changes_no_byte(two_workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray worker that is killed costs the model it trained, which another trains again, to the same bytes."""
    expected = digest(train(DATA, RECIPE, Execution(jobs=1)))
    train_keys, attempts = engines.train_keys, tmp_path / "attempts"
    killed: list[int] = []
    attempts.mkdir()

    def leave_pid(*arguments: Any) -> list[Any]:
        (attempts / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return train_keys(*arguments)

    def kill_one(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done and not killed:
            latest = max(attempts.iterdir(), key=lambda path: int(path.name.partition("-")[2]))
            killed.append(int(latest.name.partition("-")[0]))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(engines, "train_keys", leave_pid)
    trained = train(DATA, RECIPE, Execution(engine="ray"), progress=kill_one)
    assert len(killed) == 1
    assert len(list(attempts.iterdir())) == 8 + 1
    assert digest(trained) == expected


def test_error_in_a_task_is_the_error(two_workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model raises arrives as it is; a task whose worker always dies is a broken world, not a traceback."""

    def refuse(*arguments: Any) -> list[Any]:
        raise InputError("learning_rate: found 7")

    monkeypatch.setattr(engines, "train_keys", refuse)
    with pytest.raises(InputError, match=r"^learning_rate: found 7$"):
        train(DATA, RECIPE, Execution(engine="ray"))

    def die(*arguments: Any) -> list[Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(engines, "train_keys", die)
    monkeypatch.setattr(engines, "MAX_RETRIES", 0)
    with pytest.raises(WorldError, match="Ray cluster failed"):
        train(DATA, RECIPE, Execution(engine="ray"))
