"""test_fields.py: what a file's name says of a log, and the names that say it in two ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fr_ensemble.corpus.imports.fields import fields_of_pattern
from fr_ensemble.corpus.vocabulary import SPELLINGS, VOCABULARIES
from hypothesis import given
from hypothesis import strategies as st

USUAL = "{src}_{encoder}_{crf}.json"
ENCODERS = sorted({name for names in VOCABULARIES.values() for name in names} - {"unknown"})
KNOWN = sorted({*SPELLINGS} - {"unknown"})
OTHERS = ["nvenc_hevc", "hevc-nvenc", "H.264", "svt_av1", "libaom_av1", "av1_vaapi"]


def read(name: str, pattern: str = USUAL) -> dict[str, Any] | str:
    """The fields of one name, or why there are none."""
    log = Path("logs") / name
    fields = fields_of_pattern([log], pattern)
    return fields.rows[log] if log in fields.rows else fields.unknown[log]


@pytest.mark.parametrize("src", ["clip", "my_clip", "a_hevc", "x264_b", "b_30", "h264"])
@pytest.mark.parametrize("encoder", [*ENCODERS, *OTHERS])
def test_an_encoder_is_found_whole(src: str, encoder: str) -> None:
    """A known encoder is matched in any spelling, the longest first, whatever stands in the source's name."""
    assert read(f"{src}_{encoder}_30.json") == {"src": src, "encoder": encoder, "crf": 30.0}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_may_come_first(encoder: str) -> None:
    """`hevc_nvenc_a_20` is hevc_nvenc's, though `hevc` is an encoder's name too."""
    assert read(f"{encoder}_a_20.json", "{encoder}_{src}_{crf}.json") == {"src": "a", "encoder": encoder, "crf": 20.0}


@pytest.mark.parametrize(
    ("name", "pattern", "one", "other"),
    [
        ("a_b_wonder_30.json", USUAL, "src 'a', encoder 'b_wonder'", "src 'a_b', encoder 'wonder'"),
        ("a_b_c_x264_3.json", "{src}_{scene}_{encoder}_{crf}.json", "src 'a', scene 'b_c'", "src 'a_b', scene 'c'"),
        ("ab.json", "{src}{take}.json", "src 'a', take 'b'", "src 'ab'"),
    ],
)
def test_a_name_of_two_readings_is_refused_with_both(name: str, pattern: str, one: str, other: str) -> None:
    """Which reading is meant only the author of the name knows."""
    why = read(name, pattern)
    if name == "ab.json":
        assert why == {"src": "a", "take": "b"}
        return
    assert isinstance(why, str)
    assert one in why
    assert other in why
    assert "rename it" in why


@pytest.mark.parametrize(
    ("name", "pattern", "fields"),
    [
        ("clip30.json", "{src}{crf}.json", {"src": "clip", "crf": 30.0}),
        ("a_59.94fps_x.json", "{src}_{fps}fps_{encoder}.json", {"src": "a", "fps": 59.94, "encoder": "x"}),
        ("a_22.5.json", "{src}_{crf}.json", {"src": "a", "crf": 22.5}),
        ("a_2_30.json", "{src}_{crf}.json", {"src": "a_2", "crf": 30.0}),
        ("a_x264_30.json.gz", USUAL, {"src": "a", "encoder": "x264", "crf": 30.0}),
        ("vid/x264/30.json", "{src}/{encoder}/{crf}.json", {"src": "vid", "encoder": "x264", "crf": 30.0}),
        ("a (1).json", "{src} ({take}).json", {"src": "a", "take": "1"}),
    ],
)
def test_names_of_many_layouts(name: str, pattern: str, fields: dict[str, Any]) -> None:
    """Numbers take all of their digits, folders count, and what stands between fields is taken as it is."""
    assert read(name, pattern) == fields


@pytest.mark.parametrize(
    ("name", "pattern", "encoder"),
    [
        ("clip.v2_libx264_20.5.json", "{src}_{encoder}_{crf}", "libx264"),
        ("clip.v2_libx264_20.5.JSON", "{src}_{encoder}_{crf}", "libx264"),
        ("clip.v2_libx264_20.5.json.gz", "{src}_{encoder}_{crf}", "libx264"),
        ("clip.v2_libx264_20.5.json.gz", "{src}_{encoder}_{crf}.json", "libx264"),
        ("20.5_clip.v2_mine.xml", "{crf}_{src}_{encoder}", "mine"),
    ],
)
def test_a_pattern_needs_no_ending(name: str, pattern: str, encoder: str) -> None:
    """A pattern without an ending is of names without theirs; another dot in a name belongs to it."""
    assert read(name, pattern) == {"src": "clip.v2", "encoder": encoder, "crf": 20.5}


@pytest.mark.parametrize("name", ["a_x264.json", "a_x264_low.json", "x.json", "_x264_30.json", "a_x264_30.json.bak"])
def test_a_name_without_the_fields_is_said(name: str) -> None:
    """A name that lacks a field is named with the pattern."""
    why = read(name)
    assert isinstance(why, str)
    assert f"logs/{name}: its name does not follow --pattern {USUAL}" in why


@given(
    st.text("ab_-.0", min_size=1, max_size=12), st.sampled_from(sorted({*SPELLINGS} - {"unknown"})), st.integers(0, 63)
)
def test_a_name_is_read_as_it_was_written(src: str, encoder: str, crf: int) -> None:
    """Whatever the source is called, a name that was made by the pattern gives its fields back."""
    assert read(f"{src}_{encoder}_{crf}.json") == {"src": src, "encoder": encoder, "crf": float(crf)}


def test_a_long_name_is_read_in_time() -> None:
    """The ways to read a name are looked at one after another, and not all of many millions."""
    why = read("_".join("a" * 200), "{a}_{b}_{c}_{d}_{e}_{f}")
    assert isinstance(why, str)
    assert "its name can be read as" in why
