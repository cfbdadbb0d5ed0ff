"""figures.py: what a plugin shows, as data: charts and tables. Draws nothing: the core draws, on pages and as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SERIES_MARKS = ("points", "line", "guide", "stars", "spans", "columns")
SERIES_TONES = ("own", "first", "muted", "alarm", "ink")


@dataclass(frozen=True, slots=True)
class Table:
    """rows: the header first. shades: (row, column) of `rows` -> 0 (best) to 1 (worst), the cell's colour.

    legend: what some shades mean, best first. What a shade shows must be readable in the cell's text, too.
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
    """What an axis shows, with its unit, and from where to where; log: its decades have one length.

    names: of the places 0, 1, ... of an axis of names, the first on top: see `of_names`.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"axis {self.label!r}: found {self.low} to {self.high}, expected finite bounds in order")
        if self.log and self.low <= 0.0:
            raise ValueError(f"axis {self.label!r}: found {self.low}, expected more than 0 for a logarithm")

    @classmethod
    def of_names(cls, label: str, names: Sequence[str]) -> Axis:
        """The upright axis of a chart with a line of its own for each name."""
        return cls(label, -0.5, max(len(names), 1) - 0.5, names=tuple(names))


@dataclass(frozen=True, slots=True)
class Series:
    """Points of a chart, in axis units; one outside the axes is drawn at the edge.

    mark: `points`; `line`, with a mark at each point; `guide`, a thin dotted line to hold the others against; `stars`,
    for what is chosen; `spans`, level bars from x to `ends` at y; `columns`, upright bars of height y around x.
    bars: half the length of each point's vertical error bar, of a line. ends: of spans, their other end; of a line, the
    height up or down to which the area is shaded. thick: of spans and columns, in axis units.
    tone: `own`, colours take turns; `first`, the first of them; `muted`, grey; `alarm`, red; `ink`, as text. strength:
    of the colour, 0 to 1, for what is nested.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: str = "points"
    bars: Sequence[float] = ()
    ends: Sequence[float] = ()
    thick: float = 0.7
    tone: str = "own"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.mark not in SERIES_MARKS or self.tone not in SERIES_TONES:
            known = f"a mark of {', '.join(SERIES_MARKS)} and a tone of {', '.join(SERIES_TONES)}"
            raise ValueError(f"series {self.name!r}: found {self.mark!r} and {self.tone!r}, expected {known}")
        wanted = {len(self.x)} if self.mark == "spans" else {0, len(self.x)}
        if len(self.x) != len(self.y) or len(self.bars) not in (0, len(self.x)) or len(self.ends) not in wanted:
            raise ValueError(f"series {self.name!r}: found different lengths, expected one")
        if not all(map(math.isfinite, (*self.x, *self.y, *self.bars, *self.ends))):
            raise ValueError(f"series {self.name!r}: found NaN or infinity, expected finite numbers")
        if not (0.0 < self.strength <= 1.0 and 0.0 < self.thick < math.inf):
            raise ValueError(
                f"series {self.name!r}: found strength {self.strength} and thick {self.thick}, expected "
                "0 to 1 and more than 0"
            )


@dataclass(frozen=True, slots=True)
class Chart:
    """Series over two axes, in the order of the legend; what comes first lies on top. y may be an axis of names."""

    x: Axis
    y: Axis
    series: Sequence[Series]

    def __post_init__(self) -> None:
        if self.x.names:
            raise ValueError(f"axis {self.x.label!r}: found names across, expected them on the upright axis")


@dataclass(frozen=True, slots=True)
class Figure:
    """A part of `registry report`, or a panel of a picture: plain texts, and a chart, a table or both.

    Beside a chart, the table is its numbers. caption: how to read it and what it shows, in a few sentences. The core
    escapes, draws and colours.
    """

    title: str
    caption: str
    chart: Chart | None = None
    table: Table | None = None
