"""compare.py: the story of `registry compare`: several entries side by side. No click, no printing; writes nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from registry_tool.checks.promotion import incumbent_part
from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EvaluateRequest, Figure, Series
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Json, Verdict, percent
from registry_tool.workflows.evaluate import evaluate
from registry_tool.workflows.gate import gate
from registry_tool.workflows.loading import usable

LEFT_OUT = ("by", "clips", "baselines", "n_rows", "against")  # parts of an evaluation that are no figure of all rows
FIGURE_DIGITS = 5
INTERVAL_SUFFIXES = (("_t_low", "_t_high"), ("_low", "_high"))  # how the ends of a figure's 95 % interval are named
STANDARD_ERROR = "_se"  # how a figure's standard error is named
AXIS_ROOM = 0.08  # beside the values, of their range


@dataclass(frozen=True, slots=True)
class Contender:
    """An entry among those that are compared. rows: by name, its figures on rows of a corpus; empty without one."""

    verdict: Verdict
    rows: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        verdict = self.verdict
        return {
            "entry": verdict.entry,
            "verdict": verdict.decision,
            "reasons": list(verdict.reasons),
            "metrics": dict(verdict.metrics),
            "rows": dict(self.rows),
        }


def compare(
    path: Path, plugins: Plugins, entry_ids: Sequence[str], request: EvaluateRequest | None = None
) -> tuple[Contender, ...]:
    """Each entry's metrics of its evidence, every one after the first with the first as its incumbent.

    request: new rows to measure all on, too; those of the first's kind beside it. Raises InputError for one entry, or
    the same one twice.
    """
    if len(entry_ids) < 2 or len(set(entry_ids)) != len(entry_ids):
        raise InputError(f"compare: found {' '.join(entry_ids)}, expected two or more different ids")
    first, registry = entry_ids[0], usable(path).registry
    kind = {entry.id: entry.kind for entry in registry.entries}
    alike = {entry_id for entry_id in entry_ids[1:] if kind.get(entry_id) == kind.get(first)}
    found = []
    for entry_id in entry_ids:
        incumbent = None if entry_id == first else first
        verdict = gate(path, plugins, entry_id).verdict
        if incumbent is not None:  # for its metrics alone: that two entries cannot be compared holds neither back
            metrics = gate(path, plugins, entry_id, incumbent).verdict.metrics
            verdict = replace(verdict, metrics={**verdict.metrics, **metrics})
        rows, warnings = dict[str, float](), tuple[str, ...]()
        if request is not None:
            answer = evaluate(path, plugins, entry_id, request, first if entry_id in alike else None)
            warnings = tuple(f"{entry_id}: {warning}" for warning in answer.warnings)
            rows = dict(_numbers({**answer.document, **_over_sources(answer.document)}))
        found.append(Contender(verdict, rows, warnings))
    return tuple(found)


def _over_sources(document: Mapping[str, Json]) -> dict[str, Json]:
    """How an evaluation differs from the first entry's over sources, as far as it says so."""
    if (incumbent := incumbent_part(document)) is None:
        return {}
    names = ("difference", "difference_t_low", "difference_t_high")
    return {f"rmse_vs_first{name.removeprefix('difference')}": incumbent.get(name) for name in names}


def _numbers(document: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a document by their place in it, those of a list of levels by the level."""
    for name, value in document.items():
        if name in LEFT_OUT or name == "level":
            continue
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, Mapping) and isinstance(item.get("level"), float):
                    yield from _numbers(item, f"{prefix}{percent(float(item['level']))}% ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def table(contenders: Sequence[Contender]) -> list[list[str]]:
    """A row a figure, a column an entry, header first: the verdicts, the metrics of evidence, the figures of rows."""
    verdicts = [one.verdict for one in contenders]
    rows = [["", *(one.entry for one in verdicts)], ["verdict", *(one.decision for one in verdicts)]]
    rows += _rows("", [one.verdict.metrics for one in contenders])
    return rows + _rows("rows: ", [one.rows for one in contenders])


def _rows(prefix: str, found: Sequence[Mapping[str, float]]) -> list[list[str]]:
    names = dict.fromkeys(name for numbers in found for name in numbers)
    return [
        [f"{prefix}{name}", *(f"{one[name]:.{FIGURE_DIGITS}g}" if name in one else "-" for one in found)]
        for name in names
    ]


# ---- as charts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Compared:
    """A figure of several entries. ends: of its interval, by entry; means: what the interval is."""

    name: str
    values: Mapping[str, float]
    ends: Mapping[str, tuple[float, float]]
    means: str


def charts(contenders: Sequence[Contender]) -> list[Figure]:
    """A chart a figure, an entry a line: what a rule asks for, with its bound, and what has an interval over sources.

    A figure without an interval that is the same for all is left out.
    """
    entries = [one.verdict.entry for one in contenders]
    rules = {rule.metric: rule.bound for one in contenders for rule in one.verdict.policy.rules}
    evidence = {one.verdict.entry: one.verdict.metrics for one in contenders}
    shown = [*_compared(evidence, rules), *_compared({one.verdict.entry: one.rows for one in contenders}, (), "rows: ")]
    return [
        Figure(one.name, one.means, _chart(one, entries, rules.get(one.name)))
        for one in shown
        if one.ends or len(set(one.values.values())) > 1
    ]


def _compared(
    found: Mapping[str, Mapping[str, float]], ruled: Collection[str], prefix: str = ""
) -> Iterator[_Compared]:
    names = dict.fromkeys(name for numbers in found.values() for name in numbers)
    for name in names:
        values = {
            entry: numbers[name] for entry, numbers in found.items() if math.isfinite(numbers.get(name, math.nan))
        }
        ends = {entry: reach for entry in values if (reach := _interval(found[entry], name))}
        if name in ruled or ends:
            means = "bars: one standard error" if f"{name}{STANDARD_ERROR}" in names else "bars: 95 % over sources"
            yield _Compared(f"{prefix}{name}", values, ends, means if ends else "")


def _interval(numbers: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """The ends of a figure's interval, or one standard error around it; None where it has neither."""
    for low, high in INTERVAL_SUFFIXES:
        ends = numbers.get(f"{name}{low}", math.nan), numbers.get(f"{name}{high}", math.nan)
        if all(map(math.isfinite, ends)):
            return ends
    error = numbers.get(f"{name}{STANDARD_ERROR}", math.nan)
    return (numbers[name] - error, numbers[name] + error) if math.isfinite(error) else None


def _chart(one: _Compared, entries: Sequence[str], bound: float | None) -> Chart:
    places = {entry: float(place) for place, entry in enumerate(entries)}
    ends = [end for pair in one.ends.values() for end in pair]
    seen = [*one.values.values(), *ends, *([bound] if bound is not None else [])]
    low, high = min(seen), max(seen)
    room = AXIS_ROOM * (high - low) or 1.0
    series = [Series("", [*one.values.values()], [places[entry] for entry in one.values], tone="first")]
    if one.ends:
        lows, highs = zip(*one.ends.values(), strict=True)
        at = [places[entry] for entry in one.ends]
        series.append(Series("", lows, at, "spans", ends=highs, thick=0.12, tone="first", strength=0.5))
    if bound is not None:
        series.append(Series(f"bound: {bound:g}", (bound, bound), (-0.5, len(entries) - 0.5), "guide"))
    if low < 0.0 < high:
        series.append(Series("", (0.0, 0.0), (-0.5, len(entries) - 0.5), "guide"))
    return Chart(Axis(one.means or one.name, low - room, high + room), Axis.of_names("", entries), series)
