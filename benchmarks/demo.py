"""demo.py: the main job, end to end, in a scratch registry: train, gate, flip, validate, predict; then what it did.

    python benchmarks/demo.py [--folder .demo] [-- OPTIONS OF registry train]

Runs the same commands a person would type, and prints them. Leaves its registry in the folder to look at.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

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


def write_rows(path: Path) -> None:
    """A few rows of the shipped corpus, as somebody's own CSV would have them."""
    import pyarrow.parquet as pq
    from fr_ensemble.corpus.vocabulary import CANONICAL_6
    from fr_ensemble.hooks.train import SHIPPED_CORPUS

    table = pq.read_table(SHIPPED_CORPUS, columns=["src", "encoder", "quality", *CANONICAL_6, "vmaf"])
    rows = table.to_pylist()[:: table.num_rows // 5][:5]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="made anew (default .demo)")
    parser.add_argument("train", nargs="*", metavar="OPTION", help="of `registry train`, after --")
    options = parser.parse_args()
    began, folder = time.perf_counter(), options.folder
    registry, rows = str(folder / "registry.json"), folder / "rows.csv"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_rows(rows)
    steps = {
        "train": ("train", "fr_ensemble", "--id", MODEL, "--registry", registry, *options.train),
        "gate": ("gate", MODEL, "--registry", registry),
        "flip": ("flip", MODEL, "--registry", registry),
        "validate": ("validate", registry),
        "list": ("list", "--registry", registry),
        "predict": ("predict", MODEL, "--corpus", str(rows), "--registry", registry),
    }
    printed = {}
    seconds = {}
    for name, arguments in steps.items():
        start = time.perf_counter()
        printed[name] = run(*arguments)
        seconds[name] = time.perf_counter() - start
    outcomes = {
        "train": "five members and their leave-one-source-out models, registered as smoke",
        "gate": printed["gate"].splitlines()[0],
        "flip": "judged again, verdict pinned, entry turned production",
        "validate": printed["validate"].splitlines()[-1],
        "list": "one entry",
        "predict": f"{len(printed['predict'].splitlines()) - 1} rows with mu, sigma and an interval",
    }
    print(f"\n{'step':<10}{'seconds':>8}  what it did")
    for name in steps:
        print(f"{name:<10}{seconds[name]:>8.1f}  {outcomes[name]}")
    print(f"{'total':<10}{time.perf_counter() - began:>8.1f}  the registry is in {folder}/")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
