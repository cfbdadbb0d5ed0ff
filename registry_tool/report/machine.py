"""machine.py: findings and verdicts as JSON documents; each has a schema in `schemas/`. Prints nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

from registry_tool.documents.store import Loaded
from registry_tool.findings import Severity
from registry_tool.report.reporters import Answer, Rendered, Rules, Validations, Verdicts
from registry_tool.values import Entry, Json
from registry_tool.workflows.ci import CiRun
from registry_tool.workflows.compare_with_base import Comparison
from registry_tool.workflows.gate import Judgement
from registry_tool.workflows.validate import Validation


def render(document: Json) -> str:
    """Stable JSON text; NaN is null, since JSON has no word for it."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Json) -> Json:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def validation(result: Validation) -> dict[str, Json]:
    """level: `mixed` where entries were checked at both; `checked` counts them."""
    since = {"name": result.since.name, "commit": result.since.commit} if result.since is not None else None
    return {
        "registry": str(result.loaded.path),
        "schema_version": result.loaded.registry.schema_version if isinstance(result.loaded, Loaded) else None,
        **level(result),
        "since": since,
        "entries": result.entries,
        "summary": {str(s): result.count(s) for s in Severity},
        "findings": [f.to_dict() for f in result.findings],
    }


def level(result: Validation) -> dict[str, Json]:
    """How deeply the entries were checked: `mixed` where some were at a lower level than the others."""
    found = "mixed" if result.since is not None and result.since.unchanged else str(result.level)
    return {"level": found, "checked": {str(name): count for name, count in result.checked.items()}}


def judgement(item: Judgement) -> dict[str, Json]:
    """The verdict as `flip` stores it, with the evidence's details beside it."""
    details = dict(item.evidence.details) if item.evidence else {}
    if item.evidence and item.evidence.table:
        details["table"] = [list(row) for row in item.evidence.table.rows]
    return {**item.verdict.to_dict(), "why": item.why or None, "details": details}


def flip(entry: Entry, item: Judgement | None) -> dict[str, Json]:
    """What `flip` prints: what the entry is now and why, with the verdict where evidence was judged."""
    judged = judgement(item) if item is not None else {}
    state = {name: entry.document.get(name) for name in ("promotion", "demotion")}
    return {**judged, "entry": entry.id, "smoke": entry.smoke, **state}


def comparison(item: Comparison) -> dict[str, Json]:
    """What `gate --base` compared with, its verdicts, and what else the change does."""
    return {
        "registry": item.path,
        "base": {"name": item.base.name, "commit": item.base.commit, "path": item.base.path},
        "judgements": [judgement(one) for one in item.judgements],
        "changes": [change.to_dict() for change in item.changes],
        "added": [one.to_dict() for one in item.added],
    }


def ci(run: CiRun) -> dict[str, Json]:
    """The JSON of `registry ci`; its schema is schemas/ci.schema.json."""
    known = run.known
    return {
        "registry": None if run.path is None else str(run.path),
        "exit_code": int(run.exit_code),
        "base": None if run.base is None else {"name": run.base.revision, "named_by": run.base.variable},
        "validation": None if run.validation is None else validation(run.validation),
        "known": None
        if known is None
        else {"list": known.source, "findings": [item.to_dict() for item in known.known], "gone": known.missing},
        "gate": None if run.comparison is None else comparison(run.comparison),
        "not_judged": [
            {"step": item.step, "exit_code": int(item.exit_code), "message": item.message} for item in run.not_judged
        ],
    }


def render_validations(report: Validations) -> Rendered:
    return Rendered([render(validation(report.results[0]))], document=True)


def render_verdicts(report: Verdicts) -> Rendered:
    if report.comparison is not None:
        return Rendered([render(comparison(report.comparison))], document=True)
    return Rendered([render(judgement(item)) for item in report.judgements], document=True)


def render_rules(report: Rules) -> Rendered:
    from registry_tool.report import rules

    return Rendered([render(rules.document(report.groups))], document=True)


def render_answers(answer: Answer) -> Rendered:
    return Rendered([render(answer.document())], document=True)


def render_ci(run: CiRun) -> Rendered:
    return Rendered([render(ci(run))], document=True)
