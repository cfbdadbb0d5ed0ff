"""gate_power.py: whether what the gate says that its rules can see is so, by simulation.

    python benchmarks/gate_power.py [--bodies N] [--rulings N] [--sources K ...] [--errors E ...]

A world is a model and as many sources as one asks for: each source has a difficulty of its own, log-normal over
sources, so that its correlation and error differ. Evidence of K sources from it is judged by the default policy. The
truth is how often evidence of a world is held; the gate's estimate follows from one body of evidence. A model exactly
as good as its evidence is one whose evidence has the world's own mean PLCC: such bodies of evidence are compared with
the truth, and beside them all bodies, whose luck moves the estimate. Then noise of the size that the gate names is
added to the world's predictions: four times in five should they be held.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

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


def held(world: World, k: int, rulings: int, seed: int) -> float:
    rng = np.random.default_rng([seed, k])
    return float(np.mean([judged(world.evidence(rng, k))[0] for _ in range(rulings)]))


def estimates(world: World, k: int, bodies: int, seed: int) -> tuple[list[Power], list[bool]]:
    """What the gate says of some bodies of evidence, and whether each has the world's own mean PLCC."""
    rng = np.random.default_rng([seed, k, 1])
    found, means = [], []
    for _ in range(bodies):
        _, inputs, metrics = judged(world.evidence(rng, k))
        said = power(inputs, DEFAULT_POLICY.rules, metrics)
        if said is not None:
            found.append(said)
            means.append(metrics["mean_plcc"])
    near = np.abs(np.array(means) - np.mean(means)) <= NEAR * np.std(means)
    return found, near.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bodies", type=int, default=120, help="of evidence, of each world")
    parser.add_argument("--rulings", type=int, default=300, help="from which the truth is counted")
    parser.add_argument("--sources", type=int, nargs="+", default=[9, 20])
    parser.add_argument("--errors", type=float, nargs="+", default=[0.2, 0.23, 0.26], help="median error of a world")
    options = parser.parse_args()
    print("| sources | median error | held, truth | gate, exactly as good | gate, all | caught at the rise it names |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for k in options.sources:
        for error in options.errors:
            world = World(error)
            truth = held(world, k, options.rulings, 0)
            said, near = estimates(world, k, options.bodies, 1)
            exact = [one for one, is_near in zip(said, near, strict=True) if is_near]
            rises = [one.rise for one in exact if one.rise is not None and one.held < 0.8]
            caught = ""
            if rises:
                noise = _noise_of(world, float(np.median(rises)), k)
                caught = f"{held(replace(world, noise=noise), k, options.rulings, 2):.2f} (+{np.median(rises):.2f})"
            of_exact, of_all = (np.mean([one.held for one in group]) for group in (exact, said))
            print(f"| {k} | {error:.2f} | {truth:.2f} | {of_exact:.2f} | {of_all:.2f} | {caught} |", flush=True)


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
