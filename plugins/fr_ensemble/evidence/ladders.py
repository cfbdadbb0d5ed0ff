"""ladders.py: how far predictions may be trusted when they choose an encode: ladders whose truth is known, and the
quantile that keeps a choice's failures at a level. Knows no model and no file.

A ladder is the encodes of one source by one encoder. Each whose mu - q scale reaches the target is assured, and the
cheapest of these is chosen. A choice fails where its true figure is below the target, so only where some encode below
the target is assured. On a ladder whose truth is known that depends on q alone: it is so for q up to one number, the
ladder's score. The share of a source's ladders that fail so falls as q grows, and q is controlled over sources as a
risk is (Angelopoulos, Bates, Fisch, Lei & Schuster 2024, Conformal risk control): each source has the mass 1/(K + 1),
shared by its ladders, and the new source's mass is at infinity. Whatever encodes cost, no more fail than are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.methods import RANK_TOLERANCE
from fr_ensemble.evidence.oof import Oof, used_names
from fr_ensemble.evidence.statistics import group_rows
from registry_tool.errors import InputError

CONTROL_RULE = "conformal-risk-control"
CONTROL_GUARANTEE = (
    "of a new source's choices at most 1 - confidence fail, on average over sources, for encodes as far apart as the "
    "calibration's; after a full refit approximate"
)
FINER_SHARE = 0.1  # share of the calibration's ladders that may be finer than their `gap`


@dataclass(frozen=True, slots=True)
class ClipStatistic:
    """What of a clip's rows a target is about: their mean, a percentile, or the worst mean of so many in a row."""

    percentile: float | None = None  # 0..100, linear between rows
    window: int | None = None  # rows, in the order of the file; a shorter clip is one window

    def __post_init__(self) -> None:
        if self.percentile is not None and self.window is not None:
            raise InputError("--percentile and --worst-window: found both, expected one: leave one of them out")
        if self.percentile is not None and not 0.0 <= self.percentile <= 100.0:
            raise InputError(f"--percentile: found {self.percentile:g}, expected a number from 0 to 100")
        if self.window is not None and self.window < 1:
            raise InputError(f"--worst-window: found {self.window}, expected 1 or more rows")

    @property
    def is_mean(self) -> bool:
        return self.percentile is None and self.window is None

    @property
    def min_rows(self) -> int:
        """How many rows a clip has to have; of fewer, the statistic is of another part of it than is asked for."""
        if self.window is not None:
            return self.window
        tail = 0.0 if self.percentile is None else min(self.percentile, 100.0 - self.percentile)
        return math.ceil(round(100.0 / tail, 6)) if tail > 0.0 else 1

    def of_few_rows(self) -> str:
        """What is said of clips with fewer."""
        few = f"clips of fewer than {self.min_rows} rows"
        if self.percentile is None:
            return f"{few}: the mean of all of them is taken for the worst window"
        return f"{few}, too few for {self}: it is near their {'lowest' if self.percentile < 50.0 else 'highest'} row"

    def __str__(self) -> str:
        if self.percentile is not None:
            return f"percentile {self.percentile:g}"
        return "mean" if self.window is None else f"worst mean of {self.window} rows"

    def of(self, values: Float64) -> Float64:
        """Of one clip's rows (..., n): (...)."""
        found: Float64
        if self.percentile is not None:
            found = np.percentile(values, self.percentile, axis=-1)
        elif self.window is None or self.window >= values.shape[-1]:
            found = values.mean(axis=-1)
        else:
            sums = np.cumsum(values, axis=-1)
            ends, starts = sums[..., self.window - 1 :], sums[..., : -self.window]
            found = np.concatenate([ends[..., :1], ends[..., 1:] - starts], axis=-1).min(axis=-1) / self.window
        return found


MEAN = ClipStatistic()


def clips_as_rows(oof: Oof, statistic: ClipStatistic) -> Oof:
    """Predictions of clips: each row is a clip, its target and its members' scores the statistic of its rows'.

    Raises InputError where clips are not known.
    """
    if oof.clip is None or oof.clips is None:
        raise InputError("interval for clips: found no clips in the corpus, expected a `clip` column: add one")
    parts = group_rows(oof.clip, len(oof.clips))
    target = np.array([statistic.of(oof.target[rows]) for rows in parts])
    predictions = np.stack([statistic.of(oof.predictions[:, rows]) for rows in parts], axis=1)
    first = [rows[0] for rows in parts]
    encoders, encoder = None, None
    if oof.encoder is not None:
        encoders, encoder = used_names(oof.encoders or (), oof.encoder[first])  # a clip is of its first row's encoder
    return replace(
        oof,
        source=oof.source[first],
        clips=None,
        clip=None,
        target=target,
        predictions=predictions,
        vmaf=None,
        encoders=encoders,
        encoder=encoder,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Ladders:
    """C encodes of K sources whose truth is known. y: true statistics, (C,); mu and scale as predicted, (C,)."""

    y: Float64
    mu: Float64
    scale: Float64
    source: Int64  # (C,), 0..K-1
    ladder: Int64  # (C,), of one source each

    @classmethod
    def of(cls, clips: Oof, ladder: Int64, scale: Callable[[Float64], Float64]) -> Ladders:
        """clips: as `clips_as_rows` gives them. scale: of sigma."""
        return cls(clips.target, clips.mu, scale(clips.sigma), clips.source, ladder)

    def scores(self, target: float) -> tuple[Float64, Int64]:
        """Of each ladder, (L,), up to which q an encode below the target is assured, -inf: for none; and its source."""
        scores, sources = [], []
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(self.mu >= target, 1.0, -1.0) * np.inf
            room = np.where(self.scale > 0.0, (self.mu - target) / self.scale, room)
        for rows in self._ladders():
            scores.append(float(room[rows[self.y[rows] < target]].max(initial=-math.inf)))
            sources.append(int(self.source[rows[0]]))
        return np.array(scores), np.array(sources)

    def gap(self) -> float:
        """Half of what all but FINER_SHARE of the ladders have between neighbours, at their median, target units.

        A ladder below it is finer than these: half, since predictions are nearer to each other than the truth. Without
        ladders of two encodes infinite.
        """
        gaps = [np.median(np.diff(np.sort(self.y[rows]))) for rows in self._ladders() if len(rows) > 1]
        return float(np.quantile(gaps, FINER_SHARE)) / 2.0 if gaps else math.inf

    def _ladders(self) -> list[Int64]:
        order = np.argsort(self.ladder, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.ladder[order])) + 1)

    def quantile(self, target: float, confidence: float, *, by_source: bool) -> float:
        """The least q >= 0 whose choices fail so seldom; infinite where the sources are too few to say.

        by_source: a source fails where any of its ladders does; else by the share of its ladders that do.
        """
        scores, source = self.scores(target)
        if by_source:
            numbers, place = np.unique(source, return_inverse=True)
            worst = np.full(len(numbers), -math.inf)
            np.maximum.at(worst, place, scores)
            scores, source = worst, numbers
        counts = np.bincount(source)
        mass = 1.0 / ((np.count_nonzero(counts) + 1) * counts[source])
        order = np.argsort(scores, kind="stable")
        at = int(np.searchsorted(np.cumsum(mass[order]), confidence - RANK_TOLERANCE))
        return max(float(scores[order[at]]), 0.0) if at < len(order) else math.inf


def ladders_of(oof: Oof, inputs: Inputs) -> Int64 | None:
    """The ladder of each clip, (C,): its source and encoder; None where the inputs do not tell every clip's encoder."""
    if oof.clip is None or oof.clips is None or len(oof.target) != inputs.n_rows:
        return None
    encoder = np.full(len(oof.clips), -1)
    encoder[oof.clip[inputs.row]] = inputs.encoder
    if (encoder < 0).any():
        return None
    source = np.zeros(len(oof.clips), np.int64)
    source[oof.clip] = oof.source
    return np.unique(source * len(inputs.encoders) + encoder, return_inverse=True)[1].astype(np.int64)
