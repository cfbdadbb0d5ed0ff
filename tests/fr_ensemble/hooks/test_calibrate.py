"""test_calibrate.py: an ensemble calibrated on other sources: same members, honest intervals, and no forged variant."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, program_without, run
from csv_tables import read_csv, write_csv
from forging import edited, refused
from fr_ensemble.artifacts.graphs import fused_model, member_model, read_weights, shifted
from fr_ensemble.artifacts.manifest import fused_format_of, scaler_of, spec_of
from fr_ensemble.artifacts.paths import (
    CALIBRATED_PATHS,
    CALIBRATION_FINGERPRINTS_PATH,
    CALIBRATION_INPUTS_PATH,
    CALIBRATION_PATH,
    INPUTS_PATH,
    OOF_PATH,
    PARENT_PATH,
)
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.calibration import read_calibration, write_calibration
from fr_ensemble.evidence.fingerprints import read_fingerprints, write_fingerprints
from fr_ensemble.evidence.inputs import read_inputs
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.statistics import plcc, rmse
from fr_ensemble.hooks import calibrate as hook
from policies import GATE, rules, set_policy
from registries import Made, write_corpus
from sandbox import Sandbox, sha256, to_json

from registry_tool.errors import PluginError
from registry_tool.hookspec import CalibrateRequest
from registry_tool.workflows.calibrate import calibrate

FROZEN = Path(__file__).parents[2] / "frozen"
SOURCES = 8


def changed(path: Path, target: Path, change: Callable[[int, dict[str, str]], object]) -> Path:
    """A copy of a CSV, with each row changed in place."""
    rows = read_csv(path)
    for number, row in enumerate(rows):
        change(number, row)
    return write_csv(target, rows)


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of sources that nothing was trained on, whose scores are three points lower; their sessions are pairs."""
    folder = tmp_path_factory.mktemp("mine")

    def lower(number: int, row: dict[str, str]) -> None:
        row["vmaf"] = str(max(float(row["vmaf"]) - 3.0, 0.0))
        row["session"] = f"day{number // 80}"

    return changed(write_corpus(folder / "rows.csv", SOURCES, 40, seed=3), folder / "mine.csv", lower)


@pytest.fixture(scope="session")
def calibrated_registry(made: Made, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, and two entries of it: `here`, and `lower` with an offset."""
    folder = shutil.copytree(made.smoke, tmp_path_factory.mktemp("calibrated") / "model")
    for arguments in (("here",), ("lower", "--offset")):
        ran = run(folder, "calibrate", "tiny", "--corpus", mine, "--id", *arguments)
        assert ran.code == 0, ran.err
    return folder / "registry.json"


@pytest.fixture
def here(calibrated_registry: Path, tmp_path: Path) -> Sandbox:
    return Sandbox(calibrated_registry, "here").copy(tmp_path / "model")


@pytest.fixture
def lower(calibrated_registry: Path, tmp_path: Path) -> Sandbox:
    return Sandbox(calibrated_registry, "lower").copy(tmp_path / "model")


def of(box: Sandbox, entry_id: str) -> Sandbox:
    return Sandbox(box.path, entry_id)


def predicted(registry: Program, box: Sandbox, corpus: Path) -> dict[str, np.ndarray]:
    ran = registry("predict", box.id, "--corpus", corpus, "--levels", "0.8", "--registry", box.path)
    rows = list(csv.DictReader(ran.out.splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("mu", "sigma", "lower_80", "upper_80")}


def test_members_and_evidence_are_the_parents_byte_for_byte(here: Sandbox) -> None:
    """Every pinned file of the parent is there with its bytes; what is new is the calibration's own evidence."""
    parent = of(here, "tiny")
    old, new = ({name: (box.artifacts / name).read_bytes() for name in box.pinned()} for box in (parent, here))
    assert {name for name in new if name not in old} == {*CALIBRATED_PATHS}
    assert {name: data for name, data in new.items() if name in old} == old
    assert new[PARENT_PATH] == (parent.artifacts / "manifest.json").read_bytes()
    assert here.errors() == []


def test_an_offset_moves_mu_and_nothing_else(registry: Program, lower: Sandbox, made: Made) -> None:
    """By the same constant for every row; the members' files stay, and sigma with them."""
    parent = of(lower, "tiny")
    offset = lower.manifest["calibration"]["offset"]
    assert -3.3 < offset < -2.7
    one, two = (predicted(registry, box, made.heldout) for box in (parent, lower))
    unclipped = (one["mu"] < 99.0) & (two["mu"] > 1.0)
    assert np.abs(two["mu"] - one["mu"] - offset)[unclipped].max() < 1e-4
    assert np.abs(two["sigma"] - one["sigma"]).max() < 1e-4
    assert [m["sha256"] for m in lower.manifest["members"]] == [m["sha256"] for m in parent.manifest["members"]]
    assert lower.errors() == []


def test_intervals_are_those_of_the_definition(lower: Sandbox) -> None:
    """q at 50 %, by plain numpy: scores with the others' offset, one mass a source, the new one's at infinity."""
    oof = read_calibration((lower.artifacts / CALIBRATION_PATH).read_bytes())
    mean, sigma = oof.predictions.mean(axis=0), oof.predictions.std(axis=0, ddof=1)
    excess = [np.mean((oof.target - mean)[oof.source == g]) for g in range(SOURCES)]
    assert lower.manifest["calibration"]["offset"] == pytest.approx(np.mean(excess), rel=1e-6)
    others = np.array([np.mean([e for h, e in enumerate(excess) if h != g]) for g in range(SOURCES)])
    found = next(
        c for c in lower.manifest["intervals"]["calibrations"] if (c["unit"], c["side"]) == ("row", "two-sided")
    )
    scale = np.sqrt(sigma**2 + found["floor"] ** 2)
    z = np.abs(oof.target - np.clip(mean + others[oof.source], 0.0, 100.0)) / scale
    order = np.argsort(z)
    reach = np.cumsum(np.full(len(z), 1.0 / (40 * (SOURCES + 1))))
    q = z[order][np.searchsorted(reach, 0.5 - 1e-9)]
    assert found["levels"]["0.5"]["q"] == pytest.approx(q, rel=1e-4)


def test_calibrated_intervals_cover_what_the_parents_miss(registry: Program, here: Sandbox, tmp_path: Path) -> None:
    """On further sources that are scored three points lower, too."""

    def three_lower(_: int, row: dict[str, str]) -> None:
        row["vmaf"] = str(max(float(row["vmaf"]) - 3.0, 0.0))

    rows = changed(write_corpus(tmp_path / "a.csv", 6, 40, seed=5), tmp_path / "b.csv", three_lower)
    target = np.array([float(row["vmaf"]) for row in csv.DictReader(rows.read_text().splitlines())])
    covered = {}
    for name in ("tiny", "here", "lower"):
        found = predicted(registry, of(here, name), rows)
        covered[name] = np.mean((found["lower_80"] <= target) & (target <= found["upper_80"]))
        width = np.mean(found["upper_80"] - found["lower_80"])
        covered[f"{name} width"] = width
    assert covered["tiny"] < 0.6 < 0.75 < min(covered["here"], covered["lower"])
    assert covered["lower width"] < covered["here width"]


def test_the_gate_measures_the_new_sources(here: Sandbox) -> None:
    """A policy may ask for them; the parent's evidence is judged as it was, and the parent has no such metric."""
    verdict, parent = here.gate(), of(here, "tiny").gate()
    assert verdict.metrics["calibration_n_sources"] == SOURCES
    assert 0.7 < verdict.metrics["calibration_coverage_80"] <= 1.0
    assert verdict.metrics["mean_plcc"] == parent.metrics["mean_plcc"]
    assert verdict.metrics["in_sample_ratio"] == parent.metrics["in_sample_ratio"]
    assert not [name for name in parent.metrics if name.startswith("calibration_")]
    asked = [*GATE["rules"], *rules("calibration_n_sources >= 8", "calibration_coverage_80_upper >= 0.8")["rules"]]
    here.edit(set_policy("fr_ensemble", {"rules": asked}))
    assert here.gate().promotes
    assert not of(here, "tiny").gate().promotes


def test_an_offset_leaves_the_parents_figures(lower: Sandbox) -> None:
    """The shipped members are held against the parent's evidence without it."""
    verdict, parent = lower.gate(), of(lower, "tiny").gate()
    assert verdict.metrics["in_sample_ratio"] == pytest.approx(parent.metrics["in_sample_ratio"], rel=1e-4)
    assert verdict.promotes


def test_it_flips_and_validates_in_production(here: Sandbox) -> None:
    """As any entry; its parent may go."""
    assert here.flip()
    here.edit(lambda document: document.update(models=[row for row in document["models"] if row["id"] == "here"]))
    assert here.errors() == []


def test_what_can_be_promised_is_said_first(registry: Program, here: Sandbox, mine: Path, tmp_path: Path) -> None:
    """How many sources there are, and which levels they guarantee, before anything is computed; even where it fails."""
    two = tmp_path / "two.csv"
    two.write_text("\n".join(mine.read_text().splitlines()[:81]) + "\n")
    ran = registry("calibrate", "tiny", "--corpus", two, "--id", "few", "--registry", here.path)
    assert ran.code == 0
    lines = ran.err.splitlines()
    assert lines[0] == "two.csv: 80 rows, 2 sources by the column src"
    assert any("no guarantee at" in line and "95 % takes" in line for line in lines[:3])
    assert of(here, "few").manifest["intervals"]["calibrations"][0]["n_sources"] == 2


def test_a_promise_with_an_offset_is_said_to_be_nearly_one(registry: Program, smoke: Sandbox, mine: Path) -> None:
    """A new source has the offset of all, each of the calibration's that of the others; without one nothing is said."""
    for options, count in (((), 0), (("--offset",), 1), (("--offset", "--interval", "gaussian"), 0)):
        words = ("calibrate", "tiny", "--corpus", mine, "--id", "x", "--registry", smoke.path)
        ran = registry(*words, *options)
        assert (ran.code, ran.err.count("what is guaranteed is nearly so")) == (0, count), ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tiny", "--id", "tiny"), 2, "expected another id"),
        (("here", "--id", "again"), 2, "it is calibrated already, expected the entry it was made of: tiny"),
        (("tiny", "--id", "x", "--group", "session", "--source-column", "src"), 2, "takes no --source-column"),
        (("tiny", "--id", "x", "--group", "lab"), 2, "lab"),
        (("tiny", "--id", "x", "--interval", "best"), 2, "--interval: found 'best', expected one of"),
        (("tiny", "--id", "Not an id"), 2, "--id: found 'Not an id'"),
        (("nobody", "--id", "x"), 2, "no entry 'nobody'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    registry: Program, here: Sandbox, mine: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """In one line, and nothing is written."""
    before = here.tree()
    ran = registry("calibrate", *arguments, "--corpus", mine, "--registry", here.path)
    assert ran.code == code
    assert words in ran.err.splitlines()[-1]
    assert here.tree() == before


def test_random_rows_are_not_calibrated(registry: Program, random_rows: Sandbox, mine: Path) -> None:
    """An entry of random rows has nothing to calibrate."""
    ran = registry("calibrate", "tiny", "--corpus", mine, "--id", "x", "--registry", random_rows.path)
    assert (ran.code, "trained on random rows" in ran.err) == (2, True)


@pytest.mark.parametrize("how", ["as they are", "renamed"])
def test_sources_that_were_trained_on_are_refused(
    registry: Program, smoke: Sandbox, made: Made, tmp_path: Path, how: str
) -> None:
    """By their names, and under other names by their rows."""

    def rename(_: int, row: dict[str, str]) -> None:
        row["src"] = f"other-{row['src']}" if how == "renamed" else row["src"]

    rows = changed(made.corpus, tmp_path / "rows.csv", rename)
    ran = registry("calibrate", "tiny", "--corpus", rows, "--id", "x", "--registry", smoke.path)
    words = "found 100 % of its values in s10, which the members were trained on"
    words = words if how == "renamed" else "the members were trained on sources of these names"
    assert (ran.code, words in ran.err) == (2, True), ran.err
    assert [row["id"] for row in smoke.registry["models"]] == ["tiny"]


def test_groups_count_as_sources(registry: Program, smoke: Sandbox, mine: Path) -> None:
    """With --group a session is one source, however many videos it has; the manifest says so."""
    ran = registry("calibrate", "tiny", "--corpus", mine, "--id", "x", "--group", "session", "--registry", smoke.path)
    assert ran.code == 0, ran.err
    said = of(smoke, "x").manifest["calibration"]
    assert (said["group"], said["corpus"]["sources"]) == ("session", ["day0", "day1", "day2", "day3"])
    assert of(smoke, "x").errors() == []


def test_it_is_reproduced_from_its_members(registry: Program, lower: Sandbox, mine: Path, made: Made) -> None:
    """To the same bytes, on the rows it was calibrated on; others are refused, and no trainer is asked."""
    ran = registry("reproduce", "lower", "--corpus", mine, "--exact", "--registry", lower.path)
    assert (ran.code, "to the same bytes" in ran.out) == (0, True), ran.out + ran.err
    assert "`registry reproduce tiny` trains them again" in ran.err
    ran = registry("reproduce", "lower", "--corpus", made.heldout, "--registry", lower.path)
    assert (ran.code, "name what lower was calibrated on" in ran.err) == (2, True), ran.err
    ran = registry("reproduce", "lower", "--registry", lower.path)
    assert (ran.code, "it was calibrated on 'mine.csv'" in ran.err) == (2, True), ran.err


def test_what_contradicts_it_says_to_calibrate_again(lower: Sandbox) -> None:
    """An offset or a quantile that the evidence does not give: nothing of the entry was trained."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["intervals"]["calibrations"][0]["levels"]["0.8"]["q"] /= 2.0
        manifest["calibration"]["offset"] += 1.0

    lower.forge(change)
    found = {finding.code: finding.hint for finding in lower.errors()}
    assert {found["intervals-disagree"], found["evidence-problem"]} == {"calibrate again, or restore the files"}


def test_evidence_that_cannot_be_read_says_to_calibrate_again(
    registry: Program, here: Sandbox, made: Made, mine: Path
) -> None:
    """By every command that reads it, and with the command that makes another such entry."""
    here.forge(files={CALIBRATION_PATH: b"no archive"})
    for words in (("gate", "here"), ("predict", "here", "--corpus", made.heldout, "--levels", "0.85")):
        ran = registry(*words, "--registry", here.path)
        assert ran.code == 2
        assert "calibrate tiny again: `registry calibrate tiny --corpus FILE --id NEW`" in ran.err
    ran = registry("calibrate", "tiny", "--corpus", mine, "--id", "new", "--registry", here.path)
    assert ran.code == 0, ran.err
    assert [finding for finding in of(here, "new").errors() if finding.entry == "new"] == []


@pytest.mark.parametrize("path", [CALIBRATION_PATH, CALIBRATION_INPUTS_PATH, CALIBRATION_FINGERPRINTS_PATH])
def test_a_file_that_cannot_be_read_is_the_one_that_is_named(registry: Program, here: Sandbox, path: str) -> None:
    """Not the parent's file of the same form, which lies beside it."""
    here.forge(files={path: b"no archive"})
    ran = registry("gate", "here", "--registry", here.path)
    assert f"registry: here: {Path(path).name}: not a readable archive" in ran.err
    assert any(f" {Path(path).name}: not a readable archive" in finding.message for finding in here.errors())


def test_an_offset_is_not_exported(registry: Program, lower: Sandbox, tmp_path: Path) -> None:
    """The other loader has the members alone, and intervals about their mean; without an offset it is exported."""
    words = ("export", "--allow-smoke", "-o", tmp_path / "out")
    ran = registry(*words, "lower", "--registry", lower.path)
    assert (ran.code, (tmp_path / "out").exists()) == (2, False)
    assert "calibrated without --offset: `registry calibrate tiny --corpus FILE --id NEW`" in ran.err
    assert registry(*words, "here", "--registry", lower.path).code == 0


def test_evaluating_on_its_own_sources_is_said(registry: Program, here: Sandbox, mine: Path, made: Made) -> None:
    """Coverage of sources that intervals were made of flatters; of others there is no such warning."""
    words = "8 of 8 sources (s30, ...): it was calibrated on sources of these names"
    for corpus, warned in ((mine, True), (made.heldout, False)):
        ran = registry("evaluate", "here", "--corpus", corpus, "--registry", here.path)
        assert (ran.code, words in ran.err) == (0, warned), ran.err


def test_videos_in_groups_are_looked_at_by_name_too(
    registry: Program, smoke: Sandbox, mine: Path, tmp_path: Path
) -> None:
    """A session with a video of training is refused, whatever the session is called and its rows say."""

    def rename(_: int, row: dict[str, str]) -> None:
        row["src"] = row["src"].replace("s30", "s10")

    rows = changed(mine, tmp_path / "rows.csv", rename)
    ran = registry("calibrate", "tiny", "--corpus", rows, "--id", "x", "--group", "session", "--registry", smoke.path)
    assert (ran.code, "source s10: the members were trained on it" in ran.err) == (2, True), ran.err


def test_sources_that_promise_less_are_said(registry: Program, smoke: Sandbox, mine: Path, tmp_path: Path) -> None:
    """Encoders as sources are for new encoders alone; rows of one source cannot be calibrated on."""
    lines, where = mine.read_text().splitlines(), ("--registry", smoke.path)
    ran = registry("calibrate", "tiny", "--corpus", mine, "--id", "x", "--group", "encoder", *where)
    assert (ran.code, "intervals are for a new encoder of these sources, not for new" in ran.err) == (0, True), ran.err
    single = tmp_path / "single.csv"
    single.write_text("\n".join(lines[:41]) + "\n")
    ran = registry("calibrate", "tiny", "--corpus", single, "--id", "y", *where)
    assert ran.code == 2
    assert "found 1 source (s30), expected at least 2: each source is judged by the rows of others" in ran.err


@pytest.mark.slow
def test_training_leaves_out_whole_groups(registry: Program, mine: Path, tmp_path: Path) -> None:
    """With `train --group` a session is a fold; the manifest says so, so that reproducing gives the same bytes."""
    box = Sandbox(tmp_path / "new" / "registry.json", "days")
    train = (
        "train",
        "fr_ensemble",
        "--id",
        "days",
        "--corpus",
        mine,
        "--seeds",
        "0,1",
        "--epochs",
        "3",
        "--hidden",
        "8",
        "--no-baselines",
    )
    ran = registry(*train, "--group", "session", "--registry", box.path)
    assert ran.code == 0, ran.err
    corpus = box.manifest["corpus"]
    assert (corpus["source_column"], corpus["sources"]) == ("session", ["day0", "day1", "day2", "day3"])
    ran = registry("reproduce", "days", "--corpus", mine, "--exact", "--registry", box.path)
    assert ran.code == 0, ran.out + ran.err
    ran = registry(*train, "--group", "session", "--source-column", "src", "--registry", box.path)
    assert (ran.code, "takes no --source-column" in ran.err) == (2, True)


def test_training_leaves_out_encoders(registry: Program, made: Made, tmp_path: Path) -> None:
    """`train --group encoder` has a fold for each encoder, says what that is worth, and its evidence is made again."""
    box = Sandbox(tmp_path / "new" / "registry.json", "codecs")
    quick = ("--seeds", "0,1", "--epochs", "3", "--no-baselines")
    train = ("train", "fr_ensemble", "--id", "codecs", "--corpus", made.corpus, *quick)
    ran = registry(*train, "--group", "encoder", "--registry", box.path)
    assert ran.code == 0, ran.err
    assert "for a new encoder of sources that training has" in ran.err
    corpus = box.manifest["corpus"]
    assert corpus["sources"] == [item["name"] for item in corpus["encoders"]]
    assert len(corpus["sources"]) > 1
    ran = registry("reproduce", "codecs", "--corpus", made.corpus, "--exact", "--registry", box.path)
    assert ran.code == 0, ran.out + ran.err
    assert registry("validate", box.path).code == 0
    ran = registry("gate", "codecs", "--registry", box.path)
    assert (ran.code, "folds: found a fold for each encoder, expected one for each source" in ran.out) == (1, True)


def test_card_and_report_say_what_it_was_calibrated_on(registry: Program, lower: Sandbox, tmp_path: Path) -> None:
    """The corpus, how many sources, the offset and the parent; the report has a table of the sources."""
    card = registry("card", "lower", "--registry", lower.path).out
    assert "mine.csv: 320 rows of 8 sources, offset -" in card
    assert "models of tiny" in card
    assert "Its intervals are calibrated on 8 other sources" in card
    page = tmp_path / "report.html"
    ran = registry("report", "lower", "-o", page, "--registry", lower.path)
    assert ran.code == 0, ran.err
    text = page.read_text(encoding="utf-8")
    assert "Calibrated on other sources" in text
    assert "mine.csv: 320 rows of 8 sources" in text
    assert "Calibrated on" not in registry("card", "tiny", "--registry", lower.path).out


def test_levels_that_the_sources_cannot_promise_are_said(
    registry: Program, here: Sandbox, made: Made, tmp_path: Path
) -> None:
    """By predict, evaluate, gate, the card and the report's first page; a level that is promised is not."""
    words = "have no guarantee from 8 sources (random-effects-t: assumes that sources differ normally)"
    where, rows = ("--registry", here.path), ("--corpus", made.heldout, "--levels", "0.8,0.95")
    for command in ("predict", "evaluate"):
        ran = registry(command, "here", *rows, *where)
        assert f"intervals of a row at 95 % {words}" in ran.err
    assert f"intervals of a row at 90 %, 95 %, 99 % {words}" in registry("gate", "here", *where).out
    assert "Its intervals at 90 %, 95 %, 99 % have no guarantee" in registry("card", "here", *where).out
    assert registry("report", "here", "-o", tmp_path / "report.html", *where).code == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"intervals of a row at 90 %, 95 %, 99 % {words}" in text[: text.index("Leave one source out")]


# ---- what a forger may do --------------------------------------------------------------------------------------------


def flattering(parent: hook.Parent, corpus: Corpus, make: Any) -> Oof:
    """Predictions nearer to the targets than the members': intervals that are too narrow, consistently."""
    pinned = make(parent, corpus)
    return replace(pinned, predictions=(pinned.predictions + 2.0 * pinned.target) / 3.0)


def merged(parent: hook.Parent, request: CalibrateRequest, make: Any) -> Corpus:
    """The first two sources as one, under the digest of the rows as they are."""
    corpus = make(parent, request)
    return replace(corpus, source=np.maximum(corpus.source - 1, 0), sources=corpus.sources[1:])


def doubled(parent: hook.Parent, request: CalibrateRequest, make: Any) -> Corpus:
    """Each source as two, so that there seem to be enough, under the digest of the rows as they are."""
    corpus = make(parent, request)
    names = tuple(f"{name}{part}" for name in corpus.sources for part in "ab")
    return replace(corpus, source=corpus.source * 2 + np.arange(corpus.n_rows) % 2, sources=names)


def other_digest(parent: hook.Parent, entry_id: str, measured: hook.Measured, make: Any) -> Any:
    """A parent that is no entry's."""
    made = make(parent, entry_id, measured)
    said = {**made.manifest["calibrated_from"], "manifest_sha256": "0" * 64}
    return replace(made, manifest={**made.manifest, "calibrated_from": said})


def narrower(intervals: dict[str, Any]) -> None:
    intervals["calibrations"][0]["levels"]["0.95"]["q"] /= 2.0


def wider_training(intervals: dict[str, Any]) -> None:
    """Input ranges in which nothing would be out of distribution."""
    intervals["input_ranges"][0]["range"] = [-1e9, 1e9]


def other_member(parent: hook.Parent, entry_id: str, measured: hook.Measured, make: Any) -> Any:
    """Another first member, with graph, probe, figures and, by the forger's hand, the parent's manifest made to fit."""
    trained = make(parent, entry_id, measured)
    manifest, files = json.loads(json.dumps(trained.manifest)), dict(trained.files)
    members = [read_weights(files[member["onnx"]]) for member in manifest["members"]]
    members[0] = shifted(members[0], 1.0)
    width, slots = len(manifest["feature_order"]), len(manifest["codec_vocab"])
    files[manifest["members"][0]["onnx"]] = member_model(members[0], width)
    files[manifest["fused"]["onnx"]] = fused_model(
        members, scaler_of(manifest), width, slots, fused_format_of(manifest)
    )
    model, document = Ensemble(files[manifest["fused"]["onnx"]]), json.loads(files[PARENT_PATH])
    oof, inputs, spec = read_oof(files[OOF_PATH]), read_inputs(files[INPUTS_PATH]), spec_of(manifest, target=True)
    mu, sigma = model.predict(inputs.features, inputs.codec_block(spec))
    figures = {"in_sample_plcc": plcc(mu, oof.target), "in_sample_rmse": rmse(mu, oof.target)}
    probe = model.predict(*(np.array(manifest["probe"][name]) for name in ("features", "codec_block")))
    for one in (manifest, document):
        one["eval"] |= figures | {"mean_sigma_train": float(sigma.mean())}
        one["probe"]["mu"], one["probe"]["sigma"] = (values.tolist() for values in probe)
    for pin in (document["members"][0], document["fused"]):
        pin["sha256"] = sha256(files[pin["onnx"]])
    files[PARENT_PATH] = to_json(document)
    manifest["calibrated_from"]["manifest_sha256"] = sha256(files[PARENT_PATH])
    return replace(trained, manifest=manifest, files=files)


def no_fingerprints(parent: hook.Parent, entry_id: str, measured: hook.Measured, make: Any) -> Any:
    trained = make(parent, entry_id, measured)
    path = hook.CALIBRATION_FINGERPRINTS_PATH
    found = read_fingerprints(trained.files[path])
    empty = replace(found, rows=tuple(np.array([float(g + 1)]) for g in range(len(found.sources))))
    return replace(trained, files={**trained.files, path: write_fingerprints(empty)})


def other_targets(parent: hook.Parent, entry_id: str, measured: hook.Measured, make: Any) -> Any:
    trained = make(parent, entry_id, measured)
    pinned = read_calibration(trained.files[CALIBRATION_PATH])
    target = np.clip(pinned.predictions.mean(axis=0), 0.0, 100.0)
    return replace(
        trained, files={**trained.files, CALIBRATION_PATH: write_calibration(replace(pinned, target=target))}
    )


ATTACKS = [
    ("make", other_digest, "calibrated_from says 000"),
    ("make", other_member, "calibration.npz predictions: row 0"),
    ("make", narrower, "the intervals are not those of the"),
    ("make", wider_training, "input_ranges adm2: found"),
    ("make", no_fingerprints, "fingerprints.npz: found other rows than those of inputs.npz"),
    ("make", other_targets, "inputs.npz: found rows of sha256"),
    ("_predicted", flattering, "calibration.npz predictions: row"),
    ("_read", merged, "inputs.npz: found rows of sha256"),
    ("_read", doubled, "inputs.npz: found rows of sha256"),
    ("offset_in", lambda pinned, make: make(pinned) / 2.0, "offset: found"),
]


@pytest.mark.parametrize(("step", "forge", "words"), ATTACKS, ids=[attack[1].__name__ for attack in ATTACKS])
def test_a_forged_calibration_is_found(
    smoke: Sandbox, mine: Path, monkeypatch: pytest.MonkeyPatch, step: str, forge: Any, words: str
) -> None:
    """Whatever step a forger's program does otherwise, with all that follows made to fit: it does not validate."""
    forged = edited(forge, "intervals") if forge in (narrower, wider_training) else forge
    assert words in refused(monkeypatch, smoke, CalibrateRequest("x", mine, offset=step == "offset_in"), step, forged)


def test_training_rows_under_other_names_are_found(
    smoke: Sandbox, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the program that calibrates does not look, the one that validates does."""

    def rename(_: int, row: dict[str, str]) -> None:
        row["src"] = f"other-{row['src']}"

    rows = changed(made.corpus, tmp_path / "rows.csv", rename)
    monkeypatch.setattr(hook, "seen_problems", lambda *_: [])
    with pytest.raises(PluginError, match="which the members were trained on"):
        calibrate(smoke.path, smoke.plugins, "tiny", CalibrateRequest("x", rows))


def test_swapped_members_are_found(here: Sandbox) -> None:
    """Two members in each other's place are not the parent's members."""

    def swap(manifest: dict[str, Any]) -> None:
        first, second = manifest["members"][:2]
        for key in ("onnx", "sha256"):
            first[key], second[key] = second[key], first[key]

    assert ("evidence-problem", "/evidence") in here.forged(swap)


def test_a_missing_file_is_found(here: Sandbox) -> None:
    """Of the calibration's own evidence, each."""
    (here.artifacts / PARENT_PATH).unlink()

    def unpin(manifest: dict[str, Any]) -> None:
        manifest["evidence"] = [pin for pin in manifest["evidence"] if pin["path"] != PARENT_PATH]

    assert ("evidence-files", "/evidence") in here.forged(unpin)


# ---- other parents, other machines -----------------------------------------------------------------------------------


def test_an_entry_of_an_older_release_can_be_calibrated(registry: Program, mine: Path, tmp_path: Path) -> None:
    """Though it has neither inputs nor fingerprints; that those could not be compared is said."""
    (commit,) = FROZEN.glob("5e6a11a")
    box = Sandbox(shutil.copytree(commit / "model", tmp_path / "model") / "registry.json", "new")
    ran = registry("calibrate", "promoted", "--corpus", mine, "--id", "new", "--offset", "--registry", box.path)
    assert ran.code == 0, ran.err
    assert "judged by names and targets alone" in ran.err
    assert box.errors() == []
    assert box.gate().metrics["calibration_n_sources"] == SOURCES


@pytest.mark.parametrize("option", ["--offset", "--by-encoder"])
def test_it_needs_neither_torch_nor_numba(smoke: Sandbox, mine: Path, option: str) -> None:
    """Where neither can be imported an entry is calibrated all the same, with an offset or by encoder."""
    arguments = ("calibrate", "tiny", "--corpus", mine, "--id", "x", option, "--registry", smoke.path)
    ran = program_without(("torch", "numba", "llvmlite"), *arguments)
    assert ran.returncode == 0, ran.stderr
    assert of(smoke, "x").errors() == []
