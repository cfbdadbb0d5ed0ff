"""schema_fields.py: the fields of the schemas, and documents with another value at one of them. Asserts nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

from places import ROOT

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.testing.changes import DocumentPath, look, other_values, places, replaced

Codes = set[str]
Document = Any  # JSON
More = Mapping[str, Sequence[tuple[DocumentPath, Any]]]  # field -> (place, value), where an example need not have it
MOST_TRIED = 6  # other values of a field that is called held


@cache
def _reader() -> Any:
    """The one that docs/formats.md is made with: it follows references and choices."""
    folder = ROOT / "docs"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("generate_formats", folder / "generate_formats.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module.Reader()


@cache
def fields_of(name: str) -> Mapping[str, Sequence[Any]]:
    """Field -> the values that its schema names, if it names some; called as in docs/formats.md.

    What has fields of its own is left out.
    """
    reader, schema = _reader(), _reader().files[f"{name}.schema.json"]
    found: dict[str, list[Any]] = {}
    for shown, values, _ in reader.fields(schema, schema):
        named = [json.loads(text) for text in re.findall(r'`("[^`]*"|true|false|\d+)`', values)]
        found.setdefault(shown.strip("*`"), []).extend(named)
    return {
        one: values for one, values in found.items() if not any(f.startswith((f"{one}.", f"{one}[]")) for f in found)
    }


def _is_at(place: DocumentPath, name: str) -> bool:
    """Whether docs/formats.md calls a place so: `a[].b`, and `a.*` for any name."""
    parts = re.findall(r"\[\]|[^.\[\]]+", name)
    return len(parts) == len(place) and all(
        part == ("[]" if isinstance(key, int) else key) or (part == "*" and isinstance(key, str))
        for part, key in zip(parts, place, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Example:
    """A valid document. put: writes another one in its place, all pins fitting, and gives what each level finds."""

    document: Document
    put: Callable[[Document], Iterator[Codes]]
    more: More = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.more or any(_is_at(place, name) for place in places(self.document))

    def changes(self, schema: str, name: str) -> Iterator[Document]:
        """The documents with another value there that the schema takes; all, where it takes one value alone."""
        tried, refused = 0, []
        for changed in self._changes(schema, name):
            if violations(changed, schemas.load(schema)):
                refused.append(changed)
            else:
                tried += 1
                yield changed
        yield from () if tried else refused

    def _changes(self, schema: str, name: str) -> Iterator[Document]:
        yield from (_with(self.document, place, value) for place, value in self.more.get(name, ()))
        found = [place for place in places(self.document) if _is_at(place, name)]
        for place in dict.fromkeys((*found[:1], *found[-1:])):
            value = look(self.document, place)
            named = [other for other in fields_of(schema)[name] if other != value]
            yield from (replaced(self.document, place, other) for other in (*named, *_others(value)))

    def finds(self, schema: str, name: str, code: str) -> bool:
        """Whether another value there is found, by this code."""
        tried = islice(self.changes(schema, name), MOST_TRIED)
        return any(code in codes for changed in tried for codes in self.put(changed))


def _with(document: Document, place: DocumentPath, value: Any) -> Document:
    """A copy with this value at a place that need not be there."""
    if not place:
        return value
    key, rest = place[0], place[1:]
    if isinstance(key, int):
        return [*document[:key], _with(document[key], rest, value), *document[key + 1 :]]
    inner = document.get(key)
    return {**document, key: _with({} if inner is None else inner, rest, value)}


def _others(value: Any) -> Iterator[Any]:
    """Other values of the same type, and of an item."""
    yield from (item for word, item in other_values(value) if not word.startswith("made "))
    match value:
        case str():
            yield from (f"x{value}", f"{value} x")
        case int() | float() if not isinstance(value, bool):
            yield from (value - 1, value / 2)
        case list() if value:
            yield value[:-1]
            yield from ([other, *value[1:]] for other in _others(value[0]))
        case dict() if value:
            key = next(iter(value))
            yield from ({**value, key: other} for other in _others(value[key]))
