"""plugin.py: what a plugin author types: plugin new."""

from __future__ import annotations

from pathlib import Path

import click

from registry_tool.commands.shared import plugins_of, show
from registry_tool.toolkit import note


@click.group()
def plugin() -> None:
    """Write a plugin.

    \b
    Example:
      registry plugin new thumbs
    """


@plugin.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to make; new or empty.  [default: registry-NAME]",
)
@click.pass_context
def new(ctx: click.Context, name: str, output: Path | None) -> None:
    """Make the project of a plugin that owns the kind NAME.

    It works as it is: it trains, is verified, gated and flipped, predicts, and passes the conformance suite of
    `registry_tool.testing`. The folder appears whole or not at all. docs/plugins.md goes on from there.

    \b
    Examples:
      registry plugin new thumbs
      registry plugin new thumbs -o plugins/thumbs
    """
    from registry_tool.plugins import scaffold

    folder, made = scaffold.new_plugin(name, output, plugins_of(ctx))
    show(f"made {folder}: kind {name}" if made else f"{folder}: is there already, and nothing was changed")
    note("next: " + "; ".join(scaffold.next_steps(folder, name)))
