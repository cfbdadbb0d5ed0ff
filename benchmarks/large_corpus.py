"""large_corpus.py: a corpus of 10 million rows: `corpus info`, the trainer's reader and `recommend`; memory and time.

    python benchmarks/large_corpus.py [--rows 10000000] [--format parquet]
    python benchmarks/large_corpus.py --train --rows 1000000    `registry train` instead: three sources, an epoch

The rows are random, of 400 sources, 5 encoders and 6 qualities, written batch by batch into a temporary folder. Each
step is a process of its own: wall seconds, its greatest resident memory (getrusage), and what it was with a tenth of
the rows. The ensemble that `recommend` asks is trained on a small corpus first.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from fr_ensemble.corpus.encoders import ENCODERS
from fr_ensemble.corpus.vocabulary import CANONICAL_6
from pyarrow import csv, parquet

BATCH = 250_000
SOURCES, QUALITIES = 400, (15, 25, 30, 35, 40, 45)
SOFTWARE = tuple(name for name, encoder in ENCODERS.items() if not encoder.hardware)
READ = """
import sys
from pathlib import Path
from fr_ensemble.corpus.rows import ColumnSpec, read_corpus
corpus = read_corpus(Path(sys.argv[1]), ColumnSpec())
print(corpus.n_rows, "rows,", len(corpus.sources), "sources,", len(corpus.clips), "clips")
"""
CHILD = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
CHILD += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def batches(rows: int, sources: int) -> Iterator[pa.Table]:
    """Clip after clip, as a build writes them: features and vmaf fall as the quality number grows."""
    rng = np.random.default_rng(0)
    clips = sources * len(SOFTWARE) * len(QUALITIES)
    for start in range(0, rows, BATCH):
        at = np.arange(start, min(start + BATCH, rows))
        clip = at * clips // rows
        source, encoder, quality = np.unravel_index(clip, (sources, len(SOFTWARE), len(QUALITIES)))
        number = np.array(QUALITIES)[quality]
        good = np.clip(1.1 - number / 80 * (0.7 + 0.6 * source / sources) + rng.normal(0, 0.02, len(at)), 0.05, 1.0)
        names = {"src": [f"source{k:04d}" for k in range(sources)], "encoder": SOFTWARE}
        texts = {
            name: pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names[name])).cast("string")
            for name, codes in (("src", source), ("encoder", encoder))
        }
        texts["clip"] = pa.array(np.char.add("clip", clip.astype(str)))
        features = {name: good**power for name, power in zip(CANONICAL_6, (0.2, 1.0, 0.7, 0.5, 0.35), strict=False)}
        numbers = {**features, "motion2": rng.uniform(1, 8, len(at)), "vmaf": 100 * good**0.6}
        scores = {name: pa.array(values.astype(np.float32)) for name, values in numbers.items()}
        more = {"quality": pa.array(number.astype(np.int32)), "bitrate_kbps": pa.array(8000 * 2.0 ** (-number / 6))}
        yield pa.table({**texts, **more, **scores})


def write(path: Path, rows: int, sources: int = SOURCES) -> Path:
    tables = batches(rows, sources)
    first = next(tables)
    writer = (csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter)(path, first.schema)
    with writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    return path


def measured(command: Sequence[object]) -> tuple[float, float]:
    """Wall seconds and the greatest resident memory, in MB, of one process."""
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, command)], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began, int(ran.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--train", action="store_true", help="measure training, and its child that has torch")
    options = parser.parse_args()
    program = (sys.executable, "-m", "registry_tool")
    with tempfile.TemporaryDirectory() as scratch:
        registry = Path(scratch, "model", "registry.json")
        if options.train:
            file = write(Path(scratch, f"rows.{options.format}"), options.rows, 3)
            quick = ("--epochs", "1", "--license", "MIT", "--no-baselines", "--registry", registry)
            seconds, peak = measured((*program, "train", "fr_ensemble", "--id", "big", "--corpus", file, *quick))
            print(
                json.dumps(
                    {"step": "train", "rows": options.rows, "seconds": round(seconds, 1), "peak_MB": round(peak)}
                )
            )
            return
        small = write(Path(scratch, "train.parquet"), 6000, 20)
        quick = ("--epochs", "5", "--license", "MIT", "--no-baselines", "--registry", registry)
        subprocess.run(
            [*map(str, (*program, "train", "fr_ensemble", "--id", "big", "--corpus", small, *quick))],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = {
            rows: write(Path(scratch, f"{rows}.{options.format}"), rows) for rows in (options.rows // 10, options.rows)
        }
        print(
            f"Python {platform.python_version()}, {options.rows} rows, {options.format} of "
            f"{files[options.rows].stat().st_size / 1e6:.0f} MB"
        )
        ask = ("--registry", registry, "--target", "80", "--confidence", "0.8")
        steps = {
            "corpus info": lambda file: (*program, "fr-ensemble", "corpus", "info", file),
            "the trainer's reader": lambda file: (sys.executable, "-c", READ, file),
            "recommend": lambda file: (*program, "fr-ensemble", "recommend", "big", "--corpus", file, *ask),
        }
        for name, command in steps.items():
            (_, before), (seconds, peak) = (measured(command(file)) for file in files.values())
            print(
                json.dumps(
                    {"step": name, "seconds": round(seconds, 1), "peak_MB": round(peak), "tenth_MB": round(before)}
                )
            )


if __name__ == "__main__":
    main()
