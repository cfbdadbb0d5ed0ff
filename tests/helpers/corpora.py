"""corpora.py: small learnable corpora and recipes for tests of the trainers, and the digest of what came of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from fr_ensemble.arrays import TrainedModels, TrainingData, Weights
from fr_ensemble.artifacts.recipe import Recipe

SMALL = Recipe(seeds=(0, 1), epochs=4, hidden=16, batch_size=8)
UNEVEN = [1, 40, 17, 8, 23]  # a source of one row, folds with other numbers of batches, last batches of one row
RECIPES = {
    "small": SMALL,
    "default": Recipe(seeds=(0, 1), epochs=2, input_noise=0.1),
    "rows": replace(SMALL, batch_size=1, epochs=1),
    "all at once": replace(SMALL, batch_size=200, hidden=100),
    "adamw": replace(SMALL, weight_decay=0.1, decoupled_weight_decay=True, dropout=0.0, hidden=70),
    "encoders hidden": replace(SMALL, encoder_dropout=0.3, batch_size=9),
    "stopped": replace(SMALL, early_stopping=1, learning_rate=0.05, epochs=20),
}


def make_corpus(rows: Sequence[int], conditioning: int = 0, seed: int = 0) -> TrainingData:
    """A learnable corpus; rows: how many each source has."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(len(rows)), rows)
    features = rng.normal(size=(len(source), 6)) * [0.1, 0.2, 0.2, 0.2, 0.1, 5] + [0.8, 0.5, 0.7, 0.8, 0.9, 6]
    codec = rng.integers(0, 3, len(source))
    extra = rng.normal(20.0, 3.0, (len(source), conditioning))
    z = (features - features.mean(0)) / features.std(0)
    target = 60 + 15 * np.tanh(z @ [0.5, 0.3, 0.2, 0.3, 0.4, -0.2]) + codec + extra.sum(1) + z[:, 0] * z[:, 1]
    return TrainingData(features, codec, 5, extra, target, source, len(rows))


def digest(trained: TrainedModels, seed_index: int | None = None) -> str:
    """sha256 over every array of a run, or of one seed of it."""
    chosen = range(len(trained.members)) if seed_index is None else [seed_index]
    arrays = [getattr(trained.members[i], f.name) for i in chosen for f in fields(Weights)]
    arrays += [trained.oof[i] for i in chosen] + [trained.scaler.mean, trained.scaler.std]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
