"""import_logs.py: `corpus import` of many logs against `json.load` of the same files alone.

    python benchmarks/import_logs.py            1,000 logs of 680 frames, 550 MB
    python benchmarks/import_logs.py --logs 50  the same logs, fewer of them

Logs are written as libvmaf 3 writes them (19 numbers a frame, six decimals), into a temporary folder. Both ways run in
this process, in turns, ROUNDS times each. Of every round both times are printed: the processor's, of all threads, by
which the ratio is, since it does not follow what else the machine does; and the clock's. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fr_ensemble.corpus.imports.fields import fields_of_pattern
from fr_ensemble.corpus.imports.identity import LogChoice
from fr_ensemble.corpus.imports.logs import import_logs

FRAMES = 680
FEATURES = (
    *("integer_adm2", "integer_aim", "integer_adm3", "integer_adm_scale0", "integer_adm_scale1", "integer_adm_scale2"),
    *("integer_adm_scale3", "VMAF_integer_feature_motion_sad_score", "integer_vif_scale0", "integer_vif_scale1"),
    *("integer_vif_scale2", "integer_vif_scale3", "integer_motion2", "integer_motion3", "psnr_y", "psnr_cb", "psnr_cr"),
    *("float_ssim", "vmaf"),
)
ROUNDS = 5


def write_log(path: Path, rng: random.Random) -> None:
    """One log, indented as libvmaf indents it."""
    frames = []
    for number in range(FRAMES):
        metrics = ",\n".join(f'        "{name}": {rng.random() * 100:.6f}' for name in FEATURES)
        frames.append(f'    {{\n      "frameNum": {number},\n      "metrics": {{\n{metrics}\n      }}\n    }}')
    path.write_text('{\n  "version": "3.2.0",\n  "fps": 93.10,\n  "frames": [\n' + ",\n".join(frames) + "\n  ]\n}\n")


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of the processor, all threads together, and of the clock."""
    start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def load_all(logs: list[Path]) -> None:
    for log in logs:
        with log.open("rb") as file:
            json.load(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=1000)
    count = parser.parse_args().logs
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), random.Random(0)
        logs = [folder / f"source{i % 20}_libx264_{20 + i % 7}_{i}.json" for i in range(count)]
        for log in logs:
            write_log(log, rng)
        size = sum(log.stat().st_size for log in logs) / 1e6
        fields = fields_of_pattern(logs, "{src}_{encoder}_{crf}_{take}.json")
        output = folder / "corpus.parquet"
        choice = LogChoice(model="vmaf_v0.6.1")
        print(f"{count} logs, {size:.0f} MB, {count * FRAMES} frames; Python {sys.version.split()[0]}")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; processor's seconds (the clock's)")
        ratios = []
        for number in range(1, ROUNDS + 1):
            alone, whole = seconds(lambda: load_all(logs)), seconds(lambda: import_logs(fields, output, choice))
            ratios.append(whole[0] / alone[0])
            times = [
                f"{name} {cpu:.2f} ({wall:.2f})" for name, (cpu, wall) in (("json.load", alone), ("import", whole))
            ]
            print(f"round {number}: {', '.join(times)}, {ratios[-1]:.2f} times")
    print(f"median: {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
