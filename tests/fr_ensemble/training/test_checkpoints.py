"""Checkpoints: an interrupted or killed run goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.trainer import train
from places import ROOT
from training_corpus import digest, make_corpus

from registry_tool.errors import InputError, WorldError

DATA = make_corpus([14, 9, 12], conditioning=1)
RECIPE = Recipe(seeds=(0, 1), epochs=1500, hidden=16, batch_size=8, input_noise=0.05)
HERE = Path(__file__).parent
CHILD = """
import sys
from pathlib import Path
from fr_ensemble.training.trainer import train
from test_checkpoints import DATA, RECIPE
train(DATA, RECIPE, jobs=2, stack=4, checkpoint=Path(sys.argv[1]), checkpoint_seconds=0.0)
"""


@pytest.fixture(scope="module")
def expected() -> str:
    """The bytes of the run that nothing disturbed."""
    return digest(train(DATA, RECIPE, jobs=1))


def interrupt(done: int, total: int) -> None:
    """Progress as seen by someone who presses Ctrl-C once the first epochs are done."""
    if done:
        raise KeyboardInterrupt


def begin(folder: Path) -> None:
    """Leave a checkpoint of an unfinished run."""
    with pytest.raises(KeyboardInterrupt):
        train(DATA, RECIPE, jobs=1, checkpoint=folder, checkpoint_seconds=0.0, progress=interrupt)


def test_interrupted_run_resumes_to_the_same_bytes(tmp_path: Path, expected: str) -> None:
    """After Ctrl-C, --resume goes on where the checkpoint stands, with other workers too, and ends the same."""
    begin(tmp_path / "run")
    reports: list[int] = []
    trained = train(
        DATA, RECIPE, jobs=2, stack=3, checkpoint=tmp_path / "run", resume=True, progress=lambda d, t: reports.append(d)
    )
    assert digest(trained) == expected
    assert reports[0] > 0
    again = train(DATA, RECIPE, checkpoint=tmp_path / "run", resume=True)
    assert digest(again) == expected


def test_killed_process_resumes_to_the_same_bytes(tmp_path: Path, expected: str) -> None:
    """A process killed without warning leaves whole files, from which the run ends the same."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests" / "helpers"), str(HERE)])
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}) as child:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("block-*.npz"))) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert digest(train(DATA, RECIPE, jobs=2, checkpoint=tmp_path, resume=True)) == expected


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """A checkpoint is neither overwritten without --resume nor continued with another recipe or other data."""
    begin(tmp_path)
    with pytest.raises(InputError, match="add --resume"):
        train(DATA, RECIPE, checkpoint=tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        train(DATA, replace(RECIPE, dropout=0.2), checkpoint=tmp_path, resume=True)
    with pytest.raises(InputError, match="other data"):
        train(replace(DATA, target=DATA.target + 1), RECIPE, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(("name", "word"), [("plan.json", "no plan"), ("block-0.npz", "no state of this block")])
def test_damaged_checkpoint_is_named(tmp_path: Path, name: str, word: str) -> None:
    """A damaged file is named, never trained on."""
    begin(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(InputError, match=word) as caught:
        train(DATA, RECIPE, checkpoint=tmp_path, resume=True)
    assert name in str(caught.value)


def test_checkpoint_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder that cannot be written to is an error before training."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldError, match="expected a folder"):
        train(DATA, RECIPE, checkpoint=tmp_path / "file" / "run")
