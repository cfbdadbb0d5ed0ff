"""Tests of `registry plugins --check`: what plugins declare is loaded, and what nothing checks is shown."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
from command_line import Program
from thumbs import with_plugin

from registry_tool.findings import Finding
from registry_tool.hookspec import Kind, Level, hookimpl
from registry_tool.values import Entry


class Declares:
    """A kind with a field that is only recorded, a deprecated hook, and findings in a module that there may be."""

    def __init__(self, module: str) -> None:
        self.module = module

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        recorded = {"/notes": "written by hand"}
        return [Kind("thumb", "thumbnails", {"type": "object"}, findings={"thumb-": self.module}, recorded=recorded)]

    @hookimpl
    def registry_predict(self, view: Any, request: Any) -> None:
        return None


@pytest.mark.filterwarnings("ignore:registry_predict")
def test_what_plugins_declare_is_shown(registry: Program) -> None:
    """Recorded fields with their reason, and hooks that are to go; as text and as JSON."""
    plugins = with_plugin(Declares("registry_tool.findings"))
    ran = registry("plugins", "--check", plugins=plugins)
    assert ran.code == 0
    assert "written by hand" in ran.out
    assert "plugin extra 7: registry_predict is deprecated" in ran.out
    document = json.loads(registry("plugins", "--check", "--format", "json", plugins=plugins).out)
    assert {"kind": "thumb", "field": "/notes", "reason": "written by hand"} in document["recorded"]
    assert document["problems"] == []


def test_marks_that_change_nothing_are_shown(registry: Program) -> None:
    """A plugin that asks to be first or last loads, is asked in its place, and the check says so."""

    class Ordered(Declares):
        @hookimpl(trylast=True)
        def registry_verify(self, view: Any, level: Any) -> list[Finding]:
            return [Finding("thumb-order", type(self).__name__, entry="x")]

    class Eager(Ordered):
        @hookimpl(tryfirst=True)
        def registry_verify(self, view: Any, level: Any) -> list[Finding]:
            return super().registry_verify(view, level)

        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return []

    plugins = with_plugin(Ordered("registry_tool.findings"))
    plugins.add(Eager("registry_tool.findings"), "eager", "1")
    ran = registry("plugins", "--check", plugins=plugins)
    assert ran.code == 0
    assert "plugin extra 7: registry_verify is marked trylast, which changes nothing: remove the mark" in ran.out
    assert "plugin eager 1: registry_verify is marked tryfirst, which changes nothing: remove the mark" in ran.out
    document = tiny_models.sidecar({"id": "x", "kind": "other", "onnx": "x.onnx", "sha256": "0" * 64})
    row = {"id": "x", "kind": "other", "smoke": True, "sha256": "0" * 64, "onnx": "x.onnx"}
    view: Any = SimpleNamespace(entry=Entry.from_dict(row), manifest=document, paths=())
    asked = [plugin.name for plugin, found, _ in plugins.verify(view, Level.FULL) if found]
    assert asked == ["extra", "eager"]


@pytest.mark.filterwarnings("ignore:registry_predict")
def test_declarations_that_do_not_load_are_a_broken_plugin(registry: Program) -> None:
    """The line names the plugin, and the exit code is 3."""
    ran = registry("plugins", "--check", plugins=with_plugin(Declares("nowhere.to_be_found")))
    assert ran.code == 3
    assert "plugin extra: its findings cannot be read: ModuleNotFoundError" in ran.err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere:METRICS", "No module named"),
        ("registry_tool.findings:NONE", "has no attribute"),
        ("sys:path", "found"),
    ],
)
def test_metrics_that_do_not_load_are_named(registry: Program, place: str, words: str) -> None:
    """By `registry metrics`, and by the check, with the plugin and its version."""

    class Describes:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("thumb", "thumbnails", metrics=place)]

    for arguments in (("metrics", "thumb"), ("plugins", "--check")):
        ran = registry(*arguments, plugins=with_plugin(Describes()))
        assert ran.code == 3
        assert f"plugin extra 7: import of {place} failed" in ran.err
        assert words in ran.err


def test_metrics_are_listed(registry: Program) -> None:
    """Those of a kind, of an ensemble as of a single model; an unknown one is an error."""
    named = [row["name"] for row in json.loads(registry("metrics", "fr_ensemble", "--format", "json").out)]
    assert {"mean_plcc", "pooled_plcc", "n_seeds"} <= set(named)
    single = [row["name"] for row in json.loads(registry("metrics", "filter", "--format", "json").out)]
    assert ("mean_psnr" in single, "n_seeds" in single) == (True, False)
    assert registry("metrics", "nothing").code == 2
    with pytest.raises(ValueError, match="expected `module:NAME`"):
        Kind("thumb", "thumbnails", metrics="nowhere")
