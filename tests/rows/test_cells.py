"""Tests of cells.py: columns become the same text by pyarrow as by the standard library."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_tool.rows import cells
from registry_tool.rows.batches import Text
from registry_tool.rows.writing import write_rows

pytest.importorskip("pyarrow")

ROWS = 5
WORDS = st.text(st.sampled_from("abé\U0001f3a5 ,;\"'\n\r\t=\\\x00\x1f\u2028"), max_size=6)
FLOATS = st.one_of(
    st.floats(),
    st.sampled_from((0.0, -0.0, 1e-4, 9.999e-5, 1e10, 1e15, 1e16, 123456789012.5, 5e-324, float("nan"), float("inf"))),
    st.integers(-400, 400).map(lambda n: n / 4),
    st.floats(width=32),
)
JSON = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, WORDS, st.lists(st.integers(), max_size=2))


def five(values: Any) -> Any:
    return st.lists(values, min_size=ROWS, max_size=ROWS)


COLUMN = st.one_of(
    five(FLOATS).map(lambda values: np.array(values, np.float64)),
    five(st.floats(width=32)).map(lambda values: np.array(values, np.float32)),
    five(st.integers(-(2**63), 2**63 - 1)).map(lambda values: np.array(values, np.int64)),
    five(st.integers(0, 2**64 - 1)).map(lambda values: np.array(values, np.uint64)),
    five(st.booleans()).map(np.array),
    five(WORDS).map(lambda values: Text(np.arange(ROWS)[::-1], tuple(values))),
    st.just(range(3, 3 + ROWS)),
    five(FLOATS),
    five(WORDS),
    five(st.integers()),
    five(st.booleans()),
    five(JSON),
)
TABLES = st.dictionaries(WORDS, COLUMN, max_size=4)


def written(tables: list[Any], path: Path, form: str, piece: int) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "PIECE_ROWS", piece)
        write_rows(iter(tables), path, form)
    return path.read_bytes()


@settings(max_examples=150)
@given(TABLES, st.sampled_from(("csv", "jsonl")), st.sampled_from((1, 2, 8192)), st.integers(1, 2))
@example({"": [""] * ROWS}, "csv", 8192, 1)
@example({"a": [None] * ROWS}, "csv", 2, 1)
@example({"a": np.full(ROWS, -0.0), "b": np.array([0.0, -0.0, 100.0, 1e22, 1e-7])}, "csv", 8192, 1)
def test_every_cell_is_written_as_the_standard_library_writes_it(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], form: str, piece: int, batches: int
) -> None:
    """Byte for byte, whatever a column holds and wherever a piece ends."""
    folder = tmp_path_factory.getbasetemp()
    ours = written([table] * batches, folder / f"ours.{form}", form, piece)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        theirs = written([table] * batches, folder / f"theirs.{form}", form, piece)
    assert ours == theirs


def test_long_cells_are_put_together_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece is longer than a string of pyarrow may be; the rows are all there."""
    monkeypatch.setattr(cells, "PIECE_BYTES", 1000)
    table = {"n": np.arange(9), "x": Text(np.zeros(9, np.int64), ("y" * 100,))}
    pieces = list(cells.lines(iter([table]), "csv"))
    assert len(pieces) == 6
    assert io.StringIO("".join(pieces)).readlines() == ["n,x\n", *(f"{n},{'y' * 100}\n" for n in range(9))]


@pytest.mark.filterwarnings("error")
@settings(max_examples=200)
@given(st.binary(min_size=800, max_size=800))
@example(b"\x01\0\0\0\0\0\xf0\x7f")  # a signaling NaN
def test_floats_have_the_shortest_digits(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bits of a float64 become what `repr` gives."""
    values = np.frombuffer(data, np.float64)
    text = written([{"x": values}], tmp_path_factory.getbasetemp() / "bits.csv", "csv", 8192).decode()
    assert text.splitlines()[1:] == list(map(repr, values.tolist()))
