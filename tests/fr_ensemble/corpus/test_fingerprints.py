"""test_fingerprints.py: sources that are one source are found by what describes their reference, and no others are."""

from __future__ import annotations

import csv
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fr_ensemble.corpus.fingerprints import (
    MAX_REFERENCE_COLUMNS,
    MAX_SET_VALUES,
    MIN_VALUES,
    Fingerprints,
    distance,
    overlap,
    reference_fingerprints,
    row_hashes,
    sketch,
)
from fr_ensemble.corpus.giveaway import giveaways
from fr_ensemble.evidence.fingerprints import FINGERPRINTS_FORMAT, read_fingerprints, write_fingerprints

from registry_tool.archive import EvidenceProblem, write_arrays

ENCODERS = ("libx264", "libx265", "libsvtav1")


def write(path: Path, motion: dict[str, np.ndarray], split: str = "", frames: bool = True) -> Path:
    """Frames of videos, each in three encodes. motion: of each video's frames. split: a video that each encoder has
    under a name of its own. The other features differ between encodes."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["src", "encoder", *(["frame_index"] * frames), "adm2", "time", "motion2", "vmaf"])
        for name, values in motion.items():
            for encoder in ENCODERS:
                source = f"{name}-{encoder}" if name == split else name
                for frame, value in enumerate(values):
                    numbers = [rng.uniform(), frame / 25, value, rng.uniform(0, 100)]
                    writer.writerow([source, encoder, *([frame] * frames), *numbers])
    return path


def videos(frames: int = 60, names: str = "abc") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: np.round(rng.gamma(3.0, 2.0, frames) + 10 * place, 6) for place, name in enumerate(names)}


def pairs_of(fingerprints: Fingerprints) -> dict[tuple[str, str], float | None]:
    return {pair.sources: pair.overlap for pair in fingerprints.compared().pairs}


def test_different_videos_have_nothing_in_common(tmp_path: Path) -> None:
    """motion2 is the one column that counts: adm2 differs between encodes, and time follows from the frame."""
    found = reference_fingerprints(write(tmp_path / "c.csv", videos()), ("time",))
    assert found is not None
    assert found.columns == ("motion2",)
    assert pairs_of(found) == dict.fromkeys([("a", "b"), ("a", "c"), ("b", "c")], 0.0)
    pairs = found.compared()
    assert pairs.problems() == pairs.shifts() == pairs.not_judged() == []


@pytest.mark.parametrize(("k", "values"), [(460, 1), (400, 30)], ids=["pairs", "values"])
def test_sources_that_share_too_much_to_be_compared_are_a_problem(k: int, values: int) -> None:
    """A hundred thousand pairs with a value in common are not looked at one by one, nor taken for different sources."""
    shared = tuple(np.arange(1.0, values + 1.0) for _ in range(k))
    found = Fingerprints(("motion2",), tuple(f"s{place}" for place in range(k)), (shared,))
    pairs = found.compared()
    (problem,) = pairs.problems()
    assert problem.startswith("sources: found equal values in more than 100000 pairs")
    assert pairs.pairs == ()


def test_sources_of_two_corpora_that_share_too_much_are_not_called_different() -> None:
    """Above the number of pairs that are compared there is no answer; below it there is one, whatever they share."""
    shared = tuple(np.arange(1.0, 61.0) for _ in range(400))
    many = Fingerprints(("motion2",), tuple(f"s{place}" for place in range(400)), (shared,))
    few = Fingerprints(("motion2",), tuple(f"t{place}" for place in range(100)), (shared[:100],))
    assert many.shared_with(many) is None
    pairs = few.shared_with(many)
    assert pairs is not None
    assert len(pairs) == 40_000


def test_a_video_split_by_encoder_is_one_source(tmp_path: Path) -> None:
    """Its three names have all values in common; no other pair has any."""
    found = reference_fingerprints(write(tmp_path / "c.csv", videos(), split="b"), ())
    assert found is not None
    shares = pairs_of(found)
    assert sorted(shares.values(), reverse=True)[:4] == [1.0, 1.0, 1.0, 0.0]  # type: ignore[type-var]
    problems = found.compared().problems()
    assert len(problems) == 3
    assert problems[0].startswith("sources b-libsvtav1 and b-libx264: found 100 % of the values of motion2")


@pytest.mark.parametrize(("common", "one"), [(0.4, False), (0.5, False), (0.6, True)])
def test_half_of_the_smaller_source_is_the_bound(tmp_path: Path, common: float, one: bool) -> None:
    """A long video and a part of it with frames of its own."""
    motion = videos(200)
    motion["part"] = np.r_[motion["a"][: int(50 * common)], 500 + np.arange(50 - int(50 * common))]
    found = reference_fingerprints(write(tmp_path / "c.csv", motion), ())
    assert found is not None
    assert pairs_of(found)["a", "part"] == pytest.approx(common)
    assert bool(found.compared().problems()) is one


def test_without_frames_no_column_is_found(tmp_path: Path) -> None:
    """Nothing says which rows are of one frame of the reference; a constant says nothing with frames either."""
    assert reference_fingerprints(write(tmp_path / "c.csv", videos(), frames=False), ("motion2",)) is None
    assert reference_fingerprints(write(tmp_path / "d.csv", {"a": np.ones(9), "b": np.ones(9)}), ()) is None


@pytest.mark.parametrize("trick", ["shuffled", "renamed frames", "one video", "changed a little"])
def test_motion_counts_whatever_the_frames_say(trick: str, tmp_path: Path) -> None:
    """Rows of few videos under many names, one encode a name, frames numbered anew: motion2 is the reference's still.

    Values that somebody changed a little are no longer equal, and are told to be distributed alike.
    """
    rng = np.random.default_rng(12)
    motion = dict(list(videos().items())[: 1 if trick == "one video" else 3])
    path = tmp_path / "c.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["src", "encoder", "frame_index", "motion2"])
        for k in range(12):
            for name, values in motion.items():
                for frame, value in enumerate(values):
                    if trick == "shuffled" and rng.integers(4):
                        continue
                    source = f"{k % 4}" if trick == "shuffled" else f"{name}{k}"
                    number = rng.integers(10**6) if trick == "renamed frames" else frame
                    changed = value + rng.normal(0, 1e-4) * (trick == "changed a little")
                    writer.writerow([source, "libx264", number, f"{changed:.6f}"])
    found = reference_fingerprints(path, ())
    assert found is not None
    pairs = found.compared()
    assert found.columns == ("motion2",)
    assert bool(pairs.shifts() if trick == "changed a little" else pairs.problems())


@pytest.mark.parametrize(("decimals", "counts"), [(2, False), (3, False), (6, True)])
def test_motion_needs_no_frames_and_many_decimals(decimals: int, counts: bool) -> None:
    """Videos share values of few decimals by chance; one under two names is found by many."""
    rng = np.random.default_rng(13)
    source, values = np.repeat([0, 1, 2], 60), rng.gamma(3.0, 2.0, 180)
    values[120:] = values[:60]
    inputs = np.c_[rng.random(180), np.where(rng.random(180) < 0.1, 0.0, np.round(values, decimals))]
    plain = Fingerprints((), ("a", "b", "c"), ()).with_rows(source, inputs)
    pairs = plain.with_motion(["adm2", "motion2"], source, inputs).compared()
    assert plain.compared().problems() == pairs.shifts() == []
    assert ("by equal values of motion2 and equal rows" in pairs.not_judged()[0]) is counts
    assert [line.split(":")[0] for line in pairs.problems()] == ["sources a and c"] * counts


def test_few_values_say_nothing(tmp_path: Path) -> None:
    """Two still pictures with the same four values are not called one source by them, and that is said."""
    motion = videos() | {"x": np.tile([0.0, 1.5, 2.5, 3.5, 4.5], 6), "y": np.tile([0.0, 1.5, 2.5, 3.5, 4.5], 6)}
    found = reference_fingerprints(write(tmp_path / "c.csv", motion), ())
    assert found is not None
    assert pairs_of(found)["x", "y"] is None
    assert found.compared().problems() == []
    (line,) = found.compared().not_judged()
    assert line == "different sources: 7 of 10 pairs have fewer than 5 values of motion2: by equal rows of inputs alone"


def test_rows_are_compared_where_no_column_can_be() -> None:
    """Equal rows of inputs are one source, whatever the targets; rows that differ in the last bit are not."""
    rng = np.random.default_rng(3)
    inputs, source = rng.normal(size=(90, 4)), np.repeat([0, 1, 2], 30)
    inputs[source == 2] = inputs[source == 0][::-1]
    found = Fingerprints((), ("a", "b", "c"), ()).with_rows(source, inputs)
    assert pairs_of(found) == {("a", "b"): 0.0, ("a", "c"): 1.0, ("b", "c"): 0.0}
    assert len(found.compared().problems()) == 1
    inputs[source == 2] = np.nextafter(inputs[source == 2], 9.0)
    assert Fingerprints((), ("a", "b", "c"), ()).with_rows(source, inputs).compared().problems() == []


def test_a_shift_in_time_is_a_warning_alone() -> None:
    """Other frames of one video have another set of values from one distribution; different videos have not."""
    rng = np.random.default_rng(4)
    whole, other = rng.gamma(3.0, 2.0, 400), rng.gamma(9.0, 2.0, 200)
    source, values = np.repeat([0, 1, 2], 200), np.r_[whole, other]
    pairs = Fingerprints.of(["motion2"], ["a", "b", "c"], source, values[:, None]).compared()
    assert [pair.is_alike for pair in pairs.pairs] == [True, False, False]
    assert pairs.problems() == []
    assert pairs.shifts()[0].startswith("sources a and b: their motion2 is distributed alike (Kolmogorov-Smirnov")
    few = Fingerprints.of(
        ["motion2"], ["a", "b"], source[:400] * 1, whole[:, None] * (np.arange(400) % 6 == 0)[:, None]
    )
    assert not any(pair.is_alike for pair in few.compared().pairs)


def test_the_distance_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extra `train`")
    rng = np.random.default_rng(5)
    for n, m in ((40, 41), (256, 60), (100, 256)):
        a, b = np.sort(rng.normal(size=n)), np.sort(rng.normal(0.3, 1.2, m))
        assert distance(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)


def test_a_sketch_keeps_what_equal_sources_keep() -> None:
    """At most MAX_SET_VALUES of the distinct values; of a set and a part of it, the overlap is that of the sets."""
    rng = np.random.default_rng(6)
    values = np.round(rng.random(5000), 6)
    whole = sketch(np.r_[values, values, 0.0])
    assert (len(whole), bool((np.diff(whole) > 0).all()), 0.0 in whole) == (MAX_SET_VALUES, True, False)
    assert np.array_equal(sketch(rng.permutation(values)), whole)
    assert overlap(whole, sketch(values[:2500])) == 1.0
    for share in (0.3, 0.7):
        mixed = np.r_[values[: int(2500 * share)], 2.0 + rng.random(2500 - int(2500 * share))]
        found = overlap(whole, sketch(mixed))
        assert found is not None
        assert found == pytest.approx(share, abs=5 * math.sqrt(0.25 / 100))
    assert overlap(np.arange(1.0, MIN_VALUES), np.arange(1.0, 9.0)) is None


def test_all_pairs_agree_with_one_pair_at_a_time() -> None:
    """The comparison of many sources at once is the definition, pair by pair."""
    rng = np.random.default_rng(7)
    pool = np.round(rng.random(300), 6)
    columns = tuple(sketch(rng.choice(pool, rng.integers(0, 40))) for _ in range(12))
    found = pairs_of(Fingerprints(("m",), tuple(map(str, range(12))), (columns,)))
    for one, two in combinations(range(12), 2):
        assert found[str(one), str(two)] == overlap(columns[one], columns[two])


def test_hashes_of_rows_follow_every_bit() -> None:
    """Equal rows are equal, -0.0 is 0.0, and any other bit or order of columns is another hash."""
    rows = np.random.default_rng(8).normal(size=(2000, 3))
    hashes = row_hashes(np.r_[rows, rows])
    assert np.array_equal(hashes[:2000], hashes[2000:])
    assert len(np.unique(hashes)) == 2000
    assert row_hashes(np.array([[0.0, 1.0]])) == row_hashes(np.array([[-0.0, 1.0]]))
    assert len(np.unique(np.r_[row_hashes(rows[:9]), row_hashes(rows[:9, ::-1]), row_hashes(-rows[:9])])) == 27
    assert (hashes == hashes.astype(np.int64)).all()


def test_a_file_of_few_bytes_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many columns and sources without values are refused before their sets are made."""
    many = {"columns": [f"m{k}" for k in range(9000)], "sources": [f"s{k}" for k in range(1000)]}
    data = write_arrays(FINGERPRINTS_FORMAT, GOOD | many)
    monkeypatch.delattr(np, "split")
    with pytest.raises(EvidenceProblem, match="at most 8 columns"):
        read_fingerprints(data)


def test_the_file_says_the_same() -> None:
    """Written, read and written again: equal bytes, equal comparisons."""
    rng = np.random.default_rng(9)
    source = np.repeat(np.arange(4), 300)
    found = Fingerprints.of(["a", "b"], ["p", "q", "r", "s"], source, rng.random((1200, 2)))
    found = found.with_rows(source, rng.random((1200, 5)))
    data = write_fingerprints(found)
    again = read_fingerprints(data)
    assert write_fingerprints(again) == data
    assert again.compared() == found.compared()


GOOD: dict[str, Any] = {
    "version": 1,
    "columns": ["m"],
    "sources": ["a", "b"],
    "column": [0, 0, 0, 1],
    "source": [0, 0, 1, 1],
    "value": [1.0, 2.0, 2.0, 7.0],
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"column": [0, 0, 0]},
        {"column": [0, 0, 0, 2]},
        {"source": [0, 0, 1, -1]},
        {"sources": ["a", "a"]},
        {"columns": ["m", "m"]},
        {"value": [2.0, 1.0, 2.0, 7.0]},
        {"value": [1.0, 1.0, 2.0, 7.0]},
        {"value": [0.0, 1.0, 2.0, 7.0]},
        {"value": [1.0, math.nan, 2.0, 7.0]},
        {"value": np.arange(1.0, 259.0), "column": [0] * 258, "source": [0] * 258},
        {"value": np.arange(1.0, 2000.0), "column": [0] * 1999, "source": [0] * 1999},
        {"columns": [f"m{k}" for k in range(MAX_REFERENCE_COLUMNS + 1)]},
        {"sources": [f"s{k}" for k in range(1001)]},
    ],
)
def test_what_training_does_not_write_is_refused(change: dict[str, Any]) -> None:
    """In one line that names the file."""
    assert read_fingerprints(write_arrays(FINGERPRINTS_FORMAT, GOOD)).columns == ("m",)
    with pytest.raises(EvidenceProblem, match=r"^fingerprints\.npz: expected"):
        read_fingerprints(write_arrays(FINGERPRINTS_FORMAT, GOOD | change))


@pytest.mark.parametrize(
    ("name", "noise", "given_away"),
    [
        ("score", 0.01, True),
        ("vmaf_bagging", 0.01, True),
        ("score", 0.3, False),
        ("vmaf", 0.01, False),
        ("integer_adm2", 0.01, False),
        ("float_psnr", 0.0, False),
    ],
)
def test_a_column_that_follows_the_target_is_named(name: str, noise: float, given_away: bool) -> None:
    """In every source, whatever its offset; libvmaf's own features may, and a constant does not."""
    rng = np.random.default_rng(10)
    source = np.repeat(np.arange(5), 40)
    target = rng.normal(size=200)
    column = -3.0 * target + source * 7 + rng.normal(0, 3.0 * noise + 1e-12, 200)
    inputs = np.c_[column, np.ones(200), rng.normal(size=200)]
    found = giveaways([name, "constant", "other"], [inputs.T], target, source)
    assert [line.split(":")[0] for line in found] == [f"input column {name}"] * given_away


def test_a_column_that_follows_the_target_once_it_is_transformed_is_named() -> None:
    """A condition that a model takes as a logarithm is looked at in that form, too."""
    rng = np.random.default_rng(11)
    source, target = np.repeat(np.arange(5), 40), rng.uniform(0, 100, 200)
    forms = [np.exp2(target / 10)[None], (target / 10)[None]]
    assert giveaways(["bitrate_kbps"], forms[:1], target, source) == []
    assert giveaways(["bitrate_kbps"], forms, target, source) != []
