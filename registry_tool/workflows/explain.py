"""explain.py: every finding that the core and the plugins of a run declare, by code. Checks nothing, prints nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from registry_tool.errors import InputError, PluginError
from registry_tool.findings import FAMILIES, FindingRule
from registry_tool.plugins.manager import LoadedPlugin, Plugins

FINDING_MODULES = (  # of the core, with findings declared at their top level
    "findings",
    "strictjson",
    "storage.paths",
    "documents.schema",
    "documents.store",
    "documents.entries",
    "sandbox.probed",
    "plugins.manager",
    "legacy.members",
    "legacy.manifests",
    "legacy.verdicts",
    "checks.declared",
    "checks.external_data",
    "checks.onnx",
    "checks.registry",
    "checks.entry",
    "checks.inventory",
    "checks.named",
    "checks.policy_names",
    "checks.promotion",
    "checks.signatures",
    "checks.attestations",
    "workflows.compare_with_base",
    "workflows.migrate",
)


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """The findings of one subject, or of one plugin."""

    heading: str
    rules: tuple[FindingRule, ...]


def declared(plugins: Plugins) -> tuple[RuleGroup, ...]:
    """All findings: the core's by subject, then each plugin's. Imports every module that declares one."""
    core = _rules_in(f"registry_tool.{name}" for name in FINDING_MODULES)
    groups = [
        RuleGroup(heading, tuple(rule for rule in core if rule.family in families.split()))
        for heading, families in FAMILIES.items()
    ]
    groups += [
        RuleGroup(f"Plugin {plugin.name}", tuple(rule for rule in declared_by(plugin) if rule not in core))
        for plugin in plugins.loaded
    ]
    return tuple(group for group in groups if group.rules)


def declared_by(plugin: LoadedPlugin) -> list[FindingRule]:
    """The findings of a plugin, by code. Raises PluginError for a module in `Kind.findings` that does not load."""
    modules = {prefix: module for kind in plugin.kinds for prefix, module in kind.findings.items()}
    try:
        rules = [rule for rule in _rules_in(modules.values()) if rule.code.startswith(tuple(modules))]
        return sorted(rules, key=lambda rule: rule.code)
    except Exception as error:
        raise PluginError(
            f"plugin {plugin.name}: its findings cannot be read: {type(error).__name__}: {error}: correct the modules "
            "in `Kind.findings`"
        ) from error


def only(code: str, groups: Iterable[RuleGroup]) -> tuple[RuleGroup, ...]:
    """The declaration of one code, in its group. Raises InputError, with near misses, for an unknown code."""
    known = {rule.code: RuleGroup(group.heading, (rule,)) for group in groups for rule in group.rules}
    if code not in known:
        near = ", ".join(difflib.get_close_matches(code, known, 3, 0.4))
        hint = f"did you mean {near}?" if near else "`registry rule` lists all"
        raise InputError(f"unknown finding code {code!r}: {hint}")
    return (known[code],)


def _rules_in(modules: Iterable[str]) -> list[FindingRule]:
    """What these modules declare at their top level, each code once: a module may import another's declaration."""
    values = (value for name in modules for module in _with_submodules(name) for value in vars(module).values())
    return list({value.code: value for value in values if isinstance(value, FindingRule)}.values())


def _with_submodules(name: str) -> Iterator[ModuleType]:
    """The module; of a package its modules too, by name."""
    module = import_module(name)
    yield module
    for info in iter_modules(getattr(module, "__path__", ()), f"{name}."):
        yield import_module(info.name)
