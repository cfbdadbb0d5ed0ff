"""Members and the fused graph as ONNX bytes: what they compute, that they repeat, that nothing else passes for them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fr_ensemble.arrays import Float32, Float64, Scaler, Weights
from fr_ensemble.artifacts.graphs import LAYERS, FusedFormat, fused_model, member_model, read_weights, same_units
from fr_ensemble.artifacts.runtime import Ensemble, member_scores, standardise
from hypothesis import given, settings
from hypothesis import strategies as st

N_FEATURES, N_SLOTS, HIDDEN = 6, 12, 64
TORCH_TOLERANCE = 1e-4  # VMAF points: float32 sums of 64 terms in another order
TOLERANCE = 1e-5  # VMAF points, one and a half float32 steps at 100
HALF_STEP = 2.0**-18  # half a float32 step from 64 to 128

# What canonical-6 looks like on encodes: adm2, vif_scale0..3 and motion2.
MEAN = np.array([0.95, 0.62, 0.84, 0.90, 0.93, 5.1])
STD = np.array([0.05, 0.18, 0.10, 0.07, 0.05, 4.2])


def members_of(n: int = 5, n_conditioning: int = 0, spread: float = 0.05, seed: int = 0) -> list[Weights]:
    """Networks that give scores from about 20 to 100 and agree to about a point."""
    width, base = N_FEATURES + N_SLOTS + n_conditioning, np.random.default_rng(seed)
    shapes = {"w1": (width, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, HIDDEN), "b2": (HIDDEN,), "w3": (HIDDEN, 1)}
    common = {name: base.normal(0.0, shape[0] ** -0.5, shape) for name, shape in shapes.items()}
    members = []
    for number in range(n):
        own = np.random.default_rng([seed, number])
        noisy = {name: a + spread * own.normal(0.0, a.shape[0] ** -0.5, a.shape) for name, a in common.items()}
        arrays = {name: a.astype(np.float32) for name, a in noisy.items()}
        arrays |= {"w3": (30.0 * noisy["w3"]).astype(np.float32), "b3": np.array([75.0], np.float32)}
        members.append(Weights(**arrays))
    return members


def scaler_of(n_conditioning: int = 0) -> Scaler:
    """Raw scales of features, then of crf-like conditioning columns."""
    return Scaler(np.append(MEAN, np.full(n_conditioning, 30.0)), np.append(STD, np.full(n_conditioning, 8.0)))


def rows_of(n: int, n_conditioning: int = 0) -> tuple[Float64, Float32]:
    """Raw features (n, 6) and codec blocks (n, 12 + K)."""
    random = np.random.default_rng(n)
    slots = np.eye(N_SLOTS)[random.integers(0, N_SLOTS, n)]
    conditioning = 30.0 + 8.0 * random.normal(size=(n, n_conditioning))
    return MEAN + STD * random.normal(size=(n, N_FEATURES)), np.hstack([slots, conditioning]).astype(np.float32)


# sha256 of the member and of the fused graphs, by version, that one test below writes
GOLDEN = [
    "4a31ea983813723764c7472df91eff3b5d788e11bae6273c794aa37e78f11d8d",
    "f5a04b2629eeef5cfaf5014dce0404b0b4b936d02bf9899d919d6f1a7693ba66",
    "e1748e050164b5ad3580d3bb9f57270815021c671f70ae5aeff39f84a26ddd92",
]

MEMBERS, SCALER = members_of(), scaler_of()
MEMBER, FUSED = member_model(MEMBERS[0], N_FEATURES), fused_model(MEMBERS, SCALER, N_FEATURES, N_SLOTS)
CONDITIONED = fused_model(members_of(3, 2), scaler_of(2), N_FEATURES, N_SLOTS)
SECOND = FusedFormat(2, (60.0, 85.3), {"target": "vmaf", "kind": "fr_ensemble"})
CUT = fused_model(MEMBERS, SCALER, N_FEATURES, N_SLOTS, SECOND)


def same_weights(one: Weights, other: Weights) -> bool:
    """Bit for bit, so that 0.0 is not -0.0."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in LAYERS]
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("n_conditioning", [0, 2])
def test_a_member_computes_what_torch_computes(n_conditioning: int) -> None:
    """A member's score is that of torch's Linear-GELU-Linear-GELU-Linear with the same weights."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    weights = members_of(1, n_conditioning)[0]
    layers = [torch.nn.Linear(*getattr(weights, f"w{layer}").shape) for layer in "123"]
    for layer, linear in zip("123", layers, strict=True):
        linear.weight.data = torch.tensor(getattr(weights, f"w{layer}").T)
        linear.bias.data = torch.tensor(getattr(weights, f"b{layer}"))
    network = torch.nn.Sequential(layers[0], torch.nn.GELU(), layers[1], torch.nn.GELU(), layers[2])
    features, codec = standardise(*rows_of(300, n_conditioning), scaler_of(n_conditioning), N_SLOTS)
    with torch.no_grad():
        expected = network(torch.tensor(np.hstack([features, codec])))[:, 0].numpy()
    scores = member_scores([member_model(weights, N_FEATURES)], features, codec)[0]
    assert np.abs(scores - expected).max() <= TORCH_TOLERANCE


@pytest.mark.parametrize("n_conditioning", [0, 1, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 32, 513, 3000])
@pytest.mark.parametrize("n_members", [2, 5])
def test_the_fused_graph_gives_the_members_mean_and_sample_deviation(
    n_conditioning: int, n: int, n_members: int
) -> None:
    """mu and sigma from raw rows are numpy's mean and std (ddof 1) over the members run one by one."""
    members, scaler = members_of(n_members, n_conditioning), scaler_of(n_conditioning)
    features, codec = rows_of(n, n_conditioning)
    mu, sigma = Ensemble(fused_model(members, scaler, N_FEATURES, N_SLOTS)).predict(features, codec)
    files = [member_model(weights, N_FEATURES) for weights in members]
    scores = member_scores(files, *standardise(features, codec, scaler, N_SLOTS))
    assert np.abs(mu - scores.mean(axis=0)).max() <= TOLERANCE
    assert np.abs(sigma - scores.std(axis=0, ddof=1)).max() <= TOLERANCE
    assert sigma.min() > 0.0


def test_the_mean_is_as_good_as_float32_allows() -> None:
    """mu is the float32 nearest to the members' mean, although their float32 sum has four times larger steps."""
    features, codec = rows_of(20_000)
    graph = onnx.load_model_from_string(FUSED)
    graph.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    feeds = {"features": features.astype(np.float32), "codec_onehot": codec}
    mu, scores = session.run(["mu", "scores"], feeds)
    exact = scores.astype(np.float64).mean(axis=0)
    high = (exact >= 64.0) & (exact < 128.0)
    assert high.sum() > 1000
    assert np.abs(mu - exact)[high].max() <= HALF_STEP
    plain = scores[0] + scores[1] + scores[2] + scores[3] + scores[4]
    assert np.abs(plain / np.float32(5.0) - exact)[high].max() > 2 * HALF_STEP


def test_members_that_agree_have_no_deviation() -> None:
    """Five copies of one member give its score and a sigma of no more than rounding."""
    ensemble = Ensemble(fused_model([MEMBERS[0]] * 5, SCALER, N_FEATURES, N_SLOTS))
    mu, sigma = ensemble.predict(*rows_of(500))
    assert sigma.max() <= TOLERANCE
    scores = member_scores([MEMBER], *standardise(*rows_of(500), SCALER, N_SLOTS))[0]
    assert np.abs(mu - scores).max() <= TOLERANCE


@pytest.mark.parametrize("n", [1, 2, 7, 32, 513])
def test_mu_is_cut_and_sigma_is_not(n: int) -> None:
    """Version 2 gives the mean of version 1 inside the range, the same sigma, and NaN where that is NaN."""
    features, codec = rows_of(n)
    features[-1, 0] = np.nan if n > 1 else features[-1, 0]
    (mean, sigma), (mu, same) = Ensemble(FUSED).predict(features, codec), Ensemble(CUT).predict(features, codec)
    assert np.array_equal(mu, np.clip(mean, 60.0, np.nextafter(np.float32(85.3), np.float32(0))), equal_nan=True)
    assert np.nanmax(mu) <= 85.3
    assert np.array_equal(sigma, same, equal_nan=True)
    assert np.isnan(mu[-1]) == (n > 1)
    if n > 7:
        assert np.nanmin(mean) < 60.0 < 85.3 < np.nanmax(mean)


def test_an_ensemble_cuts_what_its_graph_does_not() -> None:
    """The range of a version-1 entry is applied after the graph, to the same numbers."""
    features, codec = rows_of(700)
    after = Ensemble(FUSED, mu_range=(60.0, 85.3)).predict(features, codec)
    assert np.abs(after[0] - Ensemble(CUT).predict(features, codec)[0]).max() <= 2 * HALF_STEP
    assert (after[0].min(), after[0].max()) == (60.0, 85.3)


def test_a_range_beyond_float32_cuts_at_its_largest_number() -> None:
    """Without a word of numpy's on the terminal: a manifest may hold any number, and `validate` writes its graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fused_model(MEMBERS, SCALER, N_FEATURES, N_SLOTS, FusedFormat(2, (-1e300, 1e300)))
    ends = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(model).graph.initializer
    }
    largest = np.finfo(np.float32).max
    assert (ends["mu_low"], ends["mu_high"]) == (-largest, largest)


@pytest.mark.parametrize("model", [MEMBER, FUSED, CONDITIONED, CUT], ids=["member", "fused", "conditioned", "cut"])
def test_the_contract_holds(model: bytes) -> None:
    """onnx's checker and strict shape inference pass; names, types, dynamic batch, opset 17, weights inline."""
    proto = onnx.load_model_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    assert len(inferred.graph.value_info) == len(proto.graph.node) - len(proto.graph.output)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 17)]
    assert (proto.ir_version, proto.producer_name, proto.producer_version) == (8, "registry-tool", "")
    assert [value.name for value in proto.graph.input] == ["features", "codec_onehot"]
    assert [value.name for value in proto.graph.output] in (["score"], ["mu", "sigma"])
    for value in [*proto.graph.input, *proto.graph.output]:
        kind = value.type.tensor_type
        assert kind.elem_type == onnx.TensorProto.FLOAT
        assert kind.shape.dim[0].dim_param == "N"
    assert all(t.data_location == onnx.TensorProto.DEFAULT and t.raw_data for t in proto.graph.initializer)
    said = [(prop.key, prop.value) for prop in proto.metadata_props]
    assert said == ([("kind", "fr_ensemble"), ("target", "vmaf")] if model == CUT else [])
    assert not proto.doc_string + proto.graph.doc_string + "".join(node.doc_string for node in proto.graph.node)


def test_only_plain_operators_are_used() -> None:
    """The fused graph stays within operators that small runtimes for video quality accept."""
    allowed = {"Sub", "Div", "Concat", "MatMul", "Add", "Erf", "Mul", "Squeeze", "ReduceMean", "ReduceSum", "Sqrt"}
    allowed |= {"Reshape", "Transpose"}
    for model in (MEMBER, FUSED, CONDITIONED):
        assert {node.op_type for node in onnx.load_model_from_string(model).graph.node} <= allowed
    plain, cut = ([node.op_type for node in onnx.load_model_from_string(model).graph.node] for model in (FUSED, CUT))
    assert sorted(cut) == sorted([*plain, "Clip"])


@pytest.mark.parametrize("model", [MEMBER, FUSED, CUT], ids=["member", "fused", "cut"])
def test_onnxruntime_fuses_both_gelus(model: bytes, tmp_path: Path) -> None:
    """The Div-Erf-Add-Mul-Mul chains become Gelu nodes, and no Erf is left."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("Gelu") + operators.count("BiasGelu") == 2
    assert "Erf" not in operators


@pytest.mark.slow
def test_the_same_units_give_the_same_bytes_in_every_process() -> None:
    """Two interpreters with other hash seeds write the same files, and torch is not loaded for it."""
    program = (
        "import hashlib, sys, numpy as np\n"
        "from fr_ensemble.artifacts.graphs import *; from fr_ensemble.arrays import *\n"
        "shapes = dict(w1=(18, 64), b1=(64,), w2=(64, 64), b2=(64,), w3=(64, 1), b3=(1,))\n"
        "def member(m): return Weights(**{k: (np.arange(np.prod(s)).reshape(s) % (97 + m) / 97 - 0.5)"
        ".astype(np.float32) for k, s in shapes.items()})\n"
        "scaler = Scaler(np.arange(6) / 7, 1 + np.arange(6) / 7)\n"
        "members, second = [member(m) for m in range(5)], FusedFormat(2, (0, 100), {'b': '2', 'a': '1'})\n"
        "files = [member_model(members[0], 6), fused_model(members, scaler, 6, 12)]\n"
        "files += [fused_model(members, scaler, 6, 12, second)]\n"
        "print(*(hashlib.sha256(f).hexdigest() for f in files), 'torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    outputs = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        outputs.add(subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout)
    assert len(outputs) == 1
    *digests, torch_loaded, onnxruntime_loaded = outputs.pop().split()
    assert (torch_loaded, onnxruntime_loaded) == ("False", "False")
    # The files that exist are verified by writing them again: a change of these digests breaks them all.
    assert digests == GOLDEN


def test_what_is_written_reads_back_bit_for_bit() -> None:
    """Negative zeros and denormals survive; the scaler of a conditioned ensemble covers all its columns."""
    odd = MEMBERS[0].w1.copy()
    odd[0, :3] = [-0.0, 1e-42, -1e-45]
    members = [replace(MEMBERS[0], w1=odd), *MEMBERS[1:]]
    assert same_weights(read_weights(member_model(members[0], N_FEATURES)), members[0])
    assert not same_weights(replace(MEMBERS[0], w1=np.abs(odd)), members[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_every_bit_of_every_member_is_in_the_fused_graph(layer: str) -> None:
    """One float32 step in any layer of any member, or two members swapped, gives another fused file."""
    assert fused_model([MEMBERS[1], MEMBERS[0], *MEMBERS[2:]], SCALER, N_FEATURES, N_SLOTS) != FUSED
    for place, member in enumerate(MEMBERS):
        array = getattr(member, layer).copy()
        array.flat[-1] = np.nextafter(array.flat[-1], np.float32(np.inf))
        changed = [*MEMBERS]
        changed[place] = replace(member, **{layer: array})
        assert fused_model(changed, SCALER, N_FEATURES, N_SLOTS) != FUSED


def _tampered(change: Callable[[onnx.ModelProto], object], model: bytes) -> bytes:
    proto = onnx.load_model_from_string(model)
    change(proto)
    return bytes(proto.SerializeToString())


def _add_ten(proto: onnx.ModelProto) -> None:
    """The last node's result goes through one more: all weights are as they were, the score is not."""
    last, name = proto.graph.node[-1], proto.graph.node[-1].output[0]
    last.output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Add", ["before", "one"], [name]))


def _initializer(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    [tensor] = [tensor for tensor in proto.graph.initializer if tensor.name == name]
    assert isinstance(tensor, onnx.TensorProto)
    return tensor


TAMPERINGS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a node more": _add_ten,
    "a constant changed": lambda p: setattr(_initializer(p, "half"), "raw_data", np.float32(0.4).tobytes()),
    "NaN in a weight": lambda p: setattr(_initializer(p, "b3"), "raw_data", b"\xff\xff\xff\x7f" * 5),
    "a tensor cut short": lambda p: setattr(_initializer(p, "w1"), "raw_data", b"\0" * 8),
    "a tensor gone": lambda p: p.graph.initializer.remove(_initializer(p, "w2")),
    "a negative shape": lambda p: _initializer(p, "w1").dims.__setitem__(0, -1),
    "metadata": lambda p: p.metadata_props.add(key="note", value="hidden"),
    "a doc string": lambda p: setattr(p.graph, "doc_string", "hidden"),
    "another producer": lambda p: setattr(p, "producer_name", "other"),
    "an input gone": lambda p: p.graph.input.pop(0),
    "a wider input": lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 7),
    "a function": lambda p: p.functions.add(name="f", domain="d"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_file_that_this_tool_does_not_write_is_refused(name: str) -> None:
    """Weights that read are not enough: any other node, constant, name or field is a ValueError of one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        read_weights(_tampered(TAMPERINGS[name], MEMBER))


@pytest.mark.parametrize(
    "model", [b"", b"not a model", MEMBER[:-1], MEMBER + b"\0", MEMBER + b"\x9a\x06\x01x", FUSED, MEMBER[:1000]]
)
def test_bytes_that_are_no_member_are_refused(model: bytes) -> None:
    """Nothing, text, a cut file, trailing bytes, an unknown field and a fused graph are no members."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        read_weights(model)


@settings(max_examples=150)
@given(place=st.integers(0, len(MEMBER) - 1), flip=st.integers(1, 255))
def test_no_changed_byte_goes_unseen(place: int, flip: int) -> None:
    """A member with one byte changed is refused or reads as other weights."""
    changed = MEMBER[:place] + bytes([MEMBER[place] ^ flip]) + MEMBER[place + 1 :]
    try:
        weights = read_weights(changed)
    except ValueError:
        return
    assert not same_weights(weights, MEMBERS[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MEMBERS[:1], SCALER, 6, 12), "members: found 1"),
        (([MEMBERS[0], members_of(1, 1)[0]], SCALER, 6, 12), "members/1: w1"),
        ((MEMBERS, scaler_of(1), 6, 12), r"scaler: found means \(7,\)"),
        ((MEMBERS, SCALER, 6, 13), "scaler: found means"),
        ((MEMBERS, SCALER, 18, 0), "n_features: found 18"),
        ((MEMBERS, SCALER, 0, 12), "n_features: found 0"),
        ((MEMBERS, Scaler(MEAN, np.zeros(6)), 6, 12), "deviations above 0"),
        ((MEMBERS, Scaler(MEAN, np.full(6, 1e-60)), 6, 12), "deviations above 0"),
        ((MEMBERS, Scaler(np.full(6, np.nan), STD), 6, 12), "finite means"),
        (([*MEMBERS, replace(MEMBERS[0], b2=np.zeros(3, np.float32))], SCALER, 6, 12), "weights/b2"),
        (([*MEMBERS, replace(MEMBERS[0], b3=np.zeros(1))], SCALER, 6, 12), "b3: found float64"),  # type: ignore[arg-type]  # on purpose
        (([*MEMBERS, replace(MEMBERS[0], w1=np.zeros(6, np.float32))], SCALER, 6, 12), "weights/w1"),
        (([*MEMBERS, replace(MEMBERS[0], b3=np.array([np.inf], np.float32))], SCALER, 6, 12), "infinity"),
    ],
)
def test_what_makes_no_ensemble_is_named(arguments: tuple[list[Weights], Scaler, int, int], message: str) -> None:
    """Too few members, other shapes, another scaler, numbers that are none: a ValueError that says which."""
    with pytest.raises(ValueError, match=message):
        fused_model(*arguments)


def test_layers_are_the_fields_of_the_weights() -> None:
    """No tensor of Weights is left out of the files."""
    assert set(LAYERS) == set(Weights.__slots__)


def test_a_copy_with_its_units_permuted_is_a_copy() -> None:
    """Whatever the order of hidden units; another training has other units."""
    one = MEMBERS[0]
    order = np.random.default_rng(3).permutation(len(one.b1))
    permuted = replace(one, w1=one.w1[:, order], b1=one.b1[order], w2=one.w2[order])
    assert same_units(permuted, one)
    assert not same_units(MEMBERS[1], one)
