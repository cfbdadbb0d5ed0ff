"""evidence_limits.py: `registry gate` and `validate` on evidence at each of its documented limits; time and memory.

    python benchmarks/evidence_limits.py [--only NAME ...] [--divide N]

The evidence of the shipped entry is replaced by invented predictions at a limit, and every pin is made to fit, so that
all of it is read and measured. What the commands say of it is no matter (it is evidence of other sources than the
manifest names); that they end is. Each run is a process of its own: wall seconds, greatest resident memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fr_ensemble.artifacts.paths import BASELINES_PATH, OOF_PATH
from fr_ensemble.evidence.baselines import BASELINES, Baselines, write_baselines
from fr_ensemble.evidence.comparisons import MAX_COMPARED
from fr_ensemble.evidence.loso import to_files
from fr_ensemble.evidence.oof import (
    MAX_CLIPS,
    MAX_FOLDS,
    MAX_PREDICTIONS,
    MAX_ROWS,
    MAX_ROWS_TIMES_SOURCES,
    MAX_SEEDS,
    MAX_SOURCES,
    Oof,
    read_oof,
    write_oof,
)

from registry_tool.archive import MAX_BYTES
from registry_tool.plugins.manager import load
from registry_tool.testing.bench import Bench
from registry_tool.values import Json

PERIOD = 1021
ROOM = MAX_BYTES - 2**22  # the other arrays of a file take less than 4 MiB
CHILD = """
import resource, subprocess, sys
ran = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss // 1024, used.ru_utime + used.ru_stime, ran.returncode, (ran.stdout + ran.stderr)[:160], sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of what evidence holds. vmaf: whether it has a column of plain VMAF to be compared with."""

    rows: int
    sources: int
    seeds: int = 5
    clips: int = 0  # four of each source where 0
    vmaf: bool = False

    def divided(self, n: int) -> Size:
        """A nth of the rows, with at least four rows of each source."""
        rows = self.rows // n
        return replace(self, rows=rows, sources=min(self.sources, max(2, rows // 4)), clips=self.clips // n)


MOST_ROWS = MAX_PREDICTIONS // 5
BOTH = Size(MOST_ROWS, MAX_ROWS_TIMES_SOURCES // MOST_ROWS)
SIZES = {
    "folds and sources": Size(MAX_ROWS_TIMES_SOURCES // MAX_SOURCES, MAX_SOURCES),
    "rows": Size(MOST_ROWS, 2),
    "predictions and rows times sources": BOTH,
    "two seeds": Size(MAX_ROWS, MAX_ROWS_TIMES_SOURCES // MAX_ROWS, 2),
    "many seeds": Size(MAX_PREDICTIONS // MAX_SEEDS, MAX_FOLDS // MAX_SEEDS, MAX_SEEDS),
    "clips": replace(BOTH, clips=MAX_CLIPS),
    "plain VMAF": Size(MOST_ROWS, MAX_COMPARED // MOST_ROWS, vmaf=True),
}


def invented(size: Size) -> Oof:
    """Predictions that repeat, so that they pack into a file within the limit of a file."""
    rng, rows, sources = np.random.default_rng(0), size.rows, size.sources
    source = np.arange(rows) * sources // rows
    target = np.resize(rng.uniform(0, 100, PERIOD), rows)
    errors = (np.resize(rng.normal(0, 2, PERIOD), rows) for _ in range(size.seeds))
    predictions = np.stack([np.clip(target + error, 0, 100) for error in errors])
    n_clips = size.clips or sources * 4
    clip = np.arange(rows) * n_clips // rows
    vmaf = np.clip(target + np.resize(rng.normal(0, 5, PERIOD), rows), 0, 100) if size.vmaf else None
    names = tuple(f"source{k:05d}" for k in range(sources))
    clips = tuple(f"clip{k:05d}" for k in range(n_clips))
    digests = ("0" * 64, "0" * 64, None)
    return Oof(tuple(range(size.seeds)), names, source, clips, clip, target, predictions, *digests, vmaf)


def long_names(oof: Oof) -> dict[str, bytes]:
    """The same predictions of sources whose names fill what may be unpacked; four bytes a character."""
    length = ROOM // 4 // len(oof.sources)
    return {OOF_PATH: write_oof(replace(oof, sources=tuple(name.ljust(length, "x") for name in oof.sources)))}


def many_baselines(oof: Oof) -> dict[str, bytes]:
    """As many baselines as can be unpacked; eight bytes a row and baseline."""
    count = ROOM // 8 // len(oof.target)
    names = (*BASELINES, *(f"other{k}" for k in range(count - len(BASELINES))))
    same = np.full((count, len(oof.target)), np.float32(50.0))
    return {BASELINES_PATH: write_baselines(Baselines(names, same, same, oof.rows_sha256))}


UNPACKED = {"unpacked names": long_names, "unpacked baselines": many_baselines}


def forged(folder: Path, name: str, divide: int) -> Path:
    """The shipped registry with such evidence in the place of its first entry's."""
    shutil.copytree(Path(__file__).parents[1] / "model", folder)
    bench = Bench(folder / "registry.json", load(), "fr_ensemble")
    bench.edit_entry(smoke=True, promotion=None)
    if name in UNPACKED:
        files = UNPACKED[name](read_oof((bench.artifacts / OOF_PATH).read_bytes()))
        bench.forge(lambda manifest: None, files)
    else:
        size = SIZES[name] if divide == 1 else SIZES[name].divided(divide)
        files = to_files(invented(size), "corpus.parquet")
        bench.forge(without_baselines, files)
        print(f"  {size}", flush=True)
    print(f"  {max(map(len, files.values())) / 2**20:.1f} MiB", flush=True)
    return bench.path


def without_baselines(manifest: dict[str, Json]) -> None:
    """They are of the shipped rows."""
    del manifest["baselines"]
    manifest["evidence"] = [pin for pin in manifest["evidence"] if pin["path"] != BASELINES_PATH]


def measured(*arguments: object) -> dict[str, object]:
    command = [sys.executable, "-c", CHILD, sys.executable, "-m", "registry_tool", *map(str, arguments)]
    began = time.monotonic()
    size, used, code, *lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    cost = {"wall s": round(time.monotonic() - began, 1), "processor s": round(float(used), 1), "MiB": int(size)}
    return {**cost, "exit": int(code), "printed": lines[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SIZES, *UNPACKED], default=[*SIZES, *UNPACKED])
    parser.add_argument("--divide", type=int, default=1, help="take a Nth of the rows of each limit")
    options = parser.parse_args()
    print(platform.platform(), platform.python_version())
    for name in options.only:
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            path = forged(Path(scratch) / "model", name, options.divide)
            entry = next(row["id"] for row in json.loads(path.read_bytes())["models"])
            print("  gate    ", measured("gate", entry, "--registry", path), flush=True)
            print("  validate", measured("validate", path), flush=True)


if __name__ == "__main__":
    main()
