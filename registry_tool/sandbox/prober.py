"""prober.py: hands models to a child process with limits: onnx's checker, and one run. Opens no file, judges no output.

One child serves a whole run and is started anew where a model ends it. It gets verified bytes, never a path: weights
of other files are inside them by then. It imports nothing of this package (see `probe_child.py`).
"""

from __future__ import annotations

import os
import selectors
import signal
import struct
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from registry_tool.errors import WorldError

MEMORY = 2**30  # bytes of address space beyond what the libraries map themselves; a model is at most 50 MiB
CPU = 10  # seconds of processor time a model; a small model takes milliseconds
WALL = 60.0  # seconds a model; the machine may be busy
CHILD = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))  # -P: nothing from the folder we are in
AGAIN = "export the model again"
HINT = f"{AGAIN}: onnxruntime runs it once within 1 GiB and 10 s of one processor"
MESSAGES = {
    "onnx-invalid": "the model breaks the rules of ONNX",
    "onnx-shapes": "the model has types or shapes that do not fit together",
    "onnx-probe-refused": "onnxruntime does not load it, or does not run it once",
    "onnx-probe-memory": "it asks for more memory than a small model needs",
    "onnx-probe-time": "it does not finish",
    "onnx-probe-crashed": "it ends the process that runs it",
}


class Prober(AbstractContextManager["Prober"]):
    """Looks at models one after the other; its end is the child's, which starts with the first, or with `start`."""

    def __init__(
        self, command: tuple[str, ...] = CHILD, *, cpu: int = CPU, memory: int = MEMORY, wall: float = WALL
    ) -> None:
        self._command, self._cpu, self._wall = (*command, str(cpu), str(memory)), cpu, wall
        self._child: subprocess.Popen[bytes] | None = None

    def __exit__(self, *_: object) -> None:
        self._end()

    def check(self, model: bytes) -> tuple[str, str]:
        """(finding code, what was seen) of a model that onnx's checker or strict shape inference refuses."""
        return self._ask(b"c", model)

    def run(self, model: bytes) -> tuple[str, str]:
        """(finding code, what was seen) of a model that onnxruntime refuses; ("", "") of one that is fine."""
        return self._ask(b"r", model)

    def _ask(self, task: bytes, model: bytes) -> tuple[str, str]:
        self.start()
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise WorldError("the process that probes models has no pipes: run it again")
        try:
            child.stdin.write(task + struct.pack("<Q", len(model)))
            child.stdin.write(model)
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and the answer will be empty
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            if not ready.select(self._wall):
                self._end()
                return "onnx-probe-time", f"no answer within {self._wall:g} s"
        answer = os.read(child.stdout.fileno(), 4096)  # a line shorter than a pipe's atomic write
        if answer:
            code, _, text = answer.decode("ascii", "replace").strip().partition(" ")
            return ("", "") if code == "ok" else (code, text)
        status = self._end(grace=5.0)  # it closed its output, so it is about to end
        if status == -signal.SIGXCPU:
            return "onnx-probe-time", f"more than {self._cpu} s of processor time"
        return "onnx-probe-crashed", f"signal {-status}" if status < 0 else f"exit status {status}"

    def start(self) -> None:
        """Start the child now, so that it loads its libraries while its parent reads files."""
        if self._child is not None:
            return
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, **one_thread},
            )  # fmt: skip
        except OSError as error:
            raise WorldError(
                f"no process to probe models in: {error.strerror}: free some memory, run it again"
            ) from error

    def _end(self, grace: float = 0.0) -> int:
        """The child's exit status; it is killed where it does not end by itself within `grace` seconds."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace)
        child.kill()
        status = child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        return status
