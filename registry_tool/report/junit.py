"""junit.py: findings and verdicts as JUnit XML, one test case an entry, as Jenkins and GitLab read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

import click

from registry_tool.documents.store import Loaded
from registry_tool.findings import Finding, Severity
from registry_tool.report import text
from registry_tool.report.places import from_root
from registry_tool.report.reporters import Rendered, Validations, Verdicts
from registry_tool.values import visible
from registry_tool.workflows.compare_with_base import Comparison
from registry_tool.workflows.gate import Judgement
from registry_tool.workflows.validate import Validation

Case = tuple[list[str], list[str]]  # the lines that fail it, the lines that do not


def validations(results: Iterable[Validation], *, strict: bool) -> str:
    """A suite a registry; its first case is the registry itself. A case fails by its errors, if strict by warnings."""
    failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return _document([_suite(from_root(r.loaded.path, None), _cases(r, failing)) for r in results])


def judgements(items: Sequence[Judgement], registry: str, comparison: Comparison | None = None) -> str:
    """One suite, a case an entry; HOLD fails it, with each rule's figure and the reasons.

    comparison: what `gate --base` found; the case that lists its changes never fails.
    """
    cases: dict[str, Case] = {}
    for item in items:
        lines = [click.unstyle(line) for line in text.judgement(item, details=False)]
        cases[item.verdict.entry] = ([], lines) if item.verdict.promotes else (lines, [])
    if comparison is not None and comparison.added:
        cases["unregistered files"] = ([_line(one) for one in comparison.added], [])
    if comparison is not None and comparison.changes:
        title, *lines = [click.unstyle(line) for line in text.changes(comparison)]
        cases[title.removesuffix(":")] = ([], lines)
    return _document([_suite(f"gate of {registry}", cases)])


def _cases(result: Validation, failing: set[Severity]) -> dict[str, Case]:
    entries = result.loaded.registry.entries if isinstance(result.loaded, Loaded) else ()
    cases: dict[str, Case] = {name: ([], []) for name in (result.loaded.name, *(entry.id for entry in entries))}
    for item in result.findings:
        bad, good = cases.setdefault(item.entry or result.loaded.name, ([], []))
        (bad if item.severity in failing else good).append(_line(item))
    return cases


def _line(item: Finding) -> str:
    return click.unstyle(text.finding(item))


def _suite(name: str, cases: Mapping[str, Case]) -> ET.Element:
    failures = sum(bool(bad) for bad, _ in cases.values())
    name = visible(name)
    suite = ET.Element("testsuite", name=name, tests=str(len(cases)), failures=str(failures), errors="0", skipped="0")
    for case, (bad, good) in cases.items():
        element = ET.SubElement(
            suite, "testcase", name=visible(case), classname=name.replace(".", "_")
        )  # a dot is a package
        if bad:  # one, since some readers show only the first
            ET.SubElement(element, "failure", message=bad[0], type="finding").text = "\n".join(bad)
        if good:
            ET.SubElement(element, "system-out").text = "\n".join(good)
    return suite


def _document(suites: Sequence[ET.Element]) -> str:
    root = ET.Element("testsuites", name="registry")
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def render_validations(report: Validations) -> Rendered:
    return Rendered([validations(report.results, strict=report.strict)], document=True)


def render_verdicts(report: Verdicts) -> Rendered:
    where = from_root(report.path, None) if report.path else "evidence"
    return Rendered([judgements(report.judgements, where, report.comparison)], document=True)
