"""The fast path of schema checks says yes exactly where the reference validator finds nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import registry_tool.schemas as schemas
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from registry_tool.documents.schema import violations

pytest.importorskip("jsonschema_rs", reason="the extra `fast` is not installed")

ENTRY = {
    "id": "a",
    "kind": "fr",
    "onnx": "a.onnx",
    "sha256": "0" * 64,
    "smoke": True,
    "opset": 17,
    "external_data": [{"path": "a.data", "sha256": "1" * 64, "bytes": 3}],
}
POLICIES = {"fr": {"rules": [{"metric": "m", "op": ">=", "bound": 0.5}]}}
REGISTRY = {"schema_version": 2, "policies": POLICIES, "models": [ENTRY]}
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.0,
    1e300,
    2**70,
    "",
    "a",
    "a\n",
    "A",
    "../a.onnx",
    "0" * 64 + "\n",
    [],
    {},
    [1],
    {"a": 1},
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(p for key, item in items for p in places(item, (*at, key)))]


def changed(at: tuple[Any, ...], action: str, odd: Any) -> Any:
    document: Any = copy.deepcopy(REGISTRY)
    if not at:
        return odd if action == "set" else document
    parent = document
    for key in at[:-1]:
        parent = parent[key]
    if action == "set":
        parent[at[-1]] = odd
    elif action == "drop":
        del parent[at[-1]]
    elif isinstance(parent, dict):
        parent["further"] = odd
    return document


@settings(max_examples=400)
@given(st.sampled_from(places(REGISTRY)), st.sampled_from(["set", "drop", "add"]), st.sampled_from(ODD))
def test_both_validators_agree(at: tuple[Any, ...], action: str, odd: Any) -> None:
    """A changed registry has a violation exactly when the reference implementation of JSON Schema refuses it."""
    document = changed(at, action, odd)
    for name in ("registry", "registry-v1"):
        reference = Draft202012Validator(schemas.load(name))
        assert bool(violations(document, schemas.load(name))) != reference.is_valid(document), (name, document)
