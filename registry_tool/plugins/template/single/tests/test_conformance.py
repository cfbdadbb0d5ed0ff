"""test_conformance.py: what registry-tool asks of every plugin, asked of this one, on a model that is made here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from registry_tool.testing import PluginSuite

COLUMNS = ["sharpness", "noise"]


def model(slope: float = 80.0) -> bytes:
    """A linear model of two columns, as a program that trains would export it."""
    weights = [
        numpy_helper.from_array(np.array([[slope], [-5.0]], np.float32), "weights"),
        numpy_helper.from_array(np.array([20.0], np.float32), "bias"),
    ]
    ports = [
        helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1]),
    ]
    nodes = [helper.make_node("Gemm", ["columns", "weights", "bias"], ["score"])]
    graph = helper.make_graph(nodes, "linear", ports[:1], ports[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


class TestConformance(PluginSuite):
    """`registry_tool.testing` says what can be set here."""

    plugin = "registry_ruler.plugin"
    kind = "ruler"
    corpus = Path(__file__).parents[1] / "rows.csv"
    without = dict.fromkeys(
        tuple(f"registry_{name}" for name in ("train", "calibrate", "migrate", "gate", "oof", "evaluate", "reproduce")),
        "its models are trained elsewhere",
    ) | dict.fromkeys(("registry_figures", "registry_commands"), "there is nothing to show yet")

    def other_model(self) -> Mapping[str, bytes]:
        return {"model.onnx": model(slope=8.0)}

    def make_registry(self, folder: Path, rows: Path | None) -> None:
        """One model and its sidecar, listed with their digests."""
        sidecar = json.dumps({"columns": COLUMNS, "output": "score"}).encode()
        files = {"model.onnx": model(), "model.json": sidecar}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        digests = [hashlib.sha256(data).hexdigest() for data in files.values()]
        row = {"id": "good", "kind": "ruler", "smoke": True, "license": "MIT", "onnx": "model.onnx"}
        row |= {"sha256": digests[0], "sidecar_sha256": digests[1]}
        document = {
            "schema_version": 2,
            "policies": {"ruler": {"gate": "manual", "rules": []}},
            "models": [row],
        }
        (folder / "registry.json").write_text(json.dumps(document, indent=2))
