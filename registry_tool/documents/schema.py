"""schema.py: checks documents against JSON Schemas and says in one line what is wrong. Reads packaged schemas only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import registry_tool.schemas as schemas
from registry_tool.errors import PluginError
from registry_tool.findings import Finding, FindingRule
from registry_tool.strictjson import pointer
from registry_tool.values import Json

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from referencing import Registry

MAX_VIOLATIONS = 50  # a document: more lines than that do not help
MAX_SHOWN = 80  # characters of a found value in a message


REQUIRED = FindingRule(
    "schema-required",
    "missing field",
    why="Readers rely on it.",
    message="missing field {name}",
    hint="add {name}",
    example="an entry without sha256",
)
UNKNOWN_FIELD = FindingRule(
    "schema-unknown-field",
    "unknown field",
    why="Readers silently ignore a misspelt field.",
    message="unknown field {name}",
    hint="correct the name, or remove it",
    example='"smokes": true',
)
TYPE = FindingRule(
    "schema-type",
    "wrong type",
    why="A text for a number passes comparisons it should fail.",
    hint="write a value of that type",
    example='"smoke": "false"',
)
VALUE = FindingRule(
    "schema-value",
    "value with the wrong form, length or range",
    why="It means nothing, or something else to another reader.",
    message="{fault}",
    hint="correct the value",
    example='"opset": 99',
)
CHOICE = FindingRule(
    "schema-choice",
    "none or several of an either-or",
    why="It is unclear which one counts.",
    message="{fault}",
    hint="keep exactly one of them",
    example="an entry with both onnx and manifest",
)


@cache
def _registry() -> Registry[Json]:
    from referencing import Registry, Resource

    resources = [Resource.from_contents(schemas.load(name)) for name in schemas.names()]
    return Registry().with_resources([(resource.id() or "", resource) for resource in resources])


@cache
def _validator(text: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(text), registry=_registry())


@cache
def _fast(text: str) -> Callable[[Json], bool] | None:
    """jsonschema-rs's yes or no for a schema, where that package is installed; it never decides what is wrong."""
    try:
        import jsonschema_rs
    except ImportError:
        return None
    registry = jsonschema_rs.Registry([(schemas.load(name)["$id"], schemas.load(name)) for name in schemas.names()])
    validator = jsonschema_rs.Draft202012Validator(json.loads(text), registry=registry, validate_formats=False)
    return validator.is_valid


def is_valid(document: Json, schema: Mapping[str, Json]) -> bool:
    """Whether there are no violations, without looking for more than one."""
    text = json.dumps(schema, sort_keys=True)
    fast = _fast(text)
    return (fast is not None and fast(document)) or bool(_validator(text).is_valid(document))


def violations(document: Json, schema: Mapping[str, Json]) -> list[Finding]:
    """Every violation, in the document's order; [] for a valid document."""
    text = json.dumps(schema, sort_keys=True)
    found: list[Finding] = []
    try:
        if (is_valid := _fast(text)) is not None and is_valid(document):
            return []
        for error in _validator(text).iter_errors(document):
            found.extend(_violations_of(error))
            if len(found) >= MAX_VIOLATIONS:
                break
    except Exception as error:  # our own schemas are tested; what is wrong here is a plugin's
        text = str(error).partition("\n")[0]
        raise PluginError(f"its schema is no JSON Schema: {type(error).__name__}: {text}: repair it") from error
    return sorted(set(found), key=lambda v: (v.pointer or "", v.code, v.message))


def show(value: Json) -> str:
    """A value as JSON, short enough for a line."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _violations_of(error: ValidationError) -> Iterator[Finding]:
    describe = KEYWORD_FINDINGS.get(str(error.validator), _other)
    yield from describe(error, pointer(*error.absolute_path))


def _missing(error: Any, place: str) -> Iterator[Finding]:
    """jsonschema yields one error for each missing field, without naming it but in a sentence: all, each time."""
    for name in error.validator_value:
        if name not in error.instance:
            yield REQUIRED.at(None, place, name=f"{name!r:.80}")


def _unknown(error: Any, place: str) -> Iterator[Finding]:
    if error.validator_value is not False:
        yield from _other(error, place)
        return
    import difflib

    known = sorted(error.schema.get("properties", {}))
    patterns = [re.compile(pattern) for pattern in error.schema.get("patternProperties", {})]
    for name in sorted(set(error.instance) - set(known)):
        if not any(pattern.search(name) for pattern in patterns):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r:.80}?" if near else "remove it"
            yield UNKNOWN_FIELD.at(None, place + pointer(name), name=show(name), hint=hint)


def _mistyped(error: Any, place: str) -> Iterator[Finding]:
    types = error.validator_value
    expected = types if isinstance(types, str) else " or ".join(types)
    yield TYPE.at(None, place, found=_type_name(error.instance), expected=expected)


def _unlisted(error: Any, place: str) -> Iterator[Finding]:
    values = error.validator_value if error.validator == "enum" else [error.validator_value]
    yield VALUE.at(
        None, place, found=show(error.instance), expected=" or ".join(map(show, values)), fault="wrong value"
    )


def _none_or_several(error: Any, place: str) -> Iterator[Finding]:
    options = [option for option in error.validator_value if isinstance(option, dict)]
    choices = [option["required"] for option in options if "required" in option]
    if len(choices) != len(options) or not isinstance(error.instance, dict):
        yield CHOICE.at(None, place, found=show(error.instance), fault="not exactly one of the allowed forms")
        return
    fields = ", ".join(" and ".join(names) for names in choices)
    present = [" and ".join(names) for names in choices if set(names) <= error.instance.keys()]
    yield CHOICE.at(
        None,
        place,
        found=" and ".join(present) or "none",
        expected=f"exactly one of {fields}",
        hint=f"keep one of {fields}",
        fault="not exactly one of several fields",
    )


def _misspelt(error: Any, place: str) -> Iterator[Finding]:
    expected = _plain(str(error.validator_value))
    yield VALUE.at(None, place, found=show(error.instance), expected=expected, fault="wrong form")


def _wrong_length(error: Any, place: str) -> Iterator[Finding]:
    side = "at least" if error.validator.startswith("min") else "at most"
    found, expected = f"a length of {len(error.instance)}", f"{side} {error.validator_value}"
    yield VALUE.at(None, place, found=found, expected=expected, fault="wrong length")


def _out_of_range(error: Any, place: str) -> Iterator[Finding]:
    expected = f"{BOUNDS[error.validator]} {error.validator_value}"
    yield VALUE.at(None, place, found=show(error.instance), expected=expected, fault="out of range")


def _other(error: Any, place: str) -> Iterator[Finding]:
    yield VALUE.at(None, place, fault=" ".join(error.message.split())[:200])


BOUNDS = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
KEYWORD_FINDINGS: Mapping[str, Callable[[Any, str], Iterator[Finding]]] = {  # keyword of JSON Schema -> what it finds
    "required": _missing,
    **dict.fromkeys(("additionalProperties", "unevaluatedProperties"), _unknown),
    "type": _mistyped,
    **dict.fromkeys(("enum", "const"), _unlisted),
    **dict.fromkeys(("oneOf", "anyOf"), _none_or_several),
    "pattern": _misspelt,
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _wrong_length
    ),
    **dict.fromkeys(BOUNDS, _out_of_range),
}


def _type_name(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"the boolean {show(value)}"
        case int() | float():
            return f"the number {show(value)}"
        case str():
            return f"the string {show(value)}"
        case list():
            return "an array"
        case _:
            return "an object"


def _plain(pattern: str) -> str:
    """The pattern without the portable end-of-text anchor, which says nothing to a person."""
    return "text matching " + pattern.replace("(?![\\s\\S])", "")
