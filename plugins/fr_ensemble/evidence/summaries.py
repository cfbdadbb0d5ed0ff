"""summaries.py: LOSO summaries, `loso_seed{N}.json`: read, and checked against themselves, a corpus and each other."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from registry_tool import toolkit
from registry_tool.errors import InputError
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.toolkit import MISSING, OTHER_PROGRAM, first_names
from registry_tool.values import Json

SUMMARY_NAME = re.compile(r"(?:.*/)?loso_seed(\d{1,10})\.json\Z")
SCORE_RANGES = {"plcc": (-1.0, 1.0), "srocc": (-1.0, 1.0), "rmse": (0.0, math.inf)}  # of a fold
FAKE_CODES = ("json-not-finite", "json-duplicate-key")  # readable JSON that no honest run writes


def read_summaries(files: Mapping[str, bytes]) -> tuple[dict[int, dict[str, Json]], tuple[str, ...]]:
    """The summaries among some files, by the seed in their name, in order; and what is wrong with names and keys.

    Raises InputError for a summary that is not a JSON object.
    """
    documents: dict[int, dict[str, Json]] = {}
    problems: list[str] = []
    for name in sorted(files):
        match = SUMMARY_NAME.match(name)
        if match is None:
            continue
        seed = int(match[1])
        if seed in documents or match[1] != str(seed):
            problems.append(f"{name}: found seed {seed} under this name, expected one loso_seed{seed}.json a seed")
            continue
        documents[seed] = _load(name, files[name], problems)
    return dict(sorted(documents.items())), tuple(problems)


def _load(name: str, data: bytes, problems: list[str]) -> dict[str, Json]:
    try:
        document = parse(data).value
    except JsonProblem as problem:
        if problem.code not in FAKE_CODES:
            raise InputError(f"{name}: {problem}") from None
        problems.append(f"{name}: {problem}")
        return {}
    if not isinstance(document, dict):
        raise InputError(f"{name}: found {type(document).__name__}, expected a JSON object: make the evidence again")
    return document


def summary_problems(seed: int, document: Mapping[str, Json]) -> list[str]:
    """What is wrong with one summary by itself: types, ranges, sums, leaks."""
    name = f"loso_seed{seed}.json"
    problems = []
    if differences("", document.get("seed"), seed):
        problems.append(f"{name} seed: found {document.get('seed')!r}, expected {seed}: a file under another's name?")
    if document.get("note") == "dry-run" or document.get("random_rows"):
        problems.append(f"{name}: found a dry run, expected scores of a trained ensemble")
    folds = document.get("folds")
    if not isinstance(folds, list) or not folds or not all(isinstance(fold, Mapping) for fold in folds):
        return [*problems, f"{name} folds: found {short(folds)}, expected a list of folds"]
    if differences("", document.get("n_folds"), len(folds)):
        problems.append(f"{name} n_folds: found {document.get('n_folds')!r}, expected {len(folds)}")
    for source, times in Counter(short(fold.get("held_out")) for fold in folds).items():
        if times > 1:
            problems.append(f"{name} folds: found {source} held out {times} times, expected each source once")
    total = sum(fold["n_val"] for fold in folds if is_count(fold.get("n_val")))
    for fold in folds:
        problems += _fold_problems(f"{name} fold {short(fold.get('held_out'))}", fold, total)
    return problems + _total_problems(name, document, folds)


def _fold_problems(place: str, fold: Mapping[str, Json], total: int) -> list[str]:
    """What is wrong with one fold. total: the rows of all folds."""
    problems = []
    if not isinstance(fold.get("held_out"), str) or not fold["held_out"]:
        problems.append(f"{place}: expected the name of the held-out source")
    for score, (low, high) in SCORE_RANGES.items():
        value = number(fold.get(score))
        if not low <= value <= high or not math.isfinite(value):
            found = short(fold.get(score))
            problems.append(f"{place} {score}: found {found}, expected a number from {low:g} to {high:g}")
    counts: list[Json] = [fold.get("n_train"), fold.get("n_val")]
    if not all(map(is_count, counts)):
        problems.append(f"{place}: found n_train, n_val {short(counts)}, expected two counts of rows")
    elif sum(counts) != total:
        expected = f"{total - counts[1]} of {total} rows: is a source in its own training fold?"
        problems.append(f"{place} n_train: found {counts[0]}, expected {expected}")
    return problems


def _total_problems(name: str, document: Mapping[str, Json], folds: Sequence[Mapping[str, Json]]) -> list[str]:
    """Means and spread that are not those of the folds."""
    problems = []
    for score in SCORE_RANGES:
        mean = math.fsum(number(fold.get(score)) for fold in folds) / len(folds)
        stored = document.get(f"mean_{score}")
        if not OTHER_PROGRAM.holds(stored, mean) and (score == "plcc" or stored is not None):
            problems.append(f"{name} mean_{score}: found {short(stored)}, expected the mean of its folds, {mean:.9g}")
    spread = float(np.std([number(fold.get("plcc")) for fold in folds], ddof=1)) if len(folds) > 1 else math.nan
    if document.get("std_plcc") is not None and not OTHER_PROGRAM.holds(document["std_plcc"], spread):
        found = short(document["std_plcc"])
        problems.append(f"{name} std_plcc: found {found}, expected that of its folds (ddof 1), {spread:.9g}")
    return problems


def corpus_problems(seed: int, document: Mapping[str, Json], known: Mapping[str, int]) -> list[str]:
    """Where a summary cannot come from a corpus whose sources have so many rows."""
    name, folds = f"loso_seed{seed}.json", folds_of(document)
    missing, foreign = sorted(known.keys() - folds.keys()), sorted(folds.keys() - known.keys())
    problems = [f"{name} folds: found no fold for the sources {first_names(missing)}"] if missing else []
    problems += [f"{name} folds: found {first_names(foreign)}, no sources of the corpus"] if foreign else []
    for source in sorted(known.keys() & folds.keys()):
        if folds[source].get("n_val") != known[source]:
            found = short(folds[source].get("n_val"))
            problems.append(f"{name} fold {source} n_val: found {found}, expected the corpus's {known[source]} rows")
    return problems


def digest_problems(seed: int, document: Mapping[str, Json], expected: Mapping[str, str | None]) -> list[str]:
    """Where a summary carries a digest that is known to be another."""
    return [
        f"loso_seed{seed}.json {key}: found {short(document[key])}, expected {digest}: evidence of something else"
        for key, digest in expected.items()
        if digest is not None and document.get(key) not in (None, digest)
    ]


def lacking(documents: Mapping[int, Mapping[str, Json]], digests: Mapping[str, str]) -> tuple[str, ...]:
    """Which digests some summaries do not carry, a line each. digests: field -> what cannot be told without it."""
    lines = []
    for name, words in digests.items():
        if seeds := [str(seed) for seed, document in documents.items() if document.get(name) is None]:
            lines.append(f"seeds {first_names(seeds, 5)}: the summaries have no {name}: {words} cannot be told")
    return tuple(lines)


def between_problems(documents: Mapping[int, Mapping[str, Json]]) -> list[str]:
    """What summaries of one run cannot do: differ in corpus, recipe or folds, or agree in every score."""
    problems = []
    for key in ("corpus", "corpus_sha256", "rows_sha256", "recipe_sha256"):
        if len({short(document.get(key)) for document in documents.values()}) > 1:
            problems.append(f"{key}: found different ones in the seeds' files, expected one run's")
    for (a, first), (b, second) in combinations(documents.items(), 2):
        one, other = folds_of(first), folds_of(second)
        counts = [{source: fold.get("n_val") for source, fold in folds.items()} for folds in (one, other)]
        if counts[0] != counts[1]:
            problems.append(f"seeds {a} and {b}: found different folds, expected the same held-out sources and rows")
        scores = [
            {source: [number(fold.get(name)) for name in ("plcc", "rmse")] for source, fold in folds.items()}
            for folds in (one, other)
        ]
        if not differences("", *scores):
            problems.append(f"seeds {a} and {b}: found the same scores, expected two trainings: one file was copied")
    return problems


def differences(name: str, found: Json, expected: Json) -> list[str]:
    """Where a JSON value says something else than the expected one; keys that are not expected are let be."""
    return [
        f"{name} #{d.pointer}: found {short(d.found)}, the predictions give {short(d.expected)}"
        for d in toolkit.differences(found, expected, OTHER_PROGRAM)
        if d.expected is not MISSING
    ]


def folds_of(document: Mapping[str, Json]) -> dict[str, Mapping[str, Json]]:
    """Its folds by held-out source, as far as they are folds."""
    folds = document.get("folds")
    folds = [fold for fold in folds if isinstance(fold, Mapping)] if isinstance(folds, list) else []
    return {fold["held_out"]: fold for fold in folds if isinstance(fold.get("held_out"), str)}


def is_count(value: Json) -> bool:
    """True for a whole number above 0; true is none."""
    return type(value) is int and value > 0


def number(value: Json) -> float:
    """A JSON number; NaN for anything else, true and false too."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else math.nan


def short(value: Json) -> str:
    """A JSON value, short enough for one line."""
    return f"{value:.9g}" if isinstance(value, float) else repr(value)[:80]
