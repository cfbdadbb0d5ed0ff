"""Ray as an engine: the same bytes as threads here, also after a worker was killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import engines, trainer
from fr_ensemble.training.engines import Result
from training_corpus import digest, make_corpus

from registry_tool.errors import InputError, WorldError

DATA = make_corpus([14, 9, 12])
RECIPE = Recipe(seeds=(0, 1), epochs=2500, hidden=16, batch_size=8)


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the engine is refused, naming the extra that brings it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"registry-tool\[ray\]"):
        trainer.train(DATA, RECIPE, engine="ray")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A local Ray cluster with room for two tasks."""
    ray = pytest.importorskip("ray", reason="the engine needs the extra `ray`")
    path = os.pathsep.join(p for p in sys.path if p)
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield ray
    ray.shutdown()


def test_killed_worker_changes_no_byte(two_workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray worker killed in the middle of its block is replaced, and the run ends with the local engine's bytes."""
    expected = digest(trainer.train(DATA, RECIPE, jobs=1))
    run_block, attempts = trainer.run_block, tmp_path / "attempts"
    killed: list[int] = []
    attempts.mkdir()

    def leave_pid(*arguments: Any) -> list[Result]:
        (attempts / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return run_block(*arguments)

    def kill_one(done: int, total: int) -> None:
        if done and not killed:
            killed.append(int(next(attempts.iterdir()).name.partition("-")[0]))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(trainer, "run_block", leave_pid)
    trained = trainer.train(DATA, RECIPE, engine="ray", stack=4, progress=kill_one)
    assert len(killed) == 1
    assert len(list(attempts.iterdir())) == 3  # two blocks, one of them twice
    assert digest(trained) == expected


def test_error_in_a_task_is_the_error(two_workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a block raises arrives as it is; a task whose worker always dies is a broken world, not a traceback."""

    def refuse(*arguments: Any) -> list[Result]:
        raise InputError("learning_rate: found 7")

    monkeypatch.setattr(trainer, "run_block", refuse)
    with pytest.raises(InputError, match=r"^learning_rate: found 7$"):
        trainer.train(DATA, RECIPE, engine="ray")

    def die(*arguments: Any) -> list[Result]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(trainer, "run_block", die)
    monkeypatch.setattr(engines, "RETRIES", 0)
    with pytest.raises(WorldError, match="Ray cluster failed"):
        trainer.train(DATA, RECIPE, engine="ray")
