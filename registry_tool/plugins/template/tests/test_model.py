"""test_model.py: what only this kind can promise: the line is the least-squares line, and a poor one is held."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_ruler import model, plugin

from registry_tool.errors import InputError
from registry_tool.testing import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty registry, and this plugin alone."""
    return Bench(tmp_path / "model" / "registry.json", plugin, "ruler")


def write(path: Path, rows: str) -> Path:
    path.write_text("src,sharpness,score\n" + rows)
    return path


def test_line_is_least_squares(bench: Bench, tmp_path: Path) -> None:
    """The line through points that lie on one is that line, and predicts every held-out source."""
    points = write(tmp_path / "rows.csv", "".join(f"s{i % 4},{i / 16},{2 + 3 * i / 16}\n" for i in range(16)))
    bench.train("exact", points)
    manifest = bench.manifest
    assert (manifest["slope"], manifest["intercept"]) == pytest.approx((3.0, 2.0), abs=1e-12)
    verdict = bench.gate()
    assert verdict.promotes
    assert verdict.metrics["oof_plcc"] == pytest.approx(1.0, abs=1e-12)


def test_poor_line_is_held(bench: Bench, tmp_path: Path) -> None:
    """A column that says nothing about the score does not clear the gate."""
    points = write(tmp_path / "rows.csv", "".join(f"s{i % 4},{i * 7 % 5},{i * 3 % 7}\n" for i in range(35)))
    bench.train("poor", points)
    assert not bench.gate().promotes


def test_other_graph_is_found(bench: Bench) -> None:
    """A manifest whose numbers are not those of its model is found, although every digest holds."""
    bench.train("probe", smoke=True)
    bench.forge({**bench.manifest, "slope": 7.0})
    assert [finding.code for finding in bench.errors()] == ["ruler-graph"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,0.5,70\nb,n/a,80\n", "rows.csv:3, column sharpness: found 'n/a'"),
        ("a,0.5,70\nb,0.6,80\n", "found 2 sources"),
        ("a,0.5,70\nb,0.5,80\nc,0.5,75\n", "no line fits"),
    ],
)
def test_unusable_rows_are_named(bench: Bench, tmp_path: Path, text: str, message: str) -> None:
    """Rows that cannot be used are one line that says where and what."""
    with pytest.raises(InputError) as caught:
        bench.train("x", write(tmp_path / "rows.csv", text))
    assert message in str(caught.value)


def test_random_rows_are_the_same_each_time() -> None:
    """Two smoke runs learn from the same rows."""
    assert model.random_rows() == model.random_rows()
