"""workers.py: work on many items shared by processes, the answers in order. Knows nothing of registries."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from registry_tool.errors import WorldError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

MIN_WORK = 512  # in units of the cheapest item, some tenths of a millisecond; below, a fork costs more than it saves
MAX_PROCESSES = 8  # each may hold a file, and a child with its libraries
SLICES_PER_PROCESS = 32  # for each process, so that none waits long for the last of another
MAX_SLICE = 64  # items; progress is told slice by slice

WorkerResult = TypeVar("WorkerResult")
SliceWork = Callable[[range], WorkerResult]
work_here: Callable[[range], Any] | None = None  # in a worker process: what it does


def count_processes(work: int) -> int:
    """How many processes pay for this much work; 1, which forks nothing, beside other threads: a fork copies locks."""
    try:
        if work < MIN_WORK or sys.platform != "linux" or len(os.listdir("/proc/self/task")) > 1:
            return 1
        return min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    except OSError:
        return 1


def slices_of(items: int, processes: int) -> list[range]:
    """Ranges that together are range(items): single items for one process."""
    size = 1 if processes == 1 else min(MAX_SLICE, max(1, items // (processes * SLICES_PER_PROCESS)))
    return [range(start, min(start + size, items)) for start in range(0, items, size)]


@contextmanager
def answers(
    begin: Callable[[], AbstractContextManager[SliceWork[WorkerResult]]], slices: list[range], processes: int
) -> Iterator[Iterator[WorkerResult]]:
    """The answers to slices, in order, while their work goes on elsewhere: in forked processes, or here for one.

    begin: a context in which a process does all of its work. What a worker raises is raised here. A worker that ends
    before its work is a WorldError: no slice is ever left out. Leaving the context ends the work.
    """
    if processes == 1:
        with begin() as work:
            yield map(work, slices)
        return
    from concurrent.futures import BrokenExecutor

    with _pool(begin, processes) as pool:
        try:
            found = pool.map(_work, slices)  # forks, too
        except OSError as error:
            raise WorldError(f"no worker process could be started: {error.strerror}: end some and run again") from error
        try:
            yield found
        except BrokenExecutor:
            raise WorldError("a worker process ended before its work: free some memory and run it again") from None


@contextmanager
def _pool(begin: Callable[[], AbstractContextManager[SliceWork[Any]]], processes: int) -> Iterator[ProcessPoolExecutor]:
    """No work is left when it is left, and no process: not one of those before a fork that failed either."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    before = active_children()
    try:
        pool = ProcessPoolExecutor(processes, get_context("fork"), _begin, (begin,))
    except (OSError, NotImplementedError, ImportError) as error:  # a system without semaphores
        raise WorldError(f"no worker processes can be started ({error}): use one processor: taskset -c 0") from error
    try:
        yield pool
    except WorldError:
        for process in active_children():
            if process not in before:
                process.kill()
                process.join()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[[], AbstractContextManager[SliceWork[Any]]]) -> None:
    """What a worker does first. An interrupt ends it without a word, and so does the end of its parent."""
    import signal
    from multiprocessing.util import Finalize
    from threading import Thread

    global work_here
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_follow_parent, daemon=True).start()
    stack = ExitStack()
    work_here = stack.enter_context(begin())
    Finalize(None, stack.close, exitpriority=1)  # a worker runs no `atexit`


def _follow_parent() -> None:
    """A killed parent closes no queue: its workers hold both ends."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    if (parent := parent_process()) is not None:
        wait([parent.sentinel])
    os._exit(1)


def _work(items: range) -> Any:
    assert work_here is not None
    return work_here(items)
