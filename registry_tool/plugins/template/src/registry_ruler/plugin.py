"""plugin.py: the hooks of kind `ruler`, its schema and options. Heavy imports stay inside the hooks."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from registry_ruler import model
from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule
from registry_tool.hookspec import (
    Axis,
    Batch,
    Chart,
    EntryView,
    EvaluateRequest,
    Evaluation,
    Figure,
    GateRequest,
    Kind,
    Level,
    MetricDescription,
    OofPredictions,
    ReproduceRequest,
    Reproduction,
    Series,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.toolkit import Columns, RowBatch, missing_column
from registry_tool.values import Evidence, Policy, Rule

KIND = "ruler"
MODEL, EVIDENCE = "ruler.onnx", "oof.csv"  # paths in the manifest, relative to its folder
MIN_SOURCES = 3
MAX_POINTS = 1000  # of a chart
NUMBER = {"type": "number", "minimum": -model.MAX_NUMBER, "maximum": model.MAX_NUMBER}

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:registry-ruler:ruler:1",
    "type": "object",
    "required": [
        *("id", "kind", "feature", "target", "slope", "intercept", "n_rows", "n_sources", "random_rows"),
        *("model", "evidence"),
    ],
    "properties": {
        "id": {"type": "string"},
        "kind": {"const": KIND},
        "feature": {"type": "string"},
        "target": {"type": "string"},
        "slope": NUMBER,
        "intercept": NUMBER,
        "n_rows": {"type": "integer", "minimum": 1},
        "n_sources": {"type": "integer", "minimum": MIN_SOURCES},
        "random_rows": {"type": "boolean"},
        "model": {"type": "object", "required": ["onnx", "sha256"], "properties": {"onnx": {"const": MODEL}}},
        "evidence": {"type": "object", "required": ["path", "sha256"], "properties": {"path": {"const": EVIDENCE}}},
    },
}
GRAPH = FindingRule(
    "ruler-graph",
    "graph that does not compute the line of its manifest",
    why="A runtime gives other scores than those that the evidence measured.",
    message="{file} does not compute the line of this manifest",
    hint="train it again",
    example="a slope edited by hand",
)
METRICS = [MetricDescription("oof_plcc", "Pearson's correlation over all rows, each out of fold", better="higher")]
OPTIONS = [
    click.Option(["--feature"], default="sharpness", show_default=True, help="Column to predict from."),
    click.Option(["--target"], default="score", show_default=True, help="Column to predict."),
    click.Option(["--license"], metavar="SPDX", help="Licence of the model; follows from the corpus."),
]


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    policy, findings = Policy((Rule("oof_plcc", ">=", 0.9),)), {"ruler-": __name__}
    summary, metrics = "a score from one column by a straight line", f"{__name__}:METRICS"
    return [Kind(KIND, summary, SCHEMA, OPTIONS, policy, findings=findings, metrics=metrics)]


@hookimpl
def registry_train(request: TrainRequest) -> Trained:
    feature, target = request.options["feature"], request.options["target"]
    rows = model.random_rows() if request.smoke else list(model.read(request.corpus, feature, target))
    sources = sorted({row.source for row in rows})
    if len(sources) < MIN_SOURCES:
        raise InputError(f"{request.corpus}: found {len(sources)} sources, expected {MIN_SOURCES} or more: add clips")
    folds = []
    for done, held_out in enumerate(sources):  # every row is predicted by a line that did not see its source
        request.progress("folds", done, len(sources))
        line = model.fit([row for row in rows if row.source != held_out], feature)
        folds += [(row.source, row.target, line.at(row.feature)) for row in rows if row.source == held_out]
    request.progress("folds", len(sources), len(sources))
    line = model.fit(rows, feature)
    return Trained(
        files={MODEL: model.graph(line), EVIDENCE: model.write_predictions(folds)},
        manifest={
            "id": request.entry_id,
            "kind": KIND,
            "feature": feature,
            "target": target,
            "slope": line.slope,
            "intercept": line.intercept,
            "n_rows": len(rows),
            "n_sources": len(sources),
            "random_rows": request.smoke,
            "model": {"onnx": MODEL},  # a pin: the core writes its sha256
            "evidence": {"path": EVIDENCE},  # a pin too
        },
        entry={"license": request.options["license"]} if request.options["license"] else {},
        summary=[("line", f"{target} = {line.slope:.6g} * {feature} + {line.intercept:.6g}")],
    )


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    if view.entry.kind != KIND or view.manifest is None or level is not Level.FULL:
        return
    line = model.Line(view.manifest["slope"], view.manifest["intercept"])
    if view.read(MODEL) != model.graph(line):
        yield GRAPH.at(view, "/model", file=MODEL)


@hookimpl
def registry_gate(view: EntryView, request: GateRequest) -> Evidence:
    if request.evidence is not None and EVIDENCE not in request.evidence:
        raise InputError(f"evidence: found {', '.join(request.evidence)}, expected {EVIDENCE}: name another folder")
    data = view.read(EVIDENCE) if request.evidence is None else request.evidence[EVIDENCE]
    folds = model.read_predictions(EVIDENCE, data)
    counts = {"n_rows": len(folds), "n_sources": len({source for source, _, _ in folds})}
    problems = []
    if counts["n_sources"] < MIN_SOURCES:
        problems.append(f"{EVIDENCE}: fewer than {MIN_SOURCES} sources were held out")
    claimed = (view.manifest or {}) if request.evidence is None else {}
    for name, count in counts.items():
        if count != claimed.get(name, count):
            problems.append(f"{EVIDENCE}: found {name} = {count}, the manifest says {claimed[name]}")
    plcc = _plcc([y for _, y, _ in folds], [prediction for _, _, prediction in folds])
    return Evidence({"oof_plcc": plcc}, tuple(problems), sha256=hashlib.sha256(data).hexdigest())


@hookimpl
def registry_oof(view: EntryView) -> OofPredictions:
    rows = model.read_predictions(EVIDENCE, view.read(EVIDENCE))
    try:
        return OofPredictions(view.entry.id, *zip(*rows, strict=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"{view.entry.id}: {EVIDENCE}: {error}: train it again") from error


@hookimpl
def registry_evaluate(view: EntryView, request: EvaluateRequest) -> Evaluation:
    manifest = view.manifest or {}
    line = model.Line(manifest["slope"], manifest["intercept"])
    read = model.read(request.corpus, manifest["feature"], manifest["target"]) if not request.smoke else None
    rows = list(read) if read is not None else model.random_rows()
    plcc = _plcc([row.target for row in rows], [line.at(row.feature) for row in rows])
    rmse = math.sqrt(statistics.fmean((row.target - line.at(row.feature)) ** 2 for row in rows))
    figures = {"n_rows": len(rows), "plcc": plcc if math.isfinite(plcc) else None, "rmse": rmse}
    table = [("figure", "value"), *((name, str(value)) for name, value in figures.items())]
    charts = _figures([(row.target, line.at(row.feature)) for row in rows]) if request.figures else ()
    return Evaluation({"entry": view.entry.id, **figures}, table, figures=charts)


@hookimpl
def registry_reproduce(view: EntryView, request: ReproduceRequest) -> Reproduction:
    manifest = view.manifest or {}
    options = {"feature": manifest["feature"], "target": manifest["target"], "license": None}
    n_rows = sum(1 for _ in model.read(request.corpus, options["feature"], options["target"]))
    if n_rows != manifest["n_rows"]:
        raise InputError(f"{request.corpus}: found {n_rows} rows, expected {manifest['n_rows']}: name its own corpus")
    return Reproduction(
        registry_train(TrainRequest(KIND, view.entry.id, request.corpus, False, options, request.progress))
    )


class LinePredictor:
    """A loaded line; see `hookspec.Predictor`."""

    def __init__(self, onnx: bytes, feature: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self._feature = feature

    def columns(self, found: Sequence[str], where: str) -> Columns:
        if self._feature not in found:
            raise missing_column(where, self._feature, found)
        return Columns((self._feature,))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        (scores,) = self._session.run(None, {"feature": rows.numbers[self._feature].astype("float32")})
        return Batch({"score": scores})

    def check_file(self, path: Path) -> None:
        """A file says nothing of its rows that a line would mind."""


@hookimpl
def registry_load(view: EntryView) -> LinePredictor:
    return LinePredictor(view.read(MODEL), (view.manifest or {})["feature"])


@hookimpl
def registry_figures(view: EntryView) -> Sequence[Figure] | None:
    return _figures([(y, prediction) for _, y, prediction in model.read_predictions(EVIDENCE, view.read(EVIDENCE))])


@hookimpl
def registry_commands() -> Iterable[click.Command]:
    return [formula]


@click.command("ruler-formula")
@click.argument("entry_id", metavar="ID")
@click.option("--registry", metavar="PATH", help="The registry.json. Default: as for `registry show`.")
@click.pass_context
def formula(ctx: click.Context, entry_id: str, registry: str | None) -> None:
    """Print the line of an entry.

    \b
    Example:
      registry ruler-formula first
    """
    with ctx.obj.open(entry_id, registry) as view:
        manifest = view.manifest or {}
        if view.entry.kind != KIND:
            raise InputError(f"{entry_id}: found kind {view.entry.kind!r}, expected {KIND!r}: `registry list`")
        click.echo("{target} = {slope:g} * {feature} + {intercept:g}".format_map(manifest))


def _figures(pairs: Sequence[tuple[float, float]]) -> Sequence[Figure]:
    """Predicted against true, as a chart; the core draws it on a page, or as a picture."""
    rows = [(y, prediction) for y, prediction in pairs if math.isfinite(y) and math.isfinite(prediction)]
    if not rows:
        return []
    low, high = min(map(min, rows)), max(map(max, rows)) + 1.0
    shown = rows[:: len(rows) // MAX_POINTS + 1]
    dots = Series("rows", [y for y, _ in shown], [prediction for _, prediction in shown])
    guide = Series("as it should be", [low, high], [low, high], "guide")
    chart = Chart(Axis("true", low, high), Axis("predicted", low, high), [guide, dots])
    return [Figure("Predicted against true", "Rows that the line did not see, beside what it says of them.", chart)]


def _plcc(targets: list[float], predictions: list[float]) -> float:
    """Pearson's correlation; NaN, which passes no rule, where it has none: constants, infinities, too few rows."""
    try:
        return statistics.correlation(targets, predictions)
    except (statistics.StatisticsError, ValueError):
        return math.nan
