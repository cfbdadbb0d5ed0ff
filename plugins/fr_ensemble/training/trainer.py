"""trainer.py: trains every (seed, fold) model and every final member as stacks. Reads no corpus and judges nothing.

A model's bytes depend on the data, the recipe and its own (seed, fold) alone: not on the other models of its stack,
their order, the stack's size or the number of workers. Each model draws from streams of its own (`ModelKey.stream`),
and network.py keeps the arithmetic of one model apart from its neighbours'.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fr_ensemble.arrays import Float32, Float64, Int64, Trained, TrainingData, Weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence.metrics import group_means
from fr_ensemble.training import engines
from fr_ensemble.training.blocks import Block, Checkpoint, run_digest, start
from fr_ensemble.training.engines import Result
from fr_ensemble.training.folds import FINAL, ModelKey, Role, Table, padded, prepare
from fr_ensemble.training.network import MIN_STACK, Stack, predict
from registry_tool.errors import InputError

STACK = 64  # the most models in a stack: longer operations keep threads apart, and past this nothing is gained
LEAST = 12  # the fewest: below this a step costs what Python and torch's dispatch cost, however many cores there are
PREDICT_ROWS = 4096  # rows predicted at a time
DRAW_BYTES = 1 << 16  # dropout bits drawn at a time for one model; larger blocks leave the allocator's fast path
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults


@dataclass(frozen=True, slots=True)
class Phase:
    """The part of an epoch in which the same models still have batches: the first ones of the stack."""

    start: int
    stop: int  # steps start..stop - 1
    live: int  # models that are computed: those that have batches, but at least MIN_STACK
    stack: Stack
    adam: tuple[list[Tensor], ...]  # parameters, gradients, both moments, nothing, step counts: of those with batches
    steps: Tensor  # their step counts


def plan_epoch(block: Block, stack: Stack, steps: Int64) -> list[Phase]:
    """Cut an epoch where models run out of batches. steps: (M,), batches an epoch, descending."""
    groups = list(pairwise([0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]))  # equal in steps
    everything = (block.weights, stack.grads, block.moment1, block.moment2)
    phases: list[Phase] = []
    for last in range(len(groups) - 1, -1, -1):
        begin = phases[-1].stop if phases else 0
        models = groups[last][1]
        lists = [[t for a, b in groups[: last + 1] for t in p.tensors(a, b)] for p in everything]
        counts = [block.steps[a] for a, _ in groups[: last + 1] for _ in range(5)]
        live = max(MIN_STACK, models)
        adam = (*lists, [], counts)
        phases.append(Phase(begin, int(steps[models - 1]), live, stack.first(live), adam, block.steps[:models]))
    return phases


def draw_order(out: NDArray[np.int32], rows: Sequence[NDArray[np.int32]], none: int, block: Block) -> None:
    """Fill out, (T, M, B), with each model's rows for an epoch, as a shuffling DataLoader without drop_last would.

    rows: of each model, ascending. Places that no row fills (a short last batch, a model without further batches) hold
    the index of the zero row, `none`.
    """
    out.fill(none)
    for j, mine in enumerate(rows):
        chosen = mine.copy()
        block.streams[Role.ORDER][j].shuffle(chosen)
        full, rest = divmod(len(chosen), out.shape[2])
        out[:full, j] = chosen[: len(chosen) - rest].reshape(full, out.shape[2])
        out[full : full + 1, j, :rest] = chosen[len(chosen) - rest :]


def drop_threshold(dropout: float) -> int:
    """The probability in units of 2^-16, the resolution of a mask."""
    return min(round(dropout * 2**16), 2**16 - 1)


def draw_dropout(out: NDArray[np.uint8], block: Block, counts: Int64, dropout: float) -> None:
    """Fill out, (steps, 2, M, B, H), with 1 for a unit that is out: where 16 random bits are below dropout * 2^16.

    counts: (M,), the steps that each model really takes.
    """
    for j, rng in enumerate(block.streams[Role.DROPOUT]):
        part = out[: counts[j], :, j]
        raw: NDArray[np.uint64] = rng.bit_generator.random_raw(part.size // 4)
        bits = raw.view(np.uint16).reshape(part.shape)
        np.less(bits, np.uint16(drop_threshold(dropout)), out=part.view(np.bool_))


def draw_noise(out: Float32, block: Block, counts: Int64, size: float) -> None:
    """Fill out, (steps, M, B, F + K), with Gaussian noise of standard deviation `size`; counts as in draw_dropout."""
    for j, rng in enumerate(block.streams[Role.NOISE]):
        part = out[: counts[j], j]
        part[...] = rng.standard_normal(part.shape, np.float32) * np.float32(size)


def row_weights(n_rows: Int64, steps: Int64, rows: int) -> dict[int, Tensor]:
    """By step: the weight of each row's error, (M, 1, B), where some model's batch is short; -1: where none is."""
    full = np.full((len(steps), 1, rows), 2.0 / rows, np.float32)
    weights = {-1: full}
    for j in np.flatnonzero(n_rows % rows):
        rest = int(n_rows[j] % rows)
        weight = weights.setdefault(int(steps[j]) - 1, full.copy())
        weight[j, 0, :rest], weight[j, 0, rest:] = 2.0 / rest, 0.0
    return {step: torch.from_numpy(w) for step, w in weights.items()}


def note_best(table: Table, recipe: Recipe, block: Block, stops: Sequence[NDArray[np.int32]]) -> None:
    """After an epoch: keep the weights of every model that was never better on its own stopping rows, (rows,) each.

    The loss is a mean over sources, each weighing alike. A model without gain for `early_stopping` epochs is out: what
    it does on in the stack is not looked at.
    """
    assert block.stopping is not None
    best = block.stopping
    for j, (key, rows) in enumerate(zip(block.keys, stops, strict=True)):
        if block.epoch - 1 - best.epoch[j] >= recipe.early_stopping:
            continue
        weights, (mean, std) = block.weights.get(j, recipe.hidden), table.scale(key.fold)
        target = (table.rows[rows, table.inputs + 1] - mean[table.inputs + 1]) / std[table.inputs + 1]
        _, source = np.unique(table.source[rows], return_inverse=True)
        squares = np.square(scores_of(table, key, weights, rows) - target)
        loss = float(group_means(squares, source, int(source.max()) + 1).mean())
        if loss < best.loss[j]:
            best.loss[j], best.epoch[j] = loss, block.epoch
            best.best.put(j, weights)


def scores_of(table: Table, key: ModelKey, weights: Weights, rows: NDArray[np.int32] | Int64) -> Float64:
    """Scores of a model for rows of the table, float64 (rows,), in the units that its weights give."""
    mean, std = table.scale(key.fold)
    scores = [np.empty(0)]
    for part in np.split(rows, range(PREDICT_ROWS, len(rows), PREDICT_ROWS)):
        x = ((table.rows[part] - mean) / std)[:, : table.inputs]
        scores.append(predict(weights, x).astype(np.float64))
    return np.concatenate(scores)


def train_block(
    table: Table,
    recipe: Recipe,
    block: Block,
    *,
    device: str = "cpu",
    after_epoch: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train a block's models to the last epoch, or until `stopped`.

    M models, B rows a batch, C columns of the table, H hidden units (padded), T the largest number of batches an epoch.
    """
    models, rows, hidden = len(block.keys), recipe.batch_size, padded(recipe.hidden)
    fits, stops = zip(*(table.split(key, recipe.stopping_share) for key in block.keys), strict=True)
    n_rows = np.array([len(mine) for mine in fits])
    steps = -(-n_rows // rows)  # batches an epoch, (M,), descending
    corpus = torch.from_numpy(table.rows).to(device)  # (n + 1, C)
    scales = zip(*(table.scale(key.fold) for key in block.keys), strict=True)
    mean, std = (torch.from_numpy(np.stack(s)[:, None]).to(device) for s in scales)  # (M, 1, C)
    weights = {step: w.to(device) for step, w in row_weights(n_rows, steps, rows).items()}
    phases = plan_epoch(block, Stack.zeros(block.weights, rows), steps)
    keep = 1.0 / (1.0 - drop_threshold(recipe.dropout) / 2**16)
    adam = torch._fused_adamw_ if recipe.decoupled_weight_decay else torch._fused_adam_
    chunk = max(1, DRAW_BYTES // (4 * rows * hidden))  # steps whose masks are drawn at a time
    masks = np.zeros((chunk, 2, models, rows, hidden), np.uint8)
    noise = np.zeros((chunk, models, rows, len(table.numeric)), np.float32)
    order = np.zeros((int(steps[0]), models, rows), np.int32)
    one = torch.ones((), device=device)

    while not block.is_done(recipe):
        draw_order(order, fits, len(table.source), block)
        batches = torch.from_numpy(order).to(device).flatten(1)  # (T, M * B)
        for phase in phases:
            net, live = phase.stack, phase.live
            for step in range(phase.start, phase.stop):
                if step % chunk == 0 or step == phase.start:
                    if stopped():
                        return
                    if step % chunk == 0 and recipe.dropout > 0.0:
                        draw_dropout(masks, block, np.clip(steps - step, 0, chunk), recipe.dropout)
                    if step % chunk == 0 and recipe.input_noise > 0.0:
                        draw_noise(noise, block, np.clip(steps - step, 0, chunk), recipe.input_noise)
                    dropped = torch.from_numpy(masks[:, :, :live]).to(device).unbind()
                    jitter = torch.from_numpy(noise[:, :live]).to(device).unbind()
                torch.index_select(corpus, 0, batches[step, : live * rows], out=net.flat)  # (M * B, C)
                net.batch.sub_(mean[:live]).div_(std[:live])  # (M, B, C), standardised
                if recipe.input_noise > 0.0:
                    net.batch[:, :, table.numeric] += jitter[step % chunk]
                net.forward(dropped[step % chunk] if recipe.dropout > 0.0 else None, keep)
                net.backward(weights.get(step, weights[-1])[:live], keep)
                phase.steps.add_(one)
                adam(
                    *phase.adam,
                    lr=recipe.learning_rate,
                    beta1=BETA1,
                    beta2=BETA2,
                    weight_decay=recipe.weight_decay,
                    eps=EPSILON,
                    amsgrad=False,
                    maximize=False,
                )
        block.epoch += 1
        if block.stopping is not None:
            note_best(table, recipe, block, stops)
        after_epoch()


def finish(table: Table, recipe: Recipe, block: Block) -> list[Result]:
    """A trained block's models in target units, each with its scores of the rows it held out, float64 (rows,).

    Raises InputError where a model's weights are not finite.
    """
    results = []
    for j, key in enumerate(block.keys):
        kept = block.weights if block.stopping is None else block.stopping.best
        fit, standard = table.scales[key.fold], kept.get(j, recipe.hidden)
        weights = replace(
            standard,
            w3=(standard.w3 * np.float64(fit.target_std)).astype(np.float32),
            b3=(standard.b3 * np.float64(fit.target_std) + fit.target_mean).astype(np.float32),
        )
        never = block.stopping is not None and not torch.isfinite(block.stopping.loss[j])
        if never or not all(np.isfinite(getattr(weights, f.name)).all() for f in fields(weights)):
            raise InputError(
                f"learning_rate: found {recipe.learning_rate}, with which a model of seed {key.seed} diverged, "
                "expected a smaller one"
            )
        held = np.flatnonzero(table.source == key.fold)
        results.append((key, weights, scores_of(table, key, weights, held)))
    return results


def run_block(
    table: Table,
    recipe: Recipe,
    keys: Sequence[ModelKey],
    number: int = 0,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    tick: Callable[[int, int], None] = lambda number, done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Train block `number` in this thread, from its checkpoint if there is one; tick(number, model-epochs done)."""
    torch.set_num_threads(1)  # models are spread over workers; a product split over threads is slower
    torch.set_flush_denormal(True)  # weights of unused slots decay into denormals, which cost half the time
    with torch.inference_mode():
        block = start(table, recipe, keys, device)
        if checkpoint:
            checkpoint.load(number, block)
        saved = time.monotonic()

        def after_epoch() -> None:
            nonlocal saved
            done = block.is_done(recipe)
            tick(number, (recipe.epochs if done else block.epoch) * len(keys))
            if checkpoint and (done or time.monotonic() - saved >= checkpoint.seconds):
                checkpoint.save(number, block)
                saved = time.monotonic()

        tick(number, (recipe.epochs if block.is_done(recipe) else block.epoch) * len(keys))
        train_block(table, recipe, block, device=device, after_epoch=after_epoch, stopped=stopped)
        return finish(table, recipe, block) if block.is_done(recipe) else []


def plan_blocks(
    table: Table, recipe: Recipe, keys: Sequence[ModelKey], workers: int, stack: int, memory: int
) -> list[list[ModelKey]]:
    """Cut the models into blocks of nearly one size, models with the same number of batches together.

    At most `stack` models a block, and fewer where `workers` blocks would not fit `memory` (bytes); LEAST or more,
    where those two allow it, even if a worker then has nothing to do.
    """
    rows, hidden, width = recipe.batch_size, padded(recipe.hidden), table.rows.shape[1]
    order = 4 * (len(table.source) + rows)
    buffers = 4 * rows * (5 * hidden + width) + max(DRAW_BYTES, 4 * rows * hidden) * 2
    weights = 4 * 4 * hidden * (hidden + table.inputs + 4)
    here = min(workers, os.cpu_count() or 1)  # the others are on other machines
    stack = max(MIN_STACK, min(stack, memory // (here * (order + buffers + weights))))
    ranked = sorted(keys, key=lambda k: (-len(table.split(k, recipe.stopping_share)[0]), k))
    count = max(1, min(-(-len(keys) // (workers * stack)) * workers, len(keys) // min(stack, LEAST)))
    return [ranked[a:b] for a, b in pairwise(len(keys) * i // count for i in range(count + 1))]


def train(
    data: TrainingData,
    recipe: Recipe,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    device: str = "cpu",
    engine: str = "local",
    stack: int = STACK,
) -> Trained:
    """Train every seed's final member and its LOSO models.

    jobs: workers (default: the cores this process, or the Ray cluster, has). progress(done, total): model-epochs,
    called in the caller's thread. checkpoint: a folder for the state of a long run, saved every `checkpoint_seconds`;
    with `resume` the run goes on from there, to the same bytes. engine: "local" (threads) or "ray". stack: the most
    models in a stack. Nothing of this changes the result on one kind of machine.

    Raises InputError for data or a checkpoint that cannot be used and an engine or device that is not there.
    """
    table = prepare(data)
    check_device(device)
    keys = [ModelKey(fold, seed) for fold in [*range(data.n_sources), FINAL] for seed in recipe.seeds]
    total = len(keys) * recipe.epochs
    with engines.open_engine(engine, jobs if device == "cpu" else 1) as (run, workers):
        most = stack if device == "cpu" else len(keys)
        blocks = plan_blocks(table, recipe, keys, workers, most, available_memory() // 2)
        saved = Checkpoint(checkpoint.absolute(), checkpoint_seconds) if checkpoint else None
        if saved:
            blocks = saved.begin(run_digest(table, recipe, device), blocks, resume)
        work = (table, recipe, blocks, device, saved)
        results = run(run_block, work, lambda done: progress(done, total) if progress else None)
    members = {key.seed: weights for key, weights, _ in results if key.fold == FINAL}
    oof = np.full((len(recipe.seeds), len(data.target)), np.nan)
    for key, _, scores in results:
        oof[recipe.seeds.index(key.seed), data.source == key.fold] = scores
    return Trained(tuple(members[s] for s in recipe.seeds), table.scales[FINAL].scaler, oof)


def check_device(device: str) -> None:
    """Raises InputError where torch cannot compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: found {device!r}, which this torch cannot use ({error}): use cpu") from error


def available_memory() -> int:
    """Bytes that this machine can still give, or its control group where that leaves less, as Linux counts them."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, KeyError):
        used, most, stat = ((group / f"memory.{name}").read_text("ascii") for name in ("current", "max", "stat"))
        cached = dict(line.split() for line in stat.splitlines())["inactive_file"]  # given back on demand
        free = min(free, int(most) - int(used) + int(cached))
    return max(free, 0)
