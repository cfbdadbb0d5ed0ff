"""nested_loso.py: coverage and width on sources that neither training nor calibration saw, on somebody else's data.

Each source of AVT-VQDB-UHD-1 is held out once. On the others the whole procedure runs: leave-one-source-out models,
calibration, refit. Its rows are then predicted and their intervals counted; every figure is a mean over sources with
its standard error. Beside it the public recipe: 30 epochs, raw target, |y - mu| / sigma on a random fifth of the rows.
For MOS also plain VMAF through a logistic fit. `with distance` is an experiment, no method of the product: the default,
with a scale that grows with the distance of a row's inputs from those trained on. Nothing made from the data is kept,
but predictions where --cache says so. `frames` takes half an hour of a core, `frames-default` two hours (less with
--thin), `unlike` ten minutes, the runs on clips one each.

`--beside` puts every recipe, `auto` and the standard models of `train` side by side instead, by every method, with the
CPU seconds of all that each took: each source as predicted by models of the others, its interval from the others'
out-of-fold predictions, as `train` prints it (not nested: these predictions come from models that saw the source). Half
a minute of a core on clips, eight minutes on `frames`, six on `shipped`. In view when recipes were made: for `public`
none of these sources; for `clean` and `noisy` all nine; for `narrow` five of them (even numbers), canonical-6 to MOS
alone. A choice of `auto` sees the training sources of its fold.

    python benchmarks/nested_loso.py AVT-FOLDER [--runs clips,clips-canonical,frames,unlike]
    python benchmarks/nested_loso.py AVT-FOLDER --beside --runs clips-canonical,clips,clips-vmaf,frames,shipped
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from fr_ensemble.arrays import Float64, TrainingData
from fr_ensemble.artifacts.manifest import codec_block
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.artifacts.runtime import standardise
from fr_ensemble.corpus.build.patterns import OUTLIER, PATTERNS
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.baselines import Baselines
from fr_ensemble.evidence.calibrating import calibrate, held_out_reach
from fr_ensemble.evidence.comparisons import Curve
from fr_ensemble.evidence.methods import DEFAULT_METHOD
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import (
    bootstrap_interval,
    coverage,
    interval_scores,
    mean_width,
    plcc,
    ranks,
    rmse,
    standard_error,
)
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from fr_ensemble.options import AUTO_RECIPE, CANDIDATE_RECIPES, RECIPES
from fr_ensemble.training.baselines import fit_each, fits_of
from fr_ensemble.training.choosing import choose, train_chosen
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.network import predict
from fr_ensemble.training.trainer import train
from torch import nn

from registry_tool.values import Json

LEVELS = (0.5, 0.8, 0.95)
METHODS = ("loso-hcp-random-effects", "loso-hcp-t", "pooled-cdf", "abs", "split", "gaussian")
BESIDE_LEVEL = 0.8
PUBLIC = "public recipe"
DISTANCE = "with distance"
STEPS = np.append(0.0, np.geomspace(0.02, 30.0, 31))  # of the distance's part and of the floor, times the median sigma
PUBLIC_EPOCHS, PUBLIC_SHARE = 30, 0.2  # share of the training rows that calibrates
MOS = (Condition("bitrate_kbps", "log2"), Condition("height"))
REGULARISED = {"input_noise": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True, "epochs": 60}
AVT_CLIPS, AVT_FRAMES = "clips.parquet", "frames.parquet"
RUNS: dict[str, tuple[str, str, ColumnSpec, dict[str, Json]]] = {
    "clips": (
        "clips -> mos: vmaf + log2 bitrate + height, noise 0.2, decay 0.3, 60 epochs",
        AVT_CLIPS,
        ColumnSpec(("vmaf",), "mos", MOS),
        REGULARISED,
    ),
    "clips-canonical": ("clips -> mos: canonical-6", AVT_CLIPS, ColumnSpec(target="mos"), {}),
    "clips-vmaf": ("clips -> vmaf: canonical-6", AVT_CLIPS, ColumnSpec(target="vmaf"), {}),
    "frames": (
        "frames -> vmaf: canonical-6, no dropout, 60 epochs",
        AVT_FRAMES,
        ColumnSpec(target="vmaf"),
        {"dropout": 0.0, "epochs": 60},
    ),
    "frames-default": ("frames -> vmaf: canonical-6, the default recipe", AVT_FRAMES, ColumnSpec(target="vmaf"), {}),
    "shipped": ("shipped -> vmaf: canonical-6, the default recipe", str(SHIPPED_CORPUS), ColumnSpec(target="vmaf"), {}),
    "unlike": (
        "shipped, one source of each pair, and the outlier -> vmaf: canonical-6",
        "",
        ColumnSpec(target="vmaf"),
        {},
    ),
}
Bounds = dict[tuple[str, float], tuple[Float64, Float64]]  # (method, level) -> lower, upper of the held-out rows


def rows_of(name: str, data: Path, scratch: Path) -> Path:
    """The run's file. The shipped sources come in pairs; `unlike` takes one of each, so that every source is alone."""
    if RUNS[name][1]:
        return data / RUNS[name][1]
    table = pa.concat_tables(
        [pq.read_table(SHIPPED_CORPUS), pq.read_table(SHIPPED_CORPUS.with_name("outlier.parquet"))]
    )
    sources = [*list(PATTERNS)[::2], *OUTLIER]
    pq.write_table(table.filter(pc.field("src").isin(sources)), scratch / "unlike.parquet")
    return scratch / "unlike.parquet"


def without(corpus: Corpus, held_out: int, thin: int) -> TrainingData:
    """The other sources' rows, every thin-th."""
    rows = np.flatnonzero(corpus.source != held_out)[::thin]
    _, source = np.unique(corpus.source[rows], return_inverse=True)
    data = (corpus.features[rows], corpus.codec[rows], corpus.spec.n_slots, corpus.conditioning[rows])
    return TrainingData(*data, corpus.target[rows], source, len(corpus.sources) - 1)


@dataclass(frozen=True)
class Split:
    """What the models of one held-out source predict. Saved by --cache, so that methods can be compared anew."""

    oof: Float64  # (M, n): the other sources' rows, each by models that did not see its source
    scores: Float64  # (M, m): the held-out source's rows, by the models of all other sources
    public_lower: Float64  # (L, m): the public recipe's bounds at LEVELS
    public_upper: Float64
    public_mu: Float64  # (m,)


def split_of(corpus: Corpus, recipe: Recipe, held_out: int, thin: int, jobs: int) -> Split:
    """Trains on the other sources, ours and the public recipe's."""
    data = without(corpus, held_out, thin)
    trained = train(data, recipe, Execution(jobs=jobs))
    rows = corpus.source == held_out
    block = codec_block(corpus.codec[rows], corpus.conditioning[rows], corpus.spec.n_slots)
    inputs = np.concatenate(standardise(corpus.features[rows], block, trained.scaler, corpus.spec.n_slots), axis=1)
    scores = np.stack([predict(weights, inputs).astype(np.float64) for weights in trained.members])
    lower, upper, mu = public(corpus, recipe, held_out, thin)
    return Split(trained.oof, scores, lower, upper, mu)


def cached(path: Path | None, make: Callable[[], Split]) -> Split:
    """The split kept at path, else a new one, which is kept there."""
    if path is not None and path.is_file():
        with np.load(path) as arrays:
            return Split(**arrays)
    made = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".tmp").open("wb") as stream:
            np.savez(stream, **vars(made))
        path.with_suffix(".tmp").replace(path)
    return made


def bounds_of(corpus: Corpus, recipe: Recipe, held_out: int, thin: int, split: Split) -> Bounds:
    """Bounds of the held-out source by every method, from the same out-of-fold predictions."""
    data = without(corpus, held_out, thin)
    names = tuple(name for g, name in enumerate(corpus.sources) if g != held_out)
    oof = Oof(recipe.seeds, names, data.source, None, None, data.target, split.oof, "", "", None)
    rows = corpus.source == held_out
    mu, sigma = split.scores.mean(axis=0), split.scores.std(axis=0, ddof=1)
    bounds: Bounds = {}
    for at, level in enumerate(LEVELS):
        bounds[PUBLIC, level] = split.public_lower[at], split.public_upper[at]
    for method in METHODS:
        calibration = calibrate(oof, "row", method, LEVELS, target_range=corpus.spec.bounds)
        bounds |= {(method, level): calibration.interval(mu, sigma, level) for level in LEVELS}
    numeric = np.concatenate([corpus.features[rows], corpus.conditioning[rows]], axis=1)
    apart = np.empty(len(data.target))
    for g in range(data.n_sources):
        apart[data.source == g] = distance(data.numeric[data.source != g], data.numeric[data.source == g])
    spread, new_spread = spreads(oof, sigma, apart, distance(data.numeric, numeric))
    # Two members at mu -+ spread / sqrt(2) have the deviation `spread`: the default's own rule on that scale.
    twins = oof.mu + np.array([[-1.0], [1.0]]) * spread / np.sqrt(2.0)
    twin_oof = replace(oof, seeds=(0, 1), predictions=twins)
    wider = calibrate(twin_oof, "row", DEFAULT_METHOD, LEVELS, target_range=corpus.spec.bounds)
    return bounds | {(DISTANCE, level): wider.interval(mu, new_spread, level) for level in LEVELS}


def distance(known: Float64, rows: Float64) -> Float64:
    """Mahalanobis' distance of rows (m, D) to the mean of known rows (n, D), by their covariance; about sqrt(D)."""
    centred = known - known.mean(axis=0)
    covariance = centred.T @ centred / len(known) + 1e-6 * np.diag(known.var(axis=0))
    apart = rows - known.mean(axis=0)
    squared: Float64 = np.einsum("ij,ij->i", apart @ np.linalg.inv(covariance), apart)
    return np.sqrt(squared)


def spreads(oof: Oof, sigma: Float64, apart: Float64, new_apart: Float64) -> tuple[Float64, Float64]:
    """sqrt(sigma^2 + floor^2 + (reach distance)^2) of the calibration's rows and of the new ones.

    floor and reach make the residuals likeliest, as the default's floor does, every source weighing alike.
    """
    weight = 1.0 / (len(oof.sources) * np.bincount(oof.source)[oof.source])
    unit, square = float(np.median(oof.sigma)), np.square(oof.target - oof.mu)
    step = unit / float(np.median(apart))

    def loss(pair: tuple[float, float]) -> float:
        variance = np.square(oof.sigma) + (unit * pair[0]) ** 2 + np.square(step * pair[1] * apart)
        return float(weight @ np.log(variance) + np.log(weight @ (square / variance)))

    floor, reach = min(((f, r) for f in STEPS for r in STEPS), key=loss)
    both = ((oof.sigma, apart), (sigma, new_apart))
    first, second = (np.sqrt(np.square(s) + (unit * floor) ** 2 + np.square(step * reach * a)) for s, a in both)
    return first, second


def public(corpus: Corpus, recipe: Recipe, held_out: int, thin: int) -> tuple[Float64, Float64, Float64]:
    """Bounds (L, m) at LEVELS and mu by the public recipe: a loop over seeds, Adam on the raw target, a row split."""
    data = without(corpus, held_out, thin)
    numeric = np.concatenate([corpus.features, corpus.conditioning], axis=1)
    known = np.concatenate([data.features, data.conditioning], axis=1)
    mean, std = known.mean(axis=0), known.std(axis=0) + 1e-9
    slots = np.eye(data.n_slots)
    x = torch.tensor(np.hstack([(known - mean) / std, slots[data.codec]]), dtype=torch.float32)
    new = corpus.source == held_out
    x_new = torch.tensor(np.hstack([(numeric[new] - mean) / std, slots[corpus.codec[new]]]), dtype=torch.float32)
    y = torch.tensor(data.target, dtype=torch.float32)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
    cut = int(PUBLIC_SHARE * len(y))
    calibrating, fitting = order[:cut], order[cut:]
    at_calibration, at_new = [], []
    for seed in recipe.seeds:
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(x.shape[1], 64),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(64, 64),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(64, 1),
        )
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-4, weight_decay=1e-5)
        for _ in range(PUBLIC_EPOCHS):
            for batch in torch.split(fitting[torch.randperm(len(fitting))], 32):
                optimiser.zero_grad()
                loss = nn.functional.mse_loss(net(x[batch])[:, 0], y[batch])
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                optimiser.step()
        net.eval()
        with torch.no_grad():
            at_calibration.append(net(x[calibrating])[:, 0].numpy().astype(np.float64))
            at_new.append(net(x_new)[:, 0].numpy().astype(np.float64))
    mu, sigma = np.mean(at_calibration, axis=0), np.std(at_calibration, axis=0, ddof=1)
    scores = np.sort(np.abs(data.target[calibrating.numpy()] - mu) / sigma)
    mu, sigma = np.mean(at_new, axis=0), np.std(at_new, axis=0, ddof=1)
    low, high = corpus.spec.bounds
    half = np.full((len(LEVELS), len(mu)), np.inf)
    for at, level in enumerate(LEVELS):
        rank = int(np.ceil((len(scores) + 1) * level))
        if rank <= len(scores):
            half[at] = scores[rank - 1] * sigma
    return np.clip(mu - half, low, high), np.clip(mu + half, low, high), mu


def logistic(path: Path, corpus: Corpus, held_out: int) -> Float64:
    """MOS of the held-out source from VMAF alone: a four-parameter logistic curve fitted on the other sources."""
    vmaf = read_corpus(path, ColumnSpec(("vmaf",), "mos")).features[:, 0]
    rows = corpus.source == held_out
    return Curve.fit(vmaf[~rows], corpus.target[~rows])(vmaf[rows])


def flags(corpus: Corpus, splits: list[Split], thin: int) -> None:
    """How well two flags find errors above 5 % of the target's range, over all held-out rows: AUROC, and by the flag's
    threshold the share flagged and the share of such errors found. Thresholds: what 95 % of the other rows are below.
    """
    low, high = corpus.spec.bounds
    large: list[Float64] = []
    found: dict[str, list[tuple[Float64, float]]] = {"sigma": [], "distance": []}
    for held_out, split in enumerate(splits):
        rows, data = corpus.source == held_out, without(corpus, held_out, thin)
        large.append(np.abs(split.scores.mean(axis=0) - corpus.target[rows]) > 0.05 * (high - low))
        sigma = np.quantile(split.oof.std(axis=0, ddof=1), 0.95)
        found["sigma"].append((split.scores.std(axis=0, ddof=1), float(sigma)))
        numeric = np.concatenate([corpus.features[rows], corpus.conditioning[rows]], axis=1)
        parts = [(data.source == g) for g in range(data.n_sources)]
        apart = [distance(data.numeric[~part], data.numeric[part]) for part in parts]
        found["distance"].append((distance(data.numeric, numeric), float(np.quantile(np.concatenate(apart), 0.95))))
    wrong = np.concatenate(large).astype(bool)
    if not 0 < wrong.sum() < len(wrong):
        return
    for name, pairs in found.items():
        rank = ranks(np.concatenate([values for values, _ in pairs]))
        n, m = int(wrong.sum()), int((~wrong).sum())
        auroc = (rank[wrong].sum() - n * (n + 1) / 2) / (n * m)
        flagged = np.concatenate([values > limit for values, limit in pairs])
        words = f"AUROC {auroc:.3f}; flags {flagged.mean():.3f} of the rows, {flagged[wrong].mean():.3f} of the errors"
        print(f"flag {name}: {words} above 5 % of the range ({wrong.mean():.3f} of the rows)")


def report(corpus: Corpus, mus: dict[str, list[Float64]], bounds: list[Bounds]) -> None:
    """The tables: correlation and error; coverage, width and interval (Winkler) score, means over sources."""
    k = len(corpus.sources)
    targets = [corpus.target[corpus.source == g] for g in range(k)]
    errors = {}
    for name, mu in mus.items():
        correlation = np.array([plcc(mu[g], targets[g]) for g in range(k)])
        errors[name] = np.array([rmse(mu[g], targets[g]) for g in range(k)])
        low, high = bootstrap_interval(correlation)
        words = f"mean PLCC {correlation.mean():.4f} (95 % over sources {low:.4f}..{high:.4f})"
        print(f"{name:<28} {words}, RMSE {errors[name].mean():.4f}")
    if "vmaf, logistic" in errors:
        difference = errors["ensemble"] - errors["vmaf, logistic"]
        low, high = bootstrap_interval(difference)
        print(f"RMSE less that of plain VMAF, paired: {difference.mean():+.4f} (95 % {low:+.4f}..{high:+.4f})")
    header = "".join(f" | {level:>5.0%} cover    se  width  score  worst source" + " " * 15 for level in LEVELS)
    print(f"\n{'method':<14}{header}")
    for method in (*METHODS, DISTANCE, PUBLIC):
        line = f"{method:<14}"
        for level in LEVELS:
            pairs = [bounds[g][method, level] for g in range(k)]
            inside = np.array([coverage(targets[g], *pairs[g]) for g in range(k)])
            width = np.mean([mean_width(*pair) for pair in pairs])
            score = np.mean([interval_scores(targets[g], *pairs[g], level).mean() for g in range(k)])
            worst = int(inside.argmin())
            line += f" | {inside.mean():>11.3f} {standard_error(inside):>5.3f} {width:>6.3f} {score:>6.3f}  "
            line += f"{inside[worst]:.3f} {corpus.sources[worst]:<21.21}"
        print(line)


@dataclass(frozen=True)
class Contender:
    """What one recipe or standard model gives. oof: of all rows, as an ensemble's; seconds: of the processor."""

    oof: Oof
    seconds: float
    note: str = ""


def contenders(corpus: Corpus, seeds: tuple[int, ...], epochs: int | None) -> Iterator[tuple[str, Contender]]:
    """With their names: the recipes, `auto`, and the standard models."""
    change: dict[str, Json] = {"seeds": seeds} | ({} if epochs is None else {"epochs": epochs})
    recipes = {name: Recipe(**{**recipe, **change}) for name, recipe in RECIPES.items()}
    data = corpus.training_data()
    train(data, Recipe(seeds=seeds[:2], epochs=1), Execution(jobs=1))  # what a process does once is no recipe's cost
    for name, recipe in recipes.items():
        began = time.process_time()
        oof = Oof.of(corpus, seeds, train(data, recipe, Execution(jobs=1)).oof, recipe.sha256)
        yield name, Contender(oof, time.process_time() - began)
    began = time.process_time()
    candidates = {name: recipes[name] for name in CANDIDATE_RECIPES}
    choice = choose(data, corpus.sources, candidates, Execution(jobs=1))
    spent = time.process_time() - began
    trained = train_chosen(data, choice, Execution(jobs=1))
    counts = Counter(one.chosen for one in choice.folds.values())
    chosen = ", ".join(f"{name} in {count} of {len(corpus.sources)}" for name, count in counts.most_common())
    oof = Oof.of(corpus, seeds, trained.oof, choice.recipe.sha256)
    yield AUTO_RECIPE, Contender(oof, time.process_time() - began, f"{spent:.1f} to choose: {chosen}")
    for name, fit in fits_of(corpus.n_rows, 1).items():
        began = time.process_time()
        baselines = Baselines((name,), *fit_each(data, {name: fit}), corpus.rows_sha256)
        yield name.replace("_", " "), Contender(baselines.as_oof(0, oof), time.process_time() - began)


def by_source(corpus: Corpus, mu: Float64, reach: Float64, level: float = BESIDE_LEVEL) -> dict[str, Float64]:
    """Figures of each source, (K,) each. reach: half-widths of the rows' intervals at this level, (n,)."""
    y = corpus.target
    lower, upper = (np.clip(mu + side * reach, *corpus.spec.bounds) for side in (-1.0, 1.0))
    score = interval_scores(y, lower, upper, level)
    rows = [corpus.source == g for g in range(len(corpus.sources))]
    figures = {
        "PLCC": [plcc(mu[r], y[r]) for r in rows],
        "RMSE": [rmse(mu[r], y[r]) for r in rows],
        "cover": [coverage(y[r], lower[r], upper[r]) for r in rows],
        "width": [mean_width(lower[r], upper[r]) for r in rows],
        "score": [score[r].mean() for r in rows],
    }
    return {name: np.array(values) for name, values in figures.items()}


def beside(corpus: Corpus, found: dict[str, Contender]) -> None:
    """A table a method, means over sources, as the documents have it; the least score of each is in bold.

    Below it `auto` less the best standard model, paired by source, with the standard error over sources.
    """
    for method in METHODS:
        each = {
            name: by_source(corpus, one.oof.mu, held_out_reach(one.oof, method, BESIDE_LEVEL))
            for name, one in found.items()
        }
        best = min(each, key=lambda name: each[name]["score"].mean())
        print(f"\n| {method}, {BESIDE_LEVEL:.0%} | PLCC | RMSE | cover | width | score | worst source | CPU s |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |")
        for name, figures in each.items():
            cells = [f"{values.mean():.{3 if values.mean() < 10 else 2}f}" for values in figures.values()]
            cells[-1] = f"**{cells[-1]}**" if name == best else cells[-1]
            worst = int(figures["cover"].argmin())
            cells += [f"{figures['cover'][worst]:.3f} {corpus.sources[worst]}", f"{found[name].seconds:.1f}"]
            note = f" ({found[name].note})" if found[name].note else ""
            print(f"| {name} | {' | '.join(cells)}{note} |")
        for figure in ("RMSE", "score"):
            model = min((n for n in each if n not in (*RECIPES, AUTO_RECIPE)), key=lambda n: each[n][figure].mean())
            less = each[AUTO_RECIPE][figure] - each[model][figure]
            print(
                f"{AUTO_RECIPE} less {model}, {figure}: {less.mean():+.3f}, standard error {standard_error(less):.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", default="clips,clips-canonical", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--epochs", type=int, help="instead of the runs' own, 60 or 200")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--thin", type=int, default=1, help="VMAF: train on every n-th row (all are predicted)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--beside", action="store_true", help="every recipe and standard model in one table")
    parser.add_argument("--cache", type=Path, help="keep predictions here: another run then compares without training")
    options = parser.parse_args()
    chosen = options.runs.split(",")
    if unknown := [name for name in chosen if name not in RUNS]:
        sys.exit(f"--runs: found {unknown[0]!r}, expected some of {', '.join(RUNS)}")
    if not (options.data / "clips.parquet").is_file():
        sys.exit(f"{options.data}: found no clips.parquet, expected the AVT-VQDB-UHD-1 tables: name their folder")
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("registry-tool", "torch", "numpy"))
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}; {options}")
    with TemporaryDirectory() as scratch:
        for name in chosen:
            nested_loso(name, options, rows_of(name, options.data, Path(scratch)))


def nested_loso(name: str, options: argparse.Namespace, file: Path) -> None:
    """One run: each source held out once, then the tables."""
    title, _, spec, extra = RUNS[name]
    asked = {} if options.epochs is None else {"epochs": options.epochs}
    recipe = Recipe(**{**extra, **asked, "seeds": tuple(range(options.first_seed, options.first_seed + options.seeds))})
    corpus = read_corpus(file, spec)
    thin = options.thin if spec.target == "vmaf" else 1
    if options.beside:
        shown = f"{corpus.n_rows} rows, {len(corpus.sources)} sources; load {os.getloadavg()[0]:.0f}"
        print(f"\n== {title.split(':')[0]}, {shown} ==")
        print(f"inputs: {', '.join([*spec.features, *map(str, spec.conditioning)])}")
        beside(corpus, dict(contenders(corpus, recipe.seeds, options.epochs)))
        return
    began = time.perf_counter()
    mus: dict[str, list[Float64]] = {"ensemble": [], PUBLIC: []}
    bounds: list[Bounds] = []
    splits: list[Split] = []
    for held_out, source in enumerate(corpus.sources):
        key = f"{name}-{thin}-{recipe.sha256[:12]}-{held_out}.npz"
        path = options.cache and options.cache / key
        split = cached(path, partial(split_of, corpus, recipe, held_out, thin, options.jobs))
        splits.append(split)
        mus["ensemble"].append(split.scores.mean(axis=0))
        mus[PUBLIC].append(split.public_mu)
        if spec.target == "mos":
            mus.setdefault("vmaf, logistic", []).append(logistic(file, corpus, held_out))
        bounds.append(bounds_of(corpus, recipe, held_out, thin, split))
        print(f"  {source}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    every = f"one in {thin} trained on" if thin > 1 else "all trained on"
    print(f"\n== {title} ({corpus.n_rows} rows, {every}, {len(corpus.sources)} sources) ==")
    report(corpus, mus, bounds)
    flags(corpus, splits, thin)


if __name__ == "__main__":
    main()
