"""Tests of `registry paths`: which files another program may read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from command_line import Program
from policies import set_policy
from sandbox import Sandbox

from registry_tool.workflows.promote import demote


def test_every_pinned_file_is_named_with_its_digest(production: Sandbox, registry: Program) -> None:
    """The manifest first; each path is absolute, and the file there has the digest and the size."""
    document = json.loads(registry("paths", "tiny", "--registry", production.path, "--format", "json").out)
    printed = registry("paths", "tiny", "--registry", production.path).out.splitlines()
    assert [file["path"] for file in document["files"]] == printed
    assert printed[0].endswith("/manifest.json")
    assert document["files"][0]["sha256"] == production.entry["sha256"]
    assert {file["name"] for file in document["files"]} >= {"tiny.onnx", "evidence/oof.npz"}
    for file in document["files"]:
        data = Path(file["path"]).read_bytes()
        assert Path(file["path"]).is_absolute()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])


def test_a_smoke_entry_is_asked_for(production: Sandbox, registry: Program) -> None:
    """Without --allow-smoke it is refused, and nothing is printed."""
    demote(production.path, "tiny", "drifts")
    ran = registry("paths", "tiny", "--registry", production.path)
    assert (ran.code, ran.out) == (1, "")
    assert "--allow-smoke" in ran.err
    assert registry("paths", "tiny", "--allow-smoke", "--registry", production.path).code == 0


def test_no_way_to_production_is_named_for_random_rows(random_rows: Sandbox, registry: Program) -> None:
    """A flip would be refused."""
    ran = registry("paths", "tiny", "--registry", random_rows.path)
    assert (ran.code, ran.out) == (1, "")
    assert "no model of random rows is promoted; to try it, say --allow-smoke" in ran.err


@pytest.mark.parametrize("what", ["a byte", "a signature"])
def test_what_may_not_be_used_is_refused(production: Sandbox, registry: Program, what: str) -> None:
    """A digest that does not hold, a signature that the policy asks for: exit 1, no path."""
    if what == "a byte":
        (production.artifacts / "tiny.onnx").write_bytes(b"")
    else:
        policy = json.loads(production.path.read_text())["policies"]["fr_ensemble"]
        production.edit(set_policy("fr_ensemble", {**policy, "signers": [], "signatures": 1}))
    ran = registry("paths", "tiny", "--registry", production.path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
