"""test_reading.py: a log is read alike, whichever tool wrote it and however it was stored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import pytest
from fr_ensemble.corpus.imports import reading
from fr_ensemble.corpus.imports.reading import Frames
from hypothesis import given
from hypothesis import strategies as st
from logs import read_frames

from registry_tool.errors import InputError

FRAMES = logs.frames_of("vmaf_v0.6.1", 4)
WRITERS: dict[str, tuple[Callable[..., Path], str]] = {
    "libvmaf.json": (logs.libvmaf_json, "libvmaf"),
    "libvmaf.xml": (logs.libvmaf_xml, "libvmaf"),
    "libvmaf.csv": (logs.libvmaf_csv, "libvmaf"),
    "run_vmaf.json": (logs.run_vmaf_json, "run_vmaf"),
    "run_vmaf.xml": (logs.run_vmaf_xml, "run_vmaf"),
    "quality_metrics.json": (logs.quality_metrics_json, "ffmpeg-quality-metrics"),
    "quality_metrics.csv": (logs.quality_metrics_csv, "ffmpeg-quality-metrics"),
}
STORED: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "utf-16 little": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "utf-16 big": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "windows lines": lambda text: text.replace("\n", "\r\n").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of utf-16": lambda text: gzip.compress(text.encode("utf-16")),
    "spaces before": lambda text: b" \n\n" + text.encode() if text[0] in "{<" else text.encode(),
}


def numbers_of(frames: Frames) -> list[tuple[int, dict[str, float]]]:
    """Frame numbers and the values of the written names, as numbers."""
    values = [{name: float(frame[name]) for name in FRAMES[0]} for frame in frames.metrics]
    return list(zip(frames.numbers, values, strict=True))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", WRITERS)
def test_every_tool_in_every_encoding(name: str, stored: str, tmp_path: Path) -> None:
    """The same frames under the same numbers, counted from 0, and the tool is known."""
    write, tool = WRITERS[name]
    path = write(tmp_path / name, FRAMES)
    path.write_bytes(STORED[stored](path.read_text()))
    read = read_frames(path)
    assert numbers_of(read) == list(enumerate(FRAMES))
    assert read.tool == tool


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-nan", "1.#INF", "-nan(ind)", "Infinity", "NaN"])
@pytest.mark.parametrize("key", ["fps", "unheard_of"])
def test_a_field_that_is_not_used_spoils_nothing(key: str, value: str, tmp_path: Path) -> None:
    """What a tool prints for a number that it lacks does not cost the frames beside it."""
    path = logs.libvmaf_json(tmp_path / "a.json", FRAMES, **{key: 12345.5})
    path.write_text(path.read_text().replace("12345.5", value))
    assert numbers_of(read_frames(path)) == list(enumerate(FRAMES))


def test_words_in_texts_stay_what_they_are(tmp_path: Path) -> None:
    """Where a log is mended, a text that holds such a word in it is not changed."""
    path = logs.libvmaf_json(tmp_path / "a.json", FRAMES, note="the inf, and nan]", fps=12345.5, version="nan inf")
    path.write_text(path.read_text().replace("12345.5", "inf"))
    assert read_frames(path).version == "nan inf"


@pytest.mark.parametrize(
    ("params", "model"),
    [
        ({"model": "vmaf_4k_v0.6.1.pkl"}, "vmaf_4k_v0.6.1"),
        ({"model": "/usr/share/model/vmaf_v0.6.1.pkl", "phone_model": 1}, "vmaf_v0.6.1+phone"),
        ({"model": "C:\\models\\vmaf_float_v0.6.1.json", "phone_model": 0}, "vmaf_v0.6.1"),
        ({"model": "vmaf_rb_v0.6.3.pkl"}, "vmaf_rb_v0.6.3"),
        ({"model": ""}, ""),
        ({"scaledWidth": 1920}, ""),
    ],
)
def test_a_log_that_names_its_model(params: dict[str, Any], model: str, tmp_path: Path) -> None:
    """libvmaf 1 wrote its model's file, whatever the folder, and the phone curve, in JSON and in XML."""
    assert read_frames(logs.libvmaf_json(tmp_path / "a.json", FRAMES, params=params)).model == model
    xml = logs.libvmaf_xml(tmp_path / "a.xml", FRAMES)
    attributes = " ".join(f'{name}="{value}"' for name, value in params.items())
    xml.write_text(xml.read_text().replace("<frames>", f"<params {attributes} /><fyi fps='1' /><frames>"))
    assert read_frames(xml).model == model


@pytest.mark.parametrize(
    ("executor", "model"),
    [
        ("VMAF_V0.6.1", "vmaf_v0.6.1"),
        ("VMAF_VF0.2.4c-0.6.1", "vmaf_v0.6.1"),
        ("VMAFNEG_VF0.2.7-0.6.1", "vmaf_v0.6.1neg"),
        ("VMAF_V0.6.1_model_filepath=/m/vmaf_4k_v0.6.1.json", "vmaf_4k_v0.6.1"),
        ("VMAF_V0.6.1_enable_transform_score=True", "vmaf_v0.6.1+phone"),
        ("PSNR_V1.0", ""),
    ],
)
@pytest.mark.parametrize("write", [logs.run_vmaf_json, logs.run_vmaf_xml])
def test_a_runner_that_names_its_model(write: Any, executor: str, model: str, tmp_path: Path) -> None:
    """run_vmaf writes the type and version of its runner, and a model's file where one was given."""
    assert read_frames(write(tmp_path / "a", FRAMES, executor)).model == model


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not a VMAF log"),
        ("a.json", '{"version": "3",\n "frames": [,]}', "line 2 column"),
        ("a.json", "[1]", "its JSON is a list"),
        ("a.json", '{"frames": 3}', "its keys are frames"),
        ("a.json", '{"frames": [{"metrics": 3}]}', "libvmaf: frame 0 has no metrics"),
        ("a.json", '{"frames": [7]}', "libvmaf: frame 0 has no metrics"),
        ("a.json", '{"executorId": "VMAF_V0.6.1", "frames": [7]}', "run_vmaf: frame 0 is a int"),
        ("a.json", '{"frames": [{"frameNum": "x", "metrics": {}}]}', "frame 0 has the number 'x'"),
        ("a.json", '{"frames": [{"frameNum": 1.5, "metrics": {}}]}', "frame 0 has the number 1.5"),
        ("a.json", '{"frames": [{"frameNum": 1e99, "metrics": {}}]}', "libvmaf: a frame has the number 1e\\+99"),
        (
            "a.json",
            '{"frames": [{"frameNum": 2, "metrics": {}}, {"frameNum": 2.0, "metrics": {}}]}',
            "2 is there twice",
        ),
        ("a.xml", '<VMAF><frame frameNum="0"/><frame frameNum="0"/></VMAF>', "frame 0 is there twice: are two logs"),
        ("a.xml", '<VMAF><frame frameNum="0.5"/></VMAF>', "frame 0 has the number '0.5'"),
        ("a.csv", "Frame,vmaf\n-1,3\n", "libvmaf: a frame has the number -1"),
        ("a.csv", "n,vmaf\n7,3\n7,3\n", "ffmpeg-quality-metrics: frame 6 is there twice"),
        ("a.json", '{"pooled_metrics": {}}', "its keys are pooled_metrics, without frames"),
        ("a.json", '{"frames": []}', r"found no frames \(libvmaf\)"),
        ("a.json", '{"a":' * 100_000, "not a VMAF log"),
        ("a.xml", "<VMAF><frames>", "not a VMAF log"),
        ("a.xml", "<VMAF>\n<frames></VMAF>", "line 2"),
        ("a.xml", "<html><frame frameNum='0'/></html>", "its root is <html>"),
        ("a.csv", "a,b\n1,2\n", "its columns are a, b, without Frame"),
        ("a.csv", "Frame;vmaf\n1;2\n", "save it with commas"),
        ("a.csv", "", "without Frame"),
        ("a.csv", "Frame,adm2\nx,1\n", "frame 0 has the number 'x'"),
        ("a.csv", "Frame,adm2,vmaf,\n0,0,9,76,5,\n", "libvmaf: line 2 has 6 fields, the header 4: decimal commas"),
        ("a.csv", "n,adm2,vmaf\n1,0.5,70\n2,0.\n", "ffmpeg-quality-metrics: line 3 has 2 fields"),
        ("a.bin", "\x00\x01", "not a VMAF log"),
    ],
)
def test_what_is_no_log_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    """A file that is no log, or half of one, is one line: the file, the tool and its line where they are known."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_frames(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"{", b"<VMAF", b"Frame,", b"\xff\xfe", b"\x1f\x8b", b"\x1f\x8b\x08\0"]),
)
def test_bytes_that_mean_nothing_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    """Whatever stands in a file, it is a log or one line that says why not."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(start + data)
    with pytest.raises(InputError):
        read_frames(path)


def test_a_gzip_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may hold gigabytes: what comes out of a gzip has a limit; one that is cut off is no log."""
    whole = gzip.compress(json.dumps({"frames": [0] * 5000}).encode())
    (tmp_path / "a.json.gz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match="end-of-stream"):
        read_frames(tmp_path / "a.json.gz")
    (tmp_path / "a.json.gz").write_bytes(whole)
    monkeypatch.setattr(reading, "MAX_LOG_BYTES", 1000)
    with pytest.raises(InputError, match="found more than 1000 bytes in it"):
        read_frames(tmp_path / "a.json.gz")


@pytest.mark.parametrize(
    "before", ['<!DOCTYPE v [<!ENTITY a "b">]>', '<!DOCTYPE v SYSTEM "file:///etc/hostname">', "<!DOCTYPE VMAF>"]
)
def test_hostile_xml_is_refused(before: str, tmp_path: Path) -> None:
    """A log that declares a document type, and with it entities, is not read on."""
    path = logs.libvmaf_xml(tmp_path / "a.xml", FRAMES)
    path.write_text(before + path.read_text())
    with pytest.raises(InputError, match="declares a document type"):
        read_frames(path)
