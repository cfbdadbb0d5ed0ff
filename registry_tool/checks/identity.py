"""identity.py: what a finding is, wherever it moves: the same one in another run, on another line. Checks nothing."""

from __future__ import annotations

import re

from registry_tool.documents.store import Loaded, Unreadable
from registry_tool.findings import Finding
from registry_tool.values import Json


def stable_pointer(item: Finding, loaded: Loaded | Unreadable) -> str:
    """The finding's pointer; in registry.json with the entry's id in place of its number, which others can change."""
    pointer = item.pointer or ""
    if item.file == loaded.name and (found := re.match(r"/models/(\d+)(?=/|\Z)", pointer)):
        pointer = f"/models/{_id(loaded, int(found[1]))}{pointer[found.end() :]}"
    return pointer


def _id(loaded: Loaded | Unreadable, index: int) -> Json:
    """The id of a model in a document that its schema may have refused; without one, its number."""
    models = loaded.document.value["models"] if loaded.document else []
    model = models[index] if isinstance(models, list) and index < len(models) else None
    return model["id"] if isinstance(model, dict) and isinstance(model.get("id"), str) else index
