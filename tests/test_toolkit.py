"""test_toolkit.py: what plugins find in the toolkit: comparison, tables, progress, escaping, rows in files."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import pty
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_tool import toolkit
from registry_tool.errors import InputError, WorldError
from registry_tool.storage import disk
from registry_tool.toolkit import EXACT, MISSING, OTHER_PROGRAM, ROUNDING, Columns, Parquet, Tolerance

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


# ---- comparison -------------------------------------------------------------------------------------------------


@given(JSON)
def test_a_document_differs_from_itself_nowhere(document: Any) -> None:
    """By any tolerance, and after a round through JSON."""
    again = json.loads(json.dumps(document))
    for tolerance in (EXACT, ROUNDING, OTHER_PROGRAM):
        assert list(toolkit.differences(again, document, tolerance)) == []


@given(JSON, JSON)
def test_equal_is_what_has_no_difference(one: Any, other: Any) -> None:
    """Exactly: the same JSON text, keys in any order; and a difference has its mirror image."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    found = list(toolkit.differences(one, other))
    if "-0.0" not in json.dumps([one, other]):  # equal to 0.0, and another text
        assert same == (not found)
    mirrored = {(d.pointer, repr(d.expected), repr(d.found)) for d in toolkit.differences(other, one)}
    assert {(d.pointer, repr(d.found), repr(d.expected)) for d in found} == mirrored


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "holds"),
    [
        (1.0, 1.0 + 5e-10, ROUNDING, True),
        (1.0, 1.0 + 5e-9, ROUNDING, False),
        (1e6, 1e6 + 5e-4, ROUNDING, True),
        (0.0, 5e-10, ROUNDING, True),
        (1.0, 1.0 + 5e-7, OTHER_PROGRAM, True),
        (1.0, 1.0 + 1e-16, EXACT, True),  # one float64
        (1.0, 1.0 + 5e-15, EXACT, False),
        (1, 1.0, ROUNDING, True),
        (1, 1.0, EXACT, False),
        (1.0, 1, ROUNDING, False),
        (True, 1.0, ROUNDING, False),
        (True, 1, ROUNDING, False),
        ("1", 1.0, ROUNDING, False),
        (None, 1.0, OTHER_PROGRAM, False),
        (math.nan, math.nan, OTHER_PROGRAM, False),
        (math.inf, math.inf, ROUNDING, True),
        (10**400, 1.0, OTHER_PROGRAM, False),
        (3.0, 2.0, Tolerance(0.0, 1.0), True),
    ],
)
def test_a_tolerance_holds_for_numbers_alone(found: Any, expected: Any, tolerance: Tolerance, holds: bool) -> None:
    """Floats within it; whole numbers, texts and truth values exactly; NaN never."""
    assert tolerance.holds(found, expected) is holds
    assert (list(toolkit.differences([found], [expected], tolerance)) == []) is holds


def test_a_difference_says_where() -> None:
    """By JSON pointer, keys escaped; what one side lacks is MISSING, and lists of other lengths differ whole."""
    found = {"a": [1, 2], "b/c": {"~": 1.0}, "new": 1}
    expected = {"a": [1, 2, 3], "b/c": {"~": 2.0}, "old": None}
    said = [(d.pointer, d.found, d.expected) for d in toolkit.differences(found, expected)]
    assert said == [
        ("/a", [1, 2], [1, 2, 3]),
        ("/b~1c/~0", 1.0, 2.0),
        ("/old", MISSING, None),
        ("/new", 1, MISSING),
    ]
    assert said[2][1] is MISSING
    assert list(toolkit.differences("nothing", MISSING)) != []


# ---- tables and text --------------------------------------------------------------------------------------------


@given(st.text())
def test_no_text_gives_orders_to_a_terminal(text: str) -> None:
    """Whatever is shown is printable, and doing it twice changes nothing."""
    shown = toolkit.visible(text)
    assert shown.isprintable()
    assert toolkit.visible(shown) == shown


@given(st.text())
def test_no_text_is_markdown(text: str) -> None:
    """Nothing that Markdown or HTML reads as its own is left, and it stays in its table's cell."""
    assert set(toolkit.markdown_text(text)) <= set(string.ascii_letters + string.digits + " .,:;/()+-&#")


def test_columns_are_aligned() -> None:
    """Texts to the left, numbers to the right, a missing number too; hidden characters count as they are shown."""
    rows = [["name", "n", "share", "x"], ["a\tb", 1, "5.0 %", "-"], ["c", 100, "nan", "1e-3"], ["d", 7, "", "y"]]
    assert list(toolkit.text_table(rows)) == [
        "name    n  share  x",
        "a\\tb    1  5.0 %  -",
        "c     100    nan  1e-3",
        "d       7         y",
    ]
    assert list(toolkit.text_table([["licence", "n"], ["-", "-1"], ["-", ""]])) == ["licence   n", "-        -1", "-"]
    assert list(toolkit.text_table([])) == []


def test_a_table_in_markdown() -> None:
    """A header, its rule, and the rows."""
    rows = [["", "n"], ["a", "1"], ["", ""]]
    assert list(toolkit.markdown_table(rows, right=[1])) == ["| | n |", "| --- | ---: |", "| a | 1 |", "| | |"]


def test_a_warning_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on its own line, with what a file's name could tell a terminal spelt out."""
    toolkit.warn("a\x1b[2Jb\nc", "d")
    assert capsys.readouterr().err == "warning: a\\x1b[2Jb\\nc\nwarning: d\n"


# ---- progress ---------------------------------------------------------------------------------------------------

WORK = """
import sys, time
from registry_tool.toolkit import progress_bar
with progress_bar() as progress:
    for what, total in (("reading", 3), ("training", 2)):
        for done in range(total + 1):
            progress(what, done, total)
    progress.note("a note")
    progress("none", 0, 0)
    if sys.argv[1] == "fail":
        raise SystemExit("failed")
print("the result")
"""


def screen(text: str) -> list[str]:
    """What a terminal shows in the end, by the few orders that a progress bar gives."""
    lines, row, column, rest = [""], 0, 0, text
    while rest:
        if rest.startswith("\x1b["):
            end = next(i for i, c in enumerate(rest) if c.isalpha())
            order, rest = rest[2 : end + 1], rest[end + 1 :]
            if order == "1A":
                row -= 1
            elif order == "2K":
                lines[row] = ""
            elif order == "K":
                lines[row] = lines[row][:column]
            else:
                assert order in ("?25l", "?25h"), order
            continue
        character, rest = rest[0], rest[1:]
        if character == "\r":
            column = 0
        elif character == "\n":
            row, lines = row + 1, [*lines, ""] if row + 1 == len(lines) else lines
        else:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("end", ["well", "fail"])
def test_a_bar_goes_away(end: str) -> None:
    """On a terminal a bar a kind of work, gone when it is done or failed; notes stay, and output comes last."""
    master, slave = pty.openpty()
    ran = subprocess.run([sys.executable, "-c", WORK, end], stdout=subprocess.PIPE, stderr=slave, check=False)
    os.close(slave)
    seen = ""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while data := os.read(master, 1 << 16):
            seen += data.decode()
    os.close(master)
    assert "reading" in seen
    assert "training" in seen
    assert "2/2" in seen
    assert [line for line in screen(seen) if line] == ["a note", *(["failed"] if end == "fail" else [])]
    assert ran.stdout == (b"" if end == "fail" else b"the result\n")


def test_a_pipe_sees_no_bar() -> None:
    """Only notes."""
    ran = subprocess.run([sys.executable, "-c", WORK, "well"], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("the result\n", "a note\n")


# ---- files ------------------------------------------------------------------------------------------------------


def test_a_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops its writing: an exception of the writer, Ctrl-C, a full disk. Nothing is left beside it."""
    target = tmp_path / "out.csv"
    target.write_text("old")

    def fail(error: BaseException) -> None:
        with toolkit.output_file(target) as file:
            file.write(b"half")
            raise error

    for error in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fail(error)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", full)
        with pytest.raises(WorldError, match="the disk is full"):
            toolkit.write_rows([{"a": [1]}], target)
    assert ([p.name for p in tmp_path.iterdir()], target.read_text()) == (["out.csv"], "old")
    with toolkit.output_file(target) as file:
        file.write(b"new")
    assert target.read_text() == "new"


def test_what_is_written_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream's bytes are fsynced before the name is theirs, and the folder after it."""
    seen: list[str] = []
    for name in ("fsync", "rename"):
        real = getattr(disk, name)
        monkeypatch.setattr(disk, name, lambda *a, n=name, r=real, **k: (seen.append(n), r(*a, **k))[1])
    toolkit.write_rows([{"a": [1]}], tmp_path / "x.csv")
    assert seen == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("target", ["", "folder", "no/file.csv"])
def test_a_place_that_is_none_is_one_line(target: str, tmp_path: Path) -> None:
    """A folder, or a file in one that is not there."""
    (tmp_path / "folder").mkdir()
    with pytest.raises((InputError, WorldError)) as caught, toolkit.output_file(tmp_path / target):
        pass
    assert str(caught.value).count("\n") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


# ---- rows -------------------------------------------------------------------------------------------------------

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8).map(str.strip)
ROWS = st.lists(st.tuples(CELLS, st.floats(-1e9, 1e9), st.integers(-9, 9)), min_size=1, max_size=7)
TYPES = {"name": "string", "x": "double", "n": "int64"}


def batched(rows: list[tuple[Any, ...]], size: int) -> Iterator[dict[str, list[Any]]]:
    for start in range(0, len(rows), size):
        yield dict(zip(TYPES, map(list, zip(*rows[start : start + size], strict=True)), strict=True))


@settings(max_examples=40)
@given(ROWS, st.integers(1, 3), st.sampled_from(toolkit.FORMATS))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: Any, size: int, form: str) -> None:
    """What is written in any format, in batches of any size, is read again as it was."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path_factory.getbasetemp() / f"rows.{form}"
    assert toolkit.write_rows(batched(rows, size), path, parquet=Parquet(TYPES)) == len(rows)
    columns = Columns(("x", "n"), ("name",))
    found = []
    ticks: list[tuple[str, int, int]] = []
    for batch in toolkit.read_rows(path, lambda names: columns, size, lambda *tick: ticks.append(tick)):
        names = [batch.texts["name"].names[code] for code in batch.texts["name"].codes]
        found += list(zip(names, batch.numbers["x"].tolist(), batch.numbers["n"].tolist(), strict=True))
    assert found == rows
    assert ticks[-1][1] == ticks[-1][2]


def test_a_parquet_says_how_it_was_made(tmp_path: Path) -> None:
    """Types by column, and metadata that is known when the last row is written."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows: list[int] = []

    def tables() -> Iterator[dict[str, list[Any]]]:
        for n in (1, 2):
            rows.append(n)
            yield {"n": [n], "x": [0.5]}

    path = tmp_path / "a.parquet"
    toolkit.write_rows(tables(), path, parquet=Parquet({"n": "int32", "x": "float"}, lambda: {"rows": str(rows)}))
    assert toolkit.read_metadata(path, "rows") == "[1, 2]"
    assert toolkit.read_metadata(path, "other") is None
    assert [str(field.type) for field in parquet.read_schema(path)] == ["int32", "float"]
    assert parquet.ParquetFile(path).num_row_groups == 2
    assert toolkit.read_metadata(tmp_path / "a.csv", "rows") is None


def test_bad_input_touches_no_output(tmp_path: Path) -> None:
    """The first batch is asked for before the file is opened; a later failure keeps the old file."""
    target = tmp_path / "out.csv"
    target.write_text("old")

    def failing(good: int) -> Iterator[dict[str, list[Any]]]:
        for n in range(good):
            yield {"n": [n]}
        raise InputError("bad row")

    for good in (0, 2):
        with pytest.raises(InputError, match="bad row"):
            toolkit.write_rows(failing(good), target)
        assert ([p.name for p in tmp_path.iterdir()], target.read_text()) == (["out.csv"], "old")
    with pytest.raises(InputError, match=r"found the extension '.xlsx'"):
        toolkit.write_rows([{"n": [1]}], tmp_path / "out.xlsx")


def test_rows_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """`-`, as CSV or JSON lines; a parquet asks for a file."""
    assert toolkit.write_rows([{"a": ["x,y"], "b": [None]}, {"a": ["z"], "b": [2]}], "-", "csv") == 2
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [["a", "b"], ["x,y", ""], ["z", "2"]]
    toolkit.write_rows([{"a": ["é"], "b": [True]}], "-", "jsonl")
    assert json.loads(capsys.readouterr().out) == {"a": "é", "b": True}
    with pytest.raises(InputError, match="-o FILE"):
        toolkit.write_rows([{"a": [1]}], "-", "parquet")


@pytest.mark.parametrize("form", toolkit.FORMATS)
def test_a_number_has_its_limit(form: str, tmp_path: Path) -> None:
    """What is larger than the reader can compute with is named by place and column."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows.{form}"
    toolkit.write_rows([{"x": [1.0, 1e13]}], path)
    assert [batch.n for batch in toolkit.read_rows(path, lambda names: Columns(("x",)))] == [2]
    with pytest.raises(InputError, match=r"rows\.\w+.*column x: found 10000000000000.0, expected at most 1e\+12"):
        list(toolkit.read_rows(path, lambda names: Columns(("x",), largest=1e12)))


def test_every_tool_is_documented() -> None:
    """docs/plugins.md names each public name of the toolkit, and none that it lacks."""
    text = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
    section = text.split("## The toolkit", 1)[1].split("\n## ", 1)[0]
    named = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    own = {n for n, v in vars(toolkit).items() if getattr(v, "__module__", "").startswith("registry_tool.")}
    constants = {"FORMATS", "MISSING", "EXACT", "ROUNDING", "OTHER_PROGRAM", "BATCH_ROWS"}
    hidden = {"pointer", "ProgressBar", "Difference", "Place", "InputError"}
    assert named == {n for n in own | constants if not n.startswith("_")} - hidden
