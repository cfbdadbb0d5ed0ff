"""calibration_trials.py: what `registry calibrate` brings on other sources: the tests of AVT-VQDB-UHD-1 in turn.

Trains on the sources of one test that another one lacks, then takes the sources of that other one, six in another lab
session: each is predicted by the entry as it is, and calibrated on the other five, without and with an offset. Scores
of another version of libvmaf are simulated by a constant. The data is not part of the project: give its folder
(clips.parquet, frames.parquet).

    python benchmarks/calibration_trials.py ../shared/data/avt-vqdb-uhd-1 [--runs frames,mos] [--shift -5]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from fr_ensemble.artifacts.manifest import codec_block, scaler_of, spec_of
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.evidence.calibration import as_unseen, offset_in, predictions_of, promise
from fr_ensemble.evidence.intervals import Intervals, calibrate_all_of
from fr_ensemble.evidence.methods import DEFAULT_METHOD
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import Calibration
from program import registry

from registry_tool.strictjson import parse
from registry_tool.values import Json

LEVELS = (0.8, 0.95)
LICENSE = "CC-BY-NC-4.0"  # of the data
RECIPE = (
    "--features vmaf --condition log2:bitrate_kbps --condition height "
    "--input-noise 0.2 --weight-decay 0.3 --decoupled-weight-decay --epochs 60"
)
RUNS = {  # name -> file, every so many rows, options of `registry train`
    "frames": ("frames.parquet", 5, "--target vmaf --dropout 0 --epochs 60"),
    "mos": ("clips.parquet", 1, f"--target mos {RECIPE}"),
}
TRIALS = "t1-t2,t1-t3,t2-t1,t3-t1"  # trained on, unseen


def part(path: Path, test: str, every: int, without: str | None, folder: Path) -> Path:
    """The rows of a test, in a file of their own; without: leave out the sources that this other test has."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(path)
    found = table.filter(pc.starts_with(table["clip"], f"{test}/"))
    if without is not None:
        other = table.filter(pc.starts_with(table["clip"], f"{without}/"))
        found = found.filter(pc.invert(pc.is_in(found["src"], value_set=pc.unique(other["src"]))))
    target = folder / f"{test}-without-{without}.parquet"
    parquet.write_table(found.take(list(range(0, len(found), every))), target)
    return target


def trained(corpus: Path, arguments: str, folder: Path) -> tuple[dict[str, Json], Path]:
    """The manifest of an entry that learned from a corpus, and its folder."""
    to = ("--registry", folder / "registry.json", "--license", LICENSE, "--no-baselines", "--quiet")
    registry("train", "fr_ensemble", "--id", "avt", "--corpus", corpus, *arguments.split(), *to)
    (manifest,) = folder.glob("avt/*/manifest.json")
    return parse(manifest.read_bytes()).value, manifest.parent


def predicted(manifest: dict[str, Json], folder: Path, corpus: Corpus) -> Oof:
    """What the members give for rows that they have not seen."""
    block = codec_block(corpus.codec, corpus.conditioning, corpus.spec.n_slots)
    models = [(folder / member["onnx"]).read_bytes() for member in manifest["members"]]
    inputs = standardise(corpus.features, block, scaler_of(manifest), corpus.spec.n_slots)
    return predictions_of(corpus, manifest, member_scores(models, *inputs))


def only(oof: Oof, sources: list[int]) -> Oof:
    """The rows of some sources."""
    return oof.of_rows(np.isin(oof.source, sources))


def measured(unseen: Oof, calibration: Calibration) -> list[float]:
    """RMSE, then share of the rows inside and mean width, a level each."""
    found = [float(np.sqrt(np.mean((unseen.target - unseen.mu) ** 2)))]
    for level in LEVELS:
        lower, upper = calibration.interval(unseen.mu, unseen.sigma, level)
        inside = (lower <= unseen.target) & (unseen.target <= upper)
        found += [float(inside.mean()), float(np.mean(upper - lower))]
    return found


def trial(stored: Intervals, unseen: Oof) -> dict[str, list[list[float]]]:
    """Each source by the entry as it is, and calibrated on the others, without and with an offset."""
    found: dict[str, list[list[float]]] = {"as it is": [], "calibrated": [], "with an offset": []}
    bounds, k = stored.calibration().range, len(unseen.sources)
    for g in range(k):
        own, others = only(unseen, [g]), only(unseen, [h for h in range(k) if h != g])
        found["as it is"].append(measured(own, stored.calibration()))
        for name, has_offset in (("calibrated", False), ("with an offset", True)):
            made = calibrate_all_of(as_unseen(others, has_offset), stored.input_ranges, bounds, DEFAULT_METHOD)
            moved = replace(own, predictions=own.predictions + (offset_in(others) if has_offset else 0.0))
            found[name].append(measured(moved, made.calibration()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument(
        "--shift", type=float, default=-5.0, help="points added to VMAF of unseen sources, as a second trial"
    )
    parser.add_argument("--trials", default=TRIALS, help="trained-unseen, by commas: the prefixes of clips")
    parser.add_argument("--epochs", type=int, help="in place of the runs' own")
    options = parser.parse_args()
    if not (options.data / "clips.parquet").is_file():
        sys.exit(f"{options.data}: found no clips.parquet, expected the AVT-VQDB-UHD-1 tables: name their folder")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; method {DEFAULT_METHOD}")
    for name in options.runs.split(","):
        file, every, arguments = RUNS[name]
        arguments += f" --epochs {options.epochs}" if options.epochs else ""
        shifts = (0.0, options.shift) if name == "frames" else (0.0,)
        results: dict[float, dict[str, list[list[float]]]] = {shift: {} for shift in shifts}
        with tempfile.TemporaryDirectory() as scratch:
            for test, other in (pair.split("-") for pair in options.trials.split(",")):
                corpus = part(options.data / file, test, every, other, Path(scratch))
                manifest, artifacts = trained(corpus, arguments, Path(scratch) / f"{test}-{other}")
                spec, stored = spec_of(manifest, target=True), Intervals.from_dict(manifest["intervals"])
                unseen = predicted(
                    manifest, artifacts, read_corpus(part(options.data / file, other, every, None, Path(scratch)), spec)
                )
                for shift in shifts:
                    low, high = spec.bounds
                    target = np.clip(unseen.target + shift, low, high)
                    for how, rows in trial(stored, replace(unseen, target=target)).items():
                        results[shift].setdefault(how, []).extend(rows)
        print(f"\n{name}: {options.trials}")
        print(f"  5 sources: {'; '.join(promise(DEFAULT_METHOD, 5, LEVELS))}")
        for shift, found in results.items():
            print(f"  scores {shift:+g}" if shift else "  scores as they are")
            for how, rows in found.items():
                rmse, *shown = np.mean(rows, axis=0)
                levels = [
                    f"{level * 100:g} %: {shown[2 * i]:.3f}, width {shown[2 * i + 1]:.3g}"
                    for i, level in enumerate(LEVELS)
                ]
                print(f"    {how:<15} {len(rows)} sources  RMSE {rmse:.3g}  {'  '.join(levels)}")


if __name__ == "__main__":
    main()
