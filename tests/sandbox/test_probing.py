"""What a model gives on rows made here: nothing that is fine is told, nothing that is odd is missed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry_tool.sandbox.probing import probe

FLOAT, DOUBLE, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.STRING
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str | None] | None


def port(name: str, shape: Shape, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, value: Any, dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(" ") if inputs else [], outputs.split(), **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    tensors: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
) -> bytes:
    """A model from x [N, 3] to y [N, 3] where nothing else is said."""
    inputs, outputs = inputs or [port("x", ["N", 3])], outputs or [port("y", ["N", 3])]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(tensors))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def branch(name: str, *nodes: onnx.NodeProto, tensors: Sequence[TensorProto] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [port(name, None)], list(tensors))


def choice(condition: str, value: TensorProto, *, inner: onnx.NodeProto | None = None) -> bytes:
    """y = x + x where the condition on the mean of x holds, else x * x."""
    yes = branch("yes", inner or node("Add", "x x", "yes"))
    no = branch("no", node("Mul", "x x", "no"))
    nodes = [
        node("ReduceMean", "x", "mean", keepdims=0),
        node(condition, "mean bound", "c"),
        node("If", "c", "y", then_branch=yes, else_branch=no, name="choose"),
    ]
    return model(nodes, tensors=[value])


FINE = {
    "a product": model([node("Mul", "x w", "y")], tensors=[constant("w", [1, 2, 3])]),
    "fixed axes": model([node("Relu", "x", "y")], [port("x", [4, 3])], [port("y", [4, 3])]),
    "no axes": model([node("Sin", "x", "y")], [port("x", [])], [port("y", [])]),
    "a picture of any size": model(
        [node("Conv", "x w", "y", pads=[1, 1, 1, 1])],
        [port("x", ["n", 3, "h", "w"])],
        [port("y", list("abcd"))],
        [constant("w", np.ones((2, 3, 3, 3)))],
    ),
    "an axis that has to be 224": model(
        [node("Reshape", "x s", "r"), node("MatMul", "r w", "y")],
        [port("x", [1, "side"])],
        [port("y", [1, 5])],
        [constant("s", [1, 224], "int64"), constant("w", np.arange(1120).reshape(224, 5))],
    ),
    "one row at a time": model(
        [node("Reshape", "x s", "y")], [port("x", ["N", 3])], [port("y", [3])], [constant("s", [3], "int64")]
    ),
    "indices": model(
        [node("Gather", "w i", "y")],
        [port("i", ["N"], INT64)],
        [port("y", ["N", 2])],
        [constant("w", [[1, 2], [3, 4]])],
    ),
    "an index that must not be 0": model(
        [node("Range", "one i step", "r"), node("ReduceSum", "r", "y", keepdims=0)],
        [port("i", [], INT64)],
        [port("y", [], INT64)],
        [constant("one", 1, "int64"), constant("step", 1, "int64")],
    ),
    "a length that masks": model(
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape last", "size"),
            node("Range", "zero size one", "place"),
            node("Less", "place n", "keep"),
            node("Where", "keep x z", "y"),
        ],
        [port("x", [1, "T"]), port("n", [1], INT64)],
        [port("y", [1, "T"])],
        [constant("last", 1, "int64"), constant("zero", 0, "int64"), constant("one", 1, "int64"), constant("z", 0)],
    ),
    "a logarithm": model([node("Log", "x", "y")]),  # NaN below 0, not everywhere
    "a clip": model([node("Clip", "x low high", "y")], tensors=[constant("low", 0), constant("high", 100)]),
    "a class": model([node("ArgMax", "x", "y")], outputs=[port("y", ["N", 3], INT64)]),
    "a flag": model([node("Not", "x", "y")], [port("x", ["N"], BOOL)], [port("y", ["N"], BOOL)]),
    "float64": model([node("Neg", "x", "y")], [port("x", ["N"], DOUBLE)], [port("y", ["N"], DOUBLE)]),
    "branches both entered": choice("Greater", constant("bound", 0.5)),
}


@pytest.mark.parametrize("name", FINE)
def test_sound_models_are_left_alone(name: str) -> None:
    """Whatever their axes, types and ranges are, nothing is told of models that work."""
    assert list(probe(FINE[name])) == []


INNER = node(
    "If",
    "c",
    "yes",
    name="inner",
    then_branch=branch("a", node("Abs", "x", "a")),
    else_branch=branch("b", node("Neg", "x", "b")),
)
ZERO, NAN = constant("z", 0.0), node("Div", "z z", "nan")
ODD = {
    "NaN": (model([NAN, node("Add", "x nan", "y")], tensors=[ZERO]), "onnx-output-not-finite", "y, on all of 12 rows"),
    "NaN in one column": (
        model(
            [
                NAN,
                node("Unsqueeze", "nan a", "n"),
                node("ReduceMean", "x", "m", axes=[1]),
                node("Mul", "m n", "k"),
                node("Concat", "x k", "y", axis=1),
            ],
            outputs=[port("y", ["N", 4])],
            tensors=[ZERO, constant("a", [0, 1], "int64")],
        ),
        "onnx-output-not-finite",
        "y, on all of 12 rows",
    ),
    "infinity": (
        model([node("Div", "one z", "inf"), node("Max", "x inf", "y")], tensors=[ZERO, constant("one", 1)]),
        "onnx-output-not-finite",
        "y, on all of 12 rows",
    ),
    "a constant": (
        model([node("Mul", "x z", "zero"), node("Add", "zero c", "y")], tensors=[ZERO, constant("c", 95)]),
        "onnx-output-constant",
        "y is 95 on all of 12 rows",
    ),
    "a constant beside a score": (
        model(
            [node("Mul", "x z", "s"), node("Relu", "x", "y")],
            outputs=[port("y", ["N", 3]), port("s", ["N", 3])],
            tensors=[ZERO],
        ),
        "onnx-output-idle",
        "s is 0 on all of 12 rows",
    ),
    "NaN beside a score": (
        model(
            [NAN, node("Mul", "x nan", "s"), node("Relu", "x", "y")],
            outputs=[port("y", ["N", 3]), port("s", ["N", 3])],
            tensors=[ZERO],
        ),
        "onnx-output-not-finite",
        "s, on all of 12 rows",
    ),
    "a branch that nothing enters": (
        choice("Greater", constant("bound", 1e9)),
        "onnx-branch-unprobed",
        "then_branch of choose",
    ),
    "a branch that everything enters": (
        choice("Less", constant("bound", 1e9)),
        "onnx-branch-unprobed",
        "else_branch of choose",
    ),
    "a branch in a branch": (
        choice("Greater", constant("bound", -1e9), inner=INNER),
        "onnx-branch-unprobed",
        "else_branch of choose, else_branch of inner",
    ),
    "no size that fits": (
        model(
            [node("Reshape", "x s", "y")],
            [port("x", [1, "T"])],
            [port("y", [1, 997])],
            [constant("s", [1, 997], "int64")],
        ),
        "onnx-probe-unrun",
        "",
    ),
    "fixed axes that do not fit": (
        model(
            [node("Reshape", "x s", "y")],
            [port("x", [1, 5])],
            [port("y", ["a", "b"])],
            [constant("s", [2, 3], "int64")],
        ),
        "onnx-probe-refused",
        "",
    ),
    "strings": (
        model([node("Identity", "x", "y")], [port("x", ["N"], STRING)], [port("y", ["N"], STRING)]),
        "onnx-probe-unrun",
        "no such input",
    ),
    "no model": (b"no model", "onnx-probe-refused", ""),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_told_once(name: str) -> None:
    """Outputs that are no numbers, or one number, branches that no row entered, models that were not run."""
    data, code, text = ODD[name]
    ((found, seen),) = probe(data)
    assert found == code
    assert text in seen


def test_the_same_rows_in_every_run() -> None:
    """What is told of a model does not change from run to run."""
    data = ODD["a branch in a branch"][0]
    assert list(probe(data)) == list(probe(data))


def test_a_loop_that_never_runs_is_told() -> None:
    """A body that no round entered counts as a branch."""
    ports = [port("i", [], INT64), port("c", [], BOOL), port("v", None)]
    body = helper.make_graph(
        [node("Identity", "c", "k"), node("Add", "v v", "o")], "body", ports, [port("k", [], BOOL), port("o", None)]
    )
    never = model([node("Loop", "zero  x", "y", body=body, name="rounds")], tensors=[constant("zero", 0, "int64")])
    assert list(probe(never)) == [("onnx-branch-unprobed", "body of rounds")]
