"""verify.py: what an ensemble's files say about each other, as findings. Trusts no figure it can recompute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SCORE, SIGMA
from fr_ensemble.artifacts.manifest import CONFIDENCE, MU_TOLERANCE, OOF_PATH, is_current, scaler_of, spec_of
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.vocabulary import VOCABULARIES
from registry_tool.hookspec import EntryView, Level
from registry_tool.toolkit import ROUNDING, differences
from registry_tool.values import Finding

Z_ROUNDING = 1e-3  # of coverage: 1.96 in the place of 1.959964
AGAIN = "train again, or restore the files"


def verify(view: EntryView, level: Level) -> Iterator[Finding]:
    """Documents first; at Level.FULL the graphs, the probe and the evidence, each only on sound ground."""
    manifest = view.manifest
    if manifest is None:
        return
    found = list(_check_document(view, manifest))
    yield from found
    if level is Level.QUICK or not is_current(manifest) or found:
        return
    found = list(_check_graphs(view, manifest))
    yield from found
    if not found:
        yield from _check_probe(view, manifest)
    yield from _check_evidence(view, manifest)


def _check_document(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """What a manifest says twice, and numbers that mean nothing; version-1 manifests too."""
    members = manifest["members"]
    yield from _equal(view, "ensemble-size", "/ensemble_size", manifest["ensemble_size"], len(members))
    for key in ("seed", "id", "onnx", "sha256"):
        seen: dict[Any, int] = {}
        for index, member in enumerate(members):
            if member[key] in seen:
                yield view.finding(
                    "ensemble-member-twice", f"members {seen[member[key]]} and {index} have the same {key}",
                    f"/members/{index}/{key}", found=str(member[key]), expected="members that differ", hint=AGAIN,
                )  # fmt: skip
            seen.setdefault(member[key], index)
    width = len(manifest["feature_order"])
    for key in ("feature_mean", "feature_std"):
        yield from _equal(view, "ensemble-width", f"/{key}", len(manifest[key]), width, "numbers")
    for index, value in enumerate(manifest["feature_std"]):
        if not 0 < value < math.inf:
            yield view.finding(
                "ensemble-scale", "a feature's deviation is not positive", f"/feature_std/{index}", found=repr(value),
                expected="a finite number > 0", hint=AGAIN,
            )  # fmt: skip
    confidence = manifest.get("confidence", CONFIDENCE)
    covered = math.erf(confidence["gaussian_z"] / math.sqrt(2.0))
    if abs(covered - confidence["nominal_coverage"]) > Z_ROUNDING:
        where, expected = "/confidence/gaussian_z", f"the z of {confidence['nominal_coverage']:g}"
        yield from _equal(view, "ensemble-constant", where, confidence["gaussian_z"], expected)
    yield from _check_vocabulary(view, manifest)
    if is_current(manifest):
        yield from _check_recipe(view, manifest)
        yield from _check_constants(view, manifest)


def _check_vocabulary(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    vocab, version = manifest["codec_vocab"], manifest["codec_vocab_version"]
    known = VOCABULARIES.get(version)
    if known is None:
        expected = " or ".join(map(str, VOCABULARIES))
        yield from _equal(view, "ensemble-vocabulary", "/codec_vocab_version", version, expected)
    elif list(known) != vocab:
        yield from _equal(view, "ensemble-vocabulary", "/codec_vocab", ", ".join(vocab), ", ".join(known))
    if is_current(manifest):
        slots = [column["name"] for column in manifest["codec_block"] if column["transform"] == "onehot"]
        if slots != vocab or slots != [column["name"] for column in manifest["codec_block"][: len(slots)]]:
            yield from _equal(view, "ensemble-width", "/codec_block", ", ".join(slots), ", ".join(vocab))


def _check_constants(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """What this plugin always writes: names of ports, one-hot slots unscaled, what a reader makes of sigma."""
    low, high = manifest["target"]["range"]
    if not low < high:
        yield from _equal(view, "ensemble-constant", "/target/range", [low, high], "the lower bound first")
    written: dict[str, tuple[object, object]] = {
        "/inputs": (manifest["inputs"], [FEATURES, CODEC]),
        "/outputs": (manifest["outputs"], [SCORE]),
        "/fused/inputs": (manifest["fused"]["inputs"], [FEATURES, CODEC]),
        "/fused/outputs": (manifest["fused"]["outputs"], [MU, SIGMA]),
    }
    for index, column in enumerate(manifest["codec_block"]):
        if column["transform"] == "onehot":
            written[f"/codec_block/{index}"] = ([column["mean"], column["std"]], [0.0, 1.0])
    for name in ("method", "nominal_coverage", "gaussian_z"):
        written[f"/confidence/{name}"] = (manifest["confidence"][name], CONFIDENCE[name])
    for pointer, (found, expected) in written.items():
        yield from _equal(view, "ensemble-constant", pointer, found, expected)


def _check_recipe(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        recipe = Recipe.from_dict(manifest["recipe"])
    except (ValueError, TypeError) as error:
        yield view.finding("ensemble-recipe", f"the recipe cannot be read: {error}", "/recipe", hint=AGAIN)
        return
    yield from _equal(view, "ensemble-recipe", "/recipe_sha256", manifest["recipe_sha256"], recipe.sha256)
    yield from _equal(view, "ensemble-recipe", "/recipe", manifest["recipe"], recipe.to_dict())
    seeds = [member["seed"] for member in manifest["members"]]
    yield from _equal(view, "ensemble-seeds", "/members", str(seeds), str(list(recipe.seeds)), "in the recipe")
    named = {pin["path"] for pin in manifest["evidence"]}
    wanted = {OOF_PATH, *(f"evidence/loso_seed{seed}.json" for seed in recipe.seeds)}
    if len(named) != len(manifest["evidence"]):
        yield view.finding("evidence-files", "a file is named twice", "/evidence", hint=AGAIN)
    for path in sorted(named ^ wanted):
        what = "is not named" if path in wanted else "belongs to no seed"
        yield view.finding("evidence-files", f"{path} {what}", "/evidence", hint=AGAIN)


def _check_graphs(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Each file is, byte for byte, the graph this plugin writes for its weights; the fused one holds the members."""
    from fr_ensemble.artifacts.graphs import fused_model, read_weights, same_weights

    weights = []
    for index, member in enumerate(manifest["members"]):
        try:
            view.onnx(member["onnx"])  # a child has parsed it, within limits, before this process does
            weights.append(read_weights(view.read(member["onnx"])))
        except ValueError as error:
            yield view.finding("ensemble-graph", str(error), f"/members/{index}/onnx", hint=AGAIN)
    if len(weights) != len(manifest["members"]):
        return
    width = len(manifest["feature_order"]) + len(manifest["codec_block"])
    for index, one in enumerate(weights):
        yield from _equal(view, "ensemble-width", f"/members/{index}/onnx", one.w1.shape[0], width, "inputs")
        for other in range(index):
            if same_weights(one, weights[other]):
                yield view.finding(
                    "ensemble-member-twice", f"members {other} and {index} have the same weights",
                    f"/members/{index}/onnx", hint=AGAIN,
                )  # fmt: skip
    if any(one.w1.shape[0] != width for one in weights):
        return
    try:
        expected = fused_model(
            weights, scaler_of(manifest), len(manifest["feature_order"]), len(manifest["codec_vocab"])
        )
    except ValueError as error:
        yield view.finding("ensemble-scale", f"the scaler makes no graph: {error}", "/feature_std", hint=AGAIN)
        return
    if view.read(manifest["fused"]["onnx"]) != expected:
        yield view.finding(
            "ensemble-fused", "the fused graph is not made of these members and this scaler", "/fused/onnx",
            found="other bytes", expected="the members' weights in the members' order", hint=AGAIN,
        )  # fmt: skip


def _check_probe(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """The fused graph gives the probe's mu and sigma. It is byte for byte our own by now, so it is safe to run."""
    import numpy as np

    from fr_ensemble.artifacts.runtime import Ensemble

    probe = manifest["probe"]
    try:
        features, block = (np.asarray(probe[key], np.float64) for key in ("features", "codec_block"))
        mu, sigma = Ensemble(view.read(manifest["fused"]["onnx"])).predict(features, block)
    except ValueError as error:
        yield view.finding("ensemble-probe", f"the probe rows do not run: {error}", "/probe", hint=AGAIN)
        return
    low, high = manifest["target"]["range"]
    tolerance = MU_TOLERANCE * (high - low)
    for name, now in (("mu", mu), ("sigma", sigma)):
        stored = np.asarray(probe[name], np.float64)
        if stored.shape != now.shape or not (np.abs(stored - now) <= tolerance).all():
            yield view.finding(
                "ensemble-probe", f"the fused graph no longer gives the probe's {name}", f"/probe/{name}",
                found=_numbers(now), expected=_numbers(stored), hint=AGAIN,
            )  # fmt: skip


def _check_evidence(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    from fr_ensemble.evidence.intervals import KINDS, LEVELS, Intervals, residual_quantile
    from fr_ensemble.evidence.pinned import predictions
    from fr_ensemble.hooks.gate import measure_pinned
    from registry_tool.errors import InputError

    try:
        metrics, problems, _ = measure_pinned(view)
        oof = predictions(view).oof
    except InputError as error:
        yield view.finding("evidence-unusable", str(error), "/evidence", hint=AGAIN)
        return
    for problem in problems:
        yield view.finding("evidence-problem", problem, "/evidence", hint=AGAIN)
    for name, value in metrics.items():
        stored = manifest["eval"].get(f"loso_{name}")
        if math.isfinite(value) and not ROUNDING.holds(stored, float(value)):
            yield from _equal(view, "evidence-disagrees", f"/eval/loso_{name}", repr(stored), repr(value), "recomputed")

    residual, said = residual_quantile(oof), manifest["confidence"]["conformal_q_residual"]
    if not ROUNDING.holds(said, residual if math.isfinite(residual) else None):
        yield from _equal(view, "intervals-disagree", "/confidence/conformal_q_residual", said, residual, "recomputed")
    try:
        stored = Intervals.from_dict(manifest["intervals"])
        again = stored.recalibrated(oof, LEVELS)
        spec = spec_of(manifest, target=True)
    except (ValueError, InputError) as error:
        yield view.finding("intervals-unusable", f"the intervals cannot be read: {error}", "/intervals", hint=AGAIN)
        return
    names, order = list(stored.input_ranges), [*spec.features, *map(str, spec.conditioning)]
    yield from _equal(view, "intervals-disagree", "/intervals/input_ranges", names, order)
    for index, calibration in enumerate(stored.calibrations):
        where = f"/intervals/calibrations/{index}/range"
        yield from _equal(view, "intervals-disagree", where, list(calibration.range), manifest["target"]["range"])
    for index, (low, high) in enumerate(stored.input_ranges.values()):
        if not low <= high:
            where = f"/intervals/input_ranges/{index}/range"
            yield from _equal(view, "intervals-disagree", where, [low, high], "the lower bound first")
    kinds = [(calibration.unit, calibration.side) for calibration in stored.calibrations]
    wanted = [kind for kind in KINDS if kind[0] == "row" or oof.clips is not None]
    yield from _equal(view, "intervals-disagree", "/intervals/calibrations", kinds, wanted)
    where, method = "/intervals/method", manifest["intervals"].get("method")
    yield from _equal(view, "intervals-disagree", where, method, stored.calibrations[0].method)
    if any(differences(manifest["intervals"], again.to_dict(), ROUNDING)):
        yield view.finding(
            "intervals-disagree",
            "the intervals are not those the out-of-fold predictions give",
            "/intervals",
            hint=AGAIN,
        )


def _equal(
    view: EntryView, code: str, pointer: str, found: object, expected: object, unit: str = ""
) -> Iterator[Finding]:
    if found != expected:
        yield view.finding(
            code, "it disagrees with the rest of the manifest", pointer, found=str(found),
            expected=f"{expected} {unit}".strip(), hint=AGAIN,
        )  # fmt: skip


def _numbers(values: Sequence[float] | Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
