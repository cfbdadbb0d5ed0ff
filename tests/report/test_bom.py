"""Tests of `registry bom`: a CycloneDX document that its own strict validator accepts, of what the registry pins."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Program
from places import ROOT
from sandbox import Sandbox, sha256
from shapes import SHAPES
from thumbs import Thumbs, put_sidecar, with_plugin

from registry_tool.report import bom
from registry_tool.strictjson import parse

pytest.importorskip("cyclonedx", reason="a bill of materials needs the extra `bom`")
ENTRY = "fr_vmaf_ensemble_v1"


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    """The project's own registry."""
    shutil.copytree(ROOT / "model", tmp_path / "model")
    return Sandbox(tmp_path / "model" / "registry.json", ENTRY)


def made(registry: Program, box: Sandbox, *options: Any, **more: Any) -> dict[str, Any]:
    """The document, after the strict validator of its version took it."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    ran = registry("bom", box.id, "--registry", box.path, *options, **more)
    assert (ran.code, ran.err) == (0, "")
    document: dict[str, Any] = json.loads(ran.out)
    assert document["specVersion"] == "1.6"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(ran.out) is None
    return document


def properties(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["name"].removeprefix("registry-tool:"): item["value"] for item in items}


@pytest.mark.slow
def test_everything_that_is_pinned_is_listed(registry: Program, box: Sandbox) -> None:
    """Files with digests, corpus, recipe, environment, licence, metrics with their intervals, limits."""
    box.edit_entry(license_url="https://example.org/LICENSE")
    document, entry = made(registry, box), box.entry
    manifest = json.loads((box.folder / entry["manifest"]).read_bytes())
    files = {c["name"]: c["hashes"][0]["content"] for c in document["components"] if c["type"] == "file"}
    folder = box.folder / Path(entry["manifest"]).parent
    on_disk = {p.relative_to(box.folder).as_posix(): sha256(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert files == on_disk
    component = document["metadata"]["component"]
    assert (component["type"], component["name"]) == ("machine-learning-model", ENTRY)
    assert component["hashes"] == [{"alg": "SHA-256", "content": entry["sha256"]}]
    assert component["licenses"][0]["license"]["url"] == "https://example.org/LICENSE"
    about = properties(component["properties"])
    environment = {item["name"]: item["version"] for item in manifest["environment"]}
    assert {k: v for k, v in about.items() if k.startswith("environment:")} == {
        f"environment:{name}": version for name, version in environment.items()
    }
    assert about["verdict_sha256"] == entry["promotion"]["sha256"]
    card = component["modelCard"]
    assert properties(card["properties"])["recipe:epochs"] == str(manifest["recipe"]["epochs"])
    metrics = {row["type"]: row for row in card["quantitativeAnalysis"]["performanceMetrics"]}
    stored = box.verdict["metrics"]
    assert float(metrics["mean_plcc"]["value"]) == pytest.approx(stored["mean_plcc"], abs=1e-12)
    interval = metrics["mean_plcc"]["confidenceInterval"]
    assert float(interval["lowerBound"]) == pytest.approx(stored["mean_plcc_low"], abs=1e-12)
    assert float(interval["upperBound"]) == pytest.approx(stored["mean_plcc_high"], abs=1e-12)
    assert not metrics.keys() & {"mean_plcc_low", "mean_plcc_high"}
    [corpus] = [c for c in document["components"] if c["type"] == "data"]
    assert (
        properties(corpus["data"][0]["contents"]["properties"])["corpus:rows_sha256"]
        == manifest["corpus"]["rows_sha256"]
    )
    assert card["modelParameters"]["datasets"] == [{"ref": corpus["bom-ref"]}]
    assert any("marks rows outside" in limit for limit in card["considerations"]["technicalLimitations"])
    [depends] = [row["dependsOn"] for row in document["dependencies"] if row["ref"] == component["bom-ref"]]
    assert set(depends) == {c["bom-ref"] for c in document["components"]}
    assert not [word for word in ("compliant", "compliance", "conform") if word in json.dumps(document).lower()]


@pytest.mark.slow
def test_the_same_entry_gives_the_same_bytes(registry: Program, box: Sandbox, tmp_path: Path) -> None:
    """No time and no path of this machine; another entry has another serial number."""
    document = made(registry, box)
    assert made(registry, box) == document
    assert "timestamp" not in document["metadata"]
    assert str(tmp_path) not in json.dumps(document)
    file = tmp_path / "bom.json"
    assert registry("bom", ENTRY, "--registry", box.path, "-o", file).out == ""
    assert json.loads(file.read_text()) == document
    assert parse(file.read_bytes()).value == document
    other = Sandbox(box.path, "fr_vmaf_outlier_v1")
    assert made(registry, other)["serialNumber"] != document["serialNumber"]


FIELDS = ("corpus", "target", "feature_order", "outputs", "recipe", "environment", "intervals")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: json.dumps(shape)[:30])
def test_a_manifest_of_any_shape_gives_a_document(thumb: Sandbox, registry: Program, shape: Any) -> None:
    """Its fields are its plugin's own: what the document has no place for is left out."""
    for fields in (dict.fromkeys(FIELDS, shape), *({field: shape} for field in FIELDS)):
        put_sidecar(thumb, fields)
        assert made(registry, thumb, plugins=with_plugin(Thumbs()))["components"]


LICENCES = [
    ("MIT", {"license": {"id": "MIT"}}),
    ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0"}),
    ("Our own terms", {"license": {"name": "Our own terms"}}),
]


@pytest.mark.parametrize(("text", "expected"), LICENCES)
def test_a_licence_is_named_as_spdx_where_it_is_one(
    thumb: Sandbox, registry: Program, text: str, expected: dict[str, Any]
) -> None:
    """An identifier, an expression, else a name."""
    thumb.edit_entry(license=text)
    component = made(registry, thumb, plugins=with_plugin(Thumbs()))["metadata"]["component"]
    [found] = component["licenses"]
    assert {key: value for key, value in found.items() if key in ("license", "expression")} == expected


def test_without_the_extra_it_says_so(thumb: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names it."""
    monkeypatch.setattr(bom, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "cyclonedx", raising=False)
    ran = registry("bom", "t", "--registry", thumb.path, plugins=with_plugin(Thumbs()))
    assert (ran.code, ran.out) == (2, "")
    assert "pip install cyclonedx-python-lib" in ran.err
