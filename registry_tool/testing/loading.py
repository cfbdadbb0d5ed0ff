"""loading.py: the part of the suite that looks at a plugin before it is given anything."""

from __future__ import annotations

import difflib
import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from registry_tool import cli
from registry_tool.commands.models import TRAIN_OPTIONS
from registry_tool.hookspec import PROJECT, Hooks
from registry_tool.plugins.manager import LoadedPlugin
from registry_tool.testing.base import HOOKS, SuiteSetup, needs
from registry_tool.testing.bench import Bench, options_of, plugin_of
from registry_tool.values import Json, Policy
from registry_tool.workflows.explain import declared_by

HEAVY_LIBRARIES = frozenset(
    {
        "IPython",
        "jax",
        "matplotlib",
        "numba",
        "onnx",
        "onnxruntime",
        "pandas",
        "polars",
        "pyarrow",
        "ray",
        "scipy",
        "sklearn",
        "tensorflow",
        "torch",
        "torchvision",
        "transformers",
        "xgboost",
    }
)


class Loading(SuiteSetup):
    """Hooks, kinds, options and commands are well formed, and loading them costs nothing."""

    def test_it_loads(self) -> None:
        """The core takes the plugin and finds the kind."""
        kinds = Bench(Path(), self.plugin, self.kind).plugins.kinds
        assert self.kind in kinds, f"the plugin owns {sorted(kinds) or 'no kind'}, the suite was given {self.kind!r}"

    def test_its_names_are_hooks(self) -> None:
        """A function that starts with registry_ is a hook: a misspelt one would never be called."""
        plugin = plugin_of(self.plugin)
        for name, _ in inspect.getmembers(plugin, inspect.isroutine):
            if name.startswith("registry_"):
                near = difflib.get_close_matches(name, HOOKS, n=1)
                assert name in HOOKS, f"{name} is no hook" + (f": did you mean {near[0]}?" if near else "")

    def test_a_hook_that_is_left_out_is_explained(self, missing: str) -> None:
        """The plugin need not offer every hook; `without` says why it does not. The reason is the skip's."""
        if missing == "none":
            return
        assert self.without.get(missing), f"the plugin has no {missing}: say why in `without`, or implement it"
        pytest.skip(f"the plugin has no {missing}: {self.without[missing]}")

    @needs(*HOOKS)
    def test_a_hook_matches_its_specification(self, hook: str) -> None:
        """It is marked, plain, and asks for arguments that the core gives."""
        function: Any = getattr(plugin_of(self.plugin), hook)
        marks = getattr(function, f"{PROJECT}_impl", None)
        assert marks is not None, f"{hook} lacks @hookimpl"
        for mark in ("wrapper", "hookwrapper", "specname"):
            assert not marks.get(mark), f"{hook}: {mark} reaches into other hooks or plugins: use a plain @hookimpl"
        for mark in ("tryfirst", "trylast"):
            assert not marks.get(mark), f"{hook}: {mark} changes nothing, as plugins are asked apart: remove it"
        known = [name for name in inspect.signature(getattr(Hooks, hook)).parameters if name != "self"]
        asked = list(inspect.signature(function).parameters)
        assert set(asked) <= set(known), f"{hook} asks for {asked}, the core gives {known}"
        assert not inspect.iscoroutinefunction(function), f"{hook} is async: the core does not await it"

    def test_its_kinds_are_well_formed(self, loaded: LoadedPlugin) -> None:
        """Each has a one-line summary, a JSON Schema of draft 2020-12, and a policy that a registry can hold."""
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        for kind in loaded.kinds:
            assert kind.summary.strip(), f"kind {kind.name}: no summary"
            assert kind.summary.isprintable(), f"kind {kind.name}: the summary is not one line of text"
            assert Policy.from_dict(kind.default_policy.to_dict()) == kind.default_policy
            if kind.default_policy.rules:
                assert hasattr(loaded.module, "registry_gate"), f"kind {kind.name}: rules, and no registry_gate"
            if kind.schema is None:
                continue
            declared = kind.schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"])
            assert declared == Draft202012Validator.META_SCHEMA["$id"], f"kind {kind.name}: $schema is {declared}"
            try:
                Draft202012Validator.check_schema(dict(kind.schema))
            except SchemaError as error:
                pytest.fail(f"kind {kind.name}: no JSON Schema: {error.message} at {error.json_path}")

    def test_its_findings_are_explained(self, loaded: LoadedPlugin) -> None:
        """Each module of `Kind.findings` declares findings with its prefix, each with every text."""
        rules = declared_by(loaded)
        for prefix in {prefix for kind in loaded.kinds for prefix in kind.findings}:
            assert any(rule.code.startswith(prefix) for rule in rules), f"Kind.findings: no code starts with {prefix}"
        for rule in rules:
            for name in ("title", "why", "hint", "example"):
                text = getattr(rule, name)
                assert text.strip() == text != "", f"{rule.code}: {name} is {text!r}, expected a text"
                assert text.isprintable(), f"{rule.code}: {name} is not one line"

    def test_answers_are_the_same_each_time(self) -> None:
        """Kinds and commands of two loads are equal."""
        one, two = (Bench(Path(), self.plugin, self.kind).plugins for _ in range(2))
        for first, second in zip(one.kinds.values(), two.kinds.values(), strict=True):
            assert (first.name, first.summary, first.schema) == (second.name, second.summary, second.schema)
        assert [c.name for c in self._commands()] == [c.name for c in self._commands()]

    def test_its_options_collide_with_nothing(self, loaded: LoadedPlugin) -> None:
        """Options have names of their own, beside each other's and those of `registry train`, and a help text."""
        for kind in loaded.kinds:
            options = [*kind.options, *TRAIN_OPTIONS]
            for option in kind.options:
                assert isinstance(option, click.Option), f"kind {kind.name}: {option!r} is no click.Option"
                assert option.help, f"kind {kind.name}: {option.opts[0]} has no help"
            flags = Counter(flag for option in options for flag in (*option.opts, *option.secondary_opts))
            names = Counter(option.name for option in options)
            taken = {*flags} & {"--help", "-h"} | {name for name, n in (flags + names).items() if name and n > 1}
            assert not taken, f"kind {kind.name}: taken by `registry train` or twice: {', '.join(sorted(taken))}"

    def test_its_options_have_defaults(self, loaded: LoadedPlugin) -> None:
        """`registry train KIND --id X` needs nothing else, and takes the suite's `arguments`."""
        plugins = Bench(Path(), self.plugin, self.kind).plugins
        for arguments in ((), self.arguments):
            try:
                options_of(plugins, self.kind, arguments)
            except click.ClickException as error:
                pytest.fail(f"registry train {self.kind} {' '.join(arguments)}: {error.format_message()}")

    def test_its_commands_collide_with_nothing(self) -> None:
        """Commands have names of their own, a help text, and `--help` prints it."""
        for command in self._commands():
            assert isinstance(command, click.Command), f"{command!r} is no click.Command"
            assert command.name, "a command has no name"
            assert command.name not in cli.cli.commands, f"`registry {command.name}` is the core's"
            assert command.help, f"`registry {command.name}` has no help"
            context = click.Context(command, info_name=command.name, **cli.cli.context_settings)  # click keeps its -h
            assert command.help.splitlines()[0] in command.get_help(context)

    def _commands(self) -> list[click.Command]:
        commands: Callable[[], Any] | None = getattr(plugin_of(self.plugin), "registry_commands", None)
        return list(commands() or ()) if commands else []

    def test_loading_it_is_light(self, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
        """Every command loads every plugin: heavy libraries wait inside the hooks. The report has the seconds."""
        answer = self.ask_process("load", tmp_path / "registry.json")
        record_property("plugin_load_seconds", round(answer["seconds"], 3))
        record_property("plugin_load_modules", len(answer["modules"]))
        self._assert_light(answer)

    def test_a_quick_look_is_light(self, good: Bench) -> None:
        """`registry validate --level quick` loads no heavy library either, and finds nothing."""
        answer = self.ask_process("quick", good.path)
        assert answer["findings"] == []
        self._assert_light(answer)

    def _assert_light(self, answer: dict[str, Json]) -> None:
        loaded = {module.partition(".")[0] for module in answer["modules"]} & {*HEAVY_LIBRARIES, *self.heavy}
        assert not loaded, f"{', '.join(sorted(loaded))} loaded: import it inside the hook that needs it"
        assert not answer["printed"], f"printed while loading: {answer['printed'][:200]!r}"
        assert not answer["moved"], "the current folder or the environment was changed while loading"
