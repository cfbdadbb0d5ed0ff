"""predict.py: an ensemble on rows without a target, batch by batch. Opens no file of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fr_ensemble.artifacts.manifest import codec_block, spec_of
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.rows import ColumnSpec, Rows, read_batches
from fr_ensemble.corpus.vocabulary import UNKNOWN, stand_in
from fr_ensemble.evidence.intervals import Intervals, percent
from fr_ensemble.hooks.opening import intervals_of, open_ensemble
from fr_ensemble.hooks.targets import check_features
from registry_tool.errors import InputError
from registry_tool.hookspec import Batch, EntryView, PredictRequest

OUTSIDE = "out_of_distribution"


def predict(view: EntryView, request: PredictRequest) -> Iterator[Batch]:
    """mu, sigma, the intervals and whether training saw the like, batch by batch, beside what names a row."""
    manifest, ensemble = open_ensemble(view)
    if request.corpus is None:
        raise InputError("--corpus: found none, expected rows to predict: name a file")
    check_features(view.entry.id, manifest, request.corpus)
    spec = spec_of(manifest, target=False)
    stored = intervals_of(view, request.levels)
    for rows in read_batches(request.corpus, spec):
        columns = _columns(rows, spec, ensemble, stored, request.levels)
        warnings = {
            unknown_encoder(name, spec.vocabulary_version): count for name, count in rows.unknown_encoders.items()
        }
        warnings |= dict.fromkeys(stored.calibration().unbounded(request.levels), len(rows))
        if outside := int(columns[OUTSIDE].sum()):
            warnings[f"an input is outside what training saw (column {OUTSIDE})"] = outside
        yield Batch(columns, warnings)


def unknown_encoder(name: str, version: int) -> str:
    """What is said of rows whose encoder has no slot."""
    slot = stand_in(version)
    return f"encoder {name!r} is unknown" + (f", taken for {slot}" if slot != UNKNOWN else "")


def _columns(
    rows: Rows, spec: ColumnSpec, ensemble: Ensemble, stored: Intervals, levels: Sequence[float]
) -> dict[str, Any]:
    mu, sigma = ensemble.predict(rows.features, codec_block(rows.codec, rows.conditioning, spec.n_slots))
    columns: dict[str, Any] = {"row": np.arange(rows.first, rows.first + len(rows))}
    columns |= {} if rows.source is None else {"src": rows.source}
    outside = stored.outside(np.concatenate([rows.features, rows.conditioning], axis=1))
    columns |= {"encoder": rows.encoder, "mu": mu, "sigma": sigma, OUTSIDE: outside}
    for level in levels:
        lower, upper = stored.interval(mu, sigma, level)
        suffix = "" if len(levels) == 1 else f"_{percent(level)}"
        columns |= {f"lower{suffix}": lower, f"upper{suffix}": upper}
    return columns
