"""Which registry `gate --base` judges, and which base it is held against: decided from names, before either is read.

Every change here flips an entry by hand, which the real base refuses, and tries to have another one in its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Ran, run
from places import EXAMPLES
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_git")]


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone in which `origin/main` has a smoke entry, and a change on `change` makes it production."""

    top: Path

    @property
    def registry(self) -> Path:
        return self.top / "model" / "registry.json"

    def flip(self, registry: Path | None = None) -> None:
        path = registry or self.registry
        document = json.loads(path.read_bytes())
        document["models"][0]["smoke"] = False
        path.write_text(json.dumps(document))

    def gate(self, *arguments: object, base: str = "origin/main", folder: str = ".") -> Ran:
        return run(self.top / folder, "gate", "--base", base, *arguments)


def make_clone(top: Path) -> Clone:
    shutil.copytree(EXAMPLES / "valid" / "smoke", top / "model")
    (top / "docs").mkdir()
    (top / "docs" / "page.md").write_text("page")
    base = start(top)
    git(top, "update-ref", "refs/remotes/origin/main", base)
    git(top, "switch", "--quiet", "-c", "change")
    git(top, "branch", "--quiet", "-D", "main")
    return Clone(top)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return make_clone(tmp_path / "top")


# ---- a base that is another one than its name says ---------------------------------------------------------------


def a_tag(clone: Clone) -> None:
    git(clone.top, "tag", "origin/main")


def an_annotated_tag(clone: Clone) -> None:
    git(clone.top, "tag", "-a", "-m", "x", "origin/main")


def a_branch(clone: Clone) -> None:
    git(clone.top, "branch", "origin/main")


def a_branch_of_the_remote(clone: Clone) -> None:
    git(clone.top, "update-ref", "refs/remotes/origin/origin/main", "HEAD")


def a_tag_with_the_name_of_a_branch(clone: Clone) -> None:
    git(clone.top, "tag", "refs/remotes/origin/main")
    git(clone.top, "tag", "heads/origin/main")


def a_file(clone: Clone) -> None:
    (clone.top / "origin").mkdir()
    shutil.copyfile(clone.registry, clone.top / "origin" / "main")


def a_replaced_commit(clone: Clone) -> None:
    git(clone.top, "replace", "-f", "origin/main", "HEAD")


def named(case: object) -> str:
    return case.__name__ if callable(case) else ""


# What would hide the real base -> what `gate --base` says: it is ambiguous (exit 2), or the finding (exit 1).
OTHER_BASES = {
    **dict.fromkeys((a_tag, an_annotated_tag, a_branch), (2, "ambiguous")),
    **dict.fromkeys((a_branch_of_the_remote, a_tag_with_the_name_of_a_branch), (1, "promotion-missing")),
    **dict.fromkeys((a_file, a_replaced_commit), (1, "promotion-missing")),
}


@pytest.mark.parametrize(("attack", "answer"), OTHER_BASES.items(), ids=named)
def test_no_other_base_is_taken_for_the_named_one(
    clone: Clone, attack: Callable[[Clone], None], answer: tuple[int, str]
) -> None:
    """The real base is compared with (exit 1), or the name is refused as ambiguous (exit 2); never green."""
    code, words = answer
    clone.flip()
    commit(clone.top)
    attack(clone)
    ran = clone.gate()
    assert (ran.code, words in (ran.out if code == 1 else ran.err)) == (code, True)
    assert clone.gate(base="refs/remotes/origin/main").code == 1


def test_an_ambiguous_name_is_refused_with_its_meanings(clone: Clone) -> None:
    """Each with its commit, and what to type instead; two names of one commit are one meaning."""
    git(clone.top, "tag", "origin/main")
    clone.flip()
    assert clone.gate().code == 1
    commit(clone.top)
    git(clone.top, "tag", "--force", "origin/main")
    ran = clone.gate()
    assert ran.code == 2
    for words in ("refs/remotes/origin/main is", "refs/tags/origin/main is", "--base refs/remotes/origin/main"):
        assert words in ran.err
    assert clone.gate(base=git(clone.top, "rev-parse", "refs/remotes/origin/main")).code == 1


def test_a_tag_with_the_name_of_a_hash_stands_for_nothing(clone: Clone) -> None:
    """A full hash is that commit; a short one that is also a tag's name is ambiguous."""
    base = git(clone.top, "rev-parse", "origin/main")
    clone.flip()
    commit(clone.top)
    for name in (base, base[:8]):
        git(clone.top, "update-ref", f"refs/tags/{name}", "HEAD")
    assert clone.gate(base=base).code == 1
    ran = clone.gate(base=base[:8])
    assert (ran.code, "ambiguous" in ran.err) == (2, True)


@pytest.mark.parametrize("trouble", ["shallow", "another owner", "no repository"])
def test_a_file_named_like_the_base_is_no_base(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Where git knows no such revision, or refuses the repository, a file of its name does not stand in for it."""
    clone.flip()
    commit(clone.top)
    top = clone.top
    if trouble == "shallow":
        git(tmp_path, "clone", "--quiet", "--depth", "1", "--branch", "change", f"file://{clone.top}", "shallow")
        top = tmp_path / "shallow"
    elif trouble == "another owner":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    else:
        shutil.rmtree(top / ".git")
    there = Clone(top)
    a_file(there)
    ran = there.gate(base="origin/main")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    said = {"shallow": "fetch-depth: 0", "another owner": "dubious ownership", "no repository": "no git repository"}
    assert said[trouble] in ran.err
    assert run(there.top, "gate", "--base-file", "origin/main").code == 0  # by its own option alone


def test_the_ways_to_a_base_that_was_not_fetched_are_typed(clone: Clone, tmp_path: Path) -> None:
    """A shallow clone says how to deepen it, a clone of one branch how to fetch another; then the base is there."""
    clone.flip()
    commit(clone.top)
    branch = ("--quiet", "--single-branch", "--branch", "change", f"file://{clone.top}")
    git(tmp_path, "clone", "--depth", "1", *branch, "shallow")
    there = Clone(tmp_path / "shallow")
    assert "git fetch --unshallow by hand" in there.gate(base="HEAD~1").err
    git(there.top, "fetch", "--quiet", "--unshallow")
    assert there.gate(base="HEAD~1").code < 2
    git(clone.top, "branch", "target", "HEAD~1")
    git(there.top, "remote", "set-branches", "--add", "origin", "target")
    said = there.gate(base="refs/remotes/origin/target").err
    assert said.endswith("expected one that was fetched: git fetch origin target\n")
    git(there.top, "fetch", "--quiet", "origin", "target")
    assert there.gate(base="refs/remotes/origin/target").code < 2


def test_an_older_file_has_an_option_of_its_own(clone: Clone, tmp_path: Path) -> None:
    """--base-file compares with a file, in a repository or not; one that is none is bad input, and so are both."""
    shutil.copyfile(clone.registry, tmp_path / "old.json")
    clone.flip()
    assert run(clone.top, "gate", "--base-file", tmp_path / "old.json").code == 1
    assert run(clone.top, "gate", "--base-file", tmp_path / "none.json").code == 2
    assert run(clone.top, "gate", "--base-file", tmp_path / "old.json", "--base", "origin/main").code == 2
    ran = run(clone.top, "gate", "--base", "model/registry.json")
    assert (ran.code, "--base-file" in ran.err) == (2, True)


# ---- a registry that is another one ------------------------------------------------------------------------------


def a_link_to_a_folder(clone: Clone) -> None:
    clone.registry.parent.rename(clone.top / "elsewhere")
    clone.registry.parent.symlink_to("elsewhere")


def a_link_to_another_repository(clone: Clone) -> None:
    other = clone.top / "other"
    clone.registry.parent.rename(other)
    git(other, "init", "--quiet", "-b", "main")
    git(other, "update-ref", "refs/remotes/origin/main", commit(other))
    clone.registry.parent.symlink_to("other")


def a_submodule(clone: Clone) -> None:
    other = clone.top.parent / "other"
    clone.registry.parent.rename(other)
    start(other)
    git(clone.top, "rm", "-r", "--quiet", "--cached", "model")
    git(clone.top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "model")


def a_bare_repository(clone: Clone) -> None:
    """Files that git takes for a repository of its own, with a configuration that is not ours."""
    other = clone.top.parent / "other"
    shutil.copytree(clone.registry.parent, other / "model")
    base = start(other)
    for item in (other / ".git").iterdir():
        target = clone.registry.parent / item.name
        shutil.copytree(item, target) if item.is_dir() else shutil.copyfile(item, target)
    git(other, "update-ref", "refs/remotes/origin/main", base)
    (clone.registry.parent / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tworktree = ../..\n")


def a_link_to_the_file(clone: Clone) -> None:
    clone.registry.rename(clone.top / "other.json")
    clone.registry.symlink_to("../other.json")


def an_empty_one_beside_it(clone: Clone) -> None:
    """The registry at the root, and an empty one where it was looked for first."""
    shutil.copytree(clone.registry.parent, clone.top, dirs_exist_ok=True)
    clone.registry.write_text('{"schema_version": 2, "policies": {}, "models": []}')


def one_beside_it(clone: Clone) -> None:
    """A valid one at the root; the real one is gone, or a broken link."""
    (clone.top / "registry.json").write_text('{"schema_version": 2, "policies": {}, "models": []}')
    clone.registry.unlink()
    clone.registry.symlink_to("nowhere.json")


def one_moved_and_emptied(clone: Clone) -> None:
    """Moved to the root, and what it had is said to be new production."""
    shutil.copytree(clone.registry.parent, clone.top, dirs_exist_ok=True)
    shutil.rmtree(clone.registry.parent)


OTHER_REGISTRIES = {
    **dict.fromkeys((a_bare_repository, one_moved_and_emptied), 1),  # the real one is judged
    **dict.fromkeys((a_link_to_a_folder, a_link_to_another_repository, a_submodule, a_link_to_the_file), 2),
    **dict.fromkeys((an_empty_one_beside_it, one_beside_it), 2),
}


@pytest.mark.parametrize(("attack", "code"), OTHER_REGISTRIES.items(), ids=named)
def test_no_other_registry_is_taken_for_the_real_one(clone: Clone, attack: Callable[[Clone], None], code: int) -> None:
    """The real one is held (exit 1), or the registry is refused in one line (exit 2), committed or not."""
    clone.flip()
    attack(clone)
    for _ in ("in the working tree", "committed"):
        ran = clone.gate()
        assert (ran.code, ran.err.count("\n")) == (code, code - 1), ran
        commit(clone.top)


INSIDE = {a_link_to_a_folder: 1, a_bare_repository: 1, a_link_to_another_repository: 2, a_submodule: 2}


@pytest.mark.parametrize(("attack", "code"), INSIDE.items(), ids=named)
def test_nor_from_inside_its_folder(clone: Clone, attack: Callable[[Clone], None], code: int) -> None:
    """A job that runs in `model/` is in what the change made of that folder."""
    clone.flip()
    attack(clone)
    commit(clone.top)
    ran = clone.gate(folder="model")
    assert (ran.code, ran.err.count("\n")) == (code, code - 1), ran


def test_two_candidates_are_refused_by_every_command(clone: Clone) -> None:
    """model/registry.json beside registry.json: neither is guessed; named, either is read."""
    shutil.copytree(clone.registry.parent, clone.top, dirs_exist_ok=True)
    for command in (("validate",), ("list",), ("gate", "m"), ("gate", "--base", "origin/main")):
        ran = run(clone.top, *command)
        assert ran.code == 2
        assert "model/registry.json and registry.json" in ran.err
    assert run(clone.top, "validate", "registry.json").code == 0
    assert run(clone.top, "gate", "--base", "origin/main", "--registry", "model").code == 0


def test_a_nearer_registry_that_a_change_adds_is_refused(clone: Clone) -> None:
    """Where the search at the base finds another one that is still there, somebody has to say which is meant."""
    clone.flip()
    (clone.top / "docs" / "registry.json").write_text('{"schema_version": 2, "policies": {}, "models": []}')
    ran = clone.gate(folder="docs")
    assert (ran.code, "model/registry.json" in ran.err) == (2, True)
    assert clone.gate("--registry", "../model/registry.json", folder="docs").code == 1
    assert clone.gate("--registry", "registry.json", folder="docs").code == 0


@pytest.mark.parametrize("what", ["a link", "a submodule"])
def test_a_base_behind_a_link_or_submodule_is_refused(clone: Clone, what: str) -> None:
    """What stood there at the base is not what its path says, so there is nothing to compare with."""
    real = clone.top.parent / "real"
    shutil.copytree(clone.registry.parent, real)
    (a_link_to_a_folder if what == "a link" else a_submodule)(clone)
    git(clone.top, "update-ref", "refs/remotes/origin/main", commit(clone.top))
    if what == "a link":
        clone.registry.parent.unlink()
    else:
        git(clone.top, "rm", "--quiet", "--force", "model")
    shutil.copytree(real, clone.registry.parent)
    ran = clone.gate()
    assert ran.code == 2
    assert what.replace("a link", "a symbolic link") in ran.err


# ---- what is no attack -------------------------------------------------------------------------------------------


def test_a_moved_registry_is_found_where_it_was(clone: Clone) -> None:
    """Found by the same search: what was smoke there is judged; what it was is said, also where nothing is judged."""
    shutil.copytree(clone.registry.parent, clone.top, dirs_exist_ok=True)
    shutil.rmtree(clone.registry.parent)
    ran = clone.gate()
    assert ran.code == 0
    assert "moved[" not in ran.out
    assert "[moved] model/registry.json: moved to registry.json" in ran.out
    clone.flip(clone.top / "registry.json")
    assert clone.gate().code == 1


def test_the_folder_may_lie_behind_a_link_above_the_repository(clone: Clone, tmp_path: Path) -> None:
    """A checkout reached through a link is the same checkout, wherever the program is started."""
    (tmp_path / "link").symlink_to(clone.top)
    clone.flip()
    assert run(tmp_path, "gate", "--base", "origin/main", "--registry", "link/model").code == 1
    assert run(tmp_path / "link", "gate", "--base", "origin/main").code == 1


def test_a_repository_within_another_one_is_its_own(clone: Clone) -> None:
    """A clone in a folder of another repository, which does not record it, is compared by itself."""
    outer = clone.top.parent
    git(outer, "init", "--quiet", "-b", "main")
    assert clone.gate().code == 0
    assert run(outer, "gate", "--base", "origin/main", "--registry", "top/model").code == 0


def test_a_linked_worktree_is_a_repository(clone: Clone, tmp_path: Path) -> None:
    """`git worktree add`: a .git file there leads to the repository."""
    git(clone.top, "worktree", "add", "--quiet", "--detach", str(tmp_path / "second"), "change")
    there = Clone(tmp_path / "second")
    assert there.gate().code == 0
    there.flip()
    assert there.gate().code == 1


def test_the_environment_of_a_hook_does_not_lead_elsewhere(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """GIT_DIR and its kin, as git sets them for hooks, choose no other repository."""
    other = clone.top.parent / "other"
    shutil.copytree(clone.registry.parent, other / "model")
    Clone(other).flip()
    git(other, "init", "--quiet", "-b", "main")
    git(other, "update-ref", "refs/remotes/origin/main", commit(other))
    clone.flip()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert clone.gate().code == 1


@pytest.mark.parametrize("name", ["heads/main", "remotes/origin/main"])
def test_a_name_that_git_completes_from_refs_is_that_ref(clone: Clone, name: str) -> None:
    """As `git branch --all` prints it; a tag of this name makes it ambiguous, and takes no ref's place."""
    git(clone.top, "branch", "--force", "main", "origin/main")
    clone.flip()
    commit(clone.top)
    assert clone.gate(base=name).code == 1
    git(clone.top, "tag", name)
    ran = clone.gate(base=name)
    assert (ran.code, f"--base refs/{name}" in ran.err) == (2, True)
    assert clone.gate(base=f"refs/{name}").code == 1


def test_an_ambiguous_head_is_named_by_its_hash(clone: Clone) -> None:
    """No name of HEAD is longer: what the error says to type is taken."""
    clone.flip()
    commit(clone.top)
    git(clone.top, "update-ref", "refs/tags/HEAD", "refs/remotes/origin/main")
    ran, head = clone.gate(base="HEAD"), git(clone.top, "rev-parse", "--verify", "HEAD^{commit}")
    assert (ran.code, f"--base {head}" in ran.err) == (2, True)
    assert clone.gate(base=head).code == 0


@pytest.mark.parametrize("name", ["HEAD", "HEAD~1", "HEAD^", "HEAD^{commit}~1", "change~1", "v1", "v2", "main"])
def test_every_usual_name_is_understood(clone: Clone, name: str) -> None:
    """HEAD, its ancestors, branches, tags of both kinds, and `main` for origin's where there is no other."""
    git(clone.top, "tag", "v1")
    git(clone.top, "tag", "-a", "-m", "x", "v2")
    commit(clone.top)
    clone.flip()
    assert clone.gate(base=name).code == 1
