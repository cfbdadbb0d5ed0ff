"""shades.py: what a figure of a source is held against, and how strongly one below it is shaded. Measures nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from registry_tool.values import Rule

LEAST_SHADE, FULL_SHADE_FACTOR = 0.25, 10.0  # just below a bound; full where it is missed by so many times 1 - bound
PLCC_METRICS = ("worst_fold_plcc", "mean_plcc")  # whose bound a source's PLCC is held against: the first that is ruled
COVERAGE_METRIC = re.compile(r"(?:calibration_)?coverage_(\d{1,2}(?:\.\d+)?)(_worst|_upper|)")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure of a source is held against. origin: the metric whose rule asks for it, or what else it is."""

    value: float
    origin: str

    def shade(self, value: float) -> float:
        """0 where the bound is met; below it from LEAST_SHADE to 1, by the logarithm of the distance from 1."""
        if value >= self.value:
            return 0.0
        room, lost = 1.0 - self.value, 1.0 - value
        if not math.isfinite(value) or room <= 0.0:
            return 1.0
        full = min(FULL_SHADE_FACTOR, 1.0 / room)
        part = math.log(lost / room) / math.log(full) if full > 1.0 else 1.0
        return min(LEAST_SHADE + (1.0 - LEAST_SHADE) * part, 1.0)

    def legend(self) -> list[tuple[str, float]]:
        full = max(1.0 - FULL_SHADE_FACTOR * (1.0 - self.value), 0.0)
        return [
            (f"{self.value:g} and more: {self.origin}", 0.0),
            ("just below", LEAST_SHADE),
            (f"{full:g} and less", 1.0),
        ]


def plcc_bound(rules: Sequence[Rule]) -> Bound | None:
    """The policy's bound for the correlation of a source; None where it has none."""
    asked = {rule.metric: rule.bound for rule in rules if rule.op in (">", ">=")}
    return next((Bound(asked[name], f"the bound of {name}") for name in PLCC_METRICS if name in asked), None)


def coverage_bound(rules: Sequence[Rule], level: float) -> Bound:
    """The policy's bound for the coverage of the worst source at a level; else the level itself."""
    for rule in rules:
        found = COVERAGE_METRIC.fullmatch(rule.metric)
        if found and found[2] == "_worst" and rule.op in (">", ">=") and _is_level(found[1], level):
            return Bound(rule.bound, f"the bound of {rule.metric}")
    return Bound(level, "the share they claim")


def _is_level(name: str, level: float) -> bool:
    return math.isclose(float(name) / 100.0, level)
