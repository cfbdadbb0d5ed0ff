"""Fields that this version does not know: a warning each; they hide nothing and survive."""

from __future__ import annotations

import pytest
from command_line import Program
from places import EXAMPLES
from sandbox import Sandbox

from registry_tool.hookspec import Level
from registry_tool.strictjson import pointer

CODE = "registry-unknown-field"


def test_each_unknown_field_is_a_warning(registry: Program) -> None:
    """In the registry, a policy and an entry, each at its own line; strictly, they fail the run."""
    path = EXAMPLES / "valid" / "unknown-fields"
    bench = Sandbox(path / "registry.json", "m")
    found = [(f.code, str(f.severity), f.pointer) for f in bench.findings()]
    assert {(code, severity) for code, severity, _ in found} == {(CODE, "warning")}
    assert {(pointer or "").rpartition("/")[2] for _, _, pointer in found} == {"of_another_version"}
    assert {"/of_another_version", "/models/0/of_another_version"} <= {pointer for _, _, pointer in found}
    assert all(finding.line is not None for finding in bench.findings())
    assert registry("validate", path).code == 0
    assert registry("validate", path, "--strict").code == 1


@pytest.mark.parametrize("name", ["licence", "sha265", "a/b~c", "it's", 'a "b"', "x" * 200])
def test_an_unknown_field_hides_nothing(smoke: Sandbox, name: str) -> None:
    """The entry's other faults are found beside it, whatever the field is called, and a flip keeps the field."""
    smoke.edit(lambda document: document["models"][0].update({name: 1}))
    assert [f.code for f in smoke.findings(Level.QUICK)] == [CODE]
    assert smoke.flip()
    assert smoke.entry[name] == 1
    smoke.edit_entry(sha256="0" * 64)
    assert {"digest-mismatch", CODE} <= {f.code for f in smoke.findings(Level.QUICK)}


@pytest.mark.parametrize("kind", ["fr_ensembel", "house_rules"])
def test_a_policy_of_an_unknown_kind_is_a_warning(smoke: Sandbox, kind: str) -> None:
    """It is found at its own place with the kinds that there are; without plugins that could provide it, that is said
    instead, and where an entry has the kind the entry's error says it."""
    smoke.edit(lambda document: document["policies"].update({kind: {"rules": []}}))
    (found,) = smoke.findings(Level.QUICK)
    assert (found.code, str(found.severity)) == ("policy-kind-unknown", "warning")
    assert found.pointer == pointer("policies", kind)
    assert "fr_ensemble" in str(found.expected)
    smoke.edit_entry(kind=kind)
    assert "policy-kind-unknown" not in {finding.code for finding in smoke.findings(Level.QUICK)}
