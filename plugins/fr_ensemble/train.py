"""train.py: trains every (seed, fold) model and every final member as stacks. Reads no files and judges nothing.

A model's bytes depend on the data, the recipe and its own (seed, fold) alone: not on the other models of its stack,
their order, the stack's size or the number of workers. Each model draws from streams of its own (`stream`), and
network.py keeps the arithmetic of one model apart from its neighbours'.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fr_ensemble.network import DROPPED, MIN_STACK, Parameters, Stack, initial_weights, padded, predict
from fr_ensemble.recipe import Recipe
from fr_ensemble.weights import Float32, Float64, Int64, Scaler, Trained, TrainingData, Weights

STACK = 27  # models in a stack: past this the cost of a model-step no longer falls, and caches overflow
PREDICT_ROWS = 4096  # rows predicted at a time
DRAW_BYTES = 1 << 16  # dropout bits drawn at a time for one model; larger blocks leave the allocator's fast path
DROPPED_BITS = np.array(DROPPED, np.float32).view(np.int32)[()] >> 16  # DROPPED as the bits of a bfloat16
FINAL = 2**32 - 1  # the `fold` of a final member, which holds nothing out
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults


class Role(IntEnum):
    """What a model's random stream is for."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2
    NOISE = 3


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """One model: a seed, and the source held out (FINAL: none)."""

    fold: int
    seed: int


def stream(key: ModelKey, role: Role) -> np.random.Generator:
    """The random stream of one model for one role; no two models and no two roles share one."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key.seed, spawn_key=(key.fold, role))))


@dataclass(frozen=True, slots=True)
class FoldScale:
    """The scaler and the target's mean and standard deviation, from one fold's training rows alone."""

    scaler: Scaler
    target_mean: float
    target_std: float


@dataclass(frozen=True, slots=True)
class Table:
    """The corpus as batches are cut from it, once for all models.

    n rows, D = F + V + K inputs. Columns: F features, V one-hot slots, K conditioning, a constant 1, the target, zeros
    up to C, a multiple of 32. Numeric columns and target are less `center`, their median, so that float32 keeps the
    digits that count in every fold, whatever its mean. Row n is all zeros: it stands for "no row" in a short batch.
    """

    rows: Float32  # (n + 1, C)
    source: Int64  # (n,)
    inputs: int  # D
    numeric: Int64  # (F + K,), where the numeric columns are
    center: Float64  # (F + K + 1,), the target's last
    scales: dict[int, FoldScale]  # by fold, FINAL included

    def training_rows(self, fold: int) -> NDArray[np.int32]:
        """Indices of the rows that a fold trains on, ascending."""
        return np.flatnonzero(self.source != fold).astype(np.int32)

    def affine(self, fold: int) -> tuple[Float32, Float32]:
        """(scale, shift), float32 (C,) each: row * scale + shift is standardised for this fold."""
        fit = self.scales[fold]
        mean = np.append(fit.scaler.mean, fit.target_mean)
        std = np.append(fit.scaler.std, fit.target_std)
        at = np.append(self.numeric, self.inputs + 1)
        scale, shift = np.ones(self.rows.shape[1]), np.zeros(self.rows.shape[1])
        scale[at], shift[at] = 1.0 / std, (self.center - mean) / std
        return scale.astype(np.float32), shift.astype(np.float32)


def fit_scale(values: Float64, chosen: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Mean and standard deviation (ddof 0, 1.0 for a constant column) over the chosen rows; values: float64 (n, N)."""
    mean, std = np.empty(values.shape[1]), np.empty(values.shape[1])
    for column in range(values.shape[1]):  # one column at a time: a corpus is never copied whole
        part = values[chosen, column]
        mean[column] = part.mean()
        std[column] = 1.0 if part.min() == part.max() else part.std()
    return mean, np.where(std > 0.0, std, 1.0)


def prepare(data: TrainingData) -> Table:
    """The table of a corpus and every fold's scale. Raises ValueError for a corpus that cannot be trained on."""
    n, numeric = len(data.target), data.numeric
    held = np.bincount(data.source, minlength=data.n_sources)
    if data.n_sources < 2 or len(held) != data.n_sources or not held.all():
        raise ValueError(f"source: found rows of {np.count_nonzero(held)} sources, expected 2 or more, each with rows")
    if not (np.isfinite(numeric).all() and np.isfinite(data.target).all()):
        raise ValueError("features, conditioning, target: found NaN or infinity, expected finite numbers")
    scales = {}
    for fold in [*range(data.n_sources), FINAL]:
        chosen = data.source != fold
        mean, std = fit_scale(numeric, chosen)
        (target_mean,), (target_std,) = fit_scale(data.target[:, None], chosen)
        scales[fold] = FoldScale(Scaler(mean, std), float(target_mean), float(target_std))
    center = np.append(np.median(numeric, axis=0), np.median(data.target))
    n_features, inputs = data.features.shape[1], numeric.shape[1] + data.n_slots
    where = np.r_[:n_features, n_features + data.n_slots : inputs].astype(np.int64)
    rows = np.zeros((n + 1, padded(inputs + 2)), np.float32)
    rows[:n, where] = numeric - center[:-1]
    rows[np.arange(n), n_features + data.codec] = 1.0
    rows[:n, inputs] = 1.0
    rows[:n, inputs + 1] = data.target - center[-1]
    return Table(rows, data.source, inputs, where, center, scales)


@dataclass(slots=True)
class Block:
    """The state of a stack of models between two epochs: all that a checkpoint has to hold."""

    keys: tuple[ModelKey, ...]  # by number of training rows, the most first
    epoch: int
    weights: Parameters
    moment1: Parameters
    moment2: Parameters
    steps: Tensor  # float32 (M,), Adam's step count
    streams: dict[Role, list[np.random.Generator]]


def start(table: Table, recipe: Recipe, keys: Sequence[ModelKey], device: str) -> Block:
    """A block before its first epoch."""
    weights = Parameters.zeros(len(keys), table.inputs + 1, recipe.hidden, device)
    for j, key in enumerate(keys):
        weights.put(j, initial_weights(stream(key, Role.INIT), table.inputs, recipe.hidden))
    streams = {role: [stream(key, role) for key in keys] for role in (Role.ORDER, Role.DROPOUT, Role.NOISE)}
    steps = torch.zeros(len(keys), device=device)
    return Block(tuple(keys), 0, weights, weights.zeros_like(), weights.zeros_like(), steps, streams)


@dataclass(frozen=True, slots=True)
class Phase:
    """The part of an epoch in which the same models still have batches: the first `models` of the stack."""

    start: int
    stop: int  # steps start..stop - 1
    models: int
    stack: Stack  # views of the live models (at least MIN_STACK: a spare one is computed and not applied)
    adam: tuple[list[Tensor], ...]  # parameters, gradients, both moments, nothing, step counts of the live models


def plan_epoch(block: Block, stack: Stack, steps: NDArray[np.int64]) -> list[Phase]:
    """Cut an epoch where models run out of batches. steps: (M,), batches an epoch, descending."""
    borders = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    groups = list(zip(borders, borders[1:], strict=False))  # models with the same number of steps
    phases, begin = [], 0
    for last in range(len(groups) - 1, -1, -1):
        live = groups[: last + 1]
        end = int(steps[live[-1][0]])
        lists = [
            [t for a, b in live for t in p.tensors(a, b)]
            for p in (block.weights, stack.grads, block.moment1, block.moment2)
        ]
        counts = [block.steps[a] for a, _ in live for _ in range(5)]
        models = live[-1][1]
        phases.append(Phase(begin, end, models, stack.first(max(MIN_STACK, models)), (*lists, [], counts)))
        begin = end
    return phases


def draw_order(table: Table, block: Block, steps: NDArray[np.int64], rows: int) -> NDArray[np.int32]:
    """Every model's rows for one epoch, as a DataLoader(shuffle=True, drop_last=False) would batch them: (T, M, B).

    Places that no row fills (a short last batch, a model without further batches) hold the index of the zero row.
    """
    order = np.full((int(steps[0]), len(block.keys), rows), len(table.source), np.int32)
    for j, key in enumerate(block.keys):
        chosen = table.training_rows(key.fold)
        block.streams[Role.ORDER][j].shuffle(chosen)
        full, rest = divmod(len(chosen), rows)
        order[:full, j] = chosen[: full * rows].reshape(full, rows)
        order[full : full + 1, j, :rest] = chosen[full * rows :]
    return order


def draw_dropout(out: NDArray[np.int16], block: Block, counts: NDArray[np.int64], dropout: float) -> None:
    """Fill out, (steps, 2, M, B, H), with bfloat16 bits: 0 for a living unit, DROPPED for one out.

    A unit is out where 15 random bits are below dropout * 2^15. counts: (M,), the steps that each model really takes.
    """
    _, layers, _, rows, hidden = out.shape
    for j, rng in enumerate(block.streams[Role.DROPOUT]):
        if counts[j] > 0:
            shape = (int(counts[j]), layers, rows, hidden)
            raw: NDArray[np.uint64] = rng.bit_generator.random_raw(int(np.prod(shape)) // 4)
            unsigned = raw.view(np.uint16)
            unsigned >>= 1
            bits = unsigned.view(np.int16)
            bits -= np.int16(drop_threshold(dropout))
            bits >>= 15  # -1 below the threshold, else 0
            bits &= np.int16(DROPPED_BITS)
            out[: counts[j], :, j] = bits.reshape(shape)


def drop_threshold(dropout: float) -> int:
    """The probability in units of 2^-15, the resolution of a mask."""
    return min(round(dropout * 2**15), 2**15 - 1)


def draw_noise(out: Float32, block: Block, counts: NDArray[np.int64], size: float) -> None:
    """Fill out, (steps, M, B, F + K), with Gaussian noise of standard deviation `size`."""
    for j, rng in enumerate(block.streams[Role.NOISE]):
        if counts[j] > 0:
            shape = (int(counts[j]), *out.shape[2:])
            out[: counts[j], j] = rng.standard_normal(shape, np.float32) * np.float32(size)


def row_weights(n_rows: Int64, steps: NDArray[np.int64], rows: int, device: str) -> dict[int, Tensor]:
    """By step, where some model's batch is short: the weight of each row's error, (M, B, 1); elsewhere it is 2 / B."""
    full = np.full((len(steps), rows, 1), 2.0 / rows, np.float32)
    weights: dict[int, Float32] = {}
    for j in np.flatnonzero(n_rows % rows):
        rest = int(n_rows[j] % rows)
        weight = weights.setdefault(int(steps[j]) - 1, full.copy())
        weight[j, :rest], weight[j, rest:] = 2.0 / rest, 0.0
    return {step: torch.from_numpy(w).to(device) for step, w in weights.items()}


def train_block(
    table: Table,
    recipe: Recipe,
    block: Block,
    *,
    device: str = "cpu",
    after_epoch: Callable[[Block], bool] = lambda block: True,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a block's models to the last epoch; False where `after_epoch` or `stopped` ended it before.

    One thread, products over the stack; M models, B rows a batch, C columns of the table, H hidden units.
    """
    models, rows, hidden = len(block.keys), recipe.batch_size, padded(recipe.hidden)
    n_rows = np.array([np.count_nonzero(table.source != key.fold) for key in block.keys])
    steps = -(-n_rows // rows)  # batches an epoch, (M,), descending
    corpus = torch.from_numpy(table.rows).to(device)  # (n + 1, C)
    affine = [np.stack(a)[:, None] for a in zip(*(table.affine(key.fold) for key in block.keys), strict=True)]
    scale, shift = (torch.from_numpy(a).to(device) for a in affine)  # (M, 1, C)
    numeric = torch.from_numpy(table.numeric).to(device)
    short = row_weights(n_rows, steps, rows, device)
    stack = Stack.zeros(block.weights, rows)
    phases = plan_epoch(block, stack, steps)
    keep = 1.0 / (1.0 - drop_threshold(recipe.dropout) / 2**15)
    chunk = max(1, DRAW_BYTES // (4 * rows * hidden))  # steps whose masks are drawn at a time
    masks = np.zeros((chunk, 2, models, rows, hidden), np.int16)
    noise = np.zeros((chunk, models, rows, len(table.numeric)), np.float32)
    dropped_chunk = noise_chunk = None
    adam = torch._fused_adamw_ if recipe.decoupled_weight_decay else torch._fused_adam_
    constants = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    constants |= {"beta1": BETA1, "beta2": BETA2, "eps": EPSILON, "amsgrad": False, "maximize": False}

    while block.epoch < recipe.epochs:
        order = torch.from_numpy(draw_order(table, block, steps, rows)).to(device)  # (T, M, B)
        for phase in phases:
            net, live = phase.stack, len(phase.stack.out)
            for step in range(phase.start, phase.stop):
                if step % chunk == 0:
                    if stopped():
                        return False
                    counts = np.clip(steps - step, 0, chunk)
                    if recipe.dropout > 0.0:
                        draw_dropout(masks, block, counts, recipe.dropout)
                        dropped_chunk = torch.from_numpy(masks).view(torch.bfloat16).to(device)  # (chunk, 2, M, B, H)
                    if recipe.input_noise > 0.0:
                        draw_noise(noise, block, counts, recipe.input_noise)
                        noise_chunk = torch.from_numpy(noise).to(device)  # (chunk, M, B, F + K)
                torch.index_select(corpus, 0, order[step, :live].reshape(-1), out=net.batch.view(live * rows, -1))
                torch.addcmul(shift[:live], net.batch, scale[:live], out=net.batch)  # (live, B, C), standardised
                if noise_chunk is not None:
                    net.batch[:, :, numeric] += noise_chunk[step % chunk, :live]
                net.forward(None if dropped_chunk is None else dropped_chunk[step % chunk, :, :live], keep)
                net.backward(short[step][:live] if step in short else 2.0 / rows, keep)
                block.steps[: phase.models] += 1.0
                adam(*phase.adam, **constants)
        block.epoch += 1
        if not after_epoch(block):
            return False
    return True


def finish(table: Table, recipe: Recipe, block: Block) -> list[tuple[ModelKey, Weights, Float64]]:
    """A trained block's models in target units, each with its predictions for the rows it held out, float64 (rows,).

    Raises ValueError where a model's weights are not finite.
    """
    results = []
    for j, key in enumerate(block.keys):
        fit = table.scales[key.fold]
        standard = block.weights.get(j, recipe.hidden)
        weights = replace(
            standard,
            w3=(standard.w3 * np.float64(fit.target_std)).astype(np.float32),
            b3=(standard.b3 * np.float64(fit.target_std) + fit.target_mean).astype(np.float32),
        )
        if not all(np.isfinite(getattr(weights, f.name)).all() for f in fields(weights)):
            raise ValueError(
                f"learning_rate: with {recipe.learning_rate} the model of seed {key.seed} diverged: choose a smaller one"
            )
        held = np.flatnonzero(table.source == key.fold)
        scale, shift = table.affine(key.fold)
        scores = [np.empty(0)]
        for part in np.split(held, range(PREDICT_ROWS, len(held), PREDICT_ROWS)):
            scores.append(predict(weights, (table.rows[part] * scale + shift)[:, : table.inputs]).astype(np.float64))
        results.append((key, weights, np.concatenate(scores)))
    return results


def train(
    data: TrainingData,
    recipe: Recipe,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    stack: int | None = None,
) -> Trained:
    """Train every seed's final member and its LOSO models.

    jobs: worker threads (default: the cores this process may use). progress(done, total): model-epochs, called in
    the caller's thread. checkpoint: a folder for the state of a long run; with `resume` the run goes on from it, to
    the same bytes. stack: models in a stack (default: what fits memory and keeps all workers busy).
    """
    table = prepare(data)
    jobs = jobs or len(os.sched_getaffinity(0))
    keys = [ModelKey(fold, seed) for fold in [*range(data.n_sources), FINAL] for seed in recipe.seeds]
    blocks = plan_blocks(table, recipe, keys, jobs, stack)
    done = [0] * len(blocks)
    stop = threading.Event()
    threads = torch.get_num_threads()

    def work(number: int) -> list[tuple[ModelKey, Weights, Float64]]:
        def after_epoch(block: Block) -> bool:
            done[number] = block.epoch * len(block.keys)
            return not stop.is_set()

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        with torch.inference_mode():
            block = start(table, recipe, blocks[number], device)
            train_block(table, recipe, block, device=device, after_epoch=after_epoch, stopped=stop.is_set)
            return finish(table, recipe, block)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(work, i) for i in range(len(blocks))]
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, 0.2, FIRST_EXCEPTION)
                for future in finished:
                    future.result()  # raises what the worker raised
                if progress:
                    progress(sum(done), len(keys) * recipe.epochs)
            results = [r for f in futures for r in f.result()]
        finally:
            stop.set()
            torch.set_num_threads(threads)
    members = {key.seed: weights for key, weights, _ in results if key.fold == FINAL}
    oof = np.full((len(recipe.seeds), len(data.target)), np.nan)
    for key, _, scores in results:
        oof[recipe.seeds.index(key.seed), data.source == key.fold] = scores
    return Trained(tuple(members[s] for s in recipe.seeds), table.scales[FINAL].scaler, oof)


def plan_blocks(
    table: Table, recipe: Recipe, keys: Sequence[ModelKey], jobs: int, stack: int | None
) -> list[list[ModelKey]]:
    """Cut the models into blocks of nearly one size, models with the same number of batches together."""
    ranked = sorted(keys, key=lambda k: (-np.count_nonzero(table.source != k.fold), k))
    rounds = -(-len(keys) // (jobs * (stack or STACK)))
    count = max(1, min(rounds * jobs, len(keys) // MIN_STACK))
    borders = [len(keys) * i // count for i in range(count + 1)]
    return [ranked[a:b] for a, b in zip(borders, borders[1:], strict=False)]
