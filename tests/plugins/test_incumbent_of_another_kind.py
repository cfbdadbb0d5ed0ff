"""An entry beside the incumbent of another kind: compared row by row where both predict the same rows, else held."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Program
from places import ROOT
from policies import rules, set_policy
from registries import Made
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import sha256, to_json

from registry_tool.hookspec import EntryView, Kind, OofPredictions, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.testing import Bench
from registry_tool.workflows.compare import compare
from registry_tool.workflows.gate import gate

sys.path.append(str(ROOT / "docs" / "examples" / "sk_regressor" / "src"))

from registry_sk_regressor import plugin as trees

pytestmark = pytest.mark.slow
SIZE = ("--trees", "60", "--leaves", "12", "--license", "MIT")


def with_trees() -> Plugins:
    plugins = load()
    plugins.add(trees, "sk_regressor", "0.1.0")
    return plugins


@pytest.fixture(scope="module")
def both(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry of `tiny`, an ensemble, `trees` and `weak` of one corpus, and `others` of another."""
    box = Bench(made.smoke / "registry.json", with_trees(), "sk_regressor").copy(tmp_path_factory.mktemp("both") / "m")
    box.train("trees", made.corpus, SIZE)
    box.train("weak", made.corpus, ("--trees", "3"))
    box.train("others", made.heldout, ("--trees", "3"))
    return box.folder


@pytest.fixture
def box(both: Path, tmp_path: Path) -> Bench:
    return Bench(both / "registry.json", with_trees(), "sk_regressor", "trees").copy(tmp_path / "model")


class Frames:
    """A kind whose plugin gives what it is told to as its out-of-fold predictions."""

    def __init__(self, answer: OofPredictions | None) -> None:
        self.answer = answer

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("frames", "frames", {"type": "object"})]

    @hookimpl
    def registry_oof(self, view: EntryView) -> OofPredictions | None:
        return self.answer


@pytest.mark.parametrize(("entry", "incumbent"), [("trees", "tiny"), ("tiny", "trees"), ("trees", "weak")])
def test_the_difference_is_that_of_the_errors_on_the_same_rows(box: Bench, entry: str, incumbent: str) -> None:
    """Of entries of one kind or of two, and either way round: what one is better, the other is worse."""
    found = gate(box.path, box.plugins, entry, incumbent)
    back = gate(box.path, box.plugins, incumbent, entry)
    difference = found.verdict.metrics["rmse_vs_incumbent"]
    assert difference == pytest.approx(-back.verdict.metrics["rmse_vs_incumbent"], abs=1e-9)
    assert found.evidence is not None
    shown = found.evidence.details["against"]["incumbent"]
    assert shown["entry"] == incumbent
    assert shown["rmse"] - shown["baseline_rmse"] == pytest.approx(difference, abs=1e-9)


def test_the_simple_model_is_promoted_where_it_wins(box: Bench, registry: Program) -> None:
    """A policy names the ensemble as the incumbent of the trees: they win, are flipped, and stay valid."""
    box.edit(set_policy("sk_regressor", {**rules("rmse_vs_incumbent < 0"), "against": "tiny"}))
    run = ("--registry", box.path)
    assert registry("flip", "trees", *run, plugins=box.plugins).code == 0
    assert box.verdict["policy"]["against"] == "tiny"
    assert registry("validate", box.path, plugins=box.plugins).code == 0
    ran = registry("flip", "weak", *run, plugins=box.plugins)
    assert ran.code == 1
    assert "rmse_vs_incumbent < 0: found" in ran.out + ran.err


def test_the_ensemble_is_promoted_where_it_wins(box: Bench, registry: Program) -> None:
    """A policy names trees as the incumbent of the ensemble: it beats the weak ones, and not the others."""
    for incumbent, code in (("weak", 0), ("trees", 1)):
        box.edit(set_policy("fr_ensemble", {**rules("rmse_vs_incumbent_t_high < 1", "rmse_vs_incumbent < 0")}))
        ran = registry("gate", "tiny", "--incumbent", incumbent, "--registry", box.path, plugins=box.plugins)
        assert ran.code == 1  # five sources are too few for Student's t
        assert "rmse_vs_incumbent_t_high < 1: the evidence has no metric" in ran.out
        assert ("rmse_vs_incumbent < 0: found" in ran.out) == bool(code)
        box.edit(set_policy("fr_ensemble", {**rules("rmse_vs_incumbent < 0"), "against": incumbent}))
        assert registry("gate", "tiny", "--registry", box.path, plugins=box.plugins).code == code


@pytest.mark.usefixtures("own_git")
def test_a_pull_request_is_judged_beside_the_other_kind(box: Bench, registry: Program) -> None:
    """`gate --base` compares with the incumbent, whichever its kind, and holds what lost."""
    box.edit(set_policy("sk_regressor", {**rules("rmse_vs_incumbent < 0"), "against": "tiny"}))
    start(box.folder.parent)
    assert registry("flip", "trees", "--registry", box.path, plugins=box.plugins).code == 0
    commit(box.folder.parent, "trees")
    ran = registry("gate", "--base", "HEAD~1", "--registry", box.path, plugins=box.plugins)
    assert (ran.code, "trees: PROMOTE" in ran.out) == (0, True), ran.out + ran.err
    box.edit(set_policy("sk_regressor", {**rules("rmse_vs_incumbent < -50"), "against": "tiny"}))
    ran = registry("gate", "--base", "HEAD~1", "--registry", box.path, plugins=box.plugins)
    assert ran.code == 1
    assert "rmse_vs_incumbent < -50: found" in ran.out


@pytest.mark.parametrize("entry", ["trees", "tiny"])
def test_other_rows_are_refused(box: Bench, registry: Program, entry: str) -> None:
    """An incumbent that was trained on other rows holds the entry, by a line that names the first difference."""
    ran = registry("gate", entry, "--incumbent", "others", "--registry", box.path, plugins=box.plugins)
    assert ran.code == 1
    assert f"incumbent others: found 0 rows of source 's10', expected 60 as {entry} has: train both" in ran.out


def test_forged_evidence_of_an_incumbent_holds_the_entry(box: Bench, registry: Program) -> None:
    """Predictions that its own manifest or model contradicts are no bar to be compared with."""
    box.edit(lambda document: document.update(models=[row for row in document["models"] if row["id"] != "weak"]))
    data = (box.artifacts / "oof.csv").read_text().splitlines()
    data[1] = data[1].replace(data[1].split(",")[1], "1.5")
    box.forge(box.manifest, {"oof.csv": "\n".join(data).encode() + b"\n"})
    ran = registry("gate", "tiny", "--incumbent", "trees", "--registry", box.path, plugins=box.plugins)
    assert ran.code == 1
    assert "incumbent trees: oof.csv: found other rows than the manifest's" in ran.out


def test_a_kind_without_such_predictions_cannot_be_compared_with(box: Bench, registry: Program) -> None:
    """An entry of it is no incumbent of another kind; the line names those that are."""
    manifest = to_json({"id": "frame", "kind": "frames"})
    (box.folder / "frame.json").write_bytes(manifest)
    row = {"id": "frame", "kind": "frames", "smoke": True, "manifest": "frame.json", "sha256": sha256(manifest)}
    box.edit(lambda document: document["models"].append(row))
    run = ("gate", "trees", "--incumbent", "frame", "--registry", box.path)
    ran = registry(*run, plugins=box.plugins)
    assert ran.code == 2
    assert "found no entry 'frame' of kind fr_ensemble or sk_regressor, expected one of: others, " in ran.err
    for answer, words in (
        (None, "incumbent frame: found no out-of-fold predictions"),
        (OofPredictions("frame", ["a"], [1.0], [1.0]), "incumbent frame: found 0 rows of source 's10', expected 60"),
    ):
        plugins = with_trees()
        plugins.add(Frames(answer), "frames")
        ran = registry(*run, plugins=plugins)
        assert (ran.code, words in ran.out) == (1, True), ran.out + ran.err


def test_entries_of_two_kinds_stand_side_by_side(box: Bench, made: Made) -> None:
    """`compare` shows the comparison of their evidence, and the figures of rows of those that have any."""
    first, second = compare(box.path, box.plugins, ["tiny", "trees"])
    assert "rmse_vs_incumbent" not in first.verdict.metrics
    assert second.verdict.metrics["rmse_vs_incumbent"] < 0
