"""Tests of manager.py: a broken plugin is named when it loads, and hooks reach the owner of a kind alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from types import MappingProxyType
from typing import Any

import pytest
from command_line import Program
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError, PluginError, WorldError
from registry_tool.findings import Finding
from registry_tool.hookspec import Hooks, Kind, Level, hookimpl
from registry_tool.plugins import manager as room
from registry_tool.plugins.manager import Plugins, load
from registry_tool.values import Evidence


def refused(plugin: object, name: str = "extra") -> str:
    """The message with which a plugin does not load next to the installed ones; it names the plugin."""
    with pytest.raises(PluginError) as caught:
        with_plugin(plugin, name)
    assert f"plugin {name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_installed_plugins_own_their_kinds() -> None:
    """The built-in plugin and the first-party one load, with their versions and hooks."""
    loaded = load()
    assert {"fr", "nr", "filter", "fr_ensemble"} <= set(loaded.kinds)
    assert set(loaded.versions) >= {"onnx_kinds", "fr_ensemble"}
    assert loaded.owner("fr_ensemble").name == "fr_ensemble"
    owned = [
        "registry_calibrate",
        "registry_evaluate",
        "registry_figures",
        "registry_gate",
        "registry_kinds",
        "registry_load",
        "registry_migrate",
        "registry_oof",
        "registry_reproduce",
        "registry_train",
        "registry_verify",
    ]
    assert sorted(h for h in loaded.owner("fr_ensemble").hooks if h != "registry_commands") == owned


def test_each_run_has_its_own_manager() -> None:
    """A plugin added to one manager is unknown to the next."""
    assert "thumb" in with_plugin(Thumbs()).kinds
    assert "thumb" not in load().kinds


def test_a_taken_kind_is_refused() -> None:
    """Two plugins that own one kind do not load, and the message names both."""

    class Second:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("fr_ensemble", "mine")]

    message = refused(Second())
    assert "'fr_ensemble'" in message
    assert "owned by plugin fr_ensemble" in message
    assert message.startswith("plugin extra 7: ")


def test_a_misspelt_hook_is_refused() -> None:
    """A function marked as a hook that is none is a mistake, not an extra."""

    class Misspelt:
        @hookimpl
        def registry_verfy(self, view: object, level: object) -> list[Finding]:
            return []

    assert "registry_verfy" in refused(Misspelt())


def test_a_wrong_argument_is_refused() -> None:
    """A hook that asks for what the core does not give does not load."""

    class Wrong:
        @hookimpl
        def registry_verify(self, view: object, folder: object) -> list[Finding]:
            return []

    assert "folder" in refused(Wrong())


def test_a_hook_without_its_mark_is_refused() -> None:
    """A hook that would never be called is a mistake that the author is told of."""

    class Unmarked:
        def registry_verify(self, view: object, level: object) -> list[Finding]:
            return []

    assert refused(Unmarked()).startswith("plugin extra 7: registry_verify lacks @hookimpl")


def raise_now(self: object) -> list[Kind]:
    raise RuntimeError("no\nlicence")


def raise_later(self: object) -> Iterator[Kind]:
    yield Kind("one", "fine")
    raise RuntimeError("no licence")


def no_kinds(self: object) -> Any:
    return ["thumb"]


def no_list(self: object) -> Any:
    return 7


@pytest.mark.parametrize("kinds", [raise_now, raise_later, no_kinds, no_list])
def test_registry_kinds_that_breaks_is_refused(kinds: Any) -> None:
    """Raising, raising in a generator, things that are no Kind: the plugin is named in one line."""
    refused(type("Broken", (), {"registry_kinds": hookimpl(kinds)})())


def test_a_plugin_cannot_load_twice() -> None:
    """One name, one plugin."""
    assert "fr_ensemble" in refused(Thumbs(), "fr_ensemble")


def test_a_plugin_without_kinds_is_welcome() -> None:
    """A plugin may only verify."""

    class Reader:
        @hookimpl
        def registry_verify(self, view: object, level: object) -> None:
            return None

    assert with_plugin(Reader()).loaded[-1].kinds == ()


class _Distribution:
    metadata = MappingProxyType({"Name": "registry-thumbs", "Version": "3.1"})


class _EntryPoint:
    name, value, dist = "thumbs", "thumbs.plugin", _Distribution()

    def __init__(self, plugin: object) -> None:
        self._plugin = plugin

    def load(self) -> object:
        if isinstance(self._plugin, BaseException):
            raise self._plugin
        return self._plugin


def test_installed_entry_points_are_loaded_with_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the entry point group is a plugin, with the version of its distribution."""
    monkeypatch.setattr(metadata, "entry_points", lambda group: [_EntryPoint(Thumbs())])
    assert load().versions["thumbs"] == "3.1"


@pytest.mark.parametrize("error", [ImportError("no module named torch"), SyntaxError("x"), SystemExit(0)])
def test_an_installed_plugin_that_does_not_import_is_listed_as_broken(
    monkeypatch: pytest.MonkeyPatch, registry: Program, error: BaseException
) -> None:
    """`registry plugins` lists it among the others and says why it does not load, with exit code 3."""
    monkeypatch.setattr(metadata, "entry_points", lambda group: [_EntryPoint(error)])
    (broken,) = load().broken
    assert (broken.name, broken.version) == ("thumbs", "3.1")
    ran = registry("plugins")
    assert ran.code == 3
    assert ran.out.splitlines()[-1].split() == ["thumbs", "3.1", "-", "-"]
    assert ran.err == f"registry: {broken.why}\n"
    rows = json.loads(registry("plugins", "--format", "json").out)
    assert [row["error"] for row in rows] == [None, broken.why]


def test_two_broken_plugins_blame_themselves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that is refused is taken off the manager, so that the next is not blamed for its mistakes."""

    class Misspelt:
        @hookimpl
        def registry_verfy(self, view: object) -> None:
            return None

    found = [_EntryPoint(Misspelt()), _EntryPoint(Thumbs())]
    found[0].name = "misspelt"
    monkeypatch.setattr(metadata, "entry_points", lambda group: found)
    loaded = load()
    assert [plugin.name for plugin in loaded.broken] == ["misspelt"]
    assert "thumb" in loaded.kinds


class Nosy(Thumbs):
    """Owns `thumb` and notes every call of an owner's hook; all it gives is wrong."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def _note(self, name: str) -> Any:
        self.called.append(name)
        return "wrong"

    @hookimpl(tryfirst=True)
    def registry_train(self, request: object) -> Any:
        return self._note("train")

    @hookimpl(tryfirst=True)
    def registry_gate(self, view: object, request: object) -> Any:
        return self._note("gate")

    @hookimpl(tryfirst=True)
    def registry_evaluate(self, view: object, request: object) -> Any:
        return self._note("evaluate")

    @hookimpl(tryfirst=True)
    def registry_load(self, view: object) -> Any:
        return self._note("load")

    @hookimpl(tryfirst=True)
    def registry_predict(self, view: object, request: object) -> Any:
        return self._note("predict")


def test_only_the_owner_of_a_kind_is_asked(smoke: Sandbox, registry: Program, made: Any) -> None:
    """Another plugin's train, gate, evaluate and predict are never called for my kind, however early it stands."""
    nosy = Nosy()
    plugins = with_plugin(nosy)
    where = ("--registry", smoke.path)
    for arguments in (
        ("gate", "tiny"),
        ("evaluate", "tiny", "--corpus", made.heldout),
        ("predict", "tiny", "--corpus", made.heldout),
        ("flip", "tiny"),
    ):
        assert registry(*arguments, *where, plugins=plugins).code == 0
    assert registry("train", "fr_ensemble", "--id", "b", "--corpus", "none.csv", *where, plugins=plugins).code == 2
    assert smoke.codes(plugins=plugins) == []
    assert nosy.called == []


def test_an_unknown_kind_is_named() -> None:
    """Asking for the owner of an unknown kind says which kinds there are."""
    with pytest.raises(InputError, match=r"unknown kind 'thumb'.*expected one of .*fr_ensemble"):
        load().ask_owner("registry_gate", "thumb", view=None, request=None)


def test_a_hook_that_the_owner_does_not_offer_is_none() -> None:
    """None says: this kind has no such hook."""
    assert with_plugin(Thumbs()).ask_owner("registry_gate", "thumb", view=None, request=None) is None


def test_an_exception_of_an_owner_names_the_plugin() -> None:
    """What the hook's contract does not allow becomes one line with the plugin's name."""

    class Broken(Thumbs):
        @hookimpl
        def registry_gate(self, view: object, request: object) -> Evidence:
            raise ZeroDivisionError("division\nby zero")

    with pytest.raises(PluginError, match="plugin extra 7: registry_gate failed: ZeroDivisionError: division by zero"):
        with_plugin(Broken()).ask_owner("registry_gate", "thumb", view=None, request=None)


@pytest.mark.parametrize(
    "error", [InputError("no such column: name one"), WorldError("the disk is full"), KeyboardInterrupt()]
)
def test_errors_that_the_contract_allows_pass(error: BaseException) -> None:
    """InputError, WorldError and Ctrl-C arrive as they were raised."""

    class Strict(Thumbs):
        @hookimpl
        def registry_gate(self, view: object, request: object) -> Evidence:
            raise error

    with pytest.raises(type(error)) as caught:
        with_plugin(Strict()).ask_owner("registry_gate", "thumb", view=None, request=None)
    assert caught.value is error


def test_every_plugin_is_asked_apart() -> None:
    """One plugin's failure leaves what it found before, and goes on with the next."""

    class First:
        @hookimpl
        def registry_verify(self, view: object, level: object) -> Iterator[Finding]:
            yield Finding("first-finding", "text")
            raise RuntimeError("late")

    class Second:
        @hookimpl
        def registry_verify(self, view: object, level: object) -> list[Finding]:
            return [Finding("second-finding", "text")]

    plugins = Plugins()
    plugins.add(First(), "first")
    plugins.add(Second(), "second")
    view: Any = None
    (one, found, error), (two, answers, none) = plugins.verify(view, Level.FULL)
    assert (one.name, two.name) == ("first", "second")
    assert [finding.code for finding in found] == ["first-finding"]
    assert str(error) == "plugin first 0: registry_verify failed: RuntimeError: late: report it to its author"
    assert ([answer.code for answer in answers], none) == (["second-finding"], None)


def test_every_hook_says_when_and_by_whom_it_is_called() -> None:
    """Each specification has an example, and says when it is called and what None means."""
    hooks = [name for name in vars(Hooks) if name.startswith("registry_")]
    assert len(hooks) == 13
    for name in hooks:
        text = " ".join((getattr(Hooks, name).__doc__ or "").split())
        for pattern in ("Called", "None (means|and)", "Example: `"):
            assert re.search(pattern, text), f"{name} lacks {pattern!r}"


def test_the_room_knows_no_kind_by_name() -> None:
    """Dispatch goes by what plugins say they own: no kind's name stands in the code."""
    import inspect

    assert "fr_ensemble" not in inspect.getsource(room)
