"""Tests of the names: a variable of the core is a noun, and a class has one meaning."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "registry_tool"
# Adverbs, pronouns and verbs, which say nothing of what a variable holds; and words of an older dialect.
REFUSED = frozenset(
    [
        "said",
        "says",
        "told",
        "here",
        "there",
        "what",
        "where",
        "whole",
        "stood",
        "gone",
        "mine",
        "theirs",
        "nobody",
        "whoever",
        "hole",
        "holes",
        "mended",
        "dossier",
    ]
)
PUBLIC = "api.py"  # what programs use; its `Registry` and `Model` are the domain's own words
MODULES = sorted(path for path in CORE.rglob("*.py") if "template" not in path.parts)


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of all that a module names itself: variables, arguments, fields, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(CORE))) for path in MODULES])
def test_a_name_is_no_adverb_and_no_pronoun(path: Path) -> None:
    """A reader of one line learns what the variable holds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [(line, name) for line, name in names(tree) if name.strip("_").casefold() in REFUSED] == []


def test_a_public_class_has_its_name_alone() -> None:
    """No two rooms of the core give one name to different classes."""
    places = defaultdict(set)
    for path in (path for path in MODULES if path.name != PUBLIC):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(str(path.relative_to(CORE)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
