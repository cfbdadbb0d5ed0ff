"""validate.py: the story of `registry validate`. No click, no printing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tool.checks.registry import PLUGIN_CODES, check
from registry_tool.documents import store
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level, Progress
from registry_tool.plugins.manager import Plugins

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust
    from registry_tool.workflows.unchanged import Since


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found, and on how much it looked. known: how many findings were left out as known ones."""

    loaded: Loaded | Unreadable
    level: Level
    findings: tuple[Finding, ...]
    since: Since | None = None  # the entries that are unchanged since then were checked at Level.QUICK
    known: int = 0

    @property
    def entries(self) -> int:
        """How many there are in the document, those that its schema refuses too; 0 where it cannot be read."""
        return len(self.loaded.document.value["models"]) if isinstance(self.loaded, Loaded) else 0

    @property
    def checked(self) -> Mapping[Level, int]:
        """How many entries were checked at each level."""
        quick = self.entries if self.level is Level.QUICK else len(self.since.unchanged) if self.since else 0
        return {Level.FULL: self.entries - quick, Level.QUICK: quick}

    def level_of(self, number: int) -> Level:
        """At which level an entry was checked, by its number."""
        return Level.QUICK if self.since is not None and number in self.since.unchanged else self.level

    @property
    def lacks_plugins(self) -> bool:
        """Whether a plugin does not load, or one that the registry requires is not there: the findings are not all."""
        return any(finding.code in PLUGIN_CODES for finding in self.findings)

    def count(self, severity: Severity) -> int:
        return sum(f.severity is severity for f in self.findings)

    def fails(self, *, strict: bool) -> bool:
        """Whether an error was found, or in a strict run a warning."""
        return bool(self.count(Severity.ERROR) or (strict and self.count(Severity.WARNING)))


def validate(
    path: Path,
    plugins: Plugins,
    level: Level = Level.FULL,
    progress: Progress | None = None,
    trust: Trust | None = None,
    changed_since: str | None = None,
) -> Validation:
    """Read the registry, check everything at this level, change nothing.

    trust: whose signatures production needs. changed_since: a git revision; entries that are as they were there are
    checked at Level.QUICK. Raises InputError for one that is none.
    """
    loaded = store.load(path)
    compared = None
    if changed_since is not None:
        from registry_tool.workflows.unchanged import since  # loads subprocess, which validate alone does without

        compared = since(loaded, changed_since)
    unchanged = compared.unchanged if compared is not None else ()
    return Validation(loaded, level, tuple(check(loaded, plugins, level, progress, trust, unchanged)), compared)


def touched(files: Iterable[str], root: Path, environment: Mapping[str, str]) -> list[Path]:
    """The registries that hold a changed file, each once: the nearest registry.json in or above the file's folder.

    files: relative to `root`, which is as far up as it looks; without any, those that the working tree changes. What
    git says was deleted counts too: pre-commit names no deleted file, and its environment says of which range of
    revisions it speaks.
    """
    from registry_tool.git.repository import changed, deleted  # loads subprocess, which validate alone does without

    revisions = environment.get("PRE_COMMIT_FROM_REF"), environment.get("PRE_COMMIT_TO_REF")
    found = set()
    for file in (*(tuple(files) or changed(root)), *deleted(root, *revisions)):
        path = (root / file).absolute()
        folders = [folder for folder in path.parents if folder.is_relative_to(root)]
        found |= set([f / "registry.json" for f in folders if (f / "registry.json").is_file()][:1])
    return sorted(path.relative_to(root) for path in found)
