"""validate_ratio.py: `registry validate --level quick` against a plain loop with jsonschema; both sides and the ratio.

    python benchmarks/validate_ratio.py [--entries 10000] [--rounds 5] [--full-rounds 1]

The plain loop is what one writes first: load the registry, hold it against its schema with one prepared jsonschema
validator, read each file once, compare its sha256, parse the sidecar. It knows no duplicate keys, links, escaping
paths, size limits, unregistered files or promotions. Both run as processes, in turn, in one run; medians of wall time
and of processor time (user and system, children included), which other programs disturb less. Runs of many entries use
all cores. Also the start of the program, 24 entries at both levels, and all of them at the full level, with all cores
and with one: that takes minutes, so it has rounds of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from fr_ensemble.arrays import Weights
from fr_ensemble.artifacts.graphs import member_model

PLAIN = """
import hashlib, json, sys
from pathlib import Path
from jsonschema import Draft202012Validator
from registry_tool import schemas
folder = Path(sys.argv[1])
registry = json.loads((folder / "registry.json").read_bytes())
assert not list(Draft202012Validator(schemas.load("registry")).iter_errors(registry))
for entry in registry["models"]:
    data = (folder / entry["onnx"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    sidecar = (folder / entry["onnx"]).with_suffix(".json").read_bytes()
    assert hashlib.sha256(sidecar).hexdigest() == entry["sidecar_sha256"]
    json.loads(sidecar)
"""


def write_registry(folder: Path, entries: int) -> None:
    """Entries of 23 kB, each another model, with its sidecar."""
    rng = np.random.default_rng(0)
    shapes = ((18, 64), (64,), (64, 64), (64,), (64, 1), (1,))
    models = []
    for number in range(entries):
        name = f"m{number:05d}"
        data = member_model(Weights(*(rng.standard_normal(s).astype(np.float32) for s in shapes)), 6)
        sha256 = hashlib.sha256(data).hexdigest()
        names = {"input_names": ["features", "codec_onehot"], "output_names": ["score"]}
        sidecar = {"id": name, "kind": "fr", "onnx": f"{name}.onnx", "sha256": sha256, "opset": 17, **names}
        text = json.dumps(sidecar).encode()
        (folder / f"{name}.onnx").write_bytes(data)
        (folder / f"{name}.json").write_bytes(text)
        entry = {"id": name, "kind": "fr", "onnx": f"{name}.onnx", "sha256": sha256, "opset": 17, "license": "MIT"}
        imported = {"promotion": {"imported_from": "0" * 64}, "smoke": False}
        models.append({**entry, **imported, "sidecar_sha256": hashlib.sha256(text).hexdigest(), "notes": "x" * 100})
    document = {"schema_version": 2, "policies": {}, "models": models}
    (folder / "registry.json").write_text(json.dumps(document, indent=1))


def seconds(*command: str, cores: set[int]) -> tuple[float, float]:
    """(wall, processor) time of a run on some cores."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=partial(os.sched_setaffinity, 0, cores))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full-rounds", type=int, default=1)
    options = parser.parse_args()
    program = (sys.executable, "-m", "registry_tool")
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch, "small"), Path(scratch, "large")
        for folder, entries in ((small, 24), (large, options.entries)):
            folder.mkdir()
            write_registry(folder, entries)
        runs = {
            "--help": (*program, "--help"),
            "quick, 24 entries": (*program, "validate", "--level", "quick", str(small)),
            "full, 24 entries": (*program, "validate", str(small)),
            "quick, all entries": (*program, "validate", "--level", "quick", str(large)),
            "plain loop, all entries": (sys.executable, "-c", PLAIN, str(large)),
        }
        cores = os.sched_getaffinity(0)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, command in runs.items():
                times[name].append(seconds(*command, cores=cores))
        for _ in range(options.full_rounds):
            for name, used in (("full, all entries", cores), ("the same, one core", {min(cores)})):
                times.setdefault(name, []).append(seconds(*program, "validate", str(large), cores=used))
    print(f"{len(cores)} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"Python {platform.python_version()}, {options.entries} entries, {options.rounds} rounds, seconds")
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in times.items()}
    for name, (wall, processor) in medians.items():
        print(f"{name:<26} wall {wall:7.3f}  least {min(times[name])[0]:7.3f}  processor {processor:7.3f}")
    pairs = zip(medians["plain loop, all entries"], medians["quick, all entries"], strict=True)
    wall, processor = (plain / ours for plain, ours in pairs)
    print(f"plain loop / quick: {wall:.2f}x in wall time, {processor:.2f}x in processor time")


if __name__ == "__main__":
    main()
