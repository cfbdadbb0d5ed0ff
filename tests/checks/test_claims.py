"""Claims that only look checked: pins nobody reads, documents that go past their reader, members that stepped out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import pytest
import tiny_models
from sandbox import Sandbox, to_json
from version1 import Rows

from registry_tool.findings import Finding, Severity
from registry_tool.plugins.manager import Plugins
from registry_tool.workflows.validate import validate

Found = set[tuple[str, str | None]]


def errors(findings: Any) -> Found:
    return {(f.code, f.file) for f in findings if f.severity is Severity.ERROR}


def warnings(findings: tuple[Finding, ...]) -> Found:
    return {(f.code, f.file) for f in findings if f.severity is Severity.WARNING}


# ---- the folder -------------------------------------------------------------------------------------------------


@pytest.fixture
def singles(tmp_path: Path) -> Path:
    return mutations.singles(tmp_path / "model", 2)


@pytest.mark.parametrize("name", ["evil.ONNX", "evil.Data", "deep/.evil.onnx", "evil.onnx_data", "evil.ort"])
def test_models_under_any_spelling_are_unregistered(singles: Path, plugins: Plugins, name: str) -> None:
    """A suffix that differs by case, and those that exporters give to weights and runtimes to models."""
    tiny_models.write(singles, name, b"x")
    assert warnings(validate(singles / "registry.json", plugins).findings) == {("file-unregistered", name)}


def test_a_link_that_nobody_names_is_unregistered(singles: Path, plugins: Plugins) -> None:
    """It is not followed, so nobody knows which models it leads to."""
    (singles / "more").symlink_to("/etc")
    assert warnings(validate(singles / "registry.json", plugins).findings) == {("file-unregistered", "more")}


# ---- entries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"int8_sha256": "0" * 64},
        {"sidecar_sha256": "0" * 64},
        {"external_data": [{"path": "gone.data", "sha256": "0" * 64, "bytes": 1}]},
    ],
)
def test_a_pin_that_nobody_reads_is_an_error(production: Sandbox, plugins: Plugins, fields: dict[str, Any]) -> None:
    """An ensemble's entry carries no pins but that of its manifest."""
    production.edit_entry(**fields)
    assert errors(production.findings(plugins=plugins)) == {("pin-unread", "registry.json")}


def test_a_kind_without_a_schema_has_no_manifest(singles: Path, plugins: Plugins) -> None:
    """Its owner looks at the ONNX file that is not named: whatever the manifest says would pass."""
    data = to_json({"id": "plain", "kind": "fr"})
    document = json.loads((singles / "registry.json").read_bytes())
    digest = tiny_models.write(singles, "new.json", data)
    row = document["models"][0]
    row |= {"manifest": f"plain/{digest[:12]}/manifest.json", "sha256": digest}
    tiny_models.write(singles, row["manifest"], data)
    for field in ("onnx", "sidecar_sha256", "opset"):
        del row[field]
    (singles / "registry.json").write_bytes(to_json(document))
    assert errors(validate(singles / "registry.json", plugins).findings) == {("kind-form", "registry.json")}


def test_a_kind_with_a_schema_is_not_one_file(tmp_path: Path, plugins: Plugins) -> None:
    """Not even as a smoke entry, which no promotion is asked of."""
    row = tiny_models.entry(tmp_path, tiny_models.model(), kind="fr_ensemble")
    document = {"schema_version": 2, "models": [row], "policies": {"fr_ensemble": {"rules": []}}}
    (tmp_path / "registry.json").write_bytes(to_json(document))
    assert errors(validate(tmp_path / "registry.json", plugins).findings) == {("kind-form", "registry.json")}


SIDECARS: list[tuple[str, dict[str, Any]]] = [
    ("onnx-opset-disagrees", {"ir_version": 4}),
    ("onnx-opset-disagrees", {"onnx_opset": 11}),
    ("sidecar-disagrees", {"external_data": [{"path": "q.data", "sha256": "0" * 64, "bytes": 4}]}),
    ("sidecar-features", {"input_mean": [1, 2]}),
    ("sidecar-width", {"feature_order": None, "feature_mean": [0.5] * 3, "feature_std": None}),
    ("sidecar-width", {"feature_order": None, "feature_mean": None, "feature_std": [0.5] * 3}),
    ("sidecar-width", {"encoder_vocab": ["x264"]}),
    ("sidecar-width", {"codec_block_layout": ["encoder_onehot[x264]"]}),
]


@pytest.mark.parametrize(("code", "fields"), SIDECARS)
def test_a_sidecar_says_no_more_than_holds(singles: Path, plugins: Plugins, code: str, fields: dict[str, Any]) -> None:
    """Other spellings of a field, statistics without names, and inputs that the model does not have."""
    document = json.loads((singles / "registry.json").read_bytes())
    row = next(row for row in document["models"] if row["id"] == "external")
    changed = json.loads((singles / "external.json").read_bytes()) | fields
    kept = {name: value for name, value in changed.items() if value is not None}
    row["sidecar_sha256"] = tiny_models.write(singles, "external.json", kept)
    (singles / "registry.json").write_bytes(to_json(document))
    (found,) = (f for f in validate(singles / "registry.json", plugins).findings if f.severity is Severity.ERROR)
    assert (found.code, found.entry) == (code, "external")


def test_a_reason_of_spaces_is_none(singles: Path, plugins: Plugins) -> None:
    """What the command refuses, the schema refuses."""
    document = json.loads((singles / "registry.json").read_bytes())
    document["models"][0]["promotion"] = {"manual": True, "reason": " "}
    (singles / "registry.json").write_bytes(to_json(document))
    assert errors(validate(singles / "registry.json", plugins).findings) != set()


# ---- version 1 --------------------------------------------------------------------------------------------------


def drop(rows: Rows) -> None:
    rows.manifest |= {"members": rows.manifest["members"][:1], "ensemble_size": 1}


def gone(rows: Rows) -> None:
    rows.manifest = {"notes": "nothing to see here"}


def one_as_true(rows: Rows) -> None:
    rows.sidecars[1]["seed"] = True


def copied(rows: Rows) -> None:
    """The same weights under other names, in another file."""
    made = tiny_models.model(codec=5, seed=0)
    made.doc_string = "another"
    made.graph.initializer[0].name = made.graph.node[1].input[1] = "weights"
    digest = tiny_models.write(rows.folder, "e_seed1.onnx", made)
    for document in (rows.rows[1], rows.sidecars[1], rows.manifest["members"][1]):
        document["sha256"] = digest


def other_opset(rows: Rows) -> None:
    rows.manifest["opset"] = 9


def second(rows: Rows) -> None:
    tiny_models.write(rows.folder, "copy.json", rows.manifest)


LOOSE: list[tuple[Callable[[Rows], None], Found]] = [
    (drop, {("loose-member-unlisted", "e_seed1.json")}),
    (gone, {("loose-member-unlisted", "e_seed0.json"), ("loose-member-unlisted", "e_seed1.json")}),
    (one_as_true, {("loose-member-disagrees", "e.json")}),
    (copied, {("loose-member-twice", "e.json")}),
    (other_opset, {("onnx-opset-disagrees", "e.json")}),
    (second, {("id-duplicate", "e.json")}),
]


@pytest.mark.parametrize(("change", "found"), LOOSE)
def test_members_and_manifest_name_each_other(tmp_path: Path, change: Callable[[Rows], None], found: Found) -> None:
    """A member left out, a manifest gone or copied, equal weights in files that differ."""
    rows = Rows(tmp_path)
    assert errors(rows.findings()) == set()
    change(rows)
    assert errors(rows.findings()) == found


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ("/confidence/gaussian_z", {"confidence": {"gaussian_z": 0.1}}),
        ("/eval/in_sample_plcc", {"eval": {"in_sample_plcc": 1.3}}),
    ],
)
def test_figures_that_cannot_be_are_errors(smoke: Sandbox, where: str, fields: dict[str, Any]) -> None:
    """A z that is not the nominal coverage's, and a correlation above 1."""
    found = smoke.forged(lambda manifest: [manifest[name].update(value) for name, value in fields.items()])
    assert where in {pointer for _, pointer in found}
