"""Tests of the API for programs: `registry_tool.open`, `Registry` and `Model`."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import Program
from places import EXAMPLES, ROOT
from policies import set_policy
from registries import FEATURES, Made
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

import registry_tool
from registry_tool.api import Registry
from registry_tool.errors import InputError, PluginError, RegistryError, RejectedError
from registry_tool.hookspec import Batch, hookimpl
from registry_tool.plugins.manager import Plugins
from registry_tool.toolkit import Columns, RowBatch
from registry_tool.workflows.loading import usable
from registry_tool.workflows.promote import demote

NAMES = ("encoder", *FEATURES)


@pytest.fixture
def rows(made: Made) -> dict[str, Any]:
    """The columns of held-out rows as a program has them."""
    with made.heldout.open() as file:
        read = list(csv.DictReader(file))
    return {name: [row[name] if name == "encoder" else float(row[name]) for row in read] for name in NAMES}


def frames() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Every kind of table that is taken; pandas and polars, where they are installed."""

    def structured(rows: dict[str, Any]) -> Any:
        types = [(name, "U16" if name == "encoder" else "f8") for name in NAMES]
        return np.array(list(zip(*(rows[name] for name in NAMES), strict=True)), dtype=types)

    made: dict[str, Callable[[dict[str, Any]], Any]] = {
        "lists": lambda rows: rows,
        "arrays": lambda rows: {name: np.array(column) for name, column in rows.items()},
        "structured": structured,
        "arrow table": pa.table,
        "arrow batch": pa.RecordBatch.from_pydict,
        "dictionary-encoded": lambda rows: pa.table({**rows, "encoder": pa.array(rows["encoder"]).dictionary_encode()}),
    }
    made["bytes"] = lambda rows: rows | {"encoder": np.array(rows["encoder"], "S16")}
    for module in ("pandas", "polars"):
        made[module] = lambda rows, module=module: pytest.importorskip(module).DataFrame(rows)
    return made


# ---- opening ----------------------------------------------------------------------------------------------------


def test_a_registry_opens_from_a_file_or_its_folder() -> None:
    """Its entries come in the document's order; validate tells its findings."""
    for path in (EXAMPLES / "valid" / "smoke", str(EXAMPLES / "valid" / "smoke" / "registry.json")):
        opened = registry_tool.open(path)
        assert [entry.id for entry in opened.entries] == ["m"]
        assert opened.validate("quick").findings == ()
        assert "1 entries" in repr(opened)


@pytest.mark.parametrize("name", ["json-syntax", "registry-version--newer", "schema-required--smoke"])
def test_a_document_that_does_not_hold_raises_its_findings(name: str) -> None:
    """The error is one line, and carries every finding."""
    with pytest.raises(RegistryError) as caught:
        registry_tool.open(EXAMPLES / "invalid" / name)
    assert [finding.code for finding in caught.value.findings][:1] == [name.partition("--")[0]]
    assert len(str(caught.value).splitlines()) == 1


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        registry_tool.open(tmp_path / "registry.json")


def test_only_public_names_are_there() -> None:
    """And `dir` or a typo loads nothing."""
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = registry_tool.load
    assert {getattr(registry_tool, name) is not None for name in registry_tool.__all__} == {True}


def test_importing_it_loads_nothing() -> None:
    """No module but the package itself and its version, until a name is used."""
    named = "[name for name in sys.modules if name.startswith(('registry_tool', 'numpy', 'click'))]"
    code = f"import registry_tool, sys, json; print(json.dumps({named}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert sorted(json.loads(done.stdout)) == ["registry_tool", "registry_tool.version"]


# ---- judging ----------------------------------------------------------------------------------------------------


def test_gate_gives_the_verdict_of_the_command(smoke: Sandbox, registry: Program) -> None:
    """The same decision and metrics as `registry gate --format json`."""
    verdict = registry_tool.open(smoke.path).gate("tiny")
    printed = json.loads(registry("gate", "tiny", "--registry", smoke.path, "--format", "json").out)
    assert verdict.promotes
    assert (verdict.decision, dict(verdict.metrics)) == (printed["verdict"], printed["metrics"])


# ---- loading ----------------------------------------------------------------------------------------------------


def test_only_production_loads(production: Sandbox, rows: dict[str, Any]) -> None:
    """A smoke entry loads where the program asks for it."""
    assert registry_tool.open(production.path).load("tiny").entry.id == "tiny"
    demote(production.path, "tiny", "drifts")
    opened = registry_tool.open(production.path)
    with pytest.raises(RejectedError, match=r"smoke entry, expected production.*allow_smoke=True"):
        opened.load("tiny")
    assert len(opened.load("tiny", allow_smoke=True).predict(rows).mu) == len(rows["encoder"])
    with pytest.raises(InputError, match="no entry 'other'"):
        opened.load("other")


def _other_byte(box: Sandbox) -> None:
    path = box.artifacts / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def _no_promotion(box: Sandbox) -> None:
    box.edit_entry(promotion=None)


def _other_verdict(box: Sandbox) -> None:
    path = next((box.folder / "tiny" / "verdicts").iterdir())
    path.write_bytes(path.read_bytes() + b"\n")


def _no_signature(box: Sandbox) -> None:
    policy = json.loads(box.path.read_text())["policies"]["fr_ensemble"]
    box.edit(set_policy("fr_ensemble", {**policy, "signers": [], "signatures": 1}))


@pytest.mark.parametrize("change", [_other_byte, _no_promotion, _other_verdict, _no_signature])
def test_what_does_not_hold_does_not_load(change: Callable[[Sandbox], None], production: Sandbox) -> None:
    """Bytes, a promotion that is missing or is another, a signature that the policy asks for."""
    change(production)
    with pytest.raises(RejectedError, match="tiny: "):
        registry_tool.open(production.path).load("tiny")


def test_files_that_change_after_loading_do_not_matter(production: Sandbox, rows: dict[str, Any]) -> None:
    """The model holds the verified bytes, at levels that are not stored, too."""
    model = registry_tool.open(production.path).load("tiny")
    before = model.predict(rows, levels=[0.77])
    for path in production.artifacts.rglob("*"):
        if path.is_file():
            path.write_bytes(b"?")
    after = model.predict(rows, levels=[0.77])
    assert all((before.interval(0.77)[i] == after.interval(0.77)[i]).all() for i in (0, 1))
    assert (model.predict(rows, levels=[0.66]).lower > before.lower - 1e9).all()


def test_a_kind_that_cannot_predict(thumb: Sandbox) -> None:
    with pytest.raises(InputError, match="'thumb' cannot predict"):
        Registry(usable(thumb.path), with_plugin(Thumbs())).load("t", allow_smoke=True)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/reference/api.md, on the models that come with the project."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/reference/api.md").read_text(), re.M | re.S)
    exec(compile(code, "api.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [bool(re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", line)) for line in lines[:2]] == [True, True]
    assert lines[2] == "PROMOTE"


# ---- predicting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", frames())
def test_every_table_gives_the_numbers_of_the_command(
    form: str, production: Sandbox, rows: dict[str, Any], made: Made, registry: Program
) -> None:
    """To the last digit, whatever holds the rows."""
    levels = ("--levels", "0.8,0.95", "--format", "jsonl")
    ran = registry("predict", "tiny", "--corpus", made.heldout, *levels, "--registry", production.path)
    expected = [json.loads(line) for line in ran.out.splitlines()]
    found = registry_tool.open(production.path).load("tiny").predict(frames()[form](rows), levels=[0.8, 0.95])
    for name, column in found.columns.items():
        assert list(column) == [row[name] for row in expected], name
    assert (found.lower == found.interval(0.8)[0]).all()
    named = {name for text in found.columns["flags"] for name in text.split()}
    assert {*found.flags} == {"out_of_distribution", *named}
    for name in named:
        assert found.flags[name].tolist() == [name in text.split() for text in found.columns["flags"]]
    assert {"mu", "sigma", "lower_80", "upper_95"} <= found.columns.keys()


def test_batches_come_one_by_one(production: Sandbox, rows: dict[str, Any]) -> None:
    """A prediction for each table of an iterable, made when it is taken; their rows are those of the whole."""
    taken = []

    def batches() -> Any:
        for start in range(0, len(rows["encoder"]), 50):
            taken.append(start)
            yield {name: column[start : start + 50] for name, column in rows.items()}

    model = registry_tool.open(production.path).load("tiny")
    found = model.predict(batches())
    first = next(found)
    assert taken == [0]
    parts = [first, *found]
    assert np.concatenate([part.mu for part in parts]) == pytest.approx(model.predict(rows).mu, abs=1e-4)
    assert list(model.predict([])) == []


def test_rows_without_any(production: Sandbox, rows: dict[str, Any]) -> None:
    """No row in, no row out."""
    found = registry_tool.open(production.path).load("tiny").predict({name: [] for name in rows})
    assert (len(found.mu), len(found.lower), found.warnings) == (0, 0, {})


def test_warnings_are_counted(production: Sandbox, rows: dict[str, Any]) -> None:
    """An encoder that has no slot, as the command says it."""
    rows["encoder"][:3] = ["zzz"] * 3
    found = registry_tool.open(production.path).load("tiny").predict(rows)
    assert found.warnings["encoder 'zzz' is unknown"] == 3


class Missing:
    """A column of objects in the form of pandas, which says itself what is missing."""

    def __init__(self, *values: Any) -> None:
        self.values = np.array(values, object)

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values

    def isna(self) -> Any:
        return np.array([value is Missing for value in self.values])


@pytest.mark.parametrize(
    "encoders",
    [[None, "libx264"], [float("nan"), "libx264"], np.ma.array(["?", "libx264"], mask=[1, 0]), Missing(Missing, "avc")],
    ids=["None", "NaN", "masked", "pandas"],
)
def test_a_missing_encoder_is_none(encoders: Any, production: Sandbox, rows: dict[str, Any]) -> None:
    """However the program's table marks it, it is the empty name that a file would have."""
    found = (
        registry_tool.open(production.path)
        .load("tiny")
        .predict({name: rows[name][:2] for name in rows} | {"encoder": encoders})
    )
    assert found.columns["encoder"][0] == ""
    assert [text for text in found.warnings if text.startswith("encoder")] == ["encoder '' is unknown"]


class LazyFrame:
    """The form of polars' query, which has columns only when it is asked for them."""

    def collect_schema(self) -> Any:
        raise AssertionError("it was run")

    @property
    def columns(self) -> Any:
        return self.collect_schema()


BAD: list[tuple[str, Any, str]] = [
    ("a column is missing", lambda rows: {"adm2": rows["adm2"]}, "rows: no column 'encoder'"),
    ("nothing", lambda rows: {}, "rows: no column 'encoder': found no columns"),
    ("a number", lambda rows: 7, "found a int, expected a mapping of columns"),
    ("a text", lambda rows: [7], "found a int, expected a mapping of columns"),
    ("NaN", lambda rows: rows | {"adm2": [*rows["adm2"][:-1], float("nan")]}, "column adm2: found nan"),
    ("None", lambda rows: rows | {"adm2": [None, *rows["adm2"][1:]]}, "rows, row 0, column adm2: found nothing"),
    ("a word", lambda rows: rows | {"adm2": ["x", *rows["adm2"][1:]]}, "rows, row 0, column adm2: found 'x'"),
    ("lengths", lambda rows: rows | {"adm2": rows["adm2"][1:]}, "columns of different lengths"),
    ("one value", lambda rows: rows | {"adm2": 1.0}, "column adm2: found 1.0, expected a value for each row"),
    ("two axes", lambda rows: rows | {"adm2": np.ones((len(rows["adm2"]), 2))}, "column adm2: found 2 axes"),
    ("masked", lambda rows: rows | {"adm2": np.ma.masked_less(rows["adm2"], 2.0)}, "row 0, column adm2: found nothing"),
    ("a query", lambda rows: LazyFrame(), "rows: found a LazyFrame, expected a data frame: collect() it"),
    ("no UTF-8", lambda rows: rows | {"encoder": [b"\xff"] * len(rows["encoder"])}, "column encoder: found b'\\xff'"),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD, ids=[case[0] for case in BAD])
def test_rows_that_cannot_be_used(
    name: str, change: Any, message: str, production: Sandbox, rows: dict[str, Any]
) -> None:
    """One line that names the row and the column."""
    model = registry_tool.open(production.path).load("tiny")
    with pytest.raises(InputError) as caught:
        list(model.predict(change(rows)))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("levels", [[], [0.0], [1.0], [float("nan")], [80], 0.95, None, "0.95", ["x"], [[0.9]]])
def test_levels_that_are_none(levels: Any, production: Sandbox, rows: dict[str, Any]) -> None:
    """One line; so it is where an interval of another level is asked for."""
    model = registry_tool.open(production.path).load("tiny")
    with pytest.raises(InputError, match="expected numbers between 0 and 1"):
        model.predict(rows, levels=levels)
    found = model.predict(rows)
    for level in (0.5, None, "x"):
        with pytest.raises(InputError, match=f"level {level}: expected one of"):
            found.interval(level)  # type: ignore[arg-type]


def test_a_prediction_shows_itself_in_a_line(production: Sandbox, rows: dict[str, Any]) -> None:
    """Its rows and its columns, not every number."""
    assert repr(registry_tool.open(production.path).load("tiny").predict(rows)).startswith(
        f"Prediction({len(rows['encoder'])} rows: encoder, mu, sigma"
    )


def test_a_validation_of_another_level(production: Sandbox) -> None:
    with pytest.raises(InputError, match="level: found 'deep', expected quick or full"):
        registry_tool.open(production.path).validate("deep")


def test_threads_share_a_model(production: Sandbox, rows: dict[str, Any]) -> None:
    """Each gets the numbers of one alone."""
    model = registry_tool.open(production.path).load("tiny")
    expected, found = model.predict(rows).mu, []
    threads = [threading.Thread(target=lambda: found.append(model.predict(rows).mu)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool((mu == expected).all()) for mu in found] == [True] * 8


# ---- plugins ----------------------------------------------------------------------------------------------------


class Loading(Thumbs):
    """Loads `thumb`; what it predicts is what a test says."""

    def __init__(self, answer: Callable[[RowBatch], Any]) -> None:
        self.answer = answer

    @hookimpl
    def registry_load(self, view: Any) -> Any:
        return self

    def columns(self, found: Sequence[str], where: str) -> Columns:
        return Columns(("x",))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Any:
        return self.answer(rows)

    def check_file(self, path: Path) -> None:
        """Every file will do."""


def loading(answer: Callable[[RowBatch], Any]) -> Plugins:
    return with_plugin(Loading(answer))


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: None,
        lambda rows: {"mu": [1.0]},
        lambda rows: Batch({"mu": [1.0] * (rows.n + 1)}),
        lambda rows: 1 / 0,
        lambda rows: sys.exit(0),
    ],
)
def test_a_wrong_prediction_names_its_plugin(answer: Any, thumb: Sandbox, registry: Program, tmp_path: Path) -> None:
    """None, another type, too many rows, an exception, an exit: a plugin's error, for programs and for the command."""
    model = Registry(usable(thumb.path), loading(answer)).load("t", allow_smoke=True)
    with pytest.raises(PluginError, match="plugin extra 7: registry_load"):
        model.predict({"x": [1.0, 2.0]})
    (tmp_path / "rows.csv").write_text("x\n1\n2\n")
    where = ("--corpus", tmp_path / "rows.csv", "--registry", thumb.path)
    assert registry("predict", "t", *where, plugins=loading(answer)).code == 3


@pytest.mark.parametrize("name", ["mu", "sigma", "lower", "upper"])
def test_what_a_kind_does_not_predict_is_told(name: str, thumb: Sandbox) -> None:
    """A kind with columns of its own has no mu and no interval: the error says which columns there are."""
    plugins = loading(lambda rows: Batch({"score": [1.0] * rows.n, "rank": [1] * rows.n}))
    found = Registry(usable(thumb.path), plugins).load("t", allow_smoke=True).predict({"x": [1.0]})
    assert repr(found) == "Prediction(1 rows: score, rank)"
    with pytest.raises(InputError, match="found the columns score, rank, expected"):
        getattr(found, name)


def test_a_plugin_predicts_for_both(thumb: Sandbox, registry: Program, tmp_path: Path) -> None:
    """The same numbers for a file and for a program; the core numbers the rows of a file."""
    plugins = loading(lambda rows: Batch({"mu": rows.numbers["x"] * 2}, {"doubled": rows.n}))
    found = Registry(usable(thumb.path), plugins).load("t", allow_smoke=True).predict({"x": [1.0, 2.5]})
    assert (found.mu.tolist(), dict(found.warnings)) == ([2.0, 5.0], {"doubled": 2})
    (tmp_path / "rows.csv").write_text("x\n1\n2.5\n")
    ran = registry("predict", "t", "--corpus", tmp_path / "rows.csv", "--registry", thumb.path, plugins=plugins)
    assert ran.out == "row,mu\n0,2.0\n1,5.0\n"
