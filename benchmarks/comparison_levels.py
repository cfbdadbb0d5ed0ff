"""comparison_levels.py: how often intervals over few sources claim a difference that is none, by simulation.

    python benchmarks/comparison_levels.py [--draws N]

Each draw has K sources. First their differences (our RMSE less a baseline's), whose true mean is 0: how often is the
upper end of each 95 % interval below 0, where 2.5 % are meant? The sign-flip test is beside them. Then their PLCC: how
often does each 95 % interval of the mean hold the true mean?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.statistics import bootstrap_interval, t_interval

SOURCES = (3, 6, 9, 20)
LEVEL = 0.95
SKEW = 0.8  # log deviation of the skewed differences and of 1 - PLCC: as over AVT's nine sources
Sample = Callable[[np.random.Generator, int], Float64]

# Differences with a true mean of 0, by their shape.
DIFFERENCES: dict[str, Sample] = {
    "normal": lambda rng, k: rng.normal(size=k),
    "heavy tails (t, 3 df)": lambda rng, k: rng.standard_t(3, size=k),
    "few sources much worse": lambda rng, k: rng.lognormal(0.0, SKEW, k) - np.exp(SKEW**2 / 2),
    "few sources much better": lambda rng, k: np.exp(SKEW**2 / 2) - rng.lognormal(0.0, SKEW, k),
}


def sign_flip_p(values: Float64) -> float:
    """One-sided p of the sign-flip test that the mean is below 0: all 2^K signs, or 4,096 of them drawn."""
    k = len(values)
    if k <= 12:
        signs = 1 - 2 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (4096, k))
    return float(np.mean(signs @ values <= values.sum() + 1e-12))


def false_claims(sample: Sample, k: int, draws: int) -> dict[str, float]:
    """The share of draws that call an equal entry better, by method."""
    rng = np.random.default_rng([k, 1])
    found = {"bootstrap": 0, "t": 0, "sign flip": 0}
    for _ in range(draws):
        values = sample(rng, k)
        found["bootstrap"] += bootstrap_interval(values)[1] < 0.0
        found["t"] += t_interval(values)[1] < 0.0
        found["sign flip"] += sign_flip_p(values) <= (1.0 - LEVEL) / 2.0
    return {name: count / draws for name, count in found.items()}


def plcc_coverage(k: int, draws: int) -> dict[str, float]:
    """The share of draws whose interval holds the true mean PLCC; 1 - PLCC is log-normal over sources."""
    rng = np.random.default_rng([k, 2])
    true = 1.0 - 0.02 * np.exp(SKEW**2 / 2)
    found = {"bootstrap": 0, "t": 0}
    for _ in range(draws):
        values = 1.0 - 0.02 * rng.lognormal(0.0, SKEW, k)
        for name, (low, high) in (("bootstrap", bootstrap_interval(values)), ("t", t_interval(values))):
            found[name] += low <= true <= high
    return {name: count / draws for name, count in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    print(f"| {draws} draws each | sources | bootstrap | t | sign flip |\n| --- | ---: | ---: | ---: | ---: |")
    for name, sample in DIFFERENCES.items():
        for k in SOURCES:
            shares = false_claims(sample, k, draws)
            cells = [shares["bootstrap"], *((shares["t"], shares["sign flip"]) if k >= 6 else (None, None))]
            print(f"| {name} | {k} | " + " | ".join("" if share is None else f"{share:.3f}" for share in cells) + " |")
    print("\n| mean PLCC, share covered | sources | bootstrap | t |\n| --- | ---: | ---: | ---: |")
    for k in SOURCES:
        shares = plcc_coverage(k, draws)
        print(f"| | {k} | {shares['bootstrap']:.3f} | " + (f"{shares['t']:.3f} |" if k >= 6 else "|"))


if __name__ == "__main__":
    main()
