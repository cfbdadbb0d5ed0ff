"""plugin.py: the hooks of kind `ruler`: one ONNX file, trained elsewhere, and a sidecar. Heavy imports stay inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import Batch, EntryView, Kind, Level, hookimpl
from registry_tool.onnx_summary import OnnxError, Port
from registry_tool.toolkit import Columns, RowBatch, missing_column

KIND = "ruler"
COLUMNS = FindingRule(
    "ruler-columns",
    "sidecar with other columns than the model has inputs",
    why="A runtime that follows the sidecar feeds the model something else.",
    message="unusable columns",
    hint="export the sidecar again",
    example="three names for two inputs",
)
OUTPUT = FindingRule(
    "ruler-output",
    "sidecar with another output than the model",
    why="A runtime that follows the sidecar fails.",
    message="the model has another output",
    hint="export the sidecar again",
    example='"mu" for "score"',
)
PORTS = FindingRule(
    "ruler-ports",
    "model that does not give one number for each row",
    why="Rows cannot be fed to it, or their scores cannot be told apart.",
    message="the model does not give one number for each row",
    hint="export it with one input and one output of float32, and the number of rows left open",
    example="an input of exactly one row",
)
SIDECAR = FindingRule(
    "ruler-sidecar",
    "missing sidecar",
    why="A runtime cannot know what to feed the model.",
    message="{id} has no sidecar",
    hint="add the sidecar, and its sidecar_sha256 in registry.json",
    example="model.onnx without model.json",
)


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    return [Kind(KIND, "a model trained elsewhere: one ONNX file with a sidecar", findings={"ruler-": __name__})]


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterator[Finding]:
    if view.entry.kind != KIND or view.entry.onnx is None:
        return
    if view.manifest is None:
        yield SIDECAR.at(view, id=view.entry.id)
        return
    columns, output = view.manifest.get("columns"), view.manifest.get("output")
    if not _are_names(columns):
        found = "none" if columns is None else columns
        yield COLUMNS.at(view, "/columns", found=found, expected="different names")
        return
    if level is not Level.FULL:
        return
    try:
        graph = view.onnx(view.entry.onnx)
    except OnnxError:
        return  # the core says what is wrong with it
    if not _is_of_rows(graph.inputs, scores=False) or not _is_of_rows(graph.outputs, scores=True):
        found = ", ".join(f"{port.name}: {port.elem_type} {port.shape}" for port in (*graph.inputs, *graph.outputs))
        yield PORTS.at(view, found=found, expected="an input (rows, columns) and an output (rows, 1), float32")
        return
    (width,) = (graph.inputs[0].shape or ())[1:]
    if len(columns) != width:
        yield COLUMNS.at(view, "/columns", found=f"{len(columns)} names", expected=f"{width}, as the model's input has")
    if output != graph.outputs[0].name:
        yield OUTPUT.at(view, "/output", found=output or "none", expected=graph.outputs[0].name)


class ModelPredictor:
    """A loaded model; see `hookspec.Predictor`."""

    def __init__(self, onnx: bytes, names: Sequence[str], output: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self._names, self._output = tuple(names), output

    def columns(self, found: Sequence[str], place: str) -> Columns:
        for name in self._names:
            if name not in found:
                raise missing_column(place, name, found)
        return Columns(self._names)

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        import numpy as np

        inputs = np.column_stack([rows.numbers[name] for name in self._names]).astype(np.float32)
        (scores,) = self._session.run([self._output], {self._session.get_inputs()[0].name: inputs})
        return Batch({self._output: scores.reshape(-1)})

    def check_file(self, path: Path) -> None:
        """A file says nothing of its rows that the model would mind."""


@hookimpl
def registry_load(view: EntryView) -> ModelPredictor:
    if view.manifest is None or not _are_names(view.manifest.get("columns")):
        raise InputError(f"{view.entry.id}: found no sidecar with columns: run `registry validate`")
    return ModelPredictor(view.read(view.entry.onnx or ""), view.manifest["columns"], view.manifest["output"])


def _is_of_rows(ports: Sequence[Port], *, scores: bool) -> bool:
    """Whether it is one port of float32, for any number of rows; scores: with one number in each."""
    if len(ports) != 1 or ports[0].elem_type != "float32" or not ports[0].shape:
        return False
    rows, *axes = ports[0].shape
    return not isinstance(rows, int) and (axes in ([], [1]) if scores else [*map(type, axes)] == [int])


def _are_names(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of different texts."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, str) for item in value)
        and len({*value}) == len(value)
    )
