"""Files that a document names and nothing pins: a warning each, in every kind, and none where something pins them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import entry, findings, model, sidecar, write
from version1 import Ensembles

from registry_tool.hookspec import Kind, Level, hookimpl

CODE = "file-named-unpinned"


class Anything(Ensembles):
    """A kind whose manifest may be anything."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("anything", "anything", schema={"type": "object"})]


def named(folder: Path, *rows: dict[str, Any], **options: Any) -> list[tuple[str | None, str | None]]:
    """(file, pointer) of each finding."""
    return [(f.file, f.pointer) for f in findings(folder, *rows, **options) if f.code == CODE]


NAMES: list[tuple[str, Any, str]] = [  # what an entry says, the file that is there, where the finding is
    ("tokenizer", "words.txt", "/tokenizer"),
    ("weights", "m.safetensors", "/weights"),
    ("weights", "./m.safetensors", "/weights"),
    ("files", {"scaler": ["a", "scaler.pkl"]}, "/files/scaler/1"),
    ("notes", "deep/notes.md", "/notes"),
]


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize(("field", "value", "pointer"), NAMES)
def test_a_field_of_an_entry_that_names_a_file_is_found(
    tmp_path: Path, field: str, value: Any, pointer: str, level: Level
) -> None:
    """At any depth, at both levels, however the path is spelled."""
    for name in ("words.txt", "m.safetensors", "scaler.pkl", "deep/notes.md"):
        write(tmp_path, name, b"x")
    row = entry(tmp_path, model(), **{field: value})
    assert named(tmp_path, row, version=2, level=level) == [("registry.json", f"/models/0{pointer}")]


def test_a_sidecar_names_files_from_where_it_lies(tmp_path: Path) -> None:
    """Relative to itself, and to the registry's folder."""
    write(tmp_path, "deep/scaler.json", {})
    row = entry(tmp_path, model(), "deep/m", id="m")
    for value in ("scaler.json", "deep/scaler.json"):
        document = sidecar(row, scaler=value)
        row["sidecar_sha256"] = write(tmp_path, "deep/m.json", document)
        assert named(tmp_path, row, version=2) == [("deep/m.json", "/scaler")]


def test_a_manifest_of_any_kind_names_files(tmp_path: Path) -> None:
    """A pin is fine; another name of a file beside it is not, and weights that are not there are not either."""
    digest = write(tmp_path, "made.onnx", model())
    manifest = {"onnx": "m.onnx", "sha256": digest, "words": "words.txt", "more": "gone.pt", "name": "gone.csv"}
    sha256 = hashlib.sha256(json.dumps(manifest, indent=2).encode()).hexdigest()
    folder = f"e/{sha256[:12]}"
    write(tmp_path, f"{folder}/manifest.json", manifest)
    write(tmp_path, f"{folder}/words.txt", b"x")
    (tmp_path / "made.onnx").rename(tmp_path / folder / "m.onnx")
    path = f"{folder}/manifest.json"
    row = {"id": "e", "kind": "anything", "manifest": path, "sha256": sha256, "smoke": True, "license": "MIT"}
    found = [f for f in findings(tmp_path, row, version=2, more=[Anything()]) if f.code == CODE]
    assert [(f.file, f.pointer, f.line) for f in found] == [(path, "/words", 4), (path, "/more", 5)]


@pytest.mark.parametrize(
    "value",
    [
        "m.onnx",
        "other.onnx",
        "other.json",
        "see docs/m.txt",
        "https://example.org/w.pt",
        "v1.2",
        "3.11.7",
        "gone.txt",
        "../w.pt",
    ],
)
def test_other_texts_are_left_alone(tmp_path: Path, value: str) -> None:
    """Pinned files, files of other entries, sentences, addresses, versions, and files elsewhere."""
    other = entry(tmp_path, model(seed=1), "other")
    other["sidecar_sha256"] = write(tmp_path, "other.json", sidecar(other))
    row = entry(tmp_path, model(), recorded=value)
    assert named(tmp_path, row, other, version=2) == []


def test_many_names_are_not_all_kept(tmp_path: Path) -> None:
    """A hundred thousand names in one entry cost little, and are found."""
    row = entry(tmp_path, model(), files=[f"{number}.pt" for number in range(100_000)])
    assert len(named(tmp_path, row, version=2, level=Level.QUICK)) == 1_000
