"""reference.py: training in plain torch: what the compiled trainer must agree with. Any device.

`torch.func` stacks FRRegressor over the models, which then take each step together. The random numbers are those of the
compiled trainer, so that both train the same models, to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fr_ensemble.arrays import Float32, Int32, Int64, Weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.training import batches
from fr_ensemble.training.model import ModelState, Result, diverged, in_target_units
from fr_ensemble.training.network import FRRegressor, Stacked, parameters, predict, weights_of
from fr_ensemble.training.table import ModelKey, TrainingTable

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults


def train_models(
    table: TrainingTable, recipe: Recipe, keys: Sequence[ModelKey], device: str, progress: Callable[[int], None]
) -> list[Result]:
    """Train all models in one loop. M models, B rows a batch, D inputs, H hidden units."""
    network = FRRegressor(table.inputs, recipe.hidden).to(device)
    models = [ModelState.begin(table, recipe, key) for key in keys]  # their weights, streams and best epochs
    starts = [parameters(model.layout.unpack(model.p)) for model in models]
    p = {name: torch.stack([start[name] for start in starts]).to(device) for name in starts[0]}
    adam = Adam(recipe, p)
    stops = [table.stops(key, recipe.stopping_share) for key in keys]
    fits = [np.flatnonzero(table.fitted(key, recipe.stopping_share)).astype(np.int32) for key in keys]
    raw = torch.from_numpy(batches.raw_rows(table)).to(device)  # (n, D + 1)
    mean, std = (torch.from_numpy(scale).to(device) for scale in batches.scales(table, keys))  # (M, 1, D + 1) each
    place, end = torch.arange(table.inputs + 1, device=device), table.n_features + table.n_slots
    is_slot, as_unknown = (place >= table.n_features) & (place < end), (place == end - 1).float()  # (D + 1,) each

    def loss(p: Stacked, x: Tensor, y: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
        return (weight * torch.square(functional_call(network, p, (x, keep)) - y)).sum()

    gradient = vmap(grad(loss))
    for epoch in range(1, recipe.epochs + 1):
        orders = [batches.shuffled(rows, model) for rows, model in zip(fits, models, strict=True)]
        for first in range(0, max(map(len, orders)), recipe.batch_size):
            batch = batches.draw(table, recipe, models, orders, first)
            parts = (batch.index, batch.weight, batch.keep, batch.noise, batch.unknown)
            index, weight, keep, noise, unknown = (torch.from_numpy(array).to(device) for array in parts)
            rows = torch.where(unknown[:, :, None] & is_slot, as_unknown, (raw[index] - mean) / std)  # (M, B, D + 1)
            g = gradient(p, rows[:, :, :-1] + noise, rows[:, :, -1], weight, keep)
            adam.step(p, g, weight.any(dim=1))
        for j, model in enumerate(models):
            model.epoch = epoch if not model.is_done(recipe) else model.epoch
            if recipe.early_stopping and model.epoch == epoch:
                note_best(table, model, weights_of(p, j), np.flatnonzero(stops[j]))
        progress(epoch * len(keys))
        if all(model.is_done(recipe) for model in models):
            break
    progress(recipe.epochs * len(keys))
    return [finish(table, recipe, model, weights_of(p, j)) for j, model in enumerate(models)]


class Adam:
    """torch.optim.Adam, or AdamW, of M models, each with its own number of steps."""

    def __init__(self, recipe: Recipe, p: Stacked) -> None:
        self.rate, self.decay = recipe.learning_rate, recipe.weight_decay
        self.decoupled = recipe.weight_decay if recipe.decoupled_weight_decay else 0.0
        self.m, self.v = ({name: torch.zeros_like(t) for name, t in p.items()} for _ in range(2))
        first = next(iter(p.values()))
        self.taken = torch.zeros(len(first), dtype=torch.float64, device=first.device)  # steps

    def step(self, p: Stacked, g: Stacked, live: Tensor) -> None:
        """One step of the models that are live, (M,)."""
        self.taken += live
        size = (self.rate / (1.0 - BETA1**self.taken)).float()
        root = (1.0 / torch.sqrt(1.0 - BETA2**self.taken)).float()
        for name, old in p.items():
            mask, rate, scale = (t.view(-1, *[1] * (old.dim() - 1)) for t in (live, size, root))
            gradient = g[name] + (self.decay - self.decoupled) * old
            m = self.m[name] + (1.0 - BETA1) * (gradient - self.m[name])
            v = BETA2 * self.v[name] + (1.0 - BETA2) * torch.square(gradient)
            new = old * (1.0 - self.rate * self.decoupled) - rate * m / (torch.sqrt(v) * scale + EPSILON)
            for values, moved in ((self.m, m), (self.v, v), (p, new)):
                values[name] = torch.where(mask, moved, values[name])


def scores_of(table: TrainingTable, key: ModelKey, weights: Weights, chosen: Int32 | Int64) -> tuple[Float32, Float32]:
    """Scores of rows of the table in the units of the weights, and their standardised targets, float32 (rows,)."""
    mean, std = batches.scales(table, [key])
    rows = (batches.raw_rows(table)[chosen] - mean[0]) / std[0]
    return predict(weights, rows[:, :-1]), rows[:, -1]


def note_best(table: TrainingTable, model: ModelState, weights: Weights, stops: Int64) -> None:
    """Keep the weights where the model was never better on its stopping rows, a mean over sources."""
    scores, target = scores_of(table, model.key, weights, stops)
    _, group = np.unique(table.source[stops], return_inverse=True)
    loss = float(group_means(np.square(scores.astype(np.float64) - target), group, int(group.max()) + 1).mean())
    if loss < model.best_loss:
        model.best_loss, model.best_epoch, model.best = loss, model.epoch, model.layout.pack(weights)


def finish(table: TrainingTable, recipe: Recipe, model: ModelState, last: Weights) -> Result:
    """A trained model in target units, with its scores of the rows that it held out."""
    if recipe.early_stopping and not np.isfinite(model.best_loss):
        raise diverged(recipe, model.key)
    standard = model.layout.unpack(model.best) if recipe.early_stopping else last
    weights = in_target_units(table, recipe, model.key, standard)
    return Result(model.key, weights, scores_of(table, model.key, weights, table.judged(model.key))[0])
