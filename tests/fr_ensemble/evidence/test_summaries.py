"""test_summaries.py: public LOSO summaries without predictions, measured as far as they hold together."""

from __future__ import annotations

import json
import math

import pytest
from predictions import FILES, OOF, RECIPE, ROWS, SEEDS, measure, measure_foreign, set_fold, summaries

from registry_tool.errors import InputError


def public(seed, **changes):
    """A summary as the public trainer writes it, without digests."""
    document = json.loads(FILES[f"evidence/loso_seed{seed}.json"])
    for key in ("rows_sha256", "recipe_sha256"):
        del document[key]
    return document | {"wall_time_s": 28.4, "epochs": 200} | changes


def as_files(*documents):
    return {f"loso_seed{document['seed']}.json": json.dumps(document).encode() for document in documents}


def test_public_summaries_are_measured():
    """Summaries without predictions give the same metrics, and hold against their corpus and members."""
    files = as_files(*map(public, SEEDS)) | {"PROMOTE.json": b"not looked at"}
    metrics, problems, details = measure_foreign(files, seeds=SEEDS, corpus=ROWS, recipe_sha256=RECIPE)
    assert problems == ()
    expected = measure(OOF, summaries())
    assert metrics == pytest.approx(expected[0])
    assert details["seed_plcc"] == pytest.approx(expected[2]["seed_plcc"])
    assert measure_foreign(FILES, corpus=ROWS, recipe_sha256=RECIPE)[1] == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_fold(0, plcc=math.nan), "the number is not finite: found NaN"),
        (set_fold(0, plcc=None), "fold 'random0' plcc: found None"),
        (set_fold(0, plcc=1.3), "fold 'random0' plcc: found 1.3"),
        (set_fold(0, plcc=True), "fold 'random0' plcc: found True"),
        (set_fold(0, plcc="0.99"), "found '0.99'"),
        (set_fold(0, rmse=-1.0), "rmse: found -1"),
        (set_fold(0, srocc=None), "srocc: found None"),
        (set_fold(1, n_train=160), "in its own training fold"),
        (set_fold(1, n_val=True), "expected two counts"),
        (set_fold(1, held_out="random0"), "held out 2 times"),
        (set_fold(1, held_out=7), "expected the name"),
        (lambda d: d["folds"].pop(), "no fold for the sources random3"),
        (lambda d: d.update(folds=[]), "expected a list of folds"),
        (lambda d: d.update(folds=[1]), "expected a list of folds"),
        (lambda d: d.update(mean_plcc=0.999), "expected the mean of its folds"),
        (lambda d: d.update(std_plcc=0.5), "expected that of its folds"),
        (lambda d: d.update(n_folds=9), "n_folds: found 9"),
        (lambda d: d.update(seed=True), "seed: found True"),
        (lambda d: d.update(note="dry-run"), "dry run"),
        (lambda d: d.update(corpus="other.parquet"), "corpus: found different ones"),
        (lambda d: d.update(corpus_sha256="0" * 64), "corpus_sha256: found different ones"),
        (lambda d: d.update(rows_sha256="0" * 64), "evidence of something else"),
        (lambda d: d.update(recipe_sha256="0" * 64), "evidence of something else"),
        (lambda d: d.update(onnx_sha256="0" * 64), "evidence of something else"),
    ],
)
def test_faked_public_summaries_are_problems(change, words):
    """Every fake that a summary alone can show is a problem, one line each."""
    documents = [public(seed) for seed in SEEDS]
    change(documents[1])
    files = {f"loso_seed{seed}.json": json.dumps(d).encode() for seed, d in zip(SEEDS, documents, strict=True)}
    pins = {"recipe_sha256": RECIPE, "onnx_sha256": {1: "1" * 64}}
    problems = measure_foreign(files, corpus=ROWS, **pins)[1]
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_copies_under_other_names_are_problems():
    """One seed's file under five names, with or without its seed edited, or under a name with a zero, is found."""
    one = public(0)
    copies = {f"loso_seed{seed}.json": json.dumps(one).encode() for seed in range(5)}
    assert any("under another's name" in problem for problem in measure_foreign(copies)[1])
    renumbered = as_files(*(one | {"seed": seed} for seed in range(5)))
    assert any("seeds 0 and 4: found the same scores" in problem for problem in measure_foreign(renumbered)[1])
    zeros = as_files(public(0), public(1)) | {"loso_seed00.json": json.dumps(public(0)).encode()}
    assert any("loso_seed00.json" in problem for problem in measure_foreign(zeros)[1])
    assert any("expected at least 2" in problem for problem in measure_foreign(as_files(one))[1])
    twice = as_files(public(0), public(1))
    twice["loso_seed1.json"] = twice["loso_seed1.json"].replace(b'"seed": 1', b'"seed": 0, "seed": 1')
    assert any("duplicate key" in problem for problem in measure_foreign(twice)[1])


def test_seeds_on_other_folds_give_no_metrics():
    """Seeds that held out different sources cannot be averaged."""
    other = public(1)
    other["folds"][0]["held_out"] = "elsewhere"
    metrics, problems, _ = measure_foreign(as_files(public(0), other))
    assert metrics == {}
    assert any("different folds" in problem for problem in problems)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b"[" * 50_000, b'{"seed": ' + b"9" * 5000 + b"}"])
def test_what_is_no_summary_is_unusable(data):
    """A file that is not a JSON object cannot be judged; neither can a folder without summaries."""
    with pytest.raises(InputError, match=r"loso_seed0\.json"):
        measure_foreign({"loso_seed0.json": data})
    with pytest.raises(InputError, match=r"expected loso_seed\{N\}\.json files"):
        measure_foreign({"other.json": b"{}"})
