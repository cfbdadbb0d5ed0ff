"""check_plugins.py: the story of `registry plugins --check`: what plugins declare. Opens no entry."""

from __future__ import annotations

from dataclasses import dataclass

from registry_tool.errors import PluginError
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Json
from registry_tool.workflows.explain import declared_by

RECORDED_HEADER = ("kind", "field", "reason")
ORDER_MARKS = ("tryfirst", "trylast")  # pluggy's; plugins are asked apart, in the order in which they load


@dataclass(frozen=True, slots=True)
class CheckedPlugins:
    """What plugins declare.

    recorded: (kind, pointer into its manifest, why nothing compares it). deprecated: hooks that plugins implement and
    that are to go, and marks of hooks that change nothing. problems: what does not load. Each is a line, of a plugin.
    """

    recorded: tuple[tuple[str, str, str], ...]
    deprecated: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        recorded = [dict(zip(RECORDED_HEADER, row, strict=True)) for row in self.recorded]
        return {"recorded": recorded, "deprecated": list(self.deprecated), "problems": list(self.problems)}

    def need_all(self) -> None:
        """Raise PluginError where a declaration does not load."""
        if self.problems:
            raise PluginError("; ".join(self.problems))


def check(plugins: Plugins) -> CheckedPlugins:
    """Load what each plugin declares, and gather what it says of its own fields."""
    recorded = [
        (kind.name, *item) for plugin in plugins.loaded for kind in plugin.kinds for item in kind.recorded.items()
    ]
    problems = []
    for plugin in plugins.loaded:
        try:
            declared_by(plugin)
            for kind in plugin.kinds:
                plugins.metrics(kind.name)
        except PluginError as error:
            problems.append(str(error))
    deprecated = [
        f"plugin {plugin.label}: {warning}"
        for plugin in plugins.loaded
        for hook in plugin.hooks
        if (warning := plugins.deprecation(hook)) is not None
    ]
    deprecated += [
        f"plugin {plugin.label}: {hook} is marked {mark}, which changes nothing: remove the mark"
        for plugin in plugins.loaded
        for hook, found in plugin.hooks.items()
        for mark in ORDER_MARKS
        if getattr(found, mark)
    ]
    return CheckedPlugins(tuple(recorded), tuple(deprecated), tuple(problems))
