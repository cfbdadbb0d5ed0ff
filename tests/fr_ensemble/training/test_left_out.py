"""Tests of `train --leave-out-encoders`: each encoder once as one that training lacks, in evidence and report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from command_line import Program, succeed
from corpora import SMALL, make_corpus
from fr_ensemble.evidence.left_out import EncodersLeftOut, read_left_out, write_left_out
from fr_ensemble.evidence.statistics import plcc
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.left_out import predict_left_out
from fr_ensemble.training.trainer import train
from registries import QUICK, Made, write_corpus
from sandbox import Sandbox

from registry_tool.errors import InputError
from registry_tool.toolkit import Text

pytestmark = pytest.mark.slow

DATA = make_corpus([14, 9, 12, 20])
ONE = Execution(jobs=1)
FILE = "evidence/encoders_left_out.npz"


def text(codes: np.ndarray) -> Text:
    return Text(codes.astype(np.int64), ("a", "b", "c")[: int(codes.max()) + 1])


def test_a_row_is_predicted_without_its_encoder_and_its_source() -> None:
    """Other targets of an encoder, and of a source, change no prediction of a row that has either; others change."""
    encoder = text(DATA.codec)
    before = predict_left_out(DATA, encoder, SMALL, ONE)
    assert np.isfinite(before).all()
    for own in (encoder.codes == 1, DATA.source == 2):
        changed = replace(DATA, target=np.where(own, 100.0 - DATA.target, DATA.target))
        after = predict_left_out(changed, encoder, SMALL, ONE)
        assert np.array_equal(after[:, own], before[:, own])
        assert not (after[:, ~own] == before[:, ~own]).all(axis=1).any()


def test_a_source_of_one_encoder_is_predicted_by_models_of_the_other_sources() -> None:
    """They learn from the rows of leave-one-source-out, from other first weights: about the same is predicted."""
    codec = np.where(DATA.source == 3, 1, 2 * (np.arange(len(DATA.source)) % 2))
    data = replace(DATA, codec=codec)
    recipe, last = replace(SMALL, epochs=40, learning_rate=0.01), data.source == 3
    found = predict_left_out(data, text(codec), recipe, ONE)
    beside = [one[:, last].mean(axis=0) for one in (found, train(data, recipe, ONE).oof)]
    assert plcc(*beside) > 0.95
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("codec", "recipe", "words"),
    [
        (np.zeros(55), SMALL, "found one encoder, a, expected two or more"),
        (DATA.source > 0, SMALL, "found 1 sources with rows of other encoders than b, expected 2"),
        (DATA.source > 1, replace(SMALL, early_stopping=2), "other encoders than a, expected 3"),
    ],
)
def test_encoders_that_cannot_be_left_out_are_named(codec: np.ndarray, recipe: object, words: str) -> None:
    """One encoder, or others in too few sources to train on: refused before anything is trained."""
    with pytest.raises(InputError, match=words):
        predict_left_out(DATA, text(codec.astype(np.int64)), recipe, ONE)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def left_out(tmp_path_factory: pytest.TempPathFactory, made: Made) -> tuple[Sandbox, str]:
    """A small ensemble with each of its encoders left out, and what training printed."""
    path = tmp_path_factory.mktemp("left-out") / "registry.json"
    arguments = ("train", "fr_ensemble", "--id", "tiny", "--corpus", made.corpus, *QUICK, "--registry", path)
    return Sandbox(path), succeed(*arguments, "--leave-out-encoders").out


def test_the_option_is_in_evidence_manifest_and_report(
    left_out: tuple[Sandbox, str], registry: Program, made: Made, tmp_path: Path
) -> None:
    """Training says how it did; the manifest names the encoders; the entry is valid; the report has a table of them;
    and all of it is made again."""
    box, said = left_out
    assert "encoders left out: RMSE " in said
    assert box.manifest["encoders_left_out"] == ["libsvtav1", "libx264", "libx265"]
    assert box.codes() == []
    page = tmp_path / "report.html"
    assert registry("report", "tiny", "--registry", box.path, "-o", page).code == 0
    assert "saw neither it nor the row&#39;s source" in page.read_text()
    assert "an encoder that training lacks: those are in the next table." in page.read_text()
    ran = registry("reproduce", "tiny", "--corpus", made.corpus, "--registry", box.path, "--format", "json")
    document = json.loads(ran.out)
    apart = {item["name"]: item["largest"] for item in document["agreements"]}
    assert (document["outcome"], apart["mu of encoders left out"]) == ("identical", 0.0)


def test_a_calibrated_entry_keeps_them(left_out: tuple[Sandbox, str], registry: Program, tmp_path: Path) -> None:
    """They are its members', so that they travel with the evidence of their parent."""
    box, rows = left_out[0], write_corpus(tmp_path / "mine.csv", 4, 30, seed=7)
    assert registry("calibrate", "tiny", "--corpus", rows, "--id", "mine", "--registry", box.path).code == 0
    mine = Sandbox(box.path, "mine")
    assert mine.manifest["encoders_left_out"] == box.manifest["encoders_left_out"]
    assert registry("validate", box.path).code == 0


def test_forged_predictions_are_found(left_out: tuple[Sandbox, str], registry: Program, tmp_path: Path) -> None:
    """Other names, other rows, or a file that is none: an error, and never promoted."""
    from shutil import copytree

    stored = read_left_out((left_out[0].artifacts / FILE).read_bytes())
    for data, code in (
        (write_left_out(replace(stored, encoders=("a", *stored.encoders[1:]))), "evidence-problem"),
        (write_left_out(EncodersLeftOut(("a", "b"), np.array([0, 1]), np.zeros((2, 2)), "")), "evidence-problem"),
        (b"none", "evidence-unusable"),
    ):
        box = Sandbox(copytree(left_out[0].folder, tmp_path / code / str(len(data))) / "registry.json")
        assert {found for found, _ in box.forged(files={FILE: data})} == {code}
    assert registry("report", "tiny", "--registry", box.path, "-o", tmp_path / "r.html").code == 0


def test_what_cannot_be_left_out_is_refused_in_one_line(registry: Program, made: Made, tmp_path: Path) -> None:
    """Random rows, encoders that are folds already, and rows of one encoder: nothing is written."""
    path = tmp_path / "registry.json"
    rows = [line for line in made.corpus.read_text().splitlines() if "libx265" not in line and "svtav1" not in line]
    single = tmp_path / "single.csv"
    single.write_text("\n".join(rows) + "\n")
    for arguments, words in (
        (("--smoke",), "--smoke trains on random rows"),
        (("--corpus", made.corpus, "--group", "encoder"), "--group encoder leaves them out already"),
        (("--corpus", single), "found one encoder, libx264, expected two or more: leave the option out"),
    ):
        ran = registry(
            "train", "fr_ensemble", "--id", "e", *QUICK, "--leave-out-encoders", *arguments, "--registry", path
        )
        assert (ran.code, words in ran.err) == (2, True), ran.err
    assert not path.exists()
