"""test_columns.py: rows of vmaf-tune load as they are; columns under other names; what no hint says wrongly."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Program
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.record import Definition
from fr_ensemble.corpus.rows import Corpus, read_batches, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.corpus.vocabulary import CANONICAL_6

from registry_tool.errors import InputError

NORMS = (Condition("preset_norm"), Condition("crf_norm"))
GRID = [("libx264", "medium", 23), ("av1_nvenc", "p5", 30), ("libsvtav1", "8", 40), ("libx265", "fast", 28)]


def tune_rows(**more: Any) -> list[dict[str, Any]]:
    """Rows as vmaf-tune writes them, of three sources; the second of each source is a failed encode."""
    rng, rows = np.random.default_rng(3), []
    for source in ("a.y4m", "b.y4m", "c.y4m"):
        for place, (encoder, preset, crf) in enumerate(GRID):
            scores = {f"{name}_mean": float(rng.uniform(0.3, 0.9)) for name in CANONICAL_6}
            scores |= {f"{name}_std": 0.1 for name in CANONICAL_6} | {"vmaf_score": float(rng.uniform(20, 99))}
            if place == 1:
                scores = dict.fromkeys(scores, math.nan)
            row = {"schema_version": 3, "src": source, "encoder": encoder, "preset": preset, "crf": crf, "height": 1080}
            exits = {"exit_status": int(place == 1), "vmaf_model": "vmaf_v0.6.1", "vmaf_binary_version": "3.2.0"}
            rows.append({**row, **scores, **exits, **more})
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As vmaf-tune writes JSON lines (NaN), and as pandas writes parquet (null)."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({k: pa.array([r[k] for r in rows], from_pandas=True) for k in rows[0]}), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **more: Any) -> Corpus:
    return read_corpus(path, ColumnSpec(**more))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_of_vmaf_tune_load_as_they_are(suffix: str, tmp_path: Path) -> None:
    """Means are features, `vmaf_score` the target; failed encodes are left out and counted; the norms are derived."""
    rows = tune_rows()
    corpus = read(written(tmp_path / f"c.{suffix}", rows), conditioning=NORMS, vocabulary_version=3)
    good = [row for row in rows if not row["exit_status"]]
    assert (corpus.n_rows, corpus.n_failed, corpus.sources) == (9, 3, ("a.y4m", "b.y4m", "c.y4m"))
    assert corpus.features.tolist() == [[row[f"{name}_mean"] for name in CANONICAL_6] for row in good]
    assert corpus.target.tolist() == [row["vmaf_score"] for row in good]
    presets = [ENCODERS[row["encoder"]].preset_norm(row["preset"]) for row in good]
    qualities = [ENCODERS[row["encoder"]].quality_norm(row["crf"]) for row in good]
    assert corpus.conditioning.tolist() == [list(pair) for pair in zip(presets, qualities, strict=True)]
    assert corpus.definition == Definition("vmaf_v0.6.1")
    assert corpus.clips is not None
    assert len(corpus.clips) == 9
    assert corpus.failed_encodes() == ["3 rows of failed encodes, without a number for every score, are left out"]


def test_both_formats_have_one_digest(tmp_path: Path) -> None:
    """The digest is of the rows that are kept, whichever format and names they came in."""
    rows = tune_rows()
    plain = [
        {k.removesuffix("_mean").replace("vmaf_score", "vmaf"): v for k, v in row.items() if not k.endswith("_std")}
        for row in rows
        if not row["exit_status"]
    ]
    digests = {
        read(written(tmp_path / "c.jsonl", rows)).rows_sha256,
        read(written(tmp_path / "c.parquet", rows)).rows_sha256,
        read(written(tmp_path / "d.jsonl", plain)).rows_sha256,
    }
    assert len(digests) == 1


def test_phase_a_rows_load_as_they_are(tmp_path: Path) -> None:
    """A row a frame with `cq` and plain names is an ordinary corpus; its norm follows from cq."""
    rows = [
        {
            "src": source,
            "encoder": "h264_nvenc",
            "cq": 20 + place,
            **dict.fromkeys(CANONICAL_6, 0.5),
            "vmaf": 90.0 - place,
        }
        for source in "ab"
        for place in range(3)
    ]
    corpus = read(written(tmp_path / "a.jsonl", rows), conditioning=(Condition("crf_norm"),))
    assert corpus.conditioning[:3, 0].tolist() == [(20 + place - 1) / 50 for place in range(3)]
    assert corpus.n_failed == 0


def test_a_hole_in_an_ordinary_corpus_is_refused(tmp_path: Path) -> None:
    """Only a table of failed encodes has holes by design; elsewhere a hole is an error, and so are rows to predict."""
    rows = [{"src": s, "encoder": "x264", **dict.fromkeys(CANONICAL_6, 0.5), "vmaf": math.nan} for s in "ab"]
    with pytest.raises(InputError, match="column vmaf: found nan, expected a finite number"):
        read(written(tmp_path / "a.jsonl", rows))
    with pytest.raises(InputError, match=r"c\.jsonl:2, column adm2_mean: found nan, expected a finite number"):
        list(read_batches(written(tmp_path / "c.jsonl", tune_rows()), ColumnSpec(target=None)))
    with pytest.raises(InputError, match="expected rows with scores"):
        read(written(tmp_path / "d.jsonl", [row for row in tune_rows() if row["exit_status"]]))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("preset", "swift", r"column preset_norm: found none, expected .* preset 'swift' is none of libx264's"),
        ("encoder", "wonder", "the presets of encoder 'wonder' are not known: give the column preset_norm itself"),
        ("crf", 99, "quality 99 is outside libx264's 0 to 51: give the column crf_norm itself"),
        ("vmaf_score", "high", "column vmaf_score: found 'high', expected a number, or nothing"),
        ("vmaf_score", True, "column vmaf_score: found True, expected a number, or nothing"),
        ("adm2_mean", 1e30, "column adm2_mean: found 1e\\+30, expected at most 1e\\+12 in size"),
        ("vmaf_score", 120.0, r"column vmaf: found 120, expected 0\.\.100"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(column: str, value: Any, message: str, tmp_path: Path) -> None:
    """The line and the column are those of the file, though rows before it were left out."""
    rows = tune_rows()
    rows[4][column] = value
    with pytest.raises(InputError, match=message) as raised:
        read(written(tmp_path / "c.jsonl", rows), conditioning=NORMS)
    assert str(raised.value).startswith(f"{tmp_path / 'c.jsonl'}:5, ")


def test_no_hint_names_the_wrong_column(tmp_path: Path) -> None:
    """A table without a score is not told to rename the column of the model's name."""
    rows = [{k: v for k, v in row.items() if k != "vmaf_score"} for row in tune_rows()]
    with pytest.raises(InputError, match="no column 'vmaf'") as raised:
        read(written(tmp_path / "c.jsonl", rows))
    assert "is it 'vmaf_model'" not in str(raised.value)
    assert "vmaf_binary_version" not in str(raised.value)


def test_a_missing_norm_names_what_it_follows_from(tmp_path: Path) -> None:
    """No hint says to rename one norm to the other."""
    rows = [{"src": "a", "encoder": "x264", "crf_norm": 0.5, **dict.fromkeys(CANONICAL_6, 0.5), "vmaf": 50.0}]
    path = written(tmp_path / "c.jsonl", rows)
    with pytest.raises(InputError, match=r"expected preset_norm: add it, or preset, which it follows from$"):
        read(path, conditioning=(Condition("preset_norm"),))
    rows[0]["preset"] = rows[0].pop("crf_norm")
    with pytest.raises(InputError, match=r"add it, or quality or cq or crf or qp, which it follows from$"):
        read(written(tmp_path / "c.jsonl", rows), conditioning=(Condition("crf_norm"),))


@pytest.mark.parametrize(
    ("encoder", "preset"), [("H.264", "Fast"), ("SVT-AV1", "7.0"), ("SVT-AV1", 7.0), ("h264_nvenc", "P5")]
)
def test_presets_as_people_write_them(encoder: str, preset: str | float, tmp_path: Path) -> None:
    """Presets in capitals, and numbers of a column of numbers, are those of the encoder."""
    rows = [{"src": "a", "encoder": encoder, "preset": preset, **dict.fromkeys(CANONICAL_6, 0.5), "vmaf": 50.0}]
    rows.append(rows[0] | {"src": "b"})
    corpus = read(written(tmp_path / "c.jsonl", rows), conditioning=(Condition("preset_norm"),))
    known = {"H.264": ("libx264", "fast"), "SVT-AV1": ("libsvtav1", "7"), "h264_nvenc": ("h264_nvenc", "p5")}[encoder]
    assert set(corpus.conditioning[:, 0].tolist()) == {ENCODERS[known[0]].preset_norm(known[1])}


def test_a_table_of_two_models_is_refused(tmp_path: Path) -> None:
    """A ladder with rungs of 4K has two models: its rows mean two things."""
    rows = tune_rows()
    rows[-1]["vmaf_model"] = "vmaf_4k_v0.6.1"
    with pytest.raises(InputError, match=r"c\.jsonl:12, column vmaf_model: found 'vmaf_4k_v0\.6\.1'"):
        read(written(tmp_path / "c.jsonl", rows))


def test_info_tells_a_table_of_vmaf_tune(registry: Program, tmp_path: Path) -> None:
    """Its features and target are described, failed encodes counted apart."""
    path = written(tmp_path / "c.jsonl", tune_rows())
    ran = registry("fr-ensemble", "corpus", "info", path, "--format", "json")
    document = json.loads(ran.out)
    assert (document["n_rows"], document["failed_rows"], document["missing_features"]) == (9, 3, [])
    assert document["target"]["definition"] == "vmaf_v0.6.1"
    assert {*document["features"]} == {*CANONICAL_6}
    assert "failed encodes, left out: 3 rows without" in registry("fr-ensemble", "corpus", "info", path).out


def test_columns_under_other_names(tmp_path: Path) -> None:
    """Sources and encoders may stand in columns of any name."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["video", "tool", *CANONICAL_6, "vmaf", "src"])
    for place in range(4):
        writer.writerow(["ab"[place % 2], "x265", *[0.5 + place / 10] * 6, 50 + place, "same"])
    (tmp_path / "t.csv").write_text(text.getvalue())
    corpus = read(tmp_path / "t.csv", source_column="video", encoder_column="tool")
    assert (corpus.sources, corpus.codec.tolist()) == (("a", "b"), [1] * 4)
    with pytest.raises(InputError, match="no column 'clip_name'"):
        read(tmp_path / "t.csv", source_column="clip_name", encoder_column="tool")


@pytest.mark.slow
def test_vmaf_tune_from_the_command_line(registry: Program, tmp_path: Path) -> None:
    """Trained on as it is, by the public trainer's vocabulary and conditions; what is left out and unknown is said."""
    rows = tune_rows()
    for row in rows[::4]:
        row.update(encoder="libvpx-vp9", preset="4")
    path = written(tmp_path / "c.jsonl", rows)
    conditions = ["--condition", "preset_norm", "--condition", "crf_norm", "--vocabulary", "3"]
    small = ["--epochs", "1", "--seeds", "0,1", "--hidden", "4", "--license", "MIT", "--no-baselines"]
    where = ["--corpus", path, "--registry", tmp_path / "m" / "registry.json"]
    ran = registry("train", "fr_ensemble", "--id", "t", *where, *conditions, *small)
    assert ran.code == 0
    assert "warning: 3 rows of failed encodes" in ran.err
    assert "encoder 'libvpx-vp9' has no slot in vocabulary 3: 3 rows count as libx264" in ran.err
    manifest = next(json.loads(p.read_text()) for p in (tmp_path / "m" / "t").rglob("manifest.json"))
    names = [column["name"] for column in manifest["codec_block"]]
    assert names[-2:] == ["preset_norm", "crf_norm"]
    assert (len(names), manifest["codec_vocab_version"]) == (18, 3)
    ran = registry("evaluate", "t", *where)
    assert (ran.code, "3 rows of failed encodes" in ran.err) == (0, True)
    assert "encoder 'libvpx-vp9' is unknown, taken for libx264: 3 rows" in ran.err
    assert registry("validate", tmp_path / "m" / "registry.json").code == 0
    ran = registry("fr-ensemble", "recommend", "t", *where, "--target", "20", "--confidence", "0.5", "--cost", "crf")
    assert (
        ran.code,
        "warning: failed encodes, without a number for every feature, are left out: 3 rows" in ran.err,
    ) == (
        0,
        True,
    )
    whole = written(tmp_path / "d.jsonl", [row for row in rows if not row["exit_status"]])
    ran = registry("predict", "t", "--corpus", whole, *where[2:])
    assert (ran.code, len(ran.out.splitlines())) == (0, 10)
