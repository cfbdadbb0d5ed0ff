"""inspect.py: look at a registry: validate, list, show, card, rule, plugins, prune."""

from __future__ import annotations

from pathlib import Path

import click

from registry_tool.commands.shared import find, format_option, plugins_of, registry_option, show
from registry_tool.errors import ExitCode


@click.command()
@click.argument("registry", required=False)
@click.option("--level", type=click.Choice(["quick", "full"]), default="full", show_default=True,
              help="quick: documents and digests alone; full: graph content, probe rows and evidence too.")  # fmt: skip
@format_option("text", "json")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.pass_context
def validate(ctx: click.Context, registry: str | None, level: str, form: str, strict: bool) -> None:
    """Check every byte and every claim of a registry.

    \b
    Examples:
      registry validate
      registry validate model/registry.json --level quick
      registry validate --format json | jq '.findings[].code'
    """
    from registry_tool import flows, progress
    from registry_tool.hookspec import Level
    from registry_tool.values import Severity

    with progress.shown() as report:
        result = flows.validate(find(registry), plugins_of(ctx), Level(level), report)
    if form == "json":
        from registry_tool.report import machine

        show(machine.render(machine.validation(result)))
    else:
        from registry_tool.report import text

        show(text.validation(result))
    failed = result.count(Severity.ERROR) or (strict and result.count(Severity.WARNING))
    ctx.exit(ExitCode.REJECTED if failed else ExitCode.OK)


@click.command("list")
@registry_option
@format_option("text", "json")
def list_(registry: str | None, form: str) -> None:
    """List the entries of a registry.

    \b
    Example:
      registry list --format json | jq -r '.[].id'
    """
    from registry_tool import flows
    from registry_tool.report import machine, text

    loaded = flows.usable(find(registry))
    entries = loaded.registry.entries if loaded.registry else ()
    if form == "json":
        show(machine.render([entry.to_dict() for entry in entries]))
        return
    header = ("id", "kind", "state", "license", "sha256")
    rows = [
        (e.id, e.kind, "smoke" if e.smoke else "production", e.document.get("license", "-"), e.sha256[:12])
        for e in entries
    ]
    show(text.table([header, *rows]))


@click.command("show")
@click.argument("entry_id", metavar="ID")
@registry_option
@format_option("text", "json")
@click.pass_context
def show_(ctx: click.Context, entry_id: str, registry: str | None, form: str) -> None:
    """Show one entry: fields, pinned files, policy.

    \b
    Example:
      registry show my_model --format json
    """
    from registry_tool import flows
    from registry_tool.report import machine, text

    loaded = flows.usable(find(registry))
    entry = flows.find_entry(loaded, entry_id)
    with flows.opened(loaded, plugins_of(ctx), entry) as view:
        files = {name: artifact.sha256 for name, artifact in view.artifacts.items()}
    policy = loaded.registry.policies.get(entry.kind) if loaded.registry else None
    document = {**entry.to_dict(), "files": files, "policy": policy.to_dict() if policy else None}
    if policy and form == "text":
        document["policy"] = {"gate": policy.gate, "rules": [str(rule) for rule in policy.rules]}
    show(machine.render(document) if form == "json" else text.fields(document))


@click.command()
@click.argument("entry_id", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead.")
@registry_option
@click.pass_context
def card(ctx: click.Context, entry_id: str, output: Path | None, registry: str | None) -> None:
    """Write a model card from what the registry pins.

    \b
    Example:
      registry card my_model -o docs/models/my_model.md
    """
    from registry_tool import flows, gating
    from registry_tool.files import write_atomic
    from registry_tool.report.card import card as render
    from registry_tool.values import Policy

    loaded, plugins = flows.usable(find(registry)), plugins_of(ctx)
    entry = flows.find_entry(loaded, entry_id)
    with flows.opened(loaded, plugins, entry) as view:
        manifest = view.manifest or {}
    policy = loaded.registry.policies.get(entry.kind, Policy()) if loaded.registry else Policy()
    judgement = gating.gate(loaded.path, plugins, entry_id) if policy.rules else None
    text = "\n".join(render(entry, manifest, policy, judgement)) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text.encode())


@click.command()
@click.argument("code", required=False)
def rule(code: str | None) -> None:
    """Explain a finding code.

    What it means, why it matters, what to do. Without CODE: list them all.

    \b
    Examples:
      registry rule
      registry rule digest-mismatch
    """
    from registry_tool import rules

    show(rules.explain(code) if code else rules.listing())


@click.command()
@format_option("text", "json")
@click.pass_context
def plugins(ctx: click.Context, form: str) -> None:
    """List plugins, their kinds and hooks.

    \b
    Example:
      registry plugins
    """
    from registry_tool.report import machine, text

    loaded = plugins_of(ctx)
    rows = [
        (p.name, p.version, ", ".join(k.name for k in p.kinds) or "-", ", ".join(loaded.hooks_of(p)))
        for p in loaded.loaded
    ]
    header = ("plugin", "version", "kinds", "hooks")
    if form == "json":
        show(machine.render([dict(zip(header, row, strict=True)) for row in rows]))
    else:
        show(text.table([header, *rows]))


@click.command()
@registry_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(registry: str | None, dry_run: bool) -> None:
    """Remove runs that no entry names.

    Training a smoke entry again leaves its old folder behind; this removes such folders. Verdicts stay.

    \b
    Example:
      registry prune --dry-run
    """
    from registry_tool import flows

    removed = flows.prune(find(registry), dry_run=dry_run)
    for path in removed:
        show(path)
    click.echo(f"{len(removed)} folder(s) {'would be ' if dry_run else ''}removed", err=True)
