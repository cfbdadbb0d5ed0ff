"""test_column_names.py: every command reads a table whose sources and encoders stand in columns of other names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Program
from csv_tables import read_csv, write_csv
from registries import TRAINING, Made
from sandbox import Sandbox

NAMES = ("--source-column", "video", "--encoder-column", "tool")


def renamed(path: Path, folder: Path) -> Path:
    """The rows of a corpus under other names, in a column that misleads beside them, with semicolons."""
    found = read_csv(path)
    rows = [
        {"video": row.pop("src"), "tool": row.pop("encoder"), **row, "src": "one", "crf": 20 + place % 3}
        for place, row in enumerate(found)
    ]
    return write_csv(folder / path.name, rows, delimiter=";")


@pytest.fixture
def heldout(made: Made, tmp_path: Path) -> Path:
    return renamed(made.heldout, tmp_path)


def test_predictions_and_figures_are_the_same(smoke: Sandbox, made: Made, heldout: Path, registry: Program) -> None:
    """`predict` and `evaluate` say of the table what they say of the rows under their usual names."""
    where = ("--registry", smoke.path)
    for command in (("predict", "tiny"), ("evaluate", "tiny", "--by", "src,encoder", "--format", "json")):
        usual = registry(*command, "--corpus", made.heldout, *where)
        other = registry(*command, "--corpus", heldout, *NAMES, *where)
        assert (usual.code, other.code) == (0, 0)
        assert other.out == usual.out
    ran = registry("evaluate", "tiny", "--corpus", heldout, *where, "--source-column", "clip")
    assert (ran.code, "no column 'clip'" in ran.err) == (2, True)
    ran = registry("predict", "tiny", "--corpus", heldout, *where)
    assert (ran.code, "no column 'encoder'" in ran.err) == (2, True)


def test_one_column_is_not_two(smoke: Sandbox, heldout: Path, registry: Program) -> None:
    """A column for both sources and encoders is refused by every command that reads rows."""
    twice, where = ("--source-column", "tool", "--encoder-column", "tool"), ("--registry", smoke.path)
    for command in (
        ("predict", "tiny", "--corpus", heldout, *where),
        ("evaluate", "tiny", "--corpus", heldout, *where),
        ("gate", "tiny", "--corpus", heldout, "--evidence", ".", *where),
        ("calibrate", "tiny", "--corpus", heldout, "--id", "own", *where),
        ("train", "fr_ensemble", "--id", "own", "--corpus", heldout, *where),
        ("fr-ensemble", "recommend", "tiny", "--corpus", heldout, "--target", "40", *where),
        ("fr-ensemble", "corpus", "info", heldout),
        ("fr-ensemble", "corpus", "import", heldout, "--meta", heldout, "-o", "c.csv"),
    ):
        ran = registry(*command, *twice)
        assert (ran.code, ran.out) == (2, ""), command
        assert "found 'tool' for both, expected two columns" in ran.err
    ran = registry("evaluate", "tiny", "--corpus", heldout, *where, "--encoder-column", "src")  # the sources' own
    assert (ran.code, "found 'src' for both" in ran.err) == (2, True)


def test_a_hint_names_an_option_that_is_there(smoke: Sandbox, heldout: Path, registry: Program) -> None:
    """A missing source is named with --source-column; a target outside its range, with --target-range, by `train`."""
    where = ("--corpus", heldout, "--registry", smoke.path)
    ran = registry("evaluate", "tiny", *where, "--source-column", "video")
    assert ran.err.endswith("expected encoder: add it or name it with --encoder-column\n")
    heldout.write_text(heldout.read_text().replace("src;", "other;", 1).replace("video;", "srcs;", 1))
    ran = registry("evaluate", "tiny", *where, "--encoder-column", "tool")
    assert ran.err.endswith("is it 'srcs'? rename it or name it with --source-column\n")
    ran = registry("predict", "tiny", *where, "--source-column", "srcs", "--encoder-column", "tool")
    assert ran.code == 0
    rows = read_csv(heldout, delimiter=";")
    rows[3]["vmaf"] = "130"
    write_csv(heldout, rows, delimiter=";")
    names = ("--source-column", "srcs", "--encoder-column", "tool")
    ran = registry("evaluate", "tiny", *where, *names)
    assert ran.err.endswith("column vmaf: found 130, expected 0..100: correct or drop the row\n")
    ran = registry("train", "fr_ensemble", "--id", "own", *where, *names)
    assert ran.err.endswith("expected 0..100: correct or drop the row, or give --target-range\n")


def test_info_describes_the_same_rows(made: Made, heldout: Path, registry: Program) -> None:
    """`corpus info` takes the column options of `train`: features, conditions and a vocabulary, too."""
    command = ("fr-ensemble", "corpus", "info", "--format", "json")
    usual = json.loads(registry(*command, made.heldout).out)
    ran = registry(*command, heldout, *NAMES)
    other = json.loads(ran.out)
    for name in ("n_rows", "sources", "encoders", "target", "features"):
        assert other[name] == usual[name]
    more = ("--features", "adm2,motion2", "--condition", "vif_scale0", "--vocabulary", "3", "--target", "vmaf")
    other = json.loads(registry(*command, heldout, *NAMES, *more).out)
    assert list(other["features"]) == ["adm2", "motion2", "vif_scale0"]
    assert all(about["known"] for about in other["encoders"].values())
    sources = registry("fr-ensemble", "corpus", "info", heldout, "--encoder-column", "tool").out
    assert "120 rows, 1 source, 3 encoders" in sources


def test_a_corpus_is_held_against_evidence(smoke: Sandbox, made: Made, registry: Program, tmp_path: Path) -> None:
    """`gate --evidence --corpus` counts rows of each source, with an entry or without; it needs a corpus."""
    summaries, other = tmp_path / "runs", tmp_path / "other"
    summaries.mkdir(), other.mkdir()
    for path in (smoke.artifacts / "evidence").glob("*.json"):
        (summaries / path.name).write_bytes(path.read_bytes())
    corpus = renamed(made.corpus, other)
    where = ("--evidence", summaries, "--registry", smoke.path, "--format", "json")
    for entry in (("tiny",), ("--seeds", "0,1,2", "--kind", "fr_ensemble")):
        usual, named = (
            json.loads(registry("gate", *entry, *where, "--corpus", path, *names).out)
            for path, names in ((made.corpus, ()), (corpus, NAMES))
        )
        rows = [[reason for reason in verdict["reasons"] if "sha256" not in reason] for verdict in (usual, named)]
        assert rows[0] == rows[1]
    assert registry("gate", "tiny", *where, *NAMES).code == 2


@pytest.mark.slow
def test_a_run_on_other_names_is_recorded_and_reproduced(made: Made, registry: Program, tmp_path: Path) -> None:
    """The manifest says what the file calls its columns, the models are the usual ones, and `reproduce` knows."""
    corpus = renamed(made.corpus, tmp_path)
    where = ("--registry", tmp_path / "registry.json")
    ran = registry("train", "fr_ensemble", "--id", "other", "--corpus", corpus, *NAMES, *TRAINING, *where)
    assert ran.code == 0
    assert ran.err.endswith(f"next: registry gate other --registry {tmp_path / 'registry.json'}\n")
    assert registry("train", "fr_ensemble", "--id", "usual", "--corpus", made.corpus, *TRAINING, *where).code == 0
    entries = json.loads((tmp_path / "registry.json").read_text())["models"]
    other, usual = (json.loads((tmp_path / entry["manifest"]).read_text()) for entry in entries)
    assert [other["corpus"][name] for name in ("source_column", "encoder_column")] == ["video", "tool"]
    assert "source_column" not in usual["corpus"]
    assert [m["sha256"] for m in other["members"]] == [m["sha256"] for m in usual["members"]]
    ran = registry("reproduce", "other", "--corpus", corpus, *where, "--exact")
    assert ran.code == 0, ran.err
    question = ("fr-ensemble", "recommend", "other", "--corpus", corpus, "--target", "40", *where)
    assert registry(*question, *NAMES).code == 0
    assert registry(*question).code == 2
