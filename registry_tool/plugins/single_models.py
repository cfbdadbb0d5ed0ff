"""single_models.py: the built-in plugin for single-model kinds (fr, nr, filter). Uses only the public hooks.

It is also the smallest complete example for a plugin author. A plugin is a module (or an object) with functions marked
`@hookimpl`; it is found through the entry point group `registry_tool`:

    [project.entry-points.registry_tool]
    thumbnails = "thumbnails.plugin"

Two hooks are enough for a kind that is validated but neither trained nor gated here:

- `registry_kinds` names the kinds. A kind without a schema is one ONNX file with an optional sidecar `<name>.json`,
  which arrives parsed as `view.manifest`; a kind with a schema has a manifest instead.
- `registry_verify` is asked about every entry, those of other kinds too: return early for what is not yours. Bytes come
  from `view.read`, and were checked against their pins; there is no folder to open files from. What an ONNX file says
  comes from `view.onnx`. A finding is declared once (`FindingRule`, below), its code starts with a word of yours, and
  `at` takes a pointer into the manifest; the core fills in the line. `Kind.findings` says where the declarations are,
  for `registry rule` and SARIF.
- `registry_figures` (the third here) adds to the page of `registry report`; it may be left out, as `registry_gate` may,
  which is here for entries whose evidence `registry evidence` wrote.

Heavy imports stay inside the hook bodies, and `Level.QUICK` does without them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from posixpath import dirname, join

from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.hookspec import EntryView, Figure, GateRequest, Kind, Level, Table, hookimpl
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.sidecars import (
    DEVIATION_FIELDS,
    ENCODER_COLUMN_PREFIX,
    FEATURES_PORT,
    MEAN_FIELDS,
    ORDER_FIELDS,
)
from registry_tool.values import Evidence, Json, Policy, Rule

KINDS = {
    "fr": "full-reference quality model: one ONNX file",
    "nr": "no-reference quality model: one ONNX file",
    "filter": "pre- or post-processing filter: one ONNX file",
}
# What scikit-learn's regressors are exported with; a filter makes pictures.
REGRESSION = {
    "ai.onnx.ml": frozenset(
        {
            *("ArrayFeatureExtractor", "Binarizer", "FeatureVectorizer", "Imputer", "LinearRegressor", "Normalizer"),
            *("Scaler", "SVMRegressor", "TreeEnsemble", "TreeEnsembleRegressor"),
        }
    )
}
DOMAINS: Mapping[str, Mapping[str, frozenset[str]]] = {"fr": REGRESSION, "nr": REGRESSION, "filter": {}}
# What rows must show before a model is promoted. `registry add` writes it into the policies, to be changed there.
ENOUGH_GROUPS = Rule("n_groups", ">=", 8)
SCORE_POLICY = Policy((Rule("mean_plcc", ">=", 0.9), ENOUGH_GROUPS, Rule("min_group_rows", ">=", 8)))
PICTURE_POLICY = Policy((Rule("psnr_gain", ">", 0.0), ENOUGH_GROUPS))
DEFAULT_POLICIES = {"fr": SCORE_POLICY, "nr": SCORE_POLICY, "filter": PICTURE_POLICY}
EXPORTERS = "its exporter's: no rows are pinned that would show it"
RECORDED_STATISTICS = {f"/{name}": EXPORTERS for name in (*MEAN_FIELDS, *DEVIATION_FIELDS)}
# Fields a sidecar may repeat.
REPEATED_FIELDS = ("onnx", "sha256", "opset", "quant_mode", "int8_sha256", "external_data", "license")
# A sidecar's names of means and of deviations; what the graph's node with them says is taken away, or divided by; none.
SCALERS: tuple[tuple[tuple[str, str], Mapping[str, Callable[[float], float]], float], ...] = (
    (MEAN_FIELDS, {"Sub": float, "Add": lambda value: -value}, 0.0),
    (DEVIATION_FIELDS, {"Div": float, "Mul": lambda value: 1.0 / value if value else math.inf}, 1.0),
)
SCALER_ROUNDING = 1e-5  # of float32 in the graph, and of the decimals in the sidecar
MAX_VALUE_CHARACTERS = 80  # characters of a value in a message
EXPORT_AGAIN = "export the sidecar again"

SIDECAR_MISSING = FindingRule(
    "sidecar-missing",
    "missing sidecar of a production model",
    why="A runtime cannot know what to feed the model. Of a model that `registry migrate` imported it is a warning.",
    message="{id} is production and has no sidecar",
    hint="add {name} with the model's inputs, outputs and normalisation, or set smoke to true",
    example="fr_v1.onnx without fr_v1.json",
)
SIDECAR_DISAGREES = FindingRule(
    "sidecar-disagrees",
    "registry and sidecar disagree",
    why="One of them describes another model.",
    message="{field} differs from that in the registry",
    hint="correct the one that is wrong",
    example="another sha256",
)
SIDECAR_FEATURES = FindingRule(
    "sidecar-features",
    "unusable features or feature statistics in the sidecar",
    why="Inputs would be scaled wrongly: scores look plausible and are not.",
    message="unusable {field}",
    hint=EXPORT_AGAIN,
    example="five means for six features; a deviation of 0",
)
SIDECAR_CODEC = FindingRule(
    "sidecar-codec",
    "vocabulary and codec layout of the sidecar disagree",
    why="An encoder's slot would be another encoder's.",
    message="unusable {field}",
    hint=EXPORT_AGAIN,
    example="12 names, 6 one-hot columns",
)
SIDECAR_INPUTS = FindingRule(
    "sidecar-inputs",
    "sidecar with other inputs than the model",
    why="A runtime that follows the sidecar fails.",
    message="the inputs differ from those of the model",
    hint="correct the sidecar, or export the model again",
    example='["x"] for ["features"]',
)
SIDECAR_OUTPUTS = FindingRule(
    "sidecar-outputs",
    "sidecar with other outputs than the model",
    why="A runtime that follows the sidecar fails, or reads another tensor.",
    message="the outputs differ from those of the model",
    hint="correct the sidecar, or export the model again",
    example='["mu"] for ["score"]',
)
SIDECAR_WIDTH = FindingRule(
    "sidecar-width",
    "number of names in the sidecar differs from the width of the model's input",
    why="The documented query fails in the runtime.",
    message="{input} has another width",
    hint="list the columns that the model was trained with",
    example="6 slots for 14 columns",
)
SIDECAR_SCALING = FindingRule(
    "sidecar-scaling",
    "the graph scales its inputs as the sidecar says it is done before",
    why="A runtime that follows the sidecar scales twice: scores look plausible and are not. Of a model that "
    "`registry migrate` imported it is a warning.",
    message="{field} is in the graph, too: its first nodes compute {op} with the same numbers",
    expected="one scaler",
    hint="take {field} out of the sidecar, or export the model without its scaler",
    example="feature_mean, and a first node that subtracts it",
    since="0.2.0",
)
EVIDENCE = FindingRule(
    "single-evidence",
    "evidence of a single model that does not hold",
    why="It was made with another model, or with other rows: it shows nothing of these bytes.",
    message="the evidence does not hold: {problem}",
    hint="run `registry evidence {id} --data FILE` again",
    example="a stored prediction that the shipped model does not give",
    since="0.2.0",
)
CALIBRATION_SET = FindingRule(
    "single-calibration-set",
    "static quantisation without the data that it was calibrated on",
    why="Its ranges hold for rows like those alone, and no reader can tell which they were.",
    message="quant_mode is static, and nothing names the rows that it was calibrated on",
    hint="add `quant_calibration_set` to the entry",
    example='"quant_mode": "static" alone',
    since="0.2.0",
    severity=Severity.WARNING,
)


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    findings = {"sidecar-": __name__, "single-": __name__}
    metrics = "registry_tool.plugins.single_gate:SINGLE_DESCRIPTIONS"
    return [
        Kind(
            name,
            summary,
            default_policy=DEFAULT_POLICIES[name],
            findings=findings,
            recorded=RECORDED_STATISTICS,
            domains=DOMAINS[name],
            metrics=metrics,
        )
        for name, summary in KINDS.items()
    ]


@hookimpl
def registry_gate(view: EntryView, request: GateRequest) -> Evidence | None:
    from registry_tool.plugins.single_gate import gate

    return gate(view, request)


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    if view.entry.kind not in KINDS or view.entry.onnx is None:
        return []
    return [*_beside(view), *_evidence(view, level), *_sidecar(view, level)]


def _beside(view: EntryView) -> Iterator[Finding]:
    document = view.entry.document
    if document.get("quant_mode") == "static" and not document.get("quant_calibration_set"):
        yield CALIBRATION_SET.at(view)


def _evidence(view: EntryView, level: Level) -> Iterator[Finding]:
    """What contradicts the evidence of a smoke entry; that of a production entry is measured for its verdict."""
    if level is Level.FULL and view.entry.smoke and "evidence" in view.entry.document:
        from registry_tool.plugins.single_gate import gate

        measured = gate(view, GateRequest())
        for problem in measured.problems if measured is not None else ():
            yield EVIDENCE.at(view.entry.document["evidence"]["path"], problem=problem, id=view.entry.id)


def _sidecar(view: EntryView, level: Level) -> list[Finding]:
    if view.manifest is None:
        return [] if view.entry.smoke else [_missing(view)]
    findings = [*_repeated_fields(view, view.manifest), *_statistics(view, view.manifest), *_codec(view, view.manifest)]
    if level is Level.FULL and not findings:
        findings += _against_onnx(view, view.manifest)
    return findings


@hookimpl
def registry_figures(view: EntryView) -> Sequence[Figure] | None:
    try:
        graph = view.onnx(view.entry.onnx or "")
    except (KeyError, OnnxError) as error:
        raise InputError(f"{view.entry.id}: its graph cannot be read ({error}): run `registry validate`") from error
    rows = [("", "name", "type", "shape")]
    for side, ports in (("input", graph.inputs), ("output", graph.outputs)):
        for port in ports:
            shape = " x ".join("?" if axis is None else str(axis) for axis in port.shape or ()) or "not given"
            rows.append((side, port.name, port.elem_type, shape))
    ops = ", ".join(sorted({op for _, op in graph.ops}))
    caption = f"Operators: {ops}. Nodes: {graph.n_nodes}. Opset: {graph.opsets.get('', 'not given')}."
    return [Figure("The graph", caption, table=Table(rows))]


def _missing(view: EntryView) -> Finding:
    name = (view.entry.onnx or "").removesuffix(".onnx") + ".json"
    return _of_import(view, SIDECAR_MISSING.at(view, found="no file", expected=name, id=view.entry.id, name=name))


def _of_import(view: EntryView, finding: Finding) -> Finding:
    """A warning of an imported model, which ships already; `gate --base` refuses an import that never was."""
    return replace(finding, severity=Severity.WARNING) if "imported_from" in (view.entry.promotion or {}) else finding


def _repeated_fields(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    """What the registry and the sidecar both say must be the same."""
    folder = dirname(view.entry.onnx or "")
    for name in REPEATED_FIELDS:
        if name in sidecar and name in view.entry.document:
            found, expected = sidecar[name], view.entry.document[name]
            if expected not in (found, _from_root(name, found, folder)):
                yield SIDECAR_DISAGREES.at(view, f"/{name}", found=found, expected=expected, field=name)


def _from_root(name: str, value: Json, folder: str) -> Json:
    """What a sidecar in a folder says relative to itself, as the registry says it."""
    if name == "onnx" and isinstance(value, str):
        return join(folder, value)
    if name == "external_data" and isinstance(value, list):
        return [{**pin, "path": join(folder, str(pin.get("path")))} for pin in value if isinstance(pin, Mapping)]
    return value


def _first(sidecar: Mapping[str, Json], *names: str) -> tuple[str, Json]:
    """The first of these fields that the sidecar has: its pointer and value; ("", None) without any."""
    for name in names:
        if name in sidecar:
            return f"/{name}", sidecar[name]
    return "", None


def _statistics(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    field, order = _first(sidecar, *ORDER_FIELDS)
    if field and (not _are_names(order) or len(set(order)) != len(order)):
        yield SIDECAR_FEATURES.at(view, field, found=_short(order), expected="unique names", field=field[1:])
        return
    for word, names in (("mean", MEAN_FIELDS), ("std", DEVIATION_FIELDS)):
        place, values = _first(sidecar, *names)
        if not place:
            continue
        if len({str(sidecar[name]) for name in names if name in sidecar}) > 1:
            found, expected = f"{' and '.join(names)}, which differ", "one of the two"
        elif not _are_finite(values) or (word == "std" and min(values, default=1) <= 0):
            found, expected = _short(values), "finite numbers" + (" > 0" if word == "std" else "")
        elif field and len(values) != len(order):
            found, expected = f"{len(values)} values", f"{len(order)} values, one for each feature"
        else:
            continue
        yield SIDECAR_FEATURES.at(view, place, found=found, expected=expected, field=place[1:])


def _codec(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    """The codec block's layout starts with one one-hot slot for each encoder of the vocabulary, in its order."""
    vocabulary, layout = sidecar.get("encoder_vocab"), sidecar.get("codec_block_layout")
    for name, value in (("encoder_vocab", vocabulary), ("codec_block_layout", layout)):
        if value is not None and (not _are_names(value) or len(set(value)) != len(value)):
            yield SIDECAR_CODEC.at(view, f"/{name}", found=_short(value), expected="unique names", field=name)
            return
    if vocabulary is not None and layout is not None:
        slots = [
            name.removeprefix(ENCODER_COLUMN_PREFIX)[:-1] for name in layout if name.startswith(ENCODER_COLUMN_PREFIX)
        ]
        if slots != vocabulary:
            found, expected = ", ".join(slots) or "no one-hot slots", f"slots of {', '.join(vocabulary)}"
            field = "codec_block_layout"
            yield SIDECAR_CODEC.at(view, f"/{field}", found=found, expected=expected, field=field)


def _against_onnx(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    try:
        summary = view.onnx(view.entry.onnx or "")
    except OnnxError:
        return  # the core says what is wrong with it
    for rule, word, values in ((SIDECAR_INPUTS, "input", summary.inputs), (SIDECAR_OUTPUTS, "output", summary.outputs)):
        place, names = _first(sidecar, f"{word}_names", f"{word}_name")
        real = [value.name for value in values]
        if isinstance(names, str):  # `input_name` of several is the first
            names, real = [names], real[:1]
        if place and names != real:
            yield rule.at(view, place, found=names, expected=real)
    yield from _scaled_twice(view, sidecar, summary)
    widths = {value.name: value.shape[-1] if value.shape else None for value in summary.inputs}
    others = [name for name in widths if name != FEATURES_PORT]
    if FEATURES_PORT not in widths:
        return  # pictures, say: nothing here names their columns
    for name, fields in (
        (FEATURES_PORT, (*ORDER_FIELDS, *MEAN_FIELDS, *DEVIATION_FIELDS)),
        (others[0] if len(others) == 1 else None, ("codec_block_layout", "encoder_vocab")),
    ):
        place, columns = _first(sidecar, *fields)
        width = widths.get(name or "", None if others else 0)
        if isinstance(width, int) and isinstance(columns, list) and len(columns) != width:
            yield SIDECAR_WIDTH.at(
                view,
                place,
                found=f"{len(columns)} names",
                expected=f"{width} columns",
                input=f"the model's input {name!r}" if name else "the model's codec input",
            )


def _scaled_twice(view: EntryView, sidecar: Mapping[str, Json], summary: OnnxSummary) -> Iterator[Finding]:
    """Where the graph's first nodes hold the numbers that the sidecar says its inputs are scaled by."""
    for names, undo, nothing in SCALERS:
        place, numbers = _first(sidecar, *names)
        if not place or all(number == nothing for number in numbers):
            continue
        for scaling in summary.scalings:
            values = [undo[scaling.op](value) for value in scaling.values] if scaling.op in undo else []
            values = values * len(numbers) if len(values) == 1 else values
            if len(values) == len(numbers) and all(map(_is_close, values, numbers)):
                found = f"{scaling.op} of {_short(scaling.values)} on {scaling.input!r}"
                yield _of_import(view, SIDECAR_SCALING.at(view, place, found=found, field=place[1:], op=scaling.op))
                break


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SCALER_ROUNDING, abs_tol=SCALER_ROUNDING)


def _are_names(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_finite(value: Json) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in value
    )


def _short(value: Json) -> str:
    """A value on one line, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 3]}..."
