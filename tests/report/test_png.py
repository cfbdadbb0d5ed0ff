"""test_png.py: figures as one picture: which panels it has, that it is the same each time, what it cannot draw."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import click
import pytest
from command_line import Program
from thumbs import with_plugin

from registry_tool.errors import InputError
from registry_tool.figures import SERIES_MARKS, SERIES_TONES
from registry_tool.hookspec import Axis, Chart, Figure, Series, Table

pytest.importorskip("matplotlib")
from registry_tool.report import png

pytestmark = pytest.mark.slow

UNIT = Axis("x", 0, 1)
NAMES = Axis.of_names("", ["a", "b$^{", "\N{CJK UNIFIED IDEOGRAPH-4E00}\N{RIGHT-TO-LEFT OVERRIDE}"])


def series(mark: str, tone: str = "own") -> Series:
    return Series(mark, [0.2, 0.8], [0.3, 7.0], mark, ends=[0.5, 0.9] if mark == "spans" else [], tone=tone)


def every_tone(mark: str) -> list[Series]:
    """Without names, which leave a legend on a picture."""
    return [replace(series(mark, tone), name="") for tone in SERIES_TONES]


def figure(*items: Series, x: Axis = UNIT, y: Axis = UNIT) -> Figure:
    return Figure("A $title^", "", Chart(x, y, items))


def drawn(*items: Series, y: Axis = UNIT) -> bytes:
    return png.render_figures("t", [figure(*items, y=y)])


def size(picture: bytes) -> tuple[int, int]:
    """Width and height, from the header of a PNG."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", picture[16:24])
    return width, height


@pytest.mark.parametrize("y", [UNIT, NAMES, Axis("y", 0.01, 10, log=True)])
@pytest.mark.parametrize("mark", SERIES_MARKS)
def test_every_mark_is_drawn(mark: str, y: Axis) -> None:
    """On any axis, without a warning: each leaves something on the picture, the same each time."""
    first, second = (drawn(*every_tone(mark), y=y) for _ in range(2))
    assert first == second
    assert first != drawn(y=y)


@pytest.mark.parametrize("mark", SERIES_MARKS)
def test_every_tone_is_drawn(mark: str) -> None:
    """Each leaves something on the picture."""
    assert drawn() not in [drawn(one) for one in every_tone(mark)]


def test_a_picture_has_a_panel_for_each_chart() -> None:
    """Three side by side; a figure without a chart has none; an axis of many names takes height."""
    one = size(png.render_figures("t", [figure(series("line"))]))
    tables = [Figure("t", "", table=Table([("a",)]))] * 2
    assert size(png.render_figures("t", [figure(series("line")), *tables])) == one
    assert size(png.render_figures("t", [figure(series("line"))] * 3))[0] == 3 * one[0]
    wide, high = size(png.render_figures("t", [figure(series("line"))] * 4))
    assert (wide, high > 1.7 * one[1]) == (3 * one[0], True)
    many = Axis.of_names("", [f"n{i}" for i in range(60)])
    assert size(png.render_figures("t", [figure(series("spans"), y=many)]))[1] > 2 * one[1]


def test_nothing_to_draw_is_one_line() -> None:
    """Figures without a chart, and none at all."""
    for figures in ([], [Figure("t", "only words")]):
        with pytest.raises(InputError, match="found no chart of t"):
            png.render_figures("t", figures)


def test_colours_are_those_of_the_page() -> None:
    """Each tone has a colour, and it is written in the page's style alone."""
    style = files("registry_tool.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    assert set(png.palette().values()) <= set(re.findall(r"#[0-9a-f]{3,6}", style))
    assert len({png.palette()[f"c{i}"] for i in range(7)}) == 7


def test_the_commands_of_plugins_draw_through_the_host(registry: Program, tmp_path: Path) -> None:
    """`ctx.obj.draw` writes a file whole, and says in one line what it cannot do."""
    from registry_tool import toolkit
    from registry_tool.hookspec import hookimpl

    @click.command("picture")
    @toolkit.plot_option("Draw it.")
    @click.option("--empty", is_flag=True)
    @click.pass_context
    def picture(ctx: click.Context, plot: Path, empty: bool) -> None:
        ctx.obj.draw(plot, "t", [] if empty else [figure(series("columns"))])

    class Drawing:
        @hookimpl
        def registry_commands(self) -> list[click.Command]:
            return [picture]

    plugins = with_plugin(Drawing())
    assert registry("picture", "--plot", tmp_path / "a.png", plugins=plugins).code == 0
    assert size((tmp_path / "a.png").read_bytes())[0] > 500
    ran = registry("picture", "--empty", "--plot", tmp_path / "b.png", plugins=plugins)
    assert (ran.code, ran.err.count("\n"), (tmp_path / "b.png").exists()) == (2, 1, False)
