"""Tests of seen.py: encoders and video that training did not see are named, counted and flagged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, run
from csv_tables import read_csv, write_csv
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.seen import SeenCorpus, numbers_of, unlike
from fr_ensemble.evidence.oof import read_oof
from registries import TRAINING, Made
from sandbox import Sandbox

from registry_tool.toolkit import Text

SEEN = SeenCorpus({"libx264": 30, "x265": 20}, {"fps": (24.0, 60.0), "height": (540.0, 1080.0)})


def test_what_was_seen_goes_through_a_manifest() -> None:
    """Encoders with their rows, and ranges; a manifest without them knows nothing, and flags nothing."""
    assert SeenCorpus.from_manifest({"schema_version": 2, "corpus": json.loads(json.dumps(SEEN.to_dict()))}) == SEEN
    nothing = SeenCorpus.from_manifest({"corpus": {}})
    found = unlike(nothing, Text.of(["av1_nvenc"]), 2, [], {"fps": [1000]})
    assert (found.warnings, found.text.tolist()) == ({}, [""])


def test_rows_of_another_world_are_flagged() -> None:
    """An encoder with a slot and no row in training, one without a slot, and video outside of what was seen."""
    names = ["libx264", "hevc_nvenc", "dirac", "libx265", "libx264", "H.264"]
    values: dict[str, Any] = {
        "fps": [24, 25, 120, None, 60, 23.9],
        "height": Text.of([540, 2160, 2160, 700, "?", 1080]),
    }
    found = unlike(SEEN, Text.of(names), 2, ["dirac"], values)
    assert found.text.tolist() == ["", "encoder height", "encoder fps height", "", "", "fps"]
    assert found.warnings == {
        "encoder 'hevc_nvenc' is unknown: it has a slot, and training had no row of it": 1,
        "fps is outside what training saw, 24 to 60": 2,
        "height is outside what training saw, 540 to 1080": 2,
    }


def test_many_encoders_without_a_row_in_training_are_one_warning() -> None:
    """It names the first few and counts the others."""
    names = ["h264_nvenc", "hevc_nvenc", "av1_nvenc", "hevc_qsv", "libx264"]
    assert unlike(SEEN, Text.of(names), 2, [], {}).warnings == {
        "encoders 'h264_nvenc', 'hevc_nvenc', 'av1_nvenc' and 1 more are unknown: they have slots, and training had no "
        "row of them": 4
    }


def test_text_that_is_no_number_is_none() -> None:
    """It is outside of no range."""
    assert np.array_equal(numbers_of(Text.of(["1", "", "x", "1"])), [1.0, np.nan, np.nan, 1.0], equal_nan=True)


@pytest.mark.slow
def test_what_training_saw_is_in_the_manifest_and_flags_rows(made: Made, tmp_path: Path) -> None:
    """Encoders by rows, the range of fps; predict, evaluate and the API say what is outside of it."""
    rows = read_csv(made.corpus)
    for number, row in enumerate(rows):
        row["fps"] = "24" if number % 2 else "60"
    write_csv(tmp_path / "corpus.csv", rows)
    path = tmp_path / "model" / "registry.json"
    what = ("--id", "tiny", "--corpus", tmp_path / "corpus.csv", "--registry", path)
    assert run(tmp_path, "train", "fr_ensemble", *what, *TRAINING).code == 0
    box = Sandbox(path)
    seen = box.manifest["corpus"]
    assert seen["ranges"] == [{"name": "fps", "range": [24.0, 60.0]}]
    assert seen["encoders"] == [{"name": name, "n_rows": 100} for name in ("libsvtav1", "libx264", "libx265")]
    new = [rows[0] | {"fps": "120"}, rows[1] | {"encoder": "hevc_nvenc"}, rows[2] | {"encoder": "dirac"}, rows[3]]
    write_csv(tmp_path / "new.csv", [row | {"src": "new"} for row in new])
    ran = run(tmp_path, "predict", "tiny", "--corpus", "new.csv", "--registry", path)
    rows_out = list(csv.DictReader(io.StringIO(ran.out)))
    limit = np.quantile(read_oof((box.artifacts / "evidence" / "oof.npz").read_bytes()).sigma, 0.95)
    assert [float(row["sigma"]) > limit for row in rows_out] == ["sigma" in row["flags"] for row in rows_out]
    flags = [{*row["flags"].split()} - {"sigma", "distance"} for row in rows_out]
    assert flags == [{"fps"}, {"encoder"}, {"encoder"}, set()]
    messages = [
        "warning: encoder 'hevc_nvenc' is unknown: it has a slot, and training had no row of it: 1 row",
        "warning: fps is outside what training saw, 24 to 60: 1 row",
    ]
    assert [line for line in ran.err.splitlines() if line in messages] == messages
    ran = run(tmp_path, "evaluate", "tiny", "--corpus", "new.csv", "--registry", path)
    assert [line.removesuffix("s") for line in ran.err.splitlines() if line.removesuffix("s") in messages] == messages
    ran = run(tmp_path, "evaluate", "tiny", "--corpus", "new.csv", "--format", "json", "--registry", path)
    counts = {name: part["n_rows"] for name, part in json.loads(ran.out)["flags"].items()}
    assert (counts["fps"], counts["encoder"], counts["none"]) == (1, 2, 1 - ("sigma" in counts or "distance" in counts))
    assert box.errors() == []
    found = box.forged(lambda manifest: manifest["corpus"]["encoders"][0].update(n_rows=99))
    assert found == [("evidence-problem", "/evidence")]


@pytest.mark.slow
def test_another_libvmaf_is_told_by_every_command(made: Made, tmp_path: Path) -> None:
    """Files of another version than the corpus say so in a warning and a flag of all rows; others in none."""
    pq = pytest.importorskip("pyarrow.parquet")
    csv_table = pytest.importorskip("pyarrow.csv").read_csv

    def by(version: str | None, source: Path, name: str) -> Path:
        record = {} if version is None else {RECORD_KEY: json.dumps({"model": "vmaf_v0.6.1", "libvmaf": version})}
        table = csv_table(source).append_column("bitrate_kbps", [[float(i) for i in range(len(csv_table(source)))]])
        pq.write_table(table.replace_schema_metadata(record), tmp_path / name)
        return tmp_path / name

    path = tmp_path / "model" / "registry.json"
    what = ("--id", "tiny", "--corpus", by("3.0.0", made.corpus, "corpus.parquet"), "--registry", path)
    assert run(tmp_path, "train", "fr_ensemble", *what, *TRAINING).code == 0
    for version, expected in (("1.3.11", True), ("3.0.0", False), (None, False)):
        rows = by(version, made.heldout, "rows.parquet")
        for command in (
            ("predict", "tiny"),
            ("evaluate", "tiny"),
            ("fr-ensemble", "recommend", "tiny", "--target", "1"),
        ):
            ran = run(tmp_path, *command, "--corpus", rows, "--registry", path)
            assert ran.code == 0, ran.err
            lines = [line for line in ran.err.splitlines() if "computed by libvmaf" in line]
            assert lines == ["warning: computed by libvmaf 1.3.11, training's by 3.0.0: 120 rows"] * expected
            assert ("libvmaf" in ran.out) == expected


@pytest.mark.slow
def test_a_level_that_new_sources_refute_is_told(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """Scores that are 12 points lower: coverage with its error over sources, and what to do; as they were, nothing."""
    rows = read_csv(made.heldout)
    write_csv(tmp_path / "lower.csv", [row | {"vmaf": str(max(float(row["vmaf"]) - 12.0, 0.0))} for row in rows])
    for corpus, levels in ((made.heldout, []), (tmp_path / "lower.csv", ["50", "80", "95"])):
        where = ("--corpus", corpus, "--levels", "0.5,0.8,0.95", "--registry", smoke.path)
        ran = registry("evaluate", "tiny", *where)
        assert ("like these: `registry calibrate tiny --corpus FILE --id NEW`" in ran.err) == (levels != [])
        messages = [line for line in ran.err.splitlines() if "refuted" in line]
        assert [line.split()[1] for line in messages] == levels
        assert all("over 3 sources" in line for line in messages)
