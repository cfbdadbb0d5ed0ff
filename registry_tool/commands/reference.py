"""reference.py: what there is to know beside a registry: rule, metrics, plugins, schema."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from registry_tool.commands.shared import (
    PATH,
    complete_codes,
    complete_schemas,
    emit,
    find,
    format_option,
    plugins_of,
    registry_option,
    show,
    show_rendered,
)
from registry_tool.errors import InputError
from registry_tool.report import reporters
from registry_tool.toolkit import note


@click.command()
@click.argument("code", required=False, shell_complete=complete_codes)
@format_option("rules")
@click.pass_context
def rule(ctx: click.Context, code: str | None, form: str) -> None:
    """Explain a finding code.

    What it means, why it matters, what to do. Without CODE: all of the core and of the installed plugins.

    \b
    Examples:
      registry rule
      registry rule digest-mismatch
      registry rule --format json | jq -r '.rules[].code'
      registry rule --format markdown > docs/findings.md
    """
    from registry_tool.workflows import explain

    groups = explain.declared(plugins_of(ctx))
    if code is not None:
        groups = explain.only(code, groups)
    show_rendered(reporters.renderer(form, "rules")(reporters.Rules(groups, only=code is not None)))


@click.command()
@click.argument("kind", required=False)
@format_option()
@click.pass_context
def metrics(ctx: click.Context, kind: str | None, form: str) -> None:
    """List the metrics that the rules of a policy may name.

    By kind, as its plugin describes them: what each means, its unit, which way is better, and the metrics_version that
    brought it. Without KIND: of all kinds that have a gate.

    \b
    Examples:
      registry metrics
      registry metrics fr_ensemble --format json
    """
    from dataclasses import asdict

    from registry_tool.toolkit import text_table

    loaded = plugins_of(ctx)
    found = [(name, m) for name in ([kind] if kind else loaded.kinds) for m in loaded.metrics(name)]
    rows = [(name, m.name, m.better, m.unit, str(m.since), m.meaning) for name, m in found]
    header = ("kind", "metric", "better", "unit", "since", "meaning")
    emit(form, lambda: [{"kind": name, **asdict(m)} for name, m in found], lambda: text_table([header, *rows]))


@click.command()
@click.option("--check", is_flag=True, help="Also load what they declare, and show the fields that nothing checks.")
@format_option()
@click.pass_context
def plugins(ctx: click.Context, check: bool, form: str) -> None:
    """List plugins, their kinds and hooks.

    --check loads what each plugin declares, and lists the fields of manifests that a plugin records and compares with
    nothing, with its reason. A plugin that is broken, or whose declarations do not load, is exit code 3.

    \b
    Examples:
      registry plugins
      registry plugins --check
    """
    from registry_tool.toolkit import text_table
    from registry_tool.workflows import check_plugins

    loaded = plugins_of(ctx)
    root = ctx.find_root().command
    loaded.commands(root.commands if isinstance(root, click.Group) else ())  # whose fail makes its plugin a broken one
    broken = {plugin.name for plugin in loaded.broken}
    rows: list[tuple[str | None, ...]] = [
        (p.name, p.version, ", ".join(k.name for k in p.kinds) or "-", ", ".join(sorted(p.hooks)), None)
        for p in loaded.loaded
        if p.name not in broken
    ]
    rows += [(p.name, p.version, "-", "-", p.why) for p in loaded.broken]
    rows += [(name, "-", "-", "-", "left out by a person") for name in loaded.disabled]
    header = ("plugin", "version", "kinds", "hooks", "error")
    checked = check_plugins.check(loaded) if check else None

    def lines() -> Iterable[str]:
        yield from text_table([header[:-1], *(row[:-1] for row in rows)])
        if checked is not None and checked.recorded:
            yield ""
            yield "Recorded, and compared with nothing:"
            yield from text_table([check_plugins.RECORDED_HEADER, *checked.recorded])
        if checked is not None and checked.deprecated:
            yield from ("", *checked.deprecated)

    listed = [dict(zip(header, row, strict=True)) for row in rows]
    emit(form, lambda: listed if checked is None else {"plugins": listed, **checked.to_dict()}, lines)
    loaded.need_all()
    if checked is not None:
        checked.need_all()


@click.command()
@click.argument("kind", required=False, shell_complete=complete_schemas)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    help="Write them all into a folder, and name it in the registry's $schema, for editors.",
)
@registry_option
@click.pass_context
def schema(ctx: click.Context, kind: str | None, output: Path | None, registry: str | None) -> None:
    """Print the JSON Schema of a document: of the registry, of a kind's manifest, of what commands print.

    Without KIND: list them all. None refers to another file.

    \b
    Examples:
      registry schema
      registry schema fr_ensemble > fr_ensemble.schema.json
      registry schema -o model/schemas
    """
    from registry_tool import schemas
    from registry_tool.report import machine
    from registry_tool.toolkit import text_table, write_atomic
    from registry_tool.workflows.housekeeping import name_schema

    kinds = {name: kind.schema for name, kind in plugins_of(ctx).kinds.items() if kind.schema is not None}
    found = {name: schemas.bundled(s) for name, s in {**kinds, **{n: schemas.load(n) for n in schemas.names()}}.items()}
    if kind is not None:
        if kind not in found:
            plugins_of(ctx).need_all()
            raise InputError(
                f"schema {kind!r}: expected one of {', '.join(sorted(found))}: `registry schema` lists them"
            )
        if output is not None:
            raise click.UsageError("-o DIR writes them all: leave KIND out, or leave -o out and redirect the output")
        show(machine.render(found[kind]))
    elif output is None:
        show(text_table([("schema", "of"), *((name, found[name].get("title", "")) for name in sorted(found))]))
    else:
        plugins_of(ctx).need_all()
        path = find(registry)
        output.mkdir(parents=True, exist_ok=True)
        for name, document in found.items():
            write_atomic(output / f"{name}.schema.json", f"{machine.render(document)}\n".encode())
        schema_path = name_schema(path, output)
        note(f"{len(found)} schemas in {output}; {path}: $schema is {schema_path}")
