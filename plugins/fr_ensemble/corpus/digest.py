"""digest.py: digests of a corpus: of its file, and of what its rows say, whatever file they came in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from registry_tool.toolkit import Text


def file_sha256(path: Path) -> str:
    """Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RowsDigest:
    """A digest of what the rows say, in their order, whatever file format or batch size they came in.

    One sha256 a column: numbers as little-endian float64 before any transform (-0.0 as 0.0); texts as little-endian
    uint32 indexes by first appearance, then the JSON list of the texts in that order. The digest is the sha256 of the
    JSON list of [column, its hex digest] in the order src, encoder, clip (if the file has it), features, conditions,
    target, without spaces.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, hashlib._Hash] = {}
        self._texts: dict[str, dict[str, int]] = {}

    def update(self, raw: Mapping[str, Float64 | Text]) -> None:
        for name, column in raw.items():
            digest = self._hashes.setdefault(name, hashlib.sha256())
            if isinstance(column, Text):
                digest.update(codes_of(column, self._texts.setdefault(name, {})).astype("<u4").tobytes())
            else:
                digest.update((column + 0.0).astype("<f8").tobytes())

    def hexdigest(self) -> str:
        columns = []
        for name, digest in self._hashes.items():
            of_column = digest.copy()
            if name in self._texts:
                of_column.update(json.dumps(list(self._texts[name]), separators=(",", ":")).encode())
            columns.append([name, of_column.hexdigest()])
        return hashlib.sha256(json.dumps(columns, separators=(",", ":")).encode()).hexdigest()


def codes_of(text: Text, names: dict[str, int]) -> Int64:
    """The text's rows as indexes into `names`, which grows by first appearance."""
    used, first = np.unique(text.codes, return_index=True)
    mapping = np.zeros(len(text.names), np.int64)
    for code in used[np.argsort(first)]:
        mapping[code] = names.setdefault(text.names[code], len(names))
    return mapping[text.codes]
