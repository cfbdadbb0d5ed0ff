"""child.py: a process of its own that reads, checks and runs ONNX models from its standard input.

Started by `prober.py` as `python -P child.py CPU MEMORY`. It says `ready` once its libraries are loaded. Then, for each
request: a JSON header; it sets its limits and says whether the hard ones that it inherited, which stay as they are,
leave less than was asked for; then the model and the files with further weights come, and the answer goes. Each header
and each answer is 4 bytes of length and a JSON object. The limits, parsing included, end it where a model asks for too
much.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROWS, SIDE = 2, 64  # of a first axis, and of any other, that the model leaves open
LARGE, COPIES = 50 * 2**20, 8  # bytes of a model, and how many copies the libraries make of what is above
LARGEST = 2**24  # elements of an input that is fed; a model with a larger one is loaded only
KINDS = {"float": "f4", "float16": "f2", "double": "f8", "bool": "?", "int64": "i8", "int32": "i4", "uint8": "u1"}
WORDS = 300  # characters of a library's message

Answer = dict[str, Any]


class Limits:
    """What this process may take: `memory` beyond what the libraries use, `cpu` seconds a request."""

    def __init__(self, cpu: int, memory: int) -> None:
        with open("/proc/self/statm") as file:
            self._used = int(file.read().split()[0]) * resource.getpagesize()
        self._cpu, self._memory = cpu, memory
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def set(self, size: int) -> bool:
        """Set them for a request of so many bytes; whether the process' own hard limits leave less than they should."""
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        space = self._used + self._memory + COPIES * max(0, size - LARGE)
        reduced = [_lower(resource.RLIMIT_AS, space), _lower(resource.RLIMIT_CPU, int(spent) + self._cpu + 1)]
        return any(reduced)

    def is_spent(self) -> bool:
        """Whether the hard limit leaves too little processor time for one more request, and a new process has more."""
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        return hard != resource.RLIM_INFINITY and spent + self._cpu + 1 > hard


def _lower(limit: int, wanted: int) -> bool:
    """Set a soft limit; True where the hard one, which is never raised, is lower."""
    hard = resource.getrlimit(limit)[1]
    lower = hard != resource.RLIM_INFINITY and hard < wanted
    resource.setrlimit(limit, (hard if lower else wanted, hard))
    return lower


def main() -> None:
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no answer
    sys.path.append(str(Path(__file__).parents[2]))  # this package, where it is not installed
    import onnx
    import onnxruntime

    from registry_tool.sandbox import reader

    _ = onnx.checker, onnx.shape_inference, reader  # loaded before the limits are set
    onnxruntime.set_default_logger_severity(4)
    limits, reading = Limits(int(sys.argv[1]), int(sys.argv[2])), sys.stdin.buffer
    _send(answers, {"ready": True})
    while len(head := reading.read(4)) == 4:
        header = json.loads(reading.read(struct.unpack("<I", head)[0]))
        sizes: list[int] = header["sizes"]
        _send(answers, {"reduced": limits.set(sum(sizes))})
        model, *others = (reading.read(size) for size in sizes)
        answer = TASKS[header["task"]](model, dict(zip(header["locations"], others, strict=True)))
        _send(answers, {**answer, "last": limits.is_spent()})


def _send(answers: int, answer: Answer) -> None:
    data = json.dumps(answer, allow_nan=False).encode()
    rest = memoryview(struct.pack("<I", len(data)) + data)
    while rest:
        rest = rest[os.write(answers, rest) :]


def _refusal(code: str, error: Exception) -> Answer:
    """A finding in one line of plain ASCII: the words of a hostile file reach a terminal and a CI log."""
    text = " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()[:WORDS]
    return {"code": code, "text": "".join(character if character.isprintable() else "?" for character in text)}


def read(model: bytes, others: Mapping[str, bytes]) -> Answer:
    from registry_tool.onnx_summary import OnnxError
    from registry_tool.sandbox.reader import read_model

    try:
        return {"summary": read_model(model, others).to_dict()}
    except OnnxError as error:
        return _refusal(error.code, error)
    except MemoryError as error:
        return _refusal("onnx-probe-memory", error)


def check(model: bytes, others: Mapping[str, bytes]) -> Answer:
    """onnx's own rules, then shapes; a hostile model has no file to make the library open."""
    import onnx

    code = "onnx-invalid"
    try:
        complete = _complete(model, others)
        onnx.checker.check_model(complete)
        code = "onnx-shapes"
        onnx.shape_inference.infer_shapes(complete, check_type=True, strict_mode=True)
    except MemoryError as error:
        return _refusal("onnx-probe-memory", error)
    except Exception as error:  # the library raises a dozen types on hostile bytes, each a property of the file
        return _refusal(code, error)
    return {}


def run(model: bytes, others: Mapping[str, bytes]) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    guessed = False
    try:
        session = onnxruntime.InferenceSession(_complete(model, others), options, providers=["CPUExecutionProvider"])
        feeds = {port.name: feed(port) for port in session.get_inputs()}
        guessed = any(not isinstance(n, int) for port in session.get_inputs() for n in (port.shape or ["?"])[1:])
        if all(value is not None for value in feeds.values()):
            session.run(None, feeds)
    except MemoryError as error:
        return _refusal("onnx-probe-memory", error)
    except Exception as error:  # onnxruntime raises a dozen types, each a property of the model
        if "alloc" in str(error).lower():
            return _refusal("onnx-probe-memory", error)
        # Which sizes fit an open axis is not ours to know: then only loading counts.
        return {} if guessed else _refusal("onnx-probe-refused", error)
    return {}


def feed(port: Any) -> Any:
    """Plain values for an input; None for one of an odd type or size."""
    import numpy as np

    kind = KINDS.get(port.type.removeprefix("tensor(").removesuffix(")"))
    shape = [n if isinstance(n, int) else SIDE if i else ROWS for i, n in enumerate(port.shape or [])]
    if kind is None or np.prod(shape, dtype=float) > LARGEST:
        return None
    return np.full(shape, 0.5 if kind[0] == "f" else 0, kind)


def _complete(model: bytes, others: Mapping[str, bytes]) -> bytes:
    from registry_tool.sandbox.reader import with_external

    return with_external(model, others) if others else model


TASKS = {"read": read, "check": check, "run": run}

if __name__ == "__main__":
    main()
