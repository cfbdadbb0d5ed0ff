"""Tests of verify.py: every claim of a manifest and every file is held against the others, however well pinned."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sandbox import Sandbox, sha256

from registry_tool.hookspec import Level

Manifest = dict[str, Any]
Change = Callable[[Manifest], object]


def put(*path: str | int, value: Any) -> Change:
    """Set one place of the manifest; a callable value gets what stood there."""

    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value

    return change


def drop(*path: str | int) -> Change:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


CALIBRATION = ("intervals", "calibrations", 0)


def swap_members(manifest: Manifest) -> None:
    """Member 0's file under member 1's name and the other way round."""
    a, b = manifest["members"][:2]
    for key in ("onnx", "sha256"):
        a[key], b[key] = b[key], a[key]


def swap_seeds(manifest: Manifest) -> None:
    a, b = manifest["members"][:2]
    a["seed"], b["seed"] = b["seed"], a["seed"]


def shorten(name: str) -> Change:
    return put(name, value=lambda values: values[:-1])


def level_claims(manifest: Manifest) -> dict[str, Any]:
    levels: dict[str, Any] = manifest["intervals"]["calibrations"][0]["levels"]["0.95"]
    return levels


def narrower(manifest: Manifest) -> None:
    """Intervals half as wide as the predictions allow."""
    level_claims(manifest)["q"] /= 2


def guaranteed(manifest: Manifest) -> None:
    level_claims(manifest)["guarantee"] = "1 - alpha"


def recipe(**changed: Any) -> Change:
    """Another recipe whose digest fits."""

    def change(manifest: Manifest) -> None:
        manifest["recipe"].update(changed)
        text = json.dumps(manifest["recipe"], sort_keys=True, separators=(",", ":"))
        manifest["recipe_sha256"] = sha256(text.encode())

    return change


def six_slots(manifest: Manifest) -> None:
    """The defect of the public tree: a vocabulary of 6 over members 12 wide."""
    vocabulary = ["x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", "unknown"]
    manifest.update(codec_vocab=vocabulary, codec_vocab_version=1)
    del manifest["codec_spellings"], manifest["codec_stand_in"]


def another_model(manifest: Manifest) -> None:
    """A 4K model's scores, by the target; the usual model's, by the record of the corpus."""
    manifest["target"]["definition"] = "vmaf_4k_v0.6.1"
    manifest["corpus"]["record"] = {"sha256": "0" * 64, "settings": {"model": "vmaf_v0.6.1"}}


def raw_conditions(manifest: Manifest) -> None:
    """A recipe whose members take conditions as they are, beside one that is scaled."""
    manifest["codec_block"].append({"name": "crf_norm", "transform": "none", "mean": 0.4, "std": 0.2})
    recipe(member_conditions="raw")(manifest)


def six_columns(manifest: Manifest) -> None:
    six_slots(manifest)
    columns = [{"name": n, "transform": "onehot", "mean": 0.0, "std": 1.0} for n in manifest["codec_vocab"]]
    manifest["codec_block"] = columns


def one_member(manifest: Manifest) -> None:
    manifest.update(members=manifest["members"][:1], ensemble_size=1)


DOCUMENTS: list[tuple[str, Change, str, str]] = [  # found in documents alone, so at both levels
    ("another id", put("id", value="other"), "entry-disagrees", "/id"),
    ("size", put("ensemble_size", value=4), "ensemble-size", "/ensemble_size"),
    ("one member", one_member, "schema-value", "/ensemble_size"),
    ("member twice", put("members", 1, value=lambda m: {**m, "seed": 0}), "ensemble-member-twice", "/members/1/seed"),
    ("member's id twice", put("members", 1, "id", value="tiny_seed0"), "ensemble-member-twice", "/members/1/id"),
    ("seeds swapped", swap_seeds, "ensemble-seeds", "/members"),
    ("another seed", put("members", 0, "seed", value=9), "ensemble-seeds", "/members"),
    ("negative seed", put("members", 0, "seed", value=-1), "schema-value", "/members/0/seed"),
    ("boolean seed", put("members", 0, "seed", value=False), "schema-type", "/members/0/seed"),
    ("mean too short", shorten("feature_mean"), "ensemble-width", "/feature_mean"),
    ("deviations too short", shorten("feature_std"), "ensemble-width", "/feature_std"),
    ("deviation of zero", put("feature_std", 2, value=0.0), "ensemble-scale", "/feature_std/2"),
    ("negative deviation", put("feature_std", 2, value=-1.0), "ensemble-scale", "/feature_std/2"),
    ("mean as text", put("feature_mean", 0, value="0.9"), "schema-type", "/feature_mean/0"),
    ("mean as boolean", put("feature_mean", 0, value=True), "schema-type", "/feature_mean/0"),
    ("mean as null", put("feature_mean", 0, value=None), "schema-type", "/feature_mean/0"),
    ("encoders swapped", put("codec_vocab", value=lambda v: v[::-1]), "ensemble-vocabulary", "/codec_vocab"),
    ("an encoder renamed", put("codec_vocab", 0, value="h264"), "ensemble-vocabulary", "/codec_vocab"),
    ("an encoder missing", shorten("codec_vocab"), "ensemble-vocabulary", "/codec_vocab"),
    ("vocabulary's version", put("codec_vocab_version", value=1), "ensemble-vocabulary", "/codec_vocab"),
    ("unknown vocabulary", put("codec_vocab_version", value=4), "ensemble-vocabulary", "/codec_vocab_version"),
    ("the public trainer's vocabulary", put("codec_vocab_version", value=3), "ensemble-vocabulary", "/codec_vocab"),
    ("a spelling moved", put("codec_spellings", "unknown", value=["x264"]), "ensemble-vocabulary", "/codec_spellings"),
    ("another stand-in", put("codec_stand_in", value="libx264"), "ensemble-vocabulary", "/codec_stand_in"),
    ("raw conditions, scaled", raw_conditions, "ensemble-constant", "/codec_block/12"),
    ("another model than recorded", another_model, "ensemble-definition", "/target/definition"),
    ("vocabulary of 6, input of 12", six_slots, "ensemble-width", "/codec_block"),
    ("slot missing", shorten("codec_block"), "ensemble-width", "/codec_block"),
    ("slot renamed", put("codec_block", 3, "name", value="vvenc"), "ensemble-width", "/codec_block"),
    ("slot no slot", put("codec_block", 3, "transform", value="none"), "ensemble-width", "/codec_block"),
    ("slot of some kind", put("codec_block", 3, "transform", value="ln"), "schema-value", "/codec_block/3/transform"),
    ("recipe's digest", put("recipe_sha256", value="0" * 64), "ensemble-recipe", "/recipe_sha256"),
    ("a recipe it was not", put("recipe", "epochs", value=500), "ensemble-recipe", "/recipe_sha256"),
    ("a recipe that means nothing", put("recipe", "dropout", value=2.0), "ensemble-recipe", "/recipe"),
    ("a recipe nobody knows", put("recipe", "magic", value=1), "ensemble-recipe", "/recipe"),
    ("a recipe of text", put("recipe", "epochs", value="30"), "ensemble-recipe", "/recipe"),
    ("recipe's seeds", recipe(seeds=[0, 1, 7]), "ensemble-seeds", "/members"),
    ("a seed's evidence missing", shorten("evidence"), "evidence-files", "/evidence"),
    ("no predictions", put("evidence", value=lambda v: v[1:]), "evidence-files", "/evidence"),
    ("a smoke flag", put("smoke", value=True), "schema-value", ""),
    ("opset", put("opset", value=18), "schema-value", "/opset"),
    ("another version", put("schema_version", value=3), "schema-value", "/schema_version"),
    ("one source", put("corpus", "sources", value=["a"]), "schema-value", "/corpus/sources"),
    ("a source twice", put("corpus", "sources", value=lambda v: [v[0], *v[:-1]]), "schema-value", "/corpus/sources"),
    ("no intervals", drop("intervals"), "schema-required", ""),
    ("intervals of nothing", put("intervals", value={}), "schema-required", "/intervals"),
    ("another side", put(*CALIBRATION, "side", value="upper"), "schema-value", "/intervals/calibrations/0/side"),
    ("another ddof", put(*CALIBRATION, "ddof", value=0), "schema-value", "/intervals/calibrations/0/ddof"),
    ("a floor below 0", put(*CALIBRATION, "floor", value=-1), "schema-value", "/intervals/calibrations/0/floor"),
    ("no floor", drop(*CALIBRATION, "floor"), "schema-required", "/intervals/calibrations/0"),
    ("n as text", put(*CALIBRATION, "n", value="9"), "schema-type", "/intervals/calibrations/0/n"),
    ("no probe", drop("probe"), "schema-required", ""),
    ("the probe's encoder", put("probe", "encoder", 0, value="libvvenc"), "ensemble-probe", "/probe/encoder/0"),
    ("an encoder of the probe missing", put("probe", "encoder", value=[]), "schema-value", "/probe/encoder"),
    ("fewer encoders than rows", put("probe", "encoder", value=lambda v: v[1:]), "ensemble-probe", "/probe/encoder"),
    ("conditions of none", put("probe", "conditioning", value=[[1.0]] * 4), "ensemble-probe", "/probe/conditioning/0"),
    (
        "a probe of scaled rows",
        put("probe", "stages", "features", value="scaled"),
        "schema-value",
        "/probe/stages/features",
    ),
    ("random rows as text", put("random_rows", value="false"), "schema-type", "/random_rows"),
]
COMPUTED: list[tuple[str, Change, str, str]] = [  # found where graphs run and figures are computed again
    ("members swapped", swap_members, "ensemble-fused", "/fused/onnx"),
    ("another scaler", put("feature_mean", 0, value=lambda x: x * 1.001), "ensemble-fused", "/fused/onnx"),
    ("another deviation", put("feature_std", 5, value=lambda x: x * 1.001), "ensemble-fused", "/fused/onnx"),
    ("an infinitesimal deviation", put("feature_std", 0, value=1e-300), "ensemble-scale", "/feature_std"),
    ("6 slots and 6 columns", six_columns, "ensemble-width", "/members/0/onnx"),
    ("another definition", put("target", "definition", value="vmaf_b"), "ensemble-fused", "/fused/onnx"),
    ("another target", put("target", "name", value="mos"), "ensemble-fused", "/fused/onnx"),
    ("probe's mu", put("probe", "mu", 0, value=lambda x: x + 0.1), "ensemble-probe", "/probe/mu"),
    ("probe's sigma", put("probe", "sigma", 0, value=lambda x: x + 0.1), "ensemble-probe", "/probe/sigma"),
    ("probe's rows", put("probe", "features", 0, 0, value=lambda x: x + 1), "ensemble-probe", "/probe/mu"),
    ("probe too narrow", put("probe", "features", value=lambda v: [r[:-1] for r in v]), "ensemble-probe", "/probe"),
    ("probe ragged", put("probe", "features", 0, value=[1.0]), "ensemble-probe", "/probe"),
    ("probe's mu too short", put("probe", "mu", value=lambda v: v[:-1]), "ensemble-probe", "/probe/mu"),
    ("a figure polished", put("eval", "loso_mean_plcc", value=0.9999), "evidence-disagrees", "/eval/loso_mean_plcc"),
    ("a figure left out", drop("eval", "loso_worst_fold_plcc"), "evidence-disagrees", "/eval/loso_worst_fold_plcc"),
    ("rows' digest", put("corpus", "rows_sha256", value="0" * 64), "evidence-problem", "/evidence"),
    ("corpus's digest", put("corpus", "sha256", value="0" * 64), "evidence-problem", "/evidence"),
    ("number of rows", put("corpus", "n_rows", value=299), "evidence-problem", "/evidence"),
    ("sources renamed", put("corpus", "sources", 0, value="other"), "evidence-problem", "/evidence"),
    ("a longer recipe", recipe(epochs=500), "evidence-problem", "/evidence"),
    ("narrower intervals", narrower, "intervals-disagree", "/intervals"),
    ("a better guarantee", guaranteed, "intervals-disagree", "/intervals"),
    ("another floor", put("intervals", "calibrations", 0, "floor", value=1.0), "intervals-disagree", "/intervals"),
    ("another method", put(*CALIBRATION, "method", value="guess"), "intervals-unusable", "/intervals"),
    ("a range turned", put("intervals", "calibrations", 0, "range", value=[9, 0]), "intervals-unusable", "/intervals"),
]
CLAIMS: list[tuple[str, Change]] = [  # claims that pinned bytes can bear out or not
    ("public q", put("confidence", "conformal_q_residual", value=lambda q: q / 2)),
    ("public q of null", put("confidence", "conformal_q_residual", value=None)),
    ("a graph of version 1", drop("fused", "graph_version")),
    ("public method", put("confidence", "method", value="ensemble")),
    ("a graph of a version to come", put("fused", "graph_version", value=3)),
    ("z", put("confidence", "gaussian_z", value=1.0)),
    ("nominal coverage", put("confidence", "nominal_coverage", value=0.99)),
    ("input renamed", put("inputs", 0, value="rows")),
    ("inputs swapped", put("inputs", value=lambda v: v[::-1])),
    ("output renamed", put("outputs", 0, value="mos")),
    ("fused input renamed", put("fused", "inputs", 0, value="rows")),
    ("fused outputs swapped", put("fused", "outputs", value=lambda v: v[::-1])),
    ("target's range", put("target", "range", value=[0, 200])),
    ("target's range upside down", put("target", "range", value=[100, 0])),
    ("intervals' method", put("intervals", "method", value="gaussian")),
    ("a calibration missing", put("intervals", "calibrations", value=lambda v: v[:1])),
    ("calibrations swapped", put("intervals", "calibrations", value=lambda v: [v[0], *v])),
    ("no levels", put("intervals", "calibrations", 0, "levels", value={})),
    ("more sources", put("intervals", "calibrations", 0, "n_sources", value=500)),
    ("another range in a calibration", put("intervals", "calibrations", 0, "range", value=[0, 50])),
    ("an input range as text", put("intervals", "input_ranges", 0, "range", value=["low", "high"])),
    ("an input range upside down", put("intervals", "input_ranges", 0, "range", value=[1.0, 0.0])),
    ("an input range of no input", put("intervals", "input_ranges", 0, "name", value="adm3")),
    ("a slot that is scaled", put("codec_block", 0, "mean", value=5.0)),
    ("a slot's deviation", put("codec_block", 0, "std", value=5.0)),
    ("the corpus's name", put("corpus", "name", value="the-good-one.parquet")),
    ("the corpus's digest of null", put("corpus", "sha256", value=None)),
]


@pytest.mark.parametrize(("what", "change", "code", "pointer"), DOCUMENTS, ids=[case[0] for case in DOCUMENTS])
def test_what_documents_show_is_found_at_both_levels(
    smoke: Sandbox, what: str, change: Change, code: str, pointer: str
) -> None:
    """At its place in the manifest, with its line, though every digest fits."""
    assert (code, pointer) in smoke.forged(change)
    quick = [f for f in smoke.findings(Level.QUICK) if (f.code, f.pointer) == (code, pointer)]
    assert quick
    assert all(f.line is not None and f.file == smoke.entry["manifest"] and f.entry == "tiny" for f in quick)


@pytest.mark.parametrize(("what", "change", "code", "pointer"), COMPUTED, ids=[case[0] for case in COMPUTED])
def test_what_does_not_compute_is_found(smoke: Sandbox, what: str, change: Change, code: str, pointer: str) -> None:
    """Graphs, probe, figures and intervals are computed again; a quick run leaves them alone."""
    assert (code, pointer) in smoke.forged(change)
    assert smoke.codes(Level.QUICK) == []


@pytest.mark.parametrize(("what", "change"), CLAIMS, ids=[case[0] for case in CLAIMS])
def test_a_claim_that_can_be_checked_is_checked(smoke: Sandbox, what: str, change: Change) -> None:
    """Names of inputs, ranges, public quantiles: an error where the pinned bytes say otherwise."""
    assert smoke.forged(change) != []


def test_a_public_reader_is_told_how_to_read_sigma(smoke: Sandbox) -> None:
    """By mu -+ q sigma where q is known, else by mu -+ z sigma."""
    confidence = smoke.manifest["confidence"]
    assert (confidence["method"], confidence["conformal_q_residual"] > 0) == ("ensemble+conformal", True)
    found = smoke.forged(lambda manifest: manifest["confidence"].update(method="ensemble"))
    assert found == [("ensemble-constant", "/confidence/method")]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: None,
        put("environment", value=[]),
        put("environment", 0, "version", value="another machine"),
        put("of_another_version", value={"x": 1}),
        put("probe", "mu", 0, value=lambda x: x + 1e-5),
        put("eval", "loso_mean_plcc", value=lambda x: x + 1e-13),
    ],
    ids=[
        "nothing",
        "no environment",
        "another environment",
        "a field more",
        "a probe's rounding",
        "a figure's rounding",
    ],
)
def test_no_false_alarm(smoke: Sandbox, change: Change) -> None:
    """What is recorded and not compared, unknown fields and rounding of another machine: no finding."""
    assert smoke.forged(change) == []


@pytest.mark.parametrize(
    ("conditioning", "found"),
    [([1024.0], []), ([1025.0], ["/0"]), ([10.0], ["/0"]), ([0.0], ["/0"]), ([1024.0, 1.0], ["/0"])],
    ids=["transformed", "another", "of a value already transformed", "without a logarithm", "one too many"],
)
def test_conditions_of_the_probe_are_transformed_as_the_manifest_says(
    smoke: Sandbox, conditioning: list[float], found: list[str]
) -> None:
    """A row's conditions, transformed, are the end of its codec block."""

    def condition(manifest: Manifest) -> None:
        manifest["codec_block"].append({"name": "kbps", "transform": "log2", "mean": 9.0, "std": 1.0})
        probe = manifest["probe"]
        probe["codec_block"] = [[*row, 10.0] for row in probe["codec_block"]]
        probe["conditioning"] = [conditioning, *[[1024.0]] * (len(probe["codec_block"]) - 1)]

    pointers = [place for code, place in smoke.forged(condition) if code == "ensemble-probe"]
    assert pointers == [f"/probe/conditioning{row}" for row in found]


# ---- version 1 --------------------------------------------------------------------------------------------------


def test_a_version_1_manifest_is_held_to_what_it_says(smoke: Sandbox) -> None:
    """Sizes, seeds, scales and vocabulary are checked there too; the public file's fields are all it needs."""
    public = {"id", "kind", "ensemble_size", "members", "feature_order", "feature_mean", "feature_std", "codec_vocab"}
    public |= {"codec_vocab_version", "confidence"}

    def downgrade(manifest: Manifest) -> None:
        for name in set(manifest) - public:
            del manifest[name]

    assert smoke.forged(downgrade) == []
    wrong = smoke.forged(lambda manifest: manifest["confidence"].update(gaussian_z=0.1))
    assert wrong == [("ensemble-constant", "/confidence/gaussian_z")]
    assert smoke.forged(lambda manifest: manifest["confidence"].update(gaussian_z=1.96)) == []
    assert ("ensemble-size", "/ensemble_size") in smoke.forged(put("ensemble_size", value=5))
