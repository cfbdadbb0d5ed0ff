"""plugin.py: what a plugin author types: plugin new."""

from __future__ import annotations

from pathlib import Path

import click

from registry_tool.commands.shared import folder_option, plugins_of, show
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
@folder_option(default="registry-NAME")
@click.option(
    "--from",
    "source",
    type=click.Choice(["trained", "single-onnx"]),
    default="trained",
    show_default=True,
    help="trained: it trains, and is gated. single-onnx: a model that was trained elsewhere.",
)
@click.pass_context
def new(ctx: click.Context, name: str, output: Path | None, source: str) -> None:
    """Make the project of a plugin that owns the kind NAME.

    It works as it is: --from trained trains, is verified, gated and flipped, and predicts; --from single-onnx verifies
    one ONNX file with a sidecar, and predicts. Both pass the conformance suite of `registry_tool.testing` and a strict
    type check, and bring a workflow that runs them. The folder appears whole or not at all. docs/plugins.md goes on.

    \b
    Examples:
      registry plugin new thumbs
      registry plugin new thumbs -o plugins/thumbs
      registry plugin new thumbs --from single-onnx
    """
    from registry_tool.plugins import scaffold

    folder, made = scaffold.new_plugin(name, output, plugins_of(ctx), source)
    show(f"made {folder}: kind {name}" if made else f"{folder}: is there already, and nothing was changed")
    note("next: " + "; ".join(scaffold.next_steps(folder, name, source)))
