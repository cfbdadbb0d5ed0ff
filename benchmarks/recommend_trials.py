"""recommend_trials.py: how often `recommend` chooses an encode that is not good enough, and what its choices cost.

Each source of an entry's evidence is asked about as a new one: its encodes as predicted by models that did not see it,
all that is calibrated from the other sources. For targets between the 20th and the 80th percentile of true figures, or
those of --ask: failures (of ladders asked), overspend (cost over the cheapest that is truly good, mean of answers that
hold), how many of these answers are the cheapest, and how many questions that have an answer get none. Rules: `bound`
takes the cheapest encode whose lower bound reaches the target, as release 0.1.0 did; `choice` is what `recommend` does;
`mu` takes the cheapest whose mu does, with nothing to spare and nothing promised. First, simulated ladders whose
neighbours are a tenth of the error apart, with a calibration on ladders of ten errors: there `recommend` goes by
`sequence`.

    python benchmarks/recommend_trials.py [AVT-FOLDER] [--ask 60,98,2]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.ladders import MEAN, ClipStatistic, Ladders, clips_as_rows, ladders_of
from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS, LOWER_SIDE
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.options import RECIPES
from fr_ensemble.queries.recommend import BOUND, CHOICE, SEQUENCE
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train

MODEL = Path(__file__).parents[1] / "model" / "fr_vmaf_ensemble_v1"
CONFIDENCES = (0.8, 0.9, 0.95)
TARGETS = 13  # quantiles of the true figures, from the 20th percentile to the 80th
MU = "mu"
RULES = (BOUND, CHOICE, MU)


def answer(rows: Int64, cost: Float64, assured: Float64, target: float, rule: str) -> int | None:
    """The clip that a rule takes of one ladder's rows; None: no answer."""
    dearest = rows[np.argsort(-cost[rows], kind="stable")]
    holds = assured[dearest] >= target
    if rule == SEQUENCE:
        holds = np.cumprod(holds).astype(bool)
    kept = dearest[holds]
    return int(kept[-1]) if len(kept) else None


@dataclass(frozen=True)
class Asked:
    """By people: at which confidences, for how many targets."""

    confidences: tuple[float, ...]
    targets: int
    steps: tuple[float, float, float] | None = None  # targets from, to, by; else quantiles of the true figures

    def of(self, y: Float64) -> Float64:
        """The targets of a corpus whose true figures are y."""
        if self.steps is None:
            return np.quantile(y, np.linspace(0.2, 0.8, self.targets))
        low, high, step = self.steps
        return np.arange(low, high + step / 2.0, step)


def trial(clips: Oof, ladder: Int64, cost: Float64, statistic: str, asked: Asked) -> None:
    """The table of one corpus."""
    targets = asked.of(clips.target)
    low, high = float(clips.target.min()), float(clips.target.max())
    for confidence in asked.confidences:
        found: dict[str, list[tuple[int, bool, float, bool]]] = {
            rule: [] for rule in RULES
        }  # source, fails, over, none
        controlled = 0
        for held_out in range(len(clips.sources)):
            own, rest = clips.source == held_out, clips.source != held_out
            others = replace(
                clips,
                sources=tuple(name for g, name in enumerate(clips.sources) if g != held_out),
                source=np.unique(clips.source[rest], return_inverse=True)[1],
                target=clips.target[rest],
                predictions=clips.predictions[:, rest],
            )
            calibration = calibrate(others, "row", DEFAULT_METHOD, (confidence,), LOWER_SIDE, (low - 1e6, high + 1e6))
            method, floor = INTERVAL_METHODS[DEFAULT_METHOD], calibration.floor
            scale = method.scale(clips.sigma, floor)
            known = Ladders(others.target, others.mu, scale[rest], others.source, ladder[rest])
            lower = calibration.interval(clips.mu, clips.sigma, confidence)[0]
            for target in targets:
                q = known.quantile(float(target), confidence, by_source=False)
                for number in np.unique(ladder[own]):
                    rows = np.flatnonzero(ladder == number)
                    gaps = np.diff(np.sort(clips.mu[rows]))
                    finer = bool(len(gaps)) and float(np.median(gaps)) < known.gap()
                    own_rule = SEQUENCE if finer else CHOICE if math.isfinite(q) else BOUND
                    controlled += own_rule == CHOICE
                    good = rows[clips.target[rows] >= target]
                    for rule in RULES:
                        used = own_rule if rule == CHOICE else rule
                        assured = {CHOICE: clips.mu - q * scale, MU: clips.mu}.get(used, lower)
                        taken = answer(rows, cost, assured, float(target), used)
                        fails = taken is not None and bool(clips.target[taken] < target)
                        over = math.nan
                        if taken is not None and len(good) and not fails:
                            over = cost[taken] / cost[good].min() - 1.0
                        found[rule].append((held_out, fails, over, taken is None and len(good) > 0))
        share = controlled / len(found["choice"])
        words = f"{len(found['choice'])} questions, choices controlled in {share:.0%}"
        print(f"  {statistic}, confidence {confidence:g}: {words}")
        for rule, rows_ in found.items():
            source, fails, over, none = (np.array(column, float) for column in zip(*rows_, strict=True))
            failures = group_means(fails, source.astype(np.int64), len(clips.sources)).mean()
            answerable = np.isfinite(over) | (none > 0) | (fails > 0)
            print(
                f"    {rule:<12} failures {failures:.3f}  overspend {np.nanmean(over):>7.1%}  "
                f"the cheapest {np.mean(over[np.isfinite(over)] == 0.0):.1%}  "
                f"no answer {none.sum() / answerable.sum():.1%}"
            )


def shipped() -> tuple[Oof, Int64, Float64, Corpus]:
    """The evidence of the entry in model/ and the bitrates of its corpus' clips."""
    folder = next(MODEL.glob("*/manifest.json")).parent
    oof = read_oof((folder / "evidence" / "oof.npz").read_bytes())
    corpus = read_corpus(SHIPPED_CORPUS, ColumnSpec())
    return oof, *_costs(oof, corpus, SHIPPED_CORPUS), corpus


def _costs(oof: Oof, corpus: Corpus, path: Path) -> tuple[Int64, Float64]:
    names = pq.read_schema(path).names
    column = next(name for name in ("bitrate_kbps", "bitrate") if name in names)
    rate = pq.read_table(path, columns=[column])[column].to_numpy().astype(np.float64)
    ladder = ladders_of(oof, Inputs.of(corpus, np.arange(corpus.n_rows)))
    assert ladder is not None
    assert oof.clip is not None
    return ladder, group_means(rate, oof.clip, len(oof.clips or ()))


def opinions(folder: Path) -> tuple[Oof, Int64, Float64]:
    """An ensemble of the recipe `noisy` on AVT's clips, vmaf, bitrate and height to MOS."""
    path = folder / "clips.parquet"
    corpus = read_corpus(path, ColumnSpec(("vmaf",), "mos", (Condition("bitrate_kbps", "log2"), Condition("height"))))
    recipe = Recipe(**RECIPES["noisy"])
    trained = train(corpus.training_data(), recipe, Execution(jobs=1))
    oof = Oof.of(corpus, recipe.seeds, trained.oof, recipe.sha256)
    return oof, *_costs(oof, corpus, path)


def simulated(rng: np.random.Generator, sources: int, gap: float) -> Iterator[tuple[Float64, Float64]]:
    """Of each source true quality, evenly apart, and predictions: half of the error's variance is the source's."""
    for _ in range(sources):
        y = np.arange(30.0, 90.0, gap) + rng.uniform(0.0, gap)
        yield y, y + math.sqrt(0.5) * (rng.normal() + rng.normal(size=len(y)))


def fine(repeats: int = 200, sources: int = 24, confidence: float = 0.8) -> None:
    """Failures on fine ladders by each rule; the error has a deviation of 1."""
    rng, target = np.random.default_rng(0), 60.0
    failed: dict[str, list[bool]] = {rule: [] for rule in (BOUND, CHOICE, SEQUENCE)}
    for _ in range(repeats):
        y, mu = (np.concatenate(part) for part in zip(*simulated(rng, sources, 10.0), strict=True))
        source = np.repeat(np.arange(sources), len(y) // sources)[: len(y)]
        source = np.concatenate([source, np.full(len(y) - len(source), sources - 1)])
        known = Ladders(y, mu, np.ones_like(y), source, source)
        scores = INTERVAL_METHODS[DEFAULT_METHOD].scores(mu - y, source)
        lower = INTERVAL_METHODS[DEFAULT_METHOD].quantile(scores, confidence, LOWER_SIDE).q
        q = known.quantile(target, confidence, by_source=False)
        new, predicted = next(simulated(rng, 1, 0.1))
        rows = np.arange(len(new))
        assert float(np.median(np.diff(np.sort(predicted)))) < known.gap()  # finer: recommend goes by SEQUENCE
        for rule, results in failed.items():
            taken = answer(rows, new, predicted - (q if rule == CHOICE else lower), target, rule)
            results.append(taken is not None and bool(new[taken] < target))
    print(f"fine ladders, neighbours 0.1 of the error apart, nominal failure {1 - confidence:.2f}")
    for rule, results in failed.items():
        print(f"    {rule:<24} failures {np.mean(results):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of AVT-VQDB-UHD-1's tables")
    parser.add_argument("--repeats", type=int, default=200, help="of the simulation")
    parser.add_argument("--confidences", default=",".join(map(str, CONFIDENCES)))
    parser.add_argument("--targets", type=int, default=TARGETS)
    parser.add_argument("--ask", metavar="LOW,HIGH,STEP", help="targets of VMAF, instead of quantiles")
    options = parser.parse_args()
    confidences = tuple(map(float, options.confidences.split(",")))
    asked = Asked(confidences, options.targets)
    of_vmaf = asked
    if options.ask is not None:
        low, high, step = map(float, options.ask.split(","))
        of_vmaf = replace(asked, steps=(low, high, step))
    fine(options.repeats)
    oof, ladder, cost, _ = shipped()
    print("the shipped corpus, VMAF")
    for statistic in (MEAN, ClipStatistic(percentile=10.0), ClipStatistic(window=3)):
        trial(clips_as_rows(oof, statistic), ladder, cost, str(statistic), of_vmaf)
    if options.data is not None:
        print("AVT-VQDB-UHD-1, MOS")
        oof, ladder, cost = opinions(options.data)
        trial(clips_as_rows(oof, MEAN), ladder, cost, "mean", asked)


if __name__ == "__main__":
    main()
