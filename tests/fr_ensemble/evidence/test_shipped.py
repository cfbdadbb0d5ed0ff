"""test_shipped.py: evidence is bound to the bytes that ship: other weights, rows or fingerprints than judged are found.

Each entry is forged with every pin made to fit, and with every figure that the forger can compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from command_line import Program
from fr_ensemble.arrays import Weights
from fr_ensemble.artifacts.graphs import fused_model, member_model, read_weights
from fr_ensemble.artifacts.manifest import fused_format_of, scaler_of, spec_of
from fr_ensemble.artifacts.paths import FINGERPRINTS_PATH, INPUTS_PATH, OOF_PATH
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.fingerprints import Fingerprints
from fr_ensemble.evidence.fingerprints import read_fingerprints, write_fingerprints
from fr_ensemble.evidence.inputs import Inputs, read_inputs, write_inputs
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.shipped import ShippedScores, evidence_warnings, ratio_problems, with_inputs
from fr_ensemble.evidence.statistics import plcc, rmse
from sandbox import Sandbox

Change = Callable[[dict[str, Any]], object]
Files = dict[str, bytes]


def inputs_of(box: Sandbox) -> Inputs:
    return read_inputs((box.artifacts / INPUTS_PATH).read_bytes())


def sampled(inputs: Inputs, step: int) -> Inputs:
    """Every step-th row."""
    part = slice(None, None, step)
    arrays = {name: getattr(inputs, name)[part] for name in ("row", "features", "conditioning", "encoder", "codec")}
    return replace(inputs, **arrays)


def with_weights(box: Sandbox, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Change, Files]:
    """Every layer of every member changed; graphs, probe and in-sample figures made to fit."""
    manifest, folder = box.manifest, box.artifacts
    members = [read_weights((folder / member["onnx"]).read_bytes()) for member in manifest["members"]]
    layers = ("w1", "b1", "w2", "b2", "w3", "b3")
    members = [Weights(**{name: change(getattr(one, name)).astype(np.float32) for name in layers}) for one in members]
    n_features, n_slots = len(manifest["feature_order"]), len(manifest["codec_vocab"])
    fused = fused_model(members, scaler_of(manifest), n_features, n_slots, fused_format_of(manifest))
    files = {pin["onnx"]: member_model(one, n_features) for pin, one in zip(manifest["members"], members, strict=True)}
    files[manifest["fused"]["onnx"]] = fused
    oof, spec = read_oof((folder / OOF_PATH).read_bytes()), spec_of(manifest, target=True)
    inputs = inputs_of(box)
    mu, sigma = Ensemble(fused).predict(inputs.features, inputs.codec_block(spec))

    def forge(document: dict[str, Any]) -> None:
        probe = document["probe"]
        again = Ensemble(fused).predict(np.array(probe["features"]), np.array(probe["codec_block"]))
        probe["mu"], probe["sigma"] = (values.tolist() for values in again)
        figures = {"in_sample_plcc": plcc(mu, oof.target), "in_sample_rmse": rmse(mu, oof.target)}
        document["eval"] |= figures | {"mean_sigma_train": float(sigma.mean())}

    return forge, files


def random_weights(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(values.size)
    return rng.normal(values.mean(), values.std() + 0.1, values.shape)


def messages(box: Sandbox) -> list[str]:
    """Of the errors that are evidence problems; there are no others."""
    found = box.errors()
    assert {finding.code for finding in found} <= {"evidence-problem"}, found
    return [str(finding) for finding in found]


def test_the_trained_entry_binds_its_evidence(smoke: Sandbox) -> None:
    """All rows are there, the ratio is measured, and the verdict has one thing to say: there are no frames."""
    assert smoke.manifest["evidence_inputs"] == {"n_rows": smoke.manifest["corpus"]["n_rows"]}
    verdict = smoke.gate()
    assert messages(smoke) == []
    assert 0.0 < verdict.metrics["in_sample_ratio"] < 1.0
    assert "sample_in_sample_ratio" not in verdict.metrics
    assert [line for line in verdict.warnings if "no guarantee" not in line] == [
        "different sources: 10 of 10 pairs have no column of the reference: "
        "by equal values of motion2 and equal rows of inputs alone"
    ]


def test_the_ratio_is_that_of_the_definition(smoke: Sandbox) -> None:
    """RMSE over each source's rows, mean over sources: of the shipped mu and of the held-out one."""
    oof = read_oof((smoke.artifacts / OOF_PATH).read_bytes())
    inputs, manifest = inputs_of(smoke), smoke.manifest
    model = Ensemble((smoke.artifacts / manifest["fused"]["onnx"]).read_bytes())
    mu, _ = model.predict(inputs.features, inputs.codec_block(spec_of(manifest, target=True)))
    errors = [
        np.mean([np.sqrt(np.mean((scores - oof.target)[oof.source == k] ** 2)) for k in range(len(oof.sources))])
        for scores in (mu, oof.predictions.mean(axis=0))
    ]
    assert smoke.gate().metrics["in_sample_ratio"] == pytest.approx(errors[0] / errors[1], rel=1e-4)


@pytest.mark.parametrize("kept", ["all", "sample", "none"])
def test_random_weights_are_found_where_there_are_inputs(smoke: Sandbox, kept: str) -> None:
    """On all rows and on a sample, under every policy; without any rows the verdict says that nothing was looked at."""
    change, files = with_weights(smoke, random_weights)
    metric = {"all": "in_sample_ratio", "sample": "sample_in_sample_ratio"}.get(kept)
    if kept == "sample":
        part = sampled(inputs_of(smoke), 7)
        files[INPUTS_PATH] = write_inputs(part)

    def forge(document: dict[str, Any]) -> None:
        change(document)
        if kept == "sample":
            document["evidence_inputs"] = {"n_rows": len(part.row)}

    smoke.forge(forge, files)
    if kept == "none":
        smoke.drop_inputs()
    verdict = smoke.gate()
    ratios = {name for name in verdict.metrics if name.endswith("in_sample_ratio")}
    assert ratios == ({metric} if metric else set())
    assert verdict.promotes is (kept == "none")
    assert any("do worse than models that never saw them" in line for line in verdict.reasons) is (kept != "none")
    assert messages(smoke) == []  # in smoke it may be a run that was too short
    unseen = [line for line in verdict.warnings if line.startswith("shipped weights: not judged")]
    assert len(unseen) == (kept == "none")
    assert any("judged on 43 of 300 rows" in line for line in verdict.warnings) is (kept == "sample")


def test_production_with_random_weights_is_an_error(production: Sandbox) -> None:
    """What ships is judged again at every validation."""
    production.forge(*with_weights(production, random_weights))
    assert {finding.code for finding in production.errors()} >= {"policy-not-met"}
    assert any("do worse than models that never saw them" in str(finding) for finding in production.errors())


def test_other_weights_with_the_old_figures_are_found(smoke: Sandbox) -> None:
    """Weights that are a little off give another in-sample error than the manifest says, though no worse a ratio."""
    change, files = with_weights(smoke, lambda values: values * 1.02)
    figures = dict(smoke.manifest["eval"])
    smoke.forge(lambda document: (change(document), document.update(eval=figures)), files)
    assert any("in_sample_rmse: found" in line for line in messages(smoke))


def test_a_graph_that_does_not_run_is_a_problem(smoke: Sandbox) -> None:
    """The gate alone, which looks at no graph, says so in one line."""
    files = {smoke.manifest["fused"]["onnx"]: b"no model"}
    smoke.forge(None, files)
    verdict = smoke.gate()
    assert verdict.promotes is False
    assert any("does not run on the rows of inputs.npz" in reason for reason in verdict.reasons)


def edit_features(inputs: Inputs) -> Inputs:
    features = inputs.features.copy()
    features[5, 2] = features[6, 2]
    return replace(inputs, features=features)


def rename_encoder(inputs: Inputs) -> Inputs:
    return replace(inputs, encoders=("libvvenc", *inputs.encoders[1:]))


def stretch(inputs: Inputs) -> Inputs:
    features = inputs.features.copy()
    features[0, 5] += 1000.0
    return replace(inputs, features=features)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit_features, "inputs of other rows"),
        (rename_encoder, "inputs of other rows"),
        (stretch, "input_ranges motion2"),
        (lambda inputs: sampled(inputs, 2), "inputs.npz: found 150 rows, the manifest says 300"),
        (lambda inputs: replace(inputs, n_rows=301), "found rows of a corpus of 301, expected 300"),
    ],
)
def test_inputs_of_other_rows_are_found(smoke: Sandbox, change: Callable[[Inputs], Inputs], words: str) -> None:
    """The corpus's digest is computed again from inputs, targets and sources."""
    smoke.forge(None, {INPUTS_PATH: write_inputs(change(inputs_of(smoke)))})
    assert any(words in line for line in messages(smoke))
    assert smoke.gate().promotes is False


def test_targets_and_sources_are_those_of_the_inputs_rows(smoke: Sandbox) -> None:
    """The digest binds them too: two rows of a source that change places with their predictions are another corpus."""
    inputs = inputs_of(smoke)
    order = np.arange(inputs.n_rows)
    order[[0, 1]] = order[[1, 0]]
    smoke.forge(None, {INPUTS_PATH: write_inputs(replace(inputs, features=inputs.features[order]))})
    assert any("inputs of other rows" in line for line in messages(smoke))


def test_fingerprints_are_computed_again(smoke: Sandbox) -> None:
    """Values that are not those of the inputs, and sources that are one, are problems."""
    stored = read_fingerprints((smoke.artifacts / FINGERPRINTS_PATH).read_bytes())
    other = replace(stored, rows=(stored.rows[0] + 1.0, *stored.rows[1:]))
    smoke.forge(None, {FINGERPRINTS_PATH: write_fingerprints(other)})
    assert any("fingerprints.npz: found other rows than those of inputs.npz" in line for line in messages(smoke))
    same = replace(stored, rows=(stored.rows[1], *stored.rows[1:]))
    smoke.forge(None, {FINGERPRINTS_PATH: write_fingerprints(same)})
    smoke.drop_inputs()
    (line,) = messages(smoke)
    assert "found 100 % of the rows of inputs in common" in line
    assert smoke.gate().promotes is False


def test_motion_is_compared_whatever_the_manifest_names(smoke: Sandbox) -> None:
    """Two sources with one motion are one by the inputs, of a manifest without that column, or without fingerprints."""
    inputs, oof = inputs_of(smoke), read_oof((smoke.artifacts / OOF_PATH).read_bytes())
    spec = spec_of(smoke.manifest, target=True)
    features = inputs.features.copy()
    first, second = (np.flatnonzero(oof.source == k) for k in (0, 1))
    features[second, spec.features.index("motion2")] = np.resize(features[first, -1], len(second))
    forged = replace(inputs, features=features)
    for stored in (None, Fingerprints((), oof.sources, ())):
        assert with_inputs(stored, inputs, oof, spec).compared().problems() == []
        (line,) = with_inputs(stored, forged, oof, spec).compared().problems()
        assert line.startswith(f"sources {oof.sources[0]} and {oof.sources[1]}: found 100 % of the values of motion2")


def test_clips_in_several_folds_are_warned_of(smoke: Sandbox) -> None:
    """`--group` by a column that divides clips measures other frames of clips that training has; by `src` none are."""
    oof, spec = read_oof((smoke.artifacts / OOF_PATH).read_bytes()), spec_of(smoke.manifest, target=True)
    m = len(oof.source)
    divided = replace(inputs_of(smoke), clips=("a", "b"), clip=np.arange(m) % 2)
    whole = replace(divided, clips=oof.sources, clip=oof.source)
    for inputs, column, said in ((divided, "scene", True), (divided, "src", False), (whole, "scene", False)):
        lines = evidence_warnings(oof, inputs, None, replace(spec, source_column=column))
        assert any(line.startswith("scene: 2 of 2 clips have rows in several of its folds") for line in lines) is said


def test_sources_with_one_reference_are_held(smoke: Sandbox, registry: Program) -> None:
    """Two sources with the same values of the reference's column, and other rows: gate and flip hold the entry."""
    stored = read_fingerprints((smoke.artifacts / FINGERPRINTS_PATH).read_bytes())
    values = [np.arange(1.0, 31.0) + 100 * k for k in range(len(stored.sources))]
    smoke.drop_inputs()
    for share, code in ((15, 0), (16, 1)):
        values[1] = np.r_[values[0][:share], np.arange(30.0 - share) + 500]
        other = replace(stored, columns=("scene",), values=(tuple(values),))
        smoke.forge(
            lambda m: m["fingerprints"].update(columns=["scene"]), {FINGERPRINTS_PATH: write_fingerprints(other)}
        )
        ran = registry("gate", "tiny", "--registry", smoke.path, "--format", "json")
        document = json.loads(ran.out)
        assert (ran.code, document["verdict"]) == (code, "HOLD" if code else "PROMOTE"), document["reasons"]
    first, second = stored.sources[:2]
    assert document["reasons"] == [
        f"sources {first} and {second}: found 53 % of the values of scene or rows of inputs in common, "
        "expected at most 50 %: they are one source"
    ]
    assert registry("flip", "tiny", "--registry", smoke.path).code != 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda document: document.pop("evidence_inputs"), "evidence-files"),
        (lambda document: document.pop("fingerprints"), "evidence-files"),
        (lambda document: document["evidence_inputs"].update(n_rows=0), "evidence-files"),
        (lambda document: document["evidence"].pop(), "evidence-files"),
        (lambda document: document["fingerprints"].update(columns=["motion2"]), "evidence-problem"),
        (lambda document: document["intervals"]["input_ranges"][0].update(range=[-5.0, 5.0]), "evidence-problem"),
        (lambda document: document["eval"].update(in_sample_rmse=0.5), "evidence-problem"),
        (lambda document: document["eval"].update(in_sample_plcc=0.5), "evidence-problem"),
        (lambda document: document["eval"].update(in_sample_plcc=None), "evidence-problem"),
        (lambda document: document["eval"].update(mean_sigma_train=0.5), "evidence-problem"),
    ],
)
def test_a_manifest_that_says_something_else_is_found(smoke: Sandbox, change: Change, code: str) -> None:
    """Each field that follows from inputs, models or fingerprints."""
    smoke.forge(change)
    assert code in smoke.codes()


def test_the_probes_tolerance_is_not_the_manifests_own(smoke: Sandbox) -> None:
    """A target range of a million points buys no room: the tolerance follows from the targets of the evidence."""

    def forge(document: dict[str, Any]) -> None:
        document["target"]["range"] = [-5e5, 5e5]
        for calibration in document["intervals"]["calibrations"]:
            calibration["range"] = [-5e5, 5e5]
        document["probe"]["mu"] = [value + 1.0 for value in document["probe"]["mu"]]

    manifest = smoke.manifest
    forge(manifest)
    members = [read_weights((smoke.artifacts / member["onnx"]).read_bytes()) for member in manifest["members"]]
    n_features, n_slots = len(manifest["feature_order"]), len(manifest["codec_vocab"])
    fused = fused_model(members, scaler_of(manifest), n_features, n_slots, fused_format_of(manifest))
    smoke.forge(forge, {manifest["fused"]["onnx"]: fused})
    assert "ensemble-probe" in smoke.codes()


@pytest.mark.parametrize(("asked", "rows"), [(0, 0), (37, 37), (10_000, 300)])
def test_how_many_rows_are_published_is_the_authors_choice(
    smoke: Sandbox, registry: Program, asked: int, rows: int
) -> None:
    """`--evidence-inputs N`: none, some, or all; the entry validates and the gate says what it judged."""
    corpus = smoke.folder.parent / "c.csv"
    corpus.write_bytes((corpus_again(smoke)).encode())
    ran = registry(
        "train",
        "fr_ensemble",
        "--id",
        "other",
        "--corpus",
        corpus,
        "--evidence-inputs",
        asked,
        "--seeds",
        "0,1",
        "--epochs",
        "5",
        "--hidden",
        "8",
        "--learning-rate",
        "0.01",
        "--license",
        "MIT",
        "--no-baselines",
        "--registry",
        smoke.path,
    )
    assert ran.code == 0, ran
    other = Sandbox(smoke.path, "other")
    assert other.manifest["evidence_inputs"] == {"n_rows": rows}
    assert (other.artifacts / INPUTS_PATH).exists() is (rows > 0)
    assert other.errors() == []
    said = json.loads(registry("gate", "other", "--registry", smoke.path, "--format", "json").out)
    assert ("sample_in_sample_ratio" in said["metrics"], "in_sample_ratio" in said["metrics"]) == (
        rows == 37,
        rows == 300,
    )
    assert any(line.startswith("shipped weights") for line in said["warnings"]) is (rows < 300)


def corpus_again(box: Sandbox) -> str:
    """The entry's corpus from its own evidence, as CSV."""
    inputs, oof = inputs_of(box), read_oof((box.artifacts / OOF_PATH).read_bytes())
    names = box.manifest["feature_order"]
    lines = [",".join(["src", "encoder", *names, "vmaf"])]
    for i in range(inputs.n_rows):
        numbers = [*inputs.features[i].tolist(), oof.target[i]]
        encoder = inputs.encoders[inputs.encoder[i]]
        lines.append(",".join([oof.sources[oof.source[i]], encoder, *map(repr, map(float, numbers))]))
    return "\n".join(lines) + "\n"


def test_a_few_rows_may_be_unlucky() -> None:
    """Of a sample, what an honest ensemble has by chance is no problem; random weights are one from ten rows on."""
    rng = np.random.default_rng(0)
    source, target = np.repeat(np.arange(8), 100), rng.uniform(0.0, 100.0, 800)
    predictions = target + rng.normal(0.0, 5.0, (3, 800))
    oof = Oof((0, 1, 2), tuple("abcdefgh"), source, None, None, target, predictions, "r", "c", None)
    honest = target + 0.9 * (oof.mu - target) + rng.normal(0.0, 1.0, 800)
    random = rng.uniform(0.0, 100.0, 800)
    by_chance = 0
    for n in (1, 3, 9, 10, 20, 60):
        for _ in range(100):
            rows = np.sort(rng.choice(800, n, replace=False))
            sample = ShippedScores(rows, honest[rows], np.ones(n), False)
            by_chance += sample.in_sample_ratio(oof) > 1.0
            assert ratio_problems(sample, oof) == []
            problems = ratio_problems(replace(sample, mu=random[rows]), oof)
            assert (problems != []) is (n >= 10)
    assert by_chance > 100


def test_nearly_exact_models_may_be_worse_on_seen_rows() -> None:
    """Where sources do not differ, the ratio is 1 but for the luck of a training; above 1 % of the range it counts."""
    rng = np.random.default_rng(0)
    source, target = np.repeat(np.arange(8), 40), rng.uniform(0.0, 100.0, 320)
    held_out = target + rng.normal(0.0, 0.3, (3, 320))
    oof = Oof((0, 1, 2), tuple("abcdefgh"), source, None, None, target, held_out, "r", "c", None)

    def shipped(error: float) -> ShippedScores:
        return ShippedScores(np.arange(320), target + rng.normal(0.0, error, 320), np.ones(320), True)

    assert shipped(0.5).in_sample_ratio(oof) > 1.0
    assert ratio_problems(shipped(0.5), oof) == []
    assert ratio_problems(shipped(0.1), oof) == []
    (line,) = ratio_problems(shipped(2.0), oof)
    assert line.startswith("in_sample_ratio: found 11.")
