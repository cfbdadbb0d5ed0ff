"""schemas: the JSON Schemas of every document, the single source, shipped in the wheel. Reads packaged files only."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@cache
def load(name: str) -> dict[str, Any]:
    """The schema `NAME.schema.json`. Raises FileNotFoundError for a name that is not shipped."""
    text = (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def names() -> list[str]:
    """The names `load` knows, sorted."""
    suffix = ".schema.json"
    return sorted(f.name.removesuffix(suffix) for f in FOLDER.iterdir() if f.name.endswith(suffix))


def bundled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with what it names in our other schemas copied in: one file, which any reader resolves alone."""
    made: dict[str, Any] = copy.deepcopy(dict(schema))
    others = {document["$id"]: document for document in map(load, names()) if document["$id"] != made.get("$id")}
    taken: dict[str, str] = {}

    def take(node: Any, home: str) -> None:
        if isinstance(node, list):
            for item in node:
                take(item, home)
        elif isinstance(node, dict):
            reference = str(node.get("$ref", ""))
            address, _, fragment = reference.partition("#")
            target = address or home
            if reference and target in others:
                node["$ref"] = f"#/$defs/{name_of(target, fragment)}"
            for item in list(node.values()):
                take(item, home)

    def name_of(target: str, fragment: str) -> str:
        key = f"{target}#{fragment}"
        if key not in taken:
            last = fragment.rpartition("/")[2] or target.split(":")[-2]  # of a whole schema: urn:registry-tool:NAME:1
            definitions = made.setdefault("$defs", {})
            taken[key] = last if last not in definitions else f"{last}_{len(taken)}"
            found: Any = others[target]
            for part in fragment.split("/")[1:]:
                found = found[part]
            whole = {"$id", "$schema", "$defs"}  # its definitions are taken one by one
            definitions[taken[key]] = copy.deepcopy({k: v for k, v in found.items() if fragment or k not in whole})
            take(definitions[taken[key]], target)
        return taken[key]

    take(copy.copy(made), "")
    return made
