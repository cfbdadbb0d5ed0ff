"""loaded.py: the runtime and the intervals of an entry, as hooks use them. Reads pinned bytes only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.artifacts.paths import OOF_PATH
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.evidence.archive import EvidenceProblem
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.oof import Oof, read_oof
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView


def load_ensemble(view: EntryView) -> tuple[Mapping[str, Any], Ensemble]:
    """The manifest and the fused graph, loaded. Raises InputError for a version-1 manifest, which has none."""
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: its manifest has no fused graph, expected schema_version 2: train it again")
    try:
        return manifest, ensemble_of(manifest, view.read(manifest["fused"]["onnx"]))
    except ValueError as error:
        raise InputError(f"{view.entry.id}: {error}: run `registry validate`") from error


def ensemble_of(manifest: Mapping[str, Any], model: bytes) -> Ensemble:
    """A fused graph whose mu is inside the target's range, whatever its version. Raises what Ensemble raises."""
    low, high = manifest["target"]["range"]
    return Ensemble(model, mu_range=(low, high))


def intervals_of(view: EntryView, levels: Sequence[float]) -> Intervals:
    """The stored calibration, at these levels too; a level that is not stored is computed from the predictions."""
    with unusable_evidence(view.entry.id):
        return stored_intervals(view).with_levels(levels, lambda: calibrated_on(view.manifest or {}, view.read))


def predictions_of(view: EntryView) -> Oof:
    """The out-of-fold predictions. Raises InputError for bytes that are none, or too many to be measured."""
    with unusable_evidence(view.entry.id):
        return read_oof(view.read(OOF_PATH))


@contextmanager
def unusable_evidence(entry_id: str) -> Iterator[None]:
    """What is wrong with an entry's evidence is no fault of the plugin: InputError in the place of EvidenceProblem."""
    try:
        yield
    except EvidenceProblem as error:
        raise InputError(f"{entry_id}: {error}: train it again") from error


def stored_intervals(view: EntryView) -> Intervals:
    """The calibration in the manifest. Raises InputError where it cannot be read."""
    try:
        return Intervals.from_dict((view.manifest or {})["intervals"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{view.entry.id}: the intervals cannot be read ({error}): run `registry validate`") from error
