"""unknown_encoders.py: leave-one-encoder-out: what an ensemble gives for an encoder that training had no row of.

Each encoder of a corpus is left out once, and the whole procedure runs on the rows of the others: leave-one-source-out
models and calibration. Its rows are then predicted, each by the models that did not see its source either. Beside them
the same rows where training has the encoder. Without encoder dropout, then with a share of it.

    python benchmarks/unknown_encoders.py [CORPUS] [--target vmaf] [--step 1] [--shares 0,0.1,0.2] [--epochs 60]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.methods import DEFAULT_METHOD
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import coverage, rmse
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.training.model import train_model
from fr_ensemble.training.network import predict
from fr_ensemble.training.table import ModelKey, TrainingTable, prepare

LEVELS = (0.8, 0.95)


def read(path: Path, target: str, step: int) -> Corpus:
    """Every so many rows of a corpus."""
    with TemporaryDirectory() as folder:
        thin, table = Path(folder) / "rows.parquet", pq.read_table(path)
        pq.write_table(table.take(list(range(0, len(table), step))), thin)
        return read_corpus(thin, ColumnSpec(target=target))


def held_out(corpus: Corpus, known: np.ndarray, recipe: Recipe) -> Float64:
    """Each row's score by the models that learned from the known rows of the other sources, (S, n)."""
    data, sources = corpus.training_data(), np.unique(corpus.source[known])
    fitted = replace(
        data,
        **{name: getattr(data, name)[known] for name in ("features", "codec", "conditioning", "target")},
        source=np.searchsorted(sources, data.source[known]),
        n_sources=len(sources),
    )
    table = prepare(fitted)
    scores = np.full((len(recipe.seeds), corpus.n_rows), np.nan)
    for place, source in enumerate(sources):
        rows = data.source == source
        for index, seed in enumerate(recipe.seeds):
            key = ModelKey(place, seed)
            result = train_model(table, recipe, key)
            if result is not None:
                inputs = standardised(table, key, data.features[rows], data.codec[rows])
                scores[index, rows] = predict(result.weights, inputs)
    return scores


def standardised(table: TrainingTable, key: ModelKey, features: Float64, codec: np.ndarray) -> np.ndarray:
    """What the model of a key takes, (n, D)."""
    scaler = table.scales[key.fold].scaler
    block = np.eye(table.n_slots)[codec]
    return np.hstack([(features - scaler.mean) / scaler.std, block]).astype(np.float32)


def part(corpus: Corpus, rows: np.ndarray, scores: Float64, recipe: Recipe) -> Oof:
    """The predictions of some rows, whose sources all have one."""
    sources, source = np.unique(corpus.source[rows], return_inverse=True)
    names = tuple(corpus.sources[g] for g in sources)
    seen = (corpus.target[rows], scores[:, rows], corpus.rows_sha256, recipe.sha256, None)
    return Oof(recipe.seeds, names, source, None, None, *seen, mu_range=corpus.spec.bounds)


def figures(calibrated: Oof, judged: Oof) -> list[float]:
    """RMSE and share of the rows inside at each level, means over sources."""
    low, high = calibrated.mu_range or (-np.inf, np.inf)
    calibration = calibrate(calibrated, levels=LEVELS, target_range=(low, high))
    of_sources = []
    for g in range(len(judged.sources)):
        own = judged.source == g
        y, mu, sigma = judged.target[own], judged.mu[own], judged.sigma[own]
        inside = [coverage(y, *calibration.interval(mu, sigma, level)) for level in LEVELS]
        of_sources.append([rmse(mu, y), *inside])
    return [float(value) for value in np.mean(of_sources, axis=0)]


def trials(corpus: Corpus, recipe: Recipe) -> Iterator[tuple[str, list[float], list[float]]]:
    """Of each encoder: its figures where training has it, and where it has not."""
    encoder = corpus.groups["encoder"]
    everything = np.ones(corpus.n_rows, bool)
    whole = held_out(corpus, everything, recipe)
    for code, name in enumerate(encoder.names):
        own = encoder.codes == code
        scores = held_out(corpus, ~own, recipe)
        judged = own & np.isfinite(scores).all(axis=0)
        known = figures(part(corpus, everything, whole, recipe), part(corpus, judged, whole, recipe))
        yield name, known, figures(part(corpus, ~own, scores, recipe), part(corpus, judged, scores, recipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?", default=SHIPPED_CORPUS)
    parser.add_argument("--target", default="vmaf")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--shares", default="0,0.1,0.2")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    corpus = read(options.corpus, options.target, options.step)
    print(f"{options.corpus.name}: {corpus.n_rows} rows, {len(corpus.sources)} sources; method {DEFAULT_METHOD}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; RMSE, share inside 80 %, inside 95 %")
    for share in map(float, options.shares.split(",")):
        recipe = Recipe(tuple(range(options.seeds)), options.epochs, dropout=0.0, encoder_dropout=share)
        print(f"\nencoder dropout {share:g}")
        found = []
        for name, known, left_out in trials(corpus, recipe):
            found.append([known, left_out])
            print(f"  {name:<12} trained on {shown(known)}   left out {shown(left_out)}", flush=True)
        known, left_out = np.mean(found, axis=0).tolist()
        print(f"  {'mean':<12} trained on {shown(known)}   left out {shown(left_out)}")


def shown(values: list[float]) -> str:
    return f"{values[0]:.3f}  {values[1]:.2f}  {values[2]:.2f}"


if __name__ == "__main__":
    main()
