"""test_scaffold.py: `registry plugin new`: what it makes is installed and used through the program, on real rows."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as parquet
import pytest
import yaml
from command_line import Program, program
from csv_tables import write_csv
from onnx import TensorProto, helper
from packaging.requirements import Requirement
from places import ROOT
from sandbox import tree

from registry_tool.errors import InputError
from registry_tool.plugins import scaffold
from registry_tool.plugins.manager import Plugins, load
from registry_tool.testing import Bench
from registry_tool.workflows.explain import declared_by

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "registry_tool" / "plugins" / "template"
REAL = ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet"
LEFT_BEHIND = ("__pycache__", "build", "*.egg-info", ".pytest_cache", ".mypy_cache", ".ruff_cache")
PIP = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of a kind `my_thumbs`, as the program makes it."""
    folder = tmp_path_factory.mktemp("new") / "thumbs"
    program("plugin", "new", "my_thumbs", "-o", folder)
    return folder


@pytest.fixture(scope="session")
def site(project: Path) -> Path:
    """A folder with the plugin installed by pip from its project, offline."""
    source = shutil.copytree(project, project.parent / "source")  # building leaves files beside it
    command = [sys.executable, "-m", "pip", "install", *PIP, "--target", str(project.parent / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return project.parent / "site"


@pytest.fixture(scope="session")
def real_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of real encodes, scored by libvmaf, as CSV: every twentieth of the corpus that ships."""
    path = tmp_path_factory.mktemp("real") / "rows.csv"
    table = parquet.read_table(REAL, columns=["src", "quality", "adm2", "vmaf"]).to_pylist()[::20]
    return write_csv(path, table)


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """The program with the plugin installed, working on a registry of its own."""
    environment = os.environ | {"PYTHONPATH": str(site), "REGISTRY_JSON": str(tmp_path / "model" / "registry.json")}

    def registry(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return registry


def test_installed_plugin_is_listed(run: Run) -> None:
    """The plugin, its version, its kind and its hooks are listed, and its options are in the help."""
    listed = {row["plugin"]: row for row in json.loads(run("plugins", "--format", "json").stdout)}
    assert (listed["my_thumbs"]["version"], listed["my_thumbs"]["kinds"]) == ("0.1.0", "my_thumbs")
    assert {"registry_train", "registry_gate", "registry_load"} <= set(listed["my_thumbs"]["hooks"].split(", "))
    assert "--feature" in run("train", "my_thumbs", "--help").stdout


def test_whole_chain_on_real_rows(run: Run, real_rows: Path, tmp_path: Path) -> None:
    """Real rows are trained on, validated, gated, flipped, predicted and evaluated; a weak feature is held."""
    columns = ("--corpus", real_rows, "--target", "vmaf", "--license", "MIT")
    run("train", "my_thumbs", "--id", "adm", *columns, "--feature", "adm2")
    run("validate", "--strict")
    assert "PROMOTE" in run("gate", "adm").stdout
    run("flip", "adm")
    run("validate", "--strict")
    (entry,) = json.loads(run("list", "--format", "json").stdout)
    assert (entry["kind"], entry["smoke"], entry["license"]) == ("my_thumbs", False, "MIT")
    manifest = json.loads((tmp_path / "model" / entry["manifest"]).read_text())
    with real_rows.open(newline="") as file:
        expected = [manifest["slope"] * float(row["adm2"]) + manifest["intercept"] for row in csv.DictReader(file)]
    rows = list(csv.DictReader(run("predict", "adm", "--corpus", real_rows).stdout.splitlines()))
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, rel=1e-5, abs=1e-4)  # the graph is float32
    assert json.loads(run("evaluate", "adm", "--corpus", real_rows, "--format", "json").stdout)["n_rows"] == len(rows)
    assert run("my-thumbs-formula", "adm").stdout.startswith("vmaf = ")
    run("train", "my_thumbs", "--id", "weak", *columns, "--feature", "quality")
    assert "oof_plcc >= 0.9: found" in run("gate", "weak", code=1).stdout
    run("flip", "weak", code=1)


def test_foreign_evidence(run: Run, real_rows: Path, tmp_path: Path) -> None:
    """Evidence in a folder is judged without an entry; a folder without it cannot be judged."""
    run("train", "my_thumbs", "--id", "adm", "--corpus", real_rows, "--feature", "adm2", "--target", "vmaf")
    (evidence,) = (tmp_path / "model" / "adm").glob("*/oof.csv")
    (tmp_path / "folder").mkdir()
    shutil.copy(evidence, tmp_path / "folder")
    assert "PROMOTE" in run("gate", "--evidence", tmp_path / "folder", "--kind", "my_thumbs").stdout
    (tmp_path / "folder" / "oof.csv").rename(tmp_path / "folder" / "other.csv")
    assert "expected oof.csv" in run("gate", "--evidence", tmp_path / "folder", "--kind", "my_thumbs", code=2).stderr


UNFIT = [  # (evidence, what the gate says of it)
    ("src,target,prediction\na,1,1\na,2,2\nb,3,3\n", "fewer than 3 sources"),
    ("src,target,prediction\na,1,1\nb,2,nan\nc,3,3\n", "oof_plcc"),
    ("src,target,prediction\na,1,inf\nb,2,-inf\nc,3,3\n", "oof_plcc"),
    ("src,target,prediction\na,1,5\nb,2,5\nc,3,5\n", "oof_plcc"),
]


def test_unfit_evidence_is_held(run: Run, tmp_path: Path) -> None:
    """Too few sources, a number that is not finite and constant predictions promote nothing."""
    run("train", "my_thumbs", "--id", "probe", "--smoke")  # a registry to take the policy from
    for evidence, reason in UNFIT:
        (tmp_path / "oof.csv").write_text(evidence)
        assert reason in run("gate", "--evidence", tmp_path, "--kind", "my_thumbs", code=1).stdout


def test_without_the_plugin(run: Run, tmp_path: Path) -> None:
    """An entry whose plugin is not installed is an error, never skipped."""
    run("train", "my_thumbs", "--id", "probe", "--smoke")
    done = program("validate", tmp_path / "model", check=False)
    assert done.returncode == 1
    assert "kind-unknown" in done.stdout


def test_a_model_is_added_as_the_readme_says(tmp_path: Path) -> None:
    """The commands of a new project for one ONNX file run on its model and its rows."""
    folder = tmp_path / "made"
    program("plugin", "new", "my_thumbs", "--from", "single-onnx", "-o", folder)
    site = tmp_path / "site" / "registry_my_thumbs-0.1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: registry-my-thumbs\nVersion: 0.1.0\n")
    (site / "entry_points.txt").write_text("[registry_tool]\nmy_thumbs = registry_my_thumbs.plugin\n")
    (folder / "model.onnx").write_bytes(runpy.run_path(str(folder / "tests" / "test_conformance.py"))["model"]())
    text = (folder / "README.md").read_text(encoding="utf-8")
    (sidecar,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    (folder / "model.json").write_text(sidecar)
    found = {"PYTHONPATH": os.pathsep.join((str(site.parent), str(folder / "src")))}
    found["REGISTRY_JSON"] = str(tmp_path / "model" / "registry.json")
    said = [
        program(*shlex.split(line)[1:], cwd=folder, env=os.environ | found).stdout
        for line in text.splitlines()
        if line.startswith(("registry add", "registry validate", "registry predict"))
    ]
    assert len(said) == 3
    assert "registered: first (smoke)" in said[0]
    assert "1 entry: valid" in said[1]
    assert said[2].splitlines()[0] == "row,score"


# The template -> the last line of its tests.
SKIPS = {"trained": 2, "single-onnx": 9}  # a hook that is left out is one skip, with its reason


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the core and of numpy, which take it longer than a plugin."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("source", SKIPS)
def test_its_own_tests_pass(tmp_path: Path, mypy_cache: Path, source: str) -> None:
    """The project's tests, the conformance suite among them, and its strict type check pass as they are made."""
    folder = tmp_path / "made"
    program("plugin", "new", "my_thumbs", "--from", source, "-o", folder)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.search(r"(\d+) skipped", done.stdout.splitlines()[-1])
    assert int(skipped[1] if skipped else 0) == SKIPS[source], done.stdout
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(mypy_cache)]
    environment = os.environ | {"MYPYPATH": str(ROOT)}  # mypy does not see an editable installation
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert "source files" in done.stdout, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("src")] == []


@pytest.mark.parametrize("source", SKIPS)
def test_its_workflow_is_one(tmp_path: Path, source: str) -> None:
    """The workflow runs the tests and the type check; the project asks for a range of versions."""
    scaffold.new_plugin("my_thumbs", tmp_path / "made", Plugins(), source)
    workflow = yaml.safe_load((tmp_path / "made" / ".github" / "workflows" / "test.yml").read_text())
    run = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert run[-3:] == ["pip install -e '.[test]'", "mypy", "pytest"]
    project = tomllib.loads((tmp_path / "made" / "pyproject.toml").read_text())["project"]
    assert "registry-tool>=0.2,<1" in project["dependencies"]


@pytest.mark.parametrize("source", SKIPS)
def test_the_template_is_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """The template is what the program makes for its name, file by file, and nothing of it stays behind."""
    monkeypatch.setattr(scaffold, "find_spec", lambda name: None)  # other tests of this process import the example
    scaffold.new_plugin("ruler", tmp_path / "ruler", Plugins(), source)
    place = EXAMPLE if source == "trained" else EXAMPLE / "single"
    example = shutil.copytree(place, tmp_path / "example", ignore=shutil.ignore_patterns(*LEFT_BEHIND, "single"))
    (example / ".github" / "workflows").mkdir(parents=True)
    (example / "workflow.yml").rename(example / ".github" / "workflows" / "test.yml")
    assert tree(tmp_path / "ruler") == tree(example)


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Makes a project, and imports its plugin for this test alone."""

    def make(name: str, source: str) -> ModuleType:
        scaffold.new_plugin(name, tmp_path / "made", Plugins(), source)
        monkeypatch.syspath_prepend(str(tmp_path / "made" / "src"))
        for module in (f"registry_{name}", f"registry_{name}.model", f"registry_{name}.plugin"):
            monkeypatch.setitem(sys.modules, module, None)  # undone: what is imported below is forgotten
            del sys.modules[module]
        return importlib.import_module(f"registry_{name}.plugin")

    return make


@pytest.mark.parametrize("source", SKIPS)
@pytest.mark.parametrize("name", ["class", "vmaf_4k", "a", "x1_2_y", "tests", "numpy", "validate"])
def test_what_is_made_loads(tmp_path: Path, imported: Callable[..., ModuleType], name: str, source: str) -> None:
    """Under any name that is accepted, pip takes the project's, and its plugin loads beside all others."""
    plugins = load()
    plugins.add(imported(name, source), name)
    project = tomllib.loads((tmp_path / "made" / "pyproject.toml").read_text())["project"]
    assert Requirement(project["name"]).name == project["name"]
    assert declared_by(plugins.loaded[-1])
    assert plugins.commands().keys() >= ({f"{name.replace('_', '-')}-formula"} if source == "trained" else set())


FLOATS, ROWS = TensorProto.FLOAT, ["N", 2]
MODELS = {  # (operator, type, shapes of the inputs, shape of the output)
    "whole numbers": ("Abs", TensorProto.INT64, [ROWS], ["N", 1]),
    "one row": ("Identity", FLOATS, [[1, 2]], ["N", 1]),
    "two scores a row": ("Identity", FLOATS, [ROWS], ROWS),
    "two inputs": ("Add", FLOATS, [ROWS, ROWS], ["N", 1]),
    "any number of columns": ("Identity", FLOATS, [["N", "F"]], ["N", 1]),
    "one number": ("Identity", FLOATS, [[]], []),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_single_model_gives_one_number_a_row(tmp_path: Path, imported: Callable[..., ModuleType], what: str) -> None:
    """The project for models from elsewhere refuses one that its predictor could not use, and says what it found."""
    module = imported("my_thumbs", "single-onnx")
    suite = runpy.run_path(str(tmp_path / "made" / "tests" / "test_conformance.py"))["TestConformance"]()
    suite.make_registry(tmp_path, None)
    operator, kind, shapes, scores = MODELS[what]
    inputs = [helper.make_tensor_value_info(f"in{n}", kind, shape) for n, shape in enumerate(shapes)]
    node = helper.make_node(operator, [port.name for port in inputs], ["score"])
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("score", kind, scores)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    bench = Bench(tmp_path / "registry.json", module, "my_thumbs")
    bench.forge(files={"model.onnx": model.SerializeToString()})
    own = [finding for finding in bench.errors() if finding.code.startswith("my-thumbs-")]
    assert [finding.code for finding in own] == ["my-thumbs-ports"], bench.errors()
    assert "in0: " in str(own[0])


def test_no_word_of_the_template_is_left(project: Path) -> None:
    """Under another name nothing speaks of the template's; words joined by dashes take dashes."""
    made = tree(project)
    assert not [path for path, data in made.items() if b"ruler" in data or "ruler" in path]
    assert 'name = "registry-my-thumbs"' in made["pyproject.toml"].decode()
    assert 'my_thumbs = "registry_my_thumbs.plugin"' in made["pyproject.toml"].decode()


UNUSABLE = [
    *("Thumbs", "9thumbs", "thumbs-up", "", "..", "a" * 65, "fr", "fr_ensemble", "tool"),
    *("thumbs_", "my__thumbs", "onnx_kinds", "digest", "plugin", "ensemble"),
]


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_names_are_refused(registry: Program, tmp_path: Path, name: str) -> None:
    """A name that no kind can have, or that is taken, is one line, exit 2, and nothing is made."""
    ran = registry("plugin", "new", "-o", tmp_path / "new", "--", name)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_there_is_kept(registry: Program, tmp_path: Path, what: str) -> None:
    """A folder that holds anything, a file or a link is refused in one line and left as it was."""
    target = tmp_path / "new"
    if what == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif what == "file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    ran = registry("plugin", "new", "thumbs", "-o", target)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert tree(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"new", "elsewhere"}


def test_no_folder_is_called_as_standard_output_is(registry: Program, workdir: Path) -> None:
    """`-o -` is refused and makes nothing; a folder whose name begins as an option does is entered as printed."""
    ran = registry("plugin", "new", "thumbs", "-o", "-")
    assert (ran.code, ran.err.count("\n"), list(workdir.iterdir())) == (2, 1, [])
    ran = registry("plugin", "new", "thumbs", "-o", "-a b")
    enter = ran.err.removeprefix("next: ").split(";")[0]
    assert subprocess.run(["sh", "-c", f"{enter} && test -f pyproject.toml"], check=False).returncode == 0


def test_making_it_again_changes_nothing(registry: Program, tmp_path: Path) -> None:
    """The same command over its own work says so; over work that went on it refuses."""
    (tmp_path / "new").mkdir()  # empty, and so no obstacle
    assert registry("plugin", "new", "thumbs", "-o", tmp_path / "new").code == 0
    assert "nothing was changed" in registry("plugin", "new", "thumbs", "-o", tmp_path / "new").out
    (tmp_path / "new" / "README.md").write_text("mine")
    assert registry("plugin", "new", "thumbs", "-o", tmp_path / "new").code == 2
    assert (tmp_path / "new" / "README.md").read_text() == "mine"


def test_it_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing breaks off, neither the folder nor what it was made in is left."""
    folder, names = scaffold.TEMPLATE_FILES["trained"]
    monkeypatch.setitem(scaffold.TEMPLATE_FILES, "trained", (folder, (*names, "no/such/file.txt")))
    with pytest.raises(FileNotFoundError):
        scaffold.new_plugin("thumbs", tmp_path / "new", load())
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_named_after_the_kind(workdir: Path) -> None:
    """Without -o it is registry-NAME here."""
    assert scaffold.new_plugin("my_thumbs", None, Plugins()) == (Path("registry-my-thumbs"), True)
    with pytest.raises(InputError):
        scaffold.new_plugin("My", None, Plugins())
    assert [path.name for path in workdir.iterdir()] == ["registry-my-thumbs"]
