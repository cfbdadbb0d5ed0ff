"""network.py: FRRegressors of one shape along a leading axis, forward and backward by hand. Knows no folds, no loop.

The order of work and the memory layout decide the bits. Three rules keep a model's bits its own, whatever else
is in the stack: `hidden` is padded to a multiple of 32 (an elementwise kernel's scalar tail rounds differently from
its vector body; the extra units have zero weights and stay zero), every model's slice starts on 64 bytes, and a
product never runs over fewer than MIN_STACK models (a batch of one takes another path and rounds differently).
"""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fr_ensemble.arrays import Float32, Weights
from fr_ensemble.training.folds import PAD, padded

gelu = torch.ops.aten.gelu.out  # torch.nn.functional.gelu takes no `out`
gelu_backward = torch.ops.aten.gelu_backward.grad_input

MIN_STACK = 2
DROPPED = -(2.0**30)  # added before GELU to a unit that is out: its value and its slope become exactly 0


@dataclass(frozen=True, slots=True)
class Parameters:
    """The weights of a stack, or anything of the same shape (gradients, Adam's moments).

    M models, I input columns (the last one is constant 1 and carries the first bias), H = padded(hidden).
    """

    w1: Tensor  # (M, I, H), the last row is b1
    w2: Tensor  # (M, H, H)
    b2: Tensor  # (M, 1, H)
    w3: Tensor  # (M, 1, H)
    b3: Tensor  # (M, 1, PAD), only the first is used

    @classmethod
    def zeros(
        cls, models: int, inputs: int, hidden: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Parameters:
        """Five stacked tensors in one buffer, each model's slice on a 64-byte border."""
        h = padded(hidden)
        shapes = [(models, inputs, h), (models, h, h), (models, 1, h), (models, 1, h), (models, 1, PAD)]
        flat = torch.zeros(sum(a * b * c for a, b, c in shapes), device=device, dtype=dtype)
        pieces = torch.split(flat, [a * b * c for a, b, c in shapes])
        return cls(*(p.view(s) for p, s in zip(pieces, shapes, strict=True)))

    def zeros_like(self) -> Parameters:
        """Zeros of the same shapes on the same device."""
        models, inputs, hidden = self.w1.shape
        return Parameters.zeros(models, inputs, hidden, str(self.w1.device), self.w1.dtype)

    def tensors(self, start: int = 0, stop: int | None = None) -> list[Tensor]:
        """The five tensors, cut to the models start..stop."""
        return [t[start:stop] for t in (self.w1, self.w2, self.b2, self.w3, self.b3)]

    def put(self, index: int, weights: Weights) -> None:
        """Write one model into the stack."""
        inputs, hidden = weights.w1.shape
        for target, source in (
            (self.w1[index, :inputs, :hidden], weights.w1),
            (self.w1[index, inputs, :hidden], weights.b1),
            (self.w2[index, :hidden, :hidden], weights.w2),
            (self.b2[index, 0, :hidden], weights.b2),
            (self.w3[index, 0, :hidden], weights.w3[:, 0]),
            (self.b3[index, 0, :1], weights.b3),
        ):
            target.copy_(torch.from_numpy(source))

    def get(self, index: int, hidden: int) -> Weights:
        """Read one model out of the stack, padding removed."""
        w1, w2, b2, w3, b3 = (t[index].cpu().numpy().copy() for t in self.tensors())
        return Weights(
            w1=w1[:-1, :hidden].copy(),
            b1=w1[-1, :hidden].copy(),
            w2=w2[:hidden, :hidden].copy(),
            b2=b2[0, :hidden].copy(),
            w3=w3[0, :hidden, None].copy(),
            b3=b3[0, :1].copy(),
        )


def arithmetic(device: str) -> dict[str, str]:
    """What decides in which order this machine adds: the processor, the kernels that torch takes for it, the device."""
    cpu = platform.processor() or "unknown"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {"cpu": cpu, "cpu_capability": torch.backends.cpu.get_cpu_capability(), "device": name}


def initial_weights(rng: np.random.Generator, inputs: int, hidden: int) -> Weights:
    """Weights as torch.nn.Linear starts: uniform within +-1/sqrt(fan_in), weight before bias, layer by layer."""

    def uniform(fan_in: int, *shape: int) -> Float32:
        bound = 1.0 / np.sqrt(fan_in)
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    return Weights(
        w1=uniform(inputs, inputs, hidden),
        b1=uniform(inputs, hidden),
        w2=uniform(hidden, hidden, hidden),
        b2=uniform(hidden, hidden),
        w3=uniform(hidden, hidden, 1),
        b3=uniform(hidden, 1),
    )


class Stack:
    """One training step of M models over B rows each: weights, gradients, every intermediate array, and their views.

    All is allocated (`zeros`) and cut (`first`) beforehand: here an allocation or a slice costs as much as a sum.
    I input columns with the constant one, H hidden units (padded), C = padded(I + 1).
    """

    def __init__(self, weights: Parameters, grads: Parameters, arrays: list[Tensor]) -> None:
        self.weights, self.grads, self.arrays = weights, grads, arrays
        self.batch, self.out, self.z1, self.h1, self.z2, self.h2, self.delta = arrays
        self.flat = self.batch.flatten(0, 1)  # (M * B, C)
        inputs = weights.w1.shape[1]
        self.x = self.batch[:, :, :inputs]  # (M, B, I)
        self.target = self.batch[:, :, inputs].unsqueeze(1)  # (M, 1, B)
        self.b3, self.grad_b3 = weights.b3[:, :, :1], grads.b3[:, :, :1]  # (M, 1, 1)
        transposed = (t.transpose(1, 2) for t in (weights.w2, self.x, self.h1, self.h2, self.out))
        self.w2_t, self.x_t, self.h1_t, self.h2_t, self.out_t = transposed

    @classmethod
    def zeros(cls, weights: Parameters, rows: int) -> Stack:
        """Buffers for a step of `weights` over `rows` rows a batch."""
        models, inputs, hidden = weights.w1.shape
        shapes = [(rows, padded(inputs + 1)), (1, rows), *[(rows, hidden)] * 5]
        return cls(weights, weights.zeros_like(), [weights.w1.new_zeros(models, *shape) for shape in shapes])

    def first(self, models: int) -> Stack:
        """The same buffers, seen by the first `models` models only."""
        return Stack(
            Parameters(*self.weights.tensors(0, models)),
            Parameters(*self.grads.tensors(0, models)),
            [t[:models] for t in self.arrays],
        )

    def forward(self, dropped: Tensor | None, scale: float) -> None:
        """`batch` -> `out`. dropped: uint8 (2, M, B, H), 1 for a unit that is out; scale: 1 / (1 - dropout)."""
        w, beta = self.weights, 0.0
        if dropped is not None:
            beta = DROPPED
            self.z1.copy_(dropped[0])
            self.z2.copy_(dropped[1])
        self.z1.baddbmm_(self.x, w.w1, beta=beta)  # (M, B, H)
        gelu(self.z1, out=self.h1)
        self.z2.baddbmm_(self.h1, w.w2, beta=beta, alpha=scale).add_(w.b2)  # (M, B, H)
        gelu(self.z2, out=self.h2)
        torch.baddbmm(self.b3, w.w3, self.h2_t, alpha=scale, out=self.out)  # (M, 1, B)

    def backward(self, weight: Tensor, scale: float) -> None:
        """`out` and the batch's targets -> `grads`, of the loss sum(weight / 2 * (out - target)^2) over a model's rows.

        weight: (M, 1, B); 2 / B everywhere for a full batch's mean squared error. Uses up out and z2.
        """
        w, g = self.weights, self.grads
        self.out.sub_(self.target).mul_(weight)  # (M, 1, B)
        torch.sum(self.out, 2, keepdim=True, out=self.grad_b3)
        self.out.mul_(scale)
        torch.bmm(self.out, self.h2, out=g.w3)  # (M, 1, H)
        torch.mul(self.out_t, w.w3, out=self.delta)  # (M, B, H)
        gelu_backward(self.delta, self.z2, grad_input=self.delta)
        torch.sum(self.delta, 1, keepdim=True, out=g.b2)
        g.w2.baddbmm_(self.h1_t, self.delta, beta=0, alpha=scale)  # (M, H, H)
        self.z2.baddbmm_(self.delta, self.w2_t, beta=0, alpha=scale)  # (M, B, H)
        gelu_backward(self.z2, self.z1, grad_input=self.delta)
        torch.bmm(self.x_t, self.delta, out=g.w1)  # (M, I, H)


def predict(weights: Weights, x: Float32) -> Float32:
    """Scores of one model without dropout. x: float32 (n, D), standardised; the result: float32 (n,)."""
    w1, b1, w2, b2, w3, b3 = (torch.tensor(getattr(weights, f.name)) for f in fields(weights))  # aligned copies
    hidden = torch.nn.functional.gelu(torch.addmm(b1, torch.tensor(x), w1))
    hidden = torch.nn.functional.gelu(torch.addmm(b2, hidden, w2))
    scores: Float32 = torch.addmm(b3, hidden, w3)[:, 0].numpy()
    return scores
