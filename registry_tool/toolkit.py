"""toolkit.py: one of each small tool: files, rows, tables, progress, escaping, comparison. Knows no registry."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.decorators import FC

from registry_tool.errors import InputError
from registry_tool.rows.batches import BATCH_ROWS as BATCH_ROWS
from registry_tool.rows.batches import Columns as Columns
from registry_tool.rows.batches import Place as Place
from registry_tool.rows.batches import RowBatch as RowBatch
from registry_tool.rows.batches import Text as Text
from registry_tool.rows.batches import bad_cell as bad_cell
from registry_tool.rows.batches import decimal_comma as decimal_comma
from registry_tool.rows.batches import missing_column as missing_column
from registry_tool.rows.batches import number_of as number_of
from registry_tool.rows.reading import read_metadata as read_metadata
from registry_tool.rows.reading import read_rows as read_rows
from registry_tool.rows.writing import FORMATS as FORMATS
from registry_tool.rows.writing import Parquet as Parquet
from registry_tool.rows.writing import format_of as format_of
from registry_tool.rows.writing import output_file as output_file
from registry_tool.rows.writing import refuse_overwriting as refuse_overwriting
from registry_tool.rows.writing import refuse_shared as refuse_shared
from registry_tool.rows.writing import write_rows as write_rows
from registry_tool.storage.lock import clean_staging as clean_staging
from registry_tool.storage.writing import atomic_file as atomic_file
from registry_tool.storage.writing import write_atomic as write_atomic
from registry_tool.strictjson import pointer
from registry_tool.values import Json
from registry_tool.values import counted as counted
from registry_tool.values import first_names as first_names
from registry_tool.values import one_line as one_line
from registry_tool.values import visible as visible

# ---- progress ---------------------------------------------------------------------------------------------------

QUIET_KEY = "registry_tool.quiet"  # where a click context keeps what -q asked for
CLEAR_LINE = "\r\x1b[2K"
LINE_UP = "\x1b[1A"


def is_quiet() -> bool:
    """Whether the command that runs was given -q: no progress, and no notes about the work."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(QUIET_KEY, False) is True


def note(line: str) -> None:
    """A note about the work on stderr, such as what was made or what comes next; none with -q. A warning is no note."""
    if not is_quiet():
        click.echo(line, err=True)


def warn(*messages: str) -> None:
    """Warnings on stderr, a line each, with -q too: what a terminal would obey in them is escaped."""
    for message in messages:
        click.echo(f"warning: {visible(message)}", err=True)


class ProgressBar:
    """A `Progress` that draws one bar, with the time left, on a terminal's stderr; silent in a pipe and with -q."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty() and not is_quiet()
        self._work = ""
        self._bar: Any = None  # click gives its bar's type no public name

    def __call__(self, work: str, done: int, total: int, /) -> None:
        if not self._terminal:
            return
        if work != self._work or self._bar is None:
            self.clear()
            self._work = work
            self._bar = click.progressbar(length=total, label=work, show_pos=True, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._bar.pos)

    def note(self, line: str) -> None:
        """A line on stderr, in a pipe too; the bar goes on below it."""
        self.clear()
        click.echo(line, err=True)

    def clear(self) -> None:
        """Take the bar away; the next call draws it again."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)  # ends the line
            sys.stderr.write(LINE_UP + CLEAR_LINE)
            sys.stderr.flush()
            self._bar = None


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """The bar for the length of a `with`, and gone after it."""
    bar = ProgressBar()
    try:
        yield bar
    finally:
        bar.clear()


# ---- options ----------------------------------------------------------------------------------------------------


def plot_option(help: str) -> Callable[[FC], FC]:
    """`--plot PNG`, for a command that draws with `ctx.obj.draw`: refused before the work where nothing can draw."""

    def check(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and find_spec("matplotlib") is None:
            raise InputError("--plot: drawing needs matplotlib: pip install matplotlib")
        if path is not None and path.suffix.lower() != ".png":
            raise InputError(f"--plot {path}: found the extension {path.suffix!r}, expected .png: name a picture")
        return path

    return click.option("--plot", type=click.Path(path_type=Path), metavar="PNG", help=help, callback=check)


def column_name_parameters(of: str = "Column") -> list[click.Option]:
    """`--source-column` and `--encoder-column`, which say what a table calls two columns; see `column_names`."""
    return [
        click.Option(["--source-column"], default="", metavar="NAME", help=f"{of} of sources.  [default: src]"),
        click.Option(["--encoder-column"], default="", metavar="NAME", help=f"{of} of encoders.  [default: encoder]"),
    ]


def column_name_options(of: str = "Column") -> Callable[[FC], FC]:
    """The same for a command's function, which takes `source_column` and `encoder_column`."""

    def decorate(function: FC) -> FC:
        for parameter in reversed(column_name_parameters(of)):
            function = click.option(*parameter.opts, default="", metavar="NAME", help=parameter.help)(function)
        return function

    return decorate


def column_names(source: str, encoder: str) -> dict[str, str]:
    """`names` of `read_rows` by the two options. Raises InputError where both name one column."""
    if (source or "src") == (encoder or "encoder"):
        raise InputError(
            f"--source-column and --encoder-column: found {(encoder or source)!r} for both, expected two columns"
        )
    return {name: column for name, column in (("src", source), ("encoder", encoder)) if column}


# ---- tables and text --------------------------------------------------------------------------------------------

NUMBER_PATTERN = re.compile(r"([-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ?%)?|[-+]?inf|nan|absent|-|)", re.IGNORECASE)
DIGIT_PATTERN = re.compile(r"\d|inf|nan", re.IGNORECASE)


def text_table(rows: Sequence[Sequence[Json]]) -> Iterator[str]:
    """Lines of columns aligned by width, numbers to the right; the first row is the header."""
    cells = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    right = [is_numeric([row[i] for row in cells[1:]]) for i in range(len(widths))]
    for row in cells:
        columns = zip(row, widths, right, strict=True)
        yield "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in columns).rstrip()


def is_numeric(column: Sequence[str]) -> bool:
    """Whether cells are numbers, with or without %, and signs of missing ones: a column to align to the right."""
    return all(map(NUMBER_PATTERN.fullmatch, column)) and any(map(DIGIT_PATTERN.search, column))


def markdown_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Lines of a table in Markdown; the first row is the header. right: the columns of numbers.

    The cells are Markdown: what is data in them was escaped by `markdown_text`.
    """
    header, *others = rows
    yield _markdown_row(header)
    yield _markdown_row(["---:" if column in right else "---" for column in range(len(header))])
    yield from map(_markdown_row, others)


def _markdown_row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def markdown_text(text: str) -> str:
    """Text on one line that Markdown takes for nothing but text."""
    return re.sub(r"[^A-Za-z0-9 .,:;/()+-]", lambda match: f"&#{ord(match[0])};", visible(text))


# ---- comparison of JSON -----------------------------------------------------------------------------------------


class _Missing(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


MISSING = _Missing("nothing")  # in place of a value that is not there; compared by identity


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two numbers may be apart and count as one: relative to the larger one, or in absolute terms."""

    relative: float
    absolute: float

    def holds(self, found: Json, expected: Json) -> bool:
        """Whether two values of JSON, no containers, are the same: floats within this tolerance, anything else equal.

        Never for NaN. Where a float is expected a whole number may stand for it, but no true or false.
        """
        if isinstance(expected, float) and type(found) in (int, float) and self != EXACT:
            try:
                return math.isclose(found, expected, rel_tol=self.relative, abs_tol=self.absolute)
            except OverflowError:  # an int beyond every float
                return False
        return type(found) is type(expected) and bool(found == expected)


EXACT = Tolerance(0.0, 0.0)
# The same float64 arithmetic on the same stored numbers: only the order of sums in another build of numpy differs,
# which was seen to move figures by 1e-12. No figure means anything at a thousand times that.
ROUNDING = Tolerance(1e-9, 1e-9)
# Figures that another program computed and wrote: its sums, and its digits. Gates bound figures at 5e-3.
OTHER_PROGRAM = Tolerance(1e-6, 1e-6)


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two documents differ; MISSING where one has no value."""

    pointer: str  # RFC 6901
    found: Json
    expected: Json


def differences(found: Json, expected: Json, tolerance: Tolerance = EXACT, base: str = "") -> Iterator[Difference]:
    """Where a JSON value differs from the expected one, in the order of the expected one's keys and items."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name in dict.fromkeys((*expected, *found)):
            one, other = found.get(name, MISSING), expected.get(name, MISSING)
            yield from differences(one, other, tolerance, base + pointer(name))
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, tolerance, base + pointer(index))
    elif found is MISSING or expected is MISSING or not tolerance.holds(found, expected):
        yield Difference(base, found, expected)
