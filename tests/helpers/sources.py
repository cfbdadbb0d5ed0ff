"""sources.py: the project's own source, each file parsed once a run. Tests nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from places import ROOT

PACKAGES = {"registry_tool": ROOT / "registry_tool", "fr_ensemble": ROOT / "plugins" / "fr_ensemble"}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree, which is kept with them."""
    return tuple(ast.walk(tree))


def offences(paths: Iterable[Path], check: Callable[[ast.Module], Iterable[str]]) -> list[str]:
    """What a check finds in the trees of files, each with its file."""
    return [f"{path.relative_to(ROOT).as_posix()}: {found}" for path in paths for found in check(tree_of(path))]


@cache
def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package; the template of a plugin is none."""
    folder, found = PACKAGES[package], {}
    for path in sorted(folder.rglob("*.py")):
        if "template" not in path.parts:
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found
