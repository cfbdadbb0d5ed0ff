"""Tests of manifest.py: what the core reads of any kind's manifest, and what it passes over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from registry_tool import schemas
from registry_tool.documents.manifest import CorpusFacts, Manifest, TargetFacts
from registry_tool.documents.schema import violations
from registry_tool.report.text import predicted

SCHEMA = schemas.load("manifest")
NAMES = sorted(SCHEMA["properties"])
WHOLE: dict[str, Any] = {
    "random_rows": True,
    "target": {"name": "mos", "range": [1, 5], "definition": "d", "libvmaf": "3.0.0"},
    "corpus": {"name": "rows", "n_rows": 3, "sources": ["a", "b"], "rows_sha256": "0" * 64},
    "feature_order": ["x", "y"],
    "codec_vocab": ["x264"],
    "members": [{}, {}],
    "recipe": {"epochs": 2},
    "environment": [{"name": "numpy", "version": "2.0"}],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "name", "range"]), inner),
    max_leaves=8,
)


def test_every_part_is_read() -> None:
    """Each part of a manifest that has them all, whatever its kind."""
    assert violations(WHOLE, SCHEMA) == []
    assert Manifest.of(WHOLE) == Manifest(
        random_rows=True,
        target=TargetFacts("mos", [1, 5], "d", "3.0.0"),
        corpus=CorpusFacts(3, ["a", "b"], "rows", "0" * 64),
        inputs=["x", "y"],
        encoders=["x264"],
        n_members=2,
        recipe={"epochs": 2},
        environment={"numpy": "2.0"},
    )


@pytest.mark.parametrize("name", WHOLE)
def test_every_part_is_optional(name: str) -> None:
    """A manifest without it has what one without anything has; the other parts are read all the same."""
    rest = {key: value for key, value in WHOLE.items() if key != name}
    assert violations(rest, SCHEMA) == []
    whole, without, empty = Manifest.of(WHOLE), Manifest.of(rest), Manifest.of(None)
    differing = [field for field in Manifest.__slots__ if getattr(whole, field) != getattr(without, field)]
    assert len(differing) == 1
    assert getattr(without, differing[0]) == getattr(empty, differing[0])


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_parts_of_another_shape_are_passed_over(document: dict[str, Any]) -> None:
    """No shape of any part is a failure, and what was read of a part does not depend on the others."""
    read = Manifest.of(document)
    for name, value in document.items():
        alone, empty = Manifest.of({name: value}), Manifest.of({})
        for field in Manifest.__slots__:
            assert getattr(alone, field) in (getattr(empty, field), getattr(read, field))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", {"name": "mos", "range": []}),
        ("target", {"name": 7, "range": [0, 1]}),
        ("corpus", {"n_rows": True, "sources": []}),
        ("corpus", {"n_rows": "3", "sources": []}),
        ("corpus", {"n_rows": 3}),
        ("corpus", {"n_rows": 3, "sources": []}),
        ("feature_order", "x"),
        ("members", {"a": 1}),
        ("recipe", [1]),
        ("environment", [{"name": "numpy"}, 7, ["x"]]),
    ],
)
def test_a_part_that_cannot_be_used_reads_as_absent(name: str, value: object) -> None:
    """The same as a manifest without it."""
    assert Manifest.of({name: value}) == Manifest.of({})


def test_a_target_needs_no_range() -> None:
    """A kind that records the name alone is shown with it."""
    target = Manifest.of({"target": {"name": "mos"}}).target
    assert target is not None
    assert predicted(target, quote="`") == "`mos`"


def test_manifests_of_fr_ensemble_hold_to_it() -> None:
    """What ships under model/ has every part that `card` and `report` show."""
    paths = sorted((ROOT / "model").glob("*/*/manifest.json"))
    assert paths
    for path in paths:
        document = json.loads(path.read_bytes())
        assert violations(document, SCHEMA) == [], path
        read = Manifest.of(document)
        assert None not in (read.target, read.corpus, read.n_members, read.recipe)
        assert min(len(read.inputs), len(read.encoders), len(read.environment)) > 0
