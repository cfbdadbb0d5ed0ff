"""Tests of nearest.py: distances worked by hand and by scipy, and what is far for rows of a new source."""

from __future__ import annotations

import numpy as np
import pytest
from fr_ensemble.arrays import Scaler
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.nearest import REFERENCE_ROWS, ReferenceRows

SPEC = ColumnSpec(("a",), None, (Condition("rate", "log2"),))


def inputs_of(a: np.ndarray, rate: np.ndarray) -> Inputs:
    n = len(a)
    return Inputs(n, np.arange(n), a[:, None], rate[:, None], ("x264",), np.zeros(n, np.int64), np.zeros(n, np.int64))


def test_the_limit_is_the_distance_to_other_sources() -> None:
    """Two sources at 0 and 1, and at 4 and 6: the nearest of the other is 4, 3, 3 and 5 away."""
    a, rate = np.array([0.0, 1.0, 4.0, 6.0]), np.full(4, 8.0)
    scaler = Scaler(np.array([0.0, 3.0]), np.array([2.0, 1.0]))
    found = ReferenceRows.of(inputs_of(a, rate), np.array([0, 0, 1, 1]), SPEC, scaler, 0.5)
    assert found.limit == pytest.approx(3.5 / 2.0)
    rows = np.array([[0.0, 8.0], [9.0, 16.0]])
    standard = (np.column_stack([rows[:, 0], np.log2(rows[:, 1])]) - scaler.mean) / scaler.std
    assert found.distance(standard) == pytest.approx([0.0, np.hypot(1.5, 1.0)])


def test_one_source_has_no_limit() -> None:
    """Without another source nothing is known to be far."""
    scaler = Scaler(np.zeros(2), np.ones(2))
    found = ReferenceRows.of(inputs_of(np.arange(3.0), np.ones(3)), np.zeros(3, np.int64), SPEC, scaler, 0.95)
    assert found.limit == np.inf


def test_many_rows_are_thinned_and_distances_are_those_of_a_tree() -> None:
    """Rows from all over stand for thousands; the distance to them is scipy's, in chunks too."""
    spatial = pytest.importorskip("scipy.spatial")
    rng = np.random.default_rng(0)
    n = 5000
    inputs, scaler = inputs_of(rng.normal(size=n), rng.uniform(1, 9, n)), Scaler(np.zeros(2), np.ones(2))
    found = ReferenceRows.of(inputs, np.arange(n) // 500, SPEC, scaler, 0.95)
    assert len(found.points) == REFERENCE_ROWS
    rows = rng.normal(size=(20_000, 2))
    expected = spatial.cKDTree(found.points).query(rows)[0]
    assert found.distance(rows) == pytest.approx(expected, abs=1e-7)
