"""The example of a second real kind, docs/examples/sk_regressor: its own tests, and the whole way of one entry."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from certificates import key_pair
from command_line import Program
from places import ROOT

import registry_tool

EXAMPLE = ROOT / "docs" / "examples" / "sk_regressor"
CORPUS = ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet"
sys.path += [str(EXAMPLE / "src"), str(EXAMPLE / "tests")]  # the suite's own processes get this path too

from test_sk_regressor import *  # noqa: E402, F403 (the example's own tests and fixtures are run here)
from test_sk_regressor import FEATURES  # noqa: E402

pytestmark = pytest.mark.slow
MAX_LINES = 400
PUBLIC = {"errors", "findings", "hookspec", "onnx_summary", "schemas", "strictjson", "testing", "toolkit", "values"}


@pytest.fixture
def example_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of a plugin that it installed: the names of its entry points."""
    folder = tmp_path / "site" / "registry_sk_regressor-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: registry-sk-regressor\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("[registry_tool]\nsk_regressor = registry_sk_regressor.plugin\n")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(
        metadata, "entry_points", inspect.unwrap(metadata.entry_points)
    )  # other tests keep a first answer


def test_it_is_small_and_imports_what_is_public() -> None:
    """Less than 400 lines, and of registry-tool only the modules that docs/plugins.md names."""
    sources = [path.read_text(encoding="utf-8") for path in EXAMPLE.rglob("*.py")]
    assert (
        sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (EXAMPLE / "src").rglob("*.py")) < MAX_LINES
    )
    imported = [
        node.module
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("registry_tool")
    ]
    assert imported
    assert {name.removeprefix("registry_tool.") for name in imported} <= PUBLIC


def test_an_entry_goes_all_the_way(registry: Program, example_installed: None, tmp_path: Path) -> None:
    """Trained on the shipped corpus, validated, gated, flipped, predicted, loaded, reported and signed."""
    path = tmp_path / "model" / "registry.json"
    place = ("--registry", path)

    def done(*arguments: object) -> str:
        ran = registry(*arguments)
        assert ran.code == 0, ran.err
        return ran.out

    assert "sk_regressor" in done("plugins", "--check")
    done("train", "sk_regressor", "--id", "trees", "--corpus", CORPUS, "--trees", "5", "--license", "MIT", *place)
    assert json.loads(done("validate", path, "--format", "json"))["findings"] == []
    assert "PROMOTE" in done("gate", "trees", *place)
    done("flip", "trees", *place)
    done("predict", "trees", "--corpus", CORPUS, "-o", tmp_path / "scores.csv", *place)
    scores = np.loadtxt(tmp_path / "scores.csv", delimiter=",", skiprows=1, usecols=1)
    model = registry_tool.open(path).load("trees")
    row = dict(zip(FEATURES, (0.99, 0.8, 0.95, 0.97, 0.98, 3.0), strict=True))
    (score,) = model.predict({name: [value] for name, value in row.items()}).columns["score"]
    assert scores.min() <= score <= scores.max()
    done("report", "trees", "-o", tmp_path / "trees.html", *place)
    assert "Predicted against true" in (tmp_path / "trees.html").read_text(encoding="utf-8")
    pair = key_pair(tmp_path, "ci")
    done("sign", "trees", "--key", pair.private, *place)
    done("verify-signature", "trees", "--public-key", pair.public, *place)
    assert json.loads(done("validate", path, "--public-key", pair.public, "--format", "json"))["findings"] == []
