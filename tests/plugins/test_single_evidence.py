"""Tests of the gate of single models: rows, targets and predictions pinned, run again from the shipped bytes."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import Program
from onnx import TensorProto, helper, numpy_helper
from repository import commit, git, own_git  # noqa: F401 (own_git is a fixture)
from sandbox import sha256, to_json
from tiny_models import ENCODERS, FEATURES, model, sidecar, write

from registry_tool.archive import EvidenceProblem
from registry_tool.plugins.manager import load
from registry_tool.plugins.single_evidence import read_evidence, write_evidence
from registry_tool.plugins.single_gate import SINGLE_DESCRIPTIONS, psnr, ssim
from registry_tool.workflows.validate import validate

MEAN, STD = 0.5, 0.1
RULES = [{"metric": "mean_plcc", "op": ">=", "bound": 0.9}, {"metric": "n_groups", "op": ">=", "bound": 3}]


def weights(made: onnx.ModelProto) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(made.graph.initializer[0]).reshape(-1)


def table(path: Path, made: onnx.ModelProto, noise: float = 0.02, groups: int = 4) -> tuple[Any, Any, list[str]]:
    """Rows whose target is the model's score behind the scaler, with noise; features, targets and groups."""
    rng = np.random.default_rng(5)
    features = rng.normal(MEAN, STD, (groups * 12, 6)).astype(np.float32)
    score = ((features - np.float32(MEAN)) / np.float32(STD)) @ weights(made)
    target = (score + rng.normal(0, noise * score.std(), len(score))).astype(np.float32)
    labels = [f"s{row % groups}" for row in range(len(score))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", *FEATURES, "mos"))
        for label, row, y in zip(labels, features.tolist(), target.tolist(), strict=True):
            writer.writerow((label, *row, y))
    return features, target, labels


class Single:
    """A registry with one `fr` model that was added, and its evidence."""

    rules: list[Any] | None = RULES  # None: the policy stays as `add` writes it

    def __init__(self, folder: Path, registry: Program, made: onnx.ModelProto | None = None, **fields: Any) -> None:
        self.program, self.folder, self.made = registry, folder, made or model(seed=3)
        self.rows = folder / "rows.csv"
        digest = write(folder, "export/m.onnx", self.made)
        row = {"id": "m", "kind": "fr", "onnx": "m.onnx", "sha256": digest}
        write(folder, "export/m.json", sidecar(row, onnx=None, **fields))
        self.path = folder / "model" / "registry.json"
        self.said = self.type("add", folder / "export" / "m.onnx", "--kind", "fr", "--id", "m", "--license", "MIT")
        if self.rules is not None:
            self.edit(lambda document: document["policies"].update(fr={"rules": self.rules}))

    def type(self, *arguments: object, code: int = 0) -> str:
        ran = self.program(*arguments, "--registry", self.path)
        assert ran.code == code, ran.out + ran.err
        return ran.out + ran.err

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.path.read_bytes())
        change(document)
        self.path.write_bytes(to_json(document))

    @property
    def row(self) -> dict[str, Any]:
        return next(row for row in json.loads(self.path.read_bytes())["models"] if row["id"] == "m")

    def evidence(self, **options: Any) -> tuple[Any, Any, list[str]]:
        found = table(self.rows, self.made, **options)
        self.type("evidence", "m", "--data", self.rows, "--target", "mos")
        return found

    def forge(self, **changes: Any) -> None:
        """Other arrays in the evidence, with every pin fitting."""
        path = self.path.parent / self.row["evidence"]["path"]
        evidence = read_evidence(path.read_bytes())
        for name, value in changes.items():
            object.__setattr__(evidence, name, value)
        path.write_bytes(write_evidence(evidence))
        digest = sha256(path.read_bytes())
        self.edit(lambda document: document["models"][0]["evidence"].update(sha256=digest))

    def verdict(self, *options: str, code: int = 0) -> dict[str, Any]:
        ran = self.program("gate", "m", *options, "--format", "json", "--registry", self.path)
        assert ran.code == code, ran.out + ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def codes(self) -> set[str]:
        return {finding.code for finding in validate(self.path, load()).findings}


class Untouched(Single):
    """The same, with the policy that `add` wrote."""

    rules = None


@pytest.fixture
def single(tmp_path: Path, registry: Program) -> Single:
    return Single(tmp_path, registry)


def test_the_metrics_are_those_of_the_predictions(single: Single) -> None:
    """PLCC and RMSE over groups are what numpy gives for the model's scores behind the sidecar's scaler."""
    features, target, labels = single.evidence()
    score = ((features - np.float32(MEAN)) / np.float32(STD)) @ weights(single.made)
    groups = [np.array(labels) == name for name in sorted(set(labels))]
    metrics = single.verdict()["metrics"]
    assert metrics["mean_plcc"] == pytest.approx(np.mean([np.corrcoef(score[g], target[g])[0, 1] for g in groups]))
    rmse = [np.sqrt(np.mean((score[g] - target[g]) ** 2)) for g in groups]
    assert metrics["mean_rmse"] == pytest.approx(np.mean(rmse), rel=1e-4)
    assert metrics["pooled_plcc"] == pytest.approx(np.corrcoef(score, target)[0, 1])
    assert (metrics["n_rows"], metrics["n_groups"], metrics["min_group_rows"]) == (48, 4, 12)
    assert {*metrics} <= {one.name for one in SINGLE_DESCRIPTIONS}


@pytest.mark.usefixtures("own_git")
def test_a_single_model_is_promoted_on_its_evidence(single: Single) -> None:
    """add, evidence, gate, flip, validate and gate --base agree; a verdict names the evidence."""
    git(single.folder, "init", "-q", "-b", "main")
    commit(single.folder, "added")
    single.evidence()
    assert single.verdict()["verdict"] == "PROMOTE"
    single.type("flip", "m")
    assert single.row["smoke"] is False
    assert single.program("validate", single.path).code == 0
    commit(single.folder, "promoted")
    assert single.program("gate", "--base", "HEAD~1", "--registry", single.path).code == 0
    single.forge(prediction=read_evidence(single_file(single).read_bytes()).target)
    assert "verdict-other" in single.codes()
    assert single.program("gate", "--base", "HEAD~1", "--registry", single.path).code == 1


@pytest.mark.parametrize(("groups", "noise", "held_by"), [(8, 0.02, ""), (4, 0.02, "n_groups"), (8, 5.0, "mean_plcc")])
def test_what_is_printed_leads_to_a_verdict(
    tmp_path: Path, registry: Program, groups: int, noise: float, held_by: str
) -> None:
    """The commands that `add` and `evidence` name, typed as printed; the policy that `add` wrote asks for enough."""
    single = Untouched(tmp_path, registry)
    table(single.rows, single.made, noise, groups)
    said = single.said
    for words in (f"--data {single.rows} --target mos", ""):
        [command] = re.findall(r"^next: registry ([^;\n]+)", said, re.MULTILINE)
        ran = registry(*shlex.split(command.replace("--data FILE", words)))
        said = ran.out + ran.err
    assert ran.code == (1 if held_by else 0), said
    assert ("m: PROMOTE" in said, held_by in said) == (not held_by, True)


def single_file(single: Single) -> Path:
    return single.path.parent / str(single.row["evidence"]["path"])


def test_a_group_without_a_figure_has_a_dash(single: Single) -> None:
    """One row has no correlation: no `nan` is printed, and none is in the JSON."""
    features, target, _ = table(single.rows, single.made)
    labels = [f"s{row}" for row in range(len(target))]
    np.savez(single.folder / "d.npz", features=features, mos=target, src=labels)
    single.type("evidence", "m", "--data", single.folder / "d.npz", "--target", "mos")
    said = single.type("gate", "m", code=1) + json.dumps(single.verdict(code=1))
    assert re.search(r"^s0 +1 +- +- ", said, re.MULTILINE)
    assert not re.search(r"\bnan\b", said, re.IGNORECASE)


def test_bad_scores_are_held(single: Single) -> None:
    """A rule that the evidence does not meet holds the entry, and it is not flipped."""
    single.evidence(noise=5.0)
    assert single.verdict(code=1)["verdict"] == "HOLD"
    single.type("flip", "m", code=1)
    assert single.row["smoke"] is True


def test_forged_predictions_are_found(single: Single) -> None:
    """Predictions that the shipped bytes do not give hold the entry, whatever the pins say."""
    single.evidence(noise=5.0)
    single.forge(prediction=read_evidence(single_file(single).read_bytes()).target)
    assert "the shipped model gives another one" in str(single.verdict(code=1)["reasons"])
    assert "single-evidence" in single.codes()


def test_another_model_under_the_evidence_is_found(single: Single) -> None:
    """Weights that were swapped after the evidence was made do not give its predictions."""
    single.evidence()
    digest = write(single.path.parent, single.row["onnx"], model(seed=8))
    write(single.path.parent, single.row["onnx"].replace(".onnx", ".json"), sidecar({**single.row, "sha256": digest}))
    side = sha256((single.path.parent / single.row["onnx"].replace(".onnx", ".json")).read_bytes())
    single.edit(lambda document: document["models"][0].update(sha256=digest, sidecar_sha256=side))
    assert "the shipped model gives another one" in str(single.verdict(code=1)["reasons"])


def test_one_source_under_two_names_is_found(single: Single) -> None:
    """Groups that hold the same rows are a problem of the evidence, never a pass."""
    single.evidence()
    found = read_evidence(single_file(single).read_bytes())
    half = [values[found.group == 0] for values in (*found.inputs.values(), found.target, found.prediction)]
    twice = [np.concatenate([part, part]) for part in half]
    inputs = dict(zip(found.inputs, twice, strict=False))
    group = np.repeat([0, 1], len(half[0]))
    single.forge(inputs=inputs, target=twice[-2], prediction=twice[-1], group=group, groups=("a", "b"))
    assert "one source under two names" in str(single.verdict(code=1)["reasons"])


def folded() -> onnx.ModelProto:
    """The linear model with the sidecar's scaler in its weights: no node shows it."""
    made = model(nodes=[helper.make_node("Add", ["product", "offset"], ["score"])], seed=3)
    weight = weights(made).astype(np.float64) / STD
    made.graph.node[1].output[0] = "product"
    offset = np.array([-MEAN * weight.sum()], np.float32)
    made.graph.initializer.append(numpy_helper.from_array(offset, "offset"))
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight.astype(np.float32).reshape(6, 1), "w"))
    return made


def test_a_scaler_in_the_sidecar_and_in_the_weights_is_found(tmp_path: Path, registry: Program) -> None:
    """Scaled twice, a model does worse on its rows than on rows that are not scaled: that is said, and held."""
    single = Single(tmp_path, registry, folded())
    table(single.rows, model(seed=3))
    ran = single.program("evidence", "m", "--data", single.rows, "--target", "mos", "--registry", single.path)
    assert (ran.code, "the sidecar would do it again" in ran.err) == (1, True), ran.err
    assert "evidence" not in single.row


@pytest.mark.parametrize(("shift", "promoted"), [(1e-4, True), (0.8, False)], ids=["near", "far"])
def test_the_int8_variant_is_held_to_its_budget(single: Single, shift: float, promoted: bool) -> None:
    """The variant is run on the same rows; a PLCC that falls by more than the entry promises holds it."""
    other = model(seed=3)
    changed = weights(other) * (1 + shift * np.array([1, -1, 1, -1, 1, -1], np.float32)) + shift
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(changed.reshape(6, 1).astype(np.float32), "w"))
    digest = write(single.path.parent, single.row["onnx"].replace(".onnx", ".int8.onnx"), other)
    fields = {"int8_sha256": digest, "quant_mode": "dynamic", "quant_accuracy_budget_plcc": 0.01}
    single.edit(lambda document: document["models"][0].update(fields))
    table(single.rows, single.made)
    ran = single.program("evidence", "m", "--data", single.rows, "--target", "mos", "--registry", single.path)
    assert (ran.code == 0) is promoted, ran.err
    if promoted:
        assert abs(single.verdict()["metrics"]["int8_plcc_loss"]) < 0.01
    else:
        assert "int8_plcc_loss" in ran.err
        assert "the entry promises at most 0.01" in ran.err


def test_static_quantisation_names_what_it_was_calibrated_on(single: Single) -> None:
    """`quant_mode: static` without `quant_calibration_set` is a warning."""
    digest = write(single.path.parent, single.row["onnx"].replace(".onnx", ".int8.onnx"), model(seed=3))
    single.edit(lambda document: document["models"][0].update(int8_sha256=digest, quant_mode="static"))
    assert "single-calibration-set" in single.codes()
    single.edit(lambda document: document["models"][0].update(quant_calibration_set="120 rows of corpus A"))
    assert "single-calibration-set" not in single.codes()


def test_an_incumbent_is_run_on_the_same_rows(single: Single) -> None:
    """Another model of the kind gives its scores for the entry's rows, behind its own scaler."""
    features, target, labels = single.evidence()
    other = model(seed=4)
    write(single.folder, "export/o.onnx", other)
    single.type("add", single.folder / "export" / "o.onnx", "--kind", "fr", "--id", "o", "--license", "MIT")
    found = single.verdict("--incumbent", "o")
    scores = {"m": ((features - np.float32(MEAN)) / np.float32(STD)) @ weights(single.made)}
    scores["o"] = features @ weights(other)  # it has no sidecar, so nothing scales its rows
    groups = [np.array(labels) == name for name in sorted(set(labels))]
    rmse = {n: np.mean([np.sqrt(np.mean((s[g] - target[g]) ** 2)) for g in groups]) for n, s in scores.items()}
    assert found["metrics"]["rmse_vs_incumbent"] == pytest.approx(rmse["m"] - rmse["o"], rel=1e-4)


# ---- inputs of other types ---------------------------------------------------------------------------------------


def typed(kind: int) -> onnx.ModelProto:
    """features [N, 6] of another type -> score [N, 1]."""
    made = model(nodes=[helper.make_node("Cast", ["features"], ["numbers"], to=TensorProto.FLOAT)], seed=3)
    made.graph.input[0].type.tensor_type.elem_type = kind
    made.graph.node.insert(0, made.graph.node.pop())
    made.graph.node[1].input[0] = "numbers"
    return made


@pytest.mark.parametrize(
    ("kind", "step", "words"),
    [
        (TensorProto.INT32, 1, ""),
        (TensorProto.UINT8, 1, ""),
        (TensorProto.DOUBLE, 0.3, ""),
        (TensorProto.INT64, 0.3, "found numbers that int64, which it takes, cannot hold"),
        (TensorProto.UINT8, -1, "found numbers that uint8, which it takes, cannot hold"),
        (TensorProto.INT64, 2**25, "found integers above 16777216"),
    ],
)
def test_rows_are_fed_in_the_type_of_the_input(
    tmp_path: Path, registry: Program, kind: int, step: float, words: str
) -> None:
    """Integers and doubles are cast where they keep their values; the verdict runs the same. Others are refused."""
    single = Single(tmp_path, registry, typed(kind), feature_mean=None, feature_std=None)
    rows = np.random.default_rng(2).integers(1, 40, (48, 6)) * step
    score = rows.astype(np.float32) @ weights(single.made)
    np.savez(tmp_path / "rows.npz", features=rows, mos=score, src=[f"s{n % 4}" for n in range(48)])
    said = single.type("evidence", "m", "--data", tmp_path / "rows.npz", "--target", "mos", code=2 if words else 0)
    assert words in said
    if not words:
        assert single.verdict()["metrics"]["mean_plcc"] == pytest.approx(1.0)


# ---- pictures -------------------------------------------------------------------------------------------------------


def blur(scale: float) -> onnx.ModelProto:
    """pictures [N, 1, 16, 16] -> the same, times a number."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 16, 16]) for name in ("noisy", "clean")]
    nodes = [helper.make_node("Mul", ["noisy", "k"], ["clean"])]
    constant = numpy_helper.from_array(np.float32(scale), "k")
    graph = helper.make_graph(nodes, "filter", ports[:1], ports[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_filter_is_gated_on_pictures(tmp_path: Path, registry: Program) -> None:
    """PSNR and SSIM of its pictures against their targets, and what it gains over the pictures that went in."""
    rng = np.random.default_rng(1)
    clean = rng.uniform(0, 1, (12, 1, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "p.npz", noisy=clean * 1.25, target=clean * 0.9, clip=[f"c{n % 3}" for n in range(12)])
    write(tmp_path, "f.onnx", blur(0.8))
    path = tmp_path / "model" / "registry.json"
    assert registry("add", tmp_path / "f.onnx", "--kind", "filter", "--id", "f", "--registry", path).code == 0
    options = ("--data", tmp_path / "p.npz", "--target", "target", "--group", "clip", "--registry", path)
    ran = registry("evidence", "f", *options)
    assert ran.code == 0, ran.err
    document = json.loads(path.read_bytes())
    document["policies"]["filter"] = {"rules": [{"metric": "psnr_gain", "op": ">", "bound": 0}]}
    path.write_bytes(to_json(document))
    verdict = json.loads(registry("gate", "f", "--registry", path, "--format", "json").out)
    assert verdict["verdict"] == "PROMOTE", verdict["reasons"]
    each = [np.mean([-10 * np.log10(np.mean((p * 0.1) ** 2)) for p in clean[n::3]]) for n in range(3)]
    assert verdict["metrics"]["mean_psnr"] == pytest.approx(np.mean(each), abs=1e-3)
    assert verdict["metrics"]["psnr_gain"] == pytest.approx(20 * np.log10(0.35 / 0.1), abs=1e-3)
    assert 0.9 < verdict["metrics"]["mean_ssim"] < 1.0


def test_ssim_and_psnr_of_known_pictures() -> None:
    """Equal pictures are 100 dB and 1; of two constants SSIM is its luminance term; small planes have none."""
    one = np.full((1, 16, 16), 0.5)
    assert psnr(one, one, 1.0) == pytest.approx(100.0)
    assert ssim(one, one, 1.0) == pytest.approx(1.0)
    two = np.full((1, 16, 16), 0.25)
    c1 = 0.01**2
    assert ssim(one, two, 1.0) == pytest.approx((2 * 0.5 * 0.25 + c1) / (0.5**2 + 0.25**2 + c1))
    assert psnr(one, two, 1.0) == pytest.approx(10 * np.log10(1 / 0.0625))
    assert np.isnan(ssim(one[:, :8], one[:, :8], 1.0))


# ---- what cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "none.csv"), "none.csv: file not found"),
        (("--data", "none"), "none: file not found"),
        (("--data", "."), ".: found a folder, expected a file of rows: name the file in it"),
        (("--data", "folder.npz"), "folder.npz: found a folder, expected an .npz"),
        (("--data", "rows.csv", "--target", "vmaf"), "add it, or name it with --target"),
        (("--data", "rows.csv", "--target", "mos", "--group", "clip"), "add it, or name it with --group"),
        (("--data", "rows.csv", "--target", "adm2"), "--target: found 'adm2', which the model is fed"),
        (("--data", "wide.npz", "--target", "mos"), "features: found a number above 3.4e+38"),
        (("--data", "none.npz", "--target", "mos"), "none.npz, features: found no rows, expected at least one"),
        (("--data", "wide.csv", "--target", "mos"), "column motion2: found 1e+39, expected at most 3.40282e+38"),
        (("--data", "bad.npz", "--target", "mos"), "not an .npz that can be read"),
        (("--data", "other.npz", "--target", "mos"), "no column 'features'"),
        (("--data", "rows.csv", "--target", "mos", "--peak", "0"), "peak: found 0.0"),
    ],
)
def test_a_file_that_does_not_fit_is_named(single: Single, options: tuple[str, ...], words: str) -> None:
    """One line, exit code 2, and nothing is written."""
    table(single.rows, single.made)
    (single.folder / "bad.npz").write_bytes(b"no archive")
    (single.folder / "folder.npz").mkdir()
    np.savez(single.folder / "other.npz", mos=[1.0])
    np.savez(single.folder / "wide.npz", features=np.full((1, 6), 1e39), mos=[1.0], src=["s"])
    np.savez(single.folder / "none.npz", features=np.zeros((0, 6)), mos=[], src=[])
    (single.folder / "wide.csv").write_text(f"src,{','.join(FEATURES)},mos\ns,1,1,1,1,1,1e39,1\n")
    before = single.path.read_bytes()
    typed = [str(single.folder / text) if text.endswith((".csv", ".npz")) else text for text in options]
    ran = single.program("evidence", "m", *typed, "--registry", single.path)
    assert (ran.code, words in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err
    assert single.path.read_bytes() == before


SCALED_INSIDE = {"input_names": None, "feature_mean": None, "feature_std": None}
CODEC = ("src", "encoder", *FEATURES, "mos")


@pytest.mark.parametrize(
    ("vocabulary", "slots"),
    [(ENCODERS, [0, 0, 3]), (["x265", "libx264"], None)],
    ids=["a slot for others", "none"],
)
def test_an_encoder_takes_its_slot_in_any_spelling(
    vocabulary: list[str], slots: list[int] | None, tmp_path: Path, registry: Program
) -> None:
    """Of case and separators; a name without a slot takes that of `unknown`, and is refused where there is none."""
    single = Single(tmp_path, registry, model(codec=len(vocabulary), seed=3), encoder_vocab=vocabulary, **SCALED_INSIDE)
    lines = [
        ",".join([f"s{row}", name, str(row), *"12345", "7"]) for row, name in enumerate(["libx264", "LibX.264", "zzz"])
    ]
    single.rows.write_text("\n".join([",".join(CODEC), *lines]) + "\n")
    said = single.type("evidence", "m", "--data", single.rows, "--target", "mos", code=0 if slots else 2)
    if slots is None:
        assert "column encoder: found 'zzz', expected one of x265, libx264" in said
    else:
        block = read_evidence(single_file(single).read_bytes()).inputs["codec_onehot"]
        assert block.argmax(axis=1).tolist() == slots


def test_a_production_entry_keeps_what_it_was_judged_on(single: Single) -> None:
    """Its evidence is not written anew."""
    single.evidence()
    single.type("flip", "m")
    assert "take a new --id" in single.type("evidence", "m", "--data", single.rows, "--target", "mos", code=1)


def test_what_production_lacks_rejects_the_flip(tmp_path: Path, registry: Program) -> None:
    """A model whose evidence is good but that has no sidecar is judged and rejected: exit code 1, still smoke."""
    single = Single(tmp_path, registry)
    (single.folder / "export" / "m.json").unlink()
    single.type("add", single.folder / "export" / "m.onnx", "--kind", "fr", "--id", "m", "--update")
    features, target, labels = table(single.rows, single.made)
    np.savez(single.folder / "d.npz", features=(features - MEAN) / STD, mos=target, src=labels)
    single.type("evidence", "m", "--data", single.folder / "d.npz", "--target", "mos")
    assert "so nothing was changed: registry.json" in (said := single.type("flip", "m", code=1))
    assert "has no sidecar" in said
    assert single.row["smoke"] is True


def test_evidence_written_again_replaces_the_old(single: Single) -> None:
    """The older file goes, so that nothing unregistered stays behind."""
    single.evidence()
    old = single_file(single)
    single.evidence(noise=0.1)
    assert not old.exists()
    assert "file-unregistered" not in single.codes()


def test_without_evidence_the_gate_says_what_makes_it(single: Single) -> None:
    """A single model that pins no rows cannot be judged: exit code 2, and the command that pins them."""
    assert "`registry evidence m --data FILE`" in single.type("gate", "m", code=2)


def test_bytes_that_are_no_evidence_are_a_problem() -> None:
    """Anything but what is written is refused in one line."""
    with pytest.raises(EvidenceProblem, match="not a readable archive"):
        read_evidence(b"PK no archive")
