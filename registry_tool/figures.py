"""figures.py: what a plugin shows of an entry, as data: charts and tables. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Table:
    """rows: the header first. shades: (row, column) of `rows` -> 0 (best) to 1 (worst), the cell's colour.

    legend: what some shades stand for, best first. What a shade shows must be readable in the cell's text, too.
    """

    rows: Sequence[Sequence[str]]
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)
    legend: Sequence[tuple[str, float]] = ()

    def __post_init__(self) -> None:
        if not self.rows or len({len(row) for row in self.rows}) != 1:
            raise ValueError("table: found no rows or rows of different lengths, expected a header and its columns")
        if not all(0.0 <= shade <= 1.0 for shade in (*self.shades.values(), *(s for _, s in self.legend))):
            raise ValueError("table: found a shade outside 0 to 1")


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, with its unit, and from where to where; log: its decades have one length."""

    label: str
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"axis {self.label!r}: found {self.low} to {self.high}, expected finite bounds in order")
        if self.log and self.low <= 0.0:
            raise ValueError(f"axis {self.label!r}: found {self.low}, expected more than 0 for a logarithm")


@dataclass(frozen=True, slots=True)
class Series:
    """Points of a chart, in axis units; one outside the axes is drawn at the edge.

    mark: `points`, `line` (with a mark at each point) or `guide` (a thin dotted line to hold the others against).
    bars: half the length of each point's vertical bar. muted: in grey, for what stands in the background.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: str = "points"
    bars: Sequence[float] = ()
    muted: bool = False

    def __post_init__(self) -> None:
        if self.mark not in ("points", "line", "guide"):
            raise ValueError(f"series {self.name!r}: found the mark {self.mark!r}, expected points, line or guide")
        if len(self.x) != len(self.y) or len(self.bars) not in (0, len(self.x)):
            raise ValueError(f"series {self.name!r}: found different lengths, expected one")
        if not all(map(math.isfinite, (*self.x, *self.y, *self.bars))):
            raise ValueError(f"series {self.name!r}: found NaN or infinity, expected finite numbers")


@dataclass(frozen=True, slots=True)
class Chart:
    """Series over two axes, in the order of the legend; what comes first lies on top."""

    x: Axis
    y: Axis
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class Figure:
    """A part of `registry report`: plain texts, and a chart, a table or both; beside a chart, the table is its numbers.

    caption: how to read it and what it shows, in a few sentences. The core escapes, draws and colours.
    """

    title: str
    caption: str
    chart: Chart | None = None
    table: Table | None = None
