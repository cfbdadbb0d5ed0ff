"""test_encodes.py: corpora from real encodes, made by the real ffmpeg of imageio-ffmpeg on tiny clips."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from encoding import FRAMES, MOVING, pattern, plan, wrapped
from filelock import FileLock
from fr_ensemble.corpus.build.encodes import ENCODERS, Plan, Source, Step, build, find_ffmpeg
from fr_ensemble.corpus.build.encoding import SELF_CHECK
from fr_ensemble.corpus.build.ffmpeg import FFmpeg
from fr_ensemble.corpus.build.patterns import OUTLIER, PATTERNS
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.vocabulary import CANONICAL_6, SCORES
from places import ROOT

from registry_tool.errors import InputError, WorldError

pytestmark = pytest.mark.slow

COLUMNS = ["src", "encoder", "quality", "clip", "frame_index", "fps", "height", "preset", "bitrate_kbps"]
NORMS = ["preset_norm", "crf_norm"]


@pytest.fixture(scope="module")
def ffmpeg() -> FFmpeg:
    return find_ffmpeg()


def test_every_software_encoder_gives_a_row_a_frame(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Seven encoders give every frame of the clip, better scores at better quality, and a record of how."""
    software = {name: (15, 50) for name, encoder in ENCODERS.items() if not encoder.hardware}
    built = build(plan(**software), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert (built.rows, built.encoded, built.cached) == (14 * FRAMES, 14, 0)
    assert not built.failed
    assert not built.skipped
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == [*COLUMNS, *NORMS, *SCORES]
    rows = table.to_pylist()
    norms = {row["clip"]: (row["preset_norm"], row["crf_norm"]) for row in rows}
    assert norms["moving.libx264.15"] == (5 / 8, 15 / 51)  # medium is the sixth of nine presets
    assert norms["moving.libsvtav1.50"] == (5 / 13, 49 / 62)  # 8 of 13..0, 50 of 1..63
    assert [row["frame_index"] for row in rows] == [*range(FRAMES)] * 14
    assert all(math.isfinite(row[name]) for row in rows for name in SCORES)
    for name in software:
        mean = [sum(r["vmaf"] for r in rows if r["clip"] == f"moving.{name}.{q}") / FRAMES for q in (15, 50)]
        kbps = [next(r["bitrate_kbps"] for r in rows if r["clip"] == f"moving.{name}.{q}") for q in (15, 50)]
        assert mean[0] > mean[1]
        assert kbps[0] > kbps[1] > 0
        assert mean[0] > 90
    record = json.loads(table.schema.metadata[RECORD_KEY.encode()])
    assert (record["ffmpeg"], record["libvmaf"], record["features"]) == (ffmpeg.version, ffmpeg.libvmaf, [*CANONICAL_6])
    assert record["sources"]["moving"]["graph"] == MOVING
    assert record["sources"]["moving"]["self_check_vmaf"] > SELF_CHECK
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.parametrize(("rate", "name"), [("30000/1001", "clip.mkv"), ("50", "clip.mp4"), ("24", "clip.y4m")])
def test_frames_pair_whatever_the_container_does_to_time(ffmpeg: FFmpeg, tmp_path: Path, rate: str, name: str) -> None:
    """A file of any container and rate pairs frame k with frame k, at the rate of the file."""
    graph = f"testsrc2=s=161x97:r={rate}"
    command = [str(ffmpeg.path), "-v", "error", "-f", "lavfi", "-i", graph, "-frames:v", "9", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(tmp_path / name)], check=True)
    one = plan(Source("clip", path=tmp_path / name), libx265=(12,))
    assert build(one, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache").rows == 9
    table = pq.read_table(tmp_path / "c.parquet").to_pydict()
    assert min(table["vmaf"]) > 90
    numerator, _, denominator = rate.partition("/")
    assert set(table["fps"]) == {int(numerator) / int(denominator or 1)}


def test_misaligned_frames_are_refused(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """When the source meets its encode two frames late, the self-check refuses it instead of giving wrong rows."""
    late = wrapped(tmp_path, ffmpeg, 'set -- "${@/"[1:v:0]"/[1:v:0]trim=start_frame=2,}"')
    with pytest.raises(InputError, match=r"moving: self-check: .* scores a mean VMAF of \d"):
        build(plan(), late, tmp_path / "c.parquet", tmp_path / "cache")
    assert not (tmp_path / "c.parquet").exists()


def test_a_pattern_without_a_seed_is_refused(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A graph that gives other frames each time is no source, and none of its encodes is made."""
    random = plan(pattern("random", "life=s=160x96:r=12"), pattern(), libx264=(30,))
    built = build(random, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert dict(built.failed) == {
        "random": "the pattern gives other frames each time: give its generators seeds and colours"
    }
    assert built.rows == FRAMES


def test_a_lost_frame_fails_the_cell(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """An encode with fewer frames than its source gives no rows."""
    short = wrapped(tmp_path, ffmpeg, '[[ "$*" == *"-crf 40"* ]] && set -- "${@:1:$#-1}" -frames:v 7 "${@: -1}"')
    built = build(plan(), short, tmp_path / "c.parquet", tmp_path / "cache")
    assert dict(built.failed) == {"moving.libx264.40": "the encode decodes to 7 frames, the source has 8"}
    assert built.rows == FRAMES


def test_a_failing_cell_is_told_and_the_rest_goes_on(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """One failing encode is named with ffmpeg's words; the others are written; a later build fills only the hole."""
    ill = wrapped(tmp_path, ffmpeg, '[[ "$*" == *"-crf 40"* ]] && { echo "Error: out of ink" >&2; exit 1; }')
    steps: list[Step] = []
    built = build(plan(), ill, tmp_path / "c.parquet", tmp_path / "cache", steps.append)
    assert dict(built.failed) == {"moving.libx264.40": "Error: out of ink"}
    assert (built.rows, built.encoded) == (FRAMES, 1)
    told = [(s.name, s.total) for s in steps if s.kind == "encode" and s.state == "failed"]
    assert told == [("moving.libx264.40", 2)]
    again = build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert (again.rows, again.encoded, again.cached, dict(again.failed)) == (2 * FRAMES, 1, 1, {})


def test_no_cell_no_corpus(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """When every encode fails, the build ends in an error and writes no file."""
    ill = wrapped(tmp_path, ffmpeg, '[[ "$*" == *"-crf "* ]] && { echo "Error: out of ink" >&2; exit 1; }')
    with pytest.raises(WorldError, match="out of ink: every encode failed"):
        build(plan(), ill, tmp_path / "c.parquet", tmp_path / "cache")
    assert not (tmp_path / "c.parquet").exists()


def test_a_bad_source_is_told_and_the_rest_goes_on(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A file that is no video is named; the other sources are made; alone it is an error."""
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    both = plan(Source("notes", path=text), pattern(), libx264=(30,))
    built = build(both, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert list(built.failed) == ["notes"]
    assert built.rows == FRAMES
    with pytest.raises(InputError, match=r"notes: .*expected at least one source"):
        build(plan(Source("notes", path=text)), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    with pytest.raises(InputError, match=r"none\.mp4: file not found: check the path"):
        build(plan(Source("none", path=tmp_path / "none.mp4")), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")


def test_one_video_under_two_names_is_refused(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Two names for the same bytes would put one video into two folds."""
    with pytest.raises(InputError, match="a and b are the same video"):
        build(plan(pattern("a"), pattern("b")), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")


KILLED = """
import sys
from pathlib import Path
from fr_ensemble.corpus.build.encodes import Plan, Source, Step, build, find_ffmpeg
plan = Plan((Source("moving", graph=sys.argv[2], frames=int(sys.argv[3])),), {"libx264": (10, 20, 30, 40, 50)})
build(plan, find_ffmpeg(), Path(sys.argv[1], "c.parquet"), Path(sys.argv[1], "cache"))
"""


def test_a_killed_build_goes_on_where_it_stopped(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """After SIGKILL the next build makes only the missing encodes, a third makes none, and the rows are the same."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), MOVING, str(FRAMES)], env={**os.environ, "PYTHONPATH": paths}
    )
    cells = tmp_path / "cache" / "cells"
    while child.poll() is None and not (cells.exists() and any(cells.glob("*.csv"))):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "c.parquet").exists()
    kept = len(list(cells.glob("*.csv")))
    assert 1 <= kept < 5
    five = plan(libx264=(10, 20, 30, 40, 50))
    second = build(five, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert (second.encoded, second.cached) == (5 - kept, kept)
    silent = wrapped(tmp_path, ffmpeg, "exit 9")
    third = build(five, silent, tmp_path / "c.parquet", tmp_path / "cache")
    assert (third.encoded, third.cached, third.rows) == (0, 5, 5 * FRAMES)
    build(Plan(five.sources, five.qualities, jobs=3), ffmpeg, tmp_path / "d.parquet", tmp_path / "other")
    assert (tmp_path / "c.parquet").read_bytes() == (tmp_path / "d.parquet").read_bytes()


def test_an_interrupt_ends_the_build_and_its_children(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Ctrl-C leaves the finished encodes in the cache, no work folder and no output."""

    def interrupt(step: Step) -> None:
        if step.kind == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache", interrupt)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache"]
    assert not (tmp_path / "cache" / "work").exists()
    assert len(list((tmp_path / "cache" / "cells").iterdir())) == 1


def test_a_damaged_cell_is_named(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A file of scores that lost lines is an error that says which file, and the output is not written."""
    build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    cell = next((tmp_path / "cache" / "cells").iterdir())
    cell.write_text("".join(cell.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(WorldError, match=f"{cell.name}: found 6 frames, expected 8: delete the file"):
        build(plan(), ffmpeg, tmp_path / "d.parquet", tmp_path / "cache")
    assert not (tmp_path / "d.parquet").exists()


def test_one_cache_serves_one_build(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A cache that another build holds is refused at once."""
    with FileLock(tmp_path / ".lock"), pytest.raises(WorldError, match="another build uses this cache"):
        build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path)


def test_a_place_that_cannot_be_written_is_named(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A cache or an output inside a plain file is one error that names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldError, match="file/cache: Not a directory"):
        build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path / "file" / "cache")
    with pytest.raises(WorldError, match=r"file: (File exists|Not a directory)"):
        build(plan(libx264=(30,)), ffmpeg, tmp_path / "file" / "c.parquet", tmp_path / "cache")


def test_a_full_disk_ends_the_build(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """No room for an encode is no fault of the encode: the build stops, names the cache, and goes on with room."""
    full = (
        '[[ "$*" == *"-crf 40"* ]] && { echo "[out#0] Error muxing a packet: No space left on device" >&2; exit 228; }'
    )
    with pytest.raises(WorldError, match="cache/work: No space left on device"):
        build(plan(), wrapped(tmp_path, ffmpeg, full), tmp_path / "c.parquet", tmp_path / "cache")
    assert not (tmp_path / "c.parquet").exists()
    assert build(plan(), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache").cached == 1


def test_a_log_that_was_cut_fails_the_cell(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """libvmaf's log that ends within a frame, or a frame early, is no row in the cache."""
    cut = wrapped(tmp_path, ffmpeg, "")
    real = shlex.quote(str(ffmpeg.path))
    cut.path.write_text(
        f'#!/bin/bash\n{real} "$@" || exit\n[[ -f scores.csv && ! -f f.txt ]] || exit 0\n'
        "[[ -f once ]] || head -c -20 scores.csv > s\n[[ -e ../../once ]] && head -n -1 scores.csv > s\n"
        "touch ../../once; cp s scores.csv\n"
    )
    built = []
    for _ in range(2):
        with pytest.raises(WorldError, match="every encode failed") as said:
            build(plan(libx264=(30,)), cut, tmp_path / "c.parquet", tmp_path / "cache")
        built.append(str(said.value))
    assert "libvmaf's log ends within frame 7" in built[0]
    assert "libvmaf scored 7 frames, the source has 8" in built[1]
    assert not list((tmp_path / "cache" / "cells").iterdir())


def test_an_ffmpeg_that_dies_says_of_what(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A signal is named, and what would not fit into a pipe is not waited for."""
    ill = wrapped(tmp_path, ffmpeg, '[[ "$*" == *"-crf 40"* ]] && { yes so | head -c 2000000 >&2; kill -SEGV $$; }')
    built = build(plan(), ill, tmp_path / "c.parquet", tmp_path / "cache")
    assert dict(built.failed) == {"moving.libx264.40": "ffmpeg was ended by SIGSEGV: so"}


def test_every_keeps_frames_by_index(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """`every` thins the rows, not the encode."""
    thin = Plan((pattern(),), {"libx264": (30,)}, every=3)
    build(thin, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert pq.read_table(tmp_path / "c.parquet")["frame_index"].to_pylist() == [0, 3, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ()}, "sources: found"),
        ({"sources": (pattern(), pattern())}, "each name once"),
        ({"qualities": {"x264": (20,)}}, "encoder: found 'x264', expected one of libx264"),
        ({"qualities": {"libx264": (20, 52)}}, "quality of libx264: found 20,52, expected numbers from 0 to 51"),
        ({"qualities": {"libx264": ()}}, "quality of libx264"),
        ({"qualities": {"libx264": (20,)}, "presets": {"libx264": "p5"}}, "preset of libx264: found 'p5'"),
        ({"qualities": {}}, "expected an encoder"),
        ({"every": 0}, "every >= 1"),
        ({"jobs": 0}, "jobs >= 1"),
    ],
)
def test_a_wrong_plan_says_what_was_expected(arguments: dict[str, object], message: str) -> None:
    """A plan that cannot be built is refused before anything is encoded."""
    with pytest.raises(InputError, match=message):
        Plan(**{"sources": (pattern(),), "qualities": {"libx264": (20,)}, **arguments})  # type: ignore[arg-type]  # wrong on purpose


def test_an_ffmpeg_without_libvmaf_is_refused(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A given binary must exist and must have libvmaf."""
    poor = wrapped(tmp_path, ffmpeg, '[[ "$*" == *libvmaf* ]] && { echo "No such filter: libvmaf" >&2; exit 8; }')
    with pytest.raises(InputError, match="No such filter: libvmaf: expected an ffmpeg with libvmaf"):
        find_ffmpeg(poor.path)
    with pytest.raises(InputError, match="expected an ffmpeg that runs"):
        find_ffmpeg(tmp_path / "none")
    assert find_ffmpeg(ffmpeg.path) == ffmpeg


def test_importing_the_engine_is_light() -> None:
    """numpy, pyarrow and imageio-ffmpeg are not imported before they are used."""
    heavy = {"numpy", "pyarrow", "imageio_ffmpeg", "torch"}
    code = f"import sys, fr_ensemble.corpus.build.encodes; print({heavy} & set(sys.modules))"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert ran.stdout.strip() == "set()"


def test_the_shipped_corpora_are_what_their_readme_says() -> None:
    """Both files are complete (source, encoder, quality, frame), small, and described by the README beside them."""
    sys.path.append(str(ROOT / "benchmarks"))
    import make_corpora

    files = [make_corpora.DATA / "corpus.parquet", make_corpora.DATA / "outlier.parquet"]
    for file, patterns in zip(files, (PATTERNS, OUTLIER), strict=True):
        table = pq.read_table(file)
        assert table.column_names == [*COLUMNS, *SCORES]
        rows = table.to_pylist()
        frames = range(0, 48, make_corpora.EVERY)
        assert {(r["src"], r["encoder"], r["quality"], r["frame_index"]) for r in rows} == {
            (s, e, q, f)
            for s in patterns
            for e, qualities in make_corpora.QUALITIES.items()
            for q in qualities
            for f in frames
        }
        assert len(rows) == len(patterns) * 30 * len(frames)
        assert all(0 <= r["vmaf"] <= 100 for r in rows)
        assert {s: facts["graph"] for s, facts in make_corpora.read_record(file)["sources"].items()} == patterns
    assert len(PATTERNS) >= 20
    assert sum(file.stat().st_size for file in files) < 500_000
    assert (make_corpora.DATA / "README.md").read_text() == make_corpora.describe(*map(make_corpora.read_record, files))
