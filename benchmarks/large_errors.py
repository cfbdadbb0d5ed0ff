"""large_errors.py: how well flags find rows with large errors: sigma, distance to the rows of training, input ranges.

An ensemble is trained on a corpus; each row is judged as predicted by models that did not see its source, by what is
known of the other sources alone. Then an entry that ships predicts the same rows, with the flags that `predict` prints.

    python benchmarks/large_errors.py CORPUS [--target vmaf] [--features A,B] [--conditions log2:A,B] [--large 0.05]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from fr_ensemble.arrays import Float64, Scaler
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.corpus.vocabulary import CANONICAL_6
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.nearest import ReferenceRows
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import ranks
from fr_ensemble.hooks.flags import FLAGGED_SHARE
from fr_ensemble.hooks.predict import OUT_OF_DISTRIBUTION
from fr_ensemble.options import RECIPES
from fr_ensemble.training.trainer import train

import registry_tool

SHIPPED = Path(__file__).parents[1] / "model" / "registry.json"


def figures(name: str, value: Float64, flagged: np.ndarray, wrong: np.ndarray) -> str:
    """AUROC of a value for large errors; the share of rows flagged, and of large errors among the flagged ones."""
    rank, n, m = ranks(value), int(wrong.sum()), int((~wrong).sum())
    auroc = (rank[wrong].sum() - n * (n + 1) / 2) / (n * m)
    return (
        f"  {name:<9} AUROC {auroc:.2f}   flags {flagged.mean():.3f} of the rows, {flagged[wrong].mean():.3f} of these"
    )


def held_out(corpus: Corpus, oof: Oof, wrong: np.ndarray) -> list[str]:
    """Each source's rows by the sigma, the rows and the ranges of the others."""
    numeric, n = np.hstack([corpus.features, corpus.conditioning]), corpus.n_rows
    sigma, distance, outside = oof.sigma, np.empty(n), np.empty(n)
    flagged = {name: np.empty(n, bool) for name in ("sigma", "distance", "input")}
    for g in range(len(corpus.sources)):
        own = corpus.source == g
        others = np.flatnonzero(~own)
        low, high = numeric[others].min(axis=0), numeric[others].max(axis=0)
        std = numeric[others].std(axis=0)
        scaler = Scaler(numeric[others].mean(axis=0), np.where(std > 0.0, std, 1.0))
        known = ReferenceRows.of(Inputs.of(corpus, others), corpus.source, corpus.spec, scaler, 1.0 - FLAGGED_SHARE)
        distance[own] = known.distance((numeric[own] - scaler.mean) / scaler.std)
        beyond = np.maximum(low - numeric[own], numeric[own] - high) / scaler.std
        outside[own] = beyond.max(axis=1)
        flagged["sigma"][own] = sigma[own] > np.quantile(sigma[others], 1.0 - FLAGGED_SHARE)
        flagged["distance"][own] = distance[own] > known.limit
        flagged["input"][own] = outside[own] > 0.0
    values = {"sigma": sigma, "distance": distance, "input": outside}
    return [figures(name, value, flagged[name], wrong) for name, value in values.items()]


def shipped(entry: str, corpus: Corpus, large: float) -> list[str]:
    """The flags of an entry that learned from another corpus, and how many of its large errors they mark."""
    encoder = corpus.groups["encoder"]
    columns = dict(zip(corpus.spec.features, corpus.features.T, strict=True))
    model = registry_tool.open(SHIPPED).load(entry, allow_smoke=True)
    found = model.predict({**columns, "encoder": encoder.tolist()})
    wrong = np.abs(found.mu - corpus.target) > large
    lines = [f"{entry} on them: {wrong.mean():.3f} of the rows are wrong by more than {large:g}"]
    flags = {name: flagged for name, flagged in found.flags.items() if name != OUT_OF_DISTRIBUTION}
    flags["any"] = np.any([np.zeros(corpus.n_rows, bool), *flags.values()], axis=0)
    for name, flagged in flags.items():
        caught = f"{flagged[wrong].mean():.3f} of these" if wrong.any() else "none to find"
        lines.append(f"  {name:<9} flags {flagged.mean():.3f} of the rows, {caught}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--target", default="vmaf")
    parser.add_argument("--features", default=",".join(CANONICAL_6))
    parser.add_argument("--conditions", default="")
    parser.add_argument("--recipe", choices=[*RECIPES], default="clean")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's own")
    parser.add_argument("--step", type=int, default=1, help="every so many rows")
    parser.add_argument("--large", type=float, default=0.05, help="share of the target's range: a large error")
    parser.add_argument("--entry", default="fr_vmaf_ensemble_v1", help="of model/, for VMAF by canonical-6")
    options = parser.parse_args()
    conditions = tuple(map(Condition.parse, filter(None, options.conditions.split(","))))
    spec = ColumnSpec(tuple(options.features.split(",")), options.target, conditions)
    with TemporaryDirectory() as folder:
        table, thin = pq.read_table(options.corpus), Path(folder) / "rows.parquet"
        pq.write_table(table.take(list(range(0, len(table), options.step))), thin)
        corpus = read_corpus(thin, spec)
    recipe = Recipe(**{**RECIPES[options.recipe], **({"epochs": options.epochs} if options.epochs else {})})
    trained = train(corpus.training_data(), recipe)
    oof = Oof.of(corpus, recipe.seeds, trained.oof, recipe.sha256, mu_range=spec.bounds)
    large = options.large * (spec.bounds[1] - spec.bounds[0])
    wrong = np.abs(oof.mu - oof.target) > large
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"{options.corpus.name}, {options.target}: {corpus.n_rows} rows, {len(corpus.sources)} sources")
    print(f"held out: {wrong.mean():.3f} of the rows are wrong by more than {large:g} {options.target}")
    if 0 < wrong.sum() < len(wrong):
        print("\n".join(held_out(corpus, oof, wrong)))
    if options.target == "vmaf" and spec.features == CANONICAL_6 and not conditions:
        print("\n".join(shipped(options.entry, corpus, large)))


if __name__ == "__main__":
    main()
