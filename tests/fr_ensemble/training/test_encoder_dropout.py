"""test_encoder_dropout.py: the slot `unknown` is trained, and encoders without training rows weigh as it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from command_line import Program
from corpora import make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import train_model
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, prepare
from fr_ensemble.training.trainer import train
from registries import TRAINING, Made

pytestmark = pytest.mark.slow

RECIPE = Recipe(seeds=(0, 1), epochs=30, hidden=16, batch_size=8, learning_rate=0.02, encoder_dropout=0.3)
MADE = make_corpus([14, 9, 12, 20])  # encoders in slots 0 to 2 of five
EFFECT = np.array([-12.0, 0.0, 12.0, 0.0, 0.0])  # of an encoder on the target
DATA = replace(MADE, target=MADE.target + EFFECT[MADE.codec])


def test_absent_encoders_weigh_as_the_unknown_one() -> None:
    """A slot without training rows has the weights of the last one, in members and in each fold; others have not."""
    codec = np.where((DATA.source == 1) & (DATA.codec == 2), 3, np.where(DATA.codec == 3, 0, DATA.codec))
    table = prepare(replace(DATA, codec=codec))
    for fold, absent in ((FINAL_FOLD, []), (1, [3])):
        trained = train_model(table, RECIPE, ModelKey(fold, 0))
        assert trained is not None
        slots = trained.weights.w1[6:11]
        same = [slot for slot in range(4) if np.array_equal(slots[slot], slots[4])]
        assert same == absent
    without = train_model(table, replace(RECIPE, encoder_dropout=0.0), ModelKey(1, 0))
    assert without is not None
    assert not np.array_equal(without.weights.w1[9], without.weights.w1[10])


def test_the_unknown_encoder_is_the_mean_one() -> None:
    """Where encoders shift the target by -12, 0 and 12, an unknown one is predicted between them, near the middle."""
    held = DATA.source == 0
    low, middle, high = (
        float(
            train(replace(DATA, codec=np.where(held, slot, DATA.codec)), RECIPE, Execution(jobs=1)).oof[:, held].mean()
        )
        for slot in (0, 4, 2)
    )
    assert low + 4.0 < middle < high - 4.0


def test_the_option_is_in_the_manifest(made: Made, registry: Program, tmp_path: Path) -> None:
    """`--encoder-dropout SHARE` trains, validates, and is in the pinned recipe; without it the recipe is as before."""
    path = tmp_path / "registry.json"
    arguments = ("train", "fr_ensemble", "--id", "e", "--corpus", made.corpus, *TRAINING, "--registry", path)
    ran = registry(*arguments, "--encoder-dropout", "0.2")
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / json.loads(path.read_text())["models"][0]["manifest"]).read_text())
    assert manifest["recipe"]["encoder_dropout"] == 0.2
    assert registry("validate", path).code == 0
    assert "encoder_dropout" not in Recipe().to_dict()
    assert Recipe.from_dict(RECIPE.to_dict()) == RECIPE


def test_what_cannot_be_done_is_named(made: Made, registry: Program, tmp_path: Path) -> None:
    """A share of 1 leaves no encoder known; version 3 of the vocabulary has no slot for unknown ones."""
    path = tmp_path / "registry.json"
    arguments = ("train", "fr_ensemble", "--id", "e", "--corpus", made.corpus, *TRAINING, "--registry", path)
    whole = registry(*arguments, "--encoder-dropout", "1")
    assert (whole.code, "encoder-dropout: found 1.0, expected 0 <=" in whole.err) == (2, True)
    slotless = registry(*arguments, "--encoder-dropout", "0.2", "--vocabulary", "3")
    assert (slotless.code, "vocabulary 3 has no slot for unknown encoders" in slotless.err) == (2, True)
    assert not path.exists()
