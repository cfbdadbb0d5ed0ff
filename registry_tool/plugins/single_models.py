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
  comes from `view.onnx`. Give each finding a code that starts with a word of yours, and a pointer into the manifest;
  the core fills in the line.
- `registry_figures` (the third here) adds to the page of `registry report`; it may be left out.

Heavy imports stay inside the hook bodies, and `Level.QUICK` does without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, Figure, Kind, Level, Table, hookimpl
from registry_tool.onnx_summary import OnnxError
from registry_tool.values import Finding, Json, Severity

KINDS = {
    "fr": "full-reference quality model: one ONNX file",
    "nr": "no-reference quality model: one ONNX file",
    "filter": "pre- or post-processing filter: one ONNX file",
}
REPEATED = (
    "onnx",
    "sha256",
    "opset",
    "quant_mode",
    "int8_sha256",
    "external_data",
    "license",
)  # fields a sidecar may repeat
FEATURES = "features"  # the feature input's name in every exporter of these models


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    return [Kind(name, summary) for name, summary in KINDS.items()]


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    if view.entry.kind not in KINDS or view.entry.onnx is None:
        return []
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
    imported = "imported_from" in (view.entry.promotion or {})  # `gate --base` holds an import that never was
    return view.finding(
        "sidecar-missing", f"{view.entry.id} is production and has no sidecar", found="no file", expected=name,
        severity=Severity.WARNING if imported else Severity.ERROR,
        hint=f"add {name} with the model's inputs, outputs and normalisation, or set smoke to true",
    )  # fmt: skip


def _repeated_fields(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    """What the registry and the sidecar both say must be the same."""
    for name in REPEATED:
        if name in sidecar and name in view.entry.document and sidecar[name] != view.entry.document[name]:
            yield view.finding(
                "sidecar-disagrees", f"the registry and the sidecar name another {name}", f"/{name}",
                found=str(sidecar[name]), expected=str(view.entry.document[name]), hint="correct the one that is wrong",
            )  # fmt: skip


def _first(sidecar: Mapping[str, Json], *names: str) -> tuple[str, Json]:
    """The first of these fields that the sidecar has: its pointer and value; ("", None) without any."""
    for name in names:
        if name in sidecar:
            return f"/{name}", sidecar[name]
    return "", None


def _statistics(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    at, order = _first(sidecar, "feature_order", "features")
    if at and (not _are_names(order) or len(set(order)) != len(order)):
        yield view.finding("sidecar-features", "features are names, each once", at, hint="list every feature once")
        return
    for word, names in (("mean", ("feature_mean", "input_mean")), ("std", ("feature_std", "input_std"))):
        place, values = _first(sidecar, *names)
        if not place:
            continue
        if len({str(sidecar[name]) for name in names if name in sidecar}) > 1:
            what = f"{' and '.join(names)} are two words for one thing"
            yield view.finding("sidecar-features", what, place, hint="keep one of them")
        elif not _are_finite(values) or (word == "std" and min(values, default=1) <= 0):
            what = f"a {word} is a list of {'finite' if word == 'mean' else 'positive, finite'} numbers"
            yield view.finding("sidecar-features", what, place, hint="export it again")
        elif at and len(values) != len(order):
            yield view.finding(
                "sidecar-features", f"one {word} for each feature", place, found=f"{len(values)} values",
                expected=f"{len(order)} values", hint="export it again",
            )  # fmt: skip


def _codec(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    """The codec block's layout starts with one one-hot slot for each encoder of the vocabulary, in its order."""
    vocabulary, layout = sidecar.get("encoder_vocab"), sidecar.get("codec_block_layout")
    for name, value in (("encoder_vocab", vocabulary), ("codec_block_layout", layout)):
        if value is not None and (not _are_names(value) or len(set(value)) != len(value)):
            yield view.finding("sidecar-codec", "a list of names, each once", f"/{name}", hint="export it again")
            return
    if vocabulary is not None and layout is not None:
        slots = [name[len("encoder_onehot[") : -1] for name in layout if name.startswith("encoder_onehot[")]
        if slots != vocabulary:
            yield view.finding(
                "sidecar-codec", "the layout's one-hot slots are not the vocabulary", "/codec_block_layout",
                found=", ".join(slots), expected=", ".join(vocabulary), hint="export it again",
            )  # fmt: skip


def _against_onnx(view: EntryView, sidecar: Mapping[str, Json]) -> Iterator[Finding]:
    try:
        summary = view.onnx(view.entry.onnx or "")
    except OnnxError:
        return  # the core says what is wrong with it
    for code, word, values in (
        ("sidecar-inputs", "input", summary.inputs),
        ("sidecar-outputs", "output", summary.outputs),
    ):
        place, names = _first(sidecar, f"{word}_names", f"{word}_name")
        names = [names] if isinstance(names, str) else names
        real = [value.name for value in values]
        if place and names != real:
            yield view.finding(
                code, f"the sidecar names other {word}s than the model", place, found=str(names),
                expected=str(real), hint="correct the sidecar, or export it again",
            )  # fmt: skip
    widths = {value.name: value.shape[-1] if value.shape else None for value in summary.inputs}
    others = [name for name in widths if name != FEATURES]
    if FEATURES not in widths:
        return  # pictures, say: nothing here names their columns
    for name, fields in (
        (FEATURES, ("feature_order", "features", "feature_mean", "input_mean", "feature_std", "input_std")),
        (others[0] if len(others) == 1 else None, ("codec_block_layout", "encoder_vocab")),
    ):
        place, columns = _first(sidecar, *fields)
        width = widths.get(name or "", None if others else 0)
        if isinstance(width, int) and isinstance(columns, list) and len(columns) != width:
            what = f"the model's input {name!r} has another width" if name else "the model has no codec input"
            yield view.finding(
                "sidecar-width", what, place, found=f"{len(columns)} names",
                expected=f"{width} columns", hint="write what the model was trained with",
            )  # fmt: skip


def _are_names(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_finite(value: Json) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in value
    )
