"""verify.py: how an ensemble's files contradict each other, as findings. Trusts no number it can recompute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SCORE, SIGMA
from fr_ensemble.artifacts.manifest import CONFIDENCE, MU_TOLERANCE, is_current, scaler_of, spec_of
from fr_ensemble.artifacts.paths import OOF_PATH
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.vocabulary import VOCABULARIES
from registry_tool.findings import EVIDENCE_UNUSABLE, Finding, FindingRule, Severity
from registry_tool.hookspec import EntryView, Level
from registry_tool.toolkit import ROUNDING, differences

Z_ROUNDING = 1e-3  # of coverage: 1.96 in the place of 1.959964
TRAIN_AGAIN = "train again, or restore the files"

SIZE = FindingRule(
    "ensemble-size",
    "ensemble_size is not the number of members",
    why="The manifest was edited.",
    hint=TRAIN_AGAIN,
    example="5 for 4 members",
)
MEMBER_TWICE = FindingRule(
    "ensemble-member-twice",
    "duplicate member",
    why="An ensemble of copies has no spread: sigma means nothing.",
    message="members {first} and {second} have the same {field}",
    expected="members that differ",
    hint="train again with distinct seeds, or restore the files",
    example="--seeds 0,0,0",
)
WIDTH = FindingRule(
    "ensemble-width",
    "number of features, statistics, codec columns or graph inputs does not match",
    why="Rows would be fed into the wrong columns.",
    message="the number of columns does not match the rest of the manifest",
    hint=TRAIN_AGAIN,
    example="five means for six features",
)
SCALE = FindingRule(
    "ensemble-scale",
    "standard deviation that is not positive",
    why="Scaling divides by it.",
    expected="a finite number > 0",
    hint=TRAIN_AGAIN,
    example='"feature_std": [0, ...]',
)
CONSTANT = FindingRule(
    "ensemble-constant",
    "ports, one-hot slots or confidence that no ensemble of this kind has",
    why="A reader that believes it binds the wrong tensor, or scales what must stay 0 or 1.",
    message="a value that no ensemble of this kind has",
    hint=TRAIN_AGAIN,
    example='"outputs": ["mu"] for a member',
)
VOCABULARY = FindingRule(
    "ensemble-vocabulary",
    "vocabulary that is not the one of its version",
    why="An encoder's slot would be another encoder's.",
    hint=TRAIN_AGAIN,
    example="version 2 with six names",
)
RECIPE = FindingRule(
    "ensemble-recipe",
    "recipe cannot be read, or differs from its digest",
    why="The evidence was made in another way than the recipe says.",
    message="the recipe {fault}",
    hint=TRAIN_AGAIN,
    example="epochs edited after training",
)
SEEDS = FindingRule(
    "ensemble-seeds",
    "seeds of the members are not those of the recipe",
    why="Members were swapped or added.",
    message="the members' seeds are not those of the recipe",
    hint=TRAIN_AGAIN,
    example="seed 7 among 0 to 4",
)
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
    "fused graph does not match the members and the scaler",
    why="The runtime would run another ensemble than the one judged.",
    message="the fused graph does not match the members and the scaler",
    expected="the members' weights in the members' order",
    hint=TRAIN_AGAIN,
    example="a fused graph of an older run",
)
PROBE = FindingRule(
    "ensemble-probe",
    "graph no longer gives the probe's mu or sigma",
    why="The graph, or the runtime, computes something else than at training.",
    message="{fault}",
    hint=TRAIN_AGAIN,
    example="sigma halved",
)
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
    "intervals are not those of the out-of-fold predictions",
    why="They were narrowed by hand, or belong to another run.",
    message="the intervals are not those of the out-of-fold predictions",
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
EVIDENCE_FILES = FindingRule(
    "evidence-files",
    "evidence files and seeds do not match",
    why="A seed has no evidence, or evidence belongs to no seed.",
    message="{file} {fault}",
    hint=TRAIN_AGAIN,
    example="loso_seed3.json missing",
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
    yield from _equal(view, SIZE, "/ensemble_size", manifest["ensemble_size"], len(members))
    for key in ("seed", "id", "onnx", "sha256"):
        seen: dict[Any, int] = {}
        for index, member in enumerate(members):
            if member[key] in seen:
                place, first = f"/members/{index}/{key}", seen[member[key]]
                yield MEMBER_TWICE.at(view, place, found=member[key], first=first, second=index, field=key)
            seen.setdefault(member[key], index)
    width = len(manifest["feature_order"])
    for key in ("feature_mean", "feature_std"):
        yield from _equal(view, WIDTH, f"/{key}", f"{len(manifest[key])} numbers", f"{width} numbers")
    for index, value in enumerate(manifest["feature_std"]):
        if not 0 < value < math.inf:
            yield SCALE.at(view, f"/feature_std/{index}", found=repr(value))
    confidence = manifest.get("confidence", CONFIDENCE)
    covered = math.erf(confidence["gaussian_z"] / math.sqrt(2.0))
    if abs(covered - confidence["nominal_coverage"]) > Z_ROUNDING:
        where, expected = "/confidence/gaussian_z", f"the z of {confidence['nominal_coverage']:g}"
        yield from _equal(view, CONSTANT, where, confidence["gaussian_z"], expected)
    yield from _check_vocabulary(view, manifest)
    if is_current(manifest):
        yield from _check_recipe(view, manifest)
        yield from _check_constants(view, manifest)


def _check_vocabulary(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    vocab, version = manifest["codec_vocab"], manifest["codec_vocab_version"]
    known = VOCABULARIES.get(version)
    if known is None:
        expected = " or ".join(map(str, VOCABULARIES))
        yield from _equal(view, VOCABULARY, "/codec_vocab_version", version, expected)
    elif list(known) != vocab:
        yield from _equal(view, VOCABULARY, "/codec_vocab", ", ".join(vocab), ", ".join(known))
    if is_current(manifest):
        slots = [column["name"] for column in manifest["codec_block"] if column["transform"] == "onehot"]
        if slots != vocab or slots != [column["name"] for column in manifest["codec_block"][: len(slots)]]:
            yield from _equal(view, WIDTH, "/codec_block", ", ".join(slots), ", ".join(vocab))


def _check_constants(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """What this plugin always writes: names of ports, one-hot slots unscaled, what a reader makes of sigma."""
    low, high = manifest["target"]["range"]
    if not low < high:
        yield from _equal(view, CONSTANT, "/target/range", [low, high], "the lower bound first")
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
        yield from _equal(view, CONSTANT, pointer, found, expected)


def _check_recipe(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        recipe = Recipe.from_dict(manifest["recipe"])
    except (ValueError, TypeError) as error:
        yield RECIPE.at(view, "/recipe", fault=f"cannot be read: {error}")
        return
    if manifest["recipe_sha256"] != recipe.sha256:
        found, fault = manifest["recipe_sha256"], "differs from its digest"
        yield RECIPE.at(view, "/recipe_sha256", found=found, expected=recipe.sha256, fault=fault)
    if manifest["recipe"] != recipe.to_dict():
        fault = "is not in the form in which it is written"
        yield RECIPE.at(view, "/recipe", found=manifest["recipe"], expected=recipe.to_dict(), fault=fault)
    yield from _equal(view, SEEDS, "/members", [member["seed"] for member in manifest["members"]], list(recipe.seeds))
    named = {pin["path"] for pin in manifest["evidence"]}
    wanted = {OOF_PATH, *(f"evidence/loso_seed{seed}.json" for seed in recipe.seeds)}
    if len(named) != len(manifest["evidence"]):
        yield EVIDENCE_FILES.at(view, "/evidence", file="a file", fault="is pinned twice")
    for path in sorted(named ^ wanted):
        fault = "is not pinned" if path in wanted else "belongs to no seed"
        yield EVIDENCE_FILES.at(view, "/evidence", file=path, fault=fault)


def _check_graphs(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Each file is, byte for byte, the graph this plugin writes for its weights; the fused one holds the members."""
    from fr_ensemble.artifacts.graphs import fused_model, read_weights, same_units

    weights = []
    for index, member in enumerate(manifest["members"]):
        try:
            view.onnx(member["onnx"])  # a child has parsed it, within limits, before this process does
            weights.append(read_weights(view.read(member["onnx"])))
        except ValueError as error:
            yield GRAPH.at(view, f"/members/{index}/onnx", reason=error)
    if len(weights) != len(manifest["members"]):
        return
    width = len(manifest["feature_order"]) + len(manifest["codec_block"])
    for index, one in enumerate(weights):
        yield from _equal(view, WIDTH, f"/members/{index}/onnx", f"{one.w1.shape[0]} inputs", f"{width} inputs")
        for other in range(index):
            if same_units(one, weights[other]):
                place = f"/members/{index}/onnx"
                yield MEMBER_TWICE.at(view, place, found="a copy", first=other, second=index, field="weights")
        hidden, claimed = one.w1.shape[1], manifest["recipe"].get("hidden")
        if hidden != claimed:
            fault = f"says hidden: {claimed}, member {index} has {hidden} hidden units"
            yield RECIPE.at(view, "/recipe/hidden", fault=fault)
    if any(one.w1.shape[0] != width for one in weights):
        return
    try:
        expected = fused_model(
            weights, scaler_of(manifest), len(manifest["feature_order"]), len(manifest["codec_vocab"])
        )
    except ValueError as error:
        yield SCALE.at(view, "/feature_std", found=f"a scaler that makes no graph ({error})")
        return
    if view.read(manifest["fused"]["onnx"]) != expected:
        yield FUSED.at(view, "/fused/onnx", found="other bytes")


def _check_probe(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """The fused graph gives the probe's mu and sigma. It is byte for byte our own by now, so it is safe to run."""
    import numpy as np

    from fr_ensemble.artifacts.runtime import Ensemble

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
    tolerance = MU_TOLERANCE * (high - low)
    for name, now in (("mu", mu), ("sigma", sigma)):
        stored = np.asarray(probe[name], np.float64)
        if stored.shape != now.shape or not (np.abs(stored - now) <= tolerance).all():
            found, expected, fault = (
                _numbers(now),
                _numbers(stored),
                f"the fused graph no longer gives the probe's {name}",
            )
            yield PROBE.at(view, f"/probe/{name}", found=found, expected=expected, fault=fault)


def _check_evidence(view: EntryView, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    from fr_ensemble.evidence.entry import checked_evidence
    from fr_ensemble.evidence.intervals import CALIBRATED_UNITS, NOMINAL_LEVELS, Intervals, residual_quantile
    from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
    from registry_tool.errors import InputError

    try:
        found, problems = checked_evidence(view)
    except InputError as error:
        yield EVIDENCE_UNUSABLE.at(view, "/evidence", reason=error, hint=TRAIN_AGAIN)
        return
    for problem in problems:
        yield EVIDENCE_PROBLEM.at(view, "/evidence", problem=problem)
    oof = found.oof
    yield from _check_stored_metrics(view, manifest, compute_metrics(MetricInputs(found.scores)))
    residual, claimed = residual_quantile(oof), manifest["confidence"]["conformal_q_residual"]
    if not ROUNDING.holds(claimed, residual if math.isfinite(residual) else None):
        place, expected = "/confidence/conformal_q_residual", f"{residual} recomputed"
        yield INTERVALS_DISAGREE.at(view, place, found=claimed, expected=expected)
    try:
        stored = Intervals.from_dict(manifest["intervals"])
        again = stored.recalibrated(oof, NOMINAL_LEVELS)
        spec = spec_of(manifest, target=True)
    except (ValueError, InputError) as error:
        yield INTERVALS_UNUSABLE.at(view, "/intervals", reason=error)
        return
    names, order = list(stored.input_ranges), [*spec.features, *map(str, spec.conditioning)]
    yield from _equal(view, INTERVALS_DISAGREE, "/intervals/input_ranges", names, order)
    for index, calibration in enumerate(stored.calibrations):
        where = f"/intervals/calibrations/{index}/range"
        yield from _equal(view, INTERVALS_DISAGREE, where, list(calibration.range), manifest["target"]["range"])
    for index, (low, high) in enumerate(stored.input_ranges.values()):
        if not low <= high:
            where = f"/intervals/input_ranges/{index}/range"
            yield from _equal(view, INTERVALS_DISAGREE, where, [low, high], "the lower bound first")
    kinds = [(calibration.unit, calibration.side) for calibration in stored.calibrations]
    wanted = [kind for kind in CALIBRATED_UNITS if kind[0] == "row" or oof.clips is not None]
    yield from _equal(view, INTERVALS_DISAGREE, "/intervals/calibrations", kinds, wanted)
    where, method = "/intervals/method", manifest["intervals"].get("method")
    yield from _equal(view, INTERVALS_DISAGREE, where, method, stored.calibrations[0].method)
    if any(differences(manifest["intervals"], again.to_dict(), ROUNDING)):
        yield INTERVALS_DISAGREE.at(view, "/intervals")


def _check_stored_metrics(
    view: EntryView, manifest: Mapping[str, Any], recomputed: Mapping[str, float]
) -> Iterator[Finding]:
    """Metrics at `eval`: each stored one equals the recomputed one, and none of its metrics_version is missing."""
    from fr_ensemble.evidence.metrics import METRICS, METRICS_VERSION, STORED_PREFIX

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


def _equal(view: EntryView, rule: FindingRule, pointer: str, found: object, expected: object) -> Iterator[Finding]:
    if found != expected:
        yield rule.at(view, pointer, found=found, expected=expected)


def _numbers(values: Sequence[float] | Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
