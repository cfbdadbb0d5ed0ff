"""Tests of the names: a variable is a noun, a figure is a `Figure`, and a class or a constant has one meaning."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest
from places import ROOT
from sources import PACKAGES, offences, tree_of, walked

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
        "most",
        "least",
        "opened",
        "everything",
        "loose",
        "workshop",
    ]
)
FILES = sorted(path for root in PACKAGES.values() for path in root.rglob("*.py") if "template" not in path.parts)
PUBLIC = PACKAGES["registry_tool"] / "api.py"  # what programs use, in the domain's own words


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of all that a module names itself: variables, arguments, fields, functions, classes."""
    for node in walked(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield getattr(node, "lineno", 0), name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def refused(tree: ast.AST) -> Iterator[str]:
    yield from (f"line {line}: {name}" for line, name in names(tree) if name.strip("_").casefold() in REFUSED)


def figures_that_are_none(tree: ast.AST) -> Iterator[str]:
    """What is called figures and has no type with `Figure` in it, nor is the flag that asks for them."""
    declared = [node.target for node in walked(tree) if isinstance(node, ast.AnnAssign)]
    for node in walked(tree):
        match node:
            case ast.arg(arg="figures", annotation=kind) | ast.FunctionDef(name="figures", returns=kind):
                pass
            case ast.AnnAssign(target=ast.Name(id="figures"), annotation=kind):
                pass
            case ast.Name(id="figures", ctx=ast.Store()) if node not in declared:
                kind = None
            case _:
                continue
        if kind is None or not ("Figure" in (words := ast.unparse(kind)) or words in ("bool", "Sequence[Shown]")):
            yield f"line {node.lineno}: figures"


def numbers_of_one_word(tree: ast.Module) -> Iterator[str]:
    """Constants that are a number and do not say of what: CHUNK = 512 in the place of CHUNK_ROWS = 512."""
    for node in tree.body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Constant(value=int() | float())
                | ast.UnaryOp()
                | ast.BinOp(left=ast.Constant(value=int() | float())),
            ) if name.isalpha() and name.isupper():
                yield f"line {node.lineno}: {name}"


def test_a_name_is_no_adverb_and_no_pronoun() -> None:
    """A reader of one line learns what the variable holds, and `figures` are figures."""
    assert offences(FILES, refused) == []
    assert offences(FILES, figures_that_are_none) == []


def test_a_constant_says_what_its_number_is_of() -> None:
    """A noun with its unit: more than one word."""
    assert offences(FILES, numbers_of_one_word) == []


@pytest.mark.parametrize(
    ("check", "source", "found"),
    [
        (refused, "def f(what): pass", ["line 1: what"]),
        (refused, "import a as here", ["line 1: here"]),
        (refused, "class _Hole: pass\nsaid: int = 3", ["line 2: said", "line 1: _Hole"]),
        (refused, "for most in x: print(where)", ["line 1: most"]),
        (figures_that_are_none, "figures = [1.0]", ["line 1: figures"]),
        (figures_that_are_none, "def f(figures: Mapping[str, float]): pass", ["line 1: figures"]),
        (figures_that_are_none, "def figures(x) -> list[Figure]: pass", []),
        (figures_that_are_none, "figures: Sequence[Figure] = ()", []),
        (figures_that_are_none, "x = [figures for figures in y]", ["line 1: figures"]),
        (numbers_of_one_word, "CHUNK = 512", ["line 1: CHUNK"]),
        (numbers_of_one_word, "SCALE = -0.5\nSPAN = 2**16", ["line 1: SCALE", "line 2: SPAN"]),
        (numbers_of_one_word, "CHUNK_ROWS = 512\nWORD = 'x'\ne = 3", []),
    ],
)
def test_the_checks_find_what_they_are_for(check, source, found) -> None:  # type: ignore[no-untyped-def]  # three of them
    """Each on a text made for it."""
    assert sorted(check(ast.parse(source))) == sorted(found)


def named_at_the_top(tree: ast.Module) -> Iterator[str]:
    """Public classes and constants of a module; the one letter of a type variable is none."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_class_and_a_constant_have_their_names_alone() -> None:
    """No two modules of the project give one name to two things."""
    places = defaultdict(set)
    for path in (path for path in FILES if path != PUBLIC):
        for name in named_at_the_top(tree_of(path)):
            places[name].add(str(path.relative_to(ROOT)))
    public = {name: found for name, found in places.items() if len(name) > 1 and not name.startswith("_")}
    assert {name: found for name, found in public.items() if len(found) > 1} == {}
