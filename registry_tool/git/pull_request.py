"""pull_request.py: which revision a CI job compares with, as GitHub and GitLab tell it. Reads no git objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_tool.errors import InputError


@dataclass(frozen=True, slots=True)
class Target:
    """The base of a pull request. revision: as `--base` takes it. variable: the one that named it."""

    revision: str
    variable: str


def target(environment: Mapping[str, str]) -> Target | None:
    """The base that the job's environment names; None where the job judges no pull or merge request.

    GitHub: the target branch of a pull request, the first commit of a merge group. GitLab: the commit where the merge
    request left its target branch. Raises InputError where a merge group's event names no commit.
    """
    if branch := environment.get("GITHUB_BASE_REF"):
        return Target(f"refs/remotes/origin/{branch}", "GITHUB_BASE_REF")
    if environment.get("GITHUB_EVENT_NAME") == "merge_group":
        return Target(_merge_group(environment.get("GITHUB_EVENT_PATH", "")), "GITHUB_EVENT_PATH")
    if commit := environment.get("CI_MERGE_REQUEST_DIFF_BASE_SHA"):
        return Target(commit, "CI_MERGE_REQUEST_DIFF_BASE_SHA")
    if branch := environment.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"):
        return Target(f"refs/remotes/origin/{branch}", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME")
    return None


def _merge_group(path: str) -> str:
    try:
        commit = json.loads(Path(path).read_bytes())["merge_group"]["base_sha"]
    except (OSError, ValueError, LookupError, TypeError):
        commit = None
    if not isinstance(commit, str):
        raise InputError(
            f"GITHUB_EVENT_PATH: found no merge_group.base_sha in {path!r}, expected the event of a merge group: "
            "name the base with --base REF"
        )
    return commit
