"""reporters.py: the formats of results, by name: what each is for, and which results it shows. Renders nothing itself.

A format is a file of this room with a function for each result it shows; it is loaded when the format is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry_tool.values import Json
    from registry_tool.workflows.compare_with_base import Comparison
    from registry_tool.workflows.explain import RuleGroup
    from registry_tool.workflows.gate import Judgement
    from registry_tool.workflows.validate import Validation


@dataclass(frozen=True, slots=True)
class Validations:
    """What `registry validate` found, a registry each. strict: warnings fail too."""

    results: Sequence[Validation]
    strict: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What `registry gate` decided. path: of the registry, None for evidence without one. comparison: with a base."""

    judgements: Sequence[Judgement]
    comparison: Comparison | None
    path: Path | None
    title: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Finding codes to explain. only: one was asked for."""

    groups: Sequence[RuleGroup]
    only: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What any other command gives: a JSON document, and lines for people; the one that is shown is made."""

    document: Callable[[], Json]
    lines: Callable[[], str | Iterable[str]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Lines to print, or one document. summary: Markdown for the page of a CI step."""

    lines: Iterable[str]
    document: bool = False
    summary: Iterable[str] = ()


@dataclass(frozen=True, slots=True)
class Reporter:
    """module: of this room. help: of `--format`. shows: results; the module has a function `render_RESULT` for each."""

    module: str
    help: str
    shows: frozenset[str]


FINDING_REPORTS = frozenset({"validations", "ci"})
JUDGED_REPORTS = FINDING_REPORTS | {"verdicts"}
ALL_REPORTS = JUDGED_REPORTS | {"rules", "answers"}
REPORTERS: Mapping[str, Reporter] = MappingProxyType(
    {
        "text": Reporter("text", "for people", ALL_REPORTS),
        "json": Reporter("machine", "for programs", ALL_REPORTS),
        "sarif": Reporter("sarif", "for code scanning", FINDING_REPORTS),
        "junit": Reporter("junit", "for test reports", JUDGED_REPORTS),
        "github": Reporter("github", "for annotations and the summary of a GitHub step", JUDGED_REPORTS),
        "markdown": Reporter("rules", "for documents", frozenset({"rules"})),
        "html": Reporter("html", "one page without other files", frozenset({"overview"})),
        "png": Reporter("png", "one picture", frozenset({"figures"})),
    }
)


def choices(result: str) -> list[str]:
    """The formats that show a result, as they are listed."""
    return [name for name, reporter in REPORTERS.items() if result in reporter.shows]


def explained(names: Iterable[str]) -> str:
    """The help of `--format`: what each of some formats is for."""
    return "How to print it: " + "; ".join(f"{name}, {REPORTERS[name].help}" for name in names) + "."


def renderer(form: str, result: str) -> Callable[..., Any]:
    """The function that shows a result in a format."""
    reporter = REPORTERS[form]
    if result not in reporter.shows:
        raise ValueError(f"format {form!r}: found {result!r}, expected one of {', '.join(sorted(reporter.shows))}")
    found: Callable[..., Rendered] = getattr(
        import_module(f"registry_tool.report.{reporter.module}"), f"render_{result}"
    )
    return found
