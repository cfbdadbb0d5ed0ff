"""paths.py: names below a registry's folder: which are taken, and what can be wrong with a file. Opens none."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule, InFile
from registry_tool.values import visible

LOCK_NAME = ".registry.lock"
STAGING_PREFIX = ".staging-"  # prefix of every temporary file and folder
MAX_PATH_CHARACTERS = 200  # of a path in a message

PATH_ESCAPES = FindingRule(
    "file-escapes",
    "path outside the registry's folder, or with a second spelling",
    why="It could name any file of the machine.",
    message="{file}: unusable path",
    expected="a path inside the registry's folder, like id/model.onnx",
    hint="write a plain relative path with /",
    example="../../etc/passwd",
)
FILE_MISSING = FindingRule(
    "file-missing",
    "file not found",
    why="A runtime that loads the entry fails.",
    message="{file}: file not found",
    hint="restore the file or correct the path",
    example="model.onnx deleted",
)
SYMLINK = FindingRule(
    "file-is-symlink",
    "symbolic link",
    why="It can point elsewhere tomorrow, on this machine or on another.",
    message="{file}: symbolic links are not followed",
    hint="replace the link by what it names",
    example="model.onnx -> /tmp/m",
)
NOT_REGULAR = FindingRule(
    "file-not-regular",
    "folder, fifo, socket or device in place of a file",
    why="Reading it could block for ever.",
    message="{file}: wrong type of file",
    hint="replace it",
    example="mkfifo model.onnx",
)
FILE_TOO_LARGE = FindingRule(
    "file-too-large",
    "file too large",
    why="Reading it could exhaust memory.",
    message="{file}: the file is too large",
    hint="check that it is the right file; for a model, raise `max_file_bytes` in the policy of its kind",
    example="an ONNX file of 2 GiB",
)
TOO_MANY = FindingRule(
    "file-too-many",
    "too many files in the registry's folder",
    why="Files could hide among the others.",
    message="{file}: the folder holds too many files to check",
    hint="keep the registry in a folder of its own",
    example="a registry beside node_modules",
)
LFS_POINTER_FOUND = FindingRule(
    "file-lfs-pointer",
    "Git-LFS pointer in place of a file",
    why="The file itself was never fetched.",
    message="{file}: Git-LFS pointer in place of the file",
    expected="the file itself",
    hint="run `git lfs pull`",
    example="version https://git-lfs...",
)
ANNEX_POINTER_FOUND = FindingRule(
    "file-annex-pointer",
    "git-annex pointer in place of a file",
    why="The file itself was never fetched.",
    message="{file}: git-annex pointer in place of the file",
    expected="the file itself",
    hint="run `git annex get`, and `git annex unlock` where it is a link",
    example="/annex/objects/SHA256E-s5--...",
)
DVC_MISSING = FindingRule(
    "file-dvc-missing",
    "DVC pointer beside a missing file",
    why="The file itself was never fetched.",
    message="{file}: file not found, only its DVC pointer",
    hint="run `dvc pull`",
    example="b.onnx.dvc without b.onnx",
)
FILE_UNREADABLE = FindingRule(
    "file-unreadable",
    "file cannot be read",
    why="What cannot be read cannot be checked.",
    message="{file}: the file cannot be read",
    expected="a readable file",
    hint="check its owner, its mode and the disk",
    example="permission denied",
)
FILE_CHANGED = FindingRule(
    "file-changed-while-reading",
    "file changed while it was read",
    why="What was checked is not what is there.",
    message="{file}: the file changed while it was read",
    hint="run it again when nothing writes there",
    example="two trainings in one folder",
)


class FileProblem(InputError):
    """Why a file is not read or a path not taken; the message names the path. A Finding where one can be made of it."""

    def __init__(self, rule: FindingRule, path: str, found: str | None = None, expected: str | None = None) -> None:
        super().__init__(rule.code)
        self.rule, self.path, self.found, self.expected = rule, path, found, expected

    @property
    def code(self) -> str:
        return self.rule.code

    def at(self, file: str, entry: str | None = None, pointer: str | None = None) -> Finding:
        """The finding on that file, at the pointer of what names the path."""
        place = InFile(file, entry)
        return self.rule.at(
            place,
            pointer,
            found=self.found,
            expected=self.expected,
            file=visible(self.path, MAX_PATH_CHARACTERS) or "''",
        )

    def __str__(self) -> str:
        return self.at("").words


_NAME = r"[\w-](?:[\w.-]{0,250}[\w-])?"  # ASCII, no dot at either end: nothing reserved, no `..`
ORDINARY_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*", re.ASCII).fullmatch


@lru_cache(maxsize=4096)
def check_path(text: str, reserved: bool = False) -> str:
    """The same text, if it is the one spelling of a path below a folder; else FileProblem `file-escapes`.

    Its NFKC form must pass too and have as many slashes, so that full-width dots and slashes are no way around. Names
    that the inventory skips (`.git`, the lock, staging) are refused: nothing may hide there. reserved: they are not
    refused, in a folder that is no registry's.
    """
    if ORDINARY_PATH(text) and len(text) <= 1024:
        return text
    plain = unicodedata.normalize("NFKC", text)
    look_alike = "a look-alike of a slash" if plain.count("/") > text.count("/") else None
    if fault := fault_of(text, reserved) or fault_of(plain, reserved) or look_alike:
        raise FileProblem(PATH_ESCAPES, text, fault)
    return text


def fault_of(text: str, reserved: bool = False) -> str | None:
    if not text or len(text) > 1024:
        return f"{len(text)} characters"
    if any(c != " " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs") for c in text):
        return "a control or invisible character"
    if unicodedata.normalize("NFC", text) != text:
        return "a spelling that is not in Unicode form NFC"
    if text[0] == "/" or "\\" in text or re.match("[A-Za-z]:", text):
        return "an absolute path, a drive letter or a backslash"
    for name in text.split("/"):
        if name in ("", ".", ".."):
            return f"the part {name!r}"
        kept = not reserved and is_reserved(name.casefold())
        if name.strip(" ") != name or name[-1] == "." or len(name.encode()) > 255 or kept:
            return f"the name {name[:40]!r}, which is reserved or not portable"
    return None


def is_reserved(name: str) -> bool:
    return name in (".git", LOCK_NAME) or name.startswith(STAGING_PREFIX)
