"""Tests of gate.py and promote.py: what is judged, what is written, and what no fraud gets past."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from disks import failing
from policies import MANUAL, set_bound, set_policy
from sandbox import Sandbox, sha256, to_json
from thumbs import Thumbs, with_plugin

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.errors import InputError, RegistryError, RejectedError, WorldError
from registry_tool.hookspec import hookimpl
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Evidence, Verdict
from registry_tool.workflows.gate import gate, write_verdict
from registry_tool.workflows.promote import demote, flip, repromote

DEFAULT = {"mean_plcc", "plcc_spread", "min_seed_plcc"}


def manual(box: Sandbox) -> None:
    box.edit(set_policy("thumb", MANUAL))


def gated(**evidence: Any) -> Plugins:
    """The installed plugins and `thumb` with a gate that shows this evidence."""

    class Gated(Thumbs):
        @hookimpl
        def registry_gate(self, view: object, request: object) -> Evidence:
            return Evidence(**{"metrics": {"score": 0.9}, "sha256": "0" * 64, **evidence})

    return with_plugin(Gated())


# ---- gate -------------------------------------------------------------------------------------------------------


def test_a_sound_ensemble_is_promoted(smoke: Sandbox, plugins: Plugins) -> None:
    """The verdict names the manifest, the policy in full and every metric; nothing is written."""
    before = smoke.tree()
    verdict = gate(smoke.path, plugins, "tiny").verdict
    assert (verdict.decision, verdict.entry, verdict.summary_only) == ("PROMOTE", "tiny", False)
    assert verdict.manifest_sha256 == smoke.entry["sha256"]
    assert set(verdict.metrics) >= DEFAULT
    assert verdict.policy.to_dict() == smoke.registry["policies"]["fr_ensemble"]
    assert set(verdict.plugins) >= {"fr_ensemble", "onnx_kinds"}
    assert smoke.tree() == before


def test_the_gate_is_deterministic(smoke: Sandbox, plugins: Plugins) -> None:
    """Two runs give the same bytes: a verdict has no clock in it."""
    one, two = (to_json(gate(smoke.path, plugins, "tiny").verdict.to_dict()) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("metric", "value"), [("mean_plcc", 0.99999), ("plcc_spread", 0.0), ("min_seed_plcc", 1.0)])
def test_a_bar_that_is_not_reached_is_hold(smoke: Sandbox, plugins: Plugins, metric: str, value: float) -> None:
    """Each rule of the policy holds an entry by itself, and the reason names it."""
    smoke.edit(set_bound(metric, value))
    verdict = gate(smoke.path, plugins, "tiny").verdict
    assert verdict.decision == "HOLD"
    assert [reason.split()[0] for reason in verdict.reasons] == [metric]


@pytest.mark.parametrize("policy", [None, {"rules": []}, {"gate": "manual", "rules": []}])
def test_a_policy_that_asks_nothing_is_hold(smoke: Sandbox, plugins: Plugins, policy: Any) -> None:
    """No policy, no rules, a manual one: evidence promotes nothing by them."""
    smoke.edit(lambda document: document.update(policies={} if policy is None else {"fr_ensemble": policy}))
    assert gate(smoke.path, plugins, "tiny").verdict.decision == "HOLD"


def test_random_rows_are_hold(random_rows: Sandbox, plugins: Plugins) -> None:
    """However good the figures of random rows look, the first reason says what they are."""
    random_rows.edit(
        lambda document: document.update(
            policies={"fr_ensemble": {"rules": [{"metric": "n_rows", "op": ">=", "bound": 1}]}}
        )
    )
    verdict = gate(random_rows.path, plugins, "tiny").verdict
    assert verdict.decision == "HOLD"
    assert "random rows" in verdict.reasons[0]


def test_bytes_that_do_not_hold_are_not_judged(smoke: Sandbox, plugins: Plugins) -> None:
    """Evidence that is not the pinned one is rejected before anything is measured."""
    path = smoke.artifacts / "evidence" / "oof.npz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RejectedError, match="sha256"):
        gate(smoke.path, plugins, "tiny")


def test_a_kind_without_a_gate_cannot_be_judged(thumb: Sandbox) -> None:
    """That is neither PROMOTE nor HOLD: exit code 2, and how such a kind is flipped."""
    with pytest.raises(InputError, match=r"no gate.*with .*manual.* in its policy a person promotes it.*--reason"):
        gate(thumb.path, with_plugin(Thumbs()), "t")


# ---- flip -------------------------------------------------------------------------------------------------------


def test_a_flip_changes_the_entry_and_writes_its_verdict(smoke: Sandbox, plugins: Plugins) -> None:
    """smoke: false and a pinned verdict, nothing else anywhere; what another version wrote survives; it validates."""
    smoke.edit(lambda document: document.update(of_another_version={"x": 1}))
    smoke.edit(lambda document: document["policies"]["fr_ensemble"].update(of_another_version=2))
    smoke.edit_entry(of_another_version=[3])
    before, entry, document = smoke.tree(), smoke.entry, smoke.registry
    done = flip(smoke.path, plugins, "tiny")
    assert (done.done, done.entry.smoke) == (True, False)
    after = smoke.tree()
    assert set(after) - set(before) == {done.verdict_path}
    assert [name for name in before if before[name] != after[name]] == ["registry.json"]
    data = after[str(done.verdict_path)]
    promotion = {"verdict": done.verdict_path, "sha256": sha256(data)}
    assert smoke.entry == {**entry, "smoke": False, "promotion": promotion}
    assert {**smoke.registry, "models": document["models"]} == document
    assert done.verdict_path == f"tiny/verdicts/PROMOTE-{sha256(data)[:12]}.json"
    assert Verdict.from_dict(json.loads(data)).promotes
    assert violations(json.loads(data), schemas.load("verdict")) == []
    assert smoke.codes() == []


def test_a_second_flip_is_refused(production: Sandbox, plugins: Plugins) -> None:
    """An entry that is production has nothing to flip; not a byte changes."""
    before = production.tree()
    with pytest.raises(RejectedError, match="production already"):
        flip(production.path, plugins, "tiny")
    assert production.tree() == before


def test_a_production_entry_is_judged_again_by_the_policy_of_today(production: Sandbox, plugins: Plugins) -> None:
    """After a policy changed, the new verdict takes the place of the old one, and the registry validates."""
    before, verdict = production.registry, production.verdict
    production.edit(set_bound("mean_plcc", 0.5))
    assert "policy-looser" in production.codes()
    done = repromote(production.path, plugins, "tiny")
    assert (done.done, done.entry.smoke, production.codes()) == (True, False, [])
    assert production.verdict["policy"] != verdict["policy"]
    pinned = {"verdict": done.verdict_path, "sha256": sha256((production.folder / str(done.verdict_path)).read_bytes())}
    (old,), (new,) = before["models"], production.registry["models"]
    assert new == {**old, "promotion": pinned}


def test_a_hold_leaves_the_old_promotion(production: Sandbox, plugins: Plugins) -> None:
    """An entry that does not meet the policy of today stays as it is; validate says that it does not."""
    production.edit(set_bound("mean_plcc", 0.99999))
    before = production.tree()
    done = repromote(production.path, plugins, "tiny")
    assert (done.done, done.entry.smoke, production.tree()) == (False, False, before)
    assert production.codes() == ["policy-not-met"]


def test_a_smoke_entry_is_not_promoted_again(smoke: Sandbox, plugins: Plugins) -> None:
    """What is smoke is flipped; not a byte changes."""
    before = smoke.tree()
    with pytest.raises(RejectedError, match="registry flip tiny"):
        repromote(smoke.path, plugins, "tiny")
    assert smoke.tree() == before


def test_a_manual_promotion_is_repeated_with_a_reason(thumb: Sandbox) -> None:
    """Under a manual policy the new reason takes the place of the old one."""
    plugins = with_plugin(Thumbs())
    thumb.edit(set_policy("thumb", MANUAL))
    flip(thumb.path, plugins, "t", "by eye")
    with pytest.raises(InputError, match="--reason"):
        repromote(thumb.path, plugins, "t")
    repromote(thumb.path, plugins, "t", "by two pairs of eyes")
    assert thumb.entry["promotion"] == {"manual": True, "reason": "by two pairs of eyes"}


def test_a_hold_flips_nothing(smoke: Sandbox, plugins: Plugins) -> None:
    """No verdict is written, the entry stays smoke."""
    smoke.edit(set_bound("mean_plcc", 0.99999))
    before = smoke.tree()
    done = flip(smoke.path, plugins, "tiny")
    assert (done.done, done.verdict_path) == (False, None)
    assert smoke.tree() == before


def test_random_rows_flip_nothing(random_rows: Sandbox, plugins: Plugins) -> None:
    """Not under a policy they would clear, nor by a person's word."""
    easy = {"rules": [{"metric": "n_rows", "op": ">=", "bound": 1}]}
    cases: list[tuple[Any, str | None]] = [(easy, None), ({"gate": "manual", "rules": []}, "I like it")]
    for policy, reason in cases:
        random_rows.path.write_bytes(to_json({**random_rows.registry, "policies": {"fr_ensemble": policy}}))
        before = random_rows.tree()
        with pytest.raises(RejectedError, match="random rows"):
            flip(random_rows.path, plugins, "tiny", reason)
        assert random_rows.tree() == before


def test_an_entry_that_does_not_validate_is_not_flipped(smoke: Sandbox, plugins: Plugins) -> None:
    """A digest that does not hold, or a finding of any plugin, refuses the flip."""

    class Strict:
        @hookimpl
        def registry_verify(self, view: Any, level: Any) -> Any:
            return [view.finding("strict-no", "not today")]

    before = smoke.tree()
    with pytest.raises(RejectedError, match="not today"):
        flip(smoke.path, with_plugin(Strict()), "tiny")
    assert smoke.tree() == before
    (smoke.artifacts / "tiny_seed0.onnx").write_bytes(b"x")
    with pytest.raises(RejectedError, match="sha256"):
        flip(smoke.path, plugins, "tiny")


def test_summary_only_evidence_flips_nothing(thumb: Sandbox) -> None:
    """Evidence without predictions, or without a digest, is no ground for production."""
    before = thumb.tree()
    for evidence in ({"summary_only": True}, {"sha256": None}):
        with pytest.raises(RejectedError):
            flip(thumb.path, gated(**evidence), "t")
    assert thumb.tree() == before


def test_another_plugins_kind_is_flipped(thumb: Sandbox) -> None:
    """A single model whose plugin has a gate is flipped like an ensemble, and validates afterwards."""
    plugins = gated()
    done = flip(thumb.path, plugins, "t")
    assert (done.done, thumb.entry["smoke"]) == (True, False)
    assert thumb.codes(plugins=plugins) == []


def test_a_reason_decides_only_where_the_policy_lets_it(thumb: Sandbox) -> None:
    """A manual policy needs a reason; a policy of rules takes none."""
    with pytest.raises(InputError, match="--reason"):
        flip(thumb.path, gated(), "t", "because")
    manual(thumb)
    for reason in (None, ""):
        with pytest.raises(InputError, match="--reason"):
            flip(thumb.path, gated(), "t", reason)
    flip(thumb.path, gated(), "t", "compared by eye")
    assert thumb.entry["promotion"] == {"manual": True, "reason": "compared by eye"}
    assert thumb.codes(plugins=gated()) == []


@pytest.mark.parametrize("reason", ["x" * 513, " ", "\n", "bad\u202etxt", "bell\a", "\udc80"])
def test_a_reason_that_no_registry_can_hold_is_refused(thumb: Sandbox, reason: str) -> None:
    """Too long, blank, invisible or undecodable: refused in one line, for a flip and for a demotion."""
    manual(thumb)
    before = thumb.tree()
    with pytest.raises(InputError, match="--reason"):
        flip(thumb.path, gated(), "t", reason)
    assert thumb.tree() == before
    flip(thumb.path, gated(), "t", "fine")
    before = thumb.tree()
    with pytest.raises(InputError, match="--reason"):
        demote(thumb.path, "t", reason)
    assert thumb.tree() == before


def test_nothing_is_written_through_a_link(smoke: Sandbox, plugins: Plugins, tmp_path: Path) -> None:
    """A link in place of the folder of verdicts leads nobody out of the registry's folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (smoke.folder / "tiny" / "verdicts").symlink_to(outside)
    before = smoke.path.read_bytes()
    with pytest.raises((RejectedError, InputError, WorldError)):
        flip(smoke.path, plugins, "tiny")
    assert (list(outside.iterdir()), smoke.path.read_bytes()) == ([], before)


def test_an_id_that_stands_twice_is_not_flipped(thumb: Sandbox) -> None:
    """Flip and demote refuse a registry with a duplicate id, rather than lose one of the two."""
    thumb.edit(lambda document: document["models"].append(dict(document["models"][0])))
    before = thumb.tree()
    with pytest.raises((RejectedError, InputError), match="twice"):
        flip(thumb.path, gated(), "t")
    assert thumb.tree() == before


@pytest.mark.parametrize(
    ("operation", "number"),
    [("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EROFS), ("open", errno.EACCES)],
)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_flip_on_a_failing_disk_is_all_or_nothing(
    smoke: Sandbox, plugins: Plugins, operation: str, number: int, after: int
) -> None:
    """It is flipped whole, or a clear error says that it is not; the registry validates in either case."""
    failed = False
    with failing(operation, number, after):
        try:
            flip(smoke.path, plugins, "tiny")
        except RegistryError:
            failed = True
    if not failed:  # an fsync of the folder may fail after the rename
        assert not smoke.entry["smoke"]
    assert smoke.codes() == []


def test_two_flips_at_once_are_one_success_and_one_refusal(smoke: Sandbox) -> None:
    """Real processes: one exits with 0, the other is told that the entry is production already."""
    command = [sys.executable, "-m", "registry_tool", "flip", "tiny", "--registry", str(smoke.path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(run.communicate(timeout=60), run.returncode) for run in runs]
    assert sorted(code for _, code in ends) == [0, 1]
    assert any("production already" in err for (_, err), code in ends if code == 1)
    assert smoke.codes() == []


# ---- demote -----------------------------------------------------------------------------------------------------


def test_a_demotion_says_why_and_can_be_undone(production: Sandbox, plugins: Plugins) -> None:
    """smoke again, the reason and the manifest it speaks of in the entry; a later flip takes it away."""
    production.edit_entry(of_another_version=[3])
    entry = production.entry
    demote(production.path, "tiny", "drifts on screen content")
    expected = {key: value for key, value in entry.items() if key != "promotion"} | {"smoke": True}
    demotion = {"reason": "drifts on screen content", "manifest_sha256": entry["sha256"]}
    assert production.entry == {**expected, "demotion": demotion}
    assert production.codes() == []
    assert flip(production.path, plugins, "tiny").done
    assert production.entry == entry
    assert production.codes() == []


@pytest.mark.parametrize("reason", ["", "  ", "\n", "x" * 513])
def test_a_demotion_needs_a_reason(production: Sandbox, reason: str) -> None:
    """Nothing, blanks or a novel: refused, nothing written."""
    before = production.tree()
    with pytest.raises(InputError, match="--reason"):
        demote(production.path, "tiny", reason)
    assert production.tree() == before


def test_a_smoke_entry_cannot_be_demoted(smoke: Sandbox) -> None:
    """There is nothing to take back."""
    with pytest.raises(RejectedError, match="smoke already"):
        demote(smoke.path, "tiny", "x")


def test_a_broken_entry_can_be_demoted(production: Sandbox) -> None:
    """Taking a model out of production needs none of its files."""
    for path in production.artifacts.glob("*.onnx"):
        path.unlink()
    demote(production.path, "tiny", "its files are gone")
    assert production.entry["smoke"]


def test_unknown_ids_and_old_registries_are_bad_input(smoke: Sandbox, plugins: Plugins, tmp_path: Path) -> None:
    """Flip and demote name what is there; version 1 has no promotions."""
    for call in (lambda: flip(smoke.path, plugins, "timy"), lambda: demote(smoke.path, "timy", "x")):
        with pytest.raises(InputError, match="expected one of: tiny"):
            call()
    row = tiny_models.entry(tmp_path, tiny_models.model())
    (tmp_path / "registry.json").write_bytes(to_json({"schema_version": 1, "models": [row]}))
    with pytest.raises(InputError, match="expected 2"):
        flip(tmp_path / "registry.json", plugins, "m")


def test_a_verdict_can_be_written_for_people(smoke: Sandbox, tmp_path: Path, plugins: Plugins) -> None:
    """write_verdict writes what `flip` would pin, and says so where it cannot."""
    verdict = gate(smoke.path, plugins, "tiny").verdict
    write_verdict(tmp_path / "v.json", verdict)
    assert Verdict.from_dict(json.loads((tmp_path / "v.json").read_bytes())) == verdict
    with pytest.raises(WorldError):
        write_verdict(tmp_path / "no" / "v.json", verdict)
