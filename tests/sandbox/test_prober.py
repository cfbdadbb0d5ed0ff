"""Tests of prober.py: what a model does to the process that runs it is a finding, and never happens to ours."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mutations
import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper
from policies import MANUAL

from registry_tool.errors import RejectedError, WorldError
from registry_tool.hookspec import Level
from registry_tool.onnx_summary import OnnxError
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox import children
from registry_tool.sandbox.prober import Prober
from registry_tool.workflows import compare_with_base
from registry_tool.workflows.promote import flip
from registry_tool.workflows.validate import validate

pytestmark = pytest.mark.slow

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def constant(name: str, value: object) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.int64), name)


def greedy() -> onnx.ModelProto:
    """A tensor of 2^34 floats, whose size is computed from the input: no constant says it."""
    nodes = [
        helper.make_node("Clip", ["features", "bound", "bound"], ["bounded"], name="bind"),
        helper.make_node("ReduceMax", ["bounded"], ["float"], name="number", keepdims=0),
        helper.make_node("Cast", ["float"], ["integer"], name="cast", to=INT64),
        helper.make_node("Reshape", ["integer", "one"], ["half"], name="shape"),
        helper.make_node("Mul", ["half", "half"], ["size"], name="square"),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"], name="zeros"),
        helper.make_node("ReduceMax", ["zeros"], ["largest"], name="largest", keepdims=0),
    ]
    bound = numpy_helper.from_array(np.float32(2**17), "bound")
    return with_output(tiny_models.model(nodes, [constant("one", [1]), bound]), "largest", [])


def endless() -> onnx.ModelProto:
    """2^16 rounds of 2^16 rounds: each Loop alone is within its limit."""

    def loop(name: str, inner: list[onnx.NodeProto], value: str) -> onnx.NodeProto:
        ports = [
            helper.make_tensor_value_info(f"{name}_i", INT64, []),
            helper.make_tensor_value_info(f"{name}_c", 9, []),
        ]
        state = helper.make_tensor_value_info(f"{name}_in", FLOAT, [])
        out = helper.make_tensor_value_info(f"{name}_out", FLOAT, [])
        kept = helper.make_tensor_value_info(f"{name}_k", BOOL, [])
        nodes = [helper.make_node("Identity", [f"{name}_c"], [f"{name}_k"], name=f"{name}_keep"), *inner]
        body = helper.make_graph(nodes, f"{name}_body", [*ports, state], [kept, out])
        return helper.make_node("Loop", ["rounds", "", value], [f"{name}_end"], name=name, body=body)

    add = helper.make_node("Add", ["inner_in", "one"], ["inner_out"], name="add")
    inner = [loop("inner", [add], "outer_in"), helper.make_node("Identity", ["inner_end"], ["outer_out"], name="hand")]
    one = numpy_helper.from_array(np.float32(1), "one")
    model = tiny_models.model([loop("outer", inner, "one")], [constant("rounds", 2**16), one])
    return with_output(model, "outer_end", [])


def with_output(model: onnx.ModelProto, name: str, shape: list[int]) -> onnx.ModelProto:
    model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, shape))
    return model


@pytest.fixture(autouse=True)
def without_kept_children() -> Iterator[None]:
    """Each prober here has a child of its own."""
    with patch.object(children, "pool", None):
        yield


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(cpu=1, wall=60) as prober:
        yield prober


def test_a_small_model_is_fine_and_the_child_lives_on(prober: Prober) -> None:
    """Two models, with and without a second input, in one process."""
    assert prober.run(tiny_models.model().SerializeToString()) == ()
    child = prober.pid
    assert prober.run(tiny_models.model(codec=4).SerializeToString()) == ()
    assert prober.pid == child


@pytest.mark.parametrize(("make", "code"), [(greedy, "onnx-probe-memory"), (endless, "onnx-probe-time")])
def test_what_a_model_takes_is_limited(prober: Prober, make: object, code: str) -> None:
    """A model that takes too much has a finding; the next model is run as if nothing had been."""
    (found,) = prober.run(make().SerializeToString())  # type: ignore[operator]  # a function of this file
    assert (found.code, bool(found.text)) == (code, True)
    assert prober.run(tiny_models.model().SerializeToString()) == ()


@pytest.mark.parametrize("data", [b"", b"no model", tiny_models.model().SerializeToString()[:-9]])
def test_what_does_not_load_is_refused(prober: Prober, data: bytes) -> None:
    """onnxruntime's own words are passed on, in one line."""
    (found,) = prober.run(data)
    assert found.code == "onnx-probe-refused"
    assert "\n" not in found.text


STAND_IN = """
import json, os, struct, sys, time
def say(answer):
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    os.write(1, struct.pack("<I", len(data)) + data)
def hear():
    size = struct.unpack("<I", sys.stdin.buffer.read(4))[0]
    return json.loads(sys.stdin.buffer.read(size))
say({"ready": True})
while True:
    header = hear()
    say({"reduced": False})
    data = sys.stdin.buffer.read(sum(header["sizes"]))
"""


def stand_in(ending: str, wall: float = 60) -> Prober:
    """A prober whose child takes every model and then does this."""
    return Prober((sys.executable, "-c", f"{STAND_IN}    {ending}"), wall=wall)


@pytest.mark.parametrize(
    ("ending", "code", "seen"),
    [
        ("os.abort()", "onnx-probe-crashed", "signal 6"),
        ("os._exit(7)", "onnx-probe-crashed", "exit status 7"),
        ("os.kill(os.getpid(), 11)", "onnx-probe-crashed", "signal 11"),
        ("os.kill(os.getpid(), 24)", "onnx-probe-time", "more than 10 s of processor time"),
        ("time.sleep(60)", "onnx-probe-time", "no answer within 1 s"),
        ("say(b'no json')", "onnx-probe-crashed", "its answer is none"),
        ("say([])", "onnx-probe-crashed", "its answer is none"),
        ("say({'found': [['id-duplicate', 'a lie']]})", "onnx-probe-crashed", "its answer is none"),
        ("say({'found': [['onnx-invalid', 'two\\nlines']]})", "onnx-probe-crashed", "its answer is none"),
        ("os.write(1, b'\\xff\\xff\\xff\\xff')", "onnx-probe-crashed", "its answer is too long"),
    ],
)
def test_a_child_that_ends_or_hangs_or_lies_is_a_finding(ending: str, code: str, seen: str) -> None:
    """A stand-in for a model that takes its process over: a finding, for whatever the child was asked."""
    with stand_in(ending, wall=1 if "sleep" in ending else 60) as prober:
        for ask in (prober.run, prober.check):
            assert ask(bytes(100)) == ((code, seen),)
        with pytest.raises(OnnxError, match=seen) as error:
            prober.read(bytes(100))
        assert error.value.code == code


@pytest.mark.parametrize("answer", [{}, {"summary": None}, {"summary": {"ir_version": 8}}, {"summary": []}])
def test_facts_of_another_shape_are_none(answer: dict[str, object]) -> None:
    """What a taken-over child calls a summary is held against the types expected."""
    with stand_in(f"say({answer})") as prober, pytest.raises(OnnxError) as error:
        prober.read(bytes(100))
    assert error.value.code == "onnx-probe-crashed"


BROKEN = {
    "ends at once": "raise SystemExit(1)",
    "says something else": "print('hello')",
    "ends before it takes a model": STAND_IN.partition("while")[0],
    "answers something else": STAND_IN.replace('{"reduced": False}', "{}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_prober_is_an_environment_error(name: str, tmp_path: Path, plugins: Plugins) -> None:
    """A child that no model can have broken is no finding on a model."""
    folder = mutations.singles(tmp_path, 1)
    broken = Prober((sys.executable, "-c", BROKEN[name]))
    with broken, patch("registry_tool.checks.registry.Prober", lambda: nullcontext(broken)):
        with pytest.raises(WorldError, match="the process that probes models does not work") as error:
            validate(folder / "registry.json", plugins)
        assert error.value.exit_code == 3


def test_the_child_never_raises_a_limit() -> None:
    """Hard limits that the process inherited stay, and a fine model passes under them; many do, too."""
    with limited(RLIMIT_CPU=600, RLIMIT_AS=2**36), Prober() as prober:
        assert prober.run(tiny_models.model().SerializeToString()) == ()
        assert prober.pid is not None
        assert resource.prlimit(prober.pid, resource.RLIMIT_CPU)[1] == 600
        assert resource.prlimit(prober.pid, resource.RLIMIT_AS)[1] == 2**36
    with limited(RLIMIT_CPU=11), Prober() as prober:  # a second child for the second model: the first used some of it
        for seed in range(3):
            assert prober.run(tiny_models.model(seed=seed).SerializeToString()) == ()
            assert prober.pid is None


def test_what_a_low_limit_may_have_caused_is_an_environment_error(prober: Prober) -> None:
    """Under `ulimit` a model that ends for want of time or memory says nothing about itself."""
    assert prober.run(tiny_models.model().SerializeToString()) == ()
    assert prober.pid is not None
    used = int(Path(f"/proc/{prober.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    ticks = sum(map(int, Path(f"/proc/{prober.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    seconds = math.ceil(ticks / os.sysconf("SC_CLK_TCK")) + 1
    for make, limits in ((endless, {"RLIMIT_CPU": seconds}), (greedy, {"RLIMIT_AS": used + 2**28})):
        with limited(**limits), Prober() as low, pytest.raises(WorldError, match="ulimit"):
            low.run(make().SerializeToString())


@contextmanager
def limited(**limits: int) -> Iterator[None]:
    """Child processes inherit these hard limits; this process keeps its own."""
    numbers = {getattr(resource, name): value for name, value in limits.items()}
    real = subprocess.Popen

    def popen(command: tuple[str, ...], **options: Any) -> subprocess.Popen[bytes]:
        def lower() -> None:
            for number, value in numbers.items():
                resource.setrlimit(number, (value, value))

        return real(command, **options, preexec_fn=lower)

    with patch("registry_tool.sandbox.prober.subprocess.Popen", popen):
        yield


def test_onnxs_checker_runs_in_the_child(prober: Prober, tmp_path: Path, plugins: Plugins) -> None:
    """A reader that dies is a finding on each file; validate goes on."""
    assert prober.check(tiny_models.model().SerializeToString()) == ()
    assert prober.check(b"no model")[0].code == "onnx-invalid"
    folder = mutations.singles(tmp_path, 1)
    with (
        stand_in("os.kill(os.getpid(), 11)") as dying,
        patch("registry_tool.checks.registry.Prober", lambda: nullcontext(dying)),
    ):
        found = validate(folder / "registry.json", plugins).findings
    assert {f.code for f in found} == {"onnx-probe-crashed"}
    assert {f.file for f in found} == {"plain.onnx", "external.onnx", "quantised.onnx", "quantised.int8.onnx"}


def test_a_model_is_read_once_a_run(prober: Prober) -> None:
    """Facts are kept by digest: of a file that two entries name, and of one that cannot be read."""
    data = tiny_models.model(seed=5).SerializeToString()
    assert prober.read(data) is prober.read(data, sha256=hashlib.sha256(data).hexdigest())
    for _ in range(2):
        with pytest.raises(OnnxError, match="no graph"):
            prober.read(b"")


def test_the_largest_model_is_checked_and_run_within_the_limits(prober: Prober) -> None:
    """50 MiB of weights, the default limit of a file, fit into the child's memory."""
    weight = numpy_helper.from_array(np.ones((6, 50 * 2**20 // 24 - 100), np.float32), "big")
    model = tiny_models.model([helper.make_node("MatMul", ["features", "big"], ["wide"], name="wide")], [weight])
    data = with_output(model, "wide", [2, weight.dims[1]]).SerializeToString()
    assert (prober.check(data), prober.run(data)) == ((), ())


def test_a_flip_runs_the_model_too(tmp_path: Path, plugins: Plugins) -> None:
    """A person's decision under a manual policy is no way around what `validate` asks; nor is `gate --base`."""
    row = tiny_models.entry(tmp_path, greedy(), "greedy", smoke=True)
    row["sidecar_sha256"] = tiny_models.write(tmp_path, "greedy.json", {"id": "greedy"})
    document = {"schema_version": 2, "policies": {"fr": MANUAL}, "models": [row]}
    tiny_models.write(tmp_path, "registry.json", document)
    before = (tmp_path / "registry.json").read_bytes()
    with pytest.raises(RejectedError, match="more than 1 GiB of memory"):
        flip(tmp_path / "registry.json", plugins, "greedy", "looks fine")
    assert (tmp_path / "registry.json").read_bytes() == before
    document["models"] = [row | {"smoke": False, "promotion": {"manual": True, "reason": "looks fine"}}]
    tiny_models.write(tmp_path, "old.json", {"schema_version": 2, "policies": {}, "models": []})
    tiny_models.write(tmp_path, "registry.json", document)
    (judgement,) = compare_with_base.gate_base(tmp_path / "registry.json", plugins, tmp_path / "old.json").judgements
    assert not judgement.verdict.promotes
    assert "onnx-probe-memory" in " ".join(judgement.verdict.reasons)


def test_a_flip_that_would_not_validate_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    """A production model needs a sidecar, so one without is not flipped by a reason either."""
    row = tiny_models.entry(tmp_path, tiny_models.model(), "bare", smoke=True)
    document = {"schema_version": 2, "policies": {"fr": MANUAL}, "models": [row]}
    tiny_models.write(tmp_path, "registry.json", document)
    before = (tmp_path / "registry.json").read_bytes()
    with pytest.raises(RejectedError, match="no sidecar"):
        flip(tmp_path / "registry.json", plugins, "bare", "looks fine")
    assert (tmp_path / "registry.json").read_bytes() == before


@pytest.mark.parametrize("version", [1, 2])
def test_validate_probes_what_passed_all_else(tmp_path: Path, plugins: Plugins, version: int) -> None:
    """At --level full a model that loads nowhere is found at its file; sound models, weights elsewhere too, are not."""
    folder = mutations.singles(tmp_path, version)
    path = folder / "registry.json"
    assert validate(path, plugins).findings == ()
    reshape = helper.make_node("Reshape", ["score", "shape"], ["flat"], name="never")
    model = tiny_models.model([reshape], [constant("shape", [3, 7])])
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    model.graph.input[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=4))
    row = tiny_models.entry(tmp_path / "other", with_output(model, "flat", [3, 7]))
    document = {"schema_version": 1, "models": [row]}
    tiny_models.write(tmp_path / "other", "registry.json", document)
    found = validate(tmp_path / "other" / "registry.json", plugins).findings
    assert [f.file for f in found] == ["m.onnx"]
    assert validate(tmp_path / "other" / "registry.json", plugins, Level.QUICK).findings == ()


def test_greedy_and_endless_models_are_found_by_validate(tmp_path: Path, plugins: Plugins) -> None:
    """They pass every look at their content: only running them shows what they are."""
    row = tiny_models.entry(tmp_path, greedy(), "greedy")
    tiny_models.write(tmp_path, "registry.json", {"schema_version": 1, "models": [row]})
    (found,) = validate(tmp_path / "registry.json", plugins).findings
    assert (found.code, found.file) == ("onnx-probe-memory", "greedy.onnx")
