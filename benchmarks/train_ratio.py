"""How much cheaper the stack trains than torch.nn models one after another. Prints both sides and the ratio.

    python benchmarks/train_ratio.py                 about two minutes on two cores
    python benchmarks/train_ratio.py --epochs 200 --reference-epochs 200    both sides in full, more than an hour

The reference is what one writes first: a torch.nn.Sequential, a shuffling DataLoader, torch.optim.Adam, one thread, one
(seed, fold) model after another. Its cost is the same in every step, so a slice of its steps is measured (a third of it
before, a third between and a third after the stack's runs) and multiplied; the output says so. CPU seconds count:
a busy machine stretches wall time, not these. "Two cores" is the CPU time of the busier of two workers.
"""

from __future__ import annotations

import argparse
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fr_ensemble.arrays import TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import trainer
from torch.utils.data import DataLoader, TensorDataset

TARGETS = {1: 25.0, 2: 45.0}


def make_corpus(rows: int, sources: int, slots: int) -> TrainingData:
    """Random rows with a target that can be learnt; sources of equal size."""
    rng = np.random.default_rng(0)
    source = np.arange(rows) * sources // rows
    features = rng.normal(0.8, 0.1, (rows, 6))
    target = 60.0 + 100.0 * np.tanh((features - 0.8) @ [0.5, 0.3, 0.2, 0.3, 0.4, -0.2]) + rng.normal(size=rows)
    return TrainingData(features, rng.integers(0, 5, rows), slots, np.empty((rows, 0)), target, source, sources)


class Reference:
    """One model after another, a DataLoader each; `run` takes the next steps and returns their CPU and wall seconds."""

    def __init__(self, data: TrainingData, recipe: Recipe) -> None:
        self.batches = self.train(data, recipe)

    def train(self, data: TrainingData, recipe: Recipe) -> Any:
        """Yields after each step."""
        for fold in range(data.n_sources):
            for seed in recipe.seeds:
                torch.manual_seed(seed)
                rows = data.source != fold
                numeric = (data.numeric - data.numeric[rows].mean(0)) / data.numeric[rows].std(0)
                x = np.hstack([numeric, np.eye(data.n_slots)[data.codec]])[rows]
                y = ((data.target - data.target[rows].mean()) / data.target[rows].std())[rows]
                tensors = [torch.tensor(a, dtype=torch.float32) for a in (x, y[:, None])]
                loader = DataLoader(TensorDataset(*tensors), batch_size=recipe.batch_size, shuffle=True)
                hidden, nn = recipe.hidden, torch.nn
                first, second = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, hidden)
                act = [nn.GELU(), nn.Dropout(recipe.dropout)]
                model = nn.Sequential(first, *act, second, *act, nn.Linear(hidden, 1))
                optimizer = torch.optim.Adam(
                    model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
                )
                loss_of = nn.MSELoss()
                for _ in range(recipe.epochs):
                    model.train()
                    for batch, target in loader:
                        optimizer.zero_grad()
                        loss_of(model(batch), target).backward()
                        optimizer.step()
                        yield

    def run(self, steps: int) -> tuple[float, float]:
        """(CPU seconds, wall seconds) of the next steps."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(steps):
            next(self.batches)
        return time.process_time() - cpu, time.perf_counter() - wall


def run_stack(data: TrainingData, recipe: Recipe, jobs: int) -> tuple[float, float, float]:
    """(CPU seconds, CPU seconds of the busiest worker, wall seconds) of a whole training run."""
    busy: dict[str, float] = {}
    run_block: Callable[..., Any] = trainer.run_block

    def timed(*arguments: Any) -> Any:
        begin = time.thread_time()
        result = run_block(*arguments)
        name = threading.current_thread().name
        busy[name] = busy.get(name, 0.0) + time.thread_time() - begin
        return result

    trainer.run_block = timed  # type: ignore[assignment]  # measured from outside, not in the trainer
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train(data, recipe, jobs=jobs)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    trainer.run_block = run_block
    alone = cpu - sum(busy.values())  # what comes before and after the blocks, on one core
    return cpu, alone + max(busy.values()), wall


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--slots", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of the stack")
    parser.add_argument("--reference-steps", type=int, default=9000, help="steps of the reference that are measured")
    options = parser.parse_args()
    data = make_corpus(options.rows, options.sources, options.slots)
    recipe = Recipe(seeds=tuple(range(options.seeds)), epochs=options.epochs)
    torch.set_num_threads(1)
    per_fold = [int(np.count_nonzero(data.source != fold)) for fold in range(data.n_sources)]
    steps = sum(-(-n // recipe.batch_size) for n in [*per_fold, len(data.target)]) * len(recipe.seeds) * recipe.epochs
    third = min(options.reference_steps, steps) // 3
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}, {platform.machine()}"
    )
    print(
        f"{options.rows} rows, {options.sources} sources, {len(recipe.seeds)} seeds, {recipe.epochs} epochs: "
        f"{(options.sources + 1) * len(recipe.seeds)} models, {steps} model-steps of {recipe.batch_size} rows"
    )
    reference = Reference(data, recipe)
    reference.run(min(200, third))  # warm up
    slices = [reference.run(third)]
    stacks = {}
    for jobs in TARGETS:
        stacks[jobs] = run_stack(data, recipe, jobs)
        slices.append(reference.run(third))
    measured = 3 * third
    cpu, wall = (sum(s[i] for s in slices) * steps / measured for i in (0, 1))
    how = f"extrapolated from {measured} steps" if measured < steps else "measured in full"
    each = ", ".join(f"{s[0] / third * 1e6:.0f}" for s in slices)
    print(f"torch.nn, one core: {cpu:9.1f} CPU s {wall:9.1f} wall s  ({how}; {each} CPU us a step)")
    for jobs, (total, busiest, elapsed) in stacks.items():
        print(
            f"stack, {jobs} worker(s): {total:7.1f} CPU s {elapsed:9.1f} wall s  "
            f"({total / steps * 1e6:.1f} CPU us a model-step; busiest worker {busiest:.1f} CPU s)"
        )
        print(
            f"  ratio {cpu / busiest:.1f}x in CPU time, {wall / elapsed:.1f}x in wall time; target {TARGETS[jobs]:.0f}x"
        )


if __name__ == "__main__":
    main()
