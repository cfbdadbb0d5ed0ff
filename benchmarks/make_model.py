"""make_model.py: trains the two entries of the project's own registry, `model/`, and writes their model cards.

One on the shipped corpus, which clears its gate and is flipped; one on the same corpus with a lone outlier source,
which its gate holds and which stays smoke. Production entries never change: remove `model/` first to make them anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fr_ensemble.hooks.train import SHIPPED

REGISTRY = "model/registry.json"
PRODUCTION, HELD = "fr_vmaf_ensemble_v1", "fr_vmaf_outlier_v1"


def registry(*arguments: str, expect: int = 0) -> None:
    print(f"$ registry {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "registry_tool", *arguments], check=False)
    if done.returncode != expect:
        sys.exit(f"registry {arguments[0]} ended with exit code {done.returncode}, expected {expect}")


def train(entry_id: str, description: str, *options: str) -> None:
    registry("train", "fr_ensemble", "--id", entry_id, "--registry", REGISTRY, "--description", description, *options)


def main() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (path := Path(REGISTRY)).exists():
        path.parent.mkdir(exist_ok=True)
        empty = {"$schema": "../schemas/registry.schema.json", "schema_version": 2, "policies": {}, "models": []}
        path.write_text(json.dumps(empty))
    train(PRODUCTION, "VMAF from libvmaf's canonical six features and the encoder, with a calibrated interval.")
    registry("flip", PRODUCTION, "--registry", REGISTRY)
    with tempfile.TemporaryDirectory() as scratch:
        tables = [
            pq.read_table(file).replace_schema_metadata() for file in (SHIPPED, SHIPPED.with_name("outlier.parquet"))
        ]
        corpus = Path(scratch) / "with_outlier.parquet"
        pq.write_table(pa.concat_tables(tables, promote_options="default"), corpus)
        text = "The same with a lone outlier source in the corpus: its gate holds it. Kept as an example of HOLD."
        train(HELD, text, "--corpus", str(corpus), "--license", "BSD-3-Clause-Plus-Patent")
    registry("gate", HELD, "--registry", REGISTRY, expect=1)
    registry("validate", REGISTRY)
    for entry_id in (PRODUCTION, HELD):
        registry("card", entry_id, "--registry", REGISTRY, "-o", f"docs/models/{entry_id}.md")


if __name__ == "__main__":
    main()
