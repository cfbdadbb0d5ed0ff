"""test_trainers.py: the compiled trainer, the reference trainer and one torch.nn model after another: one result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled trainer needs the extra `train`")
torch = pytest.importorskip("torch", reason="the reference trainer needs the extra `torch`")

# ruff: noqa: E402 (what follows imports torch)
from corpora import digest, make_corpus
from fr_ensemble.arrays import TrainedModels, TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import initial_weights
from fr_ensemble.training.table import ModelKey, Role
from fr_ensemble.training.trainer import train

pytestmark = pytest.mark.slow

PLCC_TOLERANCE, RMSE_TOLERANCE = 1e-6, 1e-4  # float32 rounding, grown over 200 epochs of another order of sums
RECIPES = {
    "adam": Recipe(seeds=(0, 7), epochs=200, hidden=32, batch_size=32),
    "adamw": Recipe(seeds=(3, 4), epochs=40, hidden=20, batch_size=16, decoupled_weight_decay=True, weight_decay=0.02),
    "noise": Recipe(seeds=(3, 4), epochs=40, hidden=16, batch_size=13, input_noise=0.05, dropout=0.3),
    "one row a step": Recipe(seeds=(0, 1), epochs=3, hidden=70, batch_size=1),
    "one step an epoch": Recipe(seeds=(0, 1), epochs=30, hidden=5, batch_size=200, dropout=0.0, learning_rate=0.01),
    "raw conditions": Recipe(seeds=(3, 4), epochs=40, hidden=20, batch_size=16, member_conditions="raw"),
    "encoder dropout": Recipe(seeds=(3, 4), epochs=40, hidden=16, batch_size=20, encoder_dropout=0.25),
    "early stopping": Recipe(
        seeds=(0, 1), epochs=60, hidden=16, batch_size=8, learning_rate=0.02, early_stopping=3, dropout=0.0
    ),
}
MADE = make_corpus([40, 33, 1, 25], conditioning=1)
DATA = replace(MADE, conditioning=MADE.conditioning / 40)  # from 0 to 1, as members may take it raw


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch's own threads, which collapse on a loaded machine, out of the slow side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Lanes:
    """A model's stream as eight of numpy's generators; see draws.py."""

    def __init__(self, key: ModelKey, role: Role) -> None:
        seeds = np.random.SeedSequence(key.seed, spawn_key=(key.fold, role)).generate_state(24, np.uint64)
        self.lanes = []
        for seed in seeds.reshape(8, 3):
            generator = np.random.SFC64()
            generator.state = generator.state | {"state": {"state": np.array([*seed, 1], np.uint64)}}
            generator.random_raw(12)
            self.lanes.append(generator)

    def words(self, n: int) -> np.ndarray:
        rows = -(-n // 8)
        return np.stack([lane.random_raw(rows) for lane in self.lanes], axis=1).reshape(-1)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Fisher & Yates with Lemire's bounded numbers, from blocks of 1,024 halves."""
        rows, halves = rows.copy(), iter(())
        for i in range(len(rows) - 1, 0, -1):
            while True:
                half = next(halves, None)
                if half is None:
                    halves = iter(self.words(512).view(np.uint32).tolist())
                    half = next(halves)
                if half * (i + 1) % 2**32 >= 2**32 % (i + 1):
                    break
            j = half * (i + 1) >> 32
            rows[i], rows[j] = rows[j], rows[i]
        return rows


def train_one(data: TrainingData, recipe: Recipe, key: ModelKey) -> np.ndarray:
    """One model by torch.nn, torch.optim and autograd, fed the same streams; scores of the held-out rows."""
    special = pytest.importorskip("scipy.special")
    chosen = data.source != key.fold
    mean, std = data.numeric[chosen].mean(0), data.numeric[chosen].std(0)
    if recipe.raw_conditions:
        mean[data.features.shape[1] :], std[data.features.shape[1] :] = 0.0, 1.0
    y_mean, y_std = data.target[chosen].mean(), data.target[chosen].std()
    z, f = (data.numeric - mean) / std, data.features.shape[1]
    x = torch.tensor(np.hstack([z[:, :f], np.eye(data.n_slots)[data.codec], z[:, f:]]), dtype=torch.float32)
    y = torch.tensor((data.target - y_mean) / y_std, dtype=torch.float32)
    start = initial_weights(key.generator(Role.INIT), x.shape[1], recipe.hidden)
    layers = [torch.nn.Linear(*getattr(start, f"w{i}").shape) for i in (1, 2, 3)]
    with torch.no_grad():
        for i, layer in enumerate(layers, 1):
            layer.weight.copy_(torch.from_numpy(getattr(start, f"w{i}").T))
            layer.bias.copy_(torch.from_numpy(getattr(start, f"b{i}")))
    kind = torch.optim.AdamW if recipe.decoupled_weight_decay else torch.optim.Adam
    optimizer = kind(
        [p for layer in layers for p in layer.parameters()], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    orders, masks, noises = (Lanes(key, role) for role in (Role.ORDER, Role.DROPOUT, Role.NOISE))
    encoders, slots = Lanes(key, Role.ENCODER), slice(f, f + data.n_slots)
    rows, batch = np.flatnonzero(chosen), recipe.batch_size
    shape = (2, -(-batch // 4) * 4, -(-recipe.hidden // 16) * 16)
    numeric = [*range(f), *range(f + data.n_slots, x.shape[1])]
    threshold = round(recipe.dropout * 2**16)
    for _ in range(recipe.epochs):
        order = orders.order(rows)
        for first in range(0, len(order), batch):
            index = order[first : first + batch]
            a = x[index]
            halves = encoders.words(-(-batch // 32) * 8).view(np.uint16)[: len(index)]
            a[halves < round(recipe.encoder_dropout * 2**16), slots] = torch.eye(data.n_slots)[-1]
            if recipe.input_noise:
                uniform = ((masks_of := noises.words(batch * len(numeric))) >> np.uint64(12)) + 0.5
                noise = special.ndtri(uniform[: batch * len(numeric)] * 2.0**-52).reshape(batch, -1)[: len(index)]
                a[:, numeric] += torch.tensor(noise, dtype=torch.float32) * recipe.input_noise
                assert len(masks_of) >= batch * len(numeric)
            alive = np.ones(shape, bool)
            if threshold:
                alive = masks.words(alive.size // 4).view(np.uint16).reshape(shape) >= threshold
            for layer, living in zip(layers[:2], torch.from_numpy(alive), strict=False):
                a = torch.nn.functional.gelu(layer(a)) * living[: len(index), : recipe.hidden]
                a = a / (1.0 - threshold / 2**16)
            loss = torch.nn.functional.mse_loss(layers[2](a)[:, 0], y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        a = x[torch.from_numpy(~chosen)]
        if recipe.encoder_dropout:
            absent = np.isin(data.codec[~chosen], data.codec[chosen], invert=True)
            a[absent, slots] = torch.eye(data.n_slots)[-1]
        for layer in layers[:2]:
            a = torch.nn.functional.gelu(layer(a))
        scores: np.ndarray = layers[2](a)[:, 0].double().numpy() * y_std + y_mean
        return scores


def compare(mine: np.ndarray, theirs: np.ndarray, truth: np.ndarray) -> None:
    """The same figures of one fold."""
    rmse = [np.sqrt(np.mean((p - truth) ** 2)) for p in (mine, theirs)]
    assert rmse[0] == pytest.approx(rmse[1], abs=RMSE_TOLERANCE * max(1.0, truth.std() / 10))
    if len(truth) > 2:
        plcc = [np.corrcoef(p, truth)[0, 1] for p in (mine, theirs)]
        assert plcc[0] == pytest.approx(plcc[1], abs=PLCC_TOLERANCE)


def compiled(name: str) -> TrainedModels:
    return train(DATA, RECIPES[name], Execution(jobs=1))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if not recipe.early_stopping])
def test_compiled_trains_the_models_of_torch_nn(name: str) -> None:
    """Given the same streams, one torch.nn model after another ends with the same PLCC and RMSE in every fold."""
    recipe, trained = RECIPES[name], compiled(name)
    for i, seed in enumerate(recipe.seeds[:1]):
        for fold in range(DATA.n_sources):
            held = DATA.source == fold
            compare(trained.oof[i, held], train_one(DATA, recipe, ModelKey(fold, seed)), DATA.target[held])


@pytest.mark.parametrize("name", RECIPES)
def test_the_reference_trains_the_same_models(name: str) -> None:
    """Every option of a recipe: each fold's figures, and the final members' weights."""
    mine, theirs = compiled(name), train(DATA, RECIPES[name], Execution(trainer="reference"))
    for one, other in zip(mine.oof, theirs.oof, strict=True):
        for fold in range(DATA.n_sources):
            held = DATA.source == fold
            compare(one[held], other[held], DATA.target[held])
    for one, other in zip(mine.members, theirs.members, strict=True):
        assert np.abs(one.w2 - other.w2).max() < 1e-3
    assert np.array_equal(mine.scaler.mean, theirs.scaler.mean)


def test_every_option_changes_the_result() -> None:
    """No option of a recipe is read and then forgotten."""
    base = Recipe(seeds=(0, 1), epochs=3, hidden=16, batch_size=8)
    changes = [
        {"epochs": 4},
        {"batch_size": 9},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.1},
        {"dropout": 0.2},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"input_noise": 0.1},
        {"hidden": 17},
        {"early_stopping": 1},
        {"member_conditions": "raw"},
        {"encoder_dropout": 0.1},
    ]
    assert (
        len({digest(train(DATA, replace(base, **change), Execution(jobs=1))) for change in [{}, *changes]})
        == len(changes) + 1
    )
