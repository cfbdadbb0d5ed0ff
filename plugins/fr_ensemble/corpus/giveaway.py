"""giveaway.py: input columns that give the target away. Judges nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.corpus.vocabulary import is_libvmaf_feature

GIVEAWAY_CORRELATION = 0.99  # |Pearson's r| with the target, mean over sources


def giveaways(names: Sequence[str], forms: Sequence[Sequence[Float64]], target: Float64, source: Int64) -> list[str]:
    """A line for each input column that follows the target in every source; libvmaf's own may do so.

    forms: the inputs, C columns (n,) each: as the file has them, and as models take them.
    """
    found = []
    sources = [source == one for one in np.unique(source)]
    for place, name in enumerate(names):
        if is_libvmaf_feature(name):
            continue
        means = [np.mean([abs(_correlation(form[place][rows], target[rows])) for rows in sources]) for form in forms]
        if (mean := float(max(means))) > GIVEAWAY_CORRELATION:
            correlation = f"|r| with the target is {mean:.3f}, mean over sources"
            found.append(f"input column {name}: its {correlation}: is it made from the target?")
    return found


def _correlation(x: Float64, y: Float64) -> float:
    """Pearson's r; 0 for a constant."""
    a, b = x - x.mean(), y - y.mean()
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0.0 else 0.0
