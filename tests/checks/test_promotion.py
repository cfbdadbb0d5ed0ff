"""Tests of promotion.py: an entry is production by right or it is an error; every figure is computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from command_line import Program
from policies import GATE, MANUAL, set_policy
from sandbox import Sandbox, sha256, to_json
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError
from registry_tool.hookspec import Level, hookimpl
from registry_tool.values import Evidence

Mutation = Callable[[Sandbox], object]
HALF = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.5}]}
UNKNOWN = {"metric": "m", "op": ">", "bound": 0}
STRICT = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.99999}]}


def judged_by(policy: Any) -> Mutation:
    return lambda box: box.edit(set_policy("fr_ensemble", policy))


def gate_with(**bounds: float) -> dict[str, Any]:
    return {"rules": [{**rule, "bound": bounds.get(rule["metric"], rule["bound"])} for rule in GATE["rules"]]}


def forged(**fields: Any) -> Mutation:
    return lambda box: box.forge_verdict(**fields)


def forged_metric(name: str, change: Callable[[Any], Any]) -> Mutation:
    def mutate(box: Sandbox) -> None:
        metrics = box.verdict["metrics"]
        metrics[name] = change(metrics.get(name))
        box.forge_verdict(metrics={key: value for key, value in metrics.items() if value is not None})

    return mutate


def edit_verdict(box: Sandbox) -> None:
    path = box.folder / box.entry["promotion"]["verdict"]
    path.write_bytes(path.read_bytes().replace(b'"PROMOTE"', b'"PROMOTE" '))


def remove_verdict(box: Sandbox) -> None:
    (box.folder / box.entry["promotion"]["verdict"]).unlink()


def link_verdict(box: Sandbox) -> None:
    path = box.folder / box.entry["promotion"]["verdict"]
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real").name)


def another_model(box: Sandbox) -> None:
    """The verdict stays, the manifest under it is another: its digests fit, the verdict's do not."""
    verdict = box.verdict
    box.forge(lambda manifest: manifest.update(note="another manifest"))
    box.forge_verdict(**verdict)


def no_rules(box: Sandbox) -> None:
    judged_by({"rules": []})(box)
    box.forge_verdict(policy={"rules": []})


def lower_the_version(box: Sandbox) -> None:
    box.edit_entry(promotion=None)
    box.edit(lambda document: document.update(schema_version=1))


ALWAYS: list[Any] = [  # found at both levels
    ("no promotion", lambda box: box.edit_entry(promotion=None), "promotion-missing"),
    ("smoke by hand", lambda box: box.edit_entry(smoke=True), "promotion-on-smoke"),
    ("version lowered", lower_the_version, "promotion-missing"),
    ("manual", lambda box: box.edit_entry(promotion={"manual": True, "reason": "I say so"}), "promotion-kind"),
    ("imported", lambda box: box.edit_entry(promotion={"imported_from": "0" * 64}), "promotion-kind"),
    ("verdict edited", edit_verdict, "digest-mismatch"),
    ("verdict removed", remove_verdict, "file-missing"),
    ("verdict linked", link_verdict, "file-is-symlink"),
    ("verdict of another model", another_model, "verdict-other"),
    ("verdict holds", forged(verdict="HOLD"), "verdict-holds"),
    ("verdict has reasons", forged(reasons=["mean_plcc >= 0.95: found 0.5"]), "verdict-holds"),
    ("verdict on summaries", forged(summary_only=True), "verdict-holds"),
    ("verdict of another entry", forged(entry="other"), "verdict-other"),
    ("verdict of another manifest", forged(manifest_sha256="0" * 64), "verdict-other"),
    ("verdict of no manifest", forged(manifest_sha256=None), "verdict-other"),
    ("verdict of version 1", forged(schema_version=1), "schema-value"),
    ("verdict says maybe", forged(verdict="MAYBE"), "schema-value"),
    ("metrics as text", forged(metrics={"mean_plcc": "0.99"}), "schema-type"),
    ("metrics as booleans", forged(metrics={"mean_plcc": True}), "schema-type"),
    ("policy loosened", judged_by(gate_with(mean_plcc=0.94)), "policy-looser"),
    ("spread loosened", judged_by(gate_with(plcc_spread=0.006)), "policy-looser"),
    ("rule removed", judged_by({"rules": gate_with()["rules"][:2]}), "policy-looser"),
    ("policy emptied", judged_by({"rules": []}), "policy-looser"),
    ("policy removed", judged_by(None), "policy-looser"),
    ("policy manual", judged_by({"rules": [], "gate": "manual"}), "policy-looser"),
    ("policy manual, rules kept", judged_by({**gate_with(), "gate": "manual"}), "policy-looser"),
    ("judged by a stricter policy", forged(policy=STRICT), "policy-looser"),
]
COMPUTED: list[Any] = [  # found where the evidence is computed again
    ("verdict of other evidence", forged(evidence_sha256="0" * 64), "verdict-other"),
    ("verdict of no evidence", forged(evidence_sha256=None), "verdict-other"),
    ("metric polished", forged_metric("mean_plcc", lambda value: value + 1e-6), "verdict-disagrees"),
    ("metric left out", forged_metric("plcc_spread", lambda value: None), "verdict-disagrees"),
    ("a worst level left out", forged_metric("coverage_95_worst", lambda value: None), "verdict-disagrees"),
    ("an unasked figure left out", forged_metric("mean_srocc", lambda value: None), "verdict-disagrees"),
    ("metric made up", forged_metric("mos_plcc", lambda value: 0.99), "verdict-disagrees"),
    ("folds made up", forged_metric("n_folds", lambda value: value + 1), "verdict-disagrees"),
    ("policy raised", judged_by({"rules": [*gate_with()["rules"], *STRICT["rules"]]}), "policy-not-met"),
    ("no rule in both", no_rules, "policy-not-met"),
    ("verdict by no rules", forged(policy={"rules": []}), "verdict-disagrees"),
    ("verdict by hand", forged(policy={"rules": [], "gate": "manual"}), "verdict-disagrees"),
    ("unknown metric asked", judged_by({"rules": [*gate_with()["rules"], UNKNOWN]}), "policy-not-met"),
]


def before_sources(box: Sandbox) -> None:
    """A verdict of a release that measured nothing over sources."""
    metrics = box.verdict["metrics"]
    later = ("coverage_", "sigma_ratio", "mean_plcc_low", "mean_plcc_high", "vmaf")
    fewer = {name: value for name, value in metrics.items() if not name.startswith(later)}
    box.forge_verdict(metrics=fewer, metrics_version=1)


# Another policy in the verdict that the registry's is not looser than, or a stricter registry that is still met.
ALLOWED: list[Any] = [
    ("judged by a looser policy", forged(policy=HALF)),
    ("policy tightened, still met", judged_by(gate_with(mean_plcc=0.96))),
    ("another version's field in the policy", judged_by({**gate_with(), "of_another_version": 1})),
    ("another version's field in the verdict", forged(of_another_version=1)),
    ("verdict of an older release", before_sources),
    ("plugins of another version", forged(plugins={"fr_ensemble": "9.9"})),
]


@pytest.mark.parametrize(("what", "mutate", "code"), ALWAYS, ids=[case[0] for case in ALWAYS])
def test_a_production_entry_without_right_is_an_error(
    production: Sandbox, what: str, mutate: Mutation, code: str
) -> None:
    """At both levels, on that entry, and nothing else is said."""
    mutate(production)
    for level in Level:
        found = [f for f in production.findings(level) if f.severity == "error"]
        assert ({f.code for f in found}, {f.entry for f in found}) == ({code}, {"tiny"})
        assert all(f.file in ("registry.json", production.entry.get("promotion", {}).get("verdict")) for f in found)
        assert all(f.line is not None for f in found)


@pytest.mark.parametrize(("what", "mutate", "code"), COMPUTED, ids=[case[0] for case in COMPUTED])
def test_figures_are_computed_again(production: Sandbox, what: str, mutate: Mutation, code: str) -> None:
    """A stored figure or claim that the evidence does not bear out is an error of a full run."""
    mutate(production)
    assert production.codes() == [code]
    assert production.codes(Level.QUICK) == []


@pytest.mark.parametrize(("what", "mutate"), ALLOWED, ids=[case[0] for case in ALLOWED])
def test_no_false_alarm(production: Sandbox, what: str, mutate: Mutation) -> None:
    """What is no weaker than what was judged stays valid."""
    mutate(production)
    assert production.codes() == []


@pytest.mark.parametrize("level", list(Level))
def test_a_smoke_entry_made_production_by_hand_is_an_error(smoke: Sandbox, level: Level) -> None:
    """Editing `smoke: false` promotes nothing, and the message names the command that does."""
    smoke.edit_entry(smoke=False)
    [finding] = [f for f in smoke.findings(level) if f.severity == "error"]
    assert (finding.code, finding.pointer) == ("promotion-missing", "/models/0/smoke")
    assert "registry flip tiny" in str(finding)


@pytest.mark.parametrize("level", list(Level))
def test_random_rows_are_never_production(random_rows: Sandbox, level: Level) -> None:
    """Not by hand, not with a promotion that says anything at all."""
    for promotion in (None, {"manual": True, "reason": "x"}, {"imported_from": "0" * 64}):
        random_rows.edit_entry(smoke=False, promotion=promotion)
        assert random_rows.codes(level) == ["promotion-random-rows"]


def test_a_verdict_is_not_taken_from_its_neighbour(production: Sandbox) -> None:
    """A second entry with the same artefacts cannot use the first one's verdict."""

    def add(document: dict[str, Any]) -> None:
        document["models"].append({**document["models"][0], "id": "other"})

    production.edit(add)
    found = {(f.entry, f.code) for f in production.findings() if f.severity == "error"}
    assert {("other", "folder-wrong"), ("other", "entry-disagrees")} & found
    assert "tiny" not in {entry for entry, _ in found}


def test_a_renamed_entry_is_told_that_ids_do_not_change(production: Sandbox) -> None:
    """Training again under the old name helps nobody there: the hint names the way back, which works."""
    production.edit_entry(id="other")
    renamed = {f.code: f.hint for f in production.findings() if f.code in ("folder-wrong", "entry-disagrees")}
    assert set(renamed) == {"folder-wrong", "entry-disagrees"}
    assert all("write tiny back" in str(hint) for hint in renamed.values())
    production.edit(lambda document: document["models"][0].update(id="tiny"))
    assert production.codes() == []


def test_findings_on_a_verdict_stand_in_it(production: Sandbox) -> None:
    """A forged figure is found in the verdict's file, at its line."""
    production.forge_verdict(entry="other")
    [finding] = [f for f in production.findings() if f.severity == "error"]
    path = production.entry["promotion"]["verdict"]
    assert (finding.file, finding.pointer) == (path, "/entry")
    assert finding.line is not None
    assert '"entry": "other"' in (production.folder / path).read_text().splitlines()[finding.line - 1]


# ---- another plugin's kind ---------------------------------------------------------------------------------------


def thumb_plugin(evidence: object) -> Any:
    class Gated(Thumbs):
        @hookimpl
        def registry_gate(self, view: object, request: object) -> Any:
            if isinstance(evidence, Exception):
                raise evidence
            return evidence

    return with_plugin(Gated())


def promoted(box: Sandbox, score: float) -> None:
    """Make the thumb entry production on a verdict that fits it."""
    verdict = {
        "schema_version": 2,
        "entry": "t",
        "verdict": "PROMOTE",
        "manifest_sha256": box.entry["sha256"],
        "evidence_sha256": "0" * 64,
        "summary_only": False,
        "policy": box.registry["policies"]["thumb"],
        "metrics": {"score": score},
        "reasons": [],
        "plugins": {},
    }
    where = box.folder / "t" / "verdicts" / "PROMOTE-000000000000.json"
    where.parent.mkdir(parents=True)
    where.write_bytes(to_json(verdict))
    pin = {"verdict": "t/verdicts/PROMOTE-000000000000.json", "sha256": sha256(to_json(verdict))}
    box.edit_entry(smoke=False, promotion=pin)


@pytest.mark.parametrize(
    ("evidence", "codes"),
    [
        (Evidence({"score": 0.8}, sha256="0" * 64), []),
        (Evidence({"score": 0.8}, sha256="1" * 64), ["verdict-other"]),
        (Evidence({"score": 0.7}, sha256="0" * 64), ["verdict-disagrees"]),
        (Evidence({"score": 0.4}, sha256="0" * 64), ["policy-not-met", "verdict-disagrees"]),
        (Evidence({"score": float("nan")}, sha256="0" * 64), ["policy-not-met", "verdict-disagrees"]),
        (Evidence({}, sha256="0" * 64), ["policy-not-met", "verdict-disagrees"]),
        (Evidence({"score": 0.8}, ("a fold is missing",), sha256="0" * 64), ["policy-not-met"]),
        (InputError("no evidence: make some"), ["evidence-unusable"]),
        (RuntimeError("a bug"), ["evidence-unusable"]),
        (None, ["evidence-unusable"]),
        ("text", ["evidence-unusable"]),
    ],
    ids=str,
)
def test_the_owners_evidence_decides(thumb: Sandbox, evidence: Any, codes: list[str]) -> None:
    """Whatever the owner of the kind measures is held against the verdict and the policy; a failure is never a pass."""
    promoted(thumb, 0.8)
    assert thumb.codes(plugins=thumb_plugin(evidence)) == codes


def test_summary_only_evidence_clears_no_production_entry(thumb: Sandbox) -> None:
    """An owner that now has summaries alone has nothing to show for what ships."""
    promoted(thumb, 0.8)
    evidence = Evidence({"score": 0.8}, summary_only=True, sha256="0" * 64)
    assert thumb.codes(plugins=thumb_plugin(evidence)) != []


def test_a_kind_without_a_gate_is_promoted_by_a_person(thumb: Sandbox, registry: Program) -> None:
    """Under a manual policy `manual` is enough to validate; under rules it is not."""
    plugins = with_plugin(Thumbs())
    thumb.edit_entry(smoke=False, promotion={"manual": True, "reason": "looked at it"})
    assert thumb.codes(plugins=plugins) == ["promotion-kind"]
    thumb.edit(set_policy("thumb", MANUAL))
    assert thumb.codes(plugins=plugins) == []
    assert registry("validate", thumb.path, plugins=plugins).code == 0
