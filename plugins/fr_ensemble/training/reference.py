"""reference.py: the network and its training in plain torch: what the compiled trainer must agree with. Any device.

FRRegressor is an ordinary module; `torch.func` stacks it over the models, which then take each step together. The
random numbers are those of the compiled trainer, so that both train the same models, to float32 rounding.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import gelu

from fr_ensemble.arrays import Float32, Weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.training import draws
from fr_ensemble.training.model import Model, Result, diverged, drop_threshold, in_target_units
from fr_ensemble.training.table import ModelKey, Table
from fr_ensemble.training.tile import ROWS
from registry_tool.errors import InputError

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults
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


def train_models(
    table: Table, recipe: Recipe, keys: Sequence[ModelKey], device: str, progress: Callable[[int], None]
) -> list[Result]:
    """Train all models in one loop. M models, B rows a batch, D inputs, H hidden units."""
    check_device(device)
    network = FRRegressor(table.inputs, recipe.hidden).to(device)
    models = [Model.begin(table, recipe, key) for key in keys]  # their weights, streams and best epochs
    starts = [parameters(model.layout.unpack(model.p)) for model in models]
    p = {name: torch.stack([start[name] for start in starts]).to(device) for name in starts[0]}
    m, v = ({name: torch.zeros_like(t) for name, t in p.items()} for _ in range(2))
    taken = torch.zeros(len(keys), dtype=torch.float64, device=device)  # steps, by which Adam corrects its moments
    stops = [table.stops(key, recipe.stopping_share) for key in keys]
    fits = [np.flatnonzero((table.source != k.fold) & ~s).astype(np.int32) for k, s in zip(keys, stops, strict=True)]
    raw, mean, std = (torch.from_numpy(a).to(device) for a in inputs_of(table, keys))  # (n, D + 1), (M, 1, D + 1) twice

    def loss(p: Stacked, x: Tensor, y: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
        return (weight * torch.square(functional_call(network, p, (x, keep)) - y)).sum()

    gradient = vmap(grad(loss))
    for epoch in range(1, recipe.epochs + 1):
        orders = [shuffled(rows, model) for rows, model in zip(fits, models, strict=True)]
        for first in range(0, max(map(len, orders)), recipe.batch_size):
            index, weight, keep, noise = batch(table, recipe, models, orders, first)
            rows = (raw[torch.from_numpy(index).to(device)] - mean) / std  # (M, B, D + 1)
            x, y = rows[:, :, :-1] + torch.from_numpy(noise).to(device), rows[:, :, -1]
            g = gradient(p, x, y, torch.from_numpy(weight).to(device), torch.from_numpy(keep).to(device))
            live = torch.from_numpy(weight.any(axis=1)).to(device)  # (M,), the models that still have batches
            taken += live
            adam(recipe, p, g, m, v, taken, live)
        for j, model in enumerate(models):
            model.epoch = epoch if not model.is_done(recipe) else model.epoch
            if recipe.early_stopping and model.epoch == epoch:
                note_best(table, model, weights_of(p, j), np.flatnonzero(stops[j]))
        progress(epoch * len(keys))
        if all(model.is_done(recipe) for model in models):
            break
    progress(recipe.epochs * len(keys))
    return [finish(table, recipe, model, weights_of(p, j)) for j, model in enumerate(models)]


def adam(recipe: Recipe, p: Stacked, g: Stacked, m: Stacked, v: Stacked, taken: Tensor, live: Tensor) -> None:
    """torch.optim.Adam, or AdamW, of the models that are live; taken: their steps, this one included."""
    decoupled = recipe.weight_decay if recipe.decoupled_weight_decay else 0.0
    size = (recipe.learning_rate / (1.0 - BETA1**taken)).float()
    root = (1.0 / torch.sqrt(1.0 - BETA2**taken)).float()
    for name, old in p.items():
        now, rate, scale = (t.view(-1, *[1] * (old.dim() - 1)) for t in (live, size, root))
        gradient = g[name] + (recipe.weight_decay - decoupled) * old
        m[name] = torch.where(now, m[name] + (1.0 - BETA1) * (gradient - m[name]), m[name])
        v[name] = torch.where(now, BETA2 * v[name] + (1.0 - BETA2) * torch.square(gradient), v[name])
        step = rate * m[name] / (torch.sqrt(v[name]) * scale + EPSILON)
        p[name] = torch.where(now, old * (1.0 - recipe.learning_rate * decoupled) - step, old)


def shuffled(rows: NDArray[np.int32], model: Model) -> NDArray[np.int32]:
    """A model's rows in the order of its next epoch."""
    order = rows.copy()
    draws.shuffle(model.streams[0], order, np.empty(draws.BLOCK, np.uint64))
    return order


def batch(
    table: Table, recipe: Recipe, models: Sequence[Model], orders: Sequence[NDArray[np.int32]], first: int
) -> tuple[NDArray[np.int64], Float32, Float32, Float32]:
    """Rows (M, B), their weights in the loss (M, B), dropout (M, 2, B, H), noise (M, B, D).

    Places that no row fills, in a short last batch and of a model without further ones, have weight 0.
    """
    n, size, hidden = len(models), recipe.batch_size, recipe.hidden
    index, weight = np.zeros((n, size), np.int64), np.zeros((n, size), np.float32)
    keep, noise = np.ones((n, 2, size, hidden), np.float32), np.zeros((n, size, table.inputs), np.float32)
    padded, h, numeric = -(-size // ROWS) * ROWS, models[0].layout.h, numeric_columns(table)
    threshold = drop_threshold(recipe.dropout)
    for j, (model, order) in enumerate(zip(models, orders, strict=True)):
        rows = order[first : first + size]
        if not len(rows):
            continue
        index[j, : len(rows)], weight[j, : len(rows)] = rows, 1.0 / len(rows)
        if recipe.input_noise > 0.0:
            jitter = np.empty(size * len(numeric), np.float32)
            draws.gaussians(model.streams[2], jitter, np.empty(-(-jitter.size // 8) * 8, np.uint64))
            noise[j][:, numeric] = jitter.reshape(size, -1) * np.float32(recipe.input_noise)
        if threshold:
            bits = np.empty(padded * h // 2, np.uint64)
            draws.words(model.streams[1], bits)
            alive = bits.view(np.uint16).reshape(2, padded, h)[:, :size, :hidden] >= threshold
            keep[j] = alive / np.float32(1.0 - threshold / draws.RESOLUTION)
    return index, weight, keep, noise


def numeric_columns(table: Table) -> NDArray[np.int64]:
    """Where the numeric columns are among the inputs: features, then slots, then conditioning."""
    place = np.arange(table.n_numeric)
    return place + table.n_slots * (place >= table.n_features)


def inputs_of(table: Table, keys: Sequence[ModelKey]) -> tuple[Float32, Float32, Float32]:
    """Raw inputs and target of all rows, (n, D + 1), and each model's means and deviations of them, (M, 1, D + 1)."""
    at = np.append(numeric_columns(table), table.inputs)
    raw = np.zeros((len(table.rows), table.inputs + 1), np.float32)
    raw[:, at[:-1]], raw[:, -1] = table.rows[:, : table.n_numeric], table.rows[:, table.n_numeric + 1]
    raw[np.arange(len(raw)), table.n_features + table.rows[:, table.n_numeric].astype(np.int64)] = 1.0
    mean, std = np.zeros((len(keys), 1, raw.shape[1]), np.float32), np.ones((len(keys), 1, raw.shape[1]), np.float32)
    for j, key in enumerate(keys):
        mean[j, 0, at], std[j, 0, at] = table.scales[key.fold].columns
    return raw, mean, std


def scores_of(table: Table, key: ModelKey, weights: Weights, chosen: NDArray[Any]) -> tuple[Float32, Float32]:
    """Scores of rows of the table in the units of the weights, and their standardised targets, float32 (rows,)."""
    raw, mean, std = inputs_of(table, [key])
    rows = (raw[chosen] - mean[0]) / std[0]
    return predict(weights, rows[:, :-1]), rows[:, -1]


def note_best(table: Table, model: Model, weights: Weights, stops: NDArray[np.int64]) -> None:
    """Keep the weights where the model was never better on its stopping rows, a mean over sources."""
    scores, target = scores_of(table, model.key, weights, stops)
    _, group = np.unique(table.source[stops], return_inverse=True)
    loss = float(group_means(np.square(scores.astype(np.float64) - target), group, int(group.max()) + 1).mean())
    if loss < model.best_loss:
        model.best_loss, model.best_epoch, model.best = loss, model.epoch, model.layout.pack(weights)


def finish(table: Table, recipe: Recipe, model: Model, last: Weights) -> Result:
    """A trained model in target units, with its scores of the rows that it held out."""
    if recipe.early_stopping and not np.isfinite(model.best_loss):
        raise diverged(recipe, model.key)
    standard = model.layout.unpack(model.best) if recipe.early_stopping else last
    weights = in_target_units(table, recipe, model.key, standard)
    return Result(model.key, weights, scores_of(table, model.key, weights, table.judged(model.key))[0])


def check_device(device: str) -> None:
    """Raises InputError where torch cannot compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: found {device!r}, which this torch cannot use ({error}): use cpu") from error


def arithmetic(device: str) -> dict[str, str]:
    """What decides in which order torch adds here: the processor, the kernels that it takes for it, the device."""
    cpu = platform.processor() or "unknown"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu": cpu, "cpu_capability": capability, "device": name}
