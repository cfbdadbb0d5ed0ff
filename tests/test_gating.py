"""Tests of gating.py: gate, flip and demote; what is judged, what is written, and what no fraud gets past."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from conftest import Made, Thumbs, with_plugin, write_corpus
from sandbox import Sandbox, sha256, to_json

from registry_tool import files, gating, schemas
from registry_tool.errors import InputError, RegistryError, RejectedError, WorldError
from registry_tool.hookspec import hookimpl
from registry_tool.plugins import Plugins, load
from registry_tool.schema import violations
from registry_tool.values import Evidence, Verdict

DEFAULT = {"mean_plcc", "plcc_spread", "min_seed_plcc"}


def bound(metric: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for rule in document["policies"]["fr_ensemble"]["rules"]:
            if rule["metric"] == metric:
                rule["bound"] = value

    return change


def manual(box: Sandbox) -> None:
    box.edit(lambda document: document["policies"].update(thumb={"gate": "manual", "rules": []}))


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
    verdict = gating.gate(smoke.path, plugins, "tiny").verdict
    assert (verdict.decision, verdict.entry, verdict.summary_only) == ("PROMOTE", "tiny", False)
    assert verdict.manifest_sha256 == smoke.entry["sha256"]
    assert set(verdict.metrics) >= DEFAULT
    assert verdict.policy.to_dict() == smoke.registry["policies"]["fr_ensemble"]
    assert set(verdict.plugins) >= {"fr_ensemble", "onnx_kinds"}
    assert smoke.tree() == before


def test_the_gate_is_deterministic(smoke: Sandbox, plugins: Plugins) -> None:
    """Two runs give the same bytes: a verdict has no clock in it."""
    one, two = (to_json(gating.gate(smoke.path, plugins, "tiny").verdict.to_dict()) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("metric", "value"), [("mean_plcc", 0.99999), ("plcc_spread", 0.0), ("min_seed_plcc", 1.0)])
def test_a_bar_that_is_not_reached_is_hold(smoke: Sandbox, plugins: Plugins, metric: str, value: float) -> None:
    """Each rule of the policy holds an entry by itself, and the reason names it."""
    smoke.edit(bound(metric, value))
    verdict = gating.gate(smoke.path, plugins, "tiny").verdict
    assert verdict.decision == "HOLD"
    assert [reason.split()[0] for reason in verdict.reasons] == [metric]


@pytest.mark.parametrize("policy", [None, {"rules": []}, {"gate": "manual", "rules": []}])
def test_a_policy_that_asks_nothing_is_hold(smoke: Sandbox, plugins: Plugins, policy: Any) -> None:
    """No policy, no rules, a manual one: evidence promotes nothing by them."""
    smoke.edit(lambda document: document.update(policies={} if policy is None else {"fr_ensemble": policy}))
    assert gating.gate(smoke.path, plugins, "tiny").verdict.decision == "HOLD"


def test_random_rows_are_hold(random_rows: Sandbox, plugins: Plugins) -> None:
    """However good the figures of random rows look, the first reason says what they are."""
    random_rows.edit(lambda document: document.update(policies={"fr_ensemble": {"rules": [
        {"metric": "n_rows", "op": ">=", "bound": 1}]}}))  # fmt: skip
    verdict = gating.gate(random_rows.path, plugins, "tiny").verdict
    assert verdict.decision == "HOLD"
    assert "random rows" in verdict.reasons[0]


def test_bytes_that_do_not_hold_are_not_judged(smoke: Sandbox, plugins: Plugins) -> None:
    """Evidence that is not the pinned one is rejected before anything is measured."""
    path = smoke.run / "evidence" / "oof.npz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RejectedError, match="sha256"):
        gating.gate(smoke.path, plugins, "tiny")


def test_a_kind_without_a_gate_cannot_be_judged(thumb: Sandbox) -> None:
    """That is neither PROMOTE nor HOLD: exit code 2, and how such a kind is flipped."""
    with pytest.raises(InputError, match=r"no gate.*manual.*--reason"):
        gating.gate(thumb.path, with_plugin(Thumbs()), "t")


# ---- gate --evidence --------------------------------------------------------------------------------------------

Files = dict[str, bytes]


@pytest.fixture
def summaries(smoke: Sandbox, tmp_path: Path) -> Callable[[Files], Path]:
    """A folder with these files in place of (None: without) the three seeds' public summaries."""

    def make(changed: dict[str, bytes | None]) -> Path:
        folder = tmp_path / "loso"
        folder.mkdir()
        good = {path.name: path.read_bytes() for path in smoke.run.glob("evidence/*.json")}
        for name, data in {**good, **changed}.items():
            if data is not None:
                (folder / name).write_bytes(data)
        return folder

    return make  # type: ignore[return-value]  # a callable of the same shape


def load_seed(smoke: Sandbox, seed: int) -> dict[str, Any]:
    """One seed's summary as the public tools write it: figures, and no digest."""
    document: dict[str, Any] = json.loads((smoke.run / f"evidence/loso_seed{seed}.json").read_bytes())
    return {key: value for key, value in document.items() if not key.endswith("sha256")}


def consistent(document: dict[str, Any]) -> dict[str, Any]:
    """With the means that its folds have."""
    folds = document["folds"]
    for name in ("plcc", "srocc", "rmse"):
        document[f"mean_{name}"] = sum(fold[name] for fold in folds) / len(folds)
    mean = document["mean_plcc"]
    document["std_plcc"] = (sum((fold["plcc"] - mean) ** 2 for fold in folds) / (len(folds) - 1)) ** 0.5
    return document | {"n_folds": len(folds)}


def foreign(box: Sandbox, folder: Path, entry: str | None = None, corpus: Path | None = None) -> Verdict:
    return gating.gate_foreign(box.path, load(), entry, "fr_ensemble", folder, corpus).verdict


def test_public_summaries_are_judged_and_marked(smoke: Sandbox, summaries: Any, made: Made) -> None:
    """Good ones get PROMOTE on summary-only evidence, with an id, with a corpus, and with no registry at all."""
    folder = summaries({})
    for seed in range(3):
        (folder / f"loso_seed{seed}.json").write_bytes(to_json(load_seed(smoke, seed)))
    for entry, corpus in ((None, None), ("tiny", None), (None, made.corpus), ("tiny", made.corpus)):
        verdict = foreign(smoke, folder, entry, corpus)
        assert (verdict.reasons, verdict.promotes, verdict.summary_only) == ((), True, True)
    judgement = gating.gate_foreign(None, load(), None, None, folder, None)
    assert judgement.verdict.promotes
    assert judgement.verdict.manifest_sha256 is None
    assert judgement.verdict.policy == load().kinds["fr_ensemble"].default_policy


def copied(smoke: Sandbox) -> dict[str, Any]:
    """Five copies of one seed's result under five names."""
    data = to_json(load_seed(smoke, 0))
    return {f"loso_seed{seed}.json": data for seed in range(5)}


def relabelled(smoke: Sandbox) -> dict[str, Any]:
    """The same with each file's seed made to fit its name."""
    return {f"loso_seed{seed}.json": to_json(load_seed(smoke, 0) | {"seed": seed}) for seed in range(5)}


def repeated(smoke: Sandbox) -> dict[str, Any]:
    """Seed 0 a second time under another spelling of 0."""
    return {"loso_seed00.json": to_json(load_seed(smoke, 1) | {"seed": 0})}


def one_seed(smoke: Sandbox) -> dict[str, Any]:
    return {"loso_seed1.json": None, "loso_seed2.json": None}


def fold(**fields: Any) -> Callable[[Sandbox], dict[str, Any]]:
    """Figures of seed 0's first fold, with means that fit."""

    def change(smoke: Sandbox) -> dict[str, Any]:
        document = load_seed(smoke, 0)
        document["folds"][0] |= fields
        numbers = all(type(value) in (int, float) for value in fields.values())
        return {"loso_seed0.json": to_json(consistent(document) if numbers else document)}

    return change


def seed(change: Callable[[dict[str, Any]], Any], fit: bool = False) -> Callable[[Sandbox], dict[str, Any]]:
    """Seed 0's summary changed; fit: with means that fit."""

    def changed(smoke: Sandbox) -> dict[str, Any]:
        document = load_seed(smoke, 0)
        change(document)
        return {"loso_seed0.json": to_json(consistent(document) if fit else document)}

    return changed


def literal(word: bytes) -> Callable[[Sandbox], dict[str, Any]]:
    """Seed 0's mean PLCC as this JSON literal."""

    def changed(smoke: Sandbox) -> dict[str, Any]:
        document = load_seed(smoke, 0)
        text = to_json(document).replace(f'"mean_plcc": {document["mean_plcc"]}'.encode(), b'"mean_plcc": ' + word)
        return {"loso_seed0.json": text}

    return changed


FRAUDS: list[tuple[str, Callable[[Sandbox], dict[str, Any]], str]] = [
    ("five copies of one seed", copied, "seed"),
    ("five copies, relabelled", relabelled, "same figures"),
    ("one seed twice", repeated, "seed 0"),
    ("one seed alone", one_seed, "at least 2"),
    ("PLCC 1.3", fold(plcc=1.3), "from -1 to 1"),
    ("PLCC -1.5", fold(plcc=-1.5), "-1 to 1"),
    ("a fold's PLCC as text", fold(plcc="0.99"), "plcc"),
    ("a fold's PLCC as a boolean", fold(plcc=True), "plcc"),
    ("a fold's PLCC as null", fold(plcc=None), "plcc"),
    ("a negative RMSE", fold(rmse=-1.0), "rmse"),
    ("the mean as NaN", literal(b"NaN"), "mean_plcc"),
    ("the mean as infinity", literal(b"Infinity"), "mean_plcc"),
    ("the mean as a boolean", literal(b"true"), "mean_plcc"),
    ("the mean as text", literal(b'"0.99"'), "mean_plcc"),
    ("the mean as null", literal(b"null"), "mean_plcc"),
    ("the mean polished", literal(b"0.9999"), "mean_plcc"),
    ("the mean said twice", literal(b'0.99, "mean_plcc": 0.99'), "mean_plcc"),
    ("the spread polished", seed(lambda d: d.update(std_plcc=0.0)), "std_plcc"),
    ("a fold missing", seed(lambda d: d["folds"].pop(), fit=True), "fold"),
    ("a fold more", seed(lambda d: d["folds"].append(d["folds"][0] | {"held_out": "new"}), fit=True), "fold"),
    ("a fold twice", seed(lambda d: d["folds"].append(d["folds"][0]), fit=True), "2 times"),
    ("folds renamed", seed(lambda d: d["folds"][0].update(held_out="other")), "fold"),
    ("a source without a name", seed(lambda d: d["folds"][0].update(held_out=7)), "fold"),
    ("no folds", seed(lambda d: d.update(folds=[])), "folds"),
    ("folds that are none", seed(lambda d: d.update(folds={"a": 1})), "folds"),
    ("folds that are numbers", seed(lambda d: d.update(folds=[1, 2])), "folds"),
    ("n_folds wrong", seed(lambda d: d.update(n_folds=9)), "n_folds"),
    ("a source in its own training fold", fold(n_train=300), "own training fold"),
    ("rows as a boolean", fold(n_val=True), "counts"),
    ("no rows", fold(n_val=0), "counts"),
    ("a dry run", seed(lambda d: d.update(note="dry-run")), "dry run"),
    ("random rows", seed(lambda d: d.update(random_rows=True)), "dry run"),
    ("another corpus in one seed", seed(lambda d: d.update(corpus="other.csv")), "corpus"),
    ("another recipe in one seed", seed(lambda d: d.update(recipe_sha256="0" * 64)), "recipe"),
]


@pytest.mark.parametrize(("what", "make", "reason"), FRAUDS, ids=[fraud[0] for fraud in FRAUDS])
def test_no_fraud_passes(smoke: Sandbox, summaries: Any, what: str, make: Any, reason: str) -> None:
    """HOLD, with a reason that names the fault, though every mean looks fine."""
    plain = {f"loso_seed{n}.json": to_json(load_seed(smoke, n)) for n in range(3)}
    verdict = foreign(smoke, summaries({**plain, **make(smoke)}))
    assert verdict.decision == "HOLD"
    assert any(reason in line for line in verdict.reasons), verdict.reasons


@pytest.mark.parametrize("field", ["recipe_sha256", "corpus_sha256", "rows_sha256", "onnx_sha256"])
def test_evidence_of_another_run_is_hold(smoke: Sandbox, summaries: Any, made: Made, field: str) -> None:
    """Held against an entry and its corpus, a digest that the evidence carries must be the entry's own."""
    changed = {f"loso_seed{n}.json": to_json(load_seed(smoke, n) | {field: "0" * 64}) for n in range(3)}
    verdict = foreign(smoke, summaries(changed), "tiny", made.corpus)
    assert verdict.decision == "HOLD"
    assert any(field in line for line in verdict.reasons), verdict.reasons


def test_evidence_of_other_members_is_hold(smoke: Sandbox, summaries: Any) -> None:
    """The seeds must be those of the entry's members."""
    changed = {"loso_seed0.json": None, "loso_seed7.json": to_json(load_seed(smoke, 0) | {"seed": 7})}
    plain = {f"loso_seed{n}.json": to_json(load_seed(smoke, n)) for n in (1, 2)}
    verdict = foreign(smoke, summaries({**plain, **changed}), "tiny")
    assert verdict.decision == "HOLD"
    assert any("members" in line for line in verdict.reasons)


def test_evidence_is_held_against_a_corpus(smoke: Sandbox, summaries: Any, made: Made, tmp_path: Path) -> None:
    """The folds must be exactly the sources of the corpus, with as many rows each."""
    folder = summaries({f"loso_seed{n}.json": to_json(load_seed(smoke, n)) for n in range(3)})
    other = foreign(smoke, folder, None, made.heldout)
    assert other.decision == "HOLD"
    assert any("source" in line for line in other.reasons)
    short = write_corpus(tmp_path / "short.csv", 5, 59, seed=1)
    assert any("59 rows" in line for line in foreign(smoke, folder, None, short).reasons)


def test_evidence_that_cannot_be_read_is_bad_input(smoke: Sandbox, tmp_path: Path) -> None:
    """No folder, no files, no summaries, not JSON, a list: exit code 2, neither PROMOTE nor HOLD."""
    folder = tmp_path / "loso"
    with pytest.raises(InputError, match="no such folder"):
        foreign(smoke, folder)
    folder.mkdir()
    with pytest.raises(InputError, match="found 0 files"):
        foreign(smoke, folder)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="loso_seed"):
        foreign(smoke, folder)
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        (folder / "loso_seed0.json").write_bytes(data)
        with pytest.raises(InputError, match=r"loso_seed0\.json"):
            foreign(smoke, folder)
    (folder / "loso_seed0.json").unlink()
    (folder / "loso_seed0.json").symlink_to("/etc/hostname")
    with pytest.raises(InputError):
        foreign(smoke, folder)


def test_evidence_needs_a_kind_or_an_entry_that_is_there(smoke: Sandbox, summaries: Any) -> None:
    """An unknown id or kind is bad input."""
    folder = summaries({})
    with pytest.raises(InputError, match="no entry 'timy'"):
        foreign(smoke, folder, "timy")
    with pytest.raises(InputError, match="'thumb'"):
        gating.gate_foreign(None, load(), None, "thumb", folder, None)
    with pytest.raises(InputError, match="found no registry"):
        gating.gate_foreign(None, load(), "tiny", None, folder, None)


def test_a_raised_bar_holds_foreign_evidence_too(smoke: Sandbox, summaries: Any) -> None:
    """The policy is the registry's, not the plugin's default."""
    smoke.edit(bound("mean_plcc", 0.99999))
    assert foreign(smoke, summaries({})).decision == "HOLD"


# ---- flip -------------------------------------------------------------------------------------------------------


def test_a_flip_changes_the_entry_and_writes_its_verdict(smoke: Sandbox, plugins: Plugins) -> None:
    """smoke: false and a pinned verdict, nothing else anywhere; what another version wrote survives; it validates."""
    smoke.edit(lambda document: document.update(of_another_version={"x": 1}))
    smoke.edit(lambda document: document["policies"]["fr_ensemble"].update(of_another_version=2))
    smoke.edit_entry(of_another_version=[3])
    before, entry, document = smoke.tree(), smoke.entry, smoke.registry
    done = gating.flip(smoke.path, plugins, "tiny")
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
        gating.flip(production.path, plugins, "tiny")
    assert production.tree() == before


def test_a_hold_flips_nothing(smoke: Sandbox, plugins: Plugins) -> None:
    """No verdict is written, the entry stays smoke."""
    smoke.edit(bound("mean_plcc", 0.99999))
    before = smoke.tree()
    done = gating.flip(smoke.path, plugins, "tiny")
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
            gating.flip(random_rows.path, plugins, "tiny", reason)
        assert random_rows.tree() == before


def test_an_entry_that_does_not_validate_is_not_flipped(smoke: Sandbox, plugins: Plugins) -> None:
    """A digest that does not hold, or a finding of any plugin, refuses the flip."""

    class Strict:
        @hookimpl
        def registry_verify(self, view: Any, level: Any) -> Any:
            return [view.finding("strict-no", "not today")]

    before = smoke.tree()
    with pytest.raises(RejectedError, match="not today"):
        gating.flip(smoke.path, with_plugin(Strict()), "tiny")
    assert smoke.tree() == before
    (smoke.run / "tiny_seed0.onnx").write_bytes(b"x")
    with pytest.raises(RejectedError, match="sha256"):
        gating.flip(smoke.path, plugins, "tiny")


def test_summary_only_evidence_flips_nothing(thumb: Sandbox) -> None:
    """Evidence without predictions, or without a digest, is no ground for production."""
    before = thumb.tree()
    for evidence in ({"summary_only": True}, {"sha256": None}):
        with pytest.raises(RejectedError):
            gating.flip(thumb.path, gated(**evidence), "t")
    assert thumb.tree() == before


def test_another_plugins_kind_is_flipped(thumb: Sandbox) -> None:
    """A single model whose plugin has a gate is flipped like an ensemble, and validates afterwards."""
    plugins = gated()
    done = gating.flip(thumb.path, plugins, "t")
    assert (done.done, thumb.entry["smoke"]) == (True, False)
    assert thumb.codes(plugins=plugins) == []


def test_a_reason_decides_only_where_the_policy_lets_it(thumb: Sandbox) -> None:
    """A manual policy needs a reason; a policy of rules takes none."""
    with pytest.raises(InputError, match="--reason"):
        gating.flip(thumb.path, gated(), "t", "because")
    manual(thumb)
    for reason in (None, ""):
        with pytest.raises(InputError, match="--reason"):
            gating.flip(thumb.path, gated(), "t", reason)
    gating.flip(thumb.path, gated(), "t", "compared by eye")
    assert thumb.entry["promotion"] == {"manual": True, "reason": "compared by eye"}
    assert thumb.codes(plugins=gated()) == []


@pytest.mark.parametrize("reason", ["x" * 513, " ", "\n", "bad\u202etxt", "bell\a", "\udc80"])
def test_a_reason_that_no_registry_can_hold_is_refused(thumb: Sandbox, reason: str) -> None:
    """Too long, blank, invisible or undecodable: refused in one line, for a flip and for a demotion."""
    manual(thumb)
    before = thumb.tree()
    with pytest.raises(InputError, match="--reason"):
        gating.flip(thumb.path, gated(), "t", reason)
    assert thumb.tree() == before
    gating.flip(thumb.path, gated(), "t", "fine")
    before = thumb.tree()
    with pytest.raises(InputError, match="--reason"):
        gating.demote(thumb.path, "t", reason)
    assert thumb.tree() == before


def test_nothing_is_written_through_a_link(smoke: Sandbox, plugins: Plugins, tmp_path: Path) -> None:
    """A link in place of the folder of verdicts leads nobody out of the registry's folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (smoke.folder / "tiny" / "verdicts").symlink_to(outside)
    before = smoke.path.read_bytes()
    with pytest.raises((RejectedError, InputError, WorldError)):
        gating.flip(smoke.path, plugins, "tiny")
    assert (list(outside.iterdir()), smoke.path.read_bytes()) == ([], before)


def test_an_id_that_stands_twice_is_not_flipped(thumb: Sandbox) -> None:
    """Flip and demote refuse a registry with a duplicate id, rather than lose one of the two."""
    thumb.edit(lambda document: document["models"].append(dict(document["models"][0])))
    before = thumb.tree()
    with pytest.raises((RejectedError, InputError), match="twice"):
        gating.flip(thumb.path, gated(), "t")
    assert thumb.tree() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["_write", "_fsync", "_rename", "_open"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_flip_on_a_failing_disk_is_all_or_nothing(
    smoke: Sandbox, plugins: Plugins, monkeypatch: pytest.MonkeyPatch, operation: str, number: int, after: int
) -> None:
    """It is flipped whole, or a clear error says that it is not; the registry validates in either case."""
    calls, real = 0, getattr(files, operation)

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, "injected")
        return real(*arguments, **options)

    failed = False
    with monkeypatch.context() as patch:
        patch.setattr(files, operation, fail)
        try:
            gating.flip(smoke.path, plugins, "tiny")
        except RegistryError:
            failed = True
    assert failed or not smoke.entry["smoke"]
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
    gating.demote(production.path, "tiny", "drifts on screen content")
    expected = {key: value for key, value in entry.items() if key != "promotion"} | {"smoke": True}
    demotion = {"reason": "drifts on screen content", "manifest_sha256": entry["sha256"]}
    assert production.entry == {**expected, "demotion": demotion}
    assert production.codes() == []
    assert gating.flip(production.path, plugins, "tiny").done
    assert production.entry == entry
    assert production.codes() == []


@pytest.mark.parametrize("reason", ["", "  ", "\n", "x" * 513])
def test_a_demotion_needs_a_reason(production: Sandbox, reason: str) -> None:
    """Nothing, blanks or a novel: refused, nothing written."""
    before = production.tree()
    with pytest.raises(InputError, match="--reason"):
        gating.demote(production.path, "tiny", reason)
    assert production.tree() == before


def test_a_smoke_entry_cannot_be_demoted(smoke: Sandbox) -> None:
    """There is nothing to take back."""
    with pytest.raises(RejectedError, match="smoke already"):
        gating.demote(smoke.path, "tiny", "x")


def test_a_broken_entry_can_be_demoted(production: Sandbox) -> None:
    """Taking a model out of production needs none of its files."""
    for path in production.run.glob("*.onnx"):
        path.unlink()
    gating.demote(production.path, "tiny", "its files are gone")
    assert production.entry["smoke"]


def test_unknown_ids_and_old_registries_are_bad_input(smoke: Sandbox, plugins: Plugins, tmp_path: Path) -> None:
    """Flip and demote name what is there; version 1 has no promotions."""
    for call in (lambda: gating.flip(smoke.path, plugins, "timy"), lambda: gating.demote(smoke.path, "timy", "x")):
        with pytest.raises(InputError, match="expected one of: tiny"):
            call()
    row = tiny_models.entry(tmp_path, tiny_models.model())
    (tmp_path / "registry.json").write_bytes(to_json({"schema_version": 1, "models": [row]}))
    with pytest.raises(InputError, match="expected 2"):
        gating.flip(tmp_path / "registry.json", plugins, "m")


def test_a_verdict_can_be_written_for_people(smoke: Sandbox, tmp_path: Path, plugins: Plugins) -> None:
    """write_verdict writes what `flip` would pin, and says so where it cannot."""
    verdict = gating.gate(smoke.path, plugins, "tiny").verdict
    gating.write_verdict(tmp_path / "v.json", verdict)
    assert Verdict.from_dict(json.loads((tmp_path / "v.json").read_bytes())) == verdict
    with pytest.raises(WorldError):
        gating.write_verdict(tmp_path / "no" / "v.json", verdict)
