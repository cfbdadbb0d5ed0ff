"""audit.py: where a registry comes from and whether it can be made again: migrate."""

from __future__ import annotations

from pathlib import Path

import click

from registry_tool.commands.shared import find, format_option, plugins_of, show
from registry_tool.errors import ExitCode


@click.command()
@click.argument("old", metavar="OLD/registry.json")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="NEW", required=True,
              help="The folder to make; new or empty.")  # fmt: skip
@click.option("--skip-broken", is_flag=True, help="Leave out what cannot be taken over, instead of making nothing.")
@format_option("text", "json")
@click.pass_context
def migrate(ctx: click.Context, old: str, output: Path, skip_broken: bool, form: str) -> None:
    """Make a registry of version 2 from one of version 0 or 1.

    Pins what nothing pinned, joins an ensemble's rows and its loose manifest into one entry, and lists every hole it
    found. The old folder is not written to; the new one appears whole or not at all.

    \b
    Examples:
      registry migrate model/tiny/registry.json -o model2
      registry migrate model/tiny/registry.json -o model2 --format json | jq '.holes[].code'
    """
    from registry_tool import progress
    from registry_tool.migrate import migrate
    from registry_tool.report import audit, machine

    with progress.shown() as report:
        done = migrate(find(old), output, plugins_of(ctx), skip_broken=skip_broken, progress=report)
    show(machine.render(audit.migration_document(done)) if form == "json" else audit.migration(done))
    if not done.done:
        click.echo(f"{output}: nothing was written; repair the entries, or leave them out: --skip-broken", err=True)
    ctx.exit(ExitCode.OK if done.done else ExitCode.REJECTED)
