"""interval_trials.py: changes of recipes and of the scale that were tried for better intervals, each beside the recipe
as it is: scores of 80 % intervals, each source predicted and calibrated by the others, as nested_loso.py --beside.

Trials of the scale: `ends`, the floor's square is half as large at the ends of the target's range as in its middle
(opinions agree there: Hossfeld, Schatz & Egger 2011, SOS); `regressed`, the size of errors by a ridge regression on
sigma, Mahalanobis' distance and the place in the range, each source by the others. Trials of training: `bagged`, every
member leaves out a third of the sources, drawn by itself; `clipped`, inputs are cut to the range that training saw;
`mixed`, the members of three recipes in one ensemble; `regularised`, narrow with the noise and the weight decay of
noisy, as narrow was at first; `hidden-8`, `hidden-32`.

Chosen on: the shipped sources with simulated opinions (three draws; a logistic curve of VMAF, each source with an
offset and a slope), the twelve shipped sources without a like, AVT's clips to VMAF and to MOS from vmaf, bitrate and
height. Then once on AVT's clips to MOS from canonical-6. `log ratio`: of the scores, a mean over sources with its
standard error; below 0 the trial is better. At last, what other seeds give: sets of five.

    python benchmarks/interval_trials.py AVT-FOLDER
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fr_ensemble.arrays import Float32, Float64, Int64, Mask
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.build.patterns import OUTLIER, PATTERNS
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, features_of
from fr_ensemble.evidence.calibrating import FLOOR_FACTORS, held_out_reach
from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS, TWO_SIDED, PooledCdf
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import standard_error
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.options import RECIPES
from fr_ensemble.training import model
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import NetworkLayout
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, Role, TrainingTable
from fr_ensemble.training.trainer import train
from nested_loso import BESIDE_LEVEL, MOS, by_source, distance

from registry_tool.values import Json

BAGGED_SHARE = 0.35  # of a model's training sources that it does not fit
ENDS = 0.5  # the floor's square at the ends of the range, of that in its middle
PENALTY = 1.0  # of the regression, divided by the sources
BASES = ("public", "noisy", "narrow")
Recipes = Mapping[str, Mapping[str, Json]]
VARIANTS: Recipes = {
    "regularised": {**RECIPES["noisy"], "hidden": 16},
    "hidden-8": {**RECIPES["narrow"], "hidden": 8},
    "hidden-32": {**RECIPES["narrow"], "hidden": 32},
}
CHOSEN_ON = ("opinions-0", "opinions-1", "opinions-2", "unlike", "vmaf", "mos")
WORD = "mos-canonical"
OFFSET, SLOPE, NOISE = 0.36, 0.15, 0.2  # of simulated opinions: deviations over sources, and over clips (of 1..5)


def corpora(data: Path, scratch: Path) -> dict[str, Corpus]:
    """By name; of the shipped corpora one row a clip."""
    clips = data / "clips.parquet"
    made = {
        "vmaf": read_corpus(clips, ColumnSpec(target="vmaf")),
        "mos": read_corpus(clips, ColumnSpec(("vmaf",), "mos", MOS)),
        WORD: read_corpus(clips, ColumnSpec(target="mos")),
    }
    tables = [pq.read_table(SHIPPED_CORPUS), pq.read_table(SHIPPED_CORPUS.with_name("outlier.parquet"))]
    numbers, keys = (*features_of(DEFAULT_MODEL), "vmaf"), ("src", "encoder", "clip")
    means = pa.concat_tables(tables).group_by(list(keys)).aggregate([(name, "mean") for name in numbers])
    columns = {name: means[name if name in keys else f"{name}_mean"].to_numpy() for name in (*keys, *numbers)}
    unlike = np.isin(columns["src"], [*list(PATTERNS)[::2], *OUTLIER])
    made["unlike"] = _kept(scratch / "unlike.parquet", columns, unlike, "vmaf")
    for draw in range(3):
        rng = np.random.default_rng(draw)
        names, place = np.unique(columns["src"], return_inverse=True)
        offset, slope = rng.normal(0.0, OFFSET, len(names)), rng.normal(1.0, SLOPE, len(names))
        curve = 4.0 / (1.0 + np.exp(-(slope[place] * (columns["vmaf"] - 60.0) / 16.0 + offset[place])))
        opinions = {**columns, "mos": np.clip(1.0 + curve + rng.normal(0.0, NOISE, len(curve)), 1.0, 5.0)}
        rows = ~np.isin(columns["src"], list(OUTLIER))
        made[f"opinions-{draw}"] = _kept(scratch / f"{draw}.parquet", opinions, rows, "mos")
    return made


def _kept(path: Path, columns: dict[str, Json], rows: Mask, target: str) -> Corpus:
    pq.write_table(pa.table({name: values[rows] for name, values in columns.items()}), path)
    return read_corpus(path, ColumnSpec(target=target))


def trained(corpus: Corpus, recipe: Mapping[str, Json], first_seed: int = 0) -> Oof:
    """Five members' out-of-fold predictions."""
    whole = Recipe(**{**recipe, "seeds": tuple(range(first_seed, first_seed + 5))})
    return Oof.of(corpus, whole.seeds, train(corpus.training_data(), whole, Execution(jobs=1)).oof, whole.sha256)


@contextmanager
def bagged() -> Iterator[None]:
    """Each model fits all but a share of its sources."""

    def fitted(table: TrainingTable, key: ModelKey, share: float) -> Mask:
        sources = np.unique(table.source[table.source != key.fold])
        out = key.generator(Role.SPLIT).permutation(sources)[: max(1, round(BAGGED_SHARE * len(sources)))]
        return (table.source != key.fold) & ~np.isin(table.source, out)

    with patch.object(TrainingTable, "fitted", fitted):
        yield


@contextmanager
def clipped() -> Iterator[None]:
    """Each model scores rows whose numeric inputs are cut to the range of those that it was trained on."""
    plain = model.scores_of

    def scores_of(table: TrainingTable, key: ModelKey, layout: NetworkLayout, p: Float32, chosen: Int64) -> Float32:
        if key.fold != FINAL_FOLD and len(chosen):
            rows, known, n = table.rows.copy(), table.rows[table.source != key.fold], table.n_numeric
            rows[:, :n] = np.clip(rows[:, :n], known[:, :n].min(axis=0), known[:, :n].max(axis=0))
            table = replace(table, rows=rows)
        return plain(table, key, layout, p, chosen)

    with patch.object(model, "scores_of", scores_of):
        yield


def place_in_range(corpus: Corpus, mu: Float64) -> Float64:
    """1 in the middle of the target's range, 0 at its ends."""
    low, high = corpus.spec.bounds
    return 1.0 - np.square(2.0 * np.clip((mu - low) / (high - low), 0.0, 1.0) - 1.0)


def weights(source: Int64) -> Float64:
    """Of rows, every source weighing alike."""
    _, place, counts = np.unique(source, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[place])


def ends(corpus: Corpus, oof: Oof) -> Float64:
    """The scale (n,) with a floor that is less at the ends; its size as `train` fits it, from all sources."""
    shape, square = ENDS + (1.0 - ENDS) * place_in_range(corpus, oof.mu), np.square(oof.target - oof.mu)
    weight = weights(oof.source)

    def loss(floor: float) -> float:
        variance = np.square(oof.sigma) + floor**2 * shape
        return float(weight @ np.log(variance) + np.log(weight @ (square / variance)))

    floor = min(np.median(oof.sigma) * FLOOR_FACTORS, key=loss)
    return np.sqrt(np.square(oof.sigma) + floor**2 * shape)


def regressed(corpus: Corpus, oof: Oof) -> Float64:
    """(K, n): the size of each row's error, for each source held out, by a regression on the others."""
    numeric = np.concatenate([corpus.features, corpus.conditioning], axis=1)
    apart, k = np.empty(len(oof.target)), len(oof.sources)
    for g in range(k):
        apart[oof.source == g] = distance(numeric[oof.source != g], numeric[oof.source == g])
    columns = [np.log(oof.sigma + 1e-3 * np.median(oof.sigma)), np.log(apart + 0.1), place_in_range(corpus, oof.mu)]
    x = np.stack([(column - column.mean()) / column.std() for column in columns], axis=1)
    error = np.abs(oof.target - oof.mu)
    size = np.log(error + 0.1 * np.median(error))
    scales = np.empty((k, len(size)))
    for held_out in range(k):
        for g in range(k):
            rows, own = ~np.isin(oof.source, (held_out, g)), oof.source == g
            weight = weights(oof.source[rows])
            centre, level = weight @ x[rows], float(weight @ size[rows])
            off = x[rows] - centre
            square = off.T @ (off * weight[:, None]) + np.eye(len(columns)) * PENALTY / k
            slope = np.maximum(np.linalg.solve(square, off.T @ (weight * (size[rows] - level))), 0.0)
            scales[held_out, own] = np.exp(level + (x[own] - centre) @ slope)
    return scales


def reach_by(oof: Oof, scales: Float64) -> Float64:
    """Half-widths (n,) by the default method on another scale: (n,), or (K, n) where it is another for each source."""
    rule, reach = INTERVAL_METHODS[DEFAULT_METHOD], np.empty(len(oof.target))
    for g, scale in enumerate(np.broadcast_to(scales, (len(oof.sources), len(oof.target)))):
        rest, signed = oof.source != g, (oof.mu - oof.target) / scale
        scores = rule.scores(np.abs(signed[rest]), oof.source[rest], signed[rest])
        reach[~rest] = rule.quantile(scores, BESIDE_LEVEL, TWO_SIDED).q * scale[~rest]
    return reach


def trials(corpus: Corpus, base: str, recipes: Recipes) -> Iterator[tuple[str, Oof, Float64]]:
    """With their names: predictions, and half-widths. The first is the recipe as it is."""

    def plainly(name: str, oof: Oof) -> tuple[str, Oof, Float64]:
        return name, oof, held_out_reach(oof, DEFAULT_METHOD, BESIDE_LEVEL)

    oof = trained(corpus, recipes[base])
    yield plainly(base, oof)
    yield "ends", oof, reach_by(oof, ends(corpus, oof))
    yield "regressed", oof, reach_by(oof, regressed(corpus, oof))
    for name, changed in (("bagged", bagged), ("clipped", clipped)):
        with changed():
            other = trained(corpus, recipes[base])
        yield plainly(name, other)
    if base == "narrow":
        for name in VARIANTS:
            yield plainly(name, trained(corpus, recipes[name]))
        members = np.concatenate([trained(corpus, recipes[one]).predictions for one in BASES])
        yield plainly("mixed", replace(oof, seeds=tuple(range(len(members))), predictions=members))


def compare(corpus: Corpus, name: str, recipes: Recipes, ratios: dict[tuple[str, str], list[Float64]]) -> None:
    """The tables of one corpus; ratios: gets its log ratios of scores by recipe and trial."""
    print(f"\n== {name}: {corpus.n_rows} rows, {len(corpus.sources)} sources; load {os.getloadavg()[0]:.0f} ==")
    for base in BASES:
        plain = None
        for trial, oof, reach in trials(corpus, base, recipes):
            found = by_source(corpus, oof.mu, reach)
            plain = found["score"] if plain is None else plain
            ratio = np.log(found["score"] / plain)
            ratios.setdefault((base, trial), []).append(ratio)
            means = "".join(f"  {figure} {found[figure].mean():.3f}" for figure in ("RMSE", "cover", "width", "score"))
            told = f"log ratio {ratio.mean():+.3f} ± {standard_error(ratio):.3f}"
            print(f"{base:<8}{trial:<12}{means}  worst {found['cover'].min():.3f}  {told}", flush=True)


def seeds(corpus: Corpus, name: str, recipes: Recipes, sets: int) -> None:
    """What sets of five seeds differ by; the same where the method leaves out the new source's own share."""
    print(f"\n== {name}: {sets} sets of five seeds, the first, mean and deviation of each figure ==")
    for recipe, settings in recipes.items():
        oofs = [trained(corpus, settings, 5 * number) for number in range(sets)]
        for method, level in ((DEFAULT_METHOD, BESIDE_LEVEL), (PooledCdf.name, BESIDE_LEVEL), (PooledCdf.name, 0.82)):
            rows = []
            for oof in oofs:
                found = by_source(corpus, oof.mu, held_out_reach(oof, method, level), level)
                means = [found[figure].mean() for figure in ("RMSE", "cover", "width", "score")]
                rows.append([*means, found["cover"].min()])
            columns = zip(("RMSE", "cover", "width", "score", "worst"), np.array(rows).T, strict=True)
            told = [f"{figure} {v[0]:.3f}, {v.mean():.3f} ± {v.std(ddof=1):.3f}" for figure, v in columns]
            print(f"{recipe:<12}{method:<24}{level:.2f}  {'  '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of AVT-VQDB-UHD-1's tables")
    parser.add_argument("--only", default=",".join((*CHOSEN_ON, WORD)), help="corpora, separated by commas")
    parser.add_argument("--seed-sets", type=int, default=6)
    parser.add_argument("--epochs", type=int, help="instead of the recipes' own")
    options = parser.parse_args()
    change = {} if options.epochs is None else {"epochs": options.epochs}
    all_recipes = {**{base: RECIPES[base] for base in BASES}, **VARIANTS}
    recipes = {name: {**recipe, **change} for name, recipe in all_recipes.items()}
    chosen = options.only.split(",")
    with TemporaryDirectory() as scratch:
        known = corpora(options.data, Path(scratch))
    ratios: dict[tuple[str, str], list[Float64]] = {}
    for name in (name for name in chosen if name != WORD):
        compare(known[name], name, recipes, ratios)
    if ratios:
        print("\n== all of these: log ratios of scores, a mean over sources with its standard error ==")
    for (base, trial), parts in ratios.items():
        together = np.concatenate(parts)
        print(f"{base:<8}{trial:<12}{together.mean():+.4f} ± {standard_error(together):.4f}")
    if WORD in chosen:
        compare(known[WORD], WORD, recipes, {})
    for name in ("mos", WORD):
        if name in chosen and options.seed_sets > 1:
            seeds(known[name], name, recipes, options.seed_sets)


if __name__ == "__main__":
    main()
