"""Tests of single_models.py: what a single-model entry, its sidecar and its ONNX file say must agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_models import ENCODERS, FEATURES, codes, entry, findings, model, sidecar, write

from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Hooks, Level
from registry_tool.plugins import single_models

LAYOUT = [*(f"encoder_onehot[{name}]" for name in ENCODERS), "preset_norm", "crf_norm"]
CODEC: dict[str, Any] = {
    "input_names": ["features", "codec_onehot"],
    "encoder_vocab": ENCODERS,
    "codec_block_layout": LAYOUT,
}


def run(folder: Path, level: Level = Level.FULL, codec: int | None = None, **fields: Any) -> list[Finding]:
    """The findings on a production entry whose sidecar has these fields changed; None removes a field."""
    row = entry(folder, model(codec=codec), smoke=False)
    write(folder, "m.json", sidecar(row, **fields))
    return findings(folder, row, level=level)


def test_it_uses_only_public_hooks() -> None:
    """Every hook it implements is one of the specifications, and it names the three kinds of single models."""
    hooks = {name for name in vars(single_models) if name.startswith("registry_")}
    assert hooks == {"registry_kinds", "registry_verify", "registry_gate", "registry_figures"}
    assert all(hasattr(Hooks, name) for name in hooks)
    kinds = {kind.name: kind for kind in single_models.registry_kinds()}
    assert set(kinds) == {"fr", "nr", "filter"}
    assert all(kind.summary and kind.schema is None for kind in kinds.values())


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input_names": None, "output_names": None, "input_name": "features", "output_name": "score"},
        {"feature_order": None, "features": FEATURES, "feature_mean": None, "input_mean": [0] * 6},
        {"opset": None, "onnx_opset": 17},
        {"feature_order": None, "feature_mean": None, "feature_std": None, "anything_else": {"deep": [1]}},
    ],
)
def test_sound_sidecars_have_no_findings(tmp_path: Path, level: Level, fields: dict[str, Any]) -> None:
    """The spellings that public exporters write are all read, and a field that nobody knows is left alone."""
    assert run(tmp_path, level, **fields) == []


def test_sound_codec_sidecar_has_no_findings(tmp_path: Path) -> None:
    """A vocabulary, a layout with conditioning columns after it, and an input as wide as the layout are fine."""
    assert run(tmp_path, codec=6, **CODEC) == []


def test_only_production_needs_a_sidecar(tmp_path: Path) -> None:
    """A production entry without a sidecar is an error that names the file to add; a smoke entry needs none."""
    smoke, production = entry(tmp_path, model(), "a"), entry(tmp_path, model(), "b", smoke=False)
    (found,) = findings(tmp_path, smoke, production, level=Level.QUICK)
    assert (found.code, found.entry, found.expected) == ("sidecar-missing", "b", "b.json")


DEFECTS: list[tuple[str, str, bool, dict[str, Any]]] = [
    ("sidecar-disagrees", "/sha256", True, {"sha256": "0" * 64}),
    ("sidecar-disagrees", "/onnx", True, {"onnx": "other.onnx"}),
    ("sidecar-disagrees", "/license", True, {"license": "GPL-3.0"}),
    ("entry-disagrees", "/id", True, {"id": "other"}),
    ("entry-disagrees", "/kind", True, {"kind": "nr"}),
    ("entry-disagrees", "/smoke", True, {"smoke": True}),
    ("sidecar-features", "/feature_mean", True, {"feature_mean": [0.5] * 5}),
    ("sidecar-features", "/feature_mean", True, {"feature_mean": "high"}),
    ("sidecar-features", "/feature_std", True, {"feature_std": [0.1] * 5 + [0]}),
    ("sidecar-features", "/feature_std", True, {"feature_std": [0.1] * 5 + [True]}),
    ("sidecar-features", "/feature_order", True, {"feature_order": ["adm2"] * 6}),
    ("sidecar-features", "/feature_order", True, {"feature_order": 6}),
    ("sidecar-codec", "/codec_block_layout", True, {"codec_block_layout": LAYOUT, "encoder_vocab": ENCODERS[:-1]}),
    ("sidecar-codec", "/encoder_vocab", True, {"encoder_vocab": ["x264", "x264"]}),
    ("sidecar-inputs", "/input_names", False, {"input_names": ["x"]}),
    ("sidecar-outputs", "/output_names", False, {"output_names": ["mu", "sigma"]}),
    (
        "sidecar-width",
        "/feature_order",
        False,
        {"feature_order": FEATURES[:5], "feature_mean": [0] * 5, "feature_std": [1] * 5},
    ),
]


@pytest.mark.parametrize(("code", "pointer", "quick", "fields"), DEFECTS)
def test_defects_point_at_the_field(
    tmp_path: Path, code: str, pointer: str, quick: bool, fields: dict[str, Any]
) -> None:
    """Each disagreement is one error at its field and line; what documents alone show is found at the quick level."""
    (found,) = run(tmp_path, **fields)
    assert (found.code, found.file, found.pointer) == (code, "m.json", pointer)
    assert found.line is not None
    assert found.line > 1
    assert found.hint
    assert codes(run(tmp_path, Level.QUICK, **fields)) == ({code} if quick else set())


@pytest.mark.parametrize("fields", [{}, {"codec_block_layout": None}])
def test_codec_input_is_as_wide_as_its_names(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A codec input of another width than the layout, or than the vocabulary where there is no layout, is an error."""
    (found,) = run(tmp_path, codec=14, **(CODEC | fields))
    assert (found.code, found.expected) == ("sidecar-width", "14 columns")


def test_opset_of_registry_and_sidecar_agree_without_onnx(tmp_path: Path) -> None:
    """Two documents that name two opsets disagree at the quick level already."""
    row = entry(tmp_path, model(), opset=16)
    write(tmp_path, "m.json", sidecar(row))
    assert codes(findings(tmp_path, row, level=Level.QUICK)) == {"sidecar-disagrees"}


def test_quantised_entries_have_their_int8_file(tmp_path: Path) -> None:
    """An entry that says it is quantised needs the int8 file whose digest it names."""
    digest = write(tmp_path, "m.int8.onnx", model())
    row = entry(tmp_path, model(), quant_mode="dynamic", int8_sha256=digest)
    assert findings(tmp_path, row) == []
    (tmp_path / "m.int8.onnx").unlink()
    assert codes(findings(tmp_path, row)) == {"file-missing"}


def test_other_kinds_are_left_alone(tmp_path: Path) -> None:
    """An entry of a kind that another plugin owns is not judged as a single model."""
    from registry_tool.hookspec import Kind, hookimpl

    class Thumbnails:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("thumb", "thumbnail rankers")]

    row = entry(tmp_path, model(), kind="thumb", smoke=True)
    row["sidecar_sha256"] = write(tmp_path, "m.json", sidecar(row, feature_std=[0] * 6))
    assert findings(tmp_path, row, version=2, more=[Thumbnails()]) == []


# ---- scalers --------------------------------------------------------------------------------------------------------

MEANS, DEVIATIONS = np.linspace(0.2, 0.7, 6, dtype=np.float32), np.linspace(0.1, 0.6, 6, dtype=np.float32)


def with_scaler(*steps: tuple[str, Any]) -> onnx.ModelProto:
    """The linear model behind nodes that compute with constants first."""
    made = model()
    last = "features"
    for number, (op, values) in enumerate(steps):
        if values is not None:
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), f"c{number}"))
        inputs = [last] if values is None else [f"c{number}", last] if op in ("Add", "Mul") else [last, f"c{number}"]
        last = f"s{number}"
        made.graph.node.insert(number, helper.make_node(op, inputs, [last]))
    made.graph.node[len(steps)].input[0] = last
    return made


def onnx_ml() -> onnx.ModelProto:
    """The same with the Scaler that scikit-learn's exports have."""
    made = model()
    scaler = helper.make_node("Scaler", ["features"], ["s"], domain="ai.onnx.ml", offset=MEANS, scale=1 / DEVIATIONS)
    made.graph.node.insert(0, scaler)
    made.graph.node[1].input[0] = "s"
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return made


BOTH = {"/feature_mean", "/feature_std"}
SCALED: list[tuple[str, Any, set[str]]] = [
    ("as it is", lambda: model(), set()),
    ("taken away, divided", lambda: with_scaler(("Sub", MEANS), ("Div", DEVIATIONS)), BOTH),
    ("added, multiplied", lambda: with_scaler(("Add", -MEANS), ("Mul", 1 / DEVIATIONS)), BOTH),
    ("with a node between", lambda: with_scaler(("Identity", None), ("Sub", MEANS), ("Relu", None)), {"/feature_mean"}),
    ("a Scaler", onnx_ml, BOTH),
    ("another scaler", lambda: with_scaler(("Sub", MEANS + 1e-3), ("Div", DEVIATIONS * 2)), set()),
    ("after a layer", lambda: with_scaler(("Relu", None), ("Sub", MEANS)), set()),
]


@pytest.mark.parametrize(("made", "places"), [case[1:] for case in SCALED], ids=[case[0] for case in SCALED])
def test_a_scaler_in_the_sidecar_and_in_the_first_nodes_is_found(
    tmp_path: Path, made: Callable[[], onnx.ModelProto], places: set[str]
) -> None:
    """Without any rows: the numbers are the same. Numbers that change nothing are no scaler."""
    row = entry(tmp_path, made())
    scaler = {"feature_mean": MEANS.tolist(), "feature_std": DEVIATIONS.tolist()}
    row["sidecar_sha256"] = write(tmp_path, "m.json", sidecar(row, **scaler))
    found = findings(tmp_path, row, version=2)
    assert {f.pointer for f in found if f.severity is Severity.ERROR} == places, found
    assert {f.code for f in found if f.severity is Severity.ERROR} <= {"sidecar-scaling"}
    row["sidecar_sha256"] = write(tmp_path, "m.json", sidecar(row, feature_mean=[0] * 6, feature_std=[1] * 6))
    assert not [f for f in findings(tmp_path, row, version=2) if f.severity is Severity.ERROR]
