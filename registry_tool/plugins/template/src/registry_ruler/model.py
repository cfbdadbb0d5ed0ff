"""model.py: rows of a CSV, the straight line through them, and both as files. Knows no hook."""

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

LARGEST = 1e30  # of slope and intercept: float32, in which the model computes, holds it
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
    """The rows of a CSV that has these columns. Raises InputError, with the line, for what cannot be used."""
    if path is None:
        raise InputError("--corpus: found none, expected a CSV file of rows: name one")
    wanted = [name for name in ("src" if target else None, feature, target) if name]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            if missing := [name for name in wanted if name not in found]:
                raise InputError(f"{path}: found the columns {', '.join(found)}, expected {missing[0]}: add it")
            for row in reader:
                numbers = [_number(f"{path}:{reader.line_num}", row, name) for name in (feature, target) if name]
                yield Row(row.get("src") or "", *numbers)
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
    if max(map(abs, line)) > LARGEST:
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
