"""Tests of the program: exit codes, output for people and machines, help, and the ways in which a run can end."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import Program, program
from places import EXAMPLES
from policies import set_bound
from registries import Made
from sandbox import Sandbox, to_json

from registry_tool import __version__, schemas
from registry_tool.cli import cli
from registry_tool.commands.shared import Context
from registry_tool.documents.schema import violations
from registry_tool.errors import ExitCode

# ---- help -------------------------------------------------------------------------------------------------------


def commands(
    group: click.Group, ctx: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=ctx, info_name=name), (*path, name))


def all_commands() -> dict[tuple[str, ...], click.Command]:
    with click.Context(cli, info_name="registry", obj=Context()) as ctx:
        return dict(commands(cli, ctx))


COMMANDS = all_commands()


def test_the_commands_of_the_design_are_there() -> None:
    """What section 6 lets a person type."""
    expected = {"validate", "list", "show", "rule", "plugins", "train", "evaluate", "predict", "gate", "flip", "prune"}
    assert expected <= {path[0] for path in COMMANDS}
    assert ("train", "fr_ensemble") in COMMANDS


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_an_example(path: tuple[str, ...], flag: str, registry: Program) -> None:
    """Every command's help names the program with an example, and ends with 0."""
    ran = registry(*path, flag)
    assert (ran.code, ran.err) == (0, "")
    assert f"registry {' '.join(path)}" in ran.out
    assert "Example" in ran.out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...], registry: Program) -> None:
    """An option without a word about it is not finished."""
    text = " ".join(registry(*path, "--help").out.split())
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name
            assert option.opts[0] in text
            assert " ".join(option.help.split())[:40] in text


def test_a_line_of_help_fits_a_terminal(registry: Program) -> None:
    """No example or table of the help is wider than 120 characters."""
    for path in [(), *COMMANDS]:
        assert max(map(len, registry(*path, "--help").out.splitlines())) <= 120


def test_the_help_says_the_exit_codes(registry: Program) -> None:
    """All four, in the program's own help."""
    text = registry("--help").out
    for code in ExitCode:
        assert f"{int(code)} " in text
    assert set(map(int, ExitCode)) == {0, 1, 2, 3}


def test_the_version_is_printed(registry: Program) -> None:
    """--version says the version of the package."""
    ran = registry("--version")
    assert ran.code == 0
    assert ran.out == f"registry-tool {__version__}\n"


# ---- exit codes -------------------------------------------------------------------------------------------------

CODES: list[tuple[str, tuple[str, ...], int]] = [
    ("smoke", ("validate",), 0),
    ("smoke", ("validate", "--strict", "--level", "quick"), 0),
    ("smoke", ("list",), 0),
    ("smoke", ("show", "tiny"), 0),
    ("smoke", ("show", "tiny", "--format", "json"), 0),
    ("smoke", ("gate", "tiny"), 0),
    ("smoke", ("flip", "tiny"), 0),
    ("smoke", ("prune",), 0),
    ("smoke", ("plugins",), 0),
    ("smoke", ("rule",), 0),
    ("smoke", ("rule", "digest-mismatch"), 0),
    ("smoke", ("evaluate", "tiny", "--smoke"), 0),
    ("production", ("validate", "--strict"), 0),
    ("production", ("gate", "tiny"), 0),
    ("production", ("flip", "tiny", "--demote", "--reason", "drifts"), 0),
    ("production", ("flip", "tiny"), 1),
    ("smoke", ("flip", "tiny", "--demote", "--reason", "x"), 1),
    ("random", ("gate", "tiny"), 1),
    ("random", ("flip", "tiny"), 1),
    ("random", ("validate",), 0),
    ("smoke", ("flip", "tiny", "--demote"), 2),
    ("smoke", ("flip", "tiny", "--reason", "x"), 2),
    ("smoke", ("gate",), 2),
    ("smoke", ("gate", "timy"), 2),
    ("smoke", ("gate", "tiny", "--base", "main"), 2),
    ("smoke", ("gate", "--evidence", "no-such-folder"), 2),
    ("smoke", ("flip",), 2),
    ("smoke", ("flip", "timy"), 2),
    ("smoke", ("show", "timy"), 2),
    ("smoke", ("rule", "no-such-code"), 2),
    ("smoke", ("evaluate", "tiny"), 2),
    ("smoke", ("evaluate", "tiny", "--smoke", "--corpus", "x.csv"), 2),
    ("smoke", ("evaluate", "tiny", "--smoke", "--levels", "1.5"), 2),
    ("smoke", ("evaluate", "tiny", "--smoke", "--levels", "nan"), 2),
    ("smoke", ("evaluate", "tiny", "--smoke", "--levels", ""), 2),
    ("smoke", ("predict", "tiny"), 2),
    ("smoke", ("train", "unheard_of", "--id", "a"), 2),
    ("smoke", ("train", "fr", "--id", "a"), 2),
    ("smoke", ("train", "fr_ensemble"), 2),
    ("smoke", ("train", "fr_ensemble", "--id", "a", "--smoke", "--corpus", "x.csv"), 2),
    ("smoke", ("validate", "--level", "thorough"), 2),
    ("smoke", ("validate", "--format", "yaml"), 2),
    ("smoke", ("validate", "--no-such-option"), 2),
    ("smoke", ("no-such-command",), 2),
    ("smoke", ("validate", "a", "b"), 2),
]


@pytest.mark.parametrize(("state", "arguments", "code"), CODES, ids=[f"{c[0]} {' '.join(c[1])}" for c in CODES])
def test_exit_codes(
    made: Made, workdir: Path, registry: Program, state: str, arguments: tuple[str, ...], code: int
) -> None:
    """Done is 0, rejected 1, unusable 2; what failed says so on stderr in at most a usage and a line."""
    shutil.copytree(getattr(made, state), workdir, dirs_exist_ok=True)
    ran = registry(*arguments)
    assert ran.code == code, ran
    if code == 2:
        assert ran.out == ""
        assert 1 <= ran.err.count("\n") <= 4


def test_train_without_a_kind_lists_the_kinds(registry: Program) -> None:
    """It is exit 2, with the help of the group on stderr."""
    ran = registry("train")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: registry train [OPTIONS] KIND")
    assert "fr_ensemble" in ran.err


@pytest.mark.parametrize("name", ["digest-mismatch", "promotion-missing", "json-duplicate-key"])
def test_a_finding_fails_validation(name: str, registry: Program) -> None:
    """An error finding is exit 1; a registry that does not parse is one."""
    assert registry("validate", EXAMPLES / "invalid" / name).code == 1


def test_every_error_of_the_world_is_3(smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes nothing: one line on stderr that says where and what to do, nothing written."""
    from registry_tool.storage import disk

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    before = smoke.tree()
    monkeypatch.setattr(disk, "write", full)
    ran = registry("flip", "tiny", "--registry", smoke.path)
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "the disk is full" in ran.err
    assert smoke.tree() == before


# ---- output for people ------------------------------------------------------------------------------------------


def test_a_finding_is_a_line_with_everything(registry: Program) -> None:
    """Severity, code, entry, file:line, pointer, found, expected, what to do; the last line counts."""
    ran = registry("validate", EXAMPLES / "invalid" / "digest-mismatch")
    finding, count = ran.out.splitlines()
    assert finding.startswith("error[digest-mismatch] m: registry.json:")
    assert "#/models/0/sha256" in finding
    for part in (": found ", ", expected ", ": restore the file"):
        assert part in finding
    assert count.endswith("registry.json: 1 entry: 1 error")
    assert ran.err == ""


def test_findings_are_counted_in_words(registry: Program, tmp_path: Path) -> None:
    """Errors, warnings and notes, in the plural where there are several."""
    files = [("a.onnx", b"x"), ("b.onnx", b"y"), ("old/0123456789ab/manifest.json", b"{}")]
    for name, data in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "registry.json").write_bytes(to_json({"schema_version": 2, "policies": {}, "models": []}))
    assert registry("validate", tmp_path).out.splitlines()[-1].endswith(": 0 entries: 2 warnings, 1 note")


def test_there_is_no_colour_in_a_pipe(production: Sandbox) -> None:
    """Output to a pipe has no escape codes."""
    assert "\x1b" not in program("gate", "tiny", "--registry", production.path).stdout


def test_the_gate_shows_each_rule_and_the_folds(smoke: Sandbox, registry: Program) -> None:
    """Verdict first, then each rule with its figure, then the folds as a table with every source."""
    lines = registry("gate", "tiny", "--registry", smoke.path).out.splitlines()
    assert lines[0] == "tiny: PROMOTE"
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["ok", m] for m in ("mean_plcc", "plcc_spread", "min_seed_plcc")
    ]
    table = [line for line in lines if line.startswith("s1")]
    assert [line.split()[0] for line in table] == smoke.manifest["corpus"]["sources"]
    smoke.edit(set_bound("mean_plcc", 0.99999))
    held = registry("gate", "tiny", "--registry", smoke.path).out.splitlines()
    assert held[0] == "tiny: HOLD"
    assert held[1].split()[:2] == ["FAIL", "mean_plcc"]
    assert any(line.startswith("  - mean_plcc >= 0.99999: found 0.99") for line in held)


def test_list_and_show_say_what_ships(production: Sandbox, registry: Program) -> None:
    """One line an entry with its state; every pinned file with its digest, and the policy."""
    where = ("--registry", production.path)
    header, row = registry("list", *where).out.splitlines()
    assert header.split()[:3] == ["id", "kind", "state"]
    assert row.split() == ["tiny", "fr_ensemble", "production", "MIT", production.entry["sha256"][:12]]
    text = registry("show", "tiny", *where).out
    for part in ("tiny_seed2.onnx", "evidence/oof.npz", production.entry["sha256"], "mean_plcc"):
        assert part in text


def test_words_go_to_stderr_and_results_to_stdout(smoke: Sandbox, registry: Program) -> None:
    """What a script wants is alone on stdout."""
    ran = registry("flip", "tiny", "--registry", smoke.path, "--format", "json")
    assert json.loads(ran.out)["verdict"] == "PROMOTE"
    assert "production, verdict in" in ran.err


def test_plugins_are_listed(registry: Program) -> None:
    """Name, version, kinds, hooks; the same as JSON."""
    rows = json.loads(registry("plugins", "--format", "json").out)
    by_name = {row["plugin"]: row for row in rows}
    assert by_name["fr_ensemble"]["kinds"] == "fr_ensemble"
    assert "registry_gate" in by_name["fr_ensemble"]["hooks"]
    assert "fr, nr, filter" in registry("plugins").out


# ---- output for machines ----------------------------------------------------------------------------------------


def strict(text: str) -> Any:
    """JSON as a strict reader reads it: no NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize(
    "name", ["invalid/digest-mismatch", "invalid/json-bom", "valid/smoke", "invalid/folder-unused"]
)
def test_findings_as_json_have_their_schema(name: str, level: str, registry: Program) -> None:
    """The document's shape, and numbers that agree with its findings."""
    ran = registry("validate", EXAMPLES / name, "--format", "json", "--level", level)
    document = strict(ran.out)
    assert violations(document, schemas.load("findings")) == []
    assert (document["level"], document["registry"].endswith("registry.json")) == (level, True)
    for severity, count in document["summary"].items():
        assert count == sum(f["severity"] == severity for f in document["findings"])
    assert ran.code == (1 if document["summary"]["error"] else 0)


def test_a_verdict_as_json_is_a_verdict(smoke: Sandbox, registry: Program, tmp_path: Path) -> None:
    """On stdout with details, in the file of -o as `flip` would store it."""
    ran = registry("gate", "tiny", "--registry", smoke.path, "--format", "json", "-o", tmp_path / "v.json")
    document = strict(ran.out)
    assert violations(document, schemas.load("verdict")) == []
    assert [fold["held_out"] for fold in document["details"]["folds"]] == smoke.manifest["corpus"]["sources"]
    stored = strict((tmp_path / "v.json").read_text())
    assert stored == {key: value for key, value in document.items() if key not in ("why", "details")}


def test_an_evaluation_as_json_has_the_fields_of_the_design(smoke: Sandbox, registry: Program, made: Made) -> None:
    """Entry, corpus, rows, figures, levels, groups and baselines; a schema of its own in schemas/."""
    arguments = ("evaluate", "tiny", "--corpus", made.heldout, "--by", "src,encoder", "--registry", smoke.path)
    document = strict(registry(*arguments, "--format", "json").out)
    assert {"entry", "corpus", "n_rows", "plcc", "srocc", "rmse", "crps", "levels", "by", "baselines"} <= set(document)
    assert (document["entry"], document["n_rows"], len(document["by"]["src"])) == ("tiny", 120, 3)
    assert [item["level"] for item in document["levels"]] == [0.5, 0.8, 0.95]
    assert set(document["levels"][0]) == {"level", "coverage", "width", "interval_score"}
    assert set(document["by"]["encoder"]) == {"libx264", "libx265", "libsvtav1"}
    table = registry(*arguments).out
    assert "src=s20" in table
    assert "encoder=libx264" in table
    assert violations(document, schemas.load("evaluation")) == []


def test_predictions_are_csv_or_json_lines(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """The same rows in both forms and in a file, whose ending says the form; lower <= mu <= upper in each."""
    where = ("predict", "tiny", "--corpus", made.heldout, "--registry", smoke.path)
    text = registry(*where).out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 120
    assert all(float(row["lower_95"]) <= float(row["mu"]) <= float(row["upper_95"]) for row in rows)
    lines = [strict(line) for line in registry(*where, "--format", "jsonl").out.splitlines()]
    assert [{key: str(value) for key, value in line.items()} for line in lines] == rows
    ran = registry(*where, "-o", tmp_path / "out.csv")
    assert (ran.code, ran.out, (tmp_path / "out.csv").read_text()) == (0, "", text)
    registry(*where, "-o", tmp_path / "out.JSONL")
    assert [strict(line) for line in (tmp_path / "out.JSONL").read_text().splitlines()] == lines
    registry(*where, "--format", "csv", "-o", tmp_path / "csv.jsonl")
    assert (tmp_path / "csv.jsonl").read_text() == text
    several = registry(*where, "--levels", "0.5,0.95").out.splitlines()[0].split(",")
    assert several[-5:] == ["lower_50", "upper_50", "lower_95", "upper_95", "flags"]


def test_list_and_show_as_json_are_the_entry(production: Sandbox, registry: Program) -> None:
    """Every field of the entry, and for show its files and policy."""
    where = ("--registry", production.path, "--format", "json")
    assert strict(registry("list", *where).out) == [production.entry]
    document = strict(registry("show", "tiny", *where).out)
    assert {key: document[key] for key in production.entry} == production.entry
    assert document["files"]["tiny.onnx"] == production.manifest["fused"]["sha256"]


# ---- which registry ---------------------------------------------------------------------------------------------


def test_the_registry_is_found_from_below_and_by_name(production: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder above, by REGISTRY_JSON, as an argument, as a folder."""
    below = production.folder / "tiny"
    for arguments, folder, environment, words in (
        (("validate",), below, {}, "1 entry: valid"),
        (("validate",), Path("/"), {"REGISTRY_JSON": str(production.path)}, "1 entry: valid"),
        (("validate", str(production.folder)), Path("/"), {}, "1 entry: valid"),
        (("list", "--registry", "model"), production.folder.parent, {}, "tiny"),
    ):
        assert words in program(*arguments, cwd=folder, env={**os.environ, **environment}).stdout


def test_another_platform_is_refused_in_one_line() -> None:
    """Elsewhere than on Linux, also where modules of Linux are missing: one line and exit code 3, for programs too."""
    script = """
import sys
sys.platform = "darwin"
sys.modules |= dict.fromkeys(("fcntl", "resource"))
import registry_tool
from registry_tool.errors import WorldError
try:
    registry_tool.open
except WorldError as error:
    print(error)
from registry_tool.__main__ import start
start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    line = "found the platform darwin, expected linux: run it in a container, or in WSL\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, line, f"registry: {line}")


def test_an_interrupt_before_the_program_begins_prints_nothing() -> None:
    """Ctrl-C while modules are imported ends the process by its signal, without the place of the import."""
    script = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "registry_tool.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from registry_tool.__main__ import start
start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
