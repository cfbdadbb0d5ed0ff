"""Tests of findings.py: a declaration makes its findings, and every finding of the source is declared."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module

import click
import pytest
from places import ROOT
from sources import PACKAGES, modules, text_of, tree_of, walked

from registry_tool import cli
from registry_tool.findings import CODE_PATTERN, FAMILIES, SHARED_PREFIXES, Finding, FindingRule, InFile, Severity
from registry_tool.plugins.manager import load
from registry_tool.report import rules
from registry_tool.workflows import explain

TINY = FindingRule(
    "tiny-size",
    "model too small",
    why="It learns nothing.",
    message="{name} is too small",
    expected="at least {least} weights",
    hint="train {name} again",
    example="no weights",
)


class View:
    """What `at` needs of a view: it knows its entry and its document."""

    def finding(self, code: str, message: str, pointer: str = "", **fields: object) -> Finding:
        return Finding(code, message, entry="e", file="m.json", pointer=pointer, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "pointer", "expected"),
    [
        (View(), None, ("e", "m.json", "")),
        (View(), "/size", ("e", "m.json", "/size")),
        ("m.onnx", None, (None, "m.onnx", None)),
        ("m.json", "", (None, "m.json", "")),
        (None, "/size", (None, None, "/size")),
        (InFile("m.onnx", "e"), None, ("e", "m.onnx", None)),
        (InFile("registry.json", "e", "/models/3"), None, ("e", "registry.json", "/models/3")),
        (InFile("registry.json", "e", "/models/3"), "/kind", ("e", "registry.json", "/models/3/kind")),
    ],
)
def test_a_finding_is_made_at_a_place(
    place: View | InFile | str | None, pointer: str | None, expected: tuple[str | None, str | None, str | None]
) -> None:
    """A view, a file, a row of the registry, or nowhere yet: entry, file and pointer come from the place."""
    finding = TINY.at(place, pointer, name="e", least=9)
    assert (finding.entry, finding.file, finding.pointer) == expected
    assert finding.rule is TINY


def test_the_values_of_a_finding_fill_its_texts() -> None:
    """message, expected and hint take the names; found is any value; expected and hint may be given instead."""
    finding = TINY.at("m.onnx", found=3, name="{x}", least=9)
    assert finding.words == "{x} is too small: found 3, expected at least 9 weights: train {x} again"
    assert TINY.at("m.onnx", found=0, expected=1, hint="give up", name="e").words == (
        "e is too small: found 0, expected 1: give up"
    )
    assert TINY.names == {"name", "least"}
    with pytest.raises(KeyError):
        TINY.at("m.onnx", name="e")


def test_a_declaration_without_a_message_says_its_title() -> None:
    """Severity and message come from the declaration; braces in a text without names stay."""
    rule = FindingRule("tiny-shape", "odd shape", why="It is odd.", hint="fix it", severity=Severity.NOTE)
    assert (rule.at("m.onnx").message, rule.at("m.onnx").severity) == ("odd shape", Severity.NOTE)


@pytest.mark.parametrize("code", ["", "tiny", "Tiny-size", "tiny_size", "tiny-", "-size", "tiny--size", "tiny-size\n"])
def test_a_code_is_words_joined_by_hyphens(code: str) -> None:
    """A family and what is wrong; nothing else is a code."""
    with pytest.raises(ValueError, match="expected lower-case words"):
        FindingRule(code, "title", why="Why.", hint="hint")


# ---- the source ------------------------------------------------------------------------------------------------------


MODULES = {name: path for package in PACKAGES for name, path in modules(package).items()}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(name of the function or method, call)."""
    for node in walked(tree):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node


def declarations(name: str) -> dict[str, FindingRule]:
    """Constant -> declaration, of what stands in a module itself."""
    own = {
        target.id
        for node in tree_of(MODULES[name]).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and getattr(node.value.func, "id", "") == "FindingRule"
    }
    return {constant: getattr(import_module(name), constant) for constant in sorted(own)}


DECLARED = [name for name, path in MODULES.items() if "FindingRule(" in text_of(path)]
GIVING = [name for name, path in MODULES.items() if re.search(r"\b[A-Z][A-Z0-9_]*\.at\(", text_of(path))]
EVERY = [rule for group in explain.declared(load()) for rule in group.rules]
ONE_EACH = pytest.mark.parametrize("rule", EVERY, ids=[rule.code for rule in EVERY])


@pytest.mark.parametrize("name", DECLARED)
def test_every_declaration_is_explained(name: str) -> None:
    """Each stands at the top level of a module that `explain` or `Kind.findings` names."""
    known = {rule.code for rule in EVERY}
    made = [call for called, call in calls(tree_of(MODULES[name])) if called == "FindingRule"]
    found = declarations(name)
    assert len(made) == len(found), "declare it at the top level, as NAME = FindingRule(...)"
    assert {rule.code for rule in found.values()} <= known, (
        "name the module in explain.FINDING_MODULES or in Kind.findings"
    )


def test_findings_are_made_from_declarations() -> None:
    """Only a place makes a Finding, and only `at` asks a place for one: no code is written where it is given."""
    makers = {"registry_tool.findings", "registry_tool.documents.entries", "registry_tool.testing.breaking"}
    for name, path in MODULES.items():
        for called, call in calls(tree_of(path)):
            literal = bool(call.args) and isinstance(call.args[0], ast.Constant)
            if called == "Finding":
                assert name in makers, f"{name}: {ast.unparse(call)}"
            if called == "finding":
                assert not literal, f"{name}: {ast.unparse(call)}"


@cache
def uses_of_names() -> Counter[str]:
    """How often each name is in the whole source."""
    return Counter(node.id for path in MODULES.values() for node in walked(tree_of(path)) if isinstance(node, ast.Name))


@pytest.mark.parametrize("name", DECLARED)
def test_every_declaration_is_used(name: str) -> None:
    """What no source gives any more is removed."""
    assert [constant for constant in declarations(name) if uses_of_names()[constant] < 2] == []


def test_no_code_is_declared_twice() -> None:
    """Neither by two modules nor in two groups."""
    made = [rule.code for name in DECLARED for rule in declarations(name).values()]
    assert [code for code, count in Counter(made).items() if count > 1] == []
    assert [code for code, count in Counter(rule.code for rule in EVERY).items() if count > 1] == []


@pytest.mark.parametrize("name", GIVING)
def test_a_declared_finding_gets_its_names(name: str) -> None:
    """`RULE.at(...)` is given every name that the texts of RULE use, and no other."""
    module = import_module(name)
    for called, call in calls(tree_of(MODULES[name])):
        if called != "at" or not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
            continue
        rule = getattr(module, call.func.value.id, None)
        if isinstance(rule, FindingRule):
            given = {keyword.arg for keyword in call.keywords}
            texts = replace(rule, **dict.fromkeys(given & {"expected", "hint"}, ""))
            assert texts.names <= given, f"{rule.code}: {ast.unparse(call)}"
            assert given - {"found", "expected", "hint"} <= rule.names, f"{rule.code}: {ast.unparse(call)}"


@ONE_EACH
def test_a_declaration_is_whole(rule: FindingRule) -> None:
    """Short, finished texts: title and hint are phrases, why is a sentence."""
    assert CODE_PATTERN.match(rule.code)
    assert all((rule.title, rule.why, rule.hint, rule.example, rule.since))
    for phrase in (rule.title, rule.hint, rule.message):
        assert phrase == phrase.strip().rstrip(".")
        assert "\n" not in phrase
    assert rule.why.endswith(".")
    assert "`" not in rule.example
    assert all(name.isidentifier() for name in rule.names)


def commands_of(hint: str) -> list[str]:
    return re.findall(r"`registry ([^`]+)`", hint)


@ONE_EACH
def test_the_commands_of_a_hint_parse(rule: FindingRule) -> None:
    """What a hint says to type is a command with these arguments and options."""
    for typed in commands_of(re.sub(r"\{(\w+)[^}]*\}", r"\1", rule.hint)):
        words = shlex.split(typed.replace("...", "TEXT"))
        command: click.Command | None = cli.cli
        while isinstance(command, click.Group) and words:
            command = command.get_command(click.Context(command, obj=None), words.pop(0))
        assert command is not None, f"{rule.code}: `registry {typed}` is no command"
        command.make_context("registry", words)  # raises for what does not parse


def test_hints_name_commands() -> None:
    """The test above sees commands."""
    assert commands_of("run `registry flip ID --demote --reason ...` or `registry prune`") == [
        "flip ID --demote --reason ...",
        "prune",
    ]
    assert sum(len(commands_of(rule.hint)) for rule in EVERY) > 5


def test_prefixes_of_the_core_are_its_own() -> None:
    """The prefixes that no plugin may use are those of the core's declarations."""
    core = {rule.family for group in explain.declared(load()) if group.heading in FAMILIES for rule in group.rules}
    assert core == {family for families in FAMILIES.values() for family in families.split()}
    owned = {rule.family for group in explain.declared(load()) if group.heading not in FAMILIES for rule in group.rules}
    assert {f"{family}-" for family in core & owned} == SHARED_PREFIXES


def test_the_document_is_up_to_date() -> None:
    """docs/findings.md is what the declarations give."""
    document = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert document == rules.markdown(explain.declared(load())), (
        "run: registry rule --format markdown > docs/findings.md"
    )
