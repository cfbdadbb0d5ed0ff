"""How much memory a large registry takes, in a process of its own. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from sandbox import to_json

pytestmark = pytest.mark.slow

MOST = 512 * 2**20  # bytes resident, at the peak
SCRIPT = """
import re, sys
from registry_tool import cli
sys.argv = ["registry", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    code = int(end.code or 0)
print()
status = open("/proc/self/status").read()  # not getrusage: its peak is that of the process that forked us, too
print(code, int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
"""


def peak(*arguments: object) -> tuple[int, int, str]:
    """(exit code, peak of resident bytes, output) of a run of the program."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    *lines, last = ran.stdout.splitlines()
    code, size = last.split()
    return int(code), int(size), "\n".join(lines)


def many(folder: Path, n: int) -> Path:
    """A registry of n entries, each with an id and a file name of its own, all hard links of one model."""
    row = tiny_models.entry(folder, tiny_models.model(), "m0")
    rows = [row]
    for number in range(1, n):
        (folder / f"m{number}.onnx").hardlink_to(folder / "m0.onnx")
        rows.append({**row, "id": f"m{number}", "onnx": f"m{number}.onnx"})
    (folder / "registry.json").write_bytes(to_json({"schema_version": 1, "models": rows}))
    return folder / "registry.json"


def test_ten_thousand_entries_stay_below_the_ceiling(tmp_path: Path) -> None:
    """--level quick on 10,000 entries is valid and keeps no file in memory."""
    code, size, out = peak("validate", many(tmp_path, 10_000), "--level", "quick")
    assert (code, "10000 entries" in out.replace(",", "")) == (0, True)
    assert size < MOST


@pytest.mark.parametrize("name", ["m0.onnx", "m0.json", "registry.json"])
def test_two_gibibytes_are_refused_by_their_size(tmp_path: Path, name: str) -> None:
    """A sparse file in the place of a model, a sidecar or the registry is a finding, and nothing of it is read."""
    path = many(tmp_path, 1)
    with (tmp_path / name).open("wb") as file:
        file.truncate(2 * 2**30)
    code, size, out = peak("validate", path, "--format", "json")
    assert code == 1
    assert {finding["code"] for finding in json.loads(out)["findings"]} == {"file-too-large"}
    assert size < MOST // 2
