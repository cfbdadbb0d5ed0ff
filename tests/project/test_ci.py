"""Tests of what CI systems and hooks run: action.yml, .pre-commit-hooks.yaml, and the examples of docs/how-to/ci.md."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from environments import link_packages, make_environment, site_packages
from packaging.requirements import Requirement
from packaging.version import Version
from places import ROOT
from registries import Made
from sandbox import Sandbox

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "how-to" / "ci.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
INSTALL, PLUGINS, JUDGE = ACTION["runs"]["steps"]
NOT_ISOLATED = {"PIP_NO_BUILD_ISOLATION": "0"}  # pip reads this as: no isolation
LEFT_OUT, LEFT_OUT_ON_TOP = (".*", "__pycache__", "*.egg-info"), ("model", "tests", "benchmarks")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def example(name: str) -> Any:
    (text,) = (block for block in blocks("yaml") if block.startswith(f"# {name}\n"))
    return yaml.safe_load(text)


def check(schema: str, path: Path) -> None:
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, str(path)])
    assert done.exit_code == 0, done.output


class Checkout:
    """A repository of models in git, with `registry` on the path, and on `change` whatever a test does."""

    def __init__(self, base: Path, made: Made) -> None:
        self.base, self.top, self.made = base, base / "work", made
        self.copy(made.smoke)
        self.box = Sandbox(self.top / "model" / "registry.json")
        tools = base / "tools"
        tools.mkdir()
        (tools / "registry").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m registry_tool "$@"\n')
        (tools / "registry").chmod(0o755)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "PRE_COMMIT", "GIT_"))}
        self.environment |= {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull}
        for role in ("AUTHOR", "COMMITTER"):
            self.environment |= {f"GIT_{role}_NAME": "A", f"GIT_{role}_EMAIL": "a@example.org"}
        self.git("init", "-q", "-b", "main")
        self.commit("models")
        self.git("update-ref", "refs/remotes/origin/main", "main")

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        command, where = ["git", *arguments], folder or self.top
        done = subprocess.run(command, cwd=where, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def shell(self, script: str, code: int = 0, **environment: str) -> str:
        """As runners start bash; returns what it printed."""
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
        done = subprocess.run(
            command,
            cwd=self.top,
            env=self.environment | environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def copy(self, models: Path) -> None:
        shutil.copytree(models, self.top / "model", ignore=shutil.ignore_patterns("*.lock"), dirs_exist_ok=True)

    def flip(self) -> None:
        """What `registry flip` made of the same entry, once a run: for one that is as it was trained."""
        self.copy(self.made.production)


@pytest.fixture
def checkout(made: Made, tmp_path: Path) -> Checkout:
    """main has a smoke entry, `tiny`, that clears its gate."""
    return Checkout(tmp_path, made)


def offline(base: Path) -> dict[str, str]:
    """pip and what it installs find the packages of these tests, this project aside, and no network."""
    names = ("PIP_NO_INDEX", "PIP_NO_DEPS", "PIP_DISABLE_PIP_VERSION_CHECK")
    settings = {"PYTHONPATH": str(link_packages(base / "packages")), "PIP_CONFIG_FILE": os.devnull}
    return settings | NOT_ISOLATED | dict.fromkeys(names, "1")


def project(base: Path) -> Path:
    return shutil.copytree(
        ROOT,
        base / "registry-tool",
        ignore=lambda folder, names: [
            name
            for name in shutil.ignore_patterns(*LEFT_OUT, *(LEFT_OUT_ON_TOP if folder == str(ROOT) else ()))(
                folder, names
            )
            if name not in (".pre-commit-hooks.yaml", ".ci")
        ],
    )


# ---- action.yml -------------------------------------------------------------------------------------------------


def act(checkout: Checkout, code: int, base_ref: str = "main", **inputs: str) -> tuple[str, str, str]:
    """Run the action's judging step as GitHub does for a pull request; (log, step summary, outputs).

    Without base_ref: as for a push.
    """
    event = "pull_request" if base_ref else "push"
    return act_on({"GITHUB_EVENT_NAME": event, "GITHUB_BASE_REF": base_ref}, checkout, code, **inputs)


def act_on(event: dict[str, str], checkout: Checkout, code: int, **inputs: str) -> tuple[str, str, str]:
    """The same for any event, which has these variables."""
    given = {name: str(field.get("default", "")) for name, field in ACTION["inputs"].items()} | inputs
    environment = dict(event)
    for name, value in JUDGE["env"].items():
        plain = re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)
        assert plain is not None, name
        environment[name] = given[plain[1]]
    files = {name: checkout.base / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    for path in files.values():
        path.write_text("")
    environment |= {name: str(path) for name, path in files.items()} | {"RUNNER_TEMP": str(checkout.base)}
    log = checkout.shell(JUDGE["run"], code, **environment)
    return log, *(path.read_text() for path in files.values())  # type: ignore[return-value]  # two files


def test_the_action_is_an_action() -> None:
    """By GitHub's schema; every input is explained; no expression stands in a script, where it would be run."""
    check("vendor.github-actions", ROOT / "action.yml")
    for name, field in ACTION["inputs"].items():
        assert field["description"], name
        assert f"`{name}`" in PAGE
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    inputs = {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"] if name not in ("install", "plugins")}
    assert set(JUDGE["env"].values()) == inputs


def test_the_action_passes_a_flip_and_refuses_a_forgery(checkout: Checkout) -> None:
    """A flip: findings and the gate table in the summary, SARIF on the side. A byte changed: annotated, exit 1."""
    checkout.flip()
    checkout.commit("flip")
    log, summary, outputs = act(checkout, 0, sarif="out.sarif")
    assert "::error" not in log
    assert "| tiny | **PROMOTE** |" in summary
    assert "registry.json: 1 entry: valid" in summary
    assert outputs == "sarif=out.sarif\n"
    assert json.loads((checkout.top / "out.sarif").read_text())["runs"][0]["results"] == []
    next(checkout.box.artifacts.glob("*_seed0.onnx")).write_bytes(b"?")
    log, summary, _ = act(checkout, 1, sarif="out.sarif")
    assert re.search(r"^::error file=model/tiny/\w+/manifest\.json,line=\d+,", log, flags=re.MULTILINE)
    assert "| tiny | **HOLD** |" in summary
    (result,) = json.loads((checkout.top / "out.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "digest-mismatch"


def test_the_action_gates_by_its_inputs(checkout: Checkout) -> None:
    """A lowered bar is held; outside a pull request nothing is gated; registry, level, strict and format arrive."""
    checkout.box.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].pop())
    checkout.shell("registry flip tiny")
    log, summary, _ = act(checkout, 1)
    assert re.search(r"^::error file=model/registry\.json,line=\d+,col=\d+,title=tiny is held::", log, re.MULTILINE)
    assert "loosened" in summary
    _, summary, _ = act(checkout, 0, base_ref="")
    assert "HOLD" not in summary
    (checkout.top / "model" / "stray.onnx").write_bytes(b"?")
    assert "0 errors" not in act(checkout, 0, base_ref="", registry="model", level="quick")[0]
    log, summary, _ = act(checkout, 1, base_ref="", strict="true", format="text")
    assert ("warning[file-unregistered]" in log, summary) == (True, "")
    act(checkout, 2, base_ref="", registry="no/such")
    act(checkout, 2, base="no-such-revision", base_ref="")


RULES = """
from registry_tool.hookspec import hookimpl

@hookimpl
def registry_verify(view, level):
    return []
"""
RULES_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "house-rules"
version = "1.3"
[project.entry-points.registry_tool]
rules = "house_rules"
"""


@dataclass(frozen=True)
class Prepared:
    """What the action's first step made: the next steps' path, and links to the packages that the lock file names."""

    variables: dict[str, str]
    path: str
    packages: Path


@pytest.fixture(scope="module")
def prepared(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    base = tmp_path_factory.mktemp("action")
    path, temporary = base / "path", base / "runner"
    path.write_text("")
    temporary.mkdir()
    variables = {
        "GITHUB_ACTION_PATH": str(project(base)),
        "RUNNER_TEMP": str(temporary),
        "GITHUB_PATH": str(path),
    }
    Checkout(base, made).shell(INSTALL["run"], **variables)
    packages = link_packages(base / "packages", site_packages(temporary / "registry-tool"))
    return Prepared(variables, path.read_text().strip(), packages)


def test_the_action_installs_itself(prepared: Prepared, checkout: Checkout) -> None:
    """By the lock file, on the next step's path; then plugins, one of them a new project; and judges with them."""
    assert prepared.path == str(Path(prepared.variables["RUNNER_TEMP"]) / "registry-tool" / "bin")
    checkout.environment["PATH"] = f"{prepared.path}{os.pathsep}{checkout.environment['PATH']}"
    assert "1 entry: valid" in act(checkout, 0, level="quick")[0]
    wanted = [{"plugin": "house-rules", "version": ">=1.2"}, {"plugin": "thumbs", "version": ">=0.1,<1"}]
    checkout.box.edit(lambda document: document.update(requires=wanted))
    log, _, _ = act(checkout, 3, level="quick", format="text")
    assert log.count("error[plugin-required]") == 2
    (checkout.top / "rules").mkdir()
    (checkout.top / "rules" / "pyproject.toml").write_text(RULES_PROJECT)
    (checkout.top / "rules" / "house_rules.py").write_text(RULES)
    checkout.shell("registry plugin new thumbs -o plugins/thumbs")
    assert PLUGINS["env"] == {"PLUGINS": "${{ inputs.plugins }}"}
    checkout.shell(PLUGINS["run"], **prepared.variables, **NOT_ISOLATED, PLUGINS="./rules\n./plugins/thumbs\n")
    assert {"rules", "thumbs"} <= {line.split()[0] for line in checkout.shell("registry plugins").splitlines() if line}
    assert "1 entry: valid" in act(checkout, 0, level="quick")[0]


def test_the_lock_file_pins_what_the_project_needs() -> None:
    """Each dependency, and what builds the project, at one version or one for each Python, with hashes."""
    lines = (ROOT / ".ci" / "judge.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in pinned)
    versions = {line.split("==")[0]: Version(re.split(r"[ ;]", line.split("==")[1])[0]) for line in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for wanted in map(Requirement, [*project["project"]["dependencies"], *project["build-system"]["requires"]]):
        assert versions[wanted.name] in wanted.specifier


# ---- .pre-commit-hooks.yaml -------------------------------------------------------------------------------------


def test_the_hook_runs_in_pre_commit(checkout: Checkout) -> None:
    """Installed by pre-commit from a clone, by the example of the page: each hook passes what holds, and no other."""
    source = project(checkout.base)
    environment = offline(checkout.base) | {"PRE_COMMIT_HOME": str(checkout.base / "cache")}
    checkout.git("init", "-q", folder=source)
    checkout.git("add", "-A", folder=source)
    checkout.git("commit", "-q", "-m", "tool", folder=source)
    config = example(".pre-commit-config.yaml")
    config["repos"][0] |= {"repo": str(source), "rev": checkout.git("rev-parse", "HEAD", folder=source)}
    (checkout.top / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    run = f'"{sys.executable}" -m pre_commit run -v'
    (checkout.top / "README.md").write_text("models\n")
    checkout.git("add", "-A")
    said = checkout.shell(run, **environment)
    assert re.search(r"registry validate\.+Passed", said)
    assert "entr" not in said.partition("duration")[2], "no registry was touched"
    checkout.box.edit(lambda document: document["models"][0].update(description="another"))
    checkout.git("add", "-A")
    assert "1 entry: valid" in checkout.shell(run, **environment)
    checkout.flip()
    checkout.commit("flip")
    push = f"{run} --hook-stage pre-push"
    assert "PROMOTE" in checkout.shell(push, **environment)
    checkout.box.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].pop())
    checkout.commit("lower the bar")
    assert "HOLD" in checkout.shell(push, 1, **environment)
    member = next(checkout.box.artifacts.glob("*_seed0.onnx"))
    member.write_bytes(b"?")
    checkout.git("add", "-A")
    assert "error[digest-mismatch]" in checkout.shell(run, 1, **environment)
    checkout.git("rm", "-q", "-f", str(member))
    assert "error[file-missing]" in checkout.shell(run, 1, **environment)
    assert "error[file-missing]" in checkout.shell(f"{run} --all-files", 1, **environment)


def test_the_hook_file_is_one() -> None:
    """By pre-commit's own check, and its ids are those on the page."""
    path = ROOT / ".pre-commit-hooks.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-manifest", path], check=True)
    shown = example(".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["id"] for hook in shown] == [hook["id"] for hook in yaml.safe_load(path.read_text())]


# ---- docs/how-to/ci.md ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "schema"),
    [(".github/workflows/registry.yml", "vendor.github-workflows"), (".gitlab-ci.yml", "vendor.gitlab-ci")],
)
def test_examples_are_what_their_hosts_take(name: str, schema: str, tmp_path: Path) -> None:
    """By the schemas of GitHub and GitLab."""
    (text,) = (block for block in blocks("yaml") if block.startswith(f"# {name}\n"))
    (tmp_path / "ci.yml").write_text(text)
    check(schema, tmp_path / "ci.yml")


def test_the_workflow_uses_the_action() -> None:
    """With inputs that it has, history to compare with, and the SARIF file that it wrote."""
    steps = example(".github/workflows/registry.yml")["jobs"]["registry"]["steps"]
    assert steps[0]["with"] == {"fetch-depth": 0, "submodules": True}
    assert steps[2]["uses"] == "./registry-tool"
    assert set(steps[2]["with"]) <= set(ACTION["inputs"])
    assert steps[3]["with"]["sarif_file"] == steps[2]["with"]["sarif"]


def test_the_gitlab_job(checkout: Checkout) -> None:
    """Its commands after the install run in bash, and leave the reports that it names, for a flip and for a forgery."""
    job = example(".gitlab-ci.yml")["registry"]
    *install, judge = job["script"]
    assert install == [
        "pip install --require-hashes -r registry-tool/.ci/judge.txt",  # as the action does
        "pip install --no-deps --no-build-isolation ./registry-tool",
    ]
    base = checkout.git("rev-parse", "HEAD")
    checkout.flip()
    checkout.shell(judge, CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    assert 'name="tiny"' in (checkout.top / "registry.xml").read_text()
    checkout.box.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].pop())
    checkout.shell(judge, 1, CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    assert "<failure" in (checkout.top / job["artifacts"]["reports"]["junit"]).read_text()


def test_commands_of_the_page(checkout: Checkout) -> None:
    """Every command of the page runs, in order."""
    said = checkout.shell("\n".join(blocks("sh")))
    assert "model/registry.json: $schema is schemas/registry.schema.json" in said
    assert (checkout.top / "registry.sarif").exists()


# ---- as their runners would -------------------------------------------------------------------------------------

GROUP = "gh-readonly-queue/main/pr-1"
PULL = "pull/1/merge"


@pytest.fixture(scope="module", params=["flip", "flip with a lowered bar"])
def merged(
    request: pytest.FixtureRequest, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, int]:
    """A change merged into a main that moved meanwhile, under the names that hosts give it; and how it is judged."""
    checkout = Checkout(tmp_path_factory.mktemp("merged"), made)
    checkout.git("checkout", "-q", "-b", "change")
    if request.param == "flip":
        checkout.flip()
    else:
        checkout.box.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].pop())
        checkout.shell("registry flip tiny")
    checkout.commit("change")
    checkout.git("checkout", "-q", "main")
    (checkout.top / "other").write_text("another change\n")
    checkout.commit("main moved")
    checkout.git("checkout", "-q", "--detach")
    checkout.git("merge", "-q", "--no-ff", "-m", "merge", "change")
    checkout.git("update-ref", f"refs/{PULL}", "HEAD")
    checkout.git("update-ref", f"refs/heads/{GROUP}", "HEAD")
    return checkout, 0 if request.param == "flip" else 1


def fresh_clone(checkout: Checkout, ref: str, base: Path) -> Checkout:
    """What a runner has before the job's own steps: every branch of origin, and HEAD detached at the commit judged."""
    runner = copy.copy(checkout)
    runner.base, runner.top = base, base / "runner"
    runner.top.mkdir()
    runner.git("init", "-q", "-b", "none")
    runner.git("remote", "add", "origin", str(checkout.top))
    own = f"refs/remotes/{ref}"
    runner.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*", f"+refs/{ref}:{own}")
    runner.git("checkout", "-q", "--detach", own)
    return runner


def event_of(checkout: Checkout, name: str) -> tuple[str, dict[str, str]]:
    """The ref that GitHub checks out for an event, and the variables that it sets."""
    main = checkout.git("rev-parse", "main")
    path = checkout.base / "event.json"
    path.write_text(json.dumps({"merge_group": {"base_sha": main}} if name == "merge_group" else {}))
    own = {"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(path), "GITHUB_ACTIONS": "true", "CI": "true"}
    if name == "pull_request":
        return PULL, own | {"GITHUB_BASE_REF": "main", "GITHUB_HEAD_REF": "change"}
    if name == "merge_group":
        return f"heads/{GROUP}", own | {"GITHUB_BASE_REF": "", "GITHUB_HEAD_REF": ""}
    return PULL, own | {"GITHUB_BASE_REF": "", "GITHUB_HEAD_REF": ""}  # the merge commit is what main gets


@pytest.mark.parametrize("event", ["pull_request", "merge_group"])
def test_the_action_judges_in_a_fresh_clone(merged: tuple[Checkout, int], event: str, tmp_path: Path) -> None:
    """Of a pull request and a merge group: a flip is promoted, a flip with a lowered bar held, each with documents."""
    checkout, code = merged
    ref, variables = event_of(checkout, event)
    runner = fresh_clone(checkout, ref, tmp_path)
    inputs = example(".github/workflows/registry.yml")["jobs"]["registry"]["steps"][2]["with"]
    log, summary, outputs = act_on(variables, runner, code, **inputs)
    assert f"| tiny | **{'HOLD' if code else 'PROMOTE'}** |" in summary
    assert ("::error" in log) is bool(code)
    assert (runner.top / outputs.strip().removeprefix("sarif=")).exists()


@pytest.mark.parametrize("merged", ["flip"], indirect=True)
def test_the_action_judges_no_push(merged: tuple[Checkout, int], tmp_path: Path) -> None:
    """A push has no base: it is validated, and the log says that no promotion was judged; with require-base, exit 2."""
    checkout, _ = merged
    ref, variables = event_of(checkout, "push")
    runner = fresh_clone(checkout, ref, tmp_path)
    log, summary, _ = act_on(variables, runner, 0)
    assert "no base: promotions not judged" in log
    assert "PROMOTE" not in summary
    act_on(variables, runner, 2, **{"require-base": "true"})


def test_the_gitlab_job_in_a_fresh_clone(merged: tuple[Checkout, int], tmp_path: Path) -> None:
    """Of a merge request, by the commit where it left its target: the same verdicts, and the report that it names."""
    checkout, code = merged
    job = example(".gitlab-ci.yml")["registry"]
    runner = fresh_clone(checkout, PULL, tmp_path)
    base = checkout.git("merge-base", "main", "change")
    variables = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    log = runner.shell(job["script"][-1], code, CI="true", GITLAB_CI="true", **variables)
    assert ("HOLD" if code else "PROMOTE") in log
    assert ("<failure" in (runner.top / job["artifacts"]["reports"]["junit"]).read_text()) is bool(code)


def test_the_gitlab_job_installs_the_judge(prepared: Prepared, checkout: Checkout) -> None:
    """Its first commands, with the submodule beside the registry, give an image with pip a `registry` that judges.

    The packages of the lock file are those that the action has downloaded by it.
    """
    project(checkout.top)
    job = example(".gitlab-ci.yml")["registry"]
    image = make_environment(checkout.base / "image", prepared.packages)
    path = f"{image / 'bin'}{os.pathsep}{os.environ['PATH']}"
    said = checkout.shell("\n".join([*job["script"][:-1], "registry ci --junit registry.xml"]), PATH=path)
    assert "no base: promotions not judged" in said
    assert 'name="tiny"' in (checkout.top / "registry.xml").read_text()


# ---- completion -------------------------------------------------------------------------------------------------


def test_bash_completes(checkout: Checkout) -> None:
    """Sourced in a bash: commands, options and choices; `registry` itself is unchanged by it."""
    script = """
eval "$(_REGISTRY_COMPLETE=bash_source registry)"
function=$(complete -p registry | sed 's/.*-F \\([^ ]*\\).*/\\1/')
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); "$function" registry; echo "${COMPREPLY[*]}"; }
try registry val
try registry validate --for
try registry validate --format s
try registry train fr_
try registry gate --r
registry validate --level quick
"""
    *words, last = checkout.shell(script).splitlines()
    assert words == ["validate", "--format", "sarif", "fr_ensemble", "--registry"]
    assert "model/registry.json: 1 entry: valid" in last


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete(checkout: Checkout, shell: str) -> None:
    """The script of the shell names the program, and what it asks for is answered; sourced where the shell is here."""
    script = checkout.shell(f"_REGISTRY_COMPLETE={shell}_source registry")
    assert f"_REGISTRY_COMPLETE={shell}_complete" in script
    asked = {
        "COMP_WORDS": "registry val" if shell == "zsh" else "registry",
        "COMP_CWORD": "1" if shell == "zsh" else "val",
    }
    said = checkout.shell("registry", _REGISTRY_COMPLETE=f"{shell}_complete", **asked)
    assert "validate" in said.replace(",", "\n").split()
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
