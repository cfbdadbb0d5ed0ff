"""test_info.py: `registry fr-ensemble corpus info`: what a corpus holds, and what is odd about it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Program
from csv_tables import write_csv
from fr_ensemble.corpus import info
from places import ROOT, shared_data
from registries import FEATURES

from registry_tool import schemas
from registry_tool.documents.schema import violations

INFO = ("fr-ensemble", "corpus", "info")


def row(source: str, place: int, encoder: str = "libx264", **more: Any) -> dict[str, Any]:
    """A row whose numbers are those of `place` alone."""
    numbers = {name: round(0.9 - 0.001 * place - 0.01 * i, 6) for i, name in enumerate(FEATURES)}
    return {
        "src": source,
        "encoder": encoder,
        "clip": f"{source}-{place // 4}",
        **numbers,
        "vmaf": 90.0 - place,
        **more,
    }


def asked(registry: Program, path: Path, *arguments: str) -> dict[str, Any]:
    ran = registry(*INFO, path, "--format", "json", *arguments)
    assert (ran.code, ran.err) == (0, "")
    document: dict[str, Any] = json.loads(ran.out)
    assert violations(document, schemas.load("corpus_info")) == []
    return document


def test_a_sound_corpus(registry: Program, tmp_path: Path) -> None:
    """Counts, ranges and sources are those of the rows, and nothing is odd."""
    encoders = ("libx264", "x265", "wonder")
    rows = [row("ab"[i // 8], i, encoders[i % 3], crf=20 + i % 2) for i in range(16)]
    path = write_csv(tmp_path / "c.csv", rows)
    document = asked(registry, path)
    assert (document["corpus"], document["n_rows"]) == ("c.csv", 16)
    bars = document["target"].pop("histogram")
    assert document["target"] == {"name": "vmaf", "min": 75.0, "mean": 82.5, "max": 90.0}
    assert bars == {"from": 75.0, "width": 0.25, "counts": ([1, 0, 0, 0] * 16)[:61]}
    assert document["features"]["adm2"]["max"] == 0.9
    assert document["sources"]["b"] == {
        "n_rows": 8,
        "n_clips": 2,
        "encoders": ["libx264", "wonder", "x265"],
        "target": {"min": 75.0, "mean": 78.5, "max": 82.0},
    }
    assert document["encoders"]["wonder"] == {
        "n_rows": 5,
        "known": False,
        "target": {"min": 76.0, "mean": 82.0, "max": 88.0},
    }
    assert document["encoders"]["x265"]["known"]
    odd = ("missing_features", "constant_columns", "duplicate_rows", "shared_rows", "similar_names", "record")
    assert not any(document[name] for name in odd)
    text = registry(*INFO, path).out
    assert text.startswith("c.csv: 16 rows, 2 sources, 3 encoders\ntarget: 75/82.5/90 vmaf\n")
    assert text.endswith("nothing odd: no duplicates, no constant columns, no rows in two sources\n")


def test_one_video_under_two_names(registry: Program, tmp_path: Path) -> None:
    """Rows that two sources share are counted with their share: equal features, whatever the target."""
    rows = [row("a", i) for i in range(8)] + [row("b", i + 6) for i in range(4)] + [row("c", i + 20) for i in range(4)]
    rows[8]["vmaf"] += 0.5
    document = asked(registry, write_csv(tmp_path / "c.csv", rows))
    assert document["shared_rows"] == [{"sources": ["a", "b"], "rows": 2, "share": 0.5}]
    assert (document["duplicate_rows"], document["source_overlap"]) == (0, None)
    text = registry(*INFO, tmp_path / "c.csv").out
    assert "leakage: a and b have 2 rows in common, 50 % of the smaller" in text


@pytest.mark.parametrize("features", [True, False])
def test_equal_targets_are_no_leak(features: bool, registry: Program, tmp_path: Path) -> None:
    """Neither where the features differ in their last digit, nor where no column is a feature that is known."""
    rows = [row(source, i) for source in "ab" for i in range(8)]
    for place, item in enumerate(rows):
        item["adm2"] += 0.000001 * (item["src"] == "b")
        item |= {"other": place}
    kept = [{k: v for k, v in item.items() if features or k not in FEATURES} for item in rows]
    path = write_csv(tmp_path / "c.csv", kept)
    document = asked(registry, path)
    assert (document["shared_rows"], document["duplicate_rows"]) == ([], 0)
    assert "leakage" not in registry(*INFO, path).out


def frames(motion: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Two encodes of each video; motion: of its frames, by the names of its sources."""
    rng = np.random.default_rng(2)
    return [
        row(source, 0, encoder, **{**numbers, "motion2": value}, frame_index=frame, vmaf=rng.uniform(0, 100))
        for source, values in motion.items()
        for encoder in ("libx264", "libx265")
        for frame, value in enumerate(values)
        for numbers in [{name: rng.uniform() for name in FEATURES}]
    ]


def test_what_sources_have_in_common_of_the_reference_is_shown(registry: Program, tmp_path: Path) -> None:
    """One video under two names is found by its motion, with other features and targets; a part of it is counted."""
    rng = np.random.default_rng(3)
    motion = {name: rng.uniform(1, 9, 20).round(6).tolist() for name in "abc"}
    motion |= {"twin": motion["a"], "part": [*motion["b"][:5], *rng.uniform(10, 19, 15).round(6).tolist()]}
    motion["still"] = [2.5] * 20
    path = write_csv(tmp_path / "c.csv", frames(motion))
    document = asked(registry, path)
    assert document["shared_rows"] == []
    overlap = document["source_overlap"]
    assert overlap["columns"] == ["motion2"]
    assert (overlap["n_judged"], overlap["n_not_judged"]) == (10, 5)
    assert [(*pair["sources"], pair["overlap"], pair["judged"]) for pair in overlap["pairs"]] == [
        ("a", "twin", 1.0, "one source"),
        ("b", "part", 0.25, "different"),
    ]
    text = registry(*INFO, path).out
    assert "motion2: at most 100 % in common, 10 of 15 pairs of sources judged\n" in text
    assert [line for line in text.splitlines() if line.startswith("leakage")] == [
        "leakage: a and twin have 100 % of motion2 in common: they are one source"
    ]


def test_parts_of_one_video_are_asked_about(registry: Program, tmp_path: Path) -> None:
    """Other frames with values that are distributed alike."""
    grid = [round(1.0 + 0.1 * i, 6) for i in range(50)]
    motion = {"a": grid, "later": [round(v + 0.05, 6) for v in grid], "other": [v + 50 for v in grid]}
    document = asked(registry, write_csv(tmp_path / "c.csv", frames(motion)))
    assert [(*p["sources"], p["judged"]) for p in document["source_overlap"]["pairs"]] == [("a", "later", "alike")]
    assert "leakage: motion2 of a and later is distributed alike" in registry(*INFO, tmp_path / "c.csv").out


def test_equal_rows_of_different_videos_are_no_leak(registry: Program, tmp_path: Path) -> None:
    """Frames of black or without loss look alike in every video: the reference's column says that these differ."""
    rng = np.random.default_rng(4)
    motion = {name: [0.0, *rng.uniform(1, 9, 9).round(6).tolist()] for name in "ab"}
    rows = frames(motion)
    for item in rows:
        item |= dict.fromkeys(FEATURES[:-1], 1.0) | {"vmaf": 100.0} if item["frame_index"] == 0 else {}
    document = asked(registry, write_csv(tmp_path / "c.csv", rows))
    assert (document["shared_rows"], document["source_overlap"]["pairs"]) == ([], [])
    for item in rows:
        del item["frame_index"]
    (pair,) = asked(registry, write_csv(tmp_path / "d.csv", rows))["shared_rows"]
    assert pair["rows"] == 2


def test_rows_of_another_encoder_are_not_the_same(registry: Program, tmp_path: Path) -> None:
    """Two encoders that give the same scores are no leak and no duplicate."""
    rows = [row("a", i) for i in range(4)] + [row("a", i, "libx265") for i in range(4)] + [row("b", 0, "libsvtav1")]
    document = asked(registry, write_csv(tmp_path / "c.csv", rows))
    assert (document["shared_rows"], document["duplicate_rows"]) == ([], 0)


def test_oddities_are_named(registry: Program, tmp_path: Path) -> None:
    """Duplicates, constant columns, missing features and names alike are each one line."""
    rows = [row(source, i % 3, motion2=1.5, preset="fast") for source in ("My_clip", "my clip") for i in range(4)]
    for item in rows:
        del item["vif_scale1"]
    document = asked(registry, write_csv(tmp_path / "c.csv", rows))
    assert document["duplicate_rows"] == 2
    assert document["constant_columns"] == ["encoder", "motion2", "preset"]
    assert document["missing_features"] == ["vif_scale1"]
    assert document["similar_names"] == [["My_clip", "my clip"]]
    text = registry(*INFO, tmp_path / "c.csv").out
    for line in (
        "missing features: vif_scale1",
        "constant columns: encoder, motion2, preset",
        "duplicate rows: 2 repeat another row of their source",
        "leakage: are My_clip and my clip one source?",
    ):
        assert line in text


def test_rows_that_train_would_refuse_are_named(registry: Program, tmp_path: Path) -> None:
    """A row without a source and a target outside its range are counted, and the first of each is placed."""
    rows = [row(source, place) for place, source in enumerate("abcab")]
    rows[1]["src"] = rows[2]["src"] = ""
    rows[3]["vmaf"], rows[4]["vmaf"], rows[4]["encoder"] = 130.0, -5.0, "x\x1b"
    path = write_csv(tmp_path / "c.csv", rows)
    unusable = {about["column"]: about for about in asked(registry, path)["unusable_rows"]}
    assert {name: (about["n_rows"], about["found"]) for name, about in unusable.items()} == {
        "src": (2, ""),
        "encoder": (1, "x\x1b"),
        "vmaf": (2, 130.0),
    }
    said = registry(*INFO, path).out
    assert f"unusable: 2 rows, the first {path}:3, column src: found '', expected a name in visible characters" in said
    assert f"unusable: 2 rows, the first {path}:5, column vmaf: found 130, expected 0..100" in said
    assert "\x1b" not in said
    path = write_csv(tmp_path / "d.csv", [item | {"vmaf_model": "vmaf_v1.0.16_3d0h_2160"} for item in rows[3:4]])
    assert "found 130, expected 0..110" in registry(*INFO, path).out
    assert asked(registry, path, "--target", "motion2")["unusable_rows"] == []
    assert asked(registry, path, "--target-range", "0,200")["unusable_rows"] == []
    for text, message in (("0", "found '0', expected LOW,HIGH such as 0,100"), ("9,0", "found 9..0"), ("0,nan", "nan")):
        ran = registry(*INFO, path, "--target-range", text)
        assert (ran.code, ran.out, message in ran.err) == (2, "", True)


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that comes in many batches is described as in one, whichever its format."""
    rows = [row("abc"[i % 3], i // 2, ("libx264", "libx265")[i % 5 == 0]) for i in range(30)]
    path = write_csv(tmp_path / "c.csv", rows)
    whole = plain(info.describe(path))
    assert whole["shared_rows"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    monkeypatch.setattr(info, "BATCH_ROWS", 4)
    for other in (path, tmp_path / "c.parquet"):
        assert plain(info.describe(other)) | {"corpus": "c.csv"} == whole


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its numbers to nine digits: sums in another order differ in the last one."""
    rounded: dict[str, Any] = json.loads(json.dumps(document), parse_float=lambda text: round(float(text), 9))
    return rounded


def test_the_shipped_corpus(registry: Program) -> None:
    """The shipped corpus: its record is shown, its sources are counted, and none is another's copy."""
    path = ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet"
    document = asked(registry, path)
    table = pq.read_table(path)
    assert {n: s["n_rows"] for n, s in document["sources"].items()} == Counter(table["src"].to_pylist())
    assert document["record"]["libvmaf"] in registry(*INFO, path).out
    assert not [pair for pair in document["shared_rows"] if pair["share"] > 0.1]
    assert document["similar_names"] == []


def test_a_real_corpus(registry: Program) -> None:
    """A public database's clips with a subjective target: no leak among its sources."""
    path = shared_data("avt-vqdb-uhd-1") / "clips.parquet"
    document = asked(registry, path, "--target", "mos")
    assert (document["n_rows"], len(document["sources"]), len(document["encoders"])) == (564, 9, 3)
    assert 1 <= document["target"]["min"] < document["target"]["max"] <= 5
    assert document["shared_rows"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src,vmaf\na,1\n", "no column 'encoder'"),
        ("encoder,vmaf\na,1\n", "no column 'src'"),
        ("src,encoder,vmaf\n", "found no rows"),
        ("src,encoder,vmaf\na,b,c\n", "c.csv:2, column vmaf: found 'c', expected a number"),
    ],
)
def test_what_is_no_corpus_is_refused(text: str, message: str, registry: Program, tmp_path: Path) -> None:
    """A file that cannot be a corpus is one line and exit 2."""
    (tmp_path / "c.csv").write_text(text)
    ran = registry(*INFO, tmp_path / "c.csv")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_corpus_without_a_target(registry: Program, tmp_path: Path) -> None:
    """Rows to predict have no target and are described all the same."""
    rows = [{k: v for k, v in row("a", i).items() if k != "vmaf"} for i in range(3)]
    assert asked(registry, write_csv(tmp_path / "c.csv", rows))["target"] is None
    assert "target: no such column" in registry(*INFO, tmp_path / "c.csv").out


@pytest.mark.parametrize(
    "values",
    [[3.0], [-1e308, 1e308], [0.1, 0.1], [-5.5, 2.25, 100.0], list(np.random.default_rng(0).normal(0, 30, 99))],
)
def test_a_histogram_holds_every_row(values: list[float]) -> None:
    """Each number is counted in the bar it lies in, whatever its size, and batches of one give the same bars."""
    whole, cut = info.Histogram(), info.Histogram()
    whole.update(np.array(values))
    for value in values:
        cut.update(np.array([value]))
    bars = whole.to_dict()
    assert bars == cut.to_dict()
    assert len(bars["counts"]) <= info.MAX_BARS
    expected = Counter(math.floor(value / bars["width"]) - round(bars["from"] / bars["width"]) for value in values)
    assert {place: count for place, count in enumerate(bars["counts"]) if count} == expected


@pytest.mark.slow
def test_a_picture(registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--plot draws a PNG beside the same words, of odd names and without a target too; it needs matplotlib."""
    pytest.importorskip("matplotlib")
    rows = [row(source, i) for source in ("a$^{", "A$^{", "b") for i in range(4)]
    path = write_csv(tmp_path / "c.csv", rows)
    bare = write_csv(tmp_path / "bare.csv", [{k: v for k, v in item.items() if k != "vmaf"} for item in rows])
    pictures = set()
    for file in (path, bare, ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet"):
        ran = registry(*INFO, file, "--plot", tmp_path / "p.png")
        assert (ran.code, ran.err, ran.out) == (0, "", registry(*INFO, file).out)
        pictures.add((tmp_path / "p.png").read_bytes())
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    monkeypatch.setattr("registry_tool.toolkit.find_spec", lambda name: None)
    ran = registry(*INFO, path, "--plot", tmp_path / "q.png")
    assert (ran.code, ran.out, "--plot: drawing needs matplotlib" in ran.err) == (2, "", True)


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.parquet"])
def test_what_is_left_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading tells how much of the file is done after each batch, and at the end all of it."""
    rows = [row("ab"[i % 2], i) for i in range(10)]
    path = tmp_path / name
    if name == "c.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name == "c.csv":
        write_csv(path, rows)
    else:
        path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    monkeypatch.setattr(info, "BATCH_ROWS", 3)
    told: list[tuple[int, int]] = []
    info.describe(path, progress=lambda _, done, total: told.append((done, total)))
    total = 10 if name == "c.parquet" else path.stat().st_size
    assert len(told) == 4
    assert {of for _, of in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (total, total)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["clip", "clip_h264", "clip_hevc", "clip_av1", "other"], [["clip", "clip_av1", "clip_h264", "clip_hevc"]]),
        (["a-svt-av1", "a_libaom-av1", "A", "b"], [["A", "a-svt-av1", "a_libaom-av1"]]),
        (["nvenc_x", "x_hevc_nvenc", "x.H.264"], [["nvenc_x", "x.H.264", "x_hevc_nvenc"]]),
        (["x264", "x265", "h264"], []),
        (["clip1", "clip2", "clip_a"], []),
    ],
)
def test_sources_that_differ_by_an_encoder_are_flagged(
    names: list[str], groups: list[list[str]], registry: Program, tmp_path: Path
) -> None:
    """One video that a pattern split by its encoders is one group; names that are nothing else are left alone."""
    path = write_csv(tmp_path / "c.csv", [row(name, place) for place, name in enumerate(names)])
    assert asked(registry, path)["similar_names"] == groups
    for group in groups:
        assert f"leakage: are {' and '.join(group)} one source?" in registry(*INFO, path).out


def test_rows_of_two_models_are_found(registry: Program, tmp_path: Path) -> None:
    """Rows with the features of others and another score are counted, whatever the encoder; rounding is no model."""
    rows = [row("ab"[place % 2], place) for place in range(12)]
    rows += [{**rows[place], "src": "c", "encoder": "x265", "vmaf": rows[place]["vmaf"] + 7.0} for place in (1, 4)]
    rows += [{**rows[place], "src": "d", "vmaf": rows[place]["vmaf"] + 0.001} for place in (6, 7)]
    path = write_csv(tmp_path / "c.csv", rows)
    assert asked(registry, path)["conflicting_rows"] == 4
    assert "two models: 4 rows have the features of another row and another vmaf" in registry(*INFO, path).out


@pytest.mark.parametrize("model", ["vmaf_v0.6.1neg", "vmaf_v1.0.16_3d0h", "mine"])
def test_the_definition_is_told(model: str, registry: Program, tmp_path: Path) -> None:
    """What a table's column says of its target is said, and the features that are missing are that model's."""
    path = write_csv(tmp_path / "c.csv", [row("ab"[place % 2], place, vmaf_model=model) for place in range(4)])
    document = asked(registry, path)
    assert document["target"]["definition"] == model
    lacking = ["cambi", "speed_chroma_uv", "adm3", "motion3"] if "v1" in model else []
    assert document["missing_features"] == lacking
    assert f"vmaf by {model}\n" in registry(*INFO, path).out
