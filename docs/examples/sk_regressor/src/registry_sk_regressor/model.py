"""model.py: rows, the boosted trees that scikit-learn fits to them, and both as bytes. Knows no hook."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry_tool.errors import InputError
from registry_tool.hookspec import OofPredictions
from registry_tool.toolkit import Columns, missing_column, read_rows

MAX_NUMBER = 1e30  # of any number: float32, in which the model computes, holds it
LEARNING_RATE = 0.1
SOURCE, TARGET, PREDICTION = "src", "target", "prediction"  # columns of the evidence; features follow
Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]


class Rows(NamedTuple):
    """n rows of F features. sources: a name for each; y: the targets, in their own units."""

    sources: NDArray[Any]  # (n,), texts
    x: Float32  # (n, F)
    y: Float64  # (n,)

    def of(self, chosen: NDArray[np.bool_]) -> Self:
        return type(self)(self.sources[chosen], self.x[chosen], self.y[chosen])

    @property
    def names(self) -> list[str]:
        return sorted(set(self.sources.tolist()))

    @property
    def sha256(self) -> str:
        """The digest of what the rows say, in their order."""
        parts = (repr(self.sources.tolist()).encode(), self.x.tobytes(), self.y.tobytes())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def errors(self, predictions: ArrayLike) -> dict[str, float]:
        """The RMSE of each source."""
        squares = (np.asarray(predictions) - self.y) ** 2
        return {name: float(squares[self.sources == name].mean()) ** 0.5 for name in self.names}

    def oof(self, entry: str, predictions: Float64) -> OofPredictions:
        return OofPredictions(entry, self.sources.tolist(), self.y.tolist(), predictions.tolist())

    def plcc(self, predictions: Float64) -> float:
        """Pearson's correlation; NaN, which passes no rule, where it has none: constants."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.corrcoef(self.y, predictions)[0, 1])


class Trees(NamedTuple):
    """`base` and, of each tree, the value of the leaf that a row falls into, added up. So does the manifest say it.

    A node, the root first, is `{"feature": i, "threshold": t, "left": j, "right": k}`, where a row with x[i] <= t goes
    left, or a leaf `{"value": v}`; float32 numbers throughout.
    """

    base: float
    trees: Sequence[Sequence[Mapping[str, Any]]]


def columns(found: Sequence[str], place: str, features: Sequence[str], *others: str) -> Columns:
    """What to read. others: the source and the target, where wanted. Raises InputError for a missing column."""
    for name in (*others, *features):
        if name not in found:
            raise missing_column(place, name, found)
    return Columns((*others[1:], *features), others[:1], largest=MAX_NUMBER)


def read(path: Path | None, features: Sequence[str], target: str) -> Rows:
    """The rows of a CSV, JSON lines or parquet file. Raises InputError, with the place, for what cannot be used."""
    if path is None:
        raise InputError("--corpus: found none, expected a file of rows: name one")
    batches = list(read_rows(path, lambda found: columns(found, str(path), features, SOURCE, target)))
    if not sum(batch.n for batch in batches):
        raise InputError(f"{path}: found no rows, expected some: name another file")
    sources = [name for batch in batches for name in batch.texts[SOURCE].tolist()]
    x, y = ([np.stack([b.numbers[n] for n in names], axis=1) for b in batches] for names in (features, [target]))
    return Rows(np.array(sources), np.concatenate(x).astype(np.float32), np.concatenate(y)[:, 0])


def random_rows(n_features: int) -> Rows:
    """What `--smoke` trains on: the same rows each time."""
    numbers = np.random.default_rng(0).random((100, n_features + 1))
    return Rows(
        np.array([f"random{i % 4}" for i in range(100)]), numbers[:, 1:].astype(np.float32), 100 * numbers[:, 0]
    )


def fit(rows: Rows, n_trees: int, max_leaf_nodes: int) -> Any:
    """scikit-learn's own model; the same rows give the same model."""
    from sklearn.ensemble import GradientBoostingRegressor

    settings = {"n_estimators": n_trees, "max_leaf_nodes": max_leaf_nodes, "learning_rate": LEARNING_RATE}
    return GradientBoostingRegressor(max_depth=None, random_state=0, **settings).fit(rows.x, rows.y)


def trees_of(fitted: Any) -> Trees:
    """The numbers of a fitted model, as float32 has them: rows fall into the same leaves."""
    base, trees = fitted.init_.constant_[0][0], (one.tree_ for one in fitted.estimators_[:, 0])
    return Trees(float(np.float32(base)), [[_node(tree, i) for i in range(tree.node_count)] for tree in trees])


def _node(tree: Any, i: int) -> dict[str, Any]:
    left, right = int(tree.children_left[i]), int(tree.children_right[i])
    if left < 0:
        return {"value": float(np.float32(LEARNING_RATE * tree.value[i, 0, 0]))}
    limit = np.float32(tree.threshold[i])  # inputs are float32: the largest one not above the threshold says the same
    limit = np.nextafter(limit, np.float32(-np.inf)) if limit > tree.threshold[i] else limit
    return {"feature": int(tree.feature[i]), "threshold": float(limit), "left": left, "right": right}


def graph(trees: Trees, n_features: int) -> bytes:
    """The ONNX model of some trees; equal numbers give equal bytes."""
    from onnx import TensorProto, helper

    nodes = [(t, i, node) for t, tree in enumerate(trees.trees) for i, node in enumerate(tree)]
    leaves = [(t, i, node) for t, i, node in nodes if "value" in node]
    attributes: dict[str, list[Any]] = {
        "nodes_modes": ["LEAF" if "value" in node else "BRANCH_LEQ" for _, _, node in nodes],
        "nodes_values": [float(node.get("threshold", 0.0)) for _, _, node in nodes],
        "target_ids": [0] * len(leaves),
        "target_weights": [float(node["value"]) for _, _, node in leaves],
    }
    for part, listed in (("nodes", nodes), ("target", leaves)):
        attributes |= {f"{part}_treeids": [t for t, _, _ in listed], f"{part}_nodeids": [i for _, i, _ in listed]}
    for name, field in (("featureids", "feature"), ("truenodeids", "left"), ("falsenodeids", "right")):
        attributes[f"nodes_{name}"] = [node.get(field, 0) for _, _, node in nodes]
    kept: dict[str, Any] = {name: values for name, values in attributes.items() if values}  # ONNX has no empty lists
    kept |= {"n_targets": 1, "base_values": [float(trees.base)], "aggregate_function": "SUM"}
    node = helper.make_node("TreeEnsembleRegressor", ["features"], ["score"], domain="ai.onnx.ml", **kept)
    shapes: dict[str, list[Any]] = {"features": ["N", n_features], "score": ["N", 1]}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    body = helper.make_graph([node], "trees", ports[:1], ports[1:])
    model = helper.make_model(body, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def write_evidence(rows: Rows, predictions: Float64, features: Sequence[str]) -> bytes:
    """Out-of-fold predictions as CSV, with the rows that they are of."""
    text = io.StringIO()
    table = zip(rows.sources.tolist(), rows.y.tolist(), predictions.tolist(), *rows.x.T.tolist(), strict=True)
    csv.writer(text, lineterminator="\n").writerows([(SOURCE, TARGET, PREDICTION, *features), *table])
    return text.getvalue().encode()


def read_evidence(name: str, data: bytes) -> tuple[Rows, Float64, list[str]]:
    """(rows, predictions, names of the features). Raises InputError for what `write_evidence` does not write."""
    try:
        header, *lines = csv.reader(io.StringIO(data.decode()))
        numbers = np.array([line[1:] for line in lines]).astype(np.float64)
        if header[:3] != [SOURCE, TARGET, PREDICTION] or numbers.shape != (len(lines), len(header) - 1) or not lines:
            raise ValueError(f"expected the columns {SOURCE}, {TARGET}, {PREDICTION} and features")
        if not (np.abs(numbers) <= MAX_NUMBER).all():
            raise ValueError("expected finite numbers")
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name}: not out-of-fold predictions ({error}): train it again") from error
    rows = Rows(np.array([line[0] for line in lines]), numbers[:, 2:].astype(np.float32), numbers[:, 0])
    return rows, numbers[:, 1], header[3:]
