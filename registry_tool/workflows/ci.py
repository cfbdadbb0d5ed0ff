"""ci.py: the story of `registry ci`: validate and gate in one run; neither keeps the other from running. No printing.

What ends early (a base that cannot be read, a plugin that does not load) is a part of the result, so that every
document that was asked for can tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from registry_tool.documents import store
from registry_tool.errors import ExitCode, InputError, RegistryError, environment_error
from registry_tool.git.pull_request import Target, target
from registry_tool.git.repository import Option
from registry_tool.git.revisions import Base, is_head, load_base
from registry_tool.hookspec import Level, Progress
from registry_tool.plugins.manager import Plugins
from registry_tool.workflows import known_findings
from registry_tool.workflows.compare_with_base import Comparison, gate_base
from registry_tool.workflows.known_findings import Triage
from registry_tool.workflows.validate import Validation, validate

NO_BASE = "no base: promotions not judged"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CiRequest:
    """What `registry ci` was asked for.

    registry: as it was named, None to look for it. base: a revision, None for what the CI system names.
    known: a list of known findings, by its path. evidence: summaries of an ensemble of version 1.
    """

    registry: str | None = None
    base: str | None = None
    require_base: bool = False
    level: Level = Level.FULL
    strict: bool = False
    known: Path | None = None
    evidence: Path | None = None


@dataclass(frozen=True, slots=True)
class NotJudged:
    """A step that ended early: which one, with which exit code, and the line that says why."""

    step: str
    exit_code: ExitCode
    message: str


@dataclass(frozen=True, slots=True)
class CiRun:
    """What `registry ci` found.

    validation: with the findings that count. known: those that do not, None where no list was named or could be read.
    comparison: None where nothing was gated.
    """

    request: CiRequest
    path: Path | None = None
    base: Target | None = None
    validation: Validation | None = None
    known: Triage | None = None
    comparison: Comparison | None = None
    not_judged: tuple[NotJudged, ...] = ()

    @property
    def validates_only(self) -> bool:
        """Whether there was no base to gate against, and none was asked for."""
        return self.base is None and not any(item.step == "base" for item in self.not_judged)

    @property
    def exit_code(self) -> ExitCode:
        """The worst of all steps."""
        failed = self.validation is not None and self.validation.fails(strict=self.request.strict)
        held = self.comparison is not None and not self.comparison.passes
        judged = ExitCode.REJECTED if failed or held else ExitCode.OK
        return max([judged, *(item.exit_code for item in self.not_judged)])


class _Steps:
    """Runs steps one by one; what ends one early is kept, and the next one runs."""

    def __init__(self) -> None:
        self.not_judged: list[NotJudged] = []

    def run(self, step: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except RegistryError as error:
            self.stop(step, error)
        except OSError as error:
            self.stop(step, environment_error(error))
        return None

    def stop(self, step: str, error: RegistryError) -> None:
        self.not_judged.append(NotJudged(step, ExitCode(error.exit_code), str(error)))


def ci(
    request: CiRequest,
    plugins: Plugins,
    environment: Mapping[str, str],
    working_folder: Path,
    progress: Progress | None = None,
) -> CiRun:
    """Validate the registry, then gate it against the base; raises nothing that a user can cause."""
    steps = _Steps()
    path = steps.run("registry", lambda: store.find(request.registry, environment, working_folder))
    run = CiRun(request, path, steps.run("base", lambda: _base(request, environment)))
    if path is not None:
        run = _judge(run, path, plugins, _searched_from(request, environment, working_folder), steps, progress)
    return replace(run, not_judged=tuple(steps.not_judged))


def _judge(
    run: CiRun, path: Path, plugins: Plugins, searched_from: Path | None, steps: _Steps, progress: Progress | None
) -> CiRun:
    request = run.request
    found = steps.run("validate", lambda: validate(path, plugins, request.level, progress))
    if found is not None and found.lacks_plugins:
        required = found.loaded.registry.requires if isinstance(found.loaded, store.Loaded) else ()
        steps.run("validate", lambda: plugins.need_all(required))
    run = replace(run, validation=found)
    target = run.base
    base = steps.run("gate", lambda: _load(target, path, searched_from)) if target is not None else None
    file = request.known if target is None or base is not None else None  # of a base that cannot be read there is none
    if found is not None and file is not None:
        known = steps.run("known-findings", lambda: _triage(found, file, base))
        if known is not None:
            run = replace(run, validation=replace(found, findings=known.counted, known=len(known.known)), known=known)
    if base is None:
        return run
    judged = steps.run("gate", lambda: gate_base(path, plugins, base, evidence=request.evidence))
    return replace(run, comparison=judged)


def _base(request: CiRequest, environment: Mapping[str, str]) -> Target | None:
    named = Target(request.base, "--base") if request.base is not None else target(environment)
    if named is None and request.require_base:
        raise InputError(f"{NO_BASE}: expected a pull or merge request, or --base REF: name the base")
    return named


def _load(target: Target, path: Path, searched_from: Path | None) -> Base:
    option = Option(target.variable, "compare with an older registry: `registry gate --base-file FILE`")
    base = load_base(target.revision, path, searched_from, option)
    if target.at_target and is_head(base):
        raise InputError(
            f"{target.variable} {target.revision}: found HEAD in it, expected the commits of the pull request: "
            "run on `pull_request`, or check them out (pull_request_target checks out the target branch)"
        )
    return base


def _searched_from(request: CiRequest, environment: Mapping[str, str], folder: Path) -> Path | None:
    return None if request.registry is not None or environment.get("REGISTRY_JSON") else folder


def _triage(found: Validation, file: Path, base: Base | None) -> Triage:
    """The findings compared with a list, as it was where HEAD left the base; without a base, as it is."""
    place, revision = (base.place, base.commit) if base is not None else (None, None)
    return known_findings.triage(found, known_findings.read(file, found.loaded.path, place, revision), place, revision)
