"""engines.py: where blocks are trained: in threads of this process, or as tasks of a Ray cluster. Knows no training.

An engine gets the function that trains one block and returns all results, in the blocks' order; the bytes are the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch

from fr_ensemble.arrays import Float64, Weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.blocks import Checkpoint
from fr_ensemble.training.folds import ModelKey, Table
from registry_tool.errors import InputError, WorldError

ENGINES = ("local", "ray")
RETRIES = 5  # of a block whose Ray worker died
POLL_SECONDS = 0.2  # between two reports of progress

Result = tuple[ModelKey, Weights, Float64]  # a trained model and its scores of the rows it held out
RunBlock = Callable[..., list[Result]]  # train.run_block
Work = tuple[Table, Recipe, Sequence[Sequence[ModelKey]], str, Checkpoint | None]  # data, recipe, blocks, device, state
Engine = Callable[[RunBlock, Work, Callable[[int], None]], list[Result]]  # the last is told the model-epochs done


@contextmanager
def open_engine(name: str, jobs: int | None) -> Iterator[tuple[Engine, int]]:
    """An engine and its number of workers: `jobs`, or the cores of this process or of the Ray cluster.

    Ray is connected to as `ray.init()` finds it: RAY_ADDRESS, a cluster running here, or a new one on this machine.
    Raises InputError for an engine that is not there.
    """
    if name not in ENGINES:
        raise InputError(f"engine: found {name!r}, expected one of {', '.join(ENGINES)}")
    if name == "local":
        workers = jobs or len(os.sched_getaffinity(0))
        yield partial(run_local, workers), workers
        return
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise InputError("engine: ray is not installed, expected it: pip install 'registry-tool[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="warning")
    try:
        yield run_ray, jobs or int(ray.cluster_resources().get("CPU", 1))
    finally:
        if ours:
            ray.shutdown()


def run_local(workers: int, run_block: RunBlock, work: Work, progress: Callable[[int], None]) -> list[Result]:
    """Train the blocks in threads: torch leaves Python's lock inside every operation.

    An error in one block, or an interrupt, stops the others within a few steps.
    """
    table, recipe, blocks, device, checkpoint = work
    done = [0] * len(blocks)
    stop = threading.Event()
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "train")
    try:
        futures = [
            pool.submit(run_block, table, recipe, keys, number, device, checkpoint, done.__setitem__, stop.is_set)
            for number, keys in enumerate(blocks)
        ]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
            for future in finished:
                future.result()  # raises what the block raised
            progress(sum(done))
        return [result for future in futures for result in future.result()]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def run_ray(run_block: RunBlock, work: Work, progress: Callable[[int], None]) -> list[Result]:
    """Train each block as a Ray task on one core; Ray itself starts a dead worker's block again.

    Every machine of the cluster has this package installed, and sees the checkpoint folder if there is one.
    """
    ray: Any = import_module("ray")

    class Counter:
        """Hears from the tasks how far they are; a class of this function, so that its process loads no torch."""

        def __init__(self) -> None:
            self.done: dict[int, int] = {}

        def tick(self, number: int, done: int) -> None:
            self.done[number] = done

        def total(self) -> int:
            return sum(self.done.values())

    table, recipe, blocks, device, checkpoint = work
    counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Counter).remote()
    gpus = 0 if device == "cpu" else 1
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run_block)
    shared = ray.put(table)
    refs = [
        task.remote(shared, recipe, keys, number, device, checkpoint, partial(send, counter))
        for number, keys in enumerate(blocks)
    ]
    pending, most = refs, 0
    try:
        while pending:
            finished, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_SECONDS)
            ray.get(finished)  # raises what a block raised
            most = max(most, ray.get(counter.total.remote()))  # a block that starts again does not count backwards
            progress(most)
        return [result for ref in refs for result in ray.get(ref)]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise WorldError(f"engine: the Ray cluster failed ({type(error).__name__}): look at `ray status`") from error
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
        ray.kill(counter)


def send(counter: Any, number: int, done: int) -> None:
    """Tell the counter how far a block is."""
    counter.tick.remote(number, done)
