"""rules.py: finding codes explained, as text, JSON and Markdown. The Markdown of all of them is docs/findings.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from string import Formatter

from registry_tool.findings import FindingRule
from registry_tool.report.reporters import Rendered, Rules
from registry_tool.values import Json
from registry_tool.workflows.explain import RuleGroup

PAGE_INTRODUCTION = """\
# Findings

Every finding of `registry validate` has a code that stays the same, and says where, what was found, what was expected
and what to do. An error fails the run (exit 1), a warning does so with `--strict`, a note never. `registry rule CODE`
prints one of these, `registry rule --format json` all of them. Generated:
`registry rule --format markdown > docs/findings.md`."""


def text(rule: FindingRule) -> str:
    """A code in a few lines."""
    lines = [f"{rule.code} ({rule.severity}): {sentence(rule.title)}", ""]
    rows = (("Why it matters", rule.why), ("What to do", sentence(rule.hint)), ("For example", rule.example))
    return "\n".join([*lines, *(f"  {f'{name}:':16} {value}" for name, value in rows)])


def listing(groups: Iterable[RuleGroup]) -> str:
    """All codes with their severity and title, group by group."""
    groups = tuple(groups)
    width = max(len(rule.code) for group in groups for rule in group.rules)
    blocks = []
    for group in groups:
        blocks.append(
            "\n".join([group.heading, *(f"  {r.code:{width}}  {r.severity:7}  {r.title}" for r in group.rules)])
        )
    return "\n\n".join(blocks)


def document(groups: Iterable[RuleGroup]) -> dict[str, Json]:
    """The JSON of `registry rule --format json`; NAME in a text is a value that each finding has."""
    return {
        "rules": [
            {
                "code": rule.code,
                "severity": str(rule.severity),
                "group": group.heading,
                "title": rule.title,
                "message": _shown(rule.message),
                "expected": _shown(rule.expected or "") or None,
                "hint": _shown(rule.hint),
                "why": rule.why,
                "example": rule.example,
                "since": rule.since,
            }
            for group in groups
            for rule in group.rules
        ]
    }


def section(rule: FindingRule) -> Iterator[str]:
    """A rule in Markdown, without its heading: in docs/findings.md, and the help that SARIF viewers show."""
    yield from (f"{str(rule.severity).capitalize()}: {sentence(rule.title)} {rule.why}", "")
    yield from (f"- What to do: {sentence(rule.hint)}", f"- For example: `{rule.example}`")


def markdown(groups: Iterable[RuleGroup]) -> str:
    """docs/findings.md."""
    return "\n".join(_markdown(groups)) + "\n"


def render_rules(report: Rules) -> Rendered:
    return Rendered([markdown(report.groups).removesuffix("\n")], document=True)


def _markdown(groups: Iterable[RuleGroup]) -> Iterator[str]:
    yield PAGE_INTRODUCTION
    for group in groups:
        yield from ("", f"## {group.heading}")
        for rule in group.rules:
            yield from ("", f"### `{rule.code}`", "", *section(rule))


def _shown(template: str) -> str:
    """`registry flip {id}` as `registry flip ID`."""
    return "".join(literal + (name or "").upper() for literal, name, _, _ in Formatter().parse(template))


def sentence(template: str) -> str:
    """With a capital and a full stop."""
    text = _shown(template)
    return f"{text[:1].upper()}{text[1:]}."
