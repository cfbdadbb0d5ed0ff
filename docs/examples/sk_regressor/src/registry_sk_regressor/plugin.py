"""plugin.py: the hooks of kind `sk_regressor`, its schema and options. Heavy imports stay inside the hooks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import (
    Axis,
    Batch,
    Chart,
    EntryView,
    Figure,
    GateRequest,
    Kind,
    Level,
    MetricDescription,
    OofPredictions,
    Series,
    Table,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.onnx_summary import OnnxError
from registry_tool.toolkit import Columns, RowBatch
from registry_tool.values import Evidence, Policy, Rule

KIND = "sk_regressor"
MODEL, EVIDENCE = "trees.onnx", "oof.csv"  # paths in the manifest, relative to its folder
FEATURES = "adm2,vif_scale0,vif_scale1,vif_scale2,vif_scale3,motion2"
DOMAINS = {"ai.onnx.ml": frozenset({"TreeEnsembleRegressor"})}
MIN_SOURCES = 3
MAX_POINTS = 1000  # of a chart


def _object(**properties: Any) -> dict[str, Any]:
    """The schema of an object that has these fields, and no others."""
    return {"type": "object", "required": [*properties], "properties": properties, "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


TEXT, NUMBER = {"type": "string"}, {"type": "number", "minimum": -1e30, "maximum": 1e30}
INDEX = {"type": "integer", "minimum": 0, "maximum": 10_000}
NODE = {"anyOf": [_object(feature=INDEX, threshold=NUMBER, left=INDEX, right=INDEX), _object(value=NUMBER)]}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:registry-sk-regressor:sk_regressor:1",
    **_object(
        id=TEXT,
        kind={"const": KIND},
        feature_order=_list(TEXT),
        target=_object(name=TEXT),
        corpus=_object(n_rows={"type": "integer"}, sources=_list(TEXT), rows_sha256=TEXT),
        base=NUMBER,
        trees=_list(_list(NODE)),
        random_rows={"type": "boolean"},
        model=_object(onnx={"const": MODEL}, sha256=TEXT),
        evidence=_object(path={"const": EVIDENCE}, sha256=TEXT),
    ),
}
GRAPH = FindingRule(
    "sk-graph",
    "graph that does not compute the trees of its manifest",
    why="A runtime gives other scores than those that the evidence measured.",
    message="{file} does not compute the trees of this manifest",
    hint="train it again",
    example="a threshold edited by hand",
)
METRICS = [
    MetricDescription("pooled_plcc", "Pearson's correlation over all rows, each out of fold", better="higher"),
    MetricDescription("mean_rmse", "RMSE of a held-out source, mean over sources", "target units", "lower"),
    MetricDescription("rmse_vs_incumbent", "mean_rmse less that of the incumbent", "target units", "lower"),
    MetricDescription("n_sources", "sources that were held out, each in a fold of its own", better="higher"),
]
OPTIONS = [
    click.Option(["--features"], default=FEATURES, metavar="NAMES", show_default=True, help="Columns to predict from."),
    click.Option(["--target"], default="vmaf", metavar="NAME", show_default=True, help="Column to predict."),
    click.Option(["--trees"], default=100, type=click.IntRange(1, 1000), show_default=True, help="How many trees."),
    click.Option(["--leaves"], default=8, type=click.IntRange(2, 64), show_default=True, help="At most, of a tree."),
    click.Option(["--license"], metavar="SPDX", help="Licence of the model; follows from the corpus."),
]


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    policy, findings = Policy((Rule("pooled_plcc", ">=", 0.9), Rule("n_sources", ">=", 8))), {"sk-": __name__}
    facts: dict[str, Any] = {"domains": DOMAINS, "findings": findings, "metrics": f"{__name__}:METRICS"}
    return [Kind(KIND, "boosted trees of scikit-learn", SCHEMA, OPTIONS, policy, **facts)]


@hookimpl
def registry_train(request: TrainRequest) -> Trained:
    import numpy as np

    from registry_sk_regressor import model

    options, target, smoke = request.options, request.options["target"], request.smoke
    features = [name.strip() for name in options["features"].split(",")]
    rows = model.random_rows(len(features)) if smoke else model.read(request.corpus, features, target)
    names, size = rows.names, (options["trees"], options["leaves"])
    if len(names) < MIN_SOURCES:
        raise InputError(f"{request.corpus}: found {len(names)} sources, expected {MIN_SOURCES} or more: add clips")
    predictions = np.zeros(len(rows.y))
    for done, name in enumerate(names, start=1):  # every row is predicted by trees that did not see its source
        held_out = rows.sources == name
        predictions[held_out] = model.fit(rows.of(~held_out), *size).predict(rows.x[held_out])
        request.progress("folds", done, len(names))
    trees = model.trees_of(model.fit(rows, *size))
    corpus = {"n_rows": len(rows.y), "sources": names, "rows_sha256": rows.sha256}
    manifest = {"id": request.entry_id, "kind": KIND, "random_rows": smoke, "corpus": corpus}
    manifest |= {"feature_order": features, "target": {"name": target}, **trees._asdict()}
    manifest |= {"model": {"onnx": MODEL}, "evidence": {"path": EVIDENCE}}  # pins: the core writes their sha256
    files = {MODEL: model.graph(trees, len(features)), EVIDENCE: model.write_evidence(rows, predictions, features)}
    entry = {"license": options["license"]} if options["license"] else {}
    return Trained(files, manifest, entry, summary=[("trees", f"{len(trees.trees)} of at most {size[1]} leaves")])


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    manifest = view.manifest
    if view.entry.kind != KIND or manifest is None or level is not Level.FULL:
        return
    from registry_sk_regressor import model

    trees = model.Trees(manifest["base"], manifest["trees"])
    if view.read(MODEL) != model.graph(trees, len(manifest["feature_order"])):
        yield GRAPH.at(view, "/model", file=MODEL)


@hookimpl
def registry_gate(view: EntryView, request: GateRequest) -> Evidence:
    from registry_sk_regressor import model

    if request.evidence is not None:
        raise InputError(f"evidence of a folder: expected {EVIDENCE} of an entry, with its model: name the entry alone")
    data = view.read(EVIDENCE)
    rows, predictions, features = model.read_evidence(EVIDENCE, data)
    errors, details = rows.errors(predictions), {}
    problems = list(_contradictions(view, rows, features, error := fmean(errors.values())))
    metrics = {"pooled_plcc": rows.plcc(predictions), "mean_rmse": error, "n_sources": len(errors)}
    try:
        other = registry_oof(request.incumbent) if request.incumbent is not None else request.incumbent_oof
        if other is not None:
            theirs = fmean(rows.errors(other.in_order_of(rows.oof(view.entry.id, predictions))).values())
            metrics["rmse_vs_incumbent"] = error - theirs
            details = {"against": {"incumbent": {"entry": other.entry, "rmse": error, "baseline_rmse": theirs}}}
    except InputError as reason:
        problems.append(f"incumbent {reason}")
    table = Table([("held out", "rmse"), *((name, f"{one:.4g}") for name, one in errors.items())])
    return Evidence(metrics, tuple(problems), sha256=hashlib.sha256(data).hexdigest(), details=details, table=table)


@hookimpl
def registry_oof(view: EntryView) -> OofPredictions:
    from registry_sk_regressor import model

    if problems := registry_gate(view, GateRequest()).problems:
        raise InputError(f"{view.entry.id}: {problems[0]}")
    rows, predictions, _ = model.read_evidence(EVIDENCE, view.read(EVIDENCE))
    return rows.oof(view.entry.id, predictions)


class TreesPredictor:
    """Loaded trees; see `hookspec.Predictor`."""

    def __init__(self, onnx: bytes, features: Sequence[str]) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self._features = features

    def columns(self, found: Sequence[str], place: str) -> Columns:
        from registry_sk_regressor import model

        return model.columns(found, place, self._features)

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        import numpy as np

        x = np.stack([rows.numbers[name] for name in self._features], axis=1).astype(np.float32)
        return Batch({"score": self._session.run(None, {"features": x})[0][:, 0]})

    def check_file(self, path: Path) -> None:
        """A file says nothing of its rows that trees would mind."""


@hookimpl
def registry_load(view: EntryView) -> TreesPredictor:
    return TreesPredictor(view.read(MODEL), (view.manifest or {})["feature_order"])


@hookimpl
def registry_figures(view: EntryView) -> Sequence[Figure]:
    from registry_sk_regressor import model

    rows, predictions, _ = model.read_evidence(EVIDENCE, view.read(EVIDENCE))
    step = len(rows.y) // MAX_POINTS + 1
    true, predicted = rows.y[::step].tolist(), predictions[::step].tolist()
    low, high = min(*true, *predicted), max(*true, *predicted) + 1.0
    series = [Series("rows", true, predicted), Series("as it should be", [low, high], [low, high], "guide")]
    chart = Chart(Axis("true", low, high), Axis("predicted", low, high), series)
    return [Figure("Predicted against true", "Rows beside what trees that did not see them say.", chart)]


def _contradictions(view: EntryView, rows: Any, features: Sequence[str], error: float) -> Iterable[str]:
    """Where the evidence is not of the manifest's rows, or the shipped model is worse than the evidence says."""
    manifest = view.manifest or {}
    found = {"n_rows": len(rows.y), "sources": rows.names, "rows_sha256": rows.sha256}
    if list(features) != list(manifest["feature_order"]) or found != manifest["corpus"]:
        yield f"{EVIDENCE}: found other rows than the manifest's: {len(rows.y)} of {len(rows.names)} sources"
        return
    try:
        seen = fmean(rows.errors(view.run(MODEL, {"features": rows.x})["score"][:, 0]).values())
    except OnnxError as failure:
        yield f"{MODEL}: it does not predict the rows of {EVIDENCE}: {failure}"
        return
    if not seen <= error:
        yield f"{MODEL}: RMSE: found {seen:.4g} on rows that it saw, expected at most {error:.4g}, as out of fold"
