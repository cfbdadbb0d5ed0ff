"""encoding.py: a tiny source, a plan of it, and an ffmpeg behind a script, for tests of encodes. Tests nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

from fr_ensemble.corpus.build.encodes import Plan, Source
from fr_ensemble.corpus.build.ffmpeg import FFmpeg

MOVING = "testsrc2=s=160x96:r=12"
FRAMES = 8


def pattern(name: str = "moving", graph: str = MOVING) -> Source:
    return Source(name, graph=graph, frames=FRAMES)


def plan(*sources: Source, **qualities: tuple[int, ...]) -> Plan:
    return Plan(sources or (pattern(),), qualities or {"libx264": (20, 40)})


def wrapped(folder: Path, ffmpeg: FFmpeg, script: str) -> FFmpeg:
    """The real ffmpeg behind a shell script that may change what it is told, or fail."""
    file = folder / "ffmpeg"
    file.write_text(f'#!/bin/bash\n{script}\nexec {shlex.quote(str(ffmpeg.path))} "$@"\n')
    file.chmod(0o755)
    return FFmpeg(file, ffmpeg.version, ffmpeg.libvmaf, ffmpeg.encoders)
