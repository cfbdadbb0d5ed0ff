"""engines.py: where models are trained: in threads of this process, or as tasks of a Ray cluster. Knows no arithmetic.

Either gets the keys of the models, the longest first, and returns their results in this order; the bytes are the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any

from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.checkpoints import Checkpoint
from fr_ensemble.training.model import Result, train_model
from fr_ensemble.training.table import ModelKey, TrainingTable
from registry_tool.errors import InputError, WorldError
from registry_tool.toolkit import one_line

ENGINES = ("local", "ray")
MAX_RETRIES = 5  # of a model whose Ray worker died
POLL_SECONDS = 0.2  # between two reports of progress


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to train."""

    table: TrainingTable
    recipe: Recipe
    keys: Sequence[ModelKey]
    checkpoint: Checkpoint | None = None


Engine = Callable[[Work, Callable[[int], None]], list[Result]]  # the latter is told the model-epochs done


@contextmanager
def start_engine(name: str, jobs: int | None) -> Iterator[Engine]:
    """An engine with `jobs` workers, or as many as this process or the Ray cluster has cores.

    Ray is connected to as `ray.init()` finds it: RAY_ADDRESS, a cluster running here, or a new one on this machine.
    Raises InputError for an engine that is not there, WorldError for a cluster that does not start or answer.
    """
    if name not in ENGINES:
        raise InputError(f"--engine: found {name!r}, expected one of {', '.join(ENGINES)}")
    if name == "local":
        yield partial(run_local, jobs or len(os.sched_getaffinity(0)))
        return
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise InputError("--engine: ray is not installed, expected it: pip install ray") from error
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that starts here reports nothing to its maker
        try:
            ray.init(log_to_driver=False, logging_level="warning")
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and plain Exception
            raise WorldError(f"--engine: Ray does not start ({one_line(str(error))}): look at `ray status`") from error
    try:
        yield partial(run_ray, jobs)
    finally:
        if started_here:
            ray.shutdown()


def run_local(workers: int, work: Work, progress: Callable[[int], None]) -> list[Result]:
    """Train the models in threads: the kernel runs without Python's lock.

    An error in one model, or an interrupt, stops the others at their next call of the kernel.
    """
    done: dict[ModelKey, int] = {}
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, "train", *pinning(workers))
    try:
        futures = [
            pool.submit(train_model, work.table, work.recipe, key, work.checkpoint, done.__setitem__, stop.is_set)
            for key in work.keys
        ]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
            for future in finished:
                future.result()  # raises what the model raised
            progress(sum(list(done.values())))
        return [result for future in futures if (result := future.result())]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def pinning(workers: int) -> tuple[()] | tuple[Callable[[], None]]:
    """Each worker on a core of its own, where there are as many as cores; fewer are left to the system, which knows
    what else runs. A worker that cannot be pinned runs unpinned."""
    cores = sorted(os.sched_getaffinity(0))
    if workers != len(cores):
        return ()
    turn = count()

    def pin() -> None:
        with suppress(OSError):
            os.sched_setaffinity(0, {cores[next(turn) % len(cores)]})  # 0: the calling thread

    return (pin,)


def train_keys(
    table: TrainingTable,
    recipe: Recipe,
    keys: Sequence[ModelKey],
    checkpoint: Checkpoint | None,
    tick: Callable[[ModelKey, int], None],
) -> list[Result | None]:
    """A Ray task: some models, one after another."""
    return [train_model(table, recipe, key, checkpoint, tick) for key in keys]


def run_ray(jobs: int | None, work: Work, progress: Callable[[int], None]) -> list[Result]:
    """Train each model as a Ray task on one core; Ray itself starts a dead worker's model again.

    jobs: the most tasks at a time; None: what the cluster has room for. Every machine of the cluster has this package
    installed, and sees the checkpoint folder if there is one.
    """
    ray: Any = import_module("ray")

    class Counter:
        """Hears from the tasks how far they are."""

        def __init__(self) -> None:
            self.done: dict[object, int] = {}

        def tick(self, key: object, done: int) -> None:
            self.done[key] = done

        def total(self) -> int:
            return sum(self.done.values())

    counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Counter).remote()
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(train_keys)
    shared = ray.put(work.table)
    waiting, reported = list(work.keys), 0
    refs: list[Any] = []
    pending: list[Any] = []
    try:
        while pending or waiting:
            while waiting and (jobs is None or len(pending) < jobs):
                arguments = (shared, work.recipe, [waiting.pop(0)], work.checkpoint, partial(send, counter))
                refs.append(task.remote(*arguments))
                pending.append(refs[-1])
            finished, pending = ray.wait(pending, num_returns=1, timeout=POLL_SECONDS)
            ray.get(finished)  # raises what a model raised
            reported = max(
                reported, ray.get(counter.total.remote())
            )  # a model that starts again does not count backwards
            progress(reported)
        progress(len(work.keys) * work.recipe.epochs)
        return [result for ref in refs for result in ray.get(ref)]
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", error)  # what a model raised, or what Ray could not do
        if not isinstance(cause, ray.exceptions.RayError):
            raise cause from error
        raise WorldError(f"--engine: the Ray cluster failed ({type(cause).__name__}): look at `ray status`") from error
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
        ray.kill(counter)


def send(counter: Any, key: ModelKey, done: int) -> None:
    """Tell the counter how far a model is."""
    counter.tick.remote((key.fold, key.seed), done)
