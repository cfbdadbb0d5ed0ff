"""test_tests.py: what a test of this project may not do: pass by an `or`, assert nothing, reach for private names.

And that the formatter formats every file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence, Set
from functools import cache, lru_cache
from pathlib import Path

import pytest
from places import LONG_FILES, ROOT, TESTS
from sources import text_of, tree_of, walked

FILES = sorted(path for path in TESTS.rglob("*.py") if "examples" not in path.parts)
PROJECT = ("registry_tool", "fr_ensemble")
REACHING = {"setattr", "delattr", "getattr", "attrgetter", "object", "patch"}  # by a name in a text
CHECKING = {"fail", "raises", "warns", "assert_array_equal", "assert_allclose"}  # of pytest and numpy


@lru_cache(maxsize=2)
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def asserts_either(tree: ast.AST) -> Iterator[str]:
    """Assertions that are an `or`: the half that was meant may never hold."""
    for node in nodes(tree):
        if isinstance(node, ast.Assert) and is_either(node.test):
            yield f"line {node.lineno}: assert {ast.unparse(node.test)}"


def is_either(test: ast.expr) -> bool:
    """Written as `or`, as `|` of two comparisons, as `any` of what is listed, or as a constant otherwise."""
    match test:
        case ast.BoolOp(op=ast.Or()) | ast.BinOp(left=ast.Compare(), op=ast.BitOr(), right=ast.Compare()):
            return True
        case ast.Call(func=ast.Name(id="any"), args=[ast.Tuple() | ast.List() | ast.Set()]):
            return True
        case ast.IfExp(body=ast.Constant()) | ast.IfExp(orelse=ast.Constant()):
            return True
    return False


def asserts_a_time(tree: ast.AST) -> Iterator[str]:
    """Assertions on how long something took: it takes longer on a busy machine."""
    for node in nodes(tree):
        if isinstance(node, ast.Assert) and any(map(is_duration, ast.walk(node.test))):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def is_duration(node: ast.AST) -> bool:
    """A difference of times of the module `time`."""
    ends = (node.left, node.right) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) else ()
    return any(ast.unparse(end).startswith("time.") for end in ends)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in nodes(tree) if isinstance(node, ast.FunctionDef))


@lru_cache(maxsize=999)
def named(function: ast.FunctionDef) -> frozenset[str]:
    """The names that a function uses; `assert` stands for an assertion."""
    found = set()
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.Assert():
                found.add("assert")
    return frozenset(found)


def checking(functions: Sequence[ast.FunctionDef], known: Set[str] = frozenset({*CHECKING, "assert"})) -> Set[str]:
    """The names of the functions that assert something, by themselves, by another one of these, or by a known one."""
    found = set(known)
    while more := {function.name for function in functions if named(function) & found} - found:
        found |= more
    return found


@cache
def checking_helpers() -> Set[str]:
    """The functions of the helpers that assert something."""
    return checking([function for file in TESTS.glob("helpers/*.py") for function in functions(tree_of(file))])


def asserts_nothing(tree: ast.AST) -> Iterator[str]:
    known = checking(list(functions(tree)), checking_helpers())
    for function in functions(tree):
        if function.name.startswith("test_") and not named(function) & known:
            yield f"line {function.lineno}: {function.name}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def uses_private_names(tree: ast.AST) -> Iterator[str]:
    """Private names of the project: imported, as attributes of what is imported, or in texts that patch them."""
    imported: set[str] = set()
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PROJECT:
            imported |= {alias.asname or alias.name for alias in node.names}
            yield from (f"line {node.lineno}: {alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name for alias in node.names if alias.name.split(".")[0] in PROJECT}
    for node in nodes(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if isinstance(node.value, ast.Name) and node.value.id in imported:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and called(node) in REACHING:
            for word in (argument.value for argument in node.args if isinstance(argument, ast.Constant)):
                if isinstance(word, str) and is_private(word.rpartition(".")[2]):
                    yield f"line {node.lineno}: {word}"


def test_a_test_asserts_what_it_means() -> None:
    """No assertion passes by an `or` or a clock, no test is without one, none knows a private name of the project.

    Write one assertion for each case, count what is done (benchmarks/ measures times), say what must be true, test what
    the module offers.
    """
    found = []
    for path in FILES:
        tree = ast.parse(text_of(path))  # nothing else looks at it: it need not be kept
        for check in (asserts_either, asserts_a_time, asserts_nothing, uses_private_names):
            found += [f"{path.relative_to(TESTS)}: {check.__name__}: {line}" for line in check(tree)]
    assert found == []


@pytest.mark.parametrize(
    ("check", "source", "found"),
    [
        (asserts_either, "assert a or b", ["line 1: assert a or b"]),
        (asserts_either, "assert (a == 1) | (b == 2)", ["line 1: assert (a == 1) | (b == 2)"]),
        (asserts_either, "assert any([a, b])", ["line 1: assert any([a, b])"]),
        (asserts_either, "assert a if b else True", ["line 1: assert a if b else True"]),
        (asserts_either, "assert (a or b) == c and d", []),
        (asserts_either, "assert any(a == b for a in c)", []),
        (asserts_a_time, "assert time.monotonic() - began < 5", ["line 1: assert time.monotonic() - began < 5"]),
        (asserts_a_time, "assert time.monotonic() < deadline", []),  # how long something is waited for
        (asserts_nothing, "def test_it(): begin()", ["line 1: test_it"]),
        (asserts_nothing, "def test_it(): ask()\ndef ask(): look()\ndef look(): assert x", []),
        (asserts_nothing, "def test_it():\n with pytest.raises(X): begin()", []),
        (uses_private_names, "from registry_tool.cli import _run", ["line 1: _run"]),
        (uses_private_names, "from registry_tool import cli\ncli._run()", ["line 2: cli._run"]),
        (uses_private_names, "patch.setattr('registry_tool.cli._run', 7)", ["line 1: registry_tool.cli._run"]),
        (uses_private_names, "getattr(cli, '_run')()", ["line 1: _run"]),
        (uses_private_names, "import os\nos._exit(1)", []),
    ],
)
def test_the_checks_find_what_they_are_for(check, source, found) -> None:  # type: ignore[no-untyped-def]  # three of them
    """Each on a text made for it."""
    assert list(check(ast.parse(source))) == found


def test_the_longest_files_are_here() -> None:
    """A file that is moved or split begins first no more: its new name is wanted."""
    assert [name for name in LONG_FILES if not (TESTS / name).is_file()] == []


SOURCES = sorted(
    path
    for folder in ("registry_tool", "plugins", "tests", "benchmarks", "docs")
    for path in ROOT.glob(f"{folder}/**/*.py")
    if "template" not in path.parts
)
SOURCE_NAMES = {path.name for path in SOURCES}
FILE_NAME = re.compile(r"\b\w+\.py\b")


def docstrings(path: Path) -> str:
    """All of them; none is looked for where no name in the file is unknown, for to parse every file takes seconds."""
    if set(FILE_NAME.findall(text_of(path))) <= SOURCE_NAMES:
        return ""
    places = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n".join(ast.get_docstring(n) or "" for n in walked(tree_of(path)) if isinstance(n, places))


def test_a_docstring_names_files_that_are_there() -> None:
    """A file that was renamed keeps no older name in a docstring, its own least of all."""
    named = {path: set(FILE_NAME.findall(docstrings(path))) - SOURCE_NAMES for path in SOURCES}
    assert {path: names for path, names in named.items() if names} == {}
    own = {path: re.findall(r'\A(?:#.*\n)*"""(\w+\.py):', text_of(path)) for path in SOURCES}
    assert {path: names for path, names in own.items() if names not in ([], [path.name])} == {}


FORMATTED = [
    path
    for folder in ("registry_tool", "plugins", "tests", "benchmarks", "docs")
    for path in ROOT.glob(f"{folder}/**/*.py")
]
SWITCH = re.compile(r"#\s*(fmt|yapf):\s*(skip|off)")


def test_the_formatter_formats_every_line() -> None:
    """No comment keeps it from a line."""
    assert len(FORMATTED) > 300
    assert [path for path in FORMATTED if SWITCH.search(text_of(path))] == []
    assert SWITCH.search("x = [1,\n 2]  # fmt" + ": skip")
