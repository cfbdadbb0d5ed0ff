"""engines.py: where blocks are trained: in threads of this process, or as tasks of a Ray cluster. Knows no training.

An engine gets the function that trains one block and returns the blocks' results in order; the bytes are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import torch

from fr_ensemble.blocks import Checkpoint
from fr_ensemble.folds import ModelKey, Table
from fr_ensemble.recipe import Recipe
from fr_ensemble.weights import Float64, Weights

POLL_SECONDS = 0.2  # between two reports of progress

Result = tuple[ModelKey, Weights, Float64]  # a trained model and its scores of the rows it held out
RunBlock = Callable[..., list[Result]]
Blocks = Sequence[Sequence[ModelKey]]


def run_local(
    run_block: RunBlock,
    table: Table,
    recipe: Recipe,
    blocks: Blocks,
    jobs: int,
    device: str,
    checkpoint: Checkpoint | None,
    progress: Callable[[int], object],
) -> list[Result]:
    """Train the blocks in `jobs` threads: torch leaves Python's lock inside every operation.

    An error in one block, or an interrupt, stops the others within a few steps.
    """
    done = [0] * len(blocks)
    stop = threading.Event()
    threads = torch.get_num_threads()

    def work(number: int) -> list[Result]:
        return run_block(table, recipe, blocks[number], number, device, checkpoint, done.__setitem__, stop.is_set)

    pool = ThreadPoolExecutor(jobs, "train")
    try:
        futures = [pool.submit(work, number) for number in range(len(blocks))]
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


ENGINES: dict[str, Any] = {"local": run_local}
