"""audit.py: where a registry comes from or goes, what happened to it: migrate, export, history, reproduce."""

from __future__ import annotations

from pathlib import Path

import click

from registry_tool.commands.shared import (
    PATH,
    allow_smoke_option,
    corpus_option,
    emit,
    entry_argument,
    find,
    folder_option,
    format_option,
    plugins_of,
    registry_option,
)
from registry_tool.errors import ExitCode
from registry_tool.toolkit import note, warn


@click.command()
@click.argument("old", metavar="OLD/registry.json")
@folder_option("NEW")
@click.option("--skip-broken", is_flag=True, help="Leave out what cannot be taken over, instead of making nothing.")
@format_option()
@click.pass_context
def migrate(ctx: click.Context, old: str, output: Path, skip_broken: bool, form: str) -> None:
    """Make a registry of version 2 from one of version 0 or 1.

    Pins what nothing pinned, joins an ensemble's rows and its unpinned manifest into one entry, and lists every finding
    with what became of it. The old folder is not written to; the new one appears whole or not at all.

    \b
    Examples:
      registry migrate model/tiny/registry.json -o model2
      registry migrate model/tiny/registry.json -o model2 --format json | jq '.holes[].code'
    """
    from registry_tool import toolkit
    from registry_tool.report import audit
    from registry_tool.workflows.migrate import migrate

    with toolkit.progress_bar() as progress:
        done = migrate(find(old), output, plugins_of(ctx), skip_broken=skip_broken, progress=progress)
    emit(form, lambda: audit.migration_document(done), lambda: audit.migration(done))
    if not done.done:
        click.echo(f"{output}: nothing was written; repair the entries, or leave them out: --skip-broken", err=True)
    ctx.exit(ExitCode.OK if done.done else ExitCode.REJECTED)


@click.command()
@entry_argument()
@click.option("--layout", type=click.Choice(["libvmaf"]), default="libvmaf", show_default=True, help="Whose loader.")
@folder_option()
@allow_smoke_option
@registry_option
@click.pass_context
def export(
    ctx: click.Context, entry_id: str, layout: str, output: Path, allow_smoke: bool, registry: str | None
) -> None:
    """Write an entry in the folder layout of another loader.

    The layout libvmaf is a registry.json of version 1 with each model and its sidecar; an ensemble is its members
    there, beside a manifest. What that loader does not take, operators or weights in other files, is refused.

    \b
    Example:
      registry export my_model --layout libvmaf -o tiny
    """
    from registry_tool.workflows import export as export_workflow
    from registry_tool.workflows.loading import usable

    done = export_workflow.export(usable(find(registry)), plugins_of(ctx), entry_id, output, allow_smoke=allow_smoke)
    for name in done.files:
        click.echo(str(output / name))
    note(f"models of layout {layout}: {', '.join(done.models)}")


@click.command()
@entry_argument(required=False)
@click.option("--as-of", "day", metavar="DATE", help="What was production on that day (its end, UTC) or at that time.")
@registry_option
@format_option()
@click.pass_context
def history(ctx: click.Context, entry_id: str | None, day: str | None, registry: str | None, form: str) -> None:
    """Tell who did what to an entry, from git.

    When it was registered, flipped, demoted or edited, by whom, on which evidence or for which reason. With --as-of:
    the production model of that day, exit 1 where there was none; without ID: all of them.

    \b
    Examples:
      registry history my_model
      registry history my_model --as-of 2026-05-06
      registry history --as-of 2026-05-06 --format json | jq -r '.production[].sha256'
    """
    from registry_tool.git import history as past
    from registry_tool.git.repository import FETCH_HINT
    from registry_tool.report import audit

    path = find(registry)
    if day is not None:
        production = past.as_of(path, past.moment(day), entry_id)
        emit(form, lambda: audit.as_of_document(production), lambda: audit.as_of(production))
        ctx.exit(ExitCode.OK if production.rows else ExitCode.REJECTED)
    if entry_id is None:
        raise click.UsageError("name an ID, or a day: --as-of DATE")
    found = past.history(path, entry_id)
    emit(form, lambda: audit.history_document(found), lambda: audit.history(found))
    if found.shallow:
        click.echo(f"this clone is shallow, so the history may begin earlier: {FETCH_HINT}", err=True)


@click.command()
@entry_argument()
@corpus_option("The corpus it was trained on.  [default: the corpus that ships with the plugin]")
@click.option("--jobs", type=click.IntRange(1), help="Processor cores to use.  [default: all]")
@click.option("--device", default="cpu", show_default=True, help="Where to train, as for `train`.")
@click.option("--keep", type=PATH, metavar="DIR", help="Keep what was trained in a new folder.")
@click.option("--exact", is_flag=True, help="Require the same bytes: exit 1 within tolerance, too.")
@click.option("--store", "stores", is_flag=True, help="Keep the result beside the verdict, whatever it is.")
@registry_option
@format_option()
@click.pass_context
def reproduce(
    ctx: click.Context,
    entry_id: str,
    corpus: Path | None,
    jobs: int | None,
    device: str,
    keep: Path | None,
    exact: bool,
    stores: bool,
    registry: str | None,
    form: str,
) -> None:
    """Train an entry again and compare bytes.

    Exit 0: the same bytes; or others that a difference of the environments explains, while predictions agree within
    tolerance. Exit 1: anything else. Takes as long as training did. --store alone touches the registry: it pins the
    result in the entry's promotion.

    \b
    Examples:
      registry reproduce my_model --corpus corpus.parquet
      registry reproduce my_model --corpus corpus.parquet --exact
      registry reproduce my_model --corpus corpus.parquet --keep again --format json
      registry reproduce my_model --corpus corpus.parquet --store
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import ReproduceRequest
    from registry_tool.report import audit
    from registry_tool.workflows.reproduce import Outcome, refuse_storing, reproduce, store_result

    path = find(registry)
    if stores:
        refuse_storing(path, entry_id)
    with toolkit.progress_bar() as progress:
        request = ReproduceRequest(corpus, jobs, device, progress)
        done = reproduce(path, plugins_of(ctx), entry_id, request, keep)
    warn(*done.warnings)
    emit(form, done.to_dict, lambda: audit.reproduction(done))
    if stores:
        note(f"{entry_id}: the result is kept in {store_result(path, done)}")
    good = {Outcome.IDENTICAL} if exact else {Outcome.IDENTICAL, Outcome.WITHIN_TOLERANCE}
    ctx.exit(ExitCode.OK if done.outcome in good else ExitCode.REJECTED)
