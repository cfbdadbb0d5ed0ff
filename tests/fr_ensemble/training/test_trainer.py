"""The trainer: the same models as torch.nn one after another, and bytes that depend on nothing but the model's key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

# ruff: noqa: E402 (what follows imports torch)
from fr_ensemble.arrays import TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.blocks import start
from fr_ensemble.training.folds import FINAL, ModelKey, Role, prepare
from fr_ensemble.training.network import DROPPED, Parameters, Stack, initial_weights, predict
from fr_ensemble.training.trainer import available_memory, draw_dropout, drop_threshold, plan_blocks, train
from torch import Tensor
from training_corpus import digest, make_corpus

from registry_tool.errors import InputError

SMALL = Recipe(seeds=(0, 1), epochs=4, hidden=16, batch_size=8)
PLCC_TOLERANCE, RMSE_TOLERANCE = 1e-6, 1e-4  # float32 rounding, grown over 200 epochs of another order of sums


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch.nn's own threads, which collapse on a loaded machine, and slow denormals out of the reference."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def masks(rng: np.random.Generator, steps: int, rows: int, hidden: int, dropout: float) -> np.ndarray:
    """Who lives, as train.py defines it: 16 bits a unit, not below the threshold; bool (steps, 2, rows, hidden)."""
    raw = rng.bit_generator.random_raw(steps * 2 * rows * hidden // 4).view(np.uint16)
    alive: np.ndarray = raw >= round(dropout * 2**16)
    return alive.reshape(steps, 2, rows, hidden)


def train_one(data: TrainingData, recipe: Recipe, key: ModelKey) -> np.ndarray:
    """One model by torch.nn, torch.optim.Adam and autograd, fed the trainer's streams; scores of the held-out rows."""
    chosen = data.source != key.fold
    mean, std = data.numeric[chosen].mean(0), data.numeric[chosen].std(0)
    y_mean, y_std = data.target[chosen].mean(), data.target[chosen].std()
    z, f = (data.numeric - mean) / std, data.features.shape[1]
    x = torch.tensor(np.hstack([z[:, :f], np.eye(data.n_slots)[data.codec], z[:, f:]]), dtype=torch.float32)
    y = torch.tensor((data.target - y_mean) / y_std, dtype=torch.float32)
    first = initial_weights(key.stream(Role.INIT), x.shape[1], recipe.hidden)
    layers = [torch.nn.Linear(x.shape[1], recipe.hidden), torch.nn.Linear(recipe.hidden, recipe.hidden)]
    layers.append(torch.nn.Linear(recipe.hidden, 1))
    with torch.no_grad():
        for i, layer in enumerate(layers, 1):
            layer.weight.copy_(torch.from_numpy(getattr(first, f"w{i}").T))
            layer.bias.copy_(torch.from_numpy(getattr(first, f"b{i}")))
    parameters = [p for layer in layers for p in layer.parameters()]
    kind = torch.optim.AdamW if recipe.decoupled_weight_decay else torch.optim.Adam
    optimizer = kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    order_rng, mask_rng, noise_rng = (key.stream(r) for r in (Role.ORDER, Role.DROPOUT, Role.NOISE))
    rows = np.flatnonzero(chosen).astype(np.int32)
    steps, padded = -(-len(rows) // recipe.batch_size), -(-recipe.hidden // 32) * 32
    keep = 1.0 - round(recipe.dropout * 2**16) / 2**16
    numeric = [*range(f), *range(f + data.n_slots, x.shape[1])]
    for _ in range(recipe.epochs):
        order = rows.copy()
        order_rng.shuffle(order)
        alive = torch.from_numpy(masks(mask_rng, steps, recipe.batch_size, padded, recipe.dropout))
        for step in range(steps):
            index = torch.from_numpy(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
            a = x[index]
            if recipe.input_noise:
                noise = noise_rng.standard_normal((recipe.batch_size, len(numeric)), np.float32)
                a[:, numeric] += torch.from_numpy(noise[: len(index)]) * recipe.input_noise
            for layer, living in zip(layers[:2], alive[step], strict=True):
                a = torch.nn.functional.gelu(layer(a)) * living[: len(index), : recipe.hidden] / keep
            loss = torch.nn.functional.mse_loss(layers[2](a)[:, 0], y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        a = x[torch.from_numpy(~chosen)]
        for layer in layers[:2]:
            a = torch.nn.functional.gelu(layer(a))
        scores: np.ndarray = layers[2](a)[:, 0].double().numpy() * y_std + y_mean
        return scores


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(seeds=(0, 7), epochs=200, hidden=32, batch_size=16),
        Recipe(seeds=(3, 4), epochs=40, hidden=20, batch_size=16, decoupled_weight_decay=True, weight_decay=0.02),
        Recipe(seeds=(3, 4), epochs=40, hidden=16, batch_size=16, input_noise=0.05, dropout=0.3),
    ],
    ids=["adam", "adamw", "noise"],
)
def test_stack_trains_the_models_of_torch_nn(recipe: Recipe) -> None:
    """Given the same streams, one torch.nn model after another ends with the same PLCC and RMSE in every fold."""
    data = make_corpus([40, 33, 25], conditioning=1)
    trained = train(data, recipe, jobs=1)
    for i, seed in enumerate(recipe.seeds):
        for fold in range(data.n_sources):
            held = data.source == fold
            mine, theirs, truth = trained.oof[i, held], train_one(data, recipe, ModelKey(fold, seed)), data.target[held]
            plcc = [np.corrcoef(p, truth)[0, 1] for p in (mine, theirs)]
            rmse = [np.sqrt(np.mean((p - truth) ** 2)) for p in (mine, theirs)]
            assert plcc[0] == pytest.approx(plcc[1], abs=PLCC_TOLERANCE)
            assert rmse[0] == pytest.approx(rmse[1], abs=RMSE_TOLERANCE)
            assert rmse[0] < truth.std()


def random_stack(models: int, rows: int, inputs: int, hidden: int) -> tuple[Stack, Tensor]:
    """A stack in float64 with random weights and a random batch, and dropout masks for it."""
    generator = torch.Generator().manual_seed(1)
    weights = Parameters.zeros(models, inputs, hidden, dtype=torch.float64)
    for tensor in weights.tensors():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.3)
    stack = Stack.zeros(weights, rows)
    stack.batch.copy_(torch.randn(stack.batch.shape, generator=generator, dtype=torch.float64))
    return stack, (torch.rand(2, *stack.z1.shape, generator=generator) < 0.2).to(torch.uint8)


def test_backward_is_the_gradient() -> None:
    """The backward pass by hand is what autograd finds for the same loss in float64, short batches included."""
    stack, dropped = random_stack(models=3, rows=5, inputs=4, hidden=7)
    weight = torch.rand(3, 1, 5, dtype=torch.float64)
    weight[1, 0, 3:] = 0.0
    leaves = [t.clone().requires_grad_() for t in stack.weights.tensors()]
    w1, w2, b2, w3, b3 = leaves
    a = torch.nn.functional.gelu(stack.x @ w1) * (dropped[0] == 0) * 1.25
    a = torch.nn.functional.gelu(a @ w2 + b2) * (dropped[1] == 0) * 1.25
    out = (a * w3).sum(2)[:, None] + b3[:, :, :1]
    (weight / 2 * (out - stack.target) ** 2).sum().backward()
    stack.forward(dropped, 1.25)
    torch.testing.assert_close(stack.out, out.detach(), rtol=1e-12, atol=1e-12)
    stack.backward(weight, 1.25)
    for leaf, mine in zip(leaves, stack.grads.tensors(), strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(mine, leaf.grad, rtol=1e-11, atol=1e-12)


def test_a_dropped_unit_is_exactly_silent() -> None:
    """A dropped unit has value 0 and slope 0 in float32, in torch's kernels as they are here."""
    z = torch.full((2, 32, 64), DROPPED) + torch.randn(2, 32, 64)
    assert not torch.nn.functional.gelu(z).any()
    assert not torch.ops.aten.gelu_backward(torch.ones_like(z), z).any()


def test_dropout_rate() -> None:
    """Units drop out at the recipe's rate, to within five standard deviations, and never without dropout."""
    table = prepare(make_corpus([9, 8]))
    block = start(table, replace(SMALL, hidden=64), [ModelKey(0, 0), ModelKey(1, 0)])
    out = np.zeros((16, 2, 2, 32, 64), np.uint8)
    draw_dropout(out, block, np.array([16, 8]), 0.1)
    first, second = out[:, :, 0], out[:8, :, 1]
    for part in (first, second):
        assert abs(np.mean(part != 0) - 0.1) < 5 * np.sqrt(0.09 / part.size)
    assert not out[8:, :, 1].any()
    assert not np.array_equal(first[:8], second)
    assert [drop_threshold(p) for p in (0.0, 0.5, 1 - 1e-9)] == [0, 2**15, 2**16 - 1]


UNEVEN = [1, 40, 17, 8, 23]  # a source of one row, folds with other numbers of batches, last batches of one row


RECIPES = {
    "small": SMALL,
    "default": Recipe(seeds=(0, 1), epochs=2, input_noise=0.1),
    "rows": replace(SMALL, batch_size=1, epochs=1),
    "all at once": replace(SMALL, batch_size=200, hidden=100),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_bytes_depend_on_the_key_alone(recipe: Recipe) -> None:
    """A seed's bytes do not change with other seeds, their order, the workers, the stack's size or another run."""
    data = make_corpus(UNEVEN, conditioning=1)
    base = train(data, recipe, jobs=1)
    assert digest(base) == digest(train(data, recipe, jobs=1))
    for jobs, stack in ((2, 32), (3, 3), (1, 2), (1, 5)):
        assert digest(train(data, recipe, jobs=jobs, stack=stack)) == digest(base)
    others = train(data, replace(recipe, seeds=(9, 1, 5, 0)), jobs=1)
    assert [digest(others, 3), digest(others, 1)] == [digest(base, 0), digest(base, 1)]
    assert digest(others, 0) not in {digest(base, 0), digest(base, 1)}


def test_last_batches_of_one_row() -> None:
    """Folds of different sizes, some ending in a batch of one row, train as torch.nn trains them one by one."""
    recipe = replace(SMALL, epochs=10)
    data = make_corpus(UNEVEN)
    n_rows = len(data.target) - np.array(UNEVEN)
    assert {1} < set((n_rows % recipe.batch_size).tolist())
    assert len(set((-(-n_rows // recipe.batch_size)).tolist())) > 2
    trained = train(data, recipe, jobs=1)
    for fold in range(data.n_sources):
        expected = train_one(data, recipe, ModelKey(fold, 1))
        assert trained.oof[1, data.source == fold] == pytest.approx(expected, abs=RMSE_TOLERANCE)


def test_scaler_sees_the_training_rows_alone() -> None:
    """A fold's scaler and target scale come from its training rows; the final members' from all rows."""
    data = make_corpus([30, 20, 25], conditioning=2)
    table = prepare(data)
    for fold in (0, 1, 2, FINAL):
        rows = data.source != fold
        fit = table.scales[fold]
        np.testing.assert_allclose(fit.scaler.mean, data.numeric[rows].mean(0), rtol=1e-14)
        np.testing.assert_allclose(fit.scaler.std, data.numeric[rows].std(0), rtol=1e-14)
        assert (fit.target_mean, fit.target_std) == (data.target[rows].mean(), data.target[rows].std())
    assert train(data, SMALL, jobs=1).scaler is not None
    constant = prepare(replace(data, conditioning=np.full((75, 1), 0.1)))
    assert constant.scales[1].scaler.std[-1] == 1.0


def test_a_fold_never_sees_what_it_holds_out() -> None:
    """Other targets in a source change every model but those that held it out."""
    data = make_corpus([12, 20, 15])
    base = train(data, SMALL, jobs=1)
    other = train(replace(data, target=data.target + 5.0 * (data.source == 0)), SMALL, jobs=1)
    held = data.source == 0
    assert np.array_equal(base.oof[:, held], other.oof[:, held])
    assert not np.any(base.oof[:, ~held] == other.oof[:, ~held])
    assert not np.array_equal(base.members[0].w2, other.members[0].w2)


def test_members_answer_in_target_units() -> None:
    """A member's weights alone give scores in the target's units, close to the truth it was trained on."""
    data = make_corpus([60, 60, 60])
    recipe = replace(SMALL, epochs=60, dropout=0.0)
    trained = train(data, recipe, jobs=1)
    z = (data.numeric - trained.scaler.mean) / trained.scaler.std
    scores = predict(trained.members[0], np.hstack([z, np.eye(5)[data.codec]]).astype(np.float32))
    assert np.corrcoef(scores, data.target)[0, 1] > 0.95
    assert abs(scores.mean() - data.target.mean()) < 1.0
    assert np.isfinite(trained.oof).all()


def test_no_denormals(tmp_path: Path) -> None:
    """Weights of slots that no row uses, and their moments, end in zero, not in denormal numbers, which cost time."""
    torch.set_flush_denormal(False)  # a new thread inherits it
    recipe = replace(SMALL, epochs=1000, weight_decay=0.1, learning_rate=5e-3)
    train(make_corpus([20, 20]), recipe, jobs=1, checkpoint=tmp_path)
    with np.load(tmp_path / "block-0.npz") as state:
        tensors = [state[name] for name in state.files if name.startswith("tensor")]
    assert all(np.all((t == 0) | (np.abs(t) >= np.finfo(np.float32).tiny)) for t in tensors)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"features": np.full((20, 6), np.nan)}, "NaN"),
        ({"source": np.zeros(20, np.int64)}, "source"),
        ({"target": np.full(20, np.inf)}, "infinity"),
    ],
)
def test_unusable_corpus(change: dict[str, Any], word: str) -> None:
    """A corpus that cannot be trained on is refused before any work, saying what was found."""
    with pytest.raises(InputError, match=word):
        train(replace(make_corpus([10, 10]), **change), SMALL)


def test_divergence_is_named() -> None:
    """Weights that are not finite are an error that names the learning rate, never a result."""
    with pytest.raises(InputError, match="learning_rate: found 1e"):
        train(make_corpus([10, 10]), replace(SMALL, learning_rate=1e30), jobs=1)


def test_unknown_engine_and_device() -> None:
    """An engine or a device that is not there is refused, naming what there is."""
    with pytest.raises(InputError, match="engine: found 'dask', expected one of local, ray"):
        train(make_corpus([10, 10]), SMALL, engine="dask")
    with pytest.raises(InputError, match="device: found 'tpu'"):
        train(make_corpus([10, 10]), SMALL, device="tpu")


def test_progress_counts_model_epochs() -> None:
    """Progress ends at models times epochs, never goes back, and is reported in the caller's thread."""
    calls: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        threads.add(threading.current_thread())

    before = torch.get_num_threads()
    train(make_corpus([10, 10]), SMALL, progress=progress)
    assert calls[-1] == (24, 24)  # 2 seeds x (2 folds + 1 final) x 4 epochs
    assert calls == sorted(calls)
    assert threads == {threading.current_thread()}
    assert torch.get_num_threads() == before


def test_blocks_fit_memory() -> None:
    """Blocks hold every model once, at least two each, no more than asked for, and fewer where memory is short."""
    table = prepare(make_corpus([10, 10, 10]))
    keys = [ModelKey(fold, seed) for fold in (0, 1, 2, FINAL) for seed in range(5)]
    for workers, stack, memory, largest in ((1, 64, 2**33, 20), (2, 10, 2**33, 10), (2, 3, 2**33, 4), (1, 64, 1, 2)):
        blocks = plan_blocks(table, SMALL, keys, workers, stack, memory)
        assert sorted(k for b in blocks for k in b) == sorted(keys)
        assert min(map(len, blocks)) >= 2
        assert max(map(len, blocks)) <= largest
    assert (
        len(plan_blocks(table, SMALL, keys, 16, 64, 2**33)) == 1
    )  # sixteen workers for one model each would be slower
    assert available_memory() > 2**20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_trains_the_same_models() -> None:
    """On a GPU the same code trains the same models, to float32 rounding, and twice to the same bytes."""
    data = make_corpus(UNEVEN, conditioning=1)
    recipe = replace(SMALL, epochs=10, input_noise=0.05)
    here, there = train(data, recipe, jobs=1), train(data, recipe, device="cuda")
    assert there.oof == pytest.approx(here.oof, abs=1e-2)
    assert digest(there) == digest(train(data, recipe, device="cuda"))
