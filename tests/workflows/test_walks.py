"""Walks: what a team does from the day it adopts the tool, command by command, as its CI sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, Ran
from policies import MANUAL, set_bound, set_policy
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, sha256, to_json
from thumbs import Thumbs, with_plugin

from registry_tool.plugins.manager import Plugins

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_git")]
KNOWN = "known-findings.json"


class Team:
    """A repository whose `main` is what landed. Each change is judged as a pull request; it lands or is dropped."""

    def __init__(self, registry: Program, path: Path) -> None:
        self.registry, self.path, self.options = registry, path, tuple[object, ...]()
        start(path.parent)

    def type(self, *arguments: object, plugins: Plugins | None = None) -> Ran:
        return self.registry(*arguments, "--registry", self.path, plugins=plugins)

    def judge(self, plugins: Plugins | None = None) -> Ran:
        return self.type("ci", "--base", "main", *self.options, plugins=plugins)

    def propose(self, change: Callable[[], object], code: int, *, plugins: Plugins | None = None) -> str:
        """What the check of the change prints; the change lands where the check is green."""
        folder = self.path.parent
        git(folder, "switch", "--quiet", "--create", "change")
        change()
        commit(folder)
        ran = self.judge(plugins)
        assert ran.code == code, ran.out + ran.err
        git(folder, "switch", "--quiet", "main")
        if code == 0:
            git(folder, "merge", "--quiet", "--no-ff", "-m", "merged", "change")
        git(folder, "branch", "--quiet", "-D", "change")
        return ran.out + ran.err

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.path.read_bytes())
        change(document)
        self.path.write_bytes(to_json(document))


def test_a_team_with_version_1_adopts_in_ci(public_documents: Path, registry: Program) -> None:
    """Its findings are listed on the first day; then changes are green, add none, and shorten the list."""
    team = Team(registry, public_documents / "registry.json")
    assert team.judge().code == 1
    assert team.type("known-findings", "write", "-o", public_documents / KNOWN).code == 0
    commit(public_documents, "findings of the first day")
    team.options = ("--known-findings", public_documents / KNOWN)
    assert "known findings, not counted" in team.judge().out

    def describe(document: dict[str, Any]) -> None:
        document["models"].append({**document["models"][0], "id": "new", "onnx": "new.onnx", "smoke": True})

    assert "new.onnx" in team.propose(lambda: team.edit(describe), 1)
    assert "no finding but known ones" in team.propose(
        lambda: (public_documents / "README.md").write_text("Our models.\n"), 0
    )

    def list_it_too() -> None:
        team.edit(describe)
        assert team.type("known-findings", "write", "-o", public_documents / KNOWN).code == 0

    assert "new.onnx" in team.propose(list_it_too, 1)  # a list grows in no pull request

    def mend(document: dict[str, Any]) -> None:
        document["models"] = [
            {name: value for name, value in row.items() if name != "sigstore_bundle"} for row in document["models"]
        ]

    team.edit(mend)
    assert "not found any more" in team.judge().out


def test_a_team_with_version_2_lives_with_it(smoke: Sandbox, registry: Program) -> None:
    """It flips, demotes, changes a policy, tries to rename, and adds a kind of a plugin: each as a pull request."""
    team = Team(registry, smoke.path)
    assert "PROMOTE" in team.propose(lambda: team.type("flip", "tiny"), 0)
    assert "demoted" in team.propose(lambda: team.type("flip", "tiny", "--demote", "--reason", "drifts"), 0)
    assert "PROMOTE" in team.propose(lambda: team.type("flip", "tiny"), 0)

    def loosen(bound: float) -> None:
        team.edit(set_bound("mean_plcc", bound))

    said = team.propose(lambda: loosen(0.9), 1)
    assert "registry repromote tiny" in said

    def loosen_and_judge() -> None:
        loosen(0.9)
        assert team.type("repromote", "tiny").code == 0

    said = team.propose(loosen_and_judge, 0)
    assert ("PROMOTE" in said, "policy of fr_ensemble" in said) == (True, True)

    def rename() -> None:
        team.edit(lambda document: document["models"][0].update(id="renamed"))

    assert "renamed from tiny" in team.propose(rename, 1)

    def add_a_kind() -> None:
        model = next(smoke.artifacts.glob("*_seed0.onnx")).read_bytes()
        (smoke.folder / "t.onnx").write_bytes(model)
        row = {"id": "t", "kind": "thumb", "onnx": "t.onnx", "sha256": sha256(model), "smoke": True, "license": "MIT"}
        team.edit(set_policy("thumb", MANUAL))
        team.edit(lambda document: document["models"].append(row))

    assert "unknown kind" in team.propose(add_a_kind, 1)
    assert "2 entries: valid" in team.propose(add_a_kind, 0, plugins=with_plugin(Thumbs()))
