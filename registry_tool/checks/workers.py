"""workers.py: a long row of small work, done by forked processes, answers in order. Knows nothing of registries."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Generic, NoReturn, TypeVar

from registry_tool.errors import WorldError

FEWEST = 512  # items; below, a fork costs more than it saves
MOST = 4  # processes; each may hold a file
SLICES = 4096  # at most, so that their numbers fit into a pipe at once
SIZE = 64  # items of a slice, at least
HEAD = 8  # bytes before an answer: its slice's number and its length, four each

Answer = TypeVar("Answer")


def useful(items: int) -> int:
    """How many processes pay here; 1, which forks nothing, beside other threads: a fork would copy their locks."""
    try:
        if items < FEWEST or sys.platform != "linux" or len(os.listdir("/proc/self/task")) > 1:
            return 1
        return min(len(os.sched_getaffinity(0)), MOST)
    except OSError:
        return 1


class Slices(AbstractContextManager["Slices[Answer]"], Generic[Answer]):
    """The answers of `work(range)` for ranges that together are range(items), in order.

    With more than one process, entering the context forks them and they begin; each takes the next slice that nobody
    has. An exception in a worker is raised here, by doing its slice again. A worker that ends before its work is a
    WorldError: no slice is ever left out. Leaving the context ends what still runs; a worker whose parent was killed
    ends with its next answer.
    """

    def __init__(self, work: Callable[[range], Answer], items: int, processes: int) -> None:
        size = 1 if processes == 1 else max(SIZE, -(-items // SLICES))
        self._work, self._processes = work, processes
        self._slices = [range(start, min(start + size, items)) for start in range(0, items, size)]
        self._workers: dict[int, int] = {}  # the pipe of each -> its process id

    def __len__(self) -> int:
        return len(self._slices)

    def __enter__(self) -> Slices[Answer]:
        if self._processes > 1:
            queue, end = os.pipe()
            os.write(end, b"".join(number.to_bytes(4, "little") for number in range(len(self._slices))))
            os.close(end)
            try:
                before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # no worker escapes the books
                try:
                    for _ in range(self._processes):
                        self._fork(queue)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
            except BaseException:
                self.__exit__()
                raise
            finally:
                os.close(queue)
        return self

    def _fork(self, queue: int) -> None:
        here, there = os.pipe()
        try:
            process = os.fork()
        except OSError as error:
            os.close(here)
            os.close(there)
            raise WorldError(f"no worker process could be started: {error.strerror}: end some and run again") from error
        if process == 0:
            for pipe in (here, *self._workers):
                os.close(pipe)
            self._serve(queue, there)
        os.close(there)
        self._workers[here] = process

    def _serve(self, queue: int, out: int) -> NoReturn:
        """The life of a worker. An answer that cannot be given or sent is None: the parent will see why."""
        import pickle

        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            gc.freeze()  # what the parent made is not walked again, and shared as long as nobody writes to it
            while number := os.read(queue, 4):
                try:
                    answer = pickle.dumps((self._work(self._slices[int.from_bytes(number, "little")]),), -1)
                except Exception:
                    answer = pickle.dumps(None)
                rest = memoryview(number + len(answer).to_bytes(HEAD - 4, "little") + answer)
                while rest:
                    rest = rest[os.write(out, rest) :]
            code = 0
        finally:
            os._exit(code)  # no handler of the parent's runs twice

    def __iter__(self) -> Iterator[Answer]:
        answers: dict[int, Any] = {}
        arrived = {pipe: bytearray() for pipe in self._workers}
        for number, items in enumerate(self._slices):
            while self._workers and number not in answers:
                for pipe in select.select(list(self._workers), [], [])[0]:
                    if data := os.read(pipe, 1 << 20):
                        arrived[pipe] += data
                        answers.update(_whole(arrived[pipe]))
                    else:
                        self._ended(pipe)
            if self._processes > 1 and number not in answers:
                raise WorldError("the worker processes ended before their work: run it again")
            answer = answers.pop(number, None)
            yield answer[0] if answer is not None else self._work(items)

    def _ended(self, pipe: int) -> None:
        process = self._workers.pop(pipe)
        os.close(pipe)
        if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise WorldError(f"a worker process ended with {how} before its work: free some memory and run it again")

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._workers.items():
            os.close(pipe)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in self._workers.values():
            os.waitpid(process, 0)
        self._workers.clear()


def _whole(arrived: bytearray) -> Iterator[tuple[int, Any]]:
    """(slice's number, answer) of every answer that has arrived whole; what it gives is taken out."""
    import pickle

    while len(arrived) >= HEAD:
        end = HEAD + int.from_bytes(arrived[4:HEAD], "little")
        if len(arrived) < end:
            return
        yield int.from_bytes(arrived[:4], "little"), pickle.loads(memoryview(arrived)[HEAD:end].tobytes())
        del arrived[:end]
