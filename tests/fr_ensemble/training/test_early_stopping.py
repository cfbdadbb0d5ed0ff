"""Tests of early stopping: who decides, which epoch is kept, and that neighbours in a stack change nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from conftest import TRAINING, Made, Program  # noqa: E402  # after the check that torch is there
from fr_ensemble.arrays import Weights  # noqa: E402
from fr_ensemble.artifacts.recipe import Recipe  # noqa: E402
from fr_ensemble.training.blocks import start  # noqa: E402
from fr_ensemble.training.folds import FINAL, ModelKey, prepare  # noqa: E402
from fr_ensemble.training.network import predict  # noqa: E402
from fr_ensemble.training.trainer import train, train_block  # noqa: E402
from training_corpus import digest, make_corpus  # noqa: E402

from registry_tool.errors import InputError  # noqa: E402

PATIENCE = 3
RECIPE = Recipe(seeds=(0, 1), epochs=60, hidden=16, batch_size=8, learning_rate=0.02, early_stopping=PATIENCE)
DATA = make_corpus([14, 9, 12, 1, 20, 11], conditioning=1)


def test_whole_sources_decide_and_never_the_held_out_one() -> None:
    """Fitted and stopping rows part the fold's training rows; sources stay whole; seeds draw differently."""
    table = prepare(DATA)
    drawn = set()
    for fold in (*range(6), FINAL):
        for seed in range(4):
            fits, stops = table.split(ModelKey(fold, seed), 0.2)
            assert sorted([*fits, *stops]) == np.flatnonzero(DATA.source != fold).tolist()
            assert not set(DATA.source[fits]) & set(DATA.source[stops])
            assert len(set(DATA.source[stops])) == 1
            drawn.add(frozenset(DATA.source[stops].tolist()))
    assert len(drawn) == 6
    fits, stops = table.split(ModelKey(2, 0), 0.0)
    assert (fits.tolist(), len(stops)) == (np.flatnonzero(DATA.source != 2).tolist(), 0)


def test_the_best_epoch_is_kept_until_patience_runs_out() -> None:
    """Held against every epoch's weights and a plain reading of the rule, for each model of a stack."""
    table = prepare(DATA)
    keys = sorted(
        (ModelKey(fold, seed) for fold in (0, 3, FINAL) for seed in (0, 1)),
        key=lambda key: -len(table.split(key, RECIPE.stopping_share)[0]),
    )
    block = start(table, RECIPE, keys)
    epochs: list[list[Weights]] = []
    with torch.inference_mode():
        train_block(
            table, RECIPE, block, after_epoch=lambda: epochs.append([block.weights.get(j, 16) for j in range(6)])
        )
    kept = []
    for j, key in enumerate(keys):
        _, stops = table.split(key, RECIPE.stopping_share)
        mean, std = table.scale(key.fold)
        x = (table.rows[stops] - mean) / std
        losses = [np.mean((predict(e[j], x[:, : table.inputs]) - x[:, table.inputs + 1]) ** 2.0) for e in epochs]
        best = 0
        while (more := next((e for e in range(best + 1, len(losses)) if losses[e] < losses[best]), len(losses))) <= (
            best + PATIENCE
        ) and more < len(losses):
            best = more
        kept.append(best)
        assert block.stopping is not None
        assert block.stopping.epoch[j] == best + 1
        assert np.array_equal(block.stopping.best.get(j, 16).w2, epochs[best][j].w2)
    assert len(epochs) == min(RECIPE.epochs, max(kept) + 1 + PATIENCE)
    assert len(set(kept)) > 1
    assert len(epochs) < RECIPE.epochs


def test_bytes_depend_on_the_key_alone() -> None:
    """A seed's bytes do not change with other seeds, their order, the workers or the stack's size."""
    base = train(DATA, RECIPE, jobs=1)
    for jobs, stack in ((2, 32), (1, 2), (1, 5)):
        assert digest(train(DATA, RECIPE, jobs=jobs, stack=stack)) == digest(base)
    others = train(DATA, replace(RECIPE, seeds=(9, 1, 5, 0)), jobs=1)
    assert [digest(others, 3), digest(others, 1)] == [digest(base, 0), digest(base, 1)]
    assert digest(base) != digest(train(DATA, replace(RECIPE, early_stopping=0), jobs=1))


def test_a_fold_never_sees_what_it_holds_out() -> None:
    """Other targets in a source change no prediction for it: its own rows do not tell its models when to stop."""
    held = DATA.source == 0
    base = train(DATA, RECIPE, jobs=1)
    other = train(replace(DATA, target=DATA.target + 5.0 * held), RECIPE, jobs=1)
    assert np.array_equal(base.oof[:, held], other.oof[:, held])
    assert not np.array_equal(base.members[0].w2, other.members[0].w2)


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """The best weights so far are in the checkpoint; progress ends at the total though epochs are left out."""

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    recipe = replace(RECIPE, epochs=2000, early_stopping=40, dropout=0.3)
    calls: list[tuple[int, int]] = []
    base = train(DATA, recipe, jobs=1, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (14 * 2000, 14 * 2000)
    with pytest.raises(KeyboardInterrupt):
        train(DATA, recipe, jobs=1, checkpoint=tmp_path, checkpoint_seconds=0.0, progress=interrupt)
    for _ in range(2):  # once from the middle, once from the end
        assert digest(train(DATA, recipe, jobs=2, checkpoint=tmp_path, resume=True)) == digest(base)


def test_what_cannot_be_done_is_named() -> None:
    """Two sources leave none to look at; a run that diverges in its first epoch has no best one."""
    with pytest.raises(InputError, match="early_stopping: found 1 sources"):
        train(make_corpus([10, 10]), RECIPE, jobs=1)
    with pytest.raises(InputError, match="learning_rate: found 1e"):
        train(DATA, replace(RECIPE, learning_rate=1e30), jobs=1)
    with pytest.raises(ValueError, match="early_stopping: found -1"):
        replace(RECIPE, early_stopping=-1)


def test_off_it_leaves_no_trace() -> None:
    """A recipe without it has the digest it always had; one with it says so, and comes back."""
    assert "early_stopping" not in Recipe().to_dict()
    assert Recipe().sha256 == "83cabea4ed8f5549cf7b83f9c93d638302be6e18bdfae4a24e54dbab688b8244"
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
