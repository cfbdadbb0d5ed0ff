"""Tests of `registry export`: an entry in the folder layout of libvmaf's loader, which validates there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from command_line import Program
from jsonschema import Draft202012Validator
from places import shared_data
from sandbox import Sandbox

from registry_tool.workflows.promote import demote


def test_an_ensemble_is_its_members_with_sidecars(production: Sandbox, registry: Program, tmp_path: Path) -> None:
    """Byte for byte the members; what a member needs is in its sidecar; the whole validates."""
    out = tmp_path / "tiny"
    ran = registry("export", "tiny", "--layout", "libvmaf", "-o", out, "--registry", production.path)
    assert ran.code == 0, ran.err
    models = json.loads((out / "registry.json").read_bytes())["models"]
    assert [model["id"] for model in models] == [member["id"] for member in production.manifest["members"]]
    for model, member in zip(models, production.manifest["members"], strict=True):
        assert (out / model["onnx"]).read_bytes() == (production.artifacts / member["onnx"]).read_bytes()
        sidecar = json.loads((out / model["onnx"]).with_suffix(".json").read_bytes())
        assert sidecar["feature_mean"] == production.manifest["feature_mean"]
        assert len(sidecar["codec_block_layout"]) == len(production.manifest["codec_block"])
        assert (sidecar["sha256"], model["smoke"], model["license"]) == (model["sha256"], False, "MIT")
    found = registry("validate", out, "--format", "json")
    assert found.code == 0, found.out


def test_the_public_schema_takes_what_is_written(production: Sandbox, registry: Program, tmp_path: Path) -> None:
    public = shared_data("public-registry-v1") / "registry.schema.json"
    assert registry("export", "tiny", "-o", tmp_path / "tiny", "--registry", production.path).code == 0
    document = json.loads((tmp_path / "tiny" / "registry.json").read_bytes())
    Draft202012Validator(json.loads(public.read_bytes())).validate(document)


def test_a_smoke_entry_is_asked_for(production: Sandbox, registry: Program, tmp_path: Path) -> None:
    """Without --allow-smoke it is refused, and nothing is written."""
    demote(production.path, "tiny", "drifts")
    words = ("export", "tiny", "-o", tmp_path / "tiny", "--registry", production.path)
    assert (registry(*words).code, (tmp_path / "tiny").exists()) == (1, False)
    assert registry(*words, "--allow-smoke").code == 0


def test_a_folder_with_other_files_is_left_alone(production: Sandbox, registry: Program, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "mine.txt").write_text("mine")
    ran = registry("export", "tiny", "-o", tmp_path / "tiny", "--registry", production.path)
    assert (ran.code, [path.name for path in (tmp_path / "tiny").iterdir()]) == (2, ["mine.txt"])


def add(registry: Program, folder: Path, *, sidecar: bool = True, op: str | None = None) -> Path:
    """The registry of a model that was added, with a node more."""
    nodes = [tiny_models.helper.make_node(op, ["score"], ["more"])] if op else []
    (folder / "blur.onnx").write_bytes(tiny_models.model(nodes).SerializeToString())
    if sidecar:
        (folder / "blur.json").write_text(json.dumps({"feature_order": tiny_models.FEATURES}))
    box = folder / "model" / "registry.json"
    assert registry("add", folder / "blur.onnx", "--kind", "fr", "--id", "blur", "--registry", box).code == 0
    return box


def test_a_single_model_goes_with_its_sidecar(registry: Program, tmp_path: Path) -> None:
    """Neither its evidence goes, nor anything else that the loader does not read."""
    box = add(registry, tmp_path)
    rows = np.random.default_rng(7).normal(size=(8, 6)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", features=rows, vmaf=rows[:, 0], src=[f"s{row}" for row in range(8)])
    assert registry("evidence", "blur", "--data", tmp_path / "rows.npz", "--registry", box).code == 0
    ran = registry("export", "blur", "--allow-smoke", "-o", tmp_path / "out", "--registry", box)
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blur.json", "blur.onnx", "registry.json"]
    assert registry("validate", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("sidecar", "op", "code", "words"),
    [(False, None, 2, "has no sidecar"), (True, "Tan", 1, "libvmaf does not load it: found the operators Tan")],
)
def test_what_libvmaf_does_not_load_is_refused(
    registry: Program, tmp_path: Path, sidecar: bool, op: str | None, code: int, words: str
) -> None:
    """In one line, and nothing is written."""
    box = add(registry, tmp_path, sidecar=sidecar, op=op)
    ran = registry("export", "blur", "--allow-smoke", "-o", tmp_path / "out", "--registry", box)
    assert (ran.code, words in ran.err, (tmp_path / "out").exists()) == (code, True, False)


def test_a_sidecar_that_is_not_pinned_is_pinned_first(registry: Program, tmp_path: Path) -> None:
    """A registry of version 1 pins none: what nothing pins is not passed on as if it were."""
    box = add(registry, tmp_path)
    document = json.loads(box.read_bytes()) | {"schema_version": 1}
    document["models"][0].pop("sidecar_sha256")
    box.write_text(json.dumps(document))
    refused = registry("export", "blur", "--allow-smoke", "-o", tmp_path / "out", "--registry", box)
    assert (refused.code, "`registry migrate` does that" in refused.err) == (2, True)
    assert registry("migrate", box, "-o", tmp_path / "new").code == 0
    ran = registry("export", "blur", "--allow-smoke", "-o", tmp_path / "out", "--registry", tmp_path / "new")
    assert ran.code == 0, ran.err
