"""Tests of the hook reference: each example is a hook whose answer is of the type it names."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest

from registry_tool import findings, hookspec, values
from registry_tool.hookspec import Hooks, hookimpl
from registry_tool.plugins.contract import answer_of
from registry_tool.plugins.manager import Plugins

NAMES = [name for name in vars(Hooks) if name.startswith("registry_")]
NO_AUTHOR = findings.FindingRule(
    "thumb-no-author", "missing author", why="nobody to ask", hint="add it", example="none"
)


class ThumbPredictor:
    """A `hookspec.Predictor`."""

    def __init__(self, onnx: bytes) -> None:
        self.onnx = onnx

    def columns(self, found: Any, place: str) -> Any: ...

    def predict(self, rows: Any, levels: Any) -> Any: ...

    def check_file(self, path: Any) -> None: ...


class View(SimpleNamespace):
    """As much of an entry as the examples look at."""

    def read(self, path: str) -> bytes:
        return b"onnx"

    def finding(self, code: str, message: str, pointer: str = "", **fields: Any) -> findings.Finding:
        return findings.Finding(code, message, entry="first", pointer=pointer, **fields)


def scope() -> dict[str, Any]:
    """What the examples take for granted."""
    import click

    again = hookspec.Trained({"model.onnx": b"onnx"}, {"onnx": "model.onnx"})
    own = {"SCHEMA": {"type": "object"}, "NO_AUTHOR": NO_AUTHOR, "ThumbPredictor": ThumbPredictor, "again": again}
    found = {"data": b"onnx", "digest": "0" * 64, "stats": lambda: None, "click": click}
    return {**vars(hookspec), **vars(values), **own, **found}


@pytest.mark.parametrize("name", NAMES)
def test_every_example_runs(name: str) -> None:
    """It is taken as an implementation of its hook, and what it answers is what the hook's signature says."""
    function = getattr(Hooks, name)
    text = inspect.getdoc(function) or ""
    example = re.search(r"Example: `(.+?)`", text, flags=re.DOTALL)
    assert example is not None
    arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
    names = scope()
    exec(f"def {name}({', '.join(arguments)}):\n    {' '.join(example[1].split())}", names)
    plugins = Plugins()
    module = SimpleNamespace(**{name: hookimpl(names[name])})
    plugins.add(module, "example")
    view = View(entry=values.Entry("first", "thumb", True, "0" * 64), manifest={"onnx": "model.onnx"}, paths=())
    request = SimpleNamespace(entry_id="first", kind="thumb")
    given = {"view": view, "request": request, "level": hookspec.Level.FULL, "rules": ()}
    answer = names[name](**{argument: given[argument] for argument in arguments})
    checked = answer_of(function)
    assert list(checked.items(answer)) if checked.many else checked.checked(answer) is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_hook_says_since_when(name: str) -> None:
    """And one that is deprecated warns whoever implements it."""
    function = getattr(Hooks, name)
    assert re.search(r"^Since \d+\.\d+\.\d+\.$", inspect.getdoc(function) or "", flags=re.MULTILINE)
    warns = function.registry_tool_spec["warn_on_impl"] is not None
    assert warns == ("Deprecated" in (function.__doc__ or ""))


def test_a_deprecated_hook_warns_when_it_loads() -> None:
    """By pluggy's own means, with what takes its place."""
    with pytest.warns(DeprecationWarning, match="implement registry_load"):
        Plugins().add(SimpleNamespace(registry_predict=hookimpl(lambda view, request: None)), "old")
