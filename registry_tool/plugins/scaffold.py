"""scaffold.py: a new plugin's project, made from the template that ships. Knows the template's name, and no kind.

A template is a project that works, whose kind is called `ruler`: `template/` is trained and gated, `template/single/`
is one ONNX file that was trained elsewhere. What is made is the same text with another name, so that whatever holds for
one holds for the other.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.hookspec import KIND_NAME
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.staging import NewFolder

TEMPLATE_NAME = "ruler"
WORKFLOW = "workflow.yml"  # packages take no folder that starts with a dot
PLACES = {WORKFLOW: ".github/workflows/test.yml"}
COMMON_FILES = (
    "README.md",
    "pyproject.toml",
    "rows.csv",
    WORKFLOW,
    "src/registry_ruler/__init__.py",
    "src/registry_ruler/plugin.py",
    "tests/test_conformance.py",
)
TEMPLATE_FILES = {  # name -> (folder, its files)
    "trained": ("template", (*COMMON_FILES, "src/registry_ruler/model.py", "tests/test_model.py")),
    "single-onnx": ("template/single", COMMON_FILES),
}
TRAINED_TEMPLATE = "trained"


def new_plugin(name: str, output: Path | None, plugins: Plugins, source: str = TRAINED_TEMPLATE) -> tuple[Path, bool]:
    """(the folder, whether it was made: False where it holds this very project already).

    output: None is registry-NAME here. source: a name of TEMPLATE_FILES. Raises InputError for a name that no kind can
    have or another plugin's has, and for a folder that holds anything else.
    """
    _check_name(name, plugins)
    place, names = TEMPLATE_FILES[source]
    template = files("registry_tool.plugins").joinpath(*place.split("/"))
    folder = output if output is not None else Path(f"registry-{_dashed(name)}")
    if str(folder) == "-":
        raise InputError("-o -: found standard output, expected a folder to make: name another")
    with NewFolder(folder) as made:
        for file in names:
            target = made.path / named(PLACES.get(file, file), name)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = template.joinpath(*file.split("/")).read_text(encoding="utf-8")
            target.write_text(named(text, name), encoding="utf-8")
        return folder, made.publish()


def _check_name(name: str, plugins: Plugins) -> None:
    """Raise InputError for a name whose project would not install, or not load beside what is there."""
    if not KIND_NAME.match(name) or name.endswith("_") or "__" in name:
        raise InputError(
            f"{name!r}: no name for a kind of a new plugin, expected lower-case letters, digits and single _ between "
            "them, at most 64, a letter first"
        )
    if name in plugins.kinds:
        raise InputError(f"{name}: plugin {plugins.owner(name).name} owns this kind already: choose another name")
    if name in plugins.versions:
        raise InputError(f"{name}: a plugin has this name already: choose another name")
    if (taken := plugins.owner_of_codes(f"{_dashed(name)}-")) is not None:
        raise InputError(f"{name}: finding codes {taken[0]}... belong to {taken[1]}: choose another name")
    if find_spec(f"registry_{name}") is not None:
        raise InputError(f"{name}: found a package registry_{name} already: choose another name")


def named(text: str, name: str) -> str:
    """The template's text with another name; beside a dash (`registry-ruler`, `ruler-graph`) its words take dashes."""
    dashed = re.sub(rf"(?<=-){TEMPLATE_NAME}|{TEMPLATE_NAME}(?=-)", _dashed(name), text)
    return dashed.replace(TEMPLATE_NAME, name)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def next_steps(folder: Path, name: str, source: str = TRAINED_TEMPLATE) -> Sequence[str]:
    """What a person types next."""
    last = f"registry train {name} --id first --corpus rows.csv" if source == TRAINED_TEMPLATE else "registry plugins"
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)
    return [f"cd {shlex.quote(place)}", "pip install -e '.[test]'", "pytest", last]
