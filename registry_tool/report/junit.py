"""junit.py: findings and verdicts as JUnit XML, one test case an entry, as Jenkins and GitLab read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

import click

from registry_tool.documents.store import Loaded
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level
from registry_tool.report import text
from registry_tool.report.places import from_root
from registry_tool.report.reporters import Rendered, Validations, Verdicts
from registry_tool.values import EMPTY, visible
from registry_tool.workflows.ci import CiRun
from registry_tool.workflows.compare_with_base import Comparison
from registry_tool.workflows.gate import Judgement
from registry_tool.workflows.validate import Validation

Case = tuple[list[str], list[str]]  # the lines that fail it, the lines that do not


def validations(results: Iterable[Validation], *, strict: bool) -> str:
    """A suite a registry; its first case is the registry itself. A case fails by its errors, if strict by warnings."""
    return _document(_suites(results, strict=strict))


def judgements(items: Sequence[Judgement], registry: str, comparison: Comparison | None = None) -> str:
    """One suite, a case an entry; HOLD fails it, with each rule's figure and the reasons.

    comparison: what `gate --base` found; the case that lists its changes never fails.
    """
    return _document([_judged(items, registry, comparison)])


def ci(run: CiRun) -> str:
    """The suites of both, and one of the steps that ended early: each is an error, not a failure."""
    suites = _suites([run.validation], strict=run.request.strict) if run.validation is not None else []
    if run.comparison is not None and run.path is not None:
        suites.append(_judged(run.comparison.judgements, from_root(run.path, None), run.comparison))
    if run.known is not None and run.known.known:
        lines = [*text.known(run.known), *map(_line, run.known.known)]
        suites.append(_suite("known findings", {"not counted": ([], lines)}))
    if run.not_judged:
        suites.append(_suite("registry ci", {}, {item.step: item.message for item in run.not_judged}))
    return _document(suites)


def _suites(results: Iterable[Validation], *, strict: bool) -> list[ET.Element]:
    failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    suites = []
    for result in results:
        suite = _suite(from_root(result.loaded.path, None), _cases(result, failing))
        properties = ET.Element("properties")
        for level, count in result.checked.items():
            ET.SubElement(properties, "property", name=f"checked {level}", value=str(count))
        suite.insert(0, properties)  # first, as readers expect it
        suites.append(suite)
    return suites


def _judged(items: Sequence[Judgement], registry: str, comparison: Comparison | None) -> ET.Element:
    cases: dict[str, Case] = {}
    for item in items:
        lines = [click.unstyle(line) for line in text.judgement(item, details=False)]
        cases[item.verdict.entry] = ([], lines) if item.verdict.promotes else (lines, [])
    if comparison is not None and comparison.added:
        cases["unregistered files"] = ([_line(one) for one in comparison.added], [])
    if comparison is not None and comparison.changes:
        title, *lines = [click.unstyle(line) for line in text.changes(comparison)]
        cases[title.removesuffix(":")] = ([], lines)
    return _suite(f"gate of {registry}", cases)


def _cases(result: Validation, failing: set[Severity]) -> dict[str, Case]:
    entries = result.loaded.registry.entries if isinstance(result.loaded, Loaded) else ()
    cases: dict[str, Case] = {name: ([], []) for name in (result.loaded.name, *(entry.id for entry in entries))}
    for number, entry in enumerate(entries):
        if result.since is not None and result.level_of(number) is Level.QUICK:
            cases[entry.id][1].append(f"checked quickly: {text.QUICK_LEAVES_OUT}")
    for item in result.findings:
        bad, good = cases.setdefault(item.entry or result.loaded.name, ([], []))
        (bad if item.severity in failing else good).append(_line(item))
    return cases


def _line(item: Finding) -> str:
    return click.unstyle(text.finding(item))


def _suite(name: str, cases: Mapping[str, Case], errors: Mapping[str, str] = EMPTY) -> ET.Element:
    """errors: what could not be judged, by its name, and why."""
    failures = sum(bool(bad) for bad, _ in cases.values())
    name = visible(name)
    counts = {"tests": len(cases) + len(errors), "failures": failures, "errors": len(errors), "skipped": 0}
    suite = ET.Element("testsuite", {"name": name, **{key: str(count) for key, count in counts.items()}})
    for case, why in errors.items():
        element = ET.SubElement(suite, "testcase", name=case, classname=name)
        ET.SubElement(element, "error", message=visible(why), type="not judged").text = visible(why)
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
    file = from_root(report.path, None) if report.path else "evidence"
    return Rendered([judgements(report.judgements, file, report.comparison)], document=True)


def render_ci(run: CiRun) -> Rendered:
    return Rendered([ci(run)], document=True)
