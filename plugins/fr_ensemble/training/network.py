"""network.py: the network as an ordinary torch module: what training and export must agree with. Trains nothing.

`python -m fr_ensemble.training.network` scores rows: an .npz of weights and rows on stdin, an .npy of scores on stdout.
"""

from __future__ import annotations

import io
import sys
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from fr_ensemble.arrays import Float32, Weights

Stacked = dict[str, Tensor]  # something of each parameter of M models, (M, ...)


class FRRegressor(nn.Module):
    """score = head(gelu(second(gelu(first(x))))), exact (erf) GELU."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """x: (rows, D), standardised; keep: (2, rows, H), what dropout multiplies each hidden unit with; -> (rows,)."""
        h = gelu(self.first(x))  # (rows, H)
        h = gelu(self.second(h if keep is None else h * keep[0]))
        scores: Tensor = self.head(h if keep is None else h * keep[1])[:, 0]
        return scores


def parameters(weights: Weights) -> dict[str, Tensor]:
    """FRRegressor's parameters; nn.Linear keeps its weight as (outputs, inputs)."""
    parts = {"first": (weights.w1, weights.b1), "second": (weights.w2, weights.b2), "head": (weights.w3, weights.b3)}
    return {
        f"{layer}.{name}": torch.tensor(array)
        for layer, (weight, bias) in parts.items()
        for name, array in (("weight", weight.T), ("bias", bias))
    }


def weights_of(p: Stacked, j: int) -> Weights:
    """Model j of a stack."""
    layers = [p[f"{layer}.{name}"][j] for layer in ("first", "second", "head") for name in ("weight", "bias")]
    return Weights(*(np.ascontiguousarray(t.cpu().numpy().T) for t in layers))


def predict(weights: Weights, x: Float32) -> Float32:
    """Scores of one model without dropout. x: float32 (n, D), standardised; the result: float32 (n,)."""
    network = FRRegressor(*weights.w1.shape)
    network.load_state_dict(parameters(weights))
    with torch.no_grad():
        scores: Float32 = network(torch.tensor(x)).numpy()
    return scores


def main() -> None:
    """The child of parity.py: torch takes as much memory as a million rows, and gives it back when a process ends."""
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as arrays:
        parts = [arrays[field.name] for field in fields(Weights)]  # (M, ...) each
        scores = np.stack([predict(Weights(*member), arrays["x"]) for member in zip(*parts, strict=True)])
    stream = io.BytesIO()  # numpy asks a real file for its position, which a pipe has none of
    np.save(stream, scores, allow_pickle=False)
    sys.stdout.buffer.write(stream.getvalue())


if __name__ == "__main__":
    main()
