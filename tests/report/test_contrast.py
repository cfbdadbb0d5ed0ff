"""test_contrast.py: the colours of the page against what they lie on, light and dark: WCAG 2.2 AA."""

from __future__ import annotations

import re

import pytest
from places import ROOT

from registry_tool.report.html import STRONGEST_SHADE

STYLE = (ROOT / "registry_tool" / "report" / "templates" / "page.css").read_text(encoding="utf-8")
TEXT, GRAPHICS = 4.5, 3.0  # least contrast of text (1.4.3) and of what a chart is read by (1.4.11)
WORDS = ("text", "soft", "link", "good", "bad", "note")
Colour = tuple[float, float, float]


def colour(value: str) -> Colour:
    """#rgb, #rrggbb or three numbers up to 255, as shares."""
    if value.startswith("#"):
        digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
        value = " ".join(str(int(digits[i : i + 2], 16)) for i in (0, 2, 4))
    red, green, blue = (int(part) / 255 for part in value.split())
    return red, green, blue


def palettes() -> dict[str, dict[str, Colour]]:
    """Of the style's two :root blocks; the dark one says anew what it changes."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light, dark = (
        {name: colour(value) for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{3,6}|\d+ \d+ \d+);", block)}
        for block in blocks[:2]
    )
    return {"light": light, "dark": light | dark}


def contrast(one: Colour, other: Colour) -> float:
    """WCAG 2.2, 'contrast ratio' and 'relative luminance'."""

    def luminance(of: Colour) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in of]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dim, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def over(top: Colour, strength: float, below: Colour) -> Colour:
    red, green, blue = (strength * a + (1 - strength) * b for a, b in zip(top, below, strict=True))
    return red, green, blue


def pairs(palette: dict[str, Colour]) -> dict[str, tuple[float, float]]:
    """What lies on what -> its contrast, and the least."""
    page = palette["page"]
    heat = over(palette["heat"], STRONGEST_SHADE, page)
    return (
        {
            f"{name} on {back}": (contrast(palette[name], palette[back]), TEXT)
            for name in WORDS
            for back in ("page", "panel")
        }
        | {f"{name} on its badge": (contrast(palette[name], palette[f"{name}-back"]), TEXT) for name in WORDS[3:]}
        | {"text on the strongest shade": (contrast(palette["text"], heat), TEXT)}
        | {f"c{i} on page": (contrast(palette[f"c{i}"], page), GRAPHICS) for i in range(7)}
    )


def test_contrast_of_known_colours() -> None:
    """Black on white is 21, and the grey #767676 is the lightest that WCAG takes for text on white."""
    white = colour("#fff")
    assert contrast(colour("0 0 0"), white) == pytest.approx(21.0)
    assert contrast(colour("#767676"), white) >= TEXT > contrast(colour("#777777"), white)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_the_contrast_of_aa(scheme: str) -> None:
    """Every text, and every line and mark of a chart, has the contrast that AA asks for."""
    found = pairs(palettes()[scheme])
    assert {name: ratio for name, (ratio, least) in found.items() if ratio < least} == {}
    assert len(found) == 2 * len(WORDS) + 3 + 1 + 7
