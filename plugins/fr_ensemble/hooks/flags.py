"""flags.py: rows that are unlike what an entry learned from, for every command that predicts. Predicts nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64, Mask
from fr_ensemble.artifacts.manifest import definition_of, has_inputs, is_current, scaler_of, spec_of
from fr_ensemble.artifacts.paths import INPUTS_PATH, OOF_PATH
from fr_ensemble.corpus.record import definition_in, read_definition, read_record
from fr_ensemble.corpus.rows import Rows
from fr_ensemble.corpus.seen import INPUT_FLAG, RowsUnlike, SeenCorpus, outside_range, unlike
from fr_ensemble.corpus.vocabulary import UNKNOWN, encoder_lines, stand_in
from fr_ensemble.evidence.inputs import read_inputs
from fr_ensemble.evidence.nearest import ReferenceRows
from fr_ensemble.evidence.oof import read_oof
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.loaded import stored_intervals
from registry_tool.hookspec import EntryView
from registry_tool.toolkit import Text
from registry_tool.values import Json

SIGMA_FLAG = "sigma"  # members differ more than on all but FLAGGED_SHARE of the held-out rows
DISTANCE_FLAG = "distance"  # farther from the rows of training than all but FLAGGED_SHARE of a held-out source's
LIBVMAF_FLAG = "libvmaf"  # computed by another version of libvmaf
FLAGGED_SHARE = 0.05  # of the held-out rows, by sigma and by distance each


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """What is known of n rows. encoder: names, of which `unknown` have no slot, with numbers of rows.

    values: further columns by name. numeric: features, then transformed conditions, (n, D). sigma: (n,).
    """

    encoder: Text
    unknown: Mapping[str, int]
    values: Mapping[str, Json]
    numeric: Float64
    sigma: Float64

    @classmethod
    def of(cls, rows: Rows, sigma: Float64) -> PredictedRows:
        return cls(rows.encoder, rows.unknown_encoders, rows.values, rows.numeric, sigma)


class Flagger:
    """What an entry says of rows beside their predictions. Evidence is read at once and understood when rows come."""

    def __init__(self, view: EntryView) -> None:
        self._manifest, self._id = view.manifest or {}, view.entry.id
        self._spec = spec_of(self._manifest, target=False)
        self.seen, self._stored = SeenCorpus.from_manifest(self._manifest), stored_intervals(view)
        paths = [OOF_PATH, *([INPUTS_PATH] if has_inputs(self._manifest) else [])] * is_current(self._manifest)
        self._evidence = {path: view.read(path) for path in paths}

    @cached_property
    def _sigma_limit(self) -> float:
        """The sigma that all but FLAGGED_SHARE of the held-out rows are below, target units; inf without evidence."""
        if OOF_PATH not in self._evidence:
            return math.inf
        with usable_evidence(self._id, self._manifest):
            return float(np.quantile(read_oof(self._evidence[OOF_PATH]).sigma, 1.0 - FLAGGED_SHARE))

    @cached_property
    def _reference(self) -> ReferenceRows | None:
        """None for an entry whose evidence has no inputs."""
        if INPUTS_PATH not in self._evidence:
            return None
        with usable_evidence(self._id, self._manifest):
            inputs, source = read_inputs(self._evidence[INPUTS_PATH]), read_oof(self._evidence[OOF_PATH]).source
            return ReferenceRows.of(inputs, source, self._spec, scaler_of(self._manifest), 1.0 - FLAGGED_SHARE)

    def of(self, rows: PredictedRows, other_libvmaf: str = "") -> RowsUnlike:
        """other_libvmaf: words on the file's version, "" where it is that of training or not known."""
        outside = self._stored.outside(rows.numeric)
        masks: dict[str, Mask] = {INPUT_FLAG: outside, SIGMA_FLAG: rows.sigma > self._sigma_limit}
        if self._reference is not None:
            scaler = scaler_of(self._manifest)
            distance = self._reference.distance((rows.numeric - scaler.mean) / scaler.std)
            masks[DISTANCE_FLAG] = distance > self._reference.limit
        n, version = len(rows.sigma), self._spec.vocabulary_version
        warnings = unknown_encoders(rows.unknown, version)
        if other_libvmaf:
            masks[LIBVMAF_FLAG] = np.ones(n, bool)
            warnings |= {other_libvmaf: n} if n else {}
        found = unlike(self.seen, rows.encoder, version, [*rows.unknown], rows.values)
        return RowsUnlike(
            {**masks, **found.masks}, {**warnings, **self._outside_by_name(rows.numeric), **found.warnings}
        )

    def _outside_by_name(self, numeric: Float64) -> dict[str, int]:
        """Words on each input that leaves its range -> rows in which it does."""
        ranges = self._stored.input_ranges.items()
        counts = {
            outside_range(name, low, high): int(((column < low) | (column > high)).sum())
            for (name, (low, high)), column in zip(ranges, numeric.T, strict=False)  # a public manifest has no ranges
        }
        return {words: count for words, count in counts.items() if count}

    def other_libvmaf(self, path: Path) -> str:
        """Words where a file is by another version of libvmaf than the corpus; "" where it is not, or neither says."""
        record = (self._manifest["corpus"].get("record") or {}) if is_current(self._manifest) else {}
        expected = definition_of(self._manifest) or definition_in(record.get("settings"))
        found = read_definition(path, self._manifest["target"]["name"]) or definition_in(read_record(path))
        if expected is None or found is None or not (expected.libvmaf and found.libvmaf):
            return ""
        if expected.libvmaf == found.libvmaf:
            return ""
        return f"computed by libvmaf {found.libvmaf}, training's by {expected.libvmaf}"


def unknown_encoders(counts: Mapping[str, int], version: int) -> dict[str, int]:
    """Words on encoders that have no slot -> rows. counts: rows of each."""
    slot = stand_in(version)
    unknown = "unknown" if slot == UNKNOWN else f"unknown, taken for {slot}"
    by_name = {repr(name): counts[name] for name in sorted(counts)}
    return encoder_lines(by_name, f" is {unknown}", f" are {unknown}")
