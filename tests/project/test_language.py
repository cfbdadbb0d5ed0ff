"""Tests of the language: user-visible strings and documents use the words of docs/glossary.md, not private idioms."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from sources import tree_of, walked

ROOT = Path(__file__).parents[2]
# What a user would not search for, and what to say instead.
IDIOMS = {
    "nobody": (re.compile(r"\bnobody\b", re.I), "no plugin provides, nothing reads, unknown"),
    "stands": (re.compile(r"\b(stands?|stood)\b(?! (for|alone)\b)", re.I), "is, is listed, was"),
    "whoever": (re.compile(r"\bwho(so)?ever\b", re.I), "anyone who, a user who"),
    "the world": (re.compile(r"\bthe world\b", re.I), "environment"),
    "a noun for each": (
        re.compile(r"\b(one|a) (member|entry|file|row|line|process|block) a (seed|fold|source|run|kind|core|file)\b"),
        "per seed, for each fold",
    ),
    "says otherwise": (re.compile(r"\bsays? otherwise\b", re.I), "differs"),
    "held against": (re.compile(r"\b(hold|holds|held|holding)\b[\w\s`-]{0,40}\bagainst\b", re.I), "compared with"),
    "will do": (re.compile(r"\bwill do\b"), "is enough, is required"),
    "goes by": (re.compile(r"\b(goes|go|went) by\b"), "depends on, is decided by"),
    "speaks of": (re.compile(r"\b(speaks?|spoke) of\b"), "describes, names"),
    "what would go": (re.compile(r"\bwhat (would|will) go\b"), "what would be removed"),
    "shall": (re.compile(r"\bshall\b"), "must, will"),
    "a price": (
        re.compile(r"\b(rows|bytes|seconds|models|files) an? (step|second|batch|run|model|file)\b"),
        "per step",
    ),
}
MODULES = [
    path
    for package in (ROOT / "registry_tool", ROOT / "plugins" / "fr_ensemble")
    for path in sorted(package.rglob("*.py"))
]
SCHEMAS = sorted((ROOT / "schemas").glob("*.json"))
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is not a docstring: messages, hints, help."""
    tree = tree_of(path)
    docstrings = {
        id(node.body[0].value)
        for node in walked(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and not is_command(node)
    }
    for node in walked(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def is_command(node: ast.AST) -> bool:
    """Whether a function is a click command, whose docstring is its help."""
    decorators = getattr(node, "decorator_list", [])
    return any(re.search(r"\b(command|group)\b", ast.unparse(decorator)) for decorator in decorators)


def idioms(text: str) -> list[str]:
    return [
        f"{match.group(0)!r} (say: {instead})" for idiom, instead in IDIOMS.values() for match in idiom.finditer(text)
    ]


def test_messages_use_plain_words() -> None:
    """No message, hint or help text of the program uses an idiom that a user would not search for."""
    assert [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, text in strings(path)
        for name in idioms(text)
    ] == []


def test_documents_use_plain_words() -> None:
    """Neither does a page of the documents."""
    assert [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in PAGES
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in idioms(text)
    ] == []


def test_schemas_use_plain_words() -> None:
    """Descriptions in the schemas become pages and editors' hints."""
    texts = {path.name: json.dumps(json.loads(path.read_text()), ensure_ascii=False) for path in SCHEMAS}
    assert [(name, found) for name, text in texts.items() for found in idioms(text)] == []
