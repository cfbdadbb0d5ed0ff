"""test_sources_that_are_one.py: a corpus whose sources are one source is refused before training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.recorded import EvidenceContents
from fr_ensemble.hooks.train import Job, run

from registry_tool.errors import InputError
from registry_tool.hookspec import silent


def write(path: Path, names: str, frame: str = "frame_index") -> Path:
    """Two videos of 30 frames, each in two encodes by two encoders.

    names: `split` names a source for each encoder, `twice` copies each, `mixed` names the first and the second half of
    the rows of both. frame: the column of their numbers.
    """
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["src", "encoder", frame, "f", "motion2", "vmaf"])
        for video in "ab":
            motion = rng.uniform(1.0, 9.0, 30).round(6)
            for encoder in ("libx264", "libx265"):
                rows = [[encoder, n, rng.uniform(), motion[n], rng.uniform(0.0, 100.0)] for n in [*range(30)] * 2]
                for k, row in enumerate(rows):
                    sources = {"split": [f"{video}-{encoder}"], "twice": [video, f"{video}2"], "mixed": [f"s{k // 30}"]}
                    writer.writerows([source, *row] for source in sources[names])
    return path


@pytest.mark.parametrize(
    ("names", "features", "frame", "words"),
    [
        (
            "split",
            ("f", "motion2"),
            "frame_index",
            "sources a-libx264 and a-libx265: found 100 % of the values of",
        ),
        ("split", ("f",), "frame_index", "sources a-libx264 and a-libx265: found 100 % of the values of"),
        ("split", ("f", "motion2"), "n", "sources a-libx264 and a-libx265: found 100 % of the values of"),
        ("mixed", ("f", "motion2"), "frame_index", "sources s0 and s1: found 100 % of the values of"),
        ("mixed", ("f", "motion2"), "n", "sources s0 and s1: found 100 % of the values of"),
        ("twice", ("f",), "frame_index", "sources a and a2: found the same 120 targets in both"),
    ],
)
def test_it_is_refused_before_training(
    tmp_path: Path, names: str, features: tuple[str, ...], frame: str, words: str
) -> None:
    """Split by encoder, motion an input or not, frames named or not; the rows of all videos mixed; one source twice."""
    path = write(tmp_path / "c.csv", names, frame)
    with pytest.raises(InputError, match=words):
        run(Job("x", path, ColumnSpec(features=features), Recipe(epochs=1), False), silent)


@pytest.mark.slow
def test_encoders_that_are_left_out_may_have_references_in_common(tmp_path: Path) -> None:
    """`--group encoder` has a fold for each encoder of the same videos, which is no fault of the corpus."""
    path = write(tmp_path / "c.csv", "split")
    spec = ColumnSpec(features=("f", "motion2"), source_column="encoder")
    recipe, evidence = Recipe(epochs=1, seeds=(0, 1), hidden=4), EvidenceContents(baselines=False)
    run(Job("x", path, spec, recipe, False, contents=evidence), silent)
