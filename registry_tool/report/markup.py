"""markup.py: HTML and SVG from values, escaped unless it is markup already. Knows no page."""

from __future__ import annotations

import html

from registry_tool.values import visible

VOID = {"meta", "br", "path", "line", "rect"}  # elements that never hold anything


class Markup(str):
    """Text that was escaped, or written as markup here; every other text is data."""

    __slots__ = ()


def escape(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value))))


def join(*parts: object) -> Markup:
    return Markup("".join(map(escape, parts)))


def el(tag: str, /, *children: object, **attributes: object) -> Markup:
    """One element; `class_` is class, `stroke_width` stroke-width, an attribute of None is left out, True is bare."""
    words = [tag]
    for key, value in attributes.items():
        if value is not None:
            word = key.rstrip("_").replace("_", "-")
            words.append(word if value is True else f'{word}="{escape(value)}"')
    head = " ".join(words)
    if tag in VOID:
        return Markup(f"<{head}>" if tag in ("meta", "br") else f"<{head}/>")
    return Markup(f"<{head}>{join(*children)}</{tag}>")
