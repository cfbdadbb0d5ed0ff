"""Tests of the recipes in CONTRIBUTING.md: each is walked on a copy of the plugin, by the code that it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.evidence.methods import INTERVAL_METHODS
from registries import TRAINING, Made
from sandbox import Sandbox

from registry_tool.plugins.manager import load
from registry_tool.workflows.explain import declared

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "fr_ensemble"
MAX_STEPS = 3


def recipe(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def code(title: str) -> str:
    """The Python that a recipe shows, as its list indents it."""
    found = re.search(r"^   ```python\n(.*?)^   ```$", recipe(title), flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return "".join(line[3:] or "\n" for line in found[1].splitlines(keepends=True))


def steps(title: str) -> list[str]:
    """The first file that each numbered step names."""
    return re.findall(r"^\d\. `([^`]+)`", recipe(title), flags=re.MULTILINE)


RECIPES = re.findall(r"^## (Add .+)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
MADE = {"registry_tool/report/lines.py"}  # by the recipe itself


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_takes_three_files_at_most(title: str) -> None:
    """A step is a file; each that is named is there, but for the one that the recipe makes."""
    assert len(RECIPES) == 5
    assert 1 <= len(re.findall(r"^\d\. ", recipe(title), flags=re.MULTILINE)) <= MAX_STEPS
    named = [name for name in steps(title) if "/" in name and " " not in name]
    assert [name for name in named if name not in MADE and not (ROOT / name).is_file()] == []


def test_no_transcript_lists_what_a_recipe_adds_to() -> None:
    """An encoder, an interval method or a finding that is added changes no transcript of a run that has none of it."""
    codes = [rule.code for group in declared(load()) for rule in group.rules]
    for path in (ROOT / "tests" / "golden").glob("*.txt"):
        words = {*re.findall(r"[\w-]+", path.read_text(encoding="utf-8"))}
        assert [names for names in (ENCODERS, INTERVAL_METHODS, codes) if {*names} <= words] == [], path.name


class Copy:
    """A copy of the plugin that a recipe changes; the program then runs with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PLUGIN, folder / "fr_ensemble", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "docs", folder / "docs")

    def insert(self, file: str, before: str, text: str) -> None:
        path = self.folder / Path(file).relative_to("plugins")
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1
        path.write_text(source.replace(before, text + before), encoding="utf-8")

    def run(self, *command: object) -> str:
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def registry(self, *arguments: object) -> str:
        return self.run("-m", "registry_tool", *arguments)

    def metrics_page(self) -> str:
        self.run(self.folder / "docs" / "generate_metrics.py")
        return (self.folder / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy")


def test_the_recipe_of_a_metric(copy: Copy, production: Sandbox) -> None:
    """The gate measures it, its page lists it, and the registry of the release before stays valid."""
    end_of_generator = "\n\ndef _calibration_metrics() -> Iterator[Metric]:\n"
    copy.insert(steps("Add a metric")[0], end_of_generator, code("Add a metric"))
    found: dict[str, Any] = json.loads(copy.registry("gate", "tiny", "--registry", production.path, "--format", "json"))
    assert found["metrics"]["median_sigma"] > 0.0
    assert "median_sigma" not in production.verdict["metrics"]
    copy.registry("validate", production.path)
    assert "| `median_sigma` | median sigma of all rows |" in copy.metrics_page()


def test_the_recipe_of_an_interval_method(copy: Copy, made: Made, tmp_path: Path) -> None:
    """`train --interval` takes it, the entry validates and predicts, help and page list it."""
    file = steps("Add an interval method")[0]
    copy.insert(file, "INTERVAL_METHODS: Mapping", textwrap.dedent(code("Add an interval method")) + "\n\n")
    copy.insert(file, "Abs())", "WorstRow(), ")
    registry = tmp_path / "model" / "registry.json"
    options = ("--id", "tiny", "--corpus", made.corpus, *TRAINING, "--epochs", 1, "--interval", "worst-row")
    copy.registry("train", "fr_ensemble", *options, "--registry", registry)
    copy.registry("validate", registry)
    assert "lower_95,upper_95" in copy.registry("predict", "tiny", "--corpus", made.heldout, "--registry", registry)
    manifest = Sandbox(registry, "tiny").manifest
    assert manifest["intervals"]["method"] == "worst-row"
    assert "worst-row" in copy.registry("train", "fr_ensemble", "--help")
    assert "| `worst-row` | as far as the worst row of any source |" in copy.metrics_page()
