"""Tests of entries.py: what a manifest pins, and that a hook gets verified bytes and no others."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import tiny_models
from sandbox import sha256, to_json

from registry_tool.documents.entries import BrokenEntry, Reader, VerifiedEntry, pins_of, verify_entry
from registry_tool.findings import Finding, InFile
from registry_tool.hookspec import Kind
from registry_tool.storage.files import Contents, Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import Document
from registry_tool.values import Entry

KIND = Kind("thumb", "thumbnail rankers", schema={"type": "object", "required": ["id"]})
LIMIT = 10_000


@contextmanager
def read(
    folder: Path, entry: dict[str, Any], *, keep: bool = True, kind: Kind | None = KIND
) -> Iterator[VerifiedEntry | BrokenEntry]:
    with Folder(folder) as held:
        reader = Reader(held, {kind.name: kind} if kind else {}, keep=keep)
        yield verify_entry(reader, Entry.from_dict(entry), InFile("registry.json", entry["id"], "/models/3"), LIMIT)


@contextmanager
def verified(
    folder: Path, entry: dict[str, Any], *, keep: bool = True, kind: Kind | None = KIND
) -> Iterator[VerifiedEntry]:
    with read(folder, entry, keep=keep, kind=kind) as found:
        assert isinstance(found, VerifiedEntry), found.findings
        yield found


def with_manifest(folder: Path, manifest: Any, **files: bytes) -> dict[str, Any]:
    """Write a manifest and files beside it; the entry that pins it."""
    for name, data in files.items():
        tiny_models.write(folder, f"t/run/{name}", data)
    data = manifest if isinstance(manifest, bytes) else to_json(manifest)
    digest = tiny_models.write(folder, "t/run/manifest.json", data)
    return {"id": "t", "kind": "thumb", "manifest": "t/run/manifest.json", "sha256": digest, "smoke": True}


def pin(name: str, data: bytes) -> dict[str, str]:
    return {"onnx": name, "sha256": sha256(data)}


# ---- pins -------------------------------------------------------------------------------------------------------


def test_every_object_that_names_a_file_is_a_pin() -> None:
    """onnx or path with a string, at any depth, in document order, each with its pointer."""
    manifest = {
        "id": "t",
        "members": [{"onnx": "a.onnx", "sha256": "1"}, {"onnx": "b.onnx"}],
        "deep/er": {"x": [[{"path": "c.npz", "more": {"path": "d.json"}}]]},
        "onnx": "e.onnx",
        "path": 7,
        "fused": {"onnx": None, "path": ["f"]},
    }
    assert [(pin[key], at) for key, pin, at in pins_of(manifest)] == [
        ("e.onnx", ""),
        ("a.onnx", "/members/0"),
        ("b.onnx", "/members/1"),
        ("c.npz", "/deep~1er/x/0/0"),
        ("d.json", "/deep~1er/x/0/0/more"),
    ]


@pytest.mark.parametrize("value", [None, 1, "onnx", [], {}, {"onnx": 1}, [["path"]], {"path": {}}])
def test_what_names_no_file_is_no_pin(value: Any) -> None:
    """Only a string at onnx or path names a file."""
    assert list(pins_of(value)) == []


# ---- bytes ------------------------------------------------------------------------------------------------------


def test_a_hook_reads_what_is_pinned_and_nothing_else(tmp_path: Path) -> None:
    """read gives the pinned files by the names the manifest uses; any other name is a KeyError."""
    entry = with_manifest(
        tmp_path, {"id": "t", "a": pin("a.onnx", b"A"), "b": pin("sub/b.bin", b"B")}, **{"a.onnx": b"A"}
    )
    tiny_models.write(tmp_path, "t/run/sub/b.bin", b"B")
    tiny_models.write(tmp_path, "t/run/secret", b"S")
    with verified(tmp_path, entry) as view:
        assert view.findings == ()
        assert list(view.paths) == ["manifest.json", "a.onnx", "sub/b.bin"]
        assert (view.read("a.onnx"), view.read("sub/b.bin")) == (b"A", b"B")
        assert view.manifest is not None
        assert view.manifest["id"] == "t"
        for path in ("secret", "../../registry.json", "t/run/a.onnx", "/etc/hostname", ""):
            with pytest.raises(KeyError, match="nothing in entry t pins it"):
                view.read(path)


def test_bytes_are_read_once(tmp_path: Path) -> None:
    """What was hashed is what a hook gets, though the file is another by then."""
    entry = with_manifest(tmp_path, {"id": "t", "a": pin("a.onnx", b"A")}, **{"a.onnx": b"A"})
    with verified(tmp_path, entry) as view:
        (tmp_path / "t/run/a.onnx").write_bytes(b"X")
        assert view.read("a.onnx") == b"A"


def test_bytes_that_were_not_kept_are_hashed_again(tmp_path: Path) -> None:
    """A quick run holds no bytes; a file that changed since is refused, not handed out."""
    entry = with_manifest(tmp_path, {"id": "t", "a": pin("a.onnx", b"A")}, **{"a.onnx": b"A"})
    with verified(tmp_path, entry, keep=False) as view:
        assert view.read("a.onnx") == b"A"
    with verified(tmp_path, entry, keep=False) as view:
        (tmp_path / "t/run/a.onnx").write_bytes(b"X")
        with pytest.raises(FileProblem, match="changed") as caught:
            view.read("a.onnx")
        assert caught.value.code == "file-changed-while-reading"


def test_a_file_pinned_by_several_objects_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pins of one file with one digest are one artefact."""
    entry = with_manifest(tmp_path, {"id": "t", "a": [pin("a.onnx", b"A")] * 3}, **{"a.onnx": b"A"})
    reads: list[str] = []
    contents = Folder.contents

    def noted(self: Folder, path: str, max_bytes: int, *, hashed: bool = False) -> Contents:
        reads.append(path)
        return contents(self, path, max_bytes, hashed=hashed)

    monkeypatch.setattr(Folder, "contents", noted)
    with verified(tmp_path, entry):
        pass
    assert sorted(reads) == ["t/run/a.onnx", "t/run/manifest.json"]


# ---- findings ---------------------------------------------------------------------------------------------------

A = pin("a.onnx", b"A")


@pytest.mark.parametrize(
    ("manifest", "code", "pointer"),
    [
        ({"id": "t", "a": {"onnx": "a.onnx"}}, "pin-missing", "/a/onnx"),
        ({"id": "t", "a": {"onnx": "a.onnx", "sha256": None}}, "pin-missing", "/a/onnx"),
        ({"id": "t", "a": {"path": "a.onnx", "sha256": "A" * 64}}, "pin-missing", "/a/path"),
        ({"id": "t", "a": {"onnx": "a.onnx", "sha256": "0" * 64 + "\n"}}, "pin-missing", "/a/onnx"),
        ({"id": "t", "a": A, "b": {**A, "sha256": "0" * 64}}, "pin-conflict", "/b/sha256"),
        ({"id": "t", "a": {**A, "sha256": "0" * 64}}, "digest-mismatch", "/a/sha256"),
        ({"id": "t", "a": A, "b": pin("b.onnx", b"B")}, "file-missing", "/b/sha256"),
        ({"id": "t", "a": pin("../outside.onnx", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("../../../outside.onnx", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("/etc/hostname", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("./a.onnx", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("a.onnx/", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("..\\a.onnx", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("a\u2024onnx", b"A")}, "file-missing", "/a/sha256"),
        ({"id": "t", "a": pin("\uff0e\uff0e/a.onnx", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("", b"A")}, "file-escapes", "/a/sha256"),
        ({"id": "t", "a": pin("link.onnx", b"A")}, "file-is-symlink", "/a/sha256"),
        ({"id": "t", "a": pin("folder", b"A")}, "file-not-regular", "/a/sha256"),
        ({"id": "t", "a": pin("large.onnx", b"A")}, "file-too-large", "/a/sha256"),
        ({"name": "t", "a": A}, "schema-required", ""),
        ([A], "schema-type", ""),
        ("text", "schema-type", ""),
    ],
)
def test_what_a_manifest_pins_wrongly_is_a_finding_at_the_pin(
    tmp_path: Path, manifest: Any, code: str, pointer: str
) -> None:
    """One finding, in the manifest, at the pin; the entry is broken and no bytes are handed out."""
    entry = with_manifest(tmp_path, manifest, **{"a.onnx": b"A"})
    (tmp_path / "t/run/link.onnx").symlink_to("a.onnx")
    (tmp_path / "t/run/folder").mkdir()
    (tmp_path / "t/run/large.onnx").touch()
    os.truncate(tmp_path / "t/run/large.onnx", LIMIT + 1)
    tiny_models.write(tmp_path, "t/outside.onnx", b"A")
    with read(tmp_path, entry) as view:
        [finding] = view.findings
        assert (finding.code, finding.pointer, finding.entry) == (code, pointer, "t")
        assert finding.file == "t/run/manifest.json"
        assert isinstance(view, BrokenEntry)


@pytest.mark.parametrize("data", [b"", b"{", b'{"id": "t", "id": "u"}', b"\xff", b"\xef\xbb\xbf{}"])
def test_a_manifest_that_is_no_document_is_not_looked_into(tmp_path: Path, data: bytes) -> None:
    """Its digest may hold: a document that two readers read differently is none."""
    with read(tmp_path, with_manifest(tmp_path, data)) as view:
        [finding] = view.findings
        assert finding.code.startswith("json-")
        assert (finding.file, finding.line, view.manifest) == ("t/run/manifest.json", 1, None)


def test_a_manifest_of_other_bytes_is_not_parsed(tmp_path: Path) -> None:
    """A digest that does not hold ends the look: what the document says is nobody's word."""
    entry = with_manifest(tmp_path, {"id": "t", "a": {"onnx": "a.onnx"}}) | {"sha256": "0" * 64}
    with read(tmp_path, entry) as view:
        assert [(f.code, f.file, f.pointer) for f in view.findings] == [
            ("digest-mismatch", "registry.json", "/models/3/sha256")
        ]
        assert view.manifest is None


def test_a_manifests_schema_is_held_before_its_pins(tmp_path: Path) -> None:
    """Where the schema is broken, no file it names is opened."""
    entry = with_manifest(tmp_path, {"a": pin("../../../../etc/hostname", b"A")})
    with read(tmp_path, entry) as view:
        assert [f.code for f in view.findings] == ["schema-required"]
        assert list(view.artifacts) == ["manifest.json"]


def test_one_broken_pin_hides_no_other(tmp_path: Path) -> None:
    """Every file is looked at: three faults, three findings."""
    manifest = {"id": "t", "pins": [pin(name, b"A") for name in ("gone.onnx", "a.onnx", "b.onnx", "also-gone.onnx")]}
    with read(tmp_path, with_manifest(tmp_path, manifest, **{"a.onnx": b"A", "b.onnx": b"B"})) as view:
        assert [(f.code, f.pointer) for f in view.findings] == [
            ("file-missing", "/pins/0/sha256"),
            ("digest-mismatch", "/pins/2/sha256"),
            ("file-missing", "/pins/3/sha256"),
        ]


@pytest.mark.parametrize("keep", [True, False])
def test_an_entry_has_room_for_four_of_its_largest_files(tmp_path: Path, keep: bool) -> None:
    """What does not fit beside the rest is a finding at its pin and is not read; four files at the limit do fit."""
    large = {name: bytes([number]) * (LIMIT - 200) for number, name in enumerate("abcde")}
    for names, codes in (("abcd", []), ("abcde", ["entry-too-large"])):
        entry = with_manifest(tmp_path, {"id": "t", "files": [pin(name, large[name]) for name in names]}, **large)
        with read(tmp_path, entry, keep=keep) as view:
            assert [finding.code for finding in view.findings] == codes
            assert isinstance(view, BrokenEntry) is bool(codes)
            for finding in view.findings:
                assert (finding.file, finding.pointer) == ("t/run/manifest.json", "/files/4/sha256")
                assert "max_file_bytes" in str(finding)


def test_a_finding_on_a_file_names_it_once(tmp_path: Path) -> None:
    """A sidecar without room: the line begins with the file, and the message does not say it again."""
    entry = tiny_models.entry(tmp_path, b"model")
    tiny_models.write(tmp_path, "m.json", bytes(4 * LIMIT + 1))
    with read(tmp_path, entry, kind=None) as view:
        [finding] = view.findings
    assert finding.code == "entry-too-large"
    assert str(finding).startswith("m.json: the entry's files are too large together")


def test_a_file_over_its_own_limit_is_called_so(tmp_path: Path) -> None:
    """A file that is too large by itself is `file-too-large`, however little room there is."""
    data = bytes(LIMIT + 1)
    entry = with_manifest(tmp_path, {"id": "t", "files": [pin("a", data)]}, a=data)
    with read(tmp_path, entry) as view:
        assert [finding.code for finding in view.findings] == ["file-too-large"]


def test_a_sidecar_comes_parsed(tmp_path: Path) -> None:
    """An ONNX entry's `<name>.json` is the view's manifest, pinned or not; findings then stand in it."""
    entry = tiny_models.entry(tmp_path, b"model")
    with verified(tmp_path, entry, kind=None) as view:
        assert (view.manifest, view.document_file) == (None, "registry.json")
    digest = tiny_models.write(tmp_path, "m.json", {"id": "m"})
    for fields in ({}, {"sidecar_sha256": digest}):
        with verified(tmp_path, entry | fields, kind=None) as view:
            assert (view.findings, view.manifest) == ((), {"id": "m"})
            assert view.finding("a-code", "text", "/id").file == "m.json"
            assert ("m.json" in view.paths) is bool(fields)


def test_a_verdict_is_read_by_its_pin(tmp_path: Path) -> None:
    """pinned_document gives the document where the digest holds, and a finding at the pin where it does not."""
    entry = with_manifest(tmp_path, {"id": "t"})
    digest = tiny_models.write(tmp_path, "t/verdicts/v.json", {"verdict": "PROMOTE"})
    with verified(tmp_path, entry) as view:
        document = view.pinned_document("t/verdicts/v.json", digest, "promotion", "sha256")
        assert isinstance(document, Document)
        assert document.value == {"verdict": "PROMOTE"}
        for path, pinned, code in (
            ("t/verdicts/v.json", "0" * 64, "digest-mismatch"),
            ("t/verdicts/../v.json", digest, "file-escapes"),
        ):
            finding = view.pinned_document(path, pinned, "promotion", "sha256")
            assert isinstance(finding, Finding)
            place = (finding.code, finding.file, finding.pointer)
            assert place == (code, "registry.json", "/models/3/promotion/sha256")


def test_a_broken_entry_is_no_view_of_an_entry(tmp_path: Path) -> None:
    """No hook can be given one: it has no bytes, no paths, no models to hand out."""
    with read(tmp_path, with_manifest(tmp_path, {}, **{"a.onnx": b"A"})) as found:
        assert isinstance(found, BrokenEntry)
        missing = {name for name in ("read", "onnx", "run", "paths") if not hasattr(found, name)}
        assert missing == {"read", "onnx", "run", "paths"}


def test_a_verified_entry_goes_with_its_last_reader(tmp_path: Path) -> None:
    """A cache that knows entries weakly, as plugins keep one, holds no bytes: nothing of an entry refers back to it."""
    cache: WeakKeyDictionary[VerifiedEntry, bytes] = WeakKeyDictionary()
    entry = with_manifest(tmp_path, {"id": "t", "a": pin("a.onnx", b"A")}, **{"a.onnx": b"A"})
    gc.disable()
    try:
        with verified(tmp_path, entry) as view:
            cache[view] = view.read("a.onnx")
        del view
        assert len(cache) == 0
    finally:
        gc.enable()
