"""test_problems.py: what no honest run gives is a problem of the evidence, and what honest runs give is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fr_ensemble.evidence.loso import Expected, recompute, to_files
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.summaries import read_summaries

RANGE = (0.0, 100.0)
K, ROWS = 9, 30


def make(noise: float = 2.0) -> Oof:
    """Nine sources of 30 rows, three members that err independently by `noise` points."""
    rng = np.random.default_rng(5)
    source = np.repeat(np.arange(K), ROWS)
    target = rng.uniform(20.0, 100.0, K * ROWS)
    predictions = target + rng.normal(0.0, noise, (3, K * ROWS))
    return Oof((0, 1, 2), tuple(f"s{k}" for k in range(K)), source, None, None, target, predictions, "r", "c", None)


def problems(oof: Oof, target_range: tuple[float, float] | None = RANGE) -> tuple[str, ...]:
    documents, _ = read_summaries(to_files(oof, "c"))
    return recompute(oof, documents, Expected(target_range=target_range)).problems


def with_rows(oof: Oof, rows: np.ndarray, **values: np.ndarray) -> Oof:
    """The same with other targets or predictions in some rows."""
    changed = {name: getattr(oof, name).copy() for name in values}
    for name, value in values.items():
        changed[name][..., rows] = value
    return replace(oof, **changed)


def copied_target(oof: Oof) -> Oof:
    """Source 4 has source 2's targets, in another order."""
    return with_rows(oof, oof.source == 4, target=oof.target[oof.source == 2][::-1])


def copied_predictions(oof: Oof) -> Oof:
    return with_rows(oof, oof.source == 4, predictions=oof.predictions[:, oof.source == 2][:, ::-1])


def hardly_varying(oof: Oof) -> Oof:
    rows = oof.source == 3
    return with_rows(oof, rows, target=50.0 + 1.9 * np.linspace(0.0, 1.0, ROWS))


def repeated_rows(oof: Oof) -> Oof:
    """Source 3 is two rows, each there fifteen times."""
    rows = np.flatnonzero(oof.source == 3)
    two = np.tile(rows[:2], ROWS // 2)
    return with_rows(oof, rows, target=oof.target[two], predictions=oof.predictions[:, two])


def outside_target(oof: Oof) -> Oof:
    return with_rows(oof, np.array([7]), target=np.array([100.5]))


def outside_predictions(oof: Oof) -> Oof:
    """Every eighth prediction of each member is eleven points above the range."""
    return with_rows(oof, np.arange(0, K * ROWS, 8), predictions=np.array([[111.0], [112.0], [113.0]]))


def nearly_copied_member(oof: Oof) -> Oof:
    """The second member is the first one with a little noise, far above what float32 rounds away."""
    noise = np.random.default_rng(0).normal(0.0, 0.005, oof.predictions.shape[1])
    return replace(oof, predictions=np.stack([oof.predictions[0], oof.predictions[0] + noise, oof.predictions[2]]))


CASES: dict[Callable[[Oof], Oof], str] = {
    copied_target: "sources s2 and s4: found the same 30 targets in both",
    copied_predictions: "sources s2 and s4: found the same predictions in both",
    hardly_varying: "source s3: found targets that span 1.9, expected at least 2 % of the range 0..100",
    repeated_rows: "source s3: found 30 rows of which 2 are different, expected at least 5: it is no fold",
    outside_target: "target range 0..100: found 1 targets outside, the first 100.5 of s0",
    outside_predictions: "seed 0: found 13 % of the predictions farther than 10 outside of 0..100",
    nearly_copied_member: "seeds 0 and 1: found predictions that differ by 0.00",
}


@pytest.mark.parametrize(("change", "words"), CASES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_no_honest_run_gives_is_a_problem(change: Callable[[Oof], Oof], words: str) -> None:
    """Each names the sources or seeds, what was found and what is expected."""
    found = problems(change(make()))
    assert any(line.startswith(words) for line in found), found
    assert all("expected" in line for line in found)


def test_a_forgery_is_told_in_few_lines() -> None:
    """Predictions that were replaced change every figure of a summary: three of them are listed, the rest counted."""
    documents, _ = read_summaries(to_files(make(), "c"))
    found = [line for line in recompute(make(1.0), documents).problems if line.startswith("loso_seed0.json")]
    assert len(found) == 4
    assert found[-1] == f"loso_seed0.json: {3 * K + 1} more differences from the predictions"


def test_honest_evidence_has_no_problem() -> None:
    """Members that err independently, a few predictions far outside, a source of few values: none is a problem."""
    assert problems(make()) == ()
    few = with_rows(make(), np.arange(0, K * ROWS, 40), predictions=np.array([[115.0], [118.0], [120.0]]))
    assert problems(few) == ()
    steps = np.tile([30.0, 60.0, 90.0, 50.0], 8)[:ROWS]
    two = make()
    for k in (1, 2):  # two sources rated on four steps
        two = with_rows(two, two.source == k, target=steps)
    assert problems(two) == ()


def test_one_source_under_twenty_names_is_named_nineteen_times() -> None:
    """Once for each copy, not once for each pair."""
    oof = make()
    twenty = 20
    rows = np.tile(np.flatnonzero(oof.source == 0), twenty)
    copies = replace(
        oof,
        sources=tuple(f"c{k:02d}" for k in range(twenty)),
        source=np.repeat(np.arange(twenty), ROWS),
        target=oof.target[rows],
        predictions=oof.predictions[:, rows] + np.random.default_rng(1).normal(0.0, 1.0, (3, len(rows))),
    )
    found = problems(copies)
    assert len(found) == twenty - 1
    assert all(line.startswith("sources c00 and c") for line in found)


def test_without_a_range_the_level_is_not_looked_at() -> None:
    """Only what predictions say by themselves is."""
    assert problems(outside_target(make()), None) == ()
    assert problems(nearly_copied_member(make()), None) != ()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_bounds_follow_the_units_of_the_target(scale: float) -> None:
    """The same evidence in other units has the same problems."""
    for change in CASES:
        oof = change(make())
        scaled = replace(oof, target=oof.target * scale, predictions=oof.predictions * scale)
        found = problems(scaled, (RANGE[0] * scale, RANGE[1] * scale))
        assert [line.split()[:2] for line in found] == [line.split()[:2] for line in problems(oof)]
