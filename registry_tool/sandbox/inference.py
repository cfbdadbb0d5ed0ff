"""inference.py: runs a model on rows that it is handed and returns what it gives. Runs in the child alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from registry_tool.sandbox.probing import kind_of, open_session
from registry_tool.values import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

CHUNK_ROWS = 512  # rows a run: activations of small networks stay in the cache, and memory does not grow with the rows

MAX_INPUT_VALUES = 1 << 20  # values of one input a run


def infer(model: bytes, inputs: Mapping[str, bytes]) -> dict[str, dict[str, Json]]:
    """Each output for all rows. inputs: name -> the .npy bytes of a float32 array whose first axis are the rows.

    Each is cast to the type of its input.

    Raises ValueError for inputs of different lengths, and for an output that is no float32 array with a row each.
    onnxruntime raises what it raises where the model does not load or run.
    """
    arrays = {name: np.load(io.BytesIO(data), allow_pickle=False) for name, data in inputs.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise ValueError(f"found inputs of {sorted(lengths)} rows, expected as many of each")
    session, n = open_session(model), lengths.pop()
    for port in session.get_inputs():
        if (kind := kind_of(port)) is not None and port.name in arrays:
            arrays[port.name] = arrays[port.name].astype(kind)
    names = [port.name for port in session.get_outputs()]
    parts: dict[str, list[Float32]] = {name: [] for name in names}
    chunk = _chunk(session.get_inputs()[0].shape, arrays)
    for start in range(0, n, chunk):
        feeds = {name: array[start : start + chunk] for name, array in arrays.items()}
        for name, value in zip(names, session.run(None, feeds), strict=True):
            rows = min(chunk, n - start)
            if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.shape[:1] != (rows,):
                raise ValueError(f"output {name}: expected a float32 array with a row for each of the input")
            parts[name].append(value)
    return {name: packed(np.concatenate(part)) for name, part in parts.items()}


def _chunk(shape: Sequence[object], arrays: Mapping[str, Float32]) -> int:
    """Rows a run: as many as the model takes, where it says so; fewer of large rows, such as pictures."""
    if shape and isinstance(shape[0], int) and shape[0] > 0:
        return shape[0]
    values = max((array[0].size for array in arrays.values() if len(array)), default=1)
    return max(1, min(CHUNK_ROWS, MAX_INPUT_VALUES // max(values, 1)))


def packed(array: Float32) -> dict[str, Json]:
    """A float32 array as JSON: its shape, and its little-endian bytes in base64."""
    return {"shape": list(array.shape), "data": base64.b64encode(array.astype("<f4").tobytes()).decode()}
