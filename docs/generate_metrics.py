"""generate_metrics.py: docs/metrics.md, the metrics and interval methods of fr_ensemble. Adds no description.

`python docs/generate_metrics.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS
from fr_ensemble.evidence.metrics import (
    COMPARISON_NAMES,
    METRICS,
    METRICS_VERSION,
    NEEDS_BASELINES,
    NEEDS_CALIBRATION,
    NEEDS_ENCODERS,
    NEEDS_FOLDS,
    NEEDS_INPUTS,
    NEEDS_PREDICTIONS,
    STORED_PREFIX,
)
from pages import cell, publish

from registry_tool.plugins.single_gate import SINGLE_DESCRIPTIONS
from registry_tool.toolkit import markdown_table

PAGE = Path(__file__).with_name("metrics.md")
NEEDS = {
    NEEDS_FOLDS: ("Of folds", "From the out-of-fold predictions, or from `loso_seed{N}.json` files alone."),
    NEEDS_PREDICTIONS: ("Of predictions", "From the out-of-fold predictions and the stored interval method."),
    NEEDS_INPUTS: (
        "Of inputs",
        "From the shipped models, run on the inputs that the evidence holds. Absent where it holds none.",
    ),
    NEEDS_CALIBRATION: (
        "Of a calibration",
        "From the sources that `registry calibrate` made the intervals of. Absent for other entries.",
    ),
    NEEDS_ENCODERS: (
        "Of encoders apart",
        "From the encoders that `registry calibrate --by-encoder` made intervals of their own for. Absent for other "
        "entries.",
    ),
    **{
        name: (f"Against {words.split(' through')[0]}", f"Errors beside those of {words}, on the same rows.")
        for name, words in COMPARISON_NAMES.items()
    },
    NEEDS_BASELINES: (
        "Against baselines",
        "Errors beside those of standard models that `train` fits on the same folds. Absent where the evidence has "
        "none; a Gaussian process is fitted up to 1,000 rows.",
    ),
}
INTRO = f"""\
# Metrics and interval methods

What `registry gate` measures for kind `fr_ensemble` and a policy's rules may name, and how intervals may be calibrated.
Made from the program: `python docs/generate_metrics.py`. Why these: [the gate](explanation/gate.md),
[intervals](explanation/intervals.md).

This release writes `metrics_version` {METRICS_VERSION}. A metric's version is the first one that has it: a manifest or
a verdict of an older version may lack it, one of that version or a newer one may not. A metric whose formula changes
gets a new name. A metric that cannot be computed is absent, and a rule that names it fails.
"""


def render() -> str:
    """The page: a table for each sort of evidence, then the methods."""
    parts = [INTRO]
    for needs, (title, words) in NEEDS.items():
        rows = [
            (f"`{m.name}`", m.meaning, m.unit, m.direction, str(m.since), f"`{STORED_PREFIX}{m.name}`" * m.in_manifest)
            for m in METRICS.values()
            if m.needs == needs
        ]
        header = ("metric", "meaning", "unit", "better", "version", "stored at `eval`")
        kept = [i for i in range(len(header)) if i < 2 or any(row[i] for row in rows)]
        parts.append(_section(title, words, [[row[i] for i in kept] for row in (header, *rows)]))
    rows = [(f"`{m.name}`", m.meaning, m.unit, m.better, str(m.since)) for m in SINGLE_DESCRIPTIONS]
    words = "What `registry gate` measures for kinds `fr`, `nr` and `filter`, of an entry that pins evidence."
    parts.append(_section("Single models", words, [("metric", "meaning", "unit", "better", "version"), *rows]))
    methods = [
        (f"`{name}`{' (default)' * (name == DEFAULT_METHOD)}", method.meaning, method.guarantee)
        for name, method in INTERVAL_METHODS.items()
    ]
    words = "Values of `registry train fr_ensemble --interval`, as a manifest's `intervals.method` names them."
    parts.append(_section("Interval methods", words, [("method", "meaning", "coverage for a new source"), *methods]))
    return "\n".join(parts)


def _section(title: str, words: str, rows: Sequence[Sequence[str]]) -> str:
    table = markdown_table([list(map(cell, row)) for row in rows])
    return "\n".join([f"## {title}", "", words, "", *table]) + "\n"


if __name__ == "__main__":
    publish(PAGE, render)
