"""model.py: one model in flat arrays, from its first weights to its last: the loop around the kernel. No workers.

`train_model(table, recipe, key)` is all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Protocol

import numpy as np

from fr_ensemble.arrays import Float32, Float64, Int32, Int64, UInt64, Weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.training import draws, kernel
from fr_ensemble.training.compiling import aligned, forget, is_compiled
from fr_ensemble.training.table import ModelKey, Role, TrainingTable
from fr_ensemble.training.tile import TILE_COLUMNS, TILE_ROWS
from registry_tool.errors import InputError

STEPS_A_CALL = 4096  # of the kernel, some 60 ms: between two calls a model hears of an interrupt and may be saved
DRAWN_ROLES = (Role.ORDER, Role.DROPOUT, Role.NOISE)
DRAWN_WITH_ENCODERS = (*DRAWN_ROLES, Role.ENCODER)  # with encoder dropout


class Result(NamedTuple):
    """A trained model in target units, and its scores, float32 (rows,), of the rows that it held out, ascending.

    A final member, which holds none out, has the scores of all rows.
    """

    key: ModelKey
    weights: Weights
    scores: Float32


class Keeper(Protocol):
    """Where a model's state is kept between two runs; see checkpoints.py."""

    @property
    def seconds(self) -> float: ...

    def save(self, model: ModelState) -> None: ...

    def load(self, model: ModelState) -> None: ...


@dataclass(frozen=True, slots=True)
class NetworkLayout:
    """Where a model's weights are in one flat array: w1 with b1 below it (K, H), w2 (H, H), b2 (H), w3 (H), b3.

    D inputs; K and H are padded to what the tile takes. All that is padding is zero and stays zero.
    """

    inputs: int  # D
    hidden: int

    @property
    def k(self) -> int:
        return -(-(self.inputs + 1) // TILE_ROWS) * TILE_ROWS

    @property
    def h(self) -> int:
        return -(-self.hidden // TILE_COLUMNS) * TILE_COLUMNS

    @property
    def size(self) -> int:
        return self.k * self.h + self.h * self.h + 3 * self.h  # b3 has a row of its own, which keeps the end aligned

    def views(self, flat: Float32) -> Weights:
        """The parts that are not padding, as views: writing to them writes to `flat`."""
        h, d, n = self.h, self.inputs, self.hidden
        first, second, rest = np.split(flat, [self.k * h, self.k * h + h * h])
        w1, w2, (b2, w3, b3) = first.reshape(self.k, h), second.reshape(h, h), rest.reshape(3, h)
        return Weights(w1[:d, :n], w1[d, :n], w2[:n, :n], b2[:n], w3[:n, None], b3[:1])

    def pack(self, weights: Weights) -> Float32:
        flat = aligned(self.size)
        for target, source in zip(_arrays(self.views(flat)), _arrays(weights), strict=True):
            target[...] = source
        return flat

    def unpack(self, flat: Float32) -> Weights:
        return Weights(*(np.array(part) for part in _arrays(self.views(flat))))


def _arrays(weights: Weights) -> Iterator[Float32]:
    return (getattr(weights, field.name) for field in fields(weights))


@dataclass(slots=True)
class ModelState:
    """A model between two epochs: everything that a checkpoint holds."""

    key: ModelKey
    layout: NetworkLayout
    epoch: int  # epochs done
    p: Float32  # weights
    m: Float32  # Adam's moments
    v: Float32
    powers: Float64  # beta1^t and beta2^t after t steps
    streams: UInt64  # (3, 4 * STREAM_LANES), of DRAWN_ROLES, or (4, ...) of DRAWN_WITH_ENCODERS
    best: Float32  # with early stopping: the weights of the best epoch, its loss and number
    best_loss: float = np.inf
    best_epoch: int = 0

    @classmethod
    def begin(cls, table: TrainingTable, recipe: Recipe, key: ModelKey) -> ModelState:
        """Before the first epoch."""
        layout = NetworkLayout(table.inputs, recipe.hidden)
        p = layout.pack(initial_weights(key.generator(Role.INIT), table.inputs, recipe.hidden))
        roles = DRAWN_WITH_ENCODERS if recipe.encoder_dropout else DRAWN_ROLES
        streams = np.stack([draws.stream(key.entropy(role)).reshape(-1) for role in roles])
        return cls(key, layout, 0, p, aligned(layout.size), aligned(layout.size), np.ones(2), streams, p.copy())

    def is_done(self, recipe: Recipe) -> bool:
        """Whether the last epoch is over, or patience ran out."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= recipe.epochs or 0 < recipe.early_stopping <= waited


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


def drop_threshold(dropout: float) -> int:
    """The dropout rate in units of 1 / RATE_STEPS: a unit is out where 16 random bits are below it."""
    return min(round(dropout * draws.RATE_STEPS), draws.RATE_STEPS - 1)


class Steps:
    """What the kernel needs to go on with one model: the rows, the recipe, and room to work in."""

    def __init__(self, table: TrainingTable, recipe: Recipe, model: ModelState) -> None:
        key, layout = model.key, model.layout
        self.model, self.rows = model, rows_of(table, key)
        self.stops = table.stops(key, recipe.stopping_share)
        self.fitted = table.fitted(key, recipe.stopping_share)
        self.settings = settings_of(recipe, layout)
        n_fitted = int(np.count_nonzero(self.fitted))
        self.work = work_of(self.settings, layout, table.n_numeric, n_fitted)
        self.state = kernel.State(model.p, model.m, model.v, model.powers, model.streams)
        self.epochs_a_call = max(1, STEPS_A_CALL * recipe.batch_size // n_fitted) if not recipe.early_stopping else 1

    def take(self, max_epochs: int) -> None:
        """Train for some epochs."""
        epochs = min(max_epochs, self.epochs_a_call)
        kernel.train_epochs(self.rows, self.fitted, self.settings, self.state, self.work, epochs)
        self.model.epoch += epochs


def rows_of(table: TrainingTable, key: ModelKey) -> kernel.TableRows:
    return kernel.TableRows(table.rows, table.scales[key.fold].columns, table.n_features, table.n_slots)


def settings_of(recipe: Recipe, layout: NetworkLayout) -> kernel.Settings:
    decay, decoupled = (0.0, recipe.weight_decay) if recipe.decoupled_weight_decay else (recipe.weight_decay, 0.0)
    return kernel.Settings(
        batch=recipe.batch_size,
        B=-(-recipe.batch_size // TILE_ROWS) * TILE_ROWS,
        H=layout.h,
        rate=recipe.learning_rate,
        decay=np.float32(decay),
        decoupled=decoupled,
        noise=np.float32(recipe.input_noise),
        drop=np.uint16(drop_threshold(recipe.dropout)),
        hide=np.uint16(drop_threshold(recipe.encoder_dropout)),
    )


def work_of(settings: kernel.Settings, layout: NetworkLayout, n_numeric: int, n_fitted: int) -> kernel.Scratch:
    """Room for a step; what the tile reads begins on a cache line."""
    units, h, jitter = settings.B * layout.h, layout.h, settings.batch * n_numeric
    z, h1, s1, h2, s2 = (aligned(units) for _ in range(5))
    return kernel.Scratch(
        order=np.empty(n_fitted, np.int32),
        g=aligned(layout.size),
        x=aligned(settings.B * layout.k),
        z=z,
        h1=h1,
        s1=s1,
        h2=h2,
        s2=s2,
        w2t=aligned(h * h),
        errors=aligned(settings.B),
        no_bias=aligned(h),
        dropout_words=np.zeros(units // 2, np.uint64),
        jitter=np.zeros(jitter, np.float32),
        jitter_words=np.zeros(-(-jitter // draws.STREAM_LANES) * draws.STREAM_LANES, np.uint64),
        shuffle_words=np.zeros(draws.SHUFFLE_WORDS, np.uint64),
        encoder_words=np.zeros(draws.words_of_halves(settings.batch), np.uint64),
    )


def note_best(table: TrainingTable, model: ModelState, stops: Int32, group: Int64) -> None:
    """After an epoch: keep the weights if the model was never better on its stopping rows.

    The loss is a mean over sources, each weighing alike. group: of each row, its source among those.
    """
    mean, std = table.scales[model.key.fold].columns[:, -1]
    target = (table.rows[stops, table.n_numeric + 1] - mean) / std
    scores = scores_of(table, model.key, model.layout, model.p, stops)
    squares = np.square(scores.astype(np.float64) - target)
    loss = float(group_means(squares, group, int(group.max()) + 1).mean())
    if loss < model.best_loss:
        model.best_loss, model.best_epoch = loss, model.epoch
        model.best[...] = model.p


def scores_of(table: TrainingTable, key: ModelKey, layout: NetworkLayout, p: Float32, chosen: Int32) -> Float32:
    """Scores of rows of the table, float32 (rows,), in the units that the weights p give."""
    out = np.empty(len(chosen), np.float32)
    kernel.scores(rows_of(table, key), chosen, p, layout.h, out)
    return out


def in_target_units(table: TrainingTable, recipe: Recipe, key: ModelKey, standard: Weights) -> Weights:
    """A model that gives a standardised target, as one that gives the target. Raises InputError where it diverged."""
    fit = table.scales[key.fold]
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is seen below
        weights = replace(
            standard,
            w3=(standard.w3 * np.float64(fit.target_std)).astype(np.float32),
            b3=(standard.b3 * np.float64(fit.target_std) + fit.target_mean).astype(np.float32),
        )
    if recipe.encoder_dropout:
        weights = with_unknown_encoders(table, recipe, key, weights)
    if not all(np.isfinite(part).all() for part in _arrays(weights)):
        raise diverged(recipe, key)
    return weights


def with_unknown_encoders(table: TrainingTable, recipe: Recipe, key: ModelKey, weights: Weights) -> Weights:
    """Slots that no row of this model's training had weigh as `unknown`, the last slot, which encoder dropout trained.

    So that every reader of the graph takes an encoder without training rows for an unknown one.
    """
    slot = table.rows[table.fitted(key, recipe.stopping_share), table.n_numeric].astype(np.int64)
    absent = np.bincount(slot, minlength=table.n_slots) == 0
    w1 = weights.w1.copy()
    slots = w1[table.n_features : table.n_features + table.n_slots]  # (V, H), a view
    slots[absent] = slots[-1]
    return replace(weights, w1=w1)


def diverged(recipe: Recipe, key: ModelKey) -> InputError:
    return InputError(
        f"--learning-rate: found {recipe.learning_rate}, with which a model of seed {key.seed} diverged, "
        f"expected a smaller one{', or less --input-noise' if recipe.input_noise else ''}"
    )


def warm_up(table: TrainingTable, recipe: Recipe, key: ModelKey) -> None:
    """Have the kernel compiled, or read from the cache, before workers ask for it. Trains nothing.

    Code that cannot be read, as a full disk may leave it, is compiled again.
    """
    model = ModelState.begin(table, recipe, key)
    steps = Steps(table, recipe, model)
    for again in (False, True):
        try:
            steps.take(0)
            scores_of(table, key, model.layout, model.p, np.empty(0, np.int32))
            return
        except Exception:  # whatever pickle meets in bytes that are none of its own
            if again or not is_compiled():
                raise
            forget()


def train_model(
    table: TrainingTable,
    recipe: Recipe,
    key: ModelKey,
    keeper: Keeper | None = None,
    tick: Callable[[ModelKey, int], None] = lambda key, done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Train one model to its end, from its checkpoint if there is one; None where it was `stopped` before.

    tick(key, epochs done): after each call of the kernel.
    """
    model = ModelState.begin(table, recipe, key)
    if keeper:
        keeper.load(model)
    steps, saved = Steps(table, recipe, model), time.monotonic()
    stops = np.flatnonzero(steps.stops).astype(np.int32)
    group = np.unique(table.source[stops], return_inverse=True)[1]
    while not model.is_done(recipe):
        if stopped():
            return None
        steps.take(recipe.epochs - model.epoch)
        if recipe.early_stopping:
            note_best(table, model, stops, group)
        done = model.is_done(recipe)
        if keeper and (done or time.monotonic() - saved >= keeper.seconds):
            keeper.save(model)
            saved = time.monotonic()
        tick(key, recipe.epochs if done else model.epoch)
    tick(key, recipe.epochs)
    if recipe.early_stopping and not np.isfinite(model.best_loss):
        raise diverged(recipe, key)
    standard = model.layout.unpack(model.best if recipe.early_stopping else model.p)
    weights = in_target_units(table, recipe, key, standard)
    return Result(key, weights, scores_of(table, key, model.layout, model.layout.pack(weights), table.judged(key)))
