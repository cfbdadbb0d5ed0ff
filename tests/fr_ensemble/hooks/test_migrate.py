"""Tests of migrate.py: public ensembles that `registry migrate` joined are used like others."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import Program
from migrating import ensemble, errors, run
from public_shape import VOCABULARY
from registries import Made
from sandbox import Sandbox, sha256
from tiny_models import FEATURES, model, write

from registry_tool.findings import Severity
from registry_tool.plugins.manager import load
from registry_tool.workflows.validate import validate

Z = 1.959963984540054


def rows(path: Path, n: int = 7, **columns: Any) -> Path:
    """Rows of features near the members' scaler, encoders in turn, and further columns."""
    rng = np.random.default_rng(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", "encoder", *FEATURES, *columns))
        for row in range(n):
            made = [values[row % len(values)] for values in columns.values()]
            writer.writerow((f"s{row % 3}", ("H.264", "libx265", "odd")[row % 3], *rng.normal(0.5, 0.02, 6), *made))
    return path


def joined(tmp_path: Path, **options: Any) -> Sandbox:
    done = run(ensemble(tmp_path / "old", size=3, **options), tmp_path / "model")
    assert errors(done.new) == []
    return Sandbox(done.new / "registry.json", "e")


def by_hand(folder: Path, path: Path, conditions: list[str]) -> np.ndarray[Any, Any]:
    """The scores of the old registry's members, run one by one on what an integrator makes of the rows, (3, n)."""
    table = list(csv.DictReader(path.open(newline="")))
    features = np.array([[float(row[name]) for name in FEATURES] for row in table], np.float32)
    scaled = (features - np.float32(0.5)) / np.float32(0.1)
    slots = {"H.264": 0, "libx265": 1, "odd": len(VOCABULARY) - 1}
    block = np.zeros((len(table), len(VOCABULARY) + len(conditions)), np.float32)
    for n, row in enumerate(table):
        block[n, slots[row["encoder"]]] = 1.0
        block[n, len(VOCABULARY) :] = [float(row[name]) for name in conditions]
    feeds = {"features": scaled, "codec_onehot": block}
    members = (onnxruntime.InferenceSession(folder / f"s{seed}.onnx").run(None, feeds)[0] for seed in range(3))
    return np.stack([member.reshape(-1) for member in members]).astype(np.float64)


@pytest.mark.parametrize("conditions", [[], ["crf_norm"], ["preset_norm", "crf_norm"]], ids=len)
def test_a_migrated_ensemble_predicts_what_its_members_give(
    tmp_path: Path, registry: Program, conditions: list[str]
) -> None:
    """mu is the mean of the members run one by one, sigma their deviation, and an interval mu -+ z sigma."""
    bench = joined(tmp_path, conditions=conditions)
    path = rows(tmp_path / "r.csv", **{name: [0.25, 0.5] for name in conditions})
    options = ("--corpus", path, "--registry", bench.path, "--levels", "0.5,0.95")
    ran = registry("predict", "e", *options)
    assert ran.code == 0, ran.err
    found = list(csv.DictReader(io.StringIO(ran.out)))
    scores = by_hand(tmp_path / "old" / "sub", path, conditions)
    mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    column = {name: np.array([float(row[name]) for row in found]) for name in ("mu", "sigma", "lower_95", "upper_95")}
    np.testing.assert_allclose(column["mu"], np.clip(mu, 0, 100), atol=1e-4)
    np.testing.assert_allclose(column["sigma"], sigma, rtol=1e-4)
    np.testing.assert_allclose(column["upper_95"], np.clip(np.clip(mu, 0, 100) + Z * sigma, 0, 100), atol=1e-3)
    assert "encoder 'odd' is unknown" in ran.err
    assert "a z that the manifest of version 1 states" in ran.err


def test_the_level_that_a_public_manifest_states_has_its_own_quantile(tmp_path: Path, registry: Program) -> None:
    """Its conformal q at its nominal coverage; at other levels the quantile of a normal distribution."""
    stated = {"method": "ensemble+conformal", "nominal_coverage": 0.9, "gaussian_z": 1.6448536269514722}
    bench = joined(tmp_path, confidence={**stated, "conformal_q_residual": 3.0})
    options = ("--registry", bench.path, "--levels", "0.9,0.95")
    ran = registry("predict", "e", "--corpus", rows(tmp_path / "r.csv", crf_norm=[0.5]), *options)
    for row in csv.DictReader(io.StringIO(ran.out)):
        mu, sigma = float(row["mu"]), float(row["sigma"])
        assert float(row["upper_90"]) == pytest.approx(min(mu + 3.0 * sigma, 100.0))
        assert float(row["upper_95"]) == pytest.approx(min(mu + Z * sigma, 100.0))


def test_a_migrated_ensemble_is_evaluated_and_has_a_card(tmp_path: Path, registry: Program) -> None:
    """On labelled rows its errors are those of its predictions; its card says that nothing was measured."""
    bench = joined(tmp_path)
    path = rows(tmp_path / "r.csv", crf_norm=[0.5, 0.25], vmaf=[3.0, 5.0, 1.0])
    options = ("--corpus", path, "--registry", bench.path)
    ran = registry("evaluate", "e", *options, "--format", "json")
    assert ran.code == 0, ran.err
    predicted = registry("predict", "e", *options)
    mu = np.array([float(row["mu"]) for row in csv.DictReader(io.StringIO(predicted.out))])
    target = np.array([float(row["vmaf"]) for row in csv.DictReader(path.open(newline=""))])
    found = json.loads(ran.out)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((mu - target) ** 2)), rel=1e-5)
    assert found["baselines"] == {}
    card = registry("card", "e", "--registry", bench.path)
    assert card.code == 0, card.err
    assert "Nothing was measured: e: its manifest pins no evidence" in card.out
    assert "It predicts vmaf from 0 to 100" in card.out


@pytest.mark.parametrize("conditions", [[], ["crf_norm"]], ids=["same-inputs", "another-input"])
def test_a_migrated_ensemble_is_an_incumbent(
    tmp_path: Path, registry: Program, made: Made, conditions: list[str]
) -> None:
    """It is run on the candidate's own rows; where these lack what it reads, that is why the candidate is held."""
    bench = joined(tmp_path, conditions=conditions)
    trained = Sandbox(made.smoke / "registry.json")
    shutil.copytree(made.smoke / "tiny", bench.path.parent / "tiny")
    document = json.loads(bench.path.read_bytes())
    document["models"].append(json.loads(trained.path.read_bytes())["models"][0])
    document["policies"] |= json.loads(trained.path.read_bytes())["policies"]
    bench.path.write_text(json.dumps(document))
    options = ("--registry", bench.path, "--format", "json")
    verdict = json.loads(registry("gate", "tiny", "--incumbent", "e", *options).out)
    if conditions:
        assert verdict["verdict"] == "HOLD"
        assert "incumbent e: it reads crf_norm, which is no input of the entry" in str(verdict["reasons"])
        return
    assert verdict["verdict"] == "PROMOTE", verdict["reasons"]
    ran = registry("evaluate", "e", "--corpus", made.corpus, "--registry", bench.path, "--format", "json")
    rmse = [one["rmse"] for one in json.loads(ran.out)["by"]["src"].values()]
    compared = verdict["details"]["against"]["incumbent"]
    assert compared["entry"] == "e"
    assert compared["baseline_rmse"] == pytest.approx(np.mean(rmse), rel=1e-5)
    assert verdict["metrics"]["rmse_vs_incumbent"] == pytest.approx(compared["rmse"] - np.mean(rmse), rel=1e-5)


def change_graph(bench: Sandbox, manifest: dict[str, Any]) -> None:
    fused = bench.artifacts / manifest["fused"]["onnx"]
    fused.write_bytes((bench.artifacts / manifest["members"][0]["onnx"]).read_bytes())
    manifest["fused"]["sha256"] = sha256(fused.read_bytes())


def change_scaler(bench: Sandbox, manifest: dict[str, Any]) -> None:
    manifest["feature_std"][2] = 0.3


def swap_members(bench: Sandbox, manifest: dict[str, Any]) -> None:
    manifest["members"].reverse()


def scale_a_condition(bench: Sandbox, manifest: dict[str, Any]) -> None:
    manifest["codec_block"][-1]["std"] = 2.0


def rename_a_port(bench: Sandbox, manifest: dict[str, Any]) -> None:
    manifest["fused"]["outputs"] = ["sigma", "mu"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (change_graph, "ensemble-fused"),
        (change_scaler, "ensemble-fused"),
        (swap_members, "ensemble-fused"),
        (scale_a_condition, "ensemble-constant"),
        (rename_a_port, "ensemble-constant"),
    ],
)
def test_a_fused_graph_of_other_members_or_another_scaler_is_found(tmp_path: Path, change: Any, code: str) -> None:
    """The graph is made again from the pinned members at every validation, and compared byte for byte."""
    bench = joined(tmp_path)
    manifest = json.loads(json.dumps(bench.manifest))
    change(bench, manifest)
    bench.forge(manifest)
    found = validate(bench.path, load()).findings
    assert code in {finding.code for finding in found if finding.severity is Severity.ERROR}, found


def of_another_opset(folder: Path) -> None:
    replace_member(folder, model(codec=13, seed=1, opset=15), opset=15)


def of_another_layout(folder: Path) -> None:
    path = folder / "sub" / "s1.json"
    document = json.loads(path.read_bytes())
    document["codec_block_layout"][-1] = "preset_norm"
    path.write_text(json.dumps(document))


def replace_member(folder: Path, made: Any, **fields: Any) -> None:
    digest = write(folder, "sub/s1.onnx", made)
    for path, place in (("registry.json", "models"), ("sub/e.json", "members")):
        document = json.loads((folder / path).read_bytes())
        document[place][1]["sha256"] = digest
        (folder / path).write_text(json.dumps(document))
    sidecar = json.loads((folder / "sub/s1.json").read_bytes())
    (folder / "sub/s1.json").write_text(json.dumps({**sidecar, "sha256": digest, **fields}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [(of_another_opset, "the members are of different opsets"), (of_another_layout, "different codec_block_layout")],
)
def test_what_keeps_an_ensemble_from_being_used_is_a_warning(tmp_path: Path, change: Any, reason: str) -> None:
    """Its members are joined and pinned all the same, and `migrate` says why nothing predicts with it."""
    path = ensemble(tmp_path / "old")
    change(path.parent)
    done = run(path, tmp_path / "new")
    assert (done.done, errors(done.new)) == (True, [])
    assert [entry.entry.id for entry in done.joined] == ["e"]
    [found] = [found.finding for found in done.findings if found.finding.code == "migration-incomplete"]
    assert reason in found.message


def test_the_public_ensemble_predicts(public_models: Path, tmp_path: Path, registry: Program) -> None:
    """The public tree's JSON, with models made here, becomes an ensemble that gives finite scores for rows."""
    done = run(public_models, tmp_path / "new")
    [ensemble] = done.joined
    assert (ensemble.completed, errors(done.new)) == (True, [])
    path = rows(tmp_path / "r.csv", preset_norm=[0.5], crf_norm=[0.25, 0.75])
    options = ("--registry", done.new, "--corpus", path)
    ran = registry("predict", ensemble.entry.id, *options)
    assert ran.code == 0, ran.err
    found = list(csv.DictReader(io.StringIO(ran.out)))
    assert len(found) == 7
    assert all(np.isfinite(float(row["mu"])) and float(row["sigma"]) > 0 for row in found)
