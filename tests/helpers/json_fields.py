"""json_fields.py: every field of a JSON document, and copies of it with one of them changed. Tests nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Path = tuple[Any, ...]
VALUES = (..., None, 7, "", "x", [], {}, ["x"], {"x": 1})  # what a field is changed to; Ellipsis removes it


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """The path of every value in a JSON document."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*at, key))


def changed(document: Any, at: Path, value: Any) -> Any:
    """A copy with the value at this path replaced, or removed where it is Ellipsis."""
    copy = json.loads(json.dumps(document))
    holder = copy
    for key in at[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[at[-1]]
    else:
        holder[at[-1]] = value
    return copy
