"""evaluate.py: the story of `registry evaluate`: an entry on rows with a target. No click, no printing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from registry_tool.checks.promotion import find_incumbent, incumbent_part, refuse_itself
from registry_tool.errors import InputError
from registry_tool.hookspec import EvaluateRequest, Evaluation
from registry_tool.plugins.manager import Plugins
from registry_tool.workflows.loading import inspected, usable, verified


def evaluate(
    path: Path, plugins: Plugins, entry_id: str, request: EvaluateRequest, incumbent: str | None = None
) -> Evaluation:
    """Measure an entry on new data, compared with another one where `incumbent` names it."""
    with inspected(usable(path), plugins) as inspection:
        view = verified(inspection, entry_id)
        refuse_itself(entry_id, incumbent)
        request = replace(request, incumbent=find_incumbent((view.entry.kind,), inspection, incumbent))
        answer = plugins.evaluate(view, request)
    if answer is None:
        raise InputError(
            f"{entry_id}: the kind {view.entry.kind!r} cannot be evaluated: `registry plugins` tells which can"
        )
    if incumbent is not None and incumbent_part(answer.document) is None:
        reason = f"found no comparison with {incumbent}, expected a kind whose plugin compares entries"
        raise InputError(f"--incumbent: {reason}: leave it out")
    return answer
