"""choice.py: which of some recipes was chosen in which fold, by what errors. Trains nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fr_ensemble.artifacts.recipe import Recipe
from registry_tool.values import Json

CHOICE_RULE = "grouped-5-fold"  # of the training sources, one seed, fewer epochs: see training/choosing.py
ERROR_MARGIN = 0.05  # of the first recipe's error: what one seed and few sources cannot tell apart stays the default


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """errors: by recipe, its RMSE on the fold's training sources, a mean over them, target units."""

    errors: Mapping[str, float]

    @property
    def chosen(self) -> str:
        """The recipe with the least error, if it is less than the first one's by ERROR_MARGIN; else the first."""
        first, best = next(iter(self.errors)), min(self.errors, key=lambda name: self.errors[name])
        return best if self.errors[best] < (1.0 - ERROR_MARGIN) * self.errors[first] else first


@dataclass(frozen=True, slots=True)
class RecipeChoice:
    """What was chosen for each source's fold, and for the members that ship. candidates: the default first.

    Raises ValueError for a choice among other recipes than the candidates, or by errors that are no numbers.
    """

    candidates: Mapping[str, Recipe]
    folds: Mapping[str, FoldChoice]  # by the source held out
    final: FoldChoice

    def __post_init__(self) -> None:
        for place, one in (*self.folds.items(), ("all sources", self.final)):
            if [*one.errors] != [*self.candidates] or not one.errors:
                found, expected = ", ".join(one.errors), ", ".join(self.candidates)
                raise ValueError(f"recipe_choice, {place}: found errors of {found}, expected those of {expected}")
            if bad := [name for name, error in one.errors.items() if not 0.0 <= error < math.inf]:
                found = f"the error {one.errors[bad[0]]} of {bad[0]}"
                raise ValueError(f"recipe_choice, {place}: found {found}, expected a finite number >= 0")

    @property
    def recipe(self) -> Recipe:
        """Of the members that ship."""
        return self.candidates[self.final.chosen]

    def to_dict(self) -> dict[str, Json]:
        """As in the manifest; `from_dict` reads it back."""
        folds = [{"held_out": name, **_document(one)} for name, one in self.folds.items()]
        candidates = [{"name": name, "recipe": recipe.to_dict()} for name, recipe in self.candidates.items()]
        return {"rule": CHOICE_RULE, "candidates": candidates, **_document(self.final), "folds": folds}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> RecipeChoice:
        """Raises ValueError for a document that `to_dict` did not write."""
        try:
            candidates = {one["name"]: Recipe.from_dict(one["recipe"]) for one in document["candidates"]}
            errors = [dict(zip(candidates, one["rmse"], strict=True)) for one in (*document["folds"], document)]
            *folds, final = map(FoldChoice, errors)
            names = [one["held_out"] for one in document["folds"]]
            choice = cls(candidates, dict(zip(names, folds, strict=True)), final)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"recipe_choice: {type(error).__name__}: {error}, expected what training writes"
            ) from error
        if choice.to_dict() != document:
            raise ValueError(
                "recipe_choice: found another choice than its errors give, expected the clearly least error"
            )
        return choice

    def problems(self, recipe: Recipe, sources: Sequence[str]) -> Iterator[str]:
        """Where the choice is not that of an entry's recipe and sources."""
        if self.recipe != recipe:
            yield f"recipe_choice: found {self.final.chosen!r} chosen, which is another recipe than the entry's"
        if [*self.folds] != [*sources]:
            yield "recipe_choice: found folds of other sources than the corpus has, expected one of each"

    def line(self) -> str:
        """For people: the recipe that ships, and what the folds chose."""
        counts = Counter(one.chosen for one in self.folds.values())
        folds = ", ".join(f"{name} in {count}" for name, count in counts.most_common())
        return f"recipe {self.final.chosen}, chosen on the training sources alone; of {len(self.folds)} folds: {folds}"


def choice_of(manifest: Mapping[str, Json]) -> RecipeChoice | None:
    """Of a manifest; None where training chose none. Raises ValueError for what training never writes."""
    return RecipeChoice.from_dict(manifest["recipe_choice"]) if "recipe_choice" in manifest else None


def _document(one: FoldChoice) -> dict[str, Json]:
    return {"chosen": one.chosen, "rmse": [*one.errors.values()]}
