"""evidence.py: the stored metrics and intervals against those that the out-of-fold predictions give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fr_ensemble.artifacts.manifest import spec_of
from fr_ensemble.checks.manifest import CALIBRATE_AGAIN, TRAIN_AGAIN, check_equal
from fr_ensemble.evidence.calibrating import residual_quantile
from fr_ensemble.evidence.entry import checked_evidence
from fr_ensemble.evidence.intervals import Intervals
from fr_ensemble.evidence.metrics import METRICS, METRICS_VERSION, STORED_PREFIX, MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import CALIBRATED_UNITS, NOMINAL_LEVELS
from registry_tool.errors import InputError
from registry_tool.findings import EVIDENCE_UNUSABLE, Finding, FindingRule, Severity
from registry_tool.hookspec import EntryView
from registry_tool.toolkit import ROUNDING, differences
from registry_tool.values import Json

INTERVALS_UNUSABLE = FindingRule(
    "intervals-unusable",
    "intervals cannot be read or calibrated again",
    why="The promised coverage has no basis.",
    message="the intervals cannot be read: {reason}",
    hint=TRAIN_AGAIN,
    example="a quantile as text",
)
INTERVALS_DISAGREE = FindingRule(
    "intervals-disagree",
    "intervals are not those of the predictions in the evidence",
    why="They were narrowed by hand, or belong to another run.",
    message="the intervals are not those of the predictions in the evidence",
    hint=TRAIN_AGAIN,
    example="a smaller q at 95 %",
)
EVIDENCE_PROBLEM = FindingRule(
    "evidence-problem",
    "evidence is unfit to promote anything",
    why="A missing fold or seed, a repeated one, an impossible PLCC: metrics over it mean nothing.",
    message="{problem}",
    hint=TRAIN_AGAIN,
    example="a source in its own training fold",
)
EVIDENCE_DISAGREES = FindingRule(
    "evidence-disagrees",
    "stored metrics are not those of the predictions",
    why="A summary was edited.",
    message="{name} is not the one recomputed from the predictions",
    hint=TRAIN_AGAIN,
    example="mean_plcc 0.99, recomputed 0.93",
)
EVIDENCE_NEWER = FindingRule(
    "evidence-newer",
    "stored metric was not checked: it is newer than this program",
    why="This program does not know how to recompute it.",
    severity=Severity.WARNING,
    message="{name} was not checked: it is newer than this program",
    hint="update registry-tool",
    example="a metrics_version above the newest one known",
)


def check_evidence(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """Contradictions in the evidence; then what the manifest stores of it, recomputed."""
    is_calibrated = "calibration" in manifest  # its members are its parent's: nothing of it was trained
    for finding in _check_evidence(view, manifest):
        again = is_calibrated and finding.hint == TRAIN_AGAIN
        yield replace(finding, hint=CALIBRATE_AGAIN) if again else finding


def _check_evidence(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    try:
        evidence = checked_evidence(view)
    except InputError as error:
        yield EVIDENCE_UNUSABLE.at(view, "/evidence", reason=error, hint=TRAIN_AGAIN)
        return
    for problem in evidence.problems:
        yield EVIDENCE_PROBLEM.at(view, "/evidence", problem=problem)
    yield from _check_stored_metrics(view, manifest, compute_metrics(MetricInputs(evidence.scores)))
    calibrated = evidence.calibrated
    residual, stored = residual_quantile(calibrated), manifest["confidence"]["conformal_q_residual"]
    if not ROUNDING.holds(stored, residual if math.isfinite(residual) else None):
        place, expected = "/confidence/conformal_q_residual", f"{residual} recomputed"
        yield INTERVALS_DISAGREE.at(view, place, found=stored, expected=expected)
    yield from _check_intervals(view, manifest, calibrated)


def _check_intervals(view: EntryView, manifest: Mapping[str, Json], oof: Oof) -> Iterator[Finding]:
    try:
        stored = Intervals.from_dict(manifest["intervals"])
        recalibrated = stored.recalibrated(oof, NOMINAL_LEVELS)
        spec = spec_of(manifest, target=True)
    except (ValueError, InputError) as error:
        yield INTERVALS_UNUSABLE.at(view, "/intervals", reason=error)
        return
    kinds = [kind for kind in CALIBRATED_UNITS if kind[0] == "row" or oof.clips is not None]
    pairs: dict[str, tuple[object, object]] = {
        "input_ranges": ([*stored.input_ranges], [*spec.features, *map(str, spec.conditioning)]),
        "calibrations": ([(calibration.unit, calibration.side) for calibration in stored.calibrations], kinds),
        "method": (manifest["intervals"].get("method"), stored.calibrations[0].method),
    }
    for index, calibration in enumerate(stored.calibrations):
        pairs[f"calibrations/{index}/range"] = (list(calibration.range), manifest["target"]["range"])
    for index, (low, high) in enumerate(stored.input_ranges.values()):
        if not low <= high:
            pairs[f"input_ranges/{index}/range"] = ([low, high], "the lower bound first")
    for place, (found, expected) in pairs.items():
        yield from check_equal(view, INTERVALS_DISAGREE, f"/intervals/{place}", found, expected)
    if any(differences(manifest["intervals"], recalibrated.to_dict(), ROUNDING)):
        yield INTERVALS_DISAGREE.at(view, "/intervals")


def _check_stored_metrics(
    view: EntryView, manifest: Mapping[str, Json], recomputed: Mapping[str, float]
) -> Iterator[Finding]:
    """Metrics at `eval`: each stored one equals the recomputed one, and none of its metrics_version is missing."""
    version, stored = manifest.get("metrics_version", 1), manifest["eval"]
    for name, metric in METRICS.items():
        key, value = f"{STORED_PREFIX}{name}", recomputed.get(name)
        if not metric.in_manifest or (key not in stored and (value is None or metric.since > version)):
            continue
        if not ROUNDING.holds(stored.get(key), value):
            found, expected = repr(stored.get(key)), f"{value!r} recomputed"
            yield EVIDENCE_DISAGREES.at(view, f"/eval/{key}", found=found, expected=expected, name=key)
    for key in stored:
        name = key.removeprefix(STORED_PREFIX)
        if name == key or (name in METRICS and METRICS[name].in_manifest):
            continue
        if version <= METRICS_VERSION:
            expected = "a metric that manifests store"
            yield EVIDENCE_DISAGREES.at(view, f"/eval/{key}", found=key, expected=expected, name=key)
        else:
            found, expected = f"metrics_version {version}", f"at most {METRICS_VERSION}"
            yield EVIDENCE_NEWER.at(view, f"/eval/{key}", found=found, expected=expected, name=key)
