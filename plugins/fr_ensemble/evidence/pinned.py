"""pinned.py: the out-of-fold predictions of an open entry, read and measured once for all who ask. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from fr_ensemble.artifacts.manifest import OOF_PATH
from fr_ensemble.evidence.measure import Figures
from fr_ensemble.evidence.oof import Oof, read_oof
from registry_tool.hookspec import EntryView


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Predictions:
    """Out-of-fold predictions and their LOSO figures. They are shared, so nobody can write to their arrays."""

    oof: Oof
    figures: Figures

    @classmethod
    def of(cls, oof: Oof) -> Predictions:
        return cls(oof, Figures.of(oof))


# Known by the very bytes they came from, compared whole, so that a file that changed is measured anew; known as long as
# a view that read them is open.
_known: WeakValueDictionary[bytes, Predictions] = WeakValueDictionary()
_held: WeakKeyDictionary[EntryView, Predictions] = WeakKeyDictionary()


def predictions(view: EntryView) -> Predictions:
    """What the entry pins at OOF_PATH. Raises KeyError where it pins nothing there, EvidenceProblem for bad bytes."""
    data = view.read(OOF_PATH)
    found = _known.get(data)
    if found is None:
        found = _known[data] = Predictions.of(read_oof(data))
        for part in (found.oof, found.figures):
            for array in (getattr(part, field.name) for field in fields(part)):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)
    _held[view] = found
    return found
