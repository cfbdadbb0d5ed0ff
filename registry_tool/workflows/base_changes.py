"""base_changes.py: what a change does beside promotions: demotions, deletions, changed policies. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry_tool.checks.runtimes import is_looser
from registry_tool.findings import Severity
from registry_tool.hookspec import Kind
from registry_tool.values import EMPTY, Entry, Json, Policy, Registry, Requirement, plain_name


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a change does.

    action: demoted, deleted, renamed, imported, policy, requires, schema_version or moved.

    subject: an entry's id, a kind, or a path. severity: warning where it deserves a look, whatever was promoted.
    """

    action: str
    subject: str
    words: str
    severity: Severity = Severity.NOTE

    def to_dict(self) -> dict[str, Json]:
        return {"what": self.action, "subject": self.subject, "words": self.words, "severity": str(self.severity)}

    def __str__(self) -> str:
        subject = f"policy of {self.subject}" if self.action == "policy" else self.subject
        return f"{subject}: {self.words}"


def entry_changes(old: Entry, new: Entry | None) -> Iterator[Change]:
    """What became of an entry that the base had; new: the same entry now, under whatever id."""
    state = "production" if old.is_production else "smoke"
    if new is None:
        severity = Severity.WARNING if old.is_production else Severity.NOTE
        yield Change("deleted", old.id, f"deleted; it was {state}", severity)
        return
    if new.id != old.id:
        yield Change("renamed", new.id, f"renamed from {old.id}")
    if old.is_production and new.smoke:
        reason = (new.document.get("demotion") or EMPTY).get("reason")
        words = f"demoted: {reason}" if reason else "demoted, without a reason"
        yield Change("demoted", new.id, words, Severity.WARNING)


def policy_changes(before: Registry, after: Registry, kinds: Mapping[str, Kind], judged: set[str]) -> Iterator[Change]:
    """How the policies changed, and which are weaker than their kind's default.

    judged: the kinds of which an entry was judged; their policy counts, whether it changed or not.
    """
    for name in sorted({*before.policies, *after.policies, *judged}):
        old, new, kind = before.policies.get(name), after.policies.get(name), kinds.get(name)
        if old != new:
            looser = old is not None and is_looser(new or Policy(), old)
            words = "; ".join(_differences(old, new))
            if looser:
                words = f"loosened: {words}"
            yield Change("policy", name, words, Severity.WARNING if looser else Severity.NOTE)
        default = kind.default_policy if kind is not None else Policy()
        counts = new is not None and default.rules and (old != new or name in judged)  # without rules there is no bar
        if new is not None and counts and new.is_looser_than(default):
            words = f"weaker than the default of its kind, which is: {describe(default)}"
            yield Change("policy", name, words, Severity.WARNING)


def requirement_changes(before: Registry, after: Registry) -> Iterator[Change]:
    """How the plugins that a registry requires changed; a warning where one that the base asked for may be missing."""
    old, new = (_by_plugin(registry) for registry in (before, after))
    for name in sorted({*old, *new}):
        was, becomes = old.get(name), new.get(name)
        if was == becomes:
            continue
        texts = [f"requires {one}" if one is not None else "not required" for one in (was, becomes)]
        looser = was is not None and (becomes is None or not becomes.is_at_least_as_strict_as(was))
        words = f"{'loosened: ' if looser else ''}{' became '.join(texts)}"
        yield Change("requires", name, words, Severity.WARNING if looser else Severity.NOTE)
    for name in sorted({*after.optional_plugins} - {*before.optional_plugins}):
        yield Change("requires", name, "loosened: a change may be judged without it", Severity.WARNING)


def _by_plugin(registry: Registry) -> dict[str, Requirement]:
    return {plain_name(required.plugin): required for required in registry.requires}


def _differences(old: Policy | None, new: Policy | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"removed; it was: {describe(old)}" if old is not None else f"added: {describe(new or Policy())}"
        return
    if old.gate != new.gate:
        yield f"gate {old.gate} became {new.gate}"
    metrics = dict.fromkeys(rule.metric for rule in (*old.rules, *new.rules))
    for metric in metrics:
        was, becomes = (", ".join(str(rule) for rule in policy.rules if rule.metric == metric) for policy in (old, new))
        if was != becomes:
            yield f"{was} became {becomes}" if was and becomes else f"{was} removed" if was else f"{becomes} added"
    for field in sorted({*old.extra, *new.extra}):
        if old.extra.get(field) != new.extra.get(field):
            yield f"{field} {old.extra.get(field, '(none)')} became {new.extra.get(field, '(none)')}"


def describe(policy: Policy) -> str:
    """A policy in one line."""
    rules = ", ".join(map(str, policy.rules)) or "no rules"
    return f"manual, {rules}" if policy.gate == "manual" else rules
