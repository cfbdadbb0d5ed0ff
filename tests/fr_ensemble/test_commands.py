"""test_commands.py: `registry fr-ensemble corpus build` with the real ffmpeg on tiny clips; the group's shape."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Program, program
from fr_ensemble.artifacts.manifest import record_of
from fr_ensemble.corpus.build.encodes import find_ffmpeg
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.rows import random_corpus
from fr_ensemble.corpus.spec import ColumnSpec

pytestmark = pytest.mark.slow

BUILD = ("fr-ensemble", "corpus", "build")
FRAMES = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of a few frames, as a person's own."""
    folder = tmp_path_factory.mktemp("videos")
    for name, graph in (("bars.y4m", "testsrc2=s=128x96:r=12"), ("zoom.mkv", "mandelbrot=s=128x96:r=12:end_pts=40")):
        command = [find_ffmpeg().path, "-v", "error", "-f", "lavfi", "-i", graph, "-frames:v", str(FRAMES)]
        subprocess.run([*command, "-pix_fmt", "yuv420p", folder / name], check=True)
    return folder


def test_a_corpus_of_ones_own_videos(registry: Program, videos: Path, tmp_path: Path) -> None:
    """Files of any container, each encoder with its own numbers and preset; a second build encodes nothing."""
    output = tmp_path / "c.parquet"
    call = [
        *(*BUILD, videos / "bars.y4m", videos / "zoom.mkv", "--encoders", "libx264,libvpx-vp9", "--crf", "20,40"),
        *("--crf", "libvpx-vp9=50", "--preset", "libx264=veryfast", "--jobs", "1", "-o", output),
    ]
    ran = registry(*call)
    cache = f"{output}.cache"
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{output}: {6 * FRAMES} rows; 6 encodes made, 0 taken from {cache}\n"
    table = pq.read_table(output)
    rows = table.to_pylist()
    assert {row["src"] for row in rows} == {"bars", "zoom"}
    made = {(row["encoder"], row["quality"], row["preset"]) for row in rows}
    assert made == {("libx264", 20, "veryfast"), ("libx264", 40, "veryfast"), ("libvpx-vp9", 50, "4")}
    record = json.loads(table.schema.metadata[RECORD_KEY.encode()])
    assert record["encoders"]["libx264"]["qualities"] == [20, 40]
    assert record["libvmaf"]
    before = output.read_bytes()
    assert registry(*call).out == f"{output}: {6 * FRAMES} rows; 0 encodes made, 6 taken from {cache}\n"
    assert output.read_bytes() == before


def test_a_failing_encode_is_named_and_the_rest_is_written(registry: Program, videos: Path, tmp_path: Path) -> None:
    """A source that is no video and an encode that fails end in exit 1; the corpus has the others; a cure fills it."""
    broken = tmp_path / "ffmpeg"
    broken.write_text(
        '#!/bin/bash\n[[ "$*" == *"-crf 40"* ]] && { echo "Error: out of ink" >&2; exit 1; }\n'
        f'exec {shlex.quote(str(find_ffmpeg().path))} "$@"\n'
    )
    broken.chmod(0o755)
    (tmp_path / "notes.mp4").write_text("not a video")
    output = tmp_path / "c.parquet"
    call = [*BUILD, videos / "bars.y4m", "--encoders", "libx264", "--crf", "20,40", "--cache", tmp_path / "k"]
    ran = registry(*call, tmp_path / "notes.mp4", "--ffmpeg", broken, "-o", output)
    assert ran.code == 1
    assert "failed: encode bars.libx264.40: Error: out of ink" in ran.err
    assert "failed: source notes: " in ran.err
    assert "2 failed (notes, bars.libx264.40)" in ran.err
    assert pq.read_metadata(output).num_rows == FRAMES
    ran = registry(*call, "-o", output)
    assert (ran.code, ran.out.split("; ")[1]) == (0, f"1 encode made, 1 taken from {tmp_path / 'k'}\n")
    assert pq.read_metadata(output).num_rows == 2 * FRAMES


def test_an_encoder_this_machine_lacks_is_skipped(registry: Program, videos: Path, tmp_path: Path) -> None:
    """A hardware encoder that does not open is one line, and no failure."""
    bare = tmp_path / "ffmpeg"
    bare.write_text(
        '#!/bin/bash\n[[ "$*" == *nvenc* ]] && { echo "Cannot load libcuda.so.1" >&2; exit 1; }\n'
        f'exec {shlex.quote(str(find_ffmpeg().path))} "$@"\n'
    )
    bare.chmod(0o755)
    where = ["--encoders", "h264_nvenc,libx264", "--crf", "30", "--ffmpeg", bare, "-o", tmp_path / "c.parquet"]
    ran = registry(*BUILD, videos / "bars.y4m", *where)
    assert (ran.code, ran.err) == (0, "skipped: encoder h264_nvenc: Cannot load libcuda.so.1\n")


def test_how_a_corpus_was_made_reaches_the_manifest(registry: Program, videos: Path, tmp_path: Path) -> None:
    """An ensemble trained on a build pins its file and says versions and settings; normalised columns condition it."""
    corpus = tmp_path / "c.parquet"
    files = [videos / "bars.y4m", videos / "zoom.mkv"]
    where = ["--encoders", "libx264,libx265", "--crf", "20,40", "-o", corpus]
    assert registry(*BUILD, *files, *where).code == 0
    record = json.loads(pq.read_schema(corpus).metadata[RECORD_KEY.encode()])
    quick = ["--seeds", "0,1", "--epochs", "1", "--hidden", "4", "--license", "MIT", "--no-baselines"]
    conditions = ["--condition", "preset_norm", "--condition", "crf_norm"]
    entry = ["--id", "mine", "--corpus", corpus, "--registry", tmp_path / "model" / "registry.json"]
    ran = registry("train", "fr_ensemble", *entry, *quick, *conditions)
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "model" / "mine").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    assert [slot["name"] for slot in manifest["codec_block"]][-2:] == ["preset_norm", "crf_norm"]
    made = manifest["corpus"]
    assert made["sha256"] == hashlib.sha256(corpus.read_bytes()).hexdigest()
    settings = made["record"]["settings"]
    assert (settings["ffmpeg"], settings["libvmaf"]) == (find_ffmpeg().version, find_ffmpeg().libvmaf)
    assert (settings["model"], settings["every"]) == ("vmaf_v0.6.1", 1)
    assert settings["encoders"] == record["encoders"]
    assert settings["encoders"]["libx265"]["preset"] == "fast"
    whole = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    assert made["record"]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert registry("validate", tmp_path / "model").code == 0


def test_a_record_that_no_manifest_can_hold(tmp_path: Path) -> None:
    """Settings of a file that are too many, or no clean JSON, stay out of the manifest but for their digest."""
    random = random_corpus(20, ColumnSpec(), 0)
    for settings in ({"ffmpeg": "x" * 70_000}, {"ffmpeg": "a\u202eb"}, {"every": float("nan")}):
        record = record_of(replace(random, record=settings))
        assert record is not None
        assert record["settings"] == {}
        assert len(record["sha256"]) == 64
    assert record_of(random) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoders", "libx264", "--crf", "20"], "found no sources"),
        (["v.y4m", "--encoders", "x264", "--crf", "20"], "encoder: found 'x264', expected one of libx264"),
        (["v.y4m", "--encoders", ",", "--crf", "20"], "expected an encoder"),
        (["v.y4m", "--encoders", "libx264", "--crf", "a"], "--crf: found 'a', expected [ENCODER=]N,N,..."),
        (
            ["v.y4m", "--encoders", "libx264", "--crf", "99"],
            "quality of libx264: found 99, expected numbers from 0 to 51",
        ),
        (["v.y4m", "--encoders", "libx264", "--crf", "libx265=20"], "expected one list for each of libx264"),
        (["v.y4m", "--encoders", "libx264,libx265", "--crf", "libx265=20"], "found no numbers for libx264"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2", "--crf", "3"], "expected one list for each"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2", "--preset", "fast"], "expected ENCODER=P"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2", "--preset", "libx264=9"], "preset of libx264: found '9'"),
        (["v.y4m", "v.y4m", "--encoders", "libx264", "--crf", "2"], "each name once"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2", "--ffmpeg", "none"], "expected an ffmpeg that runs"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2", "-o", "c.csv"], "found the extension '.csv'"),
        (["v.y4m", "--encoders", "libx264", "--crf", "2"], "v.y4m"),
    ],
)
def test_a_wrong_call_says_what_was_expected(
    arguments: list[str], message: str, registry: Program, workdir: Path
) -> None:
    """A plan that cannot be made is one line and exit 2, before anything is encoded."""
    ran = registry(*BUILD, "-o", "c.parquet", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not list(workdir.glob("c.*parquet"))


def test_a_terminal_sees_progress(videos: Path, tmp_path: Path) -> None:
    """On a terminal a bar counts the encodes; nothing of it goes to standard output."""
    master, slave = pty.openpty()
    call = [*BUILD, videos / "bars.y4m", "--encoders", "libx264", "--crf", "20,30", "-o", tmp_path / "c.parquet"]
    ran = subprocess.run(
        [sys.executable, "-m", "registry_tool", *map(str, call)], stdout=subprocess.PIPE, stderr=slave, check=True
    )
    os.close(slave)
    seen = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "encodes" in seen
    assert "2/2" in seen
    assert ran.stdout.decode().startswith(f"{tmp_path / 'c.parquet'}: {2 * FRAMES} rows")


def test_test_patterns_are_the_shipped_sources(
    registry: Program, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--test-patterns adds the generators of the shipped corpus; a relative output, and its cache, are here."""
    graphs = {"moving": "testsrc2=s=128x96:r=12", "zoom": "mandelbrot=s=128x96:r=12:end_pts=40"}
    monkeypatch.setattr("fr_ensemble.corpus.build.patterns.PATTERNS", graphs)  # the real ones are large
    monkeypatch.setattr("fr_ensemble.corpus.build.patterns.FRAME_COUNT", FRAMES)
    asked = ["--encoders", "libx264", "--crf", "30", "--every", "2", "-o", "c.parquet"]
    assert registry(*BUILD, "--test-patterns", *asked).code == 0
    assert (workdir / "c.parquet.cache").is_dir()
    rows = pq.read_table(workdir / "c.parquet").to_pylist()
    assert [(row["src"], row["frame_index"]) for row in rows] == [
        ("moving", 0),
        ("moving", 2),
        ("zoom", 0),
        ("zoom", 2),
    ]


def test_help_lists_the_commands() -> None:
    """`registry --help` names the group, and the group its commands."""
    assert "fr-ensemble" in program("--help").stdout
    assert {"build", "import"} <= set(program("fr-ensemble", "corpus", "--help").stdout.split())
