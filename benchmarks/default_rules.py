"""default_rules.py: the rules of the default policy on honest evidence, on a standard model, and on what must not pass.

    python benchmarks/default_rules.py [--avt DATA] [--step N] [--epochs N]

Shipped entries are judged by their pinned predictions. Everything else is made here, from every N-th row of the shipped
corpus (and of AVT-VQDB-UHD-1's frames and all its clips, where DATA has frames.parquet and clips.parquet). The ridge is
a standard model: squares and products of the standardised features, least squares with a penalty, held out source by
source.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.plugin import DEFAULT_POLICY
from fr_ensemble.training.execution import DEFAULT_EXECUTION
from fr_ensemble.training.trainer import train

ROOT = Path(__file__).parents[1]
PENALTY = 1e-3  # of the standardised terms' mean square
OFFSETS, SHARE = 40.0, 0.6  # points of the largest offset, and how much of VMAF is left beside it
MOS_RECIPE = {"input_noise": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True}
EXTRA = ("coverage_80_upper", "mean_rmse")  # not in the policy


def thinned(corpus: Corpus, step: int) -> Corpus:
    rows = np.arange(0, corpus.n_rows, step)
    parts = {name: getattr(corpus, name)[rows] for name in ("features", "codec", "conditioning", "target", "source")}
    return replace(corpus, **parts, clip=None, clips=None)


def trained(corpus: Corpus, epochs: int, **settings: Any) -> Oof:
    """Out-of-fold predictions of the default recipe, shortened, with other settings of it."""
    recipe = Recipe(epochs=epochs, **settings)
    found = train(corpus.training_data(), recipe, DEFAULT_EXECUTION, lambda what, done, total: None)
    return Oof.of(corpus, recipe.seeds, found.oof, recipe.sha256)


def ridge(corpus: Corpus) -> Oof:
    """The quadratic ridge on the same folds; one model, so that its five seeds are equal but for rounding."""
    x = np.column_stack([corpus.features, corpus.conditioning])
    predictions = np.empty(corpus.n_rows)
    for g in range(len(corpus.sources)):
        held = corpus.source == g
        z = _quadratic((x - x[~held].mean(axis=0)) / (x[~held].std(axis=0) + 1e-12))
        a, y = z[~held], corpus.target[~held]
        weights = np.linalg.solve(a.T @ a + PENALTY * len(a) * np.eye(a.shape[1]), a.T @ (y - y.mean()))
        predictions[held] = y.mean() + z[held] @ weights
    return Oof.of(corpus, range(5), np.stack([predictions] * 5), "ridge")


def _quadratic(z: Float64) -> Float64:
    one, two = np.triu_indices(z.shape[1])
    return np.column_stack([z, z[:, one] * z[:, two]])


def with_offsets(corpus: Corpus) -> Corpus:
    """Less of VMAF, and a random offset to each source."""
    offsets = np.random.default_rng(0).uniform(0.0, OFFSETS, len(corpus.sources))
    return replace(corpus, target=SHARE * corpus.target + offsets[corpus.source])


def six_rows(corpus: Corpus) -> Corpus:
    """Two rows of each of three sources."""
    rows = np.concatenate([np.flatnonzero(corpus.source == g)[[0, -1]] for g in range(3)])
    parts = {name: getattr(corpus, name)[rows] for name in ("features", "codec", "conditioning", "target", "source")}
    return replace(corpus, **parts, sources=corpus.sources[:3])


def cases(avt: Path | None, step: int, epochs: int) -> Iterator[tuple[str, Callable[[], Oof], tuple[float, float]]]:
    vmaf = (0.0, 100.0)
    for entry in ("fr_vmaf_ensemble_v1", "fr_vmaf_outlier_v1"):
        path = next((ROOT / "model" / entry).glob("*/evidence/oof.npz"))
        yield f"`{entry}`", lambda path=path: read_oof(path.read_bytes()), vmaf  # type: ignore[misc]  # a default
    shipped = thinned(read_corpus(SHIPPED_CORPUS, ColumnSpec()), step)
    yield "shipped corpus, thinned", lambda: trained(shipped, epochs), vmaf
    yield "the same, quadratic ridge", lambda: ridge(shipped), vmaf
    if avt is not None:
        frames = thinned(read_corpus(avt / "frames.parquet", ColumnSpec()), step)
        clips = read_corpus(avt / "clips.parquet", ColumnSpec(target="mos"))
        yield "AVT frames, thinned", lambda: trained(frames, epochs), vmaf
        yield "the same, quadratic ridge", lambda: ridge(frames), vmaf
        yield "AVT clips, canonical six", lambda: trained(clips, epochs), (1.0, 5.0)
        yield "the same, quadratic ridge", lambda: ridge(clips), (1.0, 5.0)
        conditions = (Condition("bitrate_kbps", "log2"), Condition("height"))
        spec = ColumnSpec(("vmaf",), "mos", conditions)
        better = read_corpus(avt / "clips.parquet", spec)
        yield "AVT clips, `vmaf`, log2 bitrate, height", lambda: trained(better, 60, **MOS_RECIPE), (1.0, 5.0)
    yield "a random offset a source", lambda: trained(with_offsets(shipped), epochs), vmaf
    yield "six rows of three sources", lambda: trained(six_rows(shipped), epochs), vmaf


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--avt", type=Path)
    parser.add_argument("--step", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    rules = DEFAULT_POLICY.rules
    names = [*(f"`{rule}`" for rule in rules), *(f"`{name}`" for name in EXTRA)]
    print("| evidence | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for name, make, target_range in cases(options.avt, options.step, options.epochs):
        oof = make()
        metrics = compute_metrics(MetricInputs(FoldScores.of(oof), oof, calibrate(oof, target_range=target_range)))
        cells = [_cell(metrics.get(rule.metric), rule.holds) for rule in rules]
        cells += [_cell(metrics.get(extra), lambda value: True) for extra in EXTRA]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _cell(value: float | None, holds: Callable[[float], bool]) -> str:
    shown = "absent" if value is None else f"{value:.4g}"
    return shown if value is not None and holds(value) else f"**{shown}**"


if __name__ == "__main__":
    main()
