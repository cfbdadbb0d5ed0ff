"""generate_hooks.py: docs/reference/hooks.md, every hook from the docstrings of `hookspec`. Adds no description.

`python docs/generate_hooks.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import publish

from registry_tool.hookspec import PROJECT, Hooks

PAGE = Path(__file__).parent / "reference" / "hooks.md"
INTRO = """\
# Hooks

Each hook that a plugin may implement, made from the docstrings of `registry_tool.hookspec`: `python
docs/generate_hooks.py`. [Writing a plugin](../plugins.md) explains them at length, with an example that works. A test
runs every example below.

**Order.** Plugins load by the names of their entry points, the built-in one first. `registry_verify` is asked of
every plugin in that order, each apart from the others, and findings are sorted by file and line afterwards; all other
hooks about a kind are asked of its owner alone. So pluggy's `tryfirst` and `trylast` change nothing: a plugin that has
them loads, `registry plugins --check` lists them, and the conformance suite refuses them. Wrappers (`wrapper`,
`hookwrapper`), which would change another plugin's answer, are refused when a plugin loads:
[why](../adr/0007-plugins-are-asked-apart.md). A plugin implements a hook once, with any of its arguments, by name.

**Time.** Loading a plugin may take a minute, and what looks at one entry (`registry_verify`, `registry_gate`,
`registry_oof`, `registry_load`, `registry_figures`, `registry_migrate`) a quarter of an hour; then it is interrupted
and fails. What learns or reads a file of rows (`registry_train`, `registry_calibrate`, `registry_evaluate`,
`registry_reproduce`, `registry_predict`) has no limit: it takes as long as its rows and options ask for, hours where a
person wants it so, and that person waits for it. Ctrl-C, or the time limit of a job, ends it, and nothing is
registered. Commands that plugins add have no limit either.

**Answers.** None is always allowed, and so is leaving a hook out. What is returned is checked against the type in the
signature, every field and item of it. An exception that a hook may not raise is an error that names the plugin and
its version.

**Changes.** A hook keeps its name, its arguments and their meaning. A release may add hooks, arguments, and optional
fields of what crosses them. What is to go is deprecated first, for at least one minor release: it works as before, a
plugin that implements it gives a `DeprecationWarning` when it loads, `registry plugins --check` lists it, and the
page says what takes its place. It goes with a major release, never with a patch. Each hook says since which release
it exists.
"""


def render() -> str:
    """The page: the introduction, then every hook in the order of the specification."""
    parts = [INTRO]
    for name, function in vars(Hooks).items():
        if name.startswith("registry_"):
            parts += _hook(name, function)
    return "\n".join(parts) + "\n"


def _hook(name: str, function: Any) -> Iterator[str]:
    """Signature, text, and the example as a whole implementation."""
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    answer = str(signature.return_annotation).strip("'")
    text, example = parts_of(function)
    warning = getattr(function, f"{PROJECT}_spec")["warn_on_impl"]
    yield f"## `{name}({', '.join(str(p) for p in parameters)}) -> {answer}`\n".replace("'", "")
    if warning is not None:
        yield f"**Deprecated:** {warning}.\n"
    yield f"{text}\n"
    yield "```python\n@hookimpl"
    yield f"def {name}({', '.join(p.name for p in parameters)}):"
    yield f"    {example}\n```\n"


def parts_of(function: Any) -> tuple[str, str]:
    """(the docstring without its example, the example's statement)."""
    text = inspect.getdoc(function) or ""
    example = re.search(r"Example: `(.+?)`(.*)", text, flags=re.DOTALL)
    assert example is not None
    rest = example[2].strip().rstrip(".")
    shown = text[: example.start()].strip()
    return (f"{shown}\n\nFor example{rest}:" if rest else f"{shown}\n\nFor example:"), " ".join(example[1].split())


if __name__ == "__main__":
    publish(PAGE, render)
