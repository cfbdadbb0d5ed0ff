"""test_compiling.py: where compiled code is kept, the user's cache, never the checkout; and what is compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
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
LLVM = """
from fr_ensemble.training import kernel
for function in (kernel.train_epochs, kernel.scores):
    assert len(function.signatures) == 1
    print(function.inspect_llvm(function.signatures[0]))
"""
WHERE = """
from fr_ensemble.training import compiling, trainer
print(compiling.cache_folder(), compiling.cache_folder().is_dir(), sep="\\n")
"""
FAST = re.compile(r"\b(fast|reassoc|contract|nnan|ninf|nsz|arcp|afn)\b")
# What machine code of ours may call: of a maths library only the root, which IEEE 754 has rounded correctly everywhere.
ALLOWED = ("llvm.", "numba_", "NRT_", "Py", "_Py", "_ZN", "sqrt")
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


@dataclass(frozen=True)
class FirstUse:
    """A cache folder that a first run filled, what `trained` gives of that run, and the LLVM of what it compiled."""

    cache: Path
    digest: str
    told: str
    folder: Path
    llvm: list[str]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FirstUse:
    cache = tmp_path_factory.mktemp("compiled")
    digest, told, folder, *llvm = ran(CHILD + LLVM, XDG_CACHE_HOME=str(cache))
    return FirstUse(cache, digest, told, Path(folder), llvm)


@pytest.fixture
def cache(first: FirstUse, tmp_path: Path) -> Path:
    return shutil.copytree(first.cache, tmp_path / "cache")


def test_the_first_use_compiles_and_says_so(first: FirstUse, tmp_path: Path) -> None:
    """Into the user's cache folder; another installation's use reads it. Nothing is written beside the sources."""
    shutil.copytree(PACKAGE, tmp_path / "fr_ensemble", copy_function=shutil.copy)
    again = trained(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", XDG_CACHE_HOME=str(first.cache))
    assert first.told == "compiling the trainer once, training (model-epochs)"
    assert again == (first.digest, "training (model-epochs)", first.folder)
    assert first.folder.parent == first.cache / "registry-tool"
    assert len([*first.folder.rglob("*.nbc")]) == 2
    assert not [*PACKAGE.rglob("*.nbi")]


def test_a_read_only_cache_is_read(cache: Path, first: FirstUse) -> None:
    """A cache that another user filled serves as it is, from a copy that is gone afterwards."""
    again, told, copy = trained(READ_ONLY, XDG_CACHE_HOME=str(cache))
    assert (again, told) == (first.digest, "training (model-epochs)")
    assert not copy.is_relative_to(cache)
    assert not copy.exists()


def test_a_cache_that_cannot_be_made_is_a_temporary_one(tmp_path: Path) -> None:
    """Where a file stands in the way, the code goes to another folder, which is gone afterwards."""
    (tmp_path / "registry-tool").write_text("")
    folder, was_there = ran(WHERE, XDG_CACHE_HOME=str(tmp_path))
    assert (was_there, Path(folder).exists()) == ("True", False)


def test_a_damaged_cache_is_made_again(cache: Path, first: FirstUse) -> None:
    """An index or code cut short, as by a full disk, costs the seconds of compiling, not the run."""
    damaged = [min(cache.rglob("*.nbi")), max(cache.rglob("*.nbc"))]  # of two functions
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    assert trained(XDG_CACHE_HOME=str(cache))[0] == first.digest
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


def test_numbas_own_variable_counts(cache: Path, first: FirstUse) -> None:
    """NUMBA_CACHE_DIR says where, as everywhere."""
    again, told, folder = trained(NUMBA_CACHE_DIR=str(cache))
    assert (again, told) == (first.digest, "training (model-epochs)")
    assert folder.parent == cache / "registry-tool"


def test_nothing_lets_the_compiler_change_a_bit(first: FirstUse) -> None:
    """The LLVM of the whole kernel has no fast-math flag, calls no maths library, and is compiled once."""
    numbers = re.compile(r"= (tail )?(fadd|fsub|fmul|fdiv|call.*@llvm\.(fma|sqrt))\b")
    arithmetic = [line for line in first.llvm if numbers.search(line)]
    assert len(arithmetic) > 300
    assert [line for line in arithmetic if FAST.search(line)] == []
    called = {name for line in first.llvm for name in re.findall(r"call [^@]*@\"?([\w.]+)", line)}
    assert {name for name in called if not name.startswith(ALLOWED)} == set()
