"""gate_power.py: whether what the gate says that its rules can see is so, by simulation.

    python benchmarks/gate_power.py [--bodies N] [--rulings N] [--sources K ...] [--errors E ...]

A world is a model and as many sources as one asks for: each source has a difficulty of its own, log-normal over
sources, so that its correlation and error differ. Evidence of K sources from it is judged by the default policy. The
truth is how often evidence of a world is held; the gate's estimate follows from one body of evidence. A model exactly
as good as its evidence is one whose evidence has the world's own mean PLCC: such bodies of evidence are looked for and
compared with the truth, and beside them any bodies, whose luck moves the estimate. Then noise of the size that the gate
names is added to the world's predictions: four times in five should they be held. Each share has its standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.power import Power, power
from fr_ensemble.plugin import DEFAULT_POLICY

SEEDS, ROWS = 5, 60
DIFFICULTY_SPREAD = 0.5  # log deviation of errors over sources, as over AVT's
MEMBER_SHARE = 0.15  # of the error, in which members differ
MANY = 1000  # sources, for a mean that is nearly the world's
LEAST_REACH = 1e-3  # of mean PLCC, where the deviation is counted from a few bodies
NEAR = 0.15  # standard errors of mean PLCC within which evidence counts as exactly as good as its world


@dataclass(frozen=True, slots=True)
class World:
    """A model: the median of its errors over sources, in target deviations; noise beside them, added to predictions."""

    error: float
    noise: float = 0.0

    def evidence(self, rng: np.random.Generator, k: int) -> Oof:
        """Out-of-fold predictions of K new sources."""
        source = np.repeat(np.arange(k), ROWS)
        target = np.clip(rng.normal(50.0, 20.0, k * ROWS), 0.0, 100.0)
        error = 20.0 * self.error * rng.lognormal(0.0, DIFFICULTY_SPREAD, k)[source]
        mu = target + rng.normal(size=len(target)) * error + rng.normal(size=len(target)) * self.noise
        members = mu + rng.normal(size=(SEEDS, len(target))) * MEMBER_SHARE * error
        names = tuple(f"s{place}" for place in range(k))
        return Oof(tuple(range(SEEDS)), names, source, None, None, target, members, "r", "c", None)


def judged(oof: Oof) -> tuple[bool, MetricInputs, dict[str, float]]:
    """Whether the default policy holds the evidence."""
    inputs = MetricInputs(FoldScores.of(oof), oof)
    metrics = compute_metrics(inputs)
    return not all(rule.holds(metrics[rule.metric]) for rule in DEFAULT_POLICY.rules), inputs, metrics


@dataclass(frozen=True, slots=True)
class Share:
    """A share and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Share:
        return cls(float(np.mean(values)), float(np.std(values) / np.sqrt(len(values))))

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.error:.3f})"


def held(world: World, k: int, rulings: int, seed: int) -> tuple[Share, list[float]]:
    """How often evidence is held, and the mean PLCC of each body."""
    rng = np.random.default_rng([seed, k])
    ruled = [judged(world.evidence(rng, k)) for _ in range(rulings)]
    return Share.of([float(is_held) for is_held, _, _ in ruled]), [metrics["mean_plcc"] for _, _, metrics in ruled]


def estimates(world: World, k: int, bodies: int, seed: int, means: list[float]) -> tuple[list[Power], list[Power]]:
    """What the gate says of bodies of evidence with the world's own mean PLCC, and of any.

    means: of many bodies, which tell what the world's own is.
    """
    rng, centre, reach = np.random.default_rng([seed, k, 1]), np.mean(means), max(NEAR * np.std(means), LEAST_REACH)
    near: list[Power] = []
    some: list[Power] = []
    while len(near) < bodies:
        oof = world.evidence(rng, k)
        is_near = bool(abs(_mean_plcc(oof, k) - centre) <= reach)
        if is_near or len(some) < bodies:
            _, inputs, metrics = judged(oof)
            said = power(inputs, DEFAULT_POLICY.rules, metrics)
            assert said is not None
            near += [said] * is_near
            some += [said] * (len(some) < bodies)
    return near, some


def _mean_plcc(oof: Oof, k: int) -> float:
    """The metric of this name, quickly: every source has as many rows."""
    x, y = oof.predictions.reshape(SEEDS, k, ROWS), oof.target.reshape(k, ROWS)
    a, b = x - x.mean(axis=2, keepdims=True), y - y.mean(axis=1, keepdims=True)
    return float(((a * b).sum(axis=2) / np.sqrt((a * a).sum(axis=2) * (b * b).sum(axis=1))).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bodies", type=int, default=60, help="of evidence, of each world")
    parser.add_argument("--rulings", type=int, default=300, help="from which the truth is counted")
    parser.add_argument("--sources", type=int, nargs="+", default=[9, 20])
    parser.add_argument("--errors", type=float, nargs="+", default=[0.2, 0.23, 0.26], help="median error of a world")
    options = parser.parse_args()
    print("| sources | median error | held, truth | gate, exactly as good | gate, any | caught at the rise it names |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for k, error in product(options.sources, options.errors):
        world = World(error)
        truth, means = held(world, k, options.rulings, 0)
        near, some = estimates(world, k, options.bodies, 1, means)
        rises = [one.rise for one in near if one.rise is not None and one.held < 0.8]
        caught = ""
        if rises:
            noise = _noise_of(world, float(np.median(rises)), k)
            share, _ = held(replace(world, noise=noise), k, options.rulings, 2)
            caught = f"{share} (+{np.median(rises):.2f})"
        of_near, of_some = (Share.of([one.held for one in group]) for group in (near, some))
        print(f"| {k} | {error:.2f} | {truth} | {of_near} | {of_some} | {caught} |", flush=True)


def _noise_of(world: World, rise: float, k: int) -> float:
    """The noise whose rise in RMSE, mean over many sources, is this one."""
    oof = world.evidence(np.random.default_rng(3), MANY)
    rmse = np.sqrt(np.bincount(oof.source, weights=np.square(oof.mu - oof.target)) / ROWS)
    low, high = 0.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if np.mean(np.hypot(rmse, middle) - rmse) < rise else (low, middle)
    return high


if __name__ == "__main__":
    main()
