"""manifest.py: the manifest of an ensemble, written and read: what every file in the entry is and how rows enter it."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Scaler
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, GRAPH_VERSION, MU, OPSET_VERSION, SCORE, SIGMA, FusedFormat
from fr_ensemble.artifacts.paths import KIND, OOF_PATH, summary_path
from fr_ensemble.artifacts.recipe import RAW, Recipe
from fr_ensemble.corpus.record import DEFINED_TARGETS, Definition, definition_in
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.seen import SeenCorpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.corpus.vmaf_models import canonical
from fr_ensemble.corpus.vocabulary import spellings, stand_in, vocabulary
from registry_tool.strictjson import dump
from registry_tool.values import EMPTY, Json

SCHEMA_VERSION = 2
# Of a corpus' record.
RECORD_SETTINGS = ("engine", "ffmpeg", "libvmaf", "model", "bits", "features", "frame_filter", "every", "encoders")
COLUMN_NAMES = ("source_column", "encoder_column")  # of a spec, recorded where they are not the usual ones
MAX_SETTINGS_BYTES = 64 << 10  # bytes of a corpus's record; a manifest may have 1 MiB
RAW_RECIPE = {"member_conditions": RAW}  # what members of a public ensemble take, whose manifest has no recipe
CONFIDENCE = {"nominal_coverage": 0.95, "gaussian_z": 1.959963984540054}  # z of that coverage
GAUSSIAN, CONFORMAL = "ensemble", "ensemble+conformal"  # how a public reader makes an interval of mu and sigma
# What the inputs of a probe are: as a corpus has them, or as the fused graph takes them. Nothing is standardised.
PROBE_STAGES = {"features": "raw", "encoder": "raw", "conditioning": "raw", "codec_block": "transformed"}
RECORDED_PACKAGES = ("numpy", "onnx", "onnxruntime", "pyarrow", "registry-tool")  # packages in `environment`


def codec_columns(corpus: ColumnSpec, scaler: Scaler) -> list[dict[str, Json]]:
    """The second input's columns: one-hot slots, then conditioning columns with their mean and deviation."""
    slots = [
        {"name": name, "transform": "onehot", "mean": 0.0, "std": 1.0} for name in vocabulary(corpus.vocabulary_version)
    ]
    at = len(corpus.features)
    return slots + [
        {
            "name": c.column,
            "transform": c.transform,
            "mean": float(scaler.mean[at + i]),
            "std": float(scaler.std[at + i]),
        }
        for i, c in enumerate(corpus.conditioning)
    ]


def codec_block(codec: Int64, conditioning: Float64, n_slots: int) -> Float64:
    """Slots (n,) and conditioning columns (n, K) -> the fused graph's second input, float64 (n, V + K), unscaled."""
    block = np.zeros((len(codec), n_slots + conditioning.shape[1]))
    block[np.arange(len(codec)), codec] = 1.0
    block[:, n_slots:] = conditioning
    return block


def environment(arithmetic: Mapping[str, str]) -> list[dict[str, str]]:
    """What the artefacts were made with: recorded, never compared. A list, since a key `onnx` would be a pin.

    arithmetic: what the trainer computes with; see trainer.arithmetic.
    """
    found = {"machine": platform.machine(), **arithmetic, "python": platform.python_version()}
    found["libc"] = " ".join(platform.libc_ver()).strip() or "unknown"
    for name in RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return [{"name": name, "version": version} for name, version in found.items()]


def record_of(corpus: Corpus) -> dict[str, Json] | None:
    """How the corpus was made, as its file says: versions and settings, and the digest of the whole record.

    What grows with sources and logs stays in the file, and so do settings that no manifest can hold. None for a corpus
    without a record.
    """
    if corpus.record is None:
        return None
    text = json.dumps(corpus.record, sort_keys=True, separators=(",", ":"))
    settings = {name: corpus.record[name] for name in RECORD_SETTINGS if name in corpus.record}
    try:
        settings = settings if len(dump(settings)) <= MAX_SETTINGS_BYTES else {}
    except ValueError:
        settings = {}
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "settings": settings}


def corpus_document(corpus: Corpus, name: str) -> dict[str, Json]:
    """What a manifest says of the rows that were learned from, or calibrated on."""
    return {
        "name": name,
        "sha256": corpus.sha256,
        "rows_sha256": corpus.rows_sha256,
        "n_rows": corpus.n_rows,
        "sources": list(corpus.sources),
        **{option: column for option in COLUMN_NAMES if (column := getattr(corpus.spec, option))},
        "record": record_of(corpus),
    }


@dataclass(frozen=True, slots=True)
class ManifestParts:
    """What a run gives a manifest. eval: metrics by name; arithmetic: what decides in which order training adds.

    conformal_q_residual: infinite and unknown are both null in the manifest, as public readers expect.
    """

    entry_id: str
    corpus: Corpus
    corpus_name: str
    recipe: Recipe
    scaler: Scaler
    probe: Mapping[str, Json]
    intervals: Mapping[str, Json]
    conformal_q_residual: float | None
    eval: Mapping[str, Json]
    metrics_version: int
    arithmetic: Mapping[str, str]
    random_rows: bool
    graph_version: int = GRAPH_VERSION

    def to_dict(self) -> dict[str, Json]:
        """The manifest without digests of files: the core adds those."""
        entry_id, corpus, recipe, scaler = self.entry_id, self.corpus, self.recipe, self.scaler
        spec, n_features, residual = corpus.spec, len(corpus.spec.features), self.conformal_q_residual
        residual = residual if residual is not None and math.isfinite(residual) else None
        graph_version = {} if self.graph_version == 1 else {"graph_version": self.graph_version}
        return {
            "schema_version": SCHEMA_VERSION,
            "id": entry_id,
            "kind": KIND,
            "ensemble_size": len(recipe.seeds),
            "members": [
                {"id": f"{entry_id}_seed{seed}", "onnx": f"{entry_id}_seed{seed}.onnx", "seed": seed}
                for seed in recipe.seeds
            ],
            "feature_order": list(spec.features),
            "feature_mean": scaler.mean[:n_features].tolist(),
            "feature_std": scaler.std[:n_features].tolist(),
            "codec_vocab": list(vocabulary(spec.vocabulary_version)),
            "codec_vocab_version": spec.vocabulary_version,
            "codec_spellings": spellings(spec.vocabulary_version),
            "codec_stand_in": stand_in(spec.vocabulary_version),
            "codec_block": codec_columns(spec, scaler),
            "target": {
                "name": spec.target,
                "range": list(spec.bounds),
                **(corpus.definition.to_dict() if corpus.definition else {}),
            },
            "inputs": [FEATURES, CODEC],
            "outputs": [SCORE],
            "opset": OPSET_VERSION,
            "fused": {
                "onnx": f"{entry_id}.onnx",
                "inputs": [FEATURES, CODEC],
                "outputs": [MU, SIGMA],
                **graph_version,
            },
            "recipe": recipe.to_dict(),
            "recipe_sha256": recipe.sha256,
            "corpus": corpus_document(corpus, self.corpus_name)
            | (SeenCorpus.of(corpus).to_dict() if self.graph_version > 1 else {}),
            "environment": environment(self.arithmetic),
            "probe": dict(self.probe),
            "intervals": dict(self.intervals),
            "confidence": {
                "method": confidence_method(self.graph_version, residual),
                **CONFIDENCE,
                "conformal_q_residual": residual,
            },
            "metrics_version": self.metrics_version,
            "eval": dict(self.eval),
            "evidence": [{"path": OOF_PATH}, *({"path": summary_path(seed)} for seed in recipe.seeds)],
            "random_rows": self.random_rows,
        }


def confidence_method(graph_version: int, residual: float | None) -> str:
    """What `confidence.method` says to public readers: conformal where q is there. Version 1 always said the same."""
    return CONFORMAL if graph_version > 1 and residual is not None else GAUSSIAN


def graph_version_of(manifest: Mapping[str, Json]) -> int:
    """Of the writer of the fused graph; manifests of the first one do not say it."""
    return int(manifest["fused"].get("graph_version", 1))


def mu_range_of(manifest: Mapping[str, Json]) -> tuple[float, float] | None:
    """What mu is cut to in the fused graph and in the evidence; None where mu is the members' mean, uncut."""
    low, high = manifest["target"]["range"]
    return (float(low), float(high)) if graph_version_of(manifest) > 1 else None


def fused_format_of(manifest: Mapping[str, Json]) -> FusedFormat:
    """How the fused graph of this manifest is written. What the file says of itself is what does not change later."""
    version = graph_version_of(manifest)
    if version == 1:
        return FusedFormat()
    metadata = {
        "kind": manifest["kind"],
        "target": manifest["target"]["name"],
        "recipe_sha256": manifest["recipe_sha256"],
        "corpus_rows_sha256": manifest["corpus"]["rows_sha256"],
    }
    if definition := manifest["target"].get("definition"):
        metadata["target_definition"] = definition
    return FusedFormat(version, mu_range_of(manifest), metadata)


def is_current(manifest: Mapping[str, Json]) -> bool:
    """False for a public version-1 manifest, which has no codec block, no fused graph and no evidence."""
    return manifest.get("schema_version") == SCHEMA_VERSION


def is_runnable(manifest: Mapping[str, Json]) -> bool:
    """Whether it has a fused graph: one that was trained here, or one that `registry migrate` completed."""
    return is_current(manifest) or ("migration" in manifest and "fused" in manifest)


def has_inputs(recorded: Mapping[str, Json]) -> bool:
    """Whether the evidence has inputs of rows. recorded: a manifest, or its `calibration`."""
    return bool(recorded.get("evidence_inputs", {}).get("n_rows"))


def spec_of(manifest: Mapping[str, Json], *, target: bool, names: Mapping[str, str] = EMPTY) -> ColumnSpec:
    """The columns that the ensemble reads; target=False for rows to predict. names: as of a request's `column_names`.

    Raises InputError for what no run writes.
    """
    conditions = [Condition(c["name"], c["transform"]) for c in manifest["codec_block"] if c["transform"] != "onehot"]
    low, high = manifest["target"]["range"]
    return ColumnSpec(
        features=tuple(manifest["feature_order"]),
        target=manifest["target"]["name"] if target else None,
        conditioning=tuple(conditions),
        vocabulary_version=manifest["codec_vocab_version"],
        target_range=(float(low), float(high)),
        source_column=names.get("src", ""),
        encoder_column=names.get("encoder", ""),
        raw_conditions=manifest.get("recipe", RAW_RECIPE).get("member_conditions") == RAW,
    )


def with_columns_of(spec: ColumnSpec, corpus: Mapping[str, Json]) -> ColumnSpec:
    """The columns as the file of a manifest's corpus calls them."""
    return replace(spec, **{option: corpus.get(option, "") for option in COLUMN_NAMES})


def definition_of(manifest: Mapping[str, Json]) -> Definition | None:
    """By which model the target is; a manifest from before it was said has it in the settings of its corpus."""
    target = manifest["target"]
    if "definition" in target:
        return Definition(canonical(target["definition"]), target.get("libvmaf", ""))
    if target["name"] not in DEFINED_TARGETS:
        return None
    if not is_current(manifest):
        return None
    return definition_in((manifest["corpus"].get("record") or {}).get("settings"))


def offset_of(manifest: Mapping[str, Json]) -> float:
    """What calibration adds to every score, target units; see `shifted` in graphs.py."""
    return float((manifest.get("calibration") or {}).get("offset", 0.0))


def scaler_of(manifest: Mapping[str, Json]) -> Scaler:
    """Mean and deviation of the numeric columns, float64 (F + K,)."""
    conditions = [c for c in manifest["codec_block"] if c["transform"] != "onehot"]
    mean: Sequence[float] = [*manifest["feature_mean"], *(c["mean"] for c in conditions)]
    std: Sequence[float] = [*manifest["feature_std"], *(c["std"] for c in conditions)]
    return Scaler(np.asarray(mean, np.float64), np.asarray(std, np.float64))
