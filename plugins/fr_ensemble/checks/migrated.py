"""migrated.py: the fused graph of a migrated ensemble against its members, which another exporter wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fr_ensemble.artifacts.composed import composed
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SIGMA
from fr_ensemble.artifacts.manifest import is_runnable
from fr_ensemble.checks.graphs import FUSED
from fr_ensemble.checks.manifest import CONSTANT, check_equal, check_slots
from registry_tool.findings import Finding
from registry_tool.hookspec import EntryView
from registry_tool.values import Json


def check_migrated(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """The fused graph is, byte for byte, its members behind the manifest's scaler and codec block."""
    if not is_runnable(manifest):
        return
    if found := [*check_slots(view, manifest)]:
        yield from found
        return
    n_slots = len(manifest["codec_vocab"])
    for index, column in enumerate(manifest["codec_block"]):
        kind = "onehot" if index < n_slots else "none"
        yield from check_equal(
            view,
            CONSTANT,
            f"/codec_block/{index}",
            [column["transform"], column["mean"], column["std"]],
            [kind, 0.0, 1.0],
        )
    fused = manifest["fused"]
    yield from check_equal(view, CONSTANT, "/fused/inputs", fused["inputs"], [FEATURES, CODEC])
    yield from check_equal(view, CONSTANT, "/fused/outputs", fused["outputs"], [MU, SIGMA])
    try:
        expected = composed(view, manifest)
    except (ValueError, KeyError) as error:
        yield FUSED.at(view, "/fused/onnx", found=f"members that make no graph ({error})")
        return
    if view.read(fused["onnx"]) != expected:
        yield FUSED.at(view, "/fused/onnx", found="other bytes")
