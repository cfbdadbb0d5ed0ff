"""changes.py: systematic changes to a JSON document, for tests that want each of them found. Writes nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

from registry_tool.values import Json

DocumentPath = tuple[str | int, ...]


def places(value: Json, base: DocumentPath = (), *, ends: bool = False) -> Iterator[DocumentPath]:
    """Every value in a document, the outermost left out; ends: of a list the first and the last item alone."""
    items: Iterable[tuple[str | int, Json]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = list(enumerate(value))
        items = items[:1] + items[1:][-1:] if ends else items
    for key, item in items:
        yield (*base, key)
        yield from places(item, (*base, key), ends=ends)


def look(document: Json, place: DocumentPath) -> Json:
    for key in place:
        document = document[key]
    return document


def other_values(value: Json) -> Iterator[tuple[str, Json]]:
    """(what was done, another value): changes that keep the type, then values of other types."""
    match value:
        case bool():
            yield "changed", not value
        case int():
            yield from (("changed", value + 1), ("made huge", 10**19))
        case float():
            yield from (("changed", value * 1.5 + 0.125), ("made huge", 1e308))
        case str() if value and value[-1] in "0123456789abcdef":
            yield "changed", value[:-1] + ("0" if value[-1] != "0" else "1")
        case str():
            yield "changed", value + "x"
        case list():
            yield "changed", [*value, *value[-1:]] if value else ["x"]
        case dict():
            yield "changed", {}
    if isinstance(value, str | list) and value:
        yield from (("emptied", value[:0]), ("made long", value * (300 if isinstance(value, str) else 30)))
        if isinstance(value, list) and value[::-1] != value:
            yield "reversed", value[::-1]
    yield from other_types(value)


def other_types(value: Json) -> Iterator[tuple[str, Json]]:
    """(what was done, a value of another type)."""
    others = {"a text": "x y", "a number": -7.5, "true": True, "null": None, "a list": [[]], "an object": {"x": 1}}
    for word, item in others.items():
        if type(item) is not type(value) and not (isinstance(item, float) and isinstance(value, int | float)):
            yield f"made {word}", item


def replaced(document: Json, place: DocumentPath, item: Json) -> Json:
    """The document with another value at a place; the two share what is the same."""
    key, *rest = place
    changed = copy.copy(document)
    changed[key] = replaced(document[key], tuple(rest), item) if rest else item
    return changed


def dropped(document: Json, place: DocumentPath) -> Json:
    """The document without the value at a place; the two share what is the same."""
    *parent, key = place
    kept = copy.copy(look(document, tuple(parent)))
    del kept[key]
    return replaced(document, tuple(parent), kept) if parent else kept


def document_changes(document: Json, *, ends: bool = False) -> Iterator[tuple[str, DocumentPath, Json]]:
    """(what was done, where, the changed document) for every value: other values, and the value dropped."""
    for place in places(document, ends=ends):
        name = "/" + "/".join(map(str, place))
        for word, item in other_values(look(document, place)):
            yield f"{name} {word}", place, replaced(document, place, item)
        yield f"{name} dropped", place, dropped(document, place)


def few_changes(document: Json) -> Iterator[tuple[str, DocumentPath, Json]]:
    """As `document_changes`, three a value: dropped, changed within its type, of another type, each kind in turn."""
    for number, place in enumerate(places(document, ends=True)):
        value, name = look(document, place), "/" + "/".join(map(str, place))
        others = list(other_types(value))
        kept = [change for change in other_values(value) if change not in others]
        for changes in filter(None, (kept, others)):
            word, item = changes[number % len(changes)]
            yield f"{name} {word}", place, replaced(document, place, item)
        yield f"{name} dropped", place, dropped(document, place)
