"""Tests of ci.py and known_findings.py: `registry ci`, every output of one run, and lists of known findings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from command_line import Program, Ran
from places import EXAMPLES, TESTS
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.git.pull_request import Target, target
from registry_tool.plugins.manager import BrokenPlugin

pytestmark = pytest.mark.usefixtures("own_git", "outside_ci")
FILES = {"--json": "ci.json", "--junit": "ci.xml", "--sarif": "ci.sarif", "--summary": "ci.md"}
VARIABLES = (
    *("GITHUB_BASE_REF", "GITHUB_EVENT_NAME", "GITHUB_EVENT_PATH", "GITHUB_STEP_SUMMARY"),
    *("CI_MERGE_REQUEST_DIFF_BASE_SHA", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CI_PIPELINE_SOURCE"),
)


@pytest.fixture
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def thumbs(thumb: Sandbox) -> Sandbox:
    """A repository with a registry of one smoke entry."""
    start(thumb.folder)
    return thumb


class Runner:
    """`registry ci` with every document, on one registry."""

    def __init__(self, registry: Program, folder: Path) -> None:
        self.registry, self.folder = registry, folder

    def __call__(self, box: Sandbox | Path | str, code: int, *options: object) -> tuple[Ran, dict[str, Any]]:
        """What was printed, and the JSON; each document is there, has its schema and tells the same outcome."""
        self.folder.mkdir(exist_ok=True)
        outputs = [part for option, name in FILES.items() for part in (option, self.folder / name)]
        path = box.path if isinstance(box, Sandbox) else box
        ran = self.registry("ci", "--registry", path, *outputs, *options, plugins=with_plugin(Thumbs()))
        document: dict[str, Any] = json.loads((self.folder / "ci.json").read_text())
        assert violations(document, schemas.bundled(schemas.load("ci"))) == []
        assert (ran.code, document["exit_code"]) == (code, code), ran.out + ran.err
        suites = ET.parse(self.folder / "ci.xml").getroot()
        assert (int(suites.get("errors", "0")) > 0) == bool(document["not_judged"])
        (run,) = json.loads((self.folder / "ci.sarif").read_text())["runs"]
        assert run["invocations"][0]["exitCode"] == code
        assert run["invocations"][0]["executionSuccessful"] == (not document["not_judged"])
        assert (self.folder / "ci.md").read_text()
        return ran, document


@pytest.fixture
def ci(registry: Program, tmp_path: Path) -> Runner:
    return Runner(registry, tmp_path / "outputs")


def codes(document: dict[str, Any], part: str = "validation") -> list[str]:
    return [item["code"] for item in document[part]["findings"]]


# ---- one run ----------------------------------------------------------------------------------------------------


def test_without_a_base_promotions_are_not_judged(thumbs: Sandbox, ci: Runner) -> None:
    """It says so, in every output; --require-base makes that exit code 2."""
    ran, document = ci(thumbs, 0)
    assert ran.out.splitlines()[-1] == "no base: promotions not judged"
    assert document["gate"] is None
    assert "no base: promotions not judged" in (ci.folder / "ci.md").read_text()
    ran, document = ci(thumbs, 2, "--require-base")
    assert [item["step"] for item in document["not_judged"]] == ["base"]
    assert "name the base" in ran.out


def test_both_steps_run_and_the_worst_counts(thumbs: Sandbox, ci: Runner) -> None:
    """A finding does not keep the gate from running, nor a base that is not there the findings from being told."""
    thumbs.edit_entry(smoke=False, license=None)
    ran, document = ci(thumbs, 1, "--base", "HEAD")
    assert document["base"] == {"name": "HEAD", "named_by": "--base"}
    assert "license-missing" in codes(document)
    assert [item["verdict"] for item in document["gate"]["judgements"]] == ["HOLD"]
    assert "t: HOLD" in ran.out
    ran, document = ci(thumbs, 2, "--base", "no-such-branch")
    assert "license-missing" in codes(document)
    assert [item["step"] for item in document["not_judged"]] == ["gate"]
    assert "no-such-branch: git knows no such commit" in ran.out


@pytest.mark.parametrize("folder", ["no-such-folder", "json-syntax", "registry-version--newer"])
def test_every_document_is_written_whatever_fails(folder: str, ci: Runner) -> None:
    """No registry, one that is no JSON, one of a newer release."""
    path = EXAMPLES / "invalid" / folder
    _, document = ci(path, 1 if path.exists() else 2)
    assert (document["validation"] is None) == (not path.exists())


def test_github_gets_an_error_for_what_was_not_judged(thumbs: Sandbox, ci: Runner, monkeypatch: Any) -> None:
    """As an annotation and in the step's summary; verdicts are annotated at their entry."""
    summary = ci.folder.with_name("summary.md")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ran, _ = ci(thumbs, 2, "--github", "--base", "gone")
    assert ran.out.startswith("::error title=registry ci%3A gate::--base gone: git knows no such commit")
    assert "**not judged**: gate: --base gone" in summary.read_text()
    thumbs.edit_entry(smoke=False)
    ran, _ = ci(thumbs, 1, "--github", "--base", "HEAD")
    assert "title=t is held::" in ran.out
    assert "| t | **HOLD** |" in summary.read_text()


def test_an_output_that_cannot_be_written_is_said(thumbs: Sandbox, ci: Runner) -> None:
    """Exit code 3; the other documents are written."""
    nowhere = ci.folder / "no" / "such" / "folder.xml"
    ran = ci.registry("ci", "--registry", thumbs.path, "--junit", nowhere, "--json", ci.folder.with_name("x.json"))
    assert (ran.code, ci.folder.with_name("x.json").exists()) == (3, True)
    assert "folder.xml" in ran.err


def test_a_broken_plugin_is_said_beside_the_findings(thumbs: Sandbox, registry: Program) -> None:
    """Exit code 3: what it would have found is unknown."""
    plugins = with_plugin(Thumbs())
    plugins.broken.append(BrokenPlugin("odd", "1", "plugin odd: it does not load"))
    thumbs.edit_entry(license=None)
    ran = registry("ci", "--registry", thumbs.path, "--base", "HEAD", plugins=plugins)
    assert ran.code == 3
    assert {"error[validate] plugin odd: it does not load", "error[gate] plugin odd: it does not load"} <= set(
        ran.out.splitlines()
    )
    assert "[license-missing]" in ran.out


# ---- the base ---------------------------------------------------------------------------------------------------


def test_the_base_is_the_pull_requests(tmp_path: Path) -> None:
    """GitHub's and GitLab's variables, a merge group's event; None for a push."""
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"merge_group": {"base_sha": "a" * 40}}))
    cases: list[tuple[dict[str, str], Target | None]] = [
        ({}, None),
        ({"GITHUB_EVENT_NAME": "push", "GITHUB_BASE_REF": ""}, None),
        (
            {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_BASE_REF": "main"},
            Target("refs/remotes/origin/main", "GITHUB_BASE_REF"),
        ),
        (
            {"GITHUB_EVENT_NAME": "merge_group", "GITHUB_EVENT_PATH": str(event)},
            Target("a" * 40, "GITHUB_EVENT_PATH"),
        ),
        (
            {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "b" * 40, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"},
            Target("b" * 40, "CI_MERGE_REQUEST_DIFF_BASE_SHA"),
        ),
        (
            {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "release/2"},
            Target("refs/remotes/origin/release/2", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"),
        ),
    ]
    assert [target(environment) for environment, _ in cases] == [expected for _, expected in cases]


@pytest.mark.parametrize(
    "content",
    [
        *(None, "", "[]", "{}", '{"merge_group": null}', '{"merge_group": {"base_sha": 1}}'),
        *('{"merge_group": {"base_sha": "HEAD"}}', '{"merge_group": {"base_sha": ""}}'),
    ],
)
def test_a_merge_group_without_a_base_is_not_judged(
    content: str | None, thumbs: Sandbox, ci: Runner, monkeypatch: Any, tmp_path: Path
) -> None:
    """Exit code 2, never a run that only validates."""
    event = tmp_path / "event.json"
    if content is not None:
        event.write_text(content)
    monkeypatch.setenv("GITHUB_EVENT_NAME", "merge_group")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    _, document = ci(thumbs, 2)
    assert "merge_group.base_sha" in document["not_judged"][0]["message"]


@pytest.mark.parametrize(
    "variables",
    [
        {"GITHUB_EVENT_NAME": "pull_request"},
        {"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_BASE_REF": ""},
        {"CI_PIPELINE_SOURCE": "merge_request_event"},
        {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_DIFF_BASE_SHA": ""},
        {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD"},
        {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "abc"},
    ],
)
def test_a_request_that_is_not_told_its_base_is_not_judged(
    variables: dict[str, str], thumbs: Sandbox, ci: Runner, monkeypatch: Any
) -> None:
    """Exit code 2, which names the variable; `--base` is the way out."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, document = ci(thumbs, 2)
    (found,) = document["not_judged"]
    assert (found["step"], found["message"].partition(":")[0] in variables) == ("base", True)
    assert found["message"].endswith("name the base with --base REF")
    ci(thumbs, 0, "--base", "HEAD")


def test_a_checkout_of_the_target_branch_is_no_pull_request(thumbs: Sandbox, ci: Runner, monkeypatch: Any) -> None:
    """pull_request_target checks out the base: nothing would be judged there, so it is exit code 2."""
    git(thumbs.folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request_target")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    _, document = ci(thumbs, 2)
    assert "found HEAD in it, expected the commits of the pull request" in document["not_judged"][0]["message"]
    thumbs.edit_entry(smoke=False)
    commit(thumbs.folder, "the pull request")
    ci(thumbs, 1)


def test_a_base_that_is_missing_is_named_by_its_variable(thumbs: Sandbox, ci: Runner, monkeypatch: Any) -> None:
    """With a way to get it, and no option that `registry ci` does not have."""
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    _, document = ci(thumbs, 2)
    expected = "GITHUB_BASE_REF refs/remotes/origin/main: git knows no such branch, expected one that was fetched: "
    assert document["not_judged"][0]["message"] == f"{expected}git fetch origin main"


def test_a_variable_names_the_base(thumbs: Sandbox, ci: Runner, monkeypatch: Any) -> None:
    """The remote branch in full, so that a tag of the branch's name changes nothing; --base wins."""
    git(thumbs.folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(thumbs.folder, "tag", "origin/main", git(thumbs.folder, "commit-tree", "-m", "other", "HEAD^{tree}"))
    thumbs.edit_entry(smoke=False)
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    _, document = ci(thumbs, 1)
    assert document["base"] == {"name": "refs/remotes/origin/main", "named_by": "GITHUB_BASE_REF"}
    assert len(document["gate"]["judgements"]) == 1
    _, document = ci(thumbs, 1, "--base", "HEAD")
    assert document["base"]["named_by"] == "--base"


# ---- known findings ---------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(thumbs: Sandbox, registry: Program) -> Sandbox:
    """A repository whose registry has two findings, both listed and landed."""
    (thumbs.folder / "stray.onnx").write_bytes(b"?")
    thumbs.edit_entry(licence="MIT", license=None)
    ran = registry(
        *("known-findings", "write", "-o", thumbs.folder / "known.json", "--registry", thumbs.path),
        plugins=with_plugin(Thumbs()),
    )
    assert ran.code == 0, ran.err
    commit(thumbs.folder, "adopt")
    return thumbs


def known(box: Sandbox) -> tuple[object, ...]:
    return ("--known-findings", box.folder / "known.json", "--base", "HEAD")


def test_known_findings_fail_no_job(adopted: Sandbox, ci: Runner) -> None:
    """They are counted in every output; SARIF calls them suppressed."""
    ci(adopted, 1, "--base", "HEAD", "--strict")
    ran, document = ci(adopted, 0, *known(adopted), "--strict")
    assert codes(document) == []
    listed = codes(document, "known")
    assert {"license-missing", "file-unregistered"} <= set(listed)
    assert f"known findings, not counted: {len(listed)}" in ran.out
    assert ran.out.splitlines()[0].endswith(": 1 entry: no finding but known ones")
    (run,) = json.loads((ci.folder / "ci.sarif").read_text())["runs"]
    assert [bool(result["suppressions"]) for result in run["results"]] == [True] * len(listed)


def test_a_pull_request_cannot_add_to_the_list(adopted: Sandbox, ci: Runner, registry: Program) -> None:
    """The list is the base's: a new finding counts although the change lists it; a list that is new lists nothing."""
    (adopted.folder / "another.onnx").write_bytes(b"?")
    registry(
        *("known-findings", "write", "-o", adopted.folder / "known.json", "--registry", adopted.path),
        plugins=with_plugin(Thumbs()),
    )
    assert "another.onnx" in (adopted.folder / "known.json").read_text()
    _, document = ci(adopted, 1, *known(adopted), "--strict")
    assert codes(document) == ["file-unregistered"]
    (adopted.folder / "known.json").rename(adopted.folder / "other.json")
    _, document = ci(adopted, 1, "--known-findings", adopted.folder / "other.json", "--base", "HEAD")
    assert codes(document, "known") == []


def test_a_base_that_means_nothing_is_named_once(adopted: Sandbox, ci: Runner) -> None:
    """The list of that base cannot be read either: every finding counts, and one line names the base."""
    _, document = ci(adopted, 2, "--known-findings", adopted.folder / "known.json", "--base", "nowhere", "--strict")
    assert [(item["step"], "nowhere" in item["message"]) for item in document["not_judged"]] == [("gate", True)]
    assert "license-missing" in codes(document)


def test_a_finding_on_changed_lines_counts(adopted: Sandbox, ci: Runner) -> None:
    """A line that the change touches, a file that it changes; other lines of the file do not count."""
    adopted.edit(lambda document: document.update(note="at the end"))
    _, document = ci(adopted, 0, *known(adopted))
    assert "license-missing" in codes(document, "known")
    (adopted.folder / "stray.onnx").write_bytes(b"other")
    adopted.edit(lambda document: document["models"][0].pop("licence"))
    text = adopted.path.read_text()
    adopted.path.write_text(text.replace('    {\n      "id": "t"', '    {\n      "sha512": "?",\n      "id": "t"', 1))
    _, document = ci(adopted, 1, *known(adopted), "--strict")
    assert "file-unregistered" in codes(document)


def test_another_value_is_another_finding(adopted: Sandbox, ci: Runner) -> None:
    """A digest that is wrong is listed as found: bytes that change once more are a new finding."""
    model = adopted.folder / json.loads(adopted.path.read_text())["models"][0]["onnx"]
    model.write_bytes(model.read_bytes() + b"\0")
    ran = ci.registry(
        *("known-findings", "write", "-o", adopted.folder / "known.json", "--registry", adopted.path),
        plugins=with_plugin(Thumbs()),
    )
    assert ran.code == 0
    commit(adopted.folder, "list it")
    _, document = ci(adopted, 0, *known(adopted))
    assert "digest-mismatch" in codes(document, "known")
    model.write_bytes(model.read_bytes() + b"\0")
    _, document = ci(adopted, 1, *known(adopted))
    assert "digest-mismatch" in codes(document)


def test_findings_about_promotion_cannot_be_listed(thumbs: Sandbox, ci: Runner) -> None:
    """`write` names them; one that is typed into the list counts all the same."""
    thumbs.edit_entry(smoke=False)
    path = thumbs.folder / "known.json"
    ran = ci.registry(
        *("known-findings", "write", "-o", path, "--registry", thumbs.path), plugins=with_plugin(Thumbs())
    )
    assert "about promotion cannot be listed" in ran.err
    document = json.loads(path.read_text())
    assert violations(document, schemas.load("known_findings")) == []
    _, found = ci(thumbs, 1)
    (missing,) = [item for item in found["validation"]["findings"] if item["code"] == "promotion-missing"]
    pointer = missing["pointer"].replace("/models/0", "/models/t")
    item = {name: missing[name] for name in ("code", "entry", "file", "found")} | {"pointer": pointer}
    document["findings"].append(item)
    path.write_text(json.dumps(document))
    commit(thumbs.folder, "typed")
    _, found = ci(thumbs, 1, *known(thumbs))
    assert "promotion-missing" in codes(found)


def test_listed_findings_that_are_gone_are_counted(adopted: Sandbox, ci: Runner) -> None:
    """So that the list is written anew."""
    (adopted.folder / "stray.onnx").unlink()
    ran, document = ci(adopted, 0, *known(adopted))
    assert document["known"]["gone"] == 1
    assert "listed, but not found any more: 1" in ran.out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"known_findings_version": 2, "findings": []}', "[" * 100_000])
def test_a_list_that_is_none_lists_nothing(content: str, thumbs: Sandbox, ci: Runner) -> None:
    """Exit code 2, and every finding counts."""
    (thumbs.folder / "known.json").write_text(content)
    commit(thumbs.folder, "list")
    ran, document = ci(thumbs, 2, *known(thumbs))
    assert document["not_judged"][0]["step"] == "known-findings"
    assert "registry known-findings write" in ran.out


def test_a_list_that_has_not_landed_says_so(thumbs: Sandbox, ci: Runner) -> None:
    """A change cannot bring its own list, nor does a list that is misspelt pass for an empty one."""
    (thumbs.folder / "known.json").write_text('{"known_findings_version": 1, "findings": []}')
    ran, document = ci(thumbs, 0, *known(thumbs))
    assert "known findings: none: there is no " in ran.out
    assert document["known"]["findings"] == []


def test_a_list_is_named_where_it_is_wrong(thumbs: Sandbox, ci: Runner) -> None:
    """The place is the list's, not the registry's; a link in its place is said without an option of other commands."""
    path = thumbs.folder / "known.json"
    path.write_text('{"known_findings_version": 2, "findings": []}')
    commit(thumbs.folder, "list")
    _, document = ci(thumbs, 2, *known(thumbs))
    message = document["not_judged"][0]["message"]
    assert "#/known_findings_version: wrong value" in message
    assert "registry #" not in message
    path.unlink()
    path.symlink_to("registry.json")
    commit(thumbs.folder, "link")
    _, document = ci(thumbs, 2, *known(thumbs))
    message = document["not_judged"][0]["message"]
    assert "found a symbolic link" in message
    assert message.endswith("commit the list itself")


def test_a_list_outside_the_repository_is_refused(thumbs: Sandbox, ci: Runner, tmp_path: Path) -> None:
    """The base revision does not hold it; without a base it is read as it is."""
    outside = tmp_path / "outside.json"
    outside.write_text('{"known_findings_version": 1, "findings": []}')
    _, document = ci(thumbs, 2, "--known-findings", outside, "--base", "HEAD")
    assert "outside the repository" in document["not_judged"][0]["message"]
    ci(thumbs, 0, "--known-findings", outside)
    _, document = ci(thumbs, 2, "--known-findings", os.devnull + "x")
    assert "file not found" in document["not_judged"][0]["message"]


def test_a_registry_that_cannot_be_read_has_no_known_findings(registry: Program, tmp_path: Path) -> None:
    """Nothing was checked there, so nothing can be listed."""
    path = TESTS / "examples" / "invalid" / "json-syntax" / "registry.json"
    ran = registry("known-findings", "write", "-o", tmp_path / "known.json", "--registry", path)
    assert (ran.code, (tmp_path / "known.json").exists()) == (2, False)
