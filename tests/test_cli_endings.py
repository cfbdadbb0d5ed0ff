"""Tests of the ways in which a run can end: a reader that leaves, Ctrl-C, outputs that cannot be written."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, program
from places import EXAMPLES, TESTS
from registries import Made
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, hookimpl
from registry_tool.plugins.manager import load

pytestmark = pytest.mark.slow

# ---- the ways in which a run can end ----------------------------------------------------------------------------


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_leaves_is_no_error(production: Sandbox) -> None:
    """`registry ... | head -1`: no traceback, no word, and not an exit code that means a rejection."""
    run = start("rule")
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == ""
    assert run.wait(60) == 0


FROZEN = TESTS / "frozen" / "5e6a11a" / "model"
ENDINGS: list[tuple[int, tuple[object, ...]]] = [
    (0, ("validate", EXAMPLES / "valid" / "smoke")),
    (0, ("list", "--registry", EXAMPLES / "valid" / "smoke")),
    (0, ("--help",)),
    *(
        (1, ("validate", EXAMPLES / "invalid" / "digest-mismatch", "--format", form))
        for form in ("text", "json", "sarif", "junit", "github")
    ),
    *((1, ("gate", "held", "--registry", FROZEN, "--format", form)) for form in ("text", "json", "junit", "github")),
    (1, ("flip", "m", "--registry", EXAMPLES / "invalid" / "digest-mismatch")),
    (1, ("migrate", EXAMPLES / "invalid" / "digest-mismatch--version-1", "-o", "new")),
    (2, ("gate",)),
    (2, ("rule", "nonsense")),
    (2, ("validate", "nowhere")),
]


@pytest.mark.parametrize(("code", "arguments"), ENDINGS, ids=[" ".join(map(str, a[:1] + a[-1:])) for _, a in ENDINGS])
def test_a_reader_that_leaves_changes_no_exit_code(code: int, arguments: tuple[object, ...], tmp_path: Path) -> None:
    """What was found decides: with a reader, without one on stdout, and without one on stdout and stderr."""
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    reader, closed = os.pipe()
    os.close(reader)
    for streams in ((subprocess.PIPE, subprocess.PIPE), (closed, subprocess.PIPE), (closed, closed)):
        ran = subprocess.run(command, stdout=streams[0], stderr=streams[1], cwd=tmp_path, check=False)
        assert ran.returncode == code
    os.close(closed)


def test_a_pipeline_of_github_fails_with_its_gate(tmp_path: Path) -> None:
    """`registry gate ... | true` and `| grep -q` under pipefail, which GitHub's `shell: bash` sets."""
    for end in ("true", "grep -q HOLD", "head -1"):
        gate = f"{sys.executable} -m registry_tool gate held --registry {FROZEN}"
        ran = subprocess.run(["bash", "-eo", "pipefail", "-c", f"{gate} | {end}"], capture_output=True, check=False)
        assert ran.returncode == 1


def test_a_stream_without_a_reader_ends_early(thumb: Sandbox, tmp_path: Path) -> None:
    """`registry predict ... | head` stops; it does not predict a whole corpus for nobody."""
    script = """
import sys
from registry_tool import cli
from registry_tool.hookspec import Batch, Kind, hookimpl
from registry_tool.plugins import manager

class Endless:
    @hookimpl
    def registry_kinds(self):
        return [Kind("thumb", "thumbs")]

    @hookimpl
    def registry_predict(self, view, request):
        while True:
            yield Batch({"row": list(range(10_000))})

plugins = manager.Plugins()
plugins.add(Endless(), "endless")
manager.load = lambda: plugins
sys.argv = ["registry", "predict", "t", "--corpus", "rows.csv", "--registry", sys.argv[1]]
cli.start()
"""
    command = ["bash", "-o", "pipefail", "-c", '"$0" -c "$1" "$2" | head -1', sys.executable, script, str(thumb.path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "row\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("code", [0, 1, 2])
def test_output_that_fails_can_only_raise_the_exit_code(code: int) -> None:
    """A full standard error or output: never less than what was found, never a traceback."""
    arguments = {0: ("rule",), 1: ("gate", "held", "--registry", FROZEN), 2: ("gate",)}[code]
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=full, check=False)
        only_errors = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert ran.returncode == 3
    assert only_errors.returncode == (3 if code == 2 else code)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_is_a_broken_world(production: Sandbox) -> None:
    """Output that cannot be written is not success: exit code 3 and one line."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "registry_tool", "validate", str(production.path)]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(("words", "code"), [("validate", 0), ("gate held --registry", 1), ("gate", 2)])
def test_streams_that_are_closed_before_the_start_change_nothing(closed: str, words: str, code: int) -> None:
    """The exit code is that of the run, and what is still open shows no traceback."""
    place = "" if words == "gate" else '"$1"'
    command = ["bash", "-c", f'"$0" -m registry_tool {words} {place} {closed}', sys.executable, str(FROZEN)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Traceback" in ran.stdout + ran.stderr) == (code, False)


def test_a_closed_stream_gives_its_number_to_no_file(tmp_path: Path) -> None:
    """What a library in C prints would go into a file that was opened under that number."""
    script = (
        "import os, sys\nfrom registry_tool.storage.streams import fill_closed\n"
        "os.close(0)\nos.close(2)\nfill_closed()\n"
        "opened = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\nos.write(2, b'noise')\nprint(opened)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, tmp_path / "f"], capture_output=True, text=True, check=False)
    assert int(ran.stdout) > 2
    assert (tmp_path / "f").read_bytes() == b""


def is_training(process: subprocess.Popen[str]) -> bool:
    """Whether the process has loaded the compiler of the trainer and started its workers."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return "llvmlite" in maps and len(os.listdir(f"/proc/{process.pid}/task")) > 2


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_ctrl_c_leaves_no_trace(smoke: Sandbox, made: Made) -> None:
    """SIGINT to a real training run: exit 130, one line, the folder as it was, and the next command is not blocked."""
    before = smoke.tree()
    endless = ("--corpus", made.corpus, "--epochs", 10**6, "--registry", smoke.path)
    run = start("train", "fr_ensemble", "--id", "endless", *endless)
    deadline = time.monotonic() + 60
    while not is_training(run):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # into the epochs; nothing depends on how far
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert err.strip() == "registry: interrupted, nothing was changed"
    assert smoke.tree() == before
    assert not list(smoke.folder.rglob(".staging-*"))
    assert program("prune", "--registry", smoke.path).returncode == 0


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_arrives_where_python_drops_it(
    thumb: Sandbox, registry: Program, capfd: pytest.CaptureFixture[str], times: int
) -> None:
    """An interrupt inside `__del__` is ignored by Python: the command ends as one interrupted elsewhere does."""

    class Doomed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Deaf(Thumbs):
        @hookimpl
        def registry_load(self, view: Any) -> Any:
            for _ in range(times):
                Doomed()
            time.sleep(60)

    before, hook = thumb.tree(), sys.unraisablehook
    arguments = ("predict", "t", "--corpus", "rows.csv", "--registry", thumb.path)
    ran = registry(*arguments, plugins=with_plugin(Deaf()))
    assert (ran.code, ran.err.strip()) == (130, "registry: interrupted, nothing was changed")
    assert (thumb.tree(), sys.unraisablehook, capfd.readouterr().err) == (before, hook, "")
    time.sleep(0.1)  # and no second interrupt comes later


def test_memory_that_is_short_is_one_line(
    thumb: Sandbox, registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks for more memory than there is ends with exit code 3 and says so, in a plugin and in the core."""

    def ask(*_: object, **__: object) -> Any:
        raise MemoryError("Unable to allocate 74.5 GiB")

    class Greedy(Thumbs):
        registry_load = hookimpl(lambda self, view: ask())

    predict = ("predict", "t", "--corpus", "rows.csv", "--registry", thumb.path)
    ran = registry(*predict, plugins=with_plugin(Greedy()))
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "MemoryError: Unable to allocate 74.5 GiB: use less, or free some" in ran.err
    monkeypatch.setattr("registry_tool.commands.inspect.list_.callback", ask)
    ran = registry("list", "--registry", thumb.path)
    assert (ran.code, ran.err) == (3, "registry: MemoryError: Unable to allocate 74.5 GiB: use less, or free some\n")


def test_an_output_file_is_whole_or_not_at_all(thumb: Sandbox, registry: Program, tmp_path: Path) -> None:
    """A prediction that fails half way leaves the old file and nothing beside it."""

    class Failing(Thumbs):
        @hookimpl
        def registry_predict(self, view: Any, request: Any) -> Any:
            yield Batch({"row": [0]})
            raise InputError("rows.csv:7: found nan, expected a number: correct it")

    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "out.csv").write_text("old")
    arguments = ("predict", "t", "--corpus", "rows.csv", "--registry", thumb.path, "-o", folder / "out.csv")
    ran = registry(*arguments, plugins=with_plugin(Failing()))
    assert (ran.code, "rows.csv:7" in ran.err) == (2, True)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("out.csv", "old")]


@pytest.mark.parametrize("command", ["predict", "gate", "card"])
def test_an_output_file_that_cannot_be_made_is_named(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path, command: str
) -> None:
    """A folder that is not there: one line that names the path, not success."""
    target = tmp_path / "no" / "such" / "out"
    more = ("--corpus", made.heldout) if command == "predict" else ()
    ran = registry(command, "tiny", *more, "-o", target, "--registry", smoke.path)
    assert ran.code == 3
    assert ran.err.count("\n") == 1
    assert "no/such" in ran.err


def test_two_commands_share_nothing(production: Sandbox, registry: Program) -> None:
    """Plugins of one run are not those of the next."""
    plugins = with_plugin(Thumbs())
    assert "thumb" in registry("plugins", plugins=plugins).out
    assert "thumb" not in registry("plugins", plugins=load()).out


@pytest.mark.parametrize("beside", ["", "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"])
def test_the_short_way_out_loses_nothing(beside: str) -> None:
    """The end of the process waits for threads, runs what was registered for it, and keeps output and exit code."""
    script = (
        "import atexit, sys, threading, time\nfrom registry_tool import cli\n"
        f"atexit.register(print, 'end')\n{beside}\nsys.argv = ['registry', 'rule', 'nonsense']\ncli.start()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, "nonsense" in ran.stderr) == (2, True)
    assert ran.stdout.split() == (["thread", "end"] if beside else ["end"])


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
@pytest.mark.parametrize("mode", [0o775, 0o2770, 0o700, 0o755])
def test_the_lock_may_be_taken_by_who_may_write(tmp_path: Path, umask: int, mode: int) -> None:
    """The lock's file has the permissions of its folder, whatever umask the first writer had."""
    from registry_tool.storage.lock import LOCK_NAME, locked

    tmp_path.chmod(mode)
    before = os.umask(umask)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.umask(before)
    found = (tmp_path / LOCK_NAME).stat().st_mode
    assert found & 0o222 & mode == mode & 0o222
    if umask >= 0o022:
        assert found & 0o022 & ~mode == 0


def test_no_text_output_begins_a_line_of_its_own(smoke: Sandbox, registry: Program) -> None:
    """A name with a line break, whoever prints it, writes no command to GitHub's log: errors, tables, fields."""
    evil = "x\n::error file=a::b"
    smoke.edit_entry(notes=evil)
    arguments = (("show", "tiny"), ("list",), ("gate", evil), ("gate", "--base", evil), ("card", "tiny"))
    for line in arguments:
        ran = registry(*line, "--registry", smoke.path)
        assert not any(text.startswith("::") for text in (ran.out + ran.err).splitlines()), line


class Named(Thumbs):
    """Predicts rows whose names a spreadsheet would run."""

    NAMES = ("=HYPERLINK(1)", "+1", "-x", "@SUM(1)", "\t=1", " =1", "plain", "a=b", 3.5, -2.0, None)

    @hookimpl
    def registry_predict(self, view: Any, request: Any) -> Any:
        return [Batch({"=name": self.NAMES, "mu": range(len(self.NAMES))})]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_cell_is_a_formula(thumb: Sandbox, registry: Program, form: str) -> None:
    """In CSV a text that a spreadsheet would run is quoted; numbers, other texts and JSON lines stay as they are."""
    arguments = ("predict", "t", "--corpus", "rows.csv", "--registry", thumb.path, "--format", form)
    ran = registry(*arguments, plugins=with_plugin(Named()))
    if form == "jsonl":
        assert [json.loads(line)["=name"] for line in ran.out.splitlines()] == list(Named.NAMES)
        return
    header, *rows = csv.reader(io.StringIO(ran.out))
    expected = ["'=HYPERLINK(1)", "'+1", "'-x", "'@SUM(1)", "'\t=1", "' =1", "plain", "a=b", "3.5", "-2.0", ""]
    assert (header[0], [row[0] for row in rows]) == ("'=name", expected)
