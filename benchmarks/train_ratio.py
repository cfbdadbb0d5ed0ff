"""How much cheaper the compiled trainer is than torch.nn models one after another. Prints both sides and the ratios.

    python benchmarks/train_ratio.py                 some two minutes on two cores
    python benchmarks/train_ratio.py --rounds 9 --epochs 10
    python benchmarks/train_ratio.py --recipe public  the recipe of both sides; this one is the default

The other side is what one writes first: a torch.nn.Sequential, a shuffling DataLoader, torch.optim.Adam, one thread,
one (seed, fold) model after another. Its cost is the same in every step, so slices of its steps are measured. Rounds
interleave both sides: a slice, one worker, two slices, two workers, a slice; each ratio is of neighbours in time, and
the median is over rounds. CPU seconds count: a busy machine stretches wall time, not these. "Two workers" is the CPU
time of the busier one. All threads are pinned. The load of the machine is printed; ratios of a busy one scatter more.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import threading
import time
from dataclasses import replace
from itertools import cycle
from typing import Any

import numba
import numpy as np
import torch
from fr_ensemble.arrays import TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import engines, trainer
from fr_ensemble.training.execution import Execution
from torch.utils.data import DataLoader, TensorDataset

AIMS = {1: 45.0, 2: 85.0}  # ratios, by workers
RECIPES = {"public": Recipe()}  # by name; public: Adam, 32 rows a batch, two layers of 64 units, dropout 0.1


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
        """Yields after each step; begins again where all models are trained."""
        for fold in cycle(range(data.n_sources)):
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


def run_compiled(data: TrainingData, recipe: Recipe, jobs: int) -> float:
    """CPU seconds of the busiest worker, and of what is done beside the workers, of a training run."""
    busy: dict[str, float] = {}
    train_model: Any = engines.train_model

    def timed(*arguments: Any) -> Any:
        begin = time.thread_time()
        result = train_model(*arguments)
        name = threading.current_thread().name
        busy[name] = busy.get(name, 0.0) + time.thread_time() - begin
        return result

    engines.train_model = timed  # type: ignore[assignment]  # measured from outside, not in the trainer
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:jobs])  # the trainer gives each of its workers one of them
    cpu = time.process_time()
    trainer.train(data, recipe, Execution(jobs=jobs))
    cpu = time.process_time() - cpu
    os.sched_setaffinity(0, cores)
    engines.train_model = train_model
    return cpu - sum(busy.values()) + max(busy.values())


def count_steps(data: TrainingData, recipe: Recipe) -> int:
    """Model-steps of a whole run."""
    per_fold = [int(np.count_nonzero(data.source != fold)) for fold in range(data.n_sources)]
    return sum(-(-n // recipe.batch_size) for n in [*per_fold, len(data.target)]) * len(recipe.seeds) * recipe.epochs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--slots", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", choices=[*RECIPES], default="public", help="hyper-parameters of both sides")
    parser.add_argument("--epochs", type=int, default=10, help="of the compiled trainer, a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reference-steps", type=int, default=2000, help="steps of the reference, a slice")
    options = parser.parse_args()
    data = make_corpus(options.rows, options.sources, options.slots)
    recipe = replace(RECIPES[options.recipe], seeds=tuple(range(options.seeds)), epochs=options.epochs)
    cores = sorted(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    steps, part = count_steps(data, recipe), options.reference_steps
    versions = f"torch {torch.__version__}, numba {numba.__version__}, numpy {np.__version__}"
    print(f"{versions}, recipe {options.recipe}, Python {platform.python_version()}, {platform.machine()}")
    print(
        f"{options.rows} rows, {options.sources} sources, {len(recipe.seeds)} seeds, {recipe.epochs} epochs: "
        f"{(options.sources + 1) * len(recipe.seeds)} models, {steps} model-steps of {recipe.batch_size} rows"
    )
    reference = Reference(data, recipe)

    def slice_cost() -> float:
        """CPU seconds of a step of the reference, on the first core."""
        os.sched_setaffinity(0, cores[:1])
        seconds, _ = reference.run(part)
        os.sched_setaffinity(0, cores)
        return seconds / part

    slice_cost()
    run_compiled(data, replace(recipe, seeds=(0, 1), epochs=1), 1)  # both sides warm
    ratios: dict[int, list[float]] = {jobs: [] for jobs in AIMS if jobs <= len(cores)}
    costs: dict[int, list[float]] = {jobs: [] for jobs in ratios}
    print(f"{'round':<7}{'workers':<9}{'torch.nn, us a step':>20}{'compiled, us a step':>21}{'ratio':>8}{'load':>7}")
    for number in range(1, options.rounds + 1):
        for jobs in ratios:
            before, busiest, after = slice_cost(), run_compiled(data, recipe, jobs), slice_cost()
            theirs, mine = (before + after) / 2, busiest / steps
            ratios[jobs].append(theirs / mine)
            costs[jobs].append(mine)
            load = os.getloadavg()[0]
            print(
                f"{number:<7}{jobs:<9}{theirs * 1e6:>20.0f}{mine * 1e6:>21.2f}{theirs / mine:>7.1f}x{load:>7.1f}",
                flush=True,
            )
    for jobs, found in ratios.items():
        cost = statistics.median(costs[jobs]) * 1e6
        print(
            f"{jobs} worker(s): median {statistics.median(found):.1f}x ({min(found):.1f}x to {max(found):.1f}x), "
            f"{cost:.2f} us a model-step; aim {AIMS[jobs]:.0f}x"
        )


if __name__ == "__main__":
    main()
