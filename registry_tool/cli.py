"""cli.py: click: parse, call a flow, render, exit. Decides nothing and opens no file of a registry itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tool import __version__
from registry_tool.errors import ExitCode, InputError, PluginError, RegistryError

if TYPE_CHECKING:
    from registry_tool.gating import Judgement
    from registry_tool.plugins import Plugins


class Context:
    """What every command shares: the plugins, loaded on first use."""

    def __init__(self, plugins: Plugins | None = None) -> None:
        self._plugins = plugins

    @property
    def plugins(self) -> Plugins:
        if self._plugins is None:
            from registry_tool.plugins import load

            self._plugins = load()
        return self._plugins


def _context(ctx: click.Context) -> Context:
    return ctx.ensure_object(Context)


def _find(registry: str | None) -> Path:
    from registry_tool.store import find

    return find(registry, os.environ, Path.cwd())


class Main(click.Group):
    """The built-in commands, then those that plugins add; plugins load only when one of theirs is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._of_plugins(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name) or self._of_plugins(ctx).get(name)

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        commands: dict[str, click.Command] = {}
        for plugin, answers in _context(ctx).plugins.ask_each("registry_commands"):
            if isinstance(answers, Exception):
                raise PluginError(f"plugin {plugin.name}: registry_commands failed: {answers}: repair or uninstall it")
            for command in answers:
                name = command.name or ""
                if name in self.commands or name in commands:
                    raise PluginError(f"plugin {plugin.name}: the command {name!r} is taken: repair or uninstall it")
                commands[name] = command
        return commands


class TrainGroup(click.Group):
    """`registry train KIND`: one command a kind that can be trained, with the kind's own options."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        plugins = _context(ctx).plugins
        return sorted(n for n in plugins.kinds if hasattr(plugins.owner(n).module, "registry_train"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        plugins = _context(ctx).plugins
        if name not in self.list_commands(ctx):
            raise InputError(f"kind {name!r}: expected one that can be trained: {', '.join(self.list_commands(ctx))}")
        kind = plugins.kinds[name]
        return click.Command(
            name, callback=_train, short_help=kind.summary, params=[*_TRAIN_OPTIONS, *kind.options],
            help=f"""Train an entry of kind {name} ({kind.summary}) and register it with smoke: true.

            \b
            Examples:
              registry train {name} --id my_model --corpus corpus.parquet
              registry train {name} --id probe --smoke
            """,
        )  # fmt: skip


registry_option = click.option(
    "--registry", metavar="PATH", default=None,
    help="The registry.json (or its folder). Default: REGISTRY_JSON, else one here or in a parent folder.",
)  # fmt: skip


def format_option(*choices: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--format", "form", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print it."
    )


def _print(lines: Any) -> None:
    colour = False if os.environ.get("NO_COLOR") else None
    for line in [lines] if isinstance(lines, str) else lines:
        click.echo(line, color=colour)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="registry-tool", message="%(prog)s %(version)s")
def cli() -> None:
    """Govern a model registry kept in git: validate it, train, gate and flip models on evidence.

    \b
    Examples:
      registry validate                        check every byte and every claim
      registry train fr_ensemble --id NAME     train on the corpus that ships with the plugin
      registry gate NAME                       PROMOTE or HOLD
      registry flip NAME                       smoke -> production, on that evidence

    \b
    Exit codes:
      0 done, nothing to object to      1 judged and rejected
      2 cannot be judged: usage, input  3 the world broke: disk, permission, plugin
    """


@cli.command()
@click.argument("registry", required=False)
@click.option("--level", type=click.Choice(["quick", "full"]), default="full", show_default=True,
              help="quick: documents and digests alone; full: graph content, probe rows and evidence too.")  # fmt: skip
@format_option("text", "json")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.pass_context
def validate(ctx: click.Context, registry: str | None, level: str, form: str, strict: bool) -> None:
    """Check a registry: schema, paths, every sha256, ONNX content, evidence, promotions.

    \b
    Examples:
      registry validate
      registry validate model/registry.json --level quick
      registry validate --format json | jq '.findings[].code'
    """
    from registry_tool import flows, progress
    from registry_tool.hookspec import Level
    from registry_tool.values import Severity

    with progress.shown() as show:
        result = flows.validate(_find(registry), _context(ctx).plugins, Level(level), show)
    if form == "json":
        from registry_tool.report import machine

        _print(machine.render(machine.validation(result)))
    else:
        from registry_tool.report import text

        _print(text.validation(result))
    failed = result.count(Severity.ERROR) or (strict and result.count(Severity.WARNING))
    ctx.exit(ExitCode.REJECTED if failed else ExitCode.OK)


@cli.command("list")
@registry_option
@format_option("text", "json")
def list_(registry: str | None, form: str) -> None:
    """List the entries of a registry."""
    from registry_tool import flows
    from registry_tool.report import machine, text

    loaded = flows.usable(_find(registry))
    entries = loaded.registry.entries if loaded.registry else ()
    if form == "json":
        _print(machine.render([entry.to_dict() for entry in entries]))
        return
    header = ("id", "kind", "state", "license", "sha256")
    rows = [(e.id, e.kind, "smoke" if e.smoke else "production", e.document.get("license", "-"), e.sha256[:12]) for e in entries]
    _print(text.table([header, *rows]))


@cli.command()
@click.argument("entry_id", metavar="ID")
@registry_option
@format_option("text", "json")
@click.pass_context
def show(ctx: click.Context, entry_id: str, registry: str | None, form: str) -> None:
    """Show one entry: its fields, the files it pins, and the policy of its kind."""
    from registry_tool import flows
    from registry_tool.report import machine, text

    loaded = flows.usable(_find(registry))
    entry = flows.find_entry(loaded, entry_id)
    with flows.opened(loaded, _context(ctx).plugins, entry) as view:
        files = {name: artifact.sha256 for name, artifact in view.artifacts.items()}
    policy = loaded.registry.policies.get(entry.kind) if loaded.registry else None
    document = {**entry.to_dict(), "files": files, "policy": policy.to_dict() if policy else None}
    _print(machine.render(document) if form == "json" else text.fields(document))


@cli.command()
@click.argument("code", required=False)
def rule(code: str | None) -> None:
    """Explain a finding: what it means, why it matters, what to do. Without CODE: list them all."""
    from registry_tool import rules

    _print(rules.explain(code) if code else rules.listing())


@cli.command()
@format_option("text", "json")
@click.pass_context
def plugins(ctx: click.Context, form: str) -> None:
    """List the plugins that are loaded, the kinds they own and the hooks they implement."""
    from registry_tool.report import machine, text

    loaded = _context(ctx).plugins
    rows = [
        (p.name, p.version, ", ".join(k.name for k in p.kinds) or "-", ", ".join(loaded.hooks_of(p))) for p in loaded.loaded
    ]
    header = ("plugin", "version", "kinds", "hooks")
    if form == "json":
        _print(machine.render([dict(zip(header, row, strict=True)) for row in rows]))
    else:
        _print(text.table([header, *rows]))


@cli.command()
@registry_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(registry: str | None, dry_run: bool) -> None:
    """Remove artefact folders that no entry names (runs that were trained over)."""
    from registry_tool import flows

    removed = flows.prune(_find(registry), dry_run=dry_run)
    for path in removed:
        _print(path)
    click.echo(f"{len(removed)} folder(s) {'would be ' if dry_run else ''}removed", err=True)


# ---- train, evaluate, predict -----------------------------------------------------------------------------------

_TRAIN_OPTIONS = [
    click.Option(["--id", "entry_id"], required=True, metavar="NAME", help="Id of the entry; a smoke id may be trained again."),
    click.Option(["--corpus"], type=click.Path(path_type=Path), metavar="FILE",
                 help="Rows to train on: parquet, JSONL or CSV. Default: the corpus that ships with the plugin."),
    click.Option(["--smoke"], is_flag=True, help="A quick run on random rows; it can never be flipped."),
    click.Option(["--registry"], metavar="PATH",
                 help="The registry.json; made where there is none. Default: REGISTRY_JSON, else one here or above."),
]  # fmt: skip


@cli.group(cls=TrainGroup, subcommand_metavar="KIND [OPTIONS]...")
def train() -> None:
    """Train an entry and register it with smoke: true.

    \b
    Examples:
      registry train fr_ensemble --id vmaf_ensemble
      registry train fr_ensemble --id mos --corpus clips.parquet --target mos
      registry train fr_ensemble --help
    """


@click.pass_context
def _train(
    ctx: click.Context, /, entry_id: str, corpus: Path | None, smoke: bool, registry: str | None, **options: Any
) -> None:
    from registry_tool import flows, progress

    if smoke and corpus is not None:
        raise click.UsageError("--smoke trains on random rows, so it takes no --corpus: leave one of them out")
    kind = ctx.info_name or ""
    path = _find(registry)
    with progress.shown() as show:
        done = flows.train(
            path, _context(ctx).plugins, kind, entry_id, corpus=corpus, smoke=smoke, options=options, progress=show
        )
    for warning in done.trained.warnings:
        click.echo(f"warning: {warning}", err=True)
    if done.created_registry:
        click.echo(f"made {path}", err=True)
    for name, value in (*done.trained.summary, ("registered", f"{entry_id} (smoke) in {path}"), ("artefacts", done.folder)):
        _print(f"{name}: {value}")
    click.echo(f"next: registry gate {entry_id}" if not smoke else "random rows: this entry can never be flipped", err=True)


@cli.command()
@click.argument("entry_id", metavar="ID")
@click.option("--corpus", type=click.Path(path_type=Path), metavar="FILE", help="Rows it has not seen.")
@click.option("--smoke", is_flag=True, help="On fresh random rows: shows that it runs.")
@click.option("--levels", default="0.5,0.8,0.95", show_default=True, help="Nominal coverages, between 0 and 1.")
@click.option("--by", default="src", show_default=True, help="Columns to break the figures down by.")
@registry_option
@format_option("text", "json")
@click.pass_context
def evaluate(
    ctx: click.Context, entry_id: str, corpus: Path | None, smoke: bool, levels: str, by: str, registry: str | None, form: str
) -> None:
    """Measure an entry on new data: PLCC, SROCC, RMSE, coverage and width of its intervals.

    \b
    Examples:
      registry evaluate my_model --corpus heldout.parquet
      registry evaluate my_model --corpus heldout.parquet --by src,encoder --format json
    """
    from registry_tool import flows, progress
    from registry_tool.hookspec import EvaluateRequest
    from registry_tool.report import machine, text

    if smoke == (corpus is not None):
        raise click.UsageError("name the rows: --corpus FILE, or --smoke for random ones")
    columns = tuple(name for name in by.split(",") if name)
    with progress.shown() as show:
        request = EvaluateRequest(corpus, smoke, _levels(levels), columns, show)
        result = flows.evaluate(_find(registry), _context(ctx).plugins, entry_id, request)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    _print(machine.render(dict(result.document)) if form == "json" else text.table(result.table))


def _levels(text: str) -> Sequence[float]:
    try:
        levels = tuple(float(level) for level in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level < 1 for level in levels):
        raise click.BadParameter(f"found {text!r}, expected numbers between 0 and 1, such as 0.5,0.8,0.95", param_hint="--levels")
    return levels


@cli.command()
@click.argument("entry_id", metavar="ID")
@click.option("--corpus", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Rows; a target is not needed.")
@click.option("--levels", default="0.95", show_default=True, help="Nominal coverages of the intervals.")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write.  [default: standard output]")
@format_option("csv", "jsonl")
@registry_option
@click.pass_context
def predict(
    ctx: click.Context, entry_id: str, corpus: Path, levels: str, output: str, form: str, registry: str | None
) -> None:
    """Predict rows: mu, sigma, lower and upper, one line a row.

    \b
    Examples:
      registry predict my_model --corpus rows.csv
      registry predict my_model --corpus rows.parquet --format jsonl -o scores.jsonl
    """
    from registry_tool import flows
    from registry_tool.hookspec import PredictRequest
    from registry_tool.report import rows

    batches = flows.predict(_find(registry), _context(ctx).plugins, entry_id, PredictRequest(corpus, _levels(levels)))
    rows.write(batches, form, output)


# ---- gate, flip -------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("entry_id", metavar="[ID]", required=False)
@click.option("--base", metavar="REF", help="Judge every entry that turned production, or changed there, since a git revision.")
@click.option("--evidence", type=click.Path(path_type=Path), metavar="DIR", help="Judge loso_seed*.json files in a folder instead.")
@click.option("--corpus", type=click.Path(path_type=Path), metavar="FILE", help="Hold --evidence against this corpus.")
@click.option("--kind", help="The kind of --evidence without an ID.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdict there too.")
@registry_option
@format_option("text", "json")
@click.pass_context
def gate(
    ctx: click.Context, entry_id: str | None, base: str | None, evidence: Path | None, corpus: Path | None,
    kind: str | None, output: Path | None, registry: str | None, form: str,
) -> None:  # fmt: skip
    """Judge evidence by the registry's policy: PROMOTE (exit 0) or HOLD (exit 1). Changes nothing.

    \b
    Examples:
      registry gate my_model
      registry gate --base origin/main            in CI: every flip since
      registry gate --evidence runs/loso          public loso_seed*.json files
    """
    from registry_tool import gating

    loaded = _context(ctx).plugins
    if base is not None:
        if entry_id or evidence or output:
            raise click.UsageError("--base judges every entry that changed: leave ID, --evidence and --output out")
        judgements = gating.gate_base(_find(registry), loaded, base)
        if not judgements and form == "text":
            _print(f"nothing turned production or changed there since {base}")
    elif evidence is not None:
        path = None if entry_id is None and registry is None and "REGISTRY_JSON" not in os.environ else _find(registry)
        judgements = [gating.gate_foreign(path, loaded, entry_id, kind, evidence, corpus)]
    elif entry_id is not None:
        judgements = [gating.gate(_find(registry), loaded, entry_id)]
    else:
        raise click.UsageError("name what to judge: an ID, --base REF, or --evidence DIR")
    if output is not None:
        gating.write_verdict(output, judgements[0].verdict)
    _render(judgements, form, single=base is None)
    ctx.exit(ExitCode.OK if all(j.verdict.promotes for j in judgements) else ExitCode.REJECTED)


def _render(judgements: Sequence[Judgement], form: str, *, single: bool) -> None:
    from registry_tool.report import machine, text

    if form == "json":
        documents = [machine.judgement(j) for j in judgements]
        _print(machine.render(documents[0] if single else documents))
        return
    for judgement in judgements:
        _print(text.judgement(judgement))


@cli.command()
@click.argument("entry_id", metavar="ID")
@click.option("--demote", is_flag=True, help="production -> smoke; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; stays in the registry.")
@registry_option
@format_option("text", "json")
@click.pass_context
def flip(ctx: click.Context, entry_id: str, demote: bool, reason: str | None, registry: str | None, form: str) -> None:
    """Turn a smoke entry into production on evidence judged now; or back, with --demote.

    \b
    Examples:
      registry flip my_model
      registry flip my_model --demote --reason "drifts on screen content"
    """
    from registry_tool import gating

    path = _find(registry)
    if demote:
        if reason is None:
            raise click.UsageError('--demote needs --reason TEXT: say why, as in --reason "drifts on screen content"')
        gating.demote(path, entry_id, reason)
        _print(f"{entry_id}: demoted to smoke: {reason}")
        return
    done = gating.flip(path, _context(ctx).plugins, entry_id, reason)
    if done.judgement is not None:
        _render([done.judgement], form, single=True)
    if not done.done:
        click.echo(f"{entry_id}: not flipped", err=True)
        ctx.exit(ExitCode.REJECTED)
    where = f", verdict in {done.verdict_path}" if done.verdict_path else f": {reason}"
    click.echo(f"{entry_id}: production{where}", err=True)


def main() -> None:
    """Run the program; the one place where errors become exit codes."""
    try:
        code = cli.main(standalone_mode=False)  # what ctx.exit gave, else the command's own result
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.UNUSABLE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("registry: interrupted, nothing was changed", err=True)
        sys.exit(130)
    except RegistryError as error:
        click.echo(f"registry: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output left; that is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)
    except OSError as error:
        click.echo(f"registry: {error.filename or 'output'}: {error.strerror}: free or unlock it and run again", err=True)
        sys.exit(ExitCode.BROKEN)


if __name__ == "__main__":
    main()
