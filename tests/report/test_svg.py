"""test_report_svg.py: charts: where points land, round ticks, looks. The page around them is test_report.py's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool.hookspec import Axis, Chart, Series
from registry_tool.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw, ticks

UNIT = Axis("x", 0, 1)


def drawn(*series: Series, x: Axis = UNIT, y: Axis = UNIT) -> str:
    return draw(Chart(x, y, series), "f", "A chart")


def dots(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", text.split("<ul")[0])]


def test_points_land_where_they_should() -> None:
    """The corners and the middle of the axes are those of the frame; what lies outside is drawn at its edge."""
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    series = Series("a", [0, 1, 0.5, 7, -7], [0, 1, 0.5, 0.5, -7])
    assert dots(drawn(series)) == [
        (left, bottom), (right, top), ((left + right) / 2, (top + bottom) / 2), (right, (top + bottom) / 2),
    ]  # fmt: skip  # the last lies on the first, and is drawn once


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
        assert float(label) == pytest.approx(value, abs=1e-3 * width)


def test_bars_reach_from_below_to_above() -> None:
    """A bar of half-length 0.25 around 0.5 spans half of the axis."""
    text = drawn(Series("a", [0.5], [0.5], "line", bars=[0.25]))
    (ends,) = re.findall(r'class="bars" d="M[\d.]+ ([\d.]+)V([\d.]+)"', text)
    assert abs(float(ends[0]) - float(ends[1])) == pytest.approx((HEIGHT - TOP - BOTTOM) / 2, abs=0.5)


def test_series_are_told_apart_without_colour() -> None:
    """Lines differ by their dashes, muted series are grey, guides have no colour; the first lies on top."""
    lines = [Series(f"l{i}", [0, 1], [0, i / 9], "line") for i in range(3)]
    text = drawn(Series("way", [0, 1], [0, 1], "guide"), *lines, Series("rest", [0.5], [0.5], muted=True))
    picture, legend = text.split("<ul", 1)
    assert re.findall(r'<g class="(\w+)"', picture) == ["c0", "c3", "c2", "c1", "guide"]
    assert re.findall(r'stroke-dasharray="([\d ]+)"', picture) == ["2 3", "7 4"]
    assert re.findall(r"</svg>([\w ]+)</li>", legend) == ["way", "l0", "l1", "l2", "rest"]


def test_nothing_to_draw() -> None:
    """A series without points leaves the frame and its name."""
    text = drawn(Series("none", [], [], "line"), Series("", [], []))
    assert "none</li>" in text
    assert dots(text) == []
