"""sarif.py: findings as SARIF 2.1.0, for code scanning and editors. The rules' help is that of docs/findings.md."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote

from registry_tool.checks.identity import stable_pointer
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.findings import Finding, FindingRule
from registry_tool.report import rules
from registry_tool.report.machine import level, render
from registry_tool.report.places import from_root, of_entry
from registry_tool.report.reporters import Rendered, Validations
from registry_tool.values import Json, visible
from registry_tool.version import __version__
from registry_tool.workflows.ci import CiRun
from registry_tool.workflows.validate import Validation

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
SUPPRESSION: dict[str, Json] = {"suppressions": [{"kind": "external", "justification": "A known finding."}]}
ROOT_ID = "%SRCROOT%"  # what every path is relative to; a viewer knows where its checkout is


def log(results: Iterable[Validation], known: Iterable[tuple[Validation, Finding]] = ()) -> dict[str, Json]:
    """One SARIF log with one run. It holds nothing of the machine or the moment: the same findings, the same log.

    known: findings that do not count; they are suppressed, as SARIF calls it.
    """
    results = list(results)
    pairs = [(result, finding) for result in results for finding in result.findings]
    counted = len(pairs)
    pairs += known
    declared = {finding.code: finding.rule for _, finding in pairs}
    codes = sorted(declared)
    prints: Counter[str] = Counter()
    driver = {
        "name": "registry-tool",
        "semanticVersion": __version__,
        "rules": [_rule(code, declared[code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT_ID: {"description": {"text": "The root of the repository."}}},
        "results": [
            _result(result, finding, codes, prints) | (SUPPRESSION if number >= counted else {})
            for number, (result, finding) in enumerate(pairs)
        ],
    }
    run["properties"] = {"validated": [_checked(result) for result in results]}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _checked(result: Validation) -> dict[str, Json]:
    """How deeply a registry was looked at: without findings, nothing else tells."""
    return {"registry": from_root(result.loaded.path, None), **level(result)}


def _rule(code: str, rule: FindingRule | None) -> dict[str, Json]:
    if rule is None:
        return {"id": code, "shortDescription": {"text": "A finding of a plugin that does not declare it."}}
    title = rules.sentence(rule.title)
    return {
        "id": code,
        "shortDescription": {"text": title},
        "fullDescription": {"text": f"{title} {rule.why}"},
        "help": {"text": rules.text(rule), "markdown": "\n".join(rules.section(rule))},
        "defaultConfiguration": {"level": str(rule.severity)},
        "properties": {"tags": ["model-registry", rule.family]},
    }


def _result(result: Validation, item: Finding, codes: Sequence[str], prints: Counter[str]) -> dict[str, Json]:
    file = from_root(result.loaded.path, item.file)
    key = _fingerprint(item, file, result.loaded)
    prints[key] += 1
    entry = f"{item.entry}: " if item.entry else ""
    place = (item.line, item.column) if item.line is not None else None
    document: dict[str, Json] = {
        "ruleId": item.code,
        "ruleIndex": codes.index(item.code),
        "level": str(item.severity),
        "message": {"text": visible(entry + item.words)},
        "locations": [_location(file, place)],
        # GitHub reads only this name, in this form: a hash, and which of several findings with that hash it is.
        "partialFingerprints": {"primaryLocationLineHash": f"{key}:{prints[key]}"},
    }
    registry, place = from_root(result.loaded.path, None), of_entry(result.loaded, item.entry)
    if place is not None and file != registry:
        document["relatedLocations"] = [{**_location(registry, place), "message": {"text": f"The entry {item.entry}."}}]
    return document


def _location(file: str, place: tuple[int, int | None] | None) -> dict[str, Json]:
    physical: dict[str, Json] = {"artifactLocation": {"uri": quote(visible(file)), "uriBaseId": ROOT_ID}}
    if place is not None:
        physical["region"] = {"startLine": place[0], "startColumn": place[1] or 1}
    return {"physicalLocation": physical}


def _fingerprint(item: Finding, file: str, loaded: Loaded | Unreadable) -> str:
    """What a finding is, wherever it moves: code, file, entry, and the pointer with the entry's id for its number."""
    identity = json.dumps([item.code, file, item.entry, stable_pointer(item, loaded)])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def render_validations(report: Validations) -> Rendered:
    return Rendered([render(log(report.results))], document=True)


def render_ci(run: CiRun) -> Rendered:
    """The findings of both, and what was not judged as notifications of a run that did not succeed."""
    found = run.validation
    if found is not None and run.comparison is not None:
        found = replace(found, findings=(*found.findings, *run.comparison.added))
    known = run.known.known if run.known is not None else ()
    document = log([found] if found is not None else [], [(found, item) for item in known] if found is not None else ())
    notes = [{"level": "error", "message": {"text": visible(f"{i.step}: {i.message}")}} for i in run.not_judged]
    invocation = {"executionSuccessful": not notes, "exitCode": int(run.exit_code)}
    document["runs"][0]["invocations"] = [invocation | ({"toolExecutionNotifications": notes} if notes else {})]
    return Rendered([render(document)], document=True)
