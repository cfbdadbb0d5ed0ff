"""test_suite.py: the conformance suite finds each way to break a plugin's contract."""

from __future__ import annotations

import inspect
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from template import EXAMPLE, TestExample

from registry_tool.errors import InputError
from registry_tool.findings import Finding
from registry_tool.hookspec import Batch, Evaluation, Level, OofPredictions, Trained, hookimpl, hookspec
from registry_tool.hookspec import Hooks as Specification
from registry_tool.testing import Bench, EvidenceTable, PluginSuite
from registry_tool.testing import base as rooms
from registry_tool.testing.loading import HEAVY_LIBRARIES
from registry_tool.values import Evidence

from registry_ruler import model, plugin as sound  # isort: skip  (on the path by test_conformance)

pytestmark = pytest.mark.slow

del TestExample  # it is run in its own file
FAILURE = (AssertionError, pytest.fail.Exception)
HOOKS = [name for name in dir(sound) if name.startswith("registry_")]
CLOCK = iter(range(10**6))
CONSTANT = [1.0] * sum(1 for _ in model.read(EXAMPLE / "rows.csv", "sharpness", "score"))


def broken(**hooks: Any) -> ModuleType:
    """The example's plugin with other hooks; None leaves one out."""
    module, members = ModuleType("broken"), {name: getattr(sound, name) for name in HOOKS} | hooks
    vars(module).update({name: hook for name, hook in members.items() if hook is not None})
    return module


def kinds(**fields: Any) -> Any:
    """registry_kinds of the example with other fields of its kind."""
    (kind,) = sound.registry_kinds()
    return hookimpl(lambda: [replace(kind, **fields)])


def trained(change: Callable[[Trained], Trained]) -> Any:
    return hookimpl(lambda request: change(sound.registry_train(request)))


@hookimpl
def verify_prints(view: Any, level: Level) -> list[Finding]:
    print("looking at", view.entry.id)
    return []


@hookimpl
def verify_writes(view: Any, level: Level) -> list[Finding]:
    Path("cache.bin").write_bytes(b"")
    return []


@hookimpl
def verify_sets_a_variable(view: Any, level: Level) -> list[Finding]:
    os.environ["OMP_NUM_THREADS_OF_MINE"] = str(next(CLOCK))
    return []


@hookimpl
def verify_seeds(view: Any, level: Level) -> list[Finding]:
    random.seed(next(CLOCK))
    return []


@hookimpl
def verify_trusts(view: Any, level: Level) -> Iterator[Finding]:
    """Raises where a pinned file is not what it wrote."""
    if view.entry.kind == "ruler" and level is Level.FULL:
        view.read("oof.csv").decode("ascii").splitlines()[1]
    return iter(())


@hookimpl
def verify_is_nosy(view: Any, level: Level) -> list[Finding]:
    return [view.finding("ruler-odd", "no slope")] if "slope" not in (view.manifest or {}) else []


@hookimpl
def verify_speaks_loosely(view: Any, level: Level) -> list[Finding]:
    return [view.finding("ruler-odd", "text")] if view.entry.kind == "ruler" and view.manifest["n_rows"] != 48 else []


@hookimpl
def verify_of_smoke(view: Any, level: Level) -> list[Finding]:
    return list(sound.registry_verify(view, level)) if view.entry.smoke else []


@hookimpl
def load_constant(view: Any) -> Any:
    class Constant(sound.LinePredictor):
        def predict(self, rows: Any, levels: Any) -> Batch:
            return Batch({"score": np.full(rows.n, 50.0)})

    return Constant(view.read("ruler.onnx"), view.manifest["feature"])


@hookimpl
def evaluate_constant(view: Any, request: Any) -> Evaluation:
    """Good figures, and a digest that moves with the model."""
    done = sound.registry_evaluate(view, request)
    fixed = {"plcc": 0.99, "rmse": 1.0, "sha256": view.manifest["model"]["sha256"]}
    return replace(done, document={**done.document, **fixed})


@hookimpl
def reproduce_nothing(view: Any, request: Any) -> Any:
    done = sound.registry_reproduce(view, request)
    return replace(done, trained=Trained({name: view.read(name) for name in done.trained.files}, dict(view.manifest)))


@hookimpl
def verify_edits(view: Any, level: Level) -> list[Finding]:
    view.manifest["seen"] = True
    return []


@hookimpl
def gate_without_metric(view: Any, request: Any) -> Evidence:
    return Evidence({"plcc": 1.0}, sha256="0" * 64)


@hookimpl
def gate_of_the_clock(view: Any, request: Any) -> Evidence:
    return Evidence({"oof_plcc": next(CLOCK) / 1e6}, sha256="0" * 64)


@hookimpl
def gate_believes(view: Any, request: Any) -> Evidence:
    return Evidence({"oof_plcc": 0.99}, sha256="0" * 64)


def folds_of(view: Any, request: Any) -> list[tuple[str, float, float]]:
    return model.read_predictions("oof.csv", request.evidence["oof.csv"] if request.evidence else view.read("oof.csv"))


@hookimpl
def gate_of_constants(view: Any, request: Any) -> Evidence:
    """What it says is right for the good entry, whatever the evidence."""
    folds_of(view, request)
    return Evidence({"oof_plcc": 0.99, "oof_srocc": 0.95}, sha256="0" * 64)


@hookimpl
def gate_without_targets(view: Any, request: Any) -> Evidence:
    """The predictions agree with themselves; it notices another order."""
    evidence = sound.registry_gate(view, request)
    order = math.fsum(i * p for i, (_, _, p) in enumerate(folds_of(view, request)))
    return replace(evidence, metrics={"oof_plcc": 0.95 + 0.05 * math.sin(order), "plcc": evidence.metrics["oof_plcc"]})


@hookimpl
def gate_without_counts(view: Any, request: Any) -> Evidence:
    return replace(sound.registry_gate(view, request), problems=())


@hookimpl
def gate_of_constants_is_perfect(view: Any, request: Any) -> Evidence:
    """A correlation that does not exist is taken for a perfect one."""
    evidence = sound.registry_gate(view, request)
    plcc = evidence.metrics["oof_plcc"]
    return replace(evidence, metrics={"oof_plcc": 1.0 if math.isnan(plcc) else plcc})


@hookimpl
def gate_raises(view: Any, request: Any) -> Evidence:
    return Evidence({"oof_plcc": float(view.read("oof.csv").decode("ascii").splitlines()[9][-1])}, sha256="0" * 64)


@hookimpl
def predict_lists(view: Any, request: Any) -> Any:
    return [{"row": 1}]


@hookimpl
def predict_raises(view: Any, request: Any) -> Iterator[Batch]:
    yield Batch({"row": [len(request.corpus.read_text())]})


@hookimpl
def evaluate_objects(view: Any, request: Any) -> Evaluation:
    return Evaluation({"entry": object()})


@hookimpl
def train_anything(request: Any) -> Trained:
    return sound.registry_train(replace(request, smoke=True))


def misspelt(view: Any, level: Level) -> list[Finding]:
    return []


def wraps(view: Any, level: Level) -> Iterator[Any]:
    return (yield)


async def asynchronous(view: Any, level: Level) -> list[Finding]:
    return []


# What is wrong -> (the plugin, words in the name of the test that fails, words in its message).
CASES: dict[str, tuple[ModuleType, str, str]] = {
    "a misspelt hook": (broken(registry_verfy=misspelt), "its_names_are_hooks", "did you mean registry_verify"),
    "a hook without its mark": (broken(registry_verify=misspelt), "matches", "lacks @hookimpl"),
    "a wrapper": (broken(registry_verify=hookimpl(wrapper=True)(wraps)), "matches", "use a plain @hookimpl"),
    "a place before the others": (
        broken(registry_load=hookimpl(tryfirst=True)(lambda view: sound.registry_load(view))),
        "matches",
        "tryfirst changes nothing",
    ),
    "an async hook": (broken(registry_verify=hookimpl(asynchronous)), "matches", "is async"),
    "no summary": (broken(registry_kinds=kinds(summary=" ")), "well_formed", "no summary"),
    "no schema": (broken(registry_kinds=kinds(schema={"type": 7})), "well_formed", "no JSON Schema"),
    "an old draft": (
        broken(registry_kinds=kinds(schema={"$schema": "http://json-schema.org/draft-07/schema#"})),
        "well_formed",
        "draft-07",
    ),
    "rules without a gate": (broken(registry_gate=None), "well_formed", "no registry_gate"),
    "a taken option": (
        broken(registry_kinds=kinds(options=[click.Option(["--smoke"], help="x")])),
        "options_collide",
        "--smoke",
    ),
    "an option twice": (
        broken(registry_kinds=kinds(options=[click.Option([name, "x"], help="x") for name in ("--a", "--b")])),
        "options_collide",
        "x",
    ),
    "a required option": (
        broken(registry_kinds=kinds(options=[click.Option(["--need"], required=True, help="x")])),
        "options_have_defaults",
        "--need",
    ),
    "a taken command": (
        broken(registry_commands=hookimpl(lambda: [click.Command("validate", help="x")])),
        "commands_collide",
        "is the core's",
    ),
    "a command without help": (
        broken(registry_commands=hookimpl(lambda: [click.Command("ruler-x")])),
        "commands_collide",
        "no help",
    ),
    "printing": (broken(registry_verify=verify_prints), "good_registry", "printed 'looking at good"),
    "writing": (broken(registry_verify=verify_writes), "good_registry_validates", "wrote into the current folder"),
    "an environment": (broken(registry_verify=verify_sets_a_variable), "good_registry_validates", "environment"),
    "a seed": (broken(registry_verify=verify_seeds), "good_registry_validates", "random state"),
    "another id": (
        broken(registry_train=trained(lambda t: replace(t, manifest={**t.manifest, "id": "x"}))),
        "what_it_trains",
        "it would not validate",
    ),
    "no mark of random rows": (
        broken(registry_train=trained(lambda t: replace(t, manifest={**t.manifest, "random_rows": False}))),
        "random_rows_train",
        "random_rows: true",
    ),
    "any rows": (broken(registry_train=train_anything), "training_names", "DID NOT RAISE"),
    "rows that raise": (broken(registry_load=None, registry_predict=predict_raises), "a_hook_names", "No such file"),
    "batches that are none": (
        broken(registry_load=None, registry_predict=predict_lists),
        "keeps_its_contract",
        "gave a dict",
    ),
    "a document that JSON cannot hold": (
        broken(registry_evaluate=evaluate_objects),
        "keeps_its_contract",
        "expected a JSON value",
    ),
    "an edited manifest": (broken(registry_verify=verify_edits), "keeps_its_contract", "it is read-only"),
    "a moving figure": (broken(registry_gate=gate_of_the_clock), "keeps_its_contract", "answers differently"),
    "a metric that is never measured": (broken(registry_gate=gate_without_metric), "gate_measures_what", "oof_plcc"),
    "a metric that is not described": (
        broken(registry_kinds=kinds(metrics="")),
        "gate_measures_what",
        "describe them where `Kind.metrics` says",
    ),
    "a good entry that is held": (broken(registry_gate=gate_of_the_clock), "is_promoted", "HOLD: oof_plcc >= 0.9"),
    "belief": (broken(registry_gate=gate_believes), "replaced_with_its_pins", "oof.csv"),
    "a verify that raises": (broken(registry_verify=verify_trusts), "replaced_with_its_pins", "registry_verify raised"),
    "a gate that raises": (broken(registry_gate=gate_raises), "replaced_with_its_pins", "registry_gate failed"),
    **{
        name: (broken(registry_gate=gate), "gate_measures_the_evidence", words)
        for name, gate, words in (
            ("a gate of constants", gate_of_constants, "no metric changed"),
            (
                "a gate that sees no target",
                gate_without_targets,
                "the predictions permuted: the gate promotes it all the same",
            ),
            ("a gate that counts nothing", gate_without_counts, "two groups merged: no metric changed"),
            (
                "a gate that promotes constants",
                gate_of_constants_is_perfect,
                "the predictions made constant: the gate promotes it all the same",
            ),
        )
    },
    "predictions of the clock": (
        broken(registry_oof=hookimpl(lambda view: OofPredictions(view.entry.id, ["a"], [1.0], [next(CLOCK) / 1.0]))),
        "keeps_its_contract",
        "answers differently",
    ),
    "predictions of no evidence": (
        broken(registry_oof=hookimpl(lambda view: OofPredictions(view.entry.id, ["a"], [1.0], [1.0]))),
        "out_of_fold",
        "gives other targets",
    ),
    "predictions that are constant": (
        broken(registry_oof=hookimpl(lambda view: replace(sound.registry_oof(view), predictions=CONSTANT))),
        "out_of_fold",
        "the predictions permuted: registry_oof gives what it gave before",
    ),
    "a verify that checks nothing": (
        broken(registry_verify=None),
        "every_number",
        "fields whose value nothing checks: /intercept, /slope",
    ),
    "numbers that are counted by nobody": (
        broken(registry_gate=gate_without_counts),
        "every_number",
        "/n_rows, /n_sources",
    ),
    "weights that nothing binds": (broken(registry_verify=None), "swapped_weights", "another model's, and nothing"),
    "a verify of smoke entries alone": (
        broken(registry_verify=verify_of_smoke),
        "swapped_weights",
        "a production entry",
    ),
    "predictions of no model": (
        broken(registry_load=load_constant),
        "answers_for_the_model",
        "registry_load says the same of another model's weights",
    ),
    "figures of no model": (
        broken(registry_evaluate=evaluate_constant),
        "answers_for_the_model",
        "registry_evaluate says the same of another model's weights",
    ),
    "a reproduction that trains nothing": (
        broken(registry_reproduce=reproduce_nothing),
        "reproducing_trains",
        "ruler.onnx: registry_reproduce gives back what it was given",
    ),
    "a lax schema": (
        broken(registry_kinds=kinds(schema={"type": "object"}), registry_verify=None),
        "every_field",
        "changes with no finding",
    ),
    "an undeclared finding": (broken(registry_verify=verify_speaks_loosely), "every_field", "'ruler-odd': declare it"),
    "findings that are nowhere": (
        broken(registry_kinds=kinds(findings={"ruler-": "nowhere"})),
        "findings_are_explained",
        "No module named",
    ),
    "a prefix without findings": (
        broken(registry_kinds=kinds(findings={"thumb-": "registry_ruler.plugin"})),
        "findings_are_explained",
        "thumb-",
    ),
    "a nosy verify": (broken(registry_verify=verify_is_nosy), "other_kinds", "gave findings for another kind"),
}


def suite_of(plugin: object, **settings: Any) -> PluginSuite:
    fields = {"plugin": plugin, "kind": "ruler", "corpus": EXAMPLE / "rows.csv", "arguments": ("--license", "MIT")}
    fields |= {"evidence": EvidenceTable("oof.csv", source="src")}
    return type("Suite", (PluginSuite,), fields | settings)()


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that the example trained."""
    folder = tmp_path_factory.mktemp("ruler") / "model"
    folder.mkdir()
    suite_of(sound).make_registry(folder, EXAMPLE / "rows.csv")
    return folder


def random_rows(suite: PluginSuite, folder: Path) -> Bench:
    bench = suite.bench(folder / "random")
    with rooms.undisturbed(folder):
        bench.train("good", None, suite.arguments, smoke=True)
    return bench


def ask(suite: PluginSuite, test: str, good_folder: Path, tmp_path: Path) -> Iterable[Callable[[], None]]:
    """Every call of the one test whose name has these words, with the arguments that pytest would give it."""
    (name,) = [n for n in dir(suite) if n.startswith("test_") and test in n]
    function = getattr(suite, name)
    marks = [mark.args for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
    if "hook" in inspect.signature(function).parameters:
        marks += [("hook", [hook for hook in function.hooks if hook in suite.offered()])]
    sets: list[dict[str, Any]] = [{}]
    for argument, values in marks:
        sets = [{**one, argument: value} for one in sets for value in values]
    for number, one in enumerate(sets):
        folder = tmp_path / str(number)
        folder.mkdir()
        fixtures = {
            "tmp_path": lambda folder=folder: folder,
            "good": lambda folder=folder: suite.bench(good_folder).copy(folder / "model"),
            "rows": lambda: EXAMPLE / "rows.csv",
            "other_rows": lambda: None,
            "of_random_rows": lambda folder=folder: random_rows(suite, folder),
            "request": lambda folder=folder: SimpleNamespace(getfixturevalue=lambda name: random_rows(suite, folder)),
            "loaded": lambda: suite.bench(Path()).plugins.loaded[0],
        }
        wanted = [n for n in inspect.signature(function).parameters if n not in one]
        yield lambda one=one, wanted=wanted, fixtures=fixtures: function(**one, **{n: fixtures[n]() for n in wanted})


@pytest.mark.parametrize("what", CASES)
def test_a_broken_plugin_fails(what: str, good_folder: Path, tmp_path: Path) -> None:
    """Each way to break the contract fails the test that is about it, and the message says what is wrong."""
    plugin, test, words = CASES[what]
    said = []
    for call in ask(suite_of(plugin), test, good_folder, tmp_path):
        try:
            call()
        except (pytest.skip.Exception, KeyboardInterrupt):
            continue
        except BaseException as error:  # pytest.fail is no Exception, and a plugin's own error fails a test as well
            said.append(str(error) or repr(error))
    assert any(words in text for text in said), said or "every test passed"


@pytest.mark.parametrize(("level", "word"), [("load", "torch"), ("quick", "onnx")])
def test_a_heavy_plugin_fails(level: str, word: str, good_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A library that loads with the module, or at --level quick, is named; a fake one stands in for it."""
    (tmp_path / "torch.py").write_text("")
    at_load = "import torch\n" if level == "load" else ""
    at_quick = "    import onnx\n" if level == "quick" else ""
    hooks = ", ".join(name for name in HOOKS if name != "registry_verify")
    (tmp_path / "heavy_plugin.py").write_text(
        f"{at_load}from registry_ruler.plugin import {hooks}\nfrom registry_tool.hookspec import hookimpl\n"
        f"@hookimpl\ndef registry_verify(view, level):\n{at_quick}    return []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))  # the suite loads the plugin here too
    suite, good = suite_of("heavy_plugin"), Bench(good_folder / "registry.json", sound, "ruler")
    tests = {
        "load": lambda: suite.test_loading_it_is_light(tmp_path, lambda name, value: None),
        "quick": lambda: suite.test_a_quick_look_is_light(good),
    }
    with pytest.raises(FAILURE, match=f"{word} loaded: import it inside the hook"):
        tests[level]()
    assert word in HEAVY_LIBRARIES


def test_training_by_hash_order_fails(tmp_path: Path, monkeypatch: Any) -> None:
    """A manifest in which a set's order shows differs between two processes, and the file that differs is named."""
    hooks = ", ".join(name for name in HOOKS if name != "registry_train")
    (tmp_path / "unsteady_plugin.py").write_text(
        f"from dataclasses import replace\nfrom registry_ruler.plugin import {hooks}\n"
        "from registry_ruler import plugin\nfrom registry_tool.hookspec import hookimpl\n"
        "@hookimpl\ndef registry_train(request):\n    done = plugin.registry_train(request)\n"
        "    names = list({f'{n}' for n in range(50)})\n"
        "    return replace(done, manifest={**done.manifest, 'names': names})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = suite_of("unsteady_plugin")
    with pytest.raises(FAILURE, match=r"trained twice, manifest\.json differ"):
        suite.test_training_twice_gives_the_same_bytes(EXAMPLE / "rows.csv", tmp_path)


def test_a_new_hook_is_covered(good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that the specification gains is asked and held to its types, without a word about it in the suite."""
    from registry_tool.testing import using

    class Wider(Specification):
        @hookspec(firstresult=True)
        def registry_title(self, view: Any, request: Any) -> str | None:
            """None means no title."""

    Wider.registry_title.__annotations__ = {"view": "EntryView", "request": "PredictRequest", "return": "str | None"}
    monkeypatch.setattr("registry_tool.plugins.manager.Hooks", Wider)
    monkeypatch.setattr(using, "Hooks", Wider)
    good, wrong = (hookimpl(lambda view, request, answer=answer: answer) for answer in ("a title", 7))
    for hook, fails in ((good, False), (wrong, True)):
        suite = suite_of(broken(registry_title=hook))
        folder = tmp_path / str(fails)
        folder.mkdir()
        bench = suite.bench(good_folder).copy(folder / "model")
        if fails:
            with pytest.raises(FAILURE, match="registry_title failed: TypeError: it gave an int, expected str"):
                suite.test_a_hook_keeps_its_contract(bench, "registry_title", EXAMPLE / "rows.csv", None, folder)
        else:
            suite.test_a_hook_keeps_its_contract(bench, "registry_title", EXAMPLE / "rows.csv", None, folder)


def test_the_suite_looks_at_every_hook() -> None:
    """Its hooks are those of the specification, in its order, but for a deprecated one that another stands for."""
    hooks = [name for name in vars(Specification) if name.startswith("registry_") and name != "registry_predict"]
    assert list(rooms.HOOKS) == hooks


def test_nothing_of_it_loads_with_the_core() -> None:
    """Importing registry_tool, and running the program, imports neither the suite nor pytest."""
    script = (
        "import sys, registry_tool, registry_tool.cli, registry_tool.plugins.manager as p; p.load()\n"
        "print([n for n in sys.modules if n.startswith(('pytest', '_pytest', 'registry_tool.testing'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_pytest_it_says_what_to_install(tmp_path: Path) -> None:
    """Where pytest is not installed the import error names the extra."""
    (tmp_path / "pytest.py").write_text("raise ImportError('no pytest')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import registry_tool.testing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "pip install pytest" in done.stderr


def test_forging_fits_every_pin(good_folder: Path, tmp_path: Path) -> None:
    """What the bench forges has no finding but the plugin's own; the registry it was copied from is untouched."""
    before = rooms.tree(good_folder)
    bench = Bench(good_folder / "registry.json", sound, "ruler").copy(tmp_path / "model")
    bench.forge()
    assert bench.findings() == ()
    bench.forge(files={"oof.csv": b"src,target,prediction\n"})
    assert bench.errors() == []
    with bench.view() as view:
        assert view.read("oof.csv") == b"src,target,prediction\n"
    assert not bench.gate().promotes
    assert rooms.tree(good_folder) == before


def test_a_hook_that_is_left_out_needs_a_reason() -> None:
    """Its tests are left out, and one skip says why; without a reason that one fails."""
    plugin = broken(registry_figures=None, registry_train=None)
    suite = suite_of(plugin, without={"registry_train": "trained by another program"})
    assert suite.test_what_it_trains_validates is None
    assert "registry_figures" not in suite.offered()
    with pytest.raises(pytest.skip.Exception, match="no registry_train: trained by another program"):
        suite.test_a_hook_that_is_left_out_is_explained("registry_train")
    with pytest.raises(FAILURE, match="no registry_figures: say why in `without`"):
        suite.test_a_hook_that_is_left_out_is_explained("registry_figures")


def test_a_gate_needs_its_evidence_named(good_folder: Path, tmp_path: Path) -> None:
    """A kind with a gate, and a suite that cannot spoil what it measures, fail."""
    suite = suite_of(sound, evidence=None)
    good = suite.bench(good_folder).copy(tmp_path / "model")
    with pytest.raises(FAILURE, match="name its out-of-fold predictions in `evidence`"):
        suite.test_the_gate_measures_the_evidence(good, tmp_path)


def test_a_recorded_field_is_left_alone(good_folder: Path, tmp_path: Path) -> None:
    """What a kind declares as recorded, with a reason, need not be checked; a reason that is empty is refused."""
    plugin = broken(registry_verify=None, registry_kinds=kinds(recorded={"/slope": "x", "/intercept": "y"}))
    suite = suite_of(plugin)
    suite.test_every_number_is_checked(suite.bench(good_folder).copy(tmp_path / "model"), tmp_path)
    with pytest.raises(ValueError, match="expected a pointer such as '/notes' and a reason"):
        kinds(recorded={"/slope": " "})()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "npz"])
def test_evidence_is_read_back_as_it_was_written(ending: str) -> None:
    """Whatever the format, columns survive; predictions of several models keep those of a row together."""
    table = EvidenceTable(f"oof.{ending}", source="src")
    columns: dict[str, Any] = {"src": np.array(["a", "b", "b"]), "target": np.array([1.0, 2.0, 4.0])}
    columns["prediction"] = np.array([1.5, 2.5, 3.5])
    if ending == "npz":
        columns["prediction"] = np.array([[1.5, 2.5, 3.5], [10.0, 20.0, 30.0]])
    read = table.read(table.write(columns))
    assert {name: [*map(str, values.ravel())] for name, values in read.items()} == {
        name: [*map(str, values.ravel())] for name, values in columns.items()
    }
    spoilt = dict(table.spoilt(read))
    assert spoilt["a fold dropped"]["src"].tolist() == ["a"]
    assert spoilt["two groups merged"]["src"].tolist() == ["a", "a", "a"]
    assert len({*spoilt["the predictions made constant"]["prediction"].ravel().tolist()}) == columns["prediction"].ndim
    if ending == "npz":
        pairs = {*zip(*spoilt["the predictions permuted"]["prediction"].tolist(), strict=True)}
        assert pairs == {(1.5, 10.0), (2.5, 20.0), (3.5, 30.0)}


def test_bad_rows_are_an_input_error(good_folder: Path) -> None:
    """The example itself names rows that cannot be used: what the broken ones are held against."""
    bench = Bench(good_folder / "registry.json", sound, "ruler")
    with pytest.raises(InputError, match="expected a file of rows"):
        bench.train("x", None)
