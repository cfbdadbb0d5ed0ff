"""tiny_models.py: small ONNX files and registries around them, for tests. Checks nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from policies import MANUAL

from registry_tool.checks.registry import check
from registry_tool.documents.store import load
from registry_tool.findings import Finding
from registry_tool.hookspec import Level
from registry_tool.plugins import manager, single_models

FLOAT = TensorProto.FLOAT
FEATURES = ["adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2"]
ENCODERS = ["libx264", "libx265", "libsvtav1", "unknown"]


def model(
    nodes: Sequence[onnx.NodeProto] = (),
    tensors: Sequence[TensorProto] = (),
    *,
    codec: int | None = None,
    opset: int = 17,
    seed: int = 0,
) -> onnx.ModelProto:
    """features [N, 6] (and codec_onehot [N, codec]) -> score [N, 1], with further nodes and tensors beside that."""
    width = 6 + (codec or 0)
    weight = np.random.default_rng(seed).normal(size=(width, 1)).astype(np.float32)
    inputs = [helper.make_tensor_value_info("features", FLOAT, ["N", 6])]
    if codec is not None:
        inputs.append(helper.make_tensor_value_info("codec_onehot", FLOAT, ["N", codec]))
    names = [port.name for port in inputs]
    graph = helper.make_graph(
        [
            helper.make_node("Concat", names, ["x"], name="join", axis=1),
            helper.make_node("MatMul", ["x", "w"], ["score"], name="layer"),
            *nodes,
        ],
        "tiny",
        inputs,
        [helper.make_tensor_value_info("score", FLOAT, ["N", 1])],
        [numpy_helper.from_array(weight, "w"), *tensors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def external(location: str, **fields: str) -> onnx.ModelProto:
    """A model whose 6 weights lie in another file."""
    made = model()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location, "offset": "0", "length": "24"} | fields).items():
        weight.external_data.add(key=key, value=value)
    return made


def write(folder: Path, name: str, content: onnx.ModelProto | bytes | dict[str, Any]) -> str:
    """Write a file; its sha256."""
    data = content.SerializeToString() if isinstance(content, onnx.ModelProto) else content
    data = json.dumps(data, indent=2).encode() if isinstance(data, dict) else data
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def entry(folder: Path, content: onnx.ModelProto | bytes, name: str = "m", **fields: Any) -> dict[str, Any]:
    """Write NAME.onnx; the registry entry that pins it, a smoke entry by default. A field of None is left out."""
    digest = write(folder, f"{name}.onnx", content)
    document = {"id": name, "kind": "fr", "onnx": f"{name}.onnx", "sha256": digest, "smoke": True, "license": "MIT"}
    return {key: value for key, value in (document | fields).items() if value is not None}


def sidecar(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The sidecar of a `model()` without a codec input; a field of None is left out."""
    document: dict[str, Any] = {
        "id": row["id"],
        "kind": row["kind"],
        "onnx": row["onnx"],
        "sha256": row["sha256"],
        "opset": 17,
        "input_names": ["features"],
        "output_names": ["score"],
        "feature_order": FEATURES,
        "feature_mean": [0.5] * 6,
        "feature_std": [0.1] * 6,
    }
    return {key: value for key, value in (document | fields).items() if value is not None}


def findings(
    folder: Path, *entries: dict[str, Any], version: int = 1, level: Level = Level.FULL, more: Sequence[Any] = ()
) -> list[Finding]:
    """Write a registry of these entries and check it with the built-in plugin and `more` plugins."""
    document: dict[str, Any] = {"schema_version": version, "models": list(entries)}
    if version == 2:
        document["policies"] = {"fr": MANUAL}
    write(folder, "registry.json", document)
    loaded = manager.Plugins()
    loaded.add(single_models, "onnx_kinds")
    for index, plugin in enumerate(more):
        loaded.add(plugin, f"more{index}")
    return check(load(folder / "registry.json"), loaded, level)


def codes(found: Sequence[Finding]) -> set[str]:
    return {finding.code for finding in found}
