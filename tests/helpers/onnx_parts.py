"""Pieces of ONNX models, whole or as raw protobuf bytes, for tests to put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from registry_tool.onnx_summary import OnnxSummary
from registry_tool.sandbox.reader import read_model

FLOAT = TensorProto.FLOAT


def tensor(name: str, values: Any, dtype: str = "float32") -> TensorProto:
    """A tensor with raw data."""
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; names are split at spaces."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def body(
    *nodes: NodeProto, inputs: str = "", outputs: str = "o", initializer: Sequence[TensorProto] = ()
) -> GraphProto:
    """A subgraph."""
    ins, outs = ([helper.make_tensor_value_info(name, FLOAT, None) for name in n.split()] for n in (inputs, outputs))
    return helper.make_graph(list(nodes), "body", ins, outs, list(initializer))


def model(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = (), **parts: Any) -> ModelProto:
    """A model with input x [N, 3] and output y [N]; without nodes, one that adds."""
    graph = helper.make_graph(
        list(nodes) or [node("Add", "x w", "y")],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", FLOAT, ["N"])],
        list(tensors) or [tensor("w", [1, 2, 3])],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], **parts)


def facts(proto: ModelProto) -> OnnxSummary:
    """The facts of the serialised model."""
    return read_model(proto.SerializeToString())


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    """A protobuf integer."""
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def in_graph(payload: bytes) -> bytes:
    """A model of IR version 8 whose graph has these bytes."""
    return b"\x08\x08" + field(7, payload)


def typed(kind: int, field_name: str, values: list[Any]) -> TensorProto:
    """A tensor named bad, stored as numbers."""
    proto = TensorProto(name="bad", data_type=kind, dims=[len(values)])
    getattr(proto, field_name).extend(values)
    return proto


def raw(kind: int, data: bytes, n: int) -> TensorProto:
    """A tensor named bad of n values, stored as bytes."""
    return TensorProto(name="bad", data_type=kind, dims=[n], raw_data=data)


def sparse_of(values: TensorProto) -> onnx.SparseTensorProto:
    """A sparse tensor of nine, one of which is given."""
    return onnx.SparseTensorProto(values=values, indices=tensor("", [0], "int64"), dims=[9])


def places_of(bad: TensorProto) -> Iterator[ModelProto]:
    """Models that hold the tensor wherever ONNX lets one stand."""
    yield model(tensors=(tensor("w", [1, 2, 3]), bad))
    yield model(node("Constant", "", "c", value=bad), node("Add", "x w", "y"))
    yield model(node("If", "x", "y", then_branch=body(node("Constant", "", "o", value=bad)), else_branch=body()))
    yield model(node("If", "x", "y", then_branch=body(node("Relu", "x", "o"), initializer=[bad]), else_branch=body()))
    yield model(node("Custom", "x", "y", several=[bad]))
    functional = model()
    functional.functions.append(helper.make_function("own", "f", [], ["o"], [node("Constant", "", "o", value=bad)], []))
    yield functional
    trained = model()
    trained.training_info.add().initialization.CopyFrom(body(initializer=[bad]))
    yield trained
    sparse = model()
    sparse.graph.sparse_initializer.append(sparse_of(bad))
    yield sparse
    yield model(node("Constant", "", "c", sparse_value=sparse_of(bad)), node("Add", "x w", "y"))


def external(**entries: Any) -> TensorProto:
    """A float32 tensor (2, 3) in another file."""
    proto = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


FINITE_TENSORS = {
    "largest": tensor("good", [np.finfo("f4").max, -0.0, 1e-45]),
    "float16": tensor("good", [65504.0], "float16"),
    "int32": tensor("good", [0x7F800000], "int32"),
    "int64 in int64_data": typed(TensorProto.INT64, "int64_data", [-1, 2**63 - 1]),
    "uint64 in uint64_data": typed(TensorProto.UINT64, "uint64_data", [2**64 - 1]),
    "uint32 in uint64_data": typed(TensorProto.UINT32, "uint64_data", [0x7F800000]),
    "bool": tensor("good", [True], "bool"),
    "bool in int32_data": typed(TensorProto.BOOL, "int32_data", [1, 0]),
    "bfloat16 in int32_data": typed(TensorProto.BFLOAT16, "int32_data", [0x7F7F, 0xFF7F, 0x3F80]),
    "strings": typed(TensorProto.STRING, "string_data", [b"nan", b"inf"]),
    "int4": raw(TensorProto.INT4, b"\xff\xff", 3),
    "int4 in int32_data": TensorProto(data_type=TensorProto.INT4, dims=[3], int32_data=[0xFF, 0xFF]),
    "float8e4m3fn": raw(TensorProto.FLOAT8E4M3FN, b"\x7c\x7e", 2),
    "empty": tensor("good", np.zeros((0, 3))),
    "scalar": tensor("good", 1.5),
}

PLAIN = model().SerializeToString()
NAN = float("nan")


def operators_of(proto: ModelProto) -> set[str]:
    """An independent walk over the parsed protobuf."""

    def walk(nodes: Any) -> Iterator[str]:
        for item in nodes:
            yield item.op_type
            for attribute in item.attribute:
                for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                    yield from walk(graph.node)

    graphs = [proto.graph, *(g for info in proto.training_info for g in (info.initialization, info.algorithm))]
    return {op for part in [*graphs, *proto.functions] for op in walk(part.node)}
