"""schema.py: holds documents against JSON Schemas and says in one line what is wrong. Reads packaged schemas only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import registry_tool.schemas as schemas
from registry_tool.errors import PluginError
from registry_tool.strictjson import pointer
from registry_tool.values import Json

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

MAX_VIOLATIONS = 50  # a document: past this, more lines help nobody
MAX_SHOWN = 80  # characters of a found value in a message


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a document breaks its schema; pointer: RFC 6901, into the document."""

    code: str
    pointer: str
    message: str
    found: str | None = None
    expected: str | None = None
    hint: str | None = None


@cache
def _registry() -> Any:
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


def violations(document: Json, schema: Mapping[str, Json]) -> list[Violation]:
    """Every violation, in the document's order; [] for a valid document."""
    text = json.dumps(schema, sort_keys=True)
    found: list[Violation] = []
    try:
        if (is_valid := _fast(text)) is not None and is_valid(document):
            return []
        for error in _validator(text).iter_errors(document):
            found.extend(_violations_of(error))
            if len(found) >= MAX_VIOLATIONS:
                break
    except Exception as error:  # our own schemas are tested; what is wrong here is a plugin's
        what = str(error).partition("\n")[0]
        raise PluginError(f"its schema is no JSON Schema: {type(error).__name__}: {what}: repair it") from error
    return sorted(set(found), key=lambda v: (v.pointer, v.code, v.message))


def show(value: Json) -> str:
    """A value as JSON, short enough for a line."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _violations_of(error: ValidationError) -> Iterator[Violation]:
    place = pointer(*error.absolute_path)
    instance: Any = error.instance
    limit: Any = error.validator_value
    schema: Any = error.schema
    match error.validator:
        case "required":
            # jsonschema yields one error for each missing field, without naming it but in a sentence: all, each time.
            for name in limit:
                if name not in instance:
                    yield Violation(
                        "schema-required", place, f"the field {name!r:.80} is missing", hint=f"add {name!r:.80}"
                    )
        case "additionalProperties" | "unevaluatedProperties" if limit is False:
            import difflib

            known = sorted(schema.get("properties", {}))
            patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", {})]
            for name in sorted(set(instance) - set(known)):
                if any(pattern.search(name) for pattern in patterns):
                    continue
                yield Violation(
                    "schema-unknown-field",
                    place + pointer(name),
                    f"the field {show(name)} is not known here",
                    hint=f"did you mean {near[0]!r:.80}?"
                    if (near := difflib.get_close_matches(name, known, 1))
                    else "remove it",
                )
        case "type":
            wanted = limit if isinstance(limit, str) else " or ".join(limit)
            yield Violation("schema-type", place, "wrong type", _type_name(error.instance), wanted)
        case "enum" | "const":
            wanted = " or ".join(show(v) for v in limit) if error.validator == "enum" else show(limit)
            yield Violation("schema-value", place, "wrong value", show(error.instance), wanted)
        case "oneOf" | "anyOf":
            options = [option for option in limit if isinstance(option, dict)]
            choices = [option["required"] for option in options if "required" in option]
            fields = [" and ".join(names) for names in choices]
            if len(fields) == len(options) and isinstance(error.instance, dict):
                present = [" and ".join(names) for names in choices if set(names) <= error.instance.keys()]
                hint = f"keep one of {', '.join(fields)}"
                yield Violation(
                    "schema-choice", place, "one choice of fields is expected", " and ".join(present) or "none",
                    "exactly one of " + ", ".join(fields), hint,
                )  # fmt: skip
            else:
                yield Violation(
                    "schema-choice", place, "matches none or several of the allowed forms", show(error.instance)
                )
        case "pattern":
            yield Violation("schema-value", place, "wrong form", show(error.instance), _plain(str(limit)))
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            side = "at least" if str(error.validator).startswith("min") else "at most"
            yield Violation("schema-value", place, "wrong length", f"a length of {len(instance)}", f"{side} {limit}")
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            sign = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
            yield Violation(
                "schema-value", place, "out of range", show(error.instance), f"{sign[str(error.validator)]} {limit}"
            )
        case _:
            yield Violation("schema-value", place, " ".join(error.message.split())[:200])


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
