"""inspect.py: look at a registry: validate, init, list, paths, show, card, report, prune."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from registry_tool.commands.shared import (
    add_summary,
    allow_smoke_option,
    deliver,
    emit,
    entry_argument,
    find,
    format_option,
    level_option,
    page_option,
    plugins_of,
    registry_option,
    show,
)
from registry_tool.commands.trust import TrustOptions, given_trust, trust_options
from registry_tool.errors import ExitCode, InputError
from registry_tool.report import reporters
from registry_tool.toolkit import note

if TYPE_CHECKING:
    from registry_tool.workflows.validate import Validation


@click.command()
@click.argument("registries", metavar="[REGISTRY]...", nargs=-1)
@level_option()
@format_option("validations")
@click.option("-o", "--output", metavar="FILE", help="Write it there, and the findings as text to standard error.")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option(
    "--changed",
    is_flag=True,
    help="The arguments are changed files: check the registries that hold them. Without any: what git sees changed.",
)
@click.option(
    "--changed-since",
    metavar="REF",
    help="Check fully what changed since a git revision, and quickly what did not; the result counts both.",
)
@trust_options
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    registries: tuple[str, ...],
    level: str,
    form: str,
    output: str | None,
    strict: bool,
    changed: bool,
    changed_since: str | None,
    **trust: Unpack[TrustOptions],
) -> None:
    """Check every byte and every claim of a registry.

    Three options make it shorter. --level quick looks less deeply. --changed, for commit hooks, looks at fewer
    registries: those that hold the files named, and files whose deletion is staged; where none holds any, all is well.
    --changed-since REF looks less deeply at the entries whose row, policy and incumbent are what they were where HEAD
    left REF, and relies on a full check there; it takes no --level quick. No gate takes any of them.

    --format github prints annotations, and adds a summary to the file that GITHUB_STEP_SUMMARY names.

    Signatures are verified with the signers of the policies. With --public-key or --trust every production entry needs
    a signature of one of those.

    \b
    Examples:
      registry validate
      registry validate model/registry.json --level quick
      registry validate --format json | jq '.findings[].code'
      registry validate --format sarif -o registry.sarif
      registry validate --trust root.pem
      registry validate --changed-since origin/main
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import Level
    from registry_tool.workflows import validate as validate_workflow
    from registry_tool.workflows.validate import touched

    if changed_since is not None and level == "quick":
        raise click.UsageError("--changed-since checks fully what changed, found --level quick: leave one of them out")
    if changed:
        paths = touched(registries, Path.cwd(), os.environ)
    else:
        paths = [find(registry) for registry in registries or (None,)]
    if form == "json" and len(paths) != 1:
        raise click.UsageError(f"--format json describes one registry, found {len(paths)}: run it once for each")
    given = given_trust(**trust)
    if given is None and trust["at"] is not None:
        raise click.UsageError("--at goes with --public-key or --trust: name whom to trust too")
    with toolkit.progress_bar() as progress:
        results = [
            validate_workflow.validate(path, plugins_of(ctx), Level(level), progress, given, changed_since)
            for path in paths
        ]
    _deliver(results, form, output, strict=strict)
    if any(result.lacks_plugins for result in results) or plugins_of(ctx).broken:
        ctx.exit(ExitCode.BROKEN)
    failed = any(result.fails(strict=strict) for result in results)
    ctx.exit(ExitCode.REJECTED if failed else ExitCode.OK)


def _deliver(results: Sequence[Validation], form: str, output: str | None, *, strict: bool) -> None:
    from registry_tool.report import text
    from registry_tool.toolkit import is_quiet

    lines: Iterable[str] = (line for result in results for line in text.validation(result, total=not is_quiet()))
    if output is not None:
        lines = list(lines)
        for line in lines if output != "-" else ():
            click.echo(line, err=True, color=False if os.environ.get("NO_COLOR") else None)
        lines = map(click.unstyle, lines)
    rendered = reporters.renderer(form, "validations")(reporters.Validations(results, strict))
    if form != "text":
        lines = list(rendered.lines)
    add_summary(rendered.summary)
    if output is None or output == "-":
        show("".join(lines) if rendered.document else lines)  # one document, or lines
    else:
        deliver("".join(f"{line}\n" for line in lines), Path(output))


@click.command()
@click.argument("folder", default="model", required=False)
def init(folder: str) -> None:
    """Make an empty registry in a folder.

    Without FOLDER: in model/. A .gitattributes there tells git to convert no line ending, since digests pin the bytes;
    a .gitignore leaves the lock out. `registry train` makes all this, too, where there is no registry yet.

    \b
    Examples:
      registry init
      registry init teams/video
    """
    from registry_tool.workflows import initialise

    if not folder:
        raise InputError("FOLDER: found an empty path, expected a folder: name one, or leave it out for model/")
    path = Path(folder) if folder.endswith(".json") else Path(folder) / "registry.json"
    initialise.init(path)
    note(f"made {path}")


@click.command("list")
@registry_option
@format_option()
def list_(registry: str | None, form: str) -> None:
    """List the entries of a registry.

    \b
    Example:
      registry list --format json | jq -r '.[].id'
    """
    from registry_tool.toolkit import text_table
    from registry_tool.workflows.loading import usable

    loaded = usable(find(registry))
    entries = loaded.registry.entries
    header = ("id", "kind", "state", "license", "sha256")
    rows = [
        (e.id, e.kind, "smoke" if e.smoke else "production", e.document.get("license", "-"), e.sha256[:12])
        for e in entries
    ]
    emit(form, lambda: [entry.to_dict() for entry in entries], lambda: text_table([header, *rows]))


@click.command()
@entry_argument()
@allow_smoke_option
@registry_option
@format_option()
@click.pass_context
def paths(ctx: click.Context, entry_id: str, allow_smoke: bool, registry: str | None, form: str) -> None:
    """Print the files of an entry, for a program that reads them itself.

    One absolute path a line, the manifest first, where the entry may be used: production, digests and promotion hold,
    and it has the signatures that the policy asks for. JSON has the digests, which a program compares with what it
    read where someone else may write these files meanwhile.

    \b
    Examples:
      registry paths my_model
      registry paths my_model --format json | jq -r '.files[] | .sha256 + "  " + .path' | sha256sum --check
    """
    from registry_tool.workflows import paths as paths_workflow
    from registry_tool.workflows.loading import usable

    found = paths_workflow.paths(usable(find(registry)), plugins_of(ctx), entry_id, allow_smoke=allow_smoke)
    emit(form, found.to_dict, lambda: [str(file.path) for file in found.files])


@click.command("show")
@entry_argument()
@registry_option
@format_option()
@click.pass_context
def show_(ctx: click.Context, entry_id: str, registry: str | None, form: str) -> None:
    """Show one entry: fields, pinned files, policy.

    \b
    Example:
      registry show my_model --format json
    """
    from registry_tool.report import text
    from registry_tool.workflows.loading import find_entry, usable, verified_entry

    loaded = usable(find(registry))
    entry = find_entry(loaded, entry_id)
    with verified_entry(loaded, plugins_of(ctx), entry_id) as view:
        files = {name: artifact.sha256 for name, artifact in view.artifacts.items()}
    policy = loaded.registry.policies.get(entry.kind)
    document = {**entry.to_dict(), "files": files, "policy": policy.to_dict() if policy else None}
    if policy and form == "text":
        document["policy"] = {"gate": policy.gate, "rules": [str(rule) for rule in policy.rules]}
    emit(form, lambda: document, lambda: text.fields(document))


@click.command()
@entry_argument()
@page_option
@registry_option
@click.pass_context
def card(ctx: click.Context, entry_id: str, output: Path | None, registry: str | None) -> None:
    """Write a model card from what the registry pins.

    \b
    Example:
      registry card my_model -o docs/models/my_model.md
    """
    from registry_tool.report.card import card as render
    from registry_tool.values import Policy
    from registry_tool.workflows.gate import gate
    from registry_tool.workflows.loading import find_entry, usable, verified_entry

    loaded, plugins = usable(find(registry)), plugins_of(ctx)
    entry = find_entry(loaded, entry_id)
    with verified_entry(loaded, plugins, entry_id) as view:
        manifest = view.manifest or {}
    policy = loaded.registry.policies.get(entry.kind, Policy())
    judgement, reason = None, ""
    try:
        judgement = gate(loaded.path, plugins, entry_id) if policy.rules else None
    except InputError as error:  # a smoke entry may lack evidence, and has a card all the same
        if not entry.smoke or entry.kind not in plugins.kinds:
            raise
        reason = str(error)
    deliver("\n".join(render(entry, manifest, policy, judgement, reason)) + "\n", output)


@click.command()
@entry_argument()
@page_option
@registry_option
@click.pass_context
def report(ctx: click.Context, entry_id: str, output: Path | None, registry: str | None) -> None:
    """Write one HTML page on an entry.

    Its verdict, judged again; what its evidence shows, as tables and charts; what validate finds; who signed it; the
    chain of digests from the registry down to the data; and, in a git repository, who changed it and how git judges the
    signatures of those commits, with the keys of this machine. The page loads nothing and runs no script: mail it,
    print it, keep it.

    \b
    Example:
      registry report my_model -o report.html
    """
    from registry_tool.workflows import overview

    path = find(registry)
    gathered = overview.with_history(overview.gather(path, plugins_of(ctx), entry_id), path)
    deliver(reporters.renderer("html", "overview")(gathered), output)


@click.command()
@registry_option
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def prune(registry: str | None, dry_run: bool) -> None:
    """Remove runs that no entry names.

    Training a smoke entry again leaves its old folder behind; this removes such folders. Verdicts stay.

    \b
    Example:
      registry prune --dry-run
    """
    from registry_tool.workflows import housekeeping as housekeeping_workflow

    removed = housekeeping_workflow.prune(find(registry), dry_run=dry_run)
    for path in removed:
        show(path)
    note(f"{len(removed)} folder(s) {'would be ' if dry_run else ''}removed")
