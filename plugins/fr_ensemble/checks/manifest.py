"""manifest.py: what a manifest says twice, and numbers in it that mean nothing. Opens no other file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from fr_ensemble.artifacts.choice import choice_of
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, GRAPH_VERSION, MU, SCORE, SIGMA
from fr_ensemble.artifacts.manifest import CONFIDENCE, confidence_method, graph_version_of, has_inputs, is_current
from fr_ensemble.artifacts.paths import (
    BASELINES_PATH,
    CALIBRATED_PATHS,
    FINGERPRINTS_PATH,
    INPUTS_PATH,
    LEFT_OUT_PATH,
    OOF_PATH,
    summary_path,
)
from fr_ensemble.artifacts.recipe import RAW, Recipe
from fr_ensemble.corpus.record import definition_in
from fr_ensemble.corpus.spec import TRANSFORMS
from fr_ensemble.corpus.vocabulary import UNKNOWN, VOCABULARIES, slot_of, spellings, stand_in
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import EntryView
from registry_tool.values import Json

Z_ROUNDING = 1e-3  # of coverage: 1.96 in the place of 1.959964
LIBC_ROUNDING = 1e-12  # relative; a logarithm's last bits follow the C library
TRAIN_AGAIN = "train again, or restore the files"
CALIBRATE_AGAIN = "calibrate again, or restore the files"

SIZE = FindingRule(
    "ensemble-size",
    "ensemble_size is not the number of members",
    why="The manifest was edited.",
    hint=TRAIN_AGAIN,
    example="5 for 4 members",
)
MEMBER_COPIED = FindingRule(
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
DEFINITION = FindingRule(
    "ensemble-definition",
    "model of the target is not the one that its corpus records",
    why="Scores of two models of VMAF differ by points: rows and entries would be compared that mean two things.",
    message="the target is not by the model that the corpus records",
    hint=TRAIN_AGAIN,
    example="vmaf_4k_v0.6.1, where the corpus was scored with vmaf_v0.6.1",
    since="0.2.0",
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
PROBE = FindingRule(
    "ensemble-probe",
    "probe's rows disagree, or the graph no longer gives their mu or sigma",
    why="The graph, or the runtime, computes something else than at training; or readers would learn other inputs.",
    message="{fault}",
    hint=TRAIN_AGAIN,
    example="sigma halved",
)
EVIDENCE_FILES = FindingRule(
    "evidence-files",
    "evidence files and seeds do not match",
    why="A seed has no evidence, or evidence belongs to no seed.",
    message="{file} {fault}",
    hint=TRAIN_AGAIN,
    example="loso_seed3.json missing",
)


def check_manifest(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """What a manifest says twice, and numbers that mean nothing; version-1 manifests too."""
    members = manifest["members"]
    yield from check_equal(view, SIZE, "/ensemble_size", manifest["ensemble_size"], len(members))
    if len(members) < 2:
        yield SIZE.at(view, "/members", found=len(members), expected="at least 2: one alone has no sigma")
    for key in ("seed", "id", "onnx", "sha256"):
        seen: dict[int | str, int] = {}
        for index, member in enumerate(members):
            if member[key] in seen:
                place, first = f"/members/{index}/{key}", seen[member[key]]
                yield MEMBER_COPIED.at(view, place, found=member[key], first=first, second=index, field=key)
            seen.setdefault(member[key], index)
    width = len(manifest["feature_order"])
    for key in ("feature_mean", "feature_std"):
        yield from check_equal(view, WIDTH, f"/{key}", f"{len(manifest[key])} numbers", f"{width} numbers")
    for index, value in enumerate(manifest["feature_std"]):
        if not 0 < value < math.inf:
            yield SCALE.at(view, f"/feature_std/{index}", found=repr(value))
    confidence = manifest.get("confidence", CONFIDENCE)
    covered = math.erf(confidence["gaussian_z"] / math.sqrt(2.0))
    if abs(covered - confidence["nominal_coverage"]) > Z_ROUNDING:
        expected = f"the z of {confidence['nominal_coverage']:g}"
        yield from check_equal(view, CONSTANT, "/confidence/gaussian_z", confidence["gaussian_z"], expected)
    yield from _check_vocabulary(view, manifest)
    if is_current(manifest):
        yield from _check_recipe(view, manifest)
        yield from _check_constants(view, manifest)
        yield from _check_probe(view, manifest)


def _check_vocabulary(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    vocab, version = manifest["codec_vocab"], manifest["codec_vocab_version"]
    known = VOCABULARIES.get(version)
    if known is None:
        expected = " or ".join(map(str, VOCABULARIES))
        yield from check_equal(view, VOCABULARY, "/codec_vocab_version", version, expected)
    elif list(known) != vocab:
        yield from check_equal(view, VOCABULARY, "/codec_vocab", ", ".join(vocab), ", ".join(known))
    else:
        carried = {"codec_spellings": spellings(version), "codec_stand_in": stand_in(version)}
        for name in (name for name in carried if name in manifest):
            yield from check_equal(view, VOCABULARY, f"/{name}", manifest[name], carried[name])
    if is_current(manifest):
        yield from check_slots(view, manifest)


def check_slots(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """The codec block begins with the vocabulary's slots, and has no others."""
    vocab, block = manifest["codec_vocab"], manifest["codec_block"]
    slots = [column["name"] for column in block if column["transform"] == "onehot"]
    if slots != vocab or slots != [column["name"] for column in block[: len(slots)]]:
        yield from check_equal(view, WIDTH, "/codec_block", ", ".join(slots), ", ".join(vocab))


def _check_constants(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """What this plugin always writes: names of ports, one-hot slots unscaled, what a reader makes of sigma."""
    recorded = definition_in((manifest["corpus"].get("record") or {}).get("settings"))
    if recorded is not None and "definition" in manifest["target"]:
        found = manifest["target"]["definition"]
        yield from check_equal(view, DEFINITION, "/target/definition", found, recorded.model)
    low, high = manifest["target"]["range"]
    if not low < high:
        yield from check_equal(view, CONSTANT, "/target/range", [low, high], "the lower bound first")
    written: dict[str, tuple[object, object]] = {
        "/inputs": (manifest["inputs"], [FEATURES, CODEC]),
        "/outputs": (manifest["outputs"], [SCORE]),
        "/fused/inputs": (manifest["fused"]["inputs"], [FEATURES, CODEC]),
        "/fused/outputs": (manifest["fused"]["outputs"], [MU, SIGMA]),
    }
    for index, column in enumerate(manifest["codec_block"]):
        if column["transform"] == "onehot":
            written[f"/codec_block/{index}"] = ([column["mean"], column["std"]], [0.0, 1.0])
        elif manifest["recipe"].get("member_conditions") == RAW:
            found = [column["transform"], column["mean"], column["std"]]
            written[f"/codec_block/{index}"] = (found, ["none", 0.0, 1.0])
    confidence, version = manifest["confidence"], graph_version_of(manifest)
    known = confidence_method(version, confidence["conformal_q_residual"])
    for name, value in {"method": known, **CONFIDENCE}.items():
        written[f"/confidence/{name}"] = (confidence[name], value)
    written["/fused/graph_version"] = (version, min(version, GRAPH_VERSION))
    for pointer, (found, expected) in written.items():
        yield from check_equal(view, CONSTANT, pointer, found, expected)


def _check_recipe(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
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
    yield from _check_choice(view, manifest, recipe)
    yield from check_equal(
        view, SEEDS, "/members", [member["seed"] for member in manifest["members"]], list(recipe.seeds)
    )
    named = {pin["path"] for pin in manifest["evidence"]}
    wanted = {OOF_PATH, *map(summary_path, recipe.seeds)}
    wanted |= {INPUTS_PATH} if has_inputs(manifest) else set()
    wanted |= {FINGERPRINTS_PATH} if "fingerprints" in manifest else set()
    wanted |= {BASELINES_PATH} if "baselines" in manifest else set()
    wanted |= {LEFT_OUT_PATH} if "encoders_left_out" in manifest else set()
    wanted |= {*CALIBRATED_PATHS} if "calibration" in manifest else set()
    if len(named) != len(manifest["evidence"]):
        yield EVIDENCE_FILES.at(view, "/evidence", file="a file", fault="is pinned twice")
    for path in sorted(named ^ wanted):
        fault = "is not pinned" if path in wanted else "belongs to no seed"
        yield EVIDENCE_FILES.at(view, "/evidence", file=path, fault=fault)


def _check_choice(view: EntryView, manifest: Mapping[str, Json], recipe: Recipe) -> Iterator[Finding]:
    """A recipe that was chosen is the one of the least error, in the folds of these sources."""
    try:
        choice = choice_of(manifest)
        problems = [] if choice is None else [*choice.problems(recipe, manifest["corpus"]["sources"])]
    except ValueError as error:
        problems = [str(error)]
    for problem in problems:
        yield RECIPE.at(view, "/recipe_choice", fault=f"was not chosen as it says: {problem}")


def _check_probe(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """The probe's rows as a corpus has them give its codec block; a probe of an older release has the block alone."""
    probe, columns, version = manifest["probe"], manifest["codec_block"], manifest["codec_vocab_version"]
    block: list[list[float]] = probe["codec_block"]
    for name in ("encoder", "conditioning"):
        if len(probe.get(name, block)) != len(block):
            fault = f"its {name} has another number of rows than its codec block"
            yield PROBE.at(view, f"/probe/{name}", found=len(probe[name]), expected=len(block), fault=fault)
            return
    if version not in VOCABULARIES or any(len(row) != len(columns) for row in block):
        return  # a finding of its own
    n_slots = len(manifest["codec_vocab"])
    for index, name in enumerate(probe.get("encoder", ())):
        slots = {slot_of(name, version), slot_of(UNKNOWN, version)}  # the release that trained it may have known less
        if block[index][:n_slots] not in [[float(k == slot) for k in range(n_slots)] for slot in slots]:
            fault = f"its encoder {name!r} does not give its codec block"
            yield PROBE.at(view, f"/probe/encoder/{index}", fault=fault)
    conditions = columns[n_slots:]
    for index, values in enumerate(probe.get("conditioning", ())):
        if not _transformed(values, conditions, block[index][n_slots:]):
            fault = "its conditions, transformed, do not give its codec block"
            expected = ", ".join(f"{column['name']} ({column['transform']})" for column in conditions)
            yield PROBE.at(view, f"/probe/conditioning/{index}", found=values, expected=expected, fault=fault)


def _transformed(values: list[float], columns: list[dict[str, Json]], given: list[float]) -> bool:
    """Whether conditions as a corpus has them become what the codec block has."""
    try:
        made = [TRANSFORMS[column["transform"]](value) for value, column in zip(values, columns, strict=True)]
    except ValueError:  # another number of conditions, or no logarithm
        return False
    return all(math.isclose(one, other, rel_tol=LIBC_ROUNDING) for one, other in zip(made, given, strict=True))


def check_equal(view: EntryView, rule: FindingRule, pointer: str, found: object, expected: object) -> Iterator[Finding]:
    """The rule's finding at a pointer into the manifest, unless the two are equal."""
    if found != expected:
        yield rule.at(view, pointer, found=found, expected=expected)
