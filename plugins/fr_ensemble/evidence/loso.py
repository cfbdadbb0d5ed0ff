"""loso.py: leave-one-source-out scores of seeds and folds, recomputed, and what is wrong with them. Opens no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.paths import OOF_PATH, summary_path
from fr_ensemble.corpus.sources import SourceRows
from fr_ensemble.evidence.oof import MAX_SEEDS, Oof, write_oof
from fr_ensemble.evidence.problems import prediction_problems, target_problems
from fr_ensemble.evidence.statistics import group_rows, plcc, rmse, srocc
from fr_ensemble.evidence.summaries import (
    SCORE_RANGES,
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
from registry_tool.values import Json

MAX_DIFFERENCES = 3  # of a summary from the predictions, that are listed


class CheckedScores(NamedTuple):
    """Scores recomputed from evidence, None where the folds make no table, and what makes it unfit, one line each."""

    scores: FoldScores | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoldScores:
    """Scores of S seeds on K folds; anything that could not be computed is NaN."""

    seeds: tuple[int, ...]
    folds: tuple[str, ...]  # the held-out sources
    n: tuple[int, ...]  # (K,) rows of each fold
    plcc: Float64  # (S, K)
    srocc: Float64  # (S, K)
    rmse: Float64  # (S, K), target units

    @classmethod
    def of(cls, oof: Oof) -> FoldScores:
        rows = group_rows(oof.source, len(oof.sources))
        tables = [
            np.array([[score(seed[fold], oof.target[fold]) for fold in rows] for seed in oof.predictions])
            for score in (plcc, srocc, rmse)
        ]
        return cls(oof.seeds, oof.sources, tuple(map(len, rows)), *tables)

    def summary(self, index: int) -> dict[str, Json]:
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

    def details(self) -> dict[str, Json]:
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
            place = f"seed {self.seeds[i]}, fold {self.folds[k]}"
            problems.append(f"{place}: found the PLCC {self.plcc[i, k]}, expected a number from -1 to 1")
        return problems


def to_files(oof: Oof, corpus_name: str) -> dict[str, bytes]:
    """`evidence/oof.npz` and, a seed, `evidence/loso_seed{N}.json` with the public fields and the digests."""
    scores = FoldScores.of(oof)
    files = {OOF_PATH: write_oof(oof)}
    for index, seed in enumerate(oof.seeds):
        document = scores.summary(index) | {"corpus": corpus_name} | _digests(oof)
        files[summary_path(seed)] = dump(document)
    return files


@dataclass(frozen=True, slots=True)
class Expected:
    """What evidence must be evidence of, as far as that is known: a manifest's claims, or a corpus at hand.

    onnx_sha256: of the members, by seed. target_range: of the target, lower end first.
    """

    seeds: Sequence[int] | None = None
    rows_sha256: str | None = None
    recipe_sha256: str | None = None
    corpus_sha256: str | None = None
    corpus: SourceRows | None = None
    onnx_sha256: Mapping[int, str] = field(default_factory=dict)
    target_range: tuple[float, float] | None = None


NOTHING_EXPECTED = Expected()


def recompute(
    oof: Oof,
    summaries: Mapping[int, Mapping[str, Json]],
    expected: Expected = NOTHING_EXPECTED,
    scores: FoldScores | None = None,
) -> CheckedScores:
    """Scores from the predictions; the summaries (by the seed in their name) must say the same.

    scores: of these predictions, where they are known already.
    """
    scores = scores or FoldScores.of(oof)
    problems = scores.problems() + prediction_problems(oof, expected.target_range)
    if expected.target_range is not None:
        problems += target_problems(oof.target, oof.source, oof.sources, expected.target_range)
    problems += _seed_problems(oof.seeds, summaries, expected.seeds)
    found = _digests(oof)
    for name in ("rows_sha256", "recipe_sha256", "corpus_sha256"):
        digest = getattr(expected, name)
        if digest is not None and found.get(name) != digest:
            problems.append(f"oof.npz {name}: found {found.get(name)}, expected {digest}: evidence of another run")
    for index, seed in enumerate(oof.seeds):
        if seed in summaries:
            wrong = differences(f"loso_seed{seed}.json", summaries[seed], scores.summary(index) | found)
            problems += wrong[:MAX_DIFFERENCES]
            if (more := len(wrong) - MAX_DIFFERENCES) > 0:
                problems.append(f"loso_seed{seed}.json: {more} more differences from the predictions")
    return CheckedScores(scores, tuple(dict.fromkeys(problems)))


def read_foreign(files: Mapping[str, bytes], expected: Expected = NOTHING_EXPECTED) -> CheckedScores:
    """Foreign evidence without predictions: what its `loso_seed{N}.json` files say, as far as it holds together.

    The sources of a corpus at hand must be exactly the folds, with as many rows; digests must be those of the files,
    where the files carry any. Raises InputError where there is no summary, or one that is not JSON.
    """
    documents, misnamed = read_summaries(files)
    if not documents:
        raise InputError(f"evidence: found {sorted(files)[:5]}, expected loso_seed{{N}}.json files: check the folder")
    if len(documents) > MAX_SEEDS:
        raise InputError(f"evidence: found the summaries of {len(documents)} seeds, expected at most {MAX_SEEDS}")
    corpus = expected.corpus
    problems = [*misnamed, *_seed_problems(tuple(documents), documents, expected.seeds)]
    for seed, document in documents.items():
        problems += summary_problems(seed, document)
        digests = {"recipe_sha256": expected.recipe_sha256, "onnx_sha256": expected.onnx_sha256.get(seed)}
        digests |= {"corpus_sha256": expected.corpus_sha256}
        if corpus is not None:
            problems += corpus_problems(seed, document, corpus.n)
            digests |= {"corpus_sha256": corpus.sha256, "rows_sha256": corpus.rows_sha256}
        problems += digest_problems(seed, document, digests)
    problems += between_problems(documents)
    folds = {seed: folds_of(document) for seed, document in documents.items()}
    names = list(next(iter(folds.values())))
    if not names or any(set(other) != set(names) for other in folds.values()):
        return CheckedScores(None, tuple(dict.fromkeys(problems)))
    tables = [
        np.array([[number(folds[seed][name].get(score)) for name in names] for seed in documents])
        for score in SCORE_RANGES
    ]
    first = folds[next(iter(documents))]
    n = tuple(int(np.nan_to_num(number(first[name].get("n_val")))) for name in names)
    scores = FoldScores(tuple(documents), tuple(names), n, *tables)
    return CheckedScores(scores, tuple(dict.fromkeys(problems + scores.problems())))


def _digests(oof: Oof) -> dict[str, str]:
    digests = {"corpus_sha256": oof.corpus_sha256, "rows_sha256": oof.rows_sha256, "recipe_sha256": oof.recipe_sha256}
    return {name: digest for name, digest in digests.items() if digest}


def _seed_problems(
    found: Sequence[int], summaries: Mapping[int, Mapping[str, Json]], expected: Sequence[int] | None
) -> list[str]:
    problems = [
        f"seed {seed}: found no loso_seed{seed}.json, expected one" for seed in sorted(set(found) - set(summaries))
    ]
    problems += [
        f"loso_seed{seed}.json: found a seed without predictions" for seed in sorted(set(summaries) - set(found))
    ]
    if expected is not None and sorted(found) != sorted(expected):
        problems.append(
            f"seeds: found {sorted(found)}, expected those of the members or of --seeds, {sorted(expected)}"
        )
    return problems


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
