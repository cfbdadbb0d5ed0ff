"""corpus_looks.py: `corpus info` and `corpus split`, of a corpus that is there: parses and prints. Counts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fr_ensemble.commands.shared import MAX_LISTED, format_option
from fr_ensemble.options import bounds_in, column_options, features_named
from registry_tool.errors import InputError
from registry_tool.hookspec import Host
from registry_tool.toolkit import column_names, counted, first_names, plot_option, progress_bar, visible

# Options of `train` that say what the columns of a table are.
INFO_COLUMNS = ("target", "target_range", "features", "source_column", "encoder_column", "conditions", "vocabulary")


@click.command("split")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--train", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Rows to train on.")
@click.option("--aside", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Rows set aside.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Of the sources, to set aside.",
)
@click.option(
    "--sources",
    multiple=True,
    metavar="A,B,...",
    help="The sources to set aside, in the place of a share of them; again for one with a comma in its name.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice.")
@click.option("--source-column", default="src", show_default=True, metavar="NAME", help="Column of sources.")
def split_(
    file: Path, train: Path, aside: Path, share: float, sources: Sequence[str], seed: int, source_column: str
) -> None:
    """Set sources of a corpus aside, for the last word on what was trained: whole sources, never rows.

    Both files have the format, the columns and the metadata of the corpus. The choice is the same for the same sources
    and seed.

    \b
    Examples:
      registry fr-ensemble corpus split corpus.parquet --train train.parquet --aside aside.parquet
      registry fr-ensemble corpus split clips.csv --sources park,river --train train.csv --aside aside.csv
    """
    from fr_ensemble.corpus.split import choose, sources_of, split

    found = sources_of(file, source_column)
    chosen = choose(found, share, seed)
    if sources:
        texts = [[text] if text in found else text.split(",") for text in sources]
        chosen = frozenset(name.strip() for names in texts for name in names)
        if unknown := sorted(chosen - {*found}):
            raise InputError(f"--sources: found {unknown[0]!r}, expected some of {first_names(found, MAX_LISTED)}")
        if chosen == {*found}:
            raise InputError("--sources: found every source, expected some: nothing would be left to train on")
    if train.resolve() == aside.resolve() or file.resolve() in (train.resolve(), aside.resolve()):
        raise InputError("--train and --aside: found one file twice, expected two, and neither of them the corpus")
    counts = split(file, source_column, chosen, {False: train, True: aside})
    for output, part, names in ((train, False, {*found} - chosen), (aside, True, chosen)):
        listed = f": {visible(first_names(sorted(names), MAX_LISTED))}" if part else ""
        click.echo(f"{output}: {counted(counts[part], 'row')} of {counted(len(names), 'source')}{listed}")


@click.command("info", params=column_options(*INFO_COLUMNS))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@plot_option("Draw it too.")
@format_option
@click.pass_context
def info_(ctx: click.Context, /, file: Path, plot: Path | None, form: str, **columns: Any) -> None:
    """Say what a corpus holds: rows, sources, encoders, ranges; duplicates, constant columns, hints of leakage.

    Leakage is one video under two source names: it would be trained on and held out at once.

    \b
    Examples:
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble corpus info clips.csv --target mos --format json
      registry fr-ensemble corpus info corpus.parquet --plot corpus.png
    """
    from fr_ensemble.corpus.info import Asked, describe
    from fr_ensemble.corpus.info_views import figures, lines
    from fr_ensemble.corpus.spec import Condition

    asked = Asked(
        columns["target"],
        features_named(columns["features"]),
        tuple(Condition.parse(text).column for text in columns["conditions"]),
        column_names(columns["source_column"], columns["encoder_column"]),
        columns["vocabulary"],
        bounds_in(columns["target_range"]),
    )
    with progress_bar() as progress:
        document = describe(file, asked, progress)
    host: Host = ctx.obj
    host.emit(form, lambda: document, lambda: lines(document))
    if plot is not None:
        rows, sources = document["n_rows"], len(document["sources"])
        title = f"{document['corpus']}: {counted(rows, 'row')}, {counted(sources, 'source')}"
        host.draw(plot, title, figures(document))
