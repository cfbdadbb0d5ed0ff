"""Tests of the schemas as others use them: by `$schema`, by check-jsonschema, by `registry schema`."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner, Result
from command_line import Program
from places import ROOT
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.hookspec import Kind, hookimpl

pytestmark = pytest.mark.slow

MODEL = ROOT / "model"
DOCUMENTS = ("registry", "registry-v1", "fr_ensemble", "verdict")  # what stands in a registry's folder
SHARED = schemas.load("registry")["$defs"]


def check(schema: Path, *documents: Path) -> Result:
    """check-jsonschema with nothing but the schema and the documents: no other file, no network."""
    return CliRunner().invoke(check_jsonschema, ["--no-cache", "--schemafile", str(schema), *map(str, documents)])


def test_the_registry_names_its_schema(tmp_path: Path) -> None:
    """`$schema` of model/registry.json is the file in schemas/, by which check-jsonschema judges it."""
    registry = json.loads((MODEL / "registry.json").read_text())
    schema = (MODEL / registry["$schema"]).resolve()
    assert schema == ROOT / "schemas" / "registry.schema.json"
    assert check(schema, MODEL / "registry.json").exit_code == 0
    registry["models"][0]["sha256"] = "short"
    (tmp_path / "registry.json").write_text(json.dumps(registry))
    ran = check(schema, tmp_path / "registry.json")
    assert (ran.exit_code, "$.models[0].sha256" in ran.output) == (1, True)


@pytest.mark.parametrize(
    ("name", "pattern", "field"),
    [("fr_ensemble", "*/*/manifest.json", "recipe"), ("verdict", "*/verdicts/*.json", "reasons")],
)
def test_pinned_documents_are_checked_by_others(name: str, pattern: str, field: str, tmp_path: Path) -> None:
    """check-jsonschema takes every manifest and verdict of model/ by its schema alone, not one without a field."""
    documents = list(MODEL.glob(pattern))
    schema = ROOT / "schemas" / f"{name}.schema.json"
    assert documents
    assert check(schema, *documents).exit_code == 0
    document = json.loads(documents[0].read_text())
    del document[field]
    (tmp_path / "broken.json").write_text(json.dumps(document))
    assert check(schema, tmp_path / "broken.json").exit_code == 1


def test_the_public_registry_is_checked_by_others(public_documents: Path) -> None:
    """check-jsonschema takes the public version-1 registry by our schema of it."""
    registry = public_documents / "registry.json"
    assert check(ROOT / "schemas" / "registry-v1.schema.json", registry).exit_code == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_schema_stands_alone(name: str) -> None:
    """It refers to no other file, so that any editor resolves it; a definition is the same wherever it stands."""
    schema = schemas.load(name)
    assert schemas.bundled(schema) == schema
    for shared in set(schema["$defs"]) & set(SHARED) - {"entry"}:
        assert schema["$defs"][shared] == SHARED[shared], f"copy {shared} from registry.schema.json"


def references(node: Any) -> list[str]:
    items = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node["$ref"]] if isinstance(node, dict) and "$ref" in node else []
    return own + [reference for item in items for reference in references(item)]


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_printed_to_stand_alone(name: str, registry: Program) -> None:
    """`registry schema NAME` refers to nothing but itself, every reference is there, and the source is not changed."""
    before = copy.deepcopy(schemas.load(name))
    ran = registry("schema", name)
    printed = json.loads(ran.out)
    assert ran.code == 0
    for reference in references(printed):
        assert reference.startswith("#/$defs/")
        assert reference.removeprefix("#/$defs/").split("/")[0] in printed["$defs"]
    assert printed["$id"] == before["$id"]
    assert schemas.load(name) == before


def test_a_bundle_judges_as_its_source() -> None:
    """A definition of our own name is not mistaken for the one referred to, which brings along what it refers to."""
    source = {
        "properties": {
            "entry": {"$ref": "urn:registry-tool:registry:2#/$defs/entry"},
            "id": {"$ref": "urn:registry-tool:registry:2#/$defs/id"},
            "n": {"$ref": "#/$defs/id"},
        },
        "$defs": {"id": {"type": "integer"}},
    }
    bundle = schemas.bundled(source)
    assert not [reference for reference in references(bundle) if not reference.startswith("#/$defs/")]
    entry = {"id": "a", "kind": "fr", "onnx": "a.onnx", "sha256": "0" * 64, "smoke": True}
    for document in (
        {"entry": entry, "id": "a", "n": 1},
        {"id": 1},
        {"n": "a"},
        {"entry": {**entry, "sha256": "x"}},
        {"entry": {**entry, "promotion": {"manual": False}}},
        {"entry": {**entry, "onnx": "../a"}},
    ):
        assert violations(document, bundle) == violations(document, source)
    assert violations({"id": 1}, bundle)


def test_schemas_are_listed_and_an_unknown_one_is_named(registry: Program) -> None:
    """Every name with what it is of; a plugin's kind among them; exit 2 with the names for another."""

    class WithSchema(Thumbs):
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("thumb", "thumbnail rankers", schema={"title": "A thumb", "type": "object"})]

    plugins = with_plugin(WithSchema())
    lines = registry("schema", plugins=plugins).out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {*schemas.names(), "thumb"}
    assert json.loads(registry("schema", "thumb", plugins=plugins).out)["title"] == "A thumb"
    ran = registry("schema", "thumb")
    assert (ran.code, "fr_ensemble" in ran.err) == (2, True)
    assert registry("schema", "registry", "-o", "x").code == 2


def test_a_fresh_registry_names_no_schema_and_new_users_are_told(smoke: Sandbox) -> None:
    """What `train` makes has no `$schema` of its own accord; the first pages one reads say how to get it."""
    assert "$schema" not in smoke.registry
    assert "$schema" not in smoke.manifest
    for page in ("README.md", "docs/tutorial.md", "docs/formats.md", "docs/how-to/ci.md"):
        assert re.search(r"registry schema\b.*-o (DIR|model/schemas)", (ROOT / page).read_text()), page


def test_schemas_are_put_beside_a_registry(smoke: Sandbox, registry: Program, tmp_path: Path) -> None:
    """`-o DIR` writes each, points `$schema` there, changes nothing else; what is made then names its own."""
    before = smoke.registry
    ran = registry("schema", "-o", smoke.folder / "schemas", "--registry", smoke.path)
    assert (ran.code, ran.out) == (0, "")
    assert smoke.registry == {**before, "$schema": "schemas/registry.schema.json"}
    assert registry("flip", "tiny", "--registry", smoke.path).code == 0
    assert check(smoke.folder / smoke.registry["$schema"], smoke.path).exit_code == 0
    for name in schemas.names():
        assert json.loads((smoke.folder / "schemas" / f"{name}.schema.json").read_text())["$id"]
    schema = smoke.folder / "schemas" / "fr_ensemble.schema.json"
    assert check(schema, smoke.artifacts / "manifest.json").exit_code == 0
    registry("train", "fr_ensemble", "--id", "new", "--smoke", "--registry", smoke.path)
    for pattern, name in (("new/*/manifest.json", "fr_ensemble"), ("tiny/verdicts/*.json", "verdict")):
        (document,) = smoke.folder.glob(pattern)
        where = document.parent / json.loads(document.read_bytes())["$schema"]
        assert where.resolve() == (smoke.folder / "schemas" / f"{name}.schema.json").resolve()
    strict = registry("validate", smoke.path, "--strict")
    assert (strict.code, strict.out.count("\n")) == (0, 1), strict.out
    old = tmp_path / "registry.json"
    old.write_text('{"schema_version": 1, "models": []}')
    ran = registry("schema", "-o", tmp_path / "schemas", "--registry", old)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert old.read_text() == '{"schema_version": 1, "models": []}'


def test_findings_of_a_registry_are_checked_by_others(registry: Program, tmp_path: Path) -> None:
    """The output of `validate --format json` against the printed schema of it."""
    registry("validate", MODEL, "--level", "quick", "--format", "json", "-o", tmp_path / "findings.json")
    (tmp_path / "schema.json").write_text(registry("schema", "findings").out)
    assert check(tmp_path / "schema.json", tmp_path / "findings.json").exit_code == 0
