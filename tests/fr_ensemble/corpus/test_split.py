"""test_split.py: sources are set aside as wholes, the same ones each time, and no row changes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Program

SPLIT = ("fr-ensemble", "corpus", "split")
ROWS = [{"src": f"s{i % 7}", "encoder": 'x, "264"', "n": i, "vmaf": 0.1 * i} for i in range(40)]


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
        schema = table.schema.set(2, pa.field("n", pa.int16())).with_metadata({"fr_ensemble.corpus": '{"model": "m"}'})
        pq.write_table(table.cast(schema), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [f's{i % 7},"x, ""264""",{i},{0.1 * i}' for i in range(len(rows))]
        path.write_text("\n".join(["src,encoder,n,vmaf", *lines]) + "\n")
    return path


def lines_of(path: Path) -> list[str]:
    """The rows of a file as sorted texts, without a CSV's header."""
    if path.suffix == ".parquet":
        return sorted(map(str, pq.read_table(path).to_pylist()))
    return sorted(path.read_text().splitlines()[path.suffix == ".csv" :])


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("options", [[], ["--share", "0.5", "--seed", "3"], ["--sources", "s1,s4"]])
def test_whole_sources_are_set_aside(suffix: str, options: list[str], registry: Program, workdir: Path) -> None:
    """Every row is in one of the two files as it was, no source in both, and a second split is the same."""
    corpus = written(workdir / f"c.{suffix}", ROWS)
    train, aside = workdir / f"train.{suffix}", workdir / f"aside.{suffix}"
    contents = []
    for _ in range(2):
        ran = registry(*SPLIT, corpus, "--train", train, "--aside", aside, *options)
        assert (ran.code, ran.err) == (0, "")
        contents.append((train.read_bytes(), aside.read_bytes()))
    assert contents[0] == contents[1]
    assert sorted(lines_of(train) + lines_of(aside)) == lines_of(corpus)
    held = ran.out.splitlines()[1].rpartition(": ")[2].split(", ")
    assert len(held) == {0: 1, 4: 4, 2: 2}[len(options)]
    assert not any(name in line for name in held for line in lines_of(train))
    if suffix == "parquet":
        assert pq.read_schema(aside).field("n").type == pa.int16()
        assert pq.read_schema(train).metadata[b"fr_ensemble.corpus"] == b'{"model": "m"}'


def test_a_format_that_is_not_written_is_split_into_one_that_is(registry: Program, workdir: Path) -> None:
    """Columns and rows of a JSON document, in files of any format that is written; another is refused."""
    (workdir / "c.json").write_text(json.dumps(ROWS))
    ran = registry(*SPLIT, "c.json", "--train", "train.csv", "--aside", "aside.jsonl", "--sources", "s1")
    assert (ran.code, ran.err) == (0, "")
    aside = [json.loads(line) for line in (workdir / "aside.jsonl").read_text().splitlines()]
    assert aside == [row for row in ROWS if row["src"] == "s1"]
    assert len((workdir / "train.csv").read_text().splitlines()) == len(ROWS) - len(aside) + 1
    ran = registry(*SPLIT, "c.json", "--train", "other.csv", "--aside", "aside.json")
    assert (ran.code, (workdir / "other.csv").exists()) == (2, False)
    assert "aside.json: found .json, which is read and not written, expected .csv, .jsonl, .parquet" in ran.err


def test_a_source_may_have_a_comma_in_its_name(registry: Program, workdir: Path) -> None:
    """An option with the whole of a name means that source; again, more of them."""
    rows = [{"src": name, "n": place} for place, name in enumerate(["a, b", "a", "b", "c", "d"])]
    (workdir / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ("c.jsonl", "--train", "t.jsonl", "--aside", "a.jsonl")
    for texts, aside in ((["a, b"], [0]), (["a, b", "c,d"], [0, 3, 4]), (["a,b"], [1, 2])):
        ran = registry(*SPLIT, *files, *[word for text in texts for word in ("--sources", text)])
        assert (ran.code, ran.err) == (0, "")
        assert [json.loads(line)["n"] for line in (workdir / "a.jsonl").read_text().splitlines()] == aside
    assert ran.out.splitlines() == ["t.jsonl: 3 rows of 3 sources", "a.jsonl: 2 rows of 2 sources: a, b"]


@pytest.mark.parametrize(("name", "found"), [("", "nothing"), ("two\nlines", r"'two\nlines'")])
def test_a_row_without_a_source_is_refused(name: str, found: str, registry: Program, workdir: Path) -> None:
    """It belongs to neither part: nothing is written, and its place is named."""
    rows = [*ROWS[:3], {**ROWS[3], "src": name}]
    ran = registry(*SPLIT, written(workdir / "c.jsonl", rows), "--train", "t.jsonl", "--aside", "a.jsonl")
    assert (ran.code, ran.out, (workdir / "t.jsonl").exists()) == (2, "", False)
    assert f"c.jsonl:4, column src: found {found}, expected a name in visible characters" in ran.err


def test_another_seed_chooses_others(registry: Program, workdir: Path) -> None:
    """Seeds give different choices, and another column may name the sources."""
    corpus = written(workdir / "c.csv", ROWS)
    files = ("--train", "t.csv", "--aside", "a.csv")
    said = {registry(*SPLIT, corpus, *files, "--share", "0.4", "--seed", seed).out for seed in range(8)}
    assert len(said) > 3
    assert "7 rows of" in registry(*SPLIT, corpus, *files, "--source-column", "n", "--share", "0.18").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--train", "t.jsonl", "--aside", "a.csv"],
            "t.jsonl: found the extension '.jsonl', expected .csv for rows of",
        ),
        (["--train", "t.csv", "--aside", "t.csv"], "found one file twice"),
        (["--train", "c.csv", "--aside", "a.csv"], "found one file twice"),
        (
            ["--train", "t.csv", "--aside", "a.csv", "--sources", "s1,x"],
            "found 'x', expected some of s0, s1",
        ),
        (["--train", "t.csv", "--aside", "a.csv", "--sources", "s0,s1,s2,s3,s4,s5,s6"], "found every source"),
        (["--train", "t.csv", "--aside", "a.csv", "--source-column", "video"], "no column 'video'"),
    ],
)
def test_a_split_that_means_nothing(arguments: list[str], message: str, registry: Program, workdir: Path) -> None:
    """One line, and nothing is written."""
    corpus = written(workdir / "c.csv", ROWS)
    before = corpus.read_bytes()
    ran = registry(*SPLIT, corpus, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert [path.name for path in workdir.iterdir()] == ["c.csv"]
    assert corpus.read_bytes() == before
