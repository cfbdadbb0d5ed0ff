"""migrate.py: the fused graph of a public ensemble, and what rows enter it by. Trains nothing, judges nothing."""

from __future__ import annotations

from collections.abc import Mapping

from fr_ensemble.artifacts.composed import composed, layout_of
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SIGMA
from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.corpus.spec import KNOWN_RANGES
from fr_ensemble.corpus.vocabulary import spellings, stand_in
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, Trained
from registry_tool.onnx_summary import OnnxError
from registry_tool.strictjson import JsonProblem, parse
from registry_tool.values import Json

PUBLIC_TARGET = "vmaf"  # what every public fr_ensemble predicts; their documents have no field for it


def complete(view: EntryView) -> Trained | None:
    """The manifest of a joined ensemble with its fused graph; None for one that was trained here.

    Raises InputError, saying why there can be none.
    """
    manifest = view.manifest or {}
    if is_current(manifest):
        return None
    version, vocabulary = manifest["codec_vocab_version"], list(manifest["codec_vocab"])
    try:
        conditions = layout_of(_sidecars(view, manifest), vocabulary, _codec_widths(view, manifest))
        columns = [*((name, "onehot") for name in vocabulary), *((name, "none") for name in conditions)]
        block = [{"name": name, "transform": kind, "mean": 0.0, "std": 1.0} for name, kind in columns]
        fused = {"onnx": f"{view.entry.id}.onnx", "inputs": [FEATURES, CODEC], "outputs": [MU, SIGMA]}
        added = {
            "codec_block": block,
            "codec_spellings": spellings(version),
            "codec_stand_in": stand_in(version),
            "target": {"name": PUBLIC_TARGET, "range": list(KNOWN_RANGES[PUBLIC_TARGET])},
            "fused": fused,
        }
        graph = composed(view, {**manifest, **added})
    except (ValueError, KeyError) as error:  # an OnnxError is a ValueError
        raise InputError(f"{view.entry.id}: no fused graph: {error}") from error
    return Trained({str(fused["onnx"]): graph}, {**manifest, **added})


def _sidecars(view: EntryView, manifest: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    found: list[Mapping[str, Json]] = []
    for member in manifest["members"]:
        pin = member.get("sidecar")
        try:
            document = parse(view.read(pin["path"])).value if pin else {}
        except JsonProblem as problem:
            raise ValueError(f"{pin['path']}: {problem}") from problem
        found.append(document if isinstance(document, dict) else {})
    return found


def _codec_widths(view: EntryView, manifest: Mapping[str, Json]) -> list[int]:
    """Columns of each member's input beside the features; 0 where there is none."""
    widths = []
    for member in manifest["members"]:
        try:
            others = [port for port in view.onnx(member["onnx"]).inputs if port.name != FEATURES]
        except OnnxError as error:
            raise ValueError(f"{member['onnx']}: {error}") from error
        last = others[0].shape[-1] if len(others) == 1 and others[0].shape else 0
        widths.append(last if isinstance(last, int) else 0)
    return widths
