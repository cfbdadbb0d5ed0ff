"""The project's own registry: really trained, really gated, and its cards are current."""

from __future__ import annotations

import os

import pytest
from places import ROOT

from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Registry
from registry_tool.workflows.gate import gate
from registry_tool.workflows.loading import usable, verified_entry
from registry_tool.workflows.validate import validate

REGISTRY = ROOT / "model" / "registry.json"


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = usable(REGISTRY).registry
    assert found is not None
    return found


def test_it_validates(plugins: Plugins) -> None:
    """Nothing is wrong with it, not even a warning."""
    assert [str(finding) for finding in validate(REGISTRY, plugins).findings] == []


def test_one_is_production_and_one_is_held(plugins: Plugins, registry: Registry) -> None:
    """The gate promotes what is production and holds what is not, for a reason it names."""
    assert len(registry.entries) == 2
    for entry in registry.entries:
        verdict = gate(REGISTRY, plugins, entry.id).verdict
        assert verdict.promotes is entry.is_production
        assert bool(verdict.reasons) is entry.smoke
        assert not verdict.summary_only


def test_production_was_trained_on_the_shipped_corpus(plugins: Plugins, registry: Registry) -> None:
    """The production manifest names the rows that ship with the plugin."""
    from fr_ensemble.corpus.rows import read_corpus
    from fr_ensemble.corpus.spec import ColumnSpec
    from fr_ensemble.hooks.train import SHIPPED_CORPUS

    (entry,) = (entry for entry in registry.entries if entry.is_production)
    corpus = read_corpus(SHIPPED_CORPUS, ColumnSpec())
    with verified_entry(usable(REGISTRY), plugins, entry.id) as view:
        assert view.manifest is not None
        assert view.manifest["corpus"]["sha256"] == corpus.sha256
        assert view.manifest["corpus"]["rows_sha256"] == corpus.rows_sha256
        assert len(corpus.sources) >= 20


def test_each_has_a_current_card(registry: Registry) -> None:
    """docs/models holds what `registry card` writes; `make golden` writes it there."""
    from click.testing import CliRunner

    from registry_tool.cli import cli

    for entry in registry.entries:
        done = CliRunner().invoke(cli, ["card", entry.id, "--registry", str(REGISTRY)])
        assert done.exit_code == 0
        card = ROOT / "docs" / "models" / f"{entry.id}.md"
        if os.environ.get("GOLDEN") == "write":
            card.write_text(done.output, encoding="utf-8")
        assert done.output == card.read_text(encoding="utf-8")
