"""migrated.py: the fused graph of a migrated ensemble against its members, which another exporter wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fr_ensemble.artifacts.composed import composed
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SIGMA
from fr_ensemble.artifacts.manifest import is_runnable
from fr_ensemble.checks.graphs import FUSED
from fr_ensemble.checks.manifest import CONSTANT, WIDTH, check_equal
from registry_tool.findings import Finding
from registry_tool.hookspec import EntryView
from registry_tool.values import Json


def check_migrated(view: EntryView, manifest: Mapping[str, Json]) -> Iterator[Finding]:
    """The fused graph is, byte for byte, its members behind the manifest's scaler and codec block."""
    if not is_runnable(manifest):
        return
    vocabulary, block = manifest["codec_vocab"], manifest["codec_block"]
    slots = [column["name"] for column in block if column["transform"] == "onehot"]
    if slots != vocabulary or slots != [column["name"] for column in block[: len(slots)]]:
        yield from check_equal(view, WIDTH, "/codec_block", ", ".join(slots), ", ".join(vocabulary))
        return
    for index, column in enumerate(block):
        found, kind = [column["transform"], column["mean"], column["std"]], "none" if index >= len(slots) else "onehot"
        yield from check_equal(view, CONSTANT, f"/codec_block/{index}", found, [kind, 0.0, 1.0])
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
