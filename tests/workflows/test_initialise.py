"""Tests of initialise.py: a new registry, where one is looked for, and git's conversion of line endings."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Program
from places import EXAMPLES, TESTS
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)

from registry_tool.documents import store
from registry_tool.errors import InputError


def test_init_makes_a_valid_registry(registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In model/ or in a folder that is named; every command finds it, and git converts nothing in it."""
    monkeypatch.chdir(tmp_path)
    assert registry("init").code == 0
    assert sorted(path.name for path in (tmp_path / "model").iterdir() if path.suffix != ".lock") == [
        ".gitattributes",
        ".gitignore",
        "registry.json",
    ]
    assert "0 entries: valid" in registry("validate").out
    assert registry("init", "teams/video").err == "made teams/video/registry.json\n"
    again = registry("init")
    assert (again.code, "found a registry" in again.err) == (2, True)


def test_init_keeps_what_a_folder_has(registry: Program, tmp_path: Path) -> None:
    """Attributes of a person's own stay."""
    (tmp_path / ".gitattributes").write_text("*.onnx filter=lfs\n")
    registry("init", tmp_path)
    assert (tmp_path / ".gitattributes").read_text() == "*.onnx filter=lfs\n"


def test_a_registry_that_is_not_found_is_looked_for_further_down(tmp_path: Path) -> None:
    """The message names registries one level down, but five at most and that there are more, and how to make one."""
    for number in range(7):
        (tmp_path / f"team{number}" / "model").mkdir(parents=True)
        (tmp_path / f"team{number}" / "model" / "registry.json").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "registry.json").touch()
    with pytest.raises(InputError, match="registry init") as refused:
        store.find(None, {}, tmp_path)
    named = [f"team{number}/model/registry.json" for number in range(5)]
    assert f"found no registry (further down: {', '.join(named)}, ...), expected" in str(refused.value)


def test_a_registry_in_a_folder_of_model_is_found_from_the_top(tmp_path: Path) -> None:
    """As public repositories have it, model/tiny/registry.json."""
    (tmp_path / "model" / "tiny").mkdir(parents=True)
    (tmp_path / "model" / "tiny" / "registry.json").touch()
    with pytest.raises(InputError) as refused:
        store.find(None, {}, tmp_path)
    assert "(further down: model/tiny/registry.json), expected" in str(refused.value)


@pytest.mark.parametrize(("first", "second"), [("model", "."), (".", "model")])
def test_init_makes_no_second_registry_side_by_side(
    first: str, second: str, registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command would refuse the two."""
    monkeypatch.chdir(tmp_path)
    assert registry("init", first).code == 0
    ran = registry("init", second)
    assert (ran.code, "expected none beside" in ran.err) == (2, True)
    assert registry("validate").code == 0


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [
        (None, {}, "model/registry.json"),
        ("other", {}, "other/registry.json"),
        (None, {"REGISTRY_JSON": "named.json"}, "named.json"),
    ],
)
def test_where_a_new_registry_is_made(
    argument: str | None, environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In model/, unless the option or the environment names another place."""
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / store.find_or_new(argument, environment, tmp_path)) == tmp_path / expected


def test_training_takes_the_registry_above(tmp_path: Path) -> None:
    """A folder below a registry does not get one of its own; two side by side are refused as ever."""
    (tmp_path / "registry.json").touch()
    (tmp_path / "deep").mkdir()
    assert store.find_or_new(None, {}, tmp_path / "deep") == tmp_path / "registry.json"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "registry.json").touch()
    with pytest.raises(InputError, match="expected one registry"):
        store.find_or_new(None, {}, tmp_path)


# ---- line endings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["manual", "migrated", "sidecar-pinned"])
def test_converted_line_endings_are_named(example: str, registry: Program, tmp_path: Path) -> None:
    """A text file whose Unix form has the pinned digest, whichever pin it is; other changes get the usual hint."""
    folder = shutil.copytree(EXAMPLES / "valid" / example, tmp_path / "model")
    texts = [path for path in folder.rglob("*.json") if path.name != "registry.json"]
    for path in texts:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    document = json.loads(registry("validate", folder, "--format", "json").out)
    converted = [item for item in document["findings"] if item["code"] == "digest-mismatch"]
    assert converted
    assert all("line endings were converted" in item["hint"] for item in converted)
    for path in texts:
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r\n "))
    document = json.loads(registry("validate", folder, "--format", "json").out)
    assert not [item for item in document["findings"] if "line endings" in (item["hint"] or "")]


@pytest.mark.usefixtures("own_git")
def test_a_checkout_on_windows_is_whole(registry: Program, tmp_path: Path) -> None:
    """With the attributes that `init` writes; without them, the commands of the hint repair it."""
    source = tmp_path / "source"
    shutil.copytree(TESTS / "frozen" / "5e6a11a" / "model", source / "model")
    start(source)
    clone = ("-c", "core.autocrlf=true", "clone", "-q", str(source))
    git(tmp_path, *clone, str(tmp_path / "converted"))
    model = tmp_path / "converted" / "model"
    ran = registry("validate", model, "--level", "quick")
    assert (ran.code, "its line endings were converted to CRLF" in ran.out) == (1, True)
    (model / ".gitattributes").write_text("* -text\n")
    for path in model.rglob("*.json"):
        if b"\r\n" in path.read_bytes():
            name = path.relative_to(model).as_posix()
            path.unlink()
            subprocess.run(["git", "-c", "core.autocrlf=true", "checkout", "--", name], cwd=model, check=True)
    assert registry("validate", model, "--level", "quick").code == 0
    registry("init", source / "new")
    shutil.copyfile(source / "new" / ".gitattributes", source / "model" / ".gitattributes")
    commit(source)
    git(tmp_path, *clone, str(tmp_path / "whole"))
    assert registry("validate", tmp_path / "whole" / "model", "--level", "quick").code == 0
