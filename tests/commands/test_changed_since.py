"""Tests of `validate --changed-since`: what changed since a revision is checked fully, the rest quickly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest
import tiny_models
from command_line import Ran, run
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)

from registry_tool import cli, schemas
from registry_tool.documents.schema import violations

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_git")]

IDS = ("m0", "m1", "m2")
NO_MODEL = b"no model, with the right digest: only a full check finds that"


def row(folder: Path, name: str, data: bytes = NO_MODEL, **fields: Any) -> dict[str, Any]:
    return tiny_models.entry(folder, data, name, **fields)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository whose registry has three entries that a full check refuses, and a quick one does not."""
    folder = tmp_path / "top"
    rows = [row(folder / "model", name, opset=17) for name in IDS]
    policies = {"fr": {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.5}], "against": "m2"}}
    save(folder, {"schema_version": 2, "policies": policies, "models": rows})
    start(folder)
    return folder


def load(top: Path) -> Any:
    return json.loads((top / "model" / "registry.json").read_text())


def save(top: Path, document: Any) -> None:
    (top / "model" / "registry.json").write_text(json.dumps(document, indent=1))


def validated(top: Path, *arguments: object, since: str = "main", registry: str = "model") -> Ran:
    return run(top, "validate", registry, "--changed-since", since, *arguments)


def document(top: Path, **options: Any) -> Any:
    found = json.loads(validated(top, "--format", "json", **options).out)
    assert violations(found, schemas.load("findings")) == []
    return found


def checked_fully(top: Path, **options: Any) -> set[str]:
    """The entries that a full check refused, and that are counted as such."""
    found = document(top, **options)
    refused = {item["entry"] for item in found["findings"] if item["code"].startswith("onnx-")}
    assert found["checked"] == {"full": len(refused), "quick": found["entries"] - len(refused)}
    assert found["level"] == ("full" if len(refused) == found["entries"] else "mixed")
    return refused


# ---- what counts as changed -------------------------------------------------------------------------------------

Change = Callable[[Path, Any], None]


def edit(number: int, **fields: Any) -> Change:
    def change(top: Path, registry: Any) -> None:
        registry["models"][number].update(fields)

    return change


def nothing(top: Path, registry: Any) -> None:
    pass


def another_order(top: Path, registry: Any) -> None:
    registry["models"].reverse()


def other_bytes(top: Path, registry: Any) -> None:
    registry["models"][1].update(row(top / "model", "m1", NO_MODEL + b"!"))


def a_new_entry(top: Path, registry: Any) -> None:
    registry["models"].append(row(top / "model", "m3"))


def a_looser_policy(top: Path, registry: Any) -> None:
    registry["policies"]["fr"]["rules"][0]["bound"] = 0.1


def a_field_of_another_release(top: Path, registry: Any) -> None:
    registry["other"] = 1


def one_less(top: Path, registry: Any) -> None:
    del registry["models"][0]
    (top / "model" / "m0.onnx").unlink()


def the_folder_moves(top: Path, registry: Any) -> None:
    git(top, "mv", "model", "models")
    (top / "model").mkdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (nothing, set()),
        (another_order, set()),
        (one_less, set()),
        (edit(0, notes="x"), {"m0"}),
        (edit(1, opset=17.0), {"m1"}),
        (edit(1, smoke=False), {"m1"}),
        (edit(1, smoke=False, promotion={"imported_from": "0" * 64}), {"m1"}),
        (edit(0, id="other"), {"other"}),
        (edit(2, notes="the incumbent"), set(IDS)),
        (other_bytes, {"m1"}),
        (a_new_entry, {"m3"}),
        (a_looser_policy, set(IDS)),
        (a_field_of_another_release, set(IDS)),
    ],
)
def test_what_changed_is_checked_fully(top: Path, change: Change, expected: set[str]) -> None:
    """A row, its policy or its incumbent; in the working tree, and when it is committed on a branch."""
    git(top, "switch", "--quiet", "-c", "change")
    registry = load(top)
    change(top, registry)
    save(top, registry)
    assert checked_fully(top) == expected
    commit(top)
    assert checked_fully(top) == expected
    assert checked_fully(top, since="HEAD") == set()


def test_what_landed_on_the_branch_since_does_not_count(top: Path) -> None:
    """The base is where HEAD left the revision, as in `gate --base`."""
    git(top, "switch", "--quiet", "-c", "change")
    registry = load(top)
    edit(0, notes="mine")(top, registry)
    save(top, registry)
    commit(top)
    git(top, "switch", "--quiet", "main")
    save(top, {**load(top), "models": load(top)["models"][:1]})
    commit(top)
    git(top, "switch", "--quiet", "change")
    assert checked_fully(top) == {"m0"}


def test_a_registry_that_moved_is_the_same(top: Path) -> None:
    """Rows name files from their registry's folder."""
    git(top, "mv", "model", "models")
    assert checked_fully(top, registry="models") == set()


@pytest.mark.parametrize("before", [None, b"{", b'{"schema_version": 2, "policies": {}, "models": [{"id": 1}]}'])
def test_without_a_sound_registry_there_everything_is_checked(top: Path, before: bytes | None) -> None:
    """None at the revision, one that cannot be read, and one with a malformed entry."""
    whole, path = load(top), top / "model" / "registry.json"
    path.unlink() if before is None else path.write_bytes(before)
    commit(top)
    save(top, whole)
    assert checked_fully(top, since="HEAD") == set(IDS)


def test_a_registry_of_version_1_is_checked_whole(top: Path) -> None:
    """Its rows do not pin every file, so an equal row is no equal entry."""
    registry = load(top)
    save(top, {"schema_version": 1, "models": registry["models"]})
    commit(top)
    assert checked_fully(top, since="HEAD") == set(IDS)


def test_an_unchanged_entry_is_still_checked_quickly(top: Path) -> None:
    """Its bytes are held against their digests: a file that was edited is an error."""
    (top / "model" / "m1.onnx").write_bytes(b"edited")
    found = document(top)
    assert [(item["entry"], item["code"]) for item in found["findings"]] == [("m1", "digest-mismatch")]
    assert validated(top).code == 1


# ---- it is said -------------------------------------------------------------------------------------------------


def test_every_format_tells_how_deeply_it_looked(top: Path) -> None:
    """No format calls a registry valid whose entries were only looked at quickly, without saying so."""
    sound = tiny_models.model().SerializeToString()
    registry = load(top)
    registry["models"][0].update(row(top / "model", "m0", sound))
    save(top, registry)
    head = git(top, "rev-parse", "HEAD")
    words = f"(1 checked fully; 2 quickly, unchanged since main ({head[:12]}): graph content, probe rows and evidence"
    ran = validated(top)
    assert ran.code == 0
    assert f"3 entries: valid {words} were not looked at there)" in ran.out
    assert f"3 entries: valid {words}" in validated(top, "--format", "github").out
    assert document(top)["since"] == {"name": "main", "commit": head}
    (sarif,) = json.loads(validated(top, "--format", "sarif").out)["runs"]
    how = {"registry": "model/registry.json", "level": "mixed", "checked": {"full": 1, "quick": 2}}
    assert sarif["properties"] == {"validated": [how]}
    junit = ET.fromstring(validated(top, "--format", "junit").out)
    counts = {item.get("name"): item.get("value") for item in junit.iter("property")}
    assert counts == {"checked full": "1", "checked quick": "2"}
    outputs = {case.get("name"): case.findtext("system-out", "") for case in junit.iter("testcase")}
    assert [name for name, text in outputs.items() if text.startswith("checked quickly")] == ["m1", "m2"]


def test_changed_files_and_changed_entries_go_together(top: Path) -> None:
    """--changed chooses the registries, --changed-since the entries in each."""
    ran = run(top, "validate", "--changed", "model/m1.onnx", "docs/page.md", "--changed-since", "HEAD")
    assert (ran.code, ran.out.count("0 checked fully; 3 quickly")) == (0, 1)
    assert run(top, "validate", "--changed", "docs/page.md", "--changed-since", "HEAD") == Ran(0, "", "")


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ("none", "--changed-since none: git knows no such commit"),
        ("two", "--changed-since two: the name is ambiguous"),
        ("-x", "--changed-since '-x': expected a branch, a tag or a commit"),
        ("main..HEAD", "--changed-since main..HEAD: git knows no such commit"),
        ("model/registry.json", "--changed-since model/registry.json: git knows no such commit"),
    ],
)
def test_a_revision_that_is_none_is_refused(top: Path, since: str, words: str) -> None:
    """One line, exit 2, and nothing is called valid; a file is none."""
    git(top, "tag", "two")
    commit(top)
    git(top, "branch", "two")
    ran = run(top, "validate", "model", f"--changed-since={since}")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words in ran.err
    assert "--base" not in ran.err


def test_it_needs_git_and_the_full_level(top: Path, tmp_path: Path) -> None:
    """Outside of a repository there is no revision; the quick level leaves nothing to make quicker."""
    row(tmp_path / "bare", "m0")
    (tmp_path / "bare" / "registry.json").write_text(json.dumps({**load(top), "models": []}))
    ran = run(tmp_path / "bare", "validate", "registry.json", "--changed-since", "HEAD")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "no git repository" in ran.err
    assert "leave out --changed-since" in ran.err
    ran = validated(top, "--level", "quick")
    assert (ran.code, "--level quick" in ran.err) == (2, True)


def test_no_gate_takes_it() -> None:
    """Of all commands `validate` alone can check less by it: what promotes looks at everything that it promotes."""
    context = click.Context(cli.cli)
    takers = {
        name
        for name in cli.cli.list_commands(context)
        if (command := cli.cli.get_command(context, name)) is not None
        and any("--changed-since" in option for option in (o for p in command.params for o in p.opts))
    }
    assert takers == {"validate"}
