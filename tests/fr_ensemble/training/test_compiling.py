"""test_compiling.py: where compiled code is kept: the user's cache, never the checkout, and what if it is read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, TESTS

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

pytestmark = pytest.mark.slow

CHILD = """
from corpora import digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import compiling
from fr_ensemble.training.trainer import train
told = []
print(digest(train(make_corpus([5, 6]), Recipe(epochs=1), jobs=1, progress=lambda what, *n: told.append(what))))
print(*sorted(set(told)), sep=", ")
print(compiling.cache_folder())
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


def trained(before: str = "", **environment: str) -> tuple[str, str, Path]:
    """The digest of a run in a process of its own, what it said it was doing, and where it kept the code."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    kept |= environment | {"PYTHONPATH": str(TESTS / "helpers")}
    command = [sys.executable, "-c", before + CHILD]
    ran = subprocess.run(command, env=kept, text=True, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    digest, told, folder = ran.stdout.splitlines()
    return digest, told, Path(folder)


def test_the_first_use_compiles_and_says_so(tmp_path: Path) -> None:
    """Into the user's cache folder; the second use reads it. Nothing lands beside the sources."""
    (first, told, folder), again = trained(XDG_CACHE_HOME=str(tmp_path)), trained(XDG_CACHE_HOME=str(tmp_path))
    assert told == "compiling the trainer once, training (model-epochs)"
    assert again == (first, "training (model-epochs)", folder)
    assert folder.parent == tmp_path / "registry-tool"
    assert len([*folder.rglob("*.nbc")]) == 2
    assert not [*PACKAGE.rglob("*.nbi")]


def test_a_read_only_cache_is_read(tmp_path: Path) -> None:
    """A cache that somebody else filled serves as it is, from a copy that is gone afterwards."""
    first, _, folder = trained(XDG_CACHE_HOME=str(tmp_path))
    again, told, copy = trained(READ_ONLY, XDG_CACHE_HOME=str(tmp_path))
    assert (again, told) == (first, "training (model-epochs)")
    assert copy != folder
    assert not copy.exists()


def test_a_cache_that_cannot_be_made_costs_time_alone(tmp_path: Path) -> None:
    """Where a file stands in the way, the code goes to a temporary folder, which is gone afterwards."""
    (tmp_path / "registry-tool").write_text("")
    _, told, folder = trained(XDG_CACHE_HOME=str(tmp_path))
    assert told.startswith("compiling the trainer once")
    assert not folder.exists()


def test_numbas_own_variable_counts(tmp_path: Path) -> None:
    """NUMBA_CACHE_DIR says where, as everywhere."""
    assert trained(NUMBA_CACHE_DIR=str(tmp_path))[2].parent == tmp_path / "registry-tool"
