"""Tests of columnar.py beside exact.py: pyarrow and the standard library read the same rows, or refuse them alike."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_tool.errors import InputError
from registry_tool.rows import blocks, exact
from registry_tool.rows.batches import Columns, missing_column
from registry_tool.rows.reading import read_rows

pytest.importorskip("pyarrow")

HEADER = "a,b,c"
CELLS = (
    *("0", "1", "-1.5", "1e5", "1E-5", ".5", "5.", "1e400", "-1e-400", "9007199254740993", "1" + "0" * 30, "-0", "+3"),
    *(
        "1_000",
        " 2",
        "3\t",
        "\u20034",
        "\u0661",
        "0x10",
        "nan",
        "-inf",
        "Infinity",
        "NULL",
        "N/A",
        "",
        " ",
        "+-1",
        "1d",
    ),
    *("x", " x ", "é", "\U0001f3a5", "\x00", "\x1f", "\u2028", "\ufeff", "'", "a b", "=1", "true"),
    *('"', '""', '"x"', '"x,y"', '"1.5"', '"x""y"', '"x\ny"', 'x"y', '"x"y', ' "x"', '"x', "x'", '"\r\n"'),
)
ENDS = ("\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r\n", "")
COLUMNS = (
    Columns(("a",), ("b",), ("c",)),
    Columns(("a", "b")),
    Columns((), ("a",), ("a", "b")),
    Columns(("a",), ("b",), ("a", "b"), largest=1e6),
    Columns(),
)
# Rows that are mostly good, so that much is read before something odd comes.
GOOD = st.tuples(*[st.sampled_from(("1", "2.5", "-3e-2"))] * 3)
ODD = st.lists(st.sampled_from(CELLS), min_size=1, max_size=4).map(tuple)
ROWS = st.lists(st.one_of(GOOD, GOOD, GOOD, ODD), max_size=14)
FILES = st.builds(
    lambda mark, rows, ends, last: (
        mark
        + HEADER
        + "\n"
        + "".join(",".join(row) + end for row, end in zip(rows, [*ends, *["\n"] * len(rows)], strict=False))
        + last
    ),
    st.sampled_from(("", "", "\ufeff")),
    ROWS,
    st.lists(st.one_of(st.just("\n"), st.just("\n"), st.sampled_from(ENDS)), max_size=14),
    st.sampled_from(("", "", "1,2,3", "1,2", '"')),
)
NOISE = st.text(st.sampled_from('12.,,"\n\n\r e-_+é\ufeff'), max_size=40).map(lambda text: f"{HEADER}\n{text}")


def outcome(path: Path, columns: Columns, batch_rows: int) -> list[Any]:
    """All that a reader says of a file: numbers bit by bit, texts, values, places, progress; and how it ends."""
    found: list[Any] = []

    def pick(names: Sequence[str]) -> Columns:
        for name in columns.names:
            if name not in names:
                raise missing_column(path, name, names)
        return columns

    def progress(what: str, done: int, total: int) -> None:
        found.append(what)

    try:
        for batch in read_rows(path, pick, batch_rows, progress):
            found.append({name: values.astype("<f8").tobytes() for name, values in batch.numbers.items()})
            found += [text.tolist() for text in batch.texts.values()]
            found += [batch.n, batch.values, [batch.place(index) for index in range(batch.n)]]
    except InputError as error:
        found.append(str(error))
    return found


def both(path: Path, columns: Columns, batch_rows: int, block: int = 1 << 20) -> tuple[list[Any], list[Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block)
        ours = outcome(path, columns, batch_rows)
        patch.setitem(sys.modules, "pyarrow", None)
        return ours, outcome(path, columns, batch_rows)


@settings(max_examples=200)
@given(
    st.one_of(FILES, FILES, NOISE), st.sampled_from(COLUMNS), st.integers(1, 6), st.sampled_from((1, 7, 24, 1 << 20))
)
@example("a,b,c\n1,x,y\n\n\n2,é,\n1_000,x,y\n4,x,y\n", COLUMNS[0], 2, 7)
@example('a,b,c\n"1","x","y"\n2,"x,""z""",""\n', COLUMNS[0], 1, 24)
@example('a,b,c\n1,"x\ny",z\n2,x,y\n', COLUMNS[0], 1, 7)
@example("a,b,c\n1,x,y\n\ufeff2,x,y\n", COLUMNS[0], 1, 7)
@example("a,b,c\n\ufeff\n", COLUMNS[0], 1, 7)
@example("a,b,c\n1,x,y\n2,3,4\n", Columns(), 1, 7)
@example("a,b,c\r1,x,y\r", COLUMNS[0], 1, 7)
@example('"a","b\n","c"\n1,2,3\nx,2,3\n', COLUMNS[0], 1, 24)
def test_both_readers_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, text: str, columns: Columns, batch_rows: int, block: int
) -> None:
    """The same batches with the same bits and lines, or the same words, wherever a block or a batch ends."""
    path = tmp_path_factory.getbasetemp() / "both.csv"
    path.write_bytes(text.encode())
    ours, theirs = both(path, columns, batch_rows, block)
    assert ours == theirs


JSON_VALUES = (
    *("0", "-0", "-0.0", "1", "-1.5", "1e5", "1E-5", "1e400", "1" + "0" * 308, "1" + "0" * 400, "9007199254740993"),
    *(
        "01",
        "1.",
        ".5",
        "+1",
        "1_0",
        "NaN",
        "Infinity",
        "-Infinity",
        "Inf",
        "null",
        "true",
        "[1]",
        "[]",
        "{}",
        '{"a": 1}',
    ),
    *(
        '"x"',
        '" x "',
        '"1"',
        '"2020-01-01"',
        '""',
        '"é"',
        '"\\u00e9"',
        '"\\ud800"',
        '"\\ud83c\\udfa5"',
        '"\t"',
        '"\\t"',
        '"\x00"',
    ),
    *('"{"', '"}{"', '"["', '"Information"', '"\u2028"', "123456789012345678901234567890", "1 ", "x", '"'),
)
JSON_KEYS = st.sampled_from(("a", "a", "a", "b", "b", "c", "d", "\\u0061"))
ODD_OBJECTS = st.lists(st.tuples(JSON_KEYS, st.sampled_from(JSON_VALUES)), max_size=4).map(
    lambda items: "{" + ", ".join(f'"{key}": {value}' for key, value in items) + "}"
)
GOOD_OBJECTS = st.builds(
    lambda a, b, c: f'{{"a": {a}, "b": {b}, "c":{c}}}',
    st.sampled_from(("1", "2.5", "-3e-2")),
    st.sampled_from(('"x"', '"é"', "null")),
    st.sampled_from(("20", "7", "-1")),
)
JSON_LINES = st.one_of(
    GOOD_OBJECTS,
    GOOD_OBJECTS,
    GOOD_OBJECTS,
    GOOD_OBJECTS,
    ODD_OBJECTS,
    st.sampled_from(
        ("", " ", "\u2003", "1", "{", "}", '{"a": 1}{"a": 2}', '{"a": 1}}', ' {"a": 1}', '{"a": 1} ', '{"a": 1}\x00')
    ),
)
JSON_FILES = st.builds(
    lambda mark, rows, ends: (
        mark + "".join(row + end for row, end in zip(rows, [*ends, *["\n"] * len(rows)], strict=False))
    ),
    st.sampled_from(("", "", "\ufeff")),
    st.lists(JSON_LINES, max_size=12),
    st.lists(st.one_of(st.just("\n"), st.just("\n"), st.sampled_from(ENDS)), max_size=12),
)
JSON_COLUMNS = (
    Columns(("a",), ("b",)),
    Columns(("a",), ("b", "c")),
    Columns(("a", "c"), ("b",), largest=1e6),
    Columns(("a",), (), ("b",)),
    Columns(("a",), ("a", "b")),
    Columns((), ("b",)),
    Columns(),
)


@settings(max_examples=200)
@given(JSON_FILES, st.sampled_from(JSON_COLUMNS), st.integers(1, 6), st.sampled_from((1, 30, 90, 1 << 20)))
@example('{"a": 1, "b": "x", "c": 20}\n{"a": -0, "b": "y", "c": 21}\n', JSON_COLUMNS[1], 1, 30)
@example('{"a": 1}\n{"a": 2}\n', Columns(), 1, 30)
@example('{"a": 1, "b": 1, "c": 20}\n\n{"a": 2, "b": "y", "c": 1.0}\n', JSON_COLUMNS[1], 1, 30)
@example('{"a": 1, "b": "x", "d": Inf}\n', JSON_COLUMNS[0], 1, 30)
@example('{"a": 1, "b": "x"}\n{"a": 1, "b": "x"}{"a": 2, "b": "y"}\n', JSON_COLUMNS[0], 1, 1 << 20)
def test_both_readers_say_the_same_of_json_lines(
    tmp_path_factory: pytest.TempPathFactory, text: str, columns: Columns, batch_rows: int, block: int
) -> None:
    """The same batches, or the same words, wherever a block or a batch ends."""
    path = tmp_path_factory.getbasetemp() / "both.jsonl"
    path.write_bytes(text.encode())
    ours, theirs = both(path, columns, batch_rows, block)
    assert ours == theirs


def test_json_lines_of_any_depth_and_length_are_taken_alike(tmp_path: Path) -> None:
    """Nesting without end, digits without end, and lines longer than a block."""
    path = tmp_path / "odd.jsonl"
    for odd in ("[" * 100_000, '{"d": ' * 100_000, "1" * 5000, f'"{"x" * 200_000}"'):
        path.write_text(f'{{"a": 1, "b": "x"}}\n{{"a": 2, "b": "y", "d": {odd}}}\n')
        for block in (16, 1 << 20):
            ours, theirs = both(path, JSON_COLUMNS[0], 1, block)
            assert ours == theirs


@pytest.mark.parametrize(
    "data",
    [
        b"a,b,c\n1,\xff,2\n",
        b"a,b,c\n1,2,3\n1,2,\xe2\x82\n",
        b"\xef\xbb\xbf\xef\xbb\xbfa,b,c\n1,2,3\n",
        b"a,b,c\n1,2," + b"x" * 140_000 + b"\n",
        b"a,b,c\n1,2," + b"x" * 120_000 + b"\n3,4,5\n",
        b"a,b,c\n1," + b"x" * 100_000 + b"," + b"y" * 100_000 + b"\n3,4,5\nz,4,5\n",
        b"",
        b"\n",
        b"\na,b,c\n1,2,3\n",
        b'a,b,"c\n1,2,3\n',
        b"a,b,c\n\n\n",
    ],
    ids=range(11),
)
def test_files_of_other_forms_are_taken_alike(tmp_path: Path, data: bytes) -> None:
    """Bytes that are no UTF-8, fields of any length, files without rows or with an odd header."""
    path = tmp_path / "odd.csv"
    path.write_bytes(data)
    for block in (16, 1 << 20):
        ours, theirs = both(path, COLUMNS[0], 2, block)
        assert ours == theirs


@settings(max_examples=100)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from(("r", "g", "e")))
def test_numbers_are_read_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], how: str
) -> None:
    """The shortest digits, and fewer or more of them, give the bits that Python gives."""
    texts = [repr(value) if how == "r" else format(value, f".17{how}") for value in values]
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    path.write_text("x\n" + "\n".join(texts) + "\n")
    (batch,) = read_rows(path, lambda names: Columns(("x",)))
    assert batch.numbers["x"].tobytes() == np.array([float(text) for text in texts]).tobytes()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", "a;b;c\n1;x;20\n2.5;y;\n"),
        ("plain.tsv", "a\tb\tc\r\n1\tx\t20\r\n2.5\t\t\r\n"),
        ("plain.csv", 'a,b,c\n1,x,20\n\n2.5,"y, ""z""",\n'),
        ("plain.csv", "\ufeffa,b,c\r\n1,é,20\r\n 2.5 ,,\r\n"),
        ("plain.jsonl", '{"a": 1, "b": "é", "c": 20}\n\n{"a": 2.5, "b": null, "d": "x"}'),
        ("plain.jsonl", '{"a": 1, "b": "x", "c": -1}\r\n{"a": 2.5, "b": "y", "c": 7}\r\n'),
    ],
)
def test_plain_files_are_read_by_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """The line-by-line reader is not asked for a single row of them."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    for reader in ("csv_batches", "jsonl_batches"):
        monkeypatch.setattr(exact, reader, lambda *_: pytest.fail("read line by line"))
    (batch,) = read_rows(path, lambda names: Columns(("a",), ("b", "c")))
    assert batch.numbers["a"].tolist() == [1.0, 2.5]
    assert batch.texts["c"].tolist()[0] in ("20", "-1")


def test_an_odd_spelling_does_not_end_the_reading(tmp_path: Path) -> None:
    """What only Python's float understands is read, in a file of many blocks, with the lines of what is wrong."""
    rows = [[str(n), "x", "y"] for n in range(3000)]
    rows[1500][0] = "\u0661500"
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b", "c"], *rows])
    path = tmp_path / "odd.csv"
    path.write_text(text.getvalue())
    found = [batch for block in (64, 4096) for batch in both_numbers(path, block)]
    assert found == list(range(3000)) * 2
    path.write_text(text.getvalue().replace("2999,x", "2999;,x"))
    with pytest.raises(InputError, match=r"odd\.csv:3001, column a: found '2999;', expected a number"):
        list(read_rows(path, lambda names: COLUMNS[0]))


@settings(max_examples=100, deadline=None)
@given(FILES, st.sampled_from(COLUMNS), st.integers(1, 6), st.sampled_from((7, 1 << 20)), st.sampled_from(";\t"))
def test_other_separators_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, text: str, columns: Columns, batch_rows: int, block: int, sign: str
) -> None:
    """By both readers, with the same errors in the same words."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text(text.replace(",", sign), encoding="utf-8", newline="")
    ours, theirs = both(path, columns, batch_rows, block)
    assert ours == theirs


def both_numbers(path: Path, block: int) -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block)
        batches = read_rows(path, lambda names: COLUMNS[0], 700)
        return [number for batch in batches for number in batch.numbers["a"].tolist()]
