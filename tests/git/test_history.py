"""Tests of history.py in real repositories: flips, demotions, merges, moves, days, and clones that know too little."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Program
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.errors import InputError
from registry_tool.git.history import as_of, history, moment
from registry_tool.plugins.manager import load
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows.promote import demote

pytestmark = pytest.mark.usefixtures("own_git")


def on(monkeypatch: pytest.MonkeyPatch, day: str, who: str = "Ann") -> None:
    """The next commits are of this day, by this person."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_DATE", f"{day}T12:00:00+0000")
        monkeypatch.setenv(f"GIT_{role}_NAME", who)


def flip(box: Sandbox) -> None:
    promote_workflow.flip(box.path, load(), box.id)


@pytest.fixture
def past(smoke: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Registered on day 1, flipped by Bea on day 2, demoted by Cai on day 3; another entry came on day 4."""
    on(monkeypatch, "2026-05-01")
    start(smoke.folder)
    on(monkeypatch, "2026-05-02", "Bea")
    flip(smoke)
    commit(smoke.folder, "Ship tiny")
    on(monkeypatch, "2026-05-03", "Cai")
    demote(smoke.path, "tiny", "drifts on screen content")
    commit(smoke.folder, "Back")
    on(monkeypatch, "2026-05-04")
    smoke.edit(lambda document: document["models"].append({**document["models"][0], "id": "other"}))
    commit(smoke.folder, "Another")
    return smoke


def test_a_history_says_who_when_why_and_on_what(past: Sandbox, registry: Program) -> None:
    """Each event in order, the flip with the digest of its evidence, the demotion with its reason."""
    events = history(past.path, "tiny").events
    assert [event.action for event in events] == ["registered as smoke", "turned production", "demoted"]
    assert [event.who.author.split()[0] for event in events] == ["Ann", "Bea", "Cai"]
    assert [event.landed.day for event in events] == [1, 2, 3]
    verdict = json.loads(next((past.folder / "tiny/verdicts").iterdir()).read_bytes())
    assert events[1].details["evidence_sha256"] == verdict["evidence_sha256"]
    assert (events[1].details["verdict_holds"], events[2].details["reason"]) == (True, "drifts on screen content")
    ran = registry("history", "tiny", "--registry", past.path)
    assert (ran.code, ran.out.count("\n")) == (0, 3)
    assert f"evidence {verdict['evidence_sha256'][:12]} (Bea <test@example.org>" in ran.out
    document = json.loads(registry("history", "tiny", "--registry", past.path, "--format", "json").out)
    assert violations(document, schemas.load("history")) == []


def test_a_day_names_its_production_model(past: Sandbox, registry: Program) -> None:
    """The end of the day counts; before the flip and after the demotion nothing is named, with exit 1."""
    for day, production in (("2026-04-30", 0), ("2026-05-01", 0), ("2026-05-02", 1), ("2026-05-03", 0)):
        found = as_of(past.path, moment(day), "tiny")
        assert len(found.rows) == production, day
    assert as_of(past.path, moment("2026-05-02T11:59:59+00:00")).rows == ()
    [row] = as_of(past.path, moment("2026-05-02T14:00:00+02:00")).rows
    assert row["sha256"] == past.entry["sha256"]
    ran = registry("history", "--as-of", "2026-05-02", "--registry", past.path)
    assert (ran.code, past.entry["sha256"] in ran.out) == (0, True)
    ran = registry("history", "tiny", "--as-of", "2026-05-04", "--registry", past.path, "--format", "json")
    assert (ran.code, json.loads(ran.out)["production"]) == (1, [])
    assert violations(json.loads(ran.out), schemas.load("history")) == []


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "", "05/06/2026"])
def test_a_day_that_is_none_is_bad_input(past: Sandbox, registry: Program, day: str) -> None:
    """Nothing is guessed, as git would."""
    ran = registry("history", "--as-of", day, "--registry", past.path)
    assert (ran.code, "ISO 8601" in ran.err) == (2, True)


def test_a_merge_is_signed_by_whom_it_brings_in(smoke: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flip is Bea's, and in force from the merge on; what a side branch tried meanwhile did not happen."""
    on(monkeypatch, "2026-05-01")
    start(smoke.folder)
    git(smoke.folder, "switch", "--quiet", "-c", "change")
    on(monkeypatch, "2026-05-02", "Bea")
    smoke.edit_entry(notes="first try")
    commit(smoke.folder, "A note")
    smoke.edit_entry(notes=None)
    flip(smoke)
    made = commit(smoke.folder, "Ship tiny")
    git(smoke.folder, "switch", "--quiet", "main")
    on(monkeypatch, "2026-05-05", "Max")
    git(smoke.folder, "merge", "--quiet", "--no-ff", "-m", "Merge", "change")
    events = history(smoke.path, "tiny").events
    assert [event.action for event in events] == ["registered as smoke", "turned production"]
    last = events[-1]
    assert (last.who.author.split()[0], last.commit, last.landed.day) == ("Bea", made, 5)
    assert last.merge == git(smoke.folder, "rev-parse", "HEAD")
    assert as_of(smoke.path, moment("2026-05-04")).rows == ()


def test_a_move_of_the_registry_is_followed(past: Sandbox) -> None:
    """The file's history goes on under its old name."""
    before = history(past.path, "tiny")
    (past.folder / "sub").mkdir()
    git(past.folder, "mv", "registry.json", "sub/models.json")
    commit(past.folder, "Move")
    moved = past.folder / "sub" / "models.json"
    assert history(moved, "tiny") == before
    assert len(as_of(moved, moment("2026-05-02")).rows) == 1


def test_a_verdict_that_is_not_the_pinned_one_is_said(production: Sandbox, registry: Program) -> None:
    """A digest is taken from no file that the registry does not pin."""
    next((production.folder / "tiny/verdicts").iterdir()).write_text("{}")
    start(production.folder)
    [event] = history(production.path, "tiny").events
    assert (event.details["verdict_holds"], event.details["evidence_sha256"]) == (False, None)
    assert "not the pinned one" in registry("history", "tiny", "--registry", production.path).out


def test_commits_that_hold_no_registry_are_survived(past: Sandbox) -> None:
    """A commit with a broken document removes the entry, and the next one brings it back."""
    good = past.path.read_bytes()
    for text in (b"{", b"[]", b'{"models": 3}', b"[" * 100_000):
        past.path.write_bytes(text)
        commit(past.folder)
    past.path.write_bytes(good)
    commit(past.folder)
    assert [event.action for event in history(past.path, "tiny").events][3:] == ["removed", "registered as smoke"]


def test_a_shallow_clone_says_so(past: Sandbox, tmp_path: Path, registry: Program) -> None:
    """What is there is told, with a warning; a day before it is no guess."""
    git(tmp_path, "clone", "--quiet", "--depth", "2", f"file://{past.folder}", "shallow")
    path = tmp_path / "shallow" / "registry.json"
    assert history(path, "tiny").shallow
    assert "fetch-depth: 0" in registry("history", "tiny", "--registry", path).err
    with pytest.raises(InputError, match=r"shallow.*fetch-depth: 0"):
        as_of(path, moment("2026-05-02"))


def test_what_cannot_be_told_is_one_line(
    past: Sandbox, smoke: Sandbox, tmp_path: Path, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that never was, no ID, no repository, no commit, no git: each says what to do."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "no entry 'timy' in any commit" in registry("history", "timy", "--registry", past.path).err
    assert registry("history", "--registry", past.path).code == 2
    bare = tmp_path / "elsewhere" / "registry.json"
    bare.parent.mkdir()
    bare.write_bytes(past.path.read_bytes())
    ran = registry("history", "tiny", "--registry", bare)
    assert (ran.code, "no git repository" in ran.err) == (2, True)
    git(bare.parent, "init", "--quiet")
    assert "no commit yet" in registry("history", "tiny", "--registry", bare).err
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = registry("history", "tiny", "--registry", past.path)
    assert (ran.code, "install git" in ran.err) == (3, True)


def test_a_repository_that_git_refuses_is_told_in_git_s_words(
    past: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where git reports dubious ownership, the message repeats that."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    ran = registry("history", "tiny", "--registry", past.path)
    assert (ran.code, "dubious ownership" in ran.err) == (2, True)


def test_a_partial_clone_names_the_object_that_it_lacks(past: Sandbox, tmp_path: Path, registry: Program) -> None:
    """An old registry that the clone lacks and cannot fetch is an environment error, never an empty registry."""
    git(past.folder, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{past.folder}", "partial")
    partial = tmp_path / "partial" / "registry.json"
    assert history(past.path, "tiny").events == history(partial, "tiny").events
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{past.folder}", "cut-off")
    git(tmp_path / "cut-off", "remote", "set-url", "origin", str(tmp_path / "gone"))
    ran = registry("history", "tiny", "--registry", tmp_path / "cut-off" / "registry.json")
    assert (ran.code, "this clone lacks the object" in ran.err) == (3, True)


def test_authors_committers_and_commit_signatures_are_apart(
    past: Sandbox, registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wrote a change, who committed it, and what git says of its signature with the keys that it knows."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("git signs with ssh-keygen here")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "signers").write_text(f"eve@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in {"gpg.format": "ssh", "user.signingkey": str(key)}.items():
        git(past.folder, "config", name, value)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Dan")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Eve")
    past.edit_entry(notes="one")
    git(past.folder, "commit", "--quiet", "--all", "-S", "-m", "Signed")

    def last() -> tuple[str, str, str]:
        who = history(past.path, "tiny").events[-1].who
        return who.author.split()[0], who.committer.split()[0], who.status

    assert last() in {("Dan", "Eve", "N"), ("Dan", "Eve", "U"), ("Dan", "Eve", "E"), ("Dan", "Eve", "B")}
    git(past.folder, "config", "gpg.ssh.allowedSignersFile", str(tmp_path / "signers"))
    assert last() == ("Dan", "Eve", "G")
    ran = registry("history", "tiny", "--registry", past.path)
    assert "(Dan <test@example.org>, committed by Eve <test@example.org>, " in ran.out
    assert ", commit signature good (eve@example.org): Signed)" in ran.out
    assert ran.out.count("commit signature none") == 3
    [*others, event] = json.loads(registry("history", "tiny", "--registry", past.path, "--format", "json").out)[
        "events"
    ]
    assert event["commit_signature"] == {"status": "G", "words": "good", "signer": "eve@example.org"}
    assert {other["commit_signature"]["status"] for other in others} == {"N"}
    page = registry("report", "tiny", "--registry", past.path).out
    assert "Eve &lt;test@example.org&gt;" in page
    assert "good (eve@example.org)" in page


def test_signatures_and_attestations_are_events(
    past: Sandbox, registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who signed an entry, as the signature says; one that the commit does not hold is named as missing."""
    certificates = pytest.importorskip("certificates", reason="signatures need the extra `sign`")
    pair = certificates.key_pair(tmp_path, "ci")
    on(monkeypatch, "2026-05-05")
    assert registry("sign", "tiny", "--key", pair.private, "--registry", past.path).code == 0
    commit(past.folder, "Sign")
    flip(past)
    commit(past.folder, "Ship")
    assert registry("attest", "tiny", "--key", pair.private, "--registry", past.path).code == 0
    commit(past.folder, "Attest")
    past.edit_entry(signatures=[{"bundle": "tiny/signatures/none.sig", "sha256": "0" * 64}])
    commit(past.folder, "Break")
    events = history(past.path, "tiny").events[3:]
    assert [event.action for event in events] == ["signed", "turned production", "attested", "signed"]
    ran = registry("history", "tiny", "--registry", past.path)
    assert ran.out.count("; signed by key ") == 1
    assert ran.out.count("; attested by key ") == 1
    assert "signed by tiny/signatures/none.sig, which the commit does not hold" in ran.out
    document = json.loads(registry("history", "tiny", "--registry", past.path, "--format", "json").out)
    assert violations(document, schemas.load("history")) == []
    assert [[one["pinned"] for one in event["signed_by"]] for event in document["events"][3:]] == [
        [True],
        [],
        [True],
        [False],
    ]
