"""base_files.py: which files of an entry are not those of the base, as git tells it. Judges nothing."""

from __future__ import annotations

import posixpath
from functools import cached_property

from registry_tool.checks.named import texts
from registry_tool.checks.registry import external_files
from registry_tool.documents.entries import ReadEntry, stem
from registry_tool.documents.store import REGISTRY_VERSION
from registry_tool.findings import path_of
from registry_tool.git.repository import changed_files, read_at
from registry_tool.git.revisions import Base
from registry_tool.plugins.inspection import Inspection
from registry_tool.storage.paths import FileProblem
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse
from registry_tool.values import Entry, Json

ATTRIBUTES_FILE = ".gitattributes"
# Fields of a single model, and of its sidecar, that say nothing of what it computes.
DESCRIPTIVE_FIELDS = frozenset(
    {"id", "onnx", "description", "notes", "license", "license_url", "sigstore_bundle", "signatures"}
)


class BaseFiles:
    """The files of a registry's folder held against those of the base; git is asked when they are first wanted."""

    def __init__(self, base: Base, inspection: Inspection) -> None:
        self._base = base
        self._inspection = inspection
        self._is_older_version = inspection.registry.schema_version < REGISTRY_VERSION

    @cached_property
    def changed(self) -> frozenset[str] | None:
        """Those that are not the base's, from the top of the repository; None: not known, so that any may be changed.

        Where a change says anew how git writes files (line endings, encodings), git takes any of them for unchanged.
        """
        base = self._base
        if base.place is None or base.commit is None or base.moved_to is not None:
            return None
        found = changed_files(base.place, base.commit, ATTRIBUTES_FILE)
        return None if any(posixpath.basename(path) == ATTRIBUTES_FILE for path in found) else found

    def may_hold_pinned_weights(self, entry: Entry) -> bool:
        """Whether weights in another file, which version 1 may pin inside the ONNX file alone, may have changed."""
        if not self._is_older_version or entry.manifest is not None:
            return False
        own = self._base.place.path if self._base.place is not None else None
        return self.changed is None or any(path != own for path in self.changed)

    def differ(self, view: ReadEntry) -> bool:
        """Whether a file changed that may be the entry's: one that is named, or that has its folder or its stem."""
        place, entry = self._base.place, view.entry
        if self.changed is None or place is None:
            return True
        own = posixpath.dirname(entry.manifest) if entry.manifest is not None else stem(entry.path)
        prefix = posixpath.normpath(posixpath.join(posixpath.dirname(place.path), own)).removeprefix(".")
        named = {path_of(text, place.path) for _, text in texts(entry.document)}
        if self.may_hold_pinned_weights(entry):
            named |= {path_of(path, place.path) for path in external_files(view)}
        return any(path in named or path.startswith(prefix) for path in self.changed)

    def has_other_sidecar(self, entry: Entry, old: Entry) -> bool:
        """Whether the sidecar of a single model says other than at the base; version 1 pins none.

        A model reads its means and deviations there: another sidecar is another model.
        """
        base = self._base
        if not self._is_older_version or entry.manifest is not None or old.manifest is not None:
            return False
        if base.place is None or base.commit is None or base.path is None:
            return False
        path = f"{stem(entry.path)}.json"
        if self.changed is not None and path_of(path, base.place.path) not in self.changed:
            return False
        was = read_at(base.place, base.commit, path_of(f"{stem(old.path)}.json", base.path))
        try:
            now = self._inspection.folder.read(path, JSON_MAX_BYTES)
        except FileProblem:
            return was is not None
        return was is None or _without_words(was) != _without_words(now)


def _without_words(data: bytes) -> Json:
    """A sidecar without the fields that say nothing of what its model computes; bytes that are none as they are."""
    try:
        document = parse(data).value
    except JsonProblem:
        return data.hex()
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if name not in DESCRIPTIVE_FIELDS}
