"""Tests of optional fields: accepted in their form, refused in another, kept through a write."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import registry_tool.schemas as schemas
from sandbox import Sandbox

from registry_tool.checks.policy import judge
from registry_tool.documents.schema import violations
from registry_tool.values import Entry, Evidence, Policy, Registry, Rule

DIGEST = "0123456789abcdef" * 4
CORPUS = {"name": "mine.csv", "sha256": None, "rows_sha256": DIGEST, "n_rows": 40, "sources": ["a", "b"]}
MANIFEST: dict[str, Any] = {
    "metrics_version": 2,
    "evidence_inputs": {"n_rows": 300},
    "fingerprints": {"columns": ["motion2"]},
    "baselines": [{"name": "ridge", "tolerance": 1e-3}],
    "encoders_left_out": ["libx264", "libx265"],
    "calibrated_from": {"id": "parent_v1", "manifest_sha256": DIGEST},
    "calibration": {
        "corpus": CORPUS,
        "evidence_inputs": {"n_rows": 40},
        "fingerprints": {"columns": ["motion2"]},
        "offset": -0.4,
        "group": "session",
    },
}
REGISTRY: dict[str, Any] = {"requires": [{"plugin": "house-rules", "version": ">=1.2"}]}
POLICY: dict[str, Any] = {
    "signers": [{"public_key": "keys/ci.pem", "sha256": DIGEST}, {"certificate": "keys/root.pem", "sha256": DIGEST}],
    "signatures": 2,
}
ENTRY: dict[str, Any] = {"signatures": [{"bundle": "tiny/signature.json", "sha256": DIGEST}]}
PROMOTION: dict[str, Any] = {
    "attestations": [{"path": "tiny/verdicts/attestation.json", "sha256": DIGEST}],
    "reproductions": [{"path": "tiny/verdicts/reproduction.json", "sha256": DIGEST}],
}
TARGET: dict[str, Any] = {"definition": "vmaf_v0.6.1", "libvmaf": "3.0.0"}


def full_manifest(box: Sandbox) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(box.manifest) | MANIFEST
    document["target"] |= TARGET
    document["fused"]["graph_version"] = 2
    return document


def full_registry(box: Sandbox) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(box.path.read_bytes()) | REGISTRY
    document["policies"]["fr_ensemble"] |= POLICY
    entry = document["models"][0]
    entry |= ENTRY
    entry["promotion"] |= PROMOTION
    return document


def full_verdict(box: Sandbox) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(box.verdict)
    document["policy"] |= POLICY
    return document


FULL: dict[str, Callable[[Sandbox], dict[str, Any]]] = {
    "fr_ensemble": full_manifest,
    "registry": full_registry,
    "verdict": full_verdict,
}


@pytest.mark.parametrize("name", FULL)
def test_every_optional_field_is_accepted(production: Sandbox, name: str) -> None:
    """By our own check, and by another validator."""
    document = FULL[name](production)
    assert violations(document, schemas.load(name)) == []
    jsonschema.Draft202012Validator(schemas.bundled(schemas.load(name))).validate(document)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    elif value is not None:
        yield path


WRONG = [
    *(("fr_ensemble", path) for path in leaves(MANIFEST)),
    *(("fr_ensemble", ("target", name)) for name in TARGET),
    ("fr_ensemble", ("fused", "graph_version")),
    *(("registry", path) for path in leaves(REGISTRY)),
    *(("registry", ("policies", "fr_ensemble", *path)) for path in leaves(POLICY)),
    *(("registry", ("models", 0, *path)) for path in leaves(ENTRY)),
    *(("registry", ("models", 0, "promotion", *path)) for path in leaves(PROMOTION)),
    *(("verdict", ("policy", *path)) for path in leaves(POLICY)),
]


@pytest.mark.parametrize(("name", "path"), WRONG, ids=lambda value: str(value))
def test_a_value_of_another_form_is_refused(production: Sandbox, name: str, path: tuple[Any, ...]) -> None:
    """An object where a text or a number is expected is a violation, wherever it is."""
    document = FULL[name](production)
    parent: Any = document
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = {"another": "form"}
    assert violations(document, schemas.load(name)) != []


def test_a_write_keeps_them(production: Sandbox) -> None:
    """A registry that is read and written again has every field."""
    document = full_registry(production)
    assert Registry.from_dict(document).to_dict() == document


@pytest.mark.parametrize("asked", [{"signers": []}, {"signers": POLICY["signers"]}, {"signatures": 1}])
def test_a_policy_that_asks_for_signatures_promotes_nothing(asked: dict[str, Any]) -> None:
    """Without a signer that was verified, whatever the rules say."""
    evidence = Evidence({"m": 1.0})
    policy = Policy.from_dict({"rules": [{"metric": "m", "op": ">", "bound": 0}], **asked})
    entry = Entry("a", "k", True, DIGEST)
    verdict = judge(policy, evidence, entry)
    assert (verdict.decision, len(verdict.reasons)) == ("HOLD", 1)
    assert judge(Policy((Rule("m", ">", 0),)), evidence, entry).promotes
