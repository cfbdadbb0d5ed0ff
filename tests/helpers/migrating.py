"""migrating.py: an old registry, its migration, and what is wrong with the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import write

from registry_tool.plugins.manager import load
from registry_tool.values import Severity
from registry_tool.workflows.migrate import Migration, migrate
from registry_tool.workflows.validate import validate


def old(folder: Path, *rows: dict[str, Any], version: int = 1) -> Path:
    write(folder, "registry.json", {"schema_version": version, "models": list(rows)})
    return folder / "registry.json"


def run(path: Path, new: Path, **options: Any) -> Migration:
    return migrate(path, new, load(), **options)


def errors(folder: Path) -> list[str]:
    return [str(f) for f in validate(folder / "registry.json", load()).findings if f.severity is Severity.ERROR]
