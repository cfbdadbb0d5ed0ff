"""Tests of outputs: no command writes over what it reads, or one format under the name of another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Program, program
from registries import Made
from sandbox import Sandbox


@pytest.fixture
def rows(made: Made, tmp_path: Path) -> Path:
    """A table of the test's own."""
    path = tmp_path / "rows.csv"
    path.write_bytes(made.heldout.read_bytes())
    return path


@pytest.mark.parametrize("output", ["rows.csv", "./rows.csv", "link.csv"])
def test_predictions_are_not_written_over_their_rows(
    output: str, rows: Path, smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever name the output is the input: exit code 2, and not a byte changes."""
    monkeypatch.chdir(rows.parent)
    Path("link.csv").symlink_to("rows.csv")
    before = rows.read_bytes()
    ran = registry("predict", "tiny", "--corpus", "rows.csv", "-o", output, "--registry", smoke.path)
    assert (ran.code, "found the input itself" in ran.err, rows.read_bytes()) == (2, True, before)


def test_an_import_is_not_written_over_its_table(registry: Program, tmp_path: Path) -> None:
    """`--meta` names a table that a person typed; it is never the output."""
    table = tmp_path / "meta.csv"
    table.write_text("log,src,encoder\na.json,s,libx264\n")
    (tmp_path / "a.json").write_text("{}")
    ran = registry("fr-ensemble", "corpus", "import", tmp_path / "a.json", "--meta", table, "-o", table)
    assert (ran.code, "found the input itself" in ran.err) == (2, True)
    assert table.read_text().startswith("log,src")


@pytest.mark.parametrize("ending", ["json", "csv.gz", "feather", "arrow", "tsv"])
def test_a_format_that_is_read_alone_is_not_written(
    ending: str, rows: Path, smoke: Sandbox, registry: Program, tmp_path: Path
) -> None:
    """Its extension is refused, so that no CSV lies under another name; a format that is named is written there."""
    output = tmp_path / f"scores.{ending}"
    where = ("predict", "tiny", "--corpus", rows, "-o", output, "--registry", smoke.path)
    ran = registry(*where)
    assert (ran.code, "expected .csv, .jsonl, .parquet" in ran.err, output.exists()) == (2, True, False)
    assert registry(*where, "--format", "csv").code == 0


@pytest.mark.parametrize("command", ["evaluate", "info"])
def test_a_plot_is_a_picture(command: str, rows: Path, smoke: Sandbox, registry: Program) -> None:
    """A plot takes no other extension than .png, so that it replaces no table."""
    before = rows.read_bytes()
    arguments: dict[str, tuple[object, ...]] = {
        "evaluate": ("evaluate", "tiny", "--corpus", rows, "--registry", smoke.path),
        "info": ("fr-ensemble", "corpus", "info", rows),
    }
    ran = registry(*arguments[command], "--plot", rows)
    assert (ran.code, "expected .png" in ran.err, rows.read_bytes()) == (2, True, before)


OVERWRITING = [
    *("validate {} --level quick --format sarif -o {}", "known-findings write -o {} --registry {}"),
    *("ci --level quick --registry {} --json {}", "ci --level quick --registry {} --summary {}"),
    *("card tiny -o {} --registry {}", "bom tiny -o {} --registry {}"),
]


@pytest.mark.parametrize("command", OVERWRITING)
def test_no_output_takes_the_place_of_a_registry(command: str, smoke: Sandbox, registry: Program) -> None:
    """Whatever the command: exit code 2, and the registry is as it was."""
    before = smoke.path.read_bytes()
    ran = registry(*command.format(smoke.path, smoke.path).split())
    assert (ran.code, "found a registry" in ran.err, smoke.path.read_bytes()) == (2, True, before)


@pytest.mark.parametrize("command", OVERWRITING)
def test_a_registry_that_waits_for_its_repair_stays(command: str, smoke: Sandbox, registry: Program) -> None:
    """What cannot be parsed is the registry by its name."""
    smoke.path.write_text("{")
    assert registry(*command.format(smoke.path, smoke.path).split()).code > 0
    assert smoke.path.read_text() == "{"


def test_one_file_is_no_two_outputs(smoke: Sandbox, registry: Program, tmp_path: Path) -> None:
    """By whatever name: exit code 2 before anything is judged, since one of the two would be lost."""
    ran = registry("ci", "--registry", smoke.path, "--json", tmp_path / "a", "--junit", f"{tmp_path}/./a")
    assert (ran.code, ran.out, "named for two outputs" in ran.err) == (2, "", True)
    assert not (tmp_path / "a").exists()


def test_a_list_of_known_findings_is_no_output_of_what_reads_it(
    smoke: Sandbox, registry: Program, tmp_path: Path
) -> None:
    """It is an input: exit code 2, and it stays."""
    known = tmp_path / "known.json"
    known.write_text('{"known_findings_version": 1, "findings": []}')
    before = known.read_bytes()
    ran = registry("ci", "--registry", smoke.path, "--known-findings", known, "--json", known)
    assert (ran.code, "found the input itself" in ran.err, known.read_bytes()) == (2, True, before)


def test_a_dash_is_standard_output(smoke: Sandbox) -> None:
    """For documents as for rows: no file of that name is made."""
    ran = program("known-findings", "write", "--level", "quick", "-o", "-", cwd=smoke.folder)
    assert (json.loads(ran.stdout)["known_findings_version"], (smoke.folder / "-").exists()) == (1, False)
