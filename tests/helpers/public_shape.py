"""public_shape.py: an extract in the shape of the public version-1 registry: documents with its defects, no models.

Each of its peculiarities is here once: members pinned by digests of other files, a manifest with another vocabulary and
scaler than its members' sidecars, a verdict that names nothing it judged, quantised and smoke models, bundles to come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import FEATURES, write

ENSEMBLE = "fr_regressor_v2_ensemble_v1"
LICENSE = "BSD-3-Clause-Plus-Patent"
MEMBERS = [f"{ENSEMBLE}_seed{seed}" for seed in range(5)]
OLD_VOCABULARY = ["x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", "unknown"]
VOCABULARY = [
    "libx264",
    "libx265",
    "libsvtav1",
    "libvvenc",
    "libvpx-vp9",
    "h264_nvenc",
    "hevc_nvenc",
    "av1_nvenc",
    "h264_qsv",
    "hevc_qsv",
    "av1_qsv",
    "unknown",
]


def row(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "kind": kind,
        "license": LICENSE,
        "license_url": "https://example.org/LICENSE",
        "notes": "extract",
        "onnx": f"{name}.onnx",
        "opset": 17,
        "sha256": "0" * 64,
        "sigstore_bundle": f"{name}.onnx.sigstore.json",
        "smoke": False,
        **fields,
    }


def write_extract(folder: Path) -> Path:
    """registry.json and the documents beside it; the digests of models are for the caller to make right."""
    rows = [
        row("dists_sq_placeholder_v0", "fr", smoke=True),
        row("fastdvdnet_pre", "filter"),
        {key: value for key, value in row("fr_regressor_v1", "fr").items() if key != "smoke"},
        *(row(name, "fr") for name in MEMBERS),
        row("learned_filter_v1", "filter", int8_sha256="0" * 64, quant_mode="dynamic", quant_accuracy_budget_plcc=0.01),
        row("transnet_v2", "nr"),
        row("vmaf_tiny_v2", "fr"),
    ]
    write(folder, "registry.json", {"$schema": "./registry.schema.json", "schema_version": 1, "models": rows})
    write(folder, "registry.schema.json", {"type": "object"})
    write(folder, "fr_regressor_v1.json", {"id": "fr_regressor_v1", "kind": "fr", "onnx": "fr_regressor_v1.onnx"})
    write(
        folder,
        f"{ENSEMBLE}.json",
        {
            "id": ENSEMBLE,
            "kind": "fr_ensemble",
            "ensemble_size": 5,
            "smoke": True,
            "codec_vocab": OLD_VOCABULARY,
            "codec_vocab_version": 1,
            "confidence": {
                "conformal_q_residual": None,
                "gaussian_z": 1.959963984540054,
                "method": "ensemble",
                "nominal_coverage": 0.95,
            },
            "eval": {"in_sample_plcc": -0.2, "in_sample_rmse": 78.8, "mean_sigma_train": 0.04},
            "feature_order": FEATURES,
            "feature_mean": [0.7] * 6,
            "feature_std": [0.2] * 6,
            "members": [
                {"id": name, "onnx": f"{name}.onnx", "seed": seed, "sha256": f"{seed}" * 64}
                for seed, name in enumerate(MEMBERS)
            ],
        },
    )
    write(
        folder,
        f"{MEMBERS[0]}.json",
        {
            "id": MEMBERS[0],
            "kind": "fr",
            "onnx": f"{MEMBERS[0]}.onnx",
            "sha256": "0" * 64,
            "opset": 17,
            "seed": 0,
            "ensemble_id": ENSEMBLE,
            "codec_aware": True,
            "encoder_vocab": VOCABULARY,
            "encoder_vocab_version": 2,
            "codec_block_layout": [*(f"encoder_onehot[{name}]" for name in VOCABULARY), "preset_norm", "crf_norm"],
            "feature_order": FEATURES,
            "feature_mean": [0.9] * 6,
            "feature_std": [0.1] * 6,
            "input_names": ["features", "codec_onehot"],
            "output_names": ["score"],
            "gate": {"mean_plcc": 0.997, "passed": True, "verdict": "PROMOTE"},
            "loso_mean_plcc": 0.997,
            "training_recipe": {"epochs": 200, "hidden": 64, "num_codecs": 14},
        },
    )
    write(
        folder,
        f"{ENSEMBLE}_seed_flip_PROMOTE.json",
        {
            "schema_version": 1,
            "verdict": "PROMOTE",
            "seeds": [0, 1, 2, 3, 4],
            "corpus": {"corpus_root": "elsewhere", "dis_count": 0, "present": False, "ref_count": 0, "sha256": None},
            "gate": {
                "failing_seeds": [],
                "mean_plcc": 0.997,
                "mean_plcc_threshold": 0.95,
                "passed": True,
                "per_seed_plccs": {str(seed): 0.997 for seed in range(5)},
                "plcc_spread": 0.001,
            },
        },
    )
    return folder
