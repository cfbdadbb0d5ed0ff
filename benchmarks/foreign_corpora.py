"""foreign_corpora.py: the gate on somebody else's data: AVT-VQDB-UHD-1, frames -> VMAF and clips -> MOS.

Trains each in a scratch registry with `registry train`, gates it, and prints the verdict and the fold table. The data
is not part of the project: give its folder (clips.parquet, frames.parquet). Nothing made from it is kept.

    python benchmarks/foreign_corpora.py ../shared/data/avt-vqdb-uhd-1 [--epochs 200]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LICENSE = "CC-BY-NC-4.0"  # of the data, so of a model trained on it
RUNS = {
    "frames -> vmaf, canonical-6": ("frames.parquet", ["--target", "vmaf"]),
    "clips -> mos, canonical-6": ("clips.parquet", ["--target", "mos"]),
}


def registry(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry_tool", *arguments]
    environment = {**os.environ, "REGISTRY_JSON": str(folder / "registry.json")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    if not (options.data / "clips.parquet").is_file():
        sys.exit(f"{options.data}: found no clips.parquet, expected the AVT-VQDB-UHD-1 tables: name their folder")
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, (file, extra)) in enumerate(RUNS.items()):
            began = time.perf_counter()
            corpus = str(options.data / file)
            train = ["train", "fr_ensemble", "--id", f"run{number}", "--corpus", corpus, "--license", LICENSE, *extra]
            done = registry(Path(scratch), *train, "--epochs", str(options.epochs))
            if done.returncode != 0:
                sys.exit(done.stderr)
            seconds = time.perf_counter() - began
            gate = registry(Path(scratch), "gate", f"run{number}", "--format", "json")
            verdict = json.loads(gate.stdout)
            metrics = verdict["metrics"]
            print(f"\n{name}: {verdict['verdict']} ({metrics['n_rows']:.0f} rows, {seconds:.0f} s to train)")
            for key in ("mean_plcc", "plcc_spread", "min_seed_plcc", "worst_fold_plcc", "mean_srocc", "mean_rmse"):
                print(f"  {key:<16} {metrics[key]:.4f}")
            for reason in verdict["reasons"]:
                print(f"  held: {reason}")
            for fold in verdict["details"]["folds"]:
                print(f"  {fold['held_out']:<30} {fold['n']:>6} rows  plcc {fold['mean_plcc']:.4f}")


if __name__ == "__main__":
    main()
