"""test_by_encoder.py: intervals calibrated apart for each encoder: whose row has which, and no forged variant."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, run
from csv_tables import read_csv, write_csv
from forging import edited, refused
from fr_ensemble.artifacts.paths import CALIBRATION_PATH
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.calibration import read_calibration
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.hooks.figures import figures
from fr_ensemble.hooks.refuted import refuted_encoders
from policies import GATE, rules, set_policy
from registries import FEATURES, Made
from sandbox import Sandbox

import registry_tool
from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.hookspec import CalibrateRequest, Figure

SOURCES, QUALITIES, FRAMES = 8, 4, 3
LOST = {
    "x264": 0.0,
    "libx265": 8.0,
    "libsvtav1": 4.0,
    "mpeg2video": 2.0,
    "unknown": 0.0,
}  # points that scores are lower
FEW = "libsvtav1"  # in three sources alone
LEVELS = ("0.5", "0.8")


def write(path: Path, sources: int, seed: int, encoders: tuple[str, ...] = tuple(LOST)) -> Path:
    """Clips of three frames by each encoder at four qualities; scores are lower by encoder, and by luck of a source."""
    rng, rows = np.random.default_rng(seed), list[tuple[Any, ...]]()
    for source in range(sources):
        luck = {name: rng.normal(0.0, 0.2 + LOST[name] / 4.0) for name in encoders}
        for name in (name for name in encoders if name != FEW or source < 3):
            for clip in range(QUALITIES):
                spelled = "libx264" if name == "x264" and clip % 2 else name
                for _ in range(FRAMES):
                    good = float(np.clip(1.0 - 0.2 * clip + rng.normal(0, 0.03), 0.2, 1.0))
                    features = np.clip(good ** np.array([0.2, 1.0, 0.7, 0.5, 0.35]) + rng.normal(0, 0.01, 5), 0, 1)
                    vmaf = float(np.clip(100 * good**0.6 - LOST[name] + luck[name], 0, 100))
                    rows.append((f"e{seed}{source}", spelled, 20 + 8 * clip, *features, rng.uniform(1, 8), vmaf))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("src", "encoder", "crf", *FEATURES, "vmaf"), *rows])
    return path


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mine") / "mine.csv", SOURCES, seed=6)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Further sources of the same kind."""
    return write(tmp_path_factory.mktemp("others") / "others.csv", 12, seed=7)


@pytest.fixture(scope="module")
def made_registry(made: Made, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, and three entries of it: `pooled`, and `apart` and `moved` by encoder, the last with an offset."""
    folder = shutil.copytree(made.smoke, tmp_path_factory.mktemp("by-encoder") / "model")
    for name, *options in (("pooled",), ("apart", "--by-encoder"), ("moved", "--by-encoder", "--offset")):
        ran = run(folder, "calibrate", "tiny", "--corpus", mine, "--id", name, *options)
        assert ran.code == 0, ran.err
    return folder / "registry.json"


@pytest.fixture
def apart(made_registry: Path, tmp_path: Path) -> Sandbox:
    return Sandbox(made_registry, "apart").copy(tmp_path / "model")


def numbers(rows: list[dict[str, str]], name: str) -> np.ndarray[Any, Any]:
    return np.array([float(row[name]) for row in rows])


def own_calibrations(box: Sandbox, side: str = "two-sided", unit: str = "row") -> dict[str, dict[str, Any]]:
    """By encoder, as the manifest has them; "" is the pooled one."""
    intervals = box.manifest["intervals"]
    lists = {"": intervals["calibrations"]}
    lists |= {item["name"]: item["calibrations"] for item in intervals["by_encoder"]["encoders"]}
    return {
        name: next(one for one in found if (one["unit"], one["side"]) == (unit, side)) for name, found in lists.items()
    }


def usual(name: str) -> str:
    return {"x264": "libx264", "H.264": "libx264", "hevc": "libx265"}.get(name, name)


def pinned(box: Sandbox) -> Oof:
    return read_calibration((box.artifacts / CALIBRATION_PATH).read_bytes())


# ---- which intervals there are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["apart", "moved"])
def test_quantiles_are_those_of_the_definition(made_registry: Path, name: str) -> None:
    """By plain numpy: the hierarchical quantile of an encoder's rows alone; the offset is that of all rows."""
    box = Sandbox(made_registry, name)
    oof, found = pinned(box), own_calibrations(box)
    assert oof.encoders == ("libsvtav1", "libx264", "libx265", "mpeg2video", "unknown")
    assert [*found] == ["", "libx264", "libx265", "mpeg2video"]
    mean, sigma = oof.predictions.mean(axis=0), oof.predictions.std(axis=0, ddof=1)
    if name == "moved":
        excess = [np.mean((oof.target - mean)[oof.source == g]) for g in range(SOURCES)]
        assert box.manifest["calibration"]["offset"] == pytest.approx(np.mean(excess), rel=1e-6)
        mean = mean + np.array([np.mean(excess[:g] + excess[g + 1 :]) for g in range(SOURCES)])[oof.source]
    assert oof.encoder is not None
    for encoder in ("libx264", "libx265", "mpeg2video"):
        rows = oof.encoder == oof.encoders.index(encoder)
        one = found[encoder]
        scale = np.sqrt(sigma[rows] ** 2 + one["floor"] ** 2)
        z = np.abs(oof.target[rows] - np.clip(mean[rows], 0, 100)) / scale
        order = np.argsort(z)
        reach = np.cumsum(np.full(len(z), 1.0 / (QUALITIES * FRAMES * (SOURCES + 1))))
        for level in LEVELS:
            q = z[order][np.searchsorted(reach, float(level) - 1e-9)]
            assert one["levels"][level]["q"] == pytest.approx(q, rel=1e-4)
            assert one["levels"][level]["guarantee"].startswith("1 - alpha")
        assert one["levels"]["0.95"]["guarantee"].startswith("none")
        assert (one["n"], one["n_sources"]) == (SOURCES * QUALITIES * FRAMES, SOURCES)


def test_pooled_intervals_stay(made_registry: Path) -> None:
    """Pooled calibrations and `confidence` are those that there are without the option, which says nothing of it."""
    apart, pooled = (Sandbox(made_registry, name).manifest for name in ("apart", "pooled"))
    assert apart["intervals"]["calibrations"] == pooled["intervals"]["calibrations"]
    assert apart["confidence"] == pooled["confidence"]
    assert "by_encoder" not in pooled["intervals"]
    assert pinned(Sandbox(made_registry, "pooled")).encoders is None
    said = apart["intervals"]["by_encoder"]
    assert said["min_sources"] == 4
    assert said["pooled"] == [{"name": "libsvtav1", "n_sources": 3}, {"name": "unknown", "n_sources": SOURCES}]


def test_it_validates_gates_and_flips(apart: Sandbox) -> None:
    """As any entry; the new sources' coverage is that by encoder."""
    assert apart.errors() == []
    asked = [*GATE["rules"], *rules("calibration_coverage_80_upper >= 0.8")["rules"]]
    asked += rules("calibration_encoder_coverage_80_upper >= 0.8")["rules"]
    apart.edit(set_policy("fr_ensemble", {"rules": asked}))
    assert apart.gate().promotes
    assert apart.flip()


def inside_as_unseen(apart: Sandbox) -> np.ndarray[Any, Any]:
    """By plain numpy: which rows are inside 80 % by their encoder's rows of the other sources, else by all of those."""
    oof, found = pinned(apart), own_calibrations(apart)
    mean, sigma = np.clip(oof.predictions.mean(axis=0), 0, 100), oof.predictions.std(axis=0, ddof=1)
    assert oof.encoder is not None
    assert oof.encoders is not None
    inside = np.zeros(len(oof.target), bool)
    for code, name in enumerate(oof.encoders):
        known = found.get(name, found[""])
        score = np.abs(oof.target - mean) / np.sqrt(sigma**2 + known["floor"] ** 2)
        same = (oof.encoder == code) if name in found else np.ones(len(score), bool)
        for g in range(SOURCES):
            rest = same & (oof.source != g)
            counts = np.bincount(oof.source[rest], minlength=SOURCES)[oof.source[rest]]
            order = np.argsort(score[rest])
            reach = np.cumsum(1.0 / (counts[order] * SOURCES))  # of seven sources and the new one
            q = score[rest][order][np.searchsorted(reach, 0.8 - 1e-9)]
            rows = (oof.encoder == code) & (oof.source == g)
            inside[rows] = score[rows] <= q
    return inside


def test_coverage_is_by_encoder(apart: Sandbox) -> None:
    """The metrics' shares are those of plain numpy: of sources, and of the encoder that is covered least."""
    oof, found, inside = pinned(apart), own_calibrations(apart), inside_as_unseen(apart)
    assert oof.encoders is not None
    expected = [inside[oof.source == g].mean() for g in range(SOURCES)]
    metrics = apart.gate().metrics
    assert metrics["calibration_coverage_80"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert metrics["calibration_coverage_80_worst"] == pytest.approx(min(expected), abs=1e-9)
    shares = [
        np.array([inside[(oof.encoder == oof.encoders.index(name)) & (oof.source == g)].mean() for g in range(SOURCES)])
        for name in found
        if name
    ]
    assert metrics["calibration_encoder_coverage_80"] == pytest.approx(min(s.mean() for s in shares), abs=1e-9)
    upper = min(s.mean() + 1.64 * s.std(ddof=1) / np.sqrt(SOURCES) for s in shares)
    assert metrics["calibration_encoder_coverage_80_upper"] == pytest.approx(upper, abs=1e-9)
    assert not [name for name in Sandbox(apart.path, "pooled").gate().metrics if "encoder" in name]


# ---- whose row has which ---------------------------------------------------------------------------------------------


def test_each_row_has_its_encoders_bounds(registry: Program, apart: Sandbox, others: Path) -> None:
    """In every spelling; an encoder with too few sources, an unknown one and one not calibrated on have the pooled."""
    rows = read_csv(others)
    for number, row in enumerate(rows):
        if row["encoder"] == "x264" and number % 4 == 0:
            row["encoder"] = "H.264"
        if row["encoder"] == "unknown":
            row["encoder"] = "libaom-av1" if number % 2 else "unknown"
    path = apart.folder.parent / "rows.csv"
    write_csv(path, rows)
    ran = registry("predict", "apart", "--corpus", path, "--levels", ",".join(LEVELS), "--registry", apart.path)
    assert ran.code == 0, ran.err
    given = list(csv.DictReader(ran.out.splitlines()))
    assert {row["encoder"] for row in given} >= {"H.264", "x264", "libx264", "libaom-av1", "unknown", FEW}
    found, mu, sigma = own_calibrations(apart), numbers(given, "mu"), numbers(given, "sigma")
    model = registry_tool.open(apart.path).load("apart", allow_smoke=True)
    columns = {name: numbers(rows, name) for name in FEATURES} | {"encoder": [row["encoder"] for row in rows]}
    loaded = model.predict(columns, levels=[float(level) for level in LEVELS])
    for level in LEVELS:
        lower, upper = (numbers(given, f"{end}_{float(level) * 100:g}") for end in ("lower", "upper"))
        known = [found.get(usual(row["encoder"]), found[""]) for row in given]
        q, floor = (
            np.array(values) for values in ([k["levels"][level]["q"] for k in known], [k["floor"] for k in known])
        )
        half = q * np.sqrt(sigma**2 + floor**2)
        assert lower == pytest.approx(np.clip(mu - half, 0, 100), abs=1e-3)
        assert upper == pytest.approx(np.clip(mu + half, 0, 100), abs=1e-3)
        assert ((lower >= 0) & (lower <= mu) & (mu <= upper) & (upper <= 100)).all()
        assert loaded.interval(float(level))[0] == pytest.approx(lower, abs=1e-3)
        assert loaded.interval(float(level))[1] == pytest.approx(upper, abs=1e-3)


def test_it_mends_what_pooling_hides(registry: Program, apart: Sandbox, others: Path) -> None:
    """Each encoder's rows of new sources are covered as claimed; pooled, one too seldom and one too often."""
    by = {}
    for name in ("pooled", "apart"):
        arguments = ("--corpus", others, "--levels", "0.8", "--by", "encoder", "--registry", apart.path)
        ran = registry("evaluate", name, *arguments, "--format", "json")
        assert ran.code == 0, ran.err
        by[name] = json.loads(ran.out)["by"]["encoder"]
    covered = {name: {e: one["levels"][0]["coverage"] for e, one in of.items()} for name, of in by.items()}
    width = {name: {e: one["levels"][0]["width"] for e, one in of.items()} for name, of in by.items()}
    assert covered["pooled"]["libx265"] < 0.65
    assert covered["pooled"]["libx264"] == 1.0
    assert min(covered["apart"][name] for name in ("libx265", "libx264", "x264", "mpeg2video")) > 0.75
    assert width["apart"]["libx264"] < 0.6 * width["pooled"]["libx264"]
    assert covered["apart"][FEW] == covered["pooled"][FEW]


def test_an_encoder_that_refutes_a_level_is_named(registry: Program, apart: Sandbox, tmp_path: Path) -> None:
    """Though all rows together do not; the entry to calibrate is the one with the members, and the command works."""
    said, others = {}, write(tmp_path / "more.csv", 20, seed=9, encoders=("x264", "libx265", "mpeg2video"))
    for name in ("pooled", "apart"):
        where = ("--corpus", others, "--levels", "0.5", "--registry", apart.path)
        said[name] = registry("evaluate", name, *where).err
    assert "50 % is refuted: " not in said["pooled"]
    [line] = [line for line in said["pooled"].splitlines() if "50 % is refuted for rows of" in line]
    assert re.search(r"for rows of libx265: coverage is 0\.0\d\d \+- 0\.\d{3} over 20 sources", line), line
    assert "refuted" not in said["apart"]
    [command] = re.findall("`registry (calibrate .*)`", said["pooled"])
    assert command == "calibrate tiny --corpus FILE --id NEW --by-encoder"
    typed = command.replace("FILE", str(others)).replace("NEW", "again")
    assert registry(*typed.split(), "--registry", apart.path).code == 0


def test_evaluate_measures_with_its_encoders_bounds(registry: Program, apart: Sandbox, others: Path) -> None:
    """Coverage, width and CRPS are those of predict's bounds, by encoder, by source and in all; clips have theirs."""
    where = ("--corpus", others, "--levels", "0.8", "--registry", apart.path)
    document = json.loads(registry("evaluate", "apart", *where, "--by", "src", "--format", "json").out)
    given = list(csv.DictReader(registry("predict", "apart", *where).out.splitlines()))
    target = numbers(read_csv(others), "vmaf")
    lower, upper = numbers(given, "lower_80"), numbers(given, "upper_80")
    inside = (lower <= target) & (target <= upper)
    assert document["levels"][0]["coverage"] == pytest.approx(inside.mean(), abs=0.002)
    assert document["levels"][0]["width"] == pytest.approx((upper - lower).mean(), abs=1e-3)
    for column in ("encoder", "src"):
        for label, one in document["by"][column].items():
            mask = np.array([row[column] == label for row in given])
            assert one["levels"][0]["coverage"] == pytest.approx(inside[mask].mean(), abs=0.02), label
            assert one["levels"][0]["width"] == pytest.approx((upper - lower)[mask].mean(), abs=1e-3), label
    pooled = json.loads(registry("evaluate", "pooled", *where, "--format", "json").out)
    assert document["baselines"]["pooled"] == pooled["levels"]
    assert document["clips"]["levels"][0]["width"] != pooled["clips"]["levels"][0]["width"]
    assert document["crps_calibrated"] < pooled["crps_calibrated"]
    assert violations(document, schemas.load("evaluation")) == []


def test_a_level_that_is_not_stored_is_by_encoder_too(registry: Program, apart: Sandbox, others: Path) -> None:
    """Computed from the pinned predictions of the encoder's rows, between its stored neighbours."""
    found, quantiles = own_calibrations(apart), {}
    arguments = ("--corpus", others, "--levels", "0.7", "--registry", apart.path)
    given = list(csv.DictReader(registry("predict", "apart", *arguments).out.splitlines()))
    for row in given:
        name = usual(row["encoder"])
        scale = np.hypot(float(row["sigma"]), found.get(name, found[""])["floor"])
        if float(row["upper_70"]) < 100:
            quantiles.setdefault(name, (float(row["upper_70"]) - float(row["mu"])) / scale)
    for name in ("libx264", "libx265", "mpeg2video"):
        low, high = (found[name]["levels"][level]["q"] for level in LEVELS)
        assert low <= quantiles[name] <= high


def test_levels_without_a_guarantee_are_said_of_each_encoder(registry: Program, apart: Sandbox, others: Path) -> None:
    """By predict and gate, an encoder a line, with the number of rows."""
    ran = registry("predict", "apart", "--corpus", others, "--levels", "0.95", "--registry", apart.path)
    words = f"encoder libx265: intervals of a row at 95 % have no guarantee from {SOURCES} sources"
    assert [line for line in ran.err.splitlines() if words in line]
    assert words.replace("at 95 %", "at 90 %, 95 %, 99 %") in registry("gate", "apart", "--registry", apart.path).out


@pytest.fixture(scope="module")
def many(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows by five encoders that no vocabulary has, each in every source."""
    rows = [row | {"encoder": f"e{number % 5}"} for number, row in enumerate(read_csv(mine))]
    return write_csv(tmp_path_factory.mktemp("many") / "many.csv", rows)


def test_many_encoders_are_one_line_each_time(registry: Program, smoke: Sandbox, many: Path) -> None:
    """Which names the first few and counts the others, by every command that says something of each of a few."""
    where, n_rows = ("--registry", smoke.path), len(read_csv(many))
    unknown = f"warning: encoders 'e0', 'e1', 'e2' and 2 more are unknown: {n_rows} rows"
    bare = f"encoders e0, e1, e2 and 2 more: intervals of a row at 95 % have no guarantee from {SOURCES} sources"
    ran = registry("calibrate", "tiny", "--corpus", many, "--id", "many", "--by-encoder", *where)
    said = {
        "calibrate": ran.err,
        "predict": registry("predict", "many", "--corpus", many, "--levels", "0.95", *where).err,
        "evaluate": registry("evaluate", "many", "--corpus", many, "--levels", "0.95", *where).err,
        "gate": registry("gate", "many", *where).out.replace("at 90 %, 95 %, 99 %", "at 95 %"),
    }
    assert f"e0, e1, e2 and 2 more ({SOURCES} sources each): intervals of 50, 80 % are guaranteed" in ran.err
    each = ", ".join(f"e{number} ({SOURCES} sources)" for number in range(3))
    assert f"encoders apart: {each} and 2 more\n" in ran.out
    for command, wanted in (("calibrate", unknown), ("predict", unknown), ("evaluate", unknown)):
        assert [line for line in said[command].splitlines() if "unknown: " in line] == [wanted]
    for command in ("predict", "evaluate", "gate"):
        assert len([line for line in said[command].splitlines() if "encoder" in line and bare in line]) == 1
        assert "encoder e0" not in said[command]


def test_many_encoders_have_one_line_of_what_recommends_them(
    registry: Program, smoke: Sandbox, many: Path, others: Path
) -> None:
    """With the answers of all of them, and by source with the first names alone."""
    where = ("--registry", smoke.path)
    assert registry("calibrate", "tiny", "--corpus", many, "--id", "many", "--by-encoder", *where).code == 0
    rows = [row | {"encoder": f"e{number % 5}", "kbps": number} for number, row in enumerate(read_csv(others))]
    asked = ("fr-ensemble", "recommend", "many", "--corpus", write_csv(others.with_name("many-others.csv"), rows))
    ran = registry(*asked, "--target", "60", *where)
    assert ran.code == 0, ran.err
    lines = [line for line in ran.out.splitlines() if re.match(r"e\d.*: .* answer", line)]
    assert {line.split(": ")[0] for line in lines} == {"e0, e1, e2 and 2 more"}
    assert len({line.split(" by ")[1] for line in lines}) == len(lines)
    ran = registry(*asked, "--target", "60", "--by", "source", "--cost", "kbps", *where)
    assert "the lower bound of an encode by e0, e1, e2 and 2 more is that of its encoder's rows" in ran.out


def test_many_encoders_that_refute_a_level_are_one_line(many: Path) -> None:
    """With the worst first, and its coverage."""
    corpus = read_corpus(many, ColumnSpec())
    outside = np.full(corpus.n_rows, 200.0)
    [line] = refuted_encoders(corpus, {0.5: (outside, outside)})[0.5]
    figure = f"coverage is 0.000 +- 0.000 over {SOURCES} sources for the first"
    assert line == f"50 % is refuted for rows of e0, e1, e2 and 2 more: {figure}"


def test_recommend_takes_the_encoders_bound(registry: Program, apart: Sandbox, others: Path) -> None:
    """`lower` is by the encoder's own calibration of clips; the document has each, and the lines name them."""
    where = ("--corpus", others, "--target", "60", "--confidence", "0.8", "--registry", apart.path)
    for statistic in ((), ("--percentile", "10")):
        ran = registry("fr-ensemble", "recommend", "apart", *where, *statistic, "--format", "json")
        assert ran.code == 0, ran.err
        document = json.loads(ran.out)
        assert violations(document, schemas.load("recommendation")) == []
        bounds = {"": document["bound"]} | {one["encoder"]: one["bound"] for one in document["by_encoder"]}
        assert [*bounds] == ["", "libx264", "libx265", "mpeg2video"]
        if not statistic:
            known = own_calibrations(apart, "lower", "clip")
            assert {n: b["q"] for n, b in bounds.items()} == {n: k["levels"]["0.8"]["q"] for n, k in known.items()}
        for group in document["groups"]:
            bound = bounds.get(usual(group["encoder"]), bounds[""])
            for clip in group["encodes"]:
                expected = clip["mu"] - max(bound["q"], 0.0) * np.hypot(clip["sigma"], bound["floor"])
                assert clip["lower"] == pytest.approx(np.clip(expected, 0, 100), abs=1e-6)
    lines = registry("fr-ensemble", "recommend", "apart", *where).out.splitlines()
    assert any(line.startswith("libx265: 12 answers by controlled choice") for line in lines), lines


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_what_each_encoder_can_promise_is_said_first(registry: Program, smoke: Sandbox, mine: Path) -> None:
    """Which encoders are apart, which are pooled and why, before anything is computed; then a summary."""
    ran = registry("calibrate", "tiny", "--corpus", mine, "--id", "x", "--by-encoder", "--registry", smoke.path)
    assert ran.code == 0, ran.err
    lines = ran.err.splitlines()
    assert lines[3].startswith(
        f"libx264, libx265, mpeg2video ({SOURCES} sources each): intervals of 50, 80 % are guaranteed"
    )
    assert "libsvtav1 (3 sources, fewer than 4): it takes the intervals of all rows" in lines
    assert f"unknown ({SOURCES} sources, no encoder's name): it takes the intervals of all rows" in lines
    own = ", ".join(f"{name} ({SOURCES} sources)" for name in ("libx264", "libx265", "mpeg2video"))
    assert f"encoders apart: {own}; pooled: libsvtav1, unknown" in ran.out


def test_card_and_report_say_it(registry: Program, apart: Sandbox, tmp_path: Path) -> None:
    """The card names the encoders; the report's coverage by encoder is by their own intervals."""
    card = registry("card", "apart", "--registry", apart.path).out
    assert "Rows of libx264, libx265, mpeg2video have intervals of their encoder's rows alone" in card
    assert "The intervals of libx265 at 90 %, 95 %, 99 % have no guarantee" in card
    for name in ("apart", "pooled"):
        ran = registry("report", name, "-o", tmp_path / f"{name}.html", "--registry", apart.path)
        assert ran.code == 0, ran.err
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        words = "Rows of libx264, libx265, mpeg2video have intervals of their encoder"
        assert (words in text) == (name == "apart")
        bare = f"intervals of a row at 90 %, 95 %, 99 % have no guarantee from {SOURCES} sources"
        assert bare in text
        assert (f"encoder libx265: {bare}" in text) == (name == "apart")


def test_the_report_counts_by_encoder(apart: Sandbox, mine: Path) -> None:
    """Its shares of encoders and of sources are those of plain numpy; other methods are beside them as ever."""
    inside, rows, found = inside_as_unseen(apart), read_csv(mine), dict[str, dict[str, Figure]]()
    for name in ("apart", "pooled"):
        with Sandbox(apart.path, name).view() as view:
            found[name] = {figure.title: figure for figure in figures(view) or ()}
    for title, column in (("Encoders", "encoder"), ("Calibrated on other sources", "src")):
        cells = {row[0]: row[-1] for row in found["apart"][title].table.rows[1:]}
        assert {*cells} == {row[column] for row in rows}
        for label, share in cells.items():
            assert share == f"{inside[[row[column] == label for row in rows]].mean() * 100:.1f} %"
    one, two = (found[name]["Reliability: the mean source"].table.rows for name in ("apart", "pooled"))
    assert [row[3:] for row in one] == [row[3:] for row in two]
    assert [row[1] for row in one] != [row[1] for row in two]


def only(*encoders: str) -> Callable[[dict[str, str]], bool]:
    return lambda row: row["encoder"] in encoders


@pytest.mark.parametrize(
    ("keep", "options", "words"),
    [
        (only("libx265"), (), "found rows of libx265 alone, expected two encoders or more: drop --by-encoder"),
        (only("x264", "libx264"), (), "found rows of libx264 alone, expected two encoders or more"),
        (
            lambda row: row["src"] < "e63" and row["encoder"] != "unknown",
            (),
            "found no encoder in 4 sources or more, expected one (libsvtav1 is in 3): drop --by-encoder",
        ),
        (only("unknown", FEW), (), "found no encoder in 4 sources or more, expected one"),
        (lambda row: True, ("--group", "encoder"), "with --group encoder no source has a second encoder"),
        (lambda row: True, ("--interval", "gaussian"), "--interval gaussian calibrates nothing"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    registry: Program, smoke: Sandbox, mine: Path, keep: Any, options: tuple[str, ...], words: str
) -> None:
    """In one line, before anything is computed, and nothing is written; without --by-encoder the rows are taken."""
    rows = [row for row in read_csv(mine) if keep(row)]
    path = smoke.folder.parent / "rows.csv"
    write_csv(path, rows)
    before = smoke.tree()
    arguments = ("calibrate", "tiny", "--corpus", path, "--id", "x", *options, "--registry", smoke.path)
    ran = registry(*arguments, "--by-encoder")
    assert (ran.code, words in ran.err.splitlines()[-1]) == (2, True), ran.err
    assert smoke.tree() == before
    assert registry(*arguments).code == 0


@pytest.mark.parametrize("name", ["apart", "moved"])
def test_it_is_reproduced(registry: Program, made_registry: Path, mine: Path, name: str) -> None:
    """To the same bytes, on the rows it was calibrated on."""
    ran = registry("reproduce", name, "--corpus", mine, "--exact", "--registry", made_registry)
    assert (ran.code, "to the same bytes" in ran.out) == (0, True), ran.out + ran.err


# ---- what a forger may do --------------------------------------------------------------------------------------------


def half(said: dict[str, Any]) -> None:
    said["encoders"][1]["calibrations"][0]["levels"]["0.8"]["q"] /= 2.0


def swapped(said: dict[str, Any]) -> None:
    first, second, *_ = said["encoders"]
    first["name"], second["name"] = second["name"], first["name"]


def dropped(said: dict[str, Any]) -> None:
    said["encoders"].pop(1)


def promised(said: dict[str, Any]) -> None:
    said["encoders"][0]["calibrations"][0]["levels"]["0.95"]["guarantee"] = "1 - alpha"


def misspelled(said: dict[str, Any]) -> None:
    said["encoders"][0]["spellings"].append("h265")


def lenient(said: dict[str, Any]) -> None:
    said["min_sources"] = 2


def counted(said: dict[str, Any]) -> None:
    said["pooled"][0]["n_sources"] = 9


def without(intervals: dict[str, Any]) -> None:
    """Predictions that tell encoders, and a manifest that does not."""
    del intervals["by_encoder"]


def easy(pinned: Oof, encoder: Any, make: Any) -> Oof:
    """The rows with large errors are called another encoder's."""
    told = make(pinned, encoder)
    large = np.abs(told.target - told.mu) > 5.0
    return replace(told, encoder=np.where(large, told.encoders.index("unknown"), told.encoder))


def twice(pinned: Oof, encoder: Any, make: Any) -> Oof:
    """One encoder as two, under two of its names: the easy rows are of the second."""
    told = make(pinned, encoder)
    small = (np.abs(told.target - told.mu) < 1.0) & (told.encoder == told.encoders.index("libx264"))
    return replace(told, encoders=(*told.encoders, "x264"), encoder=np.where(small, len(told.encoders), told.encoder))


ATTACKS = [
    *(("make", change, "the intervals are not those of the") for change in (half, swapped, dropped, promised)),
    *(("make", change, "the intervals are not those of the") for change in (lenient, counted, misspelled, without)),
    ("with_encoders", easy, "calibration.npz encoder: row"),
    ("with_encoders", twice, "calibration.npz encoders: found"),
]


@pytest.mark.parametrize(("step", "forge", "words"), ATTACKS, ids=[attack[1].__name__ for attack in ATTACKS])
def test_forged_encoders_are_found(
    smoke: Sandbox, mine: Path, monkeypatch: pytest.MonkeyPatch, step: str, forge: Any, words: str
) -> None:
    """Whatever step a forger's program does otherwise, with all that follows made to fit: it does not validate."""
    if step == "make":
        forge = edited(forge, "intervals") if forge is without else edited(forge, "intervals", "by_encoder")
    assert words in refused(monkeypatch, smoke, CalibrateRequest("x", mine, by_encoder=True), step, forge)
