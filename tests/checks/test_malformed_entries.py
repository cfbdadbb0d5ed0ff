"""An entry that its schema refuses stops itself alone: the others are checked as if it were not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Program
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox import Sandbox, to_json

from registry_tool.documents.store import Loaded, Unreadable, read
from registry_tool.hookspec import Level

ENTRY = {"id": "m", "kind": "fr", "onnx": "m.onnx", "sha256": "0" * 64, "smoke": True}
MALFORMED: tuple[Any, ...] = (
    None,
    7,
    "m",
    [],
    {},
    {"id": "m"},
    ENTRY | {"smoke": "yes"},
    ENTRY | {"sha256": "x"},
    ENTRY | {"id": "M M"},
    {key: value for key, value in ENTRY.items() if key != "smoke"},
    ENTRY | {"onnx": "../m.onnx"},
)


@given(st.lists(st.sampled_from([None, *range(len(MALFORMED))]), max_size=12))
def test_each_malformed_entry_stops_itself_alone(plan: list[int | None]) -> None:
    """Sound entries among malformed ones are read with their place in the document, however many there are."""
    models = [ENTRY | {"id": f"e{i}"} if what is None else MALFORMED[what] for i, what in enumerate(plan)]
    loaded = read(Path("registry.json"), to_json({"schema_version": 2, "policies": {}, "models": models}))
    assert isinstance(loaded, Loaded)
    sound = tuple(i for i, what in enumerate(plan) if what is None)
    assert loaded.places == sound
    assert [entry.id for entry in loaded.registry.entries] == [f"e{i}" for i in sound]
    broken = {str(finding.pointer).split("/")[2] for finding in loaded.findings}
    assert broken == {str(i) for i, what in enumerate(plan) if what is not None}


@pytest.mark.parametrize(
    "change", [{"policies": 7}, {"models": {}}, {"models": 7}, {"policies": {"fr": {"rules": [{}]}}}]
)
def test_what_is_wrong_outside_the_entries_stops_all(change: dict[str, Any]) -> None:
    """A policy that means nothing, or models that are no list: nothing can be checked."""
    document = {"schema_version": 2, "policies": {}, "models": [ENTRY]} | change
    loaded = read(Path("registry.json"), to_json(document))
    assert isinstance(loaded, Unreadable)
    assert loaded.findings
    assert not any("/models/0" in (finding.pointer or "") for finding in loaded.findings)


@pytest.fixture
def two(tmp_path: Path) -> Sandbox:
    """A registry whose first entry is malformed, and whose second has another file than it pins."""
    folder = tmp_path / "model"
    first = tiny_models.entry(folder, tiny_models.model(), "first", kind="fr")
    second = tiny_models.entry(folder, tiny_models.model(), "second", kind="fr")
    models = [first | {"smoke": "yes"}, second | {"sha256": "0" * 64}]
    (folder / "registry.json").write_bytes(to_json({"schema_version": 2, "policies": {}, "models": models}))
    return Sandbox(folder / "registry.json", "second")


@pytest.mark.parametrize("level", list(Level))
def test_the_other_entries_are_checked(two: Sandbox, level: Level) -> None:
    """Both faults are found at once, each at its own place; no file of the malformed entry is called unregistered."""
    found = [(f.code, f.entry, f.pointer) for f in two.findings(level)]
    assert ("schema-type", "first", "/models/0/smoke") in found
    assert ("digest-mismatch", "second", "/models/1/sha256") in found
    assert "file-unregistered" not in {code for code, _, _ in found}
    lines = two.path.read_text().splitlines()
    for finding in two.findings(level):
        if finding.pointer in ("/models/0/smoke", "/models/1/sha256"):
            assert finding.line is not None
            assert finding.pointer.rpartition("/")[2] in lines[finding.line - 1]


def test_both_entries_are_counted_in_every_form(two: Sandbox, registry: Program) -> None:
    """The count is of the document's entries."""
    assert "2 entries: " in registry("validate", two.path).out
    assert json.loads(registry("validate", two.path, "--format", "json").out)["entries"] == 2
    for form in ("sarif", "junit", "github"):
        assert registry("validate", two.path, "--format", form).code == 1


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "second"), ("gate", "second"), ("flip", "second"), ("prune",), ("card", "second")]
)
def test_nothing_works_on_a_registry_with_a_malformed_entry(
    two: Sandbox, registry: Program, arguments: tuple[str, ...]
) -> None:
    """What would read or write it as if the entry were not there refuses, and says where."""
    before = two.tree()
    ran = registry(*arguments, "--registry", two.path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "#/models/0/smoke" in ran.err
    assert two.tree() == before


@settings(max_examples=20)
@given(st.integers(60, 120))
def test_many_violations_in_one_entry_hide_no_other(count: int) -> None:
    """An entry with more violations than are told leaves those of the next to be found."""
    many = ENTRY | {"external_data": [{"path": 7}] * count}
    document = {"schema_version": 2, "policies": {}, "models": [many, ENTRY | {"id": "n", "smoke": 1}]}
    loaded = read(Path("registry.json"), to_json(document))
    assert isinstance(loaded, Loaded)
    assert loaded.registry.entries == ()
    assert any(finding.pointer == "/models/1/smoke" for finding in loaded.findings)
