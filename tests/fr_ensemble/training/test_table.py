"""test_table.py: what the trainers learn from: scales of the training rows alone, and corpora that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from corpora import make_corpus
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, prepare

from registry_tool.errors import InputError


def test_a_scale_sees_the_training_rows_alone() -> None:
    """A fold's scaler and target scale come from its training rows; the final members' from all rows."""
    data = make_corpus([30, 1, 20, 25], conditioning=2)
    table = prepare(data)
    for fold in (0, 1, 2, 3, FINAL_FOLD):
        rows, fit = data.source != fold, table.scales[fold]
        np.testing.assert_allclose(fit.scaler.mean, data.numeric[rows].mean(0), rtol=1e-13)
        np.testing.assert_allclose(fit.scaler.std, data.numeric[rows].std(0), rtol=1e-13)
        np.testing.assert_allclose(fit.target_mean, data.target[rows].mean(), rtol=1e-13)
        np.testing.assert_allclose(fit.target_std, data.target[rows].std(), rtol=1e-13)


def test_far_units_keep_their_digits() -> None:
    """A column of a small spread far from zero: figures of sources, put together, do not cancel."""
    data = make_corpus([30, 20, 25], conditioning=1)
    far = replace(data, conditioning=1e9 + data.conditioning)
    std = prepare(far).scales[0].scaler.std[-1]
    assert std == pytest.approx(far.conditioning[data.source != 0].std(), rel=1e-12)


@pytest.mark.parametrize("only", [None, 1])
def test_a_constant_column_has_deviation_one(only: int | None) -> None:
    """In a fold where it is constant, at the constant itself, though another source has other values."""
    data = make_corpus([30, 20, 25], conditioning=1)
    values = np.full((75, 1), 0.1)
    if only is not None:
        values[data.source == only] = data.conditioning[data.source == only]
    scales = prepare(replace(data, conditioning=values)).scales
    assert (scales[1].scaler.mean[-1], scales[1].scaler.std[-1]) == (0.1, 1.0)
    assert (scales[0].scaler.std[-1] == 1.0) == (only is None)


def test_raw_conditions_are_not_scaled() -> None:
    """Mean 0 and deviation 1 in every fold, for conditions alone; features and target have the scales that they had."""
    data = make_corpus([30, 20, 25], conditioning=2)
    raw, scaled = prepare(data, raw_conditions=True).scales, prepare(data).scales
    for fold in scaled:
        assert raw[fold].scaler.mean.tolist() == [*scaled[fold].scaler.mean[:6], 0.0, 0.0]
        assert raw[fold].scaler.std.tolist() == [*scaled[fold].scaler.std[:6], 1.0, 1.0]
        assert (raw[fold].target_mean, raw[fold].target_std) == (scaled[fold].target_mean, scaled[fold].target_std)


def test_sources_may_stand_in_any_order() -> None:
    """Shuffled rows have the same scales, to rounding."""
    data = make_corpus([30, 20, 25])
    order = np.random.default_rng(0).permutation(75)
    parts = {name: getattr(data, name)[order] for name in ("features", "codec", "conditioning", "target", "source")}
    for fold, fit in prepare(replace(data, **parts)).scales.items():
        np.testing.assert_allclose(fit.scaler.std, prepare(data).scales[fold].scaler.std, rtol=1e-12)


def test_a_row_is_a_record() -> None:
    """Numeric columns, slot, target; what a model judges is what it holds out, or everything."""
    data = make_corpus([3, 2], conditioning=1)
    table = prepare(data)
    assert table.rows.shape == (5, 16)
    assert np.array_equal(table.rows[:, :7], data.numeric.astype(np.float32))
    assert np.array_equal(table.rows[:, 7:9], np.stack([data.codec, data.target], axis=1).astype(np.float32))
    assert not table.rows.flags.writeable
    assert (table.inputs, table.n_numeric) == (6 + 5 + 1, 7)
    assert [table.judged(ModelKey(fold, 0)).tolist() for fold in (1, FINAL_FOLD)] == [[3, 4], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"features": np.full((20, 6), np.nan)}, "NaN"),
        ({"source": np.zeros(20, np.int64)}, "source"),
        ({"target": np.full(20, np.inf)}, "infinity"),
    ],
)
def test_unusable_corpus(change: dict[str, Any], word: str) -> None:
    """A corpus that cannot be trained on is refused before any work, saying what was found."""
    with pytest.raises(InputError, match=word):
        prepare(replace(make_corpus([10, 10]), **change))
