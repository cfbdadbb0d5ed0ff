"""Which room may import which, held against every module's source; and what a run really loads."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from places import ROOT
from sandbox import Sandbox
from sources import PACKAGES, modules, tree_of, walked

import registry_tool

CORE, PLUGIN = ROOT / "registry_tool", ROOT / "plugins" / "fr_ensemble"
# Floors from the ground up: a module of a floor imports only floors below its own and its own room, in functions too.
# A room is a folder; the names without a dot are the public modules at the top level of a package.
FLOORS: dict[str, list[set[str]]] = {
    "registry_tool": [
        {"version", "schemas", "findings"},
        {"errors"},
        {"figures", "onnx_summary"},
        {"values"},
        {"strictjson"},
        {"storage.", "sandbox."},
        {"rows."},
        {"hookspec"},
        {"documents."},
        {"toolkit", "archive", "measures"},
        {"plugins."},
        {"git."},
        {"signing."},
        {"legacy."},
        {"checks."},
        {"workflows."},
        {"api"},
        {"__init__", "report."},
        {"commands."},
        {"cli"},
        {"__main__", "testing."},
    ],
    "fr_ensemble": [
        {"__init__"},
        {"arrays"},
        {"corpus."},
        {"artifacts."},
        {"evidence."},
        {"training."},
        {"checks."},
        {"hooks."},
        {"queries.", "options"},
        {"commands."},
        {"plugin"},
    ],
}
OPEN_TO_PLUGINS = {"hookspec", "values", "findings", "errors", "figures", "toolkit", "strictjson", "onnx_summary"} | {
    "archive",
    "measures",
    "schemas",
}
PROGRAM = {"__init__", "__main__", "api", "cli", "version"}  # what `import registry_tool` and `registry` are made of
# They parse or run ONNX, in the child process alone.
IN_CHILD = {
    f"registry_tool.sandbox.{name}" for name in ("inference", "message", "probing", "reader", "scaling", "tensors")
}
CHILD = "registry_tool.sandbox.child"
TRAINING = "fr_ensemble.training."  # the room that may import torch
HEAVY = {"numpy", "onnx", "onnxruntime", "torch", "pyarrow", "scipy"}


CORE_MODULES, PLUGIN_MODULES = (modules(package) for package in PACKAGES)
SCHEMAS = {"registry_tool.schemas"}
KNOWN = {*CORE_MODULES, *PLUGIN_MODULES, *SCHEMAS}


@cache
def imports(path: Path, *, at_load: bool = False) -> frozenset[str]:
    """The modules that a module imports; at_load: only those that importing it loads.

    `from package import name` is package.name where that is a module, else package; only the plugin uses relative ones.
    """
    return frozenset(imported(tree_of(path), at_load))


def packages(path: Path, *, at_load: bool = False) -> set[str]:
    """The first names of what a module imports."""
    return {module.split(".")[0] for module in imports(path, at_load=at_load)}


def imported(tree: ast.AST, at_load: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr) or (at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        if at_load and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                yield from imported(child, at_load=True)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module if node.level == 0 else ".".join(filter(None, (PLUGIN.name, node.module)))
            names = {f"{source}.{alias.name}" for alias in node.names}
            yield from (name if name in KNOWN else str(source) for name in names)
        else:
            yield from imported(node, at_load)


def room(name: str) -> str:
    """`checks.` for registry_tool.checks.entry and for registry_tool.checks itself, `cli` for registry_tool.cli."""
    package, _, rest = name.partition(".")
    folder = rest.split(".")[0]
    if not rest:
        return "__init__"
    return f"{folder}." if (PACKAGES[package] / folder).is_dir() else folder


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS[name.split(".")[0]]) if room(name) in rooms)


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_its_floor(package: str) -> None:
    """A new folder, or a new module at the top level, takes a floor; a new file in a folder needs no edit here."""
    named = [name for rooms in FLOORS[package] for name in rooms]
    assert sorted(named) == sorted({room(name) for name in KNOWN if name.split(".")[0] == package})


def test_the_top_level_is_public() -> None:
    """A module beside the folders is the program or open to plugins, and the two pages on that name each of these."""
    top = {name for rooms in FLOORS["registry_tool"] for name in rooms if not name.endswith(".")}
    assert top == OPEN_TO_PLUGINS | PROGRAM
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").split("Import what you need from")[1]
    for text in (registry_tool.__doc__.split("for those who write plugins:")[1], page.split("other modules")[0]):
        assert set(re.findall(r"`(?:registry_tool\.)?(\w+)`", text)) == OPEN_TO_PLUGINS | {"testing"}


def test_imports_run_downward() -> None:
    """A module imports from its own room and from lower floors alone, inside functions too."""
    upward = [
        (name, module)
        for name, path in (*CORE_MODULES.items(), *PLUGIN_MODULES.items())
        for module in imports(path)
        if module in KNOWN and module.split(".")[0] == name.split(".")[0]
        if room(module) != room(name) and floor(module) >= floor(name)
    ]
    assert upward == []


def test_the_core_knows_no_plugin() -> None:
    """No module of the core imports the first-party plugin, anywhere."""
    assert [name for name, path in CORE_MODULES.items() if "fr_ensemble" in packages(path)] == []


def test_the_core_loads_nothing_heavy() -> None:
    """No numpy, onnx or torch at module level; torch, scipy and, but for tables of rows, pyarrow nowhere."""
    found = {name: path for name, path in CORE_MODULES.items() if name not in IN_CHILD}
    assert [name for name, path in found.items() if packages(path, at_load=True) & HEAVY] == []
    assert [name for name, path in found.items() if packages(path) & {"torch", "scipy"}] == []
    assert {room(name) for name, path in found.items() if "pyarrow" in packages(path)} == {"rows."}


def test_only_reports_draw() -> None:
    """Pages and pictures are the business of one room: jinja2 and matplotlib load there, and when one is made."""
    drawing, every = {"jinja2", "markupsafe", "matplotlib"}, CORE_MODULES | PLUGIN_MODULES
    users = {name for name, path in every.items() if {m.split(".")[0] for m in imports(path)} & drawing}
    assert users == {"registry_tool.report.templating", "registry_tool.report.png"}
    tops = {name for name in users if {m.split(".")[0] for m in imports(every[name], at_load=True)} & drawing}
    assert tops == {"registry_tool.report.templating"}


def test_only_the_child_parses_onnx() -> None:
    """The core's own process loads no parser of ONNX: that is the child's."""
    users = {name for name, path in (CORE_MODULES | PLUGIN_MODULES).items() if IN_CHILD & imports(path)}
    assert users - IN_CHILD == {CHILD}
    onnx = {name for name, path in CORE_MODULES.items() if "onnx" in {m.split(".")[0] for m in imports(path)}}
    assert {room(name) for name in onnx} == {"sandbox."}


def test_commands_open_no_file_of_a_registry() -> None:
    """Command lines parse and print: the rooms below the flows are theirs only to name values."""
    below = [
        (name, module)
        for name, path in CORE_MODULES.items()
        if name.startswith(("registry_tool.cli", "registry_tool.commands"))
        for module in imports(path)
        if module in KNOWN and room(module) in {"sandbox.", "legacy."}
    ]
    assert below == []


def test_stories_know_no_click() -> None:
    """Only the command line, its renderers and the hooks that add options know click."""
    stories = ("registry_tool.workflows", "registry_tool.checks")
    assert [name for name, path in CORE_MODULES.items() if name.startswith(stories) and "click" in imports(path)] == []


@pytest.mark.parametrize("name", ["registry_tool.values", "registry_tool.checks.policy", "registry_tool.strictjson"])
def test_pure_rooms_open_no_file(name: str) -> None:
    """Values, policy and JSON read no files: no os, no pathlib, no open()."""
    assert imports(CORE_MODULES[name]) & {"os", "pathlib", "io", "shutil", "subprocess"} == set()
    calls = {
        node.func.id
        for node in walked(tree_of(CORE_MODULES[name]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


def test_the_plugin_uses_the_public_door() -> None:
    """Of the core it imports what is open to plugins, and no more."""
    own = {module for path in PLUGIN_MODULES.values() for module in imports(path) if module.startswith("registry_tool")}
    assert own <= {f"registry_tool.{room}" for room in OPEN_TO_PLUGINS}


def test_the_built_in_plugin_uses_the_public_door() -> None:
    """It is the example that plugin authors read."""
    own = {
        module
        for module in imports(CORE_MODULES["registry_tool.plugins.single_models"])
        if module.startswith("registry_tool")
    }
    beside = {f"registry_tool.plugins.{name}" for name in ("single_gate", "sidecars")}  # modules of its own
    assert own <= {f"registry_tool.{room}" for room in OPEN_TO_PLUGINS} | beside


def test_torch_stays_in_the_rooms_of_training() -> None:
    """Anything else of the plugin runs where torch is not installed."""
    known = [name for name, path in PLUGIN_MODULES.items() if "torch" in packages(path)]
    assert [name for name in known if not name.startswith(TRAINING)] == []


def test_ray_pyarrow_and_scipy_load_inside_functions() -> None:
    """Importing a module of the plugin loads none of them."""
    late = {"ray", "pyarrow", "scipy"}
    assert [name for name, path in PLUGIN_MODULES.items() if packages(path, at_load=True) & late] == []


def test_the_hooks_module_is_light() -> None:
    """plugin.py, which every command loads, and what it imports at module level load nothing heavy."""
    waiting, seen = ["fr_ensemble.plugin"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        found = imports(PLUGIN_MODULES[name], at_load=True)
        assert {module.split(".")[0] for module in found} & HEAVY == set(), name
        waiting += sorted(found & set(PLUGIN_MODULES) - seen)
    light = {"fr_ensemble.options", "fr_ensemble.evidence.methods", "fr_ensemble.artifacts.paths"}
    assert seen == {"fr_ensemble.plugin", *light}


@pytest.mark.parametrize("package", [CORE_MODULES, PLUGIN_MODULES], ids=["core", "plugin"])
def test_no_room_imports_itself_round_a_corner(package: dict[str, Path]) -> None:
    """There is no cycle among the modules of a package, `plugins.load` and its built-in plugin included."""
    edges = {name: imports(path) & set(package) for name, path in package.items()}
    while free := {name for name, targets in edges.items() if not targets & set(edges)}:
        edges = {name: targets for name, targets in edges.items() if name not in free}
    assert edges == {}


def loaded(*arguments: str) -> tuple[int, set[str]]:
    """(exit code, top-level names of the modules) of a run of the program in a process of its own."""
    script = (
        "import sys, json\nfrom registry_tool import cli\nsys.argv = ['registry', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    code = int(end.code or 0)\n"
        "print()\nprint(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    code, names = json.loads(run.stdout.splitlines()[-1])
    return code, set(names)


def test_validation_loads_no_training_library(production: Sandbox) -> None:
    """`registry validate`, at its fullest, on a trained production ensemble: no torch, pyarrow or scipy."""
    code, names = loaded("validate", str(production.path))
    assert code == 0
    assert names & {"torch", "pyarrow", "scipy", "ray", "jinja2", "matplotlib"} == set()
    assert {"onnx", "onnxruntime"} <= names  # it did look at the graphs


def test_libraries_report_nothing_to_their_makers(
    production: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime keeps no identity of the machine and no events to send, in the program and in its children."""
    for name in {*os.environ} - {"PATH"}:  # variables of CI silence it, too
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    code, names = loaded("validate", str(production.path))
    assert (code, "onnxruntime" in names) == (0, True)
    assert list(home.rglob("*")) == []


def test_a_quick_run_loads_no_onnx(production: Sandbox) -> None:
    """--level quick needs neither onnx nor onnxruntime."""
    code, names = loaded("validate", str(production.path), "--level", "quick")
    assert code == 0
    assert names & {"onnx", "onnxruntime", "torch", "pyarrow", "scipy", "jinja2", "matplotlib"} == set()


@pytest.mark.parametrize("command", ["gate", "flip", "report"])
def test_promotion_loads_no_training_library(smoke: Sandbox, command: str) -> None:
    """The gate, and the page about it, run on the base install."""
    code, names = loaded(command, "tiny", "--registry", str(smoke.path))
    assert code == 0
    assert names & {"torch", "pyarrow", "scipy", "matplotlib"} == set()


@pytest.mark.parametrize("command", [["--help"], ["train", "fr_ensemble", "--help"], ["plugins"], ["list"]])
def test_small_commands_load_nothing_heavy(
    production: Sandbox, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Help, plugins and lists answer at once: no numpy even."""
    monkeypatch.setenv("REGISTRY_JSON", str(production.path))
    code, names = loaded(*command)
    assert (code, names & HEAVY) == (0, set())
