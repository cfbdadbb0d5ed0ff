"""Tests of store.py: which registry is meant, what is read in each version, and that writing loses nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox import to_json

from registry_tool.documents import store
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.errors import InputError, WorldError
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FILE_UNREADABLE, FileProblem
from registry_tool.values import Entry, Policy, Registry
from registry_tool.workflows.loading import usable

ENTRY: dict[str, Any] = {"id": "a", "kind": "fr", "onnx": "a.onnx", "sha256": "0" * 64, "smoke": True}
V2: dict[str, Any] = {"schema_version": 2, "policies": {}, "models": [ENTRY]}


def touch(path: Path, document: Any = V2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_json(document))
    return path


# ---- which one --------------------------------------------------------------------------------------------------


def test_the_argument_wins_then_the_environment_then_the_folder(tmp_path: Path) -> None:
    """--registry, then REGISTRY_JSON, then what lies here."""
    here = touch(tmp_path / "registry.json")
    environment = {"REGISTRY_JSON": "named.json"}
    assert store.find("given.json", environment, tmp_path) == Path("given.json")
    assert store.find(None, environment, tmp_path) == Path("named.json")
    assert store.find(None, {}, tmp_path) == here


@pytest.mark.parametrize("depth", ["", "a", "a/b/c"])
@pytest.mark.parametrize("name", ["registry.json", "model/registry.json"])
def test_a_registry_is_found_from_below(tmp_path: Path, name: str, depth: str) -> None:
    """The next registry upwards counts, from any depth."""
    path = touch(tmp_path / name)
    (tmp_path / depth).mkdir(parents=True, exist_ok=True)
    assert store.find(None, {}, tmp_path / depth) == path


def test_the_nearest_registry_is_meant(tmp_path: Path) -> None:
    """One in this folder comes before one above."""
    touch(tmp_path / "registry.json")
    near = touch(tmp_path / "a" / "registry.json")
    assert store.find(None, {}, tmp_path / "a") == near


@pytest.mark.parametrize("second", ["empty", "broken link", "link"])
def test_two_registries_side_by_side_are_refused(tmp_path: Path, second: str) -> None:
    """registry.json and model/registry.json, whatever the second is: a person says which; a folder is none."""
    first, other = touch(tmp_path / "registry.json"), tmp_path / "model" / "registry.json"
    other.parent.mkdir()
    if second == "empty":
        other.touch()
    else:
        other.symlink_to("nowhere" if second == "broken link" else "../registry.json")
    with pytest.raises(InputError, match=r"model/registry.json and registry.json.*--registry PATH.*REGISTRY_JSON"):
        store.find(None, {}, tmp_path)
    assert store.find("registry.json", {}, tmp_path) == Path("registry.json")
    other.unlink()
    other.mkdir()
    assert store.find(None, {}, tmp_path) == first


def test_a_folder_stands_for_the_registry_in_it(tmp_path: Path) -> None:
    """Naming the folder is enough, in the argument and in the environment."""
    assert store.find(tmp_path, {}, tmp_path) == tmp_path / "registry.json"
    assert store.find(None, {"REGISTRY_JSON": str(tmp_path)}, Path("/")) == tmp_path / "registry.json"


def test_no_registry_anywhere_says_how_to_name_one(tmp_path: Path) -> None:
    """The message says where it looked and both ways to name one."""
    with pytest.raises(InputError, match=r"found no registry.*--registry PATH.*REGISTRY_JSON"):
        store.find(None, {}, tmp_path)


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_version_is_read(tmp_path: Path, version: int) -> None:
    """Versions 0, 1 and 2 become the same values."""
    document = {k: v for k, v in V2.items() if version == 2 or k != "policies"} | {"schema_version": version}
    loaded = store.load(touch(tmp_path / "registry.json", document))
    assert isinstance(loaded, Loaded)
    assert loaded.findings == ()
    assert (loaded.registry.schema_version, loaded.registry.entries[0].id) == (version, "a")
    assert (loaded.folder, loaded.name) == (tmp_path, "registry.json")


@pytest.mark.parametrize("path", ["none.json", "no/such/folder/registry.json"])
def test_a_missing_registry_is_bad_input(tmp_path: Path, path: str) -> None:
    """No such file: exit code 2, and what to do."""
    with pytest.raises(InputError, match="no such file"):
        store.load(tmp_path / path)


def test_a_folder_in_its_place_is_a_finding(tmp_path: Path) -> None:
    """registry.json that is a folder is not a file."""
    (tmp_path / "registry.json").mkdir()
    loaded = store.load(tmp_path / "registry.json")
    assert isinstance(loaded, Unreadable)
    assert [f.code for f in loaded.findings] == ["file-not-regular"]


def test_a_registry_that_may_not_be_read_is_a_broken_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission or a failing disk is nobody's document: exit code 3."""

    def refuse(self: Folder, path: str, max_bytes: int) -> bytes:
        raise FileProblem(FILE_UNREADABLE, str(path), "Permission denied")

    monkeypatch.setattr(Folder, "read", refuse)
    with pytest.raises(WorldError, match="cannot be read"):
        store.load(touch(tmp_path / "registry.json"))


def test_a_broken_document_gives_findings_and_no_registry(tmp_path: Path) -> None:
    """What cannot be read is another type than what can; an entry that its schema refuses is not among the entries."""
    path = touch(tmp_path / "registry.json")
    for text in (b"", b"[]", b"{}", b'{"schema_version": 2}', to_json({**V2, "models": [{"id": 1}]})):
        path.write_bytes(text)
        loaded = store.load(path)
        if not isinstance(loaded, Unreadable):
            assert loaded.registry.entries == ()
        assert loaded.findings
        assert all(f.line is not None and f.file == "registry.json" for f in loaded.findings)


def test_findings_stand_at_their_line(tmp_path: Path) -> None:
    """Line and column are those of the key, counted by hand here."""
    text = '{"schema_version": 2,\n "policies": {},\n "models": [\n  {"id": "a",\n   "kind": 7,\n   "onnx": "a.onnx",\n'
    text += f'   "sha256": "{"0" * 64}", "smoke": true}}]}}\n'
    loaded = store.read(tmp_path / "registry.json", text.encode())
    assert [(f.pointer, f.line, f.column) for f in loaded.findings] == [("/models/0/kind", 5, 4)]


def test_the_registrys_own_name_is_used(tmp_path: Path) -> None:
    """A registry under another name is named so in findings."""
    loaded = store.load(touch(tmp_path / "models.json", {"schema_version": 9}))
    assert [f.file for f in loaded.findings] == ["models.json"]


# ---- writing ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text("abcxyzé ", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(st.text("xyz_", min_size=1, max_size=4), JSON, max_size=3)


@given(UNKNOWN, UNKNOWN, UNKNOWN)
def test_fields_of_another_version_survive(entry: dict[str, Any], policy: dict[str, Any], top: dict[str, Any]) -> None:
    """Whatever a registry holds that this version does not know is there after reading and writing."""
    policies = {"fr": {**policy, "rules": [], "gate": "manual"}}
    document = {**top, **V2, "policies": policies, "models": [{**entry, **ENTRY}]}
    loaded = store.read(Path("registry.json"), to_json(document))
    assert isinstance(loaded, Loaded)
    assert json.loads(to_json(json.loads(json.dumps(loaded.registry.to_dict(), default=dict)))) == document


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    """Saving sorts entries and keys, ends the last line, and gives the same values back."""
    models = [{**ENTRY, "id": name} for name in "cab"]
    path = touch(tmp_path / "registry.json", {**V2, "models": models, "zzz": {"b": 1, "a": 2}})
    registry = usable(path).registry
    store.save(path, registry)
    text = path.read_text()
    assert text.endswith("}\n")
    document = json.loads(text)
    assert [m["id"] for m in document["models"]] == ["a", "b", "c"]
    assert list(document) == sorted(document)
    assert all(list(m) == sorted(m) for m in document["models"])
    assert (list(document["zzz"]), "time" in text) == (["a", "b"], False)
    again = usable(path).registry
    store.save(path, again)
    assert path.read_text() == text


def test_a_registry_is_replaced_whole(tmp_path: Path) -> None:
    """Readers that hold the old file go on reading it; nothing else lies in the folder afterwards."""
    path = touch(tmp_path / "registry.json")
    with path.open() as old:
        store.save(path, store.empty())
        assert json.load(old) == V2
    assert json.loads(path.read_text()) == {"schema_version": 2, "policies": {}, "models": []}
    assert [p.name for p in tmp_path.iterdir()] == ["registry.json"]


def test_an_empty_registry_validates() -> None:
    """The registry that `train` starts with holds everything a registry must have."""
    data = to_json(json.loads(json.dumps(store.empty().to_dict(), default=dict)))
    assert store.read(Path("registry.json"), data).findings == ()


def test_two_branches_that_add_entries_merge(tmp_path: Path) -> None:
    """Entries that two branches add at different places merge without a conflict, into a registry that reads."""
    policies = {"fr": Policy(gate="manual")}
    base = Registry(2, tuple(Entry.from_dict({**ENTRY, "id": name}) for name in ("d", "m", "t")), policies)
    names = {"base": None, "ours": "f", "theirs": "p"}
    for name, added in names.items():
        registry = base if added is None else base.with_entry(Entry.from_dict({**ENTRY, "id": added}))
        touch(tmp_path / name)
        store.save(tmp_path / name, registry)
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    merged = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    loaded = store.read(tmp_path / "registry.json", merged)
    assert isinstance(loaded, Loaded)
    assert [e.id for e in loaded.registry.entries] == ["d", "f", "m", "p", "t"]
