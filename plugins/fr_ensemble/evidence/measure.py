"""measure.py: what out-of-fold predictions and LOSO summaries show, recomputed. Judges nothing, opens no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.metrics import plcc, rmse, srocc
from fr_ensemble.evidence.oof import EvidenceProblem, Oof, read_oof, write_oof
from fr_ensemble.evidence.summaries import (
    between_problems,
    corpus_problems,
    differences,
    digest_problems,
    folds_of,
    number,
    read_summaries,
    summary_problems,
)
from registry_tool.errors import InputError
from registry_tool.strictjson import dump

__all__ = [
    "EvidenceProblem",
    "Measured",
    "Oof",
    "measure",
    "measure_summaries",
    "read_oof",
    "read_summaries",
    "to_files",
]

OOF_FILE = "evidence/oof.npz"
COLLAPSED_SIGMA = 1e-6  # of the target's standard deviation: float32 rounding, not disagreement of members


class Measured(NamedTuple):
    """What evidence shows: metrics by name, what makes it unfit (one line each), and tables as JSON for people."""

    metrics: dict[str, float]
    problems: tuple[str, ...]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """LOSO figures of S seeds on K folds; anything that could not be computed is NaN."""

    seeds: tuple[int, ...]
    folds: tuple[str, ...]  # the held-out sources
    n: tuple[int, ...]  # (K,) rows of each fold
    plcc: Float64  # (S, K)
    srocc: Float64  # (S, K)
    rmse: Float64  # (S, K), target units

    @classmethod
    def of(cls, oof: Oof) -> Figures:
        order = np.argsort(oof.source, kind="stable")
        n = np.bincount(oof.source, minlength=len(oof.sources))
        rows = np.split(order, np.cumsum(n)[:-1])
        tables = [
            np.array([[figure(seed[fold], oof.target[fold]) for fold in rows] for seed in oof.predictions])
            for figure in (plcc, srocc, rmse)
        ]
        return cls(oof.seeds, oof.sources, tuple(n.tolist()), *tables)

    def summary(self, index: int) -> dict[str, Any]:
        """Seed number `index` as the public `loso_seed{N}.json` has it; what is not a number is null."""
        folds = [
            {
                "held_out": name,
                "plcc": _number(self.plcc[index, k]),
                "srocc": _number(self.srocc[index, k]),
                "rmse": _number(self.rmse[index, k]),
                "n_train": sum(self.n) - self.n[k],
                "n_val": self.n[k],
            }
            for k, name in enumerate(self.folds)
        ]
        means = {f"mean_{name}": _number(getattr(self, name)[index].mean()) for name in ("plcc", "srocc", "rmse")}
        spread = _number(self.plcc[index].std(ddof=1)) if len(self.folds) > 1 else None
        return {"seed": self.seeds[index], "n_folds": len(folds), "folds": folds, "std_plcc": spread, **means}

    def metrics(self) -> dict[str, float]:
        """What a policy's rules may name; a metric that is not finite is left out, and is never a pass.

        PLCC_i is seed i's mean over folds. worst_fold_plcc: the lowest of the folds' means over seeds.
        """
        seeds = self.plcc.mean(axis=1)
        metrics = {
            "mean_plcc": seeds.mean(),
            "plcc_spread": seeds.max() - seeds.min(),
            "min_seed_plcc": seeds.min(),
            "worst_fold_plcc": self.plcc.mean(axis=0).min(),
            "mean_srocc": self.srocc.mean(),
            "mean_rmse": self.rmse.mean(),
            "n_seeds": len(set(self.seeds)),
            "n_folds": len(self.folds),
            "n_rows": sum(self.n),
        }
        return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}

    def details(self) -> dict[str, Any]:
        """The fold table, and the seeds' means, as JSON."""
        folds = [
            {
                "held_out": name,
                "n": self.n[k],
                "plcc": {str(seed): _number(self.plcc[i, k]) for i, seed in enumerate(self.seeds)},
                "mean_plcc": _number(self.plcc[:, k].mean()),
                "mean_srocc": _number(self.srocc[:, k].mean()),
                "mean_rmse": _number(self.rmse[:, k].mean()),
            }
            for k, name in enumerate(self.folds)
        ]
        seeds = {str(seed): _number(self.plcc[i].mean()) for i, seed in enumerate(self.seeds)}
        return {"folds": folds, "seed_plcc": seeds}

    def problems(self) -> list[str]:
        """Too few seeds or folds, repeated seeds, and PLCCs that are no correlation."""
        problems = []
        if len(self.seeds) < 2:
            problems.append(f"seeds: found {len(self.seeds)}, expected at least 2")
        for seed in sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1}):
            problems.append(f"seed {seed}: found {self.seeds.count(seed)} times, expected once")
        if len(self.folds) < 2:
            problems.append(f"folds: found {len(self.folds)}, expected at least 2 sources")
        for i, k in np.argwhere(~(np.abs(self.plcc) <= 1.0)):
            where = f"seed {self.seeds[i]}, fold {self.folds[k]}"
            problems.append(f"{where}: found the PLCC {self.plcc[i, k]}, expected a number from -1 to 1")
        return problems


def to_files(oof: Oof, corpus_name: str) -> dict[str, bytes]:
    """`evidence/oof.npz` and, a seed, `evidence/loso_seed{N}.json` with the public fields and the digests."""
    figures = Figures.of(oof)
    files = {OOF_FILE: write_oof(oof)}
    for index, seed in enumerate(oof.seeds):
        document = figures.summary(index) | {"corpus": corpus_name} | _digests(oof)
        files[f"evidence/loso_seed{seed}.json"] = dump(document)
    return files


def measure(
    oof: Oof,
    summaries: Mapping[int, Mapping[str, Any]],
    *,
    figures: Figures | None = None,
    seeds: Sequence[int] | None = None,
    rows_sha256: str | None = None,
    recipe_sha256: str | None = None,
    corpus_sha256: str | None = None,
) -> Measured:
    """Every figure from the predictions; the summaries (by the seed in their name) must say the same.

    figures: of these predictions, where they are measured already. seeds, rows_sha256, recipe_sha256, corpus_sha256:
    what the manifest says, where it is known.
    """
    figures = figures or Figures.of(oof)
    problems = figures.problems() + _agreement_problems(oof)
    problems += _seed_problems(oof.seeds, summaries, seeds)
    expected = {"rows_sha256": rows_sha256, "recipe_sha256": recipe_sha256, "corpus_sha256": corpus_sha256}
    found = _digests(oof)
    for name, digest in expected.items():
        if digest is not None and found.get(name) != digest:
            problems.append(f"oof.npz {name}: found {found.get(name)}, expected {digest}: evidence of another run")
    for index, seed in enumerate(oof.seeds):
        if seed in summaries:
            expected_summary = figures.summary(index) | found
            problems += differences(f"loso_seed{seed}.json", summaries[seed], expected_summary)
    return Measured(figures.metrics(), tuple(dict.fromkeys(problems)), figures.details())


def measure_summaries(
    files: Mapping[str, bytes],
    *,
    seeds: Sequence[int] | None = None,
    corpus: Corpus | None = None,
    corpus_sha256: str | None = None,
    recipe_sha256: str | None = None,
    onnx_sha256: Mapping[int, str] | None = None,
) -> Measured:
    """Foreign evidence without predictions: what its `loso_seed{N}.json` files say, as far as it holds together.

    corpus: its sources must be exactly the folds, with as many rows. Its digests (without it, corpus_sha256),
    recipe_sha256 and onnx_sha256 (of the members, by seed) must be those of the files, where the files carry any.
    Raises InputError where there is no summary, or one that is not JSON.
    """
    documents, misnamed = read_summaries(files)
    if not documents:
        raise InputError(f"evidence: found {sorted(files)[:5]}, expected loso_seed{{N}}.json files: check the folder")
    problems = [*misnamed, *_seed_problems(tuple(documents), documents, seeds)]
    for seed, document in documents.items():
        problems += summary_problems(seed, document)
        digests = {"recipe_sha256": recipe_sha256, "onnx_sha256": (onnx_sha256 or {}).get(seed)}
        digests |= {"corpus_sha256": corpus_sha256}
        if corpus is not None:
            problems += corpus_problems(seed, document, corpus)
            digests |= {"corpus_sha256": corpus.sha256, "rows_sha256": corpus.rows_sha256}
        problems += digest_problems(seed, document, digests)
    problems += between_problems(documents)
    folds = {seed: folds_of(document) for seed, document in documents.items()}
    names = list(next(iter(folds.values())))
    if not names or any(set(other) != set(names) for other in folds.values()):
        return Measured({}, tuple(dict.fromkeys(problems)), {})
    tables = [
        np.array([[number(folds[seed][name].get(figure)) for name in names] for seed in documents])
        for figure in ("plcc", "srocc", "rmse")
    ]
    first = folds[next(iter(documents))]
    n = tuple(int(np.nan_to_num(number(first[name].get("n_val")))) for name in names)
    figures = Figures(tuple(documents), tuple(names), n, *tables)
    return Measured(figures.metrics(), tuple(dict.fromkeys(problems + figures.problems())), figures.details())


def _digests(oof: Oof) -> dict[str, str]:
    digests = {"corpus_sha256": oof.corpus_sha256, "rows_sha256": oof.rows_sha256, "recipe_sha256": oof.recipe_sha256}
    return {name: digest for name, digest in digests.items() if digest}


def _agreement_problems(oof: Oof) -> list[str]:
    """Members that agree: a copied seed, a copied fold, an ensemble whose sigma is nothing."""
    problems = []
    n = np.bincount(oof.source, minlength=len(oof.sources))
    for i, j in combinations(range(len(oof.seeds)), 2):
        near = np.abs(oof.predictions[i] - oof.predictions[j]) <= COLLAPSED_SIGMA * np.std(oof.target)
        equal = np.bincount(oof.source, weights=near, minlength=len(n)) == n
        pair = f"seeds {oof.seeds[i]} and {oof.seeds[j]}"
        if equal.all():
            problems.append(
                f"{pair}: found the same predictions, expected two models: one was copied, or training collapsed"
            )
        elif (equal & (n > 1)).any():
            fold = oof.sources[int(np.argmax(equal & (n > 1)))]
            problems.append(f"{pair}, fold {fold}: found the same predictions, expected two models: one was copied")
    if len(oof.seeds) > 1 and np.median(oof.sigma) < COLLAPSED_SIGMA * np.std(oof.target):
        problems.append(f"members: found a median sigma of {np.median(oof.sigma):.3g}, expected members that disagree")
    return problems


def _seed_problems(
    found: Sequence[int], summaries: Mapping[int, Mapping[str, Any]], expected: Sequence[int] | None
) -> list[str]:
    problems = [
        f"seed {seed}: found no loso_seed{seed}.json, expected one" for seed in sorted(set(found) - set(summaries))
    ]
    problems += [
        f"loso_seed{seed}.json: found a seed without predictions" for seed in sorted(set(summaries) - set(found))
    ]
    if expected is not None and sorted(found) != sorted(expected):
        problems.append(f"seeds: found {sorted(found)}, expected those of the members, {sorted(expected)}")
    return problems


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
