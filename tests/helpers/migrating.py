"""migrating.py: an old registry, one with an ensemble, a migration, and what is wrong with the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from public_shape import VOCABULARY
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


def ensemble(folder: Path, size: int = 2, **fields: Any) -> Path:
    """Production members below `sub/`, with sidecars, and a manifest that is right; fields change it."""
    rows = [entry(folder, model(codec=13, seed=s), f"sub/s{s}", id=f"s{s}", smoke=False) for s in range(size)]
    for seed, row in enumerate(rows):
        layout = [*(f"encoder_onehot[{name}]" for name in VOCABULARY), "crf_norm"]
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
