"""testing: what tests of a plugin need: the conformance suite, and a registry to try things on. Needs pytest.

In `tests/test_conformance.py` of a plugin:

    from registry_tool.testing import EvidenceTable, PluginSuite

    class TestConformance(PluginSuite):
        plugin = "registry_thumbs.plugin"  # as in the entry point; the module will do as well
        kind = "thumbs"
        corpus = Path(__file__).parents[1] / "rows.csv"
        evidence = EvidenceTable("oof.csv", source="src")

`PluginSuite` says what else can be set; docs/plugins.md says what the suite asks.
"""

from __future__ import annotations

try:
    import pytest
except ImportError as _error:
    raise ImportError("registry_tool.testing needs pytest: pip install pytest") from _error

pytest.register_assert_rewrite(
    *(f"{__name__}.{room}" for room in ("base", "loading", "using", "breaking", "measuring"))
)

from registry_tool.testing.bench import Bench  # noqa: E402 (the rewriting first)
from registry_tool.testing.evidence import EvidenceTable  # noqa: E402
from registry_tool.testing.suite import PluginSuite  # noqa: E402

__all__ = ["Bench", "EvidenceTable", "PluginSuite"]
