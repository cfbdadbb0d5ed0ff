"""test_docs.py: the documents against the program: hooks, commands, options, links, code blocks. Runs no command."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from places import ROOT

from registry_tool.cli import cli
from registry_tool.commands.shared import Context
from registry_tool.hookspec import Hooks
from registry_tool.plugins import single_models
from registry_tool.plugins.manager import Plugins
from registry_tool.testing.base import SuiteSetup

DOCS = ROOT / "docs"
# Written so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(wor[k]|tm[p]/brief)/"),
    "the number of an issue": re.compile(r"\bissue[s]?\s+#?\d", re.IGNORECASE),
    "the host of a package registry": re.compile(r"pypi\.or[g]|pythonhosted\.or[g]|download\.pytorch\.or[g]"),
}
SKIPPED_FOLDERS = {"dist", "__pycache__"}


@cache
def files() -> list[Path]:
    """The project's files, without what tools leave behind."""
    found = []
    for folder, names, here in os.walk(ROOT):
        names[:] = [
            n for n in names if (n[0] != "." or n == ".ci") and n not in SKIPPED_FOLDERS and "egg-info" not in n
        ]
        found += [Path(folder, name) for name in here if name != ".git"]  # a file, in a worktree
    return sorted(found)


def headings(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def hooks() -> Iterator[tuple[str, str]]:
    """(name, signature without self) of every hook specification."""
    for name, function in inspect.getmembers(Hooks, inspect.isfunction):
        signature = inspect.signature(function)
        arguments = ", ".join(str(p) for p in signature.parameters.values() if p.name != "self")
        yield name, f"{name}({arguments}) -> {signature.return_annotation}".replace("'", "")


@pytest.mark.parametrize(("name", "signature"), list(hooks()))
def test_hook_documented(name: str, signature: str) -> None:
    """Every hook has a section with its signature that says when it is called, what None means, what may be raised."""
    text = (DOCS / "plugins.md").read_text()
    assert f"`{signature}`" in headings(text)
    section = text.split(f"### `{signature}`", 1)[1].split("\n### ", 1)[0]
    for word in ("- Called", "- None", "- May raise"):
        assert word in section, f"{name}: {word}"


def test_only_hooks_documented() -> None:
    """docs/plugins.md documents no hook that does not exist."""
    named = set(re.findall(r"\bregistry_[a-z]+\b", (DOCS / "plugins.md").read_text()))
    assert named - {name for name, _ in hooks()} == {"registry_ruler", "registry_thumbs", "registry_tool"}


def test_plugin_page_shows_the_plugin() -> None:
    """Every piece of Python or TOML on docs/plugins.md stands so in the plugin that the tests install."""
    text, folder = (DOCS / "plugins.md").read_text(), ROOT / "registry_tool" / "plugins" / "template"
    files = [path.read_text() for pattern in ("*.toml", "src/*/*.py", "tests/*.py") for path in folder.glob(pattern)]
    pieces = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(pieces) >= 5
    for piece in pieces:
        assert any(piece in file for file in files), f"it stands nowhere in {folder}:\n{piece}"


def test_plugin_page_explains_the_suite() -> None:
    """What can be set on the conformance suite is what docs/plugins.md has a row for."""
    settings = {name for name in SuiteSetup.__annotations__ if not name.startswith("_")}
    section = (DOCS / "plugins.md").read_text().split("\n## The conformance suite\n", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == settings


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of the program and of the plugin that ships, by its full name."""
    from fr_ensemble import plugin

    plugins = Plugins()
    plugins.add(single_models, "onnx_kinds")
    plugins.add(plugin, "fr_ensemble")
    queue: list[tuple[str, click.Group, click.Context]] = [
        ("registry", cli, click.Context(cli, info_name="registry", obj=Context(plugins), **cli.context_settings))
    ]
    for path, group, context in queue:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield f"{path} {name}", command
            if isinstance(command, click.Group):
                queue.append((f"{path} {name}", command, click.Context(command, info_name=name, parent=context)))


@pytest.mark.parametrize(("path", "command"), [pytest.param(p, c, id=p) for p, c in commands()])
def test_command_documented(path: str, command: click.Command) -> None:
    """Every command has a section in docs/cli.md that names every option of it, but for older names and -q of all."""
    text = (DOCS / "cli.md").read_text()
    assert path in headings(text)
    assert "`-q`" in text.split("\n## ", 1)[0]
    section = text.split(f"\n## {path}\n", 1)[1].split("\n## ", 1)[0]
    for option in command.params:
        for name in (
            option.opts if isinstance(option, click.Option) and not option.hidden and "-q" not in option.opts else ()
        ):
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", section), f"{path}: {name}"


@pytest.mark.parametrize("name", ["api", "cli", "formats", "hooks", "metrics"])
def test_generated_page_current(name: str) -> None:
    """docs/cli.md, docs/formats.md, docs/metrics.md and docs/reference/ are what their generators write."""
    command = [sys.executable, str(DOCS / f"generate_{name}.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cli", "--strict"),
        ("formats", "schema_version"),
        ("metrics", "mean_plcc"),
        ("api", "allow_smoke"),
        ("hooks", "Since"),
    ],
)
def test_generated_page_check_sees_a_change(
    name: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator's check fails for another page than it would write."""
    monkeypatch.syspath_prepend(DOCS)
    spec = importlib.util.spec_from_file_location(name, DOCS / f"generate_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = tmp_path / f"{name}.md"
    page.write_text(generator.PAGE.read_text().replace(word, f"{word}x"))
    monkeypatch.setattr(generator, "PAGE", page)
    monkeypatch.setattr(sys, "argv", [f"generate_{name}.py", "--check"])
    with pytest.raises(SystemExit, match="not current"):
        generator.publish(generator.PAGE, generator.render)


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in files() if p.suffix == ".md"])
def test_links_resolve(page: Path) -> None:
    """A relative link in a document leads to a file or folder that is there, and to a heading that is there."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "``", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page}: {target}"
        assert file.is_relative_to(ROOT), f"{page}: {target}"
        if place:
            assert place in map(anchor, headings(file.read_text())), f"{page}: {target}"


def test_pictures_are_small_and_have_words() -> None:
    """A picture in a document is a PNG of at most 300 kB, with words for those who do not see it."""
    shown = [
        (page.parent / target, words)
        for page in files()
        if page.suffix == ".md"
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())
    ]
    assert {path.resolve() for path, _ in shown} == {path for path in files() if path.suffix == ".png"}
    for path, words in shown:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size <= 300_000
        assert words


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_private(what: str) -> None:
    """No text of the project names a path of one machine, the number of an issue or the host of a package registry."""
    binary = {".parquet", ".onnx", ".npz", ".data", ".png"}
    texts = [p for p in files() if p.suffix not in binary]
    assert len(texts) > 50
    found = {str(p.relative_to(ROOT)): FORBIDDEN[what].findall(p.read_text("utf-8", "replace")) for p in texts}
    assert {name: places for name, places in found.items() if places} == {}
