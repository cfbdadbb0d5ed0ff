"""Tests of completion and of -q: what a shell offers, and what a quiet run leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from command_line import Program, Ran
from places import EXAMPLES
from sandbox import Sandbox

from registry_tool.cli import cli

VALID, INVALID = EXAMPLES / "valid" / "smoke", EXAMPLES / "invalid" / "digest-mismatch"


def offered(words: str) -> list[str]:
    """The words that a shell would offer for the last one."""
    *before, last = words.split(" ")
    shell = BashComplete(cli, {}, "registry", "_REGISTRY_COMPLETE")
    return [item.value for item in shell.get_completions(before[1:], last)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("registry show ", {"tiny"}),
        ("registry gate ti", {"tiny"}),
        ("registry gate tiny --incumbent t", {"tiny"}),
        ("registry reproduce x", set()),
        ("registry rule digest-", {"digest-mismatch"}),
        ("registry gate --kind f", {"filter", "fr", "fr_ensemble"}),
        ("registry schema registry", {"registry", "registry-v1"}),
        ("registry train f", {"fr_ensemble"}),
        ("registry val", {"validate"}),
    ],
)
def test_a_shell_completes_ids_codes_and_kinds(
    words: str, expected: set[str], smoke: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids come from the registry at hand, codes and kinds from the plugins."""
    monkeypatch.setenv("REGISTRY_JSON", str(smoke.path))
    assert set(offered(words)) == expected


def test_a_shell_completes_nothing_where_there_is_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry, and one that cannot be read: no id is offered, and no error printed."""
    broken = tmp_path / "registry.json"
    for path in (tmp_path / "none" / "registry.json", broken):
        monkeypatch.setenv("REGISTRY_JSON", str(path))
        assert offered("registry show ") == []
        broken.write_text("{")


def test_every_command_can_be_quiet() -> None:
    """-q is an option of the program, and of every command that does something."""
    quiet = {name for name, command in cli.commands.items() if any("-q" in p.opts for p in command.params)}
    groups = {name for name, command in cli.commands.items() if hasattr(command, "commands")}
    assert quiet | groups == set(cli.commands)


@pytest.mark.parametrize("arguments", [("-q", "validate"), ("validate", "-q"), ("validate", "--quiet")])
def test_a_quiet_validation_prints_findings_alone(arguments: tuple[str, ...], registry: Program) -> None:
    """A valid registry prints nothing; findings and exit codes stay."""
    assert registry(*arguments, VALID) == Ran(0, "", "")
    ran = registry(*arguments, INVALID)
    assert (ran.code, ran.out.count("\n"), "digest-mismatch" in ran.out) == (1, 1, True)


def test_a_quiet_command_keeps_its_notes(tmp_path: Path, registry: Program) -> None:
    """What was made is a note; what is wrong is not."""
    assert registry("init", tmp_path / "a").err != ""
    assert registry("init", "-q", tmp_path / "b") == Ran(0, "", "")
    assert registry("init", "-q", tmp_path / "b").code == 2
