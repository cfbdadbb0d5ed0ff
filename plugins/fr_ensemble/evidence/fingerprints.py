"""fingerprints.py: the file of the sources' fingerprints, `fingerprints.npz`. Compares none."""

from __future__ import annotations

import numpy as np

from fr_ensemble.corpus.fingerprints import MAX_REFERENCE_COLUMNS, MAX_SET_VALUES, Fingerprints
from fr_ensemble.evidence.oof import MAX_SOURCES
from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays

FINGERPRINTS_VERSION = 1
FINGERPRINTS_FORMAT = ArchiveFormat(
    "fingerprints.npz",
    "Values by which two sources are told to be one video.",
    {"columns": "columns that describe a source's reference alone", "sources": "sources", "values": "kept values"},
    {
        "version": Array("i8", (), "Of this format: 1."),
        "columns": Array("U", ("columns",), "Names."),
        "sources": Array("U", ("sources",), "Names, as in oof.npz."),
        "column": Array(
            "i4", ("values",), "Index into `columns`; one more than there are: hashes of whole rows of inputs."
        ),
        "source": Array("i4", ("values",), "Index into `sources`."),
        "value": Array("f8", ("values",), "Ascending within a column and source."),
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
    return write_arrays(FINGERPRINTS_FORMAT, arrays)


def read_fingerprints(data: bytes) -> Fingerprints:
    """Raises EvidenceProblem for anything but what `write_fingerprints` writes."""
    arrays = read_arrays(FINGERPRINTS_FORMAT, data)
    columns, sources = (tuple(map(str, arrays[name])) for name in ("columns", "sources"))
    column, source, value = (arrays[name] for name in ("column", "source", "value"))
    width, k = len(columns) + 1, len(sources)
    if len(columns) > MAX_REFERENCE_COLUMNS or k > MAX_SOURCES or len(value) > width * k * MAX_SET_VALUES:
        expected = f"at most {MAX_REFERENCE_COLUMNS} columns, {MAX_SOURCES} sources and {MAX_SET_VALUES} values of each"
        raise EvidenceProblem(f"fingerprints.npz: expected {expected}")
    if int(arrays["version"]) != FINGERPRINTS_VERSION or not len(column) == len(source) == len(value):
        raise EvidenceProblem(f"fingerprints.npz: expected version {FINGERPRINTS_VERSION} and arrays of one length")
    known = np.isin(column, np.arange(width)).all() and np.isin(source, np.arange(k)).all()
    if not known or len(set(sources)) != k or len(set(columns)) != len(columns):
        raise EvidenceProblem("fingerprints.npz: expected indexes of its columns and sources, named once each")
    cell = column.astype(np.int64) * k + source
    order = np.argsort(cell, kind="stable")
    parts = np.split(value[order], np.searchsorted(cell[order], np.arange(1, width * k)))
    values = tuple(tuple(parts[c * k : (c + 1) * k]) for c in range(width))
    for row in values:
        for part in row:
            if len(part) > MAX_SET_VALUES or not (np.isfinite(part).all() and (np.diff(part) > 0).all() and part.all()):
                expected = f"at most {MAX_SET_VALUES} finite values of a source, ascending, none of them 0"
                raise EvidenceProblem(f"fingerprints.npz: expected {expected}")
    return Fingerprints(columns, sources, values[:-1], values[-1])
