"""svg.py: the geometry of a chart as inline SVG; templates/chart.html.jinja writes it. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from registry_tool.hookspec import Chart, Series
from registry_tool.report.scales import share, ticks

WIDTH, HEIGHT = 540, 400  # user units; text of 13 in them stays readable where a phone shows the chart at two thirds
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 12, 52
NAME_CHARACTERS, NAME_HEIGHT = 30, 21  # of an axis of names; longer ones are cut
FEW_POINTS = 60  # up to these are marks; more are small and pale, so that many in one place are seen to be many
N_COLOURS = 6  # in the page's style: c1 to c6; beyond that they start again
LINE_DASHES = ("", "7 4", "2 3", "9 3 2 3")  # lines differ without colour, too
STAR_POINTS = [(math.sin(i * math.pi / 5), -math.cos(i * math.pi / 5), (8.0, 3.4)[i % 2]) for i in range(10)]


@dataclass(frozen=True, slots=True)
class Shape:
    """A path; css: what it is, of which the style knows the looks."""

    css: str
    d: str
    dash: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A text; anchor: start, middle or end; label: of an axis, not of a tick."""

    text: str
    x: str
    y: str
    anchor: str
    dy: str = ""
    turn: str = ""
    label: bool = False


@dataclass(frozen=True, slots=True)
class DrawnSeries:
    """A series. css: its colour. key: the little picture before its name in the legend."""

    name: str
    css: str
    shapes: Sequence[Shape]
    key: Sequence[Shape]
    opacity: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, measured. name: unique in the page. words: the chart for those who do not see it."""

    name: str
    title: str
    words: str
    width: int
    height: int
    grid: Sequence[str]
    axis: str
    texts: Sequence[Label]
    groups: Sequence[DrawnSeries]


def draw(chart: Chart, name: str, title: str) -> Drawing:
    frame = _Frame.of(chart)
    looks = zip(chart.series, colours(chart.series), dashes(chart.series), strict=True)
    return Drawing(
        name,
        title,
        _words(chart),
        WIDTH,
        frame.height,
        list(frame.grid()),
        frame.axis(),
        list(frame.texts()),
        [_group(frame, item, colour, dash) for item, colour, dash in looks],
    )


def colours(series: Sequence[Series]) -> list[str]:
    """The colour of each: c1 to c6 in turn; c0 is grey. Guides have none."""
    found, turn = [], 0
    for item in series:
        if item.mark == "guide":
            found.append("guide")
        elif item.tone == "own":
            found.append(f"c{turn % N_COLOURS + 1}")
            turn += 1
        else:
            found.append({"first": "c1", "muted": "c0"}.get(item.tone, item.tone))
    return found


def dashes(series: Sequence[Series]) -> list[str]:
    """How each line is dashed, "" for whole: lines take turns, as colours do."""
    found, turn = [], 0
    for item in series:
        own = item.mark != "guide" and item.tone == "own"
        found.append(LINE_DASHES[turn % len(LINE_DASHES)] if own else "")
        turn += own
    return found


def _words(chart: Chart) -> str:
    across = f"across: {chart.x.label}, {chart.x.low:g} to {chart.x.high:g}"
    up = f"{chart.y.low:g} to {chart.y.high:g}" if not chart.y.names else f"{len(chart.y.names)} names"
    series = (f"{item.name}, {len(item.x)} points" for item in chart.series if item.name)
    return "; ".join([across, f"up: {chart.y.label}, {up}", *series])


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a chart's axes lie in the picture."""

    chart: Chart
    left: int
    height: int

    @classmethod
    def of(cls, chart: Chart) -> _Frame:
        if not chart.y.names:
            return cls(chart, LEFT, HEIGHT)
        longest = max(len(_short(name)) for name in chart.y.names)
        return cls(
            chart,
            (28 if chart.y.label else 12) + round(8.5 * longest),
            max(180, TOP + BOTTOM + NAME_HEIGHT * len(chart.y.names)),
        )

    @property
    def right(self) -> int:
        return WIDTH - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    def x(self, value: float) -> str:
        return _number(self.left + share(self.chart.x, value) * (self.right - self.left))

    def y(self, value: float) -> str:
        return _number(self.bottom - share(self.chart.y, value) * (self.bottom - TOP))

    def place(self, x: float, y: float) -> str:
        return f"{self.x(x)} {self.y(y)}"

    def axis(self) -> str:
        return f"M{self.left} {TOP}V{self.bottom}H{self.right}"

    def grid(self) -> Iterator[str]:
        yield from (f"M{self.x(value)} {TOP}V{self.bottom}" for value, _ in ticks(self.chart.x))
        yield from (f"M{self.left} {self.y(value)}H{self.right}" for value, _ in ticks(self.chart.y))

    def texts(self) -> Iterator[Label]:
        """Tick labels and axis labels."""
        for value, label in ticks(self.chart.x):
            yield Label(label, self.x(value), str(self.bottom + 18), "middle")
        for value, label in ticks(self.chart.y):
            yield Label(_short(label), str(self.left - 8), self.y(value), "end", dy="0.35em")
        middle = _number((self.left + self.right) / 2)
        yield Label(self.chart.x.label, middle, str(self.height - 10), "middle", label=True)
        middle = _number((TOP + self.bottom) / 2)
        yield Label(self.chart.y.label, "16", middle, "middle", turn=f"rotate(-90 16 {middle})", label=True)


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"


def _group(frame: _Frame, item: Series, colour: str, dash: str) -> DrawnSeries:
    shapes, key = _DRAW[item.mark](frame, item, dash)
    return DrawnSeries(item.name, colour, shapes, key, "" if item.strength == 1.0 else f"{item.strength:g}")


Drawn = tuple[list[Shape], list[Shape]]  # the shapes, and their key


def _points(frame: _Frame, item: Series, dash: str) -> Drawn:
    if len(item.x) <= FEW_POINTS:
        return [Shape("marks", _dots(frame, item))], [Shape("marks", "M14 6h0")]
    return [Shape("dots", _dots(frame, item))], [Shape("dots key", "M14 6h0")]


def _line(frame: _Frame, item: Series, dash: str) -> Drawn:
    shapes = []
    if item.ends:
        back = "L".join(frame.place(x, y) for x, y in reversed([*zip(item.x, item.ends, strict=True)]))
        shapes.append(Shape("area fill", f"{_way(frame, item)}L{back}Z"))
    halves = zip(item.x, item.y, item.bars or [0.0] * len(item.x), strict=True)
    if bars := "".join(f"M{frame.place(x, y - half)}V{frame.y(y + half)}" for x, y, half in halves if half):
        shapes.append(Shape("bars", bars))
    shapes += [Shape("line", _way(frame, item), dash), Shape("marks", _dots(frame, item))]
    return shapes, [Shape("line", "M1 6H27", dash), Shape("marks", "M14 6h0")]


def _guide(frame: _Frame, item: Series, dash: str) -> Drawn:
    return [Shape("line", _way(frame, item))], [Shape("line", "M1 6H27")]


def _stars(frame: _Frame, item: Series, dash: str) -> Drawn:
    places = [(float(frame.x(x)), float(frame.y(y))) for x, y in zip(item.x, item.y, strict=True)]
    return [Shape("star fill", "".join(_star(x, y) for x, y in places))], [Shape("star fill", _star(14, 6))]


def _spans(frame: _Frame, item: Series, dash: str) -> Drawn:
    half = item.thick / 2
    blocks = (
        f"M{frame.place(x, y - half)}H{frame.x(end)}V{frame.y(y + half)}H{frame.x(x)}Z"
        for x, end, y in zip(item.x, item.ends, item.y, strict=True)
    )
    return [Shape("block fill", "".join(blocks))], [Shape("block fill", _key_block(item.thick))]


def _columns(frame: _Frame, item: Series, dash: str) -> Drawn:
    half = item.thick / 2
    blocks = (
        f"M{frame.x(x - half)} {frame.bottom}V{frame.y(y)}H{frame.x(x + half)}V{frame.bottom}Z"
        for x, y in zip(item.x, item.y, strict=True)
    )
    return [Shape("block fill", "".join(blocks))], [Shape("block fill", _key_block(0.7))]


_DRAW = {"points": _points, "line": _line, "guide": _guide, "stars": _stars, "spans": _spans, "columns": _columns}


def _dots(frame: _Frame, item: Series) -> str:
    """A round cap a point: what lies on another is drawn once."""
    return "".join(f"M{place}h0" for place in dict.fromkeys(map(frame.place, item.x, item.y)))


def _way(frame: _Frame, item: Series) -> str:
    return "M" + "L".join(map(frame.place, item.x, item.y)) if len(item.x) else ""


def _star(x: float, y: float) -> str:
    return "M" + "L".join(f"{_number(x + r * across)} {_number(y + r * down)}" for across, down, r in STAR_POINTS) + "Z"


def _key_block(thick: float) -> str:
    half = _number(5 * min(thick, 1.0) + 0.5)
    return f"M2 {6 - float(half):g}H26V{6 + float(half):g}H2Z"


def _number(place: float) -> str:
    """Half a unit is less than a pixel; coarser numbers make a smaller page."""
    return f"{round(place * 2) / 2:g}"
