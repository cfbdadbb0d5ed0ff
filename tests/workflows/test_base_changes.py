"""What `gate --base` lists beside verdicts: demotions, deletions, policies; in every format, whatever was promoted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import tiny_models
from command_line import run
from policies import MANUAL
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, to_json
from thumbs import Thumbs, with_plugin

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.hookspec import Kind, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Policy, Rule
from registry_tool.workflows.compare_with_base import Comparison, gate_base

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_git")]
STRICT = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.95}]}
LOOSE = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.5}]}


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    """Three single models: two in production by hand, one smoke; and a policy for another kind."""
    folder = tmp_path / "model"
    rows = []
    for number, name in enumerate(("a", "b", "c")):
        row = tiny_models.entry(folder, tiny_models.model(seed=number), name, smoke=name == "c")
        row["sidecar_sha256"] = tiny_models.write(folder, f"{name}.json", tiny_models.sidecar(row))
        rows.append(row if name == "c" else row | {"promotion": {"manual": True, "reason": "by eye"}})
    policies = {"fr": MANUAL, "fr_ensemble": STRICT}
    tiny_models.write(folder, "registry.json", {"schema_version": 2, "policies": policies, "models": rows})
    return Sandbox(folder / "registry.json", "a")


def demoted(document: dict[str, Any]) -> None:
    row = document["models"][0]
    del row["promotion"]
    row.update(smoke=True, demotion={"reason": "drifts", "manifest_sha256": row["sha256"]})


def deleted(document: dict[str, Any]) -> None:
    del document["models"][0]


def deleted_smoke(document: dict[str, Any]) -> None:
    del document["models"][2]


def renamed(document: dict[str, Any]) -> None:
    document["models"][2]["id"] = "d"


def policy(kind: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["policies"].update({kind: value})
        document["policies"] = {name: given for name, given in document["policies"].items() if given is not None}

    return change


CHANGES: list[tuple[str, Callable[[dict[str, Any]], None], str, str]] = [
    ("a demotion", demoted, "warning[demoted]", "a: demoted: drifts"),
    ("a deletion", deleted, "warning[deleted]", "a: deleted; it was production"),
    ("a smoke entry deleted", deleted_smoke, "note[deleted]", "c: deleted; it was smoke"),
    ("a rename", renamed, "note[renamed]", "d: renamed from c"),
    (
        "a policy loosened",
        policy("fr_ensemble", LOOSE),
        "warning[policy]",
        "policy of fr_ensemble: loosened: mean_plcc >= 0.95 became mean_plcc >= 0.5",
    ),
    (
        "a policy made manual",
        policy("fr_ensemble", MANUAL),
        "warning[policy]",
        "policy of fr_ensemble: loosened: gate evidence became manual; mean_plcc >= 0.95 removed",
    ),
    (
        "a policy removed",
        policy("fr_ensemble", None),
        "warning[policy]",
        "policy of fr_ensemble: loosened: removed; it was: mean_plcc >= 0.95",
    ),
    (
        "a policy raised",
        policy("fr_ensemble", {"rules": [*STRICT["rules"], {**STRICT["rules"][0], "op": ">"}]}),
        "note[policy]",
        "policy of fr_ensemble: mean_plcc >= 0.95 became mean_plcc >= 0.95, mean_plcc > 0.95",
    ),
    ("a policy added", policy("nr", MANUAL), "note[policy]", "policy of nr: added: manual, no rules"),
    (
        "a limit raised",
        policy("fr_ensemble", {**STRICT, "max_file_bytes": 9}),
        "note[policy]",
        "policy of fr_ensemble: max_file_bytes (none) became 9",
    ),
]


@pytest.mark.parametrize(("what", "change", "mark", "words"), CHANGES, ids=[case[0] for case in CHANGES])
def test_every_format_lists_it(box: Sandbox, what: str, change: Any, mark: str, words: str, tmp_path: Path) -> None:
    """Text, JSON by its schema, JUnit, GitHub's annotations; and a change that promotes nothing is no reason not to."""
    base = start(box.folder)
    box.edit(change)
    arguments = ("gate", "--base", base, "--registry", box.path, "--format")
    held = what == "a deletion"
    ran = {form: run(tmp_path, *arguments, form) for form in ("text", "json", "junit", "github")}
    assert {one.code for one in ran.values()} == {1 if held else 0}
    assert f"  {mark} {words}\n" in ran["text"].out
    document = json.loads(ran["json"].out)
    assert violations(document, schemas.load("comparison")) == []
    severity, _, kind = mark.rstrip("]").partition("[")
    assert [(c["severity"], c["what"]) for c in document["changes"] if words.endswith(c["words"])] == [(severity, kind)]
    suite = ET.fromstring(ran["junit"].out)[0]
    assert [words in (case.findtext("system-out") or "") for case in suite if " " in str(case.get("name"))] == [True]
    assert int(suite.get("failures", "")) == held
    command = {"warning": "::warning ", "note": "::notice "}[severity]
    assert any(line.startswith(command) and words in line for line in ran["github"].out.splitlines())


def test_the_step_summary_lists_it(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GitHub shows below the job names the demotion, also where there is nothing to judge."""
    from command_line import program

    base = start(box.folder)
    box.edit(demoted)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    program("gate", "--base", base, "--registry", box.path, "--format", "github")
    page = (tmp_path / "summary.md").read_text()
    assert "Nothing to judge." in page
    assert "- warning: a: demoted: drifts" in page


def test_nothing_changed_lists_nothing(box: Sandbox, tmp_path: Path) -> None:
    """No heading without a list."""
    base = start(box.folder)
    ran = run(tmp_path, "gate", "--base", base, "--registry", box.path)
    assert (ran.code, ran.out.count("\n")) == (0, 1)


# ---- policies of a kind that the base does not know --------------------------------------------------------------


class Scored(Thumbs):
    """A kind whose default asks for a score of 0.9."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("thumb", "thumbnail rankers", default_policy=Policy((Rule("score", ">=", 0.9),)))]


def compared(thumb: Sandbox, base: str, plugins: Plugins) -> tuple[Comparison, list[str]]:
    found = gate_base(thumb.path, plugins, base)
    return found, [reason for judgement in found.judgements for reason in judgement.verdict.reasons]


def test_the_first_policy_of_a_kind_loosens_nothing(thumb: Sandbox) -> None:
    """A new entry and its kind's first policy may land together; one weaker than the default is said to be."""
    plugins = with_plugin(Scored())
    full = thumb.registry
    thumb.path.write_bytes(to_json({"schema_version": 2, "policies": {}, "models": []}))
    base = start(thumb.folder)
    row = full["models"][0] | {"smoke": False, "promotion": {"manual": True, "reason": "by eye"}}
    thumb.path.write_bytes(to_json({"schema_version": 2, "policies": {"thumb": MANUAL}, "models": [row]}))
    found, reasons = compared(thumb, base, plugins)
    assert (found.passes, reasons) == (True, [])
    said = [str(change) for change in found.changes if change.severity == "warning"]
    assert said == ["policy of thumb: weaker than the default of its kind, which is: score >= 0.9"]


def test_a_policy_below_the_default_loosens_under_an_old_entry(thumb: Sandbox) -> None:
    """Where the entry stood at the base without a policy of its kind, the kind's default was the bar."""
    plugins = with_plugin(Scored())
    thumb.edit(lambda document: document.update(policies={}))
    base = start(thumb.folder)
    thumb.edit(lambda document: document.update(policies={"thumb": MANUAL}))
    thumb.edit_entry(smoke=False, promotion={"manual": True, "reason": "by eye"})
    found, reasons = compared(thumb, base, plugins)
    assert not found.passes
    assert any(reason.startswith("base-policy-loosened") for reason in reasons)


def test_a_weak_policy_is_said_whenever_it_judges(thumb: Sandbox) -> None:
    """Not only in the change that brought it: every promotion under it says so; where nothing is judged, it is not."""
    plugins = with_plugin(Scored())
    thumb.edit(lambda document: document.update(policies={"thumb": MANUAL}))
    base = start(thumb.folder)
    assert compared(thumb, base, plugins)[0].changes == ()
    thumb.edit_entry(smoke=False, promotion={"manual": True, "reason": "by eye"})
    assert ["weaker than the default" in change.words for change in compared(thumb, base, plugins)[0].changes] == [True]


def test_a_promotion_that_nothing_judged_is_held(box: Sandbox) -> None:
    """Without a verdict, a manual policy and a reason together, or an import, nothing is called promoted."""
    base = start(box.folder)
    good = box.path.read_bytes()
    for promotion in (None, {"imported_from": "0" * 64}, {"manual": True, "reason": "by eye"}):
        for given in ({"fr": MANUAL}, {"fr": STRICT}, {}):
            box.edit(lambda document, given=given: document.update(policies=given))  # type: ignore[misc]
            Sandbox(box.path, "c").edit_entry(smoke=False, promotion=promotion)
            found = {j.verdict.entry: j.verdict.promotes for j in gate_base(box.path, load(), base).judgements}
            earned = promotion == {"manual": True, "reason": "by eye"} and given == {"fr": MANUAL}
            assert found["c"] is earned
            box.path.write_bytes(good)


STRAYS = ("m.pt", "old/x.onnx", ".hidden.onnx", "w.safetensors", "m.bin", "a.tflite", "p.pkl", "registry.json.tmp")


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_file_that_a_change_adds_is_an_error(box: Sandbox, tmp_path: Path, name: str) -> None:
    """In every format, and exit 1; a warning of `validate`, and no error where the base had it."""
    base = start(box.folder)
    stray = box.folder / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    arguments = ("gate", "--base", base, "--registry", box.path, "--format")
    for form in ("text", "json", "junit", "github"):
        ran = run(tmp_path, *arguments, form)
        assert (ran.code, name in ran.out) == (1, True)
    assert "file-unregistered" in run(tmp_path, "validate", box.path).out
    assert run(tmp_path, "validate", box.path, "--level", "quick").code == 0
    base = commit(box.folder)
    assert run(tmp_path, "gate", "--base", base, "--registry", box.path).code == 0


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "a.onnx.dvc", "schemas/registry.schema.json"])
def test_what_is_no_model_may_be_added(box: Sandbox, tmp_path: Path, name: str) -> None:
    """Documents, pointers and schemas are no models."""
    base = start(box.folder)
    (box.folder / name).parent.mkdir(exist_ok=True)
    (box.folder / name).write_bytes(b"x")
    assert run(tmp_path, "gate", "--base", base, "--registry", box.path).code == 0
