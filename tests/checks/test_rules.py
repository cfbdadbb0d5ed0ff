"""Tests of rules.py: every code that the source gives is explained, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from places import ROOT

from registry_tool.checks import rules
from registry_tool.errors import InputError
from registry_tool.values import Severity

PACKAGES = (ROOT / "registry_tool", ROOT / "plugins" / "fr_ensemble")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py") if "template" not in path.parts)
CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
GIVERS = {
    "Finding",
    "finding",
    "registry_finding",
    "FileProblem",
    "JsonProblem",
    "Violation",
    "_Refused",
    "wrong",
    "_equal",
}
NOT_CODES = {"registry-tool", "registry-v1"}  # the distribution, and a schema's name


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            yield node.value


def given(tree: ast.AST) -> Iterator[str]:
    """Code-like literals among the first two arguments, or at `code=`, of whatever makes findings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            coded = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            for argument in [*(node.args[:2] if name in GIVERS else ()), *coded]:
                yield from literals(argument)


@cache
def sources() -> dict[str, ast.AST]:
    table = "registry_tool/rules.py"
    paths = {path.relative_to(ROOT).as_posix(): path for path in SOURCES}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items() if name != table}


@pytest.mark.parametrize("name", sources())
def test_every_code_is_explained(name: str) -> None:
    """A finding's code, or a literal that reads like one of a known family, is in the table."""
    tree = sources()[name]
    families = {code.split("-")[0] for code in rules.RULES}
    alike = {text for text in literals(tree) if text.split("-")[0] in families}
    assert ({*given(tree)} | alike) - NOT_CODES - set(rules.RULES) == set()


def test_the_walk_finds_codes() -> None:
    """The walk sees codes in calls, in keywords and in conditional expressions, and no other text."""
    code = """
Finding("a-b", "some-text that is long")
view.finding("c-d" if x else "e-f", message)
replace(f, code="g-h", hint="i-j")
print("k-l")
"""
    assert {*given(ast.parse(code))} == {"a-b", "c-d", "e-f", "g-h"}


def test_every_rule_is_given_somewhere() -> None:
    """A rule whose code no source gives any more is removed from the table."""
    seen = {text for tree in sources().values() for text in literals(tree)}
    assert set(rules.RULES) - seen == set()


def test_rules_are_whole() -> None:
    """No code stands twice; every part is a short, finished text."""
    every = [rule for group in rules.GROUPS.values() for rule in group]
    assert len(every) == len(rules.RULES)
    for rule in every:
        assert CODE.fullmatch(rule.code)
        assert all((rule.title, rule.why, rule.fix, rule.example))
        assert not rule.title.endswith(".")
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")
        assert "`" not in rule.example


def test_severity_is_the_one_given() -> None:
    """A rule that is a warning or a note in the table is given as one in the source."""
    mild = {}
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                words = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                words |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                for code in given(ast.Module([ast.Expr(node)], [])) if words & {"WARNING", "NOTE"} else ():
                    mild[code] = Severity.NOTE if "NOTE" in words else Severity.WARNING
    table = {code: rule.severity for code, rule in rules.RULES.items() if rule.severity is not Severity.ERROR}
    assert {code: severity for code, severity in mild.items() if code in table} == table


def test_document_is_up_to_date() -> None:
    """docs/findings.md is what the table gives."""
    document = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert document == rules.markdown(), "run: python -m registry_tool.rules > docs/findings.md"
    assert all(f"### `{code}`" in document for code in rules.RULES)


def test_a_code_is_explained() -> None:
    """`explain` names severity, reason and remedy; `listing` has every code; an unknown code is the user's mistake."""
    rule = rules.RULES["digest-mismatch"]
    text = rules.explain("digest-mismatch")
    assert all(part in text for part in (rule.code, "error", rule.title, rule.why, rule.fix, rule.example))
    assert all(code in rules.listing() for code in rules.RULES)
    with pytest.raises(InputError, match="digest-mismatch"):
        rules.explain("digest-mismach")
