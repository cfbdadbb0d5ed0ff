"""registry_line.py: kind `line`, a score predicted from one column by a straight line. A whole plugin in one module."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from registry_tool.errors import InputError
from registry_tool.hookspec import (
    Batch,
    EntryView,
    GateRequest,
    Kind,
    Level,
    PredictRequest,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.values import Evidence, Finding, Policy, Rule

KIND = "line"
MODEL, EVIDENCE = "line.onnx", "oof.csv"  # paths in the manifest, relative to its folder
MIN_SOURCES = 3
BATCH_ROWS = 4096
Row = tuple[str, tuple[float, ...]]  # (src, the numbers asked for)

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:registry-line:line:1",
    "type": "object",
    "required": ["id", "kind", "feature", "target", "slope", "intercept", "n_rows", "random_rows", "model", "evidence"],
    "properties": {
        "kind": {"const": KIND},
        "feature": {"type": "string"},
        "target": {"type": "string"},
        "slope": {"type": "number"},
        "intercept": {"type": "number"},
        "n_rows": {"type": "integer", "minimum": 1},
        "random_rows": {"type": "boolean"},
        "model": {"type": "object", "required": ["onnx", "sha256"], "properties": {"onnx": {"const": MODEL}}},
        "evidence": {"type": "object", "required": ["path", "sha256"], "properties": {"path": {"const": EVIDENCE}}},
    },
}
OPTIONS = [
    click.Option(["--feature"], default="adm2", show_default=True, help="Column to predict from."),
    click.Option(["--target"], default="vmaf", show_default=True, help="Column to predict."),
    click.Option(["--license"], metavar="SPDX", help="Licence of the model; follows from the corpus."),
]


@hookimpl
def registry_kinds() -> Iterable[Kind]:
    policy = Policy((Rule("oof_plcc", ">=", 0.9),))
    return [Kind(KIND, "a score from one column by a straight line", SCHEMA, OPTIONS, policy)]


@hookimpl
def registry_train(request: TrainRequest) -> Trained:
    feature, target = request.options["feature"], request.options["target"]
    columns = ["src", feature, target]
    rows = _random_rows() if request.smoke else list(_read(request.corpus, columns, columns[1:]))
    sources = sorted({source for source, _ in rows})
    if len(sources) < MIN_SOURCES:
        raise InputError(f"{request.corpus}: found {len(sources)} sources, expected {MIN_SOURCES} or more: add clips")
    evidence = io.StringIO()
    writer = csv.writer(evidence, lineterminator="\n")
    writer.writerow(["src", "target", "prediction"])
    for done, held_out in enumerate(sources):  # every row is predicted by a line that did not see its source
        request.progress("folds", done, len(sources))
        slope, intercept = _fit([row for row in rows if row[0] != held_out], feature)
        writer.writerows((source, y, slope * x + intercept) for source, (x, y) in rows if source == held_out)
    request.progress("folds", len(sources), len(sources))
    slope, intercept = _fit(rows, feature)
    return Trained(
        files={MODEL: _graph(slope, intercept), EVIDENCE: evidence.getvalue().encode()},
        manifest={
            "id": request.entry_id,
            "kind": KIND,
            "feature": feature,
            "target": target,
            "slope": slope,
            "intercept": intercept,
            "n_rows": len(rows),
            "random_rows": request.smoke,
            "model": {"onnx": MODEL},  # a pin: the core writes its sha256
            "evidence": {"path": EVIDENCE},  # a pin too
        },
        entry={"license": request.options["license"]} if request.options["license"] else {},
        summary=[("line", f"{target} = {slope:.6g} * {feature} + {intercept:.6g}")],
    )


@hookimpl
def registry_verify(view: EntryView, level: Level) -> Iterable[Finding]:
    if view.entry.kind != KIND or view.manifest is None or level is not Level.FULL:
        return
    if view.read(MODEL) != _graph(view.manifest["slope"], view.manifest["intercept"]):
        hint = "train it again"
        yield view.finding("line-graph", f"{MODEL} does not compute the line of this manifest", "/model", hint=hint)


@hookimpl
def registry_gate(view: EntryView, request: GateRequest) -> Evidence:
    if request.evidence is not None and EVIDENCE not in request.evidence:
        raise InputError(f"evidence: found {', '.join(request.evidence)}, expected {EVIDENCE}: name another folder")
    data = view.read(EVIDENCE) if request.evidence is None else request.evidence[EVIDENCE]
    try:
        rows = [
            (r["src"], float(r["target"]), float(r["prediction"])) for r in csv.DictReader(io.StringIO(data.decode()))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{EVIDENCE}: not out-of-fold predictions ({error}): train it again") from error
    problems = []
    if len({source for source, _, _ in rows}) < MIN_SOURCES:
        problems.append(f"{EVIDENCE}: fewer than {MIN_SOURCES} sources were held out")
    if request.evidence is None and view.manifest is not None and len(rows) != view.manifest["n_rows"]:
        problems.append(f"{EVIDENCE}: found {len(rows)} rows, the manifest says {view.manifest['n_rows']}")
    targets, predictions = [y for _, y, _ in rows], [prediction for _, _, prediction in rows]
    try:
        plcc = statistics.correlation(targets, predictions)
    except (statistics.StatisticsError, ValueError):  # fewer than two rows, all the same, or infinite
        plcc = math.nan  # passes no rule
    return Evidence({"oof_plcc": plcc}, tuple(problems), sha256=hashlib.sha256(data).hexdigest())


@hookimpl
def registry_predict(view: EntryView, request: PredictRequest) -> Iterator[Batch]:
    import numpy as np
    import onnxruntime

    feature = (view.manifest or {})["feature"]
    session = onnxruntime.InferenceSession(view.read(MODEL), providers=["CPUExecutionProvider"])
    rows, first = _read(request.corpus, [feature], [feature]), 0
    while batch := list(islice(rows, BATCH_ROWS)):
        (scores,) = session.run(None, {"feature": np.array([numbers[0] for _, numbers in batch], dtype=np.float32)})
        yield Batch({"row": range(first, first + len(batch)), "score": scores.tolist()})
        first += len(batch)


def _read(path: Path | None, columns: Sequence[str], numbers: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV that has these columns. Raises InputError, with the line, for what cannot be used."""
    if path is None:
        raise InputError("--corpus: found none, expected a CSV file of rows: name one")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            if missing := [column for column in columns if column not in found]:
                raise InputError(
                    f"{path}: found the columns {', '.join(found)}, expected {missing[0]}: add or rename it"
                )
            for row in reader:
                yield row.get("src") or "", tuple(_number(f"{path}:{reader.line_num}", row, name) for name in numbers)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}): check the path") from error


def _number(place: str, row: dict[str, str | None], column: str) -> float:
    try:
        value = float(row[column] or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}, column {column}: found {row[column]!r}, expected a finite number: correct the row")
    return value


def _random_rows() -> list[Row]:
    generator = random.Random(0)
    return [(f"random{i % MIN_SOURCES}", (generator.random(), 100 * generator.random())) for i in range(100)]


def _fit(rows: Sequence[Row], feature: str) -> tuple[float, float]:
    """The least-squares line through the rows: (slope, intercept)."""
    try:
        slope, intercept = statistics.linear_regression([x for _, (x, _) in rows], [y for _, (_, y) in rows])
    except statistics.StatisticsError as error:
        raise InputError(f"column {feature}: no line fits its values ({error}): name another with --feature") from error
    return slope, intercept


def _graph(slope: float, intercept: float) -> bytes:
    """The ONNX model `score = slope * feature + intercept`; equal numbers give equal bytes."""
    from onnx import TensorProto, helper

    numbers = [
        helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("slope", slope), ("intercept", intercept))
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("feature", "score")]
    nodes = [
        helper.make_node("Mul", ["feature", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "intercept"], ["score"]),
    ]
    graph = helper.make_graph(nodes, KIND, ports[:1], ports[1:], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
