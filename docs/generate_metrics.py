"""generate_metrics.py: docs/metrics.md, the metrics and interval methods of fr_ensemble. Adds no description.

`python docs/generate_metrics.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS
from fr_ensemble.evidence.metrics import (
    COMPARISON_NAMES,
    METRICS,
    METRICS_VERSION,
    NEEDS_FOLDS,
    NEEDS_PREDICTIONS,
    STORED_PREFIX,
)

PAGE = Path(__file__).with_name("metrics.md")
NEEDS = {
    NEEDS_FOLDS: ("Of folds", "From the out-of-fold predictions, or from `loso_seed{N}.json` files alone."),
    NEEDS_PREDICTIONS: ("Of predictions", "From the out-of-fold predictions and the stored interval method."),
    **{
        name: (f"Against {words.split(' through')[0]}", f"Errors beside those of {words}, on the same rows.")
        for name, words in COMPARISON_NAMES.items()
    },
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
        table = _table([[row[i] for i in kept] for row in (header, *rows)])
        parts.append(f"## {title}\n\n{words}\n\n{table}")
    methods = [
        (f"`{name}`{' (default)' * (name == DEFAULT_METHOD)}", method.meaning, method.guarantee)
        for name, method in INTERVAL_METHODS.items()
    ]
    table = _table([("method", "meaning", "coverage for a new source"), *methods])
    words = "Values of `registry train fr_ensemble --interval`, as a manifest's `intervals.method` names them."
    parts.append(f"## Interval methods\n\n{words}\n\n{table}")
    return "\n".join(parts)


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(_lines(rows)) + "\n"


def _lines(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{' --- |' * len(cells)}"


def main() -> None:
    text = render()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE}: not current: run `python docs/generate_metrics.py`")
    elif sys.argv[1:]:
        sys.exit("usage: python docs/generate_metrics.py [--check]")
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
