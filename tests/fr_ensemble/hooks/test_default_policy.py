"""test_default_policy.py: what the default policy holds, from rows to verdict."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program
from registries import FEATURES

pytestmark = pytest.mark.slow


def gated(registry: Program, folder: Path, rows: list[list[Any]], epochs: int) -> tuple[int, dict[str, Any]]:
    """Trained into a registry that has no policy yet, and gated: exit code and verdict. What is held does not flip."""
    folder.mkdir()
    with (folder / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["src", "encoder", *FEATURES, "vmaf"], *rows])
    place = ("--registry", folder / "m" / "registry.json")
    what = ("--id", "x", "--corpus", folder / "c.csv", "--license", "MIT", "--epochs", epochs, "--no-baselines")
    trained = registry("train", "fr_ensemble", *what, *place)
    assert trained.code == 0, trained.err
    ran = registry("gate", "x", *place, "--format", "json")
    assert registry("flip", "x", *place).code == ran.code
    return ran.code, json.loads(ran.out)


def rows_of(sources: int, each: int, offset: float = 0.0) -> list[list[Any]]:
    """Rows with a target that follows from the features, but for an offset of each source."""
    rng = np.random.default_rng(5)
    offsets = rng.permutation(np.linspace(-offset, offset, sources))
    rows = []
    for k in range(sources):
        for level in np.linspace(0.0, 0.9, each) + rng.uniform(0.0, 0.1, each):
            features = 0.5 + 0.4 * level + rng.normal(0.0, 0.002, len(FEATURES))
            rows.append([f"s{k}", "libx264", *features, float(50.0 + offsets[k] + 10.0 * (2.0 * level - 1.0))])
    return rows


def test_six_rows_of_three_sources_are_held(registry: Program, tmp_path: Path) -> None:
    """Correlations of two rows are 1; what holds the entry is too few sources, of too few rows."""
    code, verdict = gated(registry, tmp_path / "six", rows_of(3, 2), 60)
    assert (code, verdict["metrics"]["mean_plcc"]) == (1, pytest.approx(1.0))
    assert verdict["reasons"] == ["n_folds >= 8: found 3", "min_fold_rows >= 8: found 2"]


@pytest.mark.parametrize(("offset", "code", "rules"), [(0.0, 0, []), (20.0, 1, ["pooled_plcc"])])
def test_an_offset_of_each_source_is_held(
    registry: Program, tmp_path: Path, offset: float, code: int, rules: list[str]
) -> None:
    """By the correlation over all rows alone: those within a source do not see it. Without offsets it passes."""
    found, verdict = gated(registry, tmp_path / "offset", rows_of(9, 16, offset), 60)
    assert (found, [line.split()[0] for line in verdict["reasons"]]) == (code, rules), verdict["reasons"]
    assert verdict["verdict"] == ("HOLD" if code else "PROMOTE")
