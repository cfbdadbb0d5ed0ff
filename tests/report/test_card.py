"""test_card.py: the model card of `registry card`, and the report, on manifests of any shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Program
from sandbox import Sandbox
from shapes import SHAPES
from thumbs import Thumbs, put_sidecar, with_plugin

FIELDS = ("corpus", "target", "feature_order", "codec_vocab", "recipe", "environment", "members")


def rows(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: json.dumps(shape)[:30])
@pytest.mark.parametrize("command", ["card", "report"])
def test_a_manifest_of_any_shape_gives_a_page(thumb: Sandbox, registry: Program, command: str, shape: Any) -> None:
    """Its fields are its plugin's own: what the card does not know is not recorded, and nothing is a traceback."""
    for fields in (dict.fromkeys(FIELDS, shape), *({field: shape} for field in FIELDS)):
        put_sidecar(thumb, fields)
        ran = registry(command, "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
        assert (ran.code, ran.err) == (0, "")
        assert "thumb" in ran.out
        if command == "card":
            shown = rows(ran.out)
            assert shown["Kind"] == "`thumb`"
            assert shown["Trained on"] == "not recorded"


def test_a_shape_that_the_card_knows_is_shown(thumb: Sandbox, registry: Program, tmp_path: Path) -> None:
    """Of any kind: target, inputs, corpus, recipe and environment; -o writes what is printed otherwise."""
    put_sidecar(
        thumb,
        {
            "target": {"name": "clicks", "range": [0, 1.5]},
            "feature_order": ["a", "b"],
            "recipe": {"epochs": 3},
            "corpus": {"name": "c.csv", "n_rows": 9, "sources": ["x", "y"], "rows_sha256": "1" * 64},
            "environment": [{"name": "numpy", "version": "2.1"}, {"name": "python"}],
        },
    )
    ran = registry("card", "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    shown = rows(ran.out)
    assert (shown["Target"], shown["Inputs"]) == ("`clicks`, 0 to 1.5", "`a`, `b`")
    assert (shown["Trained on"], shown["Encoders"]) == ("c.csv: 9 rows, 2 sources", "not recorded")
    assert shown["epochs"] == "3"
    assert "\nEnvironment: numpy 2.1.\n" in ran.out
    to = registry("card", "t", "-o", tmp_path / "t.md", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    assert (to.code, to.out, (tmp_path / "t.md").read_text()) == (0, "", ran.out)


LICENCES = [
    ("MIT", "https://example.org/LICENSE", ["license: mit"], "[MIT](<https://example.org/LICENSE>)"),
    ("Our [own]", "https://example.org/a b", ["license: other", 'license_name: "Our [own]"'], "Our &#91;own&#93;"),
    ("X", "https://example.org/>x", ["license: other", 'license_name: "X"'], "X"),
    ("X", "javascript:alert(1)", ["license: other", 'license_name: "X"'], "X"),
    (
        "X",
        "https://example.org/x",
        ["license: other", 'license_name: "X"', 'license_link: "https://example.org/x"'],
        "[X](<https://example.org/x>)",
    ),
]


@pytest.mark.parametrize(("name", "url", "front", "shown"), LICENCES)
def test_a_licence_has_its_name_and_link(
    thumb: Sandbox, registry: Program, name: str, url: str, front: list[str], shown: str
) -> None:
    """In the front matter, as the hub reads it, and in the table; a URL that is none, or ends the link, is left out."""
    put_sidecar(thumb, {})
    thumb.edit_entry(license=name, license_url=url)
    ran = registry("card", "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    assert ran.code == 0
    assert [line for line in ran.out.split("---")[1].splitlines() if line.startswith("license")] == front
    assert rows(ran.out)["Licence"] == shown


def test_limits_are_what_the_documents_say(thumb: Sandbox, registry: Program) -> None:
    """State, target, encoders and sources of the corpus, ranges of inputs and video; nothing where none is recorded."""
    corpus = {
        "name": "c",
        "n_rows": 9,
        "sources": ["a", "b"],
        "record": {"settings": {"encoders": {"x265": {}, "x264": {}}}},
        "ranges": [{"name": "fps", "range": [24.0, 24.0]}, {"name": "height", "range": [360, 720]}],
    }
    ranges = [{"name": "adm2", "range": [0.5, 1.0]}, {"name": "odd", "range": [1]}, 7]
    put_sidecar(
        thumb, {"corpus": corpus, "target": {"name": "vmaf", "range": [0, 100]}, "intervals": {"input_ranges": ranges}}
    )
    ran = registry("card", "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    limits = ran.out.split("## Limits\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(" ")[1:5] for line in limits] == [
        ["It", "is", "a", "smoke"],
        ["It", "predicts", "vmaf", "from"],
        ["It", "learned", "from", "rows"],
        ["It", "learned", "from", "2"],
        ["Training", "saw", "adm2", "from"],
        ["Training", "saw", "fps", "24"],
        ["Training", "saw", "height", "from"],
    ]
    assert "from 2 sources (`a`, `b`); content" in ran.out
    assert "saw fps 24 alone; `registry predict` marks" in ran.out
    assert rows(ran.out)["Trained encoders"] == "`x264`, `x265`"


def test_names_begin_no_tag_and_no_picture(thumb: Sandbox, registry: Program) -> None:
    """Those of encoders and sources come from tables of other people."""
    names = ["<img src=x>", "![x](http://x)", "`<b>"]
    encoders = [{"name": name, "n_rows": 3} for name in names]
    put_sidecar(thumb, {"corpus": {"n_rows": 9, "sources": names, "encoders": encoders}})
    ran = registry("card", "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    limits = ran.out.split("## Limits\n\n")[1]
    assert "rows of &lt;img src=x> (3), !\\[x](http://x) (3), `&lt;b> (3); rows" in limits
    assert ("<img" in limits, "<b" in limits, "![" in limits) == (False, False, False)
