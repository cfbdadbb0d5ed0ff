"""make_model.py: trains the two entries of the project's own registry, `model/`, and writes their model cards.

    python benchmarks/make_model.py [--folder model] [--cards docs/models] [-- OPTIONS OF registry train]

One on the shipped corpus, which clears its gate and is flipped; one on the same corpus with a lone outlier source,
which its gate holds and which stays smoke. A tenth of the rows trains the slot of unknown encoders, and the first has
evidence of encoders left out. Production entries never change: remove `model/` first to make them anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from fr_ensemble.hooks.train import SHIPPED_CORPUS
from program import registry

PRODUCTION, HELD = "fr_vmaf_ensemble_v1", "fr_vmaf_outlier_v1"
RECIPE = ("--encoder-dropout", "0.1")  # docs/benchmarks.md, "Encoders that training lacks"


def run(*arguments: str, code: int = 0) -> None:
    print(f"$ registry {' '.join(arguments)}", flush=True)
    print(registry(*arguments, expected=(code,)), end="", flush=True)


def main() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("model"), help="of the registry (default model)")
    parser.add_argument("--cards", type=Path, default=Path("docs/models"), help="their folder (default docs/models)")
    parser.add_argument("train", nargs="*", metavar="OPTION", help="of `registry train`, after --")
    options = parser.parse_args()
    path = options.folder / "registry.json"
    to = ("--registry", str(path))

    def train(entry_id: str, description: str, *more: str) -> None:
        run("train", "fr_ensemble", "--id", entry_id, *to, "--description", description, *RECIPE, *more, *options.train)

    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        empty = {"$schema": "../schemas/registry.schema.json", "schema_version": 2, "policies": {}, "models": []}
        path.write_text(json.dumps(empty))
    text = "VMAF from libvmaf's canonical six features and the encoder, with a calibrated interval."
    train(PRODUCTION, text, "--leave-out-encoders")
    run("flip", PRODUCTION, *to)
    with tempfile.TemporaryDirectory() as scratch:
        tables = [
            pq.read_table(file).replace_schema_metadata()
            for file in (SHIPPED_CORPUS, SHIPPED_CORPUS.with_name("outlier.parquet"))
        ]
        corpus = Path(scratch) / "with_outlier.parquet"
        pq.write_table(pa.concat_tables(tables, promote_options="default"), corpus)
        text = "The same with a lone outlier source in the corpus: its gate holds it. Kept as an example of HOLD."
        train(HELD, text, "--corpus", str(corpus), "--license", "BSD-3-Clause-Plus-Patent")
    run("gate", HELD, *to, code=1)
    run("validate", str(path))
    for entry_id in (PRODUCTION, HELD):
        run("card", entry_id, *to, "-o", str(options.cards / f"{entry_id}.md"))


if __name__ == "__main__":
    main()
