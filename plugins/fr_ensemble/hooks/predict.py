"""predict.py: an ensemble on rows without a target, of a file or of a program. Opens no file of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path

from fr_ensemble.artifacts.manifest import codec_block, is_current, spec_of
from fr_ensemble.artifacts.paths import CALIBRATION_PATH, OOF_PATH
from fr_ensemble.corpus.rows import check_rows, columns_of
from fr_ensemble.corpus.seen import INPUT_FLAG
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.flags import Flagger, PredictedRows
from fr_ensemble.hooks.loaded import load_ensemble, stated_intervals, stored_intervals
from fr_ensemble.hooks.targets import check_features
from registry_tool.hookspec import Batch, Column, EntryView
from registry_tool.toolkit import Columns, RowBatch
from registry_tool.values import percent

OUT_OF_DISTRIBUTION = "out_of_distribution"
FLAGS_COLUMN = "flags"


class EnsemblePredictor:
    """A loaded ensemble: mu, sigma, intervals, and whether training saw the like; see `hookspec.Predictor`."""

    def __init__(self, view: EntryView) -> None:
        self._manifest, self._ensemble = load_ensemble(view)
        self._id = view.entry.id
        self._spec = spec_of(self._manifest, target=False)
        self._stored = stored_intervals(view)
        self._flagger, self._other_libvmaf = Flagger(view), ""
        self._has_evidence = is_current(self._manifest)
        paths = [OOF_PATH, *([CALIBRATION_PATH] if "calibration" in self._manifest else [])] * self._has_evidence
        self._evidence = {path: view.read(path) for path in paths}
        self._with_levels: dict[tuple[float, ...], Intervals] = {}

    def columns(self, found: Sequence[str], place: str) -> Columns:
        return columns_of(self._spec, found, place, self._flagger.seen.columns(found))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        spec, intervals = self._spec, self._intervals(tuple(levels))
        checked = check_rows(rows, spec, [*self._flagger.seen.ranges])
        block = codec_block(checked.codec, checked.conditioning, spec.n_slots)
        mu, sigma = self._ensemble.predict(checked.features, block)
        found = self._flagger.of(PredictedRows.of(checked, sigma), self._other_libvmaf)
        calibrations = intervals.of_rows(checked.encoder)
        columns: dict[str, Column] = {} if checked.source is None else {"src": checked.source}
        columns |= {"encoder": checked.encoder, "mu": mu, "sigma": sigma}
        columns[OUT_OF_DISTRIBUTION] = found.masks[INPUT_FLAG]
        for level in levels:
            lower, upper = calibrations.interval(mu, sigma, level)
            columns |= {f"lower_{percent(level)}": lower, f"upper_{percent(level)}": upper}
        columns[FLAGS_COLUMN] = found.text
        return Batch(columns, {**found.warnings, **calibrations.messages(levels)})

    def check_file(self, path: Path) -> EnsemblePredictor:
        check_features(self._id, self._manifest, path)
        of_file = copy(self)
        of_file._other_libvmaf = self._flagger.other_libvmaf(path)
        return of_file

    def _intervals(self, levels: tuple[float, ...]) -> Intervals:
        """The stored calibration, at these levels too; a level that is not stored is computed from the predictions."""
        if not self._has_evidence:
            return stated_intervals(self._manifest, levels)
        if levels not in self._with_levels:
            read = partial(calibrated_on, self._manifest, self._evidence.__getitem__)
            with usable_evidence(self._id, self._manifest):
                self._with_levels[levels] = self._stored.with_levels(levels, read)
        return self._with_levels[levels]
