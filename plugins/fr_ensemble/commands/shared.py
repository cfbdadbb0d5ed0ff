"""shared.py: what several commands of `registry fr-ensemble` have in common. Runs none."""

from __future__ import annotations

import click

MAX_LISTED = 50  # sources or encoders on a line

format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)
