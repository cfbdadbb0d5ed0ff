"""Tests of exchangeable.py: sources alike and shifted, the power that it states, and what it cannot judge."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import registry_tool.schemas as schemas
from command_line import Program
from csv_tables import write_csv
from fr_ensemble.evidence.statistics import MAX_EXACT_RANKS, rank_sum_p
from fr_ensemble.queries.exchangeable import SIGNIFICANCE_LEVEL, power
from registries import QUICK, Made
from sandbox import Sandbox

from registry_tool.documents.schema import violations


@pytest.mark.parametrize(("k", "m"), [(5, 1), (9, 3), (22, 6), (50, 40)])
def test_rank_sums_are_those_of_scipy(k: int, m: int) -> None:
    """Exactly for few values, by the same approximation for many."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(k)
    known, new = rng.normal(size=k), rng.normal(0.5, 1.0, m)
    method = "exact" if k + m <= MAX_EXACT_RANKS else "asymptotic"
    expected = stats.mannwhitneyu(new, known, alternative="greater", method=method).pvalue
    assert rank_sum_p(known, new) == pytest.approx(expected, abs=1e-12)


def test_ties_share_their_ranks() -> None:
    """Of 2, 2 and 2, each order is alike, so that p is 1; of 1, 2 and a new 2, two choices of three are as high."""
    assert rank_sum_p(np.array([2.0, 2.0]), np.array([2.0])) == pytest.approx(1.0)
    assert rank_sum_p(np.array([1.0, 2.0]), np.array([2.0])) == pytest.approx(2 / 3)


def test_the_power_is_what_simulated_sources_show() -> None:
    """A shift by one deviation, 22 and 6 sources; so few that no order is rare show nothing."""
    rng = np.random.default_rng(0)
    told = [rank_sum_p(rng.normal(size=22), rng.normal(1.0, 1.0, 6)) <= SIGNIFICANCE_LEVEL / 2 for _ in range(400)]
    assert np.mean(told) == pytest.approx(power(22, 6, SIGNIFICANCE_LEVEL / 2), abs=0.07)
    assert power(9, 1, SIGNIFICANCE_LEVEL / 2) == 0.0


def test_new_sources_are_ranked_among_the_known_ones(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path
) -> None:
    """Rows far from those of training have the smallest p that there is; those of the same kind are not refuted."""
    with made.heldout.open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "vmaf"} for row in csv.DictReader(file)]
    far = [row | {"motion2": str(float(row["motion2"]) * 5 + 100)} for row in rows]
    found: dict[str, Any] = {}
    for name, table in (("alike", rows), ("far", far)):
        path = write_csv(tmp_path / f"{name}.csv", table)
        ran = registry(
            "fr-ensemble", "exchangeable", "tiny", "--corpus", path, "--registry", smoke.path, "--format", "json"
        )
        assert ran.code == 0, ran.err
        found[name] = json.loads(ran.out)
        assert violations(found[name], schemas.load("exchangeability")) == []
    k = len(smoke.manifest["corpus"]["sources"])
    alike, shifted = found["alike"], found["far"]
    assert (alike["n_known"], alike["n_new"], sum(item["n_rows"] for item in alike["sources"])) == (k, 3, len(rows))
    distance = shifted["statistics"][0]
    assert distance["p"] == pytest.approx(distance["smallest_p"])
    assert {item["distance_p"] for item in shifted["sources"]} == {1 / (k + 1)}
    assert alike["refuted"] is False
    assert alike["p"] > shifted["p"]


def test_words_for_people(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """A line a source, what they show together, and how much so few could show."""
    ran = registry("fr-ensemble", "exchangeable", "tiny", "--corpus", made.heldout, "--registry", smoke.path)
    assert ran.code == 0, ran.err
    assert "3 new sources beside" in ran.out
    assert "a shift by one standard deviation between sources is told in" in ran.out


def test_what_cannot_be_judged_is_one_line(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """Rows without sources; an entry whose evidence has no inputs."""
    with made.heldout.open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "src"} for row in csv.DictReader(file)]
    path = write_csv(tmp_path / "rows.csv", rows)
    ran = registry("fr-ensemble", "exchangeable", "tiny", "--corpus", path, "--registry", smoke.path)
    assert (ran.code, "found no column src" in ran.err) == (2, True)
    bare = tmp_path / "bare" / "registry.json"
    train = ("train", "fr_ensemble", "--id", "bare", "--corpus", made.corpus, "--evidence-inputs", "0", *QUICK)
    assert registry(*train, "--registry", bare).code == 0
    ran = registry("fr-ensemble", "exchangeable", "bare", "--corpus", made.heldout, "--registry", bare)
    assert (ran.code, "its evidence has no inputs" in ran.err) == (2, True)
    assert "train it with --evidence-inputs" in ran.err
    again = [*train[:-1], "--evidence-inputs", "20", "--no-baselines"]
    assert registry(*again, "--registry", tmp_path / "again" / "registry.json").code == 0
    where = ("--corpus", made.heldout, "--registry", tmp_path / "again" / "registry.json")
    assert registry("fr-ensemble", "exchangeable", "bare", *where).code == 0
