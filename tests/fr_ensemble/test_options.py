"""Tests of options.py: the recipe that options ask for."""

from __future__ import annotations

import click
import pytest
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.options import OPTIONS, RECIPES, job_of

from registry_tool.hookspec import TrainRequest


def recipe_of(*arguments: str, smoke: bool = False) -> Recipe:
    options = click.Command("train", params=list(OPTIONS)).make_context("train", list(arguments)).params
    return job_of(TrainRequest("fr_ensemble", "x", smoke=smoke, options=options)).recipe


def test_without_options_the_recipe_is_the_public_one() -> None:
    """Word by word what the defaults of a recipe are, so that older command lines train the same ensemble."""
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
