"""test_recommend.py: `registry fr-ensemble recommend`: the cheapest encode whose lower bound holds."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import Program, succeed
from csv_tables import read_csv, write_csv
from filelock import FileLock
from fr_ensemble.corpus.vocabulary import vocabulary
from registries import FEATURES, TRAINING
from sandbox import Sandbox

from registry_tool import schemas
from registry_tool.documents.schema import violations

pytestmark = pytest.mark.slow

ENCODERS = ("libx264", "libsvtav1")
QUALITIES = (20, 27, 34, 41)
ROWS, SOURCES, FRAMES = "clips.csv", 8, 5


def write(path: Path, sources: int, seed: int, **more: Any) -> Path:
    """Encodes whose vmaf falls and whose bitrate falls as the quality number grows."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for source in range(sources):
        hard = rng.uniform(0.7, 1.3)
        for encoder in ENCODERS:
            for quality in QUALITIES:
                for _ in range(FRAMES):
                    good = float(np.clip(1.0 - hard * (quality - 18) / 60 + rng.normal(0, 0.01), 0.1, 1.0))
                    values = np.clip(good ** np.array([0.2, 1.0, 0.7, 0.5, 0.35]) + rng.normal(0, 0.003, 5), 0, 1)
                    numbers = dict(zip(FEATURES, [*values.tolist(), rng.uniform(1, 8)], strict=True))
                    place = {"src": f"s{seed}{source}", "encoder": encoder, "quality": quality}
                    kbps = 4000 * 2 ** (-quality / 6) * (1 if encoder == "libx264" else 0.7)
                    rows.append(place | {"bitrate_kbps": kbps} | numbers | {"vmaf": 100 * good**0.6} | more)
    return write_csv(path, rows)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A registry of one ensemble, `tiny`, really trained on rows that name their clips; and rows of new sources."""
    base = tmp_path_factory.mktemp("clips")
    with FileLock(f"{base}.lock"):
        corpus = write(base / "corpus.csv", SOURCES, seed=1)
        call = ("train", "fr_ensemble", "--id", "tiny", "--corpus", corpus, *TRAINING)
        succeed(*call, "--registry", base / "model" / "registry.json")
        write(base / ROWS, 2, seed=2)
    return Sandbox(base / "model" / "registry.json")


def asked(registry: Program, clips: Sandbox, *arguments: object, rows: Path | None = None) -> dict[str, Any]:
    where = ["--corpus", rows or clips.folder.parent / ROWS, "--registry", clips.path, "--format", "json"]
    ran = registry("fr-ensemble", "recommend", "tiny", *where, *arguments)
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    assert violations(document, schemas.load("recommendation")) == []
    return document


def members_means(clips: Sandbox, rows: list[dict[str, Any]]) -> Any:
    """Each member's mean score over some rows, by onnxruntime alone."""
    manifest = clips.manifest
    raw = np.array([[float(row[name]) for name in FEATURES] for row in rows])
    features = (raw - manifest["feature_mean"]) / manifest["feature_std"]
    codec = np.eye(12)[[vocabulary().index(row["encoder"]) for row in rows]]
    feeds = {"features": features.astype(np.float32), "codec_onehot": codec.astype(np.float32)}
    paths = [clips.artifacts / member["onnx"] for member in manifest["members"]]
    return np.array([onnxruntime.InferenceSession(path).run(None, feeds)[0].mean() for path in paths])


def test_figures_are_those_of_the_clips_calibration(registry: Program, clips: Sandbox) -> None:
    """mu and sigma are of the members' clip means; the bound is mu less q of the lower clip calibration."""
    document = asked(registry, clips, "--target", 80)
    of_clips = [c for c in clips.manifest["intervals"]["calibrations"] if (c["unit"], c["side"]) == ("clip", "lower")]
    q, floor = of_clips[0]["levels"]["0.95"]["q"], of_clips[0]["floor"]
    assert document["bound"]["q"] == pytest.approx(q)
    rows = read_csv(clips.folder.parent / ROWS)
    group = document["groups"][0]
    for encode in group["encodes"]:
        mine = [
            row
            for row in rows
            if (row["src"], row["encoder"]) == (group["src"], group["encoder"])
            and row["quality"] == encode["setting"]["quality"]
        ]
        means = members_means(clips, mine)
        assert encode["n_rows"] == len(mine) == FRAMES
        assert encode["mu"] == pytest.approx(means.mean(), abs=1e-4)
        assert encode["sigma"] == pytest.approx(means.std(ddof=1), abs=1e-4)
        lower = means.mean() - q * math.hypot(means.std(ddof=1), floor)
        assert encode["lower"] == pytest.approx(np.clip(lower, 0, 100), abs=1e-3)
        assert encode["cost"] == pytest.approx(float(mine[0]["bitrate_kbps"]))


def test_sources_that_it_was_trained_on_are_named(registry: Program, clips: Sandbox, tmp_path: Path) -> None:
    """With the number of their rows; of sources that it has not seen there is no such warning."""
    place = clips.folder.parent
    known, new = read_csv(place / "corpus.csv"), read_csv(place / ROWS)
    asking = ("fr-ensemble", "recommend", "tiny", "--registry", clips.path, "--target", 80, "--confidence", 0.8)
    ran = registry(*asking, "--corpus", write_csv(tmp_path / "both.csv", [*new, *known]))
    names = ", ".join(f"s1{source}" for source in range(3))
    assert re.search(rf"warning: {names} .*it was trained on sources of these names.*: {len(known)} rows", ran.err)
    assert "trained on" not in registry(*asking, "--corpus", place / ROWS).err


@pytest.mark.parametrize("target", [40, 70, 85, 99.9])
@pytest.mark.parametrize("by", ["encoder", "source"])
def test_the_cheapest_that_holds(registry: Program, clips: Sandbox, target: float, by: str) -> None:
    """The encode named holds and no cheaper one does; where none is named, none holds."""
    document = asked(registry, clips, "--target", target, "--by", by, "--confidence", 0.8)
    assert document["cost"] == {"column": "bitrate_kbps", "cheaper": "lower"}
    assert len(document["groups"]) == (4 if by == "encoder" else 2)
    for group in document["groups"]:
        holding = [encode for encode in group["encodes"] if encode["assured"] >= target]
        cheapest = min(holding, key=lambda encode: encode["cost"])["clip"] if holding else None
        assert group["recommended"] == cheapest
        assert len(group["encodes"]) == (4 if by == "encoder" else 8)
    if target in (40, 99.9):
        assert {group["recommended"] is None for group in document["groups"]} == {target == 99.9}


def test_more_confidence_never_costs_less(registry: Program, clips: Sandbox) -> None:
    """A level that the manifest does not hold is calibrated on the spot, and bounds fall as it rises."""
    bounds = []
    for confidence in (0.5, 0.73, 0.95):
        groups = asked(registry, clips, "--target", 70, "--confidence", confidence)["groups"]
        bounds.append([encode["lower"] for group in groups for encode in group["encodes"]])
    assert all(a >= b >= c for a, b, c in zip(*bounds, strict=True))
    assert bounds[0] != bounds[2]


def test_a_quality_number_is_a_cost(registry: Program, clips: Sandbox, tmp_path: Path) -> None:
    """Without a bitrate, the highest number that holds is the cheapest; scales of two encoders are not compared."""
    rows = [{k: v for k, v in row.items() if k != "bitrate_kbps"} for row in read_csv(clips.folder.parent / ROWS)]
    path = write_csv(tmp_path / "r.csv", rows)
    document = asked(registry, clips, "--target", 60, "--confidence", 0.8, rows=path)
    assert document["cost"] == {"column": "quality", "cheaper": "higher"}
    for group in document["groups"]:
        assert [encode["cost"] for encode in group["encodes"]] == sorted(QUALITIES, reverse=True)
    where = ["--corpus", path, "--registry", clips.path, "--target", 60, "--by", "source"]
    ran = registry("fr-ensemble", "recommend", "tiny", *where)
    assert (ran.code, ran.out) == (2, "")
    assert "quality of libsvtav1 and libx264 are different scales" in ran.err


def test_batches_do_not_matter(registry: Program, clips: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip whose rows come in several batches has the figures of all its rows."""
    whole = asked(registry, clips, "--target", 70)
    monkeypatch.setattr("fr_ensemble.corpus.rows.read_batches.__defaults__", (3, ()))
    cut = asked(registry, clips, "--target", 70)
    for one, other in zip(whole["groups"], cut["groups"], strict=True):
        assert one["recommended"] == other["recommended"]
        assert [e["mu"] for e in one["encodes"]] == pytest.approx([e["mu"] for e in other["encodes"]], abs=1e-4)


def test_words_for_people(registry: Program, clips: Sandbox) -> None:
    """A line a source and encoder; where none holds it says so; what training never saw is a warning."""
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", clips.path]
    ran = registry("fr-ensemble", "recommend", "tiny", *where, "--target", 99.9)
    assert ran.code == 0
    assert ran.out.startswith(
        "mean vmaf of a clip at least 99.9, at 95 %\n0 answers (4 without one) by the lower bound"
    )
    assert ran.out.count("none of 4; the best:") == 4
    rows = read_csv(clips.folder.parent / ROWS)
    path = write_csv(clips.folder.parent / "far.csv", [{**row, "encoder": "wonder", "motion2": 99} for row in rows])
    ran = registry("fr-ensemble", "recommend", "tiny", "--target", 50, *where[2:], "--corpus", path, "--by", "source")
    assert f"warning: encoder 'wonder' is unknown: {len(rows)} rows" in ran.err
    assert re.search(rf"warning: motion2 is outside what training saw, .* to .*: {len(rows)} rows", ran.err)
    assert "encoder" in ran.out.splitlines()[-1].rpartition("  ")[2].split()


def test_a_picture(registry: Program, clips: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--plot draws a PNG beside the same words; without matplotlib, or a place for it, that is one line."""
    pytest.importorskip("matplotlib")
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", clips.path, "--target", 80]
    ran = registry("fr-ensemble", "recommend", "tiny", *where, "--plot", tmp_path / "p.png")
    assert ran.code == 0
    assert ran.out == registry("fr-ensemble", "recommend", "tiny", *where).out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    ran = registry("fr-ensemble", "recommend", "tiny", *where, "--plot", tmp_path / "no" / "p.png")
    assert (ran.code, "it cannot be written: the folder does not exist" in ran.err) == (3, True)
    monkeypatch.setattr("registry_tool.toolkit.find_spec", lambda name: None)
    ran = registry("fr-ensemble", "recommend", "tiny", *where, "--plot", tmp_path / "p.png")
    assert (ran.code, "--plot: drawing needs matplotlib" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, ["--target", "101"], "expected a target in 0..100"),
        ({}, ["--target", "nan"], "expected a target in 0..100"),
        ({}, ["--target", "80", "--confidence", "1"], "a confidence between 0 and 1"),
        ({}, ["--target", "80", "--cost", "bytes"], "no column 'bytes'"),
        ({"bitrate_kbps": "much"}, ["--target", "80"], "row 1, column bitrate_kbps: found 'much'"),
        ({"bitrate_kbps": "nan"}, ["--target", "80"], "row 1, column bitrate_kbps: found 'nan'"),
        ({"clip": "same"}, ["--target", "80"], "has rows of several encoders"),
        ({"src": None}, ["--target", "80"], "found no src"),
        ({"bitrate_kbps": None, "quality": None}, ["--target", "80"], "found no cost"),
        ({"quality": None, "bitrate_kbps": None, "bytes": 3}, ["--target", "80", "--cost", "bytes"], "found no clip"),
    ],
)
def test_a_wrong_question_says_what_was_expected(
    change: dict[str, Any], arguments: list[str], message: str, registry: Program, clips: Sandbox, tmp_path: Path
) -> None:
    """Rows or options that do not fit are one line and exit 2."""
    dropped = {name for name, value in change.items() if value is None}
    rows = [
        {k: v for k, v in {**row, **change}.items() if k not in dropped} for row in read_csv(clips.folder.parent / ROWS)
    ]
    path = write_csv(tmp_path / "r.csv", rows)
    ran = registry("fr-ensemble", "recommend", "tiny", "--corpus", path, "--registry", clips.path, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_an_entry_without_clips_is_refused(registry: Program, smoke: Sandbox, clips: Sandbox) -> None:
    """An ensemble whose corpus named no clips has no bound for them, and says how to get one."""
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", smoke.path, "--target", 80]
    ran = registry("fr-ensemble", "recommend", "tiny", *where)
    assert (ran.code, "train on a corpus that names its clips" in ran.err) == (2, True)
    ran = registry("fr-ensemble", "recommend", "none", *where)
    assert (ran.code, "no entry 'none'" in ran.err) == (2, True)


def test_intervals_that_mean_nothing_are_one_line(registry: Program, smoke: Sandbox, clips: Sandbox) -> None:
    """A range upside down, though every pin fits, is exit 2 that says to validate, no traceback."""
    smoke.forge(lambda manifest: manifest["intervals"]["calibrations"][0].update(range=[9, 0]))
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", smoke.path, "--target", 80]
    ran = registry("fr-ensemble", "recommend", "tiny", *where)
    assert (ran.code, ran.err.count("\n"), "run `registry validate`" in ran.err) == (2, 1, True)


def test_changed_bytes_are_refused(registry: Program, smoke: Sandbox, clips: Sandbox) -> None:
    """A command of a plugin opens an entry as every other does: a member that is not the pinned one is rejected."""
    member = smoke.artifacts / smoke.manifest["members"][0]["onnx"]
    member.write_bytes(member.read_bytes() + b"x")
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", smoke.path, "--target", 80]
    ran = registry("fr-ensemble", "recommend", "tiny", *where)
    assert ran.code == 1
    assert "the sha256 of" in ran.err


def test_an_entry_of_another_kind_is_refused(registry: Program, thumb: Sandbox, clips: Sandbox) -> None:
    """Only an ensemble has bounds."""
    where = ["--corpus", clips.folder.parent / ROWS, "--registry", thumb.path, "--target", 80]
    ran = registry("fr-ensemble", "recommend", "t", *where)
    assert ran.code != 0
    assert ran.out == ""


def test_choices_are_controlled_where_the_sources_suffice(registry: Program, clips: Sandbox) -> None:
    """Eight sources control choices at 80 %, whose bound is nearer than that of clips; at 95 % they cannot."""
    document = asked(registry, clips, "--target", 70, "--confidence", 0.8)
    assert {group["rule"] for group in document["groups"]} == {"choice"}
    assert (document["choice"]["rule"], document["choice"]["n_sources"]) == ("conformal-risk-control", SOURCES)
    encodes = [encode for group in document["groups"] for encode in group["encodes"]]
    assert all(encode["lower"] <= encode["assured"] <= encode["mu"] for encode in encodes)
    few = asked(registry, clips, "--target", 70)
    assert (few["choice"]["q"], {group["rule"] for group in few["groups"]}) == (None, {"bound"})
    assert all(encode["assured"] == encode["lower"] for group in few["groups"] for encode in group["encodes"])
    where = ("--corpus", clips.folder.parent / ROWS, "--registry", clips.path, "--target", 70)
    said = registry("fr-ensemble", "recommend", "tiny", *where).out
    assert "4 answers by the lower bound of clips" in said
    assert "8 sources are too few to control choices at 95 %" in said


def test_a_finer_ladder_is_climbed_down(registry: Program, clips: Sandbox, tmp_path: Path) -> None:
    """Encodes nearer to each other than the calibration's: all dearer ones have to hold, too."""
    rows = read_csv(clips.folder.parent / ROWS)
    near = [row | {"quality": 20 + i / 100, "bitrate_kbps": 900 - i} for i, row in enumerate(rows[:FRAMES] * 6)]
    document = asked(registry, clips, "--target", 60, "--confidence", 0.8, rows=write_csv(tmp_path / "near.csv", near))
    [group] = document["groups"]
    assert group["rule"] == "sequence"
    held = [encode["assured"] >= 60 for encode in reversed(group["encodes"])]
    run = held.index(False) if False in held else len(held)
    expected = group["encodes"][-run]["clip"] if run else None
    assert group["recommended"] == expected


@pytest.mark.parametrize(
    ("option", "shown"), [("--percentile", "percentile 20"), ("--worst-window", "worst mean of 2")]
)
def test_the_worst_part_of_a_clip(registry: Program, clips: Sandbox, option: str, shown: str) -> None:
    """A percentile or the worst window of the rows: of each member's scores, with a calibration of its own."""
    number = shown.split()[1] if option == "--percentile" else 2
    document = asked(registry, clips, "--target", 60, "--confidence", 0.8, option, number)
    mean = asked(registry, clips, "--target", 60, "--confidence", 0.8)
    assert document["target"]["statistic"].startswith(shown)
    assert document["bound"] != mean["bound"]
    pairs = zip(document["groups"], mean["groups"], strict=True)
    means = [{one["clip"]: one["mu"] for one in group["encodes"]} for _, group in pairs]
    for group, known in zip(document["groups"], means, strict=True):
        assert all(encode["mu"] < known[encode["clip"]] for encode in group["encodes"])


@pytest.mark.parametrize(
    ("option", "number", "words"),
    [
        ("--worst-window", FRAMES, ""),
        ("--worst-window", FRAMES + 1, "fewer than 6 rows: the mean of all of them is taken for the worst window"),
        ("--percentile", 100 / FRAMES, ""),
        ("--percentile", 10, "fewer than 10 rows, too few for percentile 10: it is near their lowest row"),
        ("--percentile", 99.9, "fewer than 1000 rows, too few for percentile 99.9: it is near their highest row"),
        ("--percentile", 100, ""),
    ],
)
def test_clips_with_too_few_rows_are_said(
    registry: Program, clips: Sandbox, option: str, number: float, words: str
) -> None:
    """For a window or a percentile that takes more; with how many rows they are."""
    where = ("--corpus", clips.folder.parent / ROWS, "--registry", clips.path, "--target", 60, "--confidence", 0.8)
    ran = registry("fr-ensemble", "recommend", "tiny", *where, option, number)
    said = [line for line in ran.err.splitlines() if "clips of" in line]
    n_rows = len(read_csv(clips.folder.parent / ROWS))
    assert said == ([f"warning: clips of {words}: {n_rows} rows"] if words else [])


def test_two_figures_at_once_are_refused(registry: Program, clips: Sandbox) -> None:
    """One line, exit code 2."""
    where = ("--corpus", clips.folder.parent / ROWS, "--registry", clips.path, "--target", 70)
    ran = registry("fr-ensemble", "recommend", "tiny", *where, "--percentile", 5, "--worst-window", 3)
    assert (ran.code, "found both" in ran.err) == (2, True)
