"""predict_ratio.py: `registry predict` against a plain pandas script, CSV and parquet in and out; time and memory.

    python benchmarks/predict_ratio.py [--rows 1000000] [--rounds 3] [--only csv-csv]

The plain scripts are what one writes first: read the file with pandas, standardise, ask onnxruntime chunk by chunk (the
entry's five members one after another, or its fused graph), mark rows outside the training range, write the same
columns with pandas. They check no digest, no cell, no name. All sides are processes with the same number of threads for
every library, and take turns; wall and processor seconds (median) and the greatest resident memory (getrusage). The
numbers that all sides wrote are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.vocabulary import CANONICAL_6

ROOT = Path(__file__).parents[1]
REGISTRY, ENTRY = ROOT / "model" / "registry.json", "fr_vmaf_ensemble_v1"
FORMATS = ("csv", "parquet")
TOLERANCE = 1e-3  # VMAF points: single members and the fused graph add in another order, and sigma is a difference
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")
PLAIN = """
import json, math, sys
import numpy as np
import onnxruntime
import pandas
import pyarrow
from pathlib import Path
source, output, manifest_file, mode, threads = sys.argv[1:]
pyarrow.set_cpu_count(int(threads))
folder, manifest = Path(manifest_file).parent, json.loads(Path(manifest_file).read_text())
rows = pandas.read_csv(source) if source.endswith("csv") else pandas.read_parquet(source)
mean, std = (np.array(manifest[name], np.float32) for name in ("feature_mean", "feature_std"))
features = rows[manifest["feature_order"]].to_numpy(np.float32)
slots = {name: slot for slot, name in enumerate(manifest["codec_vocab"])}
codec = rows["encoder"].map(slots).fillna(slots["unknown"]).to_numpy(np.int64)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
files = [manifest["fused"]["onnx"]] if mode == "fused" else [member["onnx"] for member in manifest["members"]]
sessions = [onnxruntime.InferenceSession(str(folder / f), options, providers=["CPUExecutionProvider"]) for f in files]
eye, mu, sigma = np.eye(len(slots), dtype=np.float32), np.empty(len(rows)), np.empty(len(rows))
for start in range(0, len(rows), CHUNK):
    part = slice(start, start + CHUNK)
    block = eye[codec[part]]
    if mode == "fused":
        mu[part], sigma[part] = sessions[0].run(None, {"features": features[part], "codec_onehot": block})
    else:
        feeds = {"features": (features[part] - mean) / std, "codec_onehot": block}
        scores = np.stack([session.run(None, feeds)[0] for session in sessions]).astype(np.float64)
        mu[part], sigma[part] = scores.mean(axis=0), scores.std(axis=0, ddof=1)
interval = next(c for c in manifest["intervals"]["calibrations"] if (c["unit"], c["side"]) == ("row", "two-sided"))
mu = np.clip(mu, *interval["range"])  # members alone go beyond it, and so do graphs of older releases
half = interval["levels"]["0.95"]["q"] * np.sqrt(sigma**2 + interval["floor"] ** 2)
numbers = rows[manifest["feature_order"]].to_numpy()
low, high = np.array([r["range"] for r in manifest["intervals"]["input_ranges"]]).T
outside = ((numbers < low) | (numbers > high)).any(axis=1)
lower, upper = (np.clip(x, *interval["range"]) for x in (mu - half, mu + half))
made = pandas.DataFrame({"row": np.arange(len(rows)), "src": rows["src"], "encoder": rows["encoder"], "mu": mu,
                         "sigma": sigma, "out_of_distribution": outside, "lower_95": lower, "upper_95": upper})
made.to_csv(output, index=False) if output.endswith("csv") else made.to_parquet(output, index=False)
"""
CHILD = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=2)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Run:
    wall: float  # seconds
    processor: float  # seconds, user and system
    peak: float  # MiB


def write_rows(folder: Path, n: int) -> dict[str, Path]:
    """The same random rows in each format: a name, an encoder, six features and a target."""
    rng = np.random.default_rng(0)
    known = [name for name, encoder in ENCODERS.items() if not encoder.hardware]
    good = rng.uniform(0.2, 1.0, n)
    columns = {
        "src": np.char.add("source", rng.integers(0, 40, n).astype(str)),
        "encoder": np.array(known)[rng.integers(0, len(known), n)],
        **{name: good**power for name, power in zip(CANONICAL_6, (0.2, 1.0, 0.7, 0.5, 0.35), strict=False)},
        "motion2": rng.uniform(0.0, 12.0, n),
        "vmaf": np.round(100 * good**0.6, 4),
    }
    frame, files = pandas.DataFrame(columns), {form: folder / f"rows.{form}" for form in FORMATS}
    frame.to_csv(files["csv"], index=False)
    frame.to_parquet(files["parquet"], index=False)
    return files


def measured(command: Sequence[object], threads: int) -> Run:
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "OMP_THREAD_LIMIT": str(threads)}
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, command)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    processor, peak = json.loads(ran.stdout)
    return Run(time.perf_counter() - began, processor, peak)


def manifest_of(registry: Path, entry: str) -> Path:
    document = json.loads(registry.read_text())
    return registry.parent / str(next(model["manifest"] for model in document["models"] if model["id"] == entry))


def largest_difference(files: Sequence[Path]) -> float:
    """Of the numbers in mu, sigma and the bounds between the first file and the others; texts must be equal.

    The column `flags` is the program's alone: what its rules of thumb say of a row, which the script does not ask.
    """
    frames = [pandas.read_csv(file) if file.suffix == ".csv" else pandas.read_parquet(file) for file in files]
    frames = [frame.drop(columns="flags", errors="ignore") for frame in frames]
    names = ["mu", "sigma", "lower_95", "upper_95"]
    for frame in frames[1:]:
        assert frame.drop(columns=names).astype(str).equals(frames[0].drop(columns=names).astype(str))
    return max(float((frame[names] - frames[0][names]).abs().to_numpy().max()) for frame in frames[1:])


def rounds(sides: Mapping[str, Sequence[object]], threads: int, n: int) -> Iterator[tuple[str, list[Run]]]:
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(n):
        for name, command in sides.items():
            found[name].append(measured(command, threads))
    yield from found.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of every library on every side (default 1)")
    parser.add_argument("--chunk", type=int, default=4096, help="rows the plain scripts give onnxruntime at once")
    parser.add_argument("--only", metavar="IN-OUT", help="one combination, such as csv-parquet")
    options = parser.parse_args()
    manifest = manifest_of(REGISTRY, ENTRY)
    plain = PLAIN.replace("CHUNK", str(options.chunk))
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"Python {platform.python_version()}, pandas {pandas.__version__}, {options.rows} rows")
    print(f"{options.rounds} rounds, {options.threads} thread(s) a library")
    print(f"{'in -> out':<20}{'side':<16}{'wall s':>8}{'cpu s':>8}{'MiB':>7}{'ours/side, wall':>18}{'cpu':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        files = write_rows(Path(scratch), options.rows)
        for source, output in product(FORMATS, FORMATS):
            if options.only and options.only != f"{source}-{output}":
                continue
            written = {name: Path(scratch, f"{name}.{output}") for name in ("ours", "members", "fused")}
            sides: dict[str, Sequence[object]] = {
                "ours": (
                    sys.executable,
                    "-m",
                    "registry_tool",
                    "predict",
                    ENTRY,
                    "--corpus",
                    files[source],
                    "-o",
                    written["ours"],
                    "--registry",
                    REGISTRY,
                ),
                **{
                    mode: (sys.executable, "-c", plain, files[source], written[mode], manifest, mode, options.threads)
                    for mode in ("members", "fused")
                },
            }
            found = dict(rounds(sides, options.threads, options.rounds))
            medians = {
                name: (statistics.median(run.wall for run in runs), statistics.median(run.processor for run in runs))
                for name, runs in found.items()
            }
            for name, runs in found.items():
                wall, processor = medians[name]
                ratios = [f"{ours / theirs:.2f}x" for ours, theirs in zip(medians["ours"], medians[name], strict=True)]
                print(
                    f"{source + ' -> ' + output:<20}{name:<16}{wall:>8.2f}{processor:>8.2f}"
                    f"{max(run.peak for run in runs):>7.0f}{ratios[0]:>18}{ratios[1]:>7}",
                    flush=True,
                )
            difference = largest_difference(list(written.values()))
            assert difference < TOLERANCE, difference
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
