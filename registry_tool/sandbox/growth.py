"""growth.py: how large a model's tensors get and how often its loops run, in every branch, taken or not. Runs nothing.

Sizes come from onnx's shape inference, with constants made known inside the bodies that read them; an axis that stays
open counts as a small one. What is computed outside a body and decides a size inside it stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto

MAX_ROUNDS = 2**16  # of a loop, times those of the loops around it
MAX_ELEMENTS = 2**26  # of a tensor that a constant makes: 256 MiB of float32, two 8K RGB frames
MAX_TENSOR = 2**28  # elements of any tensor: as float32 all the memory that a probe has
MAX_WORK = 2**33  # elements of a tensor times the rounds of the loops around it: all the time that a probe has
MAX_SHAPE_VALUES = 64  # values of a constant that may be a shape
OPEN_ROWS, OPEN_SIDE = 2, 64  # of a first axis, and of any other, that the model leaves open

Dims = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Excess:
    """What is beyond a limit. code: of the finding. text: where, and how much."""

    code: str
    text: str


def excesses(model: ModelProto) -> Iterator[Excess]:
    """What a ModelProto that passed onnx's checker asks for beyond the limits."""
    import onnx

    known = type(model)()
    known.CopyFrom(model)
    constants = dict(_constants(known.graph))
    _share(known.graph, constants)
    try:
        known = onnx.shape_inference.infer_shapes(known, data_prop=True)
    except Exception:  # it was strict about types and shapes before; propagating data may fail on what is valid
        known = model
    yield from _walk(known.graph, "graph", 1, {}, constants)


def bodies(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """(attribute, graph) of a node's branches or bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        yield from ((attribute.name, graph) for graph in attribute.graphs)


def _walk(
    graph: GraphProto, place: str, rounds: int, outer: Mapping[str, Dims], constants: Mapping[str, TensorProto]
) -> Iterator[Excess]:
    """rounds: of all loops around the graph together; 0 inside one that runs too often."""
    shapes = {**outer}
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer)
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            shapes[value.name] = _dims(value.type.tensor_type.shape)
    for value in (*graph.value_info, *graph.output):
        elements = _elements(shapes.get(value.name, ()))
        if elements > MAX_TENSOR:
            yield Excess("onnx-allocation", f"{value.name} in {place} has {elements} elements, at most {MAX_TENSOR}")
        elif elements * rounds > MAX_WORK:
            work = f"{elements} elements in each of {rounds} rounds, at most {MAX_WORK} together"
            yield Excess("onnx-loop", f"{value.name} in {place} has {work}")
    for node in graph.node:
        times = rounds * _trips(node, shapes, constants)
        name = node.name or node.op_type
        if times > MAX_ROUNDS:
            yield Excess("onnx-loop", f"{name} in {place} runs {times} rounds, at most {MAX_ROUNDS}")
            times = 0  # all that it runs is beyond the limit too: that is said once
        for attribute, body in bodies(node):
            yield from _walk(body, f"{attribute} of {name}", times, shapes, constants)


def _dims(shape: TensorShapeProto) -> Dims:
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in shape.dim)


def _elements(dims: Dims) -> int:
    return prod((OPEN_ROWS if place == 0 else OPEN_SIDE) if size is None else size for place, size in enumerate(dims))


def _trips(node: NodeProto, shapes: Mapping[str, Dims], constants: Mapping[str, TensorProto]) -> int:
    """How often a node's bodies run: 1 but for Loop, whose constant is known by now, and Scan."""
    from onnx import numpy_helper

    if node.op_type == "Loop" and node.input and node.input[0] in constants:
        return max(1, int(numpy_helper.to_array(constants[node.input[0]]).reshape(-1)[0]))
    if node.op_type != "Scan":
        return 1
    attributes = {attribute.name: attribute for attribute in node.attribute}
    count = attributes["num_scan_inputs"].i if "num_scan_inputs" in attributes else 1
    axes = list(attributes["scan_input_axes"].ints) if "scan_input_axes" in attributes else [0] * count
    trips = [1]
    for name, axis in zip(list(node.input)[-count:], axes, strict=False):
        dims = shapes.get(name, ())
        size = dims[axis] if -len(dims) <= axis < len(dims) else None
        trips.append(OPEN_SIDE if size is None else size)
    return max(trips)


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """name -> tensor of the small int64 constants anywhere below a graph."""
    small = (tensor for tensor in graph.initializer if _is_small(tensor))
    yield from ((tensor.name, tensor) for tensor in small)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and _is_small(attribute.t):
                yield from ((name, attribute.t) for name in node.output)
        for _, body in bodies(node):
            yield from _constants(body)


def _is_small(tensor: TensorProto) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_type == TensorProto.INT64 and 1 <= prod(tensor.dims) <= MAX_SHAPE_VALUES)


def _share(graph: GraphProto, constants: Mapping[str, TensorProto]) -> None:
    """Put the constants that a body reads from outside into the body, where shape inference sees them."""
    for node in graph.node:
        for _, body in bodies(node):
            own = {value.name for value in (*body.input, *body.initializer)}
            own |= {name for inner in body.node for name in inner.output}
            read = {name for inner in body.node for name in inner.input}
            for name in sorted((read - own) & constants.keys()):
                tensor = body.initializer.add()
                tensor.CopyFrom(constants[name])
                tensor.name = name
            _share(body, constants)
