"""migrating.py: an old registry, one with an ensemble, a migration, and what is wrong with the new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from public_shape import ENSEMBLE, VOCABULARY
from tiny_models import FEATURES, entry, model, sidecar, write

from registry_tool.findings import Severity
from registry_tool.plugins.manager import load
from registry_tool.workflows.migrate import Migration, migrate
from registry_tool.workflows.validate import validate


def old(folder: Path, *rows: dict[str, Any], version: int = 1) -> Path:
    write(folder, "registry.json", {"schema_version": version, "models": list(rows)})
    return folder / "registry.json"


def run(path: Path, new: Path, **options: Any) -> Migration:
    return migrate(path, new, load(), **options)


def errors(folder: Path) -> list[str]:
    return [str(f) for f in validate(folder / "registry.json", load()).findings if f.severity is Severity.ERROR]


def ensemble(folder: Path, size: int = 2, conditions: Sequence[str] = ("crf_norm",), **fields: Any) -> Path:
    """Production members below `sub/`, with sidecars, and a manifest that is right; fields change it."""
    width = len(VOCABULARY) + len(conditions)
    rows = [entry(folder, model(codec=width, seed=s), f"sub/s{s}", id=f"s{s}", smoke=False) for s in range(size)]
    for seed, row in enumerate(rows):
        layout = [*(f"encoder_onehot[{name}]" for name in VOCABULARY), *conditions]
        write(
            folder,
            f"sub/s{seed}.json",
            sidecar(
                row,
                input_names=["features", "codec_onehot"],
                encoder_vocab=VOCABULARY,
                encoder_vocab_version=2,
                codec_block_layout=layout,
                seed=seed,
            ),
        )
    manifest = {
        "id": "e",
        "kind": "fr_ensemble",
        "ensemble_size": size,
        "smoke": False,
        "mood": {"deep": ["kept", 1]},
        "members": [{"id": f"s{s}", "onnx": f"s{s}.onnx", "seed": s, "sha256": rows[s]["sha256"]} for s in range(size)],
        "feature_order": FEATURES,
        "feature_mean": [0.5] * 6,
        "feature_std": [0.1] * 6,
        "codec_vocab": VOCABULARY,
        "codec_vocab_version": 2,
    }
    write(folder, "sub/e.json", manifest | fields)
    return old(folder, *rows)


def outside(made: onnx.ModelProto, folder: Path, location: str, *, sha1: bool) -> onnx.ModelProto:
    """The model with its weights moved into a file, which its graph names with a SHA-1 or without."""
    weight = made.graph.initializer[0]
    data = weight.raw_data
    write(folder, location, data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    pairs = {"location": location, "offset": "0", "length": str(len(data))}
    for key, value in (pairs | ({"checksum": hashlib.sha1(data).hexdigest()} if sha1 else {})).items():
        weight.external_data.add(key=key, value=value)
    return made


def with_models(public_documents: Path) -> Path:
    """The registry of the public documents, with a small model for every row; weights of members lie beside them."""
    folder = public_documents
    document = json.loads((folder / "registry.json").read_bytes())
    first = json.loads((folder / f"{ENSEMBLE}_seed0.json").read_bytes())
    for number, row in enumerate(document["models"]):
        member = row["id"].startswith(ENSEMBLE)
        made = model(codec=14 if member else None, seed=number, opset=row["opset"])
        if member:
            made = outside(made, folder, f"{row['onnx']}.data", sha1=number % 2 == 0)
        row["sha256"] = write(folder, row["onnx"], made)
        if "int8_sha256" in row:
            row["int8_sha256"] = write(folder, row["onnx"].replace(".onnx", ".int8.onnx"), model(seed=99))
        if member:
            own = {"id": row["id"], "seed": int(row["id"][-1]), "onnx": row["onnx"], "sha256": row["sha256"]}
            write(folder, f"{row['id']}.json", first | own)
    write(folder, "fr_regressor_v1.json", sidecar({"id": "", "kind": "fr", **document["models"][2]}))
    write(folder, "registry.json", document)
    return folder / "registry.json"
