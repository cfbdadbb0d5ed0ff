"""graphs.py: weights <-> ONNX bytes, both ways bit for bit. Trains nothing, runs nothing, imports no torch.

Two graphs, one per use: `member_model` is one seed's network behind standardised inputs; `fused_model` is the whole
ensemble behind raw inputs and gives mu and sigma. Bytes depend on the arguments only: no time, no path, no library
version goes in. So `read_weights` rebuilds a member's file from the tensors it found and refuses one that
differs in any byte, and whether a fused graph is made of given members is seen by writing it again: what passes is what
this file writes, and nothing can hide in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fr_ensemble.arrays import Float32, Int64, Scaler, Weights

if TYPE_CHECKING:
    from onnx import NodeProto

OPSET_VERSION = 17
IR_VERSION = 8  # the IR of opset 17 (onnx 1.12); newer runtimes read it
PRODUCER = "registry-tool"
FEATURES, CODEC, SCORE, MU, SIGMA = "features", "codec_onehot", "score", "mu", "sigma"

LAYERS = ("w1", "b1", "w2", "b2", "w3", "b3")
CARRIER_VALUE = 8.0  # GELU(8) is 8 to the last bit, and a product with a power of two is exact
GELU = {"sqrt2": np.float32(np.sqrt(2.0)), "one": np.float32(1.0), "half": np.float32(0.5)}
Arrays = dict[str, Float32 | Int64]
GRAPH_VERSION = 2  # of the fused graphs that are written today


@dataclass(frozen=True, slots=True)
class FusedFormat:
    """What a fused graph is beside its members and their scaler, by the version of its writer.

    Version 1: mu is the members' mean, and the file says nothing of itself. Version 2: mu is cut to the target's range,
    sigma and the members' scores are not; `metadata` is in metadata_props, sorted by key.
    """

    version: int = 1
    mu_range: tuple[float, float] | None = None  # target units
    metadata: Mapping[str, str] = field(default_factory=dict)


FIRST_FORMAT = FusedFormat()


def member_model(weights: Weights, n_features: int) -> bytes:
    """One member as an ONNX file, weights inline; the same weights give the same bytes.

    Inputs `features` float32 [N, F], standardised, and `codec_onehot` float32 [N, C], C = D - F, conditioning columns
    standardised; output `score` float32 [N] in target units. A member is an ensemble of one: its tensors have a
    leading axis as the fused graph's have, so that both sum in the same order and their scores agree to a float32 step.
    (Two-axis weights run a fifth faster on a single row, through Gemm, which adds in another order: one float32 step
    off in one score of ten, enough to move mu by 1e-5 points.)

    Raises ValueError for shapes that make no network and for a weight that is not finite.
    """
    width = _width(weights, n_features)
    layers = {name: getattr(weights, name) for name in LAYERS}
    arrays: Arrays = {name: a[None, None] if name[0] == "b" else a[None] for name, a in layers.items()}
    arrays["unit_axes"] = np.asarray([0, 2], dtype=np.int64)
    nodes = [_node("Concat", "x", FEATURES, CODEC, axis=1), *_network(), _node("Squeeze", SCORE, "z3", "unit_axes")]
    return _model("fr_member", nodes, arrays, {FEATURES: n_features, CODEC: width - n_features}, [SCORE])


def fused_model(
    members: Sequence[Weights],
    scaler: Scaler,
    n_features: int,
    n_slots: int,
    fused_format: FusedFormat = FIRST_FORMAT,
) -> bytes:
    """All M members and their scaler as one ONNX file; the same arguments give the same bytes.

    Inputs `features` float32 [N, F] and `codec_onehot` float32 [N, V + K], both raw: V one-hot slots, then K
    conditioning columns. Outputs `mu` and `sigma` float32 [N], the members' mean and sample standard deviation
    (ddof 1), in target units. `scaler` covers the F + K numeric columns.

    Numeric choices, all judged against the members run one by one:
    - The scaler stays a Sub and a Div. Folded into w1 it would save two nodes and lose digits: adm2 is 0.95 with a
      deviation of 0.05, and a product of raw columns cancels late what Sub cancels exactly.
    - With conditioning (K > 0) the codec block is scaled whole, its slots by mean 0 and deviation 1: x - 0 and x / 1
      are exact in IEEE 754, so nothing has to be sliced out.
    - The members' first layers are side by side in one product [N, D] @ [D, M (H + 1)], for which onnxruntime packs
      w1 once and fuses the bias into GELU; Reshape and Transpose then give each member its own (N, H + 1).
    - Unit H + 1 has no weights and the bias 8, so its GELU is 8, and the last row of w2 holds b2 / 8: the second bias
      is the last term of the product's sums, as in the member, without a node of its own.
    - A float32 mean of five scores near 100 can be wrong by 1e-5: their sum near 500 has steps of 3e-5. So the mean is
      taken twice: mean0, the deviations from it (exact where scores lie within a factor of two, Sterbenz 1974), and
      mu = mean0 + mean(deviations), which is off by no more than the half step of mu itself (4e-6 from 64 to 128).
    - sigma is two-pass, from those deviations: sum(s^2) - M mu^2 would keep no digit of a sigma of 0.01 at VMAF 90.
    - Where mu is cut to a range, the ends are float32 numbers inside it. The members' scores are not cut: sigma would
      be 0 where all of them are outside.

    Raises ValueError for fewer than two members, for members of different shapes and for numbers that are not usable.
    """
    if len(members) < 2:
        raise ValueError(f"members: found {len(members)}, expected at least 2: one score has no sample deviation")
    width = _width(members[0], n_features)
    for number, member in enumerate(members):
        if _width(member, n_features) != width or member.w1.shape != members[0].w1.shape:
            raise ValueError(
                f"members/{number}: w1 is {member.w1.shape}, expected {members[0].w1.shape} as in member 0"
            )
    columns = width - n_slots  # F + K
    if not (0 <= n_slots <= width - n_features and scaler.mean.shape == scaler.std.shape == (columns,)):
        raise ValueError(
            f"scaler: found means {scaler.mean.shape} and deviations {scaler.std.shape}, expected ({columns},): "
            f"the members have {width} inputs, of which {n_features} are features and {n_slots} are slots"
        )
    with np.errstate(over="ignore", under="ignore"):
        mean, std = scaler.mean.astype(np.float32), scaler.std.astype(np.float32)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("scaler: expected finite means and deviations above 0 that float32 can hold")
    arrays = _side_by_side(members) | {"mean": mean[:n_features], "std": std[:n_features]}
    nodes = [_node("Sub", "centred", FEATURES, "mean"), _node("Div", "scaled", "centred", "std")]
    codec = CODEC
    if columns > n_features:
        arrays["codec_mean"] = np.concatenate([np.zeros(n_slots, np.float32), mean[n_features:]])
        arrays["codec_std"] = np.concatenate([np.ones(n_slots, np.float32), std[n_features:]])
        codec = "codec_scaled"
        nodes += [_node("Sub", "codec_centred", CODEC, "codec_mean"), _node("Div", codec, "codec_centred", "codec_std")]
    nodes += [
        _node("Concat", "x", "scaled", codec, axis=1),  # (N, D)
        _node("MatMul", "p1", "x", "w1"),  # (N, M (H + 1))
        _node("Add", "z1", "p1", "b1"),
        *_gelu("z1", "h1_side_by_side"),
        _node("Reshape", "h1_by_member", "h1_side_by_side", "members"),  # (N, M, H + 1)
        _node("Transpose", "h1", "h1_by_member", perm=[1, 0, 2]),
        _node("MatMul", "z2", "h1", "w2"),  # (M, N, H)
        *_gelu("z2", "h2"),
        _node("MatMul", "p3", "h2", "w3"),
        _node("Add", "z3", "p3", "b3"),
        _node("Squeeze", "scores", "z3", "unit_axis"),  # (M, N)
        _node("ReduceMean", "mean0", "scores", axes=[0], keepdims=0),  # (N,)
        _node("Sub", "deviations", "scores", "mean0"),  # (M, N)
        _node("ReduceMean", "correction", "deviations", axes=[0], keepdims=0),
        *_mean(arrays, fused_format.mu_range),
        _node("Mul", "squares", "deviations", "deviations"),
        _node("ReduceSum", "sum_of_squares", "squares", "member_axis", keepdims=0),
        _node("Div", "variance", "sum_of_squares", "ddof"),
        _node("Sqrt", SIGMA, "variance"),
    ]
    arrays["members"] = np.asarray([0, len(members), members[0].w1.shape[1] + 1], dtype=np.int64)
    arrays |= {"unit_axis": np.asarray([2], dtype=np.int64), "member_axis": np.asarray([0], dtype=np.int64)}
    arrays["ddof"] = np.asarray(len(members) - 1, dtype=np.float32)
    shapes = {FEATURES: n_features, CODEC: width - n_features}
    return _model("fr_ensemble", nodes, arrays, shapes, [MU, SIGMA], fused_format.metadata)


def read_weights(model: bytes) -> Weights:
    """The weights of a file that `member_model` wrote, bit for bit; ValueError for any other file."""
    arrays, n_features = _read(model)
    if any(arrays[name].ndim != 3 or 0 in arrays[name].shape for name in LAYERS):
        raise ValueError("member: its weights are no ensemble of one: it is not a file that this tool writes")
    weights = Weights(**{name: arrays[name][0, 0] if name[0] == "b" else arrays[name][0] for name in LAYERS})
    if member_model(weights, n_features) != model:  # nodes, constants, names, shapes, metadata, foreign fields
        raise ValueError("member: its weights read, but the graph around them is not the one that this tool writes")
    return weights


def shifted(weights: Weights, offset: float) -> Weights:
    """A member that scores `offset` (target units) more: the fused graph of a calibrated entry is made of such ones."""
    return replace(weights, b3=weights.b3 + np.float32(offset)) if offset else weights


def same_units(one: Weights, other: Weights) -> bool:
    """True if the first hidden layers have the same units, in any order: a member's copy with its units permuted."""

    def units(weights: Weights) -> list[bytes]:
        return sorted(row.tobytes() for row in np.vstack([weights.w1, weights.b1]).T)

    return one.w1.shape == other.w1.shape and units(one) == units(other)


def _width(weights: Weights, n_features: int) -> int:
    """D, after checking that the six tensors make one network and are finite."""
    if weights.w1.ndim != 2:
        raise ValueError(f"weights/w1: found the shape {weights.w1.shape}, expected two axes: inputs, hidden units")
    width, hidden = (int(size) for size in weights.w1.shape)
    expected = {"w1": (width, hidden), "b1": (hidden,), "w2": (hidden, hidden), "b2": (hidden,), "w3": (hidden, 1)}
    for name, shape in (expected | {"b3": (1,)}).items():
        array = getattr(weights, name)
        if array.shape != shape or array.dtype != np.float32 or not array.size:
            raise ValueError(f"weights/{name}: found {array.dtype} {array.shape}, expected float32 {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"weights/{name}: found NaN or infinity, expected finite numbers: train again")
    if not 1 <= n_features < width:
        raise ValueError(f"n_features: found {n_features}, expected 1 to {width - 1}: w1 has {width} rows")
    return width


def _side_by_side(members: Sequence[Weights]) -> Arrays:
    """The fused graph's layers: w1 (D, M (H + 1)), b1 (M (H + 1),), w2 (M, H + 1, H), w3 (M, H, 1), b3 (M, 1, 1)."""
    carrier = np.float32(CARRIER_VALUE)
    return {
        "w1": np.concatenate([np.pad(m.w1, ((0, 0), (0, 1))) for m in members], axis=1),
        "b1": np.concatenate([np.append(m.b1, carrier) for m in members]),
        "w2": np.stack([np.vstack([m.w2, m.b2 / carrier]) for m in members]),
        "w3": np.stack([m.w3 for m in members]),
        "b3": np.stack([m.b3[:, None] for m in members]),
    }


def _mean(arrays: Arrays, mu_range: tuple[float, float] | None) -> list[NodeProto]:
    """The nodes from mean0 and its correction to mu; adds the ends of a range to the arrays."""
    if mu_range is None:
        return [_node("Add", MU, "mean0", "correction")]
    with np.errstate(over="ignore"):  # an end beyond float32 becomes infinity, and no number is beyond that
        low, high = map(np.float32, mu_range)  # compared as float64: numpy would round the ends of the range first
    arrays["mu_low"] = np.asarray(np.nextafter(low, np.float32(np.inf)) if float(low) < mu_range[0] else low)
    arrays["mu_high"] = np.asarray(np.nextafter(high, np.float32(-np.inf)) if float(high) > mu_range[1] else high)
    return [_node("Add", "uncut", "mean0", "correction"), _node("Clip", MU, "uncut", "mu_low", "mu_high")]


def _network() -> list[NodeProto]:
    """x -> z3 through two hidden layers."""
    nodes, x = [], "x"
    for layer in "123":
        z = f"z{layer}"
        nodes += [_node("MatMul", f"p{layer}", x, f"w{layer}"), _node("Add", z, f"p{layer}", f"b{layer}")]
        if layer != "3":
            x = f"h{layer}"
            nodes += _gelu(z, x)
    return nodes


def _gelu(z: str, h: str) -> list[NodeProto]:
    """h = GELU(z), as the Div-Erf-Add-Mul-Mul chain that onnxruntime fuses to Gelu."""
    return [
        _node("Div", f"{z}_over_sqrt2", z, "sqrt2"),
        _node("Erf", f"{z}_erf", f"{z}_over_sqrt2"),
        _node("Add", f"{z}_erf_plus_1", f"{z}_erf", "one"),
        _node("Mul", f"{h}_twice", z, f"{z}_erf_plus_1"),
        _node("Mul", h, f"{h}_twice", "half"),
    ]


def _node(op: str, output: str, *inputs: str, **attributes: Any) -> NodeProto:
    from onnx import helper

    return helper.make_node(op, inputs, [output], name=output, **attributes)


def _model(
    name: str,
    nodes: list[NodeProto],
    arrays: Arrays,
    inputs: dict[str, int],
    outputs: list[str],
    metadata: Mapping[str, str] = FIRST_FORMAT.metadata,
) -> bytes:
    """Serialised with little-endian raw tensors; protobuf writes fields in the order of their numbers."""
    from onnx import GraphProto, ModelProto, OperatorSetIdProto, TensorProto, helper

    graph = GraphProto(name=name, node=nodes)
    graph.input.extend(helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", n]) for key, n in inputs.items())
    graph.output.extend(helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N"]) for key in outputs)
    for key, array in (arrays | GELU).items():
        kind, little = (TensorProto.FLOAT, "<f4") if array.dtype == np.float32 else (TensorProto.INT64, "<i8")
        graph.initializer.add(name=key, data_type=kind, dims=array.shape, raw_data=array.astype(little).tobytes())
    opset = [OperatorSetIdProto(domain="", version=OPSET_VERSION)]
    model = ModelProto(ir_version=IR_VERSION, producer_name=PRODUCER, graph=graph, opset_import=opset)
    for key, text in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=text)
    return bytes(model.SerializeToString(deterministic=True))


def _read(data: bytes) -> tuple[dict[str, Float32], int]:
    """The float32 tensors of a file by name, and F. ValueError unless the six layers are there, raw and whole."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
    from onnx import ModelProto, TensorProto

    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"member: found {len(data)} bytes that are no ONNX model: {error}") from None
    tensors: dict[str, Float32] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            shape = tuple(tensor.dims)
            if min(shape, default=1) < 0 or prod(shape) * 4 != len(tensor.raw_data):
                raise ValueError(
                    f"member: tensor {tensor.name!r} of shape {shape} has {len(tensor.raw_data)} raw bytes"
                )
            tensors[tensor.name] = np.frombuffer(tensor.raw_data, dtype="<f4").astype(np.float32).reshape(shape)
    if missing := [name for name in LAYERS if name not in tensors]:
        raise ValueError(f"member: no float32 tensor named {missing[0]}: it is not a file that this tool writes")
    dims = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name == FEATURES]
    if len(dims) != 1 or len(dims[0]) != 2:
        raise ValueError(f"member: no input {FEATURES} of shape [N, F]: it is not a file that this tool writes")
    return tensors, int(dims[0][1].dim_value)
