"""Tests of schema.py and the shipped schemas: one line a violation, anchored patterns, schemas that are schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool import schemas
from registry_tool.documents.schema import MAX_SHOWN, MAX_VIOLATIONS, show, violations
from registry_tool.strictjson import pointer

REGISTRY = schemas.load("registry")
ENTRY = {"id": "a", "kind": "fr", "onnx": "a.onnx", "sha256": "0" * 64, "smoke": True}
CLOSED = {"properties": {"sha256": {}}, "additionalProperties": False}
CHOICE = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}


def of(schema: dict[str, Any], document: Any) -> list[tuple[str, str]]:
    return [(v.code, v.pointer) for v in violations(document, schema)]


def in_entry(**fields: Any) -> list[tuple[str, str]]:
    return of(REGISTRY, {"schema_version": 2, "policies": {}, "models": [ENTRY | fields]})


@pytest.mark.parametrize("name", schemas.names())
def test_a_shipped_schema_is_a_schema(name: str) -> None:
    """Draft 2020-12, with an $id of its own."""
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert [schemas.load(other)["$id"] for other in schemas.names()].count(schema["$id"]) == 1


def patterns(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["pattern"]] if isinstance(value.get("pattern"), str) else []
        return found + [p for item in value.values() for p in patterns(item)]
    return [p for item in value for p in patterns(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", schemas.names())
def test_every_pattern_ends_at_the_end(name: str) -> None:
    """Neither $, which lets a newline follow, nor \\Z, which is no JSON Schema: nothing may follow."""
    for pattern in patterns(schemas.load(name)):
        assert pattern.endswith("(?![\\s\\S])"), pattern
        assert "$" not in pattern


def test_an_unknown_schema_is_no_schema() -> None:
    """A name that is not shipped is a mistake of the program."""
    with pytest.raises(FileNotFoundError):
        schemas.load("unheard_of")


@pytest.mark.parametrize(
    ("document", "schema", "expected"),
    [
        ({}, {"required": ["a"]}, ("schema-required", "", None, None, "add 'a'")),
        (1, {"type": "string"}, ("schema-type", "", "the number 1", "string", None)),
        (True, {"type": ["integer", "null"]}, ("schema-type", "", "the boolean true", "integer or null", None)),
        (None, {"type": "object"}, ("schema-type", "", "null", "object", None)),
        ([], {"type": "object"}, ("schema-type", "", "an array", "object", None)),
        ({}, {"type": "array"}, ("schema-type", "", "an object", "array", None)),
        ("a", {"type": "array"}, ("schema-type", "", 'the string "a"', "array", None)),
        ("a", {"enum": ["b", 1]}, ("schema-value", "", '"a"', '"b" or 1', None)),
        (3, {"const": 2}, ("schema-value", "", "3", "2", None)),
        ("x", {"pattern": "^a(?![\\s\\S])"}, ("schema-value", "", '"x"', "text matching ^a", None)),
        ("xy", {"maxLength": 1}, ("schema-value", "", "a length of 2", "at most 1", None)),
        ([], {"minItems": 1}, ("schema-value", "", "a length of 0", "at least 1", None)),
        (0, {"minimum": 1}, ("schema-value", "", "0", ">= 1", None)),
        (0, {"exclusiveMinimum": 0}, ("schema-value", "", "0", "> 0", None)),
        ({"c/d": 1}, {"properties": {"c/d": {"type": "null"}}}, ("schema-type", "/c~1d", "the number 1", "null", None)),
        ({"sha265": 1}, CLOSED, ("schema-unknown-field", "/sha265", None, None, "did you mean 'sha256'?")),
        ({"zzz": 1}, CLOSED, ("schema-unknown-field", "/zzz", None, None, "remove it")),
        ({}, CHOICE, ("schema-choice", "", "none", "exactly one of a, b", "keep one of a, b")),
    ],
)
def test_a_violation_says_where_found_and_expected(
    document: Any, schema: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    """One violation, with its pointer, and values as JSON, not as Python writes them; None is the rule's own hint."""
    code, pointer, found, allowed, hint = expected
    [violation] = violations(document, schema)
    assert violation.rule is not None
    assert (violation.code, violation.pointer) == (code, pointer)
    assert violation.hint == (violation.rule.hint if hint is None else hint)
    assert (violation.found, violation.expected) == (found, allowed)
    assert "\n" not in violation.message


def test_every_missing_field_is_named() -> None:
    """Two missing fields are two violations, each with its name."""
    assert {v.hint for v in violations({}, {"required": ["a", "b"]})} == {"add 'a'", "add 'b'"}


def test_a_document_of_violations_is_cut_off() -> None:
    """Past MAX_VIOLATIONS more lines help nobody; a valid document has none."""
    schema = {"items": {"type": "string"}}
    assert len(violations([1] * 1000, schema)) == MAX_VIOLATIONS
    assert violations(["a"] * 1000, schema) == []


@given(
    st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), lambda x: st.lists(x, max_size=3))
)
def test_a_shown_value_is_short_ascii(value: Any) -> None:
    """Whatever a document holds, a message shows it as one short line of plain text."""
    text = show(value)
    assert len(text) <= MAX_SHOWN
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("version", ["registry", "registry-v1"])
@pytest.mark.parametrize("bad", ["\u0430", "a\n", "A", "-a", "", "a" * 65, "a.b", "a/b", "\uff41", "a\u200b", 1, None])
def test_ids_that_look_like_ids_are_none(version: str, bad: Any) -> None:
    """Other alphabets, a newline at the end, invisible characters, wrong types: refused in every version."""
    number = 2 if version == "registry" else 1
    document = {"schema_version": number, "policies": {}, "models": [ENTRY | {"id": bad}]}
    [(code, pointer)] = of(schemas.load(version), document)
    assert (code in ("schema-value", "schema-type"), pointer) == (True, "/models/0/id")


@pytest.mark.parametrize("good", ["a", "0", "a" * 64, "a-b_c", "9lives"])
def test_ids_are_lower_case_words(good: str) -> None:
    """Letters, digits, - and _, at most 64."""
    assert in_entry(id=good) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"promotion": {"verdict": "a/v.json", "sha256": "0" * 64}},
        {"promotion": {"imported_from": "0" * 64}},
        {"promotion": {"manual": True, "reason": "seen"}},
        {"demotion": {"reason": "drifts", "manifest_sha256": "0" * 64}},
        {"demotion": {"reason": "drifts", "manifest_sha256": "0" * 64, "by": "another version"}},
        {"quant_mode": "fp32"},
        {"license_url": "https://example.org/licence", "notes": "", "opset": 17},
    ],
)
def test_what_an_entry_may_say(fields: dict[str, Any]) -> None:
    """Every form of promotion, a demotion, and the fields of version 1."""
    assert in_entry(**fields) == []


@pytest.mark.parametrize(
    "promotion",
    [
        {},
        {"manual": False, "reason": "x"},
        {"manual": True},
        {"manual": True, "reason": ""},
        {"verdict": "a/v.json"},
        {"verdict": "a/v.json", "sha256": "0" * 63},
        {"verdict": "a/v.json", "sha256": "0" * 64, "manual": True, "reason": "both"},
        {"imported_from": "yes"},
        "PROMOTE",
        True,
        [],
    ],
)
def test_a_promotion_has_one_form(promotion: Any) -> None:
    """A verdict with its digest, an import or a reason: one of them and nothing else."""
    assert in_entry(promotion=promotion) != []


@pytest.mark.parametrize("field", ["sha256", "smoke", "id", "kind"])
def test_what_an_entry_must_say(field: str) -> None:
    """In version 2 nothing of this has a default, smoke neither."""
    entry = {name: value for name, value in ENTRY.items() if name != field}
    found = of(REGISTRY, {"schema_version": 2, "policies": {}, "models": [entry]})
    assert found == [("schema-required", "/models/0")]


def test_version_1_keeps_its_rules() -> None:
    """There unknown fields are refused, and smoke may be absent."""
    v1 = schemas.load("registry-v1")
    entry = {name: value for name, value in ENTRY.items() if name != "smoke"}
    assert of(v1, {"schema_version": 1, "models": [entry]}) == []
    assert of(v1, {"schema_version": 1, "models": [entry | {"x": 1}]}) == [("schema-unknown-field", "/models/0/x")]
    assert of(v1, {"schema_version": 1, "models": [], "x": 1}) == [("schema-unknown-field", "/x")]


def test_a_schema_file_is_the_one_source() -> None:
    """What a caller gets is the file's own content."""
    assert json.loads(json.dumps(REGISTRY))["$id"] == "urn:registry-tool:registry:2"


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["'", '"', "a'b", "\\", "\n", "~/"]
)


@given(st.sets(NAMES, min_size=1, max_size=6), st.data())
def test_missing_fields_are_named_whatever_they_are_called(names: set[str], data: st.DataObject) -> None:
    """Each field that is missing has one violation, with quotes, slashes and line ends in its name."""
    present = data.draw(st.sets(st.sampled_from(sorted(names))))
    found = violations(dict.fromkeys(present, 1), {"type": "object", "required": sorted(names)})
    assert [violation.code for violation in found] == ["schema-required"] * len(names - present)
    assert {violation.message for violation in found} == {f"missing field {name!r:.80}" for name in names - present}
    assert not any("\n" in violation.message for violation in found)


@given(st.sets(NAMES, min_size=1, max_size=6), st.data())
def test_unknown_fields_are_named_whatever_they_are_called(names: set[str], data: st.DataObject) -> None:
    """Each field that the schema does not know has one violation, at its place; those that fit a pattern have none."""
    known = data.draw(st.sets(st.sampled_from(sorted(names))))
    schema = {
        "properties": {name: {} for name in known},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }
    found = violations(dict.fromkeys(names, 1) | {"x-mine": 1}, schema)
    assert {violation.pointer for violation in found} == {pointer(name) for name in names - known}


def test_a_choice_of_several_fields_says_which_are_there() -> None:
    """Where a form asks for two fields together, both have to be there to count as found."""
    schema = {"oneOf": [{"required": ["a", "b"]}, {"required": ["c"]}]}
    for document, words in (({"a": 1}, "none"), ({"a": 1, "b": 1, "c": 1}, "a and b and c")):
        (violation,) = violations(document, schema)
        assert (violation.found, violation.expected) == (words, "exactly one of a and b, c")
