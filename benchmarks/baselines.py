"""baselines.py: what the standard models beside an ensemble cost: CPU seconds of each on all folds, and the ensemble's.

On the shipped corpus, and on the clips of AVT-VQDB-UHD-1 where its folder is given; or on another corpus with vmaf. The
ensemble is trained for a part of its 200 epochs, and its time multiplied; compiling is left out.

    python benchmarks/baselines.py [../shared/data/avt-vqdb-uhd-1]
    python benchmarks/baselines.py --corpus mine.parquet --epochs 4
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fr_ensemble.arrays import TrainingData
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.training import baselines
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train

EPOCHS = 4


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(name: str, data: TrainingData, epochs: int) -> None:
    """A line a model."""
    recipe = Recipe()
    short, times = replace(recipe, epochs=epochs), recipe.epochs / epochs
    train(data, replace(recipe, epochs=1, seeds=(0, 1)), Execution(jobs=1))  # compiles
    baselines.fit_baselines(data, "", 1)  # loads scikit-learn
    print(f"{name}: {len(data.target)} rows, {data.n_sources} sources; CPU seconds for all folds")
    print(f"  {'ensemble':<20}{times * cpu_seconds(lambda: train(data, short, Execution(jobs=1))):>8.1f}")
    for model, fit in baselines.fits_of(len(data.target), 1).items():
        chosen = {model: fit}
        print(f"  {model:<20}{cpu_seconds(lambda chosen=chosen: baselines.fit_each(data, chosen)):>8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--corpus", type=Path, help="in place of the shipped one")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the ensemble, which are measured")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    corpus = options.corpus or SHIPPED_CORPUS
    measure(corpus.name, read_corpus(corpus, ColumnSpec()).training_data(), options.epochs)
    if options.data is not None:
        clips = read_corpus(options.data / "clips.parquet", ColumnSpec(target="mos"))
        measure("AVT clips, mos", clips.training_data(), options.epochs)


if __name__ == "__main__":
    main()
