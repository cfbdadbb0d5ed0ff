"""fingerprints.py: the file of the sources' fingerprints, `fingerprints.npz`. Compares none."""

from __future__ import annotations

import numpy as np

from fr_ensemble.corpus.fingerprints import MAX_VALUES, Fingerprints
from fr_ensemble.evidence.archive import EvidenceProblem, Layout, read_arrays, write_arrays

FINGERPRINTS_VERSION = 1
LAYOUT = Layout(
    "fingerprints.npz",
    {
        "version": ("i8", 0),
        "columns": ("U", 1),
        "sources": ("U", 1),
        "column": ("i4", 1),  # one more than there are columns: hashes of whole rows of inputs
        "source": ("i4", 1),
        "value": ("f8", 1),  # ascending within a column and source
    },
)


def write_fingerprints(fingerprints: Fingerprints) -> bytes:
    """`fingerprints.npz`; the same values give the same bytes."""
    columns = enumerate((*fingerprints.values, fingerprints.rows))
    parts = [(c, g, values) for c, of_column in columns for g, values in enumerate(of_column)]
    arrays = {
        "version": FINGERPRINTS_VERSION,
        "columns": fingerprints.columns,
        "sources": fingerprints.sources,
        "column": [c for c, _, values in parts for _ in values],
        "source": [g for _, g, values in parts for _ in values],
        "value": np.concatenate([values for _, _, values in parts]),
    }
    return write_arrays(LAYOUT, arrays)


def read_fingerprints(data: bytes) -> Fingerprints:
    """Raises EvidenceProblem for anything but what `write_fingerprints` writes."""
    arrays = read_arrays(LAYOUT, data)
    columns, sources = (tuple(map(str, arrays[name])) for name in ("columns", "sources"))
    column, source, value = (arrays[name] for name in ("column", "source", "value"))
    width = len(columns) + 1
    if int(arrays["version"]) != FINGERPRINTS_VERSION or not len(column) == len(source) == len(value):
        raise EvidenceProblem(f"fingerprints.npz: expected version {FINGERPRINTS_VERSION} and arrays of one length")
    known = np.isin(column, np.arange(width)).all() and np.isin(source, np.arange(len(sources))).all()
    if not known or len(set(sources)) != len(sources) or len(set(columns)) != len(columns):
        raise EvidenceProblem("fingerprints.npz: expected indexes of its columns and sources, named once each")
    values = tuple(tuple(value[(column == c) & (source == g)] for g in range(len(sources))) for c in range(width))
    for row in values:
        for part in row:
            if len(part) > MAX_VALUES or not (np.isfinite(part).all() and (np.diff(part) > 0).all() and part.all()):
                what = f"at most {MAX_VALUES} finite values of a source, ascending, none of them 0"
                raise EvidenceProblem(f"fingerprints.npz: expected {what}")
    return Fingerprints(columns, sources, values[:-1], values[-1])
