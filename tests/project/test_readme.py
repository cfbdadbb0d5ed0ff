"""test_readme.py: runs what README.md and docs/plugins.md tell people to type, in a copy of the project, offline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from environments import add_packages, link_packages, make_environment
from places import ROOT
from registries import Made

pytestmark = pytest.mark.slow

LANGUAGES = ("sh", "bash", "console")
LEFT_OUT = (".git", ".venv", ".demo", ".hypothesis", ".mypy_cache", ".ruff_cache", "__pycache__", "*.egg-info")


def blocks(page: str, *languages: str) -> list[str]:
    """The code blocks of a page in these languages, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def commands(page: str) -> list[str]:
    """The command blocks of a page without their prompts, and without `make`, which makes environments of its own."""
    plain = (re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in blocks(page, *LANGUAGES))
    return [block for block in plain if not block.startswith("make ")]


class Place:
    """A copy of the project, and a shell that has nothing but python3, git and what the commands install.

    Packages come from the environment of the tests, through one folder of links that a path file adds to every
    environment made here: pip needs no network.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.clone = shutil.copytree(ROOT, base / "clone", ignore=shutil.ignore_patterns(*LEFT_OUT))
        self.packages = link_packages(base / "packages")
        tools = base / "bin"
        tools.mkdir()
        (tools / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]  # CPython has it
        for name in ("pip", "registry", "python"):  # outside an environment these must not be found
            (tools / name).write_text(f"#!/bin/sh\necho {name} of no environment >&2\nexit 99\n")
            (tools / name).chmod(0o755)
        own = Path(sys.executable).parent
        rest = [p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != own]
        (base / "tmp").mkdir()
        kept = {name: os.environ[name] for name in ("LANG", "LD_LIBRARY_PATH") if name in os.environ}
        self.environment = kept | {
            "HOME": str(base),
            "TMPDIR": str(base / "tmp"),
            "PATH": os.pathsep.join([str(tools), *rest]),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as: no isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def shell(self, script: str, cwd: Path, code: int = 0) -> str:
        """Run a script; it stops at the first command that fails. Returns what it printed."""
        command = ["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, cwd=cwd, env=self.environment, text=True, check=False, **streams)  # type: ignore[call-overload]  # the two streams
        assert done.returncode == code, done.stdout[-6000:]
        return str(done.stdout)


@pytest.fixture(scope="module")
def installed_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A clone after the first commands of the README, those that install the program."""
    place = Place(tmp_path_factory.mktemp("readme"))
    thin(place.clone / "plugins" / "fr_ensemble" / "data" / "corpus.parquet")
    add_packages(place.clone / ".venv", place.packages)
    install = commands("README.md")[0]
    assert "pip install" in install
    place.shell(install, place.clone)
    return place


def videos(folder: Path) -> Path:
    """Four clips of a few frames each: what the README takes for a person's own."""
    from fr_ensemble.corpus.build.ffmpeg import find_ffmpeg

    folder.mkdir()
    size = "s=128x96:r=12"
    graphs = {"test": "testsrc2", "zoom": "mandelbrot", "life": "life", "rules": "cellauto"}
    for name, generator in graphs.items():
        seed = ":seed=3" if generator in ("life", "cellauto") else ""
        command = [find_ffmpeg().path, "-v", "error", "-f", "lavfi", "-i", f"{generator}={size}{seed}"]
        subprocess.run([*command, "-frames:v", "6", "-pix_fmt", "yuv420p", folder / f"{name}.y4m"], check=True)
    return folder


def thin(corpus: Path) -> None:
    """Every fifth row stays: as many sources and folds, and a fifth of the trees of the standard models."""
    table = pq.read_table(corpus)
    pq.write_table(table.take(list(range(0, len(table), 5))), corpus)


ACTIVATE = ". .venv/bin/activate"


def test_readme_commands(installed_place: Place) -> None:
    """Every command of the README works, in order: install, train, gate, flip, validate, predict, build, recommend."""
    place = installed_place
    place.environment["VIDEOS"] = str(videos(place.base / "videos"))
    said = place.shell("\n".join([ACTIVATE, *commands("README.md")[1:]]), place.clone)
    assert "vmaf: PROMOTE" in said
    assert re.search(r"model/registry\.json: 1 entry: valid", said)
    assert said.count("\n1,") == 1, "two rows are predicted"
    assert "mine.parquet: 144 rows; 24 encodes made" in said
    assert re.search(r"^mean vmaf of a clip at least 90, at 80 %$", said, flags=re.MULTILINE)


def test_plugin_page_commands(installed_place: Place) -> None:
    """Every command of docs/plugins.md works, in order, after those with which the README installs the program."""
    said = installed_place.shell("\n".join([ACTIVATE, *commands("docs/plugins.md")]), installed_place.clone)
    assert "first: PROMOTE" in said
    assert "weak: HOLD" in said


def test_make_commands() -> None:
    """The README's make commands are targets of the Makefile, and .ci/run runs them."""
    lines = [
        line for block in blocks("README.md", *LANGUAGES) for line in block.splitlines() if line.startswith("make ")
    ]
    assert lines == ["make demo", "make test"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    for line in lines:
        assert line.removeprefix("make ") in targets
        assert line in run


# ---- the job of the README ----------------------------------------------------------------------------------------


def job() -> dict[str, list[dict[str, object]]]:
    (text,) = blocks("README.md", "yaml")
    document = yaml.safe_load(text)
    assert document.get("on", document.get(True)) == "pull_request"  # YAML 1.1 reads the key `on` as true
    (job,) = document["jobs"].values()
    assert isinstance(job, dict)
    return job


def test_job_fetches_history() -> None:
    """The README's job checks out the base branch and submodules, sets up Python, and is nine lines long."""
    checkout, python, *rest = job()["steps"]
    assert str(checkout["uses"]).startswith("actions/checkout@")
    assert checkout["with"] == {"fetch-depth": 0, "submodules": True}
    assert str(python["uses"]).startswith("actions/setup-python@")
    assert all(set(step) == {"run"} for step in rest)
    assert len(blocks("README.md", "yaml")[0].splitlines()) == 9


class PullRequest:
    """A repository of models with this project in `registry-tool`, its origin, and a branch to change things on."""

    def __init__(self, place: Place, models: Path) -> None:
        self.place = place
        self.folder = place.base / "models"
        origin = place.base / "origin.git"
        shutil.copytree(models, self.folder / "model", ignore=shutil.ignore_patterns("*.lock"))
        place.clone.rename(self.folder / "registry-tool")
        make_environment(place.base / "runner", place.packages)
        self.git("init", "-q", "-b", "main")
        self.commit("models")
        self.git("init", "-q", "--bare", str(origin))
        self.git("remote", "add", "origin", str(origin))
        self.git("push", "-q", "origin", "main")
        self.git("checkout", "-q", "-b", "change")
        place.environment["GITHUB_BASE_REF"] = "main"

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=Author", "-c", "user.email=author@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, env=self.place.environment)

    def commit(self, message: str) -> None:
        self.git("add", "model", ".")
        self.git("commit", "-q", "-m", message)

    def run(self, codes: Sequence[int]) -> str:
        """Run the last steps of the job, expecting these exit codes, each as the runner does: one shell a step."""
        steps = [str(step["run"]) for step in job()["steps"] if "run" in step][-len(codes) :]
        activate = f". {self.place.base}/runner/bin/activate\n"
        return "".join(self.place.shell(activate + s, self.folder, c) for s, c in zip(steps, codes, strict=True))


@pytest.fixture
def pull_request(made: Made, tmp_path: Path) -> PullRequest:
    """main has a trained smoke entry, `tiny`, that clears its gate."""
    return PullRequest(Place(tmp_path), made.smoke)


def test_job(pull_request: PullRequest) -> None:
    """The README's job passes a flip, and refuses an entry turned by hand and a bar lowered with the flip."""
    folder, place = pull_request.folder, pull_request.place
    said = pull_request.run((0, 0))
    assert "nothing turned production" in said
    activate = f". {place.base}/runner/bin/activate\n"

    place.shell(activate + "registry flip tiny", folder)
    pull_request.commit("production")
    said = pull_request.run((0,))
    assert "tiny: PROMOTE (turned production)" in said

    path = folder / "model" / "registry.json"
    document = json.loads(path.read_text())
    lowered = json.loads(path.read_text())
    lowered["policies"]["fr_ensemble"]["rules"][0]["bound"] = 0.5
    path.write_text(json.dumps(lowered))
    place.shell(activate + "registry flip tiny --demote --reason again\nregistry flip tiny", folder)
    said = pull_request.run((1,))
    assert "loosened" in said

    del document["models"][0]["promotion"]
    path.write_text(json.dumps(document))
    said = pull_request.run((1,))
    assert "promotion-missing" in said
