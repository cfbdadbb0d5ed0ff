"""Tests of explain.py: the findings of the core and of any plugin are explained; adding one touches one module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import registry_tool.schemas as schemas
from command_line import Program
from places import EXAMPLES
from thumbs import with_plugin

from registry_tool.errors import InputError, PluginError
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import EntryView, Kind, Level, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.report import rules, sarif
from registry_tool.workflows import explain
from registry_tool.workflows.validate import validate

NO_AUTHOR = FindingRule(
    "tiny-no-author",
    "missing author",
    why="A reviewer cannot ask anyone about the model.",
    message="{id} has no author",
    hint="add `author` to the entry",
    example='"author": ""',
    since="1.3",
)
HERE = __name__


class Tiny:
    """A plugin with one finding, declared in this module."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("tiny", "tiny models", findings={"tiny-": HERE})]

    @hookimpl
    def registry_verify(self, view: EntryView, level: Level) -> list[Finding]:
        return [NO_AUTHOR.at(view, "/author", id=view.entry.id)]


def test_a_new_finding_is_explained_everywhere() -> None:
    """CONTRIBUTING's recipe: declared and given in one module, it is in the list, the page, JSON and SARIF."""
    plugins = with_plugin(Tiny(), "tiny")
    groups = explain.declared(plugins)
    assert groups[-1] == explain.RuleGroup("Plugin tiny", (NO_AUTHOR,))
    assert "  tiny-no-author " in rules.listing(groups)
    page = "### `tiny-no-author`\n\nError: Missing author. A reviewer cannot ask anyone about the model.\n"
    assert page in rules.markdown(groups)
    result = validate(EXAMPLES / "valid" / "smoke" / "registry.json", plugins, Level.QUICK)
    assert {finding.code for finding in result.findings} == {"tiny-no-author"}
    (rule,) = sarif.log([result])["runs"][0]["tool"]["driver"]["rules"]
    assert rule["help"]["text"] == rules.text(NO_AUTHOR)
    assert "What to do:      Add `author` to the entry." in rule["help"]["text"]


@pytest.mark.parametrize("code", [None, "digest-mismatch", "sidecar-codec"])
def test_rules_as_json(code: str | None, registry: Program) -> None:
    """All codes, or one, in the form of its schema; with the values that a finding fills in as words in capitals."""
    ran = registry("rule", *([code] if code else []), "--format", "json")
    document = json.loads(ran.out)
    jsonschema.Draft202012Validator(schemas.load("rules")).validate(document)
    codes = [rule["code"] for rule in document["rules"]]
    assert codes == [code] if code else len(codes) > 100
    assert not any("{" in rule[name] for rule in document["rules"] for name in ("message", "hint"))


def test_the_markdown_is_the_page(registry: Program) -> None:
    """`registry rule --format markdown` is docs/findings.md; one code alone is a page too."""
    ran = registry("rule", "onnx-loop", "--format", "markdown")
    assert "### `onnx-loop`" in ran.out
    assert ran.out.count("###") == 1


def test_a_code_that_is_not_declared() -> None:
    """It is the user's mistake; the codes that look like it are named."""
    groups = explain.declared(load())
    with pytest.raises(InputError, match="did you mean digest-mismatch"):
        explain.only("digest-mismach", groups)
    with pytest.raises(InputError, match="`registry rule` lists all"):
        explain.only("", groups)


def test_a_module_that_does_not_load_is_the_plugin_s_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Missing or broken: the error names the plugin, in one line."""
    (tmp_path / "broken_findings.py").write_text("1 / 0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for module in ("nowhere_at_all", "broken_findings"):
        with pytest.raises(PluginError, match="plugin tiny: its findings cannot be read") as caught:
            explain.declared(with_plugin(plugin({"tiny-": module}), "tiny"))
        assert "\n" not in str(caught.value)


def plugin(findings: dict[str, str], kind: str = "tiny") -> Any:
    class Some:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind(kind, "of a test", findings=findings)]

    return Some()


@pytest.mark.parametrize(
    ("prefix", "owner"),
    [
        ("file-", "the core"),
        ("file-of-mine-", "the core"),
        ("ensemble-", "plugin fr_ensemble"),
        ("evidence-", "plugin fr_ensemble"),
        ("sidecar-", "plugin onnx_kinds"),
        ("ensemble-x-", "plugin fr_ensemble"),
    ],
)
def test_a_prefix_has_one_owner(prefix: str, owner: str) -> None:
    """A plugin whose codes could be taken for those of the core or of another plugin does not load."""
    with pytest.raises(PluginError, match=f"plugin extra 7: finding codes .* belong to {owner}"):
        with_plugin(plugin({prefix: HERE}), "extra")


def test_prefixes_of_two_plugins_collide_in_either_order() -> None:
    """The longer one first, or the shorter."""
    for first, second in (("a-", "a-b-"), ("a-b-", "a-"), ("a-", "a-")):
        plugins = Plugins()
        plugins.add(plugin({first: HERE}, "first"), "first")
        with pytest.raises(PluginError, match=r"plugin second 0: .* belong to plugin first"):
            plugins.add(plugin({second: HERE}, "second"), "second")
    plugins = Plugins()
    plugins.add(plugin({"a-": HERE}, "first"), "first")
    plugins.add(plugin({"ab-": HERE}, "second"), "second")


@pytest.mark.parametrize("prefix", ["", "-", "tiny", "Tiny-", "tiny--", "1-", "tiny-\n"])
def test_a_prefix_is_words_with_hyphens(prefix: str) -> None:
    """It ends in a hyphen, so that it is whole words of a code."""
    with pytest.raises(ValueError, match="expected a prefix such as"):
        Kind("tiny", "of a test", findings={prefix: HERE})


def test_help_loads_no_check() -> None:
    """`registry --help` starts without the modules that declare findings."""
    import subprocess

    script = (
        "import sys\nfrom registry_tool import cli\nsys.argv = ['registry', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(*(name for name in sys.modules if name.startswith('registry_tool.checks')))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == ""


def test_a_package_declares_what_its_modules_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind may name a package: the findings of each of its modules are explained, once each, by code."""
    package = tmp_path / "thumb_checks"
    package.mkdir()
    declared = (
        "from registry_tool.findings import FindingRule\n{name} = FindingRule('tiny-{code}', 'a', why='b', hint='c')\n"
    )
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text(declared.format(name="SECOND", code="second"))
    (package / "second.py").write_text(
        "from thumb_checks.first import SECOND as SECOND\n" + declared.format(name="FIRST", code="first")
    )
    monkeypatch.syspath_prepend(tmp_path)

    class InPackage(Tiny):
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("tiny", "tiny models", findings={"tiny-": "thumb_checks"})]

    (*_, group) = explain.declared(with_plugin(InPackage(), "tiny"))
    assert [rule.code for rule in group.rules] == ["tiny-first", "tiny-second"]
