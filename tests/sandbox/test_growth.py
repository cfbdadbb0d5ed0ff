"""What a model would take, in every branch, taken or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry_tool.sandbox.growth import MAX_ROUNDS, MAX_TENSOR, excesses

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name: str, value: int) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.int64), name)


def port(name: str, kind: int = FLOAT, shape: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(" ") if inputs else [], outputs.split(), **attributes)


def model(nodes: Sequence[onnx.NodeProto], tensors: Sequence[TensorProto] = ()) -> onnx.ModelProto:
    """A model from x [N, 8] to y."""
    given = any("y" in one.output for one in nodes)
    nodes = [*nodes, *([] if given else [node("Identity", "x", "y")])]
    ports = [port("x", FLOAT, ["N", 8])], [port("y", FLOAT, ["a", "b"])]
    graph = helper.make_graph(nodes, "graph", *ports, list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def never(*nodes: onnx.NodeProto, tensors: Sequence[TensorProto] = ()) -> list[onnx.NodeProto]:
    """The nodes, which make `big`, in a branch that a constant condition leaves out."""
    taken = helper.make_graph([node("Identity", "x", "a")], "taken", [], [port("a")])
    left = helper.make_graph([*nodes, node("ReduceMax", "big", "b")], "left", [], [port("b")], list(tensors))
    false = numpy_helper.from_array(np.array(False), "false")
    return [
        node("Constant", "", "c", value=false),
        node("If", "c", "y", then_branch=left, else_branch=taken, name="if"),
    ]


def loop(rounds: str, *inner: onnx.NodeProto, name: str = "loop", carried: str = "x") -> onnx.NodeProto:
    """A Loop whose body runs these nodes, which make NAME_v of NAME_in."""
    ports = [port(f"{name}_i", INT64, []), port(f"{name}_c", BOOL, []), port(f"{name}_in")]
    nodes = [node("Identity", f"{name}_c", f"{name}_k"), *inner]
    body = helper.make_graph(nodes, name, ports, [port(f"{name}_k", BOOL, []), port(f"{name}_v")])
    return node("Loop", f"{rounds}  {carried}", f"{name}_end", body=body, name=name)


def scan(name: str, over: str, *inner: onnx.NodeProto, state: str) -> onnx.NodeProto:
    """A Scan over the first axis of `over`, whose body makes NAME_v of NAME_in."""
    body = helper.make_graph(list(inner), name, [port(f"{name}_in"), port(f"{name}_row")], [port(f"{name}_v")])
    return node("Scan", f"{state} {over}", f"{name}_end", body=body, num_scan_inputs=1, name=name)


BIG = 2**15
STEP = node("Add", "inner_in inner_in", "inner_v")
FITS: dict[str, onnx.ModelProto] = {
    "a product": model([node("Relu", "x", "y")]),
    "a loop of the most rounds": model([loop("n", node("Relu", "loop_in", "loop_v"))], [scalar("n", MAX_ROUNDS)]),
    "two loops, one after the other": model(
        [loop("n", node("Relu", "a_in", "a_v"), name="a"), loop("n", node("Relu", "b_in", "b_v"), name="b")],
        [scalar("n", MAX_ROUNDS)],
    ),
    "a loop in a loop": model(
        [loop("n", loop("n", STEP, name="inner", carried="loop_in"), node("Identity", "inner_end", "loop_v"))],
        [scalar("n", 200)],
    ),
    "a branch of the largest tensor": model(never(node("Expand", "x s", "big")), [integers("s", MAX_TENSOR // 8, 8)]),
}
EXCEEDS: dict[str, tuple[onnx.ModelProto, str, str]] = {
    "a tensor in a branch, its size outside": (
        model(never(node("Expand", "x s", "big")), [integers("s", MAX_TENSOR // 4, 8)]),
        "onnx-allocation",
        "big in then_branch of if",
    ),
    "a tensor in a branch, its size inside": (
        model(never(node("Expand", "x s", "big"), tensors=[integers("s", MAX_TENSOR // 4, 8)])),
        "onnx-allocation",
        "big in then_branch of if",
    ),
    "a tensor in a branch, its size multiplied": (
        model(never(node("Mul", "h h", "s"), node("ConstantOfShape", "s", "big")), [integers("h", BIG, 1)]),
        "onnx-allocation",
        "big in then_branch of if has 1073741824 elements",
    ),
    "tiles of tiles": (
        model(
            never(node("Tile", "x t", "one"), node("Tile", "one t", "two"), node("Tile", "two t", "big")),
            [integers("t", 512, 512)],
        ),
        "onnx-allocation",
        "big in then_branch of if",
    ),
    "a loop in a loop": (
        model(
            [loop("n", loop("n", STEP, name="inner", carried="loop_in"), node("Identity", "inner_end", "loop_v"))],
            [scalar("n", 300)],
        ),
        "onnx-loop",
        "inner in body of loop runs 90000 rounds",
    ),
    "a loop in a loop in a branch": (
        model(
            never(
                loop("n", loop("n", STEP, name="inner", carried="loop_in"), node("Identity", "inner_end", "loop_v")),
                node("Identity", "loop_end", "big"),
            ),
            [scalar("n", 2**16)],
        ),
        "onnx-loop",
        "inner in body of loop runs 4294967296 rounds",
    ),
    "a scan in a scan": (
        model(
            [
                scan(
                    "a",
                    "rows",
                    scan("b", "rows", node("Add", "b_in b_in", "b_v"), state="a_in"),
                    node("Identity", "b_end", "a_v"),
                    state="x",
                )
            ],
            [numpy_helper.from_array(np.zeros((400, 1), np.float32), "rows")],
        ),
        "onnx-loop",
        "b in body of a runs 160000 rounds",
    ),
    "much in every round": (
        model(
            [loop("n", node("ConstantOfShape", "s", "wide"), node("ReduceMax", "wide", "loop_v"))],
            [scalar("n", 2**16), integers("s", 2**18, 8)],
        ),
        "onnx-loop",
        "wide in body of loop has 2097152 elements in each of 65536 rounds",
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_what_fits_is_left_alone(name: str) -> None:
    """Loops and tensors at the limits are fine, and loops one after the other are not multiplied."""
    onnx.checker.check_model(FITS[name])
    assert list(excesses(FITS[name])) == []


@pytest.mark.parametrize("name", EXCEEDS)
def test_sizes_and_rounds_are_multiplied_through_every_branch(name: str) -> None:
    """A tensor or a loop beyond the limits is told once, with its place, though no run would enter it."""
    made, code, text = EXCEEDS[name]
    onnx.checker.check_model(made)
    found = list(excesses(made))
    assert {excess.code for excess in found} == {code}
    assert text in found[0].text
    assert sum(" runs " in excess.text for excess in found) <= 1
