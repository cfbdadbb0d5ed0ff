"""test_sk_regressor.py: registry-tool's conformance suite, and what only this kind can promise."""

from __future__ import annotations

import csv
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from registry_sk_regressor import model

from registry_tool.testing import Bench, EvidenceTable, PluginSuite
from registry_tool.toolkit import Columns, read_rows

FEATURES = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")
QUICK = ("--trees", "4", "--leaves", "6", "--license", "MIT")
EVERY = 20  # rows of the shipped corpus that one of these tests takes


@pytest.fixture(scope="session")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some rows of every source of the corpus that ships with registry-tool, as CSV."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with as_file(files("fr_ensemble") / "data" / "corpus.parquet") as corpus:
        (rows,) = read_rows(corpus, lambda found: Columns(("vmaf", *FEATURES), ("src",)))
    table = zip(rows.texts["src"].tolist(), *(rows.numbers[name].tolist() for name in ("vmaf", *FEATURES)), strict=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("src", "vmaf", *FEATURES), *list(table)[::EVERY]])
    return path


class TestConformance(PluginSuite):
    """`registry_tool.testing` says what can be set here."""

    plugin = "registry_sk_regressor.plugin"
    kind = "sk_regressor"
    arguments = QUICK
    evidence = EvidenceTable("oof.csv", source="src")
    without: ClassVar = {
        "registry_calibrate": "trees have no intervals",
        "registry_migrate": "no older registry has one",
        "registry_evaluate": "the gate says what it is worth",
        "registry_reproduce": "the conformance suite trains twice and compares all bytes",
        "registry_commands": "the core's commands are enough",
    }

    @pytest.fixture
    def rows(self, few_rows: Path) -> Path:
        return few_rows


@pytest.fixture
def trained(few_rows: Path, tmp_path: Path) -> Bench:
    """An entry of some rows of the shipped corpus."""
    bench = Bench(tmp_path / "model" / "registry.json", "registry_sk_regressor.plugin", "sk_regressor")
    bench.train("trees", few_rows, QUICK)
    return bench


def test_the_graph_predicts_what_the_trees_do(trained: Bench, few_rows: Path) -> None:
    """The ONNX model gives scikit-learn's own predictions, of rows at the thresholds and beside them too."""
    rows = model.read(few_rows, FEATURES, "vmaf")
    fitted = model.fit(rows, 4, 6)
    at = [rows.x]
    for tree in (one.tree_ for one in fitted.estimators_[:, 0]):
        for node in np.flatnonzero(tree.children_left >= 0):
            near = np.float32(tree.threshold[node])
            for value in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
                at.append(rows.x[:20].copy())
                at[-1][:, tree.feature[node]] = value
    x = np.concatenate(at)
    with trained.view() as view:
        scores = view.run("trees.onnx", {"features": x})["score"][:, 0]
    assert np.abs(scores - fitted.predict(x)).max() < 1e-4


@pytest.mark.parametrize("edit", [{"base": 1.0}, {"feature_order": ["motion2", *FEATURES]}])
def test_other_numbers_are_found(trained: Bench, edit: dict[str, Any]) -> None:
    """A manifest whose numbers are not those of its graph is found, although every digest holds."""
    trained.forge({**trained.manifest, **edit})
    assert "sk-graph" in trained.codes()
