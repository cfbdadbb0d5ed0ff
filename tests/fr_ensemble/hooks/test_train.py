"""Tests of train.py: from a corpus to finished files; what the manifest says is what they are; the same run twice."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csv_tables import read_csv, write_csv
from registries import FEATURES, write_corpus

pytest.importorskip("numba", reason="a run needs the extra `train`")

from fr_ensemble.arrays import TrainedModels
from fr_ensemble.artifacts.graphs import read_weights
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.seen import DESCRIBING_COLUMNS
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.recorded import EvidenceContents
from fr_ensemble.hooks import train as room
from fr_ensemble.hooks.train import Job, run
from fr_ensemble.training import parity
from fr_ensemble.training.execution import Execution

from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Trained

pytestmark = pytest.mark.slow

QUICK = Recipe(seeds=(0, 7), epochs=2, hidden=4, batch_size=8)
IN_A_CHILD = parity.predict_in_torch  # as the program has it, before `torch_here` replaces it


def job(corpus: Path | None, **changed: Any) -> Job:
    plain = {"execution": Execution(jobs=1), "contents": EvidenceContents(baselines=False)}
    return replace(Job("mine", corpus, ColumnSpec(), QUICK, False, **plain), **changed)


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture
def child_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch computes in a process of its own, as it does for users."""
    monkeypatch.setattr(parity, "predict_in_torch", IN_A_CHILD)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("run") / "corpus.csv", 3, 12, seed=4)


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Trained:
    return run(job(corpus), quiet)


@pytest.fixture(scope="module")
def conditioned(corpus: Path) -> tuple[Path, Trained]:
    """The same rows with a quality and a bit rate, and a mean opinion score for a target; encoders of version 1."""
    rows = read_csv(corpus)
    path = corpus.parent / "conditioned.jsonl"
    with path.open("w") as file:
        for number, row in enumerate(rows):
            mos = 1 + 4 * float(row["vmaf"]) / 100
            row_ = {name: float(row[name]) for name in FEATURES} | {
                "src": row["src"],
                "codec": row["encoder"],
                "mos": mos,
            }
            file.write(json.dumps(row_ | {"crf": 20 + number % 5, "kbps": 2.0 ** (8 + number % 4)}) + "\n")
    conditions = (Condition("crf"), Condition("kbps", "log2"))
    spec = ColumnSpec(target="mos", conditioning=conditions, vocabulary_version=1)
    return path, run(job(path, spec=spec), quiet)


def oof_of(trained: Trained) -> Any:
    return read_oof(trained.files["evidence/oof.npz"])


# ---- what is made -----------------------------------------------------------------------------------------------


def test_a_run_makes_the_files_that_its_manifest_names(trained: Trained) -> None:
    """A member a seed, the fused graph, predictions and a summary a seed; no file more, no path of this machine."""
    names = {"mine_seed0.onnx", "mine_seed7.onnx", "mine.onnx", "evidence/oof.npz"}
    names |= {"evidence/loso_seed0.json", "evidence/loso_seed7.json"}
    names |= {"evidence/inputs.npz", "evidence/fingerprints.npz"}
    assert set(trained.files) == names
    manifest = trained.manifest
    assert [(m["id"], m["onnx"], m["seed"]) for m in manifest["members"]] == [
        ("mine_seed0", "mine_seed0.onnx", 0),
        ("mine_seed7", "mine_seed7.onnx", 7),
    ]
    assert (manifest["id"], manifest["kind"], manifest["ensemble_size"]) == ("mine", "fr_ensemble", 2)
    assert (manifest["schema_version"], manifest["random_rows"], "smoke" in manifest) == (2, False, False)
    assert str(Path.cwd()) not in json.dumps(manifest)


def test_the_manifest_says_what_was_trained_on(trained: Trained, corpus: Path) -> None:
    """Corpus digests, rows and sources, and the scaler: mean and deviation over all rows."""
    read, manifest = read_corpus(corpus, ColumnSpec()), trained.manifest
    assert manifest["corpus"] == {
        "name": "corpus.csv",
        "sha256": read.sha256,
        "rows_sha256": read.rows_sha256,
        "n_rows": 36,
        "sources": ["s40", "s41", "s42"],
        "record": None,
        "encoders": [{"name": name, "n_rows": 12} for name in ("libsvtav1", "libx264", "libx265")],
    }
    assert manifest["feature_mean"] == pytest.approx(read.features.mean(axis=0))
    assert manifest["feature_std"] == pytest.approx(read.features.std(axis=0), rel=0.02)  # ddof is the trainer's own
    assert manifest["target"] == {"name": "vmaf", "range": [0.0, 100.0]}
    assert (manifest["recipe"], manifest["recipe_sha256"]) == (QUICK.to_dict(), QUICK.sha256)


@pytest.mark.parametrize("column", DESCRIBING_COLUMNS)
def test_a_column_that_describes_video_can_name_the_sources(corpus: Path, tmp_path: Path, column: str) -> None:
    """Its values count as sources then, and it describes nothing beside them."""
    described = dict.fromkeys(DESCRIBING_COLUMNS, 24)
    rows = [{**row, **described, column: 30 + int(row["src"][-1])} for row in read_csv(corpus)]
    path = write_csv(tmp_path / "described.csv", rows)
    found = room.read(job(path, spec=ColumnSpec(source_column=column)), quiet)
    assert found.sources == ("30", "31", "32")
    assert {*DESCRIBING_COLUMNS} & {*found.groups} == {*DESCRIBING_COLUMNS} - {column}


def test_the_probe_is_rows_of_the_corpus(trained: Trained, corpus: Path) -> None:
    """Some rows as they stand there, and the trainer's mu and sigma, which the fused graph gives to rounding."""
    probe, read = trained.manifest["probe"], read_corpus(corpus, ColumnSpec())
    rows = [read.features.tolist().index(row) for row in probe["features"]]
    assert len(rows) == len(set(rows)) == 4
    assert [row.index(1.0) for row in probe["codec_block"]] == read.codec[rows].tolist()
    names = read.groups["encoder"]
    assert probe["encoder"] == [names.names[code] for code in names.codes[rows]]
    assert probe["stages"] == {"features": "raw", "encoder": "raw", "codec_block": "transformed"}
    features, block = (np.array(probe[key]) for key in ("features", "codec_block"))
    mu, sigma = Ensemble(trained.files["mine.onnx"]).predict(features, block)
    assert probe["mu"] == pytest.approx(mu.tolist(), abs=parity.EXPORT_TOLERANCE)
    assert probe["sigma"] == pytest.approx(sigma.tolist(), abs=parity.EXPORT_TOLERANCE)


def test_predictions_are_out_of_fold(trained: Trained, corpus: Path) -> None:
    """Every row once a seed, in the corpus's order; what a member of the whole corpus says is something else."""
    oof, read = oof_of(trained), read_corpus(corpus, ColumnSpec())
    assert (oof.seeds, oof.sources) == ((0, 7), read.sources)
    assert (oof.target.tolist(), oof.source.tolist()) == (read.target.tolist(), read.source.tolist())
    assert oof.predictions.shape == (2, 36)
    assert (oof.rows_sha256, oof.corpus_sha256) == (read.rows_sha256, read.sha256)
    block = np.zeros((36, 12))
    block[np.arange(36), read.codec] = 1
    mu, _ = Ensemble(trained.files["mine.onnx"]).predict(read.features, block)
    assert np.abs(oof.mu - mu).max() > 1e-3


def test_members_differ(trained: Trained) -> None:
    """Two seeds are two trainings."""
    one, two = (read_weights(trained.files[f"mine_seed{seed}.onnx"]) for seed in (0, 7))
    assert not np.array_equal(one.w1, two.w1)
    assert not np.array_equal(*oof_of(trained).predictions)


def test_a_person_is_told_the_figures(trained: Trained) -> None:
    """Rows, sources and the leave-one-source-out figures, in words; no warning where there is nothing to warn of."""
    summary = dict(trained.summary)
    assert summary["corpus"] == "corpus.csv: 36 rows, 3 sources"
    assert summary["leave-one-source-out"].startswith("mean_plcc ")
    assert list(trained.warnings) == []


# ---- the same run twice -----------------------------------------------------------------------------------------


def test_the_same_run_gives_the_same_bytes(trained: Trained, corpus: Path) -> None:
    """Again, with another number of workers: every file, and the manifest."""
    again = run(job(corpus, execution=Execution(jobs=2)), quiet)
    assert again.files == trained.files
    assert again.manifest == trained.manifest


def test_a_name_changes_names_alone(trained: Trained, corpus: Path) -> None:
    """The weights do not depend on what the entry or the file is called."""
    other = corpus.parent / "other.csv"
    other.write_bytes(corpus.read_bytes())
    again = run(job(other, entry_id="yours"), quiet)
    assert again.files["yours_seed7.onnx"] == trained.files["mine_seed7.onnx"]
    assert again.files["evidence/oof.npz"] == trained.files["evidence/oof.npz"]


@pytest.mark.parametrize(
    "changed", [{"epochs": 3}, {"seeds": (0, 8)}, {"hidden": 5}, {"dropout": 0.2}, {"learning_rate": 1e-3}]
)
def test_another_recipe_is_another_ensemble(trained: Trained, corpus: Path, changed: dict[str, Any]) -> None:
    """Each hyper-parameter reaches the trainer and the digest of the recipe."""
    again = run(job(corpus, recipe=replace(QUICK, **changed)), quiet)
    assert again.files["mine.onnx"] != trained.files["mine.onnx"]
    assert again.manifest["recipe_sha256"] != trained.manifest["recipe_sha256"]


# ---- other corpora ----------------------------------------------------------------------------------------------


def test_conditions_stand_after_the_slots(conditioned: tuple[Path, Trained]) -> None:
    """Slots of vocabulary 1, then the conditions with their transform, mean and deviation; members take them all."""
    manifest, files = conditioned[1].manifest, conditioned[1].files
    assert manifest["codec_vocab"] == ["x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", "unknown"]
    *slots, crf, kbps = manifest["codec_block"]
    assert [slot["name"] for slot in slots] == manifest["codec_vocab"]
    assert (crf["name"], crf["transform"], crf["mean"]) == ("crf", "none", pytest.approx(21.9, abs=0.2))
    assert (kbps["name"], kbps["transform"], kbps["mean"]) == ("kbps", "log2", pytest.approx(9.5, abs=0.2))
    assert read_weights(files["mine_seed0.onnx"]).w1.shape[0] == 6 + 6 + 2
    assert manifest["target"] == {"name": "mos", "range": [1.0, 5.0]}


def test_the_fused_graph_takes_raw_conditions(conditioned: tuple[Path, Trained]) -> None:
    """Raw features and raw (transformed, unscaled) conditions give the probe's mu; a condition moves it."""
    _, trained = conditioned
    probe = trained.manifest["probe"]
    features, block = (np.array(probe[key]) for key in ("features", "codec_block"))
    assert set(block[:, 6]) <= {20.0, 21.0, 22.0, 23.0, 24.0}
    assert set(block[:, 7]) <= {8.0, 9.0, 10.0, 11.0}
    assert probe["conditioning"] == np.column_stack([block[:, 6], 2 ** block[:, 7]]).tolist()
    assert probe["stages"]["conditioning"] == "raw"
    graph = Ensemble(trained.files["mine.onnx"])
    assert graph.predict(features, block)[0].tolist() == pytest.approx(probe["mu"], abs=parity.EXPORT_TOLERANCE)
    block[:, 6] += 5
    assert graph.predict(features, block)[0].tolist() != pytest.approx(probe["mu"], abs=parity.EXPORT_TOLERANCE)


def test_unknown_encoders_are_counted(corpus: Path) -> None:
    """A warning with the name and the number of rows; they train in the slot `unknown`."""
    path = corpus.parent / "unknown.csv"
    path.write_text(corpus.read_text().replace("libx265", "dirac"))
    trained = run(job(path), quiet)
    assert [w for w in trained.warnings if "dirac" in w and "12 rows" in w] == list(trained.warnings)


def test_random_rows_are_marked(tmp_path: Path) -> None:
    """--smoke needs no corpus; the manifest says what it is and the corpus has no file."""
    trained = run(job(None, random=True, recipe=replace(QUICK, epochs=1)), quiet)
    assert trained.manifest["random_rows"] is True
    assert (trained.manifest["corpus"]["name"], trained.manifest["corpus"]["sha256"]) == ("random rows", None)
    assert oof_of(trained).corpus_sha256 is None


def test_without_a_corpus_the_shipped_one_is_used(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    """It is called `shipped`, wherever the package lies."""
    monkeypatch.setattr(room, "SHIPPED_CORPUS", corpus)
    again = run(job(None), quiet)
    assert again.manifest["corpus"]["name"] == "shipped"
    assert again.files["mine.onnx"] == trained.files["mine.onnx"]


def constant_target(rows: list[dict[str, str]]) -> None:
    for row in rows:
        row["vmaf"] = "50"


def constant_feature(rows: list[dict[str, str]]) -> None:
    for row in rows:
        row["adm2"] = "0.5"


def lone_rows(rows: list[dict[str, str]]) -> None:
    """Two sources of one row each beside one with the rest."""
    for row in rows:
        row["src"] = "s40"
    rows[0]["src"], rows[1]["src"] = "a", "b"


def constant_fold(rows: list[dict[str, str]]) -> None:
    """A source whose target never changes: its PLCC does not exist."""
    for row in rows:
        if row["src"] == "s41":
            row["vmaf"] = "50"


def changed_corpus(corpus: Path, change: Callable[[Any], None]) -> Path:
    rows = read_csv(corpus)
    change(rows)
    path = corpus.parent / f"{change.__name__}.csv"
    return write_csv(path, rows)


def test_a_constant_feature_is_trained(corpus: Path) -> None:
    """It tells nothing, and puts no NaN into a document."""
    trained = run(job(changed_corpus(corpus, constant_feature)), quiet)
    json.dumps(trained.manifest, allow_nan=False)
    for name in ("loso_seed0.json", "loso_seed7.json"):
        json.loads(trained.files[f"evidence/{name}"], parse_constant=pytest.fail)


@pytest.mark.parametrize(("change", "source"), [(constant_target, "s40"), (lone_rows, "a"), (constant_fold, "s41")])
def test_a_source_without_a_correlation_is_refused_before_training(
    corpus: Path, change: Callable[[Any], None], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constant target or a single row: no gate can judge the fold, so one line names the source and what to do."""
    monkeypatch.setattr("fr_ensemble.training.trainer.train", pytest.fail)
    with pytest.raises(InputError, match=f"vmaf: found one value in all .* of source '{source}'.*leave the source out"):
        run(job(changed_corpus(corpus, change)), quiet)


def test_a_run_that_diverges_is_one_line(corpus: Path) -> None:
    """Weights that are no numbers are nobody's ensemble: the option that caused it is named."""
    with pytest.raises(InputError, match=r"learning.rate"):
        run(job(corpus, recipe=replace(QUICK, learning_rate=1e30, epochs=4)), quiet)


def test_members_that_learn_nothing_are_one_line(corpus: Path) -> None:
    """Under a weight decay that leaves no weights, predictions have no correlation: bad input, not a broken plugin."""
    recipe = replace(QUICK, weight_decay=1e4, learning_rate=0.02, epochs=60)
    with pytest.raises(InputError, match=r"seed 0, fold s40: found the PLCC nan.*less weight decay"):
        run(job(corpus, recipe=recipe), quiet)


@pytest.mark.parametrize("changed", [{"device": "tpu"}, {"engine": "abacus"}])
def test_an_engine_that_is_not_there_is_one_line(corpus: Path, changed: dict[str, Any]) -> None:
    """Devices and engines are named before anything is trained."""
    with pytest.raises(InputError):
        run(job(corpus, execution=Execution(**changed)), quiet)


@pytest.mark.usefixtures("child_with_torch")
def test_the_export_is_checked_without_the_rows_and_torch(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check comes last, on a sample, and torch computes in a child: no process holds it beside the corpus."""
    real, held = parity.network, []

    def of_rows() -> int:
        return sum(type(one) in (Corpus, TrainedModels, Oof) for one in gc.get_objects())

    def network() -> Any:
        held.append(of_rows())
        return real()

    gc.collect()
    before = of_rows()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(parity, "network", network)
    run(job(corpus), quiet)
    assert held == [before]
    assert "torch" not in sys.modules


def test_graphs_that_are_not_the_trained_ones_are_a_broken_world(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where onnxruntime gives other numbers than the network, nothing is returned to be registered."""
    real = parity.predict_in_numpy
    monkeypatch.setattr(parity, "network", lambda: ("numpy", lambda members, rows: real(members, rows) + 1e-3))
    with pytest.raises(WorldError, match="members in numpy: onnxruntime differs"):
        run(job(corpus), quiet)


@pytest.mark.usefixtures("child_with_torch")
def test_a_torch_that_does_not_work_is_a_broken_world(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with what Python says of it, and what to do."""
    pytest.importorskip("torch", reason="the reference trainer needs the extra `torch`")
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: file too short')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorldError, match=r"\(ImportError: libtorch_cpu\.so: file too short\): reinstall it$"):
        run(job(corpus), quiet)


def test_the_export_is_compared_with_torch_or_says_that_it_is_not(
    corpus: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both networks give the same scores; without torch the line says so."""
    pytest.importorskip("torch", reason="the reference trainer needs the extra `torch`")
    assert dict(trained.summary)["export"].startswith("torch and onnxruntime differ by at most ")
    monkeypatch.setattr(parity, "find_spec", lambda name: None)
    line = dict(run(job(corpus), quiet).summary)["export"]
    assert line.startswith("numpy (torch is not installed) and onnxruntime differ by at most ")
    assert line.endswith(" vmaf on 36 rows")


def test_both_trainers_make_the_same_entry(corpus: Path, trained: Trained) -> None:
    """With --trainer reference: the same recipe and figures to rounding; the environment says which it was."""
    pytest.importorskip("torch", reason="the reference trainer needs the extra `torch`")
    other = run(job(corpus, execution=Execution(trainer="reference")), quiet)
    assert other.manifest["recipe"] == trained.manifest["recipe"]
    names = [{item["name"]: item["version"] for item in run.manifest["environment"]} for run in (trained, other)]
    assert [found["trainer"] for found in names] == ["compiled", "reference"]
    assert ("torch" in names[0], "torch" in names[1], "numba" in names[1]) == (False, True, False)
    assert oof_of(other).mu == pytest.approx(oof_of(trained).mu, abs=1e-3)
    for name in ("in_sample_rmse", "loso_mean_rmse"):
        assert other.manifest["eval"][name] == pytest.approx(trained.manifest["eval"][name], abs=1e-4)


def test_progress_reaches_its_total(corpus: Path) -> None:
    """One kind of work, growing, ending with every model-epoch: (2 seeds) x (3 folds and the whole) x 2 epochs."""
    ticks: list[tuple[str, int, int]] = []
    run(job(corpus), lambda *tick: ticks.append(tick))
    training = [(done, total) for what, done, total in ticks if what.startswith("training")]
    assert training == sorted(training)
    assert training[-1] == (16, 16)
