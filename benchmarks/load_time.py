"""load_time.py: what a program waits for `import registry_tool`, `open` and `load`; processor time, milliseconds.

    python benchmarks/load_time.py [--rounds 21]

Each figure is a median. The import and the first load are of fresh processes, which import numpy, onnxruntime and the
plugins on the way; later loads are of one process, beside the creation of the onnxruntime session alone, which `load`
contains. Processor time, since it follows other work on the machine less than a clock does; `wall` is the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
REGISTRY, ENTRY = ROOT / "model" / "registry.json", "fr_vmaf_ensemble_v1"
FRESH = """
import json, sys, time
def took(start):
    return [(time.process_time() - start[0]) * 1e3, (time.perf_counter() - start[1]) * 1e3]
def now():
    return time.process_time(), time.perf_counter()
figures, start = {}, now()
import registry_tool
figures["import registry_tool"], start = took(start), now()
registry = registry_tool.open(sys.argv[1])
figures["open, in a fresh process"], start = took(start), now()
registry.load(sys.argv[2])
figures["load, the first of a process"] = took(start)
print(json.dumps(figures))
"""


def fresh() -> dict[str, list[float]]:
    command = [sys.executable, "-c", FRESH, str(REGISTRY), ENTRY]
    figures: dict[str, list[float]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


def repeated(work: Callable[[], object], rounds: int) -> list[float]:
    """Median processor time and wall time of one call."""
    times = []
    for _ in range(rounds):
        processor, wall = time.process_time(), time.perf_counter()
        work()
        times.append(((time.process_time() - processor) * 1e3, (time.perf_counter() - wall) * 1e3))
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds

    from fr_ensemble.artifacts.runtime import Ensemble

    import registry_tool

    samples = [fresh() for _ in range(rounds)]
    figures = {name: [statistics.median(sample[name][i] for sample in samples) for i in (0, 1)] for name in samples[0]}
    registry = registry_tool.open(REGISTRY)
    registry.load(ENTRY)
    graph = next(REGISTRY.parent.glob(f"{ENTRY}/*/{ENTRY}.onnx")).read_bytes()
    figures["load, a later one"] = repeated(lambda: registry.load(ENTRY), rounds)
    figures["the onnxruntime session alone"] = repeated(lambda: Ensemble(graph), rounds)
    for name, (processor, wall) in figures.items():
        print(f"{name:32} {processor:8.1f} ms   wall {wall:8.1f} ms")
    beyond = figures["load, a later one"][0] - figures["the onnxruntime session alone"][0]
    print(f"{'load beyond the session':32} {beyond:8.1f} ms")


if __name__ == "__main__":
    main()
