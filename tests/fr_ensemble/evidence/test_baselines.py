"""Tests of baselines: standard models on the same folds, stored, recomputed, compared, and trained again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from command_line import Program, succeed
from fr_ensemble.arrays import TrainingData
from fr_ensemble.evidence.baselines import (
    BASELINES,
    Baselines,
    baseline_problems,
    compare_with_baselines,
    read_baselines,
    standings,
    standings_table,
    tolerance_of,
    write_baselines,
)
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.power import power
from fr_ensemble.evidence.statistics import t_interval
from predictions import OOF, make_oof
from registries import write_corpus
from sandbox import Sandbox

from registry_tool.archive import EvidenceProblem
from registry_tool.values import Rule

FILE = "evidence/baselines.npz"
N = len(OOF.target)


def noisy(deviation: float, seed: int = 0) -> Baselines:
    """Two models: one with errors of this deviation, one with twice as large ones."""
    rng = np.random.default_rng(seed)
    errors = deviation * rng.normal(size=(2, N)) * np.array([[1.0], [2.0]])
    spread = np.array([[0.0], [deviation]]) * np.ones((2, N))
    mean = OOF.target + errors
    return Baselines(("ridge", "extra_trees"), mean.astype(np.float32), spread.astype(np.float32), OOF.rows_sha256)


# ---- the file -----------------------------------------------------------------------------------------------------


def test_the_file_keeps_every_number() -> None:
    """Read again it has the same names and numbers; the same baselines give the same bytes."""
    one = noisy(1.0)
    again = read_baselines(write_baselines(one))
    assert (again.names, again.rows_sha256) == (one.names, one.rows_sha256)
    assert np.array_equal(again.mean, one.mean)
    assert np.array_equal(again.spread, one.spread)
    assert write_baselines(again) == write_baselines(one)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"names": ("ridge", "ridge")}, "different names"),
        ({"names": ("ridge",)}, "two of 1 models"),
        ({"spread": np.full((2, N), -1.0, np.float32)}, "no spread below 0"),
        ({"mean": np.full((2, N), np.nan, np.float32)}, "finite numbers"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changed: dict[str, Any], words: str) -> None:
    """Names that repeat, another number of models, a negative spread, NaN."""
    with pytest.raises(EvidenceProblem, match=words):
        replace(noisy(1.0), **changed)


# ---- what they show -----------------------------------------------------------------------------------------------


def test_a_spread_is_that_of_two_members() -> None:
    """As an ensemble of two, a baseline has its own mean and spread, so that every interval method takes it."""
    found = noisy(1.5).as_oof(1, OOF)
    assert found.mu == pytest.approx(noisy(1.5).mean[1], abs=1e-4)
    assert found.sigma == pytest.approx(1.5, abs=1e-4)


def test_the_table_has_the_ensemble_first_and_the_figures_of_each() -> None:
    """RMSE as drawn; a model with twice the error has the worse score; both are covered as often as claimed."""
    found = standings(OOF, noisy(1.0), "loso-hcp-t", (0.0, 100.0))
    assert [*found] == ["ensemble", "ridge", "extra_trees"]
    assert found["ridge"].rmse == pytest.approx(1.0, abs=0.15)
    assert found["extra_trees"].rmse == pytest.approx(2.0, abs=0.3)
    assert found["extra_trees"].score > 1.5 * found["ridge"].score
    assert 0.7 < found["ridge"].coverage <= 1.0
    assert [row[0] for row in standings_table(found)] == ["on held-out sources", "ensemble", "ridge", "extra trees"]


def test_a_model_without_a_spread_has_the_whole_range_where_only_a_spread_would_help() -> None:
    """By `split`, whose scale is the spread alone: covered always, and as wide as the target's range."""
    found = standings(OOF, noisy(1.0), "split", (0.0, 100.0))["ridge"]
    assert (found.coverage, found.score) == (1.0, 100.0)


def metrics_of(baselines: Baselines | None, oof: Any = OOF) -> dict[str, float]:
    compared = compare_with_baselines(oof, baselines)
    return compute_metrics(MetricInputs(FoldScores.of(oof), oof, comparisons=compared))


def test_the_best_baseline_is_the_one_with_the_lowest_error() -> None:
    """`best` is the largest difference; each baseline's is its own; without baselines there is none of them."""
    found = metrics_of(noisy(0.2))
    assert found["rmse_vs_baseline_best"] == found["rmse_vs_baseline_ridge"] > found["rmse_vs_baseline_extra_trees"]
    assert found["rmse_vs_baseline_best"] > 0.0
    assert not [name for name in metrics_of(None) if "baseline" in name]
    assert "rmse_vs_baseline_gaussian_process" not in found


def many_sources(seed: int, entry: float, others: float) -> tuple[Any, Baselines]:
    """Eight sources of ten rows, on which an entry and three baselines have errors of these deviations."""
    rng = np.random.default_rng(seed)
    k, rows = 8, 10
    source = np.repeat(np.arange(k), rows)
    y = rng.uniform(0.0, 100.0, k * rows)
    scale = np.exp(0.4 * rng.normal(size=k))[source]  # some sources are hard for all
    members = y + entry * scale * rng.normal(size=len(y)) + 0.1 * rng.normal(size=(2, len(y)))
    names = ("ridge", "gradient_boosting", "extra_trees")
    mean = y + others * scale * rng.normal(size=(3, len(y)))
    rows_of = {"sources": tuple(f"s{g}" for g in range(k)), "source": source, "clips": None, "clip": None}
    oof = make_oof(seeds=(0, 1), target=y, predictions=members, **rows_of)
    return oof, Baselines(names, mean.astype(np.float32), np.zeros((3, len(y)), np.float32), oof.rows_sha256)


def test_ends_hold_their_level_though_the_best_is_chosen() -> None:
    """Of 200 entries as good as every baseline at most one in 20 is called better than all, or worse than the best."""
    better = worse = 0
    for seed in range(200):
        found = metrics_of(*reversed(many_sources(seed, 1.0, 1.0)))
        better += found["rmse_vs_baseline_best_t_high"] < 0.0
        worse += found["rmse_vs_baseline_best_t_low"] > 0.0
    assert better <= 10
    assert worse <= 10
    assert metrics_of(*reversed(many_sources(1, 1.0, 5.0)))["rmse_vs_baseline_best_t_high"] < 0.0
    assert metrics_of(*reversed(many_sources(1, 5.0, 1.0)))["rmse_vs_baseline_best_t_low"] > 0.0


def test_the_ends_of_the_best_are_those_of_every_baseline() -> None:
    """The upper end is the largest at 95 %; the lower end the largest where 5 % are shared among three."""
    oof, baselines = many_sources(3, 1.0, 1.2)
    found, compared = metrics_of(baselines, oof), compare_with_baselines(oof, baselines).values()
    each = [one.entry_rmse - one.baseline_rmse for one in compared]
    assert found["rmse_vs_baseline_best_t_high"] == max(t_interval(values)[1] for values in each)
    assert found["rmse_vs_baseline_best_t_low"] == max(t_interval(values, 1.0 - 0.05 / 3)[0] for values in each)


@pytest.mark.parametrize("end", ["", "_t_low", "_t_high"])
def test_the_power_of_a_rule_on_the_best_follows_other_sources(end: str) -> None:
    """A bound in the middle of what other sources would give is missed by about half of them."""
    oof, baselines = many_sources(4, 1.0, 1.5)
    inputs = MetricInputs(FoldScores.of(oof), oof, comparisons=compare_with_baselines(oof, baselines))
    metrics = compute_metrics(inputs)
    rule = Rule(f"rmse_vs_baseline_best{end}", "<=", metrics[f"rmse_vs_baseline_best{end}"])
    said = power(inputs, [rule], metrics)
    assert said is not None
    assert said.fixed == ()
    assert 0.2 < said.held < 0.8


# ---- what contradicts ---------------------------------------------------------------------------------------------


def test_other_rows_names_and_tolerances_are_problems() -> None:
    """What the manifest says of baselines is what the file has, and a tolerance follows from the targets."""
    baselines = noisy(1.0)
    manifest = {"baselines": baselines.fields(OOF.target)}
    assert list(baseline_problems(manifest, baselines, OOF)) == []
    assert "other rows" in next(iter(baseline_problems(manifest, replace(baselines, rows_sha256="ab" * 32), OOF)))
    other = {"baselines": [{"name": "ridge", "tolerance": 9.0}, manifest["baselines"][1]]}
    assert "found a tolerance of 9" in next(iter(baseline_problems(other, baselines, OOF)))
    fewer = {"baselines": manifest["baselines"][:1]}
    assert "the manifest says ridge" in next(iter(baseline_problems(fewer, baselines, OOF)))


def test_a_baseline_of_a_later_release_is_let_be() -> None:
    """It is in the table, and no metric is made of it."""
    later = replace(noisy(1.0), names=("ridge", "transformer"))
    fields = [*noisy(1.0).fields(OOF.target)[:1], {"name": "transformer", "tolerance": 0.5}]
    assert list(baseline_problems({"baselines": fields}, later, OOF)) == []
    assert [*compare_with_baselines(OOF, later)] == ["baseline_ridge"]


# ---- trained ------------------------------------------------------------------------------------------------------


def test_a_held_out_source_is_in_no_baselines_training() -> None:
    """Other targets of a source change no prediction of its own rows, and those of every other source."""
    pytest.importorskip("sklearn", reason="baselines need the extra `train`")
    from fr_ensemble.training.baselines import fit_baselines

    rng = np.random.default_rng(0)
    x, source = rng.uniform(size=(60, 2)), np.repeat(np.arange(3), 20)
    data = TrainingData(x, np.zeros(60, np.int64), 2, np.empty((60, 0)), 50 * x.sum(axis=1), source, 3)
    changed = replace(data, target=np.where(source == 1, 100.0 - data.target, data.target))
    one, two = (fit_baselines(each, "", 1) for each in (data, changed))
    assert one.names == tuple(BASELINES)
    held = source == 1
    for place in range(len(one.names)):
        assert one.mean[place, held] == pytest.approx(two.mean[place, held], abs=1e-4)
        assert np.abs(one.mean[place, ~held] - two.mean[place, ~held]).max() > 1.0


@pytest.mark.slow
def test_many_rows_leave_the_gaussian_process_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above its limit there are three baselines, and trees learn from a part of a fold's rows."""
    pytest.importorskip("sklearn", reason="baselines need the extra `train`")
    from fr_ensemble.training import baselines as room

    monkeypatch.setattr(room, "MAX_PROCESS_ROWS", 50)
    monkeypatch.setattr(room, "MAX_FIT_ROWS", 30)
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(3), 20)
    data = TrainingData(rng.uniform(size=(60, 2)), source, 3, np.empty((60, 0)), rng.uniform(size=60), source, 3)
    assert room.fit_baselines(data, "", 1).names == ("ridge", "gradient_boosting", "extra_trees")
    seen: list[int] = []

    def nothing(x: Any, y: Any, new: Any) -> tuple[Any, Any]:
        seen.append(len(x))
        return np.zeros(len(new)), np.zeros(len(new))

    room.fit_each(data, {"ridge": nothing})
    assert seen == [30, 30, 30]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sandbox, Path, str]:
    """A small ensemble with its baselines, its corpus, and what training printed."""
    pytest.importorskip("sklearn", reason="baselines need the extra `train`")
    base = tmp_path_factory.mktemp("baselines")
    corpus = write_corpus(base / "corpus.csv", 6, 14, seed=6)
    quick = ["--seeds", "0,1", "--epochs", "3", "--hidden", "4", "--license", "MIT", "--registry"]
    path = base / "model" / "registry.json"
    ran = succeed("train", "fr_ensemble", "--id", "tiny", "--corpus", corpus, *quick, path)
    return Sandbox(path), corpus, ran.out


@pytest.mark.slow
def test_train_prints_the_ensemble_beside_them(trained: tuple[Sandbox, Path, str]) -> None:
    """A table with the ensemble and each baseline; the manifest names them, and the entry is valid."""
    box, _, printed = trained
    for name in ("ensemble", *BASELINES):
        assert any(line.startswith(name.replace("_", " ")) for line in printed.splitlines())
    target = read_target(box)
    assert box.manifest["baselines"] == [
        {"name": name, "tolerance": pytest.approx(tolerance_of(name, target))} for name in BASELINES
    ]
    assert "scikit-learn" in [item["name"] for item in box.manifest["environment"]]
    assert box.codes() == []


def read_target(box: Sandbox) -> Any:
    from fr_ensemble.evidence.oof import read_oof

    return read_oof((box.artifacts / "evidence" / "oof.npz").read_bytes()).target


@pytest.mark.slow
def test_the_gate_compares_and_says_which_is_best(trained: tuple[Sandbox, Path, str], registry: Program) -> None:
    """Metrics and details by baseline, and a line on the best one."""
    ran = registry("gate", "tiny", "--registry", trained[0].path, "--format", "json")
    document = json.loads(ran.out)
    assert {f"baseline_{name}" for name in BASELINES} == set(document["details"]["against"])
    best = max(document["metrics"][f"rmse_vs_baseline_{name}"] for name in BASELINES)
    assert document["metrics"]["rmse_vs_baseline_best"] == best
    assert "best baseline, " in registry("gate", "tiny", "--registry", trained[0].path).out


@pytest.mark.slow
def test_a_report_shows_the_table(trained: tuple[Sandbox, Path, str], registry: Program, tmp_path: Path) -> None:
    """And the card has the metrics."""
    page = tmp_path / "page.html"
    assert registry("report", "tiny", "--registry", trained[0].path, "-o", page).code == 0
    assert "Beside standard models" in page.read_text()
    assert "rmse_vs_baseline_best" in registry("card", "tiny", "--registry", trained[0].path).out


@pytest.mark.slow
def test_validate_reads_them_without_scikit_learn(
    trained: tuple[Sandbox, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are recomputed from what is stored, with numpy alone."""
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert trained[0].codes() == []


def reproduced(registry: Program, box: Sandbox, corpus: Path) -> dict[str, Any]:
    ran = registry("reproduce", "tiny", "--corpus", corpus, "--registry", box.path, "--format", "json")
    document: dict[str, Any] = json.loads(ran.out)
    return document


@pytest.mark.slow
def test_reproduce_compares_them_with_a_tolerance(
    trained: tuple[Sandbox, Path, str], registry: Program, tmp_path: Path
) -> None:
    """Another machine's rounding counts for nothing; baselines that were made worse by hand do; no others are looked at
    where another release of scikit-learn made them."""
    from shutil import copytree

    box = Sandbox(copytree(trained[0].folder, tmp_path / "model") / "registry.json")
    stored = read_baselines((box.artifacts / FILE).read_bytes())
    assert reproduced(registry, box, trained[1])["outcome"] == "identical"
    box.forge(files={FILE: write_baselines(replace(stored, mean=np.nextafter(stored.mean, np.float32(1e9))))})
    document = reproduced(registry, box, trained[1])
    assert document["outcome"] == "identical"
    largest = {one["name"]: one["largest"] for one in document["agreements"]}
    assert largest["baseline ridge, mean"] > 0.0
    box.forge(files={FILE: write_baselines(replace(stored, mean=stored.mean + np.float32(5.0)))})
    assert box.codes() == []
    assert reproduced(registry, box, trained[1])["outcome"] == "beyond-tolerance"

    def older(manifest: dict[str, Any]) -> None:
        next(item for item in manifest["environment"] if item["name"] == "scikit-learn")["version"] = "0.9"

    box.forge(older)
    document = reproduced(registry, box, trained[1])
    assert document["outcome"] == "identical"
    assert any("not trained again" in warning and "0.9" in warning for warning in document["warnings"])
    assert document["unchecked"] == [FILE]
    assert FILE not in document["files"]
    printed = registry("reproduce", "tiny", "--corpus", trained[1], "--registry", box.path).out
    assert "made again, to the same bytes, 1 of the files not checked" in printed
    assert f"  not checked {FILE}\n" in printed


@pytest.mark.slow
@pytest.mark.parametrize("change", ["names", "rows", "number of rows", "bytes"])
def test_other_baselines_than_the_manifest_says_are_found(
    trained: tuple[Sandbox, Path, str], tmp_path: Path, change: str, registry: Program
) -> None:
    """Fewer of them, of other rows, of more or fewer rows, or a file that is none: never promoted, and reported on."""
    from shutil import copytree

    box = Sandbox(copytree(trained[0].folder, tmp_path / "model") / "registry.json")
    stored = read_baselines((box.artifacts / FILE).read_bytes())
    data = {
        "names": write_baselines(Baselines(stored.names[:1], stored.mean[:1], stored.spread[:1], stored.rows_sha256)),
        "rows": write_baselines(replace(stored, rows_sha256="ab" * 32)),
        "number of rows": write_baselines(replace(stored, mean=stored.mean[:, 1:], spread=stored.spread[:, 1:])),
        "bytes": b"none",
    }[change]
    codes = [code for code, _ in box.forged(files={FILE: data})]
    assert codes == (["evidence-unusable"] if change == "bytes" else ["evidence-problem"])
    assert registry("gate", "tiny", "--registry", box.path).code == (2 if change == "bytes" else 1)
    assert registry("report", "tiny", "--registry", box.path, "-o", tmp_path / "report.html").code == 0


@pytest.mark.slow
def test_a_scikit_learn_that_does_not_load_is_named(
    trained: tuple[Sandbox, Path, str], registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained, with the option that leaves the baselines out, which works."""
    pytest.importorskip("sklearn", reason="baselines need the extra `train`")
    broken = ModuleType("sklearn")
    broken.__spec__ = find_spec("sklearn")
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", broken)
    path, quick = tmp_path / "registry.json", ["--seeds", "0,1", "--epochs", "1", "--hidden", "4", "--license", "MIT"]
    words = ("train", "fr_ensemble", "--id", "t", "--corpus", trained[1], *quick, "--registry", path)
    ran = registry(*words)
    assert (ran.code, ran.err.count("\n"), path.exists()) == (3, 1, False), ran.err
    assert "scikit-learn does not load (" in ran.err
    assert "reinstall it, or train with --no-baselines" in ran.err
    assert registry(*words, "--no-baselines").code == 0


@pytest.mark.slow
def test_without_scikit_learn_a_line_says_so(
    trained: tuple[Sandbox, Path, str], registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ensemble is trained all the same; `--no-baselines` says nothing."""
    from fr_ensemble.hooks import train

    real = train.find_spec
    monkeypatch.setattr(train, "find_spec", lambda name: None if name == "sklearn" else real(name))
    quick = ["--seeds", "0,1", "--epochs", "1", "--hidden", "4", "--license", "MIT", "--registry"]
    for place, more, said in (("a", [], True), ("b", ["--no-baselines"], False)):
        path = tmp_path / place / "registry.json"
        ran = registry("train", "fr_ensemble", "--id", "t", "--corpus", trained[1], *quick, path, *more)
        assert ran.code == 0
        assert ("no baselines: scikit-learn is not installed" in ran.err) is said
        assert "baselines" not in Sandbox(path, "t").manifest
