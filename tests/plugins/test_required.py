"""Tests of `requires` in registry.json: without the plugins that it names nothing is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Program
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox
from thumbs import with_plugin

import registry_tool
from registry_tool.errors import PluginError
from registry_tool.findings import Finding
from registry_tool.hookspec import EvaluateRequest, Level, Trained, TrainRequest, hookimpl
from registry_tool.plugins.manager import BrokenPlugin, Plugins, load
from registry_tool.values import Policy, Registry, Requirement
from registry_tool.workflows import gate as gate_workflow
from registry_tool.workflows import promote
from registry_tool.workflows.base_changes import requirement_changes
from registry_tool.workflows.compare_with_base import gate_base
from registry_tool.workflows.evaluate import evaluate
from registry_tool.workflows.train import NewEntry, register, train
from registry_tool.workflows.validate import validate

MISSING = {"plugin": "house-rules", "version": ">=1.2"}


class HouseRules:
    """A plugin without a kind, version 7 in these tests."""

    @hookimpl
    def registry_verify(self, view: Any, level: Level) -> list[Finding]:
        return []


def require(box: Sandbox, *required: dict[str, str]) -> None:
    box.edit(lambda document: document.update(requires=list(required)))


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("house_rules", ">=1.2", None),
        ("House.Rules", None, None),
        ("house-rules", ">=7,<8", None),
        ("house-rules", ">=8", "version 7"),
        ("house-rules", ">>8", "version 7 (Invalid specifier: '>>8')"),
        ("other", None, "none installed"),
        ("broken", None, "one that does not load"),
    ],
)
def test_a_plugin_is_as_required(name: str, version: str | None, found: str | None) -> None:
    """By its name, however - and _ are written, and by a specifier of its version."""
    plugins = with_plugin(HouseRules(), "house-rules")
    plugins.broken.append(BrokenPlugin("broken", "1", "why"))
    assert plugins.unmet(Requirement(name, version)) == found


def test_the_distribution_is_a_name_too() -> None:
    """`registry-tool`, as pip knows it, is the plugin `fr_ensemble`."""
    assert load().unmet(Requirement("registry-tool", ">=0.2")) is None


def test_validate_says_what_is_missing(smoke: Sandbox, registry: Program) -> None:
    """The finding stands beside everything else, and the exit code is 3 at either level."""
    require(smoke, {"plugin": "fr_ensemble"}, MISSING)
    for level in Level:
        (finding,) = validate(smoke.path, load(), level).findings
        assert (finding.code, finding.pointer) == ("plugin-required", "/requires/1")
        assert (finding.found, finding.expected) == ("none installed", ">=1.2")
        ran = registry("validate", smoke.path, "--level", level)
        assert ("[plugin-required]" in ran.out, ran.code) == (True, 3)
    assert validate(smoke.path, with_plugin(HouseRules(), "house-rules")).findings == ()


@pytest.mark.parametrize(
    ("required", "code", "pointer"),
    [
        *(
            ({"plugin": "fr_ensemble", "version": version}, "schema-value", "/requires/0/version")
            for version in ("1.2", "bogus", ">=0.1 # hi", ">>8", ">=0.1 <2", ">=0.1,", "===foo")
        ),
        ({"plugin": "fr_ensemble", "versoin": ">=9"}, "schema-unknown-field", "/requires/0/versoin"),
    ],
)
def test_a_requirement_that_says_nothing_is_no_requirement(
    smoke: Sandbox, required: dict[str, str], code: str, pointer: str
) -> None:
    """A specifier that is none, and a misspelt field, are errors of the document, whatever is installed."""
    require(smoke, required)
    (finding,) = validate(smoke.path, load(), Level.QUICK).findings
    assert (finding.code, finding.pointer) == (code, pointer)


@pytest.mark.parametrize("version", [">=0.2", "~=0.2", "==0.*", ">= 0.1 , <5", "!=0.1,>0.1"])
def test_a_specifier_may_have_any_form_that_pip_takes(smoke: Sandbox, version: str) -> None:
    """Operators, spaces beside them and wildcards."""
    require(smoke, {"plugin": "fr_ensemble", "version": version})
    assert validate(smoke.path, load(), Level.QUICK).findings == ()


def test_nothing_is_trained_without_it(smoke: Sandbox) -> None:
    """It is asked before the training, which can take hours, and no folder stays behind."""
    require(smoke, MISSING)
    before, asked = smoke.tree(), []
    progress = lambda *said: asked.append(said)  # noqa: E731
    for call in (
        lambda: train(smoke.path, load(), TrainRequest("fr_ensemble", "new", None, True, {}, progress)),
        lambda: register(smoke.path, load(), NewEntry("fr_ensemble", "new"), Trained({}, {})),
    ):
        with pytest.raises(PluginError, match="required plugin house-rules"):
            call()
    assert (smoke.tree(), asked) == (before, [])


def test_nothing_is_added_without_it(smoke: Sandbox, registry: Program, tmp_path: Path) -> None:
    """A model that was trained elsewhere is not registered, and no folder stays behind."""
    require(smoke, MISSING)
    before = smoke.tree()
    (tmp_path / "m.onnx").write_bytes(tiny_models.model().SerializeToString())
    ran = registry("add", tmp_path / "m.onnx", "--kind", "fr", "--id", "m", "--registry", smoke.path)
    assert ("required plugin house-rules" in ran.err, ran.code) == (True, 3)
    assert smoke.tree() == before


JUDGING: dict[str, Callable[[Path, Plugins], object]] = {
    "gate": lambda path, plugins: gate_workflow.gate(path, plugins, "tiny"),
    "foreign evidence": lambda path, plugins: gate_workflow.gate_foreign_kind(
        path, plugins, "fr_ensemble", gate_workflow.Foreign(path.parent)
    ),
    "flip": lambda path, plugins: promote.flip(path, plugins, "tiny"),
    "load": lambda path, plugins: registry_tool.open(path).load("tiny", allow_smoke=True),
}


@pytest.mark.parametrize("name", JUDGING)
def test_nothing_is_judged_without_it(smoke: Sandbox, name: str) -> None:
    """What judges ends with the environment error, and changes nothing."""
    require(smoke, MISSING)
    before = smoke.tree()
    with pytest.raises(PluginError, match=r"required plugin house-rules: found none installed, expected .*>=1\.2"):
        JUDGING[name](smoke.path, load())
    assert smoke.tree() == before


def test_a_plugin_that_is_there_lets_it_pass(smoke: Sandbox) -> None:
    """The gate judges as ever."""
    require(smoke, MISSING)
    assert gate_workflow.gate(smoke.path, with_plugin(HouseRules(), "house-rules"), "tiny").verdict.promotes


def test_findings_on_plugins_cannot_be_listed(smoke: Sandbox, registry: Program, tmp_path: Path) -> None:
    """A list of known findings is no way around a plugin that is missing."""
    require(smoke, MISSING)
    listed = tmp_path / "known.json"
    ran = registry("known-findings", "write", "-o", listed, "--registry", smoke.path)
    assert ("required plugin house-rules" in ran.err, ran.code) == (True, 3)
    assert not listed.exists()
    listed.write_text(json.dumps({"known_findings_version": 1, "findings": []}))
    ran = registry("ci", "--registry", smoke.path, "--known-findings", listed)
    assert ("plugin-required" in ran.out, ran.code) == (True, 3)


@pytest.mark.usefixtures("own_git")
def test_a_requirement_is_loosened_in_a_change_of_its_own(smoke: Sandbox) -> None:
    """It is a warning, the base's plugin is asked for all the same, and what the change promotes is held."""
    require(smoke, MISSING)
    start(smoke.path.parent)
    smoke.edit(lambda document: document.pop("requires"))
    with pytest.raises(PluginError, match="required plugin house-rules"):
        gate_base(smoke.path, load(), "HEAD")
    plugins = with_plugin(HouseRules(), "house-rules")
    (change,) = gate_base(smoke.path, plugins, "HEAD").changes
    assert (change.action, str(change.severity)) == ("requires", "warning")
    assert str(change) == "house-rules: loosened: requires house-rules >=1.2 became not required"
    promote.flip(smoke.path, plugins, "tiny")
    (judgement,) = gate_base(smoke.path, plugins, "HEAD").judgements
    assert not judgement.verdict.promotes
    assert [finding.code for finding in judgement.findings] == ["base-requirement-loosened"]
    commit(smoke.path.parent)


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        (">=1.2", ">=1.3", False),
        (">=1.2", ">=1.2,<2", False),
        (">=1.2", "~=1.4", False),
        (">=1.2,<2", ">=1.3", True),
        (">=1.2", ">=1.1", True),
        (">=1.2", None, True),
        (None, ">=1", False),
        ("nonsense", "other", True),
    ],
)
def test_a_looser_version_is_seen(old: str | None, new: str | None, looser: bool) -> None:
    """A version that a requirement lets through now and did not before makes it looser."""

    def registry(version: str | None) -> Registry:
        item = {"plugin": "x"} | ({"version": version} if version else {})
        return Registry(2, (), {"k": Policy()}, {"requires": [item]})

    (change,) = requirement_changes(registry(old), registry(new))
    assert (str(change.severity) == "warning") is looser


def test_evaluate_asks_for_it_too(smoke: Sandbox) -> None:
    """Figures without the plugin are none."""
    require(smoke, MISSING)
    with pytest.raises(PluginError, match="required plugin house-rules"):
        evaluate(smoke.path, load(), "tiny", EvaluateRequest(None, smoke=True))
