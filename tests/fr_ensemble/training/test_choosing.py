"""Tests of choosing.py and of what an entry says of its choice: what it sees, what is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, succeed
from corpora import SMALL, make_corpus
from fr_ensemble.artifacts.choice import FoldChoice, RecipeChoice
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.choosing import MAX_EPOCHS, choose, grouped, train_chosen
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train
from registries import write_corpus
from sandbox import Sandbox, tree

from registry_tool.errors import InputError

pytestmark = pytest.mark.slow

SOURCES = ("a", "b", "c", "d")
CANDIDATES = {"short": replace(SMALL, epochs=1), "long": replace(SMALL, epochs=60, hidden=8)}
ONE_JOB = Execution(jobs=1)


# ---- what a choice sees -------------------------------------------------------------------------------------------


def test_a_fold_chooses_without_its_source() -> None:
    """Other targets in one source change every choice's errors but those of the fold that holds it out."""
    data = make_corpus([20, 16, 24, 18])
    other = replace(data, target=np.where(data.source == 1, 100.0 - data.target, data.target))
    one, two = (choose(each, SOURCES, CANDIDATES, ONE_JOB) for each in (data, other))
    assert one.folds["b"] == two.folds["b"]
    assert all(one.folds[name] != two.folds[name] for name in "acd")
    assert one.final != two.final


def test_groups_are_whole_sources_and_neighbours() -> None:
    """No source is in two groups, each group has one, and sources that follow each other by name share one."""
    data = make_corpus([3, 5, 2, 7, 4, 6, 1])
    inside = grouped(data, np.flatnonzero(data.source != 2), 5)
    owner = data.source[data.source != 2]
    groups = [set(inside.source[owner == g].tolist()) for g in (0, 1, 3, 4, 5, 6)]
    assert groups == [{0}, {0}, {1}, {2}, {3}, {4}]
    assert inside.n_sources == 5


def test_the_least_error_is_chosen() -> None:
    """A recipe that learns is chosen over one of a single epoch, and no more epochs are spent than MAX_EPOCHS."""
    told: list[tuple[int, int]] = []
    data = make_corpus([20, 16, 24, 18])
    choice = choose(data, SOURCES, CANDIDATES, ONE_JOB, lambda step, done, total: told.append((done, total)))
    assert {one.chosen for one in (*choice.folds.values(), choice.final)} == {"long"}
    assert choice.recipe == CANDIDATES["long"]
    assert told[-1] == ((1 + MAX_EPOCHS) * (4 * 3 + 4),) * 2


# ---- what is trained ----------------------------------------------------------------------------------------------


def test_each_fold_is_trained_by_its_own_recipe() -> None:
    """Its predictions are those of a run with this recipe alone, and the members those of the final choice."""
    data = make_corpus([20, 16, 24, 18])
    errors = {"short": FoldChoice({"short": 1.0, "long": 2.0}), "long": FoldChoice({"short": 2.0, "long": 1.0})}
    by_fold = ("short", "long", "long", "short")
    folds = {name: errors[chosen] for name, chosen in zip(SOURCES, by_fold, strict=True)}
    trained = train_chosen(data, RecipeChoice(CANDIDATES, folds, errors["long"]), ONE_JOB)
    plain = {name: train(data, recipe, ONE_JOB) for name, recipe in CANDIDATES.items()}
    for source, name in enumerate(by_fold):
        rows = data.source == source
        assert np.array_equal(trained.oof[:, rows], plain[name].oof[:, rows])
    assert np.array_equal(trained.fitted, plain["long"].fitted)
    assert all(np.array_equal(one.w1, two.w1) for one, two in zip(trained.members, plain["long"].members, strict=True))


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Choices and models come out of the folder again; without --resume it is refused."""
    data, execution = make_corpus([20, 16, 24]), Execution(jobs=1, checkpoint=tmp_path / "state")
    first = choose(data, SOURCES[:3], CANDIDATES, execution)
    trained = train_chosen(data, first, execution)
    again = replace(execution, resume=True)
    assert choose(data, SOURCES[:3], CANDIDATES, again) == first
    assert np.array_equal(train_chosen(data, first, again).oof, trained.oof)
    with pytest.raises(InputError, match="add --resume"):
        choose(data, SOURCES[:3], CANDIDATES, execution)


# ---- the document -------------------------------------------------------------------------------------------------

TWO = RecipeChoice(
    {"one": Recipe(), "two": Recipe(hidden=16)},
    {"a": FoldChoice({"one": 0.5, "two": 0.4}), "b": FoldChoice({"one": 0.2, "two": 0.4})},
    FoldChoice({"one": 0.3, "two": 0.29}),
)


def test_a_choice_is_kept_as_a_document() -> None:
    """Read again it is the same; without a clear difference the first candidate is chosen; a line says it."""
    document = json.loads(json.dumps(TWO.to_dict()))
    assert RecipeChoice.from_dict(document) == TWO
    assert (document["chosen"], [fold["chosen"] for fold in document["folds"]]) == ("one", ["two", "one"])
    assert TWO.line() == "recipe one, chosen on the training sources alone; of 2 folds: two in 1, one in 1"
    assert [*TWO.problems(Recipe(), ("a", "b"))] == []
    assert len([*TWO.problems(Recipe(hidden=16), ("a", "c"))]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chosen": "two"}, "expected the clearly least error"),
        ({"rmse": [0.3]}, "expected what training writes"),
        ({"rmse": [-0.3, 0.3]}, "the error -0.3 of one"),
        ({"folds": [{"held_out": "a"}]}, "KeyError"),
        ({"candidates": [{"name": "one", "recipe": {"epochs": 0, "seeds": [0, 1]}}]}, "epochs: found 0"),
    ],
)
def test_a_choice_that_its_errors_do_not_give_is_refused(change: dict[str, Any], words: str) -> None:
    """Another name than the least error's, errors of other recipes, numbers that mean nothing, missing fields."""
    with pytest.raises(ValueError, match=words):
        RecipeChoice.from_dict({**TWO.to_dict(), **change})


# ---- an entry -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sandbox, Path]:
    """An entry trained without a word on the recipe, and its corpus of few rows."""
    base = tmp_path_factory.mktemp("chosen")
    corpus = write_corpus(base / "corpus.csv", 4, 12, seed=1)
    what = ("--id", "tiny", "--corpus", corpus, "--seeds", "0,1", "--license", "MIT", "--no-baselines")
    succeed("train", "fr_ensemble", *what, "--registry", base / "registry.json")
    return Sandbox(base / "registry.json"), corpus


def test_few_rows_have_their_recipe_chosen(chosen: tuple[Sandbox, Path], registry: Program) -> None:
    """The manifest says what was chosen in which fold; validate, gate, report and card are content and show it."""
    box, _ = chosen
    choice = RecipeChoice.from_dict(box.manifest["recipe_choice"])
    assert [*choice.candidates] == ["public", "noisy", "narrow"]
    assert [*choice.folds] == box.manifest["corpus"]["sources"]
    assert choice.recipe.to_dict() == box.manifest["recipe"]
    assert registry("validate", box.path).code == 0
    assert choice.line() in registry("gate", "tiny", "--registry", box.path).out
    assert choice.line() in registry("card", "tiny", "--registry", box.path).out
    page = box.path.with_name("report.html")
    assert registry("report", "tiny", "--registry", box.path, "-o", page).code == 0
    assert "The recipe of each fold" in page.read_text(encoding="utf-8")


def test_a_choice_is_reproduced(chosen: tuple[Sandbox, Path], registry: Program, tmp_path: Path) -> None:
    """Trained again it chooses again, to the same bytes."""
    box, corpus = chosen
    what = ("--corpus", corpus, "--registry", box.path, "--exact", "--keep", tmp_path / "again")
    ran = registry("reproduce", "tiny", *what)
    assert ran.code == 0, ran.out
    assert tree(tmp_path / "again") == tree(box.artifacts)


def test_a_choice_that_was_edited_is_found(chosen: tuple[Sandbox, Path], registry: Program, tmp_path: Path) -> None:
    """Errors that give another recipe than the members', and a choice that its errors do not give."""
    for number, edit in enumerate(("members", "fold")):
        box = chosen[0].copy(tmp_path / str(number))

        def forge(manifest: dict[str, Any], edit: str = edit) -> None:
            choice = manifest["recipe_choice"]
            if edit == "fold":
                choice["folds"][0]["chosen"] = "nothing"
                return
            names = [candidate["name"] for candidate in choice["candidates"]]
            other = next(place for place, name in enumerate(names) if name != choice["chosen"])
            choice["rmse"][other], choice["chosen"] = 0.0, names[other]

        box.forge(forge)
        ran = registry("validate", box.path)
        assert ran.code == 1
        assert "/recipe_choice" in ran.out
        assert "ensemble-recipe" in ran.out
