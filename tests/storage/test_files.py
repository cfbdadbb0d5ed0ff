"""test_files.py: which paths are taken, and what is read below a folder. Writing is in test_writing.py."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool.storage import disk, files, paths
from registry_tool.storage.files import Folder, InventoryItem
from registry_tool.storage.paths import FileProblem, check_path


def problem_of(call: Callable[[], object]) -> FileProblem:
    with pytest.raises(FileProblem) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


# ---- paths ------------------------------------------------------------------------------------------------------

ESCAPES = [
    "",
    "/",
    "/etc/passwd",
    "//x",
    "..",
    "../x",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/.",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "C:x",
    "c:/x",
    "a\0b",
    "a\nb",
    "a\x1bb",
    "a\u202eb",
    "a\u200b",
    "a\u00a0b",
    "\ud800",
    "e\u0301.onnx",
    "a/\uff0e\uff0e/b",
    "a\uff0fb",
    "\u2024\u2024/b",
    "\u2025/b",
    ".. /x",
    " a",
    "a /b",
    "a.",
    "a/.../b",
    ".git/config",
    "x/.GIT/config",
    ".registry.lock",
    ".staging-1/a",
    "a/.Staging-x",
    "a" * 256,
    "\u00e9" * 128,
    "a/" * 600 + "a",
]


@pytest.mark.parametrize("path", ESCAPES, ids=ascii)
def test_escapes_are_refused(path: str, tmp_path: Path) -> None:
    """A path that leaves the folder, or has another spelling, is refused before anything is opened."""
    assert problem_of(lambda: check_path(path)).code == "file-escapes"
    with Folder(tmp_path) as folder:
        for call in (lambda: folder.read(path, 9), lambda: folder.exists(path)):
            assert problem_of(call).code == "file-escapes"


@pytest.mark.parametrize(
    "path", ["a", "a/b.c/d-e_f", "..a", "a..b/c", ".hidden", "\u00e9/\u4e2d.onnx", "a b/c", "x" * 255]
)
def test_ordinary_paths_pass(path: str) -> None:
    """A canonical relative path is returned unchanged."""
    assert check_path(path) == path


@given(
    st.text(st.sampled_from("aZ0._-/\n"), max_size=12)
    | st.sampled_from(["a" * n + "/b" * m for n in (252, 253, 254) for m in (0, 386)])
)
def test_ordinary_names_need_no_second_look(path: str) -> None:
    """What the pattern of ordinary names takes, the rules take too: it opens no door."""
    if len(path) <= 1024 and paths.ORDINARY_PATH(path):
        assert paths.fault_of(path) is None


@given(st.text(st.sampled_from("ab./\\:~\u00e9\u0301\uff0e\u2024 \0"), max_size=12))
def test_accepted_paths_stay_inside(path: str) -> None:
    """Whatever check_path lets through is its own normal form below the folder."""
    try:
        check_path(path)
    except FileProblem:
        return
    assert os.path.normpath(os.path.join("/root", path)) == f"/root/{path}"


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with one of everything; beside it a secret that nothing may reach."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "id" / "deep").mkdir(parents=True)
    (root / "id" / "model.onnx").write_bytes(b"model")
    (root / "link.onnx").symlink_to("id/model.onnx")
    (root / "gone.onnx").symlink_to("nowhere")
    (root / "out").symlink_to("../secret")
    (root / "in").symlink_to("id")
    (root / "id" / "loop").symlink_to("loop")
    os.link(root / "id" / "model.onnx", root / "hard.onnx")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # a socket's path has at most 107 bytes
        listener.bind("socket")
        os.chdir(here)
    (root / "lfs.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    for hidden in (".git/x", ".staging-1/x"):
        (root / hidden).parent.mkdir()
        (root / hidden).write_bytes(b"")
    (root / ".registry.lock").touch()
    return root


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("none", "file-missing"),
        ("id/none", "file-missing"),
        ("none/model.onnx", "file-missing"),
        ("link.onnx", "file-is-symlink"),
        ("gone.onnx", "file-is-symlink"),
        ("out/key", "file-is-symlink"),
        ("in/model.onnx", "file-is-symlink"),
        ("id/loop", "file-is-symlink"),
        ("id/loop/x", "file-is-symlink"),
        ("fifo", "file-not-regular"),
        ("socket", "file-not-regular"),
        ("id", "file-not-regular"),
        ("hard.onnx/x", "file-not-regular"),
        ("fifo/x", "file-not-regular"),
        ("lfs.onnx", "file-lfs-pointer"),
    ],
)
def test_what_is_not_read(tree: Path, path: str, code: str) -> None:
    """Missing files, links anywhere on the way, fifos, sockets, folders and LFS pointers each have their code."""
    with Folder(tree) as folder:
        problem = problem_of(lambda: folder.read(path, 1000))
    assert problem.code == code
    assert problem.rule.hint
    assert ("git lfs pull" in str(problem)) == (code == "file-lfs-pointer")


def test_reading(tree: Path) -> None:
    """A regular file, hard-linked or not, is read whole."""
    with Folder(tree) as folder:
        assert folder.read("id/model.onnx", 5) == folder.read("hard.onnx", 5) == b"model"
        assert problem_of(lambda: folder.read("id/model.onnx", 4)).code == "file-too-large"
        assert [folder.exists(p) for p in ("id", "link.onnx", "fifo", "none", "none/x")] == [
            True,
            True,
            True,
            False,
            False,
        ]
        assert problem_of(lambda: folder.exists("out/key")).code == "file-is-symlink"


@pytest.mark.parametrize(("kind", "code"), [("symlink", "file-is-symlink"), ("fifo", "file-not-regular")])
def test_a_file_swapped_before_it_is_opened(tree: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str) -> None:
    """A link or fifo that takes the file's place between looking and opening is neither followed nor waited for."""

    def swap_and_open(*args: Any, **kwargs: Any) -> int:
        (tree / "hard.onnx").unlink()
        os.mkfifo(tree / "hard.onnx") if kind == "fifo" else (tree / "hard.onnx").symlink_to("../secret/key")
        return os.open(*args, **kwargs)

    with Folder(tree) as folder:
        monkeypatch.setattr(disk, "open", swap_and_open)
        assert problem_of(lambda: folder.read("hard.onnx", 9)).code == code


def test_pointers_of_annex_and_dvc_name_their_remedy(tmp_path: Path) -> None:
    """As Git LFS: the pointer is named, and the command that fetches the file."""
    (tmp_path / "a.onnx").write_bytes(b"/annex/objects/SHA256E-s102--6a2f.onnx\n")
    (tmp_path / "locked.onnx").symlink_to("../.git/annex/objects/aa/bb/SHA256E-s102--6a2f.onnx/SHA256E-s102--6a2f.onnx")
    (tmp_path / "b.onnx.dvc").write_text("outs:\n- md5: x\n  path: b.onnx\n")
    with Folder(tmp_path) as folder:
        for name, code, remedy in (
            ("a.onnx", "file-annex-pointer", "git annex get"),
            ("locked.onnx", "file-annex-pointer", "git annex unlock"),
            ("b.onnx", "file-dvc-missing", "dvc pull"),
            ("c.onnx", "file-missing", "restore"),
        ):
            with pytest.raises(FileProblem) as caught:
                folder.read(name, 1000)
            assert (caught.value.code, remedy in str(caught.value)) == (code, True)
        assert folder.read("b.onnx.dvc", 1000).startswith(b"outs")
        (tmp_path / "long.onnx").write_bytes(b"/annex/objects/x\n" + bytes(2000))
        assert len(folder.read("long.onnx", 10_000)) == 2017


def test_lfs_pointers_are_small(tmp_path: Path) -> None:
    """A file that begins like an LFS pointer but is larger than one is read as what it is."""
    data = b"version https://git-lfs.github.com/spec/v1\n" + bytes(1024)
    (tmp_path / "x").write_bytes(data)
    with Folder(tmp_path) as folder:
        assert folder.read("x", 2000) == data


def test_the_folder_itself(tree: Path, tmp_path: Path) -> None:
    """The folder may be reached through a link; a missing one or a file is a problem; it stays what was opened."""
    with Folder(tree / "in") as folder:
        (tree / "id").rename(tree / "moved")
        assert folder.read("model.onnx", 9) == b"model"
    assert problem_of(lambda: Folder(tmp_path / "none")).code == "file-missing"
    assert problem_of(lambda: Folder(tree / "hard.onnx")).code == "file-unreadable"


def test_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the limit is refused by its size: nothing of it is read."""
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2 << 30)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    with Folder(tmp_path) as folder:
        assert problem_of(lambda: folder.read("sparse", 50 << 20)).code == "file-too-large"


def test_a_system_that_reads_in_pieces(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that gives less than was asked for is gone on with, and a byte too many is seen as before."""
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, 2)))
    with Folder(tree) as folder:
        assert folder.read("id/model.onnx", 5) == b"model"


@pytest.mark.parametrize("change", [b"more", b""])
def test_a_change_while_reading_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes) -> None:
    """A file that grows or is emptied between opening and the last byte is refused."""
    path, read = tmp_path / "x", os.read
    path.write_bytes(b"0123456789")

    def changing(file: int, size: int) -> bytes:
        with open(path, "ab" if change else "wb") as other:
            other.write(change)
        return read(file, size)

    monkeypatch.setattr(os, "read", changing)
    with Folder(tmp_path) as folder:
        assert problem_of(lambda: folder.read("x", 1 << 20)).code == "file-changed-while-reading"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EPERM])
def test_unreadable(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A file that the system does not let us read is a problem that says why."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    with Folder(tree) as folder:
        monkeypatch.setattr(disk, "open", refuse)
        problem = problem_of(lambda: folder.read("id/model.onnx", 9))
    assert (problem.code, problem.found) == ("file-unreadable", os.strerror(number))


# ---- a large file that many name --------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was read, each time something was; files are settled as soon as they are written."""
    sizes: list[int] = []
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: (sizes.append(size - 1), read(file, size))[1])
    monkeypatch.setattr(files, "SETTLED_NS", -(10**18))
    return sizes


def write_again(path: Path, data: bytes) -> None:
    """Other bytes in the same file, with the modification time of the old ones."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_it(path: Path, data: bytes) -> None:
    """Another file of that name, with the modification time of the old one."""
    before = path.stat()
    path.with_name("new").write_bytes(data)
    os.utime(path.with_name("new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_name("new").rename(path)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_large_file_is_read_and_hashed_once(tmp_path: Path, opened: list[int], hashed: bool) -> None:
    """However often it is asked for; a small one is not remembered, and never are bytes given that were not hashed."""
    large, small = b"x" * files.LARGE_FILE_BYTES, b"x" * (files.LARGE_FILE_BYTES - 1)
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small").write_bytes(small)
    with Folder(tmp_path) as folder:
        for name, data in (("large", large), ("small", small)) * 3:
            contents = folder.contents(name, 1 << 20, hashed=hashed)
            assert (contents.size, contents.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert opened == [len(large), *[len(small)] * 3]
        assert folder.read("large", 1 << 20) == large  # the digest alone was kept where nobody wanted the bytes
        assert problem_of(lambda: folder.contents("large", 9, hashed=hashed)).code == "file-too-large"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("change", [write_again, replace_it])
def test_a_large_file_that_changed_is_read_again(
    tmp_path: Path, opened: list[int], change: Callable[[Path, bytes], None], hashed: bool
) -> None:
    """The same path, size and modification time are not enough."""
    size = files.LARGE_FILE_BYTES
    (tmp_path / "f").write_bytes(b"x" * size)
    with Folder(tmp_path) as folder:
        assert folder.contents("f", size, hashed=hashed).sha256 == hashlib.sha256(b"x" * size).hexdigest()
        time.sleep(0.02)  # more than a tick of the clock that files are stamped by
        change(tmp_path / "f", b"y" * size)
        assert folder.contents("f", size, hashed=hashed).sha256 == hashlib.sha256(b"y" * size).hexdigest()
        assert folder.read("f", size) == b"y" * size


def test_a_young_file_is_not_remembered(tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change within a tick of the clock that it is stamped by, so every reading is a reading."""
    monkeypatch.setattr(files, "SETTLED_NS", 10**18)
    (tmp_path / "f").write_bytes(b"x" * files.LARGE_FILE_BYTES)
    with Folder(tmp_path) as folder:
        for hashed in (True, True, False, False):
            folder.contents("f", files.LARGE_FILE_BYTES, hashed=hashed)
    assert len(opened) == 4


def test_large_files_are_held_up_to_a_limit(tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three, two have room: the one asked for longest ago goes."""
    monkeypatch.setattr(files, "MAX_BYTES_HELD", 2 * files.LARGE_FILE_BYTES)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * files.LARGE_FILE_BYTES)
    with Folder(tmp_path) as folder:
        for name, readings in (("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)):
            assert folder.read(name, files.LARGE_FILE_BYTES) == name.encode() * files.LARGE_FILE_BYTES
            assert len(opened) == readings


def test_inventory(tree: Path) -> None:
    """The inventory is sorted, follows no link, shows odd names legibly, and skips git, the lock and staging."""
    (tree / os.fsdecode(b"id/deep/\xff")).write_bytes(b"12")
    expected = [
        ("fifo", "other"),
        ("gone.onnx", "symlink"),
        ("hard.onnx", "file"),
        ("id", "folder"),
        ("id/deep", "folder"),
        ("id/deep/\\xff", "file"),
        ("id/loop", "symlink"),
        ("id/model.onnx", "file"),
        ("in", "symlink"),
        ("lfs.onnx", "file"),
        ("link.onnx", "symlink"),
        ("out", "symlink"),
        ("socket", "other"),
    ]
    with Folder(tree) as folder:
        assert folder.inventory() == [InventoryItem(*item) for item in expected]
        assert [item.path for item in folder.inventory(below="id/deep")] == ["id/deep/\\xff"]
        assert problem_of(lambda: folder.inventory(12)).code == "file-too-many"
        assert problem_of(lambda: folder.inventory(below="in")).code == "file-is-symlink"


def test_inventory_of_deep_folders(tmp_path: Path) -> None:
    """Folders inside folders without end are refused, not followed down."""
    (tmp_path / "/".join("d" * 40)).mkdir(parents=True)
    with Folder(tmp_path) as folder:
        assert problem_of(folder.inventory).code == "file-too-many"
