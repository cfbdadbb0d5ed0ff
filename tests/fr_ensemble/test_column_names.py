"""test_column_names.py: every command reads a table whose sources and encoders stand in columns of other names."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import Program
from registries import TRAINING, Made
from sandbox import Sandbox

NAMES = ("--source-column", "video", "--encoder-column", "tool")


def renamed(path: Path, folder: Path) -> Path:
    """The rows of a corpus under other names, in a column that misleads beside them, with semicolons."""
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = [
        {"video": row.pop("src"), "tool": row.pop("encoder"), **row, "src": "one", "crf": 20 + place % 3}
        for place, row in enumerate(found)
    ]
    with (folder / path.name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return folder / path.name


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
    assert "120 rows, 1 sources, 3 encoders" in sources


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
    assert registry("train", "fr_ensemble", "--id", "other", "--corpus", corpus, *NAMES, *TRAINING, *where).code == 0
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
