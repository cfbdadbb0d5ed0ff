"""ffmpeg.py: finds an ffmpeg that has libvmaf, and runs it. Knows no corpus and no encode."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from fr_ensemble.corpus.vmaf_models import DEFAULT_MODEL, VMAF_MODELS
from registry_tool.errors import InputError

PROBE_SIZE = "576x324"  # the models of VMAF v1 shrink the picture, and refuse a smaller one
_MAX_STDERR = 20_000  # characters of ffmpeg's stderr that are read; a broken source may cause millions
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # not the encode's fault: the build stops


class FFmpegError(Exception):
    """One run of ffmpeg failed; the message is ffmpeg's own words, or what its output lacks."""


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """A working ffmpeg: its path, and what decides its numbers."""

    path: Path
    version: str
    libvmaf: str
    encoders: frozenset[str] = field(repr=False)


def find_ffmpeg(path: Path | None = None, model: str = DEFAULT_MODEL) -> FFmpeg:
    """The ffmpeg at `path`, or else imageio-ffmpeg's, or else the one on PATH; InputError unless it has the model."""
    if path is not None:
        return _probe(path, model)
    try:
        import imageio_ffmpeg

        return _probe(Path(imageio_ffmpeg.get_ffmpeg_exe()), model)
    except (ImportError, RuntimeError, InputError) as error:
        found = shutil.which("ffmpeg")
        if found is None:
            raise InputError(
                f"ffmpeg: found none ({error}), expected one with libvmaf: "
                "pip install imageio-ffmpeg, or give --ffmpeg FILE"
            ) from None
        return _probe(Path(found), model)


def _probe(path: Path, model: str) -> FFmpeg:
    """Asks the binary for its version and encoders, and lets libvmaf score one tiny clip."""
    try:
        version = subprocess.run([path, "-version"], capture_output=True, text=True, check=True).stdout
        encoders = subprocess.run([path, "-v", "error", "-encoders"], capture_output=True, text=True, check=True).stdout
        libvmaf, words = _score_noise(path, model)
        if not libvmaf:
            models = [name for name in VMAF_MODELS if _score_noise(path, name)[0]]
            if models:
                raise InputError(f"{path}: it lacks the model {model}, expected one of {', '.join(models)}")
            raise InputError(
                f"{path}: {words}: expected an ffmpeg with libvmaf: pip install imageio-ffmpeg, or give --ffmpeg FILE"
            )
    except (OSError, subprocess.CalledProcessError) as error:
        found = error.strerror if isinstance(error, OSError) else f"exit code {error.returncode}"
        raise InputError(f"{path}: found {found}, expected an ffmpeg that runs: give --ffmpeg FILE") from None
    first = re.search(r"ffmpeg version (\S+)", version)
    names = re.findall(r"^ V\S+ +(\S+)", encoders, re.MULTILINE)
    return FFmpeg(path.absolute(), first[1] if first else "unknown", libvmaf, frozenset(names))


def _score_noise(path: Path, model: str, size: str = PROBE_SIZE) -> tuple[str, str]:
    """libvmaf's version, where it scores pictures of a size with the model; else "" and ffmpeg's words."""
    noise = f"nullsrc=s={size}:r=8:d=0.25,format=yuv420p"
    graph = f"[0:v][1:v]libvmaf=model=version={model}:log_fmt=json:log_path=log.json"
    with tempfile.TemporaryDirectory() as folder:
        inputs = ("-f", "lavfi", "-i", noise) * 2
        command = [str(path.absolute()), "-v", "error", "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"]
        scored = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        log = Path(folder, "log.json")
        if scored.returncode or not log.exists():
            return "", last_words(scored.stderr)
        return str(json.loads(log.read_text())["version"]), ""


def takes_size(ffmpeg: FFmpeg, model: str, size: str) -> bool:
    """Whether the model scores pictures of a size such as 640x360: some shrink them, and end on what is too small."""
    return bool(_score_noise(ffmpeg.path, model, size)[0])


def last_words(stderr: str) -> str:
    """The line of ffmpeg's words that tells most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = r"error|cannot|invalid|fail|unknown|unrecognized|\bno\b"
    errors = [line for line in lines if re.search(telling, line, re.I)]
    return re.sub(r" @ 0x[0-9a-f]+", "", (errors or lines or ["ffmpeg printed nothing"])[0])[:300].rstrip(".")


class Runner:
    """Runs ffmpeg, and ends every child at once when the build is interrupted."""

    def __init__(self, ffmpeg: FFmpeg) -> None:
        self.ffmpeg = ffmpeg
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, *arguments: str, folder: Path) -> str:
        """What ffmpeg says though it succeeds; "" for nothing.

        Raises FFmpegError with ffmpeg's words, OSError where there is no room for what it writes.
        """
        command = [str(self.ffmpeg.path), "-v", "error", "-nostdin", "-y", *arguments]
        with self._lock:
            if self._stopped:
                raise FFmpegError("stopped")
            child = subprocess.Popen(
                command,
                cwd=folder,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            self._children.add(child)
        assert child.stderr is not None
        try:
            with child.stderr as stderr:
                words = stderr.read(_MAX_STDERR)
                while stderr.read(_MAX_STDERR):
                    pass  # the child must not wait for a full pipe
            code = child.wait()
        finally:
            with self._lock:
                self._children.discard(child)
        for number in _DISK_FULL:
            if code and (os.strerror(number) in words or (number, -code) == (errno.EFBIG, signal.SIGXFSZ)):
                raise OSError(number, os.strerror(number), str(folder.parent))
        if code < 0:
            raise FFmpegError(
                f"ffmpeg was ended by {signal.Signals(-code).name}" + (words and f": {last_words(words)}")
            )
        if code:
            raise FFmpegError(last_words(words))
        return words.strip()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()
