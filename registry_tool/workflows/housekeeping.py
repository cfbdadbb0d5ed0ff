"""housekeeping.py: prune, and the registry's own `$schema`. No click, no printing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from registry_tool.checks.inventory import unused_runs
from registry_tool.documents import store
from registry_tool.errors import InputError
from registry_tool.storage.files import Folder
from registry_tool.storage.staging import remove_whole
from registry_tool.workflows.loading import changing


def name_schema(path: Path, folder: Path) -> str:
    """Point the registry's `$schema` at a folder of schemas; returns what it says now, relative to the registry.

    Raises InputError for a registry of version 0 or 1, which is edited by hand.
    """
    schema = Path(os.path.relpath(folder, path.parent), "registry.schema.json").as_posix()
    with changing(path) as loaded:
        if (version := loaded.registry.schema_version) != store.REGISTRY_VERSION:
            raise InputError(f"{path}: schema_version {version}, expected 2: write its $schema by hand: {schema}")
        store.save(path, replace(loaded.registry, extra={**loaded.registry.extra, "$schema": schema}))
    return schema


def prune(path: Path, *, dry_run: bool) -> Sequence[str]:
    """Remove artefact folders that no entry names; returns their paths. An entry's verdicts stay."""
    with changing(path) as loaded:
        with Folder(path.parent) as folder:
            unused = unused_runs(folder.inventory(), loaded.registry)
        for item in unused if not dry_run else ():
            remove_whole(path.parent, item)
    return unused
