"""places.py: where the project, its tests' files and the data beside the checkout are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
EXAMPLES = TESTS / "examples"
SHARED_DATA = ROOT.parent / "shared" / "data"
