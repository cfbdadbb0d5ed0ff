"""svg.py: a chart as inline SVG with its legend; colours come from the page's style. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from registry_tool.hookspec import Axis, Chart, Series
from registry_tool.report.markup import Markup, el, join

WIDTH, HEIGHT = 540, 400  # user units; text of 13 in them stays readable where a phone shows the chart at two thirds
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 52
COLOURS = 6  # in the page's style: c1 to c6; beyond that they start again
DASHES = (None, "7 4", "2 3", "9 3 2 3")  # lines differ without colour, too


def draw(chart: Chart, name: str, title: str) -> Markup:
    """name: unique in the page. title: for those who do not see it; the axes and the series are put into words."""
    looks = _looks(chart.series)
    words = [el("title", title, id=f"{name}-t"), el("desc", _words(chart), id=f"{name}-d")]
    shapes = [_series(chart, item, *look) for item, look in zip(chart.series, looks, strict=True)]
    frame = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-labelledby": f"{name}-t {name}-d"}
    picture = el("svg", *words, *_frame(chart), *reversed(shapes), **frame)
    keys = (el("li", _key(item, *look), item.name) for item, look in zip(chart.series, looks, strict=True) if item.name)
    return join(el("div", picture, class_="chart"), el("ul", *keys, class_="legend", aria_hidden="true"))


def _looks(series: Sequence[Series]) -> list[tuple[str, str | None]]:
    """The class and the dashes of each series: guides and muted ones have their own, the others take turns."""
    looks, turn = [], 0
    for item in series:
        plain = "guide" if item.mark == "guide" else "c0" if item.muted else ""
        looks.append((plain, None) if plain else (f"c{turn % COLOURS + 1}", DASHES[turn % len(DASHES)]))
        turn += not plain
    return looks


def _words(chart: Chart) -> str:
    axes = (
        f"{side}: {axis.label}, {axis.low:g} to {axis.high:g}" for side, axis in (("across", chart.x), ("up", chart.y))
    )
    series = (f"{item.name}, {len(item.x)} points" for item in chart.series if item.name)
    return "; ".join([*axes, *series])


def _frame(chart: Chart) -> Iterator[Markup]:
    """Grid, tick labels and axis labels."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value, label in ticks(chart.x):
        x = _x(chart, value)
        yield el("path", class_="grid", d=f"M{x} {TOP}V{bottom}")
        yield el("text", label, x=x, y=bottom + 18, text_anchor="middle")
    for value, label in ticks(chart.y):
        y = _y(chart, value)
        yield el("path", class_="grid", d=f"M{LEFT} {y}H{right}")
        yield el("text", label, x=LEFT - 8, y=y, dy="0.35em", text_anchor="end")
    yield el("path", class_="axis", d=f"M{LEFT} {TOP}V{bottom}H{right}")
    middle = (TOP + bottom) / 2
    yield el("text", chart.x.label, class_="label", x=(LEFT + right) / 2, y=HEIGHT - 10, text_anchor="middle")
    turned = f"rotate(-90 16 {middle})"
    yield el("text", chart.y.label, class_="label", x=16, y=middle, transform=turned, text_anchor="middle")


def _series(chart: Chart, item: Series, colour: str, dash: str | None) -> Markup:
    places = [(_x(chart, x), _y(chart, y)) for x, y in zip(item.x, item.y, strict=True)]
    title = el("title", item.name) if item.name else ""
    dots = "".join(f"M{x} {y}h0" for x, y in dict.fromkeys(places))  # a round cap: what lies on another is drawn once
    if item.mark == "points":
        return el("g", title, el("path", class_="dots", d=dots), class_=colour)
    line = "M" + "L".join(f"{x} {y}" for x, y in places) if places else ""
    if item.mark == "guide":
        return el("g", title, el("path", class_="line", d=line), class_=colour)
    bars = "".join(
        f"M{x} {_y(chart, y - half)}V{_y(chart, y + half)}"
        for (x, _), y, half in zip(places, item.y, item.bars or [0.0] * len(places), strict=True)
        if half
    )
    shapes = [el("path", class_="line", d=line, stroke_dasharray=dash), el("path", class_="marks", d=dots)]
    return el("g", title, *([el("path", class_="bars", d=bars)] if bars else []), *shapes, class_=colour)


def _key(item: Series, colour: str, dash: str | None) -> Markup:
    """The little picture before a name in the legend."""
    line = el("path", class_="line", d="M1 6H27", stroke_dasharray=dash if item.mark == "line" else None)
    dot = el("path", class_="dots key" if item.mark == "points" else "marks", d="M14 6h0")
    shown = {"points": [dot], "line": [line, dot], "guide": [line]}[item.mark]
    return el("svg", el("g", *shown, class_=colour), viewBox="0 0 28 12", class_="key")


def _x(chart: Chart, value: float) -> str:
    return _number(LEFT + _part(chart.x, value) * (WIDTH - LEFT - RIGHT))


def _y(chart: Chart, value: float) -> str:
    return _number(HEIGHT - BOTTOM - _part(chart.y, value) * (HEIGHT - TOP - BOTTOM))


def _part(axis: Axis, value: float) -> float:
    """Where a value lies on its axis, 0 to 1; beyond the ends, at the end."""
    value = min(max(value, axis.low), axis.high)
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)


def _number(place: float) -> str:
    """Half a unit is less than a pixel; coarser numbers make a smaller page."""
    return f"{round(place * 2) / 2:g}"


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Round values on the axis and their labels: three to seven, or what a logarithm's decades give."""
    if axis.log:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        steps = (1, 2, 5) if math.log10(axis.high / axis.low) < 2.5 else (1,)
        values = [step * 10.0**decade for decade in decades for step in steps]
        return [(v, f"{v:g}") for v in values if axis.low * (1 - 1e-9) <= v <= axis.high * (1 + 1e-9)]
    rough = (axis.high - axis.low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    digits = max(0, 1 - math.floor(math.log10(step)) if step / unit == 2.5 else -math.floor(math.log10(step)))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]
