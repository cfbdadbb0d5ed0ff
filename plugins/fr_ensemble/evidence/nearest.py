"""nearest.py: how far rows are from those that training had, and what is far. Opens no file and runs no model.

A row's distance is that of its standardised numeric inputs to the nearest of some hundred rows of the evidence. What is
far follows from the same rows, each measured to those of other sources: a share of a new source's are, if it is alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Scaler
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.inputs import Inputs, chosen_rows

REFERENCE_ROWS = 256
JUDGED_ROWS = 2048  # of which the share is taken
NEAREST_CHUNK = 1024  # rows measured at once


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """points: float64 (m, D), standardised inputs of rows that training had. limit: the distance that is far."""

    points: Float64
    limit: float

    @classmethod
    def of(cls, inputs: Inputs, source: Int64, spec: ColumnSpec, scaler: Scaler, share: float) -> ReferenceRows:
        """source: of each row of the corpus, (n,). share: of the rows that are nearer than the limit.

        Raises EvidenceProblem for inputs that are not the spec's.
        """
        apart = apart_from_others(inputs, source, spec, scaler)[chosen_rows(len(inputs.row), JUDGED_ROWS)]
        known = apart[np.isfinite(apart)]
        limit = float(np.quantile(known, share)) if len(known) else np.inf
        return cls(_standard(inputs, spec, scaler)[chosen_rows(len(inputs.row), REFERENCE_ROWS)], limit)

    def distance(self, standard: Float64) -> Float64:
        """Of rows (n, D) to the nearest point, (n,): root of the sum of squares, in deviations of a column."""
        n, dimensions = standard.shape
        found, rows = np.empty(n), np.ones((min(n, NEAREST_CHUNK), dimensions + 1))
        # |x - p|^2 = |x|^2 + (x, 1) (-2 p, |p|^2): one product, and the least of each column in the processor's cache
        folded = np.column_stack([-2.0 * self.points, np.square(self.points).sum(axis=1)])
        for first in range(0, n, NEAREST_CHUNK):
            part = standard[first : first + NEAREST_CHUNK]
            rows[: len(part), :dimensions] = part
            squared = (folded @ rows[: len(part)].T).min(axis=0)
            found[first : first + NEAREST_CHUNK] = squared + np.square(part).sum(axis=1)
        return np.sqrt(np.maximum(found, 0.0))


def apart_from_others(inputs: Inputs, source: Int64, spec: ColumnSpec, scaler: Scaler) -> Float64:
    """Distance of each row of the inputs, (m,), to the nearest reference row of another source; inf where none is."""
    standard, group = _standard(inputs, spec, scaler), source[inputs.row]
    points, found = chosen_rows(len(standard), REFERENCE_ROWS), np.empty(len(standard))
    for first in range(0, len(standard), NEAREST_CHUNK):
        part = slice(first, first + NEAREST_CHUNK)
        own = group[part][:, None] == group[points]
        found[part] = np.where(own, np.inf, squares(standard[part], standard[points])).min(axis=1)
    return np.sqrt(found)


def _standard(inputs: Inputs, spec: ColumnSpec, scaler: Scaler) -> Float64:
    standard: Float64 = (inputs.transformed(spec) - scaler.mean) / scaler.std
    return standard


def squares(rows: Float64, points: Float64) -> Float64:
    """Squared distances, (n, m)."""
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(points).sum(axis=1)
    apart: Float64 = np.maximum(lengths - 2.0 * rows @ points.T, 0.0)
    return apart
