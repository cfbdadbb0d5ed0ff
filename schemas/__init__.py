"""schemas: the JSON Schemas of every document, the single source, shipped in the wheel. Reads packaged files only."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def load(name: str) -> dict[str, Any]:
    """The schema `NAME.schema.json`. Raises FileNotFoundError for a name that is not shipped."""
    text = resources.files(__name__).joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def names() -> list[str]:
    """The names `load` knows, sorted."""
    suffix = ".schema.json"
    return sorted(f.name.removesuffix(suffix) for f in resources.files(__name__).iterdir() if f.name.endswith(suffix))
