"""What `registry flip` prints: in every case the form that was asked for, and its JSON fits its schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command_line import Program
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.hookspec import hookimpl
from registry_tool.values import Evidence


class Gated(Thumbs):
    """Its evidence has the score that the test wants."""

    def __init__(self, score: float) -> None:
        self.score = score

    @hookimpl
    def registry_gate(self, view: object, request: object) -> Evidence:
        return Evidence({"score": self.score}, sha256="0" * 64)


CASES: dict[str, tuple[dict[str, Any], float, tuple[str, ...], int]] = {  # policy, score, arguments, exit code
    "on evidence": ({}, 0.9, (), 0),
    "held": ({}, 0.1, (), 1),
    "by a person": ({"gate": "manual", "rules": []}, 0.9, ("--reason", "looked at it"), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_flip_prints_json(thumb: Sandbox, registry: Program, case: str) -> None:
    """On evidence, held, and by a person: one JSON document that says what the entry is now and why."""
    policy, score, arguments, code = CASES[case]
    if policy:
        thumb.edit(lambda document: document["policies"].update(thumb=policy))
    ran = registry(
        "flip", "t", *arguments, "--registry", thumb.path, "--format", "json", plugins=with_plugin(Gated(score))
    )
    document = json.loads(ran.out)
    assert (ran.code, violations(document, schemas.load("flip"))) == (code, [])
    assert (document["entry"], document["smoke"]) == ("t", code == 1)
    assert document["promotion"] == thumb.entry.get("promotion")
    assert document.get("verdict") == {"on evidence": "PROMOTE", "held": "HOLD"}.get(case)


@pytest.mark.parametrize("case", CASES)
def test_a_misspelt_policy_is_told(thumb: Sandbox, registry: Program, case: str) -> None:
    """`gate` and `flip` warn of a policy's unknown field, whoever decides; the exit code is what it was."""
    policy, score, arguments, code = CASES[case]
    thumb.edit(lambda document: document["policies"]["thumb"].update(policy, incumbent="old"))
    plugins = with_plugin(Gated(score))
    runs = [registry("flip", "t", *arguments, "--registry", thumb.path, plugins=plugins)]
    if not policy:
        runs.append(registry("gate", "t", "--registry", thumb.path, plugins=plugins))
    for ran in runs:
        assert ran.code == code
        assert "warning: the policy of kind 'thumb' has an unknown field \"incumbent\"" in ran.out + ran.err


def test_a_demotion_prints_json(thumb: Sandbox, registry: Program) -> None:
    """The entry is smoke, has no promotion, and says why."""
    plugins = with_plugin(Gated(0.9))
    where = ("--registry", thumb.path, "--format", "json")
    assert registry("flip", "t", *where, plugins=plugins).code == 0
    ran = registry("flip", "t", "--demote", "--reason", "drifts", *where, plugins=plugins)
    document = json.loads(ran.out)
    assert (ran.code, violations(document, schemas.load("flip"))) == (0, [])
    assert (document["smoke"], document["promotion"], document["demotion"]["reason"]) == (True, None, "drifts")
