"""low <= lower <= mu <= upper <= high: for every row, in predict, load, evaluate, recommend, gate and evidence."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from csv_tables import read_csv
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.entry import checked_evidence
from fr_ensemble.evidence.intervals import EncoderIntervals, Intervals
from fr_ensemble.evidence.methods import INTERVAL_METHODS, LOWER_SIDE, TWO_SIDED
from fr_ensemble.evidence.oof import Oof, deviation_of, mean_of, read_oof, write_oof
from hypothesis import given, settings
from hypothesis import strategies as st
from registries import ENCODERS, FEATURES, TRAINING
from sandbox import Sandbox

import registry_tool
from registry_tool.toolkit import Text

LEVELS = (0.5, 0.8, 0.95, 0.99)
FROZEN = Path(__file__).parents[1] / "frozen" / "5e6a11a"  # fused graphs of version 1, which do not cut mu
LOW, HIGH = 0.0, 10.0
N_SOURCES, N_ROWS = 9, 4

Numbers = np.ndarray[Any, Any]
numbers = st.floats(-30.0, 30.0)


def ordered(lower: Numbers, mu: Numbers, upper: Numbers, low: float = LOW, high: float = HIGH) -> bool:
    return bool(((low <= lower) & (lower <= mu) & (mu <= upper) & (upper <= high)).all())


def made_oof(shift: float, seed: int, mu_range: tuple[float, float] | None) -> Oof:
    """Targets of 9 sources inside 0..10, and three members whose scores miss them by the shift and leave the range."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(LOW, HIGH, N_SOURCES * N_ROWS)
    predictions = target + shift + rng.normal(scale=2.0, size=(3, len(target)))
    source = np.repeat(np.arange(N_SOURCES), N_ROWS)
    names = tuple(f"s{g}" for g in range(N_SOURCES))
    return Oof((0, 1, 2), names, source, names, source, target, predictions, "r", "c", None, mu_range=mu_range)


@pytest.mark.slow
@pytest.mark.parametrize("side", [TWO_SIDED, LOWER_SIDE])
@pytest.mark.parametrize("method", INTERVAL_METHODS)
@settings(max_examples=25, deadline=None)
@given(
    oof=st.builds(made_oof, st.floats(-8.0, 8.0), st.integers(0, 9), st.sampled_from([(LOW, HIGH), None])),
    mu=st.lists(numbers, min_size=1, max_size=4),
    sigma=st.floats(0.0, 20.0),
)
def test_every_interval_holds_mu(method: str, side: str, oof: Oof, mu: list[float], sigma: float) -> None:
    """Whatever the method, the side, the bias of the members, and a mu outside of the target's range."""
    for unit in ("row", "clip"):
        found = calibrate(oof, unit, method, LEVELS, side, (LOW, HIGH))
        for level in LEVELS:
            lower, upper = found.interval(np.array(mu), np.full(len(mu), sigma), level)
            assert ordered(lower, np.clip(mu, LOW, HIGH), upper)


@pytest.mark.slow
@pytest.mark.parametrize("side", [TWO_SIDED, LOWER_SIDE])
@pytest.mark.parametrize("method", INTERVAL_METHODS)
@settings(max_examples=15, deadline=None)
@given(
    oof=st.builds(made_oof, st.floats(-8.0, 8.0), st.integers(0, 9), st.sampled_from([(LOW, HIGH), None])),
    rows=st.lists(st.tuples(numbers, st.sampled_from(["x264", "hevc", "AV1", "vp9", "?"])), min_size=1, max_size=6),
    sigma=st.floats(0.0, 20.0),
)
def test_every_interval_by_encoder_holds_mu(
    method: str, side: str, oof: Oof, rows: list[tuple[float, str]], sigma: float
) -> None:
    """Encoders apart, too few of them, and ones that the calibration lacks, in one table of rows."""
    encoder = np.where(oof.source < 3, np.arange(len(oof.target)) % 3, np.arange(len(oof.target)) % 2)
    told = replace(oof, encoders=("libx264", "libx265", "libsvtav1"), encoder=encoder)
    pooled = calibrate(told, "row", method, LEVELS, side, (LOW, HIGH))
    intervals = Intervals((pooled,), {}, EncoderIntervals.of(told, (pooled,), LEVELS))
    mu, names = np.array([row[0] for row in rows]), [row[1] for row in rows]
    found = intervals.of_rows(Text.of(names), "row", side)
    for level in LEVELS:
        lower, upper = found.interval(mu, np.full(len(mu), sigma), level)
        assert ordered(lower, np.clip(mu, LOW, HIGH), upper)
        for i, name in enumerate(names):
            own = intervals.of_encoder(name, "row", side)
            assert (own is pooled) == (name not in ("x264", "hevc"))
            one = own.interval(mu[i : i + 1], np.array([sigma]), level)
            assert (one[0][0], one[1][0]) == (lower[i], upper[i])


def test_a_row_without_a_number_stays_one() -> None:
    """NaN is not cut to a bound."""
    found = calibrate(made_oof(0.0, 0, None), target_range=(LOW, HIGH))
    assert np.isnan(found.interval(np.array([np.nan]), np.ones(1), 0.8)).all()


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-8.0, 8.0), seed=st.integers(0, 9))
def test_evidence_cuts_mu_alone(shift: float, seed: int) -> None:
    """mu is inside the range that the file says; predictions and sigma are as they were, in the file as in memory."""
    oof = read_oof(write_oof(made_oof(shift, seed, (LOW, HIGH))))
    uncut = read_oof(write_oof(made_oof(shift, seed, None)))
    assert (oof.mu_range, uncut.mu_range) == ((LOW, HIGH), None)
    assert np.array_equal(oof.predictions, uncut.predictions)
    assert np.array_equal(oof.sigma, deviation_of(oof.predictions))
    assert np.array_equal(uncut.mu, mean_of(oof.predictions))
    assert np.array_equal(oof.mu, np.clip(uncut.mu, LOW, HIGH))


@pytest.fixture(params=["today", "version 1"])
def opened(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A registry and an entry in it: with a fused graph of today, and of the first version."""
    if request.param == "version 1":
        return FROZEN / "model" / "registry.json", "promoted"
    smoke: Sandbox = request.getfixturevalue("smoke")
    return smoke.path, "tiny"


@pytest.fixture
def far_rows(tmp_path: Path) -> Path:
    """Rows whose features are so far from those of training that means of members leave 0..100 on both sides."""
    rng = np.random.default_rng(3)
    path = tmp_path / "far.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", "encoder", "clip", "crf", *FEATURES, "vmaf"))
        for row in range(60):
            features = [*rng.uniform(-3.0, 3.0, 5).tolist(), float(rng.uniform(0.0, 30.0))]
            writer.writerow(
                (f"x{row // 10}", ENCODERS[row % 3], f"c{row // 2}", row // 2, *features, 100 * rng.uniform())
            )
    return path


def uncut_mu(path: Path, entry: str, rows: Path) -> Numbers:
    """What the members give, run by the graph alone."""
    document = json.loads(path.read_bytes())
    manifest_path = path.parent / next(model["manifest"] for model in document["models"] if model["id"] == entry)
    manifest = json.loads(manifest_path.read_bytes())
    graph = manifest_path.parent / manifest["fused"]["onnx"]
    table = read_csv(rows)
    features = np.array([[float(row[name]) for name in manifest["feature_order"]] for row in table])
    codec = np.array([[float(row["encoder"] == name) for name in manifest["codec_vocab"]] for row in table])
    return Ensemble(graph.read_bytes()).predict(features, codec)[0]


@pytest.mark.slow
def test_predict_load_and_evaluate_show_one_mu_inside(opened: tuple[Path, str], far_rows: Path) -> None:
    """Of the rows that leave the range, too: the command, the API and the figures of evaluate agree."""
    path, entry = opened
    where = ("--corpus", far_rows, "--registry", path)
    ran = run(path.parent, "predict", entry, *where, "--levels", ",".join(map(str, LEVELS)))
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    mu = np.array([float(row["mu"]) for row in rows])
    raw = uncut_mu(path, entry, far_rows)
    assert np.abs(mu - np.clip(raw, 0.0, 100.0)).max() <= 1e-4
    assert min(np.mean(mu == 0.0), np.mean(mu == 100.0)) > 0.05
    if entry == "promoted":
        assert raw.min() < 0.0
        assert raw.max() > 100.0
    table = read_csv(far_rows)
    columns = {name: np.array([float(row[name]) for row in table]) for name in FEATURES}
    model = registry_tool.open(path).load(entry, allow_smoke=True)
    found = model.predict(columns | {"encoder": [row["encoder"] for row in table]}, levels=LEVELS)
    assert np.abs(found.mu - mu).max() <= 1e-4
    for level in LEVELS:
        lower, upper = (np.array([float(row[f"{end}_{level * 100:g}"]) for row in rows]) for end in ("lower", "upper"))
        assert ordered(lower, mu, upper, 0.0, 100.0)
        assert ordered(found.interval(level)[0], found.mu, found.interval(level)[1], 0.0, 100.0)
    figures = json.loads(run(path.parent, "evaluate", entry, *where, "--format", "json").out)
    target = np.array([float(row["vmaf"]) for row in table])
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(mu - target))), abs=1e-4)


@pytest.mark.slow
def test_the_gate_measures_the_mu_that_ships(tmp_path: Path) -> None:
    """Where targets end at the range's end, members leave it; mu, out of fold and as shipped, does not."""
    rows, header = [], ("src", "encoder", *FEATURES, "vmaf")
    rng = np.random.default_rng(8)
    for row in range(180):
        quality = rng.uniform(0.2, 1.0)
        features = quality ** np.array([0.2, 1.0, 0.7, 0.5, 0.35, 0.3])
        rows.append((f"s{row % 3}", ENCODERS[row % 2], *features, min(100.0, 130.0 * quality)))
    with (tmp_path / "corpus.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    path = tmp_path / "model" / "registry.json"
    what = ("--id", "tiny", "--corpus", tmp_path / "corpus.csv", "--registry", path)
    assert run(tmp_path, "train", "fr_ensemble", *what, *TRAINING).code == 0
    box = Sandbox(path)
    with box.view() as view:
        found = checked_evidence(view)
    assert found.problems == ()
    assert found.shipped is not None
    for mu in (found.oof.mu, found.shipped.mu):
        assert 0.0 <= mu.min() <= mu.max() == 100.0
    assert mean_of(found.oof.predictions).max() > 101.0
    assert found.shipped.sigma.min() > 0.0


@pytest.mark.slow
def test_evidence_with_another_range_of_mu_is_a_problem(smoke: Sandbox) -> None:
    """None, where the graph cuts mu, or another one: a contradiction, well pinned as it is."""
    path = smoke.artifacts / "evidence" / "oof.npz"
    oof = read_oof(path.read_bytes())
    for other in (None, (0.0, 90.0)):
        found = smoke.forged(files={"evidence/oof.npz": write_oof(replace(oof, mu_range=other))})
        assert ("evidence-problem", "/evidence") in found
