"""evaluation.py: models on rows: evaluate, compare, predict."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import click

from registry_tool.commands.shared import (
    complete_ids,
    corpus_option,
    draw,
    emit,
    entry_argument,
    find,
    format_option,
    incumbent_of,
    incumbent_options,
    plugins_of,
    registry_option,
)
from registry_tool.errors import InputError
from registry_tool.hookspec import Column
from registry_tool.rows.cells import ColumnTable
from registry_tool.toolkit import FORMATS, Text, column_name_options, column_names, counted, plot_option, warn
from registry_tool.values import Json

FORMULA_PATTERN = re.compile(r"\s*[=+\-@\t\r]")  # how texts begin that spreadsheets run


@click.command()
@entry_argument()
@corpus_option("Rows it has not seen.")
@click.option("--smoke", is_flag=True, help="On fresh random rows: shows that it runs.")
@click.option("--levels", default="0.5,0.8,0.95", show_default=True, help="Nominal coverages, between 0 and 1.")
@click.option("--by", default="src", show_default=True, help="Columns to break the figures down by.")
@plot_option("Draw coverage, widths and errors too.")
@column_name_options()
@incumbent_options("Another entry, to compare the errors with on the same rows.")
@registry_option
@format_option()
@click.pass_context
def evaluate(
    ctx: click.Context,
    entry_id: str,
    corpus: Path | None,
    smoke: bool,
    levels: str,
    by: str,
    plot: Path | None,
    source_column: str,
    encoder_column: str,
    incumbent: str | None,
    against: str | None,
    registry: str | None,
    form: str,
) -> None:
    """Measure an entry on rows it has not seen.

    PLCC, SROCC, RMSE, CRPS; coverage, width and score (Winkler's, lower is better) of its intervals, beside those of
    other methods; standard errors over sources, since rows of one source are not independent; the worst source of each
    level.

    \b
    Examples:
      registry evaluate my_model --corpus heldout.parquet
      registry evaluate my_model --corpus heldout.parquet --levels 0.5,0.9 --by src,encoder --format json
      registry evaluate my_model --corpus heldout.parquet --plot coverage.png
      registry evaluate my_model --corpus heldout.parquet --incumbent my_incumbent
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import EvaluateRequest
    from registry_tool.workflows import evaluate as evaluate_workflow

    if smoke == (corpus is not None):
        raise click.UsageError("name the rows: --corpus FILE, or --smoke for random ones")
    columns = tuple(name.strip() for name in by.split(",") if name.strip())
    with toolkit.progress_bar() as progress:
        names = column_names(source_column, encoder_column)
        request = EvaluateRequest(
            corpus, smoke, _levels(levels), columns, progress, plot is not None, column_names=names
        )
        result = evaluate_workflow.evaluate(
            find(registry), plugins_of(ctx), entry_id, request, incumbent_of(incumbent, against)
        )
    warn(*result.warnings)
    if plot is not None:
        draw(ctx, plot, f"{entry_id} on {corpus.name if corpus else 'random rows'}", result.figures)
    emit(form, lambda: result.document, lambda: toolkit.text_table(result.table))


@click.command()
@click.argument("entry_ids", metavar="ID ID...", nargs=-1, required=True, shell_complete=complete_ids)
@corpus_option("Rows that none of them has seen, too.")
@click.option("--levels", default="0.8", show_default=True, help="Nominal coverages on these rows, between 0 and 1.")
@plot_option("Draw what the policy rules and what has an interval, too.")
@column_name_options()
@registry_option
@format_option()
@click.pass_context
def compare(
    ctx: click.Context,
    entry_ids: tuple[str, ...],
    corpus: Path | None,
    levels: str,
    plot: Path | None,
    source_column: str,
    encoder_column: str,
    registry: str | None,
    form: str,
) -> None:
    """Show several entries side by side.

    Their verdicts and the metrics of their evidence; with --corpus their figures on its rows, too. Every entry after
    the first is compared with the first, source by source: rmse_vs_incumbent of evidence, rmse_vs_first of rows. Exit
    code 0 whatever the verdicts are.

    \b
    Examples:
      registry compare plain sharp noisy
      registry compare plain sharp --corpus aside.parquet
      registry compare plain sharp --plot compared.png
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import EvaluateRequest
    from registry_tool.workflows import compare as compare_workflow

    with toolkit.progress_bar() as progress:
        names = column_names(source_column, encoder_column)
        request = EvaluateRequest(corpus, levels=_levels(levels), progress=progress, column_names=names)
        contenders = compare_workflow.compare(
            find(registry), plugins_of(ctx), entry_ids, request if corpus is not None else None
        )
    warn(*(warning for one in contenders for warning in one.warnings))
    emit(
        form,
        lambda: {"first": entry_ids[0], "entries": [one.to_dict() for one in contenders]},
        lambda: toolkit.text_table(compare_workflow.table(contenders)),
    )
    if plot is not None:
        draw(ctx, plot, " and ".join(entry_ids), compare_workflow.charts(contenders))


def _levels(text: str) -> Sequence[float]:
    try:
        levels = tuple(dict.fromkeys(float(level) for level in text.split(",")))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level < 1 for level in levels):
        raise click.BadParameter(
            f"found {text!r}, expected numbers between 0 and 1, such as 0.5,0.8,0.95", param_hint="--levels"
        )
    return levels


@click.command()
@entry_argument()
@corpus_option("Rows; a target is not needed. `-` is standard input: CSV, JSON lines or a JSON list.", required=True)
@click.option("--levels", default="0.95", show_default=True, help="Nominal coverages of the intervals.")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write.  [default: standard output]")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="How to write it.  [default: as FILE ends, else csv]"
)
@click.option("--flush", is_flag=True, help="With --corpus -: predict and print each row as soon as it has arrived.")
@column_name_options()
@registry_option
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    entry_id: str,
    corpus: Path,
    levels: str,
    output: str,
    form: str | None,
    flush: bool,
    source_column: str,
    encoder_column: str,
    registry: str | None,
) -> None:
    """Predict rows: mu, sigma, lower, upper.

    Rows with an input outside what training saw are marked; encoders without a slot are counted in a warning.

    \b
    Examples:
      registry predict my_model --corpus rows.csv
      registry predict my_model --corpus rows.csv --levels 0.8,0.95 --format jsonl
      registry predict my_model --corpus rows.parquet -o scores.parquet
      tail -f rows.jsonl | registry predict my_model --corpus - --format jsonl --flush
    """
    from registry_tool.storage import streams
    from registry_tool.toolkit import format_of, refuse_overwriting, write_rows
    from registry_tool.workflows import predict as predict_workflow

    refuse_overwriting(output, corpus)
    if flush and (str(corpus), output) != ("-", "-"):
        raise click.UsageError("--flush is for rows from standard input to standard output: say --corpus - without -o")
    rows = predict_workflow.IncomingRows(_standard_input(), flush) if str(corpus) == "-" else corpus
    names = column_names(source_column, encoder_column)
    batches = predict_workflow.predict(find(registry), plugins_of(ctx), entry_id, rows, _levels(levels), names)
    warnings = Counter[str]()

    form = form or format_of(output) or FORMATS[0]

    def columns() -> Iterator[ColumnTable]:
        for batch in batches:
            if output == "-" and streams.reader_left():
                return
            warnings.update(batch.warnings)
            yield inert(batch.columns) if form == "csv" else batch.columns
            if flush:
                sys.stdout.flush()  # the next batch is asked for when this one's lines are written

    write_rows(columns(), output, form)
    for warning, count in sorted(warnings.items()):
        warn(f"{warning}: {counted(count, 'row')}")


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise InputError("standard input: it is closed, expected rows: name a file, or pipe rows to it")
    return sys.stdin.buffer


def inert(columns: Mapping[str, Sequence[Json] | Column]) -> ColumnTable:
    """A text that a spreadsheet would run as a formula is quoted in CSV, as spreadsheets themselves do."""

    def cell(value: Json) -> Json:
        return f"'{value}" if isinstance(value, str) and FORMULA_PATTERN.match(value) else value

    def column(values: Sequence[Json] | Column) -> Sequence[Json] | Column:
        if isinstance(values, Text):
            return Text(values.codes, tuple(map(cell, values.names)))
        return values if isinstance(values, Column) else list(map(cell, values))

    return {cell(name): column(values) for name, values in columns.items()}
