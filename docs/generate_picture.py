"""generate_picture.py: docs/report.png, the report on a model of model/ as a browser shows it. Adds nothing to it.

Needs Chromium, as `chromium` or by its path: `python docs/generate_picture.py [CHROMIUM]`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from registry_tool.plugins.manager import load
from registry_tool.report.html import render_overview
from registry_tool.workflows.overview import gather

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "report.png"
ENTRY, SHOWN = (
    "fr_vmaf_ensemble_v1",
    "Coverage by source",
)  # the figure on the right; the page's beginning is left of it
WIDTH, HEIGHT, SCALE = 1120, 1200, 0.5  # CSS pixels of each half, and how much smaller it is drawn
SECONDS = 60


def halves(page: str) -> str:
    """Two frames side by side: the page from its beginning, and from the figure on."""
    found = re.search(rf'id="(figure-\d+)"[^>]*><figcaption><h3>{SHOWN}<', page)
    if found is None:
        raise SystemExit(f"{ENTRY}: found no figure {SHOWN!r}, expected one in its report")
    style = f"width:{WIDTH}px;height:{HEIGHT}px;border:0;transform:scale({SCALE});transform-origin:0 0"
    box = f"display:inline-block;overflow:hidden;width:{WIDTH * SCALE}px;height:{HEIGHT * SCALE}px"
    frames = (
        f'<span style="{box}"><iframe src="report.html{at}" style="{style}"></iframe></span>'
        for at in ("", f"#{found[1]}")
    )
    return f'<!doctype html><body style="margin:0;white-space:nowrap;font-size:0">{"".join(frames)}'


def main(chromium: str = "chromium") -> None:
    program = shutil.which(chromium)
    if program is None:
        raise SystemExit(f"{chromium}: not found, expected Chromium: install it, or name its path")
    page = render_overview(gather(ROOT / "model" / "registry.json", load(), ENTRY))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "report.html").write_text(page, encoding="utf-8")
        (base / "picture.html").write_text(halves(page), encoding="utf-8")
        size = f"--window-size={int(2 * WIDTH * SCALE)},{int(HEIGHT * SCALE)}"
        quiet = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={base / 'profile'}",
        )
        command = [program, *quiet, size, "--force-device-scale-factor=1.25", f"--screenshot={PICTURE}"]
        subprocess.run([*command, (base / "picture.html").as_uri()], check=True, capture_output=True, timeout=SECONDS)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
