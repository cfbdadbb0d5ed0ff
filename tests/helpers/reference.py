"""reference.py: the reference implementation of model signatures, as its users call it. Tests nothing."""

from __future__ import annotations

from importlib import metadata

import pytest
from click.testing import CliRunner, Result


def reference(*arguments: object) -> Result:
    """`model_signing ARGUMENTS` in this process; the test is skipped where it is not installed."""
    pytest.importorskip("model_signing")
    (script,) = metadata.entry_points(group="console_scripts", name="model_signing")
    return CliRunner().invoke(script.load(), [*map(str, arguments)])
