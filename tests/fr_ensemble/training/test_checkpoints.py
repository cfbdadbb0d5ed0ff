"""test_checkpoints.py: an interrupted or killed run goes on to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from corpora import digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training import model
from fr_ensemble.training.checkpoints import Checkpoint
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import ModelState, train_model
from fr_ensemble.training.table import FINAL_FOLD, ModelKey, prepare
from fr_ensemble.training.trainer import train
from places import TESTS

from registry_tool.errors import InputError, WorldError

pytestmark = pytest.mark.slow

DATA = make_corpus([14, 9, 12], conditioning=1)
RECIPE = Recipe(seeds=(0, 1), epochs=40_000, hidden=16, batch_size=8, input_noise=0.05)
CHILD = """
import sys
from pathlib import Path
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import train
from test_checkpoints import DATA, RECIPE
train(DATA, RECIPE, Execution(jobs=2, checkpoint=Path(sys.argv[1]), checkpoint_seconds=0.0))
"""


@pytest.fixture(scope="module")
def expected() -> str:
    """The bytes of the run that nothing disturbed."""
    return digest(train(DATA, RECIPE, Execution(jobs=1)))


def interrupt(what: str, done: int, total: int) -> None:
    """Progress as seen by someone who presses Ctrl-C once the first epochs are done."""
    if what.startswith("training") and done:
        raise KeyboardInterrupt


def begin(folder: Path) -> None:
    """Leave a checkpoint of an unfinished run."""
    with pytest.raises(KeyboardInterrupt):
        train(DATA, RECIPE, Execution(jobs=1, checkpoint=folder, checkpoint_seconds=0.0), progress=interrupt)


def test_interrupted_run_resumes_to_the_same_bytes(
    tmp_path: Path, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C, --resume, which is named, goes on where the checkpoint stands, with other workers too, and ends the
    same."""
    begin(tmp_path / "run")
    assert capsys.readouterr().err == f"{tmp_path / 'run'}: kept what was trained so far: --resume goes on from there\n"
    reports: list[int] = []
    trained = train(
        DATA,
        RECIPE,
        Execution(jobs=2, checkpoint=tmp_path / "run", resume=True),
        progress=lambda what, d, t: reports.append(d),
    )
    assert digest(trained) == expected
    assert reports[-1] == 8 * RECIPE.epochs
    again = train(DATA, RECIPE, Execution(checkpoint=tmp_path / "run", resume=True))
    assert digest(again) == expected


@pytest.mark.parametrize(
    "options", [{}, {"early_stopping": 3}, {"encoder_dropout": 0.3}, {"dropout": 0.0, "decoupled_weight_decay": True}]
)
@pytest.mark.parametrize("key", [ModelKey(1, 0), ModelKey(FINAL_FOLD, 1)])
def test_a_model_resumes_at_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: ModelKey, options: dict[str, object]
) -> None:
    """Stopped after each of its epochs in turn, and after none, a model ends with the same bytes."""
    monkeypatch.setattr(model, "STEPS_A_CALL", 1)
    data = make_corpus([5, 4, 6], conditioning=1)
    recipe = Recipe(seeds=(0, 1), epochs=9, hidden=8, batch_size=4, input_noise=0.1, **options)  # type: ignore[arg-type]
    table, keeper = prepare(data), Checkpoint(tmp_path, 0.0)
    whole = train_model(table, recipe, key)
    assert whole is not None
    epochs: list[int] = []
    for _ in range(recipe.epochs + 2):  # each goes one epoch further
        ended = train_model(table, recipe, key, keeper, lambda k, done: epochs.append(done), iter([0, 1]).__next__)
        if ended is not None:
            break
    assert ended is not None
    assert sorted(set(epochs)) == epochs[: len(set(epochs))]
    assert ended.scores.tobytes() == whole.scores.tobytes()
    assert ended.weights.w2.tobytes() == whole.weights.w2.tobytes()


def test_killed_process_resumes_to_the_same_bytes(tmp_path: Path, expected: str) -> None:
    """A process killed without warning leaves whole files, from which the run ends the same."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS / 'helpers'}{os.pathsep}{Path(__file__).parent}"}
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=environment) as child:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.npz"))) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert digest(train(DATA, RECIPE, Execution(jobs=2, checkpoint=tmp_path, resume=True))) == expected


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """A checkpoint is neither overwritten without --resume nor continued with another recipe or other data."""
    begin(tmp_path)
    with pytest.raises(InputError, match="add --resume"):
        train(DATA, RECIPE, Execution(checkpoint=tmp_path))
    with pytest.raises(InputError, match="another recipe"):
        train(DATA, replace(RECIPE, dropout=0.2), Execution(checkpoint=tmp_path, resume=True))
    with pytest.raises(InputError, match="other data"):
        train(replace(DATA, target=DATA.target + 1), RECIPE, Execution(checkpoint=tmp_path, resume=True))


def test_what_is_left_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    """A folder whose run.json was removed is still another run's, whose models nothing takes up."""
    begin(tmp_path)
    (tmp_path / "run.json").unlink()
    for resume, word in ((False, "add --resume or remove it"), (True, "another recipe")):
        with pytest.raises(InputError, match=word):
            train(DATA, replace(RECIPE, dropout=0.2), Execution(checkpoint=tmp_path, resume=resume))


def test_a_state_of_another_run_or_model_is_named(tmp_path: Path) -> None:
    """Files of the same shapes that were brought from another folder, or have another's name."""
    table, keeper = prepare(DATA), Checkpoint(tmp_path, 0.0, "one")
    saved, other = (ModelState.begin(table, RECIPE, ModelKey(fold, 0)) for fold in (0, 1))
    keeper.save(saved)
    keeper.load(saved)
    shutil.copy(keeper.path(saved), keeper.path(other))
    for reader, wanted in ((replace(keeper, run="two"), saved), (keeper, other)):
        with pytest.raises(InputError, match=f"{keeper.path(wanted).name}: found no state of this model"):
            reader.load(wanted)


def test_checkpoint_of_an_older_release_is_refused(tmp_path: Path) -> None:
    """Release 0.1.0 wrote `plan.json` and stacks of models, which nothing goes on from."""
    (tmp_path / "plan.json").write_text('{"run": "0", "blocks": []}')
    for resume in (False, True):
        with pytest.raises(InputError, match="another trainer" if resume else "add --resume or remove it"):
            train(DATA, RECIPE, Execution(checkpoint=tmp_path, resume=resume))


@pytest.mark.parametrize(
    ("name", "word", "array"),
    [
        ("run.json", "no description", False),
        ("final-seed0.npz", "no state of this model", False),
        ("final-seed0.npz", "no state of this model", True),
    ],
)
def test_damaged_checkpoint_is_named(tmp_path: Path, name: str, word: str, array: bool) -> None:
    """A damaged file is named, never trained on."""
    begin(tmp_path)
    if array:
        with (tmp_path / name).open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(InputError, match=word) as caught:
        train(DATA, RECIPE, Execution(checkpoint=tmp_path, resume=True))
    assert name in str(caught.value)


def test_a_state_of_another_shape_is_named(tmp_path: Path) -> None:
    """As of a file that was exchanged for another model's."""
    table, keeper, key = prepare(DATA), Checkpoint(tmp_path, 0.0), ModelKey(0, 0)
    keeper.save(ModelState.begin(table, replace(RECIPE, hidden=40), key))
    with pytest.raises(InputError, match="no state of this model"):
        keeper.load(ModelState.begin(table, RECIPE, key))


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    """Nor is a folder below one: bad input, before training, and the file stays."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="found a file there or above it"):
        train(DATA, RECIPE, Execution(checkpoint=tmp_path / name))
    assert (tmp_path / "file").read_text() == "mine"


def test_checkpoint_folder_that_cannot_be_made() -> None:
    """A folder that the system does not let be made is an environment error before training."""
    with pytest.raises(WorldError, match="expected a folder"):
        train(DATA, RECIPE, Execution(checkpoint=Path("/proc/no/run")))
