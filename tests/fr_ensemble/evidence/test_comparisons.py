"""Tests of comparisons.py: the curve, what is paired with what, and what the gate and evaluate make of it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import registry_tool.schemas as schemas
from command_line import Program, succeed
from fr_ensemble.evidence.comparisons import (
    CURVE_BOUNDS,
    Curve,
    ErrorComparison,
    compare_with_entry,
    compare_with_vmaf,
    vmaf_column,
)
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs
from fr_ensemble.evidence.metrics import compute_metrics as metrics_of
from fr_ensemble.evidence.oof import Oof, read_oof, write_oof
from policies import rules, set_policy
from registries import FEATURES
from repository import commit, git, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox

from registry_tool.archive import EvidenceProblem
from registry_tool.checks.promotion import find_incumbent
from registry_tool.documents.schema import violations
from registry_tool.errors import InputError, RejectedError
from registry_tool.hookspec import EvaluateRequest
from registry_tool.plugins.manager import load
from registry_tool.values import Registry
from registry_tool.workflows.compare import charts, compare
from registry_tool.workflows.loading import inspected, usable

pytestmark = pytest.mark.slow

K, ROWS = 6, 30
TRAINING = (
    *("--target", "mos", "--seeds", "0,1", "--hidden", "16", "--learning-rate", "0.01", "--license", "MIT"),
    "--no-baselines",
)


def logistic(x: Any, low: float, span: float, middle: float, width: float) -> Any:
    return low + span / (1.0 + np.exp(-(x - middle) / width))


def points(noise: float = 0.3, n: int = 400) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.uniform(10, 100, n)
    return x, logistic(x, 1.0, 4.0, 60.0, 12.0) + rng.normal(0.0, noise, n)


def make_oof(error: float, seed: int = 1, **changes: Any) -> Oof:
    """K sources whose mos is a logistic function of vmaf, offset by source; members that miss it by `error`."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(K), ROWS)
    vmaf = rng.uniform(10, 100, len(source))
    y = logistic(vmaf, 1.0, 4.0, 60.0, 12.0) + np.linspace(-0.6, 0.6, K)[source]
    members = y + np.random.default_rng(seed).normal(0.0, error, (3, len(y)))
    oof = Oof((0, 1, 2), tuple("abcdef"), source, None, None, y, members, "r", "c", "f", vmaf)
    return replace(oof, **changes)


def test_the_curve_is_scipys() -> None:
    """The least squares fit agrees with scipy's on noisy points, and finds the curve itself on exact ones."""
    optimize = pytest.importorskip("scipy.optimize")
    x, y = points()
    expected, _ = optimize.curve_fit(logistic, x, y, p0=(1.0, 4.0, 50.0, 15.0))
    np.testing.assert_allclose(Curve.fit(x, y)(x), logistic(x, *expected), atol=1e-6)
    curve = Curve.fit(*points(0.0))
    assert (curve.low, curve.span, curve.middle, curve.width) == pytest.approx((1.0, 4.0, 60.0, 12.0), rel=1e-9)


def test_the_curve_does_not_hang_on_the_order_of_the_rows() -> None:
    """Stored verdicts are compared to 1e-9: another order of summation moves the curve by far less."""
    x, y = points()
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_allclose(Curve.fit(x[order], y[order])(x), Curve.fit(x, y)(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.full(9, 50.0), np.arange(9.0)),
        (np.arange(9.0), np.full(9, 3.0)),
        (np.array([1.0, 2.0]), np.array([1.0, 4.0])),
        (np.arange(100.0), 0.04 * np.arange(100.0)),
        (np.arange(100.0), np.where(np.arange(100) < 50, 1.0, 5.0)),
    ],
    ids=["constant x", "constant y", "two points", "a line", "a step"],
)
def test_a_degenerate_cloud_gives_a_finite_curve(x: Any, y: Any) -> None:
    """It is no worse than the mean of the targets."""
    fitted = Curve.fit(x, y)(x)
    assert np.isfinite(fitted).all()
    assert np.square(fitted - y).sum() <= np.square(y - y.mean()).sum() + 1e-9


def test_at_a_bound_the_curve_is_still_the_best_one_inside() -> None:
    """An exponential is a logistic whose middle is far away: no curve of a fine grid inside the bounds fits better."""
    x = points()[0]
    y = np.exp(x / 40.0) + np.random.default_rng(4).normal(0.0, 0.2, len(x))
    curve, z = Curve.fit(x, y), (x - x.mean()) / x.std()
    assert (curve.middle - x.mean()) / x.std() == pytest.approx(CURVE_BOUNDS[0, 1])
    costs = []
    for width in np.exp(np.linspace(*CURVE_BOUNDS[1], 400)):
        basis = np.stack([np.ones_like(z), 1.0 / (1.0 + np.exp(-(z - CURVE_BOUNDS[0, 1]) / width))], axis=1)
        costs.append(np.square(y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]).sum())
    assert np.square(curve(x) - y).sum() <= min(costs)


def test_of_many_rows_a_part_chooses_where_to_start() -> None:
    """The curve is the same as that of every row, since the rest of the search takes them all."""
    x, y = points(n=45_000)
    few = Curve.fit(x, y)
    with patch("fr_ensemble.evidence.comparisons.START_ROWS", len(x) + 1):
        np.testing.assert_allclose(few(x), Curve.fit(x, y)(x), rtol=1e-10)


def test_rows_that_are_too_many_are_not_compared() -> None:
    """A curve for each source takes seconds at the bound; above it there is no comparison, and no metric of it."""
    oof = make_oof(0.1)
    with patch("fr_ensemble.evidence.comparisons.MAX_COMPARED", len(oof.target) * K - 1):
        assert compare_with_vmaf(oof) is None
    assert compare_with_vmaf(oof) is not None


def test_a_source_is_predicted_by_the_others_curve() -> None:
    """What a source's own targets say changes its error, not its prediction."""
    oof = make_oof(0.1)
    held = oof.source == 2
    compared = compare_with_vmaf(oof)
    assert compared is not None
    curve = Curve.fit(oof.vmaf[~held], oof.target[~held])  # type: ignore[index]  # made with a column
    expected = np.sqrt(np.mean(np.square(curve(oof.vmaf[held]) - oof.target[held])))  # type: ignore[index]  # the same
    assert compared.baseline_rmse[2] == pytest.approx(expected, rel=1e-12)
    assert compared.entry_rmse[2] == pytest.approx(np.sqrt(np.mean(np.square(oof.mu - oof.target)[held])))


def test_the_difference_is_paired_by_source() -> None:
    """The mean over sources of our RMSE less theirs; its interval is that of the differences, not of two means."""
    oof = make_oof(0.05)
    good, bad = compare_with_vmaf(oof), compare_with_vmaf(make_oof(3.0))
    assert good is not None
    assert bad is not None
    metrics = metrics_of(MetricInputs(FoldScores.of(oof), oof, None, {"vmaf": good}))
    assert metrics["rmse_vs_vmaf"] == pytest.approx(np.mean(good.entry_rmse - good.baseline_rmse))
    assert metrics["rmse_vs_vmaf_low"] < metrics["rmse_vs_vmaf"] < metrics["rmse_vs_vmaf_high"] < 0.0
    assert bad.bounds[0] > 0.0
    worse = compare_with_entry(make_oof(0.3), make_oof(0.1, seed=2))
    assert worse.bounds[0] > 0.0
    alone = compare_with_entry(make_oof(0.3), make_oof(0.3))
    assert (alone.difference, alone.bounds) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus_sha256": "other"},
        {"corpus_sha256": None},
        {"sources": tuple("abcdeg")},
        {"target": make_oof(0.1).target + 1e-9},
        {"source": make_oof(0.1).source[::-1].copy()},
    ],
    ids=["corpus", "no corpus", "names", "targets", "order"],
)
def test_evidence_of_other_rows_is_not_compared(changes: dict[str, Any]) -> None:
    """Only the same rows of the same file with the same targets are paired."""
    oof = make_oof(0.1)
    with pytest.raises(EvidenceProblem, match="expected"):
        compare_with_entry(oof, replace(oof, **changes))
    with pytest.raises(EvidenceProblem, match="expected"):
        compare_with_entry(replace(oof, **changes), oof)


def test_the_column_is_kept_and_optional() -> None:
    """oof.npz gives the column back; without it the file has the arrays it always had; a bad one is refused."""
    oof = make_oof(0.1)
    np.testing.assert_array_equal(read_oof(write_oof(oof)).vmaf, oof.vmaf)
    assert read_oof(write_oof(replace(oof, vmaf=None))).vmaf is None
    assert b"vmaf.npy" not in write_oof(replace(oof, vmaf=None))
    assert compare_with_vmaf(replace(oof, vmaf=None)) is None
    for bad in (np.zeros(3), np.full(K * ROWS, np.nan)):
        with pytest.raises(EvidenceProblem, match="vmaf"):
            replace(oof, vmaf=bad)


def test_the_column_is_read_from_the_corpus(tmp_path: Path) -> None:
    """In file order; nothing where there is none or VMAF is the target itself; a hole is named with its line."""
    path = tmp_path / "rows.csv"
    path.write_text("src,vmaf,mos\na,10,1\nb,90.5,4\n")
    found = vmaf_column(path, "mos")
    assert found is not None
    assert found.tolist() == [10.0, 90.5]
    assert vmaf_column(path, "vmaf") is None
    path.write_text("src,mos\na,1\n")
    assert vmaf_column(path, "mos") is None
    path.write_text("src,vmaf,mos\na,10,1\nb,,4\n")
    with pytest.raises(InputError, match=r"rows.csv:3, column vmaf"):
        vmaf_column(path, "mos")


def write_rows(path: Path, *, hole: bool = False) -> Path:
    """Four sources whose mos follows canonical-6, and a vmaf that says little of it."""
    rng = np.random.default_rng(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", "encoder", *FEATURES, "vmaf", "mos"))
        for row in range(160):
            quality = rng.uniform(0.2, 1.0)
            features = quality ** np.array([0.2, 1.0, 0.7, 0.5, 0.35, 1.0])
            vmaf = "" if hole and row == 7 else rng.uniform(20.0, 90.0)
            writer.writerow((f"s{row % 4}", "libx264", *features, vmaf, 1.0 + 4.0 * quality))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry folder with `good` and `poor` of one corpus, `rows.csv`, and `far` of another."""
    folder = tmp_path_factory.mktemp("pair")
    rows, other = write_rows(folder / "rows.csv"), write_rows(folder / "far.csv", hole=True)
    for name, corpus, epochs in (("good", rows, "60"), ("poor", rows, "1"), ("far", other, "1")):
        arguments = ("train", "fr_ensemble", "--id", name, "--corpus", corpus, "--epochs", epochs, *TRAINING)
        ran = succeed(*arguments, "--registry", folder / "model" / "registry.json")
        assert ("no comparison with plain VMAF" in ran.err) == (name == "far")
    return folder


@pytest.fixture
def sandbox(pair: Path, tmp_path: Path) -> Sandbox:
    copy = Sandbox(pair / "model" / "registry.json", "good").copy(tmp_path / "model")
    copy.edit(set_policy("fr_ensemble", rules("mean_plcc >= 0.5")))
    return copy


def gated(registry: Program, sandbox: Sandbox, *arguments: object) -> tuple[int, dict[str, Any]]:
    ran = registry("gate", *arguments, "--registry", sandbox.path, "--format", "json")
    return ran.code, json.loads(ran.out)


def test_plain_vmaf_is_reported_and_binds_where_a_rule_names_it(registry: Program, sandbox: Sandbox) -> None:
    """An ensemble that beats the column clears `rmse_vs_vmaf_high < 0`; evidence without the column never does."""
    code, document = gated(registry, sandbox, "good")
    assert (code, document["metrics"]["rmse_vs_vmaf_high"] < 0.0) == (0, True)
    assert set(document["details"]["against"]) == {"vmaf"}
    beats = rules("rmse_vs_vmaf_high < 0")["rules"]
    sandbox.edit(lambda document: document["policies"]["fr_ensemble"]["rules"].extend(beats))
    assert gated(registry, sandbox, "good")[0] == 0
    code, document = gated(registry, sandbox, "far")
    assert code == 1
    assert any("no metric 'rmse_vs_vmaf_high'" in reason for reason in document["reasons"])


def test_a_registered_incumbent_is_compared_with(registry: Program, sandbox: Sandbox) -> None:
    """--against names one for a look: the metrics come with it, and a verdict says in its policy whom it means."""
    code, document = gated(registry, sandbox, "good", "--incumbent", "poor")
    assert (code, document["policy"]["against"]) == (0, "poor")
    assert document["metrics"]["rmse_vs_incumbent_high"] < 0.0
    compared = document["details"]["against"]["incumbent"]
    assert compared["entry"] == "poor"
    assert set(compared["by_source"]) == {"s0", "s1", "s2", "s3"}
    assert gated(registry, sandbox, "poor", "--incumbent", "good")[1]["metrics"]["rmse_vs_incumbent_low"] > 0.0


def test_what_cannot_be_compared_is_never_a_pass(registry: Program, sandbox: Sandbox) -> None:
    """Evidence of another corpus holds the entry back; an id that is not there is unusable input, as is no ID."""
    code, document = gated(registry, sandbox, "good", "--incumbent", "far")
    assert code == 1
    assert any(reason.startswith("incumbent far: found evidence of the corpus") for reason in document["reasons"])
    assert "rmse_vs_incumbent" not in document["metrics"]
    for arguments in (
        ("good", "--incumbent", "nobody"),
        ("--incumbent", "good"),
        ("--base", "HEAD", "--incumbent", "good"),
    ):
        ran = registry("gate", *arguments, "--registry", sandbox.path)
        assert (ran.code, "incumbent" in ran.err) == (2, True)


def test_a_policy_that_names_an_incumbent_binds(registry: Program, sandbox: Sandbox) -> None:
    """The worse one is held, the better one flipped and valid; naming another incumbent then calls for a new flip."""
    beats = rules("rmse_vs_incumbent_high <= 0")["rules"]

    def against(entry: str, wanted: list[dict[str, Any]]) -> None:
        policy = {"against": entry, "rules": [*rules("mean_plcc >= 0.5")["rules"], *wanted]}
        sandbox.edit(lambda document: document["policies"]["fr_ensemble"].update(policy))

    against("good", beats)
    assert registry("flip", "poor", "--registry", sandbox.path).code == 1
    against("poor", beats)
    assert registry("flip", "good", "--registry", sandbox.path).code == 0
    assert registry("validate", sandbox.path).code == 0
    assert sandbox.verdict["policy"]["against"] == "poor"
    against("good", beats)
    assert sandbox.codes() == ["policy-looser"]
    against("poor", beats)

    def gone(document: dict[str, Any]) -> None:
        document["models"] = [model for model in document["models"] if model["id"] != "poor"]

    sandbox.edit(gone)
    assert "evidence-unusable" in sandbox.codes()


def test_an_entry_is_not_compared_with_itself(registry: Program, sandbox: Sandbox) -> None:
    """A difference of 0 shows nothing: gate, flip and evaluate refuse it, whoever names the incumbent."""
    beats = {"against": "good", "rules": rules("rmse_vs_incumbent_high <= 0")["rules"]}
    named = ("--incumbent", "good", "--registry", sandbox.path)
    for arguments in (("gate", "good", *named), ("evaluate", "good", "--smoke", *named)):
        ran = registry(*arguments)
        assert (ran.code, "incumbent: found good itself, expected another entry" in ran.err) == (2, True)
    sandbox.edit(lambda document: document["policies"]["fr_ensemble"].update(beats))
    for command in ("gate", "flip"):
        ran = registry(command, "good", "--registry", sandbox.path)
        assert (ran.code, "incumbent: found good itself" in ran.err) == (2, True)
    assert sandbox.entry["smoke"] is True


def test_the_incumbent_is_the_bases(sandbox: Sandbox, pair: Path) -> None:
    """One that was trained again under its id is compared with as it was: its old files are found by their digests."""
    before = Registry.from_dict(sandbox.registry)
    old = before.entry("poor")
    assert old is not None
    sandbox.train("poor", pair / "rows.csv", ("--epochs", "2", *TRAINING))
    with inspected(usable(sandbox.path), sandbox.plugins) as inspection:
        trained = find_incumbent("fr_ensemble", inspection, "poor")
        found = find_incumbent("fr_ensemble", inspection, "poor", before)
        same = find_incumbent("fr_ensemble", inspection, "good", before)
    assert trained is not None
    assert found is not None
    assert same is not None
    assert (found.entry, trained.entry.sha256 == old.sha256, same.entry.id) == (old, False, "good")
    shutil.rmtree(sandbox.folder / "poor" / old.sha256[:12])
    words = "incumbent: poor at the base cannot be compared with: .*: restore its files"
    with (
        inspected(usable(sandbox.path), sandbox.plugins) as inspection,
        pytest.raises(RejectedError, match=words),
    ):
        find_incumbent("fr_ensemble", inspection, "poor", before)


@pytest.mark.usefixtures("own_git")
def test_an_incumbent_that_is_made_worse_on_a_branch_is_the_one_on_main_there(
    registry: Program, sandbox: Sandbox, pair: Path
) -> None:
    """What beats the incumbent only as that was trained again flips on the branch, and `gate --base` holds it."""
    where = ("--registry", sandbox.path)
    beats = {"against": "good", "rules": rules("rmse_vs_incumbent <= 0")["rules"]}
    sandbox.edit(lambda document: document["policies"]["fr_ensemble"].update(beats))
    start(sandbox.folder.parent)
    git(sandbox.folder, "checkout", "--quiet", "-b", "worse")
    sandbox.train("good", pair / "rows.csv", (*TRAINING, "--epochs", "1", "--learning-rate", "0.00001"))
    assert registry("flip", "good", *where).code == 2
    assert registry("flip", "poor", *where).code == 0
    commit(sandbox.folder, "the incumbent under its own name, worse than what turns production")
    ran = registry("gate", "--base", "main", *where, "--format", "json")
    (judged,) = json.loads(ran.out)["judgements"]
    assert (ran.code, judged["entry"], judged["verdict"]) == (1, "poor", "HOLD")
    assert judged["metrics"]["rmse_vs_incumbent"] > 0.0


def test_intervals_by_t_need_six_sources() -> None:
    """Of five none; of six and more the textbook's, around the mean difference."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    for k in (2, 5, 6, 9, 30):
        one, two = rng.uniform(1, 2, k), rng.uniform(1, 2, k)
        compared = ErrorComparison(tuple(map(str, range(k))), one, two, np.zeros(k))
        if k < 6:
            assert not np.isfinite(compared.t_bounds).any()
            assert compared.to_dict()["difference_t_high"] is None
        else:
            expected = stats.t.interval(0.95, k - 1, (one - two).mean(), stats.sem(one - two))
            assert compared.t_bounds == pytest.approx(expected, rel=1e-7)


def test_evaluate_pairs_two_entries_on_new_rows(registry: Program, sandbox: Sandbox, pair: Path) -> None:
    """The JSON holds to its schema, with both comparisons; the table names the other entry."""
    arguments = ("evaluate", "good", "--corpus", pair / "rows.csv", "--registry", sandbox.path)
    document = json.loads(registry(*arguments, "--incumbent", "poor", "--format", "json").out)
    assert violations(document, schemas.load("evaluation")) == []
    assert document["against"]["incumbent"]["entry"] == "poor"
    assert document["against"]["incumbent"]["difference_high"] < 0.0 > document["against"]["vmaf"]["difference_high"]
    assert "rmse less poor's, over sources" in registry(*arguments, "--incumbent", "poor").out
    assert "incumbent" not in json.loads(registry(*arguments, "--format", "json").out)["against"]
    assert registry("evaluate", "good", "--smoke", "--incumbent", "poor", "--registry", sandbox.path).code == 2


def test_compare_shows_entries_side_by_side(registry: Program, sandbox: Sandbox, pair: Path) -> None:
    """The numbers of gate and evaluate, a column an entry; each after the first is compared with the first."""
    rows = ("--corpus", pair / "rows.csv", "--registry", sandbox.path)
    document = json.loads(registry("compare", "poor", "good", *rows, "--format", "json").out)
    assert violations(document, schemas.load("compared")) == []
    poor, good = document["entries"]
    assert (document["first"], poor["entry"], good["entry"]) == ("poor", "poor", "good")
    assert good["metrics"] == gated(registry, sandbox, "good", "--incumbent", "poor")[1]["metrics"]
    assert "rmse_vs_incumbent" not in poor["metrics"]
    ran = registry("evaluate", "good", *rows, "--incumbent", "poor", "--levels", "0.8", "--format", "json")
    evaluated = json.loads(ran.out)
    assert good["rows"]["rmse"] == evaluated["rmse"]
    assert good["rows"]["over_sources 80% coverage"] == evaluated["over_sources"]["levels"][0]["coverage"]
    assert good["rows"]["rmse_vs_first"] == evaluated["against"]["incumbent"]["difference"] < 0.0
    header, *lines = registry("compare", "poor", "good", *rows).out.splitlines()
    assert header.split() == ["poor", "good"]
    assert [line.split()[0] for line in lines[:2]] == ["verdict", "mean_plcc"]


def test_compare_draws_what_it_shows(registry: Program, sandbox: Sandbox, pair: Path, tmp_path: Path) -> None:
    """--plot draws a PNG beside the same words: a panel a figure, of its values, intervals and bound."""
    ids, rows = ("poor", "good"), ("--corpus", pair / "rows.csv", "--registry", sandbox.path)
    words = registry("compare", *ids, *rows).out
    assert registry("compare", *ids, *rows, "--plot", tmp_path / "p.png").out == words
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    contenders = compare(sandbox.path, load(), ids, EvaluateRequest(pair / "rows.csv", levels=(0.8,)))
    poor, good = contenders
    drawn = {figure.title: figure.chart for figure in charts(contenders)}
    mean = drawn["mean_plcc"]
    assert mean is not None
    points, spans, bound = mean.series
    assert mean.y.names == ids
    assert points.x == [one.verdict.metrics["mean_plcc"] for one in contenders]
    ends = [(one.verdict.metrics["mean_plcc_low"], one.verdict.metrics["mean_plcc_high"]) for one in contenders]
    assert [*zip(spans.x, spans.ends, strict=True)] == ends
    assert bound.x == tuple(2 * [next(r.bound for r in good.verdict.policy.rules if r.metric == "mean_plcc")])
    of_rows = drawn["rows: over_sources rmse"]
    assert of_rows is not None
    assert of_rows.series[0].x == [poor.rows["over_sources rmse"], good.rows["over_sources rmse"]]
    difference = drawn["rmse_vs_incumbent"]
    assert difference is not None
    assert (difference.series[0].y, difference.series[0].x) == ([1.0], [good.verdict.metrics["rmse_vs_incumbent"]])
    assert "n_rows" not in drawn  # no rule asks for it


def test_entries_of_two_corpora_are_shown_and_not_compared(registry: Program, sandbox: Sandbox) -> None:
    """No difference where there can be none, and no verdict changes for it; one entry, or one twice, is bad usage."""
    ran = registry("compare", "good", "far", "--registry", sandbox.path, "--format", "json")
    good, far = json.loads(ran.out)["entries"]
    assert (ran.code, good["verdict"]) == (0, gated(registry, sandbox, "good")[1]["verdict"])
    assert far["reasons"] == gated(registry, sandbox, "far")[1]["reasons"]
    assert "rmse_vs_incumbent" not in far["metrics"]
    assert (good["rows"], far["rows"]) == ({}, {})
    for ids in (("good",), ("good", "good")):
        ran = registry("compare", *ids, "--registry", sandbox.path)
        assert (ran.code, "expected two or more different ids" in ran.err) == (2, True)
