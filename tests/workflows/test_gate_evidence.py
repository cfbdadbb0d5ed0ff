"""Tests of `gate --evidence`: public summaries are judged and marked, and no fraud of them passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Program
from policies import set_bound
from registries import Made, write_corpus
from sandbox import Sandbox, to_json

from registry_tool.errors import InputError
from registry_tool.plugins.manager import load
from registry_tool.values import Verdict
from registry_tool.workflows.gate import Foreign, gate_foreign, gate_foreign_kind

# ---- gate --evidence --------------------------------------------------------------------------------------------

Files = dict[str, bytes]


@pytest.fixture
def summaries(smoke: Sandbox, tmp_path: Path) -> Callable[[Files], Path]:
    """A folder with these files in place of (None: without) five seeds' public summaries: three and two like them."""

    def make(changed: dict[str, bytes | None]) -> Path:
        folder = tmp_path / "loso"
        folder.mkdir()
        good = {path.name: path.read_bytes() for path in smoke.artifacts.glob("evidence/*.json")}
        good |= {f"loso_seed{seed}.json": to_json(like(good, seed)) for seed in (3, 4)}
        for name, data in {**good, **changed}.items():
            if data is not None:
                (folder / name).write_bytes(data)
        return folder

    return make  # type: ignore[return-value]  # a callable of the same shape


def like(good: Files, seed: int) -> dict[str, Any]:
    """Another seed's summary, whose figures differ a little from seed 0's."""
    document: dict[str, Any] = json.loads(good["loso_seed0.json"]) | {"seed": seed}
    for row in document["folds"]:
        row.update(plcc=row["plcc"] - seed * 1e-4, rmse=row["rmse"] + seed * 1e-3)
    return consistent(document)


def three(folder: Path) -> Path:
    """Without the two seeds that the entry has no members for."""
    for seed in (3, 4):
        (folder / f"loso_seed{seed}.json").unlink()
    return folder


def load_seed(smoke: Sandbox, seed: int) -> dict[str, Any]:
    """One seed's summary as the public tools write it: figures, and no digest."""
    document: dict[str, Any] = json.loads((smoke.artifacts / f"evidence/loso_seed{seed}.json").read_bytes())
    return {key: value for key, value in document.items() if not key.endswith("sha256")}


def consistent(document: dict[str, Any]) -> dict[str, Any]:
    """With the means that its folds have."""
    folds = document["folds"]
    for name in ("plcc", "srocc", "rmse"):
        document[f"mean_{name}"] = sum(fold[name] for fold in folds) / len(folds)
    mean = document["mean_plcc"]
    document["std_plcc"] = (sum((fold["plcc"] - mean) ** 2 for fold in folds) / (len(folds) - 1)) ** 0.5
    return document | {"n_folds": len(folds)}


def foreign(
    box: Sandbox, folder: Path, entry: str | None = None, corpus: Path | None = None, seeds: Any = None
) -> Verdict:
    given = Foreign(folder, corpus, seeds)
    if entry is not None:
        return gate_foreign(box.path, load(), entry, given).verdict
    return gate_foreign_kind(box.path, load(), "fr_ensemble", given).verdict


def test_public_summaries_are_judged_and_marked(smoke: Sandbox, summaries: Any, made: Made) -> None:
    """Good ones get PROMOTE on summary-only evidence, with a corpus, with seeds, and with no registry at all."""
    folder = summaries({})
    for seed in range(5):
        path = folder / f"loso_seed{seed}.json"
        document = {k: v for k, v in json.loads(path.read_bytes()).items() if not k.endswith("sha256")}
        path.write_bytes(to_json(document))
    for corpus, seeds in ((None, None), (made.corpus, None), (made.corpus, range(5))):
        verdict = foreign(smoke, folder, None, corpus, seeds and tuple(seeds))
        assert (verdict.reasons, verdict.promotes, verdict.summary_only) == ((), True, True)
    judgement = gate_foreign_kind(None, load(), None, Foreign(folder))
    assert judgement.verdict.promotes
    assert judgement.verdict.manifest_sha256 is None
    assert judgement.verdict.policy == load().kinds["fr_ensemble"].summary_policy


def test_summaries_of_fewer_seeds_are_held(smoke: Sandbox, summaries: Any, made: Made) -> None:
    """All that an ensemble of three has, and all that were named, is less than the rules for summaries ask."""
    folder = three(summaries({}))
    for entry, corpus, seeds in (("tiny", None, None), ("tiny", made.corpus, None), (None, None, (0, 1, 2))):
        verdict = foreign(smoke, folder, entry, corpus, seeds)
        assert verdict.reasons == ("n_seeds >= 5: found 3",)


@pytest.mark.parametrize("missing", [(4,), (2, 3, 4), (1, 2, 3, 4), (0,)])
def test_a_missing_seed_is_bad_input(
    smoke: Sandbox, summaries: Any, registry: Program, missing: tuple[int, ...]
) -> None:
    """How many there must be comes from the policy, from --seeds, or from the entry's members: never from the files."""
    folder = summaries({f"loso_seed{seed}.json": None for seed in missing})
    found = registry("gate", "--evidence", folder, "--registry", smoke.path)
    assert (found.code, found.out) == (2, "")
    assert f"found the evidence of {5 - len(missing)} seeds, expected 5" in found.err
    named = registry("gate", "--evidence", folder, "--seeds", "0,1,2,3,4")
    assert (named.code, f"loso_seed{missing[0]}.json" in named.err) == (2, True)
    if set(missing) & {0, 1, 2}:
        assert registry("gate", "tiny", "--evidence", folder, "--registry", smoke.path).code == 2


def test_seeds_are_numbers(smoke: Sandbox, summaries: Any, registry: Program) -> None:
    """Anything else is a usage error, and so are seeds of no evidence."""
    for arguments in (("--evidence", summaries({}), "--seeds", "0;1"), ("tiny", "--seeds", "0,1")):
        assert registry("gate", *arguments, "--registry", smoke.path).code == 2


def test_the_registrys_own_rules_judge_summaries_too(smoke: Sandbox, summaries: Any) -> None:
    """What it asks beyond the default is asked of summaries, also where they cannot show it."""
    folder = summaries({})
    rules = smoke.registry["policies"]["fr_ensemble"]["rules"]
    for rule, reason in (("mean_rmse", "mean_rmse <= 0: found"), ("coverage_80", "no metric 'coverage_80'")):
        added = {"metric": rule, "op": "<=", "bound": 0}
        smoke.edit(lambda document, added=added: document["policies"]["fr_ensemble"].update(rules=[*rules, added]))
        assert any(reason in line for line in foreign(smoke, folder).reasons)


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


def roughened(smoke: Sandbox) -> dict[str, Any]:
    """Copies again, each figure moved by less than it is rounded to."""
    files = {}
    for seed in range(5):
        document = load_seed(smoke, 0) | {"seed": seed}
        for row in document["folds"]:
            row["plcc"] -= seed * 1e-10
            row["rmse"] += seed * 1e-10
        files[f"loso_seed{seed}.json"] = to_json(consistent(document))
    return files


FRAUDS: list[tuple[str, Callable[[Sandbox], dict[str, Any]], str]] = [
    ("five copies of one seed", copied, "seed"),
    ("five copies, relabelled", relabelled, "same scores"),
    ("five copies, roughened", roughened, "same scores"),
    ("one seed twice", repeated, "seed 0"),
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
    plain |= {f"loso_seed{n}.json": to_json(like(plain, n)) for n in (3, 4)}
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


def test_evidence_of_another_corpus_is_hold_without_the_corpus(smoke: Sandbox, summaries: Any) -> None:
    """The entry's manifest knows the digest of the file."""
    changed = {f"loso_seed{n}.json": to_json(load_seed(smoke, n) | {"corpus_sha256": "0" * 64}) for n in range(3)}
    assert any("corpus_sha256" in line for line in foreign(smoke, summaries(changed), "tiny").reasons)


def test_evidence_of_other_members_is_hold(smoke: Sandbox, summaries: Any) -> None:
    """The seeds must be those of the entry's members, and no other."""
    changed = {"loso_seed7.json": to_json(load_seed(smoke, 0) | {"seed": 7})}
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
    with pytest.raises(InputError, match="symbolic link"):
        foreign(smoke, folder)


def test_a_link_among_good_evidence_is_not_passed_over(smoke: Sandbox, summaries: Any) -> None:
    """What stands there and cannot be read could be a seed that fails."""
    folder = summaries({})
    assert foreign(smoke, folder).decision == "PROMOTE"
    (folder / "loso_seed7.json").symlink_to(folder / "loso_seed0.json")
    with pytest.raises(InputError, match=r"loso_seed7\.json.*symbolic link"):
        foreign(smoke, folder)


def test_evidence_has_a_limit_on_all_files_together(
    smoke: Sandbox, summaries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are each below the limit may not exceed it in sum."""
    folder = summaries({})
    sizes = [path.stat().st_size for path in folder.iterdir()]
    monkeypatch.setattr("registry_tool.workflows.gate.EVIDENCE_MAX_BYTES", sum(sizes))
    assert foreign(smoke, folder).decision == "PROMOTE"
    monkeypatch.setattr("registry_tool.workflows.gate.EVIDENCE_MAX_BYTES", sum(sizes) - 1)
    with pytest.raises(InputError, match=f"more than {sum(sizes) - 1} bytes"):
        foreign(smoke, folder)


def test_evidence_needs_a_kind_or_an_entry_that_is_there(smoke: Sandbox, summaries: Any) -> None:
    """An unknown id or kind is bad input."""
    folder = summaries({})
    with pytest.raises(InputError, match="no entry 'timy'"):
        foreign(smoke, folder, "timy")
    with pytest.raises(InputError, match="'thumb'"):
        gate_foreign_kind(None, load(), "thumb", Foreign(folder))


@pytest.mark.parametrize("option", [("--corpus", "gone.parquet"), ("--kind", "fr_ensemble")])
def test_options_of_foreign_evidence_are_not_passed_over(smoke: Sandbox, registry: Program, option: Any) -> None:
    """An entry's own evidence is held against its own corpus: to name another would look as if it had been."""
    ran = registry("gate", "tiny", *option, "--registry", smoke.path)
    assert (ran.code, ran.out) == (2, "")
    assert "--evidence" in ran.err


def test_a_raised_bar_holds_foreign_evidence_too(smoke: Sandbox, summaries: Any) -> None:
    """The policy is the registry's, not the plugin's default."""
    smoke.edit(set_bound("mean_plcc", 0.99999))
    assert foreign(smoke, summaries({})).decision == "HOLD"


def test_a_corpus_needs_only_its_sources(smoke: Sandbox, summaries: Any, made: Made, tmp_path: Path) -> None:
    """A file with the column `src` alone will do; where an entry is named, its own columns are needed."""
    folder = summaries({f"loso_seed{n}.json": to_json(load_seed(smoke, n)) for n in range(3)})
    lines = made.corpus.read_text().splitlines()
    sources = [line.split(",")[0] for line in lines]
    only = tmp_path / "only.csv"
    only.write_text("\n".join(sources))
    assert "src" not in " ".join(foreign(smoke, folder, None, only).reasons)
    only.write_text("\n".join(sources[:-1]))
    assert any("59 rows" in line for line in foreign(smoke, folder, None, only).reasons)
    with pytest.raises(InputError, match="no column 'encoder'"):
        foreign(smoke, folder, "tiny", only)
    only.write_text("\n".join(["source", *sources[1:]]))
    with pytest.raises(InputError, match="no column 'src'"):
        foreign(smoke, folder, None, only)


def test_a_corpus_that_changed_after_the_evidence_is_hold(
    smoke: Sandbox, summaries: Any, made: Made, tmp_path: Path
) -> None:
    """The same sources with as many rows, but one other byte: the digest in the summaries is another."""
    folder, changed = summaries({}), tmp_path / "changed.csv"
    changed.write_bytes(made.corpus.read_bytes() + b"\n")
    assert foreign(smoke, folder, None, made.corpus).reasons == ()
    assert any("corpus_sha256" in line for line in foreign(smoke, folder, None, changed).reasons)


@pytest.mark.parametrize("form", ["text", "json", "github", "junit"])
def test_digests_that_summaries_lack_are_said(smoke: Sandbox, summaries: Any, registry: Program, form: str) -> None:
    """Public summaries have no digest of what they measured: it holds nothing, and every format says it."""
    plain = {f"loso_seed{n}.json": to_json(load_seed(smoke, n)) for n in range(3)}
    folder = summaries({**plain, **{f"loso_seed{n}.json": to_json(like(plain, n)) for n in (3, 4)}})
    ran = registry("gate", "--evidence", folder, "--registry", smoke.path, "--format", form)
    assert (ran.code, ran.err) == (0, "")
    assert "seeds 0, 1, 2, 3, 4: the summaries have no corpus_sha256" in ran.out
    entry = foreign(smoke, three(folder), "tiny")
    assert ["recipe_sha256" in line for line in entry.warnings] == [False, True]
    assert Verdict.from_dict(entry.to_dict()) == entry
