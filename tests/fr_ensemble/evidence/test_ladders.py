"""Tests of ladders.py: figures of clips, the score of a ladder by hand, and how seldom controlled choices fail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.ladders import MEAN, ClipStatistic, Ladders, clips_as_rows, ladders_of
from predictions import CORPUS, OOF

from registry_tool.errors import InputError

VALUES = np.random.default_rng(0).normal(size=(3, 17))


def test_figures_of_a_clip() -> None:
    """The mean and a percentile are numpy's; the worst window is the least mean of neighbours, one by one."""
    assert np.array_equal(MEAN.of(VALUES), VALUES.mean(axis=1))
    assert np.array_equal(ClipStatistic(percentile=5.0).of(VALUES), np.percentile(VALUES, 5.0, axis=1))
    for window in (1, 4, 16, 17, 30):
        n = min(window, 17)
        means = [[row[at : at + n].mean() for at in range(17 - n + 1)] for row in VALUES]
        assert ClipStatistic(window=window).of(VALUES) == pytest.approx(np.min(means, axis=1))


@pytest.mark.parametrize(
    ("percentile", "window", "words"),
    [(5.0, 3, "found both"), (101.0, None, "from 0 to 100"), (math.nan, None, "from 0 to 100"), (None, 0, "1 or more")],
)
def test_figures_that_mean_nothing_are_refused(percentile: float | None, window: int | None, words: str) -> None:
    """Two at once, percentiles outside 0..100, windows without a row."""
    with pytest.raises(InputError, match=words):
        ClipStatistic(percentile, window)


def test_clips_become_rows() -> None:
    """Each clip's target and scores are the figure of its rows, and its source is theirs."""
    order = np.argsort(OOF.source, kind="stable")
    clip = np.empty(160, np.int64)
    clip[order] = np.arange(160) // 2
    names = tuple(f"c{i}" for i in range(80))
    clips = clips_as_rows(replace(OOF, clips=names, clip=clip), ClipStatistic(percentile=0.0))
    assert (len(clips.target), clips.clips) == (80, None)
    for number in (0, 17, 79):
        rows = clip == number
        assert clips.target[number] == OOF.target[rows].min()
        assert clips.predictions[:, number] == pytest.approx(OOF.predictions[:, rows].min(axis=1))
        assert clips.source[number] == OOF.source[rows][0]
    with pytest.raises(InputError, match="found no clips"):
        clips_as_rows(replace(OOF, clip=None, clips=None), MEAN)


def test_ladders_are_of_a_source_and_an_encoder() -> None:
    """Clips share one where both are the same; a sample that does not tell every clip's encoder tells none."""
    oof = replace(OOF, clips=tuple(f"c{i}" for i in range(160)), clip=np.arange(160))
    ladder = ladders_of(oof, Inputs.of(CORPUS, np.arange(160)))
    assert ladder is not None
    encoder = CORPUS.groups["encoder"].codes
    pairs = [(OOF.source[i], encoder[i]) for i in range(160)]
    for i, j in ((0, 1), (3, 90), (20, 21), (7, 159)):
        assert (ladder[i] == ladder[j]) == (pairs[i] == pairs[j])
    assert len(np.unique(ladder)) == len(set(pairs))
    assert ladders_of(oof, Inputs.of(CORPUS, np.arange(0, 160, 2))) is None


def test_the_quantile_of_four_sources_by_hand() -> None:
    """Each ladder's score is the most that an encode below the target is above it, in scales; sources share masses."""
    y = np.array([70.0, 85.0, 95.0, 60.0, 90.0, 50.0, 79.0, 88.0, 99.0, 99.5])
    mu = np.array([78.0, 84.0, 99.0, 84.0, 91.0, 40.0, 81.0, 70.0, 99.0, 99.0])
    source = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    ladder = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 4])
    known = Ladders(y, mu, np.full(10, 2.0), source, ladder)
    scores, sources = known.scores(80.0)
    assert scores.tolist() == [-1.0, 2.0, -20.0, 0.5, -math.inf]
    assert sources.tolist() == [0, 1, 2, 2, 3]
    quantiles = [known.quantile(80.0, level, by_source=False) for level in (0.5, 0.6, 0.8, 0.81)]
    assert quantiles == [0.0, 0.5, 2.0, math.inf]  # masses: .2 and .1 and .2; .1; .2; .2 at infinity
    assert known.quantile(80.0, 0.6, by_source=True) == 0.5
    assert known.gap() == np.quantile([12.5, 30.0, 9.0, 0.5], 0.1) / 2.0


def simulated(rng: np.random.Generator, sources: int) -> tuple[Float64, Float64]:
    """True figures and predictions of six encodes a source, (sources, 6)."""
    y = np.sort(rng.uniform(40.0, 95.0, (sources, 6)))
    return y, y + rng.normal(0.0, 2.0, (sources, 1)) + rng.normal(0.0, 2.0, (sources, 6))


@pytest.mark.parametrize("confidence", [0.8, 0.9])
def test_choices_of_a_new_source_fail_as_seldom_as_asked(confidence: float) -> None:
    """Whatever encodes cost, within what chance allows of 400 trials."""
    rng, failed = np.random.default_rng(1), 0
    for _ in range(400):
        y, mu = simulated(rng, 20)
        source = np.repeat(np.arange(19), 6)
        known = Ladders(y[:-1].ravel(), mu[:-1].ravel(), np.ones(19 * 6), source, source)
        q = known.quantile(70.0, confidence, by_source=False)
        assured = np.flatnonzero(mu[-1] - q >= 70.0)
        cost = rng.permutation(6)
        if len(assured):
            chosen = min(assured, key=lambda place: cost[place])
            failed += y[-1][chosen] < 70.0
    error = math.sqrt(confidence * (1 - confidence) / 400)
    assert failed / 400 <= 1 - confidence + 2 * error
