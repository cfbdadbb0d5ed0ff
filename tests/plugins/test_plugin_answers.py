"""Tests of what plugins answer: failures and wrong types are named with the plugin, and are never a pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from command_line import Program
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Evaluation, Table, Trained, hookimpl
from registry_tool.values import Evidence


def verify_raises(self: object, view: object, level: object) -> list[Finding]:
    raise OSError("it fell over")


def verify_raises_late(self: object, view: object, level: object) -> Iterator[Finding]:
    yield Finding("a-note", "text", Severity.NOTE)
    raise KeyError("late")


def verify_gives_text(self: object, view: object, level: object) -> Any:
    return ["not a finding"]


def verify_gives_a_finding(self: object, view: object, level: object) -> Any:
    return Finding("a-note", "not in a list", Severity.NOTE)


def verify_gives_a_number(self: object, view: object, level: object) -> Any:
    return 7


BROKEN_VERIFY = [verify_raises, verify_raises_late, verify_gives_text, verify_gives_a_finding, verify_gives_a_number]


@pytest.mark.parametrize("verify", BROKEN_VERIFY)
def test_a_plugin_that_fails_while_verifying_is_a_finding(production: Sandbox, registry: Program, verify: Any) -> None:
    """It is an error finding `plugin-failed` on that entry, at its place in the registry, and never a pass."""
    plugins = with_plugin(type("Broken", (), {"registry_verify": hookimpl(verify)})())
    [finding] = [f for f in production.findings(plugins=plugins) if f.severity == "error"]
    assert (finding.code, finding.entry, finding.file) == ("plugin-failed", "tiny", "registry.json")
    assert finding.pointer == "/models/0/id"
    assert finding.line is not None
    assert "extra" in finding.message
    assert registry("validate", production.path, plugins=plugins).code == 1


def test_a_failing_plugin_hides_no_finding(smoke: Sandbox) -> None:
    """The core's findings and the other plugins' stand beside its failure."""
    plugins = with_plugin(type("Broken", (), {"registry_verify": hookimpl(verify_raises)})())
    smoke.edit_entry(promotion={"manual": True, "reason": "mine"})
    assert smoke.codes(plugins=plugins) == ["plugin-failed", "promotion-on-smoke"]


def test_a_severity_spelt_as_text_still_counts(production: Sandbox, registry: Program) -> None:
    """A plugin that writes severity="error" fails the run like one that writes Severity.ERROR."""

    def verify(self: object, view: Any, level: object) -> list[Finding]:
        return [view.finding("thumb-text", "spelt as text", severity="error")]

    plugins = with_plugin(type("Text", (), {"registry_verify": hookimpl(verify)})())
    assert registry("validate", production.path, plugins=plugins).code == 1


def wrong_types() -> Iterator[Any]:
    yield pytest.param("registry_train", "text", ("train", "thumb", "--id", "t"), id="train-text")
    manifest = {"id": "t", "kind": "thumb", "x": float("nan")}
    yield pytest.param("registry_train", Trained({}, manifest), ("train", "thumb", "--id", "t"), id="train-nan")
    manifest = {"id": "t", "kind": "thumb", "x": object()}
    yield pytest.param("registry_train", Trained({}, manifest), ("train", "thumb", "--id", "t"), id="train-object")
    manifest = {"id": "t", "kind": "thumb", "onnx": "t.onnx"}
    yield pytest.param("registry_train", Trained({}, manifest), ("train", "thumb", "--id", "t"), id="train-no-file")
    manifest = {"id": "t", "kind": "thumb"}
    loose = Trained({"t.onnx": b""}, manifest)
    yield pytest.param("registry_train", loose, ("train", "thumb", "--id", "t"), id="train-no-pin")
    outside = Trained({"../t.onnx": b""}, {**manifest, "onnx": "../t.onnx"})
    yield pytest.param("registry_train", outside, ("train", "thumb", "--id", "t"), id="train-outside")
    yield pytest.param("registry_gate", "text", ("gate", "t"), id="gate-text")
    for name, value in (("none", None), ("text", "1"), ("boolean", True)):
        metrics: Any = {"score": value}
        yield pytest.param("registry_gate", partial(Evidence, metrics), ("gate", "t"), id=f"gate-metric-{name}")
    document: Any = "text"
    yield pytest.param("registry_evaluate", "text", ("evaluate", "t", "--smoke"), id="evaluate-text")
    yield pytest.param(
        "registry_evaluate", partial(Evaluation, document), ("evaluate", "t", "--smoke"), id="evaluate-no-document"
    )
    yield pytest.param("registry_predict", 7, ("predict", "t", "--corpus", "c"), id="predict-number")
    yield pytest.param("registry_predict", ["text"], ("predict", "t", "--corpus", "c"), id="predict-texts")
    yield pytest.param("registry_figures", 7, ("report", "t"), id="figures-number")
    yield pytest.param("registry_figures", ["text"], ("report", "t"), id="figures-texts")
    yield pytest.param("registry_figures", partial(Table, []), ("report", "t"), id="figures-empty-table")
    yield pytest.param("registry_commands", ["text"], ("thumb-stats",), id="commands-texts")


@pytest.mark.parametrize(("hook", "answer", "arguments"), list(wrong_types()))
def test_a_plugin_that_gives_the_wrong_thing_is_named(
    thumb: Sandbox, registry: Program, hook: str, answer: Any, arguments: tuple[str, ...]
) -> None:
    """What a hook gives against its contract: one line with the plugin's name, exit 3, nothing written."""
    arguments_of = {"registry_train": ["request"], "registry_commands": [], "registry_figures": ["view"]}
    names = ["self", *arguments_of.get(hook, ["view", "request"])]
    scope: dict[str, Any] = {"answer": answer}
    exec(
        f"def hook({', '.join(names)}): return answer() if callable(answer) else answer", scope
    )  # pluggy looks at the arguments' names
    plugins = with_plugin(type("Wrong", (Thumbs,), {hook: hookimpl(scope["hook"])})())
    before = thumb.tree()
    ran = registry(*arguments, *(["--registry", thumb.path] if hook != "registry_commands" else []), plugins=plugins)
    assert (ran.code, ran.out) == (3, "")
    assert "extra" in ran.err
    assert ran.err.count("\n") == 1
    assert thumb.tree() == before


def test_a_command_of_a_plugin_is_a_command(registry: Program) -> None:
    """registry_commands adds commands to the program; one whose name is taken makes its plugin a broken one."""
    import click

    def stats(self: object) -> list[click.Command]:
        return [click.Command("thumb-stats", callback=lambda: click.echo("3 thumbs"))]

    def taken(self: object) -> list[click.Command]:
        return [click.Command("validate", callback=lambda: None)]

    plugins = with_plugin(type("Stats", (), {"registry_commands": hookimpl(stats)})())
    assert registry("thumb-stats", plugins=plugins).out == "3 thumbs\n"
    assert "thumb-stats" in registry("--help", plugins=plugins).out
    plugins = with_plugin(type("Taken", (), {"registry_commands": hookimpl(taken)})())
    ran = registry("--help", plugins=plugins)
    assert (ran.code, ran.err) == (0, "")
    assert "fr-ensemble" in ran.out
    ran = registry("plugins", "--format", "json", plugins=plugins)
    errors = {row["plugin"]: row["error"] for row in json.loads(ran.out)}
    assert (ran.code, errors["fr_ensemble"]) == (3, None)
    assert errors["extra"] == "plugin extra 7: the command 'validate' is taken: repair or uninstall it"


def test_commands_that_fail_are_asked_for_once(registry: Program) -> None:
    """`--help` asks a plugin whose registry_commands fails, or waits until its time is over, once; none of its commands
    is there."""
    import click

    asked = []

    def half(self: object) -> Iterator[click.Command]:
        asked.append(1)
        yield click.Command("thumb-stats", callback=lambda: None)
        raise TimeoutError("too long")

    plugins = with_plugin(type("Half", (), {"registry_commands": hookimpl(half)})())
    ran = registry("--help", plugins=plugins)
    assert (ran.code, len(asked), "thumb-stats" in ran.out, "fr-ensemble" in ran.out) == (0, 1, False, True)
    ran = registry("thumb-stats", plugins=plugins)
    assert (ran.code, len(asked), "registry_commands failed" in ran.err) == (3, 1, True)


def test_commands_that_raise_name_their_plugin(registry: Program) -> None:
    """A plugin whose registry_commands fails is named; nothing is skipped."""

    def stats(self: object) -> list[object]:
        raise RuntimeError("no stats today")

    plugins = with_plugin(type("Stats", (), {"registry_commands": hookimpl(stats)})())
    ran = registry("thumb-stats", plugins=plugins)
    assert ran.code == 3
    assert "extra" in ran.err
