"""generate_cli.py: docs/cli.md, made from the program's own help. Adds no description of its own.

`python docs/generate_cli.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
from fr_ensemble import plugin
from pages import cell, publish

from registry_tool.cli import cli
from registry_tool.commands.shared import Context
from registry_tool.plugins import single_models
from registry_tool.plugins.manager import Plugins
from registry_tool.toolkit import markdown_table

PAGE = Path(__file__).with_name("cli.md")
TYPES = {"integer": "N", "integer range": "N", "float": "X", "float range": "X", "path": "PATH", "filename": "FILE"}
INTRO = """\
# The command line

Generated from the program: `python docs/generate_cli.py`. `registry COMMAND --help` says the same. Every command has
`-h` and `--help`, and `-q`: no progress and no notes; findings, warnings and errors stay. `registry -V` prints the
version. `python -m registry_tool` is the same program. `eval "$(_REGISTRY_COMPLETE=bash_source registry)"` turns on
completion of commands, ids, finding codes and kinds (`zsh_source`, `fish_source` for other shells).

| exit code | means |
| --- | --- |
| 0 | done, nothing to object to |
| 1 | judged and rejected: an error finding, HOLD, a refused flip |
| 2 | cannot be judged: usage or input |
| 3 | environment error: disk, permission, a plugin that does not load |

What is asked for goes to standard output, words about it to standard error.
"""


def render() -> str:
    """The page: built-in commands and those of the plugin that ships, whatever else is installed."""
    plugins = Plugins()
    plugins.add(single_models, "onnx_kinds")
    plugins.add(plugin, "fr_ensemble")
    context = click.Context(cli, info_name="registry", obj=Context(plugins), **cli.context_settings)
    commands = list(_commands(context))
    contents = (
        f"- [`{c.command_path}`](#{_anchor(c.command_path)}): {c.command.get_short_help_str(120)}" for c in commands
    )
    parts = ["\n".join(contents), *("\n\n".join(_section(c)) for c in commands)]
    return INTRO + "\n" + "\n\n".join(parts) + "\n"


def _commands(parent: click.Context) -> Iterator[click.Context]:
    group = parent.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        if isinstance(command, click.Group):
            yield from _commands(context)


def _anchor(path: str) -> str:
    return path.lower().replace(" ", "-")


def _section(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"## {context.command_path}"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    options = [
        p
        for p in command.get_params(context)
        if isinstance(p, click.Option) and not p.hidden and not {"--help", "--quiet"} & {*p.opts}
    ]
    if options:
        rows = ([f"`{cell(_names(option))}`", cell(_describe(option))] for option in options)
        yield "\n".join(markdown_table([["option", ""], *rows]))


def _paragraphs(text: str) -> Iterator[str]:
    """Help as Markdown: a paragraph that click would not wrap (its first line is a backspace) is a heading and code."""
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if lines and lines[0] == "\b":
            title, *code = lines[1:]
            yield title
            yield "```text\n" + inspect.cleandoc("\n".join(["", *code])) + "\n```"
        elif lines:
            yield "\n".join(lines)


def _names(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    if option.metavar is None and isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or TYPES.get(option.type.name, option.type.name.upper())}"


def _describe(option: click.Option) -> str:
    words = [re.sub(r"\s*\[default: (.+)\]", r" Default: \1.", option.help or "")]
    if option.required:
        words.append("Required.")
    if option.show_default and not option.is_flag:
        words.append(f"Default: `{option.default}`.")
    return " ".join(word for word in words if word)


if __name__ == "__main__":
    publish(PAGE, render)
