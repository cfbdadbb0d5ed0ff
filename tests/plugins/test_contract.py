"""Whatever a plugin does when it is asked, the run says so: it never ends green, and its output stays whole."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import Program
from migrating import old
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin
from tiny_models import entry, model, write

from registry_tool.errors import InputError, PluginError
from registry_tool.figures import Axis, Chart, Figure, Series, Table
from registry_tool.findings import Finding
from registry_tool.hookspec import (
    Agreement,
    Batch,
    Evaluation,
    GateRequest,
    Hooks,
    Kind,
    Level,
    OofPredictions,
    PredictRequest,
    Reproduction,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.plugins.contract import answer_of, mistyped
from registry_tool.toolkit import Columns, RowBatch
from registry_tool.values import EMPTY, Entry, Evidence, Policy, Rule, read_only

HOOKS = {name: hook for name, hook in vars(Hooks).items() if name.startswith("registry_")}
COMMANDS: Mapping[str, tuple[str, ...]] = {  # a command that asks each hook of the plugin that owns `thumb`
    "registry_kinds": ("plugins",),
    "registry_train": ("train", "thumb", "--id", "new"),
    "registry_calibrate": ("calibrate", "t", "--corpus", "c", "--id", "new"),
    "registry_migrate": ("migrate",),
    "registry_verify": ("validate",),
    "registry_gate": ("gate", "t"),
    "registry_oof": ("gate", "other", "--incumbent", "t"),
    "registry_evaluate": ("evaluate", "t", "--smoke"),
    "registry_reproduce": ("reproduce", "t"),
    "registry_load": ("predict", "t", "--corpus", "c"),
    "registry_predict": ("predict", "t", "--corpus", "c"),
    "registry_figures": ("report", "t"),
    "registry_commands": ("thumb-stats",),
}
WITHOUT_OPTION = ("registry_kinds", "registry_verify", "registry_commands")


class Rankings(Thumbs):
    """`thumb` with a manifest, so that a registry of version 1 has one beside its members."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("thumb", "thumbnail rankers", {"type": "object"})]


def plugin_with(hook: str, do: Callable[[], Any]) -> object:
    """A plugin that owns `thumb` and whose hook does this, with the arguments of the specification."""
    code = HOOKS[hook].__code__
    names = code.co_varnames[: code.co_argcount]
    scope: dict[str, Any] = {"do": do}
    exec(f"def hook({', '.join(names)}): return do()", scope)  # pluggy looks at the arguments' names
    base = Rankings if hook == "registry_migrate" else Thumbs
    return type("Extra", (base,), {hook: hookimpl(scope["hook"])})()


def joined_later(folder: Path) -> Path:
    """A registry of version 1 with two models, and a manifest of kind `thumb` that names them."""
    rows = [entry(folder, model(seed=seed), f"m{seed}") for seed in range(2)]
    members = [{"id": row["id"], "onnx": row["onnx"], "sha256": row["sha256"]} for row in rows]
    write(folder, "ranking.json", {"id": "ranking", "kind": "thumb", "members": members})
    return old(folder, *rows)


def arguments_of(hook: str, thumb: Sandbox) -> tuple[object, ...]:
    if hook == "registry_verify":
        return (*COMMANDS[hook], thumb.path)
    if hook == "registry_migrate":
        folder = thumb.path.parent.parent
        return (*COMMANDS[hook], joined_later(folder / "old"), "-o", folder / "new")
    if hook == "registry_oof":
        thumb.edit(lambda document: document["models"].append({**thumb.entry, "id": "other", "kind": "fr"}))
    return (*COMMANDS[hook], *(() if hook in WITHOUT_OPTION else ("--registry", thumb.path)))


class Unspeakable(Exception):
    """An exception that fails when it is asked for its text."""

    def __str__(self) -> str:
        raise SystemExit(0)


def leave() -> Any:
    sys.exit(0)


def leave_later() -> Iterator[Any]:
    yield from ()
    raise SystemExit(None)


def fail(error: BaseException) -> Callable[[], Any]:
    def do() -> Any:
        raise error

    return do


MISBEHAVIOUR: Mapping[str, Callable[[], Any]] = {
    "exits": leave,
    "exits while it is iterated": leave_later,
    "closes": fail(GeneratorExit()),
    "raises what has no text": fail(Unspeakable()),
    "raises two lines": fail(RuntimeError("no\nlicence")),
    "gives a number": lambda: 7,
    "gives the wrong items": lambda: [object()],
    "gives the wrong items and exits": lambda: iter([fail][:0] or _then_exit()),
}


def _then_exit() -> Iterator[Any]:
    yield "no item of any hook"
    sys.exit(0)


@pytest.mark.parametrize("what", MISBEHAVIOUR)
@pytest.mark.parametrize("hook", COMMANDS)
def test_no_hook_ends_the_run_green(thumb: Sandbox, registry: Program, hook: str, what: str) -> None:
    """Whatever a hook does against its specification: exit 3 and one line, or the finding plugin-failed."""
    plugin = plugin_with(hook, MISBEHAVIOUR[what])
    if hook == "registry_kinds":
        with pytest.raises(PluginError, match="plugin extra 7: registry_kinds failed: "):
            with_plugin(plugin)
        return
    arguments, before = arguments_of(hook, thumb), thumb.tree()
    ran = registry(*arguments, plugins=with_plugin(plugin))
    if hook == "registry_verify":
        assert ran.code == 1
        assert "[plugin-failed]" in ran.out
        assert "plugin extra 7: registry_verify failed: " in ran.out
    else:
        assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
        assert f"plugin extra 7: {hook} failed: " in ran.err
    assert thumb.tree() == before


def test_every_hook_is_tried() -> None:
    """The table of commands has each hook of the specification."""
    assert set(COMMANDS) == set(HOOKS)


@pytest.mark.parametrize("hook", COMMANDS)
def test_ctrl_c_passes(hook: str) -> None:
    """A person may always stop."""

    def ask() -> None:
        loaded = with_plugin(plugin_with(hook, fail(KeyboardInterrupt())))
        view: Any = _View()
        if hook == "registry_verify":
            list(loaded.verify(view, Level.FULL))
        elif hook == "registry_commands":
            list(loaded.commands())
        else:
            loaded.ask_owner(hook, "thumb", view=view, request=None, rules=())

    with pytest.raises(KeyboardInterrupt):
        ask()


class _View:
    entry = Entry("t", "thumb", True, "0" * 64)


@pytest.mark.parametrize("hook", [hook for hook in COMMANDS if hook != "registry_kinds"])
def test_what_a_plugin_prints_is_no_output(thumb: Sandbox, registry: Program, hook: str) -> None:
    """It goes to standard error, so that output stays the document that was asked for."""

    def do() -> Any:
        print("found 3 thumbs")
        raise InputError("and no rows")

    ran = registry(*arguments_of(hook, thumb), plugins=with_plugin(plugin_with(hook, do)))
    assert "found 3 thumbs" not in ran.out
    assert "found 3 thumbs\n" in ran.err


# ---- types -----------------------------------------------------------------------------------------------------------


class Constant:
    """A predictor that is the same for every row."""

    def columns(self, found: Sequence[str], where: str) -> Columns:
        return Columns(tuple(found))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        return Batch({"mu": [1.0] * rows.n})

    def check_file(self, path: Path) -> None:
        """Every file will do."""


FINE: Mapping[str, Callable[[], Any]] = {  # what makes an answer of each type with every field filled
    "registry_kinds": lambda: Kind(
        "thumb", "rankers", {"type": "object"}, [click.Option(["--x"])], Policy((Rule("m", ">", 1),))
    ),
    "registry_train": lambda: Trained(
        {"a": b""}, {"id": "x", "n": [1, None, 2.5]}, {"license": "MIT"}, [("a", "b")], ["slow"]
    ),
    "registry_calibrate": lambda: Trained({"a": b""}, {"id": "x"}, {"license": "MIT"}, [("a", "b")], ["slow"]),
    "registry_migrate": lambda: Trained({"a": b""}, {"id": "x"}, {"license": "MIT"}, [("a", "b")], ["slow"]),
    "registry_verify": lambda: Finding("a-code", "text", "note", "e", "f", "/p", 1, 2, "x", "y", "z"),  # type: ignore[arg-type]
    "registry_gate": lambda: Evidence({"m": 1.0}, ("no",), True, "0" * 64, {"a": [{"b": 1}]}),
    "registry_oof": lambda: OofPredictions("t", ["a"], [1.0], [2.0]),
    "registry_evaluate": lambda: Evaluation({"a": {"b": [1]}}, [["a"], ["1"]], ["slow"], [Figure("t", "c")]),
    "registry_reproduce": lambda: Reproduction(
        Trained({}, {}), [Agreement("a", 0.0, 0.0, 1.0, "x")], {"numpy": "sums"}, ["/a"], ["slow"]
    ),
    "registry_load": Constant,
    "registry_predict": lambda: Batch({"row": range(2), "mu": [0.5, 1]}, {"slow": 1}),
    "registry_figures": lambda: Figure(
        "t", "c", Chart(Axis("x", 0, 1), Axis("y", 0, 1), [Series("s", [1], [2])]), Table([["a"], ["b"]], {(0, 0): 0.5})
    ),
    "registry_commands": lambda: click.Command("thumb-stats"),
}


def parts(value: Any) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """(place, what puts another value there) of every field, item and key in an answer, at any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            inside = getattr(value, field.name)
            yield field.name, lambda new, name=field.name: object.__setattr__(value, name, new)
            if isinstance(inside, Mapping):
                inside = dict(inside)
            elif isinstance(inside, list | tuple):
                inside = list(inside)
            else:
                yield from ((f"{field.name}.{at}", put) for at, put in parts(inside))
                continue
            for key in list(inside) if isinstance(inside, dict) else range(len(inside)):

                def put(new: Any, name: str = field.name, copy: Any = inside, key: Any = key) -> None:
                    copy[key] = new
                    object.__setattr__(value, name, tuple(copy) if isinstance(getattr(value, name), tuple) else copy)

                yield f"{field.name}[{key!r}]", put
                if dataclasses.is_dataclass(inside[key]):
                    yield from ((f"{field.name}[{key!r}].{at}", deep) for at, deep in parts(inside[key]))


def wrong_parts() -> Iterator[Any]:
    for hook, fine in FINE.items():
        for index, (place, _) in enumerate(parts(fine())):
            yield pytest.param(hook, index, id=f"{hook}-{place}")


@pytest.mark.parametrize("hook", FINE)
def test_an_answer_of_its_type_passes(hook: str) -> None:
    """Each type, with every field filled, is what its hook may give."""
    assert mistyped(FINE[hook](), answer_of(HOOKS[hook]).item) is None


@pytest.mark.parametrize(("hook", "index"), list(wrong_parts()))
def test_every_field_and_item_is_held_to_its_type(hook: str, index: int) -> None:
    """An object of no JSON type, put at any place in an answer, is found, and its place is named."""
    answer = FINE[hook]()
    place, put = list(parts(answer))[index]
    put(object())
    wrong = mistyped(answer, answer_of(HOOKS[hook]).item)
    assert wrong is not None
    assert wrong.startswith(f"an object at {place.partition('[')[0].partition('.')[0]}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Evidence({"m": 1.0}, problems="no"), "a str at problems, expected tuple"),  # type: ignore[arg-type]
        (Evidence({}, details={"a": [0, {"b": {1, 2}}]}), "a set at details['a'][1]['b'], expected a JSON value"),
        (Evidence({}, details={7: 1}), "an int at details key 7, expected str"),  # type: ignore[dict-item]
        (Evidence({}, summary_only=1), "an int at summary_only, expected bool"),  # type: ignore[arg-type]
        (None, None),
    ],
)
def test_the_message_says_where(answer: Any, words: str | None) -> None:
    """What was found, at which place in the answer, and what was expected."""
    if answer is not None:
        assert mistyped(answer, Evidence) == words


# ---- what a plugin is given ------------------------------------------------------------------------------------------


def containers(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from containers(item)


def changes(value: Any) -> Iterator[Callable[[], object]]:
    """Every way in which a dict or a list, or anything inside it, could be changed in place."""
    for one in containers(value):
        if isinstance(one, Mapping):
            yield from (lambda one=one: one.__setitem__("x", 1), lambda one=one: one.update(x=1))
            yield from (lambda one=one: one.__delitem__(next(iter(one))), lambda one=one: one.pop("x", None))
            yield from (
                lambda one=one: one.clear(),
                lambda one=one: one.setdefault("x", 1),
                lambda one=one: one.popitem(),
            )
            yield lambda one=one: one.__ior__({"x": 1})
        elif isinstance(one, list | tuple):
            for name, given in (
                ("append", (1,)),
                ("extend", ([1],)),
                ("insert", (0, 1)),
                ("pop", ()),
                ("clear", ()),
                ("reverse", ()),
                ("sort", ()),
                ("remove", (1,)),
                ("__setitem__", (0, 1)),
                ("__delitem__", (0,)),
                ("__iadd__", ([1],)),
                ("__imul__", (2,)),
            ):
                yield lambda one=one, name=name, given=given: getattr(one, name)(*given)


def test_what_hooks_are_given_cannot_be_changed(production: Sandbox) -> None:
    """The manifest, the entry and a request refuse every change in place, at any depth; deep copies are one's own."""
    given: list[Any] = []

    class Keen(Thumbs):
        @hookimpl
        def registry_verify(self, view: Any, level: object) -> list[Finding]:
            given.append((view.manifest, view.entry.document, view.entry.promotion))
            return []

    assert production.codes(plugins=with_plugin(Keen())) == []
    ((manifest, document, promotion),) = given
    train = TrainRequest("thumb", "x", None, True, {"seeds": (1, 2)}, lambda what, done, total: None)
    gate, predict = GateRequest({"a": b""}), PredictRequest(None, [0.5])
    values = (manifest, document, promotion, train.options, gate.evidence, predict.levels)
    before, count = repr(values), 0
    for change in (change for value in values for change in changes(value)):
        with pytest.raises((TypeError, AttributeError)):
            change()
        count += 1
    assert (repr(values), count > 1000) == (before, True)
    mine = copy.deepcopy(manifest)
    mine["members"][0]["seed"] = 99
    assert manifest["members"][0]["seed"] != 99
    assert json.loads(json.dumps(manifest)) == mine | {"members": manifest["members"]}
    assert type(mine["members"]) is list


def test_read_only_values_are_equal_to_what_they_were() -> None:
    """Reading, comparing, adding, copying and pickling go as with ordinary values."""
    value = {"a": [1, {"b": [2]}], "c": "x"}
    kept = read_only(value)
    assert kept == value
    assert {**kept, "d": 1} == value | {"d": 1} == kept | {"d": 1}
    assert kept["a"] + [3] == [1, {"b": [2]}, 3]
    for copied in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert (copied, type(copied)) == (value, dict)
    assert read_only(EMPTY) is EMPTY


# ---- installed plugins -----------------------------------------------------------------------------------------------

LOUD = """
import os, subprocess, sys
from registry_tool.hookspec import hookimpl

print("loading")
@hookimpl
def registry_verify(view, level):
    print("verifying")
    os.write(1, b"from below\\n")
    subprocess.run([sys.executable, "-c", "print('a child')"])
    return []
"""
EXITING = """
import sys
sys.exit(0)
"""
EXITING_HOOK = """
from registry_tool.hookspec import hookimpl

@hookimpl
def registry_verify(view, level):
    raise SystemExit(0)
"""


CLOSING_HOOK = EXITING_HOOK.replace("raise SystemExit(0)", "__import__('sys').stdout.close()")


def install(folder: Path, source: str) -> dict[str, str]:
    """A folder that holds an installed plugin `loud` of this source; the environment in which it is found."""
    (folder / "loud-0.1.dist-info").mkdir(parents=True)
    (folder / "loud.py").write_text(source)
    (folder / "loud-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 0.1\n")
    (folder / "loud-0.1.dist-info" / "entry_points.txt").write_text("[registry_tool]\nloud = loud\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(environment: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_no_print_of_an_installed_plugin_reaches_the_output(thumb: Sandbox, tmp_path: Path) -> None:
    """Its import, its hook, a write below Python and a child process print: the JSON stays whole."""
    ran = run(install(tmp_path / "site", LOUD), "validate", thumb.path, "--level", "quick", "--format", "json")
    document = json.loads(ran.stdout)
    assert {finding["code"] for finding in document["findings"]} >= {"kind-unknown"}
    for words in ("loading", "verifying", "from below", "a child"):
        assert (words in ran.stderr) is (words == "loading")  # no hook sees an entry of a kind that is unknown
    thumb.edit_entry(kind="fr")
    ran = run(install(tmp_path / "other", LOUD), "validate", thumb.path, "--level", "quick", "--format", "json")
    assert json.loads(ran.stdout)["entries"] == 1
    for words in ("loading", "verifying", "from below", "a child"):
        assert words in ran.stderr


@pytest.mark.parametrize(("source", "code"), [(EXITING, 3), (EXITING_HOOK, 1), (CLOSING_HOOK, 1)])
def test_an_installed_plugin_that_exits_hides_no_finding(
    thumb: Sandbox, tmp_path: Path, source: str, code: int
) -> None:
    """sys.exit(0) or a closed stream, at import or in a hook: all findings are printed, and the run ends not green."""
    thumb.edit_entry(kind="fr", smoke=True, promotion={"manual": True, "reason": "mine"})
    environment = install(tmp_path / "site", source)
    ran = run(environment, "validate", thumb.path, "--level", "quick")
    assert ran.returncode == code
    assert "[promotion-on-smoke]" in ran.stdout
    assert ("[plugin-not-loaded]" if code == 3 else "[plugin-failed]") in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("flip", "tiny"),
        ("train", "fr_ensemble", "--id", "x"),
        ("gate", "--base", "HEAD"),
        ("reproduce", "tiny"),
        ("train", "loud", "--id", "x"),
        ("loud-stats",),
        ("schema", "loud"),
    ],
)
def test_what_needs_every_plugin_refuses_without_one(
    smoke: Sandbox, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """What asks every plugin, or may be of the broken one, ends with exit 3 and changes nothing."""
    before = smoke.tree()
    environment = install(tmp_path / "site", EXITING) | {"REGISTRY_JSON": str(smoke.path)}
    ran = run(environment, *arguments)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("registry: plugin loud 0.1: import of loud failed: SystemExit: 0")
    assert ran.stderr.count("\n") == 1
    assert smoke.tree() == before


@pytest.mark.parametrize("arguments", [("list",), ("show", "tiny"), ("gate", "tiny"), ("rule", "digest-mismatch")])
def test_what_needs_another_plugin_works_without_it(smoke: Sandbox, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A plugin that does not load stops nothing that it has no part in."""
    environment = install(tmp_path / "site", EXITING) | {"REGISTRY_JSON": str(smoke.path)}
    assert run(environment, *arguments).returncode == 0
