"""test_inputs.py: the inputs of a corpus in a file of the evidence, and the digest of its rows from them alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fr_ensemble.artifacts.manifest import codec_block
from fr_ensemble.corpus.rows import Corpus, random_corpus, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.inputs import INPUTS_FORMAT, Inputs, chosen_rows, default_rows, read_inputs, write_inputs
from fr_ensemble.evidence.oof import Oof

from registry_tool.archive import EvidenceProblem, write_arrays

CONDITIONED = ColumnSpec(
    features=("f", "g"), target="q", conditioning=(Condition("rate", "log2"), Condition("h")), target_range=(0.0, 9.0)
)


def write(path: Path, columns: dict[str, Callable[[int], Any]], n: int = 60) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(n):
            writer.writerow([column(i) for column in columns.values()])
    return path


NUMBERS: dict[str, Callable[[int], Any]] = {
    "f": lambda i: i * 0.37 - 3,
    "g": lambda i: -0.0 if i % 7 == 0 else 1 / (i + 1),
    "rate": lambda i: 1000 + 37 * i,
    "h": lambda i: 1080 if i % 3 else 720,
    "q": lambda i: i * 7 % 9,
}
NAMES: dict[str, dict[str, Callable[[int], Any]]] = {
    "plain": {"src": lambda i: f"s{i % 5}", "encoder": lambda i: ("libx264", "other")[i % 2]},
    "codec": {"src": lambda i: f"s{4 - i % 5}", "codec": lambda i: ("h264", "vp9", "x")[i % 3]},
    "clips": {
        "src": lambda i: f"s{i % 2}",
        "encoder": lambda i: "libx265",
        "clip": lambda i: ("both", "a/b", f"{i % 4}")[i % 3],
    },
    "qualities": {"src": lambda i: f"s{i % 3}", "encoder": lambda i: "libx264", "crf": lambda i: i % 4},
}


def corpus_of(names: str, folder: Path) -> Corpus:
    return read_corpus(write(folder / "c.csv", NAMES[names] | NUMBERS), CONDITIONED)


def oof_of(corpus: Corpus) -> Oof:
    noise = np.random.default_rng(0).normal(size=(2, corpus.n_rows))
    return Oof.of(corpus, (0, 1), corpus.target + noise, "r")


def everything(corpus: Corpus) -> Inputs:
    return Inputs.of(corpus, chosen_rows(corpus.n_rows, corpus.n_rows))


@pytest.mark.parametrize("names", NAMES)
def test_the_digest_of_the_rows_follows_from_inputs_and_predictions(names: str, tmp_path: Path) -> None:
    """Whatever columns the corpus has; and any other number or name is another digest."""
    corpus = corpus_of(names, tmp_path)
    oof, inputs = oof_of(corpus), read_inputs(write_inputs(everything(corpus)))
    assert inputs.rows_sha256(oof, CONDITIONED) == corpus.rows_sha256
    features = inputs.features.copy()
    features[7, 1] += 1e-12
    other = tuple(f"{name}x" for name in inputs.encoders)
    moved = replace(oof, target=oof.target[::-1])
    assert replace(inputs, features=features).rows_sha256(oof, CONDITIONED) != corpus.rows_sha256
    assert replace(inputs, encoders=other).rows_sha256(oof, CONDITIONED) != corpus.rows_sha256
    assert inputs.rows_sha256(moved, CONDITIONED) != corpus.rows_sha256


@pytest.mark.parametrize("names", NAMES)
def test_models_are_fed_as_in_training(names: str, tmp_path: Path) -> None:
    """The transformed columns and the codec block are the corpus's own, to the last bit, for any rows."""
    corpus = corpus_of(names, tmp_path)
    block = codec_block(corpus.codec, corpus.conditioning, CONDITIONED.n_slots)
    for rows in (chosen_rows(corpus.n_rows, corpus.n_rows), np.array([0]), np.array([3, 8, 59])):
        inputs = read_inputs(write_inputs(Inputs.of(corpus, rows)))
        assert inputs.is_complete is (len(rows) == corpus.n_rows)
        np.testing.assert_array_equal(inputs.codec_block(CONDITIONED), block[rows])
        np.testing.assert_array_equal(inputs.transformed(CONDITIONED)[:, :2], corpus.features[rows])


def test_random_rows_have_inputs_too() -> None:
    """Smoke runs go the same way."""
    corpus = random_corpus(100, ColumnSpec(), 3)
    assert everything(corpus).rows_sha256(oof_of(corpus), ColumnSpec()) == corpus.rows_sha256


def test_the_file_is_reproducible_and_plain_numpy(tmp_path: Path) -> None:
    """The same inputs give the same bytes; other tools read them without pickles."""
    inputs = everything(corpus_of("clips", tmp_path))
    data = write_inputs(inputs)
    assert write_inputs(read_inputs(data)) == data
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["features"], inputs.features)
        assert sorted(arrays["clips"].tolist()) == sorted(inputs.clips)


BROKEN: dict[str, dict[str, Any]] = {
    "another version": {"version": 2},
    "rows that repeat": {"row": [0, 0, 1]},
    "rows in another order": {"row": [2, 1, 0]},
    "rows beyond the corpus": {"row": [0, 1, 60]},
    "negative rows": {"row": [-1, 0, 1]},
    "no rows": {"row": [], "features": np.empty((0, 2)), "conditioning": np.empty((0, 2)), "encoder": []},
    "fewer features": {"features": np.zeros((2, 2))},
    "fewer conditions": {"conditioning": np.zeros((2, 2))},
    "a feature that is not a number": {"features": np.full((3, 2), np.nan)},
    "an infinite feature": {"features": np.full((3, 2), np.inf)},
    "a condition beyond float32's squares": {"conditioning": np.full((3, 2), 1e13)},
    "an encoder without a name": {"encoder": [0, 0, 1]},
    "an encoder that is not used": {"encoders": ["a", "b"]},
    "an encoder with a control character": {"encoders": ["a\nb"]},
    "fewer slots": {"codec": [0]},
    "a clip for some rows": {"clips": ["a"], "clip": [0]},
    "a clip without a name": {"clips": ["a"], "clip": [0, 1, 0]},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_what_training_does_not_write_is_refused(change: dict[str, Any]) -> None:
    """In one line that names the file."""
    good = {
        "version": 1,
        "n_rows": 60,
        "row": [0, 5, 59],
        "features": np.ones((3, 2)),
        "conditioning": np.ones((3, 2)),
        "encoders": ["libx264"],
        "encoder": [0, 0, 0],
        "codec": [0, 1, 0],
        "clips": [],
        "clip": [],
    }
    assert read_inputs(write_arrays(INPUTS_FORMAT, good)).n_rows == 60
    with pytest.raises(EvidenceProblem, match=r"^inputs\.npz") as error:
        read_inputs(write_arrays(INPUTS_FORMAT, good | change))
    assert "\n" not in str(error.value)


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Another number of columns, and a logarithm of what is not positive."""
    inputs = everything(corpus_of("plain", tmp_path))
    with pytest.raises(EvidenceProblem, match="found 2 features and 2 conditions, not 6 and 0"):
        inputs.transformed(ColumnSpec())
    with pytest.raises(EvidenceProblem, match=r"expected slots 0\.\.11"):
        replace(inputs, codec=inputs.codec + 11).codec_block(CONDITIONED)
    with pytest.raises(EvidenceProblem, match="a logarithm needs positive numbers"):
        replace(inputs, conditioning=-inputs.conditioning).codec_block(CONDITIONED)


@pytest.mark.parametrize(
    ("n_rows", "products", "rows"),
    [(100, 1, 100), (50_000, 10_000, 50_000), (50_001, 1, 512), (50_000, 10**7, 512), (300, 10**9, 300)],
)
def test_inputs_of_all_rows_where_they_can_be_run(n_rows: int, products: int, rows: int) -> None:
    """Of larger corpora, or of networks too wide for the gate, a sample from all over the corpus."""
    assert default_rows(n_rows, products) == rows
    chosen = chosen_rows(n_rows, rows)
    assert (len(chosen), chosen[0], chosen[-1]) == (rows, 0, n_rows - 1)
    assert len(chosen_rows(n_rows, 0)) == 0
