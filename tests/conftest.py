"""conftest.py: an ensemble, really trained and really flipped, made once a run; and the program. Tests nothing."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import tiny_models
from filelock import FileLock
from places import SHARED_DATA
from sandbox import Sandbox, to_json

from registry_tool import cli
from registry_tool.hookspec import Kind, hookimpl
from registry_tool.plugins.manager import Plugins, load

sys.modules.setdefault("conftest", sys.modules[__name__])  # what tests import from here is this module, once

FEATURES = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")
ENCODERS = ("libx264", "libx265", "libsvtav1")
TRAINING = ("--seeds", "0,1,2", "--epochs", "30", "--hidden", "16", "--learning-rate", "0.01", "--license", "MIT")


def write_corpus(path: Path, sources: int, rows: int, seed: int) -> Path:
    """A CSV whose vmaf is a smooth function of canonical-6, with `rows` rows a source."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", "encoder", *FEATURES, "vmaf"))
        for source in range(sources):
            for row in range(rows):
                quality = rng.uniform(0.2, 1.0)
                features = quality ** np.array([0.2, 1.0, 0.7, 0.5, 0.35]) + rng.normal(0, 0.01, 5)
                motion = rng.uniform(1, 8)
                vmaf = 100 * quality**0.6
                writer.writerow((f"s{seed}{source}", ENCODERS[row % 3], *features.clip(0, 1), motion, vmaf))
    return path


@dataclass(frozen=True, slots=True)
class Made:
    """What a run of the tests makes once and only copies. smoke, production, random: folders of registries."""

    corpus: Path
    heldout: Path
    smoke: Path
    production: Path
    random: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Trained and flipped through the program itself; every worker of a parallel run shares it."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    made = Made(base / "corpus.csv", base / "heldout.csv", base / "smoke", base / "production", base / "random")
    with FileLock(f"{base}.lock"):
        if not made.production.exists():
            base.mkdir()
            write_corpus(made.corpus, 5, 60, seed=1)
            write_corpus(made.heldout, 3, 40, seed=2)
            program(
                "train",
                "fr_ensemble",
                "--id",
                "tiny",
                "--corpus",
                made.corpus,
                *TRAINING,
                "--registry",
                made.smoke / "registry.json",
            )
            program(
                "train",
                "fr_ensemble",
                "--id",
                "tiny",
                "--smoke",
                *TRAINING,
                "--registry",
                made.random / "registry.json",
            )
            shutil.copytree(made.smoke, base / "staged")
            program("flip", "tiny", "--registry", base / "staged")
            (base / "staged").rename(made.production)
    return made


def program(*arguments: object, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program as its users do; CalledProcessError where it does not exit with 0."""
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    options = {"check": True, "capture_output": True, "text": True, "timeout": timeout} | options
    return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]  # checked by the tests


@pytest.fixture
def public_documents(tmp_path: Path) -> Path:
    """A scratch copy of the public registry's JSON files; its models are not public."""
    public = SHARED_DATA / "public-registry-v1"
    if not public.is_dir():
        pytest.skip("the public registry's JSON files are not beside this checkout")
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in public.glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture
def smoke(made: Made, tmp_path: Path) -> Sandbox:
    """A registry of one trained smoke entry, `tiny`, that clears its gate."""
    return Sandbox(made.smoke / "registry.json").copy(tmp_path / "model")


@pytest.fixture
def production(made: Made, tmp_path: Path) -> Sandbox:
    """The same after a flip."""
    return Sandbox(made.production / "registry.json").copy(tmp_path / "model")


@pytest.fixture
def random_rows(made: Made, tmp_path: Path) -> Sandbox:
    """A registry of one smoke entry, `tiny`, that was trained on random rows."""
    return Sandbox(made.random / "registry.json").copy(tmp_path / "model")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the program gave."""

    code: int
    out: str
    err: str


class Program(Protocol):
    def __call__(self, *arguments: object, plugins: Plugins | None = None) -> Ran: ...


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program in this process: everything but a SystemExit fails the test, so no traceback goes unseen."""
    monkeypatch.delenv("REGISTRY_JSON", raising=False)

    def run(*arguments: object, plugins: Plugins | None = None) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["registry", *map(str, arguments)])
            if plugins is not None:
                patch.setattr("registry_tool.plugins.manager.load", lambda: plugins)
            with pytest.raises(SystemExit) as exit:
                cli.main()
        return Ran(int(exit.value.code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def plugins() -> Plugins:
    """The built-in plugin and the installed ones, on a fresh manager."""
    return load()


def with_plugin(plugin: object, name: str = "extra") -> Plugins:
    """A fresh manager with the installed plugins and one more."""
    loaded = load()
    loaded.add(plugin, name, "7")
    return loaded


class Thumbs:
    """The smallest plugin that owns a kind of its own: `thumb`, one ONNX file."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("thumb", "thumbnail rankers")]


@pytest.fixture
def thumb(tmp_path: Path) -> Sandbox:
    """A registry of one smoke entry, `t`, of the kind `thumb`: one ONNX file, and a policy that asks for a score."""
    folder = tmp_path / "thumbs"
    entry = tiny_models.entry(folder, tiny_models.model(), "t", kind="thumb")
    rules = [{"metric": "score", "op": ">=", "bound": 0.5}]
    document = {"schema_version": 2, "policies": {"thumb": {"rules": rules}}, "models": [entry]}
    (folder / "registry.json").write_bytes(to_json(document))
    return Sandbox(folder / "registry.json", "t")
