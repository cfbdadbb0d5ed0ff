"""test_compiling.py: where compiled code is kept: the user's cache, never the checkout, and what if it is read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from places import ROOT, TESTS

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from fr_ensemble.training.trainer import train

from registry_tool.errors import WorldError

pytestmark = pytest.mark.slow

CHILD = """
from corpora import digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import compiling
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train
told = []
note = lambda what, *n: told.append(what)
print(digest(train(make_corpus([5, 6]), Recipe(epochs=1), Execution(jobs=1), progress=note)))
print(*sorted(set(told)), sep=", ")
print(compiling.cache_folder())
"""
WHERE = """
from fr_ensemble.training import compiling, trainer
print(compiling.cache_folder(), compiling.cache_folder().is_dir(), sep="\\n")
"""
PACKAGE = ROOT / "plugins" / "fr_ensemble"


READ_ONLY = """
import os, tempfile
temporary = tempfile.TemporaryFile
def refuse(**options):
    if os.environ["XDG_CACHE_HOME"] in str(options["dir"]):
        raise PermissionError(13, "read-only")
    return temporary(**options)
tempfile.TemporaryFile = refuse
"""


def ran(script: str, **environment: str) -> list[str]:
    """What a process of its own printed, by lines."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    kept |= environment | {"PYTHONPATH": str(TESTS / "helpers")}
    done = subprocess.run([sys.executable, "-c", script], env=kept, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def trained(before: str = "", **environment: str) -> tuple[str, str, Path]:
    """The digest of a run in a process of its own, what it said it was doing, and where it kept the code."""
    digest, told, folder = ran(before + CHILD, **environment)
    return digest, told, Path(folder)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, Path]:
    """A cache folder that a first run filled, and what that run answered."""
    cache = tmp_path_factory.mktemp("compiled")
    return cache, *trained(XDG_CACHE_HOME=str(cache))


@pytest.fixture
def cache(compiled: tuple[Path, str, str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(compiled[0], tmp_path / "cache")


def test_the_first_use_compiles_and_says_so(compiled: tuple[Path, str, str, Path]) -> None:
    """Into the user's cache folder; the second use reads it. Nothing is written beside the sources."""
    cache, first, told, folder = compiled
    again = trained(XDG_CACHE_HOME=str(cache))
    assert told == "compiling the trainer once, training (model-epochs)"
    assert again == (first, "training (model-epochs)", folder)
    assert folder.parent == cache / "registry-tool"
    assert len([*folder.rglob("*.nbc")]) == 2
    assert not [*PACKAGE.rglob("*.nbi")]


def test_a_read_only_cache_is_read(cache: Path, compiled: tuple[Path, str, str, Path]) -> None:
    """A cache that another user filled serves as it is, from a copy that is gone afterwards."""
    again, told, copy = trained(READ_ONLY, XDG_CACHE_HOME=str(cache))
    assert (again, told) == (compiled[1], "training (model-epochs)")
    assert not copy.is_relative_to(cache)
    assert not copy.exists()


def test_a_cache_that_cannot_be_made_costs_time_alone(tmp_path: Path) -> None:
    """Where a file stands in the way, the code goes to a temporary folder, which is gone afterwards."""
    (tmp_path / "registry-tool").write_text("")
    _, told, folder = trained(XDG_CACHE_HOME=str(tmp_path))
    assert told.startswith("compiling the trainer once")
    assert not folder.exists()


def test_a_damaged_cache_is_made_again(cache: Path, compiled: tuple[Path, str, str, Path]) -> None:
    """An index or code cut short, as by a full disk, costs the seconds of compiling, not the run."""
    damaged = [min(cache.rglob("*.nbi")), max(cache.rglob("*.nbc"))]  # of two functions
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    assert trained(XDG_CACHE_HOME=str(cache))[0] == compiled[1]
    assert damaged[0].name.split("-")[0] != damaged[1].name.split("-")[0]
    assert min(path.stat().st_size for path in damaged) > 100


def test_numba_that_may_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """NUMBA_DISABLE_JIT, which debuggers set, would leave nothing to run."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    with pytest.raises(WorldError, match="NUMBA_DISABLE_JIT"):
        train(make_corpus([5, 6]), Recipe(epochs=1))


def test_a_user_without_a_home_has_a_temporary_cache() -> None:
    """As in a container that runs under a number; it is gone afterwards, as where the cache cannot be made."""
    before = "import os, pathlib\ndef none(self): raise RuntimeError('no home')\npathlib.Path.expanduser = none\n"
    folder, was_there = ran(before + WHERE, NUMBA_CACHE_DIR="~/none")
    assert (was_there, Path(folder).exists()) == ("True", False)


def test_numbas_own_variable_counts(cache: Path, compiled: tuple[Path, str, str, Path]) -> None:
    """NUMBA_CACHE_DIR says where, as everywhere."""
    again, told, folder = trained(NUMBA_CACHE_DIR=str(cache))
    assert (again, told) == (compiled[1], "training (model-epochs)")
    assert folder.parent == cache / "registry-tool"
