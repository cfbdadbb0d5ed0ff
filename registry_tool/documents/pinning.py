"""pinning.py: the digests of what a plugin made, put into its manifest. Reads and writes no file."""

from __future__ import annotations

from collections.abc import Mapping

from registry_tool.documents.entries import pins_of, sha256_of
from registry_tool.hookspec import Trained
from registry_tool.storage.paths import check_path
from registry_tool.values import Json


def with_digests(trained: Trained) -> Json:
    """The manifest with the digest of every file it names. Raises ValueError where files and pins do not match."""
    files = {check_path(name): data for name, data in trained.files.items()}
    named: set[str] = set()

    def fill(value: Json) -> Json:
        if isinstance(value, Mapping):
            document = {key: fill(item) for key, item in value.items()}
            for key, _, base in pins_of(value):
                if base == "":
                    name = document[key]
                    if name not in files:
                        raise ValueError(f"the manifest names {name}, but no such file was made")
                    named.add(name)
                    document["sha256"] = sha256_of(files[name])
            return document
        return [fill(item) for item in value] if isinstance(value, list | tuple) else value

    if "smoke" in trained.manifest:
        raise ValueError("the manifest says `smoke`, which the registry alone says")
    manifest = fill(trained.manifest)
    if unpinned := sorted(set(files) - named):
        raise ValueError(f"{unpinned[0]} was made, but the manifest does not name it")
    return manifest
