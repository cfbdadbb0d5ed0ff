"""Tests of the documents as a site: it is built, every link leads somewhere, a page loads nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning, about a link or a page that no menu shows, fails."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    """Each file of docs/ is one, and the index is the start."""
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages = {page.with_name("index.html") if page.stem == "README" else page for page in pages}
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_every_page_is_in_a_menu(site: Path) -> None:
    """The index leads to each page: its menus are the lists of docs/README.md."""
    start = (site / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="([^"#:]+\.html)', start))
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - linked <= {"404.html"}


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures lie beside the pages, so that they open without a network."""
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]*?\ssrc="([^"]+)"|<link[^>]*?\shref="([^"]+)"|url\(([^)]+)\)', text)
        sources = ["".join(source).strip("'\"") for source in loaded]
        assert [s for s in sources if re.match(r"(?:[a-z]+:)?//", s)] == [], path.name
