"""loaded.py: the runtime and the intervals of an entry, as hooks use them. Reads pinned bytes only."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from fr_ensemble.artifacts.manifest import CONFIDENCE, CONFORMAL, is_current, is_runnable
from fr_ensemble.artifacts.paths import OOF_PATH
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.evidence.calibration import calibrated_on
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.methods import TWO_SIDED, Gaussian
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.quantiles import NOMINAL_LEVELS, Calibration, Quantile
from fr_ensemble.evidence.statistics import normal_quantile
from fr_ensemble.evidence.usable import usable_evidence
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView
from registry_tool.strictjson import dump
from registry_tool.values import Json


def load_ensemble(view: EntryView) -> tuple[Mapping[str, Json], Ensemble]:
    """The manifest and the fused graph, loaded. Raises InputError for a manifest without one, of version 1."""
    manifest = view.manifest
    if manifest is None or not is_runnable(manifest):
        raise InputError(
            f"{view.entry.id}: its manifest has no fused graph, expected one: `registry migrate` makes it, or train it "
            "again"
        )
    try:
        return manifest, ensemble_of(manifest, view.read(manifest["fused"]["onnx"]))
    except ValueError as error:
        raise InputError(f"{view.entry.id}: {error}: run `registry validate`") from error


def load_trained(view: EntryView) -> tuple[Mapping[str, Json], Ensemble]:
    """The same of an ensemble that was trained here. Raises InputError for a migrated one: it pins no evidence."""
    if view.manifest is not None and not is_current(view.manifest):
        raise InputError(f"{view.entry.id}: its manifest pins no evidence, expected schema_version 2: train it again")
    return load_ensemble(view)


def ensemble_of(manifest: Mapping[str, Json], model: bytes) -> Ensemble:
    """A fused graph whose mu is inside the target's range, whatever its version. Raises what Ensemble raises."""
    low, high = manifest["target"]["range"]
    return Ensemble(model, mu_range=(low, high))


def intervals_of(view: EntryView, levels: Sequence[float]) -> Intervals:
    """The stored calibration, at these levels too; a level that is not stored is computed from the predictions.

    Of a migrated ensemble: what its `confidence` says, which nothing was calibrated for.
    """
    manifest = view.manifest or {}
    if not is_current(manifest):
        return stated_intervals(manifest, levels)
    with usable_evidence(view.entry.id, manifest):
        return stored_intervals(view).with_levels(levels, lambda: calibrated_on(manifest, view.read))


def predictions_of(view: EntryView) -> Oof:
    """The out-of-fold predictions. Raises InputError for bytes that are none, or too many to be measured."""
    with usable_evidence(view.entry.id, view.manifest or {}):
        return read_oof(view.read(OOF_PATH))


def known_sources(manifest: Mapping[str, Json], sources: Collection[str]) -> dict[str, list[str]]:
    """What makes figures of rows of these sources too good -> the names of those it is true of, sorted."""
    seen = {
        "it was trained on sources of these names, and figures of rows it knows flatter": manifest["corpus"]["sources"]
        if is_current(manifest)
        else (),
        "it was calibrated on sources of these names, and their coverage flatters": (
            manifest.get("calibration", {}).get("corpus", {}).get("sources", ())
        ),
    }
    found = {text: sorted({*sources} & {*names}) for text, names in seen.items()}
    return {text: names for text, names in found.items() if names}


def stored_intervals(view: EntryView) -> Intervals:
    """The calibration in the manifest. Raises InputError where it cannot be read."""
    if view.manifest is not None and not is_current(view.manifest):
        return stated_intervals(view.manifest, NOMINAL_LEVELS)
    try:
        return Intervals.from_dict((view.manifest or {})["intervals"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{view.entry.id}: the intervals cannot be read ({error}): run `registry validate`") from error


def stated_intervals(manifest: Mapping[str, Json], levels: Sequence[float]) -> Intervals:
    """mu -+ q sigma as the `confidence` of a public manifest says: its own q at its level, else a normal quantile.

    Nothing was measured for it, so that every level says that it has no guarantee.
    """
    confidence: Mapping[str, Json] = {**CONFIDENCE, **manifest.get("confidence", {})}
    residual = confidence.get("conformal_q_residual") if confidence.get("method") == CONFORMAL else None
    own, which = (confidence["gaussian_z"], "a z") if residual is None else (residual, "a q")
    guarantee = f"none: {which} that the manifest of version 1 states"
    table = [
        Quantile(level, q, q, Gaussian.rule, guarantee, {})
        for level in sorted({*levels, confidence["nominal_coverage"]})
        for q in [own if level == confidence["nominal_coverage"] else normal_quantile((1.0 + level) / 2.0)]
    ]
    low, high = manifest["target"]["range"]
    digest = hashlib.sha256(dump(confidence)).hexdigest()
    bounds = (float(low), float(high))
    return Intervals((Calibration(Gaussian.name, "row", TWO_SIDED, bounds, 0.0, tuple(table), 0, {}, digest),), {})
