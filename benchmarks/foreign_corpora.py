"""foreign_corpora.py: the gate on somebody else's data: AVT-VQDB-UHD-1, frames -> VMAF and clips -> MOS.

Trains each in a scratch registry with `registry train`, gates it, and prints the verdict and the fold table, beside
standard models on the same folds; for MOS beside plain VMAF through a logistic curve too, and the recipe that clears
the gate beside canonical-6. The data is not part of the project: give its folder (clips.parquet, frames.parquet).
Nothing made from it is kept.

    python benchmarks/foreign_corpora.py ../shared/data/avt-vqdb-uhd-1 [--runs frames,mos-canonical,...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from program import registry

LICENSE = "CC-BY-NC-4.0"  # of the data, so of a model trained on it
RECIPE = (
    "--features vmaf --condition log2:bitrate_kbps --condition height "
    "--input-noise 0.2 --weight-decay 0.3 --decoupled-weight-decay --epochs 60"
)
RUNS = {  # id of the entry -> title, file, options of `registry train`, the entry to compare with
    "frames": ("frames -> vmaf, canonical-6", "frames.parquet", "--target vmaf", None),
    "frames-sharp": (
        "frames -> vmaf, canonical-6, no dropout, 60 epochs",
        "frames.parquet",
        "--target vmaf --dropout 0 --epochs 60",
        "frames",
    ),
    "mos-canonical": ("clips -> mos, canonical-6", "clips.parquet", "--target mos", None),
    "mos-stopped": (
        "clips -> mos, canonical-6, early stopping",
        "clips.parquet",
        "--target mos --early-stopping 20",
        "mos-canonical",
    ),
    "mos-recipe": (f"clips -> mos, {RECIPE}", "clips.parquet", f"--target mos {RECIPE}", "mos-canonical"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--epochs", type=int, help="instead of the runs' own: 60 for the recipe, 200 for the others")
    options = parser.parse_args()
    chosen = options.runs.split(",")
    if unknown := [name for name in chosen if name not in RUNS]:
        sys.exit(f"--runs: found {unknown[0]!r}, expected some of {', '.join(RUNS)}")
    if not (options.data / "clips.parquet").is_file():
        sys.exit(f"{options.data}: found no clips.parquet, expected the AVT-VQDB-UHD-1 tables: name their folder")
    with tempfile.TemporaryDirectory() as scratch:
        to = ["--registry", Path(scratch) / "registry.json", "--quiet"]
        for name in chosen:
            title, file, extra, incumbent = RUNS[name]
            began = time.perf_counter()
            train = ["train", "fr_ensemble", "--id", name, "--corpus", str(options.data / file), "--license", LICENSE]
            asked = [] if options.epochs is None else ["--epochs", str(options.epochs)]
            registry(*train, *extra.split(), *asked, *to)
            seconds = time.perf_counter() - began
            beside = ["--incumbent", incumbent] if incumbent in chosen[: chosen.index(name)] else []
            verdict = json.loads(registry("gate", name, "--format", "json", *beside, *to, expected=(0, 1)))
            metrics = verdict["metrics"]
            print(f"\n{title}: {verdict['verdict']} ({metrics['n_rows']:.0f} rows, {seconds:.0f} s to train)")
            for key in ("mean_plcc", "plcc_spread", "min_seed_plcc", "worst_fold_plcc", "mean_srocc", "mean_rmse"):
                print(f"  {key:<16} {metrics[key]:.4f}")
            for baseline, compared in verdict["details"]["against"].items():
                named = compared.get("entry", "plain VMAF through a logistic curve" if baseline == "vmaf" else baseline)
                low, high = (metrics[f"rmse_vs_{baseline}_t_{end}"] for end in ("low", "high"))
                print(f"  beside {named}: mean PLCC {compared['baseline_plcc']:.4f}")
                print(f"    RMSE {compared['rmse']:.4f} against {compared['baseline_rmse']:.4f}, difference", end="")
                print(f" {compared['difference']:+.4f} (95 % over sources {low:+.4f}..{high:+.4f})")
            for reason in verdict["reasons"]:
                print(f"  held: {reason}")
            for fold in verdict["details"]["folds"]:
                print(f"  {fold['held_out']:<30} {fold['n']:>6} rows  plcc {fold['mean_plcc']:.4f}")


if __name__ == "__main__":
    main()
