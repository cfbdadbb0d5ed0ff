"""targets.py: whether rows, or another entry, mean the same score as an entry does. Reads no rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fr_ensemble.artifacts.manifest import definition_of
from fr_ensemble.corpus.record import read_definition
from fr_ensemble.corpus.vmaf_models import same_features
from registry_tool.errors import InputError
from registry_tool.values import Json


def check_target(entry_id: str, manifest: Mapping[str, Json], corpus: Path) -> list[str]:
    """Raises InputError for rows whose target is by another model than the entry's; a warning where none names it."""
    expected, name = definition_of(manifest), manifest["target"]["name"]
    if expected is None:
        return []
    found = read_definition(corpus, name)
    if found is None:
        return [
            f"{corpus} does not name the model of its {name}: it is compared as {expected.model}, which it may not be"
        ]
    if found.model != expected.model:
        raise InputError(
            f"{corpus}: its {name} is by {found.model}, expected {expected.model}, which {entry_id} predicts: score it "
            "with that model"
        )
    return []


def check_features(entry_id: str, manifest: Mapping[str, Json], corpus: Path) -> None:
    """Raises InputError for rows whose features are another model's; those of NEG have the same names."""
    expected, found = definition_of(manifest), read_definition(corpus, manifest["target"]["name"])
    if expected is not None and found is not None and not same_features(expected.model, found.model):
        raise InputError(
            f"{corpus}: its features are those of {found.model}, expected those of {expected.model}, which {entry_id} "
            "learned from: compute them with that model"
        )


def check_same_target(entry_id: str, manifest: Mapping[str, Json], other_id: str, other: Mapping[str, Json]) -> None:
    """Raises InputError for two entries that predict two things; manifests of version 1 name no target."""
    if "target" not in manifest or "target" not in other:
        return
    one, two = manifest["target"]["name"], other["target"]["name"]
    if one != two:
        raise InputError(f"{other_id} predicts {two}, expected {one} as {entry_id}: name another entry")
    first, second = definition_of(manifest), definition_of(other)
    if first is not None and second is not None and first.model != second.model:
        raise InputError(
            f"{other_id} predicts {two} by {second.model}, expected {first.model} as {entry_id}: name another entry"
        )
