"""Work in slices: the same answers in the same order however many processes; a worker that dies is an error."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from sandbox import to_json

from registry_tool.checks import workers
from registry_tool.checks.registry import check
from registry_tool.checks.workers import MIN_WORK, answers, count_processes, slices_of
from registry_tool.documents import store
from registry_tool.errors import WorldError
from registry_tool.hookspec import Level
from registry_tool.plugins import manager

ITEMS = 1000
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")]


def run(work: Callable[[range], Any], items: int = ITEMS, processes: int = 2) -> list[Any]:
    @contextmanager
    def begin() -> Iterator[Callable[[range], Any]]:
        yield work

    with answers(begin, slices_of(items, processes), processes) as found:
        return list(found)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 64, 65, ITEMS])
def test_answers_come_in_order(items: int, processes: int) -> None:
    """Every item is worked on once, and answers of any size come in the items' order."""
    found = run(lambda numbers: [(n, "x" * (n * 20)) for n in numbers], items, processes)
    assert [n for some in found for n, _ in some] == list(range(items))
    assert all(text == "x" * (n * 20) for some in found for n, text in some)


def test_the_work_is_done_elsewhere() -> None:
    """With two processes none of the work happens in this one; with one, all of it."""
    assert os.getpid() not in run(lambda numbers: os.getpid())
    assert set(run(lambda numbers: os.getpid(), processes=1)) == {os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_works_in_a_context_of_its_own(processes: int, tmp_path: Path) -> None:
    """It is entered once for each process that works, and left when the work is done."""

    @contextmanager
    def begin() -> Iterator[Callable[[range], int]]:
        mine = tmp_path / f"{os.getpid()}"
        mine.write_text("begun")
        yield lambda numbers: os.getpid()
        mine.write_text("ended")

    with answers(begin, slices_of(ITEMS, processes), processes) as found:
        used = set(map(str, found))
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(texts.values()) == {"ended"}
    assert used <= set(texts)


def test_what_a_worker_raises_is_raised_here() -> None:
    """An error of the work is what a single process would raise, and no process is left."""

    def work(numbers: range) -> int:
        if 500 in numbers:
            raise WorldError("number 500")
        return numbers.start

    others = children()
    for processes in (1, 2):
        with pytest.raises(WorldError, match="number 500"):
            run(work, processes=processes)
    assert children() == others


def children() -> str:
    """The process ids of this process' children, ended and not waited for included."""
    return Path("/proc/self/task", str(os.getpid()), "children").read_text()


@pytest.mark.parametrize("how", ["kill", "exit", "leave"])
def test_a_worker_that_dies_is_an_error(how: str) -> None:
    """Killed, or ended in any other way before its work is done: an error that names that, and no process is left."""
    here = os.getpid()

    def work(numbers: range) -> int:
        if os.getpid() != here and 500 in numbers:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(7 if how == "exit" else 0)
        return numbers.start

    others = children()
    with pytest.raises(WorldError, match="a worker process ended before its work"):
        run(work)
    assert children() == others


def test_a_fork_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and the workers that there were already are ended."""
    forked, fork = [], os.fork

    def fails_at_the_second() -> int:
        if forked:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        forked.append(True)
        return fork()

    others = children()
    monkeypatch.setattr(os, "fork", fails_at_the_second)
    with pytest.raises(WorldError, match="no worker process could be started: Resource temporarily unavailable"):
        run(lambda numbers: 0)
    assert children().split() == others.split()


def test_leaving_ends_the_workers() -> None:
    """What is left before the end, by an interrupt say, leaves no process and no open file behind."""

    @contextmanager
    def begin() -> Iterator[Callable[[range], None]]:
        yield lambda numbers: time.sleep(0.05)

    run(lambda numbers: 0)  # the first run opens what stays open
    before, others = set(os.listdir("/proc/self/fd")), children()
    with pytest.raises(KeyboardInterrupt), answers(begin, slices_of(ITEMS, 2), 2):
        raise KeyboardInterrupt
    assert children() == others
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_workers_end_with_their_parent(how: str) -> None:
    """Where it is killed outright, and where the terminal interrupts it and them: none works on, none says anything."""
    script = f"""
import os, signal, time
from contextlib import contextmanager
from registry_tool.checks.workers import answers, slices_of
@contextmanager
def begin():
    yield lambda numbers: time.sleep(0.2)
os.setpgid(0, 0)
with answers(begin, slices_of(1000, 2), 2) as found:
    next(found)
    print("begun", flush=True)
    os.{"kill(os.getpid()" if how == "SIGKILL" else "killpg(0"}, signal.{how})
    list(found)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    # The workers hold our pipes: this would have waited for them for ever.
    assert (ran.returncode, ran.stdout) == (-getattr(signal, how), "begun\n")
    assert ran.stderr.count("Traceback") == (how == "SIGINT")


def test_where_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, one core, another thread: one process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "listdir", lambda _: ["1"])
    assert (count_processes(MIN_WORK - 1), count_processes(MIN_WORK)) == (1, 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert count_processes(MIN_WORK) == workers.MAX_PROCESSES
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert count_processes(MIN_WORK) == 1
    monkeypatch.undo()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert count_processes(MIN_WORK) == 1
    finally:
        stop.set()
        thread.join()


# ---- a registry -------------------------------------------------------------------------------------------------


def linked(onnx: Path) -> None:
    onnx.unlink()
    onnx.symlink_to("m0.onnx")


def beside(text: str) -> Callable[[Path], object]:
    return lambda onnx: onnx.with_suffix(".json").write_text(text)


FILE_DEFECTS: Mapping[int, Callable[[Path], object]] = {  # number of an entry, modulo 60 -> what is done to its files
    0: lambda onnx: onnx.write_bytes(onnx.read_bytes() + b"x"),
    5: Path.unlink,
    10: linked,
    15: beside('{"id": 1, "id": 2}'),
    20: beside('{"id": "other",\n "kind": "nr"}'),
    50: beside("[" * 50),
    55: beside(json.dumps({"feature_order": ["a", "a"]})),
}
FIELD_DEFECTS: Mapping[int, dict[str, Any]] = {  # the same -> fields of its row; NAME and LAST are ids
    25: {"kind": "fr_ensemble_of_nobody"},
    30: {"onnx": "sub/../NAME.onnx"},
    35: {"promotion": {"imported_from": "0" * 64}},
    40: {"smoke": False},
    45: {"id": "LAST"},
}


def damaged(folder: Path, n: int) -> Path:
    """A version-2 registry of n entries, of which every fifth has one of a dozen defects; beside them what is odd."""
    rng = random.Random(0)
    row = tiny_models.entry(folder, tiny_models.model(), "m0")
    model = (folder / "m0.onnx").read_bytes()
    rows: list[dict[str, Any]] = []
    for number in range(n):
        name, onnx = f"m{number:04d}", folder / f"m{number:04d}.onnx"
        onnx.write_bytes(model)
        FILE_DEFECTS.get(number % 60, lambda onnx: None)(onnx)
        fields = json.dumps(FIELD_DEFECTS.get(number % 60, {}))
        defect = json.loads(fields.replace("NAME", name).replace("LAST", f"m{number - 1:04d}"))
        rows.append({**row, "id": name, "onnx": onnx.name, "license": "MIT", "smoke": True, **defect})
    rng.shuffle(rows)
    (folder / "M0001.onnx").write_bytes(b"")
    (folder / "loose.data").write_bytes(b"")
    document = {"schema_version": 2, "policies": {}, "models": rows}
    (folder / "registry.json").write_bytes(to_json(document))
    return folder / "registry.json"


@pytest.mark.parametrize("level", list(Level))
def test_as_many_processes_find_the_same(level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defects of all sorts, spread over the slices, give the same findings in the same order in one process and two."""
    loaded = store.load(damaged(tmp_path, 900 if level is Level.QUICK else 120))
    assert isinstance(loaded, store.Loaded)
    found = []
    for processes in (1, 2):
        forks: list[int] = []
        fork = os.fork
        monkeypatch.setattr(
            "registry_tool.checks.registry.count_processes", lambda work, processes=processes: processes
        )
        monkeypatch.setattr(os, "fork", lambda forks=forks, fork=fork: forks.append(1) or fork())
        found.append(check(loaded, manager.load(), level))
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
    assert "a worker process ended before its work" in ran.stderr
