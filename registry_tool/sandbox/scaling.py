"""scaling.py: what a graph does to its inputs first, where that is arithmetic with constants. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import GraphProto, NodeProto

from registry_tool.onnx_summary import Scaling
from registry_tool.sandbox.tensors import Tensor

ARITHMETIC_OPS = ("Add", "Sub", "Mul", "Div")
PASSING_OPS = ("Identity", "Cast")  # what may stand between
MAX_STEPS = 8  # nodes that are followed from an input
MAX_CONSTANT_VALUES = 4_096  # of a constant: as many means as a sidecar may have
NUMBER_FIELDS = {"float32": ("<f4", "float_data"), "float64": ("<f8", "double_data")}


def scalings_of(graph: GraphProto, tensors: list[Tensor]) -> Iterator[Scaling]:
    """For each input, one after the other, the constants that the only node that reads it computes with."""
    constants: dict[str, Tensor] = {}
    for tensor in tensors:
        owner = tensor.part.parent
        if owner and tensor.part.field == "initializer" and owner.message is graph:
            constants[tensor.name] = tensor
        elif owner and owner.parent and tensor.part.field == "t" and owner.parent.message.op_type == "Constant":
            constants |= dict.fromkeys(owner.parent.message.output, tensor)
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    for port in graph.input:
        if port.name not in constants:
            yield from _followed(port.name, readers, constants)


def _followed(name: str, readers: Mapping[str, list[NodeProto]], constants: Mapping[str, Tensor]) -> Iterator[Scaling]:
    value = name
    for _ in range(MAX_STEPS):
        found = readers.get(value, [])
        if len(found) != 1 or not found[0].output:
            return
        node = found[0]
        if node.op_type == "Scaler":
            attributes = {one.name: tuple(one.floats) for one in node.attribute}
            pairs = [("Sub", attributes.get("offset", ())), ("Mul", attributes.get("scale", ()))]
        elif node.op_type in ARITHMETIC_OPS and len(node.input) == 2:
            pairs = [(node.op_type, _numbers(constants.get(_other(node, value))))]
        elif node.op_type in PASSING_OPS:
            pairs = []
        else:
            return
        if not all(values for _, values in pairs):
            return  # with something that is no constant
        yield from (Scaling(name, op, values) for op, values in pairs)
        value = node.output[0]


def _other(node: NodeProto, value: str) -> str:
    """What the node reads beside a value; of a difference or a quotient, what stands behind it."""
    first, second = node.input
    if first == value:
        return str(second)
    return str(first) if node.op_type in ("Add", "Mul") else ""


def _numbers(tensor: Tensor | None) -> tuple[float, ...]:
    """The values of a small float tensor; () for any other."""
    if tensor is None or tensor.elem_type not in NUMBER_FIELDS or not 0 < tensor.size <= MAX_CONSTANT_VALUES * 8:
        return ()
    dtype, field = NUMBER_FIELDS[tensor.elem_type]
    payload = tensor.payload()
    values = np.frombuffer(payload, dtype) if payload is not None else tensor.numbers(field)
    return tuple(values.astype(np.float64).tolist()) if np.isfinite(values).all() else ()
