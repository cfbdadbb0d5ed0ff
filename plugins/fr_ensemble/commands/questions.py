"""questions.py: `exchangeable` and `recommend`, what is asked of an entry: parses and prints. Answers nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from fr_ensemble.commands.shared import format_option
from registry_tool.hookspec import Host
from registry_tool.toolkit import column_name_options, column_names, counted, plot_option, progress_bar, warn


def _rows_option(of: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--corpus`, for a command that needs no targets; of: what its rows are of."""
    help_text = f"Rows of {of}; a target is not needed."
    path = click.Path(path_type=Path)
    return click.option("--corpus", "rows", required=True, type=path, metavar="ROWS", help=help_text)


@click.command("exchangeable")
@click.argument("entry_id", metavar="ID")
@_rows_option("new sources")
@column_name_options()
@click.option("--registry", metavar="PATH", help="The registry.json (or its folder).")
@format_option
@click.pass_context
def exchangeable_(
    ctx: click.Context,
    entry_id: str,
    rows: Path,
    source_column: str,
    encoder_column: str,
    registry: str | None,
    form: str,
) -> None:
    """Ask whether new sources are of the kind that an entry's evidence has, without their scores.

    Each new source has a rank among the evidence's, by how far its rows are from those of training and by how much the
    members differ. A low p refutes that they are exchangeable, which is what intervals need; a high one shows nothing.

    \b
    Examples:
      registry fr-ensemble exchangeable my_model --corpus rows.parquet
      registry fr-ensemble exchangeable my_model --corpus rows.csv --format json
    """
    from fr_ensemble.queries.exchangeable import exchangeable, lines

    host: Host = ctx.obj
    with host.open(entry_id, registry) as view, progress_bar() as progress:
        document = exchangeable(view, rows, column_names(source_column, encoder_column), progress)
    host.emit(form, lambda: document, lambda: lines(document))


@click.command("recommend")
@click.argument("entry_id", metavar="ID")
@_rows_option("encodes")
@click.option("--target", required=True, type=float, metavar="X", help="The mean that a clip must reach.")
@click.option(
    "--percentile", type=float, metavar="P", help="Not the mean: this percentile of the clip's rows must reach it."
)
@click.option(
    "--worst-window", type=int, metavar="ROWS", help="Not the mean: every mean of so many rows in a row must reach it."
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Confidence level, between 0 and 1.")
@click.option(
    "--by",
    type=click.Choice(["encoder", "source"]),
    default="encoder",
    show_default=True,
    help="An answer for each source and encoder, or for each source over all its encoders.",
)
@click.option(
    "--cost",
    metavar="COLUMN",
    help="What an encode costs.  [default: bitrate_kbps or bitrate; else the highest quality, crf, cq or qp]",
)
@column_name_options()
@plot_option("Draw quality against cost too.")
@click.option("--registry", metavar="PATH", help="The registry.json (or its folder).")
@format_option
@click.pass_context
def recommend_(
    ctx: click.Context,
    entry_id: str,
    rows: Path,
    target: float,
    percentile: float | None,
    worst_window: int | None,
    confidence: float,
    by: str,
    cost: str | None,
    source_column: str,
    encoder_column: str,
    plot: Path | None,
    registry: str | None,
    form: str,
) -> None:
    """Find the cheapest encode whose quality holds: whose bound on the clip's mean is at least a target.

    The bound is calibrated on what would have been chosen on sources that the models had not seen, so that choices
    fail as seldom as asked, and spend no more than that takes. Where the sources are too few, or the encodes finer
    than those, it is the one-sided bound of clips. Where no encode reaches the target, the nearest is shown.

    \b
    Examples:
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92
      registry fr-ensemble recommend my_model --corpus rows.csv --target 85 --confidence 0.8 --by source --format json
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 80 --percentile 5
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92 --plot curves.png
    """
    from fr_ensemble.evidence.ladders import ClipStatistic
    from fr_ensemble.queries.recommend import Question, recommend
    from fr_ensemble.queries.recommend_views import figures, lines, title

    host: Host = ctx.obj
    with host.open(entry_id, registry) as view, progress_bar() as progress:
        names = column_names(source_column, encoder_column)
        statistic = ClipStatistic(percentile, worst_window)
        question = Question(rows, target, confidence, by == "encoder", cost, names, statistic)
        document, warnings = recommend(view, question, progress)
    for warning, count in sorted(warnings.items()):
        warn(f"{warning}: {counted(count, 'row')}")
    host.emit(form, lambda: document, lambda: lines(document))
    if plot is not None:
        host.draw(plot, title(document), figures(document))
