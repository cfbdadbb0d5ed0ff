"""infinities.py: which operators compute with the infinities of a constant. Runs nothing.

Minus infinity marks what a softmax leaves out, pads a maximum or bounds a clip: there it is meant. In a product, or in
a sum that goes on, it becomes NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# They choose, compare or bound: an infinity among what they read is harmless.
BOUNDING_OPERATORS = frozenset(
    [
        "Where",
        "Max",
        "Min",
        "Clip",
        "Pad",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "IsInf",
        "IsNaN",
        "ArgMax",
        "ArgMin",
        "ReduceMax",
        "ReduceMin",
        "TopK",
        "Softmax",
        "LogSoftmax",
        "ReduceLogSumExp",
    ]
)
# What a tree compares an input with: exporters write infinity where a branch is always taken.
BOUNDING_ATTRIBUTES = frozenset([("TreeEnsemble", "nodes_splits"), ("TreeEnsembleRegressor", "nodes_values")])
# They move values without computing: what reads their outputs counts.
MOVING_OPERATORS = frozenset(
    [
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Unsqueeze",
        "Squeeze",
        "Expand",
        "Transpose",
        "Slice",
        "Concat",
        "Gather",
        "GatherElements",
        "GatherND",
        "Tile",
        "Flatten",
        "Split",
        "Trilu",
        "Constant",
        "ConstantOfShape",
        "ScatterND",
        "ScatterElements",
    ]
)
KEEPING_OPERATORS = frozenset(["Where", "Pad"])  # of the first: what they give may still hold the infinity


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that may hold an infinity. positive: +inf among it. added: a mask was added to other numbers already."""

    name: str
    positive: bool
    added: bool = False


class Readers:
    """Who reads each name of a model. nodes, graphs: all of the file, wherever they are."""

    def __init__(self, nodes: Iterable[NodeProto], graphs: Iterable[GraphProto]) -> None:
        self._of: dict[str, list[NodeProto]] = {}
        self._leaves: dict[str, list[str]] = {}  # what a branch of an If returns -> what the If gives
        for node in nodes:
            for name in node.input:
                self._of.setdefault(name, []).append(node)
            for attribute in node.attribute if node.op_type == "If" else ():
                for inner, outer in zip(attribute.g.output, node.output, strict=False):
                    self._leaves.setdefault(inner.name, []).append(outer)
        self._returned = {value.name for graph in graphs for value in graph.output} - self._leaves.keys()

    def harmful(self, names: Iterable[str], *, positive: bool) -> tuple[str, ...]:
        """The operators that compute with an infinity in these values; 'output' where a graph returns one."""
        found: set[str] = set()
        pending = [_Value(name, positive) for name in names if name]
        seen = set(pending)
        while pending:
            value = pending.pop()
            if value.name in self._returned:
                found.add("output")
            further = [replace(value, name=name) for name in self._leaves.get(value.name, ())]
            for node in self._of.get(value.name, ()):
                further += self._through(node, value, found)
            pending += [one for one in further if one not in seen]
            seen |= set(further)
        return tuple(sorted(found))

    def _through(self, node: NodeProto, value: _Value, found: set[str]) -> list[_Value]:
        """What the node passes on; adds it to `found` where it computes with the infinity."""
        op = node.op_type
        if op == "Add" and not value.positive:
            passed = replace(value, added=True)
        elif op == "Neg":
            passed = replace(value, positive=not value.positive)
        elif op in MOVING_OPERATORS or (value.added and op in KEEPING_OPERATORS):
            passed = value
        elif op in BOUNDING_OPERATORS:
            return []
        else:
            found.add(op)
            return []
        return [replace(passed, name=name) for name in node.output if name]
