"""Tests of `registry plugins --check`: what plugins declare is loaded, and what nothing checks is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command_line import Program
from thumbs import with_plugin

from registry_tool.hookspec import Kind, hookimpl


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


@pytest.mark.filterwarnings("ignore:registry_predict")
def test_declarations_that_do_not_load_are_a_broken_plugin(registry: Program) -> None:
    """The line names the plugin, and the exit code is 3."""
    ran = registry("plugins", "--check", plugins=with_plugin(Declares("nowhere.to_be_found")))
    assert ran.code == 3
    assert "plugin extra: its findings cannot be read: ModuleNotFoundError" in ran.err
