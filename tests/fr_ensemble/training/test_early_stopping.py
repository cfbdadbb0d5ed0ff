"""test_early_stopping.py: who decides, which epoch is kept, and that neighbours change nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from command_line import Program
from corpora import digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import ModelState, Steps, note_best, scores_of
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, prepare
from fr_ensemble.training.trainer import train
from registries import TRAINING, Made

from registry_tool.errors import InputError

pytestmark = pytest.mark.slow

PATIENCE = 3
RECIPE = Recipe(seeds=(0, 1), epochs=60, hidden=16, batch_size=8, learning_rate=0.02, early_stopping=PATIENCE)
DATA = make_corpus([14, 9, 12, 1, 20, 11], conditioning=1)


def test_whole_sources_decide_and_never_the_held_out_one() -> None:
    """Stopping rows are of the fold's training sources, and sources stay whole; seeds draw differently."""
    table = prepare(DATA)
    drawn = set()
    for fold in (*range(6), FINAL_FOLD):
        for seed in range(4):
            stops = table.stops(ModelKey(fold, seed), 0.2)
            chosen = set(DATA.source[stops].tolist())
            assert len(chosen) == 1
            assert fold not in chosen
            assert not set(DATA.source[~stops].tolist()) & chosen
            drawn |= chosen
    assert drawn == set(range(6))
    assert not table.stops(ModelKey(2, 0), 0.0).any()


@pytest.mark.parametrize("key", [ModelKey(fold, seed) for fold in (0, 3, FINAL_FOLD) for seed in (0, 1)])
def test_the_best_epoch_is_kept_until_patience_runs_out(key: ModelKey) -> None:
    """Held against every epoch's weights and a plain reading of the rule."""
    table = prepare(DATA)
    model = ModelState.begin(table, RECIPE, key)
    steps = Steps(table, RECIPE, model)
    stops = np.flatnonzero(steps.stops).astype(np.int32)
    mean, std = table.scales[key.fold].columns[:, -1]
    target = (table.rows[stops, table.n_numeric + 1] - mean) / std
    losses, weights = [], []
    while not model.is_done(RECIPE):
        steps.take(1)
        note_best(table, model, stops, np.zeros(len(stops), np.int64))
        weights.append(model.p.copy())
        losses.append(np.mean((scores_of(table, key, model.layout, model.p, stops) - target) ** 2))
    best = int(np.argmin(losses))
    assert (model.best_epoch, len(losses)) == (best + 1, min(RECIPE.epochs, best + 1 + PATIENCE))
    assert np.array_equal(model.best, weights[best])
    assert all(min(losses[: i + 1]) > min(losses[: i + PATIENCE + 1]) for i in range(best - PATIENCE))


def test_bytes_depend_on_the_key_alone() -> None:
    """A seed's bytes do not change with other seeds, their order or the workers."""
    base = train(DATA, RECIPE, Execution(jobs=1))
    assert digest(train(DATA, RECIPE, Execution(jobs=3))) == digest(base)
    others = train(DATA, replace(RECIPE, seeds=(9, 1, 5, 0)), Execution(jobs=1))
    assert [digest(others, 3), digest(others, 1)] == [digest(base, 0), digest(base, 1)]
    assert digest(base) != digest(train(DATA, replace(RECIPE, early_stopping=0), Execution(jobs=1)))


def test_a_fold_never_sees_what_it_holds_out() -> None:
    """Other targets in a source change no prediction for it: its own rows do not tell its models when to stop."""
    held = DATA.source == 0
    base = train(DATA, RECIPE, Execution(jobs=1))
    other = train(replace(DATA, target=DATA.target + 5.0 * held), RECIPE, Execution(jobs=1))
    assert np.array_equal(base.oof[:, held], other.oof[:, held])
    assert not np.array_equal(base.members[0].w2, other.members[0].w2)


def test_progress_ends_at_the_total_though_epochs_are_left_out() -> None:
    """Every model counts as done with all its epochs."""
    calls: list[tuple[int, int]] = []
    recipe = replace(RECIPE, epochs=2000, early_stopping=40, dropout=0.3)
    train(DATA, recipe, Execution(jobs=1), progress=lambda what, done, total: calls.append((done, total)))
    assert calls[-1] == (14 * 2000, 14 * 2000)


def test_what_cannot_be_done_is_named() -> None:
    """Two sources leave none to look at; a run that diverges in its first epoch has no best one."""
    with pytest.raises(InputError, match="early_stopping: found 1 sources"):
        train(make_corpus([10, 10]), RECIPE, Execution(jobs=1))
    with pytest.raises(InputError, match="--learning-rate: found 1e"):
        train(DATA, replace(RECIPE, learning_rate=1e30), Execution(jobs=1))
    with pytest.raises(ValueError, match="early_stopping: found -1"):
        replace(RECIPE, early_stopping=-1)


def test_off_it_leaves_no_trace() -> None:
    """A recipe without it has the digest it always had; one with it says so, and comes back."""
    assert "early_stopping" not in Recipe().to_dict()
    first = Recipe(trainer_version=1)
    assert first.sha256 == "83cabea4ed8f5549cf7b83f9c93d638302be6e18bdfae4a24e54dbab688b8244"
    assert Recipe.from_dict(RECIPE.to_dict()) == RECIPE
    assert RECIPE.sha256 != replace(RECIPE, early_stopping=0).sha256


def test_the_option_is_in_the_manifest(made: Made, registry: Program, tmp_path: Path) -> None:
    """`--early-stopping N` trains, validates, and stands in the pinned recipe."""
    path = tmp_path / "registry.json"
    arguments = ("train", "fr_ensemble", "--id", "early", "--corpus", made.corpus, *TRAINING, "--registry", path)
    ran = registry(*arguments, "--early-stopping", "2")
    assert ran.code == 0, ran.err
    entry = json.loads(path.read_text())["models"][0]
    manifest = json.loads((tmp_path / entry["manifest"]).read_text())
    assert manifest["recipe"]["early_stopping"] == 2
    assert registry("validate", path).code == 0
    assert registry(*arguments, "--early-stopping", "-1").code == 2
