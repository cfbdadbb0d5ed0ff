"""oof.py: an ensemble's out-of-fold predictions as entries of other kinds are compared with them. Measures nothing."""

from __future__ import annotations

from fr_ensemble.evidence.entry import checked_evidence
from fr_ensemble.evidence.oof import Oof
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, OofPredictions


def oof_predictions(view: EntryView) -> OofPredictions:
    """Raises InputError for evidence that cannot be read, or that the manifest or the models contradict."""
    found = checked_evidence(view)
    if found.problems:
        raise InputError(f"{view.entry.id}: {found.problems[0]}")
    return as_predictions(view.entry.id, found.oof)


def as_predictions(entry_id: str, oof: Oof) -> OofPredictions:
    """The members' mean of each row."""
    sources = [oof.sources[g] for g in oof.source.tolist()]
    return OofPredictions(entry_id, sources, oof.target.tolist(), oof.mu.tolist())
