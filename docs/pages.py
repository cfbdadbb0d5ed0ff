"""pages.py: what the generators of this folder share: writing a page, or comparing it with what is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def publish(page: Path, render: Callable[[], str]) -> None:
    """Write the page; with `--check` only compare: exit 1 where it is not current."""
    command = f"python docs/{Path(sys.argv[0]).name}"
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {command} [--check]")
    text = render()
    if not sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
    elif not page.exists() or page.read_text(encoding="utf-8") != text:
        sys.exit(f"{page}: not current: run `{command}`")


def cell(text: str) -> str:
    """Text on one line, as a cell of a table in Markdown takes it."""
    return " ".join(text.split()).replace("|", "\\|")
