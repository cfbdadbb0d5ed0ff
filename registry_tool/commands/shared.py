"""shared.py: what every command shares: loaded plugins, the registry to work on, common options, printing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tool.report import reporters

if TYPE_CHECKING:
    from registry_tool.hookspec import EntryView, Figure
    from registry_tool.plugins.manager import Plugins
    from registry_tool.values import Json


# Control characters but the tab, and the escape of colours.
CONTROL_PATTERN = re.compile("[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029]")


class Context:
    """The plugins of a run, loaded on first use."""

    def __init__(self, plugins: Plugins | None = None) -> None:
        self._plugins = plugins

    @property
    def plugins(self) -> Plugins:
        if self._plugins is None:
            from registry_tool.plugins.manager import load

            self._plugins = load()
        return self._plugins

    @contextmanager
    def open(self, entry_id: str, registry: str | None = None) -> Iterator[EntryView]:
        """An entry with verified bytes, for the commands of plugins: see `hookspec.Host`."""
        from registry_tool.workflows.opening import opened, usable

        loaded = usable(find(registry))
        with opened(loaded, self.plugins, entry_id) as view:
            yield view

    def draw(self, path: Path, title: str, figures: Sequence[Figure]) -> None:
        """Charts as one picture in a file, for the commands of plugins too."""
        from registry_tool.toolkit import output_file

        data = reporters.renderer("png", "figures")(title, figures)
        with output_file(path) as file:
            file.write(data)


def plugins_of(ctx: click.Context) -> Plugins:
    return ctx.ensure_object(Context).plugins


def draw(ctx: click.Context, path: Path, title: str, figures: Sequence[Figure]) -> None:
    ctx.ensure_object(Context).draw(path, title, figures)


def find(registry: str | None) -> Path:
    """The registry that the option, the environment or the folder names."""
    from registry_tool.documents import store

    return store.find(registry, os.environ, Path.cwd())


registry_option = click.option(
    "--registry",
    metavar="PATH",
    default=None,
    help="The registry.json (or its folder). Default: REGISTRY_JSON, else one here or in a parent folder.",
)


def level_option(
    help: str = "quick: documents and digests alone; full: graph content, probe rows and evidence too.",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--level`: how much of an entry is looked at."""
    return click.option("--level", type=click.Choice(["quick", "full"]), default="full", show_default=True, help=help)


def format_option(result: str = "answers") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--format`, with the formats that show a result, and what each is for."""
    choices = reporters.choices(result)
    return click.option(
        "--format",
        "form",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help=reporters.explained(choices),
    )


def show(lines: str | Iterable[str]) -> None:
    """Print to standard output; colour on a terminal unless NO_COLOR is set.

    Each of several lines stays one: what would begin another (a command to GitHub's log, say) is spelt out.
    """
    colour = False if os.environ.get("NO_COLOR") else None
    for line in [lines] if isinstance(lines, str) else (CONTROL_PATTERN.sub(_spelt, line) for line in lines):
        click.echo(line, color=colour)


def show_rendered(rendered: reporters.Rendered) -> None:
    """Print one document, or lines."""
    show("".join(rendered.lines) if rendered.document else rendered.lines)


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def incumbent_options(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--incumbent ID`, and its older name, which help no longer shows; see `incumbent_of`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        return click.option("--incumbent", metavar="ID", help=help)(click.option("--against", hidden=True)(command))

    return add


def incumbent_of(incumbent: str | None, against: str | None) -> str | None:
    """The value of the option under either name."""
    if incumbent is not None and against is not None:
        raise click.UsageError("--against is the older name of --incumbent: name the entry once")
    return incumbent if incumbent is not None else against


def emit(form: str, document: Callable[[], Json], lines: Callable[[], str | Iterable[str]]) -> None:
    """Print an answer in the form that was asked for."""
    show_rendered(reporters.renderer(form, "answers")(reporters.Answer(document, lines)))


def deliver(page: str, output: Path | None) -> None:
    """Print a document, or write it to a file: whole, or the old one stays."""
    if output is None:
        click.echo(page, nl=False)
        return
    from registry_tool.toolkit import output_file

    with output_file(output) as file:
        file.write(page.encode())


def add_summary(lines: Iterable[str]) -> None:
    """Append Markdown to the summary of a GitHub step; nothing where this is none."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
