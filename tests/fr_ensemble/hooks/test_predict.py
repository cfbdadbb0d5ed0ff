"""Tests of predict.py: an ensemble at work on rows through the program: predict and evaluate."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, program
from csv_tables import read_csv, write_csv
from fr_ensemble.evidence.methods import DEFAULT_METHOD
from registries import QUICK, Made
from sandbox import Sandbox

from registry_tool import schemas
from registry_tool.documents.schema import violations


@pytest.fixture
def heldout(made: Made) -> list[dict[str, str]]:
    return read_csv(made.heldout)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# ---- predict ----------------------------------------------------------------------------------------------------


def test_rows_unlike_the_training_rows_are_marked(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path
) -> None:
    """A feature just outside the range seen in training marks its row, at the range it does not; both are counted."""
    low, high = next(r["range"] for r in smoke.manifest["intervals"]["input_ranges"] if r["name"] == "motion2")
    values = (low, high, high + 1e-6, low - 1e-6)
    names, means = smoke.manifest["feature_order"], smoke.manifest["feature_mean"]
    same = {name: str(mean) for name, mean in zip(names, means, strict=True)}
    rows = [heldout[0] | same | {"motion2": repr(value)} for value in values]
    ran = registry("predict", "tiny", "--corpus", write_csv(tmp_path / "r.csv", rows), "--registry", smoke.path)
    assert [row["out_of_distribution"] for row in table(ran.out)] == ["False", "False", "True", "True"]
    assert [line for line in ran.err.splitlines() if "no guarantee" not in line] == [
        f"warning: motion2 is outside what training saw, {low:g} to {high:g}: 2 rows"
    ]


def test_unknown_encoders_are_counted_over_all_batches(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning an encoder, however many batches its rows come in, and words about rows go to stderr alone."""
    monkeypatch.setattr("registry_tool.workflows.predict.BATCH_ROWS", 2)
    rows = [heldout[0] | {"encoder": name} for name in ("h267", "libx264", "h267", "h267", "dirac")]
    ran = registry("predict", "tiny", "--corpus", write_csv(tmp_path / "r.csv", rows), "--registry", smoke.path)
    lines = [line for line in ran.err.splitlines() if "encoder" in line]
    assert lines == [
        "warning: encoder 'dirac' is unknown: 1 row",
        "warning: encoder 'h267' is unknown: 3 rows",
    ]
    assert len(table(ran.out)) == 5


def stdin_of(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("form", ["csv", "csv with a mark", "jsonl", "list", "list of lines"])
@pytest.mark.parametrize("flush", [(), ("--flush",)])
def test_rows_come_from_standard_input(
    smoke: Sandbox,
    registry: Program,
    heldout: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    flush: tuple[str, ...],
) -> None:
    """CSV, JSON lines or a JSON list, told by the first line; the rows of a file, to rounding where each runs alone."""
    objects = [{k: v if k in ("src", "encoder", "clip") else float(v) for k, v in row.items()} for row in heldout]
    path = write_csv(smoke.folder.parent / "r.csv", heldout)
    lines = "".join(f"{json.dumps(row)}\n" for row in objects).encode()
    data = {
        "csv": path.read_bytes(),
        "csv with a mark": b"\xef\xbb\xbf" + path.read_bytes(),
        "jsonl": lines,
        "list": json.dumps(objects).encode(),
        "list of lines": json.dumps(objects, indent=1).encode(),
    }[form]
    stdin_of(monkeypatch, data)
    ran = registry("predict", "tiny", "--corpus", "-", *flush, "--registry", smoke.path)
    expected = registry("predict", "tiny", "--corpus", path, "--registry", smoke.path)
    assert ran.code == 0
    if flush:
        given, wanted = (
            [[float(row[name]) for name in ("row", "mu")] for row in table(r.out)] for r in (ran, expected)
        )
        assert np.abs(np.array(given) - np.array(wanted)).max() < 1e-4
    else:
        assert (ran.out, ran.err) == (expected.out, expected.err)


def test_each_row_is_printed_before_the_next_arrives(
    smoke: Sandbox, heldout: list[dict[str, str]], tmp_path: Path
) -> None:
    """With --flush a program at the other end can wait for the answer to a row before it sends another."""
    lines = write_csv(tmp_path / "r.csv", heldout).read_text().splitlines(keepends=True)
    command = [
        sys.executable,
        "-m",
        "registry_tool",
        "predict",
        "tiny",
        "--corpus",
        "-",
        "--flush",
        "--registry",
        str(smoke.path),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines[0])
        for number, line in enumerate(lines[1:4]):
            process.stdin.write(line)
            if not number:
                assert process.stdout.readline().startswith("row,")
            assert process.stdout.readline().startswith(f"{number},")
        process.stdin.close()
        assert (process.stdout.read(), process.wait()) == ("", 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "standard input: found no rows"),
        (b"adm2\n", "standard input: no column"),
        (b"PAR1\xff\xfe", "not UTF-8"),
        (b'{"adm2": 1}\n{', "standard input: no column"),
        (b"{\n", "standard input:1: not JSON"),
        (b'a,"b', "standard input:1: not CSV"),
    ],
)
def test_what_is_no_row_on_standard_input_is_one_line(
    smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    """Exit 2 with the line; nothing was predicted."""
    stdin_of(monkeypatch, data)
    ran = registry("predict", "tiny", "--corpus", "-", "--registry", smoke.path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words in ran.err


def test_a_bad_row_ends_a_stream_behind_the_rows_before_it(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --flush they were printed; the message names the line."""
    stdin_of(monkeypatch, write_csv(tmp_path / "r.csv", [*heldout[:2], heldout[2] | {"adm2": "x"}]).read_bytes())
    ran = registry("predict", "tiny", "--corpus", "-", "--flush", "--registry", smoke.path)
    assert (ran.code, len(table(ran.out))) == (2, 2)
    assert "standard input:4, column adm2: found 'x', expected a number" in ran.err


def test_flush_is_for_streams_alone(smoke: Sandbox, registry: Program, made: Made) -> None:
    for words in (("--corpus", made.heldout), ("--corpus", "-", "-o", "x.csv")):
        assert registry("predict", "tiny", *words, "--flush", "--registry", smoke.path).code == 2


def test_a_closed_standard_input_is_one_line(
    smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    ran = registry("predict", "tiny", "--corpus", "-", "--registry", smoke.path)
    assert (ran.code, ran.err.count("\n"), "it is closed" in ran.err) == (2, 1, True)


def test_evidence_that_cannot_be_measured_is_no_fault_of_the_plugin(
    smoke: Sandbox, registry: Program, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A level that is not stored needs predictions: where they are too many, a line names the entry and the bound."""
    monkeypatch.setattr("fr_ensemble.evidence.oof.MAX_SEEDS", 2)
    for command in ("predict", "evaluate"):
        ran = registry(command, "tiny", "--corpus", made.heldout, "--levels", "0.77", "--registry", smoke.path)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines()[-1].startswith("registry: tiny: seeds: found 3, expected at most 2")


def test_parquet_holds_the_same_rows(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column and row of the JSON lines, with types, batch by batch; nothing on standard output."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("registry_tool.workflows.predict.BATCH_ROWS", 50)
    where = ("predict", "tiny", "--corpus", made.heldout, "--levels", "0.5,0.95", "--registry", smoke.path)
    ran = registry(*where, "-o", tmp_path / "out.parquet")
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert (ran.code, ran.out, file.num_row_groups) == (0, "", 3)
    rows: list[dict[str, Any]] = file.read().to_pylist()
    assert [{k: str(v) for k, v in row.items()} for row in rows] == table(registry(*where).out)
    assert {type(v) for v in rows[0].values()} == {int, str, float, bool}


def test_parquet_without_a_file_or_its_library_is_one_line(
    smoke: Sandbox, registry: Program, made: Made, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, one line with what to do, and no file."""
    parquet = ("predict", "tiny", "--corpus", made.heldout, "--registry", smoke.path, "--format", "parquet")
    ran = registry(*parquet)
    assert (ran.code, ran.out, ran.err.count("\n"), "-o FILE" in ran.err) == (2, "", 1, True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("registry_tool.rows.writing.find_spec", lambda name: None)
    ran = registry(*parquet, "-o", "out.parquet")
    assert (ran.code, ran.out, ran.err.count("\n"), "needs pyarrow" in ran.err) == (2, "", 1, True)
    assert not (workdir / "out.parquet").exists()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_device_or_a_link_stays_what_it_is(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """Rows go through /dev/stdout into a pipe, and through a link into its file; nothing is left beside it."""
    where = ("predict", "tiny", "--corpus", made.heldout, "--registry", smoke.path)
    text = registry(*where).out
    assert program(*where, "-o", "/dev/stdout").stdout == text
    folder, link = tmp_path / "a", tmp_path / "link.csv"
    folder.mkdir()
    link.symlink_to(folder / "real.csv")
    for old in (None, "old"):
        if old:
            (folder / "real.csv").write_text(old)
        assert registry(*where, "-o", link).code == 0
        assert (link.is_symlink(), (folder / "real.csv").read_text()) == (True, text)
    assert [p.name for p in folder.iterdir()] == ["real.csv"]


# ---- evaluate ---------------------------------------------------------------------------------------------------


def evaluated(registry: Program, box: Sandbox, *arguments: object) -> dict[str, Any]:
    ran = registry("evaluate", "tiny", *arguments, "--registry", box.path, "--format", "json")
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    assert violations(document, schemas.load("evaluation")) == []
    return document


def test_errors_are_over_sources(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path
) -> None:
    """Each source weighs alike, however many rows it has; the errors are those of K sources; the worst is named."""
    rows = [row for i, row in enumerate(heldout) if row["src"] != "s20" or i % 8 == 0]
    document = evaluated(registry, smoke, "--corpus", write_csv(tmp_path / "r.csv", rows), "--levels", "0.5,0.8")
    groups = document["by"]["src"]
    assert [group["n_rows"] for group in groups.values()] == [5, 40, 40]

    def check(found: dict[str, Any], each: list[dict[str, Any]], *names: str) -> None:
        for name in names:
            values = np.array([figures[name] for figures in each])
            assert found[name] == pytest.approx(values.mean())
            assert found[f"{name}_se"] == pytest.approx(values.std(ddof=1) / 3**0.5)

    check(document["over_sources"], list(groups.values()), "plcc", "srocc", "rmse", "crps")
    for place, over in enumerate(document["over_sources"]["levels"]):
        check(over, [group["levels"][place] for group in groups.values()], "coverage", "width", "interval_score")
        lowest = min(groups, key=lambda name: groups[name]["levels"][place]["coverage"])
        assert over["worst_coverage"] == groups[lowest]["levels"][place]["coverage"]
        assert groups[over["worst_source"]]["levels"][place]["coverage"] == over["worst_coverage"]


def test_the_table_holds_the_figures(smoke: Sandbox, registry: Program, made: Made) -> None:
    """As text: coverage, width and interval score a level for the stored method beside others, by source, over sources
    with standard errors, and the worst source by name."""
    where = ("--corpus", made.heldout, "--levels", "0.8,0.95")
    document = evaluated(registry, smoke, *where)
    lines = registry("evaluate", "tiny", *where, "--registry", smoke.path).out.splitlines()
    of_levels = [f"{text} {level} %" for level in (80, 95) for text in ("cover", "width", "score")]
    assert re.split(" {2,}", lines[0]) == ["rows", "n", "plcc", "srocc", "rmse", "crps", *of_levels]
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in lines[1:]}
    over = document["over_sources"]

    def cells(n: int, figures: dict[str, Any], levels: list[dict[str, Any]], end: str = "") -> list[str]:
        ours = [f"{figures[name + end]:.4f}" for name in ("plcc", "srocc", "rmse", "crps")]
        names = ("coverage", "width", "interval_score")
        return [str(n), *ours, *(f"{item[name + end]:.3f}" for item in levels for name in names)]

    assert rows[f"all, {DEFAULT_METHOD} (stored)"] == cells(120, document, document["levels"])
    for name, levels in document["baselines"].items():
        assert rows[f"all, {name}"] == cells(120, document, levels)
    assert rows["sources, mean"] == cells(3, over, over["levels"])
    assert rows["sources, standard error"] == cells(3, over, over["levels"], "_se")
    worst = [[f"{item['worst_coverage']:.3f}", item["worst_source"]] for item in over["levels"]]
    assert rows["sources, worst"] == ["3", *worst[0], *worst[1]]
    for name, figures in document["by"]["src"].items():
        assert rows[f"src={name}"] == cells(40, figures, figures["levels"])


def test_an_interval_without_a_finite_quantile_says_so(registry: Program, made: Made, tmp_path: Path) -> None:
    """The whole range is no statement about a row: evaluate and predict name the level, and no other."""
    path = tmp_path / "registry.json"
    options = (*QUICK, "--interval", "source-split")
    where = ("--corpus", made.corpus, "--registry", path)
    assert registry("train", "fr_ensemble", "--id", "tiny", *where, *options).code == 0
    said = "warning: the 95 % interval of a row is the target's whole range: no q is finite (source-split-conformal)"
    where = ("tiny", "--corpus", made.heldout, "--registry", path, "--levels", "0.5,0.95")
    told = [line for line in registry("evaluate", *where).err.splitlines() if "outside what training saw" not in line]
    assert told == [said]
    ran = registry("predict", *where)
    assert f"{said}: 120 rows" in ran.err.splitlines()
    assert "50 %" not in ran.err
    assert {(row["lower_95"], row["upper_95"]) for row in table(ran.out)} == {("0.0", "100.0")}


def test_levels_that_differ_have_columns_of_their_own(smoke: Sandbox, registry: Program, made: Made) -> None:
    """However near they are; the same level twice is one."""
    where = ("predict", "tiny", "--corpus", made.heldout, "--registry", smoke.path, "--levels")
    names = list(table(registry(*where, "0.95,0.9500001,0.9999999").out)[0])
    ends = ("95", "95.00001", "99.99999")
    assert names[-7:] == [*(f"{side}_{end}" for end in ends for side in ("lower", "upper")), "flags"]
    assert registry(*where, "0.8,0.80").out == registry(*where, "0.8").out


def test_one_source_has_no_standard_error(
    smoke: Sandbox, registry: Program, heldout: list[dict[str, str]], tmp_path: Path
) -> None:
    """Null, not 0: one draw says nothing of the next. A single row has no correlation either."""
    document = evaluated(registry, smoke, "--corpus", write_csv(tmp_path / "r.csv", heldout[:1]))
    assert document["over_sources"]["levels"][0]["coverage_se"] is None
    assert (document["plcc"], document["clips"], document["n_rows"]) == (None, None, 1)
    assert "-" in registry("evaluate", "tiny", "--corpus", tmp_path / "r.csv", "--registry", smoke.path).out


def test_clip_means_have_their_own_figures(registry: Program, made: Made, tmp_path: Path) -> None:
    """Where the corpus and the entry know clips: members' clip means, by the clips' calibration."""
    with made.corpus.open(newline="") as file:
        rows = [row | {"clip": f"{row['src']}c{i % 6}"} for i, row in enumerate(csv.DictReader(file))]
    corpus = write_csv(tmp_path / "clips.csv", rows)
    box = Sandbox(tmp_path / "registry.json")
    options = (*QUICK, "--epochs", "3", "--hidden", "8", "--registry", box.path)
    assert registry("train", "fr_ensemble", "--id", "tiny", "--corpus", corpus, *options).code == 0
    document = evaluated(registry, box, "--corpus", corpus)
    clips = document["clips"]
    assert clips["n_clips"] == 30
    scores = table(registry("predict", "tiny", "--corpus", corpus, "--registry", box.path).out)
    names = [row["clip"] for row in rows]
    means = [
        [np.mean([float(row[column]) for row, name in zip(of, names, strict=True) if name == clip])]
        for clip in sorted(set(names))
        for of, column in ((scores, "mu"), (rows, "vmaf"))
    ]
    mu, y = np.array(means[::2]).ravel(), np.array(means[1::2]).ravel()
    assert clips["rmse"] == pytest.approx(np.sqrt(np.mean((mu - y) ** 2)), rel=1e-5)
    assert clips["plcc"] == pytest.approx(np.corrcoef(mu, y)[0, 1], rel=1e-5)
    assert "clip means" in registry("evaluate", "tiny", "--corpus", corpus, "--registry", box.path).out


def test_a_picture_is_drawn_where_asked(smoke: Sandbox, registry: Program, made: Made, tmp_path: Path) -> None:
    """A PNG, the same bytes each time, beside the same figures; of one source too."""
    pytest.importorskip("matplotlib")
    with made.heldout.open(newline="") as file:
        one = write_csv(tmp_path / "one.csv", list(csv.DictReader(file))[:3])
    for corpus in (made.heldout, one):
        pictures = []
        for name in ("a.png", "b.png"):
            where = ("--corpus", corpus, "--levels", "0.8")
            document = evaluated(registry, smoke, *where, "--plot", tmp_path / name)
            assert document == evaluated(registry, smoke, *where)
            pictures.append((tmp_path / name).read_bytes())
        assert pictures[0] == pictures[1]
        assert pictures[0].startswith(b"\x89PNG")


def test_a_picture_without_its_library_is_one_line(
    smoke: Sandbox, registry: Program, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, said before anything is measured, with the extra to install."""
    monkeypatch.setattr("registry_tool.toolkit.find_spec", lambda name: None)
    where = ("evaluate", "tiny", "--corpus", made.heldout, "--registry", smoke.path)
    ran = registry(*where, "--plot", tmp_path / "x.png")
    assert (ran.code, ran.out, ran.err.count("\n"), "pip install matplotlib" in ran.err) == (2, "", 1, True)
    assert registry(*where).code == 0
