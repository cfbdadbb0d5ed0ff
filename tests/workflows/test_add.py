"""Tests of `registry add`: a model that was made elsewhere is pinned, and registered where it validates."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
from command_line import Program
from onnx import helper

from registry_tool.sandbox.reader import read_model


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder of an exporter, with a model in it."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "blur.onnx").write_bytes(tiny_models.model().SerializeToString())
    return folder


def entry_of(folder: Path, entry_id: str = "blur") -> dict[str, Any]:
    models = json.loads((folder / "registry.json").read_bytes())["models"]
    (found,) = [model for model in models if model["id"] == entry_id]
    return dict(found)


def linear(op: str = "LinearRegressor", **attributes: Any) -> onnx.ModelProto:
    """features [N, 6] -> score [N, 1] by one node of ai.onnx.ml, as scikit-learn's Ridge is exported."""
    attributes = attributes or {"coefficients": [0.5] * 6, "intercepts": [1.0]}
    graph = helper.make_graph(
        [helper.make_node(op, ["features"], ["score"], name="ml", domain="ai.onnx.ml", **attributes)],
        "ridge",
        [helper.make_tensor_value_info("features", tiny_models.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("score", tiny_models.FLOAT, ["N", 1])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_a_model_is_pinned_with_its_sidecar_and_its_weights(tmp_path: Path, export: Path, registry: Program) -> None:
    """One command, and the registry validates; git is told to convert nothing."""
    (export / "blur.onnx").write_bytes(tiny_models.external("blur.onnx.data").SerializeToString())
    (export / "blur.onnx.data").write_bytes(np.ones(6, np.float32).tobytes())
    (export / "blur.json").write_text(json.dumps({"feature_order": tiny_models.FEATURES}))
    made = tmp_path / "model"
    words = ("--kind", "nr", "--id", "blur", "--license", "MIT", "--registry", made / "registry.json")
    ran = registry("add", export / "blur.onnx", *words)
    assert (ran.code, "warning" in ran.err) == (0, False), ran.err
    assert "blur (smoke)" in ran.out
    entry = entry_of(made)
    assert (entry["smoke"], entry["kind"], entry["license"], entry["opset"]) == (True, "nr", "MIT", 17)
    assert re.fullmatch(r"blur/[0-9a-f]{12}/blur\.onnx", entry["onnx"])
    assert [pin["bytes"] for pin in entry["external_data"]] == [24]
    assert "sidecar_sha256" in entry
    assert (made / ".gitattributes").read_text().splitlines()[-1] == "* -text"
    assert registry("validate", made).code == 0


def test_a_sidecar_of_another_name_takes_the_models(tmp_path: Path, export: Path, registry: Program) -> None:
    (export / "notes.json").write_text("{}")
    words = ("--kind", "fr", "--id", "blur", "--sidecar", export / "notes.json", "--registry", tmp_path / "model")
    assert registry("add", export / "blur.onnx", *words).code == 0
    assert (tmp_path / "model" / entry_of(tmp_path / "model")["onnx"]).with_suffix(".json").read_text() == "{}"


def test_an_update_gives_a_smoke_entry_other_bytes(tmp_path: Path, export: Path, registry: Program) -> None:
    """What a person wrote stays, pins of the older bytes go, as the output says; the id is refused without --update."""
    box = tmp_path / "model" / "registry.json"
    words = ("add", export / "blur.onnx", "--kind", "nr", "--id", "blur", "--registry", box)
    (export / "blur.json").write_text("{}")
    assert registry(*words, "--description", "Blur.").code == 0
    document = json.loads(box.read_bytes())
    [before] = document["models"]
    before["demotion"] = demotion = {"reason": "drifts", "manifest_sha256": before["sha256"]}
    box.write_text(json.dumps(document))
    (export / "blur.json").unlink()
    (export / "blur.onnx").write_bytes(tiny_models.model(seed=1).SerializeToString())
    refused = registry(*words)
    assert (refused.code, "--update" in refused.err) == (2, True)
    assert entry_of(box.parent) == before
    ran = registry(*words, "--update")
    assert ran.out.splitlines()[-1] == f"replaced: blur (smoke) of sha256 {before['sha256']}"
    after = entry_of(box.parent)
    assert (after["description"], after["sha256"] != before["sha256"]) == ("Blur.", True)
    assert (after["demotion"], "sidecar_sha256" in after) == (demotion, False)
    assert "replaced" not in registry(*words, "--update").out
    assert registry("validate", box).code == 0


def test_production_is_never_updated(tmp_path: Path, export: Path, registry: Program) -> None:
    box = tmp_path / "model" / "registry.json"
    words = ("add", export / "blur.onnx", "--kind", "nr", "--id", "blur", "--registry", box)
    assert registry(*words).code == 0
    document = json.loads(box.read_bytes())
    document["models"][0] |= {"smoke": False}
    box.write_text(json.dumps(document))
    refused = registry(*words, "--update")
    assert (refused.code, "production" in refused.err) == (1, True)


OWN_EVIDENCE = "blur/evidence/0123456789ab.npz"


@pytest.mark.parametrize(
    ("path", "link", "is_shared"),
    [
        (OWN_EVIDENCE, None, False),
        (OWN_EVIDENCE, None, True),
        (OWN_EVIDENCE, "blur/evidence", False),
        ("blur/../../home/0123456789ab.npz", None, False),
        ("blur/evidence/../../../home/0123456789ab.npz", None, False),
        ("link/0123456789ab.npz", "link", False),
    ],
)
def test_only_evidence_that_is_the_entrys_own_goes_with_its_bytes(
    tmp_path: Path, export: Path, registry: Program, path: str, link: str | None, is_shared: bool
) -> None:
    """A file that another entry pins, or that is outside of the registry's folder, is never removed."""
    box = tmp_path / "model" / "registry.json"
    words = ("add", export / "blur.onnx", "--kind", "nr", "--registry", box, "--id")
    assert (registry(*words, "blur").code, registry(*words, "other").code) == (0, 0)
    (tmp_path / "home").mkdir()
    (box.parent / "blur" / "evidence").mkdir()
    if link is not None:
        shutil.rmtree(box.parent / link, ignore_errors=True)
        (box.parent / link).symlink_to(tmp_path / "home")
    (box.parent / path).write_bytes(b"rows")
    document = json.loads(box.read_bytes())
    for entry in document["models"][: 2 if is_shared else 1]:
        entry["evidence"] = {"path": path, "sha256": "0" * 64}
    box.write_text(json.dumps(document))
    assert registry(*words, "blur", "--update").code == 0
    assert (box.parent / path).exists() == ((path, link, is_shared) != (OWN_EVIDENCE, None, False))


def _no_file(export: Path) -> None:
    (export / "blur.onnx").unlink()


def _folder(export: Path) -> None:
    (export / "blur.onnx").unlink()
    (export / "blur.onnx").mkdir()


def _text(export: Path) -> None:
    (export / "blur.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")


def _no_weights(export: Path) -> None:
    (export / "blur.onnx").write_bytes(tiny_models.external("w.data").SerializeToString())


def _weights_outside(export: Path) -> None:
    (export.parent / "w.data").write_bytes(bytes(24))
    (export / "blur.onnx").write_bytes(tiny_models.external("../w.data").SerializeToString())


@pytest.mark.parametrize("change", [_no_file, _folder, _text, _no_weights, _weights_outside])
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, export: Path, registry: Program, change: Callable[[Path], None]
) -> None:
    """Exit 2, and no registry is made."""
    change(export)
    box = tmp_path / "model" / "registry.json"
    ran = registry("add", export / "blur.onnx", "--kind", "nr", "--id", "blur", "--registry", box)
    assert (ran.code, ran.out, ran.err.count("\n"), box.parent.exists()) == (2, "", 1, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "sharpness", "--id", "blur"), "unknown kind 'sharpness'"),
        (("--kind", "fr_ensemble", "--id", "blur"), "no single model"),
        (("--kind", "nr", "--id", "Blur"), "lower-case"),
        (("--kind", "nr", "--id", "blur", "--update"), "no entry 'blur' to update"),
        (("--kind", "nr", "--id", "blur", "--license", ""), "--license"),
        *(
            (("--kind", "nr", "--id", "blur", *option), f"{option[0]} is about a quantised variant")
            for option in (("--quant-mode", "static"), ("--quant-budget", "0.1"), ("--quant-calibration-set", "rows"))
        ),
    ],
)
def test_what_is_typed_wrongly_is_one_line(
    tmp_path: Path, export: Path, registry: Program, words: tuple[str, ...], said: str
) -> None:
    """Exit 2, and no registry is made."""
    box = tmp_path / "model" / "registry.json"
    ran = registry("add", export / "blur.onnx", *words, "--registry", box)
    assert (ran.code, said in ran.err.splitlines()[-1], box.exists()) == (2, True, False)


@pytest.mark.parametrize("name", ["b lur.onnx", "bl\u00fcr.onnx", "blur.ONNX", "-blur.onnx", "blur"])
def test_a_name_that_no_registry_holds_is_renamed(name: str, tmp_path: Path, export: Path, registry: Program) -> None:
    """Exit 2, and no registry is made; the file may lie in a folder of any name."""
    box = tmp_path / "model" / "registry.json"
    (folder := tmp_path / "a b").mkdir()
    for file in ((export / "blur.onnx").rename(folder / name), (folder / "blur.onnx")):
        ran = registry("add", file, "--kind", "nr", "--id", "blur", "--registry", box)
        if file.name == name:
            assert (ran.code, "that ends in .onnx: rename it" in ran.err, box.exists()) == (2, True, False)
            file.rename(folder / "blur.onnx")
    assert ran.code == 0, ran.err


def test_a_folder_is_no_model(tmp_path: Path, registry: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` has no name to put into a path: it is called what it is."""
    monkeypatch.chdir(tmp_path)
    ran = registry("add", ".", "--kind", "nr", "--id", "blur")
    assert (ran.code, ran.err) == (2, "registry: .: found a folder, expected a file: name the file in it\n")


def test_what_would_not_validate_is_not_registered(tmp_path: Path, export: Path, registry: Program) -> None:
    """Exit 1 with the finding; the registry stays as it was and no file is left."""
    box = tmp_path / "model" / "registry.json"
    assert registry("add", export / "blur.onnx", "--kind", "nr", "--id", "blur", "--registry", box).code == 0
    before = box.read_bytes()
    node = helper.make_node("Erf2", ["x"], ["y"], domain="com.example")
    (export / "odd.onnx").write_bytes(tiny_models.model([node]).SerializeToString())
    ran = registry("add", export / "odd.onnx", "--kind", "nr", "--id", "odd", "--registry", box)
    assert (ran.code, ran.err.count("\n"), "custom domain" in ran.err) == (1, 1, True)
    assert (box.read_bytes(), (box.parent / "odd").exists()) == (before, False)


def test_regressors_of_scikit_learn_are_taken_where_the_kind_says_so(
    tmp_path: Path, export: Path, registry: Program
) -> None:
    """fr and nr allow them, filter does not; another operator is refused as such, not as foreign code."""
    box = tmp_path / "model" / "registry.json"
    (export / "ridge.onnx").write_bytes(linear().SerializeToString())
    taken = registry("add", export / "ridge.onnx", "--kind", "nr", "--id", "ridge", "--registry", box)
    assert (taken.code, "warning" in taken.err) == (0, False), taken.err
    refused = registry("add", export / "ridge.onnx", "--kind", "filter", "--id", "f", "--registry", box)
    assert (refused.code, "operators that kind 'filter' does not allow" in refused.err) == (1, True)
    (export / "map.onnx").write_bytes(linear("CategoryMapper").SerializeToString())
    refused = registry("add", export / "map.onnx", "--kind", "nr", "--id", "m", "--registry", box)
    assert (refused.code, "ai.onnx.ml::CategoryMapper" in refused.err) == (1, True)


def test_an_opset_that_is_named_twice_is_one_opset() -> None:
    """As exporters that join graphs write it; two versions of one domain are refused."""
    model = tiny_models.model()
    model.opset_import.add(domain="ai.onnx", version=17)
    assert read_model(model.SerializeToString()).opsets == {"": 17}


def test_an_int8_variant_is_pinned_beside_its_model(tmp_path: Path, export: Path, registry: Program) -> None:
    """Its bytes are pinned with how it was quantised, the rows it was calibrated on, and what it may lose."""
    (export / "small.onnx").write_bytes(tiny_models.model(seed=2).SerializeToString())
    made = tmp_path / "model"
    words = ("--kind", "nr", "--id", "blur", "--license", "MIT", "--registry", made / "registry.json")
    quantised = ("--int8", export / "small.onnx", "--quant-mode", "static", "--quant-calibration-set", "120 rows of A")
    ran = registry("add", export / "blur.onnx", *words, *quantised, "--quant-budget", "0.01")
    assert (ran.code, "warning" in ran.err) == (0, False), ran.err
    entry = entry_of(made)
    assert (entry["quant_mode"], entry["quant_accuracy_budget_plcc"]) == ("static", 0.01)
    assert entry["quant_calibration_set"] == "120 rows of A"
    variant = made / entry["onnx"].replace(".onnx", ".int8.onnx")
    assert variant.read_bytes() == (export / "small.onnx").read_bytes()
    assert registry("validate", made).code == 0
    assert registry("add", export / "blur.onnx", *words, "--update").code == 0
    assert "int8_sha256" not in entry_of(made)
    (export / "blur.json").write_text(json.dumps({"feature_order": tiny_models.FEATURES}))
    assert registry("add", export / "blur.onnx", *words, "--update").code == 0
    assert "sidecar_sha256" in entry_of(made)


def test_a_refused_model_leaves_no_new_folder(tmp_path: Path, export: Path, registry: Program) -> None:
    """Nothing is made for a model that would not validate: no folder, no lock; a folder that was there stays."""
    (export / "blur.json").write_text(json.dumps({"input_names": ["other"]}))
    for folder in (tmp_path / "new" / "deep", tmp_path):
        ran = registry(
            "add", export / "blur.onnx", "--kind", "nr", "--id", "blur", "--registry", folder / "registry.json"
        )
        assert (ran.code, "sidecar-inputs" in ran.err or "the inputs differ" in ran.err) == (1, True), ran.err
    assert not (tmp_path / "new").exists()
    assert export.is_dir()
    assert not (tmp_path / "blur").exists()
