"""Tests of plugins that take too long, and of those that a person leaves out to find out which one is at fault."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from command_line import Program
from places import ROOT
from repository import own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError, PluginError
from registry_tool.findings import Finding
from registry_tool.hookspec import Hooks, Kind, Level, hookimpl
from registry_tool.plugins import contract
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Policy, Registry
from registry_tool.workflows.base_changes import requirement_changes
from registry_tool.workflows.compare_with_base import gate_base

VALIDATE = ("validate", "--level", "quick")


class Slow(Thumbs):
    """Finds something, and never ends."""

    @hookimpl
    def registry_verify(self, view: Any, level: Level) -> Iterator[Finding]:
        yield view.finding("thumb-slow", "found before the end")
        with suppress(Exception):
            time.sleep(30)
        yield view.finding("thumb-late", "found after the end")


def test_a_hook_that_takes_too_long_is_a_finding(thumb: Sandbox, registry: Program, monkeypatch: Any) -> None:
    """The plugin is named with its version and the limit; what it found before counts, and other entries go on."""
    monkeypatch.setitem(contract.HOOK_SECONDS, "registry_verify", 0.2)
    ran = registry(*VALIDATE, thumb.path, "--format", "json", plugins=with_plugin(Slow()))
    findings = {finding["code"]: finding["message"] for finding in json.loads(ran.out)["findings"]}
    assert ran.code == 1
    assert "thumb-slow" in findings
    assert "thumb-late" not in findings
    words = "plugin extra 7: registry_verify failed: HookTimeoutError: it took longer than 0.2 seconds"
    assert words in findings["plugin-failed"]


def test_hooks_that_learn_or_read_rows_take_as_long_as_they_do() -> None:
    """Every other hook has a limit; the reference says of each on which side it is."""
    hooks = {name for name in vars(Hooks) if name.startswith("registry_")}
    unlimited = hooks - set(contract.HOOK_SECONDS)
    assert unlimited == {f"registry_{name}" for name in ("train", "calibrate", "evaluate", "reproduce", "predict")}
    page = " ".join((ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8").split())
    limited, _, free = page.partition("**Time.**")[2].partition("**Answers.**")[0].partition("What learns")
    assert unlimited == set(re.findall(r"registry_\w+", free))
    assert hooks - unlimited - {"registry_kinds", "registry_commands"} == set(re.findall(r"registry_\w+", limited))


def test_kinds_that_take_too_long_are_refused(monkeypatch: Any) -> None:
    """A plugin that does not load in time is broken."""

    class SlowKinds:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            time.sleep(30)
            return []

    monkeypatch.setitem(contract.HOOK_SECONDS, "registry_kinds", 0.2)
    contract.limit_hooks()
    with pytest.raises(PluginError, match=r"it took longer than 0\.2 seconds"):
        Plugins().add(SlowKinds(), "slow", "3")


def test_a_plugin_is_left_out_by_its_name() -> None:
    """It is not even imported; a name that none has is refused."""
    loaded = load(["fr-ensemble"])
    assert (loaded.disabled, "fr_ensemble" in loaded.kinds) == (("fr_ensemble",), False)
    with pytest.raises(InputError, match=r"nobody: found no such plugin, expected one of .*fr_ensemble"):
        load(["nobody"])


@pytest.mark.parametrize("way", ["option", "variable"])
def test_what_is_left_out_is_said(thumb: Sandbox, registry: Program, monkeypatch: Any, way: str) -> None:
    """By the option or the variable: `plugins` lists it, `validate` warns, and what promotes refuses to run."""
    option = ("--without-plugin", "fr_ensemble") if way == "option" else ()
    if way == "variable":
        monkeypatch.setenv("REGISTRY_PLUGINS_DISABLED", "fr_ensemble, ")
    thumb.edit_entry(kind="fr")
    ran = registry(*option, "plugins", "--format", "json")
    listed = {row["plugin"]: row["error"] for row in json.loads(ran.out)}
    assert (ran.code, listed["fr_ensemble"]) == (3, "left out by a person")
    ran = registry(*option, *VALIDATE, thumb.path)
    assert "warning[plugin-left-out]" in ran.out
    ran = registry(*option, "flip", "m", "--registry", thumb.path)
    assert (ran.code, "fr_ensemble: it was left out" in ran.err) == (3, True)


@pytest.mark.usefixtures("own_git")
@pytest.mark.parametrize("allowed", [False, True])
def test_the_base_says_what_may_be_left_out(thumb: Sandbox, allowed: bool) -> None:
    """`gate --base` refuses to run without a plugin, unless the registry at the base calls it optional."""
    thumb.edit_entry(kind="fr")
    if allowed:
        thumb.edit(lambda document: document.update(optional_plugins=["fr-ensemble"]))
    start(thumb.path.parent)
    thumb.edit(lambda document: document.update(optional_plugins=["fr-ensemble"]))
    plugins = load(["fr_ensemble"])
    if allowed:
        assert gate_base(thumb.path, plugins, "HEAD").passes
    else:
        with pytest.raises(PluginError, match="plugin fr_ensemble: it was left out"):
            gate_base(thumb.path, plugins, "HEAD")


def test_a_plugin_that_becomes_optional_is_a_warning() -> None:
    """It is listed among the changes of a policy."""
    policies = {"k": Policy()}
    (change,) = requirement_changes(Registry(2, (), policies), Registry(2, (), policies, {"optional_plugins": ["x"]}))
    assert (str(change), str(change.severity)) == ("x: loosened: a change may be judged without it", "warning")
