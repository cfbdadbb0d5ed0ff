"""Work in slices: the same answers in the same order however many processes; a worker that dies is an error."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from sandbox import to_json

from registry_tool.checks import workers
from registry_tool.checks.registry import check
from registry_tool.checks.workers import FEWEST, Slices, useful
from registry_tool.documents import store
from registry_tool.errors import WorldError
from registry_tool.hookspec import Level
from registry_tool.plugins import manager

ITEMS = 1000
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")]


def answers(work: Any, items: int = ITEMS, processes: int = 2) -> list[Any]:
    with Slices(work, items, processes) as slices:
        return list(slices)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 64, 65, ITEMS])
def test_answers_come_in_order(items: int, processes: int) -> None:
    """Every item is worked on once, and answers of any size come in the items' order."""
    found = answers(lambda numbers: [(n, "x" * (n * 20)) for n in numbers], items, processes)
    assert [n for some in found for n, _ in some] == list(range(items))
    assert all(text == "x" * (n * 20) for some in found for n, text in some)


def test_the_work_is_done_elsewhere() -> None:
    """With two processes none of the work happens in this one; with one, all of it."""
    assert os.getpid() not in answers(lambda numbers: os.getpid())
    assert set(answers(lambda numbers: os.getpid(), processes=1)) == {os.getpid()}


def test_an_exception_is_the_one_that_a_single_process_raises() -> None:
    """What goes wrong in a worker is raised here, as itself."""

    def work(numbers: range) -> int:
        if 500 in numbers:
            raise KeyError("number 500")
        return numbers.start

    with pytest.raises(KeyError, match="number 500"):
        answers(work)


def test_an_answer_that_cannot_be_sent_is_worked_out_here() -> None:
    """A worker's answer that has no form for the way back is not lost."""
    here = os.getpid()
    assert answers(lambda numbers: lambda: here)[3]() == here


def children() -> str:
    """The process ids of this process' children, ended and not waited for included."""
    return Path("/proc/self/task", str(os.getpid()), "children").read_text()


@pytest.mark.parametrize("how", ["kill", "exit", "leave"])
def test_a_worker_that_dies_is_an_error(how: str) -> None:
    """Killed, or ended in any other way before its work is done: an error that says so, and nobody is left."""
    here = os.getpid()

    def work(numbers: range) -> int:
        if os.getpid() != here and 500 in numbers:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(7 if how == "exit" else 0)
        return numbers.start

    others = children()
    with pytest.raises(
        WorldError, match={"kill": "signal 9", "exit": "exit code 7", "leave": "before their work"}[how]
    ):
        answers(work)
    assert children() == others


def test_leaving_ends_the_workers() -> None:
    """Whoever leaves before the end, for an interrupt say, leaves no process and no open file behind."""
    before, others = set(os.listdir("/proc/self/fd")), children()
    with pytest.raises(KeyboardInterrupt), Slices(lambda numbers: time.sleep(60), ITEMS, 2):
        raise KeyboardInterrupt
    assert children() == others
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_orphan_ends_by_itself() -> None:
    """Where the parent is killed outright, its workers end with their next answer."""
    script = (
        "import os, time\nfrom registry_tool.checks.workers import Slices\n"
        "def work(numbers):\n    time.sleep(0.2)\n    return bytes(100_000)\n"
        "with Slices(work, 1000, 2) as slices:\n"
        "    print(*slices._workers.values(), flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == -signal.SIGKILL  # their end closed our pipe, or this would have waited for ever
    assert len(ran.stdout.split()) == 2


def test_where_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few items, one core, another thread: one process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "listdir", lambda _: ["1"])
    assert (useful(FEWEST - 1), useful(FEWEST)) == (1, 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert useful(FEWEST) == workers.MOST
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert useful(FEWEST) == 1
    monkeypatch.undo()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert useful(FEWEST) == 1
    finally:
        stop.set()
        thread.join()


# ---- a registry -------------------------------------------------------------------------------------------------


def damaged(folder: Path, n: int) -> Path:
    """A version-2 registry of n entries, of which every fifth has one of a dozen defects; beside them what is odd."""
    rng = random.Random(0)
    row = tiny_models.entry(folder, tiny_models.model(), "m0")
    model = (folder / "m0.onnx").read_bytes()
    rows: list[dict[str, Any]] = []
    for number in range(n):
        name = f"m{number:04d}"
        onnx = folder / f"{name}.onnx"
        onnx.write_bytes(model)
        mine = {**row, "id": name, "onnx": onnx.name, "license": "MIT", "smoke": True}
        match number % 60:
            case 0:
                onnx.write_bytes(model + b"x")
            case 5:
                onnx.unlink()
            case 10:
                onnx.unlink()
                onnx.symlink_to("m0.onnx")
            case 15:
                (folder / f"{name}.json").write_text('{"id": 1, "id": 2}')
            case 20:
                (folder / f"{name}.json").write_text('{"id": "other",\n "kind": "nr"}')
            case 25:
                mine["kind"] = "fr_ensemble_of_nobody"
            case 30:
                mine["onnx"] = f"sub/../{name}.onnx"
            case 35:
                mine["promotion"] = {"imported_from": "0" * 64}
            case 40:
                mine["smoke"] = False
            case 45:
                mine["id"] = f"m{number - 1:04d}"
            case 50:
                (folder / f"{name}.json").write_text("[" * 50)
            case 55:
                (folder / f"{name}.json").write_text(json.dumps({"feature_order": ["a", "a"]}))
        rows.append(mine)
    rng.shuffle(rows)
    (folder / "M0001.onnx").write_bytes(b"")
    (folder / "loose.data").write_bytes(b"")
    document = {"schema_version": 2, "policies": {}, "models": rows}
    (folder / "registry.json").write_bytes(to_json(document))
    return folder / "registry.json"


def test_as_many_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defects of all sorts, spread over the slices, give the same findings in the same order in one process and two."""
    loaded = store.load(damaged(tmp_path, 900))
    assert isinstance(loaded, store.Loaded)
    found = []
    for processes in (1, 2):
        forks: list[int] = []
        fork = os.fork
        monkeypatch.setattr("registry_tool.checks.registry.useful", lambda items, processes=processes: processes)
        monkeypatch.setattr(os, "fork", lambda forks=forks, fork=fork: forks.append(1) or fork())
        found.append(check(loaded, manager.load(), Level.QUICK))
        monkeypatch.setattr(os, "fork", fork)
        assert len(forks) == (processes if processes > 1 else 0)
    assert found[0] == found[1]
    assert {finding.code for finding in found[0]} >= {
        "digest-mismatch",
        "file-missing",
        "file-is-symlink",
        "file-escapes",
        "json-duplicate-key",
        "json-too-deep",
        "entry-disagrees",
        "kind-unknown",
        "promotion-on-smoke",
        "promotion-missing",
        "id-duplicate",
        "name-collision",
        "file-unregistered",
        "sidecar-unpinned",
    }


def test_a_killed_worker_fails_the_run(tmp_path: Path) -> None:
    """`registry validate` whose worker is killed says so and exits 3; it never says valid."""
    path = damaged(tmp_path, 600)
    script = (
        "import os, signal, sys\nfrom registry_tool import cli\nfrom registry_tool.checks import registry as entry\n"
        "os.sched_getaffinity = lambda _: {0, 1}\nhere, look = os.getpid(), entry.check_entry\n"
        "def deadly(opened, *rest):\n"
        "    if opened.entry.id == 'm0303':\n        assert os.getpid() != here\n        os.kill(os.getpid(), 9)\n"
        "    return look(opened, *rest)\n"
        "entry.check_entry = deadly\n"
        "sys.argv = ['registry', 'validate', '--level', 'quick', sys.argv[1]]\ncli.main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "a worker process ended with signal 9" in ran.stderr
