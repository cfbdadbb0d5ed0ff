"""Tests of compare_with_base.py and `gate --base`: what turned production in a change must earn it in that change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Program
from policies import MANUAL, set_bound, set_policy
from registries import Made
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, sha256, to_json
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError, RejectedError, WorldError
from registry_tool.git.revisions import load_base
from registry_tool.plugins.manager import Plugins, load
from registry_tool.workflows import compare_with_base
from registry_tool.workflows import promote as promote_workflow

pytestmark = pytest.mark.usefixtures("own_git")


def judged(box: Sandbox, base: str | Path, plugins: Plugins | None = None) -> list[tuple[str, str, str]]:
    """(entry, decision, why) of every judgement since `base`."""
    return [
        (j.verdict.entry, j.verdict.decision, j.why)
        for j in compare_with_base.gate_base(box.path, plugins or load(), base).judgements
    ]


def reasons(box: Sandbox, base: str, plugins: Plugins | None = None) -> str:
    return " | ".join(
        r for j in compare_with_base.gate_base(box.path, plugins or load(), base).judgements for r in j.verdict.reasons
    )


# ---- changes ----------------------------------------------------------------------------------------------------


def flip(box: Sandbox) -> None:
    promote_workflow.flip(box.path, load(), "tiny")


def note(box: Sandbox) -> None:
    box.edit_entry(notes="better than it looks")


def rule(metric: str, value: float) -> Callable[[Sandbox], None]:
    return lambda box: box.edit(set_bound(metric, value))


def flip_loosened(box: Sandbox) -> None:
    """The bar lowered, then cleared, in one change."""
    rule("mean_plcc", 0.5)(box)
    flip(box)


def flip_without_policy(box: Sandbox) -> None:
    """Production by a policy that a person decides, in one change."""
    box.edit(set_policy("fr_ensemble", MANUAL))
    promote_workflow.flip(box.path, load(), "tiny", "trust me")


def swap_model(box: Sandbox) -> None:
    """Other weights under the verdict of the old ones."""
    verdict = box.verdict
    box.forge(lambda manifest: manifest.update(note="other"))
    box.forge_verdict(**verdict)


def rename(box: Sandbox) -> None:
    box.edit(lambda document: document["models"][0].update(id="renamed"))


def demote(box: Sandbox) -> None:
    promote_workflow.demote(box.path, "tiny", "drifts")


def remove(box: Sandbox) -> None:
    box.edit(lambda document: document["models"].clear())


def unpolicied(box: Sandbox) -> None:
    box.edit(lambda document: document.update(policies={}))


def again(box: Sandbox) -> None:
    demote(box)
    flip(box)
    box.edit_entry(notes="flipped again")


def judged_again(metric: str, bound: float) -> Callable[[Sandbox], None]:
    """The policy changes, and the production entry is judged by it in the same change."""

    def change(box: Sandbox) -> None:
        rule(metric, bound)(box)
        assert promote_workflow.repromote(box.path, load(), "tiny").done

    return change


def swapped_and_judged_again(box: Sandbox) -> None:
    """Other bytes under a policy that is loosened with them."""
    demote(box)
    box.forge(lambda manifest: manifest.update(note="other"))
    flip_loosened(box)


FROM_SMOKE: list[Any] = [
    ("nothing", lambda box: None, []),
    ("a note", note, []),
    ("a flip", flip, [("tiny", "PROMOTE", "turned production")]),
    ("by hand", lambda box: box.edit_entry(smoke=False), [("tiny", "HOLD", "turned production")]),
    ("loosened and flipped", flip_loosened, [("tiny", "HOLD", "turned production")]),
    ("manual and flipped", flip_without_policy, [("tiny", "HOLD", "turned production")]),
]
FROM_PRODUCTION: list[Any] = [
    ("nothing", lambda box: None, []),
    ("a note", note, [("tiny", "PROMOTE", "changed while in production")]),
    ("flipped again", again, [("tiny", "PROMOTE", "changed while in production")]),
    ("swapped", swap_model, [("tiny", "HOLD", "changed while in production")]),
    ("no promotion", lambda box: box.edit_entry(promotion=None), [("tiny", "HOLD", "changed while in production")]),
    ("renamed", rename, [("renamed", "HOLD", "renamed from tiny")]),
    ("loosened", rule("mean_plcc", 0.5), [("tiny", "HOLD", "its policy changed")]),
    ("loosened, judged again", judged_again("mean_plcc", 0.5), [("tiny", "PROMOTE", "changed while in production")]),
    ("raised, judged again", judged_again("mean_plcc", 0.96), [("tiny", "PROMOTE", "changed while in production")]),
    ("loosened, other bytes", swapped_and_judged_again, [("tiny", "HOLD", "changed while in production")]),
    ("raised, still met", rule("mean_plcc", 0.96), [("tiny", "PROMOTE", "its policy changed")]),
    ("raised, not met", rule("mean_plcc", 0.99999), [("tiny", "HOLD", "its policy changed")]),
    ("policies removed", unpolicied, [("tiny", "HOLD", "its policy changed")]),
    ("demoted", demote, []),
    ("removed", remove, [("tiny", "HOLD", "deleted while in production")]),
]


@pytest.mark.parametrize(("what", "change", "expected"), FROM_SMOKE, ids=[case[0] for case in FROM_SMOKE])
def test_a_change_of_a_smoke_entry_is_judged(smoke: Sandbox, what: str, change: Any, expected: Any) -> None:
    """Only what turned production is judged, and only a real flip under the policy that stood passes."""
    base = start(smoke.folder)
    change(smoke)
    assert judged(smoke, base) == expected


@pytest.mark.parametrize(("what", "change", "expected"), FROM_PRODUCTION, ids=[case[0] for case in FROM_PRODUCTION])
def test_a_change_of_a_production_entry_is_judged(production: Sandbox, what: str, change: Any, expected: Any) -> None:
    """An entry that changed while in production must clear its gate now, so must one whose policy changed."""
    base = start(production.folder)
    change(production)
    assert judged(production, base) == expected


def test_the_reason_says_what_to_do(smoke: Sandbox) -> None:
    """A policy loosened in the same change: the entry is demoted in this one, and flipped in a later one."""
    base = start(smoke.folder)
    flip_loosened(smoke)
    assert "flip it in a later change" in reasons(smoke, base)
    demote(smoke)
    assert judged(smoke, base) == []
    base = commit(smoke.folder)
    flip(smoke)
    assert judged(smoke, base) == [("tiny", "PROMOTE", "turned production")]


def test_a_lowered_version_is_rejected(production: Sandbox) -> None:
    """schema_version 2 -> 1 opens no door: the whole change is refused."""
    base = start(production.folder)
    production.edit(lambda document: document.update(schema_version=1))
    with pytest.raises(RejectedError, match="lowered: found 1, expected 2"):
        judged(production, base)


def test_a_registry_that_is_new_is_judged_whole(production: Sandbox) -> None:
    """Where the base has no registry, every production entry turned production."""
    folder = production.folder.parent
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    base = git(folder, "rev-parse", "HEAD")
    assert judged(production, base) == [("tiny", "PROMOTE", "turned production")]


def test_the_working_tree_is_judged_committed_or_not(smoke: Sandbox) -> None:
    """The registry as it lies there is judged, before and after its commit."""
    base = start(smoke.folder)
    smoke.edit_entry(smoke=False)
    before = judged(smoke, base)
    commit(smoke.folder)
    assert judged(smoke, base) == before == [("tiny", "HOLD", "turned production")]
    assert judged(smoke, "HEAD") == []


# ---- promotions that no evidence stands behind ------------------------------------------------------------------

THUMBS_MANUAL = {"thumb": {"gate": "manual", "rules": []}}


def test_a_persons_decision_is_seen_and_passes(thumb: Sandbox) -> None:
    """Under a manual policy that stood already, a flip with a reason is listed as what it is."""
    plugins = with_plugin(Thumbs())
    thumb.edit(lambda document: document.update(policies=THUMBS_MANUAL))
    base = start(thumb.folder)
    promote_workflow.flip(thumb.path, plugins, "t", "compared by eye")
    assert judged(thumb, base, plugins) == [("t", "PROMOTE", "turned production")]


def test_an_import_that_never_was_is_held(thumb: Sandbox) -> None:
    """imported_from on an entry that was smoke at the base is no promotion: anybody can type a digest."""
    plugins = with_plugin(Thumbs())
    base = start(thumb.folder)
    for digest in ("0" * 64, sha256(thumb.path.read_bytes())):
        thumb.edit_entry(smoke=False, promotion={"imported_from": digest})
        assert judged(thumb, base, plugins) == [("t", "HOLD", "turned production")]


def test_an_import_from_the_base_passes(tmp_path: Path) -> None:
    """A version-1 production model that the change brings to version 2, naming the very registry at the base.

    Nothing judged it, so nothing is called promoted: it is listed as kept, unless more than the migration changed.
    """
    model = tiny_models.model()
    row = tiny_models.entry(tmp_path, model, smoke=False)
    pin = tiny_models.write(tmp_path, "m.json", tiny_models.sidecar(row))
    digest = tiny_models.write(tmp_path, "registry.json", {"schema_version": 1, "models": [row]})
    base = start(tmp_path)
    migrated = {**row, "promotion": {"imported_from": digest}, "sidecar_sha256": pin}
    document = {"schema_version": 2, "policies": {}, "models": [migrated]}
    (tmp_path / "registry.json").write_bytes(to_json(document))
    box = Sandbox(tmp_path / "registry.json", "m")
    assert box.codes() == []
    compared = compare_with_base.gate_base(box.path, load(), base)
    assert (compared.passes, compared.judgements) == (True, ())
    assert [change.action for change in compared.changes] == ["schema_version", "kept"]
    for field, value in (("opset", 16), ("quant_mode", "fp32"), ("sidecar_sha256", None)):
        box.edit_entry(**{field: value})
        assert [decision for _, decision, _ in judged(box, base)] == ["HOLD"]
        box.path.write_bytes(to_json(document))


# ---- what a base can be -----------------------------------------------------------------------------------------


def test_a_base_is_a_branch_a_tag_or_a_commit(smoke: Sandbox) -> None:
    """Anything that names a commit."""
    base = start(smoke.folder)
    git(smoke.folder, "tag", "v1")
    git(smoke.folder, "branch", "origin/feature/x")
    before = smoke.path.read_bytes()
    smoke.edit_entry(notes="changed")
    commit(smoke.folder)
    for name in (base, base[:10], "v1", "origin/feature/x", "HEAD~1", "main^", "HEAD^{commit}~1"):
        loaded = load_base(name, smoke.path).registry
        assert loaded is not None
        assert loaded.document is not None
        assert loaded.document.data == before


def test_a_base_is_an_older_file(smoke: Sandbox, tmp_path: Path) -> None:
    """Without git, an older registry file does."""
    (tmp_path / "old.json").write_bytes(smoke.path.read_bytes())
    flip(smoke)
    assert judged(smoke, tmp_path / "old.json") == [("tiny", "PROMOTE", "turned production")]


def test_a_file_does_not_stand_in_for_a_revision(smoke: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that adds a file called like the base branch cannot choose what it is compared with."""
    start(smoke.folder)
    git(smoke.folder, "switch", "--quiet", "-c", "change")
    smoke.edit_entry(smoke=False)
    (smoke.folder / "main").write_bytes(smoke.path.read_bytes())
    commit(smoke.folder)
    monkeypatch.chdir(smoke.folder)
    try:
        found = judged(smoke, "main")
    except InputError:
        return  # to refuse the ambiguity is as good
    assert found == [("tiny", "HOLD", "turned production")]


@pytest.mark.parametrize(
    "base", ["nowhere", "", "-x", "--help", "HEAD~99", "HEAD:registry.json", "main..HEAD", "a b", "\u0430"]
)
def test_an_unknown_revision_is_bad_input(smoke: Sandbox, base: str) -> None:
    """It is named in one line; nothing is judged as new for lack of a base."""
    start(smoke.folder)
    with pytest.raises(InputError, match="--base") as caught:
        judged(smoke, base)
    assert "\n" not in str(caught.value)


def test_a_shallow_clone_says_so(smoke: Sandbox, tmp_path: Path) -> None:
    """CI's usual mistake has its remedy in the message."""
    start(smoke.folder)
    commit(smoke.folder)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{smoke.folder}", "shallow")
    with pytest.raises(InputError, match=r"shallow.*fetch-depth: 0"):
        judged(Sandbox(tmp_path / "shallow" / "registry.json"), "HEAD~1")


def test_no_repository_is_bad_input(smoke: Sandbox) -> None:
    """Outside of git the message offers a file."""
    with pytest.raises(InputError, match=r"no git repository.*--base-file"):
        judged(smoke, "main")


def test_no_git_is_a_broken_world(smoke: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without git: exit code 3, and what to install."""
    start(smoke.folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorldError, match="install git"):
        judged(smoke, "main")


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"schema_version": 9}', b'{"schema_version": 2, "models": []}'])
def test_an_unreadable_base_is_bad_input(smoke: Sandbox, text: bytes) -> None:
    """A base that does not parse is not an empty one."""
    good = smoke.path.read_bytes()
    smoke.path.write_bytes(text)
    base = start(smoke.folder)
    smoke.path.write_bytes(good)
    flip(smoke)
    with pytest.raises(InputError, match="cannot be read"):
        judged(smoke, base)


@pytest.mark.parametrize("where", ["model", "a b/\u00e9", "deep/er/model", "[x]*?"])
def test_the_registry_may_lie_anywhere(made: Made, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any folder of the repository, whatever the folder is called and wherever the program is started."""
    box = Sandbox(made.smoke / "registry.json").copy(tmp_path / where)
    base = start(tmp_path)
    flip(box)
    for place in (tmp_path, box.folder, Path("/")):
        monkeypatch.chdir(place)
        assert judged(Sandbox(Path(os.path.relpath(box.path))), base) == [("tiny", "PROMOTE", "turned production")]


def test_a_repository_behind_a_link_is_found(smoke: Sandbox, tmp_path: Path) -> None:
    """A checkout that is reached through a link is the same checkout."""
    base = start(smoke.folder)
    flip(smoke)
    (tmp_path / "link").symlink_to(smoke.folder)
    box = Sandbox(tmp_path / "link" / "registry.json")
    assert judged(box, base) == [("tiny", "PROMOTE", "turned production")]


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_fails_the_job(smoke: Sandbox, registry: Program) -> None:
    """Exit 0 with nothing to judge or all promoted, 1 on any HOLD, 2 for a base that is none; JSON is a list."""
    base = start(smoke.folder)
    where = ("--registry", smoke.path)
    nothing = registry("gate", "--base", base, *where)
    assert (nothing.code, "nothing" in nothing.out) == (0, True)
    document = json.loads(registry("gate", "--base", base, "--format", "json", *where).out)
    assert (document["judgements"], document["changes"], document["base"]["commit"]) == ([], [], base)
    smoke.edit_entry(smoke=False)
    held = registry("gate", "--base", base, *where)
    assert (held.code, "HOLD" in held.out, "promotion-missing" in held.out) == (1, True, True)
    smoke.edit_entry(smoke=True)
    flip(smoke)
    ran = registry("gate", "--base", base, "--format", "json", *where)
    [document] = json.loads(ran.out)["judgements"]
    assert (ran.code, document["verdict"], document["why"]) == (0, "PROMOTE", "turned production")
    assert registry("gate", "--base", "nowhere", *where).code == 2
