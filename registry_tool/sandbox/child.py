"""child.py: a process of its own that checks and runs ONNX models from its standard input. Imports no room.

Started by `probe.py` as `python -P probe_child.py CPU MEMORY`. In, one by one: `c` to check or `r` to run, 8 bytes of
length, the model with all its weights. Out: a line for each, `ok`, or a finding code and what was seen. Its limits end
it where a model asks for too much.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from typing import Any

ROWS, SIDE = 2, 64  # of a first axis, and of any other, that the model leaves open
LARGE, COPIES = 50 * 2**20, 8  # bytes of a model, and how many copies the libraries make of what is above
LARGEST = 2**24  # elements of an input that is fed; a model with a larger one is loaded only
KINDS = {"float": "f4", "float16": "f2", "double": "f8", "bool": "?", "int64": "i8", "int32": "i4", "uint8": "u1"}


def main() -> None:
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no answer
    import onnx
    import onnxruntime

    _ = onnx.checker, onnx.shape_inference  # loaded before the limits are set
    onnxruntime.set_default_logger_severity(4)
    cpu, memory = int(sys.argv[1]), int(sys.argv[2])
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while len(head := sys.stdin.buffer.read(9)) == 9:
        size = struct.unpack("<Q", head[1:])[0]
        limit = used + memory + COPIES * max(0, size - LARGE)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        data = sys.stdin.buffer.read(size)
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + cpu + 1, resource.RLIM_INFINITY))
        code, _, text = (check if head[:1] == b"c" else run)(data).partition(" ")
        plain = " ".join(text.split()).encode("ascii", "backslashreplace").decode()[:300]
        shown = "".join(character if character.isprintable() else "?" for character in plain)
        os.write(answers, f"{code} {shown}\n".encode())


def check(data: bytes) -> str:
    """onnx's own rules, then shapes; a hostile model has no file to make the library open."""
    import onnx

    code = "onnx-invalid"
    try:
        onnx.checker.check_model(data)
        code = "onnx-shapes"
        onnx.shape_inference.infer_shapes(data, check_type=True, strict_mode=True)
    except MemoryError as error:
        return f"onnx-probe-memory {error}"
    except Exception as error:  # the library raises a dozen types on hostile bytes, each a property of the file
        return f"{code} {error}"
    return "ok"


def run(data: bytes) -> str:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    guessed = False
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feeds = {port.name: feed(port) for port in session.get_inputs()}
        guessed = any(not isinstance(n, int) for port in session.get_inputs() for n in (port.shape or ["?"])[1:])
        if all(value is not None for value in feeds.values()):
            session.run(None, feeds)
    except MemoryError as error:
        return f"onnx-probe-memory {error}"
    except Exception as error:  # onnxruntime raises a dozen types, each a property of the model
        if "alloc" in str(error).lower():
            return f"onnx-probe-memory {error}"
        # Which sizes fit an open axis is not ours to know: then only loading counts.
        return "ok" if guessed else f"onnx-probe-refused {error}"
    return "ok"


def feed(port: Any) -> Any:
    """Plain values for an input; None for one of an odd type or size."""
    import numpy as np

    kind = KINDS.get(port.type.removeprefix("tensor(").removesuffix(")"))
    shape = [n if isinstance(n, int) else SIDE if i else ROWS for i, n in enumerate(port.shape or [])]
    if kind is None or np.prod(shape, dtype=float) > LARGEST:
        return None
    return np.full(shape, 0.5 if kind[0] == "f" else 0, kind)


if __name__ == "__main__":
    main()
