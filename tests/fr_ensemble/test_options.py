"""Tests of options.py: the recipe that options ask for."""

from __future__ import annotations

import click
import pytest
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.hooks.train import Choosing, Job
from fr_ensemble.options import AUTO_ROWS, CANDIDATE_RECIPES, OPTIONS, RECIPES, job_of

from registry_tool.hookspec import TrainRequest


def job(*arguments: str, smoke: bool = False) -> Job:
    options = click.Command("train", params=list(OPTIONS)).make_context("train", list(arguments)).params
    return job_of(TrainRequest("fr_ensemble", "x", smoke=smoke, options=options))


def recipe_of(*arguments: str, smoke: bool = False) -> Recipe:
    return job(*arguments, smoke=smoke).recipe


def choosing_of(*arguments: str, smoke: bool = False) -> Choosing | None:
    return job(*arguments, smoke=smoke).choosing


def test_without_options_the_recipe_is_the_public_one() -> None:
    """Word by word what the defaults of a recipe are: what a corpus of many rows is trained by."""
    assert recipe_of() == recipe_of("--recipe", "public") == Recipe()
    assert recipe_of(smoke=True) == Recipe(epochs=1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_name(name: str) -> None:
    """Each changes what it says and nothing else."""
    assert recipe_of("--recipe", name) == Recipe(**RECIPES[name])


def test_an_option_beside_a_recipe_wins() -> None:
    """Also where it says what the public recipe has, and where it turns something off."""
    own = recipe_of("--recipe", "noisy", "--epochs", "200", "--weight-decay", "1e-5", "--no-decoupled-weight-decay")
    assert own == Recipe(input_noise=0.2)
    assert recipe_of("--recipe", "clean", "--dropout", "0.3") == Recipe(dropout=0.3, epochs=60)


def test_the_recipe_is_chosen_where_nothing_is_said_of_it() -> None:
    """Below 2,000 rows without an option of the recipe, and for any number of rows by `--recipe auto`."""
    silent, asked = choosing_of(), choosing_of("--recipe", "auto")
    assert silent is not None
    assert asked is not None
    assert (silent.below, asked.below) == (AUTO_ROWS, None)
    assert silent.candidates == asked.candidates == {name: Recipe(**RECIPES[name]) for name in CANDIDATE_RECIPES}
    assert choosing_of("--epochs", "200") is choosing_of("--hidden", "64") is choosing_of("--recipe", "public") is None
    assert choosing_of(smoke=True) is None


def test_options_beside_auto_hold_for_every_candidate() -> None:
    """They are no choice any more."""
    asked = choosing_of("--recipe", "auto", "--hidden", "8", "--seeds", "3,4")
    assert asked is not None
    assert {(one.hidden, one.seeds) for one in asked.candidates.values()} == {(8, (3, 4))}
