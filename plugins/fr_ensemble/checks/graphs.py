"""graphs.py: the ONNX files against the graphs that their weights make, and the probe against the fused graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fr_ensemble.arrays import Float64, Weights
from fr_ensemble.artifacts.graphs import fused_model, read_weights, same_units, shifted
from fr_ensemble.artifacts.manifest import fused_format_of, offset_of, scaler_of
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.checks.manifest import MEMBER_COPIED, PROBE, RECIPE, SCALE, TRAIN_AGAIN, WIDTH, check_equal
from fr_ensemble.evidence.entry import evidence_of
from fr_ensemble.evidence.shipped import score_tolerance
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import EntryView
from registry_tool.values import Json

GRAPH = FindingRule(
    "ensemble-graph",
    "member is not a graph that this plugin writes",
    why="Members are compared byte for byte with the graph of their weights.",
    message="not a graph that this plugin writes: {reason}",
    hint=TRAIN_AGAIN,
    example="a node added by hand",
)
FUSED = FindingRule(
    "ensemble-fused",
    "fused graph does not match the members, the scaler and the manifest",
    why="The runtime would run another ensemble than the one judged.",
    message="the fused graph does not match the members, the scaler and the manifest",
    expected="the members' weights in the members' order, and what the manifest says of target, recipe and corpus",
    hint=TRAIN_AGAIN,
    example="a fused graph of an older run",
)


def check_graphs(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """Each file is, byte for byte, the graph this plugin writes for its weights; the fused one holds the members."""
    members = []
    for index, member in enumerate(manifest["members"]):
        try:
            view.onnx(member["onnx"])  # a child has parsed it, within limits, before this process does
            members.append(read_weights(view.read(member["onnx"])))
        except ValueError as error:
            yield GRAPH.at(view, f"/members/{index}/onnx", reason=error)
    if len(members) != len(manifest["members"]):
        return
    yield from _check_members(view, manifest, members)
    if all(weights.w1.shape[0] == _input_width(manifest) for weights in members):
        yield from _check_fused(view, manifest, [shifted(weights, offset_of(manifest)) for weights in members])


def _input_width(manifest: Mapping[str, Json]) -> int:
    return len(manifest["feature_order"]) + len(manifest["codec_block"])


def _check_members(view: EntryView, manifest: Mapping[str, Json], members: Sequence[Weights]) -> Iterator[Finding]:
    """Widths are the manifest's, and no member is a copy of another."""
    width, recipe_hidden = _input_width(manifest), manifest["recipe"].get("hidden")
    for index, weights in enumerate(members):
        pointer, (inputs, hidden) = f"/members/{index}/onnx", weights.w1.shape
        yield from check_equal(view, WIDTH, pointer, f"{inputs} inputs", f"{width} inputs")
        first = next((place for place in range(index) if same_units(weights, members[place])), None)
        if first is not None:
            yield MEMBER_COPIED.at(view, pointer, found="a copy", first=first, second=index, field="weights")
        if hidden != recipe_hidden:
            fault = f"has hidden: {recipe_hidden}, member {index} has {hidden} hidden units"
            yield RECIPE.at(view, "/recipe/hidden", fault=fault)


def _check_fused(view: EntryView, manifest: Mapping[str, Json], members: Sequence[Weights]) -> Iterator[Finding]:
    n_features, n_slots = len(manifest["feature_order"]), len(manifest["codec_vocab"])
    try:
        expected = fused_model(members, scaler_of(manifest), n_features, n_slots, fused_format_of(manifest))
    except ValueError as error:
        yield SCALE.at(view, "/feature_std", found=f"a scaler that makes no graph ({error})")
        return
    if view.read(manifest["fused"]["onnx"]) != expected:
        yield FUSED.at(view, "/fused/onnx", found="other bytes")


def check_probe(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """The fused graph gives the probe's mu and sigma. It is byte for byte our own by now, so it is safe to run."""
    probe = manifest["probe"]
    try:
        features, block = (np.asarray(probe[key], np.float64) for key in ("features", "codec_block"))
        mu, sigma = Ensemble(view.read(manifest["fused"]["onnx"])).predict(features, block)
    except ValueError as error:
        yield PROBE.at(view, "/probe", fault=f"the probe rows do not run: {error}")
        return
    if not sigma.any():
        yield PROBE.at(view, "/probe/sigma", fault="sigma is 0 on every probe row: the members are copies of one")
    low, high = manifest["target"]["range"]
    try:
        tolerance = score_tolerance(evidence_of(view).oof, (low, high))
    except (ValueError, KeyError):  # evidence that cannot be read is a finding of its own
        return
    for name, recomputed in (("mu", mu), ("sigma", sigma)):
        stored = np.asarray(probe[name], np.float64)
        if stored.shape != recomputed.shape or not (np.abs(stored - recomputed) <= tolerance).all():
            found, expected = _numbers(recomputed), _numbers(stored)
            fault = f"the fused graph no longer gives the probe's {name}"
            yield PROBE.at(view, f"/probe/{name}", found=found, expected=expected, fault=fault)


def _numbers(values: Float64) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
