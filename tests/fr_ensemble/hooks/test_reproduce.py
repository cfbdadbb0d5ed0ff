"""test_reproduce.py: an ensemble trained again: the same bytes, another environment, forgeries, other corpora."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, program_without
from fr_ensemble.artifacts.graphs import fused_model, read_weights
from fr_ensemble.artifacts.manifest import fused_format_of, scaler_of
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.evidence import loso
from fr_ensemble.evidence.metrics import METRICS, METRICS_VERSION, STORED_PREFIX
from fr_ensemble.evidence.oof import read_oof
from registries import TRAINING, Made
from sandbox import Sandbox, tree

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.plugins.manager import load
from registry_tool.workflows.loading import usable, verified_entry


def test_the_same_bytes(production: Sandbox, made: Made, registry: Program, tmp_path: Path) -> None:
    """Every file and the manifest are the same on any number of cores; --keep holds the run, --exact is met."""
    before, keep = production.tree(), tmp_path / "again"
    ran = registry(
        "reproduce",
        "tiny",
        "--corpus",
        made.corpus,
        "--registry",
        production.path,
        "--format",
        "json",
        "--jobs",
        1,
        "--keep",
        keep,
        "--exact",
    )
    document = json.loads(ran.out)
    assert violations(document, schemas.load("reproduction")) == []
    assert (ran.code, document["outcome"], document["changes"], document["environment"]) == (0, "identical", [], [])
    assert set(document["files"]) == {
        path.relative_to(production.artifacts).as_posix() for path in production.artifacts.rglob("*.*")
    }
    assert {agreement["largest"] for agreement in document["agreements"]} == {0.0}
    assert production.tree() == before
    assert tree(keep) == tree(production.artifacts)


@pytest.mark.parametrize("version", [None, 1, METRICS_VERSION - 1])
def test_an_entry_of_fewer_figures_is_the_same_entry(
    smoke: Sandbox, made: Made, registry: Program, version: int | None
) -> None:
    """A release that measures more trains an older release's entry to the same bytes: --exact is met."""

    def forge(manifest: dict[str, Any]) -> None:
        manifest["eval"] = {name: value for name, value in manifest["eval"].items() if name not in later}
        del manifest["metrics_version"]
        manifest |= {} if version is None else {"metrics_version": version}

    later = [STORED_PREFIX + name for name, metric in METRICS.items() if metric.since > (version or 1)]
    assert smoke.forged(forge) == []
    where = ("reproduce", "tiny", "--corpus", made.corpus, "--registry", smoke.path)
    ran = registry(*where, "--exact", "--format", "json")
    document = json.loads(ran.out)
    assert (ran.code, document["outcome"], document["changes"]) == (0, "identical", [])


def test_another_zlib_is_the_same_entry(smoke: Sandbox, made: Made, registry: Program) -> None:
    """Evidence that another zlib compressed is compared by what it holds: --exact is met, and a line says so."""
    recompressed = {}
    for path in sorted(smoke.artifacts.rglob("*.npz")):
        stream = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w") as new:
            for info in old.infolist():
                new.writestr(info, old.read(info), zipfile.ZIP_DEFLATED, 1)
        assert stream.getvalue() != path.read_bytes()
        recompressed[path.relative_to(smoke.artifacts).as_posix()] = stream.getvalue()
    smoke.forge(files=recompressed)
    assert registry("validate", smoke.path).code == 0
    where = ("reproduce", "tiny", "--corpus", made.corpus, "--registry", smoke.path)
    ran = registry(*where, "--exact", "--format", "json")
    document = json.loads(ran.out)
    assert (ran.code, document["outcome"]) == (0, "identical")
    warned = [f"{path}: the same content, compressed by another zlib" for path in recompressed]
    assert sorted(document["warnings"]) == sorted(warned)


@pytest.fixture(scope="module")
def elsewhere(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training compiled for a processor without fused multiply-add: other bytes."""
    from fr_ensemble.training.compiling import has_fma

    if not has_fma():
        pytest.skip("NOT TESTED on this processor, which has no fused multiply-add: other bytes explained")
    path = tmp_path_factory.mktemp("elsewhere") / "registry.json"
    arguments = ("train", "fr_ensemble", "--id", "tiny", "--corpus", made.corpus, *TRAINING, "--registry", path)
    plain = os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "-avx,-fma"}
    ran = program_without(("torch",), *arguments, env=plain)
    assert ran.returncode == 0, ran.stderr
    return path.parent


def test_another_environment_explains_other_bytes(
    elsewhere: Path, made: Made, registry: Program, tmp_path: Path
) -> None:
    """Predictions agree, the rounding of products is named as what differs, and only --exact minds."""
    box = Sandbox(elsewhere / "registry.json").copy(tmp_path / "model")
    where = ("reproduce", "tiny", "--corpus", made.corpus, "--registry", box.path)
    ran = registry(*where, "--format", "json", "--exact")
    document = json.loads(ran.out)
    assert (ran.code, document["outcome"]) == (1, "within-tolerance")
    assert violations(document, schemas.load("reproduction")) == []
    [difference] = document["environment"]
    assert (difference["name"], difference["then"], difference["now"]) == ("multiply-add", "two roundings", "fused")
    assert not document["files"]["tiny_seed0.onnx"]
    assert all(agreement["largest"] > 0 and agreement["holds"] for agreement in document["agreements"])
    assert all(change["explained"] for change in document["changes"])


def test_other_bytes_without_another_environment_are_refused(
    elsewhere: Path, made: Made, registry: Program, tmp_path: Path
) -> None:
    """As near as the predictions may be: here the same training gives the same bytes."""
    box = Sandbox(elsewhere / "registry.json").copy(tmp_path / "model")
    other = Sandbox(made.smoke / "registry.json")
    box.forge(lambda manifest: manifest.update(environment=other.manifest["environment"]))
    ran = registry("reproduce", "tiny", "--corpus", made.corpus, "--registry", box.path)
    assert ran.code == 1
    assert "NOT reproduced: bytes differ, and nothing recorded explains it" in ran.out
    assert "no difference between then and now explains it" in ran.out


def test_a_manifest_that_tells_another_training_is_refused(smoke: Sandbox, made: Made, registry: Program) -> None:
    """Weights of thirty epochs under a recipe of one that `validate` has nothing against do not come out again."""

    def forge(manifest: dict[str, Any]) -> None:
        manifest |= {"recipe": recipe.to_dict(), "recipe_sha256": recipe.sha256}
        manifest["environment"] = [{"name": "numba", "version": "0.1"}]

    recipe = Recipe.from_dict(smoke.manifest["recipe"] | {"epochs": 1})
    oof = read_oof((smoke.artifacts / "evidence/oof.npz").read_bytes())
    object.__setattr__(oof, "recipe_sha256", recipe.sha256)
    forge(manifest := smoke.manifest)
    members = [read_weights((smoke.artifacts / member["onnx"]).read_bytes()) for member in manifest["members"]]
    widths = (len(manifest["feature_order"]), len(manifest["codec_vocab"]))
    fused = fused_model(members, scaler_of(manifest), *widths, fused_format_of(manifest))
    files = {manifest["fused"]["onnx"]: fused, **loso.to_files(oof, manifest["corpus"]["name"])}
    assert smoke.forged(forge, files) == []
    ran = registry("reproduce", "tiny", "--corpus", made.corpus, "--registry", smoke.path)
    assert (ran.code, "NOT reproduced: predictions differ beyond tolerance" in ran.out) == (1, True)
    assert "numba: then 0.1, now " in ran.out
    assert "FAIL" in ran.out


def test_an_input_range_is_proved(smoke: Sandbox, made: Made, registry: Program) -> None:
    """What `validate` cannot know without inputs, the corpus does; an older manifest's missing record is no matter."""
    smoke.drop_inputs()

    def forge(manifest: dict[str, Any]) -> None:
        manifest["intervals"]["input_ranges"][0]["range"][0] -= 1.0
        del manifest["corpus"]["record"]
        manifest["environment"] = [item for item in manifest["environment"] if item["name"] != "libc"]

    assert smoke.forged(forge) == []
    ran = registry("reproduce", "tiny", "--corpus", made.corpus, "--registry", smoke.path)
    assert ran.code == 1
    assert "/intervals/input_ranges/0/range/0: then " in ran.out
    assert "not recorded then, so not compared: /corpus/record" in ran.out


def test_the_same_rows_in_another_file(smoke: Sandbox, made: Made, registry: Program, tmp_path: Path) -> None:
    """They give the same bytes, with a warning that the file itself is another one."""
    lines = made.corpus.read_text().splitlines()
    (tmp_path / "copy.csv").write_text("\n".join(lines) + "\n\n")
    ran = registry("reproduce", "tiny", "--corpus", tmp_path / "copy.csv", "--registry", smoke.path)
    assert (ran.code, "made again, to the same bytes" in ran.out) == (0, True)
    assert "another file with the same rows" in ran.err


def test_another_corpus_is_refused_before_training(
    smoke: Sandbox, made: Made, registry: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both digests are named; so is the corpus where none was, since this one does not ship."""
    monkeypatch.setattr("fr_ensemble.hooks.reproduce.make", lambda *given: pytest.fail("it trained"))
    where = ("reproduce", "tiny", "--registry", smoke.path)
    ran = registry(*where, "--corpus", made.heldout)
    assert ran.code == 2
    for part in ("found rows of sha256 ", f"expected {smoke.manifest['corpus']['rows_sha256']} (corpus.csv, 300 rows)"):
        assert part in ran.err
    ran = registry(*where)
    assert (ran.code, "'corpus.csv', which does not ship" in ran.err) == (2, True)
    ran = registry(*where, "--corpus", smoke.folder / "none.csv")
    assert (ran.code, "none.csv" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainer_version": 99}, "found trainer_version 99.*the version that trained it"),
        (
            {"trainer_version": 1},
            "found trainer_version 1, .*release 0.1.0 of registry-tool",
        ),
        ({"momentum": 1}, "unknown field 'momentum'.*the version that trained it"),
    ],
)
def test_a_recipe_of_another_program_is_refused(
    smoke: Sandbox, made: Made, monkeypatch: pytest.MonkeyPatch, change: dict[str, int], words: str
) -> None:
    """It says which release can tell."""
    from fr_ensemble.hooks.reproduce import reproduce

    from registry_tool.errors import InputError
    from registry_tool.hookspec import ReproduceRequest

    loaded = usable(smoke.path)
    with verified_entry(loaded, load(), "tiny") as view:
        assert view.manifest is not None
        view = dataclasses.replace(view, manifest={**view.manifest, "recipe": {**view.manifest["recipe"], **change}})
        with pytest.raises(InputError, match=words):
            reproduce(view, ReproduceRequest(made.corpus))


def test_random_rows_are_refused(random_rows: Sandbox, registry: Program) -> None:
    """There is no corpus to train on again."""
    ran = registry("reproduce", "tiny", "--registry", random_rows.path)
    assert (ran.code, "trained on random rows" in ran.err) == (2, True)


def test_predictions_of_other_rows_are_told(smoke: Sandbox) -> None:
    """The differences are measured as they are: by hand, of three rows."""
    from fr_ensemble.hooks.reproduce import agreement_of

    found = agreement_of("mu", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]), 1.8, "vmaf")
    assert (found.largest, found.rms, found.holds) == (3.0, pytest.approx(3.0**0.5), True)
