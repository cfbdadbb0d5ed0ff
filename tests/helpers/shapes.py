"""shapes.py: values of every shape, which a part of a manifest that is its plugin's own may have. Tests nothing."""

from __future__ import annotations

from typing import Any

SHAPES: list[Any] = [
    None,
    7,
    "text",
    True,
    [],
    ["a", 1, None, {"x": [1]}],
    {},
    {"name": 1, "range": 2, "n_rows": "x", "sources": 3},
    {"name": "n", "range": [], "n_rows": 1, "sources": [], "rows_sha256": None},
    {"name": "n", "range": ["low", None, {}]},
    [{"name": "numpy"}, {"version": 1}, 3],
]
