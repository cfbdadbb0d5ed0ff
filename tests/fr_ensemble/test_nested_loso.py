"""Tests of benchmarks/nested_loso.py on a small made-up corpus: what is held out, and what is printed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("torch")

pytestmark = pytest.mark.slow

FEATURES = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")
N, SOURCES = 96, 4


@pytest.fixture(scope="module")
def nested() -> Any:
    spec = importlib.util.spec_from_file_location("nested_loso", ROOT / "benchmarks" / "nested_loso.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two tables, with MOS a logistic function of VMAF and a little noise."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("avt")
    vmaf = rng.uniform(20, 100, N)
    mos = np.clip(1 + 4 / (1 + np.exp(-(vmaf - 60) / 12)) + rng.normal(0, 0.05, N), 1, 5)
    columns = {
        "src": [f"s{i % SOURCES}" for i in range(N)],
        "encoder": ["libx264"] * N,
        "bitrate_kbps": rng.uniform(100, 9000, N),
        "height": rng.choice([360.0, 720.0, 2160.0], N),
        **{name: vmaf / 100 + rng.normal(0, 0.01, N) for name in FEATURES},
        "vmaf": vmaf,
        "mos": mos,
    }
    for name in ("clips", "frames"):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_the_held_out_source_is_in_no_training_row(nested: Any, data: Path) -> None:
    """Its rows are gone, the others keep one number each, and thinning takes every n-th of them."""
    corpus = nested.read_corpus(data / "clips.parquet", nested.ColumnSpec(target="mos"))
    for thin in (1, 5):
        left = nested.without(corpus, 1, thin)
        rows = np.flatnonzero(corpus.source != 1)[::thin]
        assert (left.n_sources, set(left.source)) == (3, {0, 1, 2})
        assert np.array_equal(left.target, corpus.target[rows])
        assert np.array_equal(left.source, np.searchsorted([0, 2, 3], corpus.source[rows]))


def test_plain_vmaf_is_fitted_on_the_other_sources(nested: Any, data: Path) -> None:
    """A logistic MOS is predicted to its noise, and a held-out source's own scores change nothing."""
    corpus = nested.read_corpus(data / "clips.parquet", nested.ColumnSpec(target="mos"))
    fitted = nested.logistic(data / "clips.parquet", corpus, 2)
    assert np.abs(fitted - corpus.target[corpus.source == 2]).mean() < 0.08
    corpus.target[corpus.source == 2] = 1.0
    assert np.array_equal(nested.logistic(data / "clips.parquet", corpus, 2), fitted)


def test_every_run_prints_its_table(
    nested: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a method with coverage, width and worst source; the versions first; the comparison for MOS alone."""
    few = ["--epochs", "1", "--seeds", "2", "--thin", "2", "--cache", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["nested_loso.py", str(data), "--runs", "clips,frames", *few])
    nested.main()
    out = capsys.readouterr().out
    monkeypatch.setattr(nested, "train", None)  # a second run trains nothing
    nested.main()
    assert capsys.readouterr().out == out
    assert out.startswith("Python ")
    for method in (*nested.METHODS, nested.DISTANCE, nested.PUBLIC):
        assert sum(line.startswith(f"{method} ") and line.count(" s") >= 3 for line in out.splitlines()) == 2
    assert out.count("RMSE less that of plain VMAF") == 1
    assert "one in 2 trained on" in out


@pytest.mark.parametrize(("more", "words"), [(["--runs", "clip"], "'clip'"), ([], "clips.parquet")])
def test_a_wrong_word_is_one_line(
    nested: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], words: str
) -> None:
    """An unknown run, or a folder without the tables."""
    monkeypatch.setattr(sys, "argv", ["nested_loso.py", str(tmp_path), *more])
    with pytest.raises(SystemExit, match=words):
        nested.main()


def test_unlike_takes_one_source_of_each_pair(nested: Any, tmp_path: Path) -> None:
    """And the outlier: twelve sources without a like."""
    corpus = nested.read_corpus(nested.rows_of("unlike", tmp_path, tmp_path), nested.ColumnSpec(target="vmaf"))
    assert (len(corpus.sources), corpus.n_rows) == (12, 12 * 240)
    assert "life-flicker" in corpus.sources
    assert sum(name.startswith("perlin") for name in corpus.sources) == 1


def test_a_far_combination_is_far_though_each_column_is_inside(nested: Any) -> None:
    """Distance is by the columns together: against a line of points, a point beside it is far, one on it is not."""
    x = np.linspace(-1.0, 1.0, 200)
    known = np.stack([x, x + np.random.default_rng(0).normal(0.0, 0.01, 200)], axis=1)
    on, beside = nested.distance(known, np.array([[0.5, 0.5], [0.5, -0.5]]))
    assert on < 2.0 < 20.0 < beside


def test_a_reach_is_fitted_where_errors_grow_with_the_distance(nested: Any) -> None:
    """Rows twice as far with errors twice as large get a wider spread; errors that do not follow it get none."""
    rng = np.random.default_rng(1)
    source, apart = np.repeat(np.arange(4), 100), np.tile([1.0, 4.0], 200)
    y = rng.uniform(0.0, 100.0, 400)
    for grows in (True, False):
        mu = y + rng.normal(0.0, 1.0, 400) * (apart if grows else 1.0)
        predictions = mu + np.array([[-0.1], [0.1]])
        oof = nested.Oof((0, 1), tuple("abcd"), source, None, None, y, predictions, "", "", None)
        _, new = nested.spreads(oof, np.array([0.14, 0.14]), apart, np.array([1.0, 4.0]))
        assert (new[1] > 2.0 * new[0]) == grows


def test_all_stand_side_by_side(
    nested: Any, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --beside every recipe, the choice and every standard model has a line by each method."""
    words = ["nested_loso", str(data), "--runs", "clips", "--epochs", "1", "--seeds", "2", "--beside"]
    monkeypatch.setattr(sys, "argv", words)
    nested.main()
    printed = capsys.readouterr().out
    for name in ("public", "clean", "noisy", "narrow", "auto", "ridge", "gradient boosting", "extra trees"):
        assert printed.count(f"\n| {name} | ") == len(nested.METHODS)
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {9}
    assert sum("**" in row for row in rows) == len(nested.METHODS)
    assert sum(line.startswith("auto less ") for line in printed.splitlines()) == 2 * len(nested.METHODS)
    assert "to choose: " in printed
