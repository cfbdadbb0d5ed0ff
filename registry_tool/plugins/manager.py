"""manager.py: builds the plugin manager of a run and dispatches to owners. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import pluggy

from registry_tool import __version__
from registry_tool.errors import InputError, PluginError, RegistryError
from registry_tool.hookspec import PROJECT, Hooks, Kind

GROUP = "registry_tool"  # the entry-point group of third-party and first-party plugins


Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that loaded: its name, the version of the distribution it came from, and the kinds it owns."""

    name: str
    version: str
    module: object
    kinds: tuple[Kind, ...] = ()


@dataclass
class Plugins:
    """The plugins of one run. Made by `load`; tests make one and `add` to it."""

    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))
    loaded: list[LoadedPlugin] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)  # every kind that somebody owns, by name
    _callers: dict[tuple[str, int], Any] = field(default_factory=dict)  # these two are emptied when a plugin is added
    _direct: dict[tuple[str, int], Callable[[Mapping[str, Any]], Sequence[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manager.add_hookspecs(Hooks)

    def add(self, module: object, name: str, version: str = "0") -> None:
        """Register a plugin. Raises PluginError, naming it, for a misspelt hook, a wrong argument or a taken kind."""
        self._callers.clear()
        self._direct.clear()
        try:
            self.manager.register(module, name=name)
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin {name}: {_one_line(error)}: fix the plugin or uninstall it") from error
        for attribute in sorted(a for a in dir(module) if a.startswith("registry_") and hasattr(Hooks, a)):
            if self.manager.parse_hookimpl_opts(module, attribute) is None:
                raise PluginError(f"plugin {name}: {attribute} lacks @hookimpl, so it would never be called: add it")
        kinds: list[Kind] = []
        for kind in self._kinds_of(module, name):
            for other in self.loaded:
                if any(kind.name == owned.name for owned in other.kinds):
                    raise PluginError(
                        f"plugin {name}: the kind {kind.name!r} is owned by plugin {other.name} already: uninstall one"
                    )
            kinds.append(kind)
        self.loaded.append(LoadedPlugin(name, version, module, tuple(kinds)))
        self.kinds.update((kind.name, kind) for kind in kinds)

    def _kinds_of(self, module: object, name: str) -> Iterator[Kind]:
        try:
            for answer in self._caller("registry_kinds", module)() or ():
                for kind in answer or ():
                    if not isinstance(kind, Kind):
                        raise TypeError(f"registry_kinds gave a {type(kind).__name__}, expected Kind")
                    yield kind
        except PluginError:
            raise
        except Exception as error:
            raise PluginError(f"plugin {name}: {_one_line(error)}: fix the plugin or uninstall it") from error

    def _caller(self, hook: str, module: object) -> Any:
        key = (hook, id(module))
        if key not in self._callers:
            others = [plugin for plugin in self.manager.get_plugins() if plugin is not module]
            self._callers[key] = self.manager.subset_hook_caller(hook, others)
        return self._callers[key]

    def _call(self, hook: str, module: object, arguments: Mapping[str, Any]) -> Sequence[Any]:
        """What pluggy would give, but without its machinery where one function is all there is: it is called often."""
        key = (hook, id(module))
        if key not in self._direct:
            caller = self._caller(hook, module)
            match caller.get_hookimpls():
                case []:
                    self._direct[key] = lambda given: ()
                case [one] if not (one.hookwrapper or one.wrapper):
                    function, names = one.function, one.argnames
                    self._direct[key] = lambda given: (function(*[given[name] for name in names]),)
                case _:
                    self._direct[key] = lambda given: caller(**given)
        return self._direct[key](arguments)

    @property
    def versions(self) -> dict[str, str]:
        return {plugin.name: plugin.version for plugin in self.loaded}

    def hooks_of(self, plugin: LoadedPlugin) -> list[str]:
        """The names of the hooks that a plugin implements, sorted."""
        return sorted(caller.name for caller in self.manager.get_hookcallers(plugin.module) or ())

    def owner(self, kind: str) -> LoadedPlugin:
        """The plugin that owns a kind. Raises InputError where nobody does."""
        for plugin in self.loaded:
            if any(owned.name == kind for owned in plugin.kinds):
                return plugin
        known = ", ".join(sorted(self.kinds))
        raise InputError(f"kind {kind!r}: nobody owns it, expected one of {known}: install the plugin that does")

    def ask_owner(self, hook: str, kind: str, expects: type[Answer], **arguments: Any) -> Answer | None:
        """Call a hook of the kind's owner only; None where the owner does not offer it.

        Raises PluginError, naming the plugin, for an exception or an answer that the hook's contract does not allow.
        """
        plugin = self.owner(kind)
        try:
            answer = self._caller(hook, plugin.module)(**arguments)
            if answer is not None and not isinstance(answer, expects):
                raise TypeError(f"it gave a {type(answer).__name__}, expected {expects.__name__}")
            return answer
        except (RegistryError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise PluginError(
                f"plugin {plugin.name}: {hook} failed: {_one_line(error)}: report it to its author"
            ) from error

    def ask_each(self, hook: str, **arguments: Any) -> Iterator[tuple[LoadedPlugin, Iterable[Any] | Exception]]:
        """Call a hook on every plugin that has it, apart: (plugin, answers or the exception it raised)."""
        for plugin in self.loaded:
            try:
                answers = self._call(hook, plugin.module, arguments)
                # A generator runs here, inside the try: its exception is the plugin's, not the caller's.
                yield plugin, [item for answer in answers if answer is not None for item in answer]
            except Exception as error:
                yield plugin, error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load() -> Plugins:
    """The built-in plugin and every installed one. Raises PluginError, naming the plugin, for one that is broken."""

    from registry_tool.plugins import single_models

    plugins = Plugins()
    plugins.add(single_models, "onnx_kinds", __version__)
    for entry_point in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
        try:
            module = entry_point.load()
        except Exception as error:
            raise PluginError(
                f"plugin {entry_point.name} ({entry_point.value}): does not load: {_one_line(error)}: "
                "repair or uninstall it"
            ) from error
        version = entry_point.dist.version if entry_point.dist else "0"
        plugins.add(module, entry_point.name, version)
    return plugins
