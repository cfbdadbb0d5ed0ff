"""Running an ensemble: chunks, streams, kinds of input, and bytes that do not run."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from fr_ensemble.arrays import Float32, Float64, Scaler, Weights
from fr_ensemble.artifacts.graphs import fused_model, member_model
from fr_ensemble.artifacts.runtime import RUN_ROWS, Ensemble, member_scores, standardise

N_FEATURES, N_SLOTS, N_CONDITIONING = 3, 4, 1
ONE_STEP = 2.0**-17  # of float32 from 64 to 128: another kernel may add in another order


def weights_of(seed: int) -> Weights:
    """A small network with scores around 80."""
    random, width, hidden = np.random.default_rng(seed), N_FEATURES + N_SLOTS + N_CONDITIONING, 8
    shapes = [(width, hidden), (hidden,), (hidden, hidden), (hidden,), (hidden, 1), (1,)]
    arrays = [random.normal(80.0 * (shape == (1,)), 0.5, shape).astype(np.float32) for shape in shapes]
    return Weights(*arrays)


SCALER = Scaler(np.array([0.9, 0.5, 5.0, 30.0]), np.array([0.1, 0.2, 4.0, 8.0]))
WEIGHTS = [weights_of(seed) for seed in range(3)]
MEMBERS = [member_model(weights, N_FEATURES) for weights in WEIGHTS]
FUSED = fused_model(WEIGHTS, SCALER, N_FEATURES, N_SLOTS)


def rows_of(n: int) -> tuple[Float64, Float32]:
    """Raw features (n, 3) and codec blocks (n, 5)."""
    random = np.random.default_rng(7)
    numbers = SCALER.mean + SCALER.std * random.normal(size=(n, N_FEATURES + N_CONDITIONING))
    slots = np.eye(N_SLOTS)[random.integers(0, N_SLOTS, n)]
    return numbers[:, :N_FEATURES], np.hstack([slots, numbers[:, N_FEATURES:]]).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 2, RUN_ROWS - 1, RUN_ROWS, RUN_ROWS + 1, 3 * RUN_ROWS + 5])
def test_chunks_change_nothing(n: int) -> None:
    """Any number of rows gives what one run of the graph over all of them gives, as float64 of shape (n,)."""
    features, codec = rows_of(n)
    mu, sigma = Ensemble(FUSED).predict(features, codec)
    assert mu.shape == sigma.shape == (n,)
    assert mu.dtype == sigma.dtype == np.dtype(np.float64)
    session = onnxruntime.InferenceSession(FUSED)
    if n:
        whole = session.run(None, {"features": features.astype(np.float32), "codec_onehot": codec})
        assert np.abs(mu - whole[0]).max() <= ONE_STEP
        assert np.abs(sigma - whole[1]).max() <= ONE_STEP


def test_inputs_may_be_of_any_float_and_layout() -> None:
    """float32 or float64, C or Fortran order, a strided or read-only view: the same numbers give the same result."""
    features, codec = rows_of(700)
    features = features.astype(np.float32).astype(np.float64)
    expected = Ensemble(FUSED).predict(features, codec)
    frozen = features.copy()
    frozen.flags.writeable = False
    for other in (features.astype(np.float32), np.asfortranarray(features), np.repeat(features, 2, 0)[::2], frozen):
        for block in (codec, codec.astype(np.float64)):
            found = Ensemble(FUSED).predict(other, block)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_memory_does_not_grow_with_the_rows() -> None:
    """Half a million rows need their results and less than a megabyte more."""
    n = 500_000
    one, block = rows_of(1)
    features, codec = np.broadcast_to(one, (n, one.shape[1])), np.broadcast_to(block, (n, block.shape[1]))
    ensemble = Ensemble(FUSED)
    ensemble.predict(features[:RUN_ROWS], codec[:RUN_ROWS])
    tracemalloc.start()
    try:
        ensemble.predict(features, codec)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2 * 8 * n <= peak < 2 * 8 * n + 2**20


@pytest.mark.parametrize("n", [1, 5, RUN_ROWS + 1])
def test_each_run_is_about_its_own_rows(n: int) -> None:
    """Runs with as many rows, one after another, do not see each other's rows, and no result changes later."""
    ensemble, (features, codec) = Ensemble(FUSED), rows_of(4 * n)
    parts = [slice(n * place, n * (place + 1)) for place in range(4)]
    found = [ensemble.predict(features[rows], codec[rows]) for rows in parts]
    for rows, result in zip(parts, found, strict=True):
        expected = Ensemble(FUSED).predict(features[rows], codec[rows])
        np.testing.assert_array_equal(result, expected)


def test_nothing_is_kept_between_runs() -> None:
    """Threads share one ensemble and each gets its own rows' results."""
    ensemble, wrong = Ensemble(FUSED), []

    def work(n: int) -> None:
        features, codec = rows_of(n)
        expected = Ensemble(FUSED).predict(features, codec)
        for _ in range(20):
            if not np.array_equal(ensemble.predict(features, codec), expected):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in (2, 33, 700, 701)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_missing_number_stays_missing() -> None:
    """A NaN in a row gives NaN for it and leaves the other rows alone."""
    features, codec = rows_of(4)
    features[2, 1] = np.nan
    mu, sigma = Ensemble(FUSED).predict(features, codec)
    assert np.isnan(mu).tolist() == np.isnan(sigma).tolist() == [False, False, True, False]


def test_rows_are_standardised_as_the_graph_does_it() -> None:
    """Numeric columns lose their mean and deviation, in float32; slots pass; the input is not written to."""
    features, codec = rows_of(50)
    before = codec.copy()
    scaled, block = standardise(features, codec, SCALER, N_SLOTS)
    assert scaled.dtype == block.dtype == np.float32
    np.testing.assert_allclose(scaled, (features - SCALER.mean[:3]) / SCALER.std[:3], rtol=0, atol=1e-5)
    np.testing.assert_allclose(block[:, N_SLOTS:], (codec[:, N_SLOTS:] - 30.0) / 8.0, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(block[:, :N_SLOTS], codec[:, :N_SLOTS])
    np.testing.assert_array_equal(codec, before)


def test_members_give_a_row_each() -> None:
    """member_scores has shape (M, n), in the files' order, whatever n is."""
    rows = standardise(*rows_of(RUN_ROWS + 3), SCALER, N_SLOTS)
    scores = member_scores(MEMBERS, *rows)
    assert scores.shape == (3, RUN_ROWS + 3)
    np.testing.assert_array_equal(member_scores(MEMBERS[::-1], *rows), scores[::-1])
    assert member_scores([], *rows).shape == (0, RUN_ROWS + 3)


def _other_graph(width: int | str) -> bytes:
    """A valid model with an ensemble's names, but another input."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, number, ["N", width]) for name in ("features", "codec_onehot")]
    outputs = [helper.make_tensor_value_info(name, number, None) for name in ("mu", "sigma")]
    nodes = [helper.make_node("Add", ["features", "codec_onehot"], [name]) for name in ("mu", "sigma")]
    graph = helper.make_graph(nodes, "other", inputs, outputs)
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString())


BAD = {
    "nothing": (b"", "0 bytes that onnxruntime does not load"),
    "text": (b"<html>\n<body>not a model</body>\n</html>", "does not load"),
    "cut short": (FUSED[:-20], "does not load"),
    "an unknown operator": (FUSED.replace(b"Sqrt", b"Sqrx"), "does not load"),
    "a member": (MEMBERS[0], r"found inputs .* and outputs \['score'\], expected"),
    "an open width": (_other_graph("W"), "expected .N, F. and .N, C. with F and C fixed"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_load_is_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no fused graph raise ValueError with one line, and onnxruntime prints nothing besides."""
    model, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        Ensemble(model)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert capfd.readouterr() == ("", "")


def test_the_member_that_does_not_load_is_named() -> None:
    """An error of member_scores says which file it was."""
    rows = standardise(*rows_of(2), SCALER, N_SLOTS)
    with pytest.raises(ValueError, match=r"members/1: found inputs"):
        member_scores([MEMBERS[0], FUSED], *rows)


@pytest.mark.parametrize(("n", "width", "m", "block"), [(5, 4, 5, 5), (5, 3, 4, 5), (5, 3, 5, 4), (0, 4, 0, 5)])
def test_rows_of_another_shape_are_refused(n: int, width: int, m: int, block: int) -> None:
    """Too many features, too few blocks or columns: the message has both shapes and what was expected."""
    with pytest.raises(
        ValueError, match=rf"found features \({n}, {width}\) and codec block \({m}, {block}\), expected"
    ):
        Ensemble(FUSED).predict(np.zeros((n, width)), np.zeros((m, block), np.float32))


def test_importing_is_cheap() -> None:
    """Neither torch nor onnx nor onnxruntime is loaded before a model is."""
    program = "import sys, fr_ensemble.artifacts.runtime; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "set()"
