"""prober.py: hands models to a child process with limits, which reads, checks and runs them. Parses no ONNX itself.

One child serves a whole run and is started anew where a model ends it. It gets verified bytes, never a path. What it
answers is checked against the types expected: a model that took it over can lie, and no more.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry_tool.errors import WorldError
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.sandbox import children
from registry_tool.sandbox.children import ChildAnswer, ProbeQuestion
from registry_tool.sandbox.probed import BY_LIMITS, PROBE_CRASHED, PROBED_RULES, TIME_LIMIT
from registry_tool.values import EMPTY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

MEMORY_BYTES = 2**30  # bytes of address space beyond what the libraries map themselves; a model is at most 50 MiB
CPU_SECONDS = 10  # seconds of processor time a model; a small model takes milliseconds
WALL_SECONDS = 60.0  # seconds a model; the machine may be busy
MAX_ANSWER = 2**26  # bytes
# -P: nothing from the folder we are in.
CHILD_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))
CURE_HINT = (
    "check that onnx and onnxruntime load in a fresh Python (`python -c 'import onnx, onnxruntime'`), and run it again"
)
REPEATABLE_TASKS = ("read", "check")  # their answers follow from the bytes alone


class _Ended(Exception):
    """The child gave no answer. code, text: what that says of the model it was looking at."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Found(NamedTuple):
    """What the child found on a model. text: what was seen, one line of plain ASCII."""

    code: str
    text: str


def _question(task: str, model: bytes, others: Mapping[str, bytes]) -> ProbeQuestion:
    return (task, *others, *(hashlib.sha256(data).hexdigest() for data in (model, *others.values())))


def _found(answer: ChildAnswer) -> tuple[Found, ...]:
    try:
        found = tuple(Found(code, text) for code, text in answer.get("found", ()))
        if all(one.code in PROBED_RULES and one.text.isprintable() and one.text.isascii() for one in found):
            return found
    except (TypeError, ValueError, AttributeError):
        pass
    return (Found(PROBE_CRASHED.code, "its answer is none"),)


def _summary(answer: ChildAnswer) -> OnnxSummary | OnnxError:
    if found := _found(answer):
        return OnnxError(found[0].text, found[0].code)
    try:
        return OnnxSummary.from_dict(answer.get("summary"))
    except ValueError as error:
        return OnnxError(f"its answer is none: {error}", PROBE_CRASHED.code)


def _npy(array: Float32) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array, "<f4"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _outputs(answer: ChildAnswer) -> dict[str, Float32]:
    """The arrays of an answer. Raises OnnxError for one without them: its writer is not trusted."""
    import numpy as np

    if found := _found(answer):
        raise OnnxError(found[0].text, found[0].code)
    try:
        packed = {str(name): (value["shape"], value["data"]) for name, value in answer["outputs"].items()}
        return {
            name: np.frombuffer(base64.b64decode(data, validate=True), "<f4").reshape(shape).astype(np.float32)
            for name, (shape, data) in packed.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OnnxError(f"its answer is none: {error}", PROBE_CRASHED.code) from None


class Prober(AbstractContextManager["Prober"]):
    """Looks at models one after the other; its end is the child's, which starts with the first, or with `start`.

    A child that does not start, or that fails where no model can be the reason, is a WorldError.
    """

    def __init__(
        self,
        command: tuple[str, ...] = CHILD_COMMAND,
        *,
        cpu: int = CPU_SECONDS,
        memory: int = MEMORY_BYTES,
        wall: float = WALL_SECONDS,
    ) -> None:
        self._command, self._cpu, self._wall = (*command, str(cpu), str(memory)), cpu, wall
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ready = self._is_asked = False
        self._summaries: dict[str, OnnxSummary | OnnxError] = {}  # by sha256

    def __exit__(self, *_: object) -> None:
        waits = self._child is not None and self._is_ready and not self._is_asked
        if not (waits and self._child is not None and children.keep(self._command, self._child)):
            self._end()
        self._child = None

    @property
    def pid(self) -> int | None:
        """The process id of the child; None where none lives."""
        return None if self._child is None else self._child.pid

    def read(self, model: bytes, others: Mapping[str, bytes] = EMPTY, sha256: str | None = None) -> OnnxSummary:
        """The facts of a model, asked for once a run. Raises OnnxError, with a code, for one that cannot be read.

        others: location -> bytes of files with further weights. sha256: of the model, where it is known.
        """
        key = sha256 or hashlib.sha256(model).hexdigest()
        found = None if others else self._summaries.get(key)
        if found is None:
            found = _summary(self._ask("read", model, others))
            if not others:
                self._summaries[key] = found
        if isinstance(found, OnnxError):
            raise found
        return found

    def check(self, model: bytes, others: Mapping[str, bytes] = EMPTY) -> tuple[Found, ...]:
        """What onnx's checker or strict shape inference refuse, and what gets too large in any branch."""
        return _found(self._ask("check", model, others))

    def run(self, model: bytes, others: Mapping[str, bytes] = EMPTY) -> tuple[Found, ...]:
        """What is odd about a model that onnxruntime runs on rows of random numbers; () of one that is fine."""
        return _found(self._ask("run", model, others))

    def infer(self, model: bytes, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        """What a model gives for rows: float32 arrays by the outputs' names, for float32 arrays by the inputs' names.

        The first axis of each array are the rows. Raises OnnxError for a model that does not run on them in the limits.
        """
        return _outputs(self._ask("infer", model, {name: _npy(array) for name, array in inputs.items()}))

    def start(self) -> None:
        """Start the child now, so that it loads its libraries while its parent reads files."""
        if self._child is not None:
            return
        if (child := children.kept(self._command)) is not None:
            self._child, self._is_ready = child, True
            return
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **one_thread},
            )
        except OSError as error:
            raise WorldError(
                f"no process to probe models in: {error.strerror}: free some memory, run it again"
            ) from error
        self._is_ready = False

    def _ask(self, task: str, model: bytes, others: Mapping[str, bytes]) -> ChildAnswer:
        question = _question(task, model, others) if task in REPEATABLE_TASKS and children.are_kept() else ()
        if (known := children.answer(self._command, question)) is not None:
            return known
        self.start()
        self._is_asked = True
        try:
            if not self._is_ready and self._receive(time.monotonic() + self._wall) != {"ready": True}:
                raise _Ended("", "its first answer is none")
            self._is_ready = True
            deadline = time.monotonic() + self._wall
            header = {"task": task, "sizes": [len(model), *map(len, others.values())], "locations": list(others)}
            head = json.dumps(header).encode()
            self._send(struct.pack("<I", len(head)) + head, deadline)
            reduced = self._receive(deadline)["reduced"]
        except (_Ended, KeyError) as error:
            self._end()
            raise WorldError(f"the process that probes models does not work: {error}: {CURE_HINT}") from None
        try:
            for data in (model, *others.values()):
                self._send(data, deadline)
            answer = self._receive(deadline)
        except _Ended as end:
            answer = {"found": [(end.code, end.text)]}
        if answer.get("last"):
            self._end()
        self._is_asked = False
        for found in _found(answer) if reduced else ():
            if found.code in BY_LIMITS:
                raise WorldError(
                    f"a model could not be probed: {found.text}: this process has less memory or processor time than "
                    "the probe may take: raise its limits (`ulimit -v`, `ulimit -t`)"
                )
        if self._child is not None and question:
            children.remember(self._command, question, answer)
        return answer

    # ---- the pipes --------------------------------------------------------------------------------------------------

    def _send(self, data: bytes, deadline: float) -> None:
        """Raises _Ended where the child ends, or does not read in time."""
        stdin = self._pipe("stdin")
        os.set_blocking(stdin, False)
        rest = memoryview(data)
        while rest:
            self._wait(stdin, selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(stdin, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended() from None

    def _receive(self, deadline: float) -> ChildAnswer:
        """The next JSON object from the child. Raises _Ended where it ends, says something else, or takes too long."""
        size = struct.unpack("<I", self._read_exactly(4, deadline))[0]
        if size > MAX_ANSWER:
            self._end()
            raise _Ended(PROBE_CRASHED.code, "its answer is too long")
        data = self._read_exactly(size, deadline)
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self._end()
            raise _Ended(PROBE_CRASHED.code, "its answer is none")
        return answer

    def _read_exactly(self, size: int, deadline: float) -> bytes:
        stdout, data = self._pipe("stdout"), bytearray()
        while len(data) < size:
            self._wait(stdout, selectors.EVENT_READ, deadline)
            piece = os.read(stdout, min(size - len(data), 1 << 20))
            if not piece:
                raise self._ended()
            data += piece
        return bytes(data)

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, event)
            if not ready.select(max(0.0, deadline - time.monotonic())):
                self._end()
                raise _Ended(TIME_LIMIT.code, f"no answer within {self._wall:g} s")

    def _pipe(self, name: str) -> int:
        pipe = getattr(self._child, name, None)
        if pipe is None:
            raise WorldError(f"the process that probes models has no pipes: {CURE_HINT}")
        number: int = pipe.fileno()
        return number

    def _ended(self) -> _Ended:
        status = self._end(grace=5.0)  # it closed a pipe, so it is about to end
        if status == -signal.SIGXCPU:
            return _Ended(TIME_LIMIT.code, f"more than {self._cpu} s of processor time")
        return _Ended(PROBE_CRASHED.code, f"signal {-status}" if status < 0 else f"exit status {status}")

    def _end(self, grace: float = 0.0) -> int:
        """The child's exit status; it is killed where it does not end by itself within `grace` seconds."""
        child, self._child, self._is_ready = self._child, None, False
        return 0 if child is None else children.end(child, grace)
