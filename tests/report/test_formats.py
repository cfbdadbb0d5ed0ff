"""Tests of the report formats that other programs read: SARIF, JUnit, GitHub annotations and summaries, `-o`."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from command_line import Program
from places import EXAMPLES, TESTS
from policies import set_bound
from sandbox import Sandbox

from registry_tool.documents.store import Unreadable
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import load
from registry_tool.report import github, junit, machine, sarif
from registry_tool.report.rules import markdown, text
from registry_tool.values import Policy, Rule, Verdict
from registry_tool.workflows.explain import declared
from registry_tool.workflows.gate import Judgement
from registry_tool.workflows.validate import Validation, validate

FOREIGN = TESTS / "data" / "foreign"
SARIF = jsonschema.Draft7Validator(json.loads((FOREIGN / "sarif-schema-2.1.0.json").read_text()))
HOSTILE = 'a"b<c>]]>&%\r\n::error::x\x1b[31m,|`#@‮'


@cache
def junit_schema() -> Any:
    import xmlschema  # which takes a second to read its own schemas

    return xmlschema.XMLSchema(str(FOREIGN / "junit-10.xsd"))


@pytest.fixture(scope="module")
def results() -> list[Validation]:
    """Every invalid example and a valid one, looked at quickly."""
    plugins = load()
    folders = sorted(p for p in (EXAMPLES / "invalid").iterdir() if p.is_dir())
    paths = [folder / "registry.json" for folder in [*folders, EXAMPLES / "valid" / "smoke"]]
    return [validate(path, plugins, Level.QUICK) for path in paths if path.exists()]


def hostile(tmp_path: Path, *more: Finding) -> Validation:
    """A validation whose texts try everything that ends a string somewhere."""
    finding = Finding("plugin-code", HOSTILE, Severity.WARNING, HOSTILE, HOSTILE, found=HOSTILE, expected=HOSTILE)
    return Validation(Unreadable(tmp_path / "registry.json", None, ()), Level.FULL, (finding, *more))


def runs(log: dict[str, Any]) -> list[dict[str, Any]]:
    (run,) = log["runs"]
    found: list[dict[str, Any]] = run["results"]
    return found


# ---- SARIF ------------------------------------------------------------------------------------------------------


def test_sarif_is_valid_by_the_official_schema(results: list[Validation], tmp_path: Path) -> None:
    """Findings of every kind, none at all, and hostile texts, held against the schema of OASIS."""
    assert len(results) > 80
    for given in (results, [], [hostile(tmp_path)]):
        log = json.loads(machine.render(sarif.log(given)))
        assert list(SARIF.iter_errors(log)) == []
        assert len(runs(log)) == sum(len(result.findings) for result in given)
    broken = sarif.log(results[:1]) | {"version": "2.2.0"}
    assert list(SARIF.iter_errors(broken))


def test_sarif_points_at_the_value(results: list[Validation]) -> None:
    """Line and column, counted in characters from 1, are where the key or the value that is wrong stands."""
    seen = 0
    for result in results:
        for finding, shown in zip(result.findings, runs(sarif.log([result])), strict=True):
            place = shown["locations"][0]["physicalLocation"]
            key = (finding.pointer or "").rpartition("/")[2]
            if finding.line is None:
                assert "region" not in place
            elif key and not key.isdigit() and finding.code not in ("schema-required", "registry-version"):
                path = Path(place["artifactLocation"]["uri"])
                assert path.is_relative_to("tests/examples")
                text = (EXAMPLES.parents[1] / path).read_text().splitlines()[place["region"]["startLine"] - 1]
                assert text[place["region"]["startColumn"] - 1 :].startswith(f'"{key}"'), finding
                seen += 1
    assert seen > 25


def test_sarif_places_a_syntax_error(tmp_path: Path) -> None:
    """Where the parser stopped, in characters: what stands before it on the line may be wider in bytes."""
    (tmp_path / "registry.json").write_text('{\n  "é": 1,, "models": []}')
    (shown,) = runs(sarif.log([validate(tmp_path / "registry.json", load())]))
    assert shown["locations"][0]["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 10}


def test_sarif_explains_each_rule_once(results: list[Validation]) -> None:
    """A rule a code found, with the texts of the table; its Markdown stands in docs/findings.md."""
    log = sarif.log(results)
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted({result["ruleId"] for result in runs(log)})
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in runs(log))
    groups = declared(load())
    known = {rule.code: rule for group in groups for rule in group.rules}
    for rule in rules:
        assert rule["help"]["text"] == text(known[rule["id"]])
        assert f"### `{rule['id']}`\n\n{rule['help']['markdown']}\n" in markdown(groups) + "\n"
        assert rule["defaultConfiguration"]["level"] == known[rule["id"]].severity


def fingerprints(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in runs(sarif.log([validate(path, load(), Level.QUICK)])):
        found.setdefault(result["ruleId"], []).append(result["partialFingerprints"]["primaryLocationLineHash"])
    return {code: sorted(prints) for code, prints in found.items()}


def test_fingerprints_stay_when_lines_move(tmp_path: Path) -> None:
    """New lines, and new entries before the entry, change no fingerprint; every finding has one of its own."""
    folder = tmp_path / "model"
    shutil.copytree(EXAMPLES / "invalid" / "digest-mismatch", folder)
    path = folder / "registry.json"
    document = json.loads(path.read_text())
    document["models"][0] |= {"license": 7, "description": 8}
    path.write_text(json.dumps(document))
    before = fingerprints(path)
    assert len(before["schema-type"]) == len(set(before["schema-type"])) == 2
    other = json.loads((EXAMPLES / "valid" / "smoke" / "registry.json").read_text())["models"][0]
    document["models"].insert(0, {**other, "id": "a"})
    path.write_text(json.dumps(document, indent=8))
    after = fingerprints(path)
    assert {code: after[code] for code in before} == before


def test_sarif_names_files_from_the_root_of_the_repository(production: Sandbox) -> None:
    """POSIX, percent-encoded, and nothing of this machine; a file without lines leads to its entry's line too."""
    top = production.folder.parent
    subprocess.run(["git", "init", "-q", top], check=True)
    member = next(production.artifacts.glob("*_seed0.onnx"))
    member.write_bytes(b"?")
    (production.folder / "a b#.onnx").write_bytes(b"?")
    log = machine.render(sarif.log([validate(production.path, load())]))
    assert str(top) not in log
    shown = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]: r for r in runs(json.loads(log))}
    assert "model/a%20b%23.onnx" in shown
    manifest = shown[f"model/{production.artifacts.relative_to(production.folder).as_posix()}/manifest.json"]
    (related,) = manifest["relatedLocations"]
    assert related["physicalLocation"]["artifactLocation"]["uri"] == "model/registry.json"
    line = production.path.read_text().splitlines()[related["physicalLocation"]["region"]["startLine"] - 1]
    assert line.strip() == "{"


# ---- JUnit ------------------------------------------------------------------------------------------------------


def cases(text: str) -> dict[str, Any]:
    """{case: (failure lines, other lines)} of a report that is valid by the schema of Jenkins."""
    assert junit_schema().validate(io.StringIO(text)) is None
    root = ET.fromstring(text)
    found = {}
    for case in root.iter("testcase"):
        lines = [(case.findtext(name) or "").splitlines() for name in ("failure", "system-out")]
        found[case.get("name")] = tuple(lines)
    for element in (root, *root.findall("testsuite")):
        assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
        assert int(element.get("failures", "")) == len(list(element.iter("failure")))
    return found


def test_junit_is_valid_by_the_schema_of_jenkins(results: list[Validation], tmp_path: Path) -> None:
    """Findings of every kind, none at all, and hostile texts."""
    for given in (results, [], [hostile(tmp_path)]):
        for strict in (False, True):
            cases(junit.validations(given, strict=strict))


def test_junit_has_a_case_for_each_entry(production: Sandbox, registry: Program) -> None:
    """An entry with an error fails, one without passes, and what has no entry belongs to the registry."""
    (production.folder / "stray.onnx").write_bytes(b"?")
    clean = cases(registry("validate", production.path, "--format", "junit").out)
    assert set(clean) == {"registry.json", "tiny"}
    assert [bool(bad) for bad, _ in clean.values()] == [False, False]
    assert "file-unregistered" in clean["registry.json"][1][0]
    strict = cases(registry("validate", production.path, "--format", "junit", "--strict").out)
    assert "file-unregistered" in strict["registry.json"][0][0]
    next(production.artifacts.glob("*_seed0.onnx")).write_bytes(b"?")
    broken = cases(registry("validate", production.path, "--format", "junit").out)
    assert "digest-mismatch" in broken["tiny"][0][0]


def test_junit_of_a_gate(smoke: Sandbox, registry: Program) -> None:
    """PROMOTE passes with its figures, HOLD fails with its reasons."""
    where = ("gate", "tiny", "--registry", smoke.path, "--format", "junit")
    bad, good = cases(registry(*where).out)["tiny"]
    assert (bad, good[0]) == ([], "tiny: PROMOTE")
    smoke.edit(set_bound("mean_plcc", 0.99999))
    ran = registry(*where)
    bad, good = cases(ran.out)["tiny"]
    assert (ran.code, bad[0], good) == (1, "tiny: HOLD", [])
    assert any("mean_plcc >= 0.99999" in line for line in bad)


# ---- GitHub -----------------------------------------------------------------------------------------------------

COMMAND = re.compile(r"::(error|warning|notice) ([^:\r\n]*)::([^\r\n]*)")


def annotations(text: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """(word, properties, message) of each workflow command, read as the runner does."""

    def plain(value: str) -> str:
        for code, mark in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            value = value.replace(code, mark)
        return value

    for line in text.splitlines():
        if line.startswith("::"):
            found = COMMAND.fullmatch(line)
            assert found, line
            pairs = (pair.split("=", 1) for pair in found[2].split(","))
            yield found[1], {name: plain(value) for name, value in pairs}, plain(found[3])


def test_annotations_name_file_line_and_code(results: list[Validation]) -> None:
    """One a finding, errors first, with a path from the repository's root."""
    shown = list(annotations("\n".join(github.findings(results))))
    findings = [finding for result in results for finding in result.findings]
    assert len(shown) == len(findings)
    words = [word for word, _, _ in shown]
    assert words == sorted(words, key=["error", "warning", "notice"].index)
    assert {"error", "warning", "notice"} == set(words)
    assert sorted(p["title"] for _, p, _ in shown) == sorted(finding.code for finding in findings)
    for _, properties, _ in shown:
        assert properties["file"].startswith("tests/examples/")
        assert ("line" in properties) == ("col" in properties)


def test_annotations_cannot_be_ended_from_within(tmp_path: Path) -> None:
    """A text with newlines, commas, colons and percent signs stays one command of one line."""
    lines = list(github.findings([hostile(tmp_path)]))
    assert sum(line.startswith("::") for line in lines) == 1
    ((word, properties, message),) = annotations("\n".join(lines))
    assert (word, properties["title"]) == ("warning", "plugin-code")
    assert set(properties) == {"file", "title"}
    assert "&%\\r\\n::error::x\\x1b[31m,|" in message


def test_the_summary_is_a_table_that_text_cannot_leave(
    tmp_path: Path, results: list[Validation], registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appended to the step's file; every row has its columns, whatever a name holds; a long list is cut, saying so."""
    rows = list(github.summary_of_findings([hostile(tmp_path)]))
    assert rows[2:4] == ["| | finding | where | what, and what to do |", "| --- | --- | --- | --- |"]
    assert all(row.count("|") == 5 for row in rows[2:5])
    assert not re.search(r"[<>`*_@\r\n]", rows[4])
    many = [Finding("a-b", f"m{i}") for i in range(300)]
    assert "101 more: `registry validate` prints them all." in list(
        github.summary_of_findings([hostile(tmp_path, *many)])
    )
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert registry("validate", EXAMPLES / "invalid" / "digest-mismatch", "--format", "github").code == 1
    assert registry("validate", EXAMPLES / "invalid" / "digest-mismatch").code == 1
    text = summary.read_text()
    assert text.startswith("before\n### ")
    assert text.count("| error | digest-mismatch | ") == 1, "format text adds nothing"


def test_a_gate_writes_its_table(
    smoke: Sandbox, registry: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rule with its figure; a HOLD is an error at the entry's line, and its reasons stand below the table."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    where = ("gate", "tiny", "--registry", smoke.path, "--format", "github")
    assert {word for word, _, _ in annotations(registry(*where).out)} <= {"warning"}  # what the evidence could not show
    lines = [line for line in summary.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert [len(row) for row in rows] == [5] * 5
    assert rows[2][:2] == ["tiny", "**PROMOTE**"]
    assert rows[2][4] == "holds"
    smoke.edit(set_bound("mean_plcc", 0.99999))
    summary.unlink()
    ran = registry(*where)
    ((properties, message),) = ((more, text) for word, more, text in annotations(ran.out) if word == "error")
    assert (ran.code, properties["title"]) == (1, "tiny is held")
    line = smoke.path.read_text().splitlines()[int(properties["line"]) - 1]
    assert line[int(properties["col"]) - 1 :] == "{"
    assert "mean_plcc >= 0.99999" in message
    assert "**fails**" in summary.read_text()
    assert re.search(r"^- tiny: mean&#95;plcc &#62;&#61; 0.99999", summary.read_text(), flags=re.MULTILINE)


def test_a_gate_with_nothing_to_judge_says_so() -> None:
    """The table of no verdicts is a sentence, not an empty table; a policy without rules is by hand."""
    assert list(github.summary_of_verdicts([], "Gate")) == ["### Gate", "", "Nothing to judge.", ""]
    manual = Judgement(Verdict("x", "PROMOTE", Policy((), "manual"), {}, ()))
    assert "| x | **PROMOTE** | by hand | | |" in list(github.summary_of_verdicts([manual], "Gate"))
    held = Judgement(Verdict("x", "HOLD", Policy((Rule("m", ">=", 1),)), {}, ("digest-mismatch: no",)))
    assert "| x | **HOLD** | m &#62;&#61; 1 | not measured | |" in list(github.summary_of_verdicts([held], "Gate"))


# ---- where it goes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_colour_is_for_terminals(stream: str, tmp_path: Path) -> None:
    """Findings are coloured on a terminal, whichever stream they take; not with NO_COLOR, and not in a file."""
    command = [sys.executable, "-m", "registry_tool", "validate", str(EXAMPLES / "invalid" / "digest-mismatch")]
    command += ["-o", str(tmp_path / "out")] if stream == "stderr" else []
    for no_colour in ("", "1"):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm"}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
        assert subprocess.run(command, env=environment, check=False, **streams).returncode == 1  # type: ignore[call-overload]  # the two streams
        os.close(theirs)
        text = os.read(ours, 1 << 16)
        os.close(ours)
        assert b"digest-mismatch" in text
        assert (b"\x1b[31m" in text) == (not no_colour)
    if stream == "stderr":
        assert "\x1b" not in (tmp_path / "out").read_text()


def test_the_public_registry_in_every_format(registry: Program, public_documents: Path) -> None:
    """Its findings, one for one, as SARIF that OASIS takes, as JUnit that Jenkins takes, and as annotations."""
    where = ("validate", public_documents, "--level", "quick", "--format")
    findings = json.loads(registry(*where, "json").out)["findings"]
    assert findings
    log = json.loads(registry(*where, "sarif").out)
    assert list(SARIF.iter_errors(log)) == []
    keys = [result["partialFingerprints"]["primaryLocationLineHash"] for result in runs(log)]
    assert len(set(keys)) == len(findings)
    assert sum(len(bad) + len(good) for bad, good in cases(registry(*where, "junit").out).values()) == len(findings)
    assert len(list(annotations(registry(*where, "github").out))) == len(findings)


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit", "github"])
def test_output_goes_to_a_file_whole(registry: Program, tmp_path: Path, form: str) -> None:
    """-o holds what stdout would, the words go to stderr, the exit code stays; `-` is stdout; no folder is exit 3."""
    where = ("validate", EXAMPLES / "invalid" / "digest-mismatch", "--format", form)
    printed = registry(*where)
    ran = registry(*where, "-o", tmp_path / "out")
    assert (ran.code, ran.out, (tmp_path / "out").read_text()) == (1, "", printed.out)
    assert "error[digest-mismatch]" in ran.err
    assert registry(*where, "-o", "-") == printed
    missing = registry(*where, "-o", tmp_path / "no" / "out")
    assert (missing.code, missing.err.splitlines()[-1].startswith("registry: ")) == (3, True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_several_registries_are_one_report(registry: Program, production: Sandbox) -> None:
    """Each is checked and the worst decides; JSON, whose document describes one registry, refuses."""
    both = ("validate", production.path, EXAMPLES / "invalid" / "digest-mismatch")
    ran = registry(*both)
    assert (ran.code, len(ran.out.splitlines())) == (1, 3)
    assert set(cases(registry(*both, "--format", "junit").out)) == {"registry.json", "tiny", "m"}
    assert registry(*both, "--format", "json").code == 2


def test_a_quick_text_run_loads_no_renderer(production: Sandbox) -> None:
    """The formats are imported when asked for."""
    script = (
        "import sys\nfrom registry_tool import cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted(n for n in sys.modules if n.startswith('registry_tool.report.') or n == 'xml'))"
    )
    command = [sys.executable, "-c", script, "validate", str(production.path), "--level", "quick"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "['registry_tool.report.reporters', 'registry_tool.report.text']"


def test_a_code_of_a_plugin_is_a_rule() -> None:
    """A code that no table explains is still a rule in SARIF."""
    finding = Finding("of-a-plugin", "odd")
    result = Validation(Unreadable(Path("registry.json"), None, ()), Level.FULL, (finding,))
    (rule,) = sarif.log([result])["runs"][0]["tool"]["driver"]["rules"]
    assert rule["id"] == "of-a-plugin"
    assert "help" not in rule
