"""parity.py: that exported files give what the trained network gives. Trains nothing and writes no file."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Numbers, Scaler, TrainedModels, Weights
from fr_ensemble.artifacts.manifest import codec_block
from fr_ensemble.artifacts.runtime import Ensemble, member_scores, standardise
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.spec import ColumnSpec
from registry_tool.errors import WorldError

PARITY_ROWS = 4096  # from all over the corpus: every weight is seen by each
# Torch, the trainer and onnxruntime add the same float32 numbers in another order; measured differences stay below 4e-5
# target units of a range of 100, so twice or more is a broken export, not rounding.
EXPORT_TOLERANCE = 1e-4
Predict = Callable[[Sequence[Weights], Float32], Numbers]


@dataclass(frozen=True, slots=True)
class ParitySample:
    """PARITY_ROWS rows from all over a corpus, and what the trainer's models give for them."""

    spec: ColumnSpec
    features: Float64  # (n, F), raw
    codec_block: Float64  # (n, V + K), raw
    scaler: Scaler
    members: tuple[Weights, ...]
    fitted: Float32  # (seeds, n)

    @classmethod
    def of(cls, corpus: Corpus, trained: TrainedModels) -> ParitySample:
        rows = np.unique(np.linspace(0, corpus.n_rows - 1, PARITY_ROWS).astype(int))
        block = codec_block(corpus.codec[rows], corpus.conditioning[rows], corpus.spec.n_slots)
        return cls(corpus.spec, corpus.features[rows], block, trained.scaler, trained.members, trained.fitted[:, rows])


def check_export(
    sample: ParitySample, members: Sequence[bytes], fused: bytes, mu_range: tuple[float, float] | None = None
) -> str:
    """That the ONNX files give what the network gives, on the sample; the answer in one line.

    Raises WorldError where they do not: a broken engine, not bad data.
    """
    spec = sample.spec
    inputs = standardise(sample.features, sample.codec_block, sample.scaler, spec.n_slots)
    scores = member_scores(members, *inputs)
    mu, sigma = Ensemble(fused).predict(sample.features, sample.codec_block)
    by, predict = network()
    expected = predict(sample.members, np.concatenate(inputs, axis=1))
    worst = 0.0
    for part, one, other in (
        (f"members in {by}", scores, expected),
        ("members in the trainer", scores, sample.fitted),
        ("fused mu", mu, scores.mean(axis=0) if mu_range is None else np.clip(scores.mean(axis=0), *mu_range)),
        ("fused sigma", sigma, scores.std(axis=0, ddof=1)),
    ):
        worst = max(worst, _difference(one, other, part, spec.bounds))
    lacking = " (torch is not installed)" if by == "numpy" else ""
    return f"{by}{lacking} and onnxruntime differ by at most {worst:.1e} {spec.target} on {len(mu)} rows"


def network() -> tuple[str, Predict]:
    """What the exported files are compared with: the reference in torch, or the same in numpy, and its name."""
    return ("torch", predict_in_torch) if find_spec("torch") is not None else ("numpy", predict_in_numpy)


def predict_in_torch(members: Sequence[Weights], x: Float32) -> Float32:
    """Scores (M, n) by the reference network, in a process of its own. x: float32 (n, D), standardised.

    Raises WorldError where torch is installed and does not work.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {part.name: np.stack([getattr(m, part.name) for m in members]) for part in fields(Weights)}
    np.savez(stream, x=x, **arrays)
    command = [sys.executable, "-m", "fr_ensemble.training.network"]
    ran = subprocess.run(command, input=stream.getvalue(), capture_output=True, check=False)
    if ran.returncode:
        words = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise WorldError(f"torch does not compute the network ({words[-1] if words else ran.returncode}): reinstall it")
    scores: Float32 = np.load(io.BytesIO(ran.stdout), allow_pickle=False)
    return scores


def predict_in_numpy(members: Sequence[Weights], x: Float32) -> Float64:
    """The same in float64, without torch."""
    from scipy.special import ndtr

    def score(member: Weights) -> Float64:
        hidden = x.astype(np.float64) @ member.w1 + member.b1
        hidden = hidden * ndtr(hidden) @ member.w2 + member.b2
        scores: Float64 = (hidden * ndtr(hidden) @ member.w3 + member.b3)[:, 0]
        return scores

    return np.stack([score(member) for member in members])


def _difference(one: Numbers, other: Numbers, part: str, bounds: tuple[float, float]) -> float:
    tolerance = EXPORT_TOLERANCE * max(1.0, (bounds[1] - bounds[0]) / 100.0)
    worst = float(np.abs(one - other).max())
    if not worst <= tolerance:
        raise WorldError(
            f"export of {part}: onnxruntime differs by {worst:g}, expected at most {tolerance:g}: report it"
        )
    return worst
