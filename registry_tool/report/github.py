"""github.py: findings and verdicts as GitHub workflow commands, and as Markdown for a step summary. Writes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

from registry_tool.documents.store import Loaded
from registry_tool.findings import Severity
from registry_tool.report import text
from registry_tool.report.places import from_root, of_entry
from registry_tool.report.reporters import Rendered, Validations, Verdicts
from registry_tool.toolkit import markdown_table, markdown_text
from registry_tool.values import visible
from registry_tool.workflows.ci import NO_BASE, CiRun
from registry_tool.workflows.compare_with_base import Comparison
from registry_tool.workflows.gate import Judgement
from registry_tool.workflows.loading import usable
from registry_tool.workflows.validate import Validation

ANNOTATION_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
MOST_ROWS, MOST_TEXT = 200, 400  # a step's summary ends at 1 MiB, with an error


def findings(results: Sequence[Validation]) -> Iterator[str]:
    """An annotation a finding, errors first (GitHub shows ten a step), then a line a registry that counts them."""
    pairs = [(result, item) for result in results for item in result.findings]
    for result, item in sorted(pairs, key=lambda pair: list(Severity).index(pair[1].severity)):
        place = (item.line, item.column) if item.line is not None else None
        words = (f"{item.entry}: " if item.entry else "") + item.words
        yield _command(
            ANNOTATION_LEVELS[item.severity], from_root(result.loaded.path, item.file), place, item.code, words
        )
    for result in results:
        yield f"registry validate: {click.unstyle(list(text.validation(result))[-1])}"


def verdicts(items: Sequence[Judgement], loaded: Loaded | None, comparison: Comparison | None = None) -> Iterator[str]:
    """An error at the entry's line for each HOLD, a warning or notice for what else changed, then both as text."""
    for item in items:
        file, place = (from_root(loaded.path, None), of_entry(loaded, item.verdict.entry)) if loaded else ("", None)
        if not item.verdict.promotes:
            words = "; ".join([item.why, *item.verdict.reasons] if item.why else item.verdict.reasons)
            yield _command("error", file, place, f"{item.verdict.entry} is held", words)
        for warning in item.verdict.warnings:
            yield _command("warning", file, place, f"evidence of {item.verdict.entry}", warning)
    if comparison is None:
        lines = [line for item in items for line in text.judgement(item)]
    else:
        lines = list(text.comparison(comparison))
        for one in comparison.added:
            yield _command("error", from_root(loaded.path, one.file) if loaded else "", None, one.code, one.words)
        for change in comparison.changes:
            place = of_entry(loaded, change.subject) if loaded else None
            file = from_root(loaded.path, None) if loaded else ""
            title = f"{change.action} since {comparison.base.name}"
            yield _command(ANNOTATION_LEVELS[change.severity], file, place, title, str(change))
    yield from ("  " + click.unstyle(line) for line in lines)


def _command(word: str, file: str, place: tuple[int, int | None] | None, title: str, message: str) -> str:
    """`::word file=...,line=...,col=...,title=...::message`; whatever would end a value is escaped."""
    values = {"file": file, "line": place and place[0], "col": place and place[1], "title": title}
    named = ",".join(f"{name}={_escape(str(v), ':,')}" for name, v in values.items() if v)
    return f"::{word} {named}::{_escape(message)}"


def _escape(value: str, more: str = "") -> str:
    return re.sub(f"[%\r\n{more}]", lambda match: f"%{ord(match[0]):02X}", visible(value))


# ---- the step summary -------------------------------------------------------------------------------------------


def summary_of_findings(results: Sequence[Validation]) -> Iterator[str]:
    """Markdown: a heading a registry, and its findings as a table."""
    for result in results:
        yield from (f"### {_cell(click.unstyle(list(text.validation(result))[-1]))}", "")
        rows = [["", "finding", "where", "what, and what to do"]]
        for item in result.findings[:MOST_ROWS]:
            file = from_root(result.loaded.path, item.file) + (f":{item.line}" if item.line else "")
            words = (f"{item.entry}: " if item.entry else "") + item.words
            rows.append([str(item.severity), _cell(item.code), _cell(file), _cell(words)])
        if result.findings:
            yield from markdown_table(rows)
        if (more := len(result.findings) - MOST_ROWS) > 0:
            yield from ("", f"{more} more: `registry validate` prints them all.")
        yield ""


def summary_of_verdicts(items: Sequence[Judgement], title: str, comparison: Comparison | None = None) -> Iterator[str]:
    """Markdown: the gate table, a row a rule and entry, then the reasons of what is held, then what else changed."""
    yield from (f"### {_cell(title)}", "")
    yield from _gate_table(items) if items else ("Nothing to judge.", "")
    for one in comparison.added if comparison is not None else ():
        yield f"- error: {_cell(str(one))}"
    for change in comparison.changes if comparison is not None else ():
        yield f"- {change.severity}: {_cell(str(change))}"
    if comparison is not None and comparison.changes:
        yield ""


def _gate_table(items: Sequence[Judgement]) -> Iterator[str]:
    rows = [["entry", "verdict", "rule", "found", ""]]
    for item in items:
        verdict = item.verdict
        name, decision = _cell(verdict.entry), f"**{verdict.decision}**"
        for rule in verdict.policy.rules:
            value = verdict.metrics.get(rule.metric)
            found = "not measured" if value is None else f"{value:.6f}"
            mark = "" if value is None else "holds" if rule.holds(value) else "**fails**"
            rows.append([name, decision, _cell(str(rule)), found, mark])
            name = decision = ""
        if not verdict.policy.rules:
            rows.append([name, decision, "by hand", "", ""])
    yield from markdown_table(rows, right=[3])
    yield ""
    for item in items:
        lines = (*item.verdict.reasons, *(f"warning: {warning}" for warning in item.verdict.warnings))
        yield from (f"- {_cell(item.verdict.entry)}: {_cell(line)}" for line in lines)
    yield ""


def _cell(value: str) -> str:
    """Text that Markdown takes for nothing but text, on one line."""
    short = value if len(value) <= MOST_TEXT else f"{value[:MOST_TEXT]}..."
    return markdown_text(short)


def render_validations(report: Validations) -> Rendered:
    return Rendered(findings(report.results), summary=summary_of_findings(report.results))


def render_verdicts(report: Verdicts) -> Rendered:
    loaded = usable(report.path) if report.path else None
    lines = verdicts(report.judgements, loaded, report.comparison)
    return Rendered(lines, summary=summary_of_verdicts(report.judgements, report.title, report.comparison))


def render_ci(run: CiRun) -> Rendered:
    return Rendered(ci(run), summary=summary_of_ci(run))


def ci(run: CiRun) -> Iterator[str]:
    """The annotations of both, and an error for each step that ended early."""
    for item in run.not_judged:
        yield _command("error", "", None, f"registry ci: {item.step}", item.message)
    if run.validation is not None:
        yield from findings([run.validation])
    for line in text.known(run.known) if run.known is not None else ():
        yield f"  {line}"
    if run.comparison is not None:
        loaded = run.validation.loaded if run.validation is not None else None
        yield from verdicts(run.comparison.judgements, loaded if isinstance(loaded, Loaded) else None, run.comparison)
    elif run.validates_only:
        yield _command("notice", "", None, "registry ci", NO_BASE)


def summary_of_ci(run: CiRun) -> Iterator[str]:
    """Markdown: what was not judged, then the findings, then the gate table."""
    for item in run.not_judged:
        yield f"- **not judged**: {_cell(f'{item.step}: {item.message}')}"
    if run.not_judged:
        yield ""
    if run.validation is not None:
        yield from summary_of_findings([run.validation])
    if run.known is not None:
        yield from (*map(_cell, text.known(run.known)), "")
    if run.comparison is not None:
        title = f"Gate: production since {run.comparison.base.name}"
        yield from summary_of_verdicts(run.comparison.judgements, title, run.comparison)
    elif run.validates_only:
        yield from (f"{NO_BASE}.", "")
