"""templating.py: the templates of pages: every text is escaped, what is missing is an error. Knows no page."""

from __future__ import annotations

import json
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from registry_tool.values import Json, visible


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("registry_tool.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    found.filters["lines"] = lines
    return found


def render(template: str, **values: object) -> str:
    return environment().get_template(template).render(values)


def lines(document: Json) -> Markup:
    """JSON on lines of its own."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return Markup("\n").join(escape(visible(line)) for line in text.split("\n"))


def _visible(value: object) -> object:
    """What a page would obey or hide in a text, spelt out; markup is the templates' own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
