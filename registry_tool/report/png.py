"""png.py: the charts of figures as panels of one PNG, drawn by matplotlib. Measures nothing, opens no file.

Colours are those of the page in light: see templates/page.css.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, Figure, Series
from registry_tool.report.scales import ticks
from registry_tool.report.svg import FEW_POINTS, colours, dashes
from registry_tool.values import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_COLUMNS = 3  # panels side by side
PANEL_INCHES, PANEL_LEAST_INCHES = 5.2, 4.4  # width, least height
NAMED_LEAST_INCHES = 1.9  # least height of a chart with an axis of names
NAME_INCHES, MAX_NAME_INCHES = 0.24, 0.45  # height of a line of an axis of names
DOTS_PER_INCH = 120
LINE_MARKERS = ("o", "s", "^", "D", "v", "P")  # lines differ without colour, too
TEXT_CHARACTERS = 200  # longer texts are cut
LARGE_TITLE_CHARACTERS = 90
LEGEND_INCHES = 0.55  # below the axis
DOT_STRENGTH = 0.4  # of a point's colour, so that many in one place are seen to be many


def render_figures(title: str, figures: Sequence[Figure]) -> bytes:
    """The PNG; the same figures give the same bytes. Raises InputError where no figure has a chart."""
    from matplotlib.figure import Figure as Picture

    charts = [(figure.title, figure.chart) for figure in figures if figure.chart is not None]
    if not charts:
        raise InputError(f"--plot: found no chart of {title}, expected a kind whose plugin gives some: leave it out")
    columns = min(len(charts), MAX_COLUMNS)
    rows = [charts[start : start + columns] for start in range(0, len(charts), columns)]
    heights = [max(_height(chart) for _, chart in row) for row in rows]
    picture = Picture(figsize=(PANEL_INCHES * columns, sum(heights) + 0.5), dpi=DOTS_PER_INCH, layout="constrained")
    panels = picture.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    picture.suptitle(_text(title), fontsize=13 if len(title) <= LARGE_TITLE_CHARACTERS else 10)
    for place, (axes, (name, chart)) in enumerate(zip(panels.ravel(), charts, strict=False)):
        axes.set_title(_text(name), fontsize=11)
        _panel(axes, chart, heights[place // columns])
        if any(item.name for item in chart.series):
            below = LEGEND_INCHES / heights[place // columns]
            axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -below), ncols=2)
    for axes in panels.ravel()[len(charts) :]:
        axes.set_visible(False)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name in a script that the font lacks
        picture.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _height(chart: Chart) -> float:
    legend = 0.2 * sum(bool(item.name) for item in chart.series) / 2
    shortest = NAMED_LEAST_INCHES if chart.y.names else PANEL_LEAST_INCHES
    return max(shortest, 1.4 + NAME_INCHES * len(chart.y.names) + legend)


def _panel(axes: Axes, chart: Chart, inches: float) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis, name in ((chart.x, "x"), (chart.y, "y")):
        places, labels = zip(*ticks(axis), strict=True)
        axes.set(**{f"{name}scale": "log" if axis.log else "linear", f"{name}label": _text(axis.label)})
        axes.set(**{f"{name}lim": _limits(axis, inches)})
        getattr(axes, f"set_{name}ticks")(places, [_text(label) for label in labels], fontsize=8 if axis.names else 9)
        axes.minorticks_off()
    looks = zip(colours(chart.series), dashes(chart.series), strict=True)
    for order, (item, (colour, dash)) in enumerate(zip(chart.series, looks, strict=True)):
        _DRAW[item.mark](axes, chart, item, _Look.of(item, colour, dash, 3.0 - order / 100))


@dataclass(frozen=True, slots=True)
class _Look:
    """marker: of the points of a line. dash: matplotlib's pattern. style: what every mark takes."""

    colour: str
    marker: str
    dash: str | tuple[float, list[float]]
    style: dict[str, Any]

    @classmethod
    def of(cls, item: Series, colour: str, dash: str, order: float) -> _Look:
        drawn = palette()[colour]
        number = int(colour[1:]) if colour[1:].isdigit() else 1
        style = {"color": drawn, "zorder": order, "alpha": item.strength}
        if item.name:
            style["label"] = _text(item.name)
        pattern = (0, [float(part) for part in dash.split()]) if dash else "-"
        return cls(drawn, LINE_MARKERS[(number - 1) % len(LINE_MARKERS)], pattern, style)


def _points(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    many = len(item.x) > FEW_POINTS
    style = {**look.style, "alpha": item.strength * (DOT_STRENGTH if many else 1.0)}
    axes.scatter(_on(chart.x, item.x), _on(chart.y, item.y), s=9 if many else 28, linewidths=0, **style)


def _line(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    x, y = _on(chart.x, item.x), _on(chart.y, item.y)
    if item.ends:
        axes.fill_between(x, _on(chart.y, item.ends), y, color=look.colour, alpha=0.18, linewidth=0)
    if item.bars:
        axes.errorbar(x, y, item.bars, fmt="none", color=look.colour, elinewidth=0.9, capsize=2)
    axes.plot(x, y, marker=look.marker, markersize=4.5, linewidth=1.6, linestyle=look.dash, **look.style)


def _guide(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    axes.plot(_on(chart.x, item.x), _on(chart.y, item.y), linewidth=0.9, linestyle=":", **look.style)


def _stars(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    axes.plot(_on(chart.x, item.x), _on(chart.y, item.y), marker="*", markersize=11, linestyle="none", **look.style)


def _spans(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    low, high = _on(chart.x, item.x), _on(chart.x, item.ends)
    width = [end - start for start, end in zip(low, high, strict=True)]
    axes.barh(_on(chart.y, item.y), width, left=low, height=item.thick, linewidth=0, **look.style)


def _columns(axes: Axes, chart: Chart, item: Series, look: _Look) -> None:
    heights = [y - chart.y.low for y in _on(chart.y, item.y)]
    axes.bar(_on(chart.x, item.x), heights, bottom=chart.y.low, width=item.thick, linewidth=0, **look.style)


_DRAW: dict[str, Callable[[Axes, Chart, Series, _Look], None]] = {
    "points": _points,
    "line": _line,
    "guide": _guide,
    "stars": _stars,
    "spans": _spans,
    "columns": _columns,
}


def _limits(axis: Axis, inches: float) -> tuple[float, float]:
    """The first name is on top; a few of them do not fill the height."""
    if not axis.names:
        return axis.low, axis.high
    room = max(0.0, inches / MAX_NAME_INCHES - len(axis.names)) / 2
    return axis.high + room, axis.low - room


def _on(axis: Axis, values: Sequence[float]) -> list[float]:
    """The values, those beyond the axis at its edge."""
    return [min(max(value, axis.low), axis.high) for value in values]


@cache
def palette() -> dict[str, str]:
    """Colour by name, as the page's style has them in light: c0 is grey, c1 to c6 take turns."""
    style = files("registry_tool.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", style.split("@media", 1)[0]))
    return {
        **{f"c{i}": light[f"c{i}"] for i in range(7)},
        "alarm": light["bad"],
        "ink": light["text"],
        "guide": light["text"],
    }


def _text(text: str) -> str:
    """Text as it is: what is between two dollars would be read as a formula."""
    shown = visible(text)
    return (shown if len(shown) <= TEXT_CHARACTERS else shown[:TEXT_CHARACTERS] + "…").replace("$", r"\$")
