"""child.py: what a plugin does in a process of its own: which modules it loads, what it prints, the bytes it trains.

Its argument is a JSON object: `plugin` (as in an entry point), `kind`, `registry`, `task` (load, quick or train), and
for train `id`, `corpus` and `arguments`. The answer is one line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from registry_tool.hookspec import Level
from registry_tool.testing.bench import Bench
from registry_tool.values import Json


def ask(seed: int = 0, **order: object) -> dict[str, Json]:
    """Run a task in a new process whose sets and dicts are ordered by `seed`. AssertionError where it fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-P", "-m", __name__, json.dumps(order, default=str)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{order['task']} failed in a process of its own:\n{done.stderr}"
    answer: dict[str, Json] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _do(order: dict[str, Json]) -> dict[str, Json]:
    before, began, output = set(sys.modules), time.perf_counter(), io.StringIO()
    process = os.getcwd(), dict(os.environ)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        bench = Bench(Path(order["registry"]), order["plugin"], order["kind"])
        seconds = time.perf_counter() - began
        answer: dict[str, Json] = {}
        if order["task"] == "quick":
            answer["findings"] = [str(finding) for finding in bench.findings(Level.QUICK)]
        elif order["task"] == "train":
            corpus = Path(order["corpus"]) if order["corpus"] else None
            answer["sha256"] = bench.train(order["id"], corpus, order["arguments"]).entry.sha256
    return answer | {
        "modules": sorted({*sys.modules} - before),
        "printed": output.getvalue(),
        "moved": process != (os.getcwd(), dict(os.environ)),
        "seconds": seconds,
    }


if __name__ == "__main__":
    result = _do(json.loads(sys.argv[1]))
    print("\n" + json.dumps(result))
