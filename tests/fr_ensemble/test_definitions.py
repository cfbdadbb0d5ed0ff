"""test_definitions.py: the model behind a target goes from the log to the report, and two models are never compared."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import logs
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Program, run
from fr_ensemble.corpus.vmaf_models import VMAF_MODELS, features_of, same_features

pytestmark = pytest.mark.slow

IMPORT = ("fr-ensemble", "corpus", "import")
TRAIN = ("--epochs", "1", "--seeds", "0,1", "--hidden", "4", "--license", "MIT", "--no-baselines")
FAMILIES = {
    "v0": "vmaf_v0.6.1",
    "v0-4k": "vmaf_4k_v0.6.1",
    "v0-neg": "vmaf_v0.6.1neg",
    "v1": "vmaf_v1.0.16_3d0h",
    "v1-hfr": "vmaf_v1.0.16_hfr_3d0h",
    "v1-4k": "vmaf_v1.0.16_3d0h_2160",
}
PAIRS = list(itertools.permutations(FAMILIES, 2))
NEIGHBOURS = [*itertools.pairwise([*FAMILIES, *FAMILIES][: len(FAMILIES) + 1])]  # each model, and the next one


def write_logs(folder: Path, model: str) -> Path:
    """Logs of three sources and two encodes each, random numbers under the names of a model."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    high = VMAF_MODELS[model].high
    for source, crf in itertools.product("abc", (20, 40)):
        frames = [
            {name: round(float(rng.uniform(0.2, high if name == "vmaf" else 0.9)), 6) for name in frame}
            for frame in logs.frames_of(model, 6)
        ]
        logs.libvmaf_json(folder / f"{source}_libx264_{crf}.json", frames)
    return folder


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with FAMILY.parquet for each family, and a registry of one entry for each."""
    folder = tmp_path_factory.mktemp("families")
    for family, model in FAMILIES.items():
        where = [write_logs(folder / family, model), "--pattern", "{src}_{encoder}_{crf}.json"]
        corpus = folder / f"{family}.parquet"
        assert run(None, *IMPORT, *where, "--vmaf-model", model, "-o", corpus).code == 0
        place = ("--registry", folder / "m" / "registry.json", "--corpus", corpus)
        ran = run(None, "train", "fr_ensemble", "--id", f"e-{family}", *place, *TRAIN)
        assert ran.code == 0, ran.err
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_definition_goes_from_the_log_to_the_report(
    family: str, registry: Program, entries: Path, tmp_path: Path
) -> None:
    """Corpus, manifest, evaluation, card and report name the model, its features and its range, and libvmaf."""
    model, place = FAMILIES[family], ("--registry", entries / "m" / "registry.json")
    corpus = entries / f"{family}.parquet"
    info = json.loads(registry("fr-ensemble", "corpus", "info", corpus, "--format", "json").out)
    assert (info["target"]["definition"], info["target"]["libvmaf"]) == (model, "3.2.0")
    assert info["missing_features"] == []
    manifest = next(json.loads(p.read_text()) for p in (entries / "m" / f"e-{family}").rglob("manifest.json"))
    high = VMAF_MODELS[model].high
    assert manifest["target"] == {"name": "vmaf", "range": [0.0, high], "definition": model, "libvmaf": "3.2.0"}
    assert tuple(manifest["feature_order"]) == features_of(model)
    ran = registry("evaluate", f"e-{family}", *place, "--corpus", corpus, "--format", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["target"] == {"name": "vmaf", "definition": model, "libvmaf": "3.2.0"}
    assert f"`vmaf`, 0 to {high:g}, by `{model}` (libvmaf 3.2.0)" in registry("card", f"e-{family}", *place).out
    assert registry("report", f"e-{family}", *place, "-o", tmp_path / "r.html").code == 0
    assert f"vmaf, 0 to {high:g}, by {model} (libvmaf 3.2.0)" in (tmp_path / "r.html").read_text()
    assert registry("validate", entries / "m" / "registry.json").code == 0


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_rows_of_another_model_are_not_evaluated_on(one: str, other: str, registry: Program, entries: Path) -> None:
    """Every pair: the message names both models, and nothing is measured."""
    place = ("--registry", entries / "m" / "registry.json")
    ran = registry("evaluate", f"e-{one}", *place, "--corpus", entries / f"{other}.parquet")
    assert (ran.code, ran.out) == (2, "")
    assert f"its vmaf is by {FAMILIES[other]}, expected {FAMILIES[one]}, which e-{one} predicts" in ran.err


@pytest.mark.parametrize(("one", "other"), NEIGHBOURS)
def test_entries_of_two_models_are_not_compared(one: str, other: str, registry: Program, entries: Path) -> None:
    """Neither on rows that one of them can read, nor by their evidence."""
    place = ("--registry", entries / "m" / "registry.json", "--incumbent", f"e-{other}")
    expected = f"e-{other} predicts vmaf by {FAMILIES[other]}, expected {FAMILIES[one]} as e-{one}"
    ran = registry("evaluate", f"e-{one}", *place, "--corpus", entries / f"{one}.parquet")
    assert (ran.code, ran.out) == (2, "")
    assert f"--incumbent: {expected}" in ran.err
    ran = registry("gate", f"e-{one}", *place)
    assert ran.code == 1
    assert f"incumbent {expected}" in ran.out


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_features_of_another_model_are_not_predicted_from(
    one: str, other: str, registry: Program, entries: Path, tmp_path: Path
) -> None:
    """Features of one name and another meaning are refused; where models share their features, rows are rows."""
    place = ("--registry", entries / "m" / "registry.json")
    rows = entries / f"{other}.parquet"
    ran = registry("predict", f"e-{one}", *place, "--corpus", rows, "-o", tmp_path / "p.csv")
    shared = same_features(FAMILIES[one], FAMILIES[other])
    assert ran.code == (0 if shared else 2)
    if not shared:
        assert f"its features are those of {FAMILIES[other]}, expected those of {FAMILIES[one]}" in ran.err


def test_rows_that_name_no_model_are_said(registry: Program, entries: Path, tmp_path: Path) -> None:
    """Rows may be by any model: they are evaluated on, and that nothing could be compared is said."""
    rows = tmp_path / "rows.parquet"
    pq.write_table(pq.read_table(entries / "v0.parquet").replace_schema_metadata(), rows)
    place = ("--registry", entries / "m" / "registry.json")
    ran = registry("evaluate", "e-v0", *place, "--corpus", rows)
    assert ran.code == 0
    assert f"{rows} does not name the model of its vmaf: it is compared as vmaf_v0.6.1" in ran.err


def test_a_definition_of_a_table_goes_the_same_way(registry: Program, entries: Path, tmp_path: Path) -> None:
    """A CSV of the import names the model in every row: it is trained on by that model's features and range."""
    table = tmp_path / "t.csv"
    where = [entries / "v1-4k", "--pattern", "{src}_{encoder}_{crf}.json"]
    assert registry(*IMPORT, *where, "-o", table).code == 0
    place = ("--registry", tmp_path / "m" / "registry.json", "--corpus", table)
    assert registry("train", "fr_ensemble", "--id", "t", *place, *TRAIN).code == 0
    manifest = next(json.loads(p.read_text()) for p in (tmp_path / "m" / "t").rglob("manifest.json"))
    assert manifest["target"] == {"name": "vmaf", "range": [0.0, 110.0], "definition": "vmaf_v1.0.16_3d0h_2160"}
    assert tuple(manifest["feature_order"]) == features_of("vmaf_v1.0.16_3d0h_2160")
    lines = table.read_text().splitlines()
    (tmp_path / "mixed.csv").write_text("\n".join([*lines[:-1], lines[-1].replace("_3d0h_2160", "_3d0h")]))
    ran = registry("evaluate", "t", *place[:2], "--corpus", tmp_path / "mixed.csv")
    assert (ran.code, f"mixed.csv:{len(lines)}, column vmaf_model: found" in ran.err) == (2, True)


def test_features_by_the_name_of_their_set(registry: Program, entries: Path, tmp_path: Path) -> None:
    """A set's name stands for its columns, alone and among others."""
    place = ("--registry", tmp_path / "m" / "registry.json", "--corpus", entries / "v1.parquet")
    assert registry("train", "fr_ensemble", "--id", "t", *place, *TRAIN, "--features", "vmaf-v1,crf").code == 0
    manifest = next(json.loads(p.read_text()) for p in (tmp_path / "m" / "t").rglob("manifest.json"))
    assert manifest["feature_order"] == ["cambi", "speed_chroma_uv", "adm3", "motion3", "crf"]
    ran = registry("train", "fr_ensemble", "--id", "u", *place, *TRAIN, "--features", "canonical-6")
    assert (ran.code, "no column 'adm2'" in ran.err) == (2, True)
