"""inference_ratio.py: the fused graph against the obvious way, five sessions and numpy, in one run on one machine.

    python benchmarks/inference_ratio.py [--threads 1] [--rounds 20]

The obvious way: members as an exporter writes them (two-axis Gemm weights), one onnxruntime session each with its
default options, standardised input, and numpy for the mean and standard deviation (ddof 1) of the stacked scores. The
second column is the same with one thread a session, which a careful user might set; the targets are held against the
first. Times are medians (p50); the sides take turns in blocks, so that a busy machine slows all of them. The difference
is taken from the member files that this tool writes, run one by one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
import onnxruntime
from fr_ensemble.arrays import Float32, Float64, Scaler, Weights
from fr_ensemble.artifacts.graphs import GELU, LAYERS, fused_model, member_model
from fr_ensemble.artifacts.runtime import RUN_ROWS, Ensemble, member_scores, standardise
from onnx import helper, numpy_helper

BATCHES = ((1, 100, 4.0), (32, 50, 2.3), (100_000, 1, 1.3))  # rows, runs in a block, target
LOAD_TARGET, WRITE_TARGET_MS, DIFFERENCE_TARGET = 2.5, 20.0, 1e-5
N_FEATURES, N_SLOTS, HIDDEN, N_MEMBERS = 6, 12, 64, 5


def random_ensemble() -> tuple[list[Weights], Scaler]:
    """Members and their features' scaler, like trained ones: scores from about 20 to 100, members a point apart."""
    width, shared = N_FEATURES + N_SLOTS, np.random.default_rng(0)
    shapes = [(width, HIDDEN), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)]
    common = [shared.normal(0.0, shape[0] ** -0.5, shape) for shape in shapes]
    members = []
    for seed in range(N_MEMBERS):
        own = np.random.default_rng(seed + 1)
        arrays = [base + 0.05 * own.normal(0.0, base.shape[0] ** -0.5, base.shape) for base in common]
        arrays[4] *= 30.0
        arrays[5] += 75.0
        members.append(Weights(*(array.astype(np.float32) for array in arrays)))
    mean, std = np.array([0.95, 0.62, 0.84, 0.90, 0.93, 5.1]), np.array([0.05, 0.18, 0.10, 0.07, 0.05, 4.2])
    return members, Scaler(mean, std)


def plain_member(weights: Weights, n_features: int) -> bytes:
    """A member as torch's exporter writes it: Gemm with two-axis weights, GELU spelt out."""
    nodes, x = [helper.make_node("Concat", ["features", "codec_onehot"], ["x"], axis=1)], "x"
    for layer in "123":
        nodes.append(helper.make_node("Gemm", [x, f"w{layer}", f"b{layer}"], [f"z{layer}"]))
        if layer != "3":
            z, x = f"z{layer}", f"h{layer}"
            nodes += [
                helper.make_node("Div", [z, "sqrt2"], [f"{z}d"]),
                helper.make_node("Erf", [f"{z}d"], [f"{z}e"]),
                helper.make_node("Add", [f"{z}e", "one"], [f"{z}p"]),
                helper.make_node("Mul", [z, f"{z}p"], [f"{z}m"]),
                helper.make_node("Mul", [f"{z}m", "half"], [x]),
            ]
    nodes.append(helper.make_node("Squeeze", ["z3", "last"], ["score"]))
    arrays = {name: getattr(weights, name) for name in LAYERS} | GELU | {"last": np.array([1])}
    widths = {"features": n_features, "codec_onehot": len(weights.w1) - n_features}
    graph = helper.make_graph(
        nodes,
        "member",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width]) for name, width in widths.items()],
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


class FiveSessions:
    """The obvious way to ask an ensemble."""

    def __init__(self, members: list[bytes], scaler: Scaler, threads: int | None) -> None:
        self.sessions = [_session(member, threads) for member in members]
        self.mean, self.std = scaler.mean.astype(np.float32), scaler.std.astype(np.float32)

    def predict(self, features: Float32, block: Float32) -> tuple[Float64, Float64]:
        feeds = {"features": (features - self.mean) / self.std, "codec_onehot": block}
        scores = np.stack([session.run(None, feeds)[0] for session in self.sessions]).astype(np.float64)
        return scores.mean(axis=0), scores.std(axis=0, ddof=1)


def _session(model: bytes, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def p50(sides: Sequence[Callable[[], object]], block: int, rounds: int) -> list[float]:
    """The median seconds of each side."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, kept in zip(sides, times, strict=True):
            side()
            for _ in range(block):
                began = time.perf_counter()
                side()
                kept.append(time.perf_counter() - began)
    return [statistics.median(kept) for kept in times]


def show(what: str, times: Sequence[float], target: float) -> None:
    """A line: the obvious way, the careful one, ours; both ratios and the target."""
    unit, scale = ("us", 1e6) if times[-1] < 1e-3 else ("ms", 1e3)
    obvious, careful, ours = times
    cells = "".join(f"{seconds * scale:>12.1f} {unit}" for seconds in times)
    met = "met" if obvious / ours >= target else "missed"
    print(f"{what:<30}{cells}{obvious / ours:>9.2f}x{careful / ours:>9.2f}x    >= {target}x {met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="threads of the fused graph's session (default 1)")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    members, scaler = random_ensemble()
    plain = [plain_member(weights, N_FEATURES) for weights in members]
    write_fused = partial(fused_model, members, scaler, N_FEATURES, N_SLOTS)
    graph = write_fused()
    versions = f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, numpy {np.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"{len(members)} members in one graph, run with {options.threads} thread(s)")
    print(f"{'p50':<30}{'5 sessions':>15}{'1 thread each':>15}{'fused graph':>15}{'ratio':>10}{'ratio':>10}    target")
    ensemble = Ensemble(graph, options.threads)
    files = [member_model(weights, N_FEATURES) for weights in members]
    rivals = [FiveSessions(plain, scaler, threads) for threads in (None, 1)]
    random, worst = np.random.default_rng(5), 0.0
    for rows, block, target in BATCHES:
        features = (scaler.mean + scaler.std * random.normal(size=(rows, N_FEATURES))).astype(np.float32)
        codec = np.eye(N_SLOTS, dtype=np.float32)[random.integers(0, N_SLOTS, rows)]
        sides = [partial(ask, features, codec) for ask in (*(rival.predict for rival in rivals), ensemble.predict)]
        scores = member_scores(files, *standardise(features, codec, scaler, N_SLOTS))
        truth = scores.mean(axis=0), scores.std(axis=0, ddof=1)
        pairs = zip(ensemble.predict(features, codec), truth, strict=True)
        worst = max(worst, *(float(np.abs(one - other).max()) for one, other in pairs))
        what = f"{rows:,} row{'s' if rows > 1 else ''}" + (f", chunks of {RUN_ROWS}" if rows > RUN_ROWS else "")
        show(what, p50(sides, block, options.rounds if rows < 1000 else min(options.rounds, 5)), target)
    loads = [
        lambda: [_session(m, None) for m in plain],
        lambda: [_session(m, 1) for m in plain],
        lambda: Ensemble(graph),
    ]
    show("load", p50(loads, 2, options.rounds), LOAD_TARGET)
    writing = p50([partial(member_model, members[0], N_FEATURES), write_fused], 10, options.rounds)
    print(
        f"write: a member {writing[0] * 1e3:.2f} ms, the graph {writing[1] * 1e3:.2f} ms; target < {WRITE_TARGET_MS} ms"
    )
    print(f"largest difference from the members' own mean and deviation: {worst:.2g}; target <= {DIFFERENCE_TARGET}")


if __name__ == "__main__":
    main()
