"""Tests of evaluate.py: evaluation against an independent computation, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program
from csv_tables import read_csv
from fr_ensemble.evidence.p1401 import Mapped
from fr_ensemble.evidence.quantiles import CRPS_LEVELS
from registries import Made
from sandbox import Sandbox

TOLERANCE = 1e-6  # mu and sigma are float32 in the graph's output, figures are computed from them in float64


def predicted(registry: Program, smoke: Sandbox, corpus: Path, levels: str = "0.5,0.8,0.95") -> dict[str, Any]:
    """The columns of a prediction; numbers as float64 arrays."""
    ran = registry("predict", "tiny", "--corpus", corpus, "--levels", levels, "--registry", smoke.path)
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    texts = ("src", "encoder", "out_of_distribution", "flags")
    return {name: values if name in texts else np.array(values, float) for name, values in columns.items()}


def evaluated(registry: Program, smoke: Sandbox, corpus: Path, *more: str) -> dict[str, Any]:
    where = ("--registry", smoke.path, "--format", "json")
    document: dict[str, Any] = json.loads(registry("evaluate", "tiny", "--corpus", corpus, *where, *more).out)
    return document


def targets(corpus: Path) -> np.ndarray[Any, Any]:
    with corpus.open(newline="") as file:
        return np.array([float(row["vmaf"]) for row in csv.DictReader(file)])


def test_rows_it_was_trained_on_are_told(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """Sources that the manifest names are counted in a warning; where there are none, nothing is said."""
    header, *rows = made.heldout.read_text().splitlines()
    trained = next(csv.DictReader(made.corpus.open(newline="")))["src"]
    mixed = tmp_path / "mixed.csv"
    old = rows[0].split(",")[header.split(",").index("src")]
    mixed.write_text("\n".join([header, *(row.replace(old, trained) for row in rows)]))
    for corpus, says in ((made.heldout, ""), (mixed, f"warning: 1 of 3 sources ({trained}): it was trained on")):
        ran = registry("evaluate", "tiny", "--corpus", corpus, "--registry", smoke.path)
        others = ("no guarantee", "outside what training saw")
        told = [line for line in ran.err.splitlines() if not any(words in line for words in others)]
        assert (ran.code, len(told)) == (0, bool(says))
        assert "".join(told).startswith(says)


def test_figures_are_those_of_the_predictions(smoke: Sandbox, registry: Program, made: Made) -> None:
    """PLCC, RMSE, CRPS, coverage, width and interval score, from `predict` and the file, by their definitions."""
    y, columns = targets(made.heldout), predicted(registry, smoke, made.heldout)
    document = evaluated(registry, smoke, made.heldout)
    mu, sigma = columns["mu"], columns["sigma"]
    assert document["n_rows"] == len(y) == 120
    assert document["plcc"] == pytest.approx(np.corrcoef(mu, y)[0, 1], abs=TOLERANCE)
    assert document["rmse"] == pytest.approx(np.sqrt(np.mean((mu - y) ** 2)), abs=TOLERANCE)
    for item in document["levels"]:
        lower, upper = (columns[f"{side}_{item['level'] * 100:g}"] for side in ("lower", "upper"))
        alpha = 1 - item["level"]
        below, above = np.maximum(lower - y, 0), np.maximum(y - upper, 0)
        assert item["coverage"] == pytest.approx(np.mean((lower <= y) & (y <= upper)))
        assert item["width"] == pytest.approx(np.mean(upper - lower), abs=TOLERANCE)
        score = np.mean(upper - lower + 2 / alpha * (below + above))  # Gneiting & Raftery 2007, equation 43
        assert item["interval_score"] == pytest.approx(score, abs=1e-4)
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extra `train`")
    assert document["srocc"] == pytest.approx(stats.spearmanr(mu, y).statistic, abs=TOLERANCE)
    z = (y - mu) / sigma  # Gneiting & Raftery 2007, equation 21
    crps = sigma * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert document["crps"] == pytest.approx(crps.mean(), abs=1e-4)


def test_the_gaussian_baseline_is_mu_and_sigma_alone(smoke: Sandbox, registry: Program, made: Made) -> None:
    """What sigma would claim without calibration: mu +- z sigma, inside the target's range."""
    y, columns = targets(made.heldout), predicted(registry, smoke, made.heldout)
    document = evaluated(registry, smoke, made.heldout)
    for item, z in zip(document["baselines"]["gaussian"], (0.674489750, 1.281551566, 1.959963985), strict=True):
        inside = np.abs(y - columns["mu"]) <= z * columns["sigma"]
        assert item["coverage"] == pytest.approx(inside.mean(), abs=1 / len(y))


def test_p1401_and_the_calibrated_distribution(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """A column of confidence intervals, TARGET_ci, brings RMSE* and outliers; the CRPS of intervals needs none."""
    y, columns = targets(made.heldout), predicted(registry, smoke, made.heldout)
    header, *rows = made.heldout.read_text().splitlines()
    half = [("" if number % 5 == 0 else str(0.1 * (number % 7))) for number in range(len(rows))]
    corpus = tmp_path / "known.csv"
    lines = [f"{header},vmaf_ci", *(f"{row},{ci}" for row, ci in zip(rows, half, strict=True))]
    corpus.write_text("\n".join(lines) + "\n")
    document = evaluated(registry, smoke, corpus)
    expected = Mapped.of(y, columns["mu"], np.array([float(ci) if ci else np.nan for ci in half]))
    assert expected is not None
    assert document["p1401"]["confidence"] == pytest.approx(expected.to_dict()["confidence"], abs=TOLERANCE)
    assert document["p1401"]["slope"] == pytest.approx(expected.slope, abs=TOLERANCE)
    plain = evaluated(registry, smoke, made.heldout)
    assert "confidence" not in plain["p1401"]
    bounds = predicted(registry, smoke, made.heldout, ",".join(f"{level:g}" for level in CRPS_LEVELS))
    ends = [(level, bounds[f"lower_{100 * level:g}"], bounds[f"upper_{100 * level:g}"]) for level in CRPS_LEVELS]
    pinball = [
        np.maximum(tau * (y - end), (tau - 1.0) * (y - end))
        for level, *pair in ends
        for tau, end in zip(((1.0 - level) / 2.0, (1.0 + level) / 2.0), pair, strict=True)
    ]
    assert plain["crps_calibrated"] == pytest.approx(2.0 * np.mean(pinball), abs=TOLERANCE)


def test_groups_are_their_rows(smoke: Sandbox, registry: Program, made: Made) -> None:
    """By source and encoder: the same figures on those rows alone, and every row in one group."""
    y, columns = targets(made.heldout), predicted(registry, smoke, made.heldout)
    by = evaluated(registry, smoke, made.heldout, "--by", "src,encoder")["by"]
    for column in ("src", "encoder"):
        names = np.array(columns[column])
        assert sum(group["n_rows"] for group in by[column].values()) == len(y)
        for name, group in by[column].items():
            rows = names == name
            assert group["n_rows"] == rows.sum()
            assert group["plcc"] == pytest.approx(np.corrcoef(columns["mu"][rows], y[rows])[0, 1], abs=TOLERANCE)


def test_a_level_that_is_not_stored_is_computed(smoke: Sandbox, registry: Program, made: Made) -> None:
    """Wider with the level, a stored level the same beside it, and every bound inside the target's range."""
    columns = predicted(registry, smoke, made.heldout, "0.3,0.8,0.87,0.999")
    widths = [columns[f"upper_{level}"] - columns[f"lower_{level}"] for level in ("30", "80", "87", "99.9")]
    assert all((a <= b).all() for a, b in pairwise(widths))
    assert (columns["lower_80"] == predicted(registry, smoke, made.heldout, "0.8")["lower_80"]).all()
    bounds = [columns[name] for name in columns if name.startswith(("lower", "upper"))]
    assert 0 <= min(b.min() for b in bounds) <= max(b.max() for b in bounds) <= 100


def test_mu_and_sigma_are_the_members(smoke: Sandbox, registry: Program, made: Made) -> None:
    """The mean and the sample deviation (ddof 1) of the members' own scores, each run by itself."""
    onnxruntime = pytest.importorskip("onnxruntime")
    rows = read_csv(made.heldout)
    manifest = smoke.manifest
    raw = np.array([[float(row[name]) for name in manifest["feature_order"]] for row in rows])
    features = ((raw - manifest["feature_mean"]) / manifest["feature_std"]).astype(np.float32)
    codec = np.zeros((len(rows), len(manifest["codec_vocab"])), np.float32)
    codec[np.arange(len(rows)), [manifest["codec_vocab"].index(row["encoder"]) for row in rows]] = 1
    folder = smoke.artifacts
    scores = np.stack(
        [
            onnxruntime.InferenceSession((folder / member["onnx"]).read_bytes(), providers=["CPUExecutionProvider"])
            .run(["score"], {"features": features, "codec_onehot": codec})[0]
            .reshape(-1)
            for member in manifest["members"]
        ]
    ).astype(float)
    columns = predicted(registry, smoke, made.heldout)
    assert columns["mu"] == pytest.approx(scores.mean(axis=0), abs=1e-3)
    assert columns["sigma"] == pytest.approx(scores.std(axis=0, ddof=1), abs=1e-3)


def test_random_rows_show_that_it_runs(smoke: Sandbox, registry: Program) -> None:
    """--smoke evaluates on fresh random rows, which no two runs share."""
    where = ("evaluate", "tiny", "--smoke", "--registry", smoke.path, "--format", "json")
    one, two = (json.loads(registry(*where).out) for _ in range(2))
    assert (one["corpus"], one["n_rows"]) == ("random rows", 100)
    assert one["rmse"] != two["rmse"]


def test_a_column_to_group_by_must_be_there(smoke: Sandbox, registry: Program, made: Made) -> None:
    """--by names columns of the corpus: exit 2 for another."""
    ran = registry("evaluate", "tiny", "--corpus", made.heldout, "--by", "preset", "--registry", smoke.path)
    assert (ran.code, ran.err.count("\n"), "preset" in ran.err) == (2, 1, True)


def test_constant_rows_have_no_correlation(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """A figure that does not exist is null in JSON and not a crash."""
    head, row, *_ = made.heldout.read_text().splitlines()
    (tmp_path / "c.csv").write_text("\n".join([head, *[row] * 5]) + "\n")
    document = evaluated(registry, smoke, tmp_path / "c.csv")
    assert (document["plcc"], document["n_rows"]) == (None, 5)
    assert document["rmse"] >= 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda intervals: intervals.clear(), 1),  # as any document that its schema refuses
        (lambda intervals: intervals["calibrations"].clear(), 1),
        (lambda intervals: intervals["calibrations"][0].update(method="guess"), 2),
        (lambda intervals: intervals["calibrations"][0].update(range=[9, 0]), 2),
    ],
)
def test_intervals_that_mean_nothing_are_one_line(
    smoke: Sandbox, registry: Program, made: Made, change: Callable[[Any], None], code: int
) -> None:
    """A manifest whose intervals are none, though every pin fits: one line that says to validate, no traceback."""
    smoke.forge(lambda manifest: change(manifest["intervals"]))
    for command in ("evaluate", "predict"):
        ran = registry(command, "tiny", "--corpus", made.heldout, "--registry", smoke.path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran
        assert "intervals" in ran.err
        assert "registry validate" in ran.err
