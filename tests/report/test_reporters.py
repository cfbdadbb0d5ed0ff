"""test_reporters.py: the dictionary of formats: every one shows what it says, and a new one takes three files."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from types import MappingProxyType, ModuleType

import click
import pytest
from command_line import Program
from places import ROOT
from thumbs import with_plugin

from registry_tool.hookspec import hookimpl
from registry_tool.plugins.manager import load
from registry_tool.report import reporters
from registry_tool.report.reporters import REPORTERS, Rendered, Reporter, Validations, renderer
from registry_tool.workflows.validate import validate


@pytest.mark.parametrize("name", REPORTERS)
def test_a_format_has_a_function_for_each_result(name: str) -> None:
    """And no other; its help is a few words."""
    module = importlib.import_module(f"registry_tool.report.{REPORTERS[name].module}")
    named = {
        n.removeprefix("render_") for n, _ in inspect.getmembers(module, inspect.isfunction) if n.startswith("render_")
    }
    assert named == REPORTERS[name].shows
    assert 1 <= len(REPORTERS[name].help.split()) <= 12


def test_choices_come_from_the_dictionary() -> None:
    """In its order, text first; what shows nothing of a result is no choice of it."""
    for result in reporters.ALL_REPORTS:
        found = reporters.choices(result)
        assert found[:2] == ["text", "json"]
        assert found == [name for name, reporter in REPORTERS.items() if result in reporter.shows]
    assert {"sarif", "junit", "github"} <= {*reporters.choices("validations")}
    assert "sarif" not in reporters.choices("verdicts")
    assert reporters.explained(["text", "json"]) == "How to print it: text, for people; json, for programs."
    with pytest.raises(ValueError, match="expected one of ci, validations"):
        renderer("sarif", "verdicts")


def test_a_plugins_command_prints_as_the_core_does(registry: Program) -> None:
    """`ctx.obj.emit`: a number that JSON has no word for is null, and a line of text begins no other."""

    @click.command("answer")
    @click.option("--format", "form")
    @click.pass_context
    def answer(ctx: click.Context, form: str) -> None:
        ctx.obj.emit(form, lambda: {"plcc": float("nan")}, lambda: ["plcc: nan\n::error::x"])

    class Answering:
        @hookimpl
        def registry_commands(self) -> list[click.Command]:
            return [answer]

    plugins = with_plugin(Answering())
    assert json.loads(registry("answer", "--format", "json", plugins=plugins).out) == {"plcc": None}
    assert registry("answer", "--format", "text", plugins=plugins).out == "plcc: nan\\n::error::x\n"


def test_the_recipe_of_a_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING: a module with a function, and its line in the dictionary; it then renders what validate found."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Add a renderer", 1)[1].split("\n## ", 1)[0]
    code, line = (piece.split("```", 1)[0] for piece in section.split("```python\n")[1:3])
    module = ModuleType("registry_tool.report.lines")
    exec(compile(inspect.cleandoc(code), "lines.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry: dict[str, Reporter] = eval("{" + line + "}", vars(reporters))
    monkeypatch.setattr(reporters, "REPORTERS", MappingProxyType({**REPORTERS, **entry}))
    assert "lines" in reporters.choices("validations")
    found = validate(ROOT / "tests" / "examples" / "invalid" / "digest-mismatch" / "registry.json", load())
    rendered: Rendered = renderer("lines", "validations")(Validations([found], strict=False))
    assert [line.split()[0] for line in rendered.lines] == ["digest-mismatch"]
