"""calibrated.py: the manifest of a calibrated entry from its parent's, and what in one is not its parent's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from fr_ensemble.artifacts.manifest import is_current, offset_of
from fr_ensemble.artifacts.paths import CALIBRATED_PATHS
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.toolkit import EXACT, differences
from registry_tool.values import Json

OWN_FIELDS = ("calibrated_from", "calibration", "intervals", "confidence")  # what a calibration says itself
OWN_WITH_OFFSET = ("fused", "probe")  # and what follows from an offset
PARTLY_KEPT = {  # and what of it is the parent's all the same
    "intervals": ("input_ranges",),
    "fused": ("onnx", "inputs", "outputs", "graph_version"),
    "probe": ("features", "codec_block"),
}
DIFFERENCES_SHOWN = 3


def calibrated_manifest(parent: Mapping[str, Json], entry_id: str, own: Mapping[str, Json]) -> dict[str, Json]:
    """The parent's manifest with another id, these fields, and pins of the calibration's evidence."""
    kept = {name: value for name, value in parent.items() if name != "$schema"}
    return {**kept, **own, "id": entry_id, "evidence": [*parent["evidence"], *_pins(CALIBRATED_PATHS)]}


def _pins(paths: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"path": path} for path in paths]


def parent_problems(manifest: Mapping[str, Json], data: bytes) -> Iterator[str]:
    """Where a calibrated entry's manifest is not made of its parent's, whose bytes are pinned beside it."""
    origin, digest = manifest["calibrated_from"], hashlib.sha256(data).hexdigest()
    if digest != origin["manifest_sha256"]:
        yield f"parent.json: found sha256 {digest}, calibrated_from says {origin['manifest_sha256']}"
        return
    try:
        parent = parse(data).value
    except JsonProblem as problem:
        yield f"parent.json: {problem}"
        return
    if not isinstance(parent, dict) or not is_current(parent) or parent.get("id") != origin["id"]:
        yield f"parent.json: expected the manifest of {origin['id']}, with schema_version 2"
        return
    try:
        wrong = [*_differences(manifest, parent)]
    except (KeyError, TypeError, AttributeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    for line in wrong[:DIFFERENCES_SHOWN]:
        yield f"not what its parent {origin['id']} has: {line}"


def _differences(manifest: Mapping[str, Json], parent: Mapping[str, Json]) -> Iterator[str]:
    own = OWN_FIELDS + OWN_WITH_OFFSET if offset_of(manifest) else OWN_FIELDS
    expected = calibrated_manifest(parent, manifest["id"], {name: manifest[name] for name in own})
    new = {pin["path"]: pin for pin in manifest["evidence"] if pin["path"] in CALIBRATED_PATHS}
    expected["evidence"] = [*parent["evidence"], *(new.get(path) for path in CALIBRATED_PATHS)]
    found = {name: value for name, value in manifest.items() if name != "$schema"}
    pairs: list[tuple[str, Json, Json]] = [("", found, expected)]
    for name, kept in PARTLY_KEPT.items():
        one, other = ({key: part[name].get(key) for key in kept} for part in (manifest, parent))
        pairs.append((f"/{name}", one, other))
    for place, one, other in pairs:
        for difference in differences(one, other, EXACT):
            yield f"{place}{difference.pointer}"
