"""test_writing.py: writing below faults and SIGKILL at every step, and the lock between real processes."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry_tool.errors import RejectedError, WorldError
from registry_tool.storage import disk, paths
from registry_tool.storage.lock import clean_staging, locked
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.writing import publish_folder, write_atomic

pytestmark = pytest.mark.slow

OLD, NEW = b'{"old": 1}\n', b'{"new": 2}\n' * 50
TREE = {"manifest.json": b"{}", "members/seed0.onnx": b"0" * 3000, "members/deep/er/x.bin": b"1"}
STEPS = ("open", "write", "fsync", "rename", "mkdir")  # every call that changes a disk
FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EIO: "input/output error",
    errno.EROFS: "read-only",
    errno.EACCES: "permission denied",
    errno.EDQUOT: "quota",
    errno.ENOMEM: "memory",
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync does nothing: what a killed process has written stays in the page cache anyway."""
    monkeypatch.setattr(disk, "fsync", lambda file: None)


@contextmanager
def at_step(wanted: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """`act` before the wanted one of all calls that change the disk; the list tells which calls came."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            real = getattr(disk, name)

            def call(*args: Any, name: str = name, real: Any = real, **kwargs: Any) -> Any:
                seen.append(name)
                if len(seen) == wanted:
                    if name == "write":
                        real(args[0], args[1][: len(args[1]) // 2])  # part of it reaches the disk
                    act()
                return real(*args, **kwargs)

            patch.setattr(disk, name, call)
        yield seen


def steps_of(task: Callable[[Path], None], root: Path) -> int:
    with at_step(0, lambda: None) as seen:
        task(root)
    return len(seen)


def replace(root: Path) -> None:
    write_atomic(root / "registry.json", NEW)


def replace_below(root: Path) -> None:
    write_atomic(root / "id" / "verdicts" / "v.json", NEW, root=root)


def publish(root: Path) -> None:
    publish_folder(root, "id/abc", TREE)


def fresh(root: Path) -> Path:
    root.mkdir()
    (root / "registry.json").write_bytes(OLD)
    (root / "keep").mkdir()
    (root / "keep" / "x").write_bytes(b"x")
    return root


def state(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


TASKS = [replace, replace_below, publish]
BEFORE = {"registry.json": OLD, "keep/x": b"x"}
AFTER: dict[Callable[[Path], None], dict[str, bytes]] = {
    replace: BEFORE | {"registry.json": NEW},
    replace_below: BEFORE | {"id/verdicts/v.json": NEW},
    publish: BEFORE | {f"id/abc/{name}": data for name, data in TREE.items()},
}


@pytest.mark.parametrize("task", TASKS)
def test_writing(tmp_path: Path, task: Callable[[Path], None]) -> None:
    """Without faults the new content stands there, and doing it again changes nothing."""
    root = fresh(tmp_path / "r")
    for _ in range(2):
        task(root)
        assert state(root) == AFTER[task]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", FAULTS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("task", TASKS)
def test_faults(tmp_path: Path, task: Callable[[Path], None], number: int) -> None:
    """Whichever call fails, and however: one clear line, the old content or the new, and nothing left over."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    count = steps_of(task, fresh(tmp_path / "count"))
    assert count >= 5
    for step in range(1, count + 1):
        root = fresh(tmp_path / str(step))
        with at_step(step, fail) as seen, pytest.raises(WorldError) as caught:
            task(root)
        assert state(root) in (BEFORE, AFTER[task]), seen
        if "rename" not in seen:
            assert state(root) == BEFORE
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert str(root) in message
        assert FAULTS[number] in message.lower()
        task(root)
        assert state(root) == AFTER[task]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("task", TASKS)
def test_sigkill(tmp_path: Path, task: Callable[[Path], None]) -> None:
    """A process killed before any of its steps, in the middle of a write too, leaves the old content or the new."""
    count = steps_of(task, fresh(tmp_path / "count"))
    outcomes = set()
    for step in range(1, count + 1):
        root = fresh(tmp_path / str(step))
        child = os.fork()
        if child == 0:
            with locked(root), at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                task(root)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with locked(root, timeout=5):
            pass  # it cleans up after the dead
        found = {path: data for path, data in state(root).items() if path != paths.LOCK_NAME}
        assert found in (BEFORE, AFTER[task])
        assert not list(root.rglob(".staging-*"))
        outcomes.add(found == BEFORE)
        task(root)
    assert outcomes == {True, False}


def test_mode_is_kept(tmp_path: Path) -> None:
    """A replaced file keeps its permissions; a new one is readable by all as far as the umask lets it."""
    mask = os.umask(0o022)
    try:
        for name, mode in (("a", 0o600), ("b", 0o664)):
            (tmp_path / name).touch()
            (tmp_path / name).chmod(mode)
            write_atomic(tmp_path / name, b"1")
            assert (tmp_path / name).stat().st_mode & 0o7777 == mode
        write_atomic(tmp_path / "new", b"1")
        assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o644
    finally:
        os.umask(mask)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that writes a few bytes at a time still ends with all of them."""
    monkeypatch.setattr(disk, "write", lambda file, data: os.write(file, data[:7]))
    write_atomic(tmp_path / "x", NEW)
    assert (tmp_path / "x").read_bytes() == NEW


def test_folders_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no fsync of folders is written to all the same."""

    def fsync(file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(disk, "fsync", fsync)
    write_atomic(tmp_path / "x", NEW)
    assert (tmp_path / "x").read_bytes() == NEW


def test_links_are_not_written_through(tmp_path: Path) -> None:
    """Neither a link in the place of a file nor one on the way below the registry's folder is followed."""
    root = fresh(tmp_path / "r")
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to("../secret")
    (root / "in").symlink_to("keep")
    (root / "link").symlink_to("keep/x")
    tasks: list[Callable[[], None]] = [
        lambda: write_atomic(root / "link", b"1"),
        lambda: write_atomic(root / "link", b"1", root=root),
        lambda: write_atomic(root / "out" / "new", b"1", root=root),
        lambda: write_atomic(root / "in" / "x", b"1", root=root),
        lambda: publish_folder(root, "out/new", TREE),
        lambda: publish_folder(root, "new", {"../y": b""}),
        lambda: publish_folder(root, "../new", TREE),
    ]
    for task in tasks:
        with pytest.raises(FileProblem, match=r"symbolic link|unusable path"):
            task()
    assert os.listdir(tmp_path / "secret") == []
    assert (root / "keep" / "x").read_bytes() == b"x"
    assert sorted(os.listdir(root)) == ["in", "keep", "link", "out", "registry.json"]


def test_order_of_steps(tmp_path: Path) -> None:
    """The bytes are on the disk before the new name is, and the name is before success is told."""
    with at_step(0, lambda: None) as seen:
        replace(fresh(tmp_path / "r"))
    assert seen == ["open", "open", "write", "fsync", "rename", "fsync"]  # folder and file; file, then folder


def test_everything_published_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files and folders are fsynced after their last change, before the rename; both its ends after it."""
    steps: list[str] = []

    def fsync(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        inside = sorted(p.name for p in path.iterdir()) if path.is_dir() else path.stat().st_size
        steps.append(f"{path.relative_to(tmp_path)} {inside}")

    def rename(*args: Any, **kwargs: Any) -> None:
        steps.append(args[0])
        os.rename(*args, **kwargs)

    monkeypatch.setattr(disk, "fsync", fsync)
    monkeypatch.setattr(disk, "rename", rename)
    publish(tmp_path)
    renamed = next(number for number, step in enumerate(steps) if " " not in step)
    staging = steps[renamed]
    assert set(steps[:renamed]) >= {
        f"{staging}/manifest.json 2",
        f"{staging}/members/seed0.onnx 3000",
        f"{staging}/members/deep/er/x.bin 1",
        f"{staging}/members/deep/er ['x.bin']",
        f"{staging}/members/deep ['er']",
        f"{staging}/members ['deep', 'seed0.onnx']",
        f"{staging} ['manifest.json', 'members']",
        f". ['{staging}', 'id']",
    }
    assert steps[renamed + 1 :] == ["id ['abc']", ". ['id']"]


def test_folder_that_is_missing(tmp_path: Path) -> None:
    """Writing into a folder that does not exist says so."""
    with pytest.raises(WorldError, match="the folder does not exist"):
        write_atomic(tmp_path / "none" / "x", b"1")
    with pytest.raises(WorldError, match="the folder does not exist"), locked(tmp_path / "none"):
        pass


@pytest.mark.parametrize("change", ["other bytes", "one more", "one less", "a link", "empty"])
def test_a_published_folder_never_changes(tmp_path: Path, change: str) -> None:
    """A target that holds anything but the same files is refused and left as it is."""
    publish(tmp_path)
    file = tmp_path / "id" / "abc" / "manifest.json"
    if change == "other bytes":
        file.write_bytes(b"[]")
    elif change == "one more":
        (file.parent / "more").touch()
    else:
        file.unlink()
        if change == "a link":
            (tmp_path / "m").write_bytes(TREE["manifest.json"])
            file.symlink_to("../../m")
        elif change == "empty":
            file.touch()
    before = state(tmp_path)
    with pytest.raises(RejectedError, match="holds other files"):
        publish(tmp_path)
    assert state(tmp_path) == before


def test_clean_staging(tmp_path: Path) -> None:
    """Left-overs go wherever this program puts them; what looks alike elsewhere, and what a link names, stays."""
    for path in (
        ".staging-a/b/c",
        "id/verdicts/.staging-b",
        "id/.staging-c",
        "id/staging-d",
        ".venv/.staging-e",
        "out/x",
    ):
        (tmp_path / "r" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / path).touch()
    (tmp_path / "r" / ".staging-link").symlink_to("out")
    (tmp_path / "r" / "id" / ".staging-file").symlink_to("../out/x")
    clean_staging(tmp_path / "r")
    assert set(state(tmp_path / "r")) == {"id/staging-d", ".venv/.staging-e", "out/x"}


# ---- the lock ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_writers_take_turns(tmp_path: Path) -> None:
    """Processes that count up in one file under the lock lose no count."""
    path, children = tmp_path / "count", []
    path.write_bytes(b"0")
    for _ in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            for _ in range(10):
                with locked(tmp_path):
                    write_atomic(path, b"%d" % (int(path.read_bytes()) + 1))
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert path.read_bytes() == b"40"


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    """While a process holds the lock others are told which one; once it is killed the lock is free."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(tell, b"1")
            time.sleep(600)
    os.read(ready, 1)
    try:
        message = rf"process {child} has held the lock for 0.1 s: wait.*\Z"
        with pytest.raises(WorldError, match=message), locked(tmp_path, timeout=0.1):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(tmp_path, timeout=5):
        pass


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    """A link in the place of the lock file is refused, and what it names is not touched."""
    (tmp_path / "precious").write_bytes(b"1")
    (tmp_path / paths.LOCK_NAME).symlink_to("precious")
    with pytest.raises(WorldError, match="symbolic link"), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_bytes() == b"1"


def test_the_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    """An exception under the lock passes unchanged and frees it."""
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path, timeout=0.1):
        pass
