"""Tests of the workflows beyond training: evaluate and predict use verified bytes, prune removes what nothing names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Program
from registries import Made
from sandbox import Sandbox, to_json, tree
from sketches import Trainer, train
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError, PluginError, RejectedError
from registry_tool.hookspec import Batch, EvaluateRequest, Evaluation, GateRequest, PredictRequest, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Evidence
from registry_tool.workflows.evaluate import evaluate
from registry_tool.workflows.housekeeping import prune
from registry_tool.workflows.predict import predict
from registry_tool.workflows.validate import validate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model" / "registry.json"


# ---- use --------------------------------------------------------------------------------------------------------


def test_an_unknown_id_says_which_there_are(smoke: Sandbox) -> None:
    """No entry of that name: the ones there are, and the command that lists them."""
    with pytest.raises(InputError, match=r"no entry 'timy', expected one of: tiny.*registry list"):
        evaluate(smoke.path, load(), "timy", EvaluateRequest(None, True))
    (smoke.folder / "empty.json").write_bytes(to_json({"schema_version": 2, "policies": {}, "models": []}))
    with pytest.raises(InputError, match=r"\(none\)"):
        evaluate(smoke.folder / "empty.json", load(), "tiny", EvaluateRequest(None, True))


def test_bytes_that_do_not_hold_are_not_used(smoke: Sandbox, made: Made) -> None:
    """evaluate and predict refuse an entry whose files are not the pinned ones."""
    path = smoke.artifacts / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for use in (
        lambda: evaluate(smoke.path, load(), "tiny", EvaluateRequest(made.heldout)),
        lambda: next(predict(smoke.path, load(), "tiny", made.heldout, [0.95])),
    ):
        with pytest.raises(RejectedError, match=r"sha256.*registry validate"):
            use()


def test_a_kind_without_a_hook_cannot_be_used(thumb: Sandbox) -> None:
    """Evaluate and predict say that the kind has none."""
    plugins = with_plugin(Thumbs())
    with pytest.raises(InputError, match="'thumb' cannot be evaluated"):
        evaluate(thumb.path, plugins, "t", EvaluateRequest(None, True))
    with pytest.raises(InputError, match="'thumb' cannot predict"):
        next(predict(thumb.path, plugins, "t", Path("rows.csv"), [0.95]))


def test_answers_of_the_owner_arrive(thumb: Sandbox) -> None:
    """An evaluation and batches come through as the plugin gave them, batch by batch."""

    class Useful(Thumbs):
        @hookimpl
        def registry_evaluate(self, view: Any, request: EvaluateRequest) -> Evaluation:
            return Evaluation(
                {"entry": view.entry.id, "levels": list(request.levels), "bytes": len(view.read("t.onnx"))}
            )

        @hookimpl
        def registry_predict(self, view: Any, request: PredictRequest) -> Any:
            for row in range(3):
                yield Batch({"row": [row], "mu": [len(view.read("t.onnx"))]})

    plugins, size = with_plugin(Useful()), len((thumb.folder / "t.onnx").read_bytes())
    document = evaluate(thumb.path, plugins, "t", EvaluateRequest(None, True)).document
    assert document == {"entry": "t", "levels": [0.5, 0.8, 0.95], "bytes": size}
    batches = list(predict(thumb.path, plugins, "t", Path("rows.csv"), [0.95]))
    assert [b.columns for b in batches] == [{"row": [row], "mu": [size]} for row in range(3)]


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ({}, False),
        ({"against": None}, False),
        ({"against": {"vmaf": {}}}, False),
        ({"against": {"incumbent": {}}}, True),
    ],
)
def test_a_kind_that_does_not_compare_says_so(
    thumb: Sandbox, registry: Program, answer: dict[str, Any], compared: bool
) -> None:
    """Where a plugin leaves the other entry out, `evaluate --against` is bad input, and the gate says so."""

    class Alone(Thumbs):
        @hookimpl
        def registry_evaluate(self, view: Any, request: EvaluateRequest) -> Evaluation:
            return Evaluation({"entry": view.entry.id, **answer}, [("figure", "value")])

        @hookimpl
        def registry_gate(self, view: Any, request: GateRequest) -> Evidence:
            return Evidence({"plcc": 1.0}, sha256="0" * 64, details=answer)

    plugins, where = with_plugin(Alone()), ("--smoke", "--registry", thumb.path)
    other = dict(thumb.entry, id="u")
    thumb.edit(lambda document: document["models"].append(other))
    ran = registry("evaluate", "t", *where, "--against", "u", plugins=plugins)
    assert ran.code == (0 if compared else 2)
    expected = (
        "" if compared else "registry: --incumbent: found no comparison with u, expected a kind whose plugin compares"
    )
    assert ran.err.startswith(expected)
    assert ran.err.count("\n") == (not compared)
    assert registry("evaluate", "t", *where, plugins=plugins).code == 0
    beside, alone = (registry("gate", "t", *where[1:], *more, plugins=plugins) for more in (("--against", "u"), ()))
    assert ("incumbent u: found no comparison" in beside.out) == (not compared)
    assert "found no comparison" not in alone.out


def test_a_prediction_that_fails_half_way_names_its_plugin(thumb: Sandbox) -> None:
    """A generator that raises after its first batch is a PluginError; what the contract allows passes."""

    def predictor(error: Exception) -> Plugins:
        class Failing(Thumbs):
            @hookimpl
            def registry_predict(self, view: Any, request: PredictRequest) -> Any:
                yield Batch({"row": [0]})
                raise error

        return with_plugin(Failing())

    with pytest.raises(PluginError, match=r"extra.*ZeroDivisionError"):
        list(predict(thumb.path, predictor(ZeroDivisionError("x")), "t", Path("rows.csv"), [0.95]))
    with pytest.raises(InputError, match="row 3"):
        list(predict(thumb.path, predictor(InputError("row 3")), "t", Path("rows.csv"), [0.95]))


# ---- prune ------------------------------------------------------------------------------------------------------


def test_prune_removes_runs_that_no_entry_names(path: Path) -> None:
    """Old runs go, the current one and verdicts stay; a dry run only says so."""
    old = train(path, Trainer())
    new = train(path, Trainer(note="again"))
    verdicts = path.parent / "s" / "verdicts"
    verdicts.mkdir()
    (verdicts / "HOLD-0123456789ab.json").write_text("{}")
    before = tree(path.parent)
    assert prune(path, dry_run=True) == [old.folder]
    assert tree(path.parent) == before
    assert prune(path, dry_run=False) == [old.folder]
    assert set(tree(path.parent)) == {name for name in before if not name.startswith(old.folder)}
    assert (path.parent / new.folder).is_dir()
    assert prune(path, dry_run=False) == []


def test_prune_never_removes_what_an_entry_pins(tmp_path: Path) -> None:
    """Models, external data and verdicts that entries name stay, whatever their folders are called."""
    folder = "nr/0123456789ab"
    row = tiny_models.entry(tmp_path, tiny_models.model(), f"{folder}/m", id="m", kind="nr")
    (tmp_path / "registry.json").write_bytes(to_json({"schema_version": 2, "policies": {}, "models": [row]}))
    assert validate(tmp_path / "registry.json", load()).findings == ()
    assert prune(tmp_path / "registry.json", dry_run=False) == []
    assert validate(tmp_path / "registry.json", load()).findings == ()


def test_prune_removes_runs_alone(path: Path) -> None:
    """A folder with a name like a digest that holds no manifest is somebody's, not a run."""
    train(path, Trainer())
    notes = path.parent / "notes" / "0123456789ab"
    notes.mkdir(parents=True)
    (notes / "diary.txt").write_text("dear diary")
    prune(path, dry_run=False)
    assert (notes / "diary.txt").exists()


def test_prune_refuses_a_broken_registry(smoke: Sandbox) -> None:
    """Where nobody knows what is named, nothing is removed."""
    smoke.path.write_bytes(b"{")
    before = smoke.tree()
    with pytest.raises(InputError):
        prune(smoke.path, dry_run=False)
    assert smoke.tree() == before


def test_an_incumbent_has_one_name_at_a_time(thumb: Sandbox, registry: Program) -> None:
    """`--against` is the older name of `--incumbent`, which help does not show; both at once are refused."""
    for command in ("gate", "evaluate"):
        help = registry(command, "--help").out
        assert "--incumbent ID" in help
        assert "--against" not in help
        rows = ("--smoke",) if command == "evaluate" else ()
        ran = registry(command, "t", *rows, "--incumbent", "t", "--against", "t", "--registry", thumb.path)
        assert (ran.code, "name the entry once" in ran.err) == (2, True)
    assert GateRequest(incumbent=None).against is None
