"""places.py: where the project, its tests' files and the data beside the checkout are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
EXAMPLES = TESTS / "examples"
SHARED_DATA = ROOT.parent / "shared" / "data"
# Files that take the longest. Their tests begin first, so that no worker is left alone with one at the end.
LONG_FILES = (
    "project/test_benchmarks.py",
    "project/test_readme.py",
    "testing/test_conformance.py",
    "project/test_packaging.py",
    "project/test_ci.py",
    "project/test_howto.py",
    "plugins/test_scaffold.py",
    "fr_ensemble/training/test_compiling.py",
)
NOT_THERE = "../shared/data is not there"  # the end of a run counts the tests that this skips


def shared_data(name: str) -> Path:
    """A file or folder of the data that is beside some checkouts; the test is skipped where it is not."""
    if not (SHARED_DATA / name).exists():
        pytest.skip(NOT_THERE)
    return SHARED_DATA / name
