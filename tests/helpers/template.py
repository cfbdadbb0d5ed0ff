"""template.py: the plugin that `registry plugin new` copies, importable, and its conformance suite."""

from __future__ import annotations

import sys

from places import ROOT

from registry_tool.testing import EvidenceTable, PluginSuite

EXAMPLE = ROOT / "registry_tool" / "plugins" / "template"
sys.path.append(str(EXAMPLE / "src"))  # the suite's own processes get this path too


class TestExample(PluginSuite):
    """The plugin that `registry plugin new` copies."""

    plugin = "registry_ruler.plugin"
    kind = "ruler"
    corpus = EXAMPLE / "rows.csv"
    arguments = ("--license", "MIT")
    evidence = EvidenceTable("oof.csv", source="src")
