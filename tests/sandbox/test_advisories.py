"""Tests of graphs that the advisories of onnx and onnxruntime warn of: found before one of these libraries sees them.

Each is what an advisory of 2022 to 2026 describes, made here anew. The child parses it with protobuf alone; neither
the checker of onnx nor a session of onnxruntime is given it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import codes, entry, external, findings, model, write

from registry_tool.findings import Finding, Severity
from registry_tool.sandbox.prober import Prober

SECRET = np.arange(6, dtype="<f4").tobytes()


class Recorder(Prober):
    """A prober that notes what it gives to libraries."""

    given: list[bytes]

    def check(self, model: bytes, others: Mapping[str, bytes] = {}) -> Any:
        type(self).given.append(model)
        return super().check(model, others)

    def run(self, model: bytes, others: Mapping[str, bytes] = {}) -> Any:
        type(self).given.append(model)
        return super().run(model, others)


def attempt(folder: Path, content: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> list[Finding]:
    """The errors on a model, of which there are some, after it was shown that no library was given it."""
    Recorder.given = []
    monkeypatch.setattr("registry_tool.checks.registry.Prober", Recorder)
    row = entry(folder, content, **fields)
    sound = entry(folder, model(), "sound")
    found = findings(folder, row, sound, version=2)
    assert (folder / "sound.onnx").read_bytes() in Recorder.given  # so the recorder sees what is given
    assert (folder / "m.onnx").read_bytes() not in Recorder.given
    errors = [finding for finding in found if finding.entry == "m" and finding.severity is Severity.ERROR]
    assert errors
    return errors


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a registry in it, and a secret beside that."""
    write(tmp_path, "secret.data", SECRET)
    (tmp_path / "model" / "a").mkdir(parents=True)
    return tmp_path / "model"


# CVE-2022-25882, CVE-2024-27318, CVE-2026-27489: names that lead out of the folder, however they are spelt.
TRAVERSALS = ["../secret.data", "a/../../secret.data", "junk/../../secret.data", "..\\secret.data", "{top}/secret.data"]


@pytest.mark.parametrize("location", TRAVERSALS)
def test_a_location_outside_the_folder(location: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of external data that leaves the folder is refused, absolute, with dots inside, or with backslashes."""
    named = external(location.format(top=outside.parent))
    assert codes(attempt(outside, named, monkeypatch)) <= {"onnx-external-escapes", "onnx-external-unreadable"}


@pytest.mark.parametrize("kind", ["link", "parent link", "hard link"])
def test_a_link_in_the_folder(kind: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-34446, CVE-2026-34447: a link leads to no file outside; a hard link is a file that nothing pins."""
    match kind:
        case "link":
            (outside / "w.data").symlink_to("../secret.data")
        case "parent link":
            (outside / "w").symlink_to("..")
        case "hard link":
            os.link(outside.parent / "secret.data", outside / "w.data")
    location = "w/secret.data" if kind == "parent link" else "w.data"
    found = attempt(outside, external(location), monkeypatch)
    assert codes(found) <= {"onnx-external-escapes", "onnx-external-unreadable", "onnx-external-unpinned"}


@pytest.mark.parametrize("key", ["__class__", "basepath", "checksum_", "locatio"])
def test_an_unknown_key_of_external_data(key: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-34445: keys that would become attributes of the loader are refused."""
    write(outside, "w.data", SECRET)
    attempt(outside, external("w.data", **{key: "1"}), monkeypatch)


@pytest.mark.parametrize("field", [{"offset": "-1"}, {"length": "-1"}, {"length": str(2**62)}, {"offset": str(2**63)}])
def test_a_range_outside_the_file(field: dict[str, str], outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that would make a library allocate or read beyond the file are refused."""
    write(outside, "w.data", SECRET)
    attempt(outside, external("w.data", **field), monkeypatch)


def leading_outside(name: str) -> TensorProto:
    """A tensor whose values lie in a file outside the folder."""
    tensor = TensorProto(name=name, dims=[6], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "../secret.data", "offset": "0", "length": "24"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(name: str) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(6, dtype=np.int64), f"{name}_indices")
    return onnx.SparseTensorProto(values=leading_outside(name), indices=indices, dims=[6])


def in_a_sparse_initializer() -> onnx.ModelProto:
    made = model([helper.make_node("Identity", ["sparse"], ["copied"])])
    made.graph.sparse_initializer.append(sparse("sparse"))
    return made


def in_a_branch(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """The nodes in a branch of an If."""

    def branch(name: str, inner: list[onnx.NodeProto]) -> onnx.GraphProto:
        return helper.make_graph(inner, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    yes = branch("yes", [*nodes, helper.make_node("Identity", ["score"], ["yes"])])
    no = branch("no", [helper.make_node("Identity", ["score"], ["no"])])
    chosen = helper.make_node("If", ["always"], ["chosen"], then_branch=yes, else_branch=no)
    return model([chosen], [numpy_helper.from_array(np.array(True), "always")])


CONSTANTS = {
    "a constant": helper.make_node("Constant", [], ["hidden"], value=leading_outside("hidden")),
    "a sparse constant": helper.make_node("Constant", [], ["hidden"], sparse_value=sparse("hidden")),
}


@pytest.mark.parametrize(
    "content",
    [
        in_a_sparse_initializer(),
        *(model([node]) for node in CONSTANTS.values()),
        *(in_a_branch(node) for node in CONSTANTS.values()),
    ],
    ids=["a sparse initializer", *CONSTANTS, *(f"{name} in a branch" for name in CONSTANTS)],
)
def test_external_data_where_no_initializer_is(
    content: onnx.ModelProto, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of attributes, sparse ones and those of branches are held to the same rules as initializers."""
    attempt(outside, content, monkeypatch)


@pytest.mark.parametrize("op", ["MatMulNBits", "QAttention", "DequantizeLinear"])
def test_attributes_that_overstate_a_tensor(op: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators of onnxruntime's own domain, whose packing reads beyond short tensors, are refused."""
    short = numpy_helper.from_array(np.zeros(1, np.uint8), "short")
    scale = numpy_helper.from_array(np.ones(1, np.float32), "scale")
    node = helper.make_node(op, ["score", "short", "scale"], ["made"], domain="com.microsoft", K=4096, N=4096, bits=4)
    made = model([node], [short, scale])
    made.opset_import.add(domain="com.microsoft", version=1)
    assert "onnx-domain" in codes(attempt(outside, made, monkeypatch))


@pytest.mark.parametrize("dims", [[2**31, 2**31], [2**62], [-1], [6, 0, 2**40]])
def test_sizes_that_overflow(dims: list[int], outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor whose sizes do not fit its bytes is refused, when their product overflows, too."""
    tensor = TensorProto(name="huge", dims=dims, data_type=TensorProto.FLOAT, raw_data=b"\0" * 8)
    made = model([helper.make_node("Identity", ["huge"], ["copied"])], [tensor])
    attempt(outside, made, monkeypatch)
