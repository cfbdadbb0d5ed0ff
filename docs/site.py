"""site.py: what mkdocs is told beside mkdocs.yml: anchors, and links that lead out of docs/. Writes nothing."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
WHOLE_FOLDERS = ("adr", "models")
HEADING_PATTERN = re.compile(r"^\*\*(.+?)\*\*[^\n]*\n(.*?)(?=^\*\*|\Z)", re.MULTILINE | re.DOTALL)
ITEM_PATTERN = re.compile(r"^- \[[^\]]*\]\(([^)#]+)", re.MULTILINE)
NO_ANCHOR = re.compile(r"[^\w\- ]")
LINK_PATTERN = re.compile(r"(?<!!)\[(?P<words>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")


def on_config(config: Any) -> Any:
    """The menu is the list of README.md; headings have the anchors that GitHub gives them."""
    config.mdx_configs["toc"] = {"slugify": anchor}
    config.nav = [{"Start": "README.md"}, *menu(DOCS / "README.md")]
    return config


def menu(page: Path) -> Iterator[dict[str, list[str]]]:
    """For each heading in bold, the documents listed below it; a folder of WHOLE_FOLDERS has all its pages."""
    for heading, text in HEADING_PATTERN.findall(page.read_text(encoding="utf-8")):
        paths = [path for path in ITEM_PATTERN.findall(text) if not path.startswith("../")]
        folders = {posixpath.dirname(path) for path in paths if posixpath.dirname(path) in WHOLE_FOLDERS}
        pages = [path for path in paths if posixpath.dirname(path) not in WHOLE_FOLDERS]
        whole = sorted(p.relative_to(DOCS).as_posix() for folder in folders for p in (DOCS / folder).glob("*.md"))
        yield {heading: [*pages, *whole]}


def anchor(heading: str, separator: str) -> str:
    return NO_ANCHOR.sub("", heading.lower()).replace(" ", separator)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A link to a file outside docs/, which is on no site, becomes its words; mkdocs checks all others."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(found: re.Match[str]) -> str:
        path = found["target"].partition("#")[0]
        outside = ":" not in path and posixpath.normpath(posixpath.join(folder, path)).startswith("../")
        return found["words"] if outside else found[0]

    return LINK_PATTERN.sub(inside, markdown)
