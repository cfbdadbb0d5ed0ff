"""pull_request.py: which revision a CI job compares with, as GitHub and GitLab tell it. Asks git nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.git.repository import FULL_HASH
from registry_tool.values import visible


@dataclass(frozen=True, slots=True)
class Target:
    """The base of a pull request.

    revision: as `--base` takes it. variable: the one that named it. at_target: the event (pull_request_target) is one
    whose checkout is the base itself, so that the change may not be there.
    """

    revision: str
    variable: str
    at_target: bool = False


def target(environment: Mapping[str, str]) -> Target | None:
    """The base that the job's environment names; None where the job judges no pull or merge request.

    GitHub: the target branch of a pull request, the first commit of a merge group. GitLab: the commit where the merge
    request left its target branch. Raises InputError where a job of such a request is not told its base.
    """
    event = environment.get("GITHUB_EVENT_NAME", "")
    if branch := environment.get("GITHUB_BASE_REF"):
        return Target(f"refs/remotes/origin/{branch}", "GITHUB_BASE_REF", event == "pull_request_target")
    if event == "merge_group":
        return Target(_merge_group(environment.get("GITHUB_EVENT_PATH", "")), "GITHUB_EVENT_PATH")
    if event in ("pull_request", "pull_request_target"):
        raise _without_base(f"GITHUB_EVENT_NAME: found {event!r} and no GITHUB_BASE_REF, expected the target branch")
    if commit := environment.get("CI_MERGE_REQUEST_DIFF_BASE_SHA"):
        return Target(_hash(commit, "CI_MERGE_REQUEST_DIFF_BASE_SHA"), "CI_MERGE_REQUEST_DIFF_BASE_SHA")
    if branch := environment.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"):
        return Target(f"refs/remotes/origin/{branch}", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME")
    if environment.get("CI_PIPELINE_SOURCE") == "merge_request_event":
        raise _without_base(
            "CI_PIPELINE_SOURCE: found 'merge_request_event' and no CI_MERGE_REQUEST_DIFF_BASE_SHA, "
            "expected the base of the merge request"
        )
    return None


def _merge_group(path: str) -> str:
    try:
        commit = json.loads(Path(path).read_bytes())["merge_group"]["base_sha"]
    except (OSError, ValueError, LookupError, TypeError):
        commit = None
    if not isinstance(commit, str):
        raise _without_base(
            f"GITHUB_EVENT_PATH: found no merge_group.base_sha in {path!r}, expected the event of a merge group"
        )
    return _hash(commit, "GITHUB_EVENT_PATH: merge_group.base_sha")


def _hash(commit: str, source: str) -> str:
    """A commit as the CI systems name one: a name (HEAD, say) could mean the very change that is to be judged."""
    if not FULL_HASH.match(commit):
        raise _without_base(f"{source}: found {visible(commit)!r}, expected a full hash")
    return commit


def _without_base(message: str) -> InputError:
    return InputError(f"{message}: name the base with --base REF")
