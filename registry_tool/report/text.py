"""text.py: findings and verdicts for people. Returns strings; the command line prints them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from registry_tool.documents.manifest import TargetFacts
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level
from registry_tool.report.reporters import Answer, Rendered, Rules, Validations, Verdicts
from registry_tool.toolkit import text_table
from registry_tool.values import Json, counted, visible
from registry_tool.workflows.ci import NO_BASE
from registry_tool.workflows.validate import Validation

if TYPE_CHECKING:
    from registry_tool.workflows.ci import CiRun, NotJudged
    from registry_tool.workflows.compare_with_base import Comparison
    from registry_tool.workflows.gate import Judgement
    from registry_tool.workflows.known_findings import Triage

SEVERITY_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
QUICK_LEAVES_OUT = "graph content, probe rows and evidence were not looked at"


def finding(item: Finding) -> str:
    """`severity code where: message: found ..., expected ...: hint`, one line."""
    severity = click.style(str(item.severity), fg=SEVERITY_COLOURS[item.severity], bold=True)
    entry = f"{item.entry}: " if item.entry else ""
    return f"{severity}[{item.code}] {visible(entry + str(item))}"


def validation(result: Validation, *, total: bool = True) -> Iterator[str]:
    """One line a finding; total: then one line that counts them and says what was not looked at."""
    yield from (finding(item) for item in result.findings)
    if not total:
        return
    entries = result.entries
    counts = [(result.count(s), s) for s in Severity]
    words = ", ".join(counted(n, s) for n, s in counts if n)
    words = words or ("no finding but known ones" if result.known else "valid")
    yield f"{result.loaded.path}: {entries} {'entry' if entries == 1 else 'entries'}: {words}{left_out(result)}"


def left_out(result: Validation) -> str:
    """What was not looked at, in brackets; nothing where all was."""
    if result.level is Level.QUICK:
        return f" (quick: {QUICK_LEAVES_OUT})"
    if result.since is None:
        return ""
    full, quick = result.checked[Level.FULL], result.checked[Level.QUICK]
    since = visible(str(result.since))
    return f" ({full} checked fully; {quick} quickly, unchanged since {since}: {QUICK_LEAVES_OUT} there)"


def judgement(item: Judgement, *, details: bool = True) -> Iterator[str]:
    """The verdict, its metrics against the rules, and the reasons; details: the other metrics and the fold table."""
    verdict = item.verdict
    colour = "green" if verdict.promotes else "red"
    marks = " on summary-only evidence, which flips nothing" if verdict.summary_only else ""
    why = f" ({item.why})" if item.why else ""
    yield f"{verdict.entry}: {click.style(verdict.decision, fg=colour, bold=True)}{marks}{why}"
    ruled = {rule.metric for rule in verdict.policy.rules}
    for rule in verdict.policy.rules if verdict.metrics else ():  # without any, nothing was measured: reasons say why
        value = verdict.metrics.get(rule.metric)
        shown = "absent" if value is None else f"{value:.6f}"
        holds = value is not None and rule.holds(value)
        yield f"  {'ok  ' if holds else 'FAIL'} {rule.metric} = {shown} ({rule.op} {rule.bound:g})"
    for name, value in sorted(verdict.metrics.items()):
        if details and name not in ruled:
            yield f"       {visible(name)} = {value:.6g}"
    for reason in verdict.reasons:
        yield f"  - {visible(reason)}"
    for warning in verdict.warnings:
        yield f"  {click.style('warning', fg=SEVERITY_COLOURS[Severity.WARNING], bold=True)}: {visible(warning)}"
    for note in item.evidence.notes if details and item.evidence is not None else ():
        yield f"  {click.style('note', fg=SEVERITY_COLOURS[Severity.NOTE], bold=True)}: {visible(note)}"
    if details and item.evidence is not None and (evidence_table := item.evidence.table):
        yield ""
        yield from text_table(evidence_table.rows)


def comparison(item: Comparison, *, details: bool = True) -> Iterator[str]:
    """The verdicts of `gate --base`, then what else the change does, whatever was promoted."""
    for one in item.judgements:
        yield from judgement(one, details=details)
    if not item.judgements:
        yield f"nothing turned production or changed there since {visible(str(item.base))}"
    yield from (finding(one) for one in item.added)
    yield from changes(item)


def changes(item: Comparison) -> Iterator[str]:
    """Demotions, deletions, policy changes and the like, a line each; none where there are none."""
    if item.changes:
        yield f"other changes since {visible(str(item.base))}:"
    for change in item.changes:
        severity = click.style(str(change.severity), fg=SEVERITY_COLOURS[change.severity], bold=True)
        yield f"  {severity}[{change.action}] {visible(str(change))}"


def fields(document: Mapping[str, Json], indent: str = "") -> Iterator[str]:
    """A document as `name: value` lines."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield f"{indent}{visible(str(name))}:"
            yield from fields(value, indent + "  ")
        elif isinstance(value, list | tuple):
            yield f"{indent}{visible(str(name))}: {visible(', '.join(map(str, value)))}"
        else:
            yield f"{indent}{visible(str(name))}: {visible(str(value))}"


def plain(value: Json) -> str:
    """A text as it is, a number without what says nothing, anything else as JSON."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def part(document: Mapping[str, Json], name: str, /, **fields: type) -> Mapping[str, Json]:
    """A part of a document, where it is an object whose fields have these types; else an empty one."""
    found = document.get(name)
    fits = isinstance(found, Mapping) and all(isinstance(found.get(field), kind) for field, kind in fields.items())
    return found if isinstance(found, Mapping) and fits else {}


def predicted(target: TargetFacts, quote: str = "") -> str:
    """A manifest's target in words: its name and, where they are given, its range and the model that computed it."""
    words = [f"{quote}{target.name}{quote}"]
    if target.range:
        words.append(" to ".join(map(plain, target.range)))
    if target.definition is not None:
        version = "" if target.libvmaf is None else f" (libvmaf {target.libvmaf})"
        words.append(f"by {quote}{target.definition}{quote}{version}")
    return ", ".join(words)


def render_validations(report: Validations) -> Rendered:
    return Rendered([line for result in report.results for line in validation(result)])


def render_verdicts(report: Verdicts) -> Rendered:
    if report.comparison is not None:
        return Rendered(comparison(report.comparison))
    return Rendered([line for item in report.judgements for line in judgement(item)])


def render_rules(report: Rules) -> Rendered:
    from registry_tool.report import rules

    page = rules.text(report.groups[0].rules[0]) if report.only else rules.listing(report.groups)
    return Rendered([page], document=True)


def render_answers(answer: Answer) -> Rendered:
    lines = answer.lines()
    return Rendered([lines], document=True) if isinstance(lines, str) else Rendered(lines)


def ci(run: CiRun) -> Iterator[str]:
    """What validate found, what the gate decided, and what was not judged."""
    if run.validation is not None:
        yield from validation(run.validation)
    if run.known is not None:
        yield from known(run.known)
    if run.comparison is not None:
        yield from comparison(run.comparison, details=False)
    elif run.validates_only:
        yield NO_BASE
    yield from (not_judged(item) for item in run.not_judged)


def known(item: Triage) -> Iterator[str]:
    if not item.landed:
        yield f"known findings: none: there is no {visible(item.source)}: a list counts from the change after its own"
        return
    yield f"known findings, not counted: {len(item.known)} (listed in {visible(item.source)})"
    if item.missing:
        anew = "write the list anew with `registry known-findings write`"
        yield f"listed, but not found any more: {item.missing}: {anew}"


def not_judged(item: NotJudged) -> str:
    return f"{click.style('error', fg='red', bold=True)}[{item.step}] {visible(item.message)}"


def render_ci(run: CiRun) -> Rendered:
    return Rendered(ci(run))
