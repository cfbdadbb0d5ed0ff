"""model.py: rows of a file, the straight line through them, and both as files. Knows no hook."""

from __future__ import annotations

import csv
import io
import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from registry_tool.errors import InputError
from registry_tool.toolkit import Columns, missing_column, read_rows

MAX_NUMBER = 1e30  # of slope and intercept: float32, in which the model computes, holds it
Prediction = tuple[str, float, float]  # (source, target, what was predicted for it)


class Row(NamedTuple):
    """A row of a corpus; target: NaN where none was asked for."""

    source: str
    feature: float
    target: float = math.nan


class Line(NamedTuple):
    """`score = slope * feature + intercept`."""

    slope: float
    intercept: float

    def at(self, feature: float) -> float:
        return self.slope * feature + self.intercept


def read(path: Path | None, feature: str, target: str | None = None) -> Iterator[Row]:
    """The rows of a CSV, JSON lines or parquet file. Raises InputError, with the place, for what cannot be used."""
    if path is None:
        raise InputError("--corpus: found none, expected a file of rows: name one")
    numbers, texts = ((feature, target), ("src",)) if target else ((feature,), ())

    def pick(found: Sequence[str]) -> Columns:
        for name in (*texts, *numbers):
            if name not in found:
                raise missing_column(path, name, found)
        return Columns(numbers, texts)

    for batch in read_rows(path, pick):
        sources = [batch.texts["src"].names[code] for code in batch.texts["src"].codes] if target else [""] * batch.n
        yield from map(Row, sources, *(batch.numbers[name].tolist() for name in numbers))


def random_rows() -> list[Row]:
    """What `--smoke` trains on: the same rows each time."""
    generator = random.Random(0)
    return [Row(f"random{i % 3}", generator.random(), 100 * generator.random()) for i in range(100)]


def fit(rows: Sequence[Row], feature: str) -> Line:
    """The least-squares line through the rows."""
    try:
        line = Line(*statistics.linear_regression([row.feature for row in rows], [row.target for row in rows]))
    except statistics.StatisticsError as error:
        raise InputError(f"column {feature}: no line fits its values ({error}): name another with --feature") from error
    if max(map(abs, line)) > MAX_NUMBER:
        raise InputError(f"column {feature}: found {line}, expected numbers that float32 holds: scale the rows")
    return line


def graph(line: Line) -> bytes:
    """The ONNX model of a line; equal numbers give equal bytes."""
    from onnx import TensorProto, helper

    numbers = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in line._asdict().items()]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("feature", "score")]
    nodes = [
        helper.make_node("Mul", ["feature", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "intercept"], ["score"]),
    ]
    body = helper.make_graph(nodes, "line", ports[:1], ports[1:], numbers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def write_predictions(predictions: Iterable[Prediction]) -> bytes:
    """Out-of-fold predictions as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("src", "target", "prediction"), *predictions])
    return text.getvalue().encode()


def read_predictions(name: str, data: bytes) -> list[Prediction]:
    """What `write_predictions` wrote. Raises InputError for anything else."""
    try:
        rows = csv.DictReader(io.StringIO(data.decode()))
        return [(row["src"], float(row["target"]), float(row["prediction"])) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{name}: not out-of-fold predictions ({error}): train it again") from error
