"""predict.py: an ensemble on rows without a target, of a file or of a program. Opens no file of the registry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.artifacts.manifest import codec_block, is_current, spec_of
from fr_ensemble.artifacts.paths import CALIBRATION_PATH, OOF_PATH
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.rows import ColumnSpec, Rows, check_rows, columns_of
from fr_ensemble.corpus.seen import INPUT_FLAG, RowsUnlike, SeenCorpus, unlike
from fr_ensemble.corpus.vocabulary import UNKNOWN, stand_in
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.oof import read_oof
from fr_ensemble.hooks.loaded import load_ensemble, stated_intervals, stored_intervals, unusable_evidence
from fr_ensemble.hooks.targets import check_features
from registry_tool.hookspec import Batch, EntryView
from registry_tool.toolkit import Columns, RowBatch
from registry_tool.values import percent

OUT_OF_DISTRIBUTION = "out_of_distribution"
FLAGS = "flags"
SIGMA_FLAG, SIGMA_SHARE = "sigma", 0.95  # a flag of what is above the sigma of that share of the held-out rows


class EnsemblePredictor:
    """A loaded ensemble: mu, sigma, intervals, and whether training saw the like; see `hookspec.Predictor`."""

    def __init__(self, view: EntryView) -> None:
        self._manifest, self._ensemble = load_ensemble(view)
        self._id = view.entry.id
        self._spec = spec_of(self._manifest, target=False)
        self._stored = stored_intervals(view)
        self._seen = SeenCorpus.from_manifest(self._manifest)
        self._has_evidence = is_current(self._manifest)
        paths = [OOF_PATH, *([CALIBRATION_PATH] if "calibration" in self._manifest else [])] * self._has_evidence
        self._evidence = {path: view.read(path) for path in paths}
        self._with_levels: dict[tuple[float, ...], Intervals] = {}
        self._largest_sigma: float | None = None

    def columns(self, found: Sequence[str], place: str) -> Columns:
        return columns_of(self._spec, found, place, self._seen.columns(found))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        spec, intervals = self._spec, self._intervals(tuple(levels))
        checked, version = check_rows(rows, spec, [*self._seen.ranges]), spec.vocabulary_version
        found = unlike(self._seen, checked.encoder, version, [*checked.unknown_encoders], checked.values)
        columns = _columns(checked, spec, self._ensemble, intervals, levels)
        masks = {INPUT_FLAG: columns[OUT_OF_DISTRIBUTION], SIGMA_FLAG: columns["sigma"] > self._sigma_limit()}
        columns[FLAGS] = RowsUnlike({**masks, **found.masks}, {}).text
        warnings = {unknown_encoder(name, version): count for name, count in checked.unknown_encoders.items()}
        warnings |= found.warnings
        calibration = intervals.calibration()
        messages = [*calibration.unbounded(levels), *calibration.unguaranteed(levels)]
        warnings |= dict.fromkeys(messages, len(checked)) if len(checked) else {}
        if outside := int(columns[OUT_OF_DISTRIBUTION].sum()):
            warnings[f"an input is outside what training saw (column {OUT_OF_DISTRIBUTION})"] = outside
        return Batch(columns, warnings)

    def check_file(self, path: Path) -> None:
        check_features(self._id, self._manifest, path)

    def _sigma_limit(self) -> float:
        """The sigma that SIGMA_SHARE of the held-out rows are below, target units; infinite where there are none."""
        if not self._has_evidence:
            return math.inf
        if self._largest_sigma is None:
            self._largest_sigma = float(np.quantile(read_oof(self._evidence[OOF_PATH]).sigma, SIGMA_SHARE))
        return self._largest_sigma

    def _intervals(self, levels: tuple[float, ...]) -> Intervals:
        """The stored calibration, at these levels too; a level that is not stored is computed from the predictions."""
        if not self._has_evidence:
            return stated_intervals(self._manifest, levels)
        if levels not in self._with_levels:
            read = partial(calibrated_on, self._manifest, self._evidence.__getitem__)
            with unusable_evidence(self._id):
                self._with_levels[levels] = self._stored.with_levels(levels, read)
        return self._with_levels[levels]


def unknown_encoder(name: str, version: int) -> str:
    """What is said of rows whose encoder has no slot."""
    slot = stand_in(version)
    return f"encoder {name!r} is unknown" + (f", taken for {slot}" if slot != UNKNOWN else "")


def _columns(
    rows: Rows, spec: ColumnSpec, ensemble: Ensemble, intervals: Intervals, levels: Sequence[float]
) -> dict[str, Any]:
    mu, sigma = ensemble.predict(rows.features, codec_block(rows.codec, rows.conditioning, spec.n_slots))
    columns: dict[str, Any] = {} if rows.source is None else {"src": rows.source}
    outside = intervals.outside(np.concatenate([rows.features, rows.conditioning], axis=1))
    columns |= {"encoder": rows.encoder, "mu": mu, "sigma": sigma, OUT_OF_DISTRIBUTION: outside}
    for level in levels:
        lower, upper = intervals.interval(mu, sigma, level)
        columns |= {f"lower_{percent(level)}": lower, f"upper_{percent(level)}": upper}
    return columns
