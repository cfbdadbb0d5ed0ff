"""reference.py: the reference implementation of model signatures, run as its users do. Tests nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def reference(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m model_signing ARGUMENTS`; the test is skipped where it is not installed."""
    pytest.importorskip("model_signing")
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
