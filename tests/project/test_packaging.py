"""test_packaging.py: the wheel, the editable install, and the program in an environment without training libraries."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from places import ROOT
from registries import Made
from sandbox import Sandbox

LEFT_OUT = (".git", ".venv", ".demo", ".hypothesis", ".mypy_cache", ".ruff_cache", "__pycache__", "*.egg-info")
HEAVY = ("numba", "pyarrow", "scikit-learn", "scipy")  # of the extra `train`
MODULES = ("numba", "pyarrow", "sklearn", "scipy", "torch")
BUILD = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
# The folder of each package in the project, and the files besides modules that it ships.
PACKAGES = {
    **{
        str(folder.relative_to(base)): (folder.relative_to(ROOT), ())
        for base, name in ((ROOT, "registry_tool"), (ROOT / "plugins", "fr_ensemble"))
        for folder in sorted({path.parent for path in (base / name).rglob("__init__.py")})
        if "template" not in folder.parts
    },
    "registry_tool": (Path("registry_tool"), ("py.typed",)),
    "registry_tool/schemas": (Path("schemas"), ("*.json",)),
    "registry_tool/report/templates": (Path("registry_tool/report/templates"), ("*.jinja", "*.css")),
    "registry_tool/plugins/template": (Path("registry_tool/plugins/template"), ("*.csv", "*.md", "*.toml", "*.yml")),
    "registry_tool/plugins/template/single": (
        Path("registry_tool/plugins/template/single"),
        ("*.csv", "*.md", "*.toml", "*.yml"),
    ),
    "registry_tool/plugins/template/single/src/registry_ruler": (
        Path("registry_tool/plugins/template/single/src/registry_ruler"),
        (),
    ),
    "registry_tool/plugins/template/single/tests": (Path("registry_tool/plugins/template/single/tests"), ()),
    "registry_tool/plugins/template/src/registry_ruler": (
        Path("registry_tool/plugins/template/src/registry_ruler"),
        (),
    ),
    "registry_tool/plugins/template/tests": (Path("registry_tool/plugins/template/tests"), ()),
    "fr_ensemble/data": (Path("plugins/fr_ensemble/data"), ("*.parquet", "*.md")),
}

pytestmark = pytest.mark.slow


def pip(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, since building leaves files beside the sources."""
    target = tmp_path_factory.mktemp("packaging") / "source"
    return shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))


@pytest.fixture(scope="session")
def wheel(source: Path) -> Path:
    folder = source.parent / "wheels"
    pip("wheel", *BUILD, "--wheel-dir", folder, source)
    (path,) = folder.iterdir()
    return path


class Bare:
    """An environment with the wheel and its runtime dependencies, and no extra."""

    def __init__(self, base: Path, wheel: Path) -> None:
        self.bin = base / "bin"
        venv.create(base, with_pip=False)
        self.environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "REGISTRY_JSON")}
        pip("--python", self.bin / "python", "install", "--quiet", "--disable-pip-version-check", wheel)

    def run(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, cwd=self.bin.parent
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"), wheel)


def test_wheel_contents(wheel: Path) -> None:
    """The wheel holds the core, the plugin, the schemas and the corpus, and nothing else."""
    expected = {
        f"{package}/{path.name}"
        for package, (folder, patterns) in PACKAGES.items()
        for pattern in ("*.py", *patterns)
        for path in (ROOT / folder).glob(pattern)
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {n for n in names if ".dist-info/" not in n} == expected
    for needed in (
        "registry_tool/cli.py",
        "registry_tool/schemas/registry.schema.json",
        "fr_ensemble/plugin.py",
        "fr_ensemble/data/corpus.parquet",
    ):
        assert needed in names
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)


def test_packages_are_listed() -> None:
    """Every folder with modules or data below the packages is one that the wheel's test knows."""
    roots = {Path("registry_tool"): "registry_tool", Path("plugins/fr_ensemble"): "fr_ensemble"}
    for folder, package in roots.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix == ".py" or path.parent.name == "data":
                assert f"{package}/{path.relative_to(ROOT / folder).parent.as_posix()}".removesuffix("/.") in PACKAGES


def test_wheel_metadata(wheel: Path) -> None:
    """Heavy libraries are asked for by extras alone; the program and the plugin are entry points."""
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n}
        metadata = archive.read(f"{folder}/METADATA").decode()
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)([^\n]*)$", metadata, flags=re.MULTILINE)
    light = {name for name, rest in required if "extra ==" not in rest}
    assert light == {
        *("click", "filelock", "jinja2", "jsonschema", "numpy", "onnx", "onnxruntime", "packaging", "pluggy")
    }
    for extra, names in (("train", set(HEAVY)), ("torch", {"torch"})):
        assert {name for name, rest in required if re.search(rf"extra == [\"']{extra}[\"']", rest)} == names
    assert "registry = registry_tool.__main__:start" in entry_points
    assert "fr_ensemble = fr_ensemble.plugin" in entry_points


def test_bare_environment_is_bare(bare: Bare) -> None:
    """The runtime dependencies bring none of the training libraries."""
    check = f"import importlib.util as u; print([n for n in {MODULES} if u.find_spec(n)])"
    assert bare.run("python", "-c", check).stdout == "[]\n"


def test_bare_validate_gate_flip(bare: Bare, smoke: Sandbox, tmp_path: Path) -> None:
    """A trained entry is validated, gated, flipped and validated as production without a training library."""
    model = tmp_path / "model"
    assert "1 entry: valid" in bare.run("registry", "validate", model).stdout
    assert "PROMOTE" in bare.run("registry", "gate", "tiny", "--registry", model).stdout
    bare.run("registry", "flip", "tiny", "--registry", model)
    assert "1 entry: valid" in bare.run("registry", "validate", model).stdout
    (entry,) = json.loads(bare.run("registry", "list", "--registry", model, "--format", "json").stdout)
    assert entry["smoke"] is False


def test_bare_predict_evaluate(bare: Bare, production: Sandbox, made: Made, tmp_path: Path) -> None:
    """An entry predicts and is evaluated from CSV without a training library, with finite figures."""
    options = ("--corpus", made.heldout, "--registry", tmp_path / "model")
    rows = list(csv.DictReader(bare.run("registry", "predict", "tiny", *options).stdout.splitlines()))
    with made.heldout.open() as file:
        assert len(rows) == len(file.readlines()) - 1
    assert all(float(r["lower_95"]) <= float(r["mu"]) <= float(r["upper_95"]) for r in rows)
    figures = json.loads(bare.run("registry", "evaluate", "tiny", *options, "--format", "json").stdout)
    assert figures["n_rows"] == len(rows)
    assert 0.9 < figures["plcc"] <= 1


def test_bare_train(bare: Bare, tmp_path: Path) -> None:
    """Training without its libraries is one line that names what to install, exit 2, and writes nothing."""
    path = tmp_path / "model" / "registry.json"
    done = bare.run("registry", "train", "fr_ensemble", "--id", "x", "--smoke", "--registry", path, code=2)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("pip install numba scipy\n")
    done = bare.run("registry", "train", "fr_ensemble", "--id", "x", "--registry", path, code=2)
    assert done.stderr.endswith("pip install numba scipy pyarrow\n")  # the corpus that ships is a parquet
    assert not path.exists()


def test_bare_parquet(bare: Bare, production: Sandbox, tmp_path: Path) -> None:
    """Reading parquet without pyarrow is one line that names what to install, exit 2."""
    corpus = ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet"
    done = bare.run("registry", "predict", "tiny", "--corpus", corpus, "--registry", tmp_path / "model", code=2)
    assert len(done.stderr.splitlines()) == 1
    assert "pip install pyarrow" in done.stderr


def test_editable_install(source: Path, tmp_path: Path) -> None:
    """An editable install finds every package where it stands in the project, the schemas too."""
    environment, tools = tmp_path / "environment", tmp_path / "tools"
    venv.create(environment, with_pip=False)
    tools.mkdir()
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if item.name.startswith(("setuptools", "_distutils_hack")):
            (tools / item.name).symlink_to(item)
    python = environment / "bin" / "python"
    site = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (environment / "lib" / site / "site-packages" / "tools.pth").write_text(f"{tools}\n")
    pip("--python", python, "install", *BUILD, "--editable", source)
    check = (
        "import registry_tool as core, registry_tool.schemas as schemas, fr_ensemble as plugin\n"
        "print(*(m.__path__[0] for m in (core, schemas, plugin)))"
    )
    done = subprocess.run([python, "-c", check], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == [str(source / p) for p in ("registry_tool", "schemas", "plugins/fr_ensemble")]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first run on a Python leaves the packages for the others."""
    return tmp_path_factory.mktemp("matrix")


@pytest.mark.parametrize(
    ("version", "versions", "extras"), [("3.11", "lowest", ""), ("3.12", "newest", "train"), ("3.13", "newest", "")]
)
def test_from_scratch_on_each_python(built: Path, version: str, versions: str, extras: str) -> None:
    """Wheel and source distribution install and run on each Python, and train in an empty folder without the clone."""
    options = ("--versions", versions, "--extras", extras, "--built", built)
    command = [sys.executable, ROOT / ".ci" / "matrix.py", version, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if f"not here: {version}" in done.stdout:
        pytest.skip(f"Python {version} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed: none; not here: none" in done.stdout
