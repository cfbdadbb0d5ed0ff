"""Tests of use.py: an ensemble at work on rows through the program: predict and evaluate."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Made, Program
from sandbox import Sandbox


@pytest.fixture
def heldout(made: Made) -> list[dict[str, str]]:
    with made.heldout.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# ---- predict ----------------------------------------------------------------------------------------------------


def test_rows_unlike_the_training_rows_are_marked(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path
) -> None:
    """A feature just outside the range seen in training marks its row, at the range it does not; both are counted."""
    low, high = next(r["range"] for r in smoke.manifest["intervals"]["input_ranges"] if r["name"] == "motion2")
    values = (low, high, high + 1e-6, low - 1e-6)
    names, means = smoke.manifest["feature_order"], smoke.manifest["feature_mean"]
    same = {name: str(mean) for name, mean in zip(names, means, strict=True)}
    rows = [heldout[0] | same | {"motion2": repr(value)} for value in values]
    ran = registry("predict", "tiny", "--corpus", write(tmp_path / "r.csv", rows), "--registry", smoke.path)
    assert [row["out_of_distribution"] for row in table(ran.out)] == ["False", "False", "True", "True"]
    assert ran.err == "warning: an input is outside what training saw (column out_of_distribution): 2 rows\n"


def test_unknown_encoders_are_counted_over_all_batches(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning an encoder, however many batches its rows come in, and words about rows go to stderr alone."""
    monkeypatch.setattr("fr_ensemble.corpus.read_batches.__defaults__", (2, ()))
    rows = [heldout[0] | {"encoder": name} for name in ("h267", "libx264", "h267", "h267", "dirac")]
    ran = registry("predict", "tiny", "--corpus", write(tmp_path / "r.csv", rows), "--registry", smoke.path)
    lines = [line for line in ran.err.splitlines() if "encoder" in line]
    assert lines == [
        "warning: encoder 'dirac' is unknown: 1 row",
        "warning: encoder 'h267' is unknown: 3 rows",
    ]
    assert len(table(ran.out)) == 5


def test_parquet_holds_the_same_rows(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column and row of the JSON lines, with types, batch by batch; nothing on standard output."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("fr_ensemble.corpus.read_batches.__defaults__", (50, ()))
    where = ("predict", "tiny", "--corpus", made.heldout, "--levels", "0.5,0.95", "--registry", smoke.path)
    ran = registry(*where, "--format", "parquet", "-o", tmp_path / "out.parquet")
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert (ran.code, ran.out, file.num_row_groups) == (0, "", 3)
    rows: list[dict[str, Any]] = file.read().to_pylist()
    assert [{k: str(v) for k, v in row.items()} for row in rows] == table(registry(*where).out)
    assert {type(v) for v in rows[0].values()} == {int, str, float, bool}


@pytest.mark.parametrize(
    ("missing", "more", "words"), [(False, (), "-o FILE"), (True, ("-o", "out.parquet"), "needs pyarrow")]
)
def test_parquet_without_a_file_or_its_library_is_one_line(
    smoke: Sandbox, registry: Program, made: Made, monkeypatch: pytest.MonkeyPatch, missing: bool, more: Any, words: str
) -> None:
    """Exit 2, one line with what to do, and no file."""
    monkeypatch.chdir(smoke.folder)
    if missing:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setattr("registry_tool.report.rows.find_spec", lambda name: None)
    where = ("predict", "tiny", "--corpus", made.heldout, "--registry", smoke.path)
    ran = registry(*where, "--format", "parquet", *more)
    assert (ran.code, ran.out, ran.err.count("\n"), words in ran.err) == (2, "", 1, True)
    assert not Path("out.parquet").exists()
