"""test_inference.py: a model run on given rows in the child: the numbers of this process, or one error."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper

from registry_tool.errors import PluginError
from registry_tool.hookspec import Level
from registry_tool.onnx_summary import OnnxError
from registry_tool.plugins.inspection import Inspection
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Folder
from registry_tool.testing.bench import Bench
from registry_tool.workflows.loading import usable, verified

pytestmark = pytest.mark.slow

MODEL = tiny_models.model().SerializeToString()


def rows(n: int) -> dict[str, np.ndarray]:
    """Inputs of MODEL: as many columns as it takes."""
    ports = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]).get_inputs()
    rng = np.random.default_rng(n)
    return {port.name: rng.normal(size=(n, port.shape[1])).astype(np.float32) for port in ports}


@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 1500])
def test_the_child_gives_what_this_process_gives(n: int) -> None:
    """All rows in their order, across the chunks in which they run; in float32."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    expected = dict(zip([port.name for port in session.get_outputs()], session.run(None, rows(n)), strict=True))
    with Prober() as prober:
        found = prober.infer(MODEL, rows(n))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (np.float32, value.shape)
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


def shapeless() -> bytes:
    """A second output is one number, however many rows there are."""
    model = tiny_models.model([helper.make_node("ReduceMax", ["features"], ["greatest"], keepdims=0)])
    model.graph.output.append(helper.make_tensor_value_info("greatest", TensorProto.FLOAT, []))
    return model.SerializeToString()


def far() -> bytes:
    """A second output reads a column that is not there."""
    node = helper.make_node("Gather", ["features", "index"], ["column"], axis=1)
    model = tiny_models.model([node], [numpy_helper.from_array(np.array([10_000]), "index")])
    model.graph.output.append(helper.make_tensor_value_info("column", TensorProto.FLOAT, ["N", 1]))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (b"no model", rows(3), ""),
        (MODEL, {"other": np.zeros((3, 6), np.float32)}, ""),
        (MODEL, {name: value[:, :1] for name, value in rows(3).items()}, ""),
        (MODEL, {**rows(3), "more": np.zeros((4, 1), np.float32)}, "rows, expected as many of each"),
        (shapeless(), rows(3), "a float32 array with a row for each"),
        (far(), rows(3), ""),
    ],
)
def test_what_does_not_run_is_one_error(model: bytes, inputs: dict[str, np.ndarray], words: str) -> None:
    """With a code, in one line, and the child lives for the next model."""
    with Prober() as prober:
        with pytest.raises(OnnxError) as error:
            prober.infer(model, inputs)
        assert (error.value.code, "\n" in str(error.value)) == ("onnx-probe-refused", False)
        assert words in str(error.value)
        assert prober.infer(MODEL, rows(1)).keys() == {"score"}


LIES = [
    {},
    {"outputs": 7},
    {"outputs": {"score": [1]}},
    {"outputs": {"score": {"shape": [1], "data": "AAAA"}}},
    {"outputs": {"score": {"shape": [7], "data": "AAAAAA=="}}},
    {"outputs": {"score": {"shape": "x", "data": "AAAAAA=="}}},
    {"outputs": {"score": {"shape": [1], "data": "*"}}},
]


@pytest.mark.parametrize("answer", LIES, ids=json.dumps)
def test_a_child_that_lies_is_not_believed(tmp_path: Path, answer: dict[str, object]) -> None:
    """Whatever a model that took it over answers is an array, or an error of the model."""
    said = [{"ready": True}, {"reduced": False}, answer]
    data = b"".join(struct.pack("<I", len(text)) + text for text in (json.dumps(one).encode() for one in said))
    liar = tmp_path / "liar.py"
    liar.write_text(f"import sys\nsys.stdout.buffer.write({data!r})\nsys.stdout.flush()\nsys.stdin.buffer.read()\n")
    with Prober((sys.executable, str(liar))) as prober, pytest.raises(OnnxError, match="its answer is none"):
        prober.infer(MODEL, rows(1))


def test_an_entry_runs_its_pinned_files(thumb: Bench) -> None:
    """By their path; a path without a pin is a KeyError, and without a child there is none to run."""
    with thumb.view() as view:
        path = next(path for path in view.paths if path.endswith(".onnx"))
        assert view.run(path, rows(4))["score"].shape[0] == 4
        with pytest.raises(KeyError, match="nothing in entry"):
            view.run("other.onnx", rows(4))
    with Folder(thumb.path.parent) as folder:
        view = verified(Inspection(usable(thumb.path), thumb.plugins, folder), thumb.id)
        with pytest.raises(PluginError, match=f"--level {Level.QUICK}"):
            view.run(path, rows(4))
