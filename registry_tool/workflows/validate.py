"""validate.py: the story of `registry validate`. No click, no printing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tool.checks.registry import check
from registry_tool.documents import store
from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import (
    Level,
    Progress,
)
from registry_tool.plugins.manager import Plugins

if TYPE_CHECKING:
    from registry_tool.signing.bundle import Trust


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found, and on how much it looked."""

    loaded: Loaded | Unreadable
    level: Level
    findings: tuple[Finding, ...]

    @property
    def entries(self) -> int:
        """How many there are in the document, those that its schema refuses too; 0 where it cannot be read."""
        return len(self.loaded.document.value["models"]) if isinstance(self.loaded, Loaded) else 0

    def count(self, severity: Severity) -> int:
        return sum(f.severity is severity for f in self.findings)


def validate(
    path: Path,
    plugins: Plugins,
    level: Level = Level.FULL,
    progress: Progress | None = None,
    trust: Trust | None = None,
) -> Validation:
    """Read the registry, check everything at this level, change nothing. trust: whose signatures production needs."""
    loaded = store.load(path)
    return Validation(loaded, level, tuple(check(loaded, plugins, level, progress, trust)))


def touched(files: Iterable[str], here: Path, environment: Mapping[str, str]) -> list[Path]:
    """The registries that hold a changed file, each once: the nearest registry.json in or above the file's folder.

    files: relative to `here`, which is as far up as it looks. What git says was deleted counts too: pre-commit names
    no deleted file, and its environment says of which range of revisions it speaks.
    """
    from registry_tool.git.repository import deleted  # loads subprocess, which validate alone does without

    revisions = environment.get("PRE_COMMIT_FROM_REF"), environment.get("PRE_COMMIT_TO_REF")
    found = set()
    for file in (*files, *deleted(here, *revisions)):
        path = (here / file).absolute()
        folders = [folder for folder in path.parents if folder.is_relative_to(here)]
        found |= set([f / "registry.json" for f in folders if (f / "registry.json").is_file()][:1])
    return sorted(path.relative_to(here) for path in found)
