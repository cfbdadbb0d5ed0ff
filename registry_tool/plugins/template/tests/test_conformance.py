"""test_conformance.py: what registry-tool asks of every plugin, asked of this one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from registry_tool.testing import EvidenceTable, PluginSuite


class TestConformance(PluginSuite):
    """`registry_tool.testing` says what can be set here."""

    plugin = "registry_ruler.plugin"
    kind = "ruler"
    corpus = Path(__file__).parents[1] / "rows.csv"
    arguments = ("--license", "MIT")
    evidence = EvidenceTable("oof.csv", source="src")
    without: ClassVar = {
        "registry_calibrate": "a line has no intervals",
        "registry_migrate": "no older registry has one",
    }
