"""Tests of compare_with_base.py in real repositories: deletions, demotions, renames, rebases, what CI checks out."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from command_line import Program
from migrating import ensemble
from policies import MANUAL, set_policy
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, sha256, to_json
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError
from registry_tool.hookspec import Kind, Trained, TrainRequest, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Policy
from registry_tool.workflows import base_files, compare_with_base
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.migrate import migrate
from registry_tool.workflows.promote import demote

pytestmark = pytest.mark.usefixtures("own_git")
NOTHING: list[tuple[str, str, str]] = []
FLIPPED = [("tiny", "PROMOTE", "turned production")]


def judged(box: Sandbox, base: str, plugins: Plugins | None = None) -> list[tuple[str, str, str]]:
    found = compare_with_base.gate_base(box.path, plugins or load(), base)
    return [(j.verdict.entry, j.verdict.decision, j.why) for j in found.judgements]


def codes(box: Sandbox, base: str) -> set[str]:
    return {f.code for j in compare_with_base.gate_base(box.path, load(), base).judgements for f in j.findings}


def flip(box: Sandbox) -> None:
    promote_workflow.flip(box.path, load(), box.id)


# ---- production that goes ---------------------------------------------------------------------------------------


def test_a_deleted_production_entry_is_refused(production: Sandbox) -> None:
    """It is named, with what to do; deleted after a demotion in an earlier change it is nobody's business."""
    base = start(production.folder)
    demote(production.path, "tiny", "drifts")
    demoted = commit(production.folder)
    production.edit(lambda document: document["models"].clear())
    assert judged(production, base) == [("tiny", "HOLD", "deleted while in production")]
    assert codes(production, base) == {"base-entry-deleted"}
    assert judged(production, demoted) == NOTHING


@pytest.mark.parametrize(
    ("demotion", "held"),
    [(None, True), ({"reason": "x", "manifest_sha256": "0" * 64}, True), ("its own", False)],
    ids=["none", "of other bytes", "a reason"],
)
def test_a_demotion_says_why(production: Sandbox, demotion: Any, held: bool) -> None:
    """Smoke by hand, or with the reason of another demotion, is refused."""
    base = start(production.folder)
    if demotion == "its own":
        demotion = {"reason": "drifts", "manifest_sha256": production.entry["sha256"]}
    production.edit_entry(smoke=True, promotion=None, demotion=demotion)
    assert judged(production, base) == ([("tiny", "HOLD", "demoted")] if held else NOTHING)
    assert codes(production, base) == ({"base-demotion-unexplained"} if held else set())


def test_a_changed_file_of_production_is_judged(production: Sandbox) -> None:
    """Evidence, a member or the verdict edited under an unchanged document: held, by the pin that broke."""
    base = start(production.folder)
    for path in [*production.artifacts.glob("evidence/*.json"), *production.folder.glob("tiny/verdicts/*")]:
        good = path.read_bytes()
        path.write_bytes(good.replace(b"0.9", b"0.8", 1))
        assert judged(production, base) == [("tiny", "HOLD", "its files changed")]
        assert codes(production, base) == {"digest-mismatch"}
        path.unlink()
        assert codes(production, base) == {"file-missing"}
        path.write_bytes(good)
    assert judged(production, base) == NOTHING


def test_what_was_broken_at_the_base_is_not_of_the_change(tmp_path: Path) -> None:
    """A production model whose file was missing before is held by a change of its files, and by no other change."""
    folder = tmp_path / "model"
    rows = [tiny_models.entry(folder, tiny_models.model(seed=n), name, smoke=False) for n, name in enumerate("ab")]
    for row in rows:
        tiny_models.write(folder, f"{row['id']}.json", tiny_models.sidecar(row))
    tiny_models.write(folder, "registry.json", {"schema_version": 1, "models": rows})
    (folder / "a.onnx").unlink()
    box = Sandbox(folder / "registry.json", "a")
    base = start(folder)
    assert judged(box, base) == NOTHING
    (folder / "notes.txt").write_text("new")
    assert judged(box, base) == NOTHING
    for name in ("a.onnx", "a.json", "a.int8.onnx"):
        good = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_bytes(b"?")
        assert [entry for entry, _, _ in judged(box, base)] == ["a"], name
        (folder / name).unlink()
        if good is not None:
            (folder / name).write_bytes(good)
    (folder / "b.onnx").write_bytes(b"?")
    assert [entry for entry, _, _ in judged(box, base)] == ["b"]


def version_1(folder: Path, model: Any = None, **fields: Any) -> Sandbox:
    """A production model of version 1 with its sidecar, which nothing pins."""
    row = tiny_models.entry(folder, model or tiny_models.model(), smoke=False)
    tiny_models.write(folder, "m.json", tiny_models.sidecar(row, **fields))
    tiny_models.write(folder, "registry.json", {"schema_version": 1, "models": [row]})
    return Sandbox(folder / "registry.json", "m")


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({"feature_mean": [9.0] * 6}, True),
        ({"feature_order": tiny_models.FEATURES[::-1]}, True),
        ({"description": "better words", "notes": "x"}, False),
    ],
)
def test_another_sidecar_is_another_model(tmp_path: Path, change: dict[str, Any], held: bool) -> None:
    """A production model of version 1 reads its means there: a change of them is judged, one of words is not."""
    box = version_1(tmp_path / "model")
    base = start(box.folder)
    sidecar = json.loads((box.folder / "m.json").read_bytes())
    tiny_models.write(box.folder, "m.json", {**sidecar, **change})
    assert judged(box, base) == ([("m", "HOLD", "its sidecar changed")] if held else NOTHING)
    box.edit_entry(notes="words beside it")
    assert judged(box, base) == ([("m", "HOLD", "its sidecar changed")] if held else NOTHING)
    (box.folder / "m.json").unlink()
    assert judged(box, base) == [("m", "HOLD", "its sidecar changed")]


def test_other_weights_under_an_old_graph_are_judged(tmp_path: Path) -> None:
    """Weights that version 1 pins inside the ONNX file alone, by SHA-1: held where they change, whatever their name."""
    weights = np.arange(6, dtype=np.float32).tobytes()
    checksum = hashlib.sha1(weights, usedforsecurity=False).hexdigest()
    box = version_1(tmp_path / "model", tiny_models.external("w.bin", checksum=checksum))
    (box.folder / "w.bin").write_bytes(weights)
    assert box.codes() == []
    base = start(box.folder)
    assert judged(box, base) == NOTHING
    (box.folder / "w.bin").write_bytes(weights[::-1])
    assert judged(box, base) == [("m", "HOLD", "its files changed")]
    assert codes(box, base) == {"onnx-external-checksum"}
    base = commit(box.folder)
    (box.folder / "notes.txt").write_text("the weights were wrong before")
    assert judged(box, base) == NOTHING


@pytest.mark.parametrize("place", [".", "model"])
@pytest.mark.parametrize("words", ["manifest.json text eol=crlf", "manifest.json working-tree-encoding=UTF-16"])
def test_attributes_of_git_hide_no_change(production: Sandbox, place: str, words: str) -> None:
    """A change that has git write files in other bytes is held, though git calls them unchanged."""
    top = production.folder.parent
    (production.folder / ".gitattributes").unlink()  # it says that nothing is text
    base = start(top)
    (top / place / ".gitattributes").write_text(f"{words}\n")
    commit(top)
    for path in production.folder.rglob("manifest.json"):
        path.unlink()
    git(top, "checkout", "--", ".")
    assert git(top, "status", "--porcelain") == ""
    assert judged(production, base) == [("tiny", "HOLD", "its files changed")]


@pytest.mark.parametrize("flag", ["assume-unchanged", "skip-worktree"])
def test_flags_of_the_index_hide_no_change(production: Sandbox, flag: str) -> None:
    """A file that git is told to take for unchanged is looked at where it is there."""
    base = start(production.folder)
    path = production.artifacts / "evidence" / "oof.npz"
    git(production.folder, "update-index", f"--{flag}", str(path.relative_to(production.folder)))
    assert judged(production, base) == NOTHING
    path.write_bytes(b"?")
    assert judged(production, base) == [("tiny", "HOLD", "its files changed")]


def test_git_is_asked_what_changed_where_an_entry_needs_it_alone(
    production: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A production entry whose files hold needs no answer; one whose files do not needs one."""
    asked: list[Any] = []
    real = base_files.changed_files
    monkeypatch.setattr(base_files, "changed_files", lambda *a: asked.append(a) or real(*a))
    base = start(production.folder)
    assert judged(production, base) == NOTHING
    assert asked == []
    (production.artifacts / "evidence" / "oof.npz").write_bytes(b"?")
    assert judged(production, base) == [("tiny", "HOLD", "its files changed")]
    assert len(asked) == 1


class Lines:
    """A kind that trains at once; each training gives other bytes."""

    count = 0

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("lines", "one line of text", schema={"type": "object"}, default_policy=Policy(gate="manual"))]

    @hookimpl
    def registry_train(self, request: TrainRequest) -> Trained:
        self.count += 1
        return Trained(
            {"line.txt": str(self.count).encode()}, {"id": "l", "kind": "lines", "line": {"path": "line.txt"}}
        )


def test_a_demoted_entry_may_be_trained_again_in_one_change(tmp_path: Path) -> None:
    """The demotion's reason stays with the entry, until it is production again."""
    plugins, box = with_plugin(Lines()), Sandbox(tmp_path / "model" / "registry.json", "l")

    def train() -> None:
        train_workflow.train(box.path, plugins, TrainRequest("lines", "l"))

    train()
    promote_workflow.flip(box.path, plugins, "l", "by eye")
    base = start(box.folder)
    demote(box.path, "l", "drifts")
    train()
    assert box.entry["demotion"]["reason"] == "drifts"
    assert judged(box, base, plugins) == NOTHING
    promote_workflow.flip(box.path, plugins, "l", "by eye again")
    assert judged(box, base, plugins) == [("l", "PROMOTE", "changed while in production")]
    assert "demotion" not in box.entry


# ---- renames ----------------------------------------------------------------------------------------------------


def test_a_renamed_single_model_stays_production(thumb: Sandbox) -> None:
    """Another id for the same bytes under the same promotion is one judgement, and no deletion."""
    plugins = with_plugin(Thumbs())
    policy = {"thumb": MANUAL}
    thumb.edit(lambda document: document.update(policies=policy))
    promote_workflow.flip(thumb.path, plugins, "t", "compared by eye")
    base = start(thumb.folder)
    thumb.edit_entry(id="u")
    assert judged(Sandbox(thumb.path, "u"), base, plugins) == [("u", "PROMOTE", "renamed from t")]


def test_a_copy_is_no_rename(thumb: Sandbox) -> None:
    """The same bytes under a second id, the first still there, turned production by itself."""
    plugins = with_plugin(Thumbs())
    thumb.edit(set_policy("thumb", MANUAL))
    promote_workflow.flip(thumb.path, plugins, "t", "compared by eye")
    base = start(thumb.folder)
    thumb.edit(lambda document: document["models"].append({**document["models"][0], "id": "u"}))
    assert judged(thumb, base, plugins) == [("u", "PROMOTE", "turned production")]


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("to", ["metrics/registry.json", "model/models.json"])
def test_a_moved_registry_is_compared_with_its_old_place(production: Sandbox, to: str, staged: bool) -> None:
    """Moved or renamed, committed or not: what was production there is no flip, and what goes is missed."""
    top = production.folder.parent
    (top / "notes.json").write_text('{"models": "no registry"}')
    base = start(top)
    (top / "notes.json").unlink()
    if to.startswith("metrics"):
        production.folder.rename(top / "metrics")
    else:
        production.path.rename(top / to)
    if staged:
        commit(top)
    box = Sandbox(top / to)
    assert judged(box, base) == NOTHING
    box.edit(lambda document: document["models"].clear())
    assert judged(box, base) == [("tiny", "HOLD", "deleted while in production")]


def test_a_new_registry_beside_the_old_one_is_new(production: Sandbox) -> None:
    """A copy elsewhere has no past: all its production entries are judged."""
    top = production.folder.parent
    base = start(top)
    shutil.copytree(production.folder, top / "copy")
    assert judged(Sandbox(top / "copy" / "registry.json"), base) == FLIPPED


def test_two_registries_that_went_are_not_guessed_between(production: Sandbox) -> None:
    """Which of them became the new one is for a person to say."""
    top = production.folder.parent
    shutil.copytree(production.folder, top / "second")
    base = start(top)
    production.folder.rename(top / "third")
    shutil.rmtree(top / "second")
    with pytest.raises(InputError, match=r"model/registry.json, second/registry.json gone.*git show"):
        judged(Sandbox(top / "third" / "registry.json"), base)


# ---- branches ---------------------------------------------------------------------------------------------------


def branch(box: Sandbox) -> None:
    """`change` leaves main, and then main goes on with a second production entry."""
    start(box.folder)
    git(box.folder, "branch", "change")
    twin = {**box.entry, "id": "twin", "smoke": False, "promotion": {"manual": True, "reason": "by eye"}}
    box.edit(lambda document: document["models"].append(twin))
    (box.folder / "of-main.txt").write_text("of main")
    commit(box.folder, "of main")
    git(box.folder, "switch", "--quiet", "change")


def test_what_landed_on_main_meanwhile_is_not_of_this_change(smoke: Sandbox) -> None:
    """A branch that lags behind deletes nothing of main's; its own flip is judged."""
    branch(smoke)
    assert judged(smoke, "main") == NOTHING
    flip(smoke)
    assert judged(smoke, "main") == FLIPPED
    commit(smoke.folder)
    assert judged(smoke, "main") == FLIPPED


def test_a_rebase_changes_nothing(smoke: Sandbox) -> None:
    """The same flip, rebased onto main, is the same judgement."""
    start(smoke.folder)
    git(smoke.folder, "switch", "--quiet", "-c", "change")
    flip(smoke)
    commit(smoke.folder, "flip")
    git(smoke.folder, "switch", "--quiet", "main")
    (smoke.folder / "of-main.txt").write_text("of main")
    commit(smoke.folder, "of main")
    git(smoke.folder, "switch", "--quiet", "change")
    assert judged(smoke, "main") == FLIPPED
    git(smoke.folder, "rebase", "--quiet", "main")
    assert judged(smoke, "main") == FLIPPED


def clone(box: Sandbox, to: Path, *options: str) -> Sandbox:
    git(to.parent, "clone", "--quiet", *options, f"file://{box.folder}", to.name)
    return Sandbox(to / "registry.json", box.id)


def merged(box: Sandbox) -> None:
    """main, `change` with a flip, and `merge`: what a forge checks out for the pull request of the two."""
    start(box.folder)
    git(box.folder, "switch", "--quiet", "-c", "change")
    flip(box)
    commit(box.folder, "flip")
    git(box.folder, "switch", "--quiet", "-c", "merge", "main")
    git(box.folder, "merge", "--quiet", "--no-ff", "-m", "merge", "change")


def test_the_merge_commit_of_ci_is_compared_with_its_base(smoke: Sandbox, tmp_path: Path) -> None:
    """With full history, `main` means origin's; a local file of that name does not stand in for it."""
    merged(smoke)
    box = clone(smoke, tmp_path / "full", "--branch", "merge")
    (box.folder / "main").write_bytes(box.path.read_bytes())
    for base in ("main", "origin/main", "HEAD^1"):
        assert judged(box, base) == FLIPPED


def test_a_clone_of_depth_1_knows_the_parents_of_its_merge(smoke: Sandbox, tmp_path: Path) -> None:
    """The merge commit alone, and the base fetched beside it at depth 1, are enough; without the base it says so."""
    merged(smoke)
    box = clone(smoke, tmp_path / "shallow", "--depth", "1", "--branch", "merge")
    with pytest.raises(InputError, match=r"shallow.*fetch-depth: 0"):
        judged(box, "origin/main")
    git(box.folder, "fetch", "--quiet", "--depth", "1", "origin", "main:refs/remotes/origin/main")
    assert judged(box, "main") == FLIPPED


def test_a_shallow_clone_without_a_common_ancestor_says_so(smoke: Sandbox, tmp_path: Path) -> None:
    """Where main went on and neither side reaches back to the fork, nothing is guessed."""
    branch(smoke)
    flip(smoke)
    commit(smoke.folder)
    box = clone(smoke, tmp_path / "shallow", "--depth", "1", "--branch", "change")
    git(box.folder, "fetch", "--quiet", "--depth", "1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(InputError, match=r"shallow clone does not reach.*fetch-depth: 0"):
        judged(box, "origin/main")


def test_unrelated_histories_are_bad_input(smoke: Sandbox) -> None:
    """A branch without an ancestor in common is no base."""
    start(smoke.folder)
    git(smoke.folder, "switch", "--quiet", "--orphan", "other")
    (smoke.folder / "x.txt").write_text("x")
    commit(smoke.folder)
    git(smoke.folder, "switch", "--quiet", "main")
    with pytest.raises(InputError, match="no ancestor in common"):
        judged(smoke, "other")


# ---- a migration ------------------------------------------------------------------------------------------------


def test_a_migration_in_place_is_judged_as_one(tmp_path: Path) -> None:
    """Joined members are not missed, imports pass, and an import that never was is held."""
    path = ensemble(tmp_path / "repo" / "tiny")
    row = tiny_models.entry(path.parent, tiny_models.model(seed=7), "one", smoke=False)
    tiny_models.write(path.parent, "one.json", tiny_models.sidecar(row))
    document = json.loads(path.read_bytes())
    path.write_bytes(to_json({**document, "models": [*document["models"], row]}))
    top = tmp_path / "repo"
    base = start(top)
    migrate(path, tmp_path / "new", load())
    shutil.rmtree(path.parent)
    (tmp_path / "new").rename(top / "tiny2")
    box = Sandbox(top / "tiny2" / "registry.json", "one")
    assert judged(box, base) == NOTHING
    box.edit_entry(promotion={"imported_from": sha256(b"another registry")})
    assert codes(box, base) == {"base-import-unknown"}
    box.edit(lambda document: document["models"].pop(0))  # the ensemble that took the members in
    assert {found[0] for found in judged(box, base) if found[2].startswith("deleted")} == {"s0", "s1"}


def test_the_command_says_what_is_gone(production: Sandbox, registry: Program) -> None:
    """Exit 1, with the code and what to do."""
    base = start(production.folder)
    production.edit(lambda document: document["models"].clear())
    ran = registry("gate", "--base", base, "--registry", production.path)
    assert ran.code == 1
    assert "tiny: HOLD (deleted while in production)" in ran.out
    assert "base-entry-deleted" in ran.out
