"""test_raw_conditions.py: members that take conditions as they are, as the public layout of a codec block does."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program
from csv_tables import read_csv, write_csv
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.artifacts.runtime import member_scores
from registries import FEATURES, TRAINING, write_corpus

pytestmark = pytest.mark.slow

RAW = ("--condition", "crf_norm", "--member-conditions", "raw")


def conditioned(folder: Path, name: str, **changed: Any) -> Path:
    """Rows of three sources with a condition from 0 to 1; changed: cells of the sixth."""
    rows = read_csv(write_corpus(folder / "plain.csv", 3, 12, seed=4))
    rows = [row | {"crf_norm": str((index % 9) / 8)} for index, row in enumerate(rows)]
    rows[5].update(changed)
    return write_csv(folder / name, rows)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conditioned(tmp_path_factory.mktemp("raw"), "c.csv")


def test_members_take_conditions_as_they_are(corpus: Path, registry: Program, tmp_path: Path) -> None:
    """Recorded, valid, trained again to the same bytes; mu is the mean of members that are given a file's numbers."""
    where = ("--corpus", corpus, "--registry", tmp_path / "registry.json")
    ran = registry("train", "fr_ensemble", "--id", "raw", *where, *TRAINING, *RAW)
    assert ran.code == 0, ran.err
    (entry,) = json.loads((tmp_path / "registry.json").read_text())["models"]
    folder = (tmp_path / entry["manifest"]).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["member_conditions"] == "raw"
    assert manifest["codec_block"][-1] == {"name": "crf_norm", "transform": "none", "mean": 0.0, "std": 1.0}
    assert registry("validate", tmp_path / "registry.json").code == 0
    rows = read_csv(corpus)
    features = np.array([[float(row[name]) for name in FEATURES] for row in rows])
    scaled = (features - manifest["feature_mean"]) / manifest["feature_std"]
    block = np.zeros((len(rows), len(manifest["codec_block"])))
    slots = {spelling: slot for slot, names in manifest["codec_spellings"].items() for spelling in names}
    for line, row in zip(block, rows, strict=True):
        line[manifest["codec_vocab"].index(slots[row["encoder"]])] = 1.0
        line[-1] = float(row["crf_norm"])
    expected = member_scores([(folder / m["onnx"]).read_bytes() for m in manifest["members"]], scaled, block)
    ran = registry("predict", "raw", *where)
    assert [float(row["mu"]) for row in csv.DictReader(ran.out.splitlines())] == pytest.approx(
        expected.mean(axis=0).tolist(), abs=1e-3
    )
    ran = registry("reproduce", "raw", *where, "--exact")
    assert ran.code == 0, ran.err


def test_a_raw_condition_is_from_0_to_1(corpus: Path, registry: Program, tmp_path: Path) -> None:
    """Another number is refused with its line; so are a logarithm, and a run without conditions."""
    wrong = conditioned(tmp_path, "wrong.csv", crf_norm="1.5")
    small = (*TRAINING, "--registry", tmp_path / "registry.json")
    ran = registry("train", "fr_ensemble", "--id", "raw", "--corpus", wrong, *small, *RAW)
    assert ran.code == 2
    assert "wrong.csv:7, column crf_norm: found 1.5, expected 0..1, since members take it raw" in ran.err
    ran = registry(
        *("train", "fr_ensemble", "--id", "raw", "--corpus", corpus, *small),
        *("--condition", "log2:crf_norm", "--member-conditions", "raw"),
    )
    assert (ran.code, "found a transform, expected none of a raw condition" in ran.err) == (2, True)
    ran = registry("train", "fr_ensemble", "--id", "raw", "--corpus", corpus, *small, "--member-conditions", "raw")
    assert (ran.code, "found no condition" in ran.err) == (2, True)


def test_a_recipe_without_raw_conditions_has_its_old_digest() -> None:
    """The field is there where it is on; a word that means nothing is refused."""
    assert "member_conditions" not in Recipe().to_dict()
    raw = Recipe(member_conditions="raw")
    assert Recipe.from_dict(raw.to_dict()) == raw
    assert raw.sha256 != Recipe().sha256
    with pytest.raises(ValueError, match="member_conditions: found 'log'"):
        Recipe(member_conditions="log")
