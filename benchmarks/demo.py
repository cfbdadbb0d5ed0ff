"""demo.py: the main job, end to end, in a scratch registry: train, gate, flip, validate, predict; then what it did.

Runs the same commands a person would type, and prints them. Leaves its registry in .demo/ to look at.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(".demo")
REGISTRY = FOLDER / "registry.json"
ROWS = FOLDER / "rows.csv"
MODEL = "vmaf_ensemble"


def run(*arguments: str) -> str:
    """Run `registry ARGUMENTS`, show it, and return what it printed; ends the demo where it fails."""
    print(f"\n$ registry {' '.join(arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "registry_tool", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: registry {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def write_rows() -> None:
    """A few rows of the shipped corpus, as somebody's own CSV would have them."""
    import pyarrow.parquet as pq
    from fr_ensemble.corpus.vocabulary import CANONICAL_6
    from fr_ensemble.hooks.train import SHIPPED

    table = pq.read_table(SHIPPED, columns=["src", "encoder", "quality", *CANONICAL_6, "vmaf"])
    rows = table.to_pylist()[:: table.num_rows // 5][:5]
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    began = time.perf_counter()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    write_rows()
    steps = {
        "train": ("train", "fr_ensemble", "--id", MODEL, "--registry", str(REGISTRY)),
        "gate": ("gate", MODEL, "--registry", str(REGISTRY)),
        "flip": ("flip", MODEL, "--registry", str(REGISTRY)),
        "validate": ("validate", str(REGISTRY)),
        "list": ("list", "--registry", str(REGISTRY)),
        "predict": ("predict", MODEL, "--corpus", str(ROWS), "--registry", str(REGISTRY)),
    }
    said = {}
    seconds = {}
    for name, arguments in steps.items():
        start = time.perf_counter()
        said[name] = run(*arguments)
        seconds[name] = time.perf_counter() - start
    what = {
        "train": "five members and their leave-one-source-out models, registered as smoke",
        "gate": said["gate"].splitlines()[0],
        "flip": "judged again, verdict pinned, entry turned production",
        "validate": said["validate"].splitlines()[-1],
        "list": "one entry",
        "predict": f"{len(said['predict'].splitlines()) - 1} rows with mu, sigma and an interval",
    }
    print(f"\n{'step':<10}{'seconds':>8}  what it did")
    for name in steps:
        print(f"{name:<10}{seconds[name]:>8.1f}  {what[name]}")
    print(f"{'total':<10}{time.perf_counter() - began:>8.1f}  the registry is in {FOLDER}/")


if __name__ == "__main__":
    main()
