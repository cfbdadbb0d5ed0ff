"""usable.py: what is said of an entry whose evidence cannot be read, and what helps. Reads none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.values import Json


@contextmanager
def usable_evidence(entry_id: str, manifest: Mapping[str, Json]) -> Iterator[None]:
    """Files of evidence that are missing or of another form are no fault of the plugin: an InputError."""
    try:
        yield
    except (EvidenceProblem, KeyError) as error:  # a KeyError's own text has quotes around it
        raise InputError(f"{entry_id}: {error.args[0]}: {made_again(manifest)}") from error


def made_again(manifest: Mapping[str, Json]) -> str:
    """How an entry gets its evidence anew: nothing of a calibrated one is trained."""
    if "calibrated_from" not in manifest:
        return "train it again"
    parent = manifest["calibrated_from"]["id"]
    return f"calibrate {parent} again: `registry calibrate {parent} --corpus FILE --id NEW`"
