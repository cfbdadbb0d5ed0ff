"""gate.py: promotion on evidence: gate, flip, repromote."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_tool.commands.shared import (
    PATH,
    add_summary,
    complete_kinds,
    corpus_option,
    emit,
    entry_argument,
    find,
    format_option,
    incumbent_of,
    incumbent_options,
    plugins_of,
    registry_option,
    show_rendered,
)
from registry_tool.errors import ExitCode
from registry_tool.report import reporters
from registry_tool.toolkit import column_name_options, column_names, note, warn

if TYPE_CHECKING:
    from registry_tool.workflows.gate import Judgement
    from registry_tool.workflows.promote import Flip


@click.command()
@entry_argument(required=False)
@click.option(
    "--base", metavar="REF", help="Judge every entry that turned production, or changed there, since a git revision."
)
@click.option("--base-file", type=PATH, metavar="FILE", help="The same, since an older registry file.")
@click.option("--evidence", type=PATH, metavar="DIR", help="Judge loso_seed*.json files in a folder instead.")
@corpus_option("Compare --evidence with this corpus.")
@column_name_options("The corpus's column")
@click.option("--seeds", metavar="N,N,...", help="The seeds of which --evidence must hold a file each.")
@click.option("--kind", help="The kind of --evidence without an ID.", shell_complete=complete_kinds)
@incumbent_options("Compare the errors with this entry's; the policy may name one, too.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write the verdict there too.")
@registry_option
@format_option("verdicts")
@click.pass_context
def gate(
    ctx: click.Context,
    entry_id: str | None,
    base: str | None,
    base_file: Path | None,
    evidence: Path | None,
    corpus: Path | None,
    source_column: str,
    encoder_column: str,
    seeds: str | None,
    kind: str | None,
    incumbent: str | None,
    against: str | None,
    output: Path | None,
    registry: str | None,
    form: str,
) -> None:
    """Judge evidence: PROMOTE (exit 0) or HOLD (exit 1).

    By the policy in the registry. Changes nothing. --format github prints annotations, and adds the gate table to the
    file that GITHUB_STEP_SUMMARY names.

    \b
    Examples:
      registry gate my_model
      registry gate my_model --incumbent my_incumbent
      registry gate --base origin/main            in CI: every flip since
      registry gate --base origin/main --format junit > gate.xml
      registry gate --base-file old.json          since an older registry file
      registry gate --evidence runs/loso          public loso_seed*.json files
    """
    from registry_tool.workflows import gate as gate_workflow
    from registry_tool.workflows.gate import Foreign, gate_foreign, gate_foreign_kind, write_verdict

    plugins, path, comparison = plugins_of(ctx), None, None
    if base is not None and base_file is not None:
        raise click.UsageError("--base names a revision, --base-file an older registry: name one of them")
    since = base if base is not None else base_file
    subject = _Subject(entry_id, since, evidence, incumbent_of(incumbent, against))
    names = column_names(source_column, encoder_column)
    subject.check(any((corpus, seeds, kind, names)), output is not None)
    if names and corpus is None:
        raise click.UsageError("--source-column and --encoder-column go with --corpus: name the file too")
    if entry_id is not None and kind is not None:
        raise click.UsageError("--kind is for evidence without an ID: the registry has the entry's kind")
    named = registry is not None or bool(os.environ.get("REGISTRY_JSON"))
    judgements: Sequence[Judgement]
    if since is not None:
        from registry_tool.workflows.compare_with_base import gate_base

        comparison = gate_base(path := find(registry), plugins, since, None if named else Path.cwd(), evidence)
        judgements = comparison.judgements
    elif evidence is not None:
        foreign = Foreign(evidence, corpus, _seeds(seeds), names)
        if entry_id is not None:
            judgements = [gate_foreign(path := find(registry), plugins, entry_id, foreign)]
        else:
            path = find(registry) if named else None
            judgements = [gate_foreign_kind(path, plugins, kind, foreign)]
    elif entry_id is not None:
        judgements = [gate_workflow.gate(path := find(registry), plugins, entry_id, subject.incumbent)]
    else:
        raise click.UsageError("name what to judge: an ID, --base REF, or --evidence DIR")
    if output is not None:
        write_verdict(output, judgements[0].verdict)
    title = f"Gate: production since {since}" if since else "Gate"
    report = reporters.Verdicts(judgements, comparison, path, title)
    rendered = reporters.renderer(form, "verdicts")(report)
    show_rendered(rendered)
    add_summary(rendered.summary)
    passes = comparison.passes if comparison is not None else all(j.verdict.promotes for j in judgements)
    ctx.exit(ExitCode.OK if passes else ExitCode.REJECTED)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What `gate` was told to judge. since: a revision, or an older registry's file."""

    entry_id: str | None
    since: str | Path | None
    evidence: Path | None
    incumbent: str | None

    def check(self, on_evidence: bool, output: bool) -> None:
        """Raises UsageError where options do not go together. on_evidence: whether an option of --evidence is given."""
        if self.incumbent is not None and (
            self.entry_id is None or self.since is not None or self.evidence is not None
        ):
            raise click.UsageError(
                "--incumbent compares an entry's own evidence: name its ID, without --base and --evidence"
            )
        if self.evidence is None and on_evidence:
            raise click.UsageError("--corpus, --seeds and --kind go with --evidence: name its folder too")
        if self.since is not None and (self.entry_id or on_evidence or output):
            raise click.UsageError(
                "--base judges every entry that changed: name no ID and no other option of --evidence"
            )


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,10}(,\d{1,10})*", text):
        raise click.BadParameter(f"found {text!r}, expected numbers such as 0,1,2,3,4", param_hint="--seeds")
    return tuple(dict.fromkeys(int(seed) for seed in text.split(",")))


@click.command()
@entry_argument()
@click.option("--demote", is_flag=True, help="production -> smoke; needs --reason.")
@click.option("--reason", metavar="TEXT", help="The reason; it is stored in the entry.")
@registry_option
@format_option()
@click.pass_context
def flip(ctx: click.Context, entry_id: str, demote: bool, reason: str | None, registry: str | None, form: str) -> None:
    """Turn a smoke entry into production, or back.

    The evidence is judged now, by the policy in the registry; --demote goes back, with a reason.


    \b
    Examples:
      registry flip my_model
      registry flip my_model --demote --reason "drifts on screen content"
    """
    from registry_tool.report import machine
    from registry_tool.workflows import promote as promote_workflow

    path = find(registry)
    if demote:
        if reason is None:
            raise click.UsageError('--demote needs --reason TEXT: say why, as in --reason "drifts on screen content"')
        entry = promote_workflow.demote(path, entry_id, reason)
        emit(form, lambda: machine.flip(entry, None), lambda: f"{entry_id}: demoted to smoke: {reason}")
        return
    _tell(ctx, promote_workflow.flip(path, plugins_of(ctx), entry_id, reason), reason, form)


@click.command()
@entry_argument()
@click.option("--reason", metavar="TEXT", help="The reason, under a manual policy; it is stored in the entry.")
@registry_option
@format_option()
@click.pass_context
def repromote(ctx: click.Context, entry_id: str, reason: str | None, registry: str | None, form: str) -> None:
    """Judge a production entry again, and keep the new verdict.

    By the policy as it is now: after a policy changed, the verdicts of production entries are those of the old one. An
    entry that is held keeps what it has (exit 1): demote it, or restore the policy. Attestations of the old verdict,
    and results of training again, are dropped with it.

    \b
    Examples:
      registry repromote my_model
      registry repromote my_model --reason "reviewed under the new rules"     (manual policy)
    """
    from registry_tool.workflows import promote as promote_workflow

    _tell(ctx, promote_workflow.repromote(find(registry), plugins_of(ctx), entry_id, reason), reason, form)


def _tell(ctx: click.Context, done: Flip, reason: str | None, form: str) -> None:
    """Print what became of a promotion; exit 1 where the verdict is HOLD."""
    from registry_tool.report import machine, text

    judged = done.judgement
    emit(
        form,
        lambda: machine.flip(done.entry, judged),
        lambda: text.judgement(judged, details=False) if judged is not None else (),
    )
    warn(*done.warnings)
    if not done.done:
        click.echo(f"{done.entry.id}: not promoted", err=True)
        ctx.exit(ExitCode.REJECTED)
    ending = f", verdict in {done.verdict_path}" if done.verdict_path else f": {reason}"
    note(f"{done.entry.id}: production{ending}")
