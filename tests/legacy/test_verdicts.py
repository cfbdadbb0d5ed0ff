"""Version 1: an ensemble is promoted by its summaries alone, and nothing promotes beside a verdict that says HOLD."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from migrating import ensemble
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, to_json

from registry_tool.plugins.manager import load
from registry_tool.workflows.validate import validate

pytestmark = pytest.mark.usefixtures("own_git")
SOURCES = [f"src{number}" for number in range(9)]


def summary(seed: int, plcc: float) -> dict[str, Any]:
    """As the public tools write it; the folds' figures differ, and the means are theirs."""
    folds = [
        {
            "held_out": name,
            "n_train": 800,
            "n_val": 100,
            "plcc": plcc + number * 1e-3 + seed * 1e-4,
            "srocc": 0.95,
            "rmse": 3.0 + seed / 100,
        }
        for number, name in enumerate(SOURCES)
    ]
    mean = sum(fold["plcc"] for fold in folds) / len(folds)
    return {"seed": seed, "corpus": "c", "n_folds": 9, "folds": folds, "mean_plcc": mean}


def write_summaries(folder: Path, seeds: int = 5, plcc: float = 0.96) -> Path:
    folder.mkdir()
    for seed in range(seeds):
        (folder / f"loso_seed{seed}.json").write_bytes(to_json(summary(seed, plcc)))
    return folder


def flipped(path: Path, smoke: bool) -> None:
    """The members' rows, and the manifest, on one side."""
    document = json.loads(path.read_bytes())
    for row in document["models"]:
        row["smoke"] = smoke
    path.write_bytes(to_json(document))
    manifest = path.parent / "sub" / "e.json"
    manifest.write_bytes(to_json(json.loads(manifest.read_bytes()) | {"smoke": smoke}))


def codes(path: Path) -> set[str]:
    return {f.code for f in validate(path, load()).findings if f.severity == "error"}


@pytest.mark.parametrize(
    ("size", "plcc", "code"), [(5, 0.96, 0), (5, 0.9, 1), (3, 0.96, 1)], ids=["promoted", "weak", "three seeds"]
)
def test_an_ensemble_is_judged_by_its_summaries(tmp_path: Path, size: int, plcc: float, code: int) -> None:
    """By name, and in a change that turns its members production: the original rules, and five seeds."""
    path = ensemble(tmp_path / "model", size)
    evidence = write_summaries(tmp_path / "loso", size, plcc)
    ran = run(tmp_path, "gate", "e", "--evidence", evidence, "--registry", path, "--format", "json")
    document = json.loads(ran.out)
    assert (ran.code, document["verdict"], document["summary_only"]) == (code, ["PROMOTE", "HOLD"][code], True)
    flipped(path, True)
    base = start(tmp_path)
    flipped(path, False)
    compared = ("gate", "--base", base, "--registry", path, "--format", "json")
    ran = run(tmp_path, *compared, "--evidence", evidence)
    assert ran.code == code
    judged = json.loads(ran.out)["judgements"]
    assert {j["entry"]: j["summary_only"] for j in judged} == {f"s{seed}": True for seed in range(size)}
    held = run(tmp_path, *compared)
    assert held.code == 1
    assert "base-promotion-unjudged" in held.out


def test_policies_of_a_version_1_registry_are_applied(tmp_path: Path) -> None:
    """A rule of the registry's own is asked beside the original ones, by name and in a change that turns production."""
    path = ensemble(tmp_path / "model", 5)
    document = json.loads(path.read_bytes())
    document["policies"] = {"fr_ensemble": {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.999}]}}
    path.write_bytes(to_json(document))
    evidence = write_summaries(tmp_path / "loso")
    flipped(path, True)
    base = start(tmp_path)
    flipped(path, False)
    for subject in (("e",), ("--base", base)):
        ran = run(tmp_path, "gate", *subject, "--evidence", evidence, "--registry", path)
        assert (ran.code, "mean_plcc >= 0.999: found 0.96" in ran.out) == (1, True)


HIGH = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.97}]}
LOW = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.9}]}
BY_EYE = {"gate": "manual", "rules": []}


def with_policies(path: Path, policies: dict[str, Any], reason: str = "") -> None:
    """The registry with these policies; every entry promoted by hand where there is a reason."""
    document = json.loads(path.read_bytes()) | {"policies": policies}
    for row in document["models"] if reason else ():
        row["promotion"] = {"manual": True, "reason": reason}
    path.write_bytes(to_json(document))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"fr_ensemble": HIGH}, {"fr_ensemble": LOW}, ""),
        ({"fr_ensemble": HIGH}, {}, ""),
        ({"fr": HIGH}, {"fr": LOW}, ""),
        ({"fr": HIGH}, {"fr": BY_EYE}, "compared by eye"),
        ({"fr": BY_EYE | {"signers": []}}, {"fr": BY_EYE}, "compared by eye"),
    ],
    ids=["lowered", "removed", "of the members", "made manual", "signers removed"],
)
def test_a_policy_loosened_in_the_same_change_promotes_nothing(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    """As in version 2: what the older policy held passes in a later change, where the lower bar was seen by itself."""
    path = ensemble(tmp_path / "model", 5)
    evidence = write_summaries(tmp_path / "loso")
    arguments = ("--evidence", evidence, "--registry", path)
    with_policies(path, before)
    flipped(path, True)
    base = start(tmp_path)
    with_policies(path, after, reason)
    lowered = commit(tmp_path)
    flipped(path, False)
    ran = run(tmp_path, "gate", "--base", base, *arguments)
    assert (ran.code, ran.out.count("base-policy-loosened")) == (1, 5)
    assert run(tmp_path, "gate", "--base", lowered, *arguments).code == 0


def test_a_first_policy_below_the_default_is_loosened_too(smoke: Sandbox, tmp_path: Path) -> None:
    """An ensemble's own entry in version 1: a person decides no flip in the change that lets persons decide."""

    def older(document: dict[str, Any]) -> None:
        document["schema_version"] = 1
        del document["policies"]

    def by_hand(document: dict[str, Any]) -> None:
        document["policies"] = {"fr_ensemble": BY_EYE}
        document["models"][0].update(smoke=False, promotion={"manual": True, "reason": "compared by eye"})

    smoke.edit(older)
    base = start(smoke.folder)
    smoke.edit(by_hand)
    assert codes(smoke.path) == set()
    ran = run(tmp_path, "gate", "--base", base, "--registry", smoke.path)
    assert (ran.code, "base-policy-loosened" in ran.out) == (1, True)


def test_the_rules_for_the_members_are_asked_too(tmp_path: Path) -> None:
    """A member is an entry of its own kind: the rules for that kind count beside those for the ensemble's."""
    path = ensemble(tmp_path / "model", 5)
    evidence = write_summaries(tmp_path / "loso")
    with_policies(path, {"fr": HIGH})
    flipped(path, True)
    base = start(tmp_path)
    flipped(path, False)
    ran = run(tmp_path, "gate", "--base", base, "--evidence", evidence, "--registry", path)
    assert (ran.code, ran.out.count("mean_plcc >= 0.97: found 0.9642")) == (1, 5)


@pytest.mark.parametrize("policy", [{"rules": []}, BY_EYE], ids=["empty", "manual"])
def test_summaries_pass_no_policy_without_rules(tmp_path: Path, policy: dict[str, Any]) -> None:
    """An empty policy holds summaries too, and where a person decides, evidence does not."""
    path = ensemble(tmp_path / "model", 5)
    with_policies(path, {"fr_ensemble": policy})
    arguments = ("--evidence", write_summaries(tmp_path / "loso"), "--registry", path)
    base = [flipped(path, True), start(tmp_path), flipped(path, False)][1]
    for subject in (("e",), ("--base", base)):
        ran = run(tmp_path, "gate", *subject, *arguments)
        assert (ran.code, "PROMOTE" in ran.out) == (1, False)


def test_without_evidence_the_command_that_judges_is_named(tmp_path: Path) -> None:
    """Version 1 pins none: of an ensemble, of its member, and of a model that no ensemble lists."""
    path = ensemble(tmp_path / "model", 5)
    evidence = write_summaries(tmp_path / "loso")
    for arguments in (("e",), ("s0",), ("s0", "--evidence", evidence)):
        ran = run(tmp_path, "gate", *arguments, "--registry", path)
        assert (ran.code, "`registry gate e --evidence DIR`" in ran.err) == (2, True)
    (path.parent / "sub" / "e.json").unlink()
    for command in (("gate", "s0"), ("evidence", "s0", "--data", evidence / "loso_seed0.json")):
        ran = run(tmp_path, *command, "--registry", path)
        assert (ran.code, f"`registry migrate {path} -o NEW`" in ran.err) == (2, True)
    assert "no entry 'e'" in run(tmp_path, "gate", "e", "--registry", path).err
    assert run(tmp_path, "migrate", path, "-o", tmp_path / "new").code == 0


@pytest.mark.parametrize("others", [0, 1, 5], ids=["the same corpus", "one sidecar of another", "all of another"])
def test_the_corpus_at_hand_is_the_one_that_the_sidecars_name(tmp_path: Path, others: int) -> None:
    """Version 1 keeps the corpus's digest in the members' sidecars: summaries of another corpus judge other members."""
    path = ensemble(tmp_path / "model", 5)
    evidence, corpus = write_summaries(tmp_path / "loso"), tmp_path / "corpus.csv"
    corpus.write_text("".join(["src\n", *(f"{name}\n" * 100 for name in SOURCES)]))
    digests = ["0" * 64] * others + [hashlib.sha256(corpus.read_bytes()).hexdigest()] * (5 - others)
    for seed, digest in enumerate(digests):
        sidecar = path.parent / "sub" / f"s{seed}.json"
        sidecar.write_bytes(to_json(json.loads(sidecar.read_bytes()) | {"corpus": {"sha256": digest}}))
    ran = run(tmp_path, "gate", "e", "--evidence", evidence, "--corpus", corpus, "--registry", path)
    assert ran.code == bool(others)
    named = "s0" if others == 1 else "s0, s1, s2 and 2 more"
    assert (f"the sidecars of {named} name another corpus" in ran.out) is bool(others)
    assert run(tmp_path, "gate", "e", "--evidence", evidence, "--registry", path).code == 0


def test_a_member_without_its_summary_is_bad_input(tmp_path: Path) -> None:
    """The manifest says which seeds there must be."""
    path = ensemble(tmp_path / "model", 5)
    evidence = write_summaries(tmp_path / "loso", 2)
    ran = run(tmp_path, "gate", "e", "--evidence", evidence, "--registry", path)
    assert (ran.code, ran.out) == (2, "")
    assert "loso_seed2.json, loso_seed3.json, loso_seed4.json" in ran.err


HELD: list[Any] = [
    ("sub/e_seed_flip_HOLD.json", {"verdict": "HOLD"}, {"s0", "s1"}),
    ("sub/e_verdict.json", {"verdict": "PROMOTE", "gate": {"passed": False}}, {"s0", "s1"}),
    ("sub/s0_HOLD.json", {"verdict": "hold "}, {"s0"}),
    ("sub/verdict.json", {"verdict": "HOLD", "entry": "s1"}, {"s1"}),
    ("sub/e_seed_flip_PROMOTE.json", {"verdict": "PROMOTE", "gate": {"passed": True}}, set()),
    ("sub/other_HOLD.json", {"verdict": "HOLD"}, set()),
]


@pytest.mark.parametrize(("name", "verdict", "held"), HELD, ids=[case[0] for case in HELD])
def test_a_verdict_that_holds_contradicts_production(tmp_path: Path, name: str, verdict: Any, held: set[str]) -> None:
    """An error on each production entry that it is about, by its field or its name; none on a smoke one."""
    path = ensemble(tmp_path / "model")
    (path.parent / name).write_bytes(to_json(verdict))
    found = [f for f in validate(path, load()).findings if f.code == "verdict-contradicts"]
    assert {f.entry for f in found} == held
    assert {f.file for f in found} <= {name}
    flipped(path, True)
    assert "verdict-contradicts" not in codes(path)


@pytest.mark.parametrize(
    ("gate", "wrong"), [({"passed": False}, True), ({"verdict": "HOLD"}, True), ({"passed": True}, False), ("x", False)]
)
def test_a_sidecar_whose_gate_failed_contradicts_production(tmp_path: Path, gate: Any, wrong: bool) -> None:
    """What the sidecar says of the gate is held against smoke: false."""
    path = ensemble(tmp_path / "model")
    sidecar = path.parent / "sub" / "s1.json"
    sidecar.write_bytes(to_json(json.loads(sidecar.read_bytes()) | {"gate": gate}))
    found = [f.entry for f in validate(path, load()).findings if f.code == "verdict-contradicts"]
    assert found == (["s1"] if wrong else [])


def test_a_verdict_that_holds_keeps_a_change_from_passing(tmp_path: Path) -> None:
    """Good summaries beside a HOLD verdict promote nothing."""
    path = ensemble(tmp_path / "model", 5)
    flipped(path, True)
    base = start(tmp_path)
    flipped(path, False)
    (path.parent / "sub" / "e_HOLD.json").write_bytes(to_json({"verdict": "HOLD"}))
    evidence = write_summaries(tmp_path / "loso")
    ran = run(tmp_path, "gate", "--base", base, "--registry", path, "--evidence", evidence)
    assert (ran.code, ran.out.count("verdict-contradicts")) == (1, 5)
