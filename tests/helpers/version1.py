"""version1.py: a version-1 registry with an unpinned ensemble manifest beside it, that a test may make wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import ENCODERS, FEATURES, entry, findings, model, sidecar, write

from registry_tool import schemas
from registry_tool.findings import Finding
from registry_tool.hookspec import Kind, Level, hookimpl

LAYOUT = [*(f"encoder_onehot[{name}]" for name in ENCODERS), "crf_norm"]


class Ensembles:
    """Owns the manifest kind without looking at anything, so that only the core's findings show."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("fr_ensemble", "ensembles", schema=schemas.load("fr_ensemble"))]


class Rows:
    """Two members with sidecars in a folder, and a manifest that is right; a test makes one thing wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = [entry(folder, model(codec=5, seed=seed), f"e_seed{seed}", smoke=False) for seed in range(2)]
        self.manifest: dict[str, Any] = {
            "id": "e",
            "kind": "fr_ensemble",
            "ensemble_size": 2,
            "members": [
                {"id": row["id"], "onnx": row["onnx"], "seed": seed, "sha256": row["sha256"]}
                for seed, row in enumerate(self.rows)
            ],
            "feature_order": FEATURES,
            "feature_mean": [0.5] * 6,
            "feature_std": [0.1] * 6,
            "codec_vocab": ENCODERS,
            "codec_vocab_version": 7,
            "smoke": False,
        }
        self.sidecars = [
            sidecar(
                row,
                input_names=["features", "codec_onehot"],
                encoder_vocab=ENCODERS,
                encoder_vocab_version=7,
                codec_block_layout=LAYOUT,
                ensemble_id="e",
                seed=seed,
            )
            for seed, row in enumerate(self.rows)
        ]

    def findings(self, level: Level = Level.FULL) -> list[Finding]:
        write(self.folder, "e.json", self.manifest)
        for row, document in zip(self.rows, self.sidecars, strict=True):
            write(self.folder, f"{row['id']}.json", document)
        return findings(self.folder, *self.rows, level=level, more=[Ensembles()])
