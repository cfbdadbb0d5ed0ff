"""manager.py: the plugins of a run, and the one place where any of them is asked. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click
import pluggy

from registry_tool.documents.entries import PLUGIN_FAILED, VerifiedEntry
from registry_tool.errors import InputError, PluginError
from registry_tool.findings import FAMILIES, SHARED_PREFIXES, Finding, FindingRule
from registry_tool.hookspec import (
    PROJECT,
    Batch,
    CalibrateRequest,
    EntryView,
    EvaluateRequest,
    Evaluation,
    Figure,
    GateRequest,
    Hooks,
    Kind,
    Level,
    MetricDescription,
    OofPredictions,
    Predictor,
    PredictRequest,
    ReproduceRequest,
    Reproduction,
    Trained,
    TrainRequest,
)
from registry_tool.plugins.contract import MAY_RAISE, AnswerType, Guard, HookAnswer, answer_of, mistyped
from registry_tool.rows.batches import Columns, RowBatch
from registry_tool.values import Evidence, Requirement, Rule, plain_name
from registry_tool.version import __version__

ENTRY_POINT_GROUP = "registry_tool"  # the entry-point group of third-party and first-party plugins
ASKED_WHILE_LOADING = ("registry_kinds", "registry_commands")
NO_MORE_ITEMS = object()
KIND_UNKNOWN = FindingRule(
    "kind-unknown",
    "unknown kind",
    why="Only the plugin that provides a kind can check its entries.",
    message="unknown kind {kind!r}: no installed plugin provides it",
    hint="install the plugin that provides it, or correct the kind",
    example='"kind": "fr_ensembel"',
)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that loaded. version: of the distribution it came from. hooks: what it implements, by name.

    distribution: its name; empty where the plugin came from none.
    """

    name: str
    version: str
    module: object
    hooks: Mapping[str, pluggy.HookImpl]
    kinds: tuple[Kind, ...] = ()
    distribution: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """An installed plugin that does not load, and why, in one line that names it."""

    name: str
    version: str
    why: str


@dataclass
class Plugins:
    """The plugins of one run. Made by `load`; tests make one and `add` to it.

    One method a hook asks the plugins. Whatever a plugin does there that its specification does not allow is a
    PluginError that names it; InputError, RejectedError, WorldError and KeyboardInterrupt pass.
    """

    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))
    loaded: list[LoadedPlugin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)  # every kind that a loaded plugin owns, by name
    disabled: tuple[str, ...] = ()  # installed plugins that a person left out

    def __post_init__(self) -> None:
        self.manager.add_hookspecs(Hooks)

    # ---- loading --------------------------------------------------------------------------------------------------

    def add(self, module: object, name: str, version: str = "0", distribution: str = "") -> None:
        """Register a plugin. Raises PluginError, naming it, for a misspelt hook, a wrong argument or a taken kind."""
        try:
            with Guard(f"{name} {version}", "registration", (PluginError,)):
                self.manager.register(module, name=name)
                self.manager.check_pending()
                plugin = LoadedPlugin(name, version, module, self._hooks(module, f"{name} {version}"), (), distribution)
            plugin = replace(plugin, kinds=self._kinds(plugin))
        except PluginError:
            if self.manager.get_plugin(name) is module and name not in self.versions:
                self.manager.unregister(name=name)  # else the next plugin would be blamed for its mistakes
            raise
        self.loaded.append(plugin)
        self.kinds.update((kind.name, kind) for kind in plugin.kinds)

    def _hooks(self, module: object, label: str) -> dict[str, pluggy.HookImpl]:
        hooks: dict[str, pluggy.HookImpl] = {}
        for caller in self.manager.get_hookcallers(module) or ():
            for found in (one for one in caller.get_hookimpls() if one.plugin is module):
                if found.wrapper or found.hookwrapper:
                    raise PluginError(f"plugin {label}: {caller.name} is a wrapper, expected a plain @hookimpl: fix it")
                if caller.name in hooks:
                    raise PluginError(f"plugin {label}: two functions implement {caller.name}, expected one: fix it")
                hooks[caller.name] = found
        for attribute in sorted(a for a in dir(module) if a.startswith("registry_") and hasattr(Hooks, a)):
            if attribute not in hooks:
                raise PluginError(f"plugin {label}: {attribute} lacks @hookimpl, so it would never be called: add it")
        return hooks

    def _kinds(self, plugin: LoadedPlugin) -> tuple[Kind, ...]:
        kinds: dict[str, Kind] = {}
        for kind in self._items(plugin, "registry_kinds", {}) or ():
            if kind.name in kinds or kind.name in self.kinds:
                owner = plugin.name if kind.name in kinds else self.owner(kind.name).name
                text = f"the kind {kind.name!r} is owned by plugin {owner} already"
                raise PluginError(f"plugin {plugin.label}: {text}: uninstall one")
            kinds[kind.name] = kind
        self._check_prefixes(kinds.values(), plugin.label)
        return tuple(kinds.values())

    def _check_prefixes(self, kinds: Iterable[Kind], label: str) -> None:
        """Whose finding a code is must be clear from its prefix."""
        for prefix in sorted({prefix for kind in kinds for prefix in kind.findings}):
            if (taken := self.owner_of_codes(prefix)) is not None:
                other, owner = taken
                raise PluginError(
                    f"plugin {label}: finding codes {other}... belong to {owner}: begin yours with another prefix "
                    f"than {prefix}"
                )

    def owner_of_codes(self, prefix: str) -> tuple[str, str] | None:
        """(a prefix of finding codes that one cannot be told apart from, whose it is), where there is one."""
        core = {f"{family}-" for families in FAMILIES.values() for family in families.split()} - SHARED_PREFIXES
        taken = dict.fromkeys(core, "the core")
        taken |= {
            other: f"plugin {plugin.name}" for plugin in self.loaded for k in plugin.kinds for other in k.findings
        }
        return next(
            (item for item in taken.items() if prefix.startswith(item[0]) or item[0].startswith(prefix)),
            None,
        )

    # ---- looked at ------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> dict[str, str]:
        return {plugin.name: plugin.version for plugin in self.loaded}

    def owner(self, kind: str) -> LoadedPlugin:
        """The plugin that owns a kind. Raises InputError for an unknown kind, PluginError where a broken one may."""
        for plugin in self.loaded:
            if any(owned.name == kind for owned in plugin.kinds):
                return plugin
        self.need_all()
        known = ", ".join(sorted(self.kinds))
        raise InputError(
            f"unknown kind {kind!r}: no installed plugin provides it, expected one of {known}: install its plugin"
        )

    def metrics(self, kind: str) -> tuple[MetricDescription, ...]:
        """What the gate of a kind measures; nothing where its plugin describes none.

        Raises InputError for an unknown kind, PluginError for descriptions that do not load.
        """
        plugin = self.owner(kind)
        if not (place := self.kinds[kind].metrics):
            return ()
        module, _, name = place.partition(":")
        with Guard(plugin.label, f"import of {place}"):
            described = tuple(getattr(import_module(module), name))
            if wrong := mistyped(described, tuple[MetricDescription, ...]):
                raise TypeError(f"found {wrong}")
        return described

    def deprecation(self, hook: str) -> Warning | None:
        """What a plugin that implements a hook is told when it loads; None for a hook that stays."""
        spec = getattr(self.manager.hook, hook).spec
        return None if spec is None else spec.warn_on_impl

    def need_all(self, required: Iterable[Requirement] = (), optional: Iterable[str] = ()) -> None:
        """Raise PluginError where an installed plugin did not load or was left out, or a required one is not there.

        optional: names of plugins that may be left out.
        """
        if self.broken:
            raise PluginError("; ".join(plugin.why for plugin in self.broken))
        allowed = {plain_name(name) for name in optional}
        if left_out := [name for name in self.disabled if plain_name(name) not in allowed]:
            raise PluginError(
                f"plugin {', '.join(left_out)}: it was left out, expected every plugin here: "
                "run it without --without-plugin and REGISTRY_PLUGINS_DISABLED"
            )
        self.need(required)

    def need(self, required: Iterable[Requirement]) -> None:
        """Raise PluginError where a required plugin is missing or of another version: what it would say is unknown."""
        if lacking := [
            f"required plugin {one.plugin}: found {found}, expected {one}: install it, `registry plugins` lists them"
            for one in required
            if (found := self.unmet(one)) is not None
        ]:
            raise PluginError("; ".join(lacking))

    def unmet(self, required: Requirement) -> str | None:
        """What is there in the place of a required plugin; None where it is as required."""
        name = plain_name(required.plugin)
        for plugin in self.loaded:
            if name in (plain_name(plugin.name), plain_name(plugin.distribution)):
                try:
                    return None if required.accepts(plugin.version) else f"version {plugin.version}"
                except ValueError as error:
                    return f"version {plugin.version} ({error})"
        if any(plain_name(disabled) == name for disabled in self.disabled):
            return "one that was left out"
        return "one that does not load" if any(plain_name(p.name) == name for p in self.broken) else "none installed"

    # ---- asked ----------------------------------------------------------------------------------------------------

    def train(self, request: TrainRequest) -> Trained | None:
        return self._ask(Trained, "registry_train", request.kind, request=request)

    def calibrate(self, view: EntryView, request: CalibrateRequest) -> Trained | None:
        return self._ask(Trained, "registry_calibrate", view.entry.kind, view=view, request=request)

    def migrate(self, view: EntryView) -> Trained | None:
        return self._ask(Trained, "registry_migrate", view.entry.kind, view=view)

    def verify(self, view: EntryView, level: Level) -> Iterator[tuple[LoadedPlugin, list[Finding], PluginError | None]]:
        """(plugin, its findings, why it failed after them or None), of every plugin that has the hook."""
        hook, arguments = "registry_verify", {"view": view, "level": level}
        for plugin in self.loaded:
            if hook not in plugin.hooks:
                continue
            found: list[Finding] = []
            try:
                with Guard(plugin.label, hook):
                    for finding in self._answer(hook).items(_call(plugin, hook, arguments)):
                        found.append(finding)
            except PluginError as error:
                yield plugin, found, error
            else:
                yield plugin, found, None

    def findings(self, entry: VerifiedEntry, level: Level) -> Iterator[Finding]:
        """What every plugin finds on an entry; one that fails there is a finding too."""
        for _, found, error in self.verify(entry, level):
            yield from found
            if error is not None:
                yield PLUGIN_FAILED.at(entry.row, "/id", error=error)

    def gate(self, view: EntryView, request: GateRequest) -> Evidence | None:
        return self._ask(Evidence, "registry_gate", view.entry.kind, view=view, request=request)

    def oof(self, view: EntryView) -> OofPredictions | None:
        return self._ask(OofPredictions, "registry_oof", view.entry.kind, view=view)

    def comparable(self, kind: str) -> set[str]:
        """The kinds whose entries one of this kind can be compared with: its own, and those with `registry_oof`."""
        return {kind, *(k.name for one in self.loaded if "registry_oof" in one.hooks for k in one.kinds)}

    def evaluate(self, view: EntryView, request: EvaluateRequest) -> Evaluation | None:
        return self._ask(Evaluation, "registry_evaluate", view.entry.kind, view=view, request=request)

    def reproduce(self, view: EntryView, request: ReproduceRequest) -> Reproduction | None:
        return self._ask(Reproduction, "registry_reproduce", view.entry.kind, view=view, request=request)

    def load(self, view: EntryView) -> Predictor | None:
        """Ready to predict; each of its calls is guarded and checked as a hook's answer is."""
        predictor: Predictor | None = self.ask_owner("registry_load", view.entry.kind, view=view)
        return None if predictor is None else GuardedPredictor(self.owner(view.entry.kind).label, predictor)

    def predict(self, view: EntryView, request: PredictRequest) -> Iterator[Batch] | None:
        """Batch by batch; the plugin works while they are taken."""
        batches: Iterator[Batch] | None = self.ask_owner(
            "registry_predict", view.entry.kind, view=view, request=request
        )
        return batches

    def figures(self, view: EntryView, rules: Sequence[Rule]) -> tuple[Figure, ...]:
        return tuple(self.ask_owner("registry_figures", view.entry.kind, view=view, rules=rules) or ())

    def commands(self, taken: Collection[str] = ()) -> dict[str, click.Command]:
        """The commands that plugins add, by name. A plugin whose commands fail, or are taken, is broken from then on.

        taken: the core's own names. A broken plugin adds none, and is not asked again: it may have taken a minute.
        """
        commands: dict[str, click.Command] = {}
        failed = {plugin.name for plugin in self.broken}
        for plugin in (one for one in self.loaded if one.name not in failed):
            own: dict[str, click.Command] = {}
            try:
                for command in self._items(plugin, "registry_commands", {}) or ():
                    name = command.name or ""
                    if name in taken or name in commands or name in own:
                        reason = f"the command {name!r} is taken: repair or uninstall it"
                        raise PluginError(f"plugin {plugin.label}: {reason}")
                    own[name] = command
            except PluginError as error:
                self.broken.append(BrokenPlugin(plugin.name, plugin.version, str(error)))
            else:
                commands |= own
        return commands

    def _answer(self, hook: str) -> AnswerType:
        return answer_of(getattr(self.manager.hook, hook).spec.function)

    def _ask(self, answer: type[HookAnswer], hook: str, kind: str, **arguments: object) -> HookAnswer | None:
        """The owner's one answer to a hook; None where the owner does not offer the hook, or has none."""
        found = self.ask_owner(hook, kind, **arguments)
        assert found is None or isinstance(found, answer)  # held to the hook's specification, which says the same
        return found

    def ask_owner(self, hook: str, kind: str, **arguments: object) -> Any:
        """The owner's answer to a hook, of an iterable an iterator; None where the owner does not offer the hook."""
        plugin = self.owner(kind)
        if self._answer(hook).many:
            return self._items(plugin, hook, arguments)
        with Guard(plugin.label, hook, MAY_RAISE):
            return self._answer(hook).checked(_call(plugin, hook, arguments))

    def _items(self, plugin: LoadedPlugin, hook: str, arguments: Mapping[str, object]) -> Iterator[Any] | None:
        """The items of an answer, each made under the guard when it is taken; None for None."""
        may_raise = () if hook in ASKED_WHILE_LOADING else MAY_RAISE
        with Guard(plugin.label, hook, may_raise):
            answer = _call(plugin, hook, arguments)
            items = self._answer(hook).items(answer)
        return None if answer is None else _guarded(items, lambda: Guard(plugin.label, hook, may_raise))


@dataclass(frozen=True, slots=True)
class GuardedPredictor:
    """A plugin's predictor, whose failures name the plugin."""

    plugin: str
    predictor: Predictor

    def columns(self, found: Sequence[str], place: str) -> Columns:
        with Guard(self.plugin, "registry_load", MAY_RAISE):
            return AnswerType(Columns, False).checked(self.predictor.columns(found, place))

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        with Guard(self.plugin, "registry_load", MAY_RAISE):
            answer = AnswerType(Batch, False).checked(self.predictor.predict(rows, levels))
            if any(len(column) != rows.n for column in answer.columns.values()):
                raise TypeError(f"it gave columns that do not have {rows.n} rows")
        return answer

    def check_file(self, path: Path) -> GuardedPredictor:
        with Guard(self.plugin, "registry_load", MAY_RAISE):
            of_file = self.predictor.check_file(path)
        return self if of_file is None else GuardedPredictor(self.plugin, of_file)


def _call(plugin: LoadedPlugin, hook: str, arguments: Mapping[str, object]) -> Any:
    """The plugin's own function, with the arguments that it asks for: see docs/adr/0007-plugins-are-asked-apart.md."""
    found = plugin.hooks.get(hook)
    return None if found is None else found.function(*[arguments[name] for name in found.argnames])


def _guarded(items: Iterator[Any], guard: Callable[[], Guard]) -> Iterator[Any]:
    while True:
        with guard():
            item = next(items, NO_MORE_ITEMS)
        if item is NO_MORE_ITEMS:
            return
        yield item


def load(without: Collection[str] = ()) -> Plugins:
    """The built-in plugin and every installed one, by name; one that does not load is among the `broken`.

    without: names of installed plugins that are not even imported. Raises InputError for a name that none has.
    """

    from registry_tool.plugins import single_models

    entry_points = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name)
    installed = {plain_name(entry_point.name): entry_point.name for entry_point in entry_points}
    left_out = {plain_name(name): name for name in without}
    for name in left_out.keys() - installed.keys():
        known = ", ".join(installed.values()) or "(none)"
        found = f"{left_out[name]}: found no such plugin, expected one of {known}"
        raise InputError(f"{found}: `registry plugins` lists them")
    plugins = Plugins(disabled=tuple(installed[name] for name in sorted(left_out)))
    plugins.add(single_models, "onnx_kinds", __version__)
    for entry_point in (one for one in entry_points if plain_name(one.name) not in left_out):
        about = entry_point.dist.metadata if entry_point.dist else {"Version": "0", "Name": ""}  # parsed at each access
        version, distribution = about["Version"], about["Name"]
        try:
            with Guard(f"{entry_point.name} {version}", f"import of {entry_point.value}"):
                module = entry_point.load()
            plugins.add(module, entry_point.name, version, distribution)
        except PluginError as error:
            plugins.broken.append(BrokenPlugin(entry_point.name, version, str(error)))
    return plugins
