"""test_models.py: builds by other models than the usual one, of raw files, with decimals, and of doubtful sources."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Program
from encoding import pattern, plan, wrapped
from fr_ensemble.corpus.build.encodes import Plan, Source, Step, build, find_ffmpeg
from fr_ensemble.corpus.build.encoding import picture_doubts
from fr_ensemble.corpus.build.ffmpeg import FFmpeg
from fr_ensemble.corpus.record import Definition, read_definition
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vmaf_models import VMAF_MODELS

from registry_tool.errors import InputError

pytestmark = pytest.mark.slow

LARGE = pattern("large", "testsrc2=s=576x324:r=12")  # a model of VMAF v1 shrinks it
MODELS = [name for name in VMAF_MODELS if name != "vmaf_b_v0.6.3"]


@pytest.fixture(scope="module")
def ffmpeg() -> FFmpeg:
    return find_ffmpeg()


@pytest.mark.parametrize("model", MODELS)
def test_a_corpus_by_each_model(model: str, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """The rows have the model's features and a score in its range; corpus and record name it."""
    path = tmp_path / "c.parquet"
    built = build(replace(plan(LARGE, libx264=(25, 45)), model=model), ffmpeg, path, tmp_path / "cache")
    assert (built.rows, built.failed) == (16, {})
    assert pq.read_schema(path).names[-1 - len(VMAF_MODELS[model].features) :] == [*VMAF_MODELS[model].features, "vmaf"]
    assert read_definition(path, "vmaf") == Definition(model, ffmpeg.libvmaf)
    high = VMAF_MODELS[model].high
    corpus = read_corpus(path, ColumnSpec(VMAF_MODELS[model].features, target_range=(0.0, high)), min_sources=1)
    assert corpus.record is not None
    assert (corpus.record["model"], corpus.record.get("bits", 8)) == (model, VMAF_MODELS[model].bits)
    assert corpus.target[:8].mean() > corpus.target[8:].mean()


def test_a_model_of_vmaf_v1_sees_ten_bits(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Source and encode are brought to ten bits before they are scored, and to eight for a model of eight."""
    seen = tmp_path / "asked"
    spy = wrapped(tmp_path, ffmpeg, f'[[ "$*" == *libvmaf* ]] && echo "$*" >> {seen}')
    for model, pixels in (("vmaf_v1.0.16_3d0h", "yuv420p10le"), ("vmaf_v0.6.1", "yuv420p")):
        seen.write_text("")
        one = replace(plan(LARGE, libx264=(30,)), model=model)
        build(one, spy, tmp_path / "c.parquet", tmp_path / f"cache-{model}")
        graphs = seen.read_text().splitlines()
        assert len(graphs) == 2  # the self-check and the encode
        assert all(graph.count(f"format={pixels},settb") == 2 for graph in graphs)


@pytest.mark.parametrize("size", ["128x96", "256x144"])  # where ffmpeg fails by itself, and where libvmaf ends it
def test_a_source_too_small_for_the_model_is_told(size: str, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A source that the model cannot shrink is named with its size; the others are made; alone it is bad input."""
    small, where = pattern("small", f"testsrc2=s={size}:r=12"), (ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    both = replace(plan(small, LARGE, libx264=(30,)), model="vmaf_v1.0.16_3d0h")
    built = build(both, *where)
    assert list(built.failed) == ["small"]
    assert built.failed["small"].startswith(f"too small: found {size}, which vmaf_v1.0.16_3d0h does not score")
    assert built.rows == 8
    with pytest.raises(InputError, match=rf"small: too small: found {size}.*: expected at least one source"):
        build(replace(both, sources=(small,)), *where)


def test_a_score_that_is_not_written_fails_the_encode(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """An ffmpeg that ends well without libvmaf's log is named with its words, and is no trouble with the disk."""
    script = '[[ "$*" == *"libvmaf=model"*decoded* ]] && { echo "Error: no ink" >&2; exit 0; }'
    mute = wrapped(tmp_path, ffmpeg, script)
    with pytest.raises(InputError, match="moving: libvmaf wrote no scores: Error: no ink: expected at least one"):
        build(plan(), mute, tmp_path / "c.parquet", tmp_path / "cache")


def test_a_cache_keeps_models_apart(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Scores of one model are never taken for another's, and both stay."""
    for model, made in (("vmaf_v0.6.1", 1), ("vmaf_4k_v0.6.1", 1), ("vmaf_v0.6.1", 0), ("vmaf_float_v0.6.1", 0)):
        one = replace(plan(LARGE, libx264=(30,)), model=model)
        assert build(one, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache").encoded == made


def test_a_model_that_is_not_there_is_refused(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A name that no libvmaf has, and one that this ffmpeg lacks, are refused with those that would do."""
    with pytest.raises(InputError, match=r"model: found 'vmaf_v9', expected one of vmaf_v0\.6\.1, vmaf_4k"):
        replace(plan(), model="vmaf_v9")
    with pytest.raises(InputError, match=r"lacks the model vmaf_b_v0\.6\.3, expected one of vmaf_v0\.6\.1, .*_hfr_"):
        find_ffmpeg(ffmpeg.path, "vmaf_b_v0.6.3")


def test_a_raw_file_is_a_source(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """Samples alone give the rows that the same pictures give in a container, once their shape is said."""
    make = [str(ffmpeg.path), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=12", "-frames:v", "8"]
    subprocess.run([*make, "-pix_fmt", "yuv420p", str(tmp_path / "a.yuv")], check=True)
    subprocess.run([*make, "-pix_fmt", "yuv420p", str(tmp_path / "b.y4m")], check=True)
    raw = ("-f", "rawvideo", "-video_size", "160x96", "-pixel_format", "yuv420p", "-framerate", "12")
    rows = []
    for source in (Source("a", path=tmp_path / "a.yuv", raw=raw), Source("a", path=tmp_path / "b.y4m")):
        build(plan(source, libx264=(30,)), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
        rows.append(pq.read_table(tmp_path / "c.parquet").to_pylist())
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            ("160x98", "yuv420p"),
            "found 184320 bytes, expected a multiple of 23520, which a frame of 160x98 yuv420p has",
        ),
        (("160x96", "yuv444p10le"), "found 184320 bytes, expected a multiple of 92160, which a frame"),
        (("160x96", "yuv999"), "Error setting option pixel_format to value yuv999: give its --size, --pix-fmt and"),
    ],
)
def test_a_raw_file_of_another_shape_is_refused(
    shape: tuple[str, str], message: str, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    """A file that is no whole number of frames of its size and pixels is refused."""
    raw = tmp_path / "a.yuv"
    frames = 8 - (shape[1] == "yuv444p10le")
    raw.write_bytes(bytes(160 * 96 * 3 // 2 * frames))
    given = ("-f", "rawvideo", "-video_size", shape[0], "-pixel_format", shape[1], "-framerate", "12")
    both = plan(Source("a", path=raw, raw=given), pattern(), libx264=(30,))
    built = build(both, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    assert (built.rows, list(built.failed)) == (8, ["a"])
    assert message.replace("184320", str(raw.stat().st_size)) in built.failed["a"]


def test_quality_numbers_with_decimals(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """libx264 takes 22.5 and gives rows between those of 20 and 30; an encoder of whole numbers refuses it."""
    build(plan(libx264=(20, 22.5, 30)), ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    kbps = {row["quality"]: row["bitrate_kbps"] for row in rows}
    assert kbps[20.0] > kbps[22.5] > kbps[30.0]
    assert {row["crf_norm"] for row in rows} == {20 / 51, 22.5 / 51, 30 / 51}
    assert "moving.libx264.22.5" in {row["clip"] for row in rows}
    with pytest.raises(InputError, match=r"quality of libsvtav1: found 30\.5, expected whole numbers"):
        plan(libsvtav1=(30.5,))


def test_placebo_is_as_slow_as_the_scale_goes(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """The preset beyond the slowest is used, and counts as the slowest: the others keep their places."""
    slow = Plan((pattern(),), {"libx264": (30,)}, {"libx264": "placebo"})
    build(slow, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache")
    table = pq.read_table(tmp_path / "c.parquet").to_pydict()
    assert ({*table["preset"]}, {*table["preset_norm"]}) == ({"placebo"}, {1.0})


DOUBTFUL = {
    "interlaced": (["-vf", "interlace,setfield=tff", "-c:v", "libx264", "-flags", "+ilme+ildct"], "interlaced (top"),
    "pq": (["-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-c:v", "libx265"], "the models are for standard"),
    "hlg": (
        ["-vf", "setparams=color_trc=arib-std-b67:colorspace=bt709", "-c:v", "libx264"],
        "the models are for standard dynamic range",
    ),
    "varying": (["-vf", "setpts='if(gt(N,9),2*N,N)/(12*TB)'", "-fps_mode", "vfr", "-c:v", "ffv1"], "frame rate varies"),
    "sound": (["-c:v", "libx264"], ""),
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_a_doubtful_source_is_named(kind: str, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """It is used, told as it is checked, also from the cache, and kept in the record; a sound source is not named."""
    options, expected = DOUBTFUL[kind]
    make = [str(ffmpeg.path), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=24", "-frames:v", "24"]
    subprocess.run([*make, *options, str(tmp_path / "a.mkv")], check=True)
    for _ in range(2):
        steps: list[Step] = []
        one = plan(Source("a", path=tmp_path / "a.mkv"), libx264=(30,))
        build(one, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache", steps.append)
        told = [step.message for step in steps if step.state == "doubtful"]
        assert len(told) == bool(expected)
        assert all(expected in message for message in told)
    record = json.loads(pq.read_schema(tmp_path / "c.parquet").metadata[b"fr_ensemble.corpus"])
    assert record["sources"]["a"].get("doubts", []) == told


def test_a_damaged_source_is_named(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A stream that does not decode as a whole gives fewer frames in silence, unless what ffmpeg says is told."""
    make = [str(ffmpeg.path), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=24", "-frames:v", "24"]
    subprocess.run([*make, "-c:v", "libx264", "-g", "6", str(tmp_path / "a.h264")], check=True)
    data = bytearray((tmp_path / "a.h264").read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    (tmp_path / "a.h264").write_bytes(data)
    steps: list[Step] = []
    one = plan(Source("a", path=tmp_path / "a.h264"), libx264=(30,))
    build(one, ffmpeg, tmp_path / "c.parquet", tmp_path / "cache", steps.append)
    assert [step.message.startswith("ffmpeg says of it: ") for step in steps if step.state == "doubtful"] == [True]


@pytest.mark.parametrize(
    ("line", "doubts"),
    [
        ("Video: h264 (High), yuv420p(tv, bt709, progressive), 1920x1080", []),
        ("Video: mpeg2video (Main), yuv420p(tv, top first), 720x576", ["interlaced (top first)"]),
        ("Video: h264, yuv420p(top coded first (swapped)), 720x576", ["interlaced (top coded first)"]),
        ("Video: hevc, yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 3840x2160", ["bt2020"]),
        ("Video: hevc, yuv420p10le(tv, bt709/bt709/arib-std-b67), 3840x2160", ["arib-std-b67"]),
        ("Audio: aac, top first", []),
    ],
)
def test_what_a_picture_is_said_to_be(line: str, doubts: list[str]) -> None:
    """ffmpeg's description of a stream is read for what VMAF was not made for."""
    found = picture_doubts(f"Input #0, matroska\n  Stream #0:0(und): {line}, 24 fps\n")
    assert [doubt.partition(":")[0] for doubt in found] == doubts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yuv"], "a.yuv: found --size none and --rate none, expected both of a raw source: --size WxH --rate FPS"),
        (["a.yuv", "--size", "16", "--rate", "25"], "found --size 16 and --rate 25, expected both"),
        (["a.yuv", "--size", "16x16", "--rate", "abc"], "found --size 16x16 and --rate abc, expected both"),
        (["a.yuv", "--size", "16x16", "--rate", "0/1"], "found --size 16x16 and --rate 0/1, expected both"),
        (["a.y4m", "--size", "16x16"], "--size and --rate: found no raw source"),
        (["a.y4m", "--crf", "20,nan"], "found '20,nan', expected [ENCODER=]N,N,..."),
        (["a.y4m", "--crf", "libx264=20", "--vmaf-model", "mine"], "model: found 'mine', expected one of"),
    ],
)
def test_a_build_that_means_nothing(arguments: list[str], message: str, registry: Program, tmp_path: Path) -> None:
    """Options that do not fit the sources or the encoders are one line."""
    options = ["--encoders", "libx264", "-o", tmp_path / "c.parquet"]
    options += [] if "--crf" in arguments else ["--crf", "20"]
    ran = registry("fr-ensemble", "corpus", "build", *arguments, *options)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_build_from_the_command_line(ffmpeg: FFmpeg, registry: Program, workdir: Path) -> None:
    """A raw file, by a model of VMAF v1, at a quality with decimals: all of it is in the corpus."""
    make = [str(ffmpeg.path), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=576x324:r=12", "-frames:v", "4"]
    subprocess.run([*make, "-pix_fmt", "yuv422p10le", "a.yuv"], check=True)
    shape = ["--size", "576x324", "--rate", "25", "--pix-fmt", "yuv422p10le", "--vmaf-model", "vmaf_v1.0.16_3d0h"]
    where = ["a.yuv", "--encoders", "libx264", "--crf", "27.5", *shape, "-o", "c.parquet", "--ffmpeg", ffmpeg.path]
    assert registry("fr-ensemble", "corpus", "build", *where).code == 0
    rows = pq.read_table("c.parquet").to_pylist()
    assert [(row["quality"], row["fps"], row["height"]) for row in rows] == [(27.5, 25.0, 324)] * 4
    assert read_definition(Path("c.parquet"), "vmaf") == Definition("vmaf_v1.0.16_3d0h", ffmpeg.libvmaf)
