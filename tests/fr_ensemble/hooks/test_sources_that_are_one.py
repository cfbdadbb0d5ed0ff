"""test_sources_that_are_one.py: a corpus whose sources are one source is refused before training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import ColumnSpec
from fr_ensemble.hooks.train import Job, run

from registry_tool.errors import InputError
from registry_tool.hookspec import silent


def write(path: Path, names: str) -> Path:
    """Two videos of 30 frames, each in two encodes by two encoders.

    names: `split` names a source for each encoder, `twice` copies each.
    """
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["src", "encoder", "frame_index", "f", "motion2", "vmaf"])
        for video in "ab":
            motion = rng.uniform(1.0, 9.0, 30).round(6)
            for encoder in ("libx264", "libx265"):
                rows = [[encoder, n, rng.uniform(), motion[n], rng.uniform(0.0, 100.0)] for n in [*range(30)] * 2]
                sources = {"split": [f"{video}-{encoder}"], "twice": [video, f"{video}2"]}[names]
                writer.writerows([source, *row] for source in sources for row in rows)
    return path


@pytest.mark.parametrize(
    ("names", "features", "words"),
    [
        ("split", ("f", "motion2"), "sources a-libx264 and a-libx265: found 100% of the values of motion2"),
        ("split", ("f",), "sources a-libx264 and a-libx265: found 100% of the values of motion2"),
        ("twice", ("f",), "sources a and a2: found the same 120 targets in both"),
    ],
)
def test_it_is_refused_before_training(tmp_path: Path, names: str, features: tuple[str, ...], words: str) -> None:
    """Split by encoder, whether the column is an input or not, and one source under two names."""
    path = write(tmp_path / "c.csv", names)
    with pytest.raises(InputError, match=words):
        run(Job("x", path, ColumnSpec(features=features), Recipe(epochs=1), False), silent)
