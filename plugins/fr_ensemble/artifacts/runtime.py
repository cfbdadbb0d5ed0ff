"""runtime.py: runs ONNX bytes with onnxruntime: mu and sigma of an ensemble, scores of members. Opens no files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Numbers, Scaler
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SCORE, SIGMA

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RUN_ROWS = 512  # rows a run: (5, 512, 64) float32 activations stay in the L2 cache; 256 to 1,024 measure alike


class Ensemble:
    """A fused graph, ready to run. Threads may share one: each has buffers of its own, of one chunk at most.

    Raises ValueError, in one line, for bytes that onnxruntime does not load or that are not a fused graph.
    """

    def __init__(self, model: bytes, threads: int = 1, mu_range: tuple[float, float] | None = None) -> None:
        """`threads`: onnxruntime's intra-op threads; one is fastest below some hundred rows, two on long batches.

        mu_range: the target's, which mu is cut to; graphs before version 2 do not do it. None: as the graph gives it.
        """
        self._range = mu_range
        self._session = _session(model, threads, [MU, SIGMA])
        self.n_features, self.n_codec = _widths(self._session)
        self._kept = threading.local()

    def predict(self, features: Numbers, codec_block: Numbers) -> tuple[Float64, Float64]:
        """mu and sigma, float64 (n,), in target units.

        features: (n, F), raw units. codec_block: (n, C), one-hot slots, then raw conditioning columns. RUN_ROWS run at
        a time, so memory beyond the result does not grow with n; the chunks change no row's bits that matter (a
        single row may take another kernel and differ by one float32 step). NaN goes in as NaN and comes out as NaN.
        """
        n = _rows(features, codec_block, self.n_features, self.n_codec)
        if 0 < n <= RUN_ROWS:  # one run, nothing to put together
            mu, sigma = (values.astype(np.float64) for values in self._run(features, codec_block))
        else:
            mu, sigma = np.empty(n), np.empty(n)
            for start in range(0, n, RUN_ROWS):
                rows = slice(start, start + RUN_ROWS)
                mu[rows], sigma[rows] = self._run(features[rows], codec_block[rows])
        return mu if self._range is None else np.clip(mu, *self._range), sigma

    def _run(self, features: Numbers, codec_block: Numbers) -> Sequence[Float32]:
        """One run. From the second in a row with as many rows on, through buffers bound once, which is faster."""
        n, kept = len(features), self._kept
        if getattr(kept, "n", None) != n:
            kept.n, kept.bound = n, None
            return _run(self._session, [MU, SIGMA], features, codec_block)
        if kept.bound is None:
            kept.bound = _Bound(self._session, n, self.n_features, self.n_codec)
        bound: _Bound = kept.bound
        return bound.run(features, codec_block)


class _Bound:
    """Buffers for n rows that a session reads and writes in place (onnxruntime's OrtValue shares memory on the CPU)."""

    def __init__(self, session: InferenceSession, n: int, n_features: int, n_codec: int) -> None:
        from onnxruntime import OrtValue

        self.features, self.codec = np.empty((n, n_features), np.float32), np.empty((n, n_codec), np.float32)
        self.mu, self.sigma = np.empty(n, np.float32), np.empty(n, np.float32)
        self.session, self.binding = session, session.io_binding()
        for name, buffer in ((FEATURES, self.features), (CODEC, self.codec)):
            self.binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(buffer))
        for name, result in ((MU, self.mu), (SIGMA, self.sigma)):
            self.binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(result))

    def run(self, features: Numbers, codec_block: Numbers) -> tuple[Float32, Float32]:
        """mu and sigma, in buffers that the next run overwrites."""
        self.features[...], self.codec[...] = features, codec_block
        try:
            self.session.run_with_iobinding(self.binding)
        except Exception as error:  # see _session
            raise _failed(error, len(features)) from None
        return self.mu, self.sigma


def standardise(features: Numbers, codec_block: Numbers, scaler: Scaler, n_slots: int) -> tuple[Float32, Float32]:
    """Raw rows -> what the members take, in float32 with the fused graph's own arithmetic, so that both can agree.

    features (n, F) and codec_block (n, V + K) as for `Ensemble.predict`; scaler over F + K columns.
    """
    n_features = np.shape(features)[1]
    mean, std = scaler.mean.astype(np.float32), scaler.std.astype(np.float32)
    codec = np.array(codec_block, dtype=np.float32)
    codec[:, n_slots:] = (codec[:, n_slots:] - mean[n_features:]) / std[n_features:]
    return (np.asarray(features, dtype=np.float32) - mean[:n_features]) / std[:n_features], codec


def member_scores(models: Sequence[bytes], features: Numbers, codec_block: Numbers) -> Float64:
    """Scores of members run one by one, float64 (M, n), in target units; for checks, where speed is no matter.

    features (n, F) and the conditioning columns of codec_block (n, C) are standardised (see `standardise`).
    Raises ValueError, naming the member by its place, for bytes that are not a member.
    """
    scores = np.empty((len(models), len(features)))
    for place, model in enumerate(models):
        try:
            session = _session(model, 1, [SCORE])
            for start in range(0, _rows(features, codec_block, *_widths(session)), RUN_ROWS):
                rows = slice(start, start + RUN_ROWS)
                (scores[place, rows],) = _run(session, [SCORE], features[rows], codec_block[rows])
        except ValueError as error:
            raise ValueError(f"members/{place}: {error}") from None
    return scores


def _session(model: bytes, threads: int, outputs: list[str]) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors arrive as exceptions; nothing is printed besides
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen types without a common base
        raise ValueError(f"{len(model)} bytes that onnxruntime does not load: {_line(error)}") from None
    found = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if found != ([FEATURES, CODEC], outputs):
        raise ValueError(f"found inputs {found[0]} and outputs {found[1]}, expected {[FEATURES, CODEC]} and {outputs}")
    return session


def _widths(session: InferenceSession) -> tuple[int, int]:
    """F and C, from input shapes [N, F] and [N, C]."""
    shapes = [value.shape for value in session.get_inputs()]
    if any(len(shape) != 2 or not isinstance(shape[1], int) for shape in shapes):
        raise ValueError(f"found input shapes {shapes}, expected [N, F] and [N, C] with F and C fixed")
    return shapes[0][1], shapes[1][1]


def _rows(features: Numbers, codec_block: Numbers, n_features: int, n_codec: int) -> int:
    """n, after checking the shapes."""
    n = len(features)
    if features.shape != (n, n_features) or codec_block.shape != (n, n_codec):
        raise ValueError(
            f"found features {features.shape} and codec block {codec_block.shape}, "
            f"expected (n, {n_features}) and (n, {n_codec}) with one n"
        )
    return n


def _run(session: InferenceSession, outputs: list[str], features: Numbers, codec_block: Numbers) -> Sequence[Float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and so is its score
        feeds = {name: np.ascontiguousarray(x, np.float32) for name, x in ((FEATURES, features), (CODEC, codec_block))}
    try:
        found: Sequence[Float32] = session.run(outputs, feeds)
        return found
    except Exception as error:  # see _session
        raise _failed(error, len(features)) from None


def _failed(error: Exception, n: int) -> ValueError:
    """A graph that loads can still fail on its rows."""
    return ValueError(f"onnxruntime does not run the graph on {n} rows: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
