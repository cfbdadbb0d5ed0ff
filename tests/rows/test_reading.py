"""test_reading.py: tables in every form that people have give the same rows; what is wrong in them is counted."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry_tool.errors import InputError
from registry_tool.rows.batches import Columns, missing_column, require_unique
from registry_tool.rows.reading import read_rows, read_stream

pa = pytest.importorskip("pyarrow")

TABLE = {"src": ["a", "b", "c"], "vmaf": [90.5, 80.25, 7.0], "note": ["x, y", "", "é"]}
WANTED = Columns(("vmaf",), ("src", "note"))
Table = Mapping[str, list[Any]]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def delimited(delimiter: str) -> Callable[[Table], bytes]:
    def write(table: Table) -> bytes:
        lines = [list(table), *([str(value) for value in row.values()] for row in rows_of(table))]
        quoted = ([f'"{cell}"' if "," in cell else cell for cell in line] for line in lines)
        return "".join(delimiter.join(line) + "\r\n" for line in quoted).encode()

    return write


def jsonl(table: Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows_of(table)).encode()


def feather(**options: Any) -> Callable[[Table], bytes]:
    def write(table: Table) -> bytes:
        from pyarrow import feather

        sink = pa.BufferOutputStream()
        feather.write_feather(pa.table(dict(table)), sink, **options)
        return bytes(sink.getvalue())

    return write


def stream(table: Table) -> bytes:
    sink, arrow = pa.BufferOutputStream(), pa.table(dict(table))
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    return bytes(sink.getvalue())


FORMS: dict[str, tuple[str, Callable[[Table], bytes]]] = {
    "commas": ("t.csv", delimited(",")),
    "semicolons": ("t.csv", delimited(";")),
    "tabs": ("t.tsv", delimited("\t")),
    "tabs in a csv": ("t.csv", delimited("\t")),
    "byte order mark": ("t.csv", lambda table: b"\xef\xbb\xbf" + delimited(";")(table)),
    "gzipped csv": ("t.CSV.gz", lambda table: gzip.compress(delimited(";")(table))),
    "gzipped lines": ("t.jsonl.gz", lambda table: gzip.compress(jsonl(table))),
    "objects": ("t.json", lambda table: json.dumps(rows_of(table)).encode()),
    "gzipped objects": ("t.json.gz", lambda table: gzip.compress(json.dumps(rows_of(table)).encode())),
    "lists": ("t.json", lambda table: json.dumps(dict(table)).encode()),
    "indexed columns": ("t.json", lambda table: json.dumps({k: dict(enumerate(v)) for k, v in table.items()}).encode()),
    "columns and data": (
        "t.json",
        lambda table: json.dumps({"columns": [*table], "data": [*zip(*table.values(), strict=True)]}).encode(),
    ),
    "lines in a json": ("t.json", jsonl),
    "feather": ("t.feather", feather()),
    "arrow": ("t.arrow", feather(compression="uncompressed")),
    "arrow stream": ("t.arrow", stream),
}


def written(folder: Path, form: str, table: Table) -> Path:
    name, write = FORMS[form]
    (folder / name).write_bytes(write(table))
    return folder / name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_every_form_has_the_same_rows(form: str, batch_rows: int, tmp_path: Path) -> None:
    """Numbers, texts and the order of rows, a few rows at a time; each row has its place."""
    path, done = written(tmp_path, form, TABLE), []
    batches = list(read_rows(path, lambda _: WANTED, batch_rows, lambda *seen: done.append(seen)))
    assert max(batch.n for batch in batches) <= batch_rows
    assert [n for batch in batches for n in batch.numbers["vmaf"].tolist()] == TABLE["vmaf"]
    for name in ("src", "note"):
        assert [text for batch in batches for text in batch.texts[name].tolist()] == TABLE[name]
    places = [batch.place(index) for batch in batches for index in range(batch.n)]
    assert len({place for place in places if place.startswith(str(path))}) == 3
    assert done[-1][1] == done[-1][2]


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_a_number_are_counted(form: str, tmp_path: Path) -> None:
    """The first is named with its place, the others by their number."""
    holes = [None, 3.0, float("nan"), 4.0, None]
    table = {"src": list("abcde"), "vmaf": holes, "note": [""] * 5}
    if "csv" in FORMS[form][0].lower() or "tsv" in FORMS[form][0]:
        table["vmaf"] = ["" if value is None else value for value in holes]
    with pytest.raises(InputError, match=r"column vmaf: found nothing, .*; 3 of 5 rows are like it$"):
        list(read_rows(written(tmp_path, form, table), lambda _: WANTED, 2))


def test_one_row_is_not_counted(tmp_path: Path) -> None:
    """Its own line says all of it."""
    (tmp_path / "t.csv").write_text("a,b\n1,2\nx,3\n")
    with pytest.raises(InputError, match=r"t\.csv:3, column a: found 'x', expected a number: correct or drop the row$"):
        list(read_rows(tmp_path / "t.csv", lambda _: Columns(("a", "b"))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src;vmaf\na;93,5\n", r"t\.csv:2, column vmaf: found '93,5', .*: it has a decimal comma: write 93\.5$"),
        ('src,vmaf\na,"-0,5e3"\n', r"it has a decimal comma: write -0\.5e3$"),
        ("src,vmaf\na,9_3\n", r"t\.csv:2, column vmaf: found '9_3', expected a number: correct or drop the row$"),
        ("src,vmaf\na,93,5\n", r"found 3 fields, expected 2 .*a number with a decimal comma is two fields"),
    ],
)
def test_a_number_is_not_guessed_from_marks(text: str, message: str, tmp_path: Path) -> None:
    """A comma is not guessed to be a point, nor is an underscore, which Python alone reads, left out."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_rows(tmp_path / "t.csv", lambda _: Columns(("vmaf",))))


@pytest.mark.parametrize("pyarrow", [True, False])
@pytest.mark.parametrize("wanted", [Columns(("a",)), Columns((), ("a",)), Columns((), (), ("a",))])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", '{"a": 1}\n{"a": 1, "b": [], "a": 2}\n'),
        ("t.jsonl", '{"a": 1}\n{"a": 1, "b": 0, "a": 1}\n'),
        ("t.json", '[{"a": 1}, {"a": 1, "a": 2}]'),
        ("t.json", '{"a": {"0": 0, "1": 1, "1": 2}}'),
    ],
)
def test_a_key_that_an_object_has_twice_is_no_value(
    name: str, text: str, wanted: Columns, pyarrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers differ in which value they take: the row is named, on every path, as a CSV's column is."""
    if not pyarrow:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"(:2|, row 2), column a: found the key twice, expected (a number|it once)"):
        list(read_rows(tmp_path / name, lambda _: wanted))


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_an_empty_document_lacks_rows_not_columns(text: str, tmp_path: Path) -> None:
    """As an empty CSV does, in a file and on standard input."""

    def pick(found: Sequence[str]) -> Columns:
        raise missing_column(tmp_path, "a", found)

    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=r"t\.json: found no rows, expected at least one"):
        list(read_rows(tmp_path / "t.json", pick))
    if text == "[]":
        with pytest.raises(InputError, match=r"standard input: found no rows, expected at least one"):
            list(read_stream(io.BytesIO(text.encode()), pick))


def test_a_byte_that_is_no_text_has_a_line(tmp_path: Path) -> None:
    """However far down it is, gzipped or not."""
    data = b"src,vmaf\n" + b"a,1\n" * 90_000 + "\u00e9,2\n".encode("latin-1")
    (tmp_path / "t.csv").write_bytes(data)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(data, 1))
    for name in ("t.csv", "t.csv.gz"):
        with pytest.raises(InputError, match=rf"{name}:90002: found a byte that is not UTF-8"):
            list(read_rows(tmp_path / name, lambda _: Columns(("vmaf",), ("src",))))


def test_a_header_of_many_columns_takes_no_longer_than_its_length() -> None:
    """Half a million names are compared once each, and the one that is there twice is named."""
    names = [*map(str, range(500_000)), "adm2", "adm2"]
    with pytest.raises(InputError, match=r"^rows\.csv: found the column 'adm2' twice, expected each column once"):
        require_unique("rows.csv", names)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b", ["a", "b"]),
        ('"a;b;c",d', ["a;b;c", "d"]),
        ("a (x, y);b;c", ["a (x, y)", "b", "c"]),
        ("alone", ["alone"]),
        ('"a\tb;c"\td', ["a\tb;c", "d"]),
    ],
)
def test_the_header_says_what_separates_fields(header: str, names: list[str], tmp_path: Path) -> None:
    """The sign that it has most of outside quotes; a comma where it has none."""
    separator = next(sign for sign in "\t;," if sign in header.split('"')[-1]) if len(names) > 1 else ","
    (tmp_path / "t.csv").write_text(f"{header}\n{separator.join('12345'[: len(names)])}\n")
    (batch,) = read_rows(tmp_path / "t.csv", lambda found: Columns(tuple(found)))
    assert {name: column.tolist() for name, column in batch.numbers.items()} == {
        name: [place + 1.0] for place, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.xlsx", b"PK", r"expected one of \.parquet, \.feather, .*\.csv\.gz"),
        ("t.csv.gz", b"src,vmaf\n", "not a readable gzip file"),
        ("t.csv.gz", gzip.compress(b"src,vmaf\na,1\n" * 99, mtime=0)[:-12], "not a readable gzip file"),
        ("t.feather", b"ARROW1 no more", "not a readable feather or Arrow file"),
        ("t.json", b"[1, 2]", "found list, expected a list with an object a row"),
        ("t.json", b'{"version": "3.0", "frames": [1]}', "found version, frames, expected a list with an object a row"),
        ("t.json", b'{"a": [1], "b": [1, 2]}', "found a, b, expected .* columns of one length"),
        ("t.json", b'[{"a": 1},\n', r"t\.json:2: not JSON"),
        ("t.json", b"[]", "found no rows"),
        ("t.json", b'{"0": {"a": 1}, "1": {"a": 2}}', "no column 'a': found 0, 1, expected a"),
        (
            "t.csv",
            (",".join(map(str, range(99))) + "\n").encode(),
            "found 0, 1, .*, 49 and 49 more, expected a: add it",
        ),
    ],
)
def test_what_is_no_table_is_one_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    """With what was found and what was expected."""
    (tmp_path / name).write_bytes(data)

    def pick(found: Sequence[str]) -> Columns:
        if "no column" in message or "more" in message:
            raise missing_column(tmp_path / name, "a", found)
        return Columns(tuple(found))

    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(tmp_path / name, pick))
    assert "\n" not in str(caught.value)
