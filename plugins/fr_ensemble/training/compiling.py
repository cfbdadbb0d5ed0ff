"""compiling.py: how the kernel is compiled, with which instructions, and where the result is kept. No arithmetic."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import registry
from numpy.typing import NDArray

from registry_tool.errors import WorldError

Function = Callable[..., Any]
Intrinsic = tuple[Any, Function]  # the signature of a call, and what writes its code: numba and llvmlite have no types

SOURCES = ("compiling.py", "tile.py", "draws.py", "kernel.py")
VECTOR_PROBE = """
define <16 x float> @f(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %d
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


def compiled(function: Function) -> Function:
    """A function of the kernel: strict IEEE 754 (no fastmath), without Python's lock while it runs."""
    made: Function = numba.njit(nogil=True, error_model="numpy")(function)
    return made


def compiled_and_kept(function: Function) -> Function:
    """The same for what Python calls; the machine code goes into `cache_folder`."""
    with _cache_in(cache_folder()):
        made: Function = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    return made


class KernelLocator:
    """Where numba keeps the kernel's code: `cache_folder`, wherever and whenever the sources were installed."""

    def ensure_cache_path(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return ""  # the folder's name has their digest

    def get_disambiguator(self) -> str:
        return "kernel"

    @classmethod
    def from_function(cls, function: Function, file: str) -> Self:
        return cls()


@cache
def target() -> tuple[str, str]:
    """The processor and its features, as numba compiles for them: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES count."""
    _, name, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return name, features


@cache
def _assembly() -> str:
    """What the target makes of a fused multiply-add of 16 floats: asked of the compiler, which knows every name."""
    name, features = target()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=2)
    return str(machine.emit_assembly(llvm.parse_assembly(VECTOR_PROBE)))


def has_fma() -> bool:
    """Whether the target multiplies and adds with one rounding. Without, the kernel rounds twice: other bytes."""
    return "fmaf" not in _assembly()


def has_wide_registers() -> bool:
    """Whether a register holds 16 floats (AVX-512). The tile's shape follows; no sum's order does."""
    return "zmm" in _assembly()


@cache
def cache_folder() -> Path:
    """Where compiled code is kept: $NUMBA_CACHE_DIR, or registry-tool/ in the user's cache folder.

    The folder's name holds a digest of the kernel's sources, since numba notices a change of one file alone, and of
    what they are compiled for. A folder that cannot be written to is copied, with what it holds, to a temporary one for
    the life of this process.
    """
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    sha = hashlib.sha256(" ".join((numba.__version__, *target())).encode())
    for name in SOURCES:
        sha.update(Path(__file__).with_name(name).read_bytes())
    folder = Path(base) / "registry-tool" / f"trainer-{sha.hexdigest()[:16]}"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # the latter: a user without a home
        scratch = Path(tempfile.mkdtemp(prefix="registry-tool-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        if folder.is_dir():
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
        return scratch


def is_compiled() -> bool:
    """Whether the kernel is in the cache, so that its first use takes a fraction of a second, not some five."""
    return any(cache_folder().rglob("*.nbi"))


def forget() -> None:
    """Remove compiled code: it is made again."""
    for path in cache_folder().rglob("*.nb[ic]"):
        path.unlink(missing_ok=True)


def check_compiler() -> None:
    """Raises WorldError where numba is told not to compile."""
    if numba.config.DISABLE_JIT:
        raise WorldError("NUMBA_DISABLE_JIT: found it set, expected it unset: the trainer has to be compiled")


def intrinsic(function: Function) -> Function:
    """A function of the kernel that is written as LLVM: it takes the types and returns how code is made of values."""
    made: Function = numba.extending.intrinsic(function)
    return made


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Let numba keep what is declared here in `folder`; other users of numba in this process are left alone.

    A release of numba that asks for no locators goes by the path and the time of the sources.
    """
    own = {"CACHE_DIR": str(folder), "CACHE_LOCATOR_CLASSES": f"{__name__}.{KernelLocator.__name__}"}
    before = {name: getattr(numba.config, name, "") for name in own}
    vars(numba.config).update(own)
    try:
        yield
    finally:
        vars(numba.config).update(before)


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros, float32 (size,), that begin on 64 bytes, a cache line: a load never crosses two."""
    room = np.zeros(size + 16, np.float32)
    first = -room.ctypes.data // 4 % 16
    return room[first : first + size]
