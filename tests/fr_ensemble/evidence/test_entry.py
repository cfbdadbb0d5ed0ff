"""Tests of gate.py on an entry's own evidence and on foreign files: every figure recomputed, by an independent way."""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fr_ensemble.evidence import entry
from fr_ensemble.evidence.entry import EntryEvidence, checked_evidence, evidence_of
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.methods import IntervalMethod
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof, read_oof, write_oof
from fr_ensemble.hooks.gate import evidence_sha256, gate
from registries import Made
from sandbox import Sandbox

from registry_tool.errors import InputError
from registry_tool.hookspec import GateRequest
from registry_tool.plugins.manager import load
from registry_tool.workflows import loading as loading_workflow
from registry_tool.workflows.loading import usable
from registry_tool.workflows.overview import gather
from registry_tool.workflows.promote import flip
from registry_tool.workflows.validate import validate

TOLERANCE = 1e-9  # another summation order


@pytest.fixture
def view(smoke: Sandbox) -> Iterator[Any]:
    """The trained entry as a hook sees it."""
    loaded = usable(smoke.path)
    with loading_workflow.verified_entry(loaded, load(), "tiny") as verified:
        yield verified


def plccs(view: Any) -> np.ndarray[Any, Any]:
    """(seeds, folds): each seed's PLCC on each held-out source, by numpy's own correlation."""
    oof = read_oof(view.read("evidence/oof.npz"))
    table = [
        [np.corrcoef(row[oof.source == k], oof.target[oof.source == k])[0, 1] for k in range(len(oof.sources))]
        for row in oof.predictions
    ]
    return np.array(table)


def test_the_default_rules_metrics_are_those_of_the_definition(view: Any) -> None:
    """PLCC_i is seed i's mean over folds: its mean, its spread over seeds, and the worst seed's."""
    metrics = gate(view, GateRequest()).metrics
    seeds = plccs(view).mean(axis=1)
    assert metrics["mean_plcc"] == pytest.approx(seeds.mean(), abs=TOLERANCE)
    assert metrics["plcc_spread"] == pytest.approx(seeds.max() - seeds.min(), abs=TOLERANCE)
    assert metrics["min_seed_plcc"] == pytest.approx(seeds.min(), abs=TOLERANCE)
    assert metrics["worst_fold_plcc"] == pytest.approx(plccs(view).mean(axis=0).min(), abs=TOLERANCE)
    assert (metrics["n_seeds"], metrics["n_folds"], metrics["n_rows"]) == (3, 5, 300)


def test_other_figures_agree_with_scipy(view: Any) -> None:
    """mean_srocc and mean_rmse are means over seeds and folds."""
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extra `train`")
    oof, metrics = read_oof(view.read("evidence/oof.npz")), gate(view, GateRequest()).metrics
    folds = [oof.source == k for k in range(len(oof.sources))]
    ranks = [stats.spearmanr(row[fold], oof.target[fold]).statistic for row in oof.predictions for fold in folds]
    errors = [np.sqrt(np.mean((row[fold] - oof.target[fold]) ** 2)) for row in oof.predictions for fold in folds]
    assert metrics["mean_srocc"] == pytest.approx(np.mean(ranks), abs=TOLERANCE)
    assert metrics["mean_rmse"] == pytest.approx(np.mean(errors), abs=TOLERANCE)


def test_sound_evidence_has_no_problem_and_says_what_it_is(view: Any) -> None:
    """Not summary-only; its digest is that of the files' digests, in the order of their paths."""
    evidence = gate(view, GateRequest())
    assert (evidence.problems, evidence.summary_only) == ((), False)
    seeds = [f"evidence/loso_seed{seed}.json" for seed in range(3)]
    files = ["evidence/fingerprints.npz", "evidence/inputs.npz", *seeds, "evidence/oof.npz"]
    listed = [[name, hashlib.sha256(view.read(name)).hexdigest()] for name in files]
    assert evidence.sha256 == hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()
    assert evidence_sha256(view) == evidence.sha256


def test_the_fold_table_is_whole(view: Any) -> None:
    """A row a source with its rows and each seed's PLCC, the header first; the same figures as JSON."""
    evidence = gate(view, GateRequest())
    assert evidence.table is not None
    details, (header, *rows) = evidence.details, evidence.table.rows
    assert header == ["held out", "rows", "plcc seed 0", "plcc seed 1", "plcc seed 2", "mean"]
    manifest = view.manifest or {}
    assert [row[:2] for row in rows] == [[source, "60"] for source in manifest["corpus"]["sources"]]
    expected = plccs(view)
    for k, row in enumerate(rows):
        assert row[2:5] == [f"{value:.4f}" for value in expected[:, k]]
    assert [fold["held_out"] for fold in details["folds"]] == manifest["corpus"]["sources"]


def test_the_public_summaries_are_those_of_the_predictions(view: Any, smoke: Sandbox) -> None:
    """Each loso_seed{N}.json holds its seed's folds, with training and held-out rows that add up."""
    expected = plccs(view)
    for seed in range(3):
        document = json.loads(view.read(f"evidence/loso_seed{seed}.json"))
        assert (document["seed"], document["n_folds"], document["corpus"]) == (seed, 5, "corpus.csv")
        assert [fold["plcc"] for fold in document["folds"]] == pytest.approx(list(expected[seed]), abs=TOLERANCE)
        assert all((fold["n_train"], fold["n_val"]) == (240, 60) for fold in document["folds"])
        assert document["std_plcc"] == pytest.approx(expected[seed].std(ddof=1), abs=TOLERANCE)
        assert document["recipe_sha256"] == smoke.manifest["recipe_sha256"]


def test_figures_of_the_manifest_are_those_of_the_gate(view: Any) -> None:
    """Nothing is measured one way when trained and another way when judged."""
    metrics = compute_metrics(MetricInputs(checked_evidence(view).scores))
    stored = (view.manifest or {})["eval"]
    assert {name: stored[f"loso_{name}"] for name in metrics} == pytest.approx(metrics, abs=TOLERANCE)


class Other:
    """A view whose manifest is another; its bytes are the trained entry's."""

    def __init__(self, view: Any, manifest: Any) -> None:
        self.entry, self.manifest, self.paths = view.entry, manifest, view.paths
        self.read, self.run, self.finding = view.read, view.run, view.finding


@pytest.mark.parametrize("manifest", [None, {"id": "tiny", "kind": "fr_ensemble"}, {"schema_version": 1}])
def test_an_entry_without_evidence_cannot_be_judged(view: Any, manifest: Any) -> None:
    """No manifest, or a version-1 one: bad input, not HOLD."""
    with pytest.raises(InputError, match="pins no evidence"):
        gate(Other(view, manifest), GateRequest())


@pytest.mark.parametrize(
    ("section", "field", "value", "problem"),
    [
        ("corpus", "n_rows", 299, "number of rows"),
        ("corpus", "sources", ["a", "b"], "set of sources"),
        ("corpus", "rows_sha256", "0" * 64, "rows_sha256"),
        ("corpus", "sha256", "0" * 64, "corpus_sha256"),
    ],
)
def test_evidence_of_another_run_has_a_problem(view: Any, section: str, field: str, value: Any, problem: str) -> None:
    """Rows, sources and digests must be those that the manifest names."""
    manifest = json.loads(view.read("manifest.json"))
    manifest[section][field] = value
    problems = gate(Other(view, manifest), GateRequest()).problems
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("claimed", "found", "expected"),
    [
        (lambda names: names[1:], "s10", "no others"),
        (lambda names: [*names, "x"], "no others", "x"),
        (lambda names: [f"x{place}" for place in range(200)], "s10, s11, s12 and 2 more", "x0, x1, x2 and 197 more"),
        (lambda names: names[::-1], "them in another order", "its own"),
    ],
)
def test_other_sources_are_named_where_they_differ(view: Any, claimed: Any, found: str, expected: str) -> None:
    """The line is short, however many sources there are."""
    manifest = json.loads(view.read("manifest.json"))
    manifest["corpus"]["sources"] = claimed(manifest["corpus"]["sources"])
    (problem,) = gate(Other(view, manifest), GateRequest()).problems
    assert problem == f"evidence of another set of sources: found {found}, the manifest says {expected}"


def test_foreign_files_leave_the_pinned_ones_alone(view: Any, made: Made, tmp_path: Path) -> None:
    """A request with files is judged on these alone, and has a digest of its own."""
    files = {f"loso_seed{seed}.json": view.read(f"evidence/loso_seed{seed}.json") for seed in range(3)}
    evidence = gate(view, GateRequest(files, made.corpus))
    assert (evidence.problems, evidence.summary_only) == ((), True)
    pinned = gate(view, GateRequest())
    assert evidence.sha256 not in (None, pinned.sha256)
    for name, value in evidence.metrics.items():
        assert value == pytest.approx(pinned.metrics[name], abs=TOLERANCE)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Oof]:
    """The predictions whose LOSO figures were computed, each time they were."""
    seen: list[Oof] = []
    compute = FoldScores.of
    monkeypatch.setattr(FoldScores, "of", lambda oof: (seen.append(oof), compute(oof))[1])
    return seen


@pytest.mark.parametrize("run", [validate, lambda path, plugins: flip(path, plugins, "tiny")])
def test_a_run_measures_an_entrys_evidence_once(
    smoke: Sandbox, computed: list[Oof], run: Callable[[Path, Any], object]
) -> None:
    """Whoever asks, of whichever opening of the entry: its plugin's check, the gate, the check of what flip wrote."""
    flip(smoke.path, load(), "tiny") if run is validate else None
    gc.collect()
    computed.clear()
    run(smoke.path, load())
    assert len(computed) == 1
    assert smoke.entry["smoke"] is False
    gc.collect()
    assert not [held for held in gc.get_objects() if type(held) is EntryEvidence]  # none outlives its entry


@pytest.mark.parametrize(
    "run",
    [
        lambda path, plugins: flip(path, plugins, "tiny"),
        validate,
        lambda path, plugins: gather(path, plugins, "tiny"),
    ],
    ids=["flip", "validate", "report"],
)
def test_a_run_sorts_and_runs_nothing_twice(
    smoke: Sandbox, run: Callable[[Path, Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are ranked once for each calibration, shipped models run once, predictions are checked once."""
    done: Counter[str] = Counter()

    def counted(name: str, key: Callable[..., object], function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            done[f"{name} {key(*args)}"] += 1
            return function(*args, **kwargs)

        return counting

    ranked = counted("ranks", lambda method, z, *_: (method.name, z.tobytes()), IntervalMethod.scores)
    monkeypatch.setattr(IntervalMethod, "scores", ranked)
    monkeypatch.setattr(entry, "run_shipped", counted("shipped", lambda *_: "", entry.run_shipped))
    monkeypatch.setattr(entry, "recompute", counted("recomputed", lambda *_: "", entry.recompute))
    gc.collect()
    run(smoke.path, load())
    assert {name.split()[0] for name in done} == {"ranks", "shipped", "recomputed"}
    assert set(done.values()) == {1}


def test_other_bytes_are_never_answered_from_what_was_measured(view: Any, computed: list[Oof]) -> None:
    """A reading that gives other bytes is measured anew, from the same view too; the first bytes again are not."""
    data = view.read("evidence/oof.npz")
    oof = read_oof(data)
    target = oof.target.copy()
    target[0] += 1e-9
    forged = write_oof(replace(oof, target=target))
    changing = Other(view, view.manifest)
    answers = []
    for given in (data, forged, data, bytes(bytearray(forged))):
        changing.read = lambda path, given=given: given if path == "evidence/oof.npz" else view.read(path)
        answers.append(evidence_of(changing))
        assert answers[-1].oof.target[0] == read_oof(given).target[0]
        np.testing.assert_array_equal(answers[-1].scores.rmse, FoldScores.of(read_oof(given)).rmse)
    assert answers[0] is answers[2] is not answers[1] is answers[3]
    with pytest.raises(ValueError, match="read-only"):
        answers[0].oof.target[0] = 0.0
