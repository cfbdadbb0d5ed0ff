"""toolkit.py: progress of long work on a terminal, silence in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from registry_tool.hookspec import Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """A progress callback that draws one bar a kind of work, with the time left, on a terminal's stderr."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    with ExitStack() as stack:
        bars: dict[str, tuple[object, int]] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()  # ends the line of the work before
                bar = click.progressbar(length=total, label=what, show_pos=True, file=sys.stderr)
                bars[what] = (stack.enter_context(bar), 0)
            bar, last = bars[what]  # type: ignore[assignment]  # click gives its bar's type no public name
            bar.update(done - last)
            bars[what] = (bar, done)

        yield progress
