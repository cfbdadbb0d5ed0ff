"""test_encoders.py: how each encoder is asked, and hardware that is there, that is not, and that ffmpeg lacks."""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from encoding import FRAMES, pattern, plan, wrapped
from fr_ensemble.corpus.build.encodes import ENCODERS, Plan, build, find_ffmpeg
from fr_ensemble.corpus.build.ffmpeg import FFmpeg
from fr_ensemble.corpus.encoders import Encoder
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vocabulary import vocabulary
from places import ROOT

from registry_tool.errors import InputError

pytestmark = pytest.mark.slow


SOFTWARE = ["libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9", "libaom-av1", "librav1e"]


@pytest.fixture(scope="module")
def ffmpeg() -> FFmpeg:
    return find_ffmpeg()


def test_the_table_knows_every_encoder_of_the_vocabulary() -> None:
    """Every named slot of the 12-slot vocabulary can be asked for, and the other hardware that Linux has."""
    makers = [f"{codec}_{maker}" for maker in ("nvenc", "qsv", "vaapi", "amf") for codec in ("h264", "hevc", "av1")]
    assert [*ENCODERS] == [*SOFTWARE, *makers]
    assert {*vocabulary()} - {"unknown"} <= {*ENCODERS}
    assert [e.name for e in ENCODERS.values() if e.hardware] == makers


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_encoder_is_asked_for_its_own_scale(name: str) -> None:
    """An encode names its encoder, preset and, last, quality; presets and qualities normalise to 0..1."""
    encoder = ENCODERS[name]
    options = encoder.options(30, encoder.preset)
    assert options[:2] == ("-c:v", name)
    assert options[-2:] == (encoder.quality, "30")
    assert options[options.index(encoder.preset_option) + 1] == encoder.preset
    assert encoder.quality in ("-crf", "-qp", "-cq", "-global_quality", "-qvbr_quality_level")
    assert [encoder.preset_norm(encoder.presets[at]) for at in (0, -1)] == [0.0, 1.0]
    assert [encoder.quality_norm(end) for end in encoder.scale] == [0.0, 1.0]
    assert {encoder.preset_norm(preset) for preset in encoder.beyond} <= {1.0}
    assert options[-1] == "30"
    assert encoder.options(22.5, encoder.preset)[-1] == "22.5"


def test_the_page_says_how_each_encoder_is_asked() -> None:
    """The table of docs/corpora.md has a row for every encoder, with its option, its scale's end and its preset."""
    rows = [line.split(" | ") for line in (ROOT / "docs" / "corpora.md").read_text().splitlines()]
    said = {name: row for row in rows if len(row) == 5 for name in re.findall(r"`([\w-]+)`", row[0])}
    assert {*said} == {*ENCODERS}
    for name, (_, quality, scale, _, preset) in said.items():
        encoder = ENCODERS[name]
        assert encoder.quality in quality
        assert str(encoder.scale[1]) in re.findall(r"\d+", scale)
        assert encoder.preset == preset.removesuffix(" |")


def test_a_new_encoder_is_one_row(ffmpeg: FFmpeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING's recipe: with its row in the table a corpus is built with it, in the slot `unknown`."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add an encoder\n")[2]
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", recipe, re.DOTALL)[1])  # type: ignore[index]  # it is there
    new = eval(textwrap.dedent(code), {"Encoder": Encoder})
    if new.name not in ffmpeg.encoders:
        pytest.skip(f"this ffmpeg was built without {new.name}")
    assert new.name not in ENCODERS
    monkeypatch.setattr("fr_ensemble.corpus.build.encodes.ENCODERS", {**ENCODERS, new.name: new})
    path = tmp_path / "c.parquet"
    built = build(Plan((pattern(),), {new.name: (2, 30)}), ffmpeg, path, tmp_path / "cache")
    assert (built.rows, built.failed, built.skipped) == (2 * FRAMES, {}, {})
    table = pq.read_table(path).to_pydict()
    assert {*table["encoder"]} == {new.name}
    assert {*table["crf_norm"]} == {1 / 30, 29 / 30}
    corpus = read_corpus(path, ColumnSpec(), min_sources=1)
    assert {vocabulary()[slot] for slot in corpus.codec} == {"unknown"}


def test_a_missing_hardware_encoder_is_skipped(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """An encoder that this machine lacks is named in one line; the others are used; alone it is an error."""
    bare = wrapped(tmp_path, ffmpeg, '[[ "$*" == *nvenc* ]] && { echo "Cannot load libcuda.so.1" >&2; exit 1; }')
    built = build(plan(h264_nvenc=(30,), libx264=(30,)), bare, tmp_path / "c.parquet", tmp_path / "cache")
    assert dict(built.skipped) == {"h264_nvenc": "Cannot load libcuda.so.1"}
    assert built.rows == FRAMES
    with pytest.raises(InputError, match="found none that works here"):
        build(plan(h264_nvenc=(30,)), bare, tmp_path / "c.parquet", tmp_path / "cache")


@pytest.mark.parametrize("name", [name for name, encoder in ENCODERS.items() if encoder.hardware])
def test_an_ffmpeg_knows_what_a_hardware_encoder_is_asked_for(ffmpeg: FFmpeg, name: str) -> None:
    """Options, preset and the ends of the quality scale are those that this ffmpeg lists for the encoder."""
    if name not in ffmpeg.encoders:
        pytest.skip(f"this ffmpeg was built without {name}")
    encoder = ENCODERS[name]
    command = [str(ffmpeg.path), "-v", "error", "-hide_banner", "-h", f"encoder={name}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    own = [option for option in encoder.options(30, encoder.preset)[4:] if option.startswith("-")]
    for option in own:
        if option not in ("-b:v", "-global_quality", "-compression_level"):  # of every encoder
            assert re.search(rf"^  {option} ", listed, re.MULTILINE), option
    if found := re.search(rf"^  {encoder.quality} .*\(from -?\d+ to (\d+)\)", listed, re.MULTILINE):
        assert encoder.scale[1] <= int(found[1]) <= encoder.scale[1] + 1  # VAAPI's 52 is beyond what H.264 has


SHIM = """
[[ "$*" == *_{maker}* ]] && {{ printf '%s\\n' "$*" >> {told}; }}
arguments=()
while (($#)); do
  case "$1" in
    -vaapi_device|-rc|-rc_mode|-compression_level|-quality|-b:v) shift 2; continue;;
    -preset) [[ "$2" == p5 ]] && {{ shift 2; continue; }};;
    -cq|-global_quality|-qvbr_quality_level) arguments+=(-crf "$2"); shift 2; continue;;
  esac
  one="${{1/,format=nv12,hwupload/}}"
  arguments+=("${{one/h264_{maker}/libx264}}"); shift
done
set -- "${{arguments[@]}}"
"""


@pytest.mark.parametrize("maker", ["nvenc", "qsv", "vaapi", "amf"])
def test_a_hardware_encoder_that_is_there_is_used(ffmpeg: FFmpeg, tmp_path: Path, maker: str) -> None:
    """An ffmpeg that has the hardware (here a script that encodes by software) is probed once, then makes the cells."""
    told, name = tmp_path / "told", f"h264_{maker}"
    card = wrapped(tmp_path, ffmpeg, SHIM.format(maker=maker, told=shlex.quote(str(told))))
    card = FFmpeg(card.path, card.version, card.libvmaf, card.encoders | {name})
    built = build(plan(**{name: (20, 40)}), card, tmp_path / "c.parquet", tmp_path / "cache")
    assert (built.rows, built.encoded, dict(built.skipped)) == (2 * FRAMES, 2, {})
    probe, *encodes = told.read_text().splitlines()
    assert "testsrc2=s=320x192" in probe
    assert len(encodes) == 2
    for line in (probe, *encodes):
        assert ("hwupload" in line) == ("-vaapi_device /dev/dri/renderD128" in line) == (maker == "vaapi")
    mean = [sum(pq.read_table(tmp_path / "c.parquet")["vmaf"].to_pylist()[k : k + FRAMES]) for k in (0, FRAMES)]
    assert mean[0] > mean[1]


def test_no_hardware_at_all(ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """On a machine without cards every hardware encoder is one line, whether ffmpeg lacks it or its device does."""
    bare = wrapped(
        tmp_path,
        ffmpeg,
        r'[[ "$*" =~ _(nvenc|qsv|vaapi|amf) ]] && { printf "[x @ 0x1] Error: no card\nmore\n" >&2; exit 1; }',
    )
    lacking = FFmpeg(bare.path, bare.version, bare.libvmaf, bare.encoders - {"av1_amf"})
    hardware = {name: (30,) for name, encoder in ENCODERS.items() if encoder.hardware}
    built = build(plan(libx264=(30,), **hardware), lacking, tmp_path / "c.parquet", tmp_path / "cache")
    assert built.skipped.keys() == hardware.keys()
    assert built.skipped["av1_amf"] == "this ffmpeg was built without it"
    assert {built.skipped[name] for name in hardware if name in lacking.encoders} == {"[x] Error: no card"}
    assert built.rows == FRAMES
