"""Tests of values.py: what is validated when made, what survives a round trip, and which policy is looser."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_tool.errors import InputError
from registry_tool.findings import Finding, Severity
from registry_tool.values import Entry, Evidence, OofPredictions, Policy, Registry, Rule, Verdict, counted, first_names

SHA = "0" * 64
BOUNDS = st.floats(min_value=-2, max_value=2, allow_nan=False).map(lambda value: round(value, 1))
RULES = st.builds(Rule, st.sampled_from(["mean_plcc", "spread"]), st.sampled_from([">=", "<=", ">", "<"]), BOUNDS)


def policy(*rules: str, gate: str = "evidence") -> Policy:
    return Policy(tuple(Rule(m, op, float(bound)) for m, op, bound in (rule.split() for rule in rules)), gate)


ENTRY: dict[str, Any] = {
    "id": "a",
    "kind": "fr",
    "onnx": "a.onnx",
    "sha256": SHA,
    "smoke": False,
    "license": "MIT",
    "promotion": {"manual": True, "reason": "seen", "by": "me"},
    "of_another_version": {"deep": [1, {"x": None}]},
}
REGISTRY: dict[str, Any] = {
    "schema_version": 2,
    "$schema": "./registry.schema.json",
    "of_another_version": [1, 2],
    "policies": {
        "fr": {"gate": "manual", "rules": [], "max_file_bytes": 9},
        "nr": {"rules": [{"metric": "m", "op": ">", "bound": 1}]},
    },
    "models": [ENTRY, {**ENTRY, "id": "b"}],
}
VERDICT: dict[str, Any] = {
    "schema_version": 2,
    "entry": "a",
    "verdict": "HOLD",
    "manifest_sha256": SHA,
    "evidence_sha256": None,
    "summary_only": True,
    "policy": {"rules": [{"metric": "m", "op": ">=", "bound": 0.5}]},
    "metrics": {"m": 0.25},
    "reasons": ["m >= 0.5: found 0.25"],
    "plugins": {"fr_ensemble": "0.1.0"},
}


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (Entry, ENTRY),
        (Registry, REGISTRY),
        (Verdict, VERDICT),
        (Policy, REGISTRY["policies"]["fr"]),
        (Rule, {"metric": "m", "op": "<", "bound": 2}),
    ],
)
def test_documents_survive_a_round_trip(kind: Any, document: dict[str, Any]) -> None:
    """from_dict then to_dict gives the document again, fields of another version included."""
    assert json.loads(json.dumps(kind.from_dict(document).to_dict(), default=dict)) == document


def test_a_finding_shows_every_field_as_json() -> None:
    """to_dict has each field once, null where there is nothing, and the severity as a word."""
    finding = Finding("some-code", "text", Severity.WARNING, file="a.json", pointer="/x", line=2, column=3)
    assert json.loads(json.dumps(finding.to_dict())) == {
        "code": "some-code",
        "severity": "warning",
        "entry": None,
        "file": "a.json",
        "line": 2,
        "column": 3,
        "pointer": "/x",
        "message": "text",
        "found": None,
        "expected": None,
        "hint": None,
    }
    assert {field.name for field in dataclasses.fields(Finding)} == {*finding.to_dict(), "rule"}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "registry: text"),
        ({"file": "m.onnx", "hint": "do it"}, "m.onnx: text: do it"),
        (
            {"file": "r.json", "line": 4, "pointer": "/a/0", "found": "1", "expected": "2", "hint": "do it"},
            "r.json:4 #/a/0: text: found 1, expected 2: do it",
        ),
        ({"file": "r.json", "found": "1"}, "r.json: text"),
    ],
)
def test_a_finding_is_one_line_that_says_where_what_and_what_to_do(fields: dict[str, Any], line: str) -> None:
    """str(finding) reads: where, message, found and expected together or not at all, hint."""
    assert str(Finding("some-code", "text", **fields)) == line


def test_values_are_frozen_and_have_no_other_attributes() -> None:
    """A value cannot be changed, and a misspelt field cannot be added."""
    for value in (Entry.from_dict(ENTRY), Registry.from_dict(REGISTRY), Rule("m", ">", 1), Finding("c", "m")):
        name = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
        with pytest.raises((AttributeError, TypeError)):
            object.__setattr__(value, "misspelt", 1)
    with pytest.raises(TypeError):
        Entry.from_dict(ENTRY).document["smoke"] = True  # type: ignore[index]  # that is the point


def test_an_entry_with_fields_changes_those_alone() -> None:
    """with_fields sets, None removes, everything else stays, and the entry it came from is as it was."""
    entry = Entry.from_dict(ENTRY)
    smoke = entry.with_fields(smoke=True, promotion=None, demotion={"reason": "r"})
    assert (smoke.smoke, smoke.promotion, smoke.is_production) == (True, None, False)
    expected = {k: v for k, v in ENTRY.items() if k != "promotion"} | {"smoke": True, "demotion": {"reason": "r"}}
    assert smoke.to_dict() == expected
    assert entry.to_dict() == ENTRY


def test_an_entry_pins_its_manifest_else_its_onnx_file() -> None:
    """path names the file that the entry's own sha256 speaks of."""
    assert Entry.from_dict(ENTRY).path == "a.onnx"
    assert Entry.from_dict({"id": "a", "kind": "k", "sha256": SHA, "manifest": "a/m.json"}).path == "a/m.json"
    assert Entry.from_dict({"id": "a", "kind": "k", "sha256": SHA, "onnx": "a.onnx"}).is_production


def test_a_registry_sorts_its_entries_and_replaces_by_id() -> None:
    """with_entry adds or takes the place of the entry with that id; to_dict is sorted by id."""
    registry = Registry.from_dict({**REGISTRY, "models": [{**ENTRY, "id": name} for name in ("c", "a")]})
    added = registry.with_entry(Entry.from_dict({**ENTRY, "id": "b"}))
    replaced = added.with_entry(Entry.from_dict({**ENTRY, "id": "a", "kind": "nr"}))
    assert [m["id"] for m in registry.to_dict()["models"]] == ["a", "c"]
    assert [e.id for e in replaced.entries] == ["a", "b", "c"]
    assert replaced.entry("a") is not None
    assert replaced.entry("a").kind == "nr"  # type: ignore[union-attr]  # not None, as the line above says
    assert replaced.entry("z") is None


def test_a_registry_without_policies_writes_none() -> None:
    """A version-1 document gets no field it did not have."""
    document = {"schema_version": 1, "models": []}
    assert Registry.from_dict(document).to_dict() == document


@pytest.mark.parametrize("op", ["==", "", "=>", "!=", None])
def test_a_rule_with_an_unknown_operator_cannot_be_made(op: Any) -> None:
    """An operator nobody knows is refused when the rule is made, not when it is asked."""
    with pytest.raises(ValueError, match="operator"):
        Rule("m", op, 1.0)


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, True, False, "0.95", None])
def test_a_rule_with_a_bound_that_is_no_number_cannot_be_made(bound: Any) -> None:
    """NaN, infinity, booleans and texts bound nothing."""
    with pytest.raises(ValueError, match="bound"):
        Rule("m", ">=", bound)


@pytest.mark.parametrize(
    ("op", "below", "at", "above"),
    [(">=", False, True, True), (">", False, False, True), ("<=", True, True, False), ("<", True, False, False)],
)
def test_a_rule_holds_on_its_side_of_the_bound(op: str, below: bool, at: bool, above: bool) -> None:
    """Each operator, below, at and above its bound; never for NaN or infinity."""
    rule = Rule("m", op, 0.5)
    assert [rule.holds(value) for value in (0.4, 0.5, 0.6)] == [below, at, above]
    assert not any(rule.holds(value) for value in (math.nan, math.inf, -math.inf))


LOOSER = [
    # this policy, than that one, is it looser?
    (policy("p >= 0.95"), policy("p >= 0.95"), False),
    (policy("p >= 0.94"), policy("p >= 0.95"), True),
    (policy("p >= 0.96"), policy("p >= 0.95"), False),
    (policy("p > 0.95"), policy("p >= 0.95"), False),
    (policy("p >= 0.95"), policy("p > 0.95"), True),
    (policy("p > 0.94"), policy("p >= 0.95"), True),
    (policy("s <= 0.006"), policy("s <= 0.005"), True),
    (policy("s <= 0.004"), policy("s <= 0.005"), False),
    (policy("s < 0.005"), policy("s <= 0.005"), False),
    (policy("s <= 0.005"), policy("s < 0.005"), True),
    (policy("p <= 0.95"), policy("p >= 0.95"), True),  # turned round
    (policy(), policy("p >= 0.95"), True),  # a rule was removed
    (policy("p >= 0.95"), policy("p >= 0.95", "s <= 0.005"), True),
    (policy("p >= 0.95", "s <= 0.005"), policy("p >= 0.95"), False),  # a rule was added
    (policy("q >= 0.95"), policy("p >= 0.95"), True),  # renamed
    (policy("p >= 0.9", "p >= 0.95"), policy("p >= 0.95"), False),  # a weaker twin beside the rule changes nothing
    (policy(gate="manual"), policy("p >= 0.95"), True),
    (policy("p >= 0.99", gate="manual"), policy("p >= 0.95"), True),
    (policy(gate="manual"), policy(gate="manual"), False),
    (policy("p >= 0.95"), policy(gate="manual"), False),
    (policy(), policy(), False),
]


@pytest.mark.parametrize(("mine", "other", "looser"), LOOSER)
def test_a_looser_policy_is_known(mine: Policy, other: Policy, looser: bool) -> None:
    """Lowered, turned round, removed, renamed, made manual: looser. Raised or added to: not."""
    assert mine.is_looser_than(other) is looser


@given(
    st.lists(RULES, max_size=3),
    st.lists(RULES, max_size=3),
    st.dictionaries(st.sampled_from(["mean_plcc", "spread"]), BOUNDS),
)
def test_what_passes_a_policy_that_is_not_looser_passes_the_other(
    mine: list[Rule], other: list[Rule], metrics: dict[str, float]
) -> None:
    """The meaning of `not looser`, for any policies and any metrics: nothing gets through that the other stops."""

    def passes(rules: list[Rule]) -> bool:
        return all(rule.metric in metrics and rule.holds(metrics[rule.metric]) for rule in rules)

    if not Policy(tuple(mine)).is_looser_than(Policy(tuple(other))) and passes(mine):
        assert passes(other)


@pytest.mark.parametrize(
    ("n", "text"), [(0, ""), (1, "a"), (3, "a, b, c"), (4, "a, b, c and 1 more"), (200, "a, b, c and 197 more")]
)
def test_many_names_are_shortened(n: int, text: str) -> None:
    """A line of a message holds three names and how many more there are."""
    names = [*"abc", *map(str, range(200))][:n]
    assert first_names(names) == first_names(dict.fromkeys(names)) == text


def test_evidence_needs_nothing_but_metrics() -> None:
    """Evidence without problems or digest is evidence; summary_only has to be said."""
    evidence = Evidence({"m": 1.0})
    assert (evidence.problems, evidence.summary_only, evidence.sha256) == ((), False, None)


def test_predictions_are_put_into_the_order_of_other_rows() -> None:
    """The order of the sources is free, that of each source's rows is not."""
    one = OofPredictions("one", ["a", "b", "a", "b"], [1.0, 2.0, 3.0, 4.0], [1.1, 2.1, 3.1, 4.1])
    two = OofPredictions("two", ["b", "b", "a", "a"], [2.0, 4.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0])
    assert one.in_order_of(two) == (2.1, 4.1, 1.1, 3.1)
    assert one.in_order_of(one) == tuple(one.predictions)


@pytest.mark.parametrize(
    ("sources", "targets", "words"),
    [
        ("aab", (1.0, 3.0, 2.0), "one: found 1 rows of source 'b', expected 2 as two has"),
        ("aabbc", (1.0, 3.0, 2.0, 4.0, 5.0), "one: found 1 rows of source 'c', expected 0 as two has"),
        ("aabb", (1.0, 3.0, 4.0, 2.0), "one: row 1 of source 'b': found the target 4, expected 2 as two has"),
        ("aabb", (1.0, 3.5, 2.0, 4.0), "one: row 2 of source 'a': found the target 3.5, expected 3 as two has"),
    ],
)
def test_predictions_of_other_rows_are_refused(sources: str, targets: tuple[float, ...], words: str) -> None:
    """The line names both entries and the first source or row that differs."""
    one = OofPredictions("one", sources, targets, targets)
    with pytest.raises(InputError, match=words):
        one.in_order_of(OofPredictions("two", "aabb", (1.0, 3.0, 2.0, 4.0), (0.0,) * 4))


@pytest.mark.parametrize(
    ("sources", "targets", "predictions"), [("", (), ()), ("a", (1.0,), ()), ("a", (1.0,), (math.nan,))]
)
def test_predictions_that_are_none_are_refused(sources: str, targets: Any, predictions: Any) -> None:
    """No rows, columns of different lengths, numbers that are not finite."""
    with pytest.raises(ValueError, match="out-of-fold predictions: found"):
        OofPredictions("one", sources, targets, predictions)


def test_a_number_has_its_noun() -> None:
    """One is singular; none and many are plural."""
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
