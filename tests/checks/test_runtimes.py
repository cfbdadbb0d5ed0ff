"""Tests of runtimes.py: which policy's runtime may load what another's refuses."""

from __future__ import annotations

from typing import Any

import pytest

from registry_tool.checks.runtimes import is_looser
from registry_tool.documents.store import REGISTRY_VERSION
from registry_tool.values import Policy, Registry
from registry_tool.workflows.base_changes import policy_changes

LIBVMAF = {"runtime": "libvmaf"}


@pytest.mark.parametrize(
    ("mine", "other", "looser"),
    [
        ({}, {}, False),
        (LIBVMAF, {}, False),
        ({}, LIBVMAF, True),
        (LIBVMAF, LIBVMAF, False),
        ({**LIBVMAF, "max_opset": 22}, LIBVMAF, True),
        ({**LIBVMAF, "max_opset": 17}, LIBVMAF, False),
        ({"max_opset": 17}, {"max_opset": 17, "max_loops": 0}, True),
        ({"operators": ["Add"]}, {"operators": ["Add", "Mul"]}, False),
        ({"operators": ["Add", "Mul"]}, {"operators": ["Add"]}, True),
        ({"max_opset": 17}, {"operators": ["Add"]}, True),
        ({"max_ir_version": 9}, {"max_ir_version": 8}, True),
    ],
)
def test_a_runtime_that_loads_more_is_looser(mine: dict[str, Any], other: dict[str, Any], looser: bool) -> None:
    """A limit that is gone or wider lets through a model that the older policy refused."""
    one, two = (Policy.from_dict({"rules": [], **fields}) for fields in (mine, other))
    assert is_looser(one, two) is looser


def test_gate_base_lists_a_looser_runtime_as_loosened() -> None:
    """A change that takes the runtime out of a policy is listed as one that loosens it."""
    before, after = (
        Registry(REGISTRY_VERSION, (), {"nr": Policy.from_dict({"rules": [], **f})}) for f in (LIBVMAF, {})
    )
    [change] = policy_changes(before, after, {}, set())
    assert change.words.startswith("loosened: ")
