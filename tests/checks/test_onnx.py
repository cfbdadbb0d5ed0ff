"""Tests of onnx.py: every defect of a pinned ONNX file has its own finding, sound files have none."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import FLOAT, codes, entry, external, findings, model, sidecar, write

from registry_tool.checks.registry import check
from registry_tool.documents.store import load
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Hooks, Kind, Level, hookimpl
from registry_tool.plugins import single_models
from registry_tool.plugins.manager import Plugins

INT64 = TensorProto.INT64
WEIGHTS = np.arange(6, dtype="<f4").tobytes()


def of_model(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.code.startswith("onnx-")]


def integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def constant_loop(rounds: onnx.TensorProto | None) -> onnx.ModelProto:
    """A model with a Loop that adds 1 to a number; its rounds come from a tensor, or from nowhere."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["carried", "carried"], ["sum"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", FLOAT, []),
        ],
    )
    start = numpy_helper.from_array(np.array(1, np.float32), "start")
    always = numpy_helper.from_array(np.array(True), "always")
    name = rounds.name if rounds is not None else ""
    loop = helper.make_node("Loop", [name, "always", "start"], ["end"], name="rounds", body=body)
    return model([loop], [start, always, *([rounds] if rounds is not None else [])])


def changed(edit: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    made = model()
    edit(made)
    return made


def with_function() -> onnx.ModelProto:
    made = model()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made.functions.append(helper.make_function("", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    return made


def inside_if(op: str, domain: str = "") -> onnx.ModelProto:
    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    yes = branch("yes", helper.make_node(op, ["score"], ["yes"], domain=domain))
    no = branch("no", helper.make_node("Identity", ["score"], ["no"]))
    nodes = [
        helper.make_node("ReduceMean", ["score"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["chosen"], then_branch=yes, else_branch=no),
    ]
    return model(nodes, [numpy_helper.from_array(np.float32(0), "zero")])


def nan_constant() -> onnx.ModelProto:
    value = numpy_helper.from_array(np.array([np.nan], np.float32))
    return model([helper.make_node("Constant", [], ["c"], value=value)])


def wrong_dims(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[0] = 7


def nan_weight(made: onnx.ModelProto) -> None:
    weight = numpy_helper.to_array(made.graph.initializer[0]).copy()
    weight[3] = np.inf
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))


def a_blob(made: onnx.ModelProto) -> None:
    made.metadata_props.add(key="readme", value="x" * 100_000)


def many_words(made: onnx.ModelProto) -> None:
    made.doc_string = "x" * 400_000


def wrong_inner_width(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((5, 1), np.float32), "w"))


def node(op: str, *inputs: str, **fields: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), ["made"], name=f"a_{op}", **fields)


def a_pickle(made: onnx.ModelProto) -> None:
    made.metadata_props.add(key="config", value=base64.b64encode(pickle.dumps(OSError)).decode())


def replaceable(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6, 1]))


def sized(shape: list[int]) -> onnx.ModelProto:
    """A model whose one input has these sizes."""
    made = model()
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("features", FLOAT, shape))
    return made


def typed(kind: int) -> onnx.ModelProto:
    """A model with an input of another type beside its own."""
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("more", kind, ["N"]))
    return made


NEWEST = onnx.defs.onnx_opset_version()
DEFECTS: dict[str, list[onnx.ModelProto | bytes]] = {
    "onnx-unreadable": [b"", b"no model at all", model().SerializeToString()[:-3]],
    "onnx-protobuf": [
        model().SerializeToString() + b"\xa2\x06\x04blob",
        changed(lambda m: m.graph.ParseFromString(m.graph.SerializeToString() + b"\xa2\x06\x04blob")),
    ],
    "onnx-function": [with_function()],
    "onnx-training": [changed(lambda m: m.training_info.add())],
    "onnx-tensor": [changed(wrong_dims)],
    "onnx-not-finite": [changed(nan_weight), nan_constant()],
    "onnx-metadata": [changed(a_blob), changed(many_words)],
    "onnx-no-input": [changed(lambda m: m.graph.ClearField("input"))],
    "onnx-no-output": [changed(lambda m: m.graph.ClearField("output"))],
    "onnx-domain": [
        model([node("Relu", "score", domain="com.example")]),
        inside_if("Relu", "com.example"),
    ],
    "onnx-operator": [model([node("RandomNormal", shape=[1])]), inside_if("Bernoulli"), inside_if("NoSuchOperator")],
    "onnx-opset": [model(opset=6), changed(lambda m: m.ClearField("opset_import"))],
    "onnx-newer": [changed(lambda m: setattr(m, "ir_version", onnx.IR_VERSION + 1)), model(opset=NEWEST + 1)],
    "onnx-payload": [changed(a_pickle)],
    "onnx-initializer-input": [changed(replaceable)],
    "onnx-input-size": [sized([2**14, 2**14]), sized([2**40, 1]), sized([0, 6])],
    "onnx-port-type": [typed(TensorProto.STRING), typed(TensorProto.BFLOAT16)],
    "onnx-loop": [constant_loop(None), constant_loop(numpy_helper.from_array(np.array(10**9, np.int64), "rounds"))],
    "onnx-allocation": [
        model([node("ConstantOfShape", "big")], [integers("big", 2**20, 2**20)]),
        model([node("Expand", "score", "big")], [integers("big", 2**30)]),
        model([node("Tile", "score", "big")], [integers("big", 1, 2**40)]),
    ],
    "onnx-invalid": [changed(lambda m: m.graph.node[1].input.__setitem__(0, "nowhere"))],
    "onnx-shapes": [changed(wrong_inner_width)],
}


def test_sound_models_have_no_findings(tmp_path: Path) -> None:
    """A plain model, one with a codec input, one with a short Loop and one with an If are left alone."""
    short = constant_loop(numpy_helper.from_array(np.array(4, np.int64), "rounds"))
    rows = [
        entry(tmp_path, made, name)
        for name, made in {"a": model(), "b": model(codec=12), "c": short, "d": inside_if("Relu")}.items()
    ]
    assert findings(tmp_path, *rows) == []
    assert findings(tmp_path, *rows, version=2) == []


@pytest.mark.parametrize(
    ("code", "content"), [(code, content) for code, contents in DEFECTS.items() for content in contents]
)
def test_defects_have_their_code(tmp_path: Path, code: str, content: onnx.ModelProto | bytes) -> None:
    """Each defect of a pinned file is an error on that file under its own code, and under no other."""
    found = of_model(findings(tmp_path, entry(tmp_path, content, "broken"), entry(tmp_path, model(), "sound")))
    assert {f.code for f in found} == {code}
    assert {(f.file, f.entry, f.severity, f.line, f.pointer) for f in found} == {
        ("broken.onnx", "broken", Severity.ERROR, None, None)
    }
    assert all(f.hint for f in found)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("onnx-unused", model(tensors=[numpy_helper.from_array(np.zeros(3, np.float32), "hidden")])),
        ("onnx-float64", typed(TensorProto.DOUBLE)),
        ("onnx-domain-unused", changed(lambda m: m.opset_import.add(domain="com.example", version=1))),
    ],
)
def test_what_proves_no_fault_is_a_warning(tmp_path: Path, code: str, content: onnx.ModelProto) -> None:
    """A tensor that nothing reads, a port of float64 and a domain that no node uses are warnings."""
    (found,) = findings(tmp_path, entry(tmp_path, content))
    assert (found.code, found.severity) == (code, Severity.WARNING)


def test_older_models_may_list_weights_as_inputs(tmp_path: Path) -> None:
    """Before IR version 4 every initializer had to be an input, and runtimes take it for a constant."""
    made = changed(replaceable)
    made.ir_version = 3
    made.opset_import[0].version = 8
    assert findings(tmp_path, entry(tmp_path, made)) == []


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ({"max_opset": 17, "max_ir_version": 8}, []),
        ({"max_opset": 16}, [("onnx-opset", "17")]),
        ({"max_ir_version": 7}, [("onnx-opset", "8")]),
        ({"max_opset": 15, "max_ir_version": 7}, [("onnx-opset", "17"), ("onnx-opset", "8")]),
    ],
)
def test_a_policy_names_the_oldest_runtime(
    tmp_path: Path, policy: dict[str, int], found: list[tuple[str, str]]
) -> None:
    """A model that is newer than the kind's policy allows is an error; without a bound any that onnx knows is fine."""
    row = entry(tmp_path, model(), smoke=True)
    write(
        tmp_path, "registry.json", {"schema_version": 2, "policies": {"fr": {"rules": [], **policy}}, "models": [row]}
    )
    assert sorted((f.code, f.found) for f in check_again(tmp_path)) == found


def loops(count: int) -> onnx.ModelProto:
    """A model with so many Loop nodes of four rounds."""
    made = constant_loop(numpy_helper.from_array(np.array(4, np.int64), "rounds"))
    (loop,) = [item for item in made.graph.node if item.op_type == "Loop"]
    for number in range(1, count):
        copied = made.graph.node.add()
        copied.CopyFrom(loop)
        copied.name = f"loop{number}"
        copied.output[:] = [f"{name}_{number}" for name in loop.output]
    return made


@pytest.mark.parametrize(
    ("policy", "made", "found"),
    [
        ({"runtime": "libvmaf"}, model(), []),
        ({"runtime": "libvmaf"}, loops(16), []),
        ({"runtime": "libvmaf"}, loops(17), [("onnx-runtime", "17 Loop nodes")]),
        ({"runtime": "libvmaf", "max_loops": 17}, loops(17), []),
        ({"runtime": "libvmaf"}, model([node("Tan", "score")]), [("onnx-runtime", "the operators Tan")]),
        ({"runtime": "libvmaf"}, model(opset=22), [("onnx-opset", "22")]),
        ({"runtime": "libvmaf", "max_opset": 22}, model(opset=22), []),
        ({"operators": ["MatMul"]}, model(), [("onnx-runtime", "the operators Concat")]),
        ({"operators": ["Concat", "MatMul"]}, model(), []),
        ({"max_loops": 0}, loops(1), [("onnx-runtime", "1 Loop nodes")]),
        ({}, loops(17), []),
    ],
)
def test_a_policy_names_what_its_runtime_loads(
    tmp_path: Path, policy: dict[str, Any], made: onnx.ModelProto, found: list[tuple[str, str]]
) -> None:
    """By a profile that ships, by limits of its own, or by both; without them everything valid is loaded."""
    row = entry(tmp_path, made, smoke=True)
    document = {"schema_version": 2, "policies": {"fr": {"rules": [], **policy}}, "models": [row]}
    write(tmp_path, "registry.json", document)
    assert sorted((f.code, f.found) for f in check_again(tmp_path) if f.severity is Severity.ERROR) == found


@pytest.mark.parametrize("opset", [7, 13, 21, 22, NEWEST])
def test_every_opset_that_onnx_knows_is_read(tmp_path: Path, opset: int) -> None:
    """The opset of a model, and what a registry of version 2 says of it, may be any that the installed onnx knows."""
    row = entry(tmp_path, model(opset=opset), opset=opset)
    assert codes(findings(tmp_path, row, version=2)) <= {"onnx-newer"}  # onnxruntime may be older than onnx
    row = entry(tmp_path, model(opset=opset), opset=opset + 1)
    assert "onnx-opset-disagrees" in codes(findings(tmp_path, row, version=2))


def test_a_kind_narrows_the_operators(tmp_path: Path) -> None:
    """A kind that lists its operators refuses others, though the core allows them."""

    class Narrow:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("fr", "only products", allowed_ops=frozenset({"MatMul", "RandomNormal"}))]

    plugins = Plugins()
    plugins.add(Narrow(), "narrow")
    write(tmp_path, "registry.json", {"schema_version": 1, "models": [entry(tmp_path, model())]})
    (found,) = check(load(tmp_path / "registry.json"), plugins)
    assert (found.code, found.found) == ("onnx-operator", '"Concat"')
    assert Hooks.registry_kinds.__doc__  # the hook that this test implements is specified


@pytest.mark.parametrize(("version", "where"), [(1, "registry"), (1, "sidecar"), (2, "registry"), (2, "sidecar")])
def test_opset_is_what_the_documents_say(tmp_path: Path, version: int, where: str) -> None:
    """Another opset in the registry or in the sidecar is an error on the model."""
    row = entry(tmp_path, model(), opset=16 if where == "registry" else None)
    if where == "sidecar":
        row["sidecar_sha256"] = write(tmp_path, "m.json", sidecar(row, opset=16))
    (found,) = findings(tmp_path, row, version=version)
    assert (found.code, found.found, found.expected) == ("onnx-opset-disagrees", "17", "16")


@pytest.mark.parametrize(
    "location", ["../w.data", "/etc/hostname", "a/../../w.data", "w\\..\\w", "", "C:w.data", "./w.data", "link/w.data"]
)
def test_external_data_never_leaves_the_folder(tmp_path: Path, location: str) -> None:
    """A location that leaves the registry's folder is an error, and no such file is opened."""
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    data = bytes(24)
    write(tmp_path, "w.data", data)
    digest = hashlib.sha1(data).hexdigest()
    row = entry(folder, external(location, checksum=digest))
    opened: list[str] = []
    active = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0] and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    found = of_model(findings(folder, row))
    active[0] = False
    assert found
    assert {f.severity for f in found} == {Severity.ERROR}
    assert {f.code for f in found} <= {"onnx-external-escapes", "onnx-external-unreadable", "onnx-unreadable"}
    assert not [name for name in opened if name.endswith(("w.data", "hostname"))]


@pytest.mark.parametrize(("version", "hint"), [(1, "`registry migrate"), (2, "`external_data` of the entry")])
def test_unpinned_external_data_is_an_error(tmp_path: Path, version: int, hint: str) -> None:
    """Weights that nothing pins are an error whose hint says how this version pins them."""
    digest = write(tmp_path, "w.data", bytes(24))
    found = findings(tmp_path, entry(tmp_path, external("w.data")), version=version)
    assert codes(found) == {"onnx-external-unpinned"}  # and not unregistered too: the model reads it
    (unpinned,) = [f for f in found if f.code == "onnx-external-unpinned"]
    assert hint in (unpinned.hint or "")
    assert unpinned.found == f"none (the file's is {digest})"  # so that other weights are another finding


def test_the_object_that_pins_external_data_can_be_pasted(tmp_path: Path) -> None:
    """The hint of an unpinned file holds the JSON that makes the entry valid."""
    write(tmp_path, "deep/w.data", np.arange(6, dtype="<f4").tobytes())
    row = entry(tmp_path, external("w.data"), "deep/m", id="m")
    (found,) = findings(tmp_path, row, version=2)
    text = str(found.hint)
    pin = json.loads(text[text.index("{") : text.index("}") + 1])
    assert findings(tmp_path, row | {"external_data": [pin]}, version=2) == []


@pytest.mark.parametrize("version", [1, 2])
def test_external_data_that_is_not_there_is_not_said_to_be_pinned_by_a_command(tmp_path: Path, version: int) -> None:
    """The file has to be restored first: no command pins what is gone."""
    (found,) = findings(tmp_path, entry(tmp_path, external("w.data")), version=version)
    assert (found.code, "migrate" in str(found.hint)) == ("onnx-external-unreadable", False)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("name", ["w.bin", "w.onnx.data", "deep/w.safetensors"])
def test_a_file_that_a_listed_model_reads_is_not_called_unregistered(tmp_path: Path, level: Level, name: str) -> None:
    """At no level; another one beside it is, though its name is in the model's texts."""
    write(tmp_path, name, bytes(24))
    write(tmp_path, "stray.bin", bytes(24))
    made = external(name)
    made.doc_string = "stray.bin"
    found = findings(tmp_path, entry(tmp_path, made), level=level)
    assert [f.file for f in found if f.code == "file-unregistered"] == ["stray.bin"]


@pytest.mark.parametrize("version", [1, 2])
def test_pinned_external_data_is_read_and_checked(tmp_path: Path, version: int) -> None:
    """Weights whose sha256 the entry names are fine, unless they are not finite; changed ones break the pin."""
    weights = np.arange(6, dtype=np.float32)

    def run(data: bytes) -> list[Finding]:
        pin = {"path": "sub/w.data", "sha256": write(tmp_path, "sub/w.data", data), "bytes": len(data)}
        row = entry(tmp_path, external("w.data"), "sub/m", id="m", external_data=[pin])
        return findings(tmp_path, row, version=version)

    assert run(weights.tobytes()) == []
    weights[2] = np.nan
    assert codes(run(weights.tobytes())) == {"onnx-not-finite"}
    (tmp_path / "sub/w.data").write_bytes(bytes(24))
    assert "digest-mismatch" in codes(check_again(tmp_path))


def check_again(folder: Path) -> list[Finding]:

    plugins = Plugins()
    plugins.add(single_models, "onnx_kinds")
    return check(load(folder / "registry.json"), plugins)


@pytest.mark.parametrize(
    "fields", [{"offset": "4"}, {"length": "20"}, {"length": "28"}, {"offset": "999999", "length": "24"}]
)
def test_external_ranges_lie_inside_the_pinned_file(tmp_path: Path, fields: dict[str, str]) -> None:
    """A range beyond the pinned file, or of another size than the tensor, is an error."""
    pin = {"path": "w.data", "sha256": write(tmp_path, "w.data", bytes(24)), "bytes": 24}
    found = findings(tmp_path, entry(tmp_path, external("w.data", **fields), external_data=[pin]))
    assert codes(found) == {"onnx-external-range"}


def test_one_region_is_not_copied_for_many_tensors(tmp_path: Path) -> None:
    """Tensors that together claim more bytes than the file has are an error: each would be a copy in memory."""
    made = external("w.data")
    for index in range(3):
        more = made.graph.initializer.add()
        more.CopyFrom(made.graph.initializer[0])
        more.name = f"w{index}"
    pin = {"path": "w.data", "sha256": write(tmp_path, "w.data", bytes(24)), "bytes": 24}
    found = findings(tmp_path, entry(tmp_path, made, external_data=[pin]))
    assert "onnx-external-range" in codes(found)


def test_sha1_checksums_pin_weakly_in_version_1(tmp_path: Path) -> None:
    """The graph's own SHA-1 counts as a pin in version 1, with a warning; a wrong one does not, nor in version 2."""
    write(tmp_path, "w.data", WEIGHTS)
    digest = hashlib.sha1(WEIGHTS).hexdigest()
    row = entry(tmp_path, external("w.data", checksum=digest))
    found = of_model(findings(tmp_path, row, version=1))
    assert [(f.code, f.severity) for f in found] == [("onnx-external-weak", Severity.WARNING)]
    assert codes(of_model(findings(tmp_path, row, version=2))) == {"onnx-external-unpinned"}
    write(tmp_path, "w.data", bytes(24))
    assert codes(of_model(findings(tmp_path, row, version=1))) == {"onnx-external-checksum"}
    (tmp_path / "w.data").unlink()
    assert codes(of_model(findings(tmp_path, row, version=1))) == {"onnx-external-unreadable"}


def test_words_of_a_hostile_file_stay_on_one_line(tmp_path: Path) -> None:
    """Names from the file reach a message only as printable ASCII, shortened."""
    name = "evil\n\x1b[31m\u202e" + "x" * 5000
    found = findings(tmp_path, entry(tmp_path, model([node(name, "score")])))
    assert [f.code for f in found] == ["onnx-operator"]
    assert all(str(f).isprintable() and str(f).isascii() and len(str(f)) < 1000 for f in found)


def renamed(port: str) -> onnx.ModelProto:
    """A model() with an output of another name."""
    made = model()
    made.graph.output[0].name = made.graph.node[1].output[0] = port
    return made


def fixed(rows: int) -> onnx.ModelProto:
    made = model()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    return made


def open_axis(name: str) -> onnx.ModelProto:
    made = model(seed=1)
    for port in (made.graph.input[0], made.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_param = name
    return made


@pytest.mark.parametrize(
    ("int8", "found"),
    [
        (model(seed=1), None),
        (open_axis("batch"), None),  # an open axis may have another name
        (renamed("quality"), "quality float32 [?, 1]"),
        (fixed(4), "features float32 [4, 6]"),
        (model(codec=4), "features float32 [?, 6], codec_onehot float32 [?, 4]"),
    ],
)
def test_an_int8_variant_has_the_models_ports(tmp_path: Path, int8: onnx.ModelProto, found: str | None) -> None:
    """Names, types and sizes of inputs and outputs are those of the model it stands in for."""
    fields = {"quant_mode": "dynamic", "quant_accuracy_budget_plcc": 0.01}
    row = entry(tmp_path, model(), "m", int8_sha256=write(tmp_path, "m.int8.onnx", int8), **fields)
    seen = of_model(findings(tmp_path, row))
    expected = [] if found is None else [("onnx-int8-ports", "m.int8.onnx", found)]
    shown = [(f.code, f.file, (f.found or "").replace('"', "")) for f in seen]
    assert shown == expected
