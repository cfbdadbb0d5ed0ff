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
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry_tool.values import Json

MODEL_BYTES, N_COPIES = 50 * 2**20, 8  # bytes of a model, and how many copies the libraries make of what is above
MAX_FINDINGS = 10  # of one answer


class Limits:
    """What this process may take: `memory` beyond what the libraries use, `cpu` seconds a request."""

    def __init__(self, cpu: int, memory: int) -> None:
        self._used = 0  # where /proc is not mounted the libraries have to fit in what is allowed beside them
        with suppress(OSError), open("/proc/self/statm") as file:
            self._used = int(file.read().split()[0]) * resource.getpagesize()
        self._cpu, self._memory = cpu, memory
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def set(self, size: int) -> bool:
        """Set them for a request of so many bytes; whether the process' own hard limits leave less than they should."""
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        space = self._used + self._memory + N_COPIES * max(0, size - MODEL_BYTES)
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

    from registry_tool.sandbox import inference, probing, reader

    _ = onnx.checker, onnx.shape_inference, inference, probing, reader  # loaded before the limits are set
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


def _send(answers: int, answer: dict[str, Json]) -> None:
    data = json.dumps(answer, allow_nan=False).encode()
    rest = memoryview(struct.pack("<I", len(data)) + data)
    while rest:
        rest = rest[os.write(answers, rest) :]


def _plain(text: str) -> str:
    """The words of a library in one line of plain ASCII."""
    from registry_tool.values import one_line

    return one_line(text)


def read(model: bytes, others: Mapping[str, bytes]) -> dict[str, Json]:
    from registry_tool.onnx_summary import OnnxError
    from registry_tool.sandbox.reader import read_model

    try:
        return {"summary": read_model(model, others).to_dict()}
    except OnnxError as error:
        return {"found": [(error.code, _plain(str(error)))]}
    except MemoryError as error:
        return {"found": [("onnx-probe-memory", _plain(str(error)))]}


def check(model: bytes, others: Mapping[str, bytes]) -> dict[str, Json]:
    """onnx's own rules, then shapes and what they add up to; a hostile model has no file to make the library open."""
    import onnx

    from registry_tool.sandbox.growth import excesses

    code = "onnx-invalid"
    try:
        complete = _complete(model, others)
        onnx.checker.check_model(complete)
        code = "onnx-shapes"
        onnx.shape_inference.infer_shapes(complete, check_type=True, strict_mode=True)
        found = [
            (excess.code, excess.text)
            for excess in islice(excesses(onnx.ModelProto.FromString(complete)), MAX_FINDINGS)
        ]
    except MemoryError as error:
        found = [("onnx-probe-memory", str(error))]
    except Exception as error:  # the library raises a dozen types on hostile bytes, each a property of the file
        found = [(code, str(error))]
    return {"found": [(code, _plain(text)) for code, text in found]}


def run(model: bytes, others: Mapping[str, bytes]) -> dict[str, Json]:
    from registry_tool.sandbox.probing import probe

    try:
        found = list(islice(probe(_complete(model, others)), MAX_FINDINGS))
    except MemoryError as error:
        found = [("onnx-probe-memory", str(error))]
    return {"found": [(code, _plain(text)) for code, text in found]}


def infer(model: bytes, others: Mapping[str, bytes]) -> dict[str, Json]:
    """What the model gives for rows; `others` are its inputs."""
    from registry_tool.sandbox.inference import infer as outputs_of

    try:
        return {"outputs": outputs_of(model, others)}
    except MemoryError as error:
        return {"found": [("onnx-probe-memory", _plain(str(error)))]}
    except Exception as error:  # onnxruntime raises a dozen types, each a property of the model
        return {"found": [("onnx-probe-refused", _plain(str(error)))]}


def _complete(model: bytes, others: Mapping[str, bytes]) -> bytes:
    from registry_tool.sandbox.reader import with_external

    return with_external(model, others) if others else model


TASKS = {"read": read, "check": check, "run": run, "infer": infer}

if __name__ == "__main__":
    main()
