"""shared.py: what every command shares: loaded plugins, the registry to work on, common options, printing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.decorators import FC

from registry_tool.errors import RegistryError
from registry_tool.report import reporters
from registry_tool.toolkit import QUIET_KEY

if TYPE_CHECKING:
    from registry_tool.hookspec import EntryView, Figure
    from registry_tool.plugins.manager import Plugins
    from registry_tool.values import Json


# Control characters but the tab, and the escape of colours.
CONTROL_PATTERN = re.compile("[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029]")


DISABLED_VARIABLE = "REGISTRY_PLUGINS_DISABLED"  # names, joined by commas


class Context:
    """The plugins of a run, loaded on first use."""

    def __init__(self, plugins: Plugins | None = None) -> None:
        self._plugins = plugins
        self.without: tuple[str, ...] = ()  # plugins that a person left out

    @property
    def plugins(self) -> Plugins:
        if self._plugins is None:
            from registry_tool.plugins.contract import limit_hooks
            from registry_tool.plugins.manager import load

            limit_hooks()
            named = (*self.without, *os.environ.get(DISABLED_VARIABLE, "").split(","))
            without = [name.strip() for name in named if name.strip()]
            self._plugins = load(without) if without else load()
        return self._plugins

    @contextmanager
    def open(self, entry_id: str, registry: str | None = None) -> Iterator[EntryView]:
        """An entry with verified bytes, for the commands of plugins: see `hookspec.Host`."""
        from registry_tool.workflows.loading import usable, verified_entry

        loaded = usable(find(registry))
        with verified_entry(loaded, self.plugins, entry_id) as view:
            yield view

    def emit(self, form: str, document: Callable[[], Json], lines: Callable[[], str | Iterable[str]]) -> None:
        """An answer in the form that was asked for, for the commands of plugins too."""
        emit(form, document, lines)

    def draw(self, path: Path, title: str, figures: Sequence[Figure]) -> None:
        """Charts as one picture in a file, for the commands of plugins too."""
        from registry_tool.toolkit import output_file

        data = reporters.renderer("png", "figures")(title, figures)
        with output_file(path) as file:
            file.write(data)


def plugins_of(ctx: click.Context) -> Plugins:
    return ctx.ensure_object(Context).plugins


def _leave_out(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    ctx.ensure_object(Context).without = names


without_plugin_option = click.option(
    "--without-plugin",
    metavar="NAME",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_leave_out,
    help="Leave an installed plugin out, to find out which one is at fault. Nothing is promoted without it.",
)


def draw(ctx: click.Context, path: Path, title: str, figures: Sequence[Figure]) -> None:
    ctx.ensure_object(Context).draw(path, title, figures)


def find(registry: str | None) -> Path:
    """The registry that the option, the environment or the folder names."""
    from registry_tool.documents import store

    return store.find(registry, os.environ, Path.cwd())


# ---- what a shell offers on TAB; it has no place for an error -----------------------------------------------------

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def entry_argument(*, required: bool = True) -> Callable[[FC], FC]:
    """The argument `entry_id`, an id of the registry."""
    metavar = "ID" if required else "[ID]"
    return click.argument("entry_id", metavar=metavar, required=required, shell_complete=complete_ids)


def _completing(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Those names that begin as the word does; none where they cannot be read: a shell has no place for an error."""

    def complete(ctx: click.Context, _: click.Parameter, word: str) -> list[str]:
        with suppress(RegistryError, OSError):
            return sorted(name for name in names(ctx) if name.startswith(word))
        return []

    return complete


def _ids(ctx: click.Context) -> Iterable[str]:
    from registry_tool.documents import store

    loaded = store.load(store.find(ctx.params.get("registry"), os.environ, Path.cwd()))
    return [entry.id for entry in loaded.registry.entries] if isinstance(loaded, store.Loaded) else ()


def _codes(ctx: click.Context) -> Iterable[str]:
    from registry_tool.workflows import explain

    return [rule.code for group in explain.declared(plugins_of(ctx)) for rule in group.rules]


def _kinds(ctx: click.Context) -> Iterable[str]:
    return plugins_of(ctx).kinds


def _schemas(ctx: click.Context) -> Iterable[str]:
    from registry_tool import schemas

    return {*schemas.names(), *(name for name, kind in plugins_of(ctx).kinds.items() if kind.schema is not None)}


complete_ids, complete_codes = _completing(_ids), _completing(_codes)
complete_kinds, complete_schemas = _completing(_kinds), _completing(_schemas)


# ---- options -----------------------------------------------------------------------------------------------------

PATH = click.Path(path_type=Path)
allow_smoke_option = click.option("--allow-smoke", is_flag=True, help="Take an entry that was not promoted, too.")
page_option = click.option("-o", "--output", type=PATH, metavar="FILE", help="Write it there instead.")
registry_option = click.option(
    "--registry",
    metavar="PATH",
    default=None,
    help="The registry.json (or its folder). Default: REGISTRY_JSON, else one here or in a parent folder.",
)


# Of `--registry`, for commands that register an entry.
NEW_REGISTRY_HELP = (
    "The registry.json; made where there is none. Default: REGISTRY_JSON, one here or above, else in model/."
)


def _set_quiet(ctx: click.Context, _: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.meta[QUIET_KEY] = True  # of the whole run: a group's holds for its commands


def quiet_option() -> click.Option:
    """`-q`, which the program and each of its commands have."""
    return click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_set_quiet,
        help="No progress and no notes; findings, warnings and errors stay.",
    )


def quietable(command: click.Command) -> click.Command:
    """The command, or all of a group, with `-q`."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            quietable(inner)
    elif not any("-q" in parameter.opts for parameter in command.params):
        command.params.append(quiet_option())
    return command


def corpus_option(help: str, *, required: bool = False) -> Callable[[FC], FC]:
    """`--corpus`, a table of rows; help: of which."""
    return click.option("--corpus", type=PATH, required=required, metavar="FILE", help=help)


def folder_option(metavar: str = "DIR", default: str = "") -> Callable[[FC], FC]:
    """`--output`, a folder that a command makes; required where there is no default."""
    words = "The folder to make; new or empty." + (f"  [default: {default}]" if default else "")
    return click.option("-o", "--output", type=PATH, metavar=metavar, required=not default, help=words)


def level_option(
    help: str = "quick: documents and digests alone; full: graph content, probe rows and evidence too.",
) -> Callable[[FC], FC]:
    """`--level`: how much of an entry is looked at."""
    return click.option("--level", type=click.Choice(["quick", "full"]), default="full", show_default=True, help=help)


def format_option(result: str = "answers") -> Callable[[FC], FC]:
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


def incumbent_options(help: str) -> Callable[[FC], FC]:
    """`--incumbent ID`, and its older name, which help no longer shows; see `incumbent_of`."""

    def add(command: FC) -> FC:
        shown = click.option("--incumbent", metavar="ID", help=help, shell_complete=complete_ids)
        return shown(click.option("--against", hidden=True)(command))

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
