"""test_svg.py: charts: where points land, round ticks, looks. The page around them is test_html.py's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool.hookspec import Axis, Chart, Series
from registry_tool.report.scales import ticks
from registry_tool.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw
from registry_tool.report.templating import render

UNIT = Axis("x", 0, 1)


def drawn(*series: Series, x: Axis = UNIT, y: Axis = UNIT) -> str:
    return render("chart.html.jinja", drawing=draw(Chart(x, y, series), "f", "A chart"))


def dots(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", text.split("<ul")[0])]


def test_points_land_where_they_should() -> None:
    """The corners and the middle of the axes are those of the frame; what lies outside is drawn at its edge."""
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    series = Series("a", [0, 1, 0.5, 7, -7], [0, 1, 0.5, 0.5, -7])
    assert dots(drawn(series)) == [
        (left, bottom),
        (right, top),
        ((left + right) / 2, (top + bottom) / 2),
        (right, (top + bottom) / 2),
    ]  # the last lies on the first, and is drawn once


def test_a_logarithm_gives_decades_one_length() -> None:
    """0.01, 0.1 and 1 are evenly apart on an axis from 0.01 to 1; a value below 0 is drawn at the edge."""
    text = drawn(Series("a", [0.01, 0.1, 1, -3], [0, 0, 0, 1]), x=Axis("x", 0.01, 1, log=True))
    first, second, third, edge = (x for x, _ in dots(text))
    assert second - first == pytest.approx(third - second, abs=0.5)
    assert edge == first == LEFT


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis("x", 0, 1), "0.0 0.2 0.4 0.6 0.8 1.0"),
        (Axis("x", 0, 100), "0 20 40 60 80 100"),
        (Axis("x", -12, 102), "0 20 40 60 80 100"),
        (Axis("x", 0, 12), "0 2 4 6 8 10 12"),
        (Axis("x", 0, 13), "0.0 2.5 5.0 7.5 10.0 12.5"),
        (Axis("x", -0.003, 0.004), "-0.002 0.000 0.002 0.004"),
        (Axis("x", 0.004, 30, log=True), "0.01 0.1 1 10"),
        (Axis("x", 0.6, 7, log=True), "1 2 5"),
        (Axis("x", 1.3, 3.5, log=True), "1.5 2.0 2.5 3.0 3.5"),
    ],
)
def test_ticks_by_hand(axis: Axis, labels: str) -> None:
    """Ticks are round, with as many digits as they need."""
    assert " ".join(label for _, label in ticks(axis)) == labels


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_distinct_and_true(low: float, span: float) -> None:
    """Whatever the axis: three to seven ticks on it, and each label reads as its value."""
    axis = Axis("x", low, low + max(span, abs(low) * 1e-6))
    found = ticks(axis)
    width = axis.high - axis.low
    assert 3 <= len(found) <= 7
    assert len({label for _, label in found}) == len(found)
    for value, label in found:
        assert axis.low - 1e-6 * width <= value <= axis.high + 1e-6 * width
        assert abs(float(label) - value) <= 1e-3 * width


def test_bars_reach_from_below_to_above() -> None:
    """A bar of half-length 0.25 around 0.5 spans half of the axis."""
    text = drawn(Series("a", [0.5], [0.5], "line", bars=[0.25]))
    (ends,) = re.findall(r'class="bars" d="M[\d.]+ ([\d.]+)V([\d.]+)"', text)
    assert abs(float(ends[0]) - float(ends[1])) == pytest.approx((HEIGHT - TOP - BOTTOM) / 2, abs=0.5)


def test_series_are_told_apart_without_colour() -> None:
    """Lines differ by their dashes, muted series are grey, guides have no colour; the first lies on top."""
    lines = [Series(f"l{i}", [0, 1], [0, i / 9], "line") for i in range(3)]
    text = drawn(Series("way", [0, 1], [0, 1], "guide"), *lines, Series("rest", [0.5], [0.5], tone="muted"))
    picture, legend = text.split("<ul", 1)
    assert re.findall(r'<g class="(\w+)"', picture) == ["c0", "c3", "c2", "c1", "guide"]
    assert re.findall(r'stroke-dasharray="([\d ]+)"', picture) == ["2 3", "7 4"]
    assert re.findall(r"</svg>([\w ]+)</li>", legend) == ["way", "l0", "l1", "l2", "rest"]


def test_nothing_to_draw() -> None:
    """A series without points leaves the frame and its name."""
    text = drawn(Series("none", [], [], "line"), Series("", [], []))
    assert "none</li>" in text
    assert dots(text) == []


def test_spans_and_names() -> None:
    """An axis of names has a line for each, the first on top, and spans reach from end to end along it."""
    names = [f"name{i}" for i in range(12)]
    text = drawn(Series("s", [0, 0.5], [0, 11], "spans", ends=[0.5, 1]), y=Axis.of_names("", names))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" dy="0.35em" text-anchor="end">name', text)]
    assert (len(heights), heights) == (12, sorted(heights))
    (block,) = re.findall(r'class="block fill" d="([^"]+)"/></g>\n</svg>', text)
    first, second = re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H", block)
    (_, top, end, bottom), (other, _, right, _) = (tuple(map(float, found)) for found in (first, second))
    assert (end, right) == (other, WIDTH - RIGHT)
    assert (top + bottom) / 2 == pytest.approx(heights[0], abs=0.5)
    assert abs(bottom - top) == pytest.approx(0.7 * (heights[1] - heights[0]), abs=1)


def test_columns_stand_on_the_axis() -> None:
    """A column of half the height and a tenth of the width."""
    text = drawn(Series("c", [0.5], [0.5], "columns", thick=0.1))
    (left, foot, top, right) = map(float, re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)V", text)[0])
    assert (foot, right - left) == (HEIGHT - BOTTOM, pytest.approx((WIDTH - LEFT - RIGHT) / 10, abs=1))
    assert foot - top == pytest.approx((HEIGHT - TOP - BOTTOM) / 2, abs=1)


def test_areas_and_stars() -> None:
    """A line's area goes out along it and back along its ends; a star has ten corners; strength is an opacity."""
    area = drawn(Series("l", [0, 1], [1, 1], "line", ends=[0, 0.5], strength=0.25))
    assert len(re.findall(r'class="area fill" d="M[^"]*Z"', area)) == 1
    assert 'opacity="0.25"' in area
    star = drawn(Series("s", [0.5], [0.5], "stars", tone="ink"))
    assert re.findall(r'<g class="(\w+)">', star) == ["ink", "ink"]
    assert re.findall(r'class="star fill" d="([^"]+)"', star)[0].count("L") == 9
